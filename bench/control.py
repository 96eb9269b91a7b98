"""What a task costs beside its work: `python -m bench.control [--quick] [--json FILE]`.

Two real gateways each time (processes, TLS, SQLite), a job of no-op tasks in a row between them, call-backs between
the schedulers. The same job with components started cold, with components forked from an interpreter that waits
([jobs] warm), and with components that are coroutines of the control process (bench.control_inside), which leaves the
scheduling alone. Anchor: the same component started twice at a time by a bare `subprocess`, without any gateway. All
take turns; a ratio is the median over the rounds of ours / anchor.

Then: how long status_all takes a partner who asks steadily while 200 jobs are queued and run, counted from the moment
when each question was due; and the memory of the processes of a gateway that has nothing to do.
"""

import argparse
import asyncio
import json
import os
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from accel.bench.run import machine
from bench.control_noop import DESCRIPTION, NAME, PORT, PROVIDER, VERSION
from bench.mgmt.wire import Writer
from gateway import lab
from gateway.app.node import CONTROL_READY, DATA_READY

ROOT = Path(__file__).resolve().parents[1]
TASKS, JOBS = 20, 200
STATUS_PATH = "/v1/interconn/schedule/job/status_all"
TARGET_MS = {"cold": 400, "warm": 120, "inside": 20}
STATUS_TARGET_MS, CONTROL_MIB, DATA_MIB = 100, 130, 90
INSIDE = (sys.executable, "-m", "bench.control_inside", "--config")
RULES = {"require_job_audit": False, "require_project": False}


# --- jobs -------------------------------------------------------------------------------------------------------------


def platform(node: lab.LabNode, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A call of our own side; its data."""
    request = urllib.request.Request(
        f"{node.platform_url}/v1/platform/schedule/{route}",
        json.dumps(body).encode(),
        {
            "content-type": "application/json",
            "authorization": f"Bearer {node.admin_token_file.read_text().strip()}",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        answer = json.loads(reply.read())
    if answer["code"] != 0:
        raise RuntimeError(f"{route}: {answer}")
    return dict(answer["data"])


def chain(length: int) -> dict[str, Any]:
    """A dag of no-ops, each after the one before."""
    steps = []
    for number in range(length):
        before = [{"key": f"t{number - 1}.{PORT}", "type": "report"}] if number else []
        steps.append(
            {
                "name": f"t{number}",
                "componentName": NAME,
                "provider": PROVIDER,
                "version": VERSION,
                "input": before,
                "output": [{"key": PORT, "type": "report"}],
            }
        )
    return {"version": "2.0", "components": steps}


def submit(made: lab.Lab, length: int) -> str:
    guest, host = made.nodes
    config = {
        "version": "2.0.0",
        "initiator": {"role": "guest", "node_id": guest.node_id},
        "role": {"guest": [guest.node_id], "host": [host.node_id]},
        "job_params": {"common": {"sync_type": "callback"}},
        "task_params": {"common": {}},
    }
    return str(platform(guest, "job/create_all", {"dag": chain(length), "config": config})["job_id"])


def ended(made: lab.Lab, job_id: str) -> dict[str, Any]:
    client = made.nodes[0].client()
    while True:
        view = client.get("jobs", job_id)
        if view["job"]["status"] == "FINISHED":
            if view["job"]["outcome"] != "succeeded":
                raise RuntimeError(f"{job_id}: {view['explanation']}")
            return dict(view)
        time.sleep(0.2)


def per_task_ms(made: lab.Lab, length: int) -> float:
    """From the job's start everywhere to its end, by the scheduler's own record."""
    job = ended(made, submit(made, length))["job"]
    return float(job["finished"] - job["started"]) / length


@contextmanager
def pair(folder: Path, *, command: Sequence[str] = lab.SERVE, **jobs: Any) -> Iterator[lab.Lab]:
    """Two gateways that trust each other and know the no-op."""
    made = lab.up(folder, parties=2, approved=True, jobs={**RULES, **jobs}, command=command)
    try:
        for node in made.nodes:
            body = {"imageUrl": "builtin:bench.control_noop", "component_info": DESCRIPTION}
            platform(node, "component/register", body)
        yield made
    finally:
        lab.down(folder)


def bare_ms(folder: Path, count: int) -> float:
    """The component alone, two at a time, as a shell would start it."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "system.storage": folder.as_uri(),
        "system.transport": "127.0.0.1:9",
        "config.task_id": "task_0",
        "config.session_id": "session_0",
        "runtime.component.name": NAME,
        f"runtime.component.output.{PORT}": json.dumps({"namespace": "n", "name": "o"}),
        "config.node_id.guest.0": "A",
        "config.node_id.host.0": "B",
    }
    command = [sys.executable, "-P", "-m", "bench.control_noop"]
    begun = time.perf_counter()
    for _ in range(count):
        both = [
            subprocess.Popen(
                command, env={**environment, "config.self_role": f"{role}.0"}, stdout=subprocess.DEVNULL, cwd=folder
            )
            for role in ("guest", "host")
        ]
        if sum(process.wait() for process in both):  # waits for each
            raise RuntimeError("the bare component failed")
    return 1000 * (time.perf_counter() - begun) / count


