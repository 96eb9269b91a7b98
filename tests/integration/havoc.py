"""Two gateways, a link that loses things, and somebody who kills processes: the run behind test_kills and `make soak`.

Three threads: one does what admins do, at random; one per node sends SIGKILL to a random process of it at a random
moment, waits until the node serves again and goes on. Then the link is healed, both deliver and compare, and what
either database says of every approval, grant and permit must be the same, with an unbroken trail on both sides.
`python -m tests.integration.havoc --kills 500 [--seed N]` is the long run.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gateway.admin_client import AdminClient
from gateway.errors import GatewayError
from gateway.lab.node import CONFIG
from gateway.mgmt_plane.core.trail import Header, json_line, verify
from gateway.model import TrailEntry
from tests.integration import rig as rigs
from tests.integration.faulty import Faults, FaultyTap
from tests.integration.pids import of_node

COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("undying.py")))
DELIVERY = "\n[delivery]\nreconcile_s = 1.5\nlongest_pause_s = 1.0\n"
SETTLE_S = 60.0
ADMINS = 2
KILLS_A_CONTRACT = 25
OPEN = {"APPLIED", "APPROVED"}
CLOSED = {"REJECTED", "TERMINATED", None}


@dataclass
class Havoc:
    """One run. What went wrong is in `problems` after `run`."""

    directory: Path
    seed: int
    kills: int
    rotate: bool = False
    done: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.faults = Faults(self.seed, cut=0.05, lose=0.07, twice=0.05, late=0.1)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._left = self.kills
        self._lock = threading.Lock()

    def run(self) -> None:
        """Raises where the gateways cannot even be started; what is found wrong goes into `problems`."""
        link = partial(FaultyTap, faults=self.faults)
        chances = (self.faults.cut, self.faults.lose, self.faults.twice, self.faults.late)
        self.faults.heal()
        rig = rigs.start(self.directory, tap=link, more=DELIVERY, command=COMMAND)
        try:
            for side in rig.sides:
                for number in range(3):
                    rig.add_dataset(side, [{"id": f"u{number}", "x": 1}])
            self.faults.cut, self.faults.lose, self.faults.twice, self.faults.late = chances
            threads = [threading.Thread(target=self._killer, args=(side, n)) for n, side in enumerate(rig.sides)]
            for thread in threads:
                thread.start()
            admins = [threading.Thread(target=self._admin, args=(rig, number)) for number in range(ADMINS)]
            for admin in admins:
                admin.start()
            for thread in threads:
                thread.join()
            self._over.set()
            for admin in admins:
                admin.join()
            self.faults.heal()
            self._settle(rig)
        finally:
            self._over.set()
            rig.close()
            for process in self._processes.values():
                process.terminate()
                process.wait(30)
        self._judge(rig)

    def summary(self) -> str:
        """What was done how often, and what was found, one a line."""
        counts = [f"{count:8} {name}\n" for name, count in sorted(self.done.items())]
        return "".join([*counts, *(f"PROBLEM {problem}\n" for problem in self.problems)])

    # -- kills

    def _killer(self, side: rigs.Side, number: int) -> None:
        rng = random.Random(f"{self.seed} killer {number}")
        while True:
            with self._lock:
                over = self._left <= 0
                self._left -= 1
            if over:
                rigs.wait_for(lambda: self._serves_again(side), f"{side.node.name} serves again", seconds=60)
                return
            time.sleep(rng.uniform(0.1, 1.2))
            what = rng.choices(("control", "data", "supervisor", "all"), (64, 24, 4, 8))[0]
            try:
                self._kill(side, what)
                if rng.random() < 0.75:  # else the next one comes while it starts
                    rigs.wait_for(lambda: self._serves_again(side), f"{side.node.name} serves again", seconds=60)
            except AssertionError as e:
                self.problems.append(str(e))
                return

    def _kill(self, side: rigs.Side, what: str) -> None:
        there = of_node(_config(side))
        victims = [pid for pids in there.values() for pid in pids] if what == "all" else there[what]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not victims:
            self.done["it was not there"] += 1
        self.done[f"kill {what}"] += 1
        if what in ("supervisor", "all"):
            self._start(side)

    def _start(self, side: rigs.Side) -> None:
        """As whoever runs the gateway would do when it has ended."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._supervisor(side), 0)
        # Orphans see that their parent is gone and end by themselves.
        rigs.wait_for(lambda: not any(of_node(_config(side)).values()), f"{side.node.name}'s orphans end")
        with (side.folder / "havoc.out").open("ab") as out:
            self._processes[side.node.name] = subprocess.Popen(
                [*COMMAND, str(_config(side))], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def _serves_again(self, side: rigs.Side) -> bool:
        """A gateway one of whose processes is killed before all serve ends as a whole: then it is started again."""
        if not of_node(_config(side))["supervisor"]:
            self._start(side)
        return _serves(side)

    def _supervisor(self, side: rigs.Side) -> int:
        process = self._processes.get(side.node.name)
        if process is not None:
            return process.pid
        assert side.node.pid is not None
        return side.node.pid

    # -- admins

    def _admin(self, rig: rigs.Rig, number: int) -> None:
        rng = random.Random(f"{self.seed} admin {number}")
        acts: list[tuple[int, Callable[[random.Random, rigs.Side, rigs.Side], str]]] = [
            (30, self._ask_dataset),
            (14, self._ask_flow_or_model),
            (6, self._open_project),
            (4, self._submit_job),
            (60, self._decide),
            (3, self._terminate),
            (1, self._end_contract),
            (20, self._pair),
            (4, self._read),
        ]
        if self.rotate:
            acts.append((1, self._rotate))
        weights = [weight for weight, _ in acts]
        while not self._over.is_set():
            act = rng.choices([act for _, act in acts], weights)[0]
            here, there = rng.sample(rig.sides, 2)
            try:
                self.done[act(rng, here, there)] += 1
            except (GatewayError, OSError) as e:
                self.done[f"no: {type(e).__name__}"] += 1
                time.sleep(0.05)

    @staticmethod
    def _client(side: rigs.Side) -> AdminClient:
        return side.node.client(timeout_s=6.0)

    def _ask_dataset(self, rng: random.Random, here: rigs.Side, there: rigs.Side) -> str:
        dataset = rng.choice(self._client(there).get("datasets"))["dataset_id"]
        self._client(here).post("datasets", "apply", node_id=there.node_id, dataset_id=dataset)
        return "dataset applied for"

    def _ask_flow_or_model(self, rng: random.Random, here: rigs.Side, there: rigs.Side) -> str:
        kind = rng.choice(("flow", "model"))
        more = {"apply_project_id": "pj-1"} if kind == "model" else FLOW
        subject = f"{kind}-{rng.getrandbits(32):x}"
        self._client(here).post("audits", "apply", kind=kind, node_id=there.node_id, subject=subject, body=more)
        return f"{kind} applied for"

    def _open_project(self, rng: random.Random, here: rigs.Side, there: rigs.Side) -> str:
        theirs = rng.choice(self._client(there).get("datasets"))["dataset_id"]
        self._client(here).post("projects", name="p", type="MPC", datasets={here.node_id: [], there.node_id: [theirs]})
        return "project opened"

    def _submit_job(self, rng: random.Random, here: rigs.Side, there: rigs.Side) -> str:
        client = self._client(here)
        projects = [each for each in client.get("projects") if there.node_id in each["nodes"]]
        if not projects:
            return "no project"
        ours = rng.choice(client.get("datasets"))["dataset_id"]
        theirs = rng.choice(self._client(there).get("datasets"))["dataset_id"]
        file = {
            "name": "joint",
            "project": rng.choice(projects)["project_id"],
            "parties": {"guest": here.node_id, "host": there.node_id},
            "data": {"guest": ours, "host": theirs},
            "step": [{"component": "psi"}],
        }
        client.post_json("jobs", body=file)
        return "job applied for"

    def _audits(self, side: rigs.Side, *chosen: tuple[str, str]) -> list[Mapping[str, Any]]:
        found = self._client(side).get("audits")
        return [each for each in found if (each["direction"], each["status"]) in chosen]

    def _decide(self, rng: random.Random, here: rigs.Side, there: rigs.Side) -> str:
        waiting = self._audits(here, ("IN", "APPLIED"))
        if not waiting:
            here, waiting = there, self._audits(there, ("IN", "APPLIED"))
        if not waiting:
            return "nothing to decide"
        audit = rng.choice(waiting)
        # A job that was approved would run; that is another test's.
        verb = "reject" if audit["kind"] == "job" else rng.choice(("approve", "approve", "reject"))
        self._client(here).post("audits", audit["applicant"], audit["audit_id"], verb)
        return f"{audit['kind']} {verb}"

    def _terminate(self, rng: random.Random, here: rigs.Side, _there: rigs.Side) -> str:
        found = self._audits(here, ("IN", "APPROVED"), ("OUT", "APPROVED"), ("OUT", "APPLIED"))
        if not found:
            return "nothing to end"
        audit = rng.choice(found)
        self._client(here).post("audits", audit["applicant"], audit["audit_id"], "terminate")
        return f"{audit['kind']} terminate"

    def _end_contract(self, rng: random.Random, here: rigs.Side, _there: rigs.Side) -> str:
        # Everything under it ends, too: oftener, and hardly anything would live to be confirmed.
        if self.done["contract terminate"] >= (self.kills - self._left) // KILLS_A_CONTRACT:
            return "contract kept"
        found = [each for each in self._client(here).get("partners") if each["status"] == "APPROVED"]
        if not found:
            return "no contract to end"
        self._client(here).post("partners", rng.choice(found)["contract_id"], "terminate")
        return "contract terminate"

    def _pair(self, rng: random.Random, here: rigs.Side, there: rigs.Side) -> str:
        """Whatever is missing for a partnership."""
        client = self._client(here)
        contracts = client.get("partners")
        if any(each["status"] == "APPROVED" for each in contracts):
            return "paired"
        waiting = [each for each in contracts if (each["direction"], each["status"]) == ("IN", "APPLIED")]
        if waiting:
            verb = rng.choice(("approve", "approve", "approve", "reject"))
            client.post("partners", rng.choice(waiting)["contract_id"], verb)
            return f"contract {verb}"
        address = f"https://127.0.0.1:{self._port(there)}"
        client.post("partners", "apply", address=address, node_id=there.node_id, fingerprint=there.node.fingerprint())
        return "contract applied for"

    @staticmethod
    def _port(side: rigs.Side) -> int:
        text = _config(side).read_text()
        return int(text.split('address = "https://127.0.0.1:')[1].split('"')[0])

    def _read(self, rng: random.Random, here: rigs.Side, there: rigs.Side) -> str:
        if rng.random() < 0.5:
            self._client(here).get("partners", there.node_id, "datasets")
            return "dataset list"
        self._client(here).post("partners", there.node_id, "ask", route="component.list", query={"page_size": -1})
        return "component list"

    def _rotate(self, _rng: random.Random, here: rigs.Side, _there: rigs.Side) -> str:
        self._client(here).post("keys", "rotate")
        return "key rotated"

    # -- the end

    def _settle(self, rig: rigs.Rig) -> None:
        """Nothing waits, and a comparison on both sides finds nothing to do."""

        def quiet() -> bool:
            with contextlib.suppress(GatewayError, OSError):
                for side in rig.sides:
                    client = self._client(side)
                    if client.get("outbox", state="DUE"):
                        return False
                    counts = client.post("reconcile")
                    if set(counts) - {"partners", "compared", "differs"}:
                        return False
                return not any(self._client(side).get("outbox", state="DUE") for side in rig.sides)
            return False

        try:
            rigs.wait_for(quiet, "everything is delivered", seconds=SETTLE_S)
            for here, there in (rig.sides, rig.sides[::-1]):
                self._compare_lists(here, there)
        except AssertionError as e:
            self.problems.append(str(e))
        for side in rig.sides:
            with contextlib.suppress(GatewayError):
                self.problems += [
                    f"{side.node.name} parked {each}" for each in side.client.get("outbox", state="PARKED")
                ]
                self.problems += [f"{side.node.name}: {each}" for each in side.client.get("events", event="edge.error")]
                if not self.rotate:  # whoever verifies must be given each key that signed
                    self.problems += [f"{side.node.name}'s trail: {each}" for each in _verified(side)]

    def _compare_lists(self, here: rigs.Side, there: rigs.Side) -> None:
        if not any(each["status"] == "APPROVED" for each in here.client.get("partners")):
            return
        seen = here.client.get("partners", there.node_id, "datasets")
        own = [each["dataset_id"] for each in there.client.get("datasets")]
        assert sorted(each["dataset_id"] for each in seen) == sorted(own), "dataset lists differ"
        ask = partial(here.client.post, "partners", there.node_id, "ask", route="component.list")
        assert len(ask(query={"page_size": -1})["records"]) >= len(rigs.COMPONENTS), "component list"

    def _judge(self, rig: rigs.Rig) -> None:
        one, other = (Image(side) for side in rig.sides)
        for which in ("contracts", "audits"):
            ours, theirs = getattr(one, which), getattr(other, which)
            for key in sorted({*ours, *theirs}):
                states = (ours.get(key), theirs.get(key))
                # An application for a contract of which the applicant fell over before it kept the id.
                lost = which == "contracts" and None in states and set(states) <= {None, "APPLIED", *CLOSED}
                if states[0] != states[1] and not set(states) <= CLOSED and not lost:
                    self.problems.append(f"{which} {key}: {states[0]} at bank, {states[1]} at payment")
        self.problems += one.compare_permits(other) + other.compare_permits(one)
        self.done["approvals both know"] = len(one.approved & other.approved)
        self.done["permits both hold"] = len([key for key in one.permits if key in other.permits])
        self.problems += one.problems + other.problems
        self.done["audits agreed"] = len({*one.audits, *other.audits})
        self.done["contracts agreed"] = len({*one.contracts, *other.contracts})
        for image in (one, other):
            self.done["trail entries"] += image.entries
        for name, count in self.faults.done.items():
            self.done[f"link {name}"] = count


class Image:
    """What a node's database says when all is over."""

    def __init__(self, side: rigs.Side) -> None:
        self.name = side.node.name
        self.problems: list[str] = []
        with contextlib.closing(sqlite3.connect(side.folder / "state.db")) as db:
            db.row_factory = sqlite3.Row
            if [row[0] for row in db.execute("PRAGMA integrity_check")] != ["ok"]:
                self.problems.append(f"{self.name}: the database is damaged")
            self.contracts = {row["contract_id"]: row["status"] for row in db.execute("SELECT * FROM contract")}
            rows = db.execute("SELECT * FROM audit").fetchall()
            self.audits = {row["record_key"]: row["status"] for row in rows}
            # Also of those that are over; who never had the confirm has none.
            self.permits = {row["record_key"]: row["permit"] for row in rows if _permit(row) is not None}
            self.needed = {row["record_key"] for row in rows if (row["kind"], row["status"]) == ("dataset", "APPROVED")}
            self.approved = {
                row["subject"] for row in db.execute("SELECT subject FROM trail WHERE event = 'audit.approved'")
            }
            grants: dict[str, list[bool]] = defaultdict(list)
            for row in db.execute("SELECT * FROM resource_grant"):
                grants[row["audit_key"]].append(bool(row["revoked"]))
            for row in rows:
                if row["kind"] == "dataset" and row["direction"] == "IN":
                    self._check_grants(row["record_key"], row["status"], grants[row["record_key"]])
            self._check_trail(db)

    def _check_grants(self, key: str, status: str, revoked: list[bool]) -> None:
        wanted = {"APPROVED": [[False]], "TERMINATED": [[], [True]]}.get(status, [[]])
        if revoked not in wanted:
            self.problems.append(f"{self.name}: audit {key} is {status}, its grants (revoked?) are {revoked}")

    def _check_trail(self, db: sqlite3.Connection) -> None:
        decided: Counter[tuple[str, str]] = Counter()
        head, self.entries = "0" * 64, 0
        for row in db.execute("SELECT * FROM trail ORDER BY seq"):
            self.entries += 1
            if (row["seq"], row["prev"]) != (self.entries, head):
                self.problems.append(f"{self.name}: the trail breaks at {row['seq']}")
            head = row["hash"]
            entity, _, what = row["event"].partition(".")
            if entity in ("audit", "contract") and what in ("applied", "approved", "rejected", "terminated"):
                decided[row["subject"], "decided" if what in ("approved", "rejected") else what] += 1
        self.problems += [
            f"{self.name}: {subject} was {what} {count} times"
            for (subject, what), count in decided.items()
            if count > 1
        ]

    def compare_permits(self, other: "Image") -> list[str]:
        return [
            f"{self.name} and {other.name} hold different permits for {key}"
            for key in sorted(self.needed | (self.permits.keys() & other.permits.keys()))
            if self.permits.get(key) != other.permits.get(key)
        ]


_STEP: Mapping[str, Any] = {
    "name": "psi_1",
    "componentName": "psi",
    "provider": "interconn",
    "version": "1.0.0",
    "input": [],
    "output": [],
}
FLOW: Mapping[str, Any] = {"name": "f", "dag": {"version": "2.0", "components": [_STEP]}}


def _permit(row: sqlite3.Row) -> Any:
    return json.loads(row["permit"]) if row["permit"] else None


def _config(side: rigs.Side) -> Path:
    return side.folder / CONFIG


def _verified(side: rigs.Side) -> list[str]:
    """What `interconn audit verify` would find in an export of all."""
    header = Header(**side.client.post("trail", "export"))
    lines = [json_line(header).encode()]
    while len(lines) <= header.last:
        page = side.client.get("trail", first=len(lines), last=header.last)
        lines += [json_line(TrailEntry(**each)).encode() for each in page]
    return [each.text for each in verify(lines, trusted=frozenset({side.node.fingerprint()})).problems]


def _serves(side: rigs.Side) -> bool:
    """Admin and, through it, the data process."""
    with contextlib.suppress(GatewayError, OSError):
        return bool(side.node.client(timeout_s=3.0).get("node")) and (side.folder / "run" / "data.json").exists()
    return False


def main() -> int:
    """The long run; prints the seed first, so that it can be run again."""
    parser = argparse.ArgumentParser(description="Kill two gateways' processes while they work, then compare them.")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--dir", type=Path, help="is kept, to be looked at")
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    sys.stdout.flush()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = given.dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="havoc-"))) / "lab"
        havoc = Havoc(folder, given.seed, given.kills, rotate=True)
        havoc.run()
        sys.stdout.write(havoc.summary())
        sys.stdout.write(f"{len(havoc.problems)} problems in {time.monotonic() - began:.0f} s\n")
    return 1 if havoc.problems else 0


if __name__ == "__main__":
    sys.exit(main())
