"""A TCP link that is cut, slowed down or deaf, whatever is spoken over it: TLS goes through unread."""

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
    swallow_answers: bool = False
    """What upstream says does not come back."""
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if not up:
                    self.down += len(data)
                    if self.swallow_answers:
                        continue
                else:
                    self.up += len(data)
                    if self.cut_after and self.up >= self.cut_after[0]:
                        del self.cut_after[0]
                        self.cut()
                        return
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
