"""One gateway under signed, TLS, persisted requests: `python -m bench.mgmt [--quick] [--json FILE]`.

A real lab gateway (supervisor, control and data process) has one core to itself, the client process the other; where
there is one core only, all share it. Requests are signed in the name of an approved partner whose own gateway has been
stopped. The rival (bench.mgmt.rival, bare aiohttp with the same work) runs on the same core and takes turns with it, so
that whatever else the machine does slows both alike; a ratio is the median over the rounds of ours / rival.

Measured: writes (dataset/audit/apply of a new id, then its terminate: each one committed transaction and a line of the
audit trail), signed reads (dataset/pub/query), pages 1 and 4,000 of 100,000 datasets, what proving the caller costs of
a request, and how many nonces a second the nonce store keeps.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from accel.bench.run import machine
from bench.mgmt.wire import Writer
from gateway import lab
from gateway.auth.canonical import Signed, canonical
from gateway.auth.chain import certificates, check_client
from gateway.auth.replay import ReplayGuard
from gateway.auth.schemes import parse_credential
from gateway.model import Contract, Dataset, DatasetId, InstId
from gateway.ports import Tx
from gateway.runtime.nonces import NonceFile
from gateway.runtime.system import SystemClock
from gateway.store.sql import SqlStore

DATASETS = 100_000
PAGES = (1, 4000)
RATE_TARGET, P99_TARGET_MS, LIST_TARGET_MS, SIGNATURE_TARGET, NONCE_TARGET = 1000, 50, 100, 0.30, 10_000


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: float
    warm: float
    concurrency: int = 16


@dataclass
class Gateway:
    """The gateway under load: `to`; requests go out as `source`."""

    directory: Path
    to: lab.LabNode
    source: lab.LabNode
    contract_id: str
    port: int

    def folder(self, node: lab.LabNode) -> Path:
        return node.ca_file.parent.parent

    def job(self, **more: Any) -> dict[str, Any]:
        return {
            "port": self.port,
            "pki": str(self.source.ca_file.parent),
            "ca": str(self.to.ca_file),
            "source": self.source.node_id,
            "target": self.to.node_id,
            "contract_id": self.contract_id,
            "dataset_id": "ds-0000000",
            **more,
        }


def cores() -> tuple[set[int] | None, int | None]:
    """(cores of the server, core of the client)."""
    mine = sorted(os.sched_getaffinity(0))
    return ({mine[0]}, mine[1]) if len(mine) > 1 else (None, None)


def processes(pid: int) -> dict[str, int]:
    """The supervisor's children by what they are."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(stat[1]) == pid:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                found[words[words.index(b"gateway.app") + 1].decode()] = int(entry.name)
        except (OSError, ValueError):
            continue
    return found


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for name, pid in pids.items():
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found[name] = (int(stat[11]) + int(stat[12])) / tick
    return found


@contextmanager
def gateway(directory: Path, datasets: int) -> Iterator[Gateway]:
    """A pair with a signed contract, one of them stopped, the other full of datasets."""
    made = lab.up(directory, approved=True)
    try:
        source, to = made.nodes
        contract = next(c for c in to.client().get("partners") if c["status"] == "APPROVED")
        lab.down(directory)
        folder = to.ca_file.parent.parent
        fill(folder / "state.db", datasets)
        # One partner files more in these minutes than the default lets it in all.
        config = folder / "node.toml"
        config.write_text(config.read_text() + "\n[limits]\naudits_per_kind = 10_000_000\n")
        made = lab.up(directory)
        source, to = made.nodes
        assert source.pid is not None
        os.kill(source.pid, signal.SIGTERM)
        port = int(to.edge_url.rpartition(":")[2])
        time.sleep(1.0)
        yield Gateway(directory, to, source, str(contract["contract_id"]), port)
    finally:
        lab.down(directory)


def fill(file: Path, count: int) -> None:
    """Datasets straight into a stopped gateway's database."""

    def make(number: int) -> Dataset:
        metas = tuple({"name": f"x{n}", "data_type": "double", "distribution": "CONTINUOUS"} for n in range(8))
        return Dataset(
            dataset_id=DatasetId(f"ds-{number:07d}"), name=f"table {number}", owner=InstId("JG0200000200000000"),
            category="bench", description="", count=1000, join_columns="id", label_columns="y", column_metas=metas,
            public=True, location=f"/data/{number}.csv", created=1_700_000_000_000 + number,
        )  # fmt: skip

    def insert(numbers: range, tx: Tx) -> None:
        for number in numbers:
            tx.insert(make(number))

    async def run() -> None:
        store = SqlStore(f"sqlite:///{file}")
        for first in range(0, count, 5000):
            await store.run(partial(insert, range(first, min(count, first + 5000))))
        await store.close()

    asyncio.run(run())


def note(into: dict[str, float], pids: Mapping[str, int]) -> None:
    into |= cpu_seconds(pids)


