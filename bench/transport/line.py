"""The least HTTP/1.1 client that can drive a gateway: one kept connection, one request at a time, nothing copied."""

import asyncio
import re
from typing import Final, cast

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_HEAD_BYTES: Final = 64 << 10


class Line(asyncio.BufferedProtocol):
    """A connection; `ask` gives the body of an answer, which stays valid until the next call."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = bytearray(_HEAD_BYTES)
        self._body = bytearray()
        self._at = 0
        self._left: int | None = None  # of the body; None while the head is read
        self._answer: asyncio.Future[memoryview] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=64 << 20)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("closed"))

    def get_buffer(self, _hint: int) -> memoryview:
        return memoryview(self._head if self._left is None else self._body)[self._at :]

    def buffer_updated(self, count: int) -> None:
        self._at += count
        if self._left is None:
            end = self._head.find(b"\r\n\r\n", 0, self._at)
            if end < 0:
                return
            found = _LENGTH.search(self._head, 0, end + 2)
            self._left = int(found[1]) if found else 0
            have = self._at - end - 4
            if len(self._body) < self._left:
                self._body = bytearray(self._left)
            self._body[:have] = self._head[end + 4 : self._at]
            self._at = have
        if self._at >= self._left and self._answer is not None:
            self._answer.set_result(memoryview(self._body)[: self._left])
            self._at, self._left = 0, None

    async def ask(self, *request: bytes | memoryview) -> memoryview:
        """request: head and body, in pieces."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        for piece in request:
            self._transport.write(piece)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def head(host: str, path: str, headers: dict[str, str], length: int) -> bytes:
    """A POST's head."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {length}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


async def connect(port: int) -> Line:
    return (await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", port))[1]
