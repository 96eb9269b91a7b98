"""Nodes of one process with the real services and scheduler, joined by a link that can misbehave.

`World` plays the edge: a call of one node becomes a handler call of the other, JSON on the way. Components are
`Script`s instead of processes. Nothing here sleeps longer than a poll.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.errors import GatewayError, PeerError, Unavailable
from gateway.mgmt_plane.core.messages import check
from gateway.mgmt_plane.rest.platform import Platform
from gateway.mgmt_plane.rest.schedule import schedule_handlers
from gateway.mgmt_plane.service.audits import Audits
from gateway.mgmt_plane.service.grants import Grants
from gateway.mgmt_plane.service.jobs import JobBook, JobRules, Jobs, install_builtins
from gateway.mgmt_plane.service.outgoing import Outgoing
from gateway.mgmt_plane.service.partners import Partners
from gateway.mgmt_plane.service.revocation import KINDS, Revocation
from gateway.mgmt_plane.service.schedule import Schedule
from gateway.model import (
    Contract,
    ContractId,
    Dataset,
    DatasetId,
    Direction,
    Identity,
    InstId,
    Job,
    Limits,
    NodeId,
    SessionId,
    Share,
    TaskView,
    TraceId,
)
from gateway.ports import Caller, PeerReply, SessionRule, Tx
from gateway.runtime.launch import Addresses, Exit, Launch, Launcher, Report
from gateway.runtime.outbox import Outbox
from gateway.runtime.scheduler import Runtime, Scheduler
from gateway.runtime.staging import Folders
from gateway.runtime.system import SystemClock, SystemEntropy
from gateway.runtime.tasks import TaskRunner
from gateway.store.memory import MemoryStore
from specs.states import ApprovalState, AuditKind, JobState

TOKEN = "platform-token"
FAST = JobRules(poll_s=0.05, misses=3, silence_s=2, task_timeout_s=20, job_timeout_s=60, require_project=False)


class ListJournal:
    """Journal that only remembers."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []

    def note(self, event: str, **ids: Any) -> None:
        self.events.append({"event": event, **ids})

    def recent(self, *, limit: int, **equals: str) -> list[Mapping[str, Any]]:
        return self.events[-limit:]


@dataclass
class FakeDataPlane:
    """Remembers the rules of sessions."""

    rules: dict[SessionId, SessionRule] = field(default_factory=dict)
    history: list[SessionRule] = field(default_factory=list)
    closed: list[SessionId] = field(default_factory=list)
    down: bool = False

    async def set_routes(self, routes: Any) -> None: ...

    async def open_session(self, rule: SessionRule) -> None:
        if self.down:
            raise Unavailable("the data process is down")
        self.rules[rule.session_id] = rule
        self.history.append(rule)

    async def close_session(self, session_id: SessionId) -> None:
        self.rules.pop(session_id, None)
        self.closed.append(session_id)

    async def sent_bytes(self, session_id: SessionId) -> Mapping[NodeId, int]:
        return {NodeId("B"): 42}


Script = Callable[["FakeRun"], Awaitable[int]]


class FakeRun:
    """A component that is a coroutine; killed like a process, with signal 15."""

    pid = None

    def __init__(self, launch: Launch, report: Report, script: Script) -> None:
        self.launch = launch
        self.report = report
        self.environment = launch.environment
        self.killed = False
        self._work = asyncio.ensure_future(script(self))

    async def wait(self) -> Exit:
        try:
            return Exit(await asyncio.shield(self._work))
        except asyncio.CancelledError:
            if self.killed:
                return Exit(143, 15)
            raise

    async def kill(self) -> None:
        self.killed = True
        self._work.cancel()
        await asyncio.wait([self._work])

    def release(self) -> None:
        self._work.cancel()


