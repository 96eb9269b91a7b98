"""Messages on disk: what a session with `durability = spool` must not lose, and what does not fit into memory.

Between the queues, which know of no disk, and a spool, which knows of no messages. Two spools: a durable one, read back
after a restart, and an overflow, emptied by one.
"""

import asyncio
import mmap
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateway.data_plane.core import records
from gateway.data_plane.core.budget import MESSAGE_OVERHEAD, Budget
from gateway.data_plane.core.delivery import Inbox, Name, read_name
from gateway.data_plane.core.session import Message, Queues, Stored
from gateway.data_plane.core.wire import Buffer
from gateway.errors import CallerError, GatewayError, Kind, Unavailable
from gateway.model import NodeId, SessionId
from gateway.ports import Clock, Journal

LANES_AT_A_TIME: Final = 100
"""In one record, which is made in well under a millisecond."""
AFTER_FAILURE_S: Final = 10.0
"""So long nothing more overflows to a disk that has refused."""


class Filed(mmap.mmap):
    """A mapped file that nobody changes any more: a payload that is a view of one takes no memory of its own."""


def on_disk_already(payload: Buffer) -> bool:
    """Whether a payload, or the body that it is a part of, lies in a file."""
    return isinstance(payload, memoryview) and isinstance(payload.obj, Filed)


class Found(Protocol):
    """A record that was there at the start."""

    @property
    def kind(self) -> int: ...
    @property
    def meta(self) -> bytes: ...
    @property
    def freed(self) -> bool: ...
    @property
    def stored(self) -> Stored: ...


class Spool(Protocol):
    """See io.spool."""

    carry: Callable[[], Iterable[tuple[int, bytes]]]

    @property
    def size(self) -> int: ...

    def append(self, kind: int, meta: bytes, payload: Buffer, done: Callable[[OSError | None], None], /) -> Stored: ...

    def barrier(self) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class Spools:
    """What a data process was given. None: it has no such disk."""

    durable: Spool | None = None
    overflow: Spool | None = None


