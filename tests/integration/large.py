"""One message larger than memory is to hold, over a link that breaks three times, through two processes.

`python -m tests.integration.large --mib 1024` is the long form; the short one, 64 MiB in one process, is
`tests/edges/test_stream.py`. Says what was sent again and what memory the gateways had of their own (RssAnon; pages
of files are the system's to take back).
"""

import argparse
import asyncio
import hashlib
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from gateway.data_plane.io.stream_client import RESEND
from gateway.data_plane.io.stream_local import SOCKET
from gateway.model import NodeId
from gateway.sdk.channel import Channel, Line
from gateway.sdk.environment import Address
from tests.edges import rig
from tests.edges.link import Link
from tests.integration.processes import Gateway, gateway

A, B = NodeId("LX-A"), NodeId("LX-B")
CUTS = 3
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figures:
    """again: bytes on the link beyond the message. own: RssAnon of both gateways before and at the most, bytes."""

    size: int
    again: int
    push_s: float
    pop_s: float
    before: dict[str, int]
    most: dict[str, int]


async def run(*, size: int, durability: str = "memory") -> Figures:
    """Raises AssertionError where the message is not what was sent, or too much of it was sent again."""
    async with gateway(A, spool_dir="spool") as a, gateway(B, spool_dir="spool") as b, Link(b.edge) as link:
        rule = replace(rig.rule(A, B), durability=durability)
        await a.told([b.route(link.port)], [rule])
        await b.told([a.route()], [rule])
        with tempfile.TemporaryFile() as file:
            digest = _fill(file.fileno(), size)
            before = {one.name: one.resident() for one in (a, b)}
            link.cut_after = [size * (n + 1) // (CUTS + 1) for n in range(CUTS)]
            payload = _mapped(file.fileno(), size)
            push = _timed(lambda: _channel(a).push("t", payload, to=Address(B, "i"), deadline=time.monotonic() + 3600))
            _, push_s, most = await _watched(push, (a, b))
        assert not link.cut_after, "the link was not cut"
        again = link.up - size
        assert again <= CUTS * RESEND + size // 100, again  # TLS and frames add less than a hundredth
        pop = _timed(
            lambda: _channel(b).pop("t", source=Address(A, "i"), wait_ms=1000, deadline=time.monotonic() + 3600)
        )
        got, pop_s, later = await _watched(pop, (a, b))
        assert got is not None
        assert (len(got), hashlib.sha256(got).hexdigest()) == (size, digest)
        return Figures(size, again, push_s, pop_s, before, {name: max(most[name], later[name]) for name in most})


def _channel(at: Gateway) -> Channel:
    line = Line(f"127.0.0.1:{at.platform}", rig.SID, "trace-1", rig.TOKEN, local=str(at.folder / SOCKET))
    return Channel(line)


def _fill(fd: int, size: int) -> str:
    """Write random bytes; returns their digest."""
    digest = hashlib.sha256()
    while size:
        piece = os.urandom(min(size, 1 << 20))
        digest.update(piece)
        os.write(fd, piece)
        size -= len(piece)
    return digest.hexdigest()


def _mapped(fd: int, size: int) -> memoryview:
    return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_READ))


def _timed(call: Callable[[], T]) -> Callable[[], tuple[T, float]]:
    def timed() -> tuple[T, float]:
        begun = time.monotonic()
        return call(), time.monotonic() - begun

    return timed


async def _watched(
    call: Callable[[], tuple[T, float]], gateways: tuple[Gateway, ...]
) -> tuple[T, float, dict[str, int]]:
    """Run a call in a thread, looking at the memory of the gateways meanwhile."""
    most = {one.name: one.resident() for one in gateways}
    calling = asyncio.create_task(asyncio.to_thread(call))
    while not calling.done():
        await asyncio.wait({calling}, timeout=0.02)
        for one in gateways:
            most[one.name] = max(most[one.name], one.resident())
    result, seconds = await calling
    return result, seconds, most


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--durability", choices=["memory", "spool"], default="memory")
    told = parser.parse_args()
    done = asyncio.run(run(size=told.mib << 20, durability=told.durability))
    memory = ", ".join(f"{name} {done.before[name] >> 20} to {done.most[name] >> 20} MiB" for name in done.most)
    print(
        f"{told.mib} MiB ({told.durability}), {CUTS} breaks: {done.again / (1 << 20):.1f} MiB on the link beyond the"
        f" message, frames and TLS included; push {done.push_s:.1f} s, pop {done.pop_s:.1f} s; own memory {memory}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
