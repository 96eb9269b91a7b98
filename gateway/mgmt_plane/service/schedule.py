"""The east-west control calls of part 2 (3.1-3.9) as this node answers them, for partners and for its own scheduler.

Who may call what is B-44: create_all the initiator; create the initiator or the scheduler that the Config names; start,
task/start, stop and poll the sender of create or the initiator; stop_all, status_all and callback any participant. The
caller is proven by the edge; a local call carries this node's own id. Repeats change nothing and answer code 0 (B-19).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.auth.tokens import parse_token_set
from gateway.errors import GatewayError, IllegalTransition, Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core.acl import DatasetUse
from gateway.mgmt_plane.core.dag import Plan, artifact_name, digest, parse_plan, problems, safe_id
from gateway.mgmt_plane.core.job import (
    JOB_FINAL,
    JobEvent,
    TaskEvent,
    aggregate,
    observe,
    parse_task_state,
    step_task,
)
from gateway.mgmt_plane.service.datasets import read_header
from gateway.mgmt_plane.service.ending import result_code, told, why_failed
from gateway.mgmt_plane.service.jobs import (
    Audits,
    Grants,
    JobBook,
    JobRuntime,
    Partners,
    audit_config,
    sides,
    withdraw,
)
from gateway.mgmt_plane.service.membership import asks_approval, check_channel, dialect_of
from gateway.model import (
    Dataset,
    DatasetId,
    Direction,
    Grant,
    Job,
    JobId,
    Json,
    Outcome,
    Party,
    Share,
    TaskId,
    TaskName,
    TaskView,
)
from gateway.ports import Caller, PeerClient, Store, Tx
from specs.states import ApprovalState, AuditKind, JobState, TaskState


@dataclass(frozen=True, slots=True)
class _Create:
    """The body of create and create_all, checked."""

    job_id: JobId
    flow_id: str
    plan: Plan


class Schedule:
    """East-west control. Methods take the proven caller and the body and return `data`."""

    def __init__(
        self,
        *,
        store: Store,
        book: JobBook,
        audits: Audits,
        grants: Grants,
        partners: Partners,
        peers: PeerClient,
        runtime: JobRuntime,
    ) -> None:
        self._store = store
        self._book = book
        self._audits = audits
        self._grants = grants
        self._partners = partners
        self._peers = peers
        self._runtime = runtime

    # -- create

    async def create_all(self, caller: Caller, body: Json) -> Json:
        """As the scheduler of another node's job: create it everywhere and answer each party's result."""
        create = self._read_create(body)
        if caller.node_id != create.plan.initiator:
            raise Refused("only the initiator named in config may call create_all")
        if create.plan.scheduler != self._book.own:
            raise Refused("config does not make this node the scheduler", kind=Kind.MISADDRESSED)
        await self._store.run(lambda tx: self._accept_scheduling(tx, caller, create))
        results = await self._runtime.distribute(create.job_id)
        refused = {node: why for node, why in results.items() if why}
        if refused:
            node, why = next(iter(refused.items()))
            raise Refused(f"{node} did not create the job: {why}", kind=Kind.PEER_REFUSED)
        return {"result": {node: {"code": 0} for node in results}}

    def _accept_scheduling(self, tx: Tx, caller: Caller, create: _Create) -> None:
        job = tx.get(Job, create.job_id)
        if job is not None and digest(job.dag, job.config) != digest(create.plan.dag, create.plan.config):
            raise Refused("job_id is known with another dag or config", kind=Kind.CONFLICT)
        for problem in problems(create.plan, self._book.lookup(tx), parties=()):
            raise Refused(f"{problem.where}: {problem.message}", kind=problem.kind)
        if job is not None and job.status in JOB_FINAL:
            raise Refused("the job has ended", kind=Kind.STOPPED)
        if self._book.own in create.plan.participants:
            self._check_approval(tx, caller, create)
        if job is None:
            open_jobs = sum(
                tx.count(Job, initiator=caller.node_id, scheduling=True, status=state)
                for state in (JobState.READY, JobState.RUNNING)
            )
            if open_jobs >= self._book.limits.open_jobs:
                raise Refused("too many jobs are scheduled for this node", kind=Kind.TOO_MANY, detail="")
        fresh = job or self._record(caller, create)
        fresh = replace(
            fresh, scheduling=True, scheduler=self._book.own, status=JobState.READY, permits={"": caller.token_set}
        )
        if job is None:
            check_channel(tx, fresh, create.plan)
            tx.insert(fresh)
        elif job.status is JobState.READY and not job.scheduling:
            tx.replace(job, fresh)

    async def create(self, caller: Caller, body: Json) -> Json:
        """As a participant: take part in a job (C-015 to C-021). Nothing is stored unless every check passes."""
        create = self._read_create(body)
        if caller.node_id not in {create.plan.initiator, create.plan.scheduler}:
            raise Refused("only the initiator or the scheduler named in config may create the job")
        if self._book.own not in create.plan.participants:
            raise Refused("config.role does not name this node", kind=Kind.NODE_UNKNOWN)
        headers = await self._headers(create.plan)
        await self._store.run(lambda tx: self._create(tx, caller, create, headers))
        return {}

    async def _headers(self, plan: Plan) -> Mapping[DatasetId, list[str]]:
        """The column names that the files of our datasets in another node's job have now.

        Of those that its initiator holds a grant for: nobody else has a file of ours opened, be it for one line.
        """
        if plan.initiator == self._book.own:
            return {}
        wanted = list(plan.uses(self._book.own_parties(plan)))

        def granted(tx: Tx) -> list[Dataset]:
            held = {
                name
                for name in wanted
                if any(not each.revoked for each in tx.select(Grant, dataset_id=name, user=plan.initiator))
            }
            return [each for name in wanted if name in held and (each := tx.get(Dataset, name)) is not None]

        found = await self._store.run(granted)
        return {each.dataset_id: await asyncio.to_thread(read_header, Path(each.location)) for each in found}

    def _read_create(self, body: Json) -> _Create:
        job_id = JobId(safe_id(body.get("job_id"), "job_id", self._book.limits))
        for member in ("dag", "config"):
            if not isinstance(body.get(member), Mapping):
                raise ProtocolViolation(f"{member} is missing or not an object")
        flow = body.get("flow_id")
        if flow is not None and (not isinstance(flow, str) or len(flow) > self._book.limits.id_chars):
            raise ProtocolViolation("flow_id must be a short text")
        return _Create(job_id, flow or "", parse_plan(body["dag"], body["config"], self._book.limits))

    def _create(self, tx: Tx, caller: Caller, create: _Create, headers: Mapping[DatasetId, list[str]]) -> None:
        job = tx.get(Job, create.job_id)
        plan = create.plan
        if job is not None:
            if digest(job.dag, job.config) != digest(plan.dag, plan.config):
                raise Refused("job_id is known with another dag or config", kind=Kind.CONFLICT)
            if job.scheduler and not job.scheduling:
                if job.scheduler != caller.node_id:
                    raise Refused("the job was created by another node", kind=Kind.CONFLICT)
                return
            if job.status is JobState.REJECTED:
                raise Refused("this node has refused the job")
            if job.status is JobState.FINISHED:
                raise Refused("the job has ended", kind=Kind.STOPPED)
        project_id = self._check_approval(tx, caller, create)
        if plan.initiator != self._book.own:
            flow_id = create.flow_id or (job.flow_id if job is not None else "")
            self._book.check_room(tx, project_id=project_id, flow_id=flow_id, dag=plan.dag, others=[plan.initiator])
        own = self._book.own_parties(plan)
        for problem in problems(plan, self._book.lookup(tx), parties=own):
            raise Refused(f"{problem.where}: {problem.message}", kind=problem.kind)
        self._check_rerun(tx, plan, own)
        uses, columns = plan.uses(own), {}
        for dataset in uses:
            found = tx.get(Dataset, dataset)
            if found is None:
                raise Refused(f"this node has no dataset {dataset[:64]}", kind=Kind.NOT_FOUND)
            columns[dataset] = [each.get("name") for each in found.column_metas]
        now = self._book.clock.now_ms()
        if plan.initiator != self._book.own and uses:
            self._grants.authorise(
                tx,
                user=plan.initiator,
                job_id=create.job_id,
                project_id=project_id,
                uses=[DatasetUse(dataset, components) for dataset, components in uses.items()],
                permits=parse_token_set(caller.token_set, limit=self._book.limits.permits_per_request),
                now=now,
            )
        for dataset, names in headers.items():
            if dataset in columns and names != columns[dataset]:
                words = f"the file of {dataset[:64]} has other columns than the catalogue"
                raise Refused(words, kind=Kind.NOT_AS_APPROVED)
        if job is None:
            job = replace(self._record(caller, create), project_id=project_id)
            check_channel(tx, job, plan)
            tx.insert(job)
        elif not job.scheduling:
            trace = job.trace_id or caller.trace_id
            tx.replace(job, replace(job, scheduler=caller.node_id, trace_id=trace, heard=now))
        self._book.journal.note("job.created", job_id=create.job_id, peer=caller.node_id, trace_id=caller.trace_id)

    def _check_rerun(self, tx: Tx, plan: Plan, own: Sequence[Party]) -> None:
        """What is not to be run again must have succeeded here, for the same initiator, with the same parameters."""
        if not plan.reused:
            return
        job = tx.get(Job, plan.rerun_of)
        if job is None or job.initiator != plan.initiator:
            raise Refused("the initiator has no such job here that could be run again", kind=Kind.NOT_FOUND)
        former, lookup = self._book.plan(job), self._book.lookup(tx)
        if former.roles != plan.roles:
            raise Refused("the job to be run again has other parties", kind=Kind.CONFLICT)
        for name in sorted(plan.reused):
            for party in own:
                if party not in plan.parties_of(name, lookup):
                    continue
                if not plan.same(former, name, party):
                    words = f"{name} was another task or had other parameters and cannot be reused"
                    raise Refused(words, kind=Kind.CONFLICT)
                here = {"job_id": job.job_id, "task_name": name, "role": party.role, "index": party.index}
                if not tx.count(Share, **here, status=TaskState.SUCCESS):
                    raise Refused(f"{name} has not succeeded here and cannot be reused", kind=Kind.CONFLICT)

    def _check_approval(self, tx: Tx, caller: Caller, create: _Create) -> str:
        """This node's approval of exactly this dag and config (M-065); the project that was named with it."""
        if create.plan.initiator == self._book.own:
            job = tx.get(Job, create.job_id)
            if job is None or job.initiator != self._book.own:
                raise Refused("this node has not submitted such a job", kind=Kind.NOT_FOUND)
            if job.status is JobState.PENDING:
                raise Refused("not every participant has approved the job")
            return job.project_id
        for audit in self._audits.find(tx, kind=AuditKind.JOB, subject=create.job_id, direction=Direction.IN):
            if audit.peer_node_id != create.plan.initiator:
                continue
            if audit.status is not ApprovalState.APPROVED:
                raise Refused(f"this node's approval of the job is {audit.status.value}")
            if digest(audit.body.get("dag", {}), audit_config(audit) or {}) != digest(
                create.plan.dag, create.plan.config
            ):
                raise Refused("dag or config differs from what was approved", kind=Kind.CONFLICT)
            return str(audit.body.get("project_id", ""))
        if self._book.rules.require_job_audit and asks_approval(tx, create.plan.initiator):
            raise Refused("this node was not asked to approve the job")
        if caller.node_id != create.plan.initiator:
            raise Refused("without an approved job only the initiator may create it")
        return create.plan.text("project_id")

    def _record(self, caller: Caller, create: _Create) -> Job:
        now = self._book.clock.now_ms()
        return Job(
            job_id=create.job_id,
            flow_id=create.flow_id,
            project_id=create.plan.text("project_id"),
            name=create.job_id,
            dag=create.plan.dag,
            config=create.plan.config,
            status=JobState.READY,
            outcome=Outcome.OPEN,
            reason="",
            initiator=create.plan.initiator,
            scheduler=caller.node_id,
            scheduling=False,
            trace_id=caller.trace_id,
            permits={},
            created=now,
            started=None,
            finished=None,
            heard=now,
        )

    # -- start

    async def job_start(self, caller: Caller, body: Json) -> Json:
        """READY -> RUNNING with an open session; a repeat changes nothing (C-031, C-032)."""
        job_id = self._job_id(body)

        def work(tx: Tx) -> None:
            job = self._commanded(tx, caller, job_id)
            if job.status in JOB_FINAL:
                raise IllegalTransition(_ended(job))
            self._book.advance(tx, job, JobEvent.START)

        await self._store.run(work)
        await self._runtime.open(job_id)
        return {}

    async def task_start(self, caller: Caller, body: Json) -> Json:
        """Accept one task: this node's shares of it become READY and are launched soon (C-036 to C-039)."""
        job_id = self._job_id(body)
        task_id = TaskId(safe_id(body.get("task_id"), "task_id", self._book.limits))
        name = body.get("task_name")
        if not isinstance(name, str) or not name:
            raise ProtocolViolation("task_name is missing")
        await self._store.run(lambda tx: self._task_start(tx, caller, job_id, task_id, TaskName(name)))
        self._runtime.settle(job_id)
        return {}

    def _task_start(self, tx: Tx, caller: Caller, job_id: JobId, task_id: TaskId, name: TaskName) -> None:
        job = self._commanded(tx, caller, job_id)
        plan = self._book.plan(job)
        if name not in plan.nodes:
            raise Refused("the job has no such task_name", kind=Kind.NOT_FOUND)
        known = tx.select(Share, job_id=job_id, task_name=name)
        if known:
            if any(share.task_id != task_id for share in known):
                raise Refused("the task was started under another task_id", kind=Kind.CONFLICT)
            return
        if tx.count(Share, task_id=task_id):
            raise Refused("task_id is known as another task's", kind=Kind.CONFLICT)
        # Outputs are called <task_id>-<key>: two ids must not make one name, or a task would read another's output.
        taken = {
            artifact_name(share.task_id, output.key)
            for share in tx.select(Share, job_id=job_id)
            for output in plan.nodes[share.task_name].outputs
        }
        if any(artifact_name(task_id, output.key) in taken for output in plan.nodes[name].outputs):
            raise Refused("task_id would give an output the name of another task's", kind=Kind.CONFLICT)
        if job.status is JobState.FINISHED:
            raise Refused(_ended(job), kind=Kind.STOPPED)
        if job.status is not JobState.RUNNING:
            raise Refused("the job has not been started", kind=Kind.ILLEGAL_TRANSITION)
        parties = [p for p in plan.parties_of(name, self._book.lookup(tx)) if p.node_id == self._book.own]
        component = plan.nodes[name].component.key()
        now = self._book.clock.now_ms()
        self.recheck(tx, job, plan, name)
        for party in parties:
            share = Share(
                task_id=task_id,
                job_id=job_id,
                task_name=name,
                role=party.role,
                index=party.index,
                component=component,
                status=TaskState.PENDING,
                token_digest="",
                pid=None,
                exit_code=None,
                result_code="",
                message="",
                progress={},
                created=now,
                started=None,
                finished=None,
            )
            tx.insert(share)
            self._book.move_share(tx, share, TaskEvent.ADMIT)

    def recheck(self, tx: Tx, job: Job, plan: Plan, name: TaskName) -> Mapping[DatasetId, tuple[str, ...]]:
        """Columns granted of each dataset that a task opens here, () = all; raises Refused where no grant holds now."""
        return self._granted(tx, job, plan, name, self._grants.recheck)

    def open(self, tx: Tx, job: Job, plan: Plan, name: TaskName) -> Mapping[DatasetId, tuple[str, ...]]:
        """As `recheck`, when the task's data are about to be read: counts the use of the grants.

        What was approved is what runs, also if the store was changed behind our back since the job was created.
        """
        if plan.initiator != self._book.own:
            asked = self._audits.find(tx, kind=AuditKind.JOB, subject=job.job_id, direction=Direction.IN)
            asked = [each for each in asked if each.peer_node_id == plan.initiator]
            standing = [each for each in asked if each.status is ApprovalState.APPROVED]
            needed = self._book.rules.require_job_audit and asks_approval(tx, plan.initiator)
            if (asked or needed) and not standing:
                raise Refused("the approval of the job does not stand any more", kind=Kind.GRANT_REVOKED)
            runs = digest(job.dag, job.config)
            if any(digest(each.body.get("dag", {}), audit_config(each) or {}) != runs for each in standing):
                raise Refused("dag or config differs from what was approved", kind=Kind.NOT_AS_APPROVED)
        return self._granted(tx, job, plan, name, self._grants.open)

    def _granted(
        self,
        tx: Tx,
        job: Job,
        plan: Plan,
        name: TaskName,
        ask: Callable[..., Mapping[DatasetId, tuple[str, ...]]],
    ) -> Mapping[DatasetId, tuple[str, ...]]:
        parties = self._book.own_parties(plan)
        opened = {plan.dataset_of(party, name) for party in parties} - {None}
        if not opened or plan.initiator == self._book.own:
            return {}
        uses = [DatasetUse(d, components) for d, components in plan.uses(parties).items() if d in opened]
        return ask(
            tx,
            user=plan.initiator,
            job_id=job.job_id,
            project_id=job.project_id,
            uses=uses,
            now=self._book.clock.now_ms(),
        )

    # -- stop

    async def job_stop(self, caller: Caller, body: Json) -> Json:
        """Stop this node's part of a job, or of it from one task on (C-080 to C-086)."""
        job_id, name = self._job_id(body), self._task_name(body)

        def work(tx: Tx) -> bool:
            # Also a job that is only known from its audit: whoever refused job/create would wait for it for ever.
            job = self._commanded(tx, caller, job_id, created=False)
            self._check_name(job, name)
            if name is None:
                return self._stop_here(tx, job, body, by=caller.node_id)
            self.stop_shares(tx, job, name, by=caller.node_id)
            return False

        verify = await self._store.run(work)
        self._runtime.settle(job_id)
        self._runtime.poke(job_id)
        if verify:
            self._runtime.verify(job_id)
        return {}

    def _stop_here(self, tx: Tx, job: Job, body: Json, *, by: str) -> bool:
        """End the job here. True: ask the scheduler how it ended.

        The wire does not say it: then our shares tell for the time being. A scheduler of our own kind does, and is
        believed: its stop may be faster than the end of our own component.
        """
        outcome = self._told_outcome(job, body, by=by)
        if job.status in JOB_FINAL:
            if job.unsure and outcome is not None:
                why = job.reason if job.outcome is outcome else self._reason(tx, job, body, outcome)
                tx.replace(job, replace(job, outcome=outcome, reason=why, unsure=False))
                return False
            return job.unsure
        if outcome is not None:
            reason = self._reason(tx, job, body, outcome)
            self._book.advance(tx, job, JobEvent.STOP, outcome=outcome, reason=reason)
            return False
        shares = tx.select(Share, job_id=job.job_id)
        failed = next((share for share in shares if share.status is TaskState.FAILED), None)
        started = {share.task_name for share in shares}
        own = self._book.own_parties(self._book.plan(job))
        plan, lookup = self._book.plan(job), self._book.lookup(tx)
        mine = {name for name in plan.order if any(p in own for p in plan.parties_of(name, lookup))}
        if failed is not None:
            outcome, reason = Outcome.FAILED, f"task {failed.task_name} failed here"
        elif started == mine and all(share.status is TaskState.SUCCESS for share in shares):
            outcome, reason = Outcome.SUCCEEDED, ""
        else:
            outcome, reason = Outcome.STOPPED, f"stopped by {by}"
            if not job.scheduler:
                reason = f"ended by {by} before this node took part; job status there tells why"
        # A scheduler's own job that somebody else stops through job/stop.
        return self._book.advance(tx, job, JobEvent.STOP, outcome=outcome, reason=reason, unsure=True).unsure

    @staticmethod
    def _told_outcome(job: Job, body: Json, *, by: str) -> Outcome | None:
        """What a job/stop says of how the job ended badly; success is for our shares to say."""
        said = body.get("job_outcome")
        if by != job.scheduler or job.scheduling:
            return None
        return next((each for each in (Outcome.FAILED, Outcome.STOPPED) if each.value == said), None)

    def _reason(self, tx: Tx, job: Job, body: Json, outcome: Outcome) -> str:
        if outcome is Outcome.STOPPED:
            return f"stopped by {job.scheduler}"
        shares = tx.select(Share, job_id=job.job_id, status=TaskState.FAILED)
        if shares and not job.unsure:
            return f"task {shares[0].task_name} failed here"
        return why_failed(tx, job, self._book.plan(job), self._book.lookup(tx), body) or f"ended by {job.scheduler}"

    def stop_shares(self, tx: Tx, job: Job, name: TaskName, *, by: str) -> None:
        """Stop `name` and what comes after it here. Where `name` has succeeded it is a clean-up (C-086, B-20)."""
        shares = tx.select(Share, job_id=job.job_id)
        named = [share for share in shares if share.task_name == name]
        if named and all(share.status is TaskState.SUCCESS for share in named):
            return
        stopped = self._book.plan(job).downstream(name)
        for share in shares:
            if share.task_name in stopped:
                self._book.move_share(tx, share, TaskEvent.STOP, message=f"stopped by {by}")

    async def stop_all(self, caller: Caller, body: Json) -> Json:
        """As the scheduler: any participant may stop the job, or it from one task on (C-083)."""
        job_id, name = self._job_id(body), self._task_name(body)

        def work(tx: Tx) -> bool:
            job = self._concerned(tx, caller, job_id)
            if not job.scheduling:
                raise Refused("this node does not schedule the job", kind=Kind.NOT_OFFERED)
            self._check_name(job, name)
            reason = f"stopped by {caller.node_id}"
            if name is None or job.status is not JobState.RUNNING:
                self._book.advance(tx, job, JobEvent.STOP, outcome=Outcome.STOPPED, reason=reason)
                if job.status is JobState.PENDING:
                    withdraw(tx, self._audits, job)
                return False
            return self._stop_views(tx, job, name, by=caller.node_id)

        partly = await self._store.run(work)
        if partly and name is not None:
            await self._runtime.stop_from(job_id, name)
        self._runtime.settle(job_id)
        self._runtime.poke(job_id)
        return {}

    def _stop_views(self, tx: Tx, job: Job, name: TaskName, *, by: str) -> bool:
        stopped = self._book.plan(job).downstream(name)
        views = [v for v in tx.select(TaskView, job_id=job.job_id) if v.task_name in stopped]
        named = [view.status for view in views if view.task_name == name]
        if named and aggregate(named) is TaskState.SUCCESS and not any(v.status is TaskState.RUNNING for v in views):
            return False
        for view in views:
            status = step_task(view.status, TaskEvent.STOP)
            if status is not view.status:
                tx.replace(view, replace(view, status=status, stopped=True, updated=self._book.clock.now_ms()))
        self.stop_shares(tx, job, name, by=by)
        return True

    async def stop(self, job_id: str, task_name: str | None = None) -> Json:
        """Stop a job of this node at the wish of its own people (N-S stop_all and stop_task, admin; C-088, C-091).

        The scheduler is asked; where it cannot be, this node ends its own part and the scheduler finds out.
        """
        body = {"job_id": job_id, **({"task_name": task_name} if task_name else {})}
        own = self._book.own
        job = await self._store.run(lambda tx: self._book.get(tx, job_id))
        if job.scheduling:
            return await self.stop_all(Caller(own, None, job.trace_id), body)
        self._check_name(job, self._task_name(body))
        if job.scheduler and job.status not in JOB_FINAL:
            try:
                contract = await self._store.run(lambda tx: self._partners.contract_with(tx, job.scheduler))
                await self._peers.call(contract, "job.stop_all", body, trace_id=job.trace_id)
            except GatewayError as error:
                self._book.journal.note("job.stop_failed", job_id=job_id, peer=job.scheduler, reason=str(error))
            else:
                return {}

        def work(tx: Tx) -> None:
            current = self._book.get(tx, job_id)
            if task_name:
                self.stop_shares(tx, current, TaskName(task_name), by=own)
            else:
                reason = f"stopped by {own}"
                self._book.advance(tx, current, JobEvent.STOP, outcome=Outcome.STOPPED, reason=reason, unsure=True)

        await self._store.run(work)
        self._runtime.settle(job.job_id)
        return {}

    # -- states

    async def status_all(self, caller: Caller, body: Json) -> Json:
        """job_status and task_id -> state, over all parties at the scheduler, over the own roles elsewhere (C-066)."""
        job_id = self._job_id(body)

        def work(tx: Tx) -> Json:
            job = self._concerned(tx, caller, job_id)
            # The wire has no word for how a job ended; ours stands beside it for whoever knows it.
            return {"job_status": job.status.value, "status": states(tx, job), **told(tx, job, own=self._book.own)}

        return await self._store.run(work)

    async def task_poll(self, caller: Caller, body: Json) -> Json:
        """State of this node's shares of a task in one role; an empty or unknown role means all (C-050 to C-053).

        With FAILED comes the result code where there is one (`result_code`, ours): the code, never the message.
        """
        task_id, role = body.get("task_id"), body.get("role")
        if not isinstance(task_id, str) or not task_id or not isinstance(role, str):
            raise ProtocolViolation("task_id and role must be texts")

        def work(tx: Tx) -> Json:
            shares = tx.select(Share, task_id=task_id)
            if not shares:
                raise Refused("unknown task_id", kind=Kind.NOT_FOUND)
            self._commanded(tx, caller, shares[0].job_id)
            asked = [share for share in shares if role in {share.role, f"{share.role}.{share.index}"}]
            codes = [s.result_code for s in asked or shares if s.status is TaskState.FAILED and s.result_code]
            status = aggregate(share.status for share in asked or shares).value
            return {"status": status, **({"result_code": codes[0]} if codes else {})}

        return await self._store.run(work)

    async def task_callback(self, caller: Caller, body: Json) -> Json:
        """As the scheduler: a participant tells the state of its part of a task (C-055, C-057, C-058)."""
        task_id, role = body.get("task_id"), body.get("role")
        if not isinstance(task_id, str) or not task_id or not isinstance(role, str):
            raise ProtocolViolation("task_id and role must be texts")
        reported = parse_task_state(body.get("status"))
        code = result_code(body)

        def work(tx: Tx) -> JobId:
            views = tx.select(TaskView, task_id=task_id)
            if not views:
                raise Refused("unknown task_id", kind=Kind.NOT_FOUND)
            mine = [view for view in views if view.node_id == caller.node_id]
            if not mine:
                raise Refused("the caller does not take part in this task")
            bare = role.partition(".")[0]
            now = self._book.clock.now_ms()
            for view in [view for view in mine if view.role == bare] or mine:
                status = observe(view.status, reported)
                changed = now if status is not view.status else view.updated
                tx.replace(view, replace(view, status=status, misses=0, updated=changed, code=view.code or code))
            return views[0].job_id

        self._runtime.poke(await self._store.run(work))
        return {}

    async def audit_confirm(self, caller: Caller, body: Json) -> Json:
        """v1.0.0: a participant approves (READY) or refuses (REJECTED) a job of ours (B-30, C-132).

        Raises Refused(NOT_OFFERED) where the caller's product has the approvals of the management layer.
        """
        job_id, word = self._job_id(body), body.get("status")
        if word not in (JobState.READY, JobState.REJECTED):
            raise ProtocolViolation("status must be READY or REJECTED")

        def work(tx: Tx) -> None:
            job = self._concerned(tx, caller, job_id)
            if not dialect_of(tx, caller.node_id).control.confirms:
                raise Refused("jobs are approved by job/audit here", kind=Kind.NOT_OFFERED)
            if not job.scheduling and job.initiator != self._book.own:
                raise Refused("this node neither schedules the job nor initiated it", kind=Kind.NOT_OFFERED)
            if word == JobState.REJECTED and job.status not in JOB_FINAL:
                reason = f"{caller.node_id} refused the job"
                self._book.advance(tx, job, JobEvent.FAIL, outcome=Outcome.REFUSED, reason=reason)

        await self._store.run(work)
        self._runtime.settle(job_id)
        self._runtime.poke(job_id)
        return {}

    # -- deadlines

    async def expire(self) -> None:
        """End the jobs that have waited too long for an approval or a start."""

        def work(tx: Tx) -> list[JobId]:
            ended = []
            now, limit = self._book.clock.now_ms(), self._book.rules.approval_s
            for job in (*tx.select(Job, status=JobState.PENDING), *tx.select(Job, status=JobState.READY)):
                if now - job.created <= limit * 1000:
                    continue
                what = "approved" if job.status is JobState.PENDING else "started"
                reason = f"the job was not {what} within {limit:g} s"
                self._book.advance(tx, job, JobEvent.FAIL, outcome=Outcome.FAILED, reason=reason, unsure=True)
                if job.initiator == self._book.own:
                    withdraw(tx, self._audits, job)
                ended.append(job.job_id)
            return ended

        for job_id in await self._store.run(work):
            self._runtime.settle(job_id)

    # -- who may

    def _commanded(self, tx: Tx, caller: Caller, job_id: str, *, created: bool = True) -> Job:
        """The job, where the caller may command it: the sender of create or the initiator (B-44)."""
        job = self._book.get(tx, job_id)
        if caller.node_id not in {job.scheduler, job.initiator}:
            raise Refused("only the scheduler or the initiator of the job may do this")
        if created and not job.scheduler:
            raise Refused("the job has not been created here", kind=Kind.ILLEGAL_TRANSITION)
        return self._book.note_heard(tx, job) if caller.node_id == job.scheduler else job

    def _concerned(self, tx: Tx, caller: Caller, job_id: str) -> Job:
        """The job, where the caller takes part in it."""
        job = self._book.get(tx, job_id)
        if caller.node_id not in {*self._book.plan(job).participants, job.initiator, job.scheduler}:
            raise Refused("the caller does not take part in this job")
        return job

    def _check_name(self, job: Job, name: TaskName | None) -> None:
        if name is not None and name not in self._book.plan(job).nodes:
            raise Refused("the job has no such task_name", kind=Kind.NOT_FOUND)

    def _job_id(self, body: Json) -> JobId:
        return JobId(safe_id(body.get("job_id"), "job_id", self._book.limits))

    @staticmethod
    def _task_name(body: Json) -> TaskName | None:
        name: Any = body.get("task_name")
        if name is not None and not isinstance(name, str):
            raise ProtocolViolation("task_name must be a text")
        return TaskName(name) if name else None


def _ended(job: Job) -> str:
    return f"the job has ended: {job.reason}" if job.reason else "the job has ended"


def states(tx: Tx, job: Job) -> dict[str, str]:
    """task_id -> state word of a job's tasks, as this node knows them."""
    if job.scheduling:
        grouped: dict[str, list[TaskState]] = {}
        for view in tx.select(TaskView, job_id=job.job_id):
            grouped.setdefault(view.task_id, []).append(view.status)
        return {task_id: aggregate(found).value for task_id, found in grouped.items()}
    return {task_id: state.value for task_id, state in sides(tx.select(Share, job_id=job.job_id)).items()}
