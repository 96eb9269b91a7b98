"""A TCP link that is cut, half-closed, slow, far, deaf or repeats itself, whatever is spoken over it: TLS goes through
unread.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Self

CHUNK = 64 << 10


@dataclass
class Link:
    """Listens on `port`, dials `upstream`. up, down: bytes carried towards upstream and back."""

    upstream: int
    port: int = 0
    up: int = 0
    down: int = 0
    connections: int = 0
    cut_after: list[int] = field(default_factory=list)
    """Of the bytes towards upstream, from the start: there every connection is cut, and the place is dropped."""
    refuse: bool = False
    """New connections are closed at once."""
    half_close_after: list[int] = field(default_factory=list)
    """As cut_after; there upstream is told that no more comes, and what it says still goes back."""
    swallow_answers: bool = False
    """What upstream says does not come back."""
    delay_s: float = 0.0
    """Of each byte, either way."""
    bytes_per_s: float = 0.0
    """Of each connection, either way; 0: as fast as it goes."""
    recorded: bytearray | None = None
    """Where one is given, what went upstream over the first connection."""
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def leave(self) -> None:
        """Nobody is here any more, whoever was connected included."""
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """End every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        if self.refuse:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            self._writers |= {writer, far_writer}
            await asyncio.gather(self._pump(reader, far_writer, up=True), self._pump(far_reader, writer, up=False))
            self._writers -= {writer, far_writer}
            far_writer.transport.abort()
        writer.transport.abort()

    async def repeat(self) -> bytes:
        """Say upstream once more what was recorded; what it answers until it hangs up or falls silent."""
        assert self.recorded is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        answer = b""
        with contextlib.suppress(OSError, TimeoutError):
            writer.write(self.recorded)
            while piece := await asyncio.wait_for(reader.read(CHUNK), 1):
                answer += piece
        writer.transport.abort()
        return answer

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        out = _Far(writer, self.delay_s, self.bytes_per_s)
        first, ended = up and self.connections == 1, False
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if not up:
                    self.down += len(data)
                    if self.swallow_answers:
                        continue
                else:
                    self.up += len(data)
                    if first and self.recorded is not None:
                        self.recorded += data
                    if self.cut_after and self.up >= self.cut_after[0]:
                        del self.cut_after[0]
                        self.cut()
                        return
                    if self.half_close_after and self.up >= self.half_close_after[0]:
                        del self.half_close_after[0]
                        ended = True
                        writer.write_eof()
                    if ended:
                        continue
                await out.write(data)
            await out.flush()
        with contextlib.suppress(OSError):
            writer.close()


class _Far:
    """A writer at the end of a line: bytes come out later, and no faster than so many a second."""

    def __init__(self, writer: asyncio.StreamWriter, delay_s: float, bytes_per_s: float) -> None:
        self._writer = writer
        self._delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self._free = 0.0

    async def write(self, data: bytes) -> None:
        """Returns when the line can take more, though what is on its way may not be out."""
        if not (self._delay_s or self._bytes_per_s):
            self._writer.write(data)
        else:
            loop = asyncio.get_running_loop()
            self._free = max(self._free, loop.time())
            if self._bytes_per_s:
                self._free += len(data) / self._bytes_per_s
            loop.call_at(self._free + self._delay_s, self._out, data)
            await asyncio.sleep(self._free - loop.time())
        await self._writer.drain()

    async def flush(self) -> None:
        """Returns when everything is out."""
        await asyncio.sleep(self._free + self._delay_s - asyncio.get_running_loop().time())

    def _out(self, data: bytes) -> None:
        if not self._writer.transport.is_closing():
            self._writer.write(data)