def overhead(folder: Path, labs: Mapping[str, lab.Lab], rounds: int) -> dict[str, Any]:
    """Milliseconds a task, each way in turns."""
    found: dict[str, list[float]] = {name: [] for name in ("bare", *labs)}
    for made in labs.values():
        per_task_ms(made, 3)  # connections, caches
    for _ in range(rounds):
        found["bare"].append(bare_ms(folder, TASKS))
        for name, made in labs.items():
            time.sleep(1.0)  # spare interpreters are made while nobody waits
            found[name].append(per_task_ms(made, TASKS))
    ratios = {name: [ours / bare for ours, bare in zip(found[name], found["bare"], strict=True)] for name in labs}
    return {"ms": found, "ratios": ratios}


# --- status_all under load --------------------------------------------------------------------------------------------


class Asker:
    """One kept connection to the edge of a gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> None:
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        if b'"code":0' not in body.replace(b" ", b""):
            raise RuntimeError(f"status_all: {body[:300]!r}")

    def close(self) -> None:
        self._writer.close()


async def asking(made: lab.Lab, jobs: Sequence[str], rate: float, still: "asyncio.Event") -> list[float]:
    """Seconds each question took from when it was due; as the host, until `still` is set."""
    to, source = made.nodes
    pki = source.ca_file.parent
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(to.ca_file)
    context.load_cert_chain(pki / "tls.pem", pki / "tls.key")
    parts = urlsplit(to.edge_url)
    idle: asyncio.Queue[Asker] = asyncio.Queue()
    for _ in range(8):
        idle.put_nowait(Asker(*await asyncio.open_connection(parts.hostname, parts.port, ssl=context)))
    writer = Writer(source.node_id, to.node_id, pki)
    taken: list[float] = []
    chosen = random.Random(1)

    async def one(due: float) -> None:
        asker = await idle.get()
        request = writer.request("POST", STATUS_PATH, {"job_id": chosen.choice(jobs)})
        await asker.ask(request)
        taken.append(time.perf_counter() - due)
        idle.put_nowait(asker)

    due, tasks = time.perf_counter(), []
    while not still.is_set():
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    while not idle.empty():
        idle.get_nowait().close()
    return taken


def status_all(made: lab.Lab, jobs: int, *, rate: float = 20.0) -> dict[str, Any]:
    """Jobs of one task each, all handed in at once; asked about until the last has ended."""

    async def run() -> dict[str, Any]:
        begun = time.perf_counter()
        named = await asyncio.gather(*(asyncio.to_thread(submit, made, 1) for _ in range(jobs)))
        submitted = time.perf_counter() - begun
        over = asyncio.Event()
        asked = asyncio.create_task(asking(made, named, rate, over))
        for job_id in named:
            await asyncio.to_thread(ended, made, job_id)
        over.set()
        taken = sorted(await asked)
        return {
            "jobs": jobs,
            "rate": rate,
            "submit_s": submitted,
            "run_s": time.perf_counter() - begun,
            "asked": len(taken),
            "p50_ms": 1000 * taken[len(taken) // 2],
            "p99_ms": 1000 * taken[min(len(taken) - 1, len(taken) * 99 // 100)],
            "max_ms": 1000 * taken[-1],
        }

    return asyncio.run(run())


# --- memory -----------------------------------------------------------------------------------------------------------


def memory_mib(pid: int) -> dict[str, float]:
    """Rss and Pss of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return {name: sizes[name] for name in ("Rss", "Pss")}


