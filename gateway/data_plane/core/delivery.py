"""Exactly once between gateways: what names a message, and what a name decides at either end (docs/transport.md).

A name, the value of `x-interconn-message`, is `<epoch>-<sequence>-<floor>`. A lane is one numbering: the messages of
one writer in one (session, topic) towards one node. Within an epoch they are numbered from 0; floor is the lowest
number whose sending has not ended: every number below it was taken, or was given up and its writer told so. So a
receiver that knows nothing of a lane begins at the floor, and a gap below the floor is final.

An epoch begins with `t` where the container itself numbers (it then survives the sending gateway); such lanes stand
side by side. The gateway's own epochs follow one another, later ones are greater: a new one means that the gateway has
started anew or forgotten an idle lane, and what still comes under an earlier one is refused, never put behind newer
messages. Only a lane long unused goes on under a smaller one, for the sender's clock may have been set back.

Nothing waits here and nothing looks at a clock; `gateway.data_plane.lanes` does the waiting.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Final

from gateway.errors import Kind, ProtocolViolation, Unavailable
from gateway.model import NodeId, SessionId
from specs import headers as h

WINDOW: Final = 256
"""Messages of a lane that may be on their way at a time."""
OPEN_LANES: Final = 131_072
"""Lanes remembered per sending process and, by a receiver, per partner."""
LANE_IDLE_S: Final = 120.0
"""A receiver forgets the lane unused longest for a new one over the bound, but none that was used so recently."""
TASK: Final = "t"

_NAME: Final = re.compile(r"(t?[0-9a-f]{8,32})-(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})")
_LANE_KEY = tuple[SessionId, str, NodeId, str]


@dataclass(frozen=True, slots=True)
class Name:
    """One message of one lane."""

    epoch: str
    sequence: int
    floor: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}-{self.floor}"

    @property
    def age(self) -> tuple[int, str]:
        """Orders the epochs of a gateway."""
        return len(self.epoch), self.epoch

    @property
    def writer(self) -> str:
        """Which of several lanes side by side: the container's epoch, "" for the gateway's."""
        return self.epoch if self.epoch.startswith(TASK) else ""


def read_name(text: str) -> Name | None:
    """The header's value -> Name; None for "". Raises ProtocolViolation(MALFORMED)."""
    if not text:
        return None
    found = _NAME.fullmatch(text)
    if found is None:
        raise ProtocolViolation(f"{h.MESSAGE}: <epoch>-<sequence>-<floor> expected")
    name = Name(found[1], int(found[2]), int(found[3]))
    if name.floor > name.sequence:
        raise ProtocolViolation(f"{h.MESSAGE}: the floor is above the sequence")
    return name


# -- the sending side


class SendLane:
    """Numbers the messages of one (session, topic, target) and says which may go.

    Messages go out in order of their numbers, up to WINDOW at a time. Once an attempt has failed only the lowest goes,
    until something gets through: so a repeat never overtakes, and the receiver has little to hold.
    """

    __slots__ = ("_next", "_open", "epoch", "troubled")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.troubled = False
        self._next = 0
        # Ascending; a dict because it forgets in O(1) wherever the number stands.
        self._open: dict[int, None] = {}

    @property
    def idle(self) -> bool:
        return not self._open

    @property
    def floor(self) -> int:
        return next(iter(self._open), self._next)

    def begin(self) -> int:
        """The number of a new message; it is on its way until `end`."""
        number = self._next
        self._next += 1
        self._open[number] = None
        return number

    def name(self, number: int) -> Name:
        """The name that an attempt made now carries."""
        return Name(self.epoch, number, self.floor)

    def may_go(self, number: int) -> bool:
        """Whether an attempt may be made now."""
        floor = self.floor
        return number == floor or (not self.troubled and number < floor + WINDOW)

    def failed(self) -> None:
        """An attempt has failed and will be repeated."""
        self.troubled = True

    def end(self, number: int, *, taken: bool) -> None:
        """The message was taken, or given up and its writer told so."""
        self._open.pop(number, None)
        if taken:
            self.troubled = False


class Outbox:
    """The lanes of a sending process. epochs: an endless source of ids, each greater than any used before."""

    def __init__(self, epochs: Iterator[str], *, lanes: int = OPEN_LANES) -> None:
        self._epochs = epochs
        self._bound = lanes
        self._lanes: OrderedDict[tuple[SessionId, str, NodeId], SendLane] = OrderedDict()
        self._by_session: dict[SessionId, set[tuple[SessionId, str, NodeId]]] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def lane(self, session: SessionId, topic: str, target: NodeId) -> SendLane:
        """The lane, made where there is none. Idle ones beyond the bound are forgotten: they go on as a new epoch.

        Raises Unavailable(TOO_MANY) where all have messages on their way.
        """
        key = (session, topic, target)
        lane = self._lanes.get(key)
        if lane is not None:
            self._lanes.move_to_end(key)
            return lane
        if len(self._lanes) >= self._bound:
            oldest, idle = next(iter(self._lanes.items()))
            if not idle.idle:
                raise Unavailable("too many topics have messages on their way", kind=Kind.TOO_MANY)
            self._drop(oldest)
        lane = self._lanes[key] = SendLane(next(self._epochs))
        self._by_session.setdefault(session, set()).add(key)
        return lane

    def forget(self, session: SessionId) -> None:
        """The session has ended."""
        for key in list(self._by_session.get(session, ())):
            self._drop(key)

    def _drop(self, key: tuple[SessionId, str, NodeId]) -> None:
        self._lanes.pop(key, None)
        keys = self._by_session.get(key[0])
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self._by_session[key[0]]


