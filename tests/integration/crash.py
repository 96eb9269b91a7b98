"""Kill one process of two gateways at a random moment of a job, as often as wanted, and see that both agree on its end.

Run by itself for long: `python -m tests.integration.crash --runs 100 [--seed N]`. The components are small programs of
this file: `work` does something alone, `swap` exchanges messages with the partner.
"""

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway import lab
from gateway.errors import GatewayError
from gateway.lab.lab import SERVE
from gateway.lab.node import CONFIG
from gateway.lab.processes import Process, spawn, stop
from tests.integration.pids import gone, of_node, processes
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
RULES: Mapping[str, Any] = {
    "poll_s": 0.1,
    "misses": 4,
    "silence_s": 8.0,
    "task_timeout_s": 15.0,
    "heartbeat_s": 10.0,
    "require_job_audit": False,
}
AGREE_S = 30.0
"""All parties agree within this time of being able to talk."""
VICTIMS = ("control", "data", "supervisor", "shim", "component")
BODIES = {
    "work": """
def body(task):
    for done in range(3):
        task.output.progress(Progress("work", done, 3, "steps"))
        time.sleep(0.05)
    task.write_json("report0", {"party": task.party})
""",
    "swap": """
def body(task):
    peer = task.partner()
    with task.link() as link:
        for number in range(4):
            deadline = time.monotonic() + 4
            link.send(peer, "hello", str(number).encode(), deadline=deadline)
            while (got := link.receive(peer, "hello", wait_ms=200, deadline=deadline)) is None:
                link.check_abort()
                if time.monotonic() > deadline:
                    raise ComponentError(Code.PARTNER_SILENT, "no message came")
            assert bytes(got) == str(number).encode()
            time.sleep(0.02)
    task.write_json("report0", {"party": task.party})
""",
}


def description(name: str) -> dict[str, Any]:
    port = {"description": "", "dataFormat": ["json"], "category": "report"}
    return {
        "componentName": name, "title": name, "provider": "crash", "version": "1.0.0", "description": name,
        "roleList": ["guest", "host", "arbiter"], "storageEngine": ["file"], "inputParam": [],
        "inputData": [{"name": "before", **port}], "outputData": [{"name": "report0", **port}],
        "result": [
            {"resultCode": "0", "resultMessage": "ok"},
            {"resultCode": "4004", "resultMessage": "the partner is silent"},
        ],
    }  # fmt: skip


def program(folder: Path, name: str, body: str) -> str:
    """Image of a component written with the SDK."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(
        f"#!{sys.executable}\n"
        f"import sys, time, json\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from gateway.operators.party import Progress\n"
        "from gateway.sdk.component import run\n"
        "from gateway.sdk.result import Code, ComponentError\n"
        "from specs.description import parse_description\n"
        f"{body}\n"
        f"sys.exit(run(parse_description({json.dumps(description(name))!r}), body))\n"
    )
    file.chmod(0o755)
    return f"file://{file}"


def node_of(name: str, component: str, *inputs: str) -> dict[str, Any]:
    return {
        "name": name, "componentName": component, "provider": "crash", "version": "1.0.0",
        "input": [{"key": f"{producer}.report0", "type": "report"} for producer in inputs],
        "output": [{"key": "report0", "type": "report"}],
    }  # fmt: skip


DAG = {
    "version": "2.0",
    "components": [
        node_of("two", "swap"),
        node_of("three", "work", "two"),
        node_of("side", "work"),
    ],
}


def platform(node: lab.LabNode, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A north-south call; its data."""
    token = node.admin_token_file.read_text().strip()
    request = urllib.request.Request(
        f"{node.platform_url}/v1/platform/schedule/{route}",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, timeout=20) as reply:
        answer = json.loads(reply.read())
    assert answer["code"] == 0, answer
    return dict(answer["data"])


