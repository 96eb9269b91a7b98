"""A transport that stands, mostly TLS towards a partner, joined with a socket: relays and parked connections.

The socket is somebody else's, or one of a pair whose other end is used here like any socket. Nothing is kept beyond the
buffers of the two (`pump`). Where nothing moves for a while, also because an end is stuck, both are aborted.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from gateway.data_plane.io import transports
from gateway.data_plane.io.pump import Half
from gateway.data_plane.io.tls import TLS_HANDSHAKE
from gateway.errors import ProtocolViolation

IDLE_S: Final = 300.0
"""Pooled connections end before, and streams ask more often."""
_FAST: Final = "fast"
_AHEAD_S: Final = 0.05
"""How far a limited rate may be exceeded for a moment."""


class Tube:
    """Two connections joined. over: both have ended.

    bytes_per_s: both ways together, 0 for as fast as it goes. only_tls: what comes from outside must begin as TLS does,
    so that nobody reaches what speaks plainly behind the socket.
    """

    def __init__(
        self,
        *,
        idle_s: float = IDLE_S,
        bytes_per_s: int = 0,
        counted: Callable[[int], None] = lambda _bytes: None,
        only_tls: bool = False,
    ) -> None:
        self._only_tls = only_tls
        self.over = asyncio.Event()
        self._outer = Half(eye=lambda data: self._moved(self._outer, data), ended=self._ended)
        self._inner = Half(eye=lambda data: self._moved(self._inner, data), ended=self._ended)
        self._transports: list[asyncio.Transport] = []
        self._loop = asyncio.get_running_loop()
        self._bytes_per_s = bytes_per_s
        self._counted = counted
        self._idle_s = idle_s
        self._last = self._free = self._loop.time()
        self._watching = self._loop.call_later(idle_s, self._watch)

    async def join(self, outer: asyncio.Transport, raw: socket.socket, *, first: bytes = b"") -> None:
        """Let bytes pass. outer: does not read now; first: what came from it before.

        Both are the tube's from now on, also where this raises OSError.
        """
        self._transports.append(outer)
        outer.set_protocol(self._outer)
        self._outer.connection_made(outer)
        try:
            inner, _ = await self._loop.create_connection(lambda: self._inner, sock=raw)
        except BaseException:
            raw.close()
            self.abort()
            raise
        self._transports.append(inner)
        if first:
            self._outer.data_received(first)
        self._outer.join(self._inner)

    async def as_socket(self, outer: asyncio.Transport, *, first: bytes = b"") -> socket.socket:
        """Join `outer` with one end of a pair of sockets: the other, which the caller closes."""
        inside, outside = socket.socketpair()
        inside.setblocking(False)
        outside.setblocking(False)
        try:
            await self.join(outer, inside, first=first)
        except BaseException:
            outside.close()
            raise
        return outside

    def abort(self) -> None:
        """End both at once."""
        for transport in self._transports:
            transports.abort(transport)

    def _moved(self, half: Half, data: bytes) -> None:
        if self._only_tls and half is self._outer:
            self._only_tls = False
            if not data.startswith(TLS_HANDSHAKE):
                self.abort()
                raise ProtocolViolation("nothing but TLS passes here")
        self._last = now = self._loop.time()
        self._counted(len(data))
        if self._bytes_per_s:
            self._free = max(self._free, now) + len(data) / self._bytes_per_s
            if self._free - now > _AHEAD_S:
                half.hold(_FAST)
                self._loop.call_at(self._free, half.release, _FAST)

    def _ended(self) -> None:
        if all(half.lost for half in (self._outer, self._inner)) or len(self._transports) == 1:
            self._watching.cancel()
            self.over.set()

    def _watch(self) -> None:
        left = self._last + self._idle_s - self._loop.time()
        if left <= 0:
            self.abort()
            self.over.set()  # also where an end had gone before it was joined, and will not say so again
            return
        self._watching = self._loop.call_later(left, self._watch)
