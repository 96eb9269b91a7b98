"""One port for both listeners: TLS is the edge, plain text from this machine is the platform listener.

The first byte of a connection tells which: a TLS record of a handshake begins with 0x16, no HTTP does. It is looked at
and left in the socket, so that whoever gets the connection reads it from its beginning. Plain text from anywhere else
is closed unanswered. Only 127.0.0.1 and ::1 count as this machine, not all of 127/8: the proxies that some clusters put
beside a process call it from other addresses of that net.

A program on this machine that passes connections on makes strangers look local here; `gateway.config` refuses a shared
port where the node's own address says that there is one.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from gateway.data_plane.io.accept import HANDSHAKE_S, TlsListener
from gateway.data_plane.io.tls import TLS_HANDSHAKE
from gateway.ports import Journal

TELL_S: Final = 60.0
"""How often the log says at most that plain text came from elsewhere."""
HERE: Final = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})

Factory = Callable[[], asyncio.BaseProtocol]


class OnePort(TlsListener):
    """Accepts for both until it is closed; a first byte is waited for as long as a handshake, and counts as one."""

    def __init__(
        self, listening: socket.socket, edge: Factory, context: ssl.SSLContext, *, platform: Factory, journal: Journal
    ) -> None:
        self._platform = platform
        self._journal = journal
        self._refused = 0
        self._silent_until = 0.0
        super().__init__(listening, edge, context)

    async def _greet(self, accepted: socket.socket, address: str) -> None:
        try:
            first = await _first_byte(accepted)
        except OSError:
            first = b""
        except BaseException:
            accepted.close()
            raise
        if first == TLS_HANDSHAKE:
            await super()._greet(accepted, address)
        elif first and address in HERE:
            await self._join(accepted, self._platform, None)
        else:
            accepted.close()
            if first:
                self._refuse(address)

    def _refuse(self, address: str) -> None:
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until:
            self._journal.note("edge.plaintext", address=address, refused=self._refused)
            self._refused, self._silent_until = 0, now + TELL_S


async def _first_byte(accepted: socket.socket) -> bytes:
    """Without taking it; empty at the end of the connection, or when none came in time."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(accepted, readable.set)
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            await readable.wait()
    except TimeoutError:
        return b""
    finally:
        loop.remove_reader(accepted)
    return accepted.recv(1, socket.MSG_PEEK)
