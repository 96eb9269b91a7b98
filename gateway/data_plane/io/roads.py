"""How a partner is reached: a connected socket on which TLS with it can begin, whatever lies between.

Directly, through an HTTP proxy, over a connection that the partner keeps open to us (`park`), or through another
partner (`relay`). Who is at the other end is no question here: TLS runs from end to end inside and proves it
(`dial`, and control's own client).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection

from gateway.data_plane.io.proxy import Proxy
from gateway.errors import Kind, Unavailable
from gateway.model import DIRECT, NodeId, PartnerWay, ProxyAddress

CONNECT_S: Final = 10.0
"""To a connected socket, however it is come by."""
NEXT_ADDRESS_S: Final = 0.25
"""An address that has not answered after so long is not waited for alone."""
DEFAULT_PORT: Final = 443


class Take(Protocol):
    """As park.Parked.take."""

    async def __call__(self, node: NodeId, *, wait: bool) -> socket.socket | None: ...


Through = Callable[[NodeId, NodeId], Awaitable[socket.socket]]
"""As relay.Relays.through."""


async def _nothing_parked(node: NodeId, *, wait: bool) -> None:
    del node, wait


async def _no_relay(_relay: NodeId, node: NodeId) -> socket.socket:
    raise Unavailable(f"{node}: no relay", kind=Kind.NO_ROUTE)


class Roads:
    """The ways to all partners, and to those who are not partners yet.

    proxy: for whoever has no way of its own. credentials: proxy -> file: URI of its `user:password`.
    """

    def __init__(
        self, proxy: ProxyAddress | None = None, credentials: Mapping[ProxyAddress, str] = MappingProxyType({})
    ) -> None:
        self._proxy = proxy
        self._credentials = credentials
        self._parked: Take = _nothing_parked
        self._relay: Through = _no_relay
        self._ways: Mapping[NodeId, PartnerWay] = {}

    def attach(self, *, parked: Take, relay: Through) -> None:
        """Also take connections that partners have parked, and go through relays."""
        self._parked, self._relay = parked, relay

    def set_ways(self, ways: Sequence[PartnerWay]) -> None:
        """Replace all. Connections that stand go on; the next are opened as is said now."""
        self._ways = {way.node_id: way for way in ways}

    async def reach(self, node: NodeId, address: str, *, relayed: bool = False) -> socket.socket:
        """A socket to a node; address: its URL. The caller closes it. relayed: for another, so not by a relay again.

        Raises Unavailable(NO_ROUTE); where a relay has another identity than is pinned, Refused(UNAUTHENTICATED).
        """
        way = self._ways.get(node)
        try:
            async with asyncio.timeout(CONNECT_S):
                if way is not None and way.relay and relayed:
                    raise Unavailable(f"{node} is reached by a relay itself", kind=Kind.NO_ROUTE)
                if way is not None and way.relay:
                    return await self._relay(NodeId(way.relay), node)
                parked = await self._parked(node, wait=way is not None and way.held)
                return parked or await self._dialled(way, *_end(address))
        except (OSError, TimeoutError) as e:
            words = "no connection in time" if isinstance(e, TimeoutError) else "no connection"
            raise Unavailable(f"{node or address}: {words}", kind=Kind.NO_ROUTE) from e

    async def _dialled(self, way: PartnerWay | None, host: str, port: int) -> socket.socket:
        proxy = self._proxy_of(way)
        if proxy is None:
            return await connect(host, port)
        raw = await connect(proxy.host, proxy.port)
        try:
            await Proxy(proxy, self._credentials.get(proxy, "")).through(raw, host, port)
        except BaseException:
            raw.close()
            raise
        return raw

    def _proxy_of(self, way: PartnerWay | None) -> ProxyAddress | None:
        if way is None or not way.proxy:
            return self._proxy
        return None if way.proxy == DIRECT else ProxyAddress.of(way.proxy)


def _end(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    if not parts.hostname:
        raise Unavailable("no address", kind=Kind.NO_ROUTE)
    return parts.hostname, parts.port or DEFAULT_PORT


async def connect(host: str, port: int) -> socket.socket:
    """A connected socket: to the first of the name's addresses that takes the connection (RFC 8305). Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    raw = await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_S)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return raw
