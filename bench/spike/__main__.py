"""`python -m bench.spike [--quick] [--only relay,bulk,layout] [--json FILE]`: measures, prints tables, writes JSON.

Alternatives of one question run interleaved (A B C A B C ...), each in its own processes; a table shows the median
over the rounds, the lowest and highest round, and the ratio of the median to the first line's.
"""

import argparse
import datetime as dt
import json
import os
import platform
import ssl
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import aiohttp

from bench.spike import pki, rig
from bench.spike.servers import free_port

KIB, MIB = 1024, 1024 * 1024
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    warm: float  # seconds
    seconds: float  # of one window
    quick: bool  # leaves out what only says how much uvloop gives, plain bodies, and the thin edge


QUICK = Plan(rounds=1, warm=0.1, seconds=0.3, quick=True)
FULL = Plan(rounds=5, warm=0.3, seconds=1.2, quick=False)

# name: (loop, leg between gateways, legs to the containers)
RELAYS = {
    "HTTP invoke, asyncio": ("asyncio", "http", "http"),
    "HTTP invoke, uvloop": ("uvloop", "http", "http"),
    "frames between gateways, asyncio": ("asyncio", "framed", "http"),
    "frames between gateways, uvloop": ("uvloop", "framed", "http"),
    "frames on all legs, asyncio": ("asyncio", "framed", "framed"),
    "frames on all legs, uvloop": ("uvloop", "framed", "framed"),
}
# bytes a message, messages in flight
LOADS = ((KIB, 1), (KIB, 64), (MIB, 8))

# name: (loop, mode)
SINKS = {
    "aiohttp read(), asyncio": ("asyncio", "joined"),
    "aiohttp read(), uvloop": ("uvloop", "joined"),
    "aiohttp read(), uvloop, sender without aiohttp": ("uvloop", "joined"),
    "aiohttp streamed into a buffer, uvloop": ("uvloop", "streamed"),
    "BufferedProtocol, asyncio": ("asyncio", "framed"),
    "BufferedProtocol, uvloop": ("uvloop", "framed"),
}

# name: (bytes a body, bodies in flight)
HOLD = "HTTP 1 MiB, each call holds control 5 ms"
BULKS = {
    "HTTP 1 MiB": (MIB, 8),
    HOLD: (MIB, 8),
    "frames": (MIB, 8),
    "JSON 1 MiB": (MIB, 8),
    "JSON 16 MiB": (16 * MIB, 2),
}


def relay(plan: Plan, keys: pki.Pki, folder: Path) -> list[Figures]:
    """Items 1-4: container -> gateway A -> TLS 1.3 -> gateway B -> container, five processes in all."""
    rigs: dict[str, tuple[Figures, Figures, list[rig.Child]]] = {}
    runs: dict[tuple[int, int, str], list[tuple[float, float]]] = {}
    everyone: list[rig.Child] = []
    try:
        for index, (name, (loop, wire, container)) in enumerate(RELAYS.items()):
            if plan.quick and index and loop == "asyncio":
                continue
            a, b = (
                {"http_port": free_port(), "wire_port": free_port(), "uds": str(folder / f"{side}{index}.sock")}
                for side in "ab"
            )
            shared = {"wire": wire, "container": container, "pki": tuple(asdict(keys).values())}
            b |= shared | {"peer_port": a["wire_port"], "dials": False}
            a |= shared | {"peer_port": b["wire_port"], "dials": True}
            gateways = [rig.start("gateway", loop, **b), rig.start("gateway", loop, **a)]
            everyone += gateways
            rigs[name] = (a, b, gateways)
        for number in range(plan.rounds):
            for size, depth in LOADS:
                for name, (a, b, gateways) in rigs.items():
                    window: dict[str, Any] = {"warm": plan.warm, "seconds": plan.seconds, "size": size}
                    window |= {"depth": depth, "topic": f"{size}-{depth}-{number}"}
                    receiver = rig.start("receiver", "uvloop", **b, **window)
                    sender = rig.start("sender", "uvloop", **a, **window)
                    everyone += [receiver, sender]
                    before = sum(g.cpu() for g in gateways)
                    receiver.go()
                    sender.go()
                    rate = receiver.result(60)["rate"]
                    sender.result(10)
                    # The gateways' processor time belongs to warm-up, window and tail alike; all ran at this rate.
                    busy = (sum(g.cpu() for g in gateways) - before) / (plan.warm + plan.seconds + 0.3)
                    runs.setdefault((size, depth, name), []).append((rate, busy / rate * 1e6 if rate else 0.0))
    finally:
        rig.stop_all(everyone)
    return [
        {"size": size, "depth": depth, "name": name, "rate": [r for r, _ in values], "cpu_us": [c for _, c in values]}
        for (size, depth, name), values in runs.items()
    ]


