"""The data plane against its rivals: `python -m bench.transport [--quick] [--only TEXT] [--json FILE]`.

Every row is measured in turns with grpc.aio unary over one plain hop, so that whatever else the machine does slows both
alike; a ratio is the median over the rounds of ours / rival. Servers have core 0, loads core 1; on the whole way
(container, gateway, TLS, gateway, container) the sending side has core 0 and the receiving one core 1. The gateways are
data processes as the product starts them, without a control process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accel.bench.run import machine
from bench.transport import beside

KIB, MIB = 1 << 10, 1 << 20
DEPTH = {KIB: 32, 64 * KIB: 8, MIB: 4, 16 * MIB: 2}
Load = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    rounds: int
    warm: float
    seconds: float


class Child:
    """A process of `roles`."""

    def __init__(self, role: str, **config: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.transport.roles", role, json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self.read()["ready"]

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def write(self, **what: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def peak_mib(self) -> float:
        """Highest resident memory so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(*loads: tuple[str, Load]) -> list[dict[str, Any]]:
    """Start these loads at one moment and give what each counted."""
    children = [Child(role, **config) for role, config in loads]
    for child in children:
        child.write()
    found = [child.read() for child in children]
    for child in children:
        child.stop()
    return found


def first_of(*loads: tuple[str, Load]) -> dict[str, Any]:
    """What the first of them counted: of a pair the reading side, so that only what arrived counts."""
    return run(*loads)[0]


@dataclass
class Servers:
    """What is running."""

    grpc: int
    aiohttp: int
    alone: dict[str, Any]
    ways: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    gateways: list[Child] = field(default_factory=list)


@contextmanager
def servers(first: int | None, second: int | None) -> Iterator[Servers]:
    with ExitStack() as stack:

        def start(role: str, **config: Any) -> Child:
            child = Child(role, **config)
            stack.callback(child.stop)
            return child

        def pair(name: str, cores: tuple[int | None, int | None], **more: Any) -> tuple[Child, Child]:
            made = []
            rule = {"durability": "spool"} if more.get("spool") else {}
            for letter, core in zip("AB", cores, strict=True):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="icb")))
                folder.chmod(0o700)
                made.append(start("gateway", node=f"{name}-{letter}", folder=str(folder), core=core, **more))
            for one, other, letter in ((made[0], made[1], "B"), (made[1], made[0], "A")):
                ready = other.ready
                one.write(node=f"{name}-{letter}", edge=ready["edge"], ca=ready["ca"], profile="strict-1.2", rule=rule)
                one.read()
            return made[0], made[1]

        alone = pair("alone", (first, second))
        found = Servers(
            grpc=start("grpc-server", core=first).ready["port"],
            aiohttp=start("aiohttp-server", core=first).ready["port"],
            alone=alone[0].ready,
        )
        for name, settings in WAYS.items():
            a, b = pair(name, (first, second), settings=settings, spool=name == SPOOL)
            found.ways[name] = (a.ready, b.ready)
            found.gateways += (a, b)
        yield found


WAYS: dict[str, dict[str, Any]] = {"standard": {"streams": False}, "stream": {}, "stream, spool": {}}
"""Name of a way between two gateways -> settings of both: `standard` is what a stranger gets, chan/invoke."""
SPOOL = "stream, spool"


@dataclass(frozen=True)
class Row:
    """ours: gives messages a second and what else it saw. goal: the least ratio to grpc.aio unary, and the aim."""

    name: str
    size: int
    ours: Callable[[], Mapping[str, Any]]
    goal: tuple[float, float] | None