def register(node: lab.LabNode, folder: Path, bodies: Mapping[str, str] = BODIES) -> None:
    for name, body in bodies.items():
        image = program(folder, name, body)
        platform(node, "component/register", {"imageUrl": image, "component_info": description(name)})


def config(initiator: lab.LabNode, roles: Mapping[str, list[str]], **common: Any) -> dict[str, Any]:
    role = next(role for role, nodes in roles.items() if initiator.node_id in nodes)
    return {
        "version": "2.0.0",
        "initiator": {"role": role, "node_id": initiator.node_id},
        "role": dict(roles),
        "job_params": {"common": common},
        "task_params": {"common": {}},
    }


@dataclass
class Pair:
    """Two gateways that are killed and come back."""

    directory: Path
    nodes: tuple[lab.LabNode, ...]
    random: random.Random
    restarted: dict[str, Process] = field(default_factory=dict)
    deaths: Counter[tuple[str, str]] = field(default_factory=Counter)

    @classmethod
    def start(cls, directory: Path, seed: int) -> "Pair":
        made = lab.up(directory, parties=2, approved=True, jobs=RULES)
        for node in made.nodes:
            register(node, directory / "programs")
        return cls(directory, made.nodes, random.Random(seed))

    def close(self) -> None:
        stop(list(self.restarted.values()))
        lab.down(self.directory)
        assert not self.of_gateways(), "processes were left behind"

    # -- processes

    def file(self, node: lab.LabNode) -> Path:
        return self.directory / node.name / CONFIG

    def pids(self, node: lab.LabNode, kind: str) -> list[int]:
        """supervisor, control and data of a node."""
        return of_node(self.file(node))[kind]

    def of_gateways(self) -> list[int]:
        own = [pid for node in self.nodes for pids in of_node(self.file(node)).values() for pid in pids]
        work = os.fsencode(self.directory)
        environments = ((seen.pid, seen.environment()) for seen in processes())
        return own + [pid for pid, text in environments if b"config.session_id=" in text and work in text]

    def of_job(self, job_id: str, node: lab.LabNode | None = None) -> list[tuple[int, bool]]:
        """Processes of a job's components: pid, and whether it is a shim."""
        marks = [f"config.session_id=session_{job_id}".encode()]
        if node is not None:
            marks.append(os.fsencode(self.directory / node.name))
        return [
            (seen.pid, any(word.endswith(b"shim.py") for word in seen.words))
            for seen in processes()
            if all(mark in seen.environment() for mark in marks)
        ]

    def up(self, node: lab.LabNode) -> None:
        """As an init system would: start the node again where its supervisor is gone."""
        if self.pids(node, "supervisor"):
            return
        wait_for(lambda: not self.pids(node, "control") + self.pids(node, "data"), "the children go, too")
        output = self.directory / node.name / "log" / "serve.out"
        if node.name in self.restarted:
            stop([self.restarted[node.name]])
        self.restarted[node.name] = spawn([*SERVE, str(self.file(node))], self.file(node), output)
        self.answers(node)

    def answers(self, node: lab.LabNode) -> None:
        def there() -> bool:
            with suppress(GatewayError, OSError):
                node.client(timeout_s=5).get("node")
                for url in (node.platform_url, node.edge_url):
                    parts = urlsplit(url)
                    socket.create_connection((str(parts.hostname), parts.port or 0), timeout=5).close()
                return True
            return False

        wait_for(there, f"{node.name} answers again", seconds=60)

    # -- one run

    def view(self, node: lab.LabNode, job_id: str) -> dict[str, Any] | None:
        with suppress(GatewayError, OSError):
            return dict(node.client(timeout_s=5).get("jobs", job_id))
        return None

    def kill(self, kind: str, node: lab.LabNode, job_id: str) -> bool:
        if kind in {"shim", "component"}:
            found = []
            for _ in range(20):
                found = [pid for pid, is_shim in self.of_job(job_id, node) if is_shim == (kind == "shim")]
                if found:
                    break
                time.sleep(0.05)
        else:
            found = self.pids(node, kind)
            self.deaths[node.name, kind] += 1
        if not found:
            return False
        chosen = self.random.choice(found)
        with suppress(ProcessLookupError):
            os.kill(chosen, signal.SIGKILL)
        # Until it is really gone its sockets still take calls.
        wait_for(lambda: gone(chosen), "it is dead")
        return True

    def run(self, victim: str | None = None, delay: float | None = None) -> tuple[str, str, float]:
        """One job with one kill: what was killed, how the job ended, and how long it took until both agreed."""
        self.rest()
        initiator, victims = self.random.choice(self.nodes), self.random.choice(self.nodes)
        kind = victim or self.random.choice(VICTIMS)
        roles = {"guest": [self.nodes[0].node_id], "host": [self.nodes[1].node_id]}
        sync = self.random.choice(("poll", "callback"))
        body = {"dag": DAG, "config": config(initiator, roles, sync_type=sync)}
        job_id = str(platform(initiator, "job/create_all", body)["job_id"])
        time.sleep(self.random.uniform(0.0, 1.5) if delay is None else delay)
        if not self.kill(kind, victims, job_id):
            kind = "nobody"
        for node in self.nodes:
            self.up(node)
            self.answers(node)
        begun = time.monotonic()
        deadline = begun + AGREE_S
        views: list[dict[str, Any] | None] = []
        told = f"{job_id}: {kind} of {victims.name} killed, {sync}, initiator {initiator.name}"
        while time.monotonic() < deadline:
            views = [self.view(node, job_id) for node in self.nodes]
            ends = {
                tuple(view["job"][key] for key in ("status", "outcome", "unsure")) if view else () for view in views
            }
            if len(ends) == 1 and next(iter(ends), ())[::2] == ("FINISHED", False):
                break
            time.sleep(0.05)
        else:
            words = [(v["job"]["status"], v["job"]["outcome"], v["explanation"]) if v else None for v in views]
            raise AssertionError(f"{told}: no agreement: {words}")
        wait_for(lambda: not self.of_job(job_id), f"{told}: components end", seconds=10)
        assert views[0] is not None
        outcome = str(views[0]["job"]["outcome"])
        if kind in {"control", "nobody"}:
            assert outcome == "succeeded", f"{told}: {[v['explanation'] for v in views if v]}"
        return kind, outcome, time.monotonic() - begun

    def rest(self) -> None:
        """A supervisor gives up after three deaths in a minute, and rightly so; begin with a fresh one before that."""
        for node in self.nodes:
            if max(self.deaths[node.name, "control"], self.deaths[node.name, "data"]) >= 2:
                for pid in self.pids(node, "supervisor"):
                    os.kill(pid, signal.SIGKILL)
                wait_for(lambda node=node: not self.pids(node, "supervisor"), "the supervisor is gone")
                self.up(node)
                self.deaths = Counter({key: n for key, n in self.deaths.items() if key[0] != node.name})


def soak(directory: Path, runs: int, seed: int) -> Counter[tuple[str, str]]:
    """So many runs; (who was killed, how the job ended) -> how often."""
    pair = Pair.start(directory, seed)
    found: Counter[tuple[str, str]] = Counter()
    longest = 0.0
    try:
        for number in range(runs):
            kind, outcome, seconds = pair.run()
            found[kind, outcome] += 1
            longest = max(longest, seconds)
            print(f"{number + 1:4} {kind:10} {outcome:10} agreed after {seconds:.1f} s", flush=True)
        print(f"{runs} runs, agreed after at most {longest:.1f} s")
        for (kind, outcome), count in sorted(found.items()):
            print(f"{kind:12} {outcome:10} {count}")
    finally:
        pair.close()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--dir", type=Path)
    given = parser.parse_args()
    print(f"seed {given.seed}")
    if given.dir is not None:
        soak(given.dir, given.runs, given.seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            soak(Path(folder) / "lab", given.runs, given.seed)
