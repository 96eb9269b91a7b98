"""What an institution puts beside a product that speaks plain HTTP: mutual TLS outside, plain TCP inside.

The job that nginx or stunnel does in production (docs/peers.md); bytes pass unchanged, header names with underscores
too.
"""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, ssl.SSLError, RuntimeError):
        writer.close()


@dataclass
class Way:
    """One direction: where it listens and where it goes; TLS on exactly one of the two."""

    to: str
    listen_port: int = 0
    listen_tls: ssl.SSLContext | None = None
    to_tls: ssl.SSLContext | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.listen_port, ssl=self.listen_tls)
        self.listen_port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(self.to)
        try:
            there = await asyncio.open_connection(parts.hostname, parts.port, ssl=self.to_tls)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))


def context(purpose: int, *, chain: Path, key: Path, trusted: Path) -> ssl.SSLContext:
    """Both sides show a certificate; the other's CA is pinned, host names are not looked at."""
    made = ssl.SSLContext(purpose)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(trusted)
    made.load_cert_chain(chain, key)
    return made
