"""All waiting of the channel: pushes for their turn, arrivals for what is missing before them, readers for a message,
messages for room.

The cores decide who waits; here are only the waits and their ends. What a push or an arrival is, and what becomes of
it, is `channel`'s.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.delivery import Inbox, Name, Outbox, SendLane, Verdict
from gateway.errors import Kind, Refused, Unavailable
from gateway.model import NodeId, SessionId
from gateway.ports import Clock

HELD: Final = 512
"""Arrivals of one lane that may wait for an earlier one."""
HELD_IN_ALL: Final = 8192
SLOW_S: Final = 30.0
"""A message that was read from disk for a reader and has not left after so long keeps no others waiting."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One message on its way out."""

    lane: SendLane
    number: int

    @property
    def name(self) -> Name:
        return self.lane.name(self.number)


class Departures:
    """Pushes on their way to partners."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._waiting: dict[SendLane, dict[int, asyncio.Future[None]]] = {}

    def begin(self, session: SessionId, topic: str, target: NodeId) -> Ticket:
        """Number a message. Raises Unavailable(TOO_MANY)."""
        lane = self._outbox.lane(session, topic, target)
        return Ticket(lane, lane.begin())

    async def turn(self, ticket: Ticket, *, seconds: float) -> bool:
        """Until an attempt may be made; False when `seconds` passed before that."""
        lane, number = ticket.lane, ticket.number
        if lane.may_go(number):
            return True
        line = self._waiting.setdefault(lane, {})
        try:
            async with asyncio.timeout(seconds):
                # Who is woken may find that another attempt has failed meanwhile.
                while not lane.may_go(number):
                    line[number] = asyncio.get_running_loop().create_future()
                    await line[number]
        except TimeoutError:
            pass
        finally:
            line.pop(number, None)
            if not line:
                self._waiting.pop(lane, None)
        return lane.may_go(number)

    def end(self, ticket: Ticket, *, taken: bool) -> None:
        """The message was taken or given up: the next ones may go."""
        lane = ticket.lane
        lane.end(ticket.number, taken=taken)
        # Numbers wait in any order, for a repeat waits behind newer ones; there are at most a window's worth to wake.
        for number, woken in sorted(self._waiting.get(lane, {}).items()):
            if not lane.may_go(number):
                break
            if not woken.done():
                woken.set_result(None)

    def forget(self, session: SessionId) -> None:
        """The session has ended: the first push that waits in it finds that out and lets the next one go."""
        self._outbox.forget(session)


@dataclass(slots=True)
class Arrivals:
    """Messages that come in under a name. gap_s: how long one waits for what is missing before it.

    on_gap: told of numbers that will never come (session, topic, source, how many).
    """

    inbox: Inbox
    clock: Clock
    gap_s: float
    on_gap: Callable[[SessionId, str, NodeId, int], None]
    held: int = 0
    _held: dict[tuple[SessionId, str, NodeId, str], dict[int, deque[asyncio.Future[None]]]] = field(
        default_factory=dict
    )

    async def admit(self, session: SessionId, topic: str, source: NodeId, name: Name) -> bool:
        """True: to be taken now, before anything else is awaited. False: taken before.

        Raises Refused(CONFLICT) for a numbering that was followed by another; Unavailable(OVERLOADED) when what is
        missing did not come in time, (BUFFER_FULL) when too many wait: nothing is kept, the sender repeats.
        """
        key, deadline, waited = (session, topic, source, name.writer), self.clock.monotonic() + self.gap_s, False
        while True:
            now = self.clock.monotonic()
            before, skipped = self.inbox.expected(session, topic, source, name), self.inbox.counts.skipped
            verdict = self.inbox.judge(session, topic, source, name, now=now)
            if self.inbox.counts.skipped != skipped:
                self.on_gap(session, topic, source, self.inbox.counts.skipped - skipped)
            if self._held and before != self.inbox.expected(session, topic, source, name):
                self._wake_all(key)
            if verdict is Verdict.TAKE:
                return True
            if verdict is Verdict.STALE:
                raise Refused("the sender has begun a new numbering", kind=Kind.CONFLICT)
            if verdict is Verdict.REPEAT:
                if waited:
                    # Taken as a copy that came meanwhile, or given up by its sender: whoever still asks, asks again.
                    raise Unavailable("settled while it waited", kind=Kind.OVERLOADED)
                return False
            if now >= deadline:
                raise Unavailable("an earlier message of the topic is missing", kind=Kind.OVERLOADED)
            await self._hold(key, name.sequence, seconds=deadline - now)
            waited = True

    def took(self, session: SessionId, topic: str, source: NodeId, name: Name) -> None:
        """The message that was to be taken is in the queue."""
        self.inbox.took(session, topic, source, name)
        line = self._held.get((session, topic, source, name.writer))
        if line:
            _release(line.get(name.sequence + 1, ()))

    def undo(self, session: SessionId, topic: str, source: NodeId, name: Name) -> None:
        """The message could not be kept after all."""
        self.inbox.undo(session, topic, source, name)

    def forget(self, session: SessionId) -> None:
        """The session has ended; arrivals that wait in it find that out by themselves."""
        self.inbox.forget(session)
        for key in [key for key in self._held if key[0] == session]:
            self._wake_all(key)

    async def _hold(self, key: tuple[SessionId, str, NodeId, str], sequence: int, *, seconds: float) -> None:
        line = self._held.setdefault(key, {})
        if len(line) >= HELD or self.held >= HELD_IN_ALL:
            if not line:
                del self._held[key]
            raise Unavailable("too many messages wait for an earlier one", kind=Kind.BUFFER_FULL)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        copies = line.setdefault(sequence, deque())
        copies.append(woken)
        self.held += 1
        try:
            async with asyncio.timeout(seconds):
                await woken
        except TimeoutError:
            pass
        finally:
            self.held -= 1
            copies.remove(woken)
            if not copies and line.get(sequence) is copies:
                del line[sequence]
            if not line and self._held.get(key) is line:
                del self._held[key]

    def _wake_all(self, key: tuple[SessionId, str, NodeId, str]) -> None:
        for copies in self._held.get(key, {}).values():
            _release(copies)


def _release(copies: Iterable[asyncio.Future[None]]) -> None:
    for woken in copies:
        if not woken.done():
            woken.set_result(None)


@dataclass(eq=False, slots=True)
class _Reader:
    number: int
    woken: asyncio.Future[NodeId | None]


_Line = OrderedDict[_Reader, None]


class Readers:
    """Pops that wait for a message. Waking one costs the same however many wait.

    bound: how many may wait at a time.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._lines: dict[SessionId, dict[tuple[str, NodeId | None], _Line]] = {}
        self._numbers = 0
        self.waiting = 0

    def __contains__(self, session: SessionId) -> bool:
        return session in self._lines

    def of(self, session: SessionId) -> int:
        """How many wait in a session."""
        return sum(len(line) for line in self._lines.get(session, {}).values())

    def place(self) -> int:
        """A place in the line: who came first is served first, also after having been woken for nothing."""
        self._numbers += 1
        return self._numbers

    async def wait(self, session: SessionId, topic: str, source: NodeId | None, *, place: int, seconds: float) -> None:
        """Until a message of `source`, or of anyone, may be there, the session ended, or `seconds` passed.

        Raises Unavailable(TOO_MANY).
        """
        if self.waiting >= self._bound:
            raise Unavailable("too many readers wait", kind=Kind.TOO_MANY)
        lines = self._lines.setdefault(session, {})
        line = lines.setdefault((topic, source), OrderedDict())
        reader = _Reader(place, asyncio.get_running_loop().create_future())
        line[reader] = None
        if len(line) > 1 and place < next(iter(line)).number:
            line.move_to_end(reader, last=False)
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await reader.woken
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            # The reader is gone; a wake-up that was meant for it must not be lost for the next one.
            if reader.woken.done() and not reader.woken.cancelled():
                self.wake(session, topic, reader.woken.result())
            raise
        finally:
            self.waiting -= 1
            self._leave(session, (topic, source), reader)

    def wake(self, session: SessionId, topic: str, source: NodeId | None) -> None:
        """A message of `source` has come: wake who has waited longest for such a one."""
        lines = self._lines.get(session)
        if lines is None:
            return
        first: tuple[tuple[str, NodeId | None], _Reader] | None = None
        for key in {(topic, None), (topic, source)}:
            line = lines.get(key)
            if line:
                reader = next(iter(line))
                if first is None or reader.number < first[1].number:
                    first = (key, reader)
        if first is not None:
            self._leave(session, *first)
            if first[1].woken.done():
                self.wake(session, topic, source)
            else:
                first[1].woken.set_result(source)

    def wake_session(self, session: SessionId) -> None:
        """Everyone who waits in a session."""
        for line in self._lines.get(session, {}).values():
            for reader in line:
                if not reader.woken.done():
                    reader.woken.set_result(None)

    def wake_everybody(self) -> None:
        for session in self._lines:
            self.wake_session(session)

    def _leave(self, session: SessionId, key: tuple[str, NodeId | None], reader: _Reader) -> None:
        lines = self._lines.get(session)
        line = lines.get(key) if lines is not None else None
        if lines is None or line is None or reader not in line:
            return
        del line[reader]
        if not line:
            del lines[key]
            if not lines:
                del self._lines[session]


