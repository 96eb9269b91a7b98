"""Reading a request's body: bounded before it is read, counted in the memory budget, never joined when large."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.wire import Buffer
from gateway.errors import Kind, ProtocolViolation, Unavailable

STALL_S: Final = 30.0
"""A sender that gives no byte for so long is cut off."""


@contextlib.asynccontextmanager
async def body_of(request: web.BaseRequest, budget: Budget, *, limit: int) -> AsyncIterator[Buffer]:
    """The whole body of a request, its bytes borrowed from `budget` inside the block.

    Raises ProtocolViolation(TOO_LARGE) over `limit` bytes, (MALFORMED) for a compressed, cut off or stalled body,
    Unavailable(BUFFER_FULL).
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProtocolViolation("content-encoding: compressed bodies are not taken")
    length = request.content_length
    if length is not None and length > limit:
        raise too_large(limit)
    borrowed = 0
    try:
        if request.headers.get("expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if length is None:
            buffer = bytearray()
            while piece := await next_piece(request):
                if len(buffer) + len(piece) > limit:
                    raise too_large(limit)
                budget.borrow(len(piece))
                borrowed += len(piece)
                buffer += piece
            yield buffer
            return
        budget.borrow(length)
        borrowed = length
        yield await _exactly(request, length)
    finally:
        budget.repay(borrowed)


def too_large(limit: int) -> ProtocolViolation:
    """The error for a body over its bound."""
    return ProtocolViolation(f"body: more than {limit} bytes", kind=Kind.TOO_LARGE)


async def _exactly(request: web.BaseRequest, length: int) -> Buffer:
    if not length:
        return b""
    piece = await next_piece(request)
    if len(piece) == length:
        return piece
    buffer = bytearray(length)
    view = memoryview(buffer)
    at = 0
    while piece:
        # The parser never gives more than Content-Length.
        view[at : at + len(piece)] = piece
        at += len(piece)
        piece = await next_piece(request)
    if at != length:
        raise ProtocolViolation("body: shorter than its Content-Length")
    return buffer


async def next_piece(request: web.BaseRequest) -> bytes:
    """The next piece, b"" at the end."""
    try:
        async with asyncio.timeout(STALL_S):
            return await request.content.readany()
    except TimeoutError as e:
        raise ProtocolViolation("body: stalled") from e
    except (web.RequestPayloadError, ConnectionError) as e:
        raise Unavailable("the caller went away", kind=Kind.PEER_UNREACHABLE) from e