async def succeed(run: FakeRun) -> int:
    """Write every output and end well."""
    root = Path(urlsplit(run.environment["system.storage"]).path)
    for name, value in run.environment.items():
        if name.startswith("runtime.component.output."):
            place = json.loads(value)
            folder = root / place["namespace"] / place["name"]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "data_0").write_text(f"{run.environment['runtime.component.name']} wrote this\n")
            (folder / "metadata").write_text(json.dumps({"count": 1}))
    run.report("result", {"code": "0", "message": "ok"})
    return 0


async def fail(run: FakeRun) -> int:
    run.report("result", {"code": "4003", "message": "no common ids"})
    return 1


async def hang(run: FakeRun) -> int:
    await asyncio.sleep(3600)
    return 0


class FakeLauncher:
    """Runs `scripts[(componentName, party)]`, else `scripts[componentName]`, else `succeed`."""

    def __init__(self) -> None:
        self.scripts: dict[Any, Script] = {}
        self.runs: list[FakeRun] = []

    async def launch(self, launch: Launch, report: Report) -> FakeRun:
        name, party = launch.environment["runtime.component.name"], launch.environment["config.self_role"]
        run = FakeRun(launch, report, self.scripts.get((name, party)) or self.scripts.get(name) or succeed)
        self.runs.append(run)
        return run

    async def adopt(self, run: Path, digest: str, report: Report) -> None:
        """What runs in this process ends with it."""


@dataclass(frozen=True)
class Call:
    """One call between nodes as it would stand on the wire."""

    source: str
    target: str
    route: str
    body: Mapping[str, Any]
    token_set: str


class Link:
    """PeerClient of one node."""

    def __init__(self, world: "World", source: str) -> None:
        self._world = world
        self._source = source

    async def call(
        self, contract: Contract, route: str, payload: Mapping[str, Any], *, trace_id: TraceId, token_set: str = ""
    ) -> PeerReply:
        return PeerReply(
            await self._world.carry(Call(self._source, contract.peer_node_id, route, payload, token_set), trace_id)
        )


class Node:
    """One gateway's management and control plane."""

    def __init__(self, world: "World", name: str, folder: Path, rules: JobRules, launcher: Launcher | None) -> None:
        self.name = NodeId(name)
        self.store = MemoryStore()
        self.clock, self.entropy, self.journal = SystemClock(), SystemEntropy(), ListJournal()
        identity = Identity(self.name, InstId(f"inst-{name}"), name, name, "interconn", "0", f"https://{name}")
        limits = Limits()
        self.outgoing = Outgoing(clock=self.clock, entropy=self.entropy)
        self.partners = Partners(
            identity=identity,
            signer=None,  # type: ignore[arg-type]  # nothing is signed here
            limits=limits,
            clock=self.clock,
            entropy=self.entropy,
            outgoing=self.outgoing,
        )
        self.grants = Grants(identity=identity, partners=self.partners, clock=self.clock, entropy=self.entropy)
        self.audits = Audits(
            identity=identity,
            partners=self.partners,
            grants=self.grants,
            outgoing=self.outgoing,
            limits=limits,
            clock=self.clock,
            entropy=self.entropy,
        )
        self.book = JobBook(identity=identity, limits=limits, rules=rules, clock=self.clock, journal=self.journal)
        self.book.on_end(self.grants.job_ended)
        self.data_plane = FakeDataPlane()
        self.launcher = FakeLauncher()
        self.folders = Folders(folder)
        peers = Link(world, name)
        self.runner = TaskRunner(
            store=self.store,
            book=self.book,
            partners=self.partners,
            peers=peers,
            data_plane=self.data_plane,
            launcher=launcher or self.launcher,
            folders=self.folders,
            addresses=Addresses("127.0.0.1:7304", "http://127.0.0.1:7304/v1/platform/schedule/task/callback"),
            clock=self.clock,
            entropy=self.entropy,
            journal=self.journal,
        )
        self.scheduler = Scheduler(
            store=self.store,
            book=self.book,
            partners=self.partners,
            grants=self.grants,
            peers=peers,
            outgoing=self.outgoing,
            clock=self.clock,
            entropy=self.entropy,
            journal=self.journal,
        )
        self.runtime = Runtime(self.runner, self.scheduler)
        self.jobs = Jobs(
            store=self.store,
            book=self.book,
            audits=self.audits,
            grants=self.grants,
            partners=self.partners,
            entropy=self.entropy,
            runtime=self.runtime,
        )
        self.schedule = Schedule(
            store=self.store,
            book=self.book,
            audits=self.audits,
            grants=self.grants,
            partners=self.partners,
            peers=peers,
            runtime=self.runtime,
        )
        self.platform = Platform(jobs=self.jobs, schedule=self.schedule, tasks=self.runner, token=TOKEN)
        self.handlers = schedule_handlers(self.schedule)
        self.audits.listen(AuditKind.JOB, self.jobs.on_audit)
        revocation = Revocation(book=self.book, grants=self.grants, audits=self.audits, runtime=self.runtime)
        for kind in KINDS:
            self.audits.listen(kind, revocation.on_audit)
        self.partners.on_closed(revocation.on_closed)
        self.outbox = Outbox(
            store=self.store,
            client=peers,
            journal=self.journal,
            clock=self.clock,
            entropy=self.entropy,
            on_result=self.audits.call_ended,
        )
        self.outgoing.on_put(self.outbox.wake)

    async def run(self, work: Callable[[Tx], Any]) -> Any:
        return await self.store.run(work)

    async def job(self, job_id: str) -> Job:
        return await self.store.run(lambda tx: self.book.get(tx, job_id))

    async def shares(self, job_id: str) -> list[Share]:
        return await self.store.run(lambda tx: list(tx.select(Share, job_id=job_id)))

    async def views(self, job_id: str) -> list[TaskView]:
        return await self.store.run(lambda tx: list(tx.select(TaskView, job_id=job_id)))

    async def until(self, job_id: str, *states: JobState, seconds: float = 8) -> Job:
        """The job once it is in one of the states."""
        for _ in range(int(seconds / 0.01)):
            job = await self.store.run(lambda tx: tx.get(Job, job_id))
            if job is not None and job.status in states:
                return job
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.name}: {job and (job.status, job.reason)}, wanted {states}")


