"""One listener over HTTP/1.1: channel calls at the speed of the machine, everything else by aiohttp on the same port.

A connection is read here as long as its requests have the one strict form of `core.http1`: such a call goes to the
door at once, its body straight into the buffer that the receiver will get. With the first request of any other form
the connection, with every byte since that request's beginning, goes over to aiohttp for good; so there is one complete
HTTP here, and never two opinions on one request. What an HTTP/2 client begins goes to `http2` where one is given.

Bounds: connections in all, of one address and of one partner; a head within HEAD_S; a body at the pace of `io.body`; an
answer's reader may not stall; idle connections end after IDLE_S. When all places are taken, a connection that has not
yet brought a request gives its own to a new one, so that strangers who connect and wait keep nobody out.
"""

import asyncio
import resource
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, cast

from aiohttp import web

from gateway.data_plane.core import http1, wire
from gateway.data_plane.core.wire import Buffer
from gateway.data_plane.io import body as pace
from gateway.data_plane.io import door, transports
from gateway.data_plane.io.filed import BLOCK, File, Files
from gateway.data_plane.io.rooms import Rooms
from gateway.data_plane.io.standing import Standing
from gateway.errors import Kind, ProtocolViolation, Unavailable
from gateway.model import Limits
from gateway.ports import Journal

HEAD_S: Final = 10.0
"""From the first byte of a head to its last."""
IDLE_S: Final = 75.0
LINGER_S: Final = 5.0
"""What is left of a refused body is read and dropped for so long, or its sender would not see the answer."""
SWEEP_S: Final = 0.5
DRAIN_LOOK_S: Final = 0.01
HEAD_BYTES: Final = 64 << 10
"""Of one head; aiohttp, which gets those that have another form, bounds their lines."""
SCRATCH: Final = 64 << 10
TURN: Final = 1 << 20
"""Bytes of a body that are read before others have their turn."""
_NEVER: Final = float("inf")
_READS: Final = frozenset({"pop", "peek"})
_GONE: Final = "the caller went away"

Http2 = Callable[[], asyncio.Protocol]
"""Makes the protocol that takes over a connection of HTTP/2, its first bytes included."""


