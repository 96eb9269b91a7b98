"""Connections to one partner: a socket, however it is come by (`roads`), and TLS on it that proves both ends.

Everything that calls a partner's data plane opens its connections here, so that there is one place that checks who is
at the other end (io.tls). What is spoken on a connection is the caller's business.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from gateway.data_plane.io import tls
from gateway.data_plane.io.roads import CONNECT_S, Roads
from gateway.errors import Kind, Refused, Unavailable
from gateway.ports import PeerRoute

P = TypeVar("P", bound=asyncio.BaseProtocol)

HANDSHAKE_S: Final = CONNECT_S
GRPCS: Final = "grpcs"
"""Scheme of the address of a partner with whom gRPC is spoken (io.grpc_client)."""


class Way:
    """The way to one partner. chain_file, key_file: what is shown to it; revoked: as tls.client_context's.

    opened: told of each connection.
    """

    def __init__(
        self,
        route: PeerRoute,
        *,
        roads: Roads,
        chain_file: Path,
        key_file: Path,
        revoked: Callable[[list[bytes]], None] = lambda _verified: None,
        opened: Callable[[asyncio.Transport], None] = lambda _transport: None,
    ) -> None:
        """Raises Refused(CONTRACT_INVALID): no https or grpcs address or no usable CA."""
        parts = urlsplit(route.address)
        if parts.scheme not in {"https", GRPCS} or not parts.hostname:
            raise Refused(f"{route.node_id}: the address is neither https nor grpcs", kind=Kind.CONTRACT_INVALID)
        self.route = route
        self._host = parts.hostname
        self._roads = roads
        self._opened = opened
        roots = tls.ca_ders(route.tls_ca)
        self._context = tls.client_context(chain_file, key_file, roots=roots, node_id=route.node_id, revoked=revoked)
        if parts.scheme == GRPCS:
            self._context.set_alpn_protocols(["h2"])

    async def open(self, factory: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        """A TLS connection whose other end has proven to be the partner.

        Raises Unavailable(NO_ROUTE) when there is none, Refused(UNAUTHENTICATED) when someone else is there. In both
        cases nothing has been sent.
        """
        node = self.route.node_id
        raw = await self._roads.reach(node, self.route.address)
        try:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                factory, sock=raw, ssl=self._context, server_hostname=self._host, ssl_handshake_timeout=HANDSHAKE_S
            )
        except (ssl.SSLError, ssl.CertificateError) as e:
            raise Refused("the partner's TLS identity is not the pinned one", kind=Kind.UNAUTHENTICATED) from e
        except (OSError, TimeoutError) as e:
            raise Unavailable(f"{node}: no connection", kind=Kind.NO_ROUTE) from e
        self._opened(transport)
        return transport, protocol


@dataclass(frozen=True, slots=True)
class Dialer:
    """Makes the ways to partners. chain_file, key_file: of the TLS certificate shown where a route names none.

    revoked, opened: as of Way.
    """

    roads: Roads
    chain_file: Path
    key_file: Path
    revoked: Callable[[list[bytes]], None] = lambda _verified: None
    opened: Callable[[asyncio.Transport], None] = lambda _transport: None

    def way(self, route: PeerRoute) -> Way:
        """Raises as Way does."""
        named = (route.our_chain, route.our_key)
        own = zip(named, (self.chain_file, self.key_file), strict=True)
        chain_file, key_file = (Path(other) if other else file for other, file in own)
        return Way(
            route,
            roads=self.roads,
            chain_file=chain_file,
            key_file=key_file,
            revoked=self.revoked,
            opened=self.opened,
        )
