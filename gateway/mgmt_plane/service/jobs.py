"""Jobs of this node: submission, approvals, the state book shared with `service.schedule`, and what admins ask.

The state machines are `core.job`, the DAG is `core.dag`; here they meet the store. Every change is one transaction;
what must happen afterwards in the world (processes, sessions, calls) is asked of the `JobRuntime`, which makes the
world match the store and may be asked as often as one likes.
"""

import asyncio
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Protocol

from gateway.errors import WIRE, GatewayError, Kind, PeerError, ProtocolViolation, Refused, Unavailable
from gateway.mgmt_plane.core import jobfile
from gateway.mgmt_plane.core.acl import DatasetUse
from gateway.mgmt_plane.core.columns import column_problems
from gateway.mgmt_plane.core.dag import (
    RERUN,
    ComponentRef,
    DagError,
    Lookup,
    Plan,
    Problem,
    artifact,
    digest,
    parse_plan,
    problems,
    safe_id,
)
from gateway.mgmt_plane.core.job import (
    JOB_FINAL,
    TASK_FINAL,
    JobEvent,
    TaskEvent,
    aggregate,
    step_job,
    step_task,
)
from gateway.mgmt_plane.service.code import BUILTIN, code_digest
from gateway.mgmt_plane.service.explain import Story
from gateway.mgmt_plane.service.membership import (
    NO_PROJECT,
    asks_approval,
    channel_of,
    check_channel,
    check_flow,
    check_project,
    task_channel,
)
from gateway.model import (
    Audit,
    Component,
    Contract,
    Dataset,
    DatasetId,
    Direction,
    Identity,
    Job,
    JobId,
    Json,
    Limits,
    NodeId,
    Outcome,
    Party,
    Permit,
    SessionId,
    Share,
    TaskId,
    TaskName,
    TaskView,
    TraceId,
)
from gateway.ports import Clock, Entropy, Journal, Store, Tx
from specs.delivered import Delivered, read_delivered
from specs.description import Description, DescriptionError, builtin_descriptions, parse_description
from specs.states import ApprovalState, AuditKind, JobState, TaskState

_REQUIRED: Final = (
    "componentName",
    "title",
    "provider",
    "version",
    "roleList",
    "storageEngine",
    "inputParam",
    "inputData",
    "outputData",
    "result",
)


@dataclass(frozen=True, slots=True)
class JobRules:
    """Bounds of this node on every job; a job may ask for less in job_params.common, not for more. Seconds."""

    poll_s: float = 2.0
    misses: int = 5
    silence_s: float = 60.0
    task_timeout_s: float = 3600.0
    heartbeat_s: float = 1800.0
    queue_s: float = 3600.0
    job_timeout_s: float = 86400.0
    approval_s: float = 7 * 86400.0
    require_job_audit: bool = True
    require_project: bool = True
    """A job may only name a project that was joined."""
    max_running: int = 4
    threads: int = 0
    """Of a component; 0: as many as its share of the cores."""
    max_cpus: float = math.inf
    max_memory_gib: float = math.inf
    durability: str = "memory"
    """Of the messages of a job that does not say."""

    def of(self, plan: Plan, key: str) -> float:
        """The rule `key` for one job."""
        most = float(getattr(self, key))
        return min(most, plan.number(key) or most)


class JobRuntime(Protocol):
    """What makes the world match the store. Every method but the two coroutines may be called from any thread."""

    async def open(self, job_id: JobId) -> None:
        """Open the job's session in the data plane; raises Unavailable."""
        ...

    def settle(self, job_id: JobId) -> None:
        """Soon: launch shares that are READY, kill those that are final, close the session of a final job."""
        ...

    def poke(self, job_id: JobId) -> None:
        """Soon: look at a job whose state has changed, where this node drives it or shall begin to."""
        ...

    def verify(self, job_id: JobId) -> None:
        """Soon: ask the scheduler how a job ended that we believe succeeded."""
        ...

    async def distribute(self, job_id: JobId) -> Mapping[NodeId, str]:
        """Create the job at every participant: node -> "" or why it refused."""
        ...

    async def stop_from(self, job_id: JobId, name: TaskName) -> None:
        """As the scheduler: tell every participant to stop `name` and what comes after it."""
        ...


class Audits(Protocol):
    """What jobs need of service.audits."""

    def apply(
        self, tx: Tx, *, kind: AuditKind, contract: Contract, subject: str, body: Json, trace_id: TraceId
    ) -> Audit: ...

    def decide(self, tx: Tx, audit_key: str, *, approve: bool) -> Audit: ...

    def terminate(self, tx: Tx, audit_key: str) -> Audit: ...

    def find(self, tx: Tx, *, kind: AuditKind, subject: str, direction: Direction | None = None) -> Sequence[Audit]: ...


