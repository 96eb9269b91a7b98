"""One port for both listeners: TLS is the edge, plain text from this machine is the platform listener.

The first byte of a connection tells which: a TLS record of a handshake begins with 0x16, no HTTP does. It is looked at
and left in the socket, so that whoever gets the connection reads it from its beginning. Plain text from anywhere else
is closed unanswered. Only 127.0.0.1 and ::1 count as this machine, not all of 127/8: the proxies that some clusters put
beside a process call it from other addresses of that net.

A program on this machine that passes connections on makes strangers look local here; `gateway.config` refuses a shared
port where the node's own address says that there is one.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final

from gateway.ports import Journal

TLS_HANDSHAKE: Final = b"\x16"
FIRST_BYTE_S: Final = 10.0
WAITING: Final = 1024
"""Connections that have not sent a byte; the one that has waited longest gives way."""
TELL_S: Final = 60.0
"""How often the log says at most that plain text came from elsewhere."""
RETRY_S: Final = 0.5
"""Pause after the process could open no more files."""
HERE: Final = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
Protocols = Callable[[], asyncio.BaseProtocol]


class OnePort:
    """Accepts for both listeners from now on.

    listening: bound, non-blocking; closed with this. edge, platform: as for `create_server`. handshake_s: for TLS.
    """

    def __init__(
        self,
        listening: socket.socket,
        *,
        edge: Protocols,
        platform: Protocols,
        tls: ssl.SSLContext,
        handshake_s: float,
        journal: Journal,
    ) -> None:
        self._listening = listening
        self._edge = edge
        self._platform = platform
        self._tls = tls
        self._handshake_s = handshake_s
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        # By age, the oldest first.
        self._waiting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._joining: set[asyncio.Task[None]] = set()
        self._plain = 0
        self._silent_until = 0.0
        self._closed = False
        self._listen()

    def close(self) -> None:
        """Accept no more; connections that were given away go on."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listening)
            self._listening.close()
            for waiting in list(self._waiting):
                self._drop(waiting)

    def _listen(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        try:
            sock, address = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            # No file left, most likely; the connection stays in the kernel's line, and would wake us at once again.
            self._loop.remove_reader(self._listening)
            self._loop.call_later(RETRY_S, self._listen)
            return
        sock.setblocking(False)
        if len(self._waiting) >= WAITING:
            self._drop(next(iter(self._waiting)))
        self._waiting[sock] = self._loop.call_later(FIRST_BYTE_S, self._drop, sock)
        self._loop.add_reader(sock, self._look, sock, address[0])

    def _look(self, sock: socket.socket, address: str) -> None:
        try:
            first = sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if first == TLS_HANDSHAKE:
            self._give(sock, self._edge, self._tls)
        elif first and address in HERE:
            self._give(sock, self._platform, None)
        else:
            self._drop(sock)
            if first:
                self._refused(address)

    def _refused(self, address: str) -> None:
        self._plain += 1
        now = self._loop.time()
        if now >= self._silent_until:
            self._journal.note("edge.plaintext", address=address, refused=self._plain)
            self._plain, self._silent_until = 0, now + TELL_S

    def _give(self, sock: socket.socket, protocols: Protocols, tls: ssl.SSLContext | None) -> None:
        self._forget(sock)
        task = self._loop.create_task(self._join(sock, protocols, tls))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _join(self, sock: socket.socket, protocols: Protocols, tls: ssl.SSLContext | None) -> None:
        patience = None if tls is None else self._handshake_s
        # Handshakes fail all day long; the transport has closed the socket by then.
        with contextlib.suppress(OSError, TimeoutError):
            await self._loop.connect_accepted_socket(protocols, sock, ssl=tls, ssl_handshake_timeout=patience)

    def _forget(self, sock: socket.socket) -> None:
        self._waiting.pop(sock).cancel()
        self._loop.remove_reader(sock)

    def _drop(self, sock: socket.socket) -> None:
        self._forget(sock)
        sock.close()