class Front:
    """One listener: a protocol factory for `create_server`, and the connections that it made.

    rest: serves whatever is not served here. cancel_with_client: a call ends with its connection, so that a reader who
    has left takes no message along. address_connections: of one source address, where that says anything.
    """

    def __init__(
        self,
        *,
        doors: door.Door,
        standing: Standing,
        files: Files,
        rooms: Rooms,
        limits: Limits,
        journal: Journal,
        rest: web.Server,
        side: str,
        cancel_with_client: bool,
        address_connections: int,
        http2: Http2 | None = None,
    ) -> None:
        self.doors = doors
        self.standing = standing
        self.files = files
        self.budget = files.budget
        self.rooms = rooms
        self.rest = rest
        self.http2 = http2
        self.cancel_with_client = cancel_with_client
        self.loop = asyncio.get_running_loop()
        # A loop reads for one connection at a time, from asking for a buffer to saying how much is in it.
        self.scratch = memoryview(bytearray(SCRATCH))
        self.date = formatdate(usegmt=True)
        self.stopping = False
        self.side = side
        self._journal = journal
        self._most = min(limits.connections, _files() // 2)
        self._most_of_address = address_connections
        self._here: dict[_Connection, None] = {}
        self._away: dict[asyncio.Transport, str] = {}
        self._addresses: dict[str, int] = {}
        self._refused = 0
        self._sweeping = self.loop.call_later(SWEEP_S, self._sweep)

    def __call__(self) -> asyncio.BufferedProtocol:
        return _Connection(self)

    @property
    def connections(self) -> int:
        return len(self._here) + len(self._away)

    def admit(self, connection: "_Connection") -> bool:
        """Give a new connection a place; False when there is none."""
        address = connection.address
        if self.stopping:
            return False
        crowded = self._addresses.get(address, 0) >= self._most_of_address
        if crowded or self.connections >= self._most:
            self._forget_away()
            crowded = self._addresses.get(address, 0) >= self._most_of_address
            if (crowded or self.connections >= self._most) and not self._evict(address if crowded else None):
                self._refused += 1
                return False
        self._here[connection] = None
        self._addresses[address] = self._addresses.get(address, 0) + 1
        return True

    def leave(self, connection: "_Connection") -> None:
        """A connection has ended."""
        if connection in self._here:
            del self._here[connection]
            _one_less(self._addresses, connection.address)

    def hand_over(self, connection: "_Connection", transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        """Let another protocol have the connection; it keeps its place here until its transport closes."""
        transport.set_protocol(protocol)
        self.leave(connection)
        self._away[transport] = connection.address
        self._addresses[connection.address] = self._addresses.get(connection.address, 0) + 1
        protocol.connection_made(transport)

    async def stop(self, drain_s: float) -> None:
        """Let calls under way end within `drain_s` seconds, close everything. New connections are refused."""
        self.stopping = True
        self._sweeping.cancel()
        working = [task for connection in list(self._here) if (task := connection.finish()) is not None]
        self.rest.pre_shutdown()
        until = self.loop.time() + drain_s
        if working:
            await asyncio.wait(working, timeout=drain_s)
        while self._here and self.loop.time() < until:  # noqa: ASYNC110  # at the end, and once
            # What has been answered is still being sent.
            await asyncio.sleep(DRAIN_LOOK_S)
        for connection in list(self._here):
            connection.abort()
        await self.rest.shutdown(drain_s)
        for transport in list(self._away):
            transports.abort(transport)

    def _evict(self, address: str | None) -> bool:
        """Close the connection that has waited longest without ever bringing a request."""
        for connection in self._here:
            if connection.fresh and address in {None, connection.address}:
                self.leave(connection)
                connection.abort()
                return True
        return False

    def _forget_away(self) -> None:
        for transport in [transport for transport in self._away if transport.is_closing()]:
            _one_less(self._addresses, self._away.pop(transport))
            self.standing.leave(transport)

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in [connection for connection in self._here if connection.due <= now]:
            connection.expire()
        self._forget_away()
        if self._refused:
            self._journal.note("edge.full", side=self.side, refused=self._refused, connections=self.connections)
            self._refused = 0
        self.date = formatdate(usegmt=True)
        self._sweeping = self.loop.call_later(SWEEP_S, self._sweep)


def _files() -> int:
    """How many files the process may have open; every connection is one, and others are needed besides."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _one_less(counts: dict[str, int], key: str) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]


class _Connection(asyncio.BufferedProtocol):
    """One connection: reads requests, one at a time, and has a task that serves them in order.

    Reading a head (`_request` is None), serving (`_request`), filling a body (`_body`), or dropping what is left of one
    (`_left` without `_request`). While a request is served, the bytes behind it wait in `_kept`.
    """

    __slots__ = (
        "_at",
        "_body",
        "_closing",
        "_drained",
        "_ended",
        "_file",
        "_filled",
        "_front",
        "_full",
        "_head",
        "_idle",
        "_kept",
        "_left",
        "_lent",
        "_paused",
        "_read",
        "_request",
        "_transport",
        "_turn",
        "_until",
        "_worker",
        "address",
        "due",
        "fresh",
        "ssl_object",
    )

    def __init__(self, front: Front) -> None:
        self._front = front
        self._transport: asyncio.Transport | None = None
        self.address = ""
        self.ssl_object: Any | None = None
        self.due = _NEVER
        """When `expire` is to be called, on the loop's clock."""
        self.fresh = True
        """No whole head has come yet."""
        self._kept: bytes | bytearray = b""
        # The last head and what was read from it: most clients repeat theirs byte for byte.
        self._head = b""
        self._read: http1.Request | http1.Other = http1.OTHER
        self._request: http1.Request | None = None
        self._left = 0
        """Bytes of the request's body that nobody has taken; they begin in `_kept`."""
        self._body: memoryview | None = None
        self._at = 0
        self._turn = 0
        self._until = _NEVER
        self._lent = 0
        self._file: File | None = None
        self._filled: asyncio.Future[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._full = False
        self._paused = False
        self._closing = False
        """After the present request."""
        self._ended = False
        """The other end sends no more."""

    # -- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        front = self._front
        self._transport = cast("asyncio.Transport", transport)
        self.ssl_object = transport.get_extra_info("ssl_object")
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        if not front.admit(self):
            transports.abort(self._transport)
            return
        front.standing.add(self._transport, side=front.side)
        self.due = front.loop.time() + IDLE_S
        if front.http2 and self.ssl_object is not None and self.ssl_object.selected_alpn_protocol() == "h2":
            self._hand_over(front.http2())

    def connection_lost(self, _error: Exception | None) -> None:
        front = self._front
        front.leave(self)
        if self._transport is not None:
            front.standing.leave(self._transport)
        self.due = _NEVER
        self._transport = None
        self._kept = b""
        if self._body is not None:
            self._break_off(Unavailable(_GONE, kind=Kind.PEER_UNREACHABLE))
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError(_GONE))
        if self._worker is not None and (front.cancel_with_client or self._request is None):
            self._worker.cancel()

    def eof_received(self) -> bool:
        """Whether to keep the way back open.

        A caller that sends its request and then its end still gets its answer; but not one who reads a message: whether
        it has left cannot be told, and a message that is sent to nobody is lost.
        """
        request = self._request
        if request is None or len(self._kept) < self._left or self.ssl_object is not None:
            return False
        self._ended = True
        return not self._may_be_gone(request)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._front.scratch if self._body is None else self._body[self._at : self._at + wire.PIECE]

    def buffer_updated(self, nbytes: int) -> None:
        if self._body is not None:
            self._fill(self._body, nbytes)
            return
        if self._transport is None:
            return
        piece = self._front.scratch[:nbytes]
        if self._request is not None:
            self._kept = self._kept + piece
            if len(self._kept) > self._left + SCRATCH:
                self._reading(on=False)
            return
        if self._left:
            dropped = min(self._left, nbytes)
            self._left -= dropped
            piece = piece[dropped:]
            if not self._left:
                self.due = self._front.loop.time() + IDLE_S
                if self._closing:
                    self.close()
                    return
            if not piece:
                return
        searched = len(self._kept)
        if searched:
            self._kept += piece
        else:
            self._kept = bytes(piece)
        self._begin(searched)

    # -- time and the end

    def expire(self) -> None:
        """The time of whatever is under way is over."""
        late, self.due = self.due >= self._until, _NEVER
        if self._body is not None:
            self._break_off(ProtocolViolation("body: too slow" if late else "body: stalled"))
        elif self._request is not None:
            self.abort()
        elif self._kept and not self._left:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.close()

    def finish(self) -> "asyncio.Task[None] | None":
        """Close after the present request, whose task is returned; at once where there is none."""
        self._closing = True
        if self._request is None:
            self.close()
            return None
        return self._worker

    def close(self) -> None:
        """Close when everything has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            transports.abort(self._transport)
        if self._worker is not None:
            self._worker.cancel()

    # -- heads

    def _begin(self, searched: int) -> None:
        """Serve the request whose head is whole in `_kept`; searched: bytes of it that cannot hold the head's end."""
        kept, front = self._kept, self._front
        at = kept.find(http1.END, max(0, searched - len(http1.END)))
        if at < 0:
            if len(kept) > HEAD_BYTES:
                self._refuse(HTTPStatus.BAD_REQUEST)
            elif not searched:
                self._kept = bytearray(kept)
                self.due = front.loop.time() + HEAD_S
            return
        end = at + len(http1.END)
        head = kept[:end]
        if head != self._head:
            self._read = http1.read_request(bytes(head))
            self._head = bytes(head)
        self.fresh = False
        if isinstance(self._read, http1.Other):
            http2 = front.http2 if http1.HTTP2_PREFACE.startswith(head) else None
            self._hand_over(http2() if http2 else front.rest())
            return
        request = self._request = self._read
        self._kept = bytes(kept[end:])
        self._left = request.length
        self.due = _NEVER
        if self._ended and (len(self._kept) < self._left or self._may_be_gone(request)):
            self.close()
            return
        if len(self._kept) < self._left:
            # Who asks is judged by the head alone; until then the body is left where it is.
            self._reading(on=False)
        if self._worker is None:
            self._worker = front.loop.create_task(self._work())
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _may_be_gone(self, request: http1.Request) -> bool:
        """Whether a caller that sends no more may have left, and a message with it."""
        return request.name in _READS and self._front.cancel_with_client

    def _hand_over(self, protocol: asyncio.Protocol) -> None:
        """Leave the connection, with all bytes that nobody has served, to another protocol."""
        transport, kept = self._transport, self._kept
        if transport is None:
            return
        self.due = _NEVER
        self._reading(on=True)
        self._transport = None
        self._kept = b""
        self._front.hand_over(self, transport, protocol)
        if kept:
            protocol.data_received(bytes(kept))
        if self._full:
            protocol.pause_writing()
        if self._worker is not None:
            self._worker.cancel()

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer to what is no request, and close."""
        self._kept = b""
        self.due = _NEVER
        if self._transport is not None:
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            self._transport.write(head.encode())
            self._transport.close()

    def _reading(self, *, on: bool) -> None:
        if self._transport is not None and self._paused is on:
            self._paused = not on
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # -- serving

    async def _work(self) -> None:
        front = self._front
        try:
            while self._transport is not None:
                request = self._request
                if request is None:
                    self._idle = front.loop.create_future()
                    await self._idle
                    continue
                after: list[Callable[[bool], None]] = []
                call = door.Call(
                    method="POST",
                    name=request.name,
                    headers=request.headers.items(),
                    prove=partial(front.standing.prove, self._transport),
                    body=self._body_of,
                    wait=request.wait,
                    after=after,
                )
                try:
                    await self._answer(request, await front.doors.chan(call))
                    door.tell(after, written=self._transport is not None and not self._transport.is_closing())
                finally:
                    door.tell(after, written=False)
                if not self._done():
                    return
                if self._request is not None:
                    # Requests sent ahead of time may not keep others waiting.
                    await asyncio.sleep(0)
        except (ConnectionError, TimeoutError):
            self.abort()

    async def _answer(self, request: http1.Request, reply: door.Reply) -> None:
        transport = self._transport
        if transport is None:
            return
        self._closing |= not request.keep or self._front.stopping
        size = wire.size(reply.body)
        head = (
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\nContent-Type: {reply.content_type}\r\n"
            f"Content-Length: {size}\r\nDate: {self._front.date}\r\nServer: interconn\r\n"
            f"{'Connection: close' if self._closing else 'Connection: keep-alive'}\r\n\r\n"
        ).encode()
        if size <= wire.JOIN_BELOW:
            transport.write(b"".join((head, *reply.body)))
        else:
            transport.write(head)
            for piece in wire.slices(reply.body):
                if self._full:
                    await self._drain()
                transport.write(piece)
        if self._full:
            await self._drain()

    async def _drain(self) -> None:
        """Until the other end has taken most of what was written. Raises ConnectionResetError."""
        if self._transport is None:
            raise ConnectionResetError(_GONE)
        self.due = self._front.loop.time() + pace.STALL_S
        self._drained = self._front.loop.create_future()
        await self._drained
        self._drained = None
        self.due = _NEVER

    def _done(self) -> bool:
        """The request has been answered: on to the next. False when the connection ends here."""
        self._request = None
        dropped = min(self._left, len(self._kept))
        self._left -= dropped
        self._kept = bytes(self._kept[dropped:])
        if self._closing and not self._left:
            self.close()
            return False
        self._reading(on=True)
        self.due = self._front.loop.time() + (LINGER_S if self._left else IDLE_S)
        if self._kept:
            self._begin(0)
        if self._ended and self._request is None:
            self.close()
        return self._transport is not None

    # -- bodies

    def _body_of(self, limit: int) -> "_Borrowed":
        return _Borrowed(self, limit)

    async def take_body(self, limit: int) -> Buffer:
        """The whole body, counted in the budget until `repay`. Raises as body.body_of."""
        request, front = self._request, self._front
        if request is None or self._transport is None:
            raise Unavailable(_GONE, kind=Kind.PEER_UNREACHABLE)
        pace.check(request.headers.get("content-encoding"), request.length, limit)
        length, held = request.length, len(self._kept)
        if held >= length:
            front.budget.borrow(length)
            self._lent = length
            self._left = 0
            body, self._kept = self._kept[:length], self._kept[length:]
            return body
        now = front.loop.time()
        self._until = now + pace.longest(length)
        self._file = front.files.make(length)
        if self._file is None:
            whole = front.rooms.take(length)
            await self._receive(whole, now)
            return whole
        block = front.rooms.take(BLOCK)
        try:
            for at in range(0, length, BLOCK):
                piece = block[: length - at]
                await self._receive(piece, front.loop.time())
                await self._file.write(piece, at)
                self._return_memory()
        finally:
            block.release()
        return self._file.whole(length)

    async def _receive(self, room: memoryview, now: float) -> None:
        """Fill a room with what comes next of the body; then the rest waits where it is."""
        front = self._front
        if self._transport is None:
            raise Unavailable(_GONE, kind=Kind.PEER_UNREACHABLE)
        held = min(len(self._kept), len(room))
        front.budget.borrow(held)
        self._lent += held
        room[:held] = self._kept[:held]
        self._kept = bytes(self._kept[held:])
        self._left -= held
        if held == len(room):
            return
        self._body, self._at = room, held
        self.due = min(now + pace.STALL_S, self._until)
        self._filled = front.loop.create_future()
        self._reading(on=True)
        try:
            await self._filled
        except BaseException:
            # The error knows this frame: both stay until they are collected, which may be long after; the room may not.
            room.release()
            raise

    def repay(self) -> None:
        """The body is not held for this call any more."""
        self._return_memory()
        if self._file is not None:
            self._file.repay()
            self._file = None

    def _return_memory(self) -> None:
        self._front.budget.repay(self._lent)
        self._lent = 0

    def _fill(self, room: memoryview, nbytes: int) -> None:
        """More of the body has come."""
        try:
            self._front.budget.borrow(nbytes)
        except Unavailable as e:
            self._at += nbytes
            self._left -= nbytes
            self._break_off(e)
            return
        self._lent += nbytes
        self._at += nbytes
        self._left -= nbytes
        if self._at < len(room):
            self.due = min(self._front.loop.time() + pace.STALL_S, self._until)
            self._turn += nbytes
            if self._turn >= TURN:
                # uvloop reads on for as long as there is something; others would wait.
                self._turn = 0
                self._reading(on=False)
                self._front.loop.call_soon(self._read_on)
            return
        self._body = None
        self.due = _NEVER
        if self._left:
            self._reading(on=False)
        if self._filled is not None and not self._filled.done():
            self._filled.set_result(None)

    def _read_on(self) -> None:
        if self._body is not None:
            self._reading(on=True)

    def _break_off(self, error: Exception) -> None:
        """The body will not be whole."""
        self._body = None
        self.due = _NEVER
        self._reading(on=False)
        if self._filled is not None and not self._filled.done():
            self._filled.set_exception(error)


class _Borrowed:
    """`door.Call.body` of one request."""

    __slots__ = ("_connection", "_limit")

    def __init__(self, connection: _Connection, limit: int) -> None:
        self._connection = connection
        self._limit = limit

    async def __aenter__(self) -> Buffer:
        try:
            return await self._connection.take_body(self._limit)
        except BaseException:
            self._connection.repay()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.repay()