@dataclass(slots=True)
class Keeper:
    """Puts messages on disk and gets them back."""

    spools: Spools
    queues: Queues
    budget: Budget
    inbox: Inbox
    clock: Clock
    journal: Journal
    sessions: Callable[[], Iterable[SessionId]]
    _no_overflow_before: float = field(default=float("-inf"))

    def __post_init__(self) -> None:
        self.queues.dropped = _free
        if self.spools.durable is not None:
            self.spools.durable.carry = self._carry

    def hold(self, session: SessionId, topic: str, source: NodeId, payload: Buffer) -> None:
        """Queue a message that lies in a file of its own; it counts on disk. Raises Unavailable(BUFFER_FULL)."""
        self.queues.room(session, topic)
        size, now = len(payload), self.clock.monotonic()
        self.budget.spill(session, size + MESSAGE_OVERHEAD)
        put = self.queues.put
        put(session, topic, source, payload=payload, size=size, now=now, in_memory=False, on_disk=True)

    def overflow(self, session: SessionId, topic: str, source: NodeId, payload: Buffer) -> Awaitable[None]:
        """Queue a message now and write it to the overflow; its memory is the caller's until the awaited is done.

        Raises, at once, Unavailable(BUFFER_FULL).
        """
        spool, now = self.spools.overflow, self.clock.monotonic()
        if spool is None or now < self._no_overflow_before:
            raise Unavailable("no room in memory", kind=Kind.BUFFER_FULL)
        self.queues.room(session, topic)
        size = len(payload)
        self.budget.spill(session, size + MESSAGE_OVERHEAD)
        put = self.queues.put
        message = put(session, topic, source, payload=payload, size=size, now=now, in_memory=False, on_disk=True)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: OSError | None) -> None:
            if error is None:
                message.payload = None
            else:
                # It is in the queue already and stays, in memory that nobody counts; so that is not done often.
                message.stored = None
                self._no_overflow_before = self.clock.monotonic() + AFTER_FAILURE_S
                self.journal.note("spool.failed", reason=str(error), spool="overflow")
            if not written.done():
                written.set_result(None)

        message.stored = spool.append(records.ARRIVED, b"", payload, done)
        return written

    def keep(
        self,
        session: SessionId,
        topic: str,
        source: NodeId,
        payload: Buffer,
        *,
        name: Name | None,
        settled: Callable[[GatewayError | None], bool],
        queued: Callable[[], None],
    ) -> Awaitable[None]:
        """Write a message, then queue it; the awaited is done when it is on disk and in the queue, or raises.

        settled: told, in the order of these calls, whether it is kept; says whether it is still wanted. queued: told
        when it is in the queue.
        Raises, at once, Unavailable(BUFFER_FULL, STORAGE).
        """
        spool, size = self._durable(), len(payload)
        self.queues.room(session, topic)
        cost = size + MESSAGE_OVERHEAD
        self.budget.spill(session, cost)
        in_memory = not on_disk_already(payload)
        try:
            if in_memory:
                self.budget.take(session, source, cost)
        except Unavailable:
            in_memory = False
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stored: Stored

        def done(error: OSError | None) -> None:
            failure = None if error is None else self._failed(error)
            wanted = settled(failure)
            if failure is None and wanted:
                self.queues.put(
                    session,
                    topic,
                    source,
                    payload=payload if in_memory else None,
                    size=size,
                    now=self.clock.monotonic(),
                    in_memory=in_memory,
                    on_disk=True,
                    stored=stored,
                )
                queued()
            else:
                if failure is None:
                    stored.free()
                self.budget.unspill(session, cost)
                if in_memory:
                    self.budget.give(session, source, cost)
            _settle(written, failure)

        stored = spool.append(*records.write(records.Arrived(session, topic, source, str(name or ""))), payload, done)
        return written

    def leave(
        self, leaving: records.Leaving, body: Buffer, *, ended: Callable[[Stored | None], None]
    ) -> Awaitable[None]:
        """Write a push that is to be delivered later; the awaited is done when it is on disk, or raises.

        ended: told what was kept or None, also where the caller has gone away: its message was on its way before, too.
        Raises, at once, Unavailable(BUFFER_FULL, STORAGE), and `ended` is told nothing.
        """
        spool, cost = self._durable(), len(body) + MESSAGE_OVERHEAD
        self.budget.spill(leaving.session, cost)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stored: Stored

        def done(error: OSError | None) -> None:
            if error is not None:
                self.budget.unspill(leaving.session, cost)
            ended(stored if error is None else None)
            _settle(written, None if error is None else self._failed(error))

        stored = spool.append(*records.write(leaving), body, done)
        return written

    def left(self, session: SessionId, stored: Stored) -> None:
        """A push that was to be delivered later was, or can never be."""
        stored.free()
        self.budget.unspill(session, stored.size + MESSAGE_OVERHEAD)

    def sizes(self) -> Mapping[str, int]:
        """Bytes of the files of both spools, for stats."""
        spools = {"spool": self.spools.durable, "overflow": self.spools.overflow}
        return {f"{name}_file_bytes": 0 if spool is None else spool.size for name, spool in spools.items()}

    async def settle(self) -> None:
        """Return when everything kept so far is on disk. Raises Unavailable(BUFFER_FULL, STORAGE)."""
        try:
            await self._durable().barrier()
        except OSError as e:
            raise self._failed(e) from e

    async def payload(self, message: Message) -> Buffer:
        """A message's payload, from disk where it lies there alone. Raises Unavailable(STORAGE), which is noted."""
        if message.payload is not None:
            return message.payload
        if message.stored is None:
            raise CallerError("a message lies neither in memory nor on disk")
        return await self.read(message.session, message.stored)

    async def read(self, session: SessionId, stored: Stored) -> Buffer:
        """As payload, of any record."""
        try:
            return await asyncio.to_thread(stored.read)
        except Unavailable as e:
            self.journal.note("spool.damaged", session_id=session, reason=str(e))
            raise

    def recall(self, found: Iterable[Found]) -> Sequence[tuple[records.Leaving, Stored]]:
        """Queue what the durable spool has found, lanes as they were; returns what is still to be delivered."""
        leaving, now = list[tuple[records.Leaving, Stored]](), self.clock.monotonic()
        for each in found:
            record, stored = records.read(each.kind, each.meta), each.stored
            if isinstance(record, records.Lanes):
                for topic, source, text in record.lanes:
                    self._recall(record.session, topic, source, text, now)
                stored.loosen()
                continue
            if isinstance(record, records.Arrived):
                self._recall(record.session, record.topic, record.source, record.name, now)
            if each.freed:
                continue
            if record is None:
                self.journal.note("spool.unreadable", record=stored.ident)
                stored.free()
                continue
            self.budget.refill(record.session, stored.size + MESSAGE_OVERHEAD)
            if isinstance(record, records.Leaving):
                leaving.append((record, stored))
                continue
            self.queues.put(
                record.session,
                record.topic,
                record.source,
                payload=None,
                size=stored.size,
                now=now,
                in_memory=False,
                on_disk=True,
                stored=stored,
            )
        return leaving

    def _recall(self, session: SessionId, topic: str, source: NodeId, text: str, now: float) -> None:
        name = read_name(text)
        if name is not None:
            self.inbox.recall(session, topic, source, name, now=now)

    def _carry(self) -> Iterator[tuple[int, bytes]]:
        """The lanes of all sessions that keep their messages: names of messages that are gone are still remembered.

        Each record says what is so when it is asked for. What comes meanwhile is told by records behind it.
        """
        for session in self.sessions():
            for record in records.lanes_of(session, self.inbox.state(session), at_a_time=LANES_AT_A_TIME):
                yield records.write(record)

    def _durable(self) -> Spool:
        if self.spools.durable is None:
            raise Unavailable("the session is to be kept on disk and this node has no spool", kind=Kind.STORAGE)
        return self.spools.durable

    def _failed(self, error: OSError) -> Unavailable:
        self.journal.note("spool.failed", reason=str(error), spool="durable")
        failure = Unavailable("the spool cannot be written", kind=Kind.BUFFER_FULL)
        failure.__cause__ = error
        return failure


def _settle(written: asyncio.Future[None], failure: GatewayError | None) -> None:
    """Tell whoever waits, who may be gone."""
    if written.done():
        return
    if failure is None:
        written.set_result(None)
    else:
        written.set_exception(failure)
        # Asked for, so that it is not complained of where nobody will.
        written.exception()


def _free(message: Message) -> None:
    if message.stored is not None:
        message.stored.free()