def rows(up: Servers, plan: Plan, core: int | None, other: int | None) -> Iterator[Row]:
    timing = {"warm": plan.warm, "seconds": plan.seconds}

    def load(size: int, **more: Any) -> Load:
        return {"size": size, "depth": DEPTH[size], "core": core, **timing, **more}

    for size, goal in ((KIB, (1.5, 2.5)), (64 * KIB, None), (MIB, (1.5, 4.0)), (16 * MIB, (1.2, 2.2))):
        own = load(size, port=up.alone["platform"], target="alone-A", topic="t", drain=4 * MIB * DEPTH[size])
        # Until then memory for bodies is touched for the first time; it is kept for later ones (io.rooms).
        own["warm"] += 2.5 if size >= MIB else 0
        yield Row("own push endpoint", size, partial(first_of, ("push", own)), goal)
        yield Row("own gRPC front", size, partial(first_of, ("grpc-push", own)), None)
        bare = load(size, port=up.aiohttp)
        yield Row("aiohttp, bare", size, partial(first_of, ("http-post", bare)), None)
        stream = load(size, port=up.grpc)
        yield Row("grpc.aio stream", size, partial(first_of, ("grpc-stream", stream)), None)
    for name, (a, b) in up.ways.items():
        for size, goal in ((KIB, (0.3, 0.6)), (MIB, (0.35, 0.6))):
            out = load(size, port=a["platform"], target=f"{name}-B", topic=f"t{size}") | {"core": other}
            into = load(size, port=b["platform"], target=f"{name}-A", topic=f"t{size}")
            yield Row(
                f"whole way, {name}",
                size,
                partial(first_of, ("pop", into), ("push", out)),
                goal if name == "standard" else None,
            )
        out = load(KIB, port=a["platform"], target=f"{name}-B", topic="slow", stamp=True, pause=0.002)
        into = load(KIB, port=b["platform"], target=f"{name}-A", topic="slow", stamp=True)
        out |= {"core": other, "depth": 1}
        yield Row(
            f"whole way, {name}, one at a time",
            KIB,
            partial(first_of, ("pop", into), ("push", out)),
            None,
        )
    a, b = up.ways["stream"]
    for size, depth, more in ((KIB, DEPTH[KIB], {}), (MIB, DEPTH[MIB], {}), (KIB, 1, {"stamp": True, "pause": 0.002})):
        way = {"topic": f"task{size}.{depth}", "depth": depth, **more}
        out = load(size, folder=a["folder"], target="stream-B") | way | {"core": other}
        into = load(size, folder=b["folder"], target="stream-A") | way
        yield Row(
            "whole way, stream, tasks on the Unix socket" + (", one at a time" if depth == 1 else ""),
            size,
            partial(first_of, ("task-pop", into), ("task-push", out)),
            None if depth == 1 else (0.6, 0.6),
        )


def measure(plan: Plan, only: str) -> list[dict[str, Any]]:
    cores = sorted(os.sched_getaffinity(0))
    first, second = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    found = []
    with servers(first, second) as up:
        for row in rows(up, plan, second, first):
            if only not in f"{row.name} {row.size}":
                continue
            rival: dict[str, Any] = {"size": row.size, "depth": DEPTH[row.size], "core": second, "port": up.grpc}
            rival |= {"warm": plan.warm, "seconds": plan.seconds}
            ours, theirs = [], []
            for _ in range(plan.rounds):
                ours.append(row.ours())
                theirs.append(run(("grpc-unary", rival))[0]["rate"])
            ratios = [mine["rate"] / its for mine, its in zip(ours, theirs, strict=True)]
            found.append(
                {
                    "name": row.name,
                    "size": row.size,
                    "rate": statistics.median(mine["rate"] for mine in ours),
                    "rival": statistics.median(theirs),
                    "ratio": statistics.median(ratios),
                    "spread": (min(ratios), max(ratios)),
                    "goal": row.goal,
                    "p50_ms": _median(ours, "p50_ms"),
                    "p99_ms": _median(ours, "p99_ms"),
                }
            )
            print(line(found[-1]), flush=True)
        for gateway in up.gateways:
            print(f"peak memory of a gateway: {gateway.peak_mib():.0f} MiB")
    return found


def _median(ours: list[Mapping[str, Any]], key: str) -> float | None:
    seen = [mine[key] for mine in ours if key in mine]
    return statistics.median(seen) if seen else None


def line(row: Mapping[str, Any]) -> str:
    """A row of the table of docs/benchmarks.md."""
    size = row["size"]
    what = f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"
    low, high = row["spread"]
    goal = "" if row["goal"] is None else f"{row['goal'][0]} ({row['goal'][1]})"
    ratio, delay = f"**{row['ratio']:.2f}** ({low:.2f}-{high:.2f})", ""
    if row["p50_ms"] is not None:
        # One at a time, with pauses: no rate to be compared with that of many in flight.
        ratio, delay = "", f"{row['p50_ms']:.2f}, {row['p99_ms']:.2f}"
    return (
        f"| {row['name']} | {what} | {row['rate']:,.0f} | {row['rate'] * size / 1e6:,.0f} | {row['rival']:,.0f} "
        f"| {ratio} | {goal} | {delay} |"
    )


HEAD = (
    "| what | message | messages/s | MB/s | grpc.aio unary | ratio (min-max) | at least (aim) | p50, p99 ms |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.transport", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: rough")
    parser.add_argument("--only", default="", help="rows whose name and size in bytes contain this")
    parser.add_argument("--json", type=Path, default=Path("build/bench/transport.json"))
    args = parser.parse_args()
    plan = Plan(1, 0.5, 1.0) if args.quick else Plan(3, 0.8, 1.2)
    about = machine()
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load_average_before']:.1f} before")
    print(HEAD)
    found = measure(plan, args.only)
    report: dict[str, Any] = {"machine": about, "rows": found}
    by = {(row["name"], row["size"]): row["rate"] for row in found}
    kept, held = by.get((f"whole way, {SPOOL}", MIB)), by.get(("whole way, stream", MIB))
    if kept and held:
        print(f"spool mode at 1 MiB: {kept / held:.2f} of memory mode (at least 0.5)")
    if args.only in beside.__name__:
        report["beside"] = beside.measure(run, 3 if args.quick else 10)
        print(beside.line(report["beside"]))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