# -- the receiving side


@unique
class Verdict(Enum):
    """What becomes of an arrival."""

    TAKE = "take"
    REPEAT = "repeat"
    """Taken before: answer success, keep nothing."""
    EARLY = "early"
    """A lower number is missing that may still come."""
    STALE = "stale"
    """Of an epoch before the lane's."""


@dataclass(slots=True)
class _Lane:
    age: tuple[int, str]
    expected: int
    used: float = 0.0

    @property
    def epoch(self) -> str:
        return self.age[1]


@dataclass(slots=True)
class Counts:
    """What names have decided since the start, for stats."""

    repeats: int = 0
    stale: int = 0
    skipped: int = 0
    """Numbers that will never come: their senders gave them up and told the writers."""


@dataclass(slots=True)
class Inbox:
    """What a receiving process knows of its partners' lanes. lanes: bound per partner."""

    lanes: int = OPEN_LANES
    counts: Counts = field(default_factory=Counts)
    _by_source: dict[NodeId, OrderedDict[_LANE_KEY, _Lane]] = field(default_factory=dict)
    _by_session: dict[SessionId, OrderedDict[_LANE_KEY, None]] = field(default_factory=dict)
    """Ordered only so that `state` can go on behind where it was."""

    def __len__(self) -> int:
        return sum(len(lanes) for lanes in self._by_source.values())

    def judge(self, session: SessionId, topic: str, source: NodeId, name: Name, *, now: float) -> Verdict:
        """What is to be done with an arrival. A TAKE counts once `took` is called.

        Raises Unavailable(BUFFER_FULL) for a new lane where the partner already has too many in use.
        """
        lane = self._lane((session, topic, source, name.writer), name, now)
        if name.age < lane.age and now - lane.used < LANE_IDLE_S:
            self.counts.stale += 1
            return Verdict.STALE
        lane.used = now
        if name.age != lane.age:
            lane.age, lane.expected = name.age, name.floor
        elif name.floor > lane.expected:
            self.counts.skipped += name.floor - lane.expected
            lane.expected = name.floor
        if name.sequence < lane.expected:
            self.counts.repeats += 1
            return Verdict.REPEAT
        return Verdict.TAKE if name.sequence == lane.expected else Verdict.EARLY

    def took(self, session: SessionId, topic: str, source: NodeId, name: Name) -> None:
        """The message that was to be taken is in the queue."""
        lane = self._known((session, topic, source, name.writer))
        if lane is not None and lane.epoch == name.epoch:
            lane.expected = max(lane.expected, name.sequence + 1)

    def undo(self, session: SessionId, topic: str, source: NodeId, name: Name) -> None:
        """The message could not be kept after all, nor any after it; they are to come again."""
        lane = self._known((session, topic, source, name.writer))
        if lane is not None and lane.epoch == name.epoch:
            lane.expected = min(lane.expected, name.sequence)

    def expected(self, session: SessionId, topic: str, source: NodeId, name: Name) -> int | None:
        """The number that the lane of a message takes next; None where the epoch is not the lane's."""
        lane = self._known((session, topic, source, name.writer))
        return lane.expected if lane is not None and lane.epoch == name.epoch else None

    def recall(self, session: SessionId, topic: str, source: NodeId, name: Name, *, now: float) -> None:
        """A message that was taken before a restart: the lane goes on behind it."""
        # All are read at once: over the bound the first found go, as they went when they were idle.
        lane = self._lane((session, topic, source, name.writer), name, now, idle_s=0.0)
        if name.age != lane.age:
            lane.age, lane.expected = name.age, 0
        lane.expected = max(lane.expected, name.sequence + 1)

    def state(self, session: SessionId) -> Iterator[tuple[str, NodeId, Name]]:
        """(topic, source, the last name taken) of a session's lanes: what `recall` makes them of again.

        Lanes may come and go while it is read; those that were there and still are are told, as they are by then.
        """
        for _ in range(len(self._by_session.get(session, ()))):
            keys = self._by_session.get(session)
            if not keys:
                return
            # Those still to be told stand before those told and those that have come meanwhile.
            key = next(iter(keys))
            keys.move_to_end(key)
            lane = self._by_source[key[2]][key]
            if lane.expected:
                yield key[1], key[2], Name(lane.epoch, lane.expected - 1, lane.expected - 1)

    def forget(self, session: SessionId) -> None:
        """The session has ended."""
        for key in self._by_session.pop(session, ()):
            lanes = self._by_source[key[2]]
            del lanes[key]
            if not lanes:
                del self._by_source[key[2]]

    def _known(self, key: _LANE_KEY) -> _Lane | None:
        lanes = self._by_source.get(key[2])
        return None if lanes is None else lanes.get(key)

    def _lane(self, key: _LANE_KEY, name: Name, now: float, *, idle_s: float = LANE_IDLE_S) -> _Lane:
        lanes = self._by_source.setdefault(key[2], OrderedDict())
        lane = lanes.get(key)
        if lane is None:
            if len(lanes) >= self.lanes:
                oldest, unused = next(iter(lanes.items()))
                if now - unused.used < idle_s:
                    raise Unavailable("the partner uses too many topics at a time", kind=Kind.BUFFER_FULL)
                del self._by_session[oldest[0]][oldest]
                del lanes[oldest]
            lane = lanes[key] = _Lane(name.age, name.floor, now)
            self._by_session.setdefault(key[0], OrderedDict())[key] = None
        else:
            lanes.move_to_end(key)
        return lane