class World:
    """Nodes that all have contracts with each other."""

    def __init__(
        self, folder: Path, *names: str, rules: Mapping[str, JobRules] | None = None, launcher: Launcher | None = None
    ) -> None:
        self.calls: list[Call] = []
        self.down: set[str] = set()
        self.disturb: Callable[[Call], None] = lambda call: None
        """Called before a call is carried; may raise what the caller shall see."""
        self.nodes = {n: Node(self, n, folder / n, (rules or {}).get(n, FAST), launcher) for n in names}

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    async def carry(self, call: Call, trace_id: TraceId) -> Mapping[str, Any]:
        call = replace(call, body=json.loads(json.dumps(call.body)))
        self.calls.append(call)
        self.disturb(call)
        if call.target in self.down or call.source in self.down:
            raise Unavailable(f"{call.target} cannot be reached")
        node = self.nodes[call.target]
        contract = await node.run(lambda tx: node.partners.contract_with(tx, NodeId(call.source)))
        caller = Caller(NodeId(call.source), contract, trace_id, call.token_set)
        try:
            if call.route in node.handlers:
                data = await node.handlers[call.route](caller, call.body)
            else:
                data = await node.run(lambda tx: self._audit(tx, node, caller, call))
        except GatewayError as error:
            raise PeerError(error.public_text(), peer_code=str(error.wire.code)) from error
        answer: Mapping[str, Any] = json.loads(json.dumps(data))
        return answer

    @staticmethod
    def _audit(tx: Tx, node: Node, caller: Caller, call: Call) -> Mapping[str, Any]:
        body = check(call.route, call.body)
        kind = AuditKind(call.route.partition(".")[0])
        match call.route.rpartition(".")[2]:
            case "apply":
                node.audits.receive_apply(tx, caller, kind, body)
            case "confirm":
                node.audits.confirmed(tx, caller, kind, body)
            case "terminate":
                node.audits.terminated(tx, caller, kind, body)
        return {}

    def routes(self, *names: str, source: str | None = None) -> list[Call]:
        return [c for c in self.calls if c.route in names and (source is None or c.source == source)]

    @asynccontextmanager
    async def running(self) -> Any:
        for node in self.nodes.values():
            await node.run(partial(self._furnish, node=node))
            node.outbox.start()
            await node.runtime.adopt()
            await node.runtime.start(node.schedule)
        try:
            yield self
        finally:
            for node in self.nodes.values():
                await node.outbox.stop()
                await node.runtime.close()

    def _furnish(self, tx: Tx, node: Node) -> None:
        install_builtins(tx, now=1)
        data = node.folders.work / "catalogue.csv"
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_text("id,age,secret\n1,30,x\n2,40,y\n")
        columns = tuple(
            {"name": n, "data_type": "varchar", "distribution": "DISCRETE"} for n in ("id", "age", "secret")
        )
        identity = node.book.identity
        tx.insert(
            Dataset(
                DatasetId(f"ds-{node.name}"), "people", identity.inst_id, "", "", 2, "id", "", columns,
                public=True, location=str(data), created=1,
            )
        )  # fmt: skip
        for other in self.nodes:
            if other != node.name:
                tx.insert(contract(other, own=node.name))

    async def grant(self, holder: str, user: str, *, columns: tuple[str, ...] = (), **body: Any) -> None:
        """Let `user` use ds-<holder>, through a real dataset audit."""
        user_node, holder_node = self[user], self[holder]
        dataset = f"ds-{holder}"

        def apply(tx: Tx) -> Any:
            partner = user_node.partners.contract_with(tx, holder_node.name)
            return user_node.audits.apply(
                tx, kind=AuditKind.DATASET, contract=partner, subject=dataset, body=body, trace_id=TraceId("t")
            )

        audit = await user_node.run(apply)
        for _ in range(200):
            found = await holder_node.run(
                lambda tx: holder_node.audits.find(tx, kind=AuditKind.DATASET, subject=dataset)
            )
            if any(a.audit_id == audit.audit_id for a in found):
                break
            await asyncio.sleep(0.01)
        await holder_node.run(lambda tx: holder_node.audits.decide(tx, audit.key(), approve=True, columns=columns))
        for _ in range(200):
            mine = await user_node.run(lambda tx: user_node.audits.get(tx, user, audit.audit_id))
            if mine.status is ApprovalState.APPROVED:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("no grant")


