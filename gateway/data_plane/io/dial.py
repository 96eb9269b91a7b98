"""Connections to one partner: a socket, however it is come by, and TLS on it that proves both ends.

Everything that calls a partner's data plane opens its connections here, so that there is one place that knows ways out
and one that checks who is at the other end (io.tls). What is spoken on a connection is the caller's business.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from gateway.data_plane.io import tls
from gateway.errors import Kind, Refused, Unavailable
from gateway.ports import PeerRoute

P = TypeVar("P", bound=asyncio.BaseProtocol)

CONNECT_S: Final = 10.0
"""To a connected socket, and again for the handshake."""
DEFAULT_PORT: Final = 443
GRPCS: Final = "grpcs"
"""Scheme of the address of a partner with whom gRPC is spoken (io.grpc_client)."""


class Way:
    """The way to one partner. chain_file, key_file: what is shown to it; revoked: as tls.client_context's."""

    def __init__(
        self,
        route: PeerRoute,
        *,
        chain_file: Path,
        key_file: Path,
        revoked: Callable[[list[bytes]], None] = lambda _verified: None,
    ) -> None:
        """Raises Refused(CONTRACT_INVALID): no https or grpcs address or no usable CA."""
        parts = urlsplit(route.address)
        if parts.scheme not in {"https", GRPCS} or not parts.hostname:
            raise Refused(f"{route.node_id}: the address is neither https nor grpcs", kind=Kind.CONTRACT_INVALID)
        self.route = route
        self._host, self._port = parts.hostname, parts.port or DEFAULT_PORT
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
        try:
            async with asyncio.timeout(CONNECT_S):
                raw = await self._socket()
            return await asyncio.get_running_loop().create_connection(
                factory, sock=raw, ssl=self._context, server_hostname=self._host, ssl_handshake_timeout=CONNECT_S
            )
        except (ssl.SSLError, ssl.CertificateError) as e:
            raise Refused("the partner's TLS identity is not the pinned one", kind=Kind.UNAUTHENTICATED) from e
        except (OSError, TimeoutError) as e:
            raise Unavailable(f"{node}: no connection", kind=Kind.NO_ROUTE) from e

    async def _socket(self) -> socket.socket:
        """A connected socket: the first of the addresses that takes the connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        failure: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in found:
            raw = socket.socket(family, kind, protocol)
            try:
                raw.setblocking(False)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.sock_connect(raw, address)
            except OSError as e:
                raw.close()
                failure = e
            except BaseException:
                raw.close()
                raise
            else:
                return raw
        raise failure
