"""Bytes from one connection to another and back, until both have ended: what a relay and a parked connection become.

The one is a transport that stands, mostly TLS towards a partner, the other a socket: of somebody else, or one of a pair
whose other end is used here like any socket. Who reads slowly slows the writer, nothing is kept beyond the buffers of
the two transports. A connection on which nothing moves for a while, also by an end that does not close, is aborted.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

IDLE_S: Final = 300.0
"""Pooled connections end before, and streams ask more often."""
_FULL, _FAST = "full", "fast"
_AHEAD_S: Final = 0.05
"""How far a limited rate may be exceeded for a moment."""


class Tube:
    """Two ends that are joined. bytes_per_s: both ways together, 0 for as fast as it goes. over: both have ended."""

    def __init__(
        self, *, idle_s: float = IDLE_S, bytes_per_s: int = 0, counted: Callable[[int], None] = lambda _bytes: None
    ) -> None:
        self.outer, self.inner = _End(self), _End(self)
        self.outer.other, self.inner.other = self.inner, self.outer
        self.over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._bytes_per_s = bytes_per_s
        self._counted = counted
        self._idle_s = idle_s
        self._moved = self._free = self._loop.time()
        self._watching = self._loop.call_later(idle_s, self._watch)

    def moved(self, end: "_End", size: int) -> None:
        """So many bytes came in at an end."""
        self._moved = now = self._loop.time()
        self._counted(size)
        if self._bytes_per_s:
            self._free = max(self._free, now) + size / self._bytes_per_s
            if self._free - now > _AHEAD_S:
                end.hold(_FAST)
                self._loop.call_at(self._free, end.release, _FAST)

    def lost(self) -> None:
        """An end was lost: what it has sent still goes out at the other."""
        ends = (self.outer, self.inner)
        for end in ends:
            if end.transport is not None:
                end.transport.close()
        if all(end.transport is None for end in ends):
            self._watching.cancel()
            self.over.set()

    def abort(self) -> None:
        """End both at once."""
        for end in (self.outer, self.inner):
            if end.transport is not None:
                end.transport.abort()

    def _watch(self) -> None:
        left = self._moved + self._idle_s - self._loop.time()
        if left <= 0:
            self.abort()
        self._watching = self._loop.call_later(max(left, 1.0), self._watch)


class _End(asyncio.Protocol):
    def __init__(self, tube: Tube) -> None:
        self._tube = tube
        self._held: set[str] = set()
        self.other: _End
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._tube.moved(self, len(data))
        if self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """TLS cannot half-close: there the end of one direction is that of both."""
        here, there = self.transport, self.other.transport
        if here is None or there is None or not (here.can_write_eof() and there.can_write_eof()):
            return False
        there.write_eof()
        return True

    def pause_writing(self) -> None:
        self.other.hold(_FULL)

    def resume_writing(self) -> None:
        self.other.release(_FULL)

    def hold(self, why: str) -> None:
        """Read nothing more until every reason is gone."""
        if not self._held and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
        self._held.add(why)

    def release(self, why: str) -> None:
        self._held.discard(why)
        if not self._held and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        self.transport = None
        self._tube.lost()


async def join(outer: asyncio.Transport, raw: socket.socket, tube: Tube, *, first: bytes = b"") -> Tube:
    """Join a transport that does not read now with a socket. first: what came from it before.

    The tube owns both from now on, also where this raises OSError.
    """
    tube.outer.connection_made(outer)
    outer.set_protocol(tube.outer)
    try:
        await asyncio.get_running_loop().create_connection(lambda: tube.inner, sock=raw)
    except BaseException:
        raw.close()
        tube.abort()
        raise
    if tube.outer.transport is None:
        tube.lost()
        return tube
    if first:
        tube.outer.data_received(first)
    outer.resume_reading()
    return tube


async def pair(outer: asyncio.Transport, tube: Tube, *, first: bytes = b"") -> socket.socket:
    """The connection of a transport that does not read now as a socket, which the caller closes."""
    inside, outside = socket.socketpair()
    for each in (inside, outside):
        each.setblocking(False)
    try:
        await join(outer, inside, tube, first=first)
    except BaseException:
        outside.close()
        raise
    return outside