def idle_memory(made: lab.Lab) -> dict[str, dict[str, float]]:
    """Of each process of a gateway, by what it is."""
    run = made.directory / made.nodes[0].name / "run"
    pids = {
        name: int(json.loads((run / file).read_text())["pid"])
        for name, file in (("control", CONTROL_READY), ("data", DATA_READY))
    }
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
            if b"gateway.runtime.forker" in words and str(pids["control"]).encode() in words:
                pids["waiting interpreter"] = int(entry.name)
    return {name: memory_mib(pid) for name, pid in pids.items()}


# --- all of it --------------------------------------------------------------------------------------------------------


def judged(value: float, most: float) -> str:
    return f"{'met' if value <= most else 'MISSED'} (at most {most:g})"


def table(result: Mapping[str, Any]) -> str:
    ms, ratios = result["overhead"]["ms"], result["overhead"]["ratios"]
    lines = [
        "| a task of two parties | ms, median (min-max) | of the bare component (min-max) | target |",
        "|---|---|---|---|",
    ]
    for name, values in ms.items():
        spread = f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"
        if name not in ratios:
            lines.append(f"| {name} | {spread} | 1 | |")
            continue
        of = f"{statistics.median(ratios[name]):.2f} ({min(ratios[name]):.2f}-{max(ratios[name]):.2f})"
        lines.append(f"| {name} | {spread} | {of} | {judged(statistics.median(values), TARGET_MS[name])} |")
    status = result["status_all"]
    lines += ["", "| what | found | target |", "|---|---|---|"]
    lines.append(
        f"| status_all, {status['jobs']} jobs, {status['rate']:g}/s, p50, p99, max ms | {status['p50_ms']:.1f}, "
        f"{status['p99_ms']:.1f}, {status['max_ms']:.1f} | {judged(status['p99_ms'], STATUS_TARGET_MS)} |"
    )
    most = {"control": CONTROL_MIB, "data": DATA_MIB}
    for name, sizes in result["memory"].items():
        verdict = judged(sizes["Rss"], most[name]) if name in most else ""
        lines.append(
            f"| memory when idle, {name}, MiB: Rss, Pss | {sizes['Rss']:.0f}, {sizes['Pss']:.0f} | {verdict} |"
        )
    return "\n".join(lines)


def main() -> int:
    # The gateways import the components of this folder, which is no installed package.
    here = str(Path(__file__).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds, and 40 jobs instead of 200")
    parser.add_argument("--json", type=Path, default=Path("build/bench/control.json"))
    options = parser.parse_args()
    rounds, jobs = (2, 40) if options.quick else (7, JOBS)
    facts = machine()
    print(json.dumps({"machine": facts}), flush=True)
    result: dict[str, Any] = {"tasks": TASKS}
    with tempfile.TemporaryDirectory(prefix="ic-bench-") as folder, ExitStack() as stack:
        place = Path(folder)
        warm = stack.enter_context(pair(place / "warm"))
        time.sleep(2.0)
        result["memory"] = idle_memory(warm)
        labs = {
            "cold": stack.enter_context(pair(place / "cold", warm=False)),
            "warm": warm,
            "inside": stack.enter_context(pair(place / "inside", command=INSIDE)),
        }
        result["overhead"] = overhead(place, labs, rounds)
        result["status_all"] = status_all(warm, jobs)
    facts["load_average_after"] = os.getloadavg()[0]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": facts, **result}, indent=1))
    print("\n" + table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