class Grants(Protocol):
    """What jobs need of service.grants."""

    def authorise(
        self,
        tx: Tx,
        *,
        user: NodeId,
        job_id: JobId,
        project_id: str,
        uses: Sequence[DatasetUse],
        permits: Sequence[Permit],
        now: int,
    ) -> None: ...

    def recheck(
        self, tx: Tx, *, user: NodeId, job_id: JobId, project_id: str, uses: Sequence[DatasetUse], now: int
    ) -> Mapping[DatasetId, tuple[str, ...]]: ...

    def open(
        self, tx: Tx, *, user: NodeId, job_id: JobId, project_id: str, uses: Sequence[DatasetUse], now: int
    ) -> Mapping[DatasetId, tuple[str, ...]]: ...

    def permits_held(self, tx: Tx, *, holder: NodeId, dataset_ids: Sequence[DatasetId], now: int) -> Sequence[Json]: ...

    def token_set(self, permits: Sequence[Json]) -> str: ...


class Partners(Protocol):
    """What jobs need of service.partners."""

    def contract_with(self, tx: Tx, node_id: NodeId) -> Contract: ...


_PASSING: Final = frozenset(str(WIRE[kind].code) for kind in (Kind.OVERLOADED, Kind.STORE, Kind.TOO_MANY))


def passing(error: GatewayError) -> bool:
    """The other side may answer otherwise soon: it was not reached, or its control process is just being restarted."""
    return isinstance(error, Unavailable) or (isinstance(error, PeerError) and error.peer_code in _PASSING)


# --- components -------------------------------------------------------------------------------------------------------


def register_component(tx: Tx, *, info: Json, image: str, code: str, now: int) -> Component:
    """Store a component under (componentName, provider, version); the same content again changes nothing (C-102).

    code: digest of what the image stands for (service.code).

    Raises ProtocolViolation for a description that cannot be read or an image that cannot be one, Refused(CONFLICT)
    for other content under a known key (A-011).
    """
    try:
        # From a text: what is stored is read from one again.
        description = parse_description(json.dumps(info))
    except DescriptionError as error:
        raise ProtocolViolation(f"component_info: {error}") from error
    if not image or len(image) > 1024 or not image.isprintable():
        raise ProtocolViolation("imageUrl must be a text of at most 1024 characters")
    component = Component(
        name=description.component_name,
        provider=description.provider,
        version=description.version,
        description=info,
        image=image,
        enabled=True,
        created=now,
        code_digest=code,
    )
    known = tx.get(Component, component.key())
    if known is None:
        tx.insert(component)
        return component
    if (known.description, known.image) == (info, image) and not known.code_digest:
        tx.replace(known, made := replace(known, code_digest=code))
        return made
    if (known.description, known.image, known.code_digest) != (info, image, code):
        raise Refused(f"component {component.key()} is registered with other content", kind=Kind.CONFLICT)
    return known


def _delivered(info: Json, lines: Mapping[str, int], *, at: str) -> Sequence[tuple[Delivered, Description]]:
    """The descriptions that were delivered, each with all that C-103 lists; raises DescriptionError."""
    parts = read_delivered(info, lines, at=at)
    for part, _ in parts:
        place = f"{at}.{part.at}" if part.at else at
        for key in _REQUIRED:
            if part.info.get(key) is None:
                raise DescriptionError("missing", key=f"{place}.{key}", line=lines.get(place, 0))
    return parts


def install_builtins(tx: Tx, *, now: int) -> None:
    """Register our own components, replacing the descriptions and code of an older installation."""
    for description in builtin_descriptions():
        name, provider, version = description.key
        image = f"{BUILTIN}gateway.components.{name}"
        code = code_digest(image)
        raw = dict(description.raw)
        component = Component(name, provider, version, raw, image, enabled=True, created=now, code_digest=code)
        known = tx.get(Component, component.key())
        if known is None:
            tx.insert(component)
        elif (known.description, known.image, known.code_digest) != (raw, image, code):
            tx.replace(known, replace(known, description=raw, image=image, code_digest=code))


# --- the book ---------------------------------------------------------------------------------------------------------