def load(job: dict[str, Any], on_start: Callable[[], None] = lambda: None) -> dict[str, Any]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.mgmt.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    if process.stdout.readline().strip() != "ready":
        raise RuntimeError("the client did not start")
    on_start()
    process.stdin.write("go\n")
    process.stdin.flush()
    result: dict[str, Any] = json.loads(process.stdout.readline())
    process.wait(30)
    if result["bad"]:
        raise RuntimeError(f"{result['bad']} answers were not success: {result['example']}")
    return result


@contextmanager
def rival(made: Gateway, directory: Path) -> Iterator[int]:
    """The rival on this process's cores; its port."""
    directory.mkdir(exist_ok=True)
    ours, theirs = made.to.ca_file.parent, made.source.ca_file.parent
    config = {
        "signing": str(theirs / "signing.pem"),
        "client_ca": str(theirs / "ca.pem"),
        "chain": str(ours / "tls.pem"),
        "key": str(ours / "tls.key"),
        "database": str(directory / f"rival-{time.time_ns()}.db"),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.mgmt.rival", json.dumps(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(10)


def rounds(made: Gateway, plan: Plan, what: str, core: int | None) -> dict[str, Any]:
    """Ours and the rival in turns."""
    ours, theirs = [], []
    pids = processes(made.to.pid or 0)
    for _ in range(plan.rounds):
        common = {"what": what, "concurrency": plan.concurrency, "seconds": plan.seconds, "warm": plan.warm}
        common |= {"core": core, "most": round(6000 * (plan.seconds + plan.warm))}
        before: dict[str, float] = {}
        got = load(made.job(**common), partial(note, before, pids))
        after = cpu_seconds(pids)
        got["cpu_us"] = {n: 1e6 * (after[n] - before[n]) / got["all_requests"] for n in pids}
        ours.append(got)
        with rival(made, made.directory / "rival") as port:
            theirs.append(load(made.job(**common) | {"port": port}))
    ratios = [a["rate"] / b["rate"] for a, b in zip(ours, theirs, strict=True)]
    middle = {name: statistics.median(each[name] for each in ours) for name in ("rate", "p50_ms", "p99_ms", "max_ms")}
    return {
        "what": what,
        **middle,
        "rates": [each["rate"] for each in ours],
        "p99s_ms": [each["p99_ms"] for each in ours],
        "cpu_us": {n: statistics.median(each["cpu_us"][n] for each in ours) for n in pids},
        "rival_rate": statistics.median(each["rate"] for each in theirs),
        "rival_p99_ms": statistics.median(each["p99_ms"] for each in theirs),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "client_cpu_share": max(each["client_cpu_share"] for each in (*ours, *theirs)),
        "requests": sum(each["requests"] for each in ours),
    }


def pages(made: Gateway, plan: Plan, core: int | None) -> list[dict[str, Any]]:
    """One request in flight, pages of 20."""
    found = []
    for page in PAGES:
        job = made.job(what="list", page=page, concurrency=1, seconds=plan.seconds * 2, warm=0.3, core=core, most=6000)
        found.append({"page": page, **load(job)})
    return found


def signature(made: Gateway) -> dict[str, float]:
    """Microseconds of each part of proving who called, as the edge does it, on the gateway's core while it is idle."""
    contract = next(c for c in contracts(made) if c.status.value == "APPROVED")
    writer = Writer(made.source.node_id, made.to.node_id, made.source.ca_file.parent)
    body = {"audit_id": "au-0", "dataset_id": "ds-0", "contract_id": made.contract_id}
    raw = writer.request("POST", "/v1/interconn/dataset/audit/apply", body)
    head, _, content = raw.partition(b"\r\n\r\n")
    values = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    signed = Signed(
        method="POST", path="/v1/interconn/dataset/audit/apply", query=(), source=writer.source, target=writer.target,
        nonce=values["x-nonce"], timestamp=values["x-timestamp"], body=content,
    )  # fmt: skip
    credential = parse_credential(contract.auth_type, contract.auth_credential)
    leaf = certificates((made.source.ca_file.parent / "tls.pem").read_text())[0]
    der = leaf.public_bytes(Encoding.DER)
    now, node = time.time_ns() // 1_000_000, contract.peer_node_id
    parts: dict[str, Callable[[], object]] = {
        "signature": lambda: credential.verify(canonical(signed), values["x-auth-sign"]),
        "signing chain": lambda: parse_credential(contract.auth_type, contract.auth_credential).check(
            node_id=node, now_ms=now
        ),
        "client certificate": lambda: check_client(der, contract.tls_ca, node_id=node, now_ms=now),
    }
    found = {}
    for name, part in parts.items():
        samples = []
        for _ in range(7):
            begun = time.process_time()
            for _ in range(300):
                part()
            samples.append(1e6 * (time.process_time() - begun) / 300)
        found[name] = statistics.median(samples)
    return found


def contracts(made: Gateway) -> list[Any]:
    async def read() -> list[Any]:
        store = SqlStore(f"sqlite:///{made.folder(made.to) / 'state.db'}")
        try:
            return list(await store.run(lambda tx: tx.select(Contract)))
        finally:
            await store.close()

    return asyncio.run(read())


def nonces(directory: Path, seconds: float, waiting: int = 256) -> dict[str, float]:
    """Nonces a second that the guard takes and the file holds, with `waiting` callers at a time."""

    async def run() -> dict[str, float]:
        clock = SystemClock()
        guard = ReplayGuard(window_ms=300_000, capacity=8_000_000)
        file = NonceFile(directory / "nonces", life_ms=600_000, clock=clock)
        taken: list[float] = []
        until = time.perf_counter() + seconds

        async def caller(name: int) -> None:
            number = 0
            while (begun := time.perf_counter()) < until:
                number += 1
                await file.keep(0, guard.remember("a signer", f"{name}-{number}", now=clock.now_ms()))
                taken.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*(caller(n) for n in range(waiting)))
        spent = time.perf_counter() - begun
        await file.close()
        taken.sort()
        return {"rate": len(taken) / spent, "p99_ms": 1000 * taken[len(taken) * 99 // 100], "waiting": waiting}

    return asyncio.run(run())


def judged(value: float, target: float, *, most: bool) -> str:
    good = value <= target if most else value >= target
    return f"{'met' if good else 'MISSED'} ({'at most' if most else 'at least'} {target:g})"


def table(result: Mapping[str, Any]) -> str:
    lines = [
        "| what | concurrency | requests/s | p50 ms | p99 ms | aiohttp requests/s | its p99 ms | ratio (min-max) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    plan = result["concurrency"]
    for row in result["load"]:
        low, high = min(row["ratios"]), max(row["ratios"])
        lines.append(
            f"| {row['what']} | {plan} | {row['rate']:,.0f} | {row['p50_ms']:.1f} "
            f"| {row['p99_ms']:.1f} | {row['rival_rate']:,.0f} | {row['rival_p99_ms']:.1f} "
            f"| **{row['ratio']:.2f}** ({low:.2f}-{high:.2f}) |"
        )
    write = result["load"][0]
    lines += ["", "| target | found | verdict |", "|---|---|---|"]
    lines.append(f"| writes a second | {write['rate']:,.0f} | {judged(write['rate'], RATE_TARGET, most=False)} |")
    lines.append(
        f"| p99 of a write, ms | {write['p99_ms']:.1f} | {judged(write['p99_ms'], P99_TARGET_MS, most=True)} |"
    )
    for row in result["pages"]:
        verdict = judged(row["p99_ms"], LIST_TARGET_MS, most=True)
        lines.append(
            f"| page {row['page']:,} of {result['datasets']:,} datasets, p50 and p99, ms "
            f"| {row['p50_ms']:.1f}, {row['p99_ms']:.1f} | {verdict} |"
        )
    share = result["signature_share"]
    parts = ", ".join(f"{name} {us:.0f}" for name, us in result["signature_us"].items())
    lines.append(
        f"| share of proving who called in a write's CPU time ({parts} of {sum(write['cpu_us'].values()):.0f} us) "
        f"| {share:.0%} | {judged(share, SIGNATURE_TARGET, most=True)} |"
    )
    nonce = result["nonces"]
    lines.append(
        f"| nonces a second on disk ({nonce['waiting']} waiting, p99 {nonce['p99_ms']:.0f} ms) | {nonce['rate']:,.0f} "
        f"| {judged(nonce['rate'], NONCE_TARGET, most=False)} |"
    )
    used = ", ".join(f"{name} {us:.0f} us" for name, us in write["cpu_us"].items())
    lines += [
        "",
        f"CPU time of a write by process: {used}. Busiest client: {write['client_cpu_share']:.0%} of its core.",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round and 10,000 datasets, page 400")
    parser.add_argument("--concurrency", type=int, default=16, help="connections, each with one request in flight")
    parser.add_argument("--json", type=Path, default=Path("build/bench/mgmt.json"))
    options = parser.parse_args()
    plan = Plan(1, 2.0, 0.5, options.concurrency) if options.quick else Plan(5, 5.0, 1.0, options.concurrency)
    datasets = DATASETS // 10 if options.quick else DATASETS
    facts = machine()
    server, client = cores()
    everything = os.sched_getaffinity(0)
    if server is not None:
        os.sched_setaffinity(0, server)  # what is started from here inherits it
    result: dict[str, Any] = {"concurrency": plan.concurrency, "datasets": datasets}
    result["cores"] = {"gateway and rival": sorted(server or everything), "client": client}
    print(json.dumps({"machine": facts, **result}), flush=True)
    with tempfile.TemporaryDirectory(prefix="ic-bench-") as folder, gateway(Path(folder) / "lab", datasets) as made:
        result["load"] = [rounds(made, plan, what, client) for what in ("write", "read")]
        result["pages"] = pages(made, plan, client)
        result["signature_us"] = signature(made)
        result["nonces"] = nonces(Path(folder), plan.seconds)
    cpu = sum(result["load"][0]["cpu_us"].values())
    result["signature_share"] = sum(result["signature_us"].values()) / cpu
    facts["load_average_after"] = os.getloadavg()[0]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": facts, **result}, indent=1))
    print("\n" + table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
