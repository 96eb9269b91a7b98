"""One port for two protocols: a connection's first bytes say whether its caller speaks HTTP/2 (gRPC) or HTTP/1.1."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from gateway.data_plane.core import http2

SILENCE_S: Final = 30.0
"""A connection on which nothing is said for so long is closed."""
Make = Callable[[], asyncio.Protocol]


class FirstBytes(asyncio.Protocol):
    """Hands a connection on when enough of it is read. on_http2, http1: make the protocol that gets it; None: no."""

    def __init__(self, *, on_http2: Make | None, http1: Make | None) -> None:
        self._on_http2 = on_http2
        self._http1 = http1
        self._seen = b""
        self._transport: asyncio.Transport | None = None
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._late = asyncio.get_running_loop().call_later(SILENCE_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        transport, late = self._transport, self._late
        if transport is None or late is None:
            return
        begins = http2.PREFACE[: len(self._seen)] == self._seen[: len(http2.PREFACE)]
        if begins and len(self._seen) < len(http2.PREFACE):
            return
        late.cancel()
        self._transport = None
        make = self._on_http2 if begins else self._http1
        if make is None:
            transport.abort()
            return
        protocol = make()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(self._seen)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
