"""How long `job/status_all` takes a partner while bulk saturates the same two gateways: real ones, in a lab.

The bulk: four connections that push and four that pop messages of 1 MiB, over HTTP, through both gateways. The asker
is that of bench.control: signed, TLS, 20 a second, timed from when a question was due.
"""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import control
from gateway import lab

SESSION = "session_bench"
MIB = 1 << 20


def measure(run: Callable[..., list[dict[str, Any]]], seconds: float) -> dict[str, Any]:
    """run: as bench.transport's. p99 in ms without and with bulk, and the bulk's MB/s."""
    with tempfile.TemporaryDirectory(prefix="icb") as folder, control.pair(Path(folder)) as made:
        a, b = made.nodes
        for one, other in ((a, b), (b, a)):
            one.client().post("sessions", session_id=SESSION, nodes=[other.node_id])
        job = control.submit(made, 1)
        control.ended(made, job)
        load = {"size": MIB, "depth": 4, "warm": 1.0, "seconds": seconds, "topic": "bulk"}
        out, into = ({**load, "port": _port(n), "target": to.node_id} for n, to in ((b, a), (a, b)))
        alone = asyncio.run(_asked(made, job, lambda: asyncio.sleep(seconds)))
        found: list[dict[str, Any]] = []

        async def bulk() -> None:
            found.extend(await asyncio.to_thread(run, ("pop", into), ("push", out)))

        beside = asyncio.run(_asked(made, job, bulk))
        return {"alone": alone, "beside": beside, "mb_s": found[0]["rate"] * MIB / 1e6}


async def _asked(made: lab.Lab, job: str, meanwhile: Callable[[], Any]) -> dict[str, float]:
    over = asyncio.Event()
    asked = asyncio.create_task(control.asking(made, [job], 20.0, over))
    await meanwhile()
    over.set()
    taken = sorted(await asked)
    return {f"p{p}_ms": 1000 * taken[min(len(taken) - 1, len(taken) * p // 100)] for p in (50, 99)}


def _port(node: lab.LabNode) -> int:
    return int(node.platform_url.rpartition(":")[2])


def line(found: dict[str, Any]) -> str:
    alone, beside = found["alone"], found["beside"]
    return (
        f"status_all p50, p99 ms: {alone['p50_ms']:.1f}, {alone['p99_ms']:.1f} alone; {beside['p50_ms']:.1f}, "
        f"{beside['p99_ms']:.1f} beside {found['mb_s']:.0f} MB/s (at most 50)"
    )
