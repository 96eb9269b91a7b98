"""The queues: messages by (session, topic), the source node as an attribute of each (4-transport 8 and 9.2).

Order within a topic is that of push, each message goes to exactly one reader, release and idleness drop (T-014 to
T-016, T-021 to T-026, T-049). Nothing waits here and nothing looks at a clock: `pop` gives None and the shell decides,
`now` comes in. Who may touch a session is decided by `gateway.data_plane.channel`. A session that holds nothing is
forgotten, so a released one starts empty and an unused one costs nothing. No step looks at more than it changes.

A popped message is in hand, and its bytes count, until `done` or `put_back` says whether the reader has it. Where its
payload lies on disk the queue holds the spool's handle (`stored`), which it does not touch.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from gateway.data_plane.core.budget import MESSAGE_OVERHEAD, Budget
from gateway.data_plane.core.wire import Buffer
from gateway.errors import Kind, Unavailable
from gateway.model import NodeId, SessionId

LOOKED_AT: Final = 64
"""Topics of a session that are looked at for its oldest message."""


class Stored(Protocol):
    """A record on disk."""

    ident: int

    @property
    def size(self) -> int: ...

    def read(self) -> Buffer:
        """The payload; holds the caller. Raises Unavailable(STORAGE)."""
        ...

    def free(self) -> None:
        """The record is no more."""
        ...

    def loosen(self) -> None:
        """Do not keep it for its own sake: `Spool.carry` gives it again."""
        ...


@dataclass(eq=False, slots=True)
class Message:
    """One queued message. `number` counts the pushes of the process and orders messages of several sources.

    payload: None where it is on disk only. at: when it was pushed. in_memory, on_disk: where its bytes are counted.
    stored: the spool's handle of what is on disk.
    """

    number: int
    session: SessionId
    topic: str
    source: NodeId
    payload: Buffer | None = field(repr=False)
    size: int
    at: float
    in_memory: bool = True
    on_disk: bool = False
    stored: Stored | None = field(default=None, repr=False)

    @property
    def cost(self) -> int:
        return self.size + MESSAGE_OVERHEAD


@dataclass(slots=True)
class _Session:
    # One deque per source, because a reader may ask for one source's messages only.
    topics: dict[str, dict[NodeId, deque[Message]]] = field(default_factory=dict)
    used: float = 0.0
    depth: int = 0


class Queues:
    """All queues of one process. `peek_keeps`: whether peek leaves the message (T-022).

    dropped: told of every message that leaves for good and is on disk.
    """

    def __init__(self, budget: Budget, *, session_topics: int, peek_keeps: bool) -> None:
        self._budget = budget
        self._session_topics = session_topics
        self._peek_keeps = peek_keeps
        # By last use, the longest ago first.
        self._sessions: OrderedDict[SessionId, _Session] = OrderedDict()
        self._in_hand: dict[SessionId, dict[int, Message]] = {}
        self._pushed = 0
        self.dropped: Callable[[Message], None] = lambda _message: None

    def __len__(self) -> int:
        """Sessions that hold messages."""
        return len(self._sessions)

    def sessions(self) -> Iterable[SessionId]:
        """Those that hold messages."""
        return self._sessions.keys()

    def depth(self, session: SessionId) -> int:
        """Messages that wait in a session."""
        held = self._sessions.get(session)
        return held.depth if held else 0

    def oldest(self, session: SessionId) -> float | None:
        """When the message was pushed that waits longest; looked for in the LOOKED_AT topics that hold some longest."""
        held = self._sessions.get(session)
        if held is None:
            return None
        lines = (line for sources in islice(held.topics.values(), LOOKED_AT) for line in sources.values())
        return min(line[0].at for line in lines)

    def room(self, session: SessionId, topic: str) -> None:
        """Raises Unavailable(BUFFER_FULL) where the session may not have another topic."""
        held = self._sessions.get(session)
        if held and topic not in held.topics and len(held.topics) >= self._session_topics:
            raise Unavailable("the session has too many topics with unread messages", kind=Kind.BUFFER_FULL)

    def push(self, session: SessionId, topic: str, source: NodeId, payload: Buffer, *, now: float) -> Message:
        """Append a message to be kept in memory.

        Raises Unavailable(BUFFER_FULL) and changes nothing when over a bound (T-028).
        """
        self.room(session, topic)
        self._budget.take(session, source, len(payload) + MESSAGE_OVERHEAD)
        return self.put(session, topic, source, payload=payload, size=len(payload), now=now)

    def put(
        self,
        session: SessionId,
        topic: str,
        source: NodeId,
        *,
        payload: Buffer | None,
        size: int,
        now: float,
        in_memory: bool = True,
        on_disk: bool = False,
        stored: Stored | None = None,
    ) -> Message:
        """Append a message for whose bytes the caller has found room as `in_memory` and `on_disk` say."""
        message = Message(
            self._pushed, session, topic, source, payload, size, now, in_memory, on_disk=on_disk, stored=stored
        )
        self._pushed += 1
        self._line(message, now).append(message)
        return message

    def pop(self, session: SessionId, topic: str, *, source: NodeId | None, now: float) -> Message | None:
        """Take the oldest message in hand, of `source` where one is given; None when there is none."""
        return self._take(session, topic, source, now, keep=False)

    def peek(self, session: SessionId, topic: str, *, source: NodeId | None, now: float) -> Message | None:
        """As pop, but leaves the message where the declared setting says so (T-022)."""
        return self._take(session, topic, source, now, keep=self._peek_keeps)

    def head(self, session: SessionId, topic: str, *, source: NodeId | None) -> Message | None:
        """What pop would take."""
        held = self._sessions.get(session)
        line = _oldest(held.topics.get(topic), source) if held is not None else None
        return line[0] if line else None

    def done(self, message: Message) -> None:
        """The reader has it."""
        if self._out_of_hand(message):
            self._let_go(message)

    def put_back(self, message: Message, *, now: float) -> bool:
        """The reader went away without it: it stands where it stood. False when it was released meanwhile."""
        if not self._out_of_hand(message):
            return False
        line = self._line(message, now)
        behind = []
        while line and line[0].number < message.number:
            behind.append(line.popleft())
        line.appendleft(message)
        line.extendleft(reversed(behind))
        return True

    def release(self, session: SessionId, topic: str = "") -> int:
        """Drop a topic, or everything when `topic` is empty (T-024, T-025); returns how many messages.

        What is in hand is dropped too, should its reader not get it. A session that is not known is fine (T-026).
        """
        hand = self._in_hand.get(session, {})
        for message in [message for message in hand.values() if not topic or message.topic == topic]:
            self.done(message)
        held = self._sessions.get(session)
        if held is None:
            return 0
        dropped = 0
        for name in [topic] if topic else list(held.topics):
            for line in held.topics.pop(name, {}).values():
                dropped += len(line)
                for message in line:
                    self._let_go(message)
        held.depth -= dropped
        if not held.topics:
            del self._sessions[session]
        return dropped

    def expire(self, *, before: float, now: float, kept: Callable[[SessionId], bool]) -> Sequence[SessionId]:
        """Drop every session last used before `before` that is not `kept`; returns the dropped ones (T-049)."""
        expired = []
        while self._sessions:
            session, held = next(iter(self._sessions.items()))
            if held.used >= before:
                break
            if kept(session):
                # Asked again when it has been idle for as long once more.
                held.used = now
                self._sessions.move_to_end(session)
                continue
            expired.append(session)
            self.release(session)
        return expired

    def _line(self, message: Message, now: float) -> deque[Message]:
        """Where a message is about to be put, made where there is none; counts it."""
        session = message.session
        held = self._sessions.get(session)
        if held is None:
            held = self._sessions[session] = _Session()
        else:
            self._sessions.move_to_end(session)
        held.used = now
        held.depth += 1
        return held.topics.setdefault(message.topic, {}).setdefault(message.source, deque())

    def _take(self, session: SessionId, topic: str, source: NodeId | None, now: float, *, keep: bool) -> Message | None:
        held = self._sessions.get(session)
        if held is None:
            return None
        held.used = now
        self._sessions.move_to_end(session)
        line = _oldest(held.topics.get(topic), source)
        if line is None:
            return None
        if keep:
            return line[0]
        message = line.popleft()
        held.depth -= 1
        if not line:
            del held.topics[topic][message.source]
            if not held.topics[topic]:
                del held.topics[topic]
                if not held.topics:
                    del self._sessions[session]
        self._in_hand.setdefault(session, {})[message.number] = message
        return message

    def _out_of_hand(self, message: Message) -> bool:
        hand = self._in_hand.get(message.session)
        if hand is None or hand.pop(message.number, None) is None:
            return False
        if not hand:
            del self._in_hand[message.session]
        return True

    def _let_go(self, message: Message) -> None:
        if message.in_memory:
            self._budget.give(message.session, message.source, message.cost)
        if message.on_disk:
            self._budget.unspill(message.session, message.cost)
            self.dropped(message)


def _oldest(sources: dict[NodeId, deque[Message]] | None, source: NodeId | None) -> deque[Message] | None:
    """The line whose first message a reader gets next."""
    if sources is None:
        return None
    if source is not None:
        return sources.get(source)
    return min(sources.values(), key=lambda candidate: candidate[0].number)
