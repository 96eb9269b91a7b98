"""A link that loses, delays, repeats and cuts, for the tests in which everything goes wrong.

`FaultyTap` speaks HTTP on both sides: a fault happens to one whole request, at the moments that matter to a protocol
(before it arrives, after it has arrived and before its answer has).
"""

import asyncio
import contextlib
import random
import ssl
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.integration.tap import CHUNK, Tap

MARK = b"\r\n\r\n"


@dataclass
class Faults:
    """Shared by all links of a test: probabilities per request. `heal` ends them."""

    seed: int
    cut: float = 0.0
    """It never arrives."""
    lose: float = 0.0
    """It arrives, its answer does not."""
    twice: float = 0.0
    """The very same bytes arrive twice; the caller gets the second answer or the first."""
    late: float = 0.0
    """It arrives after others that were sent later."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.done: Counter[str] = Counter()
        self.down = False
        """Nothing gets through."""

    def heal(self) -> None:
        self.cut = self.lose = self.twice = self.late = 0.0
        self.down = False

    def happens(self, name: str) -> bool:
        yes = self.random.random() < getattr(self, name)
        self.done[name] += yes
        return yes


class FaultyTap(Tap):
    """As Tap, with faults instead of a record."""

    def __init__(self, port: int, upstream_port: int, server_pki: Path, client_pki: Path, *, faults: Faults) -> None:
        super().__init__(port, upstream_port, server_pki, client_pki)
        self.faults = faults

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        certificate = bool(writer.get_extra_info("peercert"))
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while request := await _message(reader):
                reply = await self._carry(request, certificate=certificate)
                if not reply:
                    # Also where the node hung up without a word (it trusts the caller's CA no more): so must we, or
                    # the caller would wait until its patience is over.
                    break
                writer.write(reply)
                await writer.drain()
        writer.close()

    async def _carry(self, request: bytes, *, certificate: bool) -> bytes | None:
        """The answer, or None where the caller sees its connection break."""
        faults = self.faults
        if faults.down or faults.happens("cut"):
            return None
        if faults.happens("late"):
            await asyncio.sleep(faults.random.uniform(0.05, 0.5))
        replies = [await self._deliver(request, certificate=certificate)]
        if faults.happens("twice"):
            replies.append(await self._deliver(request, certificate=certificate))
        if faults.happens("lose"):
            return None
        # An answer to the repeat says "nonce seen before": an attacker can make a caller see that, too.
        return faults.random.choice(replies)

    async def _deliver(self, request: bytes, *, certificate: bool) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.server_pki / "ca.pem")
        if certificate:
            context.load_cert_chain(self.client_pki / "tls.pem", self.client_pki / "tls.key")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream_port, ssl=context)
        try:
            writer.write(request)
            await writer.drain()
            return await _message(reader)
        finally:
            writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """One HTTP message with its body as it stands; b"" at the end of the connection."""
    try:
        head = await reader.readuntil(MARK)
    except asyncio.IncompleteReadError:
        return b""
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:-2])
    }
    body = bytearray()
    if headers.get(b"transfer-encoding") == b"chunked":
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            body += line + await reader.readexactly(size + 2)
            if size == 0:
                break
    else:
        left = int(headers.get(b"content-length", b"0"))
        while left:
            part = await reader.readexactly(min(left, CHUNK))
            body += part
            left -= len(part)
    return head + bytes(body)