def contract(peer: str, *, own: str) -> Contract:
    return Contract(
        contract_id=ContractId(f"c-{min(own, peer)}-{max(own, peer)}"),
        direction=Direction.OUT,
        status=ApprovalState.APPROVED,
        peer_node_id=NodeId(peer),
        peer_inst_id=InstId(f"inst-{peer}"),
        peer_name=peer,
        peer_institution=peer,
        peer_system="interconn",
        peer_system_version="0",
        peer_address=f"https://{peer}",
        auth_type="CERT",
        auth_credential="pem",
        tls_ca="pem",
        fingerprint="00",
        proven=True,
        expired_time=None,
        profile="strict-1.2",
        description="",
        created=1,
        updated=1,
    )


def job_file(*steps: Any, **extra: Any) -> dict[str, Any]:
    """guest A and host B; a step is a component's name or a table."""
    tables = [{"component": step} if isinstance(step, str) else step for step in steps or ("psi",)]
    return {
        "name": "demo",
        "project": "proj-1",
        "parties": {"guest": "A", "host": ["B"]},
        "data": {"guest": "ds-A", "host": "ds-B"},
        "step": tables,
        **extra,
    }


async def approved(world: World, body: Mapping[str, Any], *, by: tuple[str, ...] = ("B",)) -> str:
    """Submit at A and approve at the others; the job_id."""
    job = await world["A"].jobs.submit_file(body)
    for name in by:
        await world[name].until(job.job_id, JobState.PENDING)
        await world[name].jobs.decide(job.job_id, approve=True)
    return job.job_id
