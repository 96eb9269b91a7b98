"""Reading a request's body: bounded before it is read, counted in the memory budget, never joined when large."""

import asyncio
import contextlib
import mmap
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.wire import Buffer
from gateway.data_plane.io.filed import BLOCK, File, Files
from gateway.errors import Kind, ProtocolViolation, Unavailable

STALL_S: Final = 30.0
"""A sender that gives no byte for so long is cut off."""
SLOWEST_BYTES_PER_S: Final = 128 << 10
"""A body may take STALL_S and, besides, the time that its size, or its bound, needs at this pace."""


@contextlib.asynccontextmanager
async def body_of(
    request: web.BaseRequest, budget: Budget, *, limit: int, files: Files | None = None
) -> AsyncIterator[Buffer]:
    """The whole body of a request, its bytes borrowed from `budget` inside the block, or from that of `files`.

    Raises ProtocolViolation(TOO_LARGE) over `limit` bytes, (MALFORMED) for a compressed, cut off, stalled or too slow
    body, Unavailable(BUFFER_FULL).
    """
    length = request.content_length
    check(request.headers.get("content-encoding"), length, limit)
    go_on(request)
    loan = _Loan(budget)
    if length is None or (files is not None and length >= files.least):
        reading = _to_the_end(request, limit, loan, files)
    else:
        reading = _exactly(request, length, loan)
    try:
        try:
            async with asyncio.timeout(longest(limit if length is None else length)):
                whole = await reading
        except TimeoutError as e:
            raise ProtocolViolation("body: too slow") from e
        yield whole
    finally:
        loan.repay()


def check(encoding: str | None, length: int | None, limit: int) -> None:
    """What can be said of a body before it is read. Raises ProtocolViolation(TOO_LARGE, MALFORMED)."""
    if encoding is not None and encoding.lower() != "identity":
        raise ProtocolViolation("content-encoding: compressed bodies are not taken")
    if length is not None and length > limit:
        raise too_large(limit)


def longest(length: int) -> float:
    """Seconds that a body of `length` bytes may take."""
    return STALL_S + length / SLOWEST_BYTES_PER_S


def too_large(limit: int) -> ProtocolViolation:
    """The error for a body over its bound."""
    return ProtocolViolation(f"body: more than {limit} bytes", kind=Kind.TOO_LARGE)


def go_on(request: web.BaseRequest) -> None:
    """Tell a caller that asked (Expect: 100-continue) to send its body."""
    if request.headers.get("expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class _Loan:
    """Bytes borrowed for one body: as they arrive, so that a claimed length alone takes nothing from others."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._size = 0
        self.file: File | None = None

    def grow(self, size: int) -> None:
        self._budget.borrow(size)
        self._size += size

    def return_memory(self) -> None:
        self._budget.repay(self._size)
        self._size = 0

    def repay(self) -> None:
        self.return_memory()
        if self.file is not None:
            self.file.repay()


async def _to_the_end(request: web.BaseRequest, limit: int, loan: _Loan, files: Files | None) -> Buffer:
    """Into memory; from the size on that does not belong there, into a file."""
    buffer, at = bytearray(), 0
    while piece := await next_piece(request):
        if at + len(buffer) + len(piece) > limit:
            raise too_large(limit)
        loan.grow(len(piece))
        buffer += piece
        if loan.file is None and files is not None:
            loan.file = files.make(max(len(buffer), request.content_length or 0))
        if loan.file is not None and len(buffer) >= BLOCK:
            await loan.file.write(buffer, at)
            loan.return_memory()
            at, buffer = at + len(buffer), bytearray()
    if request.content_length not in {None, at + len(buffer)}:
        raise ProtocolViolation("body: shorter than its Content-Length")
    if loan.file is None:
        return buffer
    await loan.file.write(buffer, at)
    return loan.file.whole(at + len(buffer))


async def _exactly(request: web.BaseRequest, length: int, loan: _Loan) -> Buffer:
    if not length:
        return b""
    piece = await next_piece(request)
    loan.grow(len(piece))
    if len(piece) == length:
        return piece
    # Anonymous pages are there from the start and cost memory only once they are written.
    view = memoryview(mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    at = 0
    while piece:
        # The parser never gives more than Content-Length.
        view[at : at + len(piece)] = piece
        at += len(piece)
        piece = await next_piece(request)
        loan.grow(len(piece))
    if at != length:
        raise ProtocolViolation("body: shorter than its Content-Length")
    return view


async def next_piece(request: web.BaseRequest) -> bytes:
    """The next piece, b"" at the end."""
    try:
        async with asyncio.timeout(STALL_S):
            return await request.content.readany()
    except TimeoutError as e:
        raise ProtocolViolation("body: stalled") from e
    except (web.RequestPayloadError, ConnectionError) as e:
        raise Unavailable("the caller went away", kind=Kind.PEER_UNREACHABLE) from e
