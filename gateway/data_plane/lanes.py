"""The waiting that order asks for: pushes that wait for their turn, arrivals that wait for what is missing before them.

`core.delivery` decides who waits; here are only the waits and their ends. What a push or an arrival is, and what
becomes of it, is `channel`'s.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from gateway.data_plane.core.delivery import Inbox, Name, Outbox, SendLane, Verdict
from gateway.errors import Kind, Refused, Unavailable
from gateway.model import NodeId, SessionId
from gateway.ports import Clock

HELD: Final = 512
"""Arrivals of one lane that may wait for an earlier one."""
HELD_IN_ALL: Final = 8192


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
