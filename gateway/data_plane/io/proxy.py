"""An HTTP proxy on the way out: a socket that it has connected to somebody (CONNECT).

It carries TLS that begins and ends elsewhere, so it sees addresses, times and amounts. The password is read from its
file at each connection, so that it can be changed, and stands in no log and no error.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Final

from gateway.auth.keys import path_of, read_secret
from gateway.data_plane.core import heads
from gateway.errors import GatewayError, Kind, ProtocolViolation, Unavailable
from gateway.model import ProxyAddress

_OK: Final = range(200, 300)
_PIECE: Final = 4096


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it is. credentials: file: URI of `user:password`, "" for none."""

    address: ProxyAddress
    credentials: str = ""

    async def through(self, to: socket.socket, host: str, port: int) -> None:
        """Have a connection to this proxy become one to host:port.

        Raises Unavailable(NO_ROUTE) where the proxy does not do so, OSError where it goes away.
        """
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(to, heads.connect(host, port, credentials=self._secret()))
        got, head = b"", None
        while head is None:
            piece = await loop.sock_recv(to, _PIECE)
            if not piece:
                raise self._no("closed the connection")
            got += piece
            try:
                head = heads.read_head(got)
            except ProtocolViolation as e:
                raise self._no("does not speak HTTP") from e
        if head.status not in _OK:
            raise self._no(f"answered {head.status}{' (it wants a password)' if head.status == 407 else ''}")
        if head.rest:
            # In TLS the client begins.
            raise self._no("sent something of its own")

    def _secret(self) -> bytes | None:
        if not self.credentials:
            return None
        try:
            return read_secret(path_of(self.credentials)).strip()
        except GatewayError as e:
            raise self._no("wants a password whose file cannot be used") from e

    def _no(self, words: str) -> GatewayError:
        return Unavailable(f"proxy {heads.authority(self.address.host, self.address.port)} {words}", kind=Kind.NO_ROUTE)
