"""The way of a forwarded request from data to control process, both ends: frames over a Unix socket.

Half of a small request's time was once HTTP between our own two processes, so there is none. A connection carries one
request at a time, to its answer's end, and is used again; what a slow reader holds up is its own connection alone.

    request   head, certificate and body length (4 bytes each, big-endian), then the three. The head is text: door,
              method, path, query, address of the caller, then names and values of the headers, with NUL between.
    answer    pieces: HTTP status (2 bytes), 1 in the last piece (1 byte), length (4 bytes), then so many bytes of JSON.

An answer without its last piece was broken off. The socket lies in a folder that only this user may enter; that is the
whole of its access control, and control believes what the head says of the caller.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from gateway.data_plane.core.wire import Buffer
from gateway.errors import Kind, ProtocolViolation

SOCKET: Final = "frames.sock"
PIECE: Final = 256 << 10
HEAD_BYTES: Final = 256 << 10
"""Of any request. What is less is control's to judge, by its own limit."""
_ASK: Final = struct.Struct("!III")
_PART: Final = struct.Struct("!HBI")
_CERTIFICATE_BYTES: Final = 64 << 10
_FIXED: Final = 5
_CODE: Final = ("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Ask:
    """A request on its way. path, query: as they came, percent-encoded. headers: name, value, name, value, ..."""

    door: str
    method: str
    path: str
    query: str
    address: str
    headers: Sequence[str] = field(repr=False)
    certificate: bytes | None = field(repr=False, default=None)
    body: Buffer = field(repr=False, default=b"")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: `body`, and then what `more` gives."""

    status: int
    body: bytes = field(repr=False)
    more: AsyncIterator[bytes] | None = field(repr=False, default=None)


Answer = Callable[[Ask], Awaitable[Reply]]


class _Line(asyncio.Protocol):
    """What both ends share: exact reads and writes that wait where the other end is slow."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._full = False
        self._held = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = True
        for waiter in (self._reader, self._writer):
            _wake(waiter)

    def eof_received(self) -> None:
        """The transport closes itself."""

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        _wake(self._writer)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > 2 * PIECE and not self._held and self._transport is not None:
            self._held = True
            self._transport.pause_reading()
        _wake(self._reader)

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes, at most PIECE. Raises ConnectionResetError."""
        while len(self._buffer) < size:
            if self.lost:
                raise ConnectionResetError
            self._reader = self._loop.create_future()
            await self._reader
        got = bytes(self._buffer) if len(self._buffer) == size else bytes(self._buffer[:size])
        del self._buffer[:size]
        if self._held and len(self._buffer) <= PIECE and self._transport is not None and not self.lost:
            self._held = False
            self._transport.resume_reading()
        return got

    async def read_whole(self, size: int) -> bytes:
        if size <= PIECE:
            return await self.read(size)
        whole = bytearray()
        while len(whole) < size:
            whole += await self.read(min(PIECE, size - len(whole)))
        return bytes(whole)

    async def write(self, head: bytes, body: Buffer) -> None:
        """Raises ConnectionResetError."""
        if len(body) <= PIECE:
            await self._put(b"".join((head, body)))
            return
        await self._put(head)
        view = memoryview(body)
        for at in range(0, len(view), PIECE):
            await self._put(view[at : at + PIECE])

    async def _put(self, data: Buffer) -> None:
        if self.lost or self._transport is None:
            raise ConnectionResetError
        self._transport.write(data)
        while self._full:
            self._writer = self._loop.create_future()
            await self._writer
            if self.lost:
                raise ConnectionResetError

    @property
    def clean(self) -> bool:
        """Open, and nothing there that nobody asked for."""
        return not (self.lost or self._buffer or self._full or self._transport is None or self._transport.is_closing())

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _wake(waiter: "asyncio.Future[None] | None") -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


# -- the data process's end


class Answered:
    """An answer whose first piece has come. `rest` gives the others, and must be read to its end or closed."""

    def __init__(self, line: _Line, status: int, first: bytes, whole: bool, silence_s: float) -> None:
        self._line = line
        self.status = status
        self.first = first
        self.whole = whole
        """There is no other piece."""
        self._silence_s = silence_s

    async def rest(self) -> AsyncIterator[bytes]:
        """Raises ConnectionResetError where it is broken off, TimeoutError after too long a silence."""
        while not self.whole:
            async with asyncio.timeout(self._silence_s):
                _, last, length = _PART.unpack(await self._line.read(_PART.size))
                piece = await self._line.read_whole(length)
            self.whole = bool(last)
            yield piece


class Hop:
    """Connections to control. most: of them at once. open_s: for getting one; silence_s: between two of its bytes."""

    def __init__(self, socket: Path, *, most: int, open_s: float, silence_s: float) -> None:
        self._socket = socket
        self._open_s = open_s
        self._silence_s = silence_s
        self._free = asyncio.Semaphore(most)
        self._idle: list[_Line] = []
        self._closed = False

    def ask(self, ask: Ask) -> "_Asking":
        """`async with hop.ask(request) as answered`.

        Raises OSError (ConnectionResetError where control went away in
        the middle, TimeoutError where it is silent or all connections stay taken), ProtocolViolation(TOO_LARGE,
        MALFORMED) for a head that cannot be carried.
        """
        return _Asking(self, ask)

    async def _line(self) -> _Line:
        while self._idle:
            line = self._idle.pop()
            if line.clean:
                return line
            line.close()
        loop = asyncio.get_running_loop()
        _, line = await loop.create_unix_connection(_Line, str(self._socket))
        return line

    async def begin(self, ask: Ask) -> tuple[_Line, Answered]:
        head = "\0".join((ask.door, ask.method, ask.path, ask.query, ask.address, *ask.headers))
        if head.count("\0") != _FIXED + len(ask.headers) - 1:
            raise ProtocolViolation("a header holds NUL")
        raw, certificate = head.encode(*_CODE), ask.certificate or b""
        if len(raw) > HEAD_BYTES:
            raise ProtocolViolation(f"head has more than {HEAD_BYTES} bytes", kind=Kind.TOO_LARGE)
        async with asyncio.timeout(self._open_s):
            await self._free.acquire()
        line: _Line | None = None
        try:
            async with asyncio.timeout(self._silence_s):
                line = await self._line()
                sizes = _ASK.pack(len(raw), len(certificate), len(ask.body))
                await line.write(b"".join((sizes, raw, certificate)), ask.body)
                status, last, length = _PART.unpack(await line.read(_PART.size))
                first = await line.read_whole(length)
        except BaseException:
            self.end(line, again=False)
            raise
        return line, Answered(line, status, first, bool(last), self._silence_s)

    def end(self, line: _Line | None, *, again: bool) -> None:
        """Give a connection back. again: its answer was read to the end."""
        self._free.release()
        if line is None:
            return
        if again and line.clean and not self._closed:
            self._idle.append(line)
        else:
            line.close()

    def close(self) -> None:
        self._closed = True
        for line in self._idle:
            line.close()
        self._idle.clear()


class _Asking:
    def __init__(self, hop: Hop, ask: Ask) -> None:
        self._hop = hop
        self._ask = ask

    async def __aenter__(self) -> Answered:
        self._line, self._answered = await self._hop.begin(self._ask)
        return self._answered

    async def __aexit__(self, *_: object) -> None:
        self._hop.end(self._line, again=self._answered.whole)


# -- control's end


class HopServer:
    """Serves a Unix socket until `stop`. `answer` must not raise; body_bytes bounds a request."""

    def __init__(self, socket: Path, answer: Answer, *, body_bytes: int) -> None:
        self._socket = socket
        self._answer = answer
        self._body_bytes = body_bytes
        self._server: asyncio.Server | None = None
        self._lines: dict[_Serving, asyncio.Task[None]] = {}

    async def start(self) -> None:
        self._socket.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Serving(self._begin), str(self._socket), backlog=512)

    async def stop(self, drain_s: float = 5.0) -> None:
        """Answer what is under way, for at most so long."""
        if self._server is None:
            return
        self._server.close()
        busy = []
        for line, task in list(self._lines.items()):
            if line.busy:
                line.last = True
                busy.append(task)
            else:
                task.cancel()
                line.close()
        if busy:
            _, late = await asyncio.wait(busy, timeout=drain_s)
            for task in late:
                task.cancel()
        await asyncio.gather(*self._lines.values(), return_exceptions=True)
        self._socket.unlink(missing_ok=True)

    def _begin(self, line: "_Serving") -> None:
        task = asyncio.get_running_loop().create_task(self._serve(line))
        self._lines[line] = task
        task.add_done_callback(lambda _: self._lines.pop(line, None))

    async def _serve(self, line: "_Serving") -> None:
        with suppress(ConnectionError):
            try:
                while not line.last:
                    ask = await self._read(line)
                    if ask is None:
                        return
                    await _send(line, await self._answer(ask))
                    line.busy = False
            finally:
                line.close()

    async def _read(self, line: "_Serving") -> Ask | None:
        """None for what our own data process never sends."""
        head, certificate, body = _ASK.unpack(await line.read(_ASK.size))
        line.busy = True
        if head > HEAD_BYTES or certificate > _CERTIFICATE_BYTES or body > self._body_bytes:
            return None
        fields = (await line.read_whole(head)).decode(*_CODE).split("\0")
        if len(fields) < _FIXED or (len(fields) - _FIXED) % 2:
            return None
        shown = await line.read_whole(certificate) if certificate else None
        content = await line.read_whole(body) if body else b""
        door, method, path, query, address, *headers = fields
        return Ask(door, method, path, query, address, headers, shown, content)


class _Serving(_Line):
    def __init__(self, begin: Callable[["_Serving"], None]) -> None:
        super().__init__()
        self._begin = begin
        self.busy = False
        """A request has begun and is not answered."""
        self.last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._begin(self)


async def _send(line: _Line, reply: Reply) -> None:
    body, at = reply.body, 0
    while len(body) - at > PIECE:
        await line.write(_PART.pack(reply.status, 0, PIECE), body[at : at + PIECE])
        at += PIECE
    final = reply.more is None
    await line.write(_PART.pack(reply.status, final, len(body) - at), body[at:] if at else body)
    if reply.more is not None:
        async for piece in reply.more:
            for at in range(0, len(piece), PIECE):
                part = piece[at : at + PIECE]
                await line.write(_PART.pack(reply.status, 0, len(part)), part)
        await line.write(_PART.pack(reply.status, 1, 0), b"")