def bulk(plan: Plan, keys: pki.Pki) -> list[Figures]:
    """Item 5: one leg, sender (uvloop) -> sink, bodies acknowledged one by one, two in flight at 16 MiB."""
    runs: dict[tuple[bool, int, str], list[float]] = {}
    sinks: dict[tuple[bool, str], tuple[int, rig.Child]] = {}
    material = tuple(asdict(keys).values())
    try:
        for tls in (True,) if plan.quick else (False, True):
            for index, (name, (loop, mode)) in enumerate(SINKS.items()):
                if plan.quick and index and loop == "asyncio":
                    continue
                port = free_port()
                sinks[tls, name] = (port, rig.start("sink", loop, port=port, mode=mode, tls=tls, pki=material))
        for _ in range(plan.rounds):
            for size, depth in ((MIB, 8), (16 * MIB, 2)):
                for (tls, name), (port, _child) in sinks.items():
                    sender = rig.start(
                        "bulk",
                        "uvloop",
                        port=port,
                        path="/",
                        framed=SINKS[name][1] == "framed",
                        bare="without" in name,
                        tls=tls,
                        pki=material,
                        size=size,
                        depth=depth,
                        warm=plan.warm,
                        seconds=plan.seconds,
                    )
                    sender.go()
                    runs.setdefault((tls, size, name), []).append(sender.result(60)["rate"] * size / 1e6)
    finally:
        rig.stop_all([child for _, child in sinks.values()])
    return [{"tls": tls, "size": size, "name": name, "mb_s": values} for (tls, size, name), values in runs.items()]


def layout(plan: Plan, keys: pki.Pki, folder: Path) -> list[Figures]:
    """Items 6 and 7: a management call through the edge, idle and beside a bulk transfer.

    single: one process. D: the data process owns the edge and forwards management calls to the control process.
    D + codec: the same, and JSON bodies are decoded in a further process. C: the control process owns the edge and
    forwards channel bodies to the data process. thin: an edge process forwards everything.
    """
    material = tuple(asdict(keys).values())
    children: list[rig.Child] = []

    def edge(**config: Any) -> None:
        children.append(rig.start("edge", "uvloop", pki=material, **config))

    try:
        ports = {name: free_port() for name in ("single", "D", "D + codec", "C", "thin")}
        edge(port=ports["single"])
        control, data = str(folder / "control.sock"), str(folder / "data.sock")
        edge(uds=control)
        edge(uds=data)
        edge(port=ports["D"], manage_uds=control)
        edge(port=ports["D + codec"], manage_uds=control, chan_uds=data, chan_json_only=True)
        edge(port=ports["C"], chan_uds=data)
        if plan.quick:
            del ports["thin"]
        else:
            edge(port=ports["thin"], manage_uds=control, chan_uds=data)
        # In C and behind a thin edge frames would be relayed; their HTTP figure already shows the second copy.
        # A codec process changes nothing for bodies that need no decoding.
        cases = [
            (name, kind)
            for kind in BULKS
            for name in ports
            if not (kind == "frames" and name in {"C", "thin"}) and (name != "D + codec" or kind.startswith("JSON"))
        ]
        idle: dict[str, list[list[float]]] = {}
        busy: dict[tuple[str, str], tuple[list[list[float]], list[float]]] = {}
        window = {"warm": plan.warm, "seconds": 2 * plan.seconds, "pki": material}
        for _ in range(plan.rounds):
            targets: list[tuple[str, dict[str, Any]]] = [
                ("control's socket, no edge", {"uds": control}),
                *((name, {"port": port}) for name, port in ports.items()),
            ]
            for name, target in targets:
                prober = rig.start("prober", "uvloop", **target, **window)
                prober.go()
                idle.setdefault(name, []).append(prober.result(60)["latencies"])
            for name, kind in cases:
                size, depth = BULKS[kind]
                sender = rig.start(
                    "bulk",
                    "uvloop",
                    port=ports[name],
                    path="/v1/interconn/chan/invoke",
                    framed=kind == "frames",
                    json=kind.startswith("JSON"),
                    upgrade=True,
                    tls=True,
                    size=size,
                    depth=depth,
                    nice=10,  # it stands for another machine: it must not take the gateway's processor time
                    **window,
                )
                hold_ms = 5 if kind == HOLD else 0
                prober = rig.start("prober", "uvloop", port=ports[name], hold_ms=hold_ms, **window)
                sender.go()
                prober.go()
                latencies, rates = busy.setdefault((name, kind), ([], []))
                latencies.append(prober.result(60)["latencies"])
                rates.append(sender.result(60)["rate"] * size / 1e6)
    finally:
        rig.stop_all(children)
    rows: list[Figures] = [{"name": name, "bulk": "none", "latency_ms": values} for name, values in idle.items()]
    rows += [
        {"name": name, "bulk": kind, "latency_ms": latencies, "mb_s": rates}
        for (name, kind), (latencies, rates) in busy.items()
    ]
    return rows