class JobBook:
    """Changes of jobs and shares inside a transaction, by the tables of `core.job` and nowhere else."""

    def __init__(self, *, identity: Identity, limits: Limits, rules: JobRules, clock: Clock, journal: Journal) -> None:
        self.identity = identity
        self.limits = limits
        self.rules = rules
        self.clock = clock
        self.journal = journal
        self._plans: dict[str, Plan] = {}
        self._descriptions: dict[str, tuple[Json, Description]] = {}
        self._ended: list[Callable[[Tx, Job, Job], None]] = []

    def on_end(self, listener: Callable[[Tx, Job, Job], None]) -> None:
        """`listener` gets the job before and after, inside the transaction that ends it here."""
        self._ended.append(listener)

    @property
    def own(self) -> NodeId:
        return self.identity.node_id

    def plan(self, job: Job) -> Plan:
        """The job's plan, parsed once per job while it is among the newest 256."""
        known = self._plans.get(job.job_id)
        if known is None or known.dag != job.dag or known.config != job.config:
            known = parse_plan(job.dag, job.config, self.limits)
            if len(self._plans) >= 256:
                self._plans.pop(next(iter(self._plans)))
            self._plans[job.job_id] = known
        return known

    def own_parties(self, plan: Plan) -> tuple[Party, ...]:
        return tuple(party for party in plan.parties if party.node_id == self.own)

    def lookup(self, tx: Tx) -> Lookup:
        """Reader of the enabled components registered here."""

        def find(ref: ComponentRef) -> Description | None:
            component = tx.get(Component, ref.key())
            return self.describe(component) if component is not None and component.enabled else None

        return find

    def describe(self, component: Component) -> Description:
        """The parsed self-description of a registered component."""
        known = self._descriptions.get(component.key())
        if known is None or known[0] != component.description:
            known = (component.description, parse_description(json.dumps(component.description)))
            self._descriptions[component.key()] = known
        return known[1]

    def check_room(self, tx: Tx, *, project_id: str, flow_id: str, dag: Json, others: Sequence[NodeId]) -> None:
        """A job of ours or of `others` names a project and a flow that stand; raises Refused."""
        if self.rules.require_project:
            check_project(tx, project_id, own=self.own, others=others)
        if flow_id:
            check_flow(tx, flow_id, dag, others=others)

    def get(self, tx: Tx, job_id: str) -> Job:
        """The job; raises Refused(NOT_FOUND)."""
        job = tx.get(Job, job_id)
        if job is None:
            raise Refused("unknown job_id", kind=Kind.NOT_FOUND)
        return job

    def advance(
        self,
        tx: Tx,
        job: Job,
        event: JobEvent,
        *,
        outcome: Outcome = Outcome.OPEN,
        reason: str = "",
        unsure: bool = False,
        code: str = "",
    ) -> Job:
        """Move a job by the table; its end also ends its shares and, at the scheduler, the views of its tasks.

        outcome, reason and unsure are kept only where the state really changes; code: result code of the shares that
        this ends. Raises IllegalTransition.
        """
        state = step_job(job.status, event)
        if state is job.status:
            return job
        now = self.clock.now_ms()
        final = state in JOB_FINAL
        changed = replace(
            job,
            status=state,
            outcome=outcome if final else job.outcome,
            reason=reason,
            started=now if state is JobState.RUNNING else job.started,
            finished=now if final else None,
            heard=now,
            # Where nobody has scheduled it there is nobody who would know better.
            unsure=final and unsure and bool(job.scheduler) and not job.scheduling,
        )
        tx.replace(job, changed)
        if final:
            for share in tx.select(Share, job_id=job.job_id):
                self.move_share(tx, share, TaskEvent.STOP, message=reason, result_code=code)
            for view in tx.select(TaskView, job_id=job.job_id):
                status = step_task(view.status, TaskEvent.STOP)
                if status is not view.status:
                    tx.replace(view, replace(view, status=status, updated=now))
            for listener in self._ended:
                listener(tx, job, changed)
        self.journal.note(
            "job.state", job_id=job.job_id, trace_id=job.trace_id, state=state, outcome=changed.outcome, reason=reason
        )
        return changed

    def move_share(
        self,
        tx: Tx,
        share: Share,
        event: TaskEvent,
        *,
        message: str = "",
        result_code: str = "",
        exit_code: int | None = None,
        pid: int | None = None,
        token_digest: str = "",
    ) -> Share:
        """Move a share by the table; raises IllegalTransition. What is given is kept where the state changes."""
        state = step_task(share.status, event)
        if state is share.status:
            return share
        now = self.clock.now_ms()
        final = state in TASK_FINAL
        changed = replace(
            share,
            status=state,
            message=message or share.message,
            result_code=result_code or share.result_code,
            exit_code=exit_code if final else share.exit_code,
            pid=None if final else (pid or share.pid),
            token_digest="" if final else (token_digest or share.token_digest),
            started=now if state is TaskState.RUNNING else share.started,
            finished=now if final else None,
        )
        tx.replace(share, changed)
        job = tx.get(Job, share.job_id)
        self.journal.note(
            "task.state",
            trace_id=job.trace_id if job is not None else None,
            ms=now - share.started if final and share.started is not None else None,
            job_id=share.job_id,
            task_id=share.task_id,
            task=share.task_name,
            party=f"{share.role}.{share.index}",
            state=state,
        )
        return changed

    def note_heard(self, tx: Tx, job: Job) -> Job:
        """Remember that the scheduler was heard of; at most once a second, since polls are many."""
        now = self.clock.now_ms()
        if now - job.heard < 1000:
            return job
        changed = replace(job, heard=now)
        tx.replace(job, changed)
        return changed


