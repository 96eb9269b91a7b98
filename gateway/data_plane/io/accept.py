"""Accepting TLS connections: how many handshakes may be under way, in all and of one address.

Until its handshake is done a connection is nobody's, yet costs a file and the memory of TLS. When all places are taken
the handshake that has gone on longest is given up, so that whoever connects and waits keeps nobody out.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final

HANDSHAKE_S: Final = 10.0
HANDSHAKES: Final = 512
OF_AN_ADDRESS: Final = 128
PAUSE_S: Final = 0.2
"""When no connection can be accepted, as with no file left."""


class TlsListener:
    """Accepts on a listening socket until it is closed."""

    def __init__(
        self, listening: socket.socket, factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext
    ) -> None:
        self._listening = listening
        self._factory = factory
        self._context = context
        self._addresses: Counter[str] = Counter()
        self._under_way: dict[asyncio.Task[None], str] = {}
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    @property
    def handshakes(self) -> int:
        return len(self._under_way)

    def close(self) -> None:
        """Accept no more. Connections that are made go on."""
        self._accepting.cancel()
        for task in list(self._under_way):
            task.cancel()
        self._listening.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(self._listening)
            except OSError:
                await asyncio.sleep(PAUSE_S)
                continue
            address = str(peer[0])
            if self._addresses[address] >= OF_AN_ADDRESS:
                self._give_up(address)
            elif len(self._under_way) >= HANDSHAKES:
                self._give_up(next(iter(self._under_way.values())))
            accepted.setblocking(False)
            task = loop.create_task(self._greet(accepted, address))
            self._addresses[address] += 1
            self._under_way[task] = address
            task.add_done_callback(self._end)

    def _give_up(self, address: str) -> None:
        """End the oldest handshake of this address."""
        oldest = next(task for task, whose in self._under_way.items() if whose == address)
        self._end(oldest)
        oldest.cancel()

    def _end(self, task: "asyncio.Task[None]") -> None:
        address = self._under_way.pop(task, None)
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    async def _greet(self, accepted: socket.socket, _address: str) -> None:
        await self._join(accepted, self._factory, self._context)

    async def _join(
        self, accepted: socket.socket, factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None
    ) -> None:
        # What fails is the other end's, and the loop closes the socket.
        with contextlib.suppress(OSError):
            # As asyncio's servers do: an answer is not held back for a fuller packet.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                factory, accepted, ssl=context, ssl_handshake_timeout=HANDSHAKE_S if context else None
            )