# -- printing


def spread(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}..{max(values):,.{digits}f})"


def ratio(values: list[float], base: float) -> str:
    """Of the median to the first row's. On a busy machine a short window may see no message at all: then none."""
    return f"{statistics.median(values) / base:.2f}" if base else "-"


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def print_relay(rows: list[Figures]) -> None:
    for size, depth in LOADS:
        chosen = [row for row in rows if (row["size"], row["depth"]) == (size, depth)]
        base = statistics.median(chosen[0]["rate"])
        print(f"container -> gateway -> TLS -> gateway -> container, {size // KIB} KiB, {depth} in flight")
        table(
            ("transport", "messages/s", "MB/s", "ratio", "gateways' CPU, us a message"),
            [
                (
                    row["name"],
                    spread(row["rate"]),
                    f"{statistics.median(row['rate']) * size / 1e6:,.1f}",
                    ratio(row["rate"], base),
                    spread(row["cpu_us"]),
                )
                for row in chosen
            ],
        )


def print_bulk(rows: list[Figures]) -> None:
    for tls in (False, True):
        for size in (MIB, 16 * MIB):
            chosen = {row["name"]: row["mb_s"] for row in rows if row["tls"] == tls and row["size"] == size}
            if not chosen:
                continue
            base = statistics.median(chosen[next(iter(SINKS))])
            print(f"one leg, {size // MIB} MiB bodies, {'TLS 1.3' if tls else 'plain'}")
            table(
                ("receiver (the sender is its like, unless said)", "MB/s", "ratio"),
                [(name, spread(values), ratio(values, base)) for name, values in chosen.items()],
            )


def print_layout(rows: list[Figures]) -> None:
    print("management call through the edge (milliseconds), and the bulk transfer beside it")
    table(
        ("layout", "bulk beside it", "calls", "p50", "p99 of a round", "worst", "bulk MB/s"),
        [
            (
                row["name"],
                row["bulk"],
                str(sum(len(one) for one in row["latency_ms"])),
                spread([percentile(one, 0.5) for one in row["latency_ms"]], 1),
                spread([percentile(one, 0.99) for one in row["latency_ms"]], 1),
                f"{max(map(max, row['latency_ms'])):.1f}",
                spread(row["mb_s"]) if "mb_s" in row else "",
            )
            for row in rows
        ],
    )

    print("the same, round by round: one layout's figure over the other's in that round")
    by_case = {(row["name"], row["bulk"]): row for row in rows}
    pairs = (("D", "single"), ("C", "single"), ("C", "D"), ("D + codec", "D"))
    lines = []
    for kind in BULKS:
        for one, other in pairs:
            if (one, kind) in by_case and (other, kind) in by_case:
                a, b = by_case[one, kind], by_case[other, kind]
                lines.append((f"{one} / {other}", kind, paired(a, b, 0.5), paired(a, b, 0.99), paired(a, b, None)))
    table(("layouts", "bulk beside it", "p50", "p99", "bulk rate"), lines)


def paired(one: Figures, other: Figures, share: float | None) -> str:
    """Ratios of rounds that ran next to each other: what disturbs the machine for longer than that cancels out."""
    if share is None:
        ratios = [a / b for a, b in zip(one["mb_s"], other["mb_s"], strict=True) if b]
        return spread(ratios, 2) if ratios else "-"
    rounds = zip(one["latency_ms"], other["latency_ms"], strict=True)
    return spread([percentile(a, share) / percentile(b, share) for a, b in rounds], 2)


def machine() -> Figures:
    with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  # a kernel table
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "?")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "aiohttp": aiohttp.__version__,
        "uvloop": metadata.version("uvloop"),
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.spike", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: under a minute, figures are rough")
    parser.add_argument("--only", default="relay,bulk,layout", help="comma-separated parts")
    parser.add_argument("--json", type=Path, default=Path("build/bench/spike.json"), help="where the figures go")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    parts = arguments.only.split(",")
    figures: Figures = {"machine": machine(), "plan": asdict(plan)}
    print(json.dumps(figures))
    with tempfile.TemporaryDirectory(prefix="spike-") as name:
        folder = Path(name)
        keys = pki.create(folder)
        if "relay" in parts:
            figures["relay"] = relay(plan, keys, folder)
            print_relay(figures["relay"])
        if "bulk" in parts:
            figures["bulk"] = bulk(plan, keys)
            print_bulk(figures["bulk"])
        if "layout" in parts:
            figures["layout"] = layout(plan, keys, folder)
            print_layout(figures["layout"])
    figures["load_average_after"] = os.getloadavg()
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    print(f"figures: {arguments.json}")


if __name__ == "__main__":
    main()