# --- submission, approvals, admin -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Submission:
    """What a north-south create_all asks for, unchecked."""

    name: str
    project_id: str
    flow_id: str
    dag: object
    config: Any


class Jobs:
    """What this node's own people and its management plane do with jobs."""

    def __init__(
        self,
        *,
        store: Store,
        book: JobBook,
        audits: Audits,
        grants: Grants,
        partners: Partners,
        entropy: Entropy,
        runtime: JobRuntime,
    ) -> None:
        self._store = store
        self._book = book
        self._audits = audits
        self._grants = grants
        self._partners = partners
        self._entropy = entropy
        self._runtime = runtime

    @property
    def own(self) -> NodeId:
        """This node."""
        return self._book.own

    # -- submission

    async def validate(self, body: Json) -> dict[str, Any]:
        """What a job file expands to and everything that is wrong with it; changes nothing."""
        return await self._store.run(lambda tx: self._validate(tx, body))

    def _validate(self, tx: Tx, body: Json) -> dict[str, Any]:
        answer: dict[str, Any] = {"ok": False, "problems": [], "dag": None, "conf": None}
        try:
            expanded = self._expand(tx, body)
            answer |= {"dag": expanded.dag, "conf": expanded.config}
            plan = parse_plan(expanded.dag, expanded.config, self._book.limits)
        except (jobfile.JobFileError, DagError) as error:
            answer["problems"] = [{"where": error.where, "message": error.problem}]
            return answer
        found = self._problems(tx, plan)
        return answer | {"ok": not found, "problems": [{"where": p.where, "message": p.message} for p in found]}

    def _expand(self, tx: Tx, body: Json) -> jobfile.Expanded:
        def catalogue(name: str) -> list[Description]:
            return [self._book.describe(c) for c in tx.select(Component, name=name, enabled=True)]

        return jobfile.expand(body, own_node=self._book.own, catalogue=catalogue)

    def _problems(self, tx: Tx, plan: Plan) -> list[Problem]:
        """What can be known before anybody is asked: components, parameters, own data, partners."""
        found = problems(plan, self._book.lookup(tx))
        for dataset in plan.uses(self._book.own_parties(plan)):
            if tx.get(Dataset, dataset) is None:
                found.append(Problem("data", f"this node has no dataset {dataset}", Kind.NOT_FOUND))
        found += self._columns_missing(tx, plan)
        for node in {*plan.participants, plan.scheduler} - {self._book.own}:
            try:
                self._partners.contract_with(tx, node)
            except GatewayError as error:
                found.append(Problem("parties", f"no partnership with {node}: {error}", error.kind))
        return found

    def _columns_missing(self, tx: Tx, plan: Plan) -> list[Problem]:
        """Columns that parameters of this node's parties name and its own tables do not have."""

        def columns(dataset: DatasetId) -> list[str] | None:
            found = tx.get(Dataset, dataset)
            return None if found is None else [str(each.get("name")) for each in found.column_metas]

        return column_problems(plan, self._book.lookup(tx), columns, parties=self._book.own_parties(plan))

    async def submit_file(self, body: Json) -> Job:
        """Submit a job file."""

        def work(tx: Tx) -> Job:
            expanded = self._expand(tx, body)
            return self._submit(tx, expanded)

        return await self._submitted(work)

    async def submit(self, *, dag: object, config: object, flow_id: str, project_id: str, name: str) -> Job:
        """Submit a DAG and its Config (N-S create_all); the job_id is new (C-010, C-011).

        The job is PENDING until every other participant has approved it, then runs by itself. Raises DagError,
        Refused; nothing is stored then.
        """
        asked = _Submission(name, project_id, flow_id, dag, config)
        return await self._submitted(lambda tx: self._submit(tx, asked))

    async def rerun(self, job_id: str, task_name: str | None, file: Json | None = None) -> Job:
        """Submit a job of ours anew; tasks that had succeeded are not run again, `task_name` and what follows it are.

        file: a corrected job file; whatever is another task in it, or has other parameters, is run. Raises Refused
        where the job is another node's, has not ended, has no such task or had other parties.
        """

        def work(tx: Tx) -> Job:
            job = self._book.get(tx, job_id)
            former = self._book.plan(job)
            if job.initiator != self._book.own:
                raise Refused(f"only {job.initiator}, who submitted the job, can run it again")
            if job.status not in JOB_FINAL:
                raise Refused("the job has not ended yet", kind=Kind.ILLEGAL_TRANSITION)
            asked = _Submission(job.name, job.project_id, job.flow_id, job.dag, json.loads(json.dumps(job.config)))
            if file is not None:
                made = self._expand(tx, file)
                asked = _Submission(made.name, made.project_id, made.flow_id, made.dag, made.config)
            common = asked.config.setdefault("job_params", {}).setdefault("common", {})
            common.pop(RERUN, None)
            plan = parse_plan(asked.dag, asked.config, self._book.limits)
            if plan.roles != former.roles:
                raise Refused("the file has other parties than the job; submit it as a new one", kind=Kind.CONFLICT)
            if task_name and task_name not in plan.nodes:
                raise Refused(f"the job has no task {task_name[:64]!r}", kind=Kind.NOT_FOUND)
            again = plan.downstream(TaskName(task_name)) if task_name else frozenset()
            again |= {name for name in plan.nodes if not all(plan.same(former, name, p) for p in plan.parties)}
            if reused := self._reusable(tx, job, plan, again):
                common[RERUN] = {"job_id": job.job_id, "tasks": reused}
            return self._submit(tx, asked)

        return await self._submitted(work)

    def _reusable(self, tx: Tx, job: Job, plan: Plan, again: frozenset[TaskName]) -> list[str]:
        """Tasks that succeeded everywhere, as far as is known here, and whose producers are not run again."""
        states: dict[TaskName, list[TaskState]] = {}
        known: list[TaskView | Share] = [*tx.select(TaskView, job_id=job.job_id), *tx.select(Share, job_id=job.job_id)]
        for each in known:
            states.setdefault(each.task_name, []).append(each.status)
        reused: list[str] = []
        for name in plan.order:
            done = name in states and set(states[name]) == {TaskState.SUCCESS}
            if done and name not in again and all(edge.producer in reused for edge in plan.nodes[name].inputs):
                reused.append(name)
        return reused

    async def _submitted(self, work: Callable[[Tx], Job]) -> Job:
        job = await self._store.run(work)
        self._runtime.poke(job.job_id)
        return job

    def _submit(self, tx: Tx, asked: "jobfile.Expanded | _Submission") -> Job:
        plan = parse_plan(asked.dag, asked.config, self._book.limits)
        own = self._book.own
        if plan.initiator != own:
            raise DagError("config.initiator.node_id", "must be this node")
        for problem in self._problems(tx, plan):
            raise Refused(f"{problem.where}: {problem.message}", kind=problem.kind)
        others = [node for node in plan.participants if node != own]
        self._book.check_room(tx, project_id=asked.project_id, flow_id=asked.flow_id, dag=plan.dag, others=others)
        job_id = JobId(f"job-{self._entropy.token(16).hex()}")
        now = self._book.clock.now_ms()
        job = Job(
            job_id=job_id,
            flow_id=asked.flow_id or f"flow-{self._entropy.token(16).hex()}",
            project_id=asked.project_id or NO_PROJECT,
            name=asked.name or job_id,
            dag=plan.dag,
            config=plan.config,
            status=JobState.PENDING,
            outcome=Outcome.OPEN,
            reason="",
            initiator=own,
            scheduler=plan.scheduler,
            scheduling=plan.scheduler == own,
            trace_id=TraceId(self._entropy.token(16).hex()),
            permits={},
            created=now,
            started=None,
            finished=None,
            heard=now,
        )
        check_channel(tx, job, plan)
        tx.insert(job)
        self._book.journal.note("job.submitted", job_id=job_id, trace_id=job.trace_id)
        approvers = [node for node in others if asks_approval(tx, node)]
        if not self._book.rules.require_job_audit or not approvers:
            return self._book.advance(tx, job, JobEvent.APPROVE)
        body = {
            "job_id": job_id,
            "flow_id": job.flow_id,
            "name": job.name,
            "project_id": job.project_id,
            "dag": plan.dag,
            "conf": plan.config,
        }
        for node in approvers:
            contract = self._partners.contract_with(tx, node)
            self._audits.apply(
                tx, kind=AuditKind.JOB, contract=contract, subject=job_id, body=body, trace_id=job.trace_id
            )
        # An audit may already have been answered where a listener decides by itself.
        return tx.get(Job, job_id) or job

    # -- approvals

    def on_audit(self, tx: Tx, audit: Audit) -> None:
        """Listener of every change of a JOB audit, inside its transaction."""
        if audit.direction is Direction.OUT:
            self._answered(tx, audit)
        else:
            self._asked(tx, audit)
        self._runtime.settle(JobId(audit.subject))
        self._runtime.poke(JobId(audit.subject))

    def _answered(self, tx: Tx, audit: Audit) -> None:
        """A participant answered our job."""
        job = tx.get(Job, audit.subject)
        if job is None or job.status in JOB_FINAL:
            return
        peer = audit.peer_node_id
        if audit.status is ApprovalState.REJECTED:
            self._end(tx, job, JobEvent.REFUSE, f"{peer} refused the job")
        elif audit.status is ApprovalState.TERMINATED:
            self._end(tx, job, JobEvent.FAIL, f"the approval of {peer} was withdrawn")
        elif audit.status is ApprovalState.APPROVED:
            approved = {audit.peer_node_id} | {
                other.peer_node_id
                for other in self._audits.find(tx, kind=AuditKind.JOB, subject=job.job_id, direction=Direction.OUT)
                if other.status is ApprovalState.APPROVED
            }
            others = set(self._book.plan(job).participants) - {self._book.own}
            if approved >= {node for node in others if asks_approval(tx, node)}:
                self._book.advance(tx, job, JobEvent.APPROVE)

    def _asked(self, tx: Tx, audit: Audit) -> None:
        """A partner asks us to take part, or we have decided."""
        job = tx.get(Job, audit.subject)
        if job is None:
            job = self._from_audit(tx, audit)
        elif job.initiator != audit.peer_node_id:
            raise Refused("job_id is known as another node's job", kind=Kind.CONFLICT)
        elif audit.status is ApprovalState.APPLIED and self._digest(audit) != digest(job.dag, job.config):
            raise Refused("job_id is known with another dag or conf", kind=Kind.CONFLICT)
        if job.status in JOB_FINAL:
            return
        if audit.status is ApprovalState.APPROVED:
            self._book.advance(tx, job, JobEvent.APPROVE)
        elif audit.status is ApprovalState.REJECTED and job.status is JobState.PENDING:
            self._end(tx, job, JobEvent.REFUSE, "refused by this node")
        elif audit.status in {ApprovalState.TERMINATED, ApprovalState.REJECTED}:
            self._end(tx, job, JobEvent.FAIL, "the approval was withdrawn")

    def _end(self, tx: Tx, job: Job, event: JobEvent, reason: str) -> None:
        if event is JobEvent.REFUSE and job.status is not JobState.PENDING:
            event = JobEvent.FAIL
        self._book.advance(tx, job, event, outcome=Outcome.REFUSED, reason=reason)
        if job.initiator == self._book.own and job.status is not JobState.RUNNING:
            withdraw(tx, self._audits, job)

    def _from_audit(self, tx: Tx, audit: Audit) -> Job:
        """The participant's record of a job, made when it is first asked; scheduler is empty until job/create."""
        plan = parse_plan(audit.body.get("dag"), audit_config(audit), self._book.limits)
        if plan.initiator != audit.peer_node_id:
            raise Refused("conf.initiator is not the applicant")
        if self._book.own not in plan.participants:
            raise Refused("conf.role does not name this node")
        # Else job/create would refuse it, after people had approved it.
        named = {"project_id": str(audit.body.get("project_id", "")), "flow_id": str(audit.body.get("flow_id", ""))}
        self._book.check_room(tx, **named, dag=plan.dag, others=[plan.initiator])
        job_id = JobId(safe_id(audit.subject, "job_id", self._book.limits))
        now = self._book.clock.now_ms()
        job = Job(
            job_id=job_id,
            flow_id=str(audit.body.get("flow_id", "")),
            project_id=str(audit.body.get("project_id", "")),
            name=str(audit.body.get("name", ""))[:128],
            dag=plan.dag,
            config=plan.config,
            status=JobState.PENDING,
            outcome=Outcome.OPEN,
            reason="",
            initiator=plan.initiator,
            scheduler=NodeId(""),
            scheduling=False,
            trace_id=TraceId(""),
            permits={},
            created=now,
            started=None,
            finished=None,
            heard=now,
        )
        check_channel(tx, job, plan)
        tx.insert(job)
        return job

    @staticmethod
    def _digest(audit: Audit) -> str:
        return digest(audit.body.get("dag", {}), audit_config(audit) or {})

    async def decide(self, job_id: str, *, approve: bool) -> Job:
        """Approve or refuse a partner's job; raises Refused(NOT_FOUND) where nobody asks."""
        job = await self._store.run(lambda tx: self.answer(tx, job_id, approve=approve))
        self.answered(job)
        return job

    def application(self, tx: Tx, job_id: str) -> Audit:
        """What a partner asks of us for this job; raises Refused(NOT_FOUND)."""
        for audit in self._audits.find(tx, kind=AuditKind.JOB, subject=job_id, direction=Direction.IN):
            return audit
        raise Refused("no partner asks for an approval of this job", kind=Kind.NOT_FOUND)

    def answer(self, tx: Tx, job_id: str, *, approve: bool) -> Job:
        """As `decide`, in the caller's transaction; then `answered` is due."""
        self._audits.decide(tx, self.application(tx, job_id).key(), approve=approve)
        return self._book.get(tx, job_id)

    def answered(self, job: Job) -> None:
        """The answer is committed: make the world match."""
        self._runtime.settle(job.job_id)

    # -- reading

    async def all(self, *, flow_id: str = "") -> list[Job]:
        """Every job of this node, or of one flow (C-022), newest first."""

        def work(tx: Tx) -> Sequence[Job]:
            if flow_id:
                return tx.select(Job, order="-created", flow_id=flow_id)
            return tx.select(Job, order="-created")

        return list(await self._store.run(work))

    async def show(self, job_id: str) -> dict[str, Any]:
        """Everything this node knows of a job (admin API of a job)."""
        return await self._store.run(lambda tx: self._show(tx, job_id))

    def _show(self, tx: Tx, job_id: str) -> dict[str, Any]:
        job = self._book.get(tx, job_id)
        plan = self._book.plan(job)
        views = tx.select(TaskView, job_id=job.job_id)
        shares = tx.select(Share, job_id=job.job_id)
        audits = self._audits.find(tx, kind=AuditKind.JOB, subject=job.job_id)
        tasks = [self._task(plan, name, views, shares, tx) for name in plan.order]
        story = Story(job, plan, views, shares, audits, self._book)
        return {
            "job": asdict(replace(job, permits={})),
            "tasks": tasks,
            "audits": [
                {
                    "peer_node_id": audit.peer_node_id,
                    "direction": audit.direction,
                    "status": audit.status,
                    "created": audit.created,
                    "updated": audit.updated,
                    "audit_id": audit.audit_id,
                    "applicant": audit.applicant,
                }
                for audit in audits
            ],
            "datasets": {
                dataset: sorted(
                    {node.component.name for node in plan.nodes.values() if node.component.key() in components}
                )
                for dataset, components in plan.uses(self._book.own_parties(plan)).items()
            },
            "problems": [
                {"where": p.where, "message": p.message}
                for p in (self._columns_missing(tx, plan) if job.status is JobState.PENDING else ())
            ],
            "waiting": [asdict(wait) for wait in story.waits()],
            "explanation": story.text(),
        }

    def _task(
        self, plan: Plan, name: TaskName, views: Sequence[TaskView], shares: Sequence[Share], tx: Tx
    ) -> dict[str, Any]:
        mine = [share for share in shares if share.task_name == name]
        seen = [view for view in views if view.task_name == name]
        ids = [view.task_id for view in seen] + [share.task_id for share in mine]
        states = [view.status for view in seen] or [share.status for share in mine]
        parties: list[dict[str, Any]] = [
            {"node_id": view.node_id, "role": view.role, "status": view.status} for view in seen
        ]
        if not parties:
            running = plan.parties_of(name, self._book.lookup(tx))
            known = {(share.role, share.index): share.status for share in mine}
            parties = [{"node_id": p.node_id, "role": p.role, "status": known.get((p.role, p.index))} for p in running]
        keep = (
            "role",
            "index",
            "status",
            "progress",
            "result_code",
            "message",
            "exit_code",
            "created",
            "started",
            "finished",
        )
        return {
            "task_id": ids[0] if ids else None,
            "task_name": name,
            "component": plan.nodes[name].component.key(),
            "status": aggregate(states),
            "parties": parties,
            "shares": [{key: getattr(share, key) for key in keep} for share in mine],
        }

    async def task(self, job_id: str, task_name: str) -> list[Share]:
        """This node's shares of one task; raises Refused(NOT_FOUND)."""

        def work(tx: Tx) -> list[Share]:
            job = self._book.get(tx, job_id)
            if TaskName(task_name) not in self._book.plan(job).nodes:
                raise Refused(f"the job has no task {task_name[:64]!r}", kind=Kind.NOT_FOUND)
            return list(tx.select(Share, job_id=job_id, task_name=task_name))

        return await self._store.run(work)

    async def shares_of(self, task_id: str) -> list[Share]:
        """This node's shares of a task id; raises Refused(NOT_FOUND)."""
        shares = await self._store.run(lambda tx: list(tx.select(Share, task_id=task_id)))
        if not shares:
            raise Refused("unknown task_id", kind=Kind.NOT_FOUND)
        return shares

    async def parties(self, job_id: str) -> tuple[Job, tuple[Party, ...]]:
        """The job and this node's own parties in it; raises Refused(NOT_FOUND)."""
        job = await self._store.run(lambda tx: self._book.get(tx, job_id))
        return job, self._book.own_parties(self._book.plan(job))

    async def channels(self, job_id: str) -> set[SessionId]:
        """Channel ids of a job and of its tasks here; raises Refused(NOT_FOUND)."""

        def work(tx: Tx) -> set[SessionId]:
            job = self._book.get(tx, job_id)
            plan, lookup = self._book.plan(job), self._book.lookup(tx)
            found = {channel_of(tx, job, plan)}
            for share in tx.select(Share, job_id=job_id):
                found.add(task_channel(tx, job, plan, share, own=self._book.own, lookup=lookup).session)
            return found

        return await self._store.run(work)

    async def artifacts(self, job_id: str) -> tuple[Job, list[dict[str, Any]]]:
        """What this node's successful tasks have written: task, output, role, index, namespace and name of each."""

        def work(tx: Tx) -> tuple[Job, list[dict[str, Any]]]:
            job = self._book.get(tx, job_id)
            plan = self._book.plan(job)
            found = []
            for share in tx.select(Share, job_id=job_id, status=TaskState.SUCCESS):
                party = Party(share.role, share.index, self._book.own)
                for output in plan.nodes[share.task_name].outputs:
                    item = {"task_name": share.task_name, "key": output.key, "type": output.type}
                    place = artifact(job.job_id, party, share.task_id, output.key)
                    found.append({**item, "role": share.role, "index": share.index, **place})
            return job, found

        return await self._store.run(work)

    async def register(
        self, *, info: Json, image: str, lines: Mapping[str, int] = MappingProxyType({})
    ) -> tuple[Component, ...]:
        """Register a component, or all those of a vendor's file or not one (N-S component/register).

        image: "" where the file itself names it. lines: of the request, by path; then errors name the line. Raises
        ProtocolViolation for a description that lacks what C-103 lists or cannot be read.
        """
        try:
            parts = _delivered(info, lines, at="component_info")
        except DescriptionError as error:
            raise ProtocolViolation(str(error)) from error
        images = [image or part.image for part, _ in parts]
        if not all(images):
            raise ProtocolViolation("imageUrl is missing")
        now = self._book.clock.now_ms()
        codes = [await asyncio.to_thread(code_digest, each) for each in images]

        def work(tx: Tx) -> tuple[Component, ...]:
            return tuple(
                register_component(tx, info=part.info, image=each, code=code, now=now)
                for (part, _), each, code in zip(parts, images, codes, strict=True)
            )

        return await self._store.run(work)


def withdraw(tx: Tx, audits: Audits, job: Job) -> None:
    """Tell every participant that was asked about a job of ours that it will not run (M-066)."""
    for audit in audits.find(tx, kind=AuditKind.JOB, subject=job.job_id, direction=Direction.OUT):
        if audit.status in {ApprovalState.APPLIED, ApprovalState.APPROVED}:
            audits.terminate(tx, audit.key())


def audit_config(audit: Audit) -> Any:
    """`conf` of a job audit, or `config`: both names are accepted (A-12)."""
    return audit.body.get("conf", audit.body.get("config"))


def sides(shares: Iterable[Share]) -> Mapping[TaskId, TaskState]:
    """task_id -> state over this node's own roles."""
    grouped: dict[TaskId, list[TaskState]] = {}
    for share in shares:
        grouped.setdefault(share.task_id, []).append(share.status)
    return {task_id: aggregate(states) for task_id, states in grouped.items()}
