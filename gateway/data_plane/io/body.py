"""Reading a request's body: bounded before it is read, counted in the memory budget, never joined when large."""

import asyncio
import contextlib
import mmap
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.wire import Buffer
from gateway.errors import Kind, ProtocolViolation, Unavailable

STALL_S: Final = 30.0
"""A sender that gives no byte for so long is cut off."""
SLOWEST_BYTES_PER_S: Final = 128 << 10
"""A body may take STALL_S and, besides, the time that its size, or its bound, needs at this pace."""


@contextlib.asynccontextmanager
async def body_of(request: web.BaseRequest, budget: Budget, *, limit: int) -> AsyncIterator[Buffer]:
    """The whole body of a request, its bytes borrowed from `budget` inside the block.

    Raises ProtocolViolation(TOO_LARGE) over `limit` bytes, (MALFORMED) for a compressed, cut off, stalled or too slow
    body, Unavailable(BUFFER_FULL).
    """
    length = request.content_length
    check(request.headers.get("content-encoding"), length, limit)
    go_on(request)
    loan = _Loan(budget)
    reading = _to_the_end(request, limit, loan) if length is None else _exactly(request, length, loan)
    try:
        try:
            async with asyncio.timeout(longest(limit if length is None else length)):
                whole = await reading
        except TimeoutError as e:
            raise ProtocolViolation("body: too slow") from e
        yield whole
    finally:
        budget.repay(loan.size)


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
        self.size = 0

    def grow(self, size: int) -> None:
        self._budget.borrow(size)
        self.size += size


async def _to_the_end(request: web.BaseRequest, limit: int, loan: _Loan) -> Buffer:
    buffer = bytearray()
    while piece := await next_piece(request):
        if len(buffer) + len(piece) > limit:
            raise too_large(limit)
        loan.grow(len(piece))
        buffer += piece
    return buffer


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