class Room:
    """Messages that wait for room in the buffers: so a slow reader slows the writer before it is refused."""

    def __init__(self) -> None:
        self._lines: OrderedDict[SessionId, deque[asyncio.Future[None]]] = OrderedDict()

    async def wait(self, session: SessionId, *, seconds: float) -> None:
        """Until there may be room, or `seconds` passed."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._lines.setdefault(session, deque())
        line.append(woken)
        try:
            async with asyncio.timeout(seconds):
                await woken
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            if woken.done() and not woken.cancelled():
                self.freed(session)
            raise
        finally:
            if woken in line:
                line.remove(woken)
            if not line and self._lines.get(session) is line:
                del self._lines[session]

    def freed(self, session: SessionId | None) -> None:
        """Room was given back: one who waits tries, of the same session before others. Call it again when it fitted."""
        key = session if session in self._lines else next(iter(self._lines), None)
        if key is None:
            return
        line = self._lines[key]
        woken = line.popleft()
        if line:
            self._lines.move_to_end(key)
        else:
            del self._lines[key]
        if woken.done():
            self.freed(session)
        else:
            woken.set_result(None)


@dataclass(eq=False, slots=True)
class Loan:
    """Bytes of a message that is in memory again. counts: among those for which others wait."""

    size: int
    counts: bool = True
    over: asyncio.TimerHandle | None = None


class Readback:
    """Messages on their way from disk to a reader: in memory again, so many bytes at a time, in the order of asking.

    bound: of bytes; a message alone goes whatever its size. A reader that is slow, or takes nothing, keeps others
    waiting for SLOW_S and no longer.
    """

    def __init__(self, budget: Budget, bound: int) -> None:
        self._budget = budget
        self._bound = bound
        self._used = 0
        self._line: deque[tuple[int, asyncio.Future[Loan]]] = deque()

    async def enter(self, size: int) -> Loan:
        """Until so many bytes may be read; they count in memory until `leave`."""
        if not self._line and self._fits(size):
            return self._take(size)
        woken: asyncio.Future[Loan] = asyncio.get_running_loop().create_future()
        self._line.append((size, woken))
        try:
            return await woken
        except asyncio.CancelledError:
            if woken.cancelled():
                self._line.remove((size, woken))
                self._admit()
            else:
                self.leave(woken.result())
            raise

    def leave(self, loan: Loan) -> None:
        """They have left, or will not."""
        self._uncount(loan)
        self._budget.repay(loan.size)

    def _fits(self, size: int) -> bool:
        return not self._used or self._used + size <= self._bound

    def _take(self, size: int) -> Loan:
        loan = Loan(size)
        loan.over = asyncio.get_running_loop().call_later(SLOW_S, self._uncount, loan)
        self._used += size
        self._budget.lend(size)
        return loan

    def _uncount(self, loan: Loan) -> None:
        if loan.over is not None:
            loan.over.cancel()
        if loan.counts:
            loan.counts = False
            self._used -= loan.size
            self._admit()

    def _admit(self) -> None:
        while self._line and self._fits(self._line[0][0]):
            size, woken = self._line[0]
            if woken.done():  # cancelled, and about to leave the line
                return
            self._line.popleft()
            woken.set_result(self._take(size))
