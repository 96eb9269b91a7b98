"""Drives the jobs whose scheduler is this node, and watches over those where it only takes part.

One driver per job: create everywhere, start everywhere, then start what is ready and poll what runs until nothing is
left; the end is stored first and told to all afterwards. This node's own part is called through the same service as a
partner would call it. A partner that cannot be reached is tried for `JobRules.silence_s`, since its gateway may just be
restarted; one that answers with a refusal is believed. As a participant: a scheduler that says nothing is asked
(status_all), a silent one ends our part, and how a job ended that we ended ourselves is asked until it is known.
Waiting is here; states and DAG are `core`, processes `runtime.tasks`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from gateway.errors import CallerError, GatewayError, Kind, PeerError, Refused
from gateway.mgmt_plane.core.control_profile import ControlProfile, accepts
from gateway.mgmt_plane.core.dag import Plan
from gateway.mgmt_plane.core.job import JOB_FINAL, TASK_FINAL, JobEvent, TaskEvent, aggregate, observe, step_task
from gateway.mgmt_plane.core.profile import profile
from gateway.mgmt_plane.service.ending import (
    CONSEQUENCES,
    is_kin,
    job_word,
    meaning,
    result_code,
    told,
    verdict,
    why_failed,
)
from gateway.mgmt_plane.service.jobs import Grants, JobBook, Partners, passing
from gateway.mgmt_plane.service.membership import dialect_of
from gateway.mgmt_plane.service.outgoing import Outgoing
from gateway.mgmt_plane.service.schedule import Schedule
from gateway.model import (
    Job,
    JobId,
    Json,
    NodeId,
    Outcome,
    Share,
    TaskId,
    TaskName,
    TaskView,
    TraceId,
)
from gateway.ports import Caller, Clock, Entropy, Journal, PeerClient, Store, Tx
from gateway.runtime.tasks import TaskRunner
from specs.states import JobState, SyncType, TaskState

TICK_S: Final = 1.0
"""At most so long a change that nobody announced stays unseen."""
MIN_POLL_S: Final = 0.05
RETRY_S: Final = 0.25
"""Before a partner that was not reached is called again; longer each time."""
RETRY_MOST_S: Final = 2.0
AT_ONCE: Final = 4
"""Creates and starts under way to one node: of many jobs that begin together, none shall hold up who asks meanwhile."""
CONFIRM_MS: Final = 86_400_000
"""A scheduler that has not said for so long how a job ended is asked no more."""
_OPEN: Final = frozenset({TaskState.READY, TaskState.RUNNING})


@dataclass(slots=True)
class _Drive:
    """What the driver of a job keeps in memory; all of it can be found again from the store."""

    job_id: JobId
    created: "asyncio.Future[Mapping[NodeId, str]]"
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    heard: dict[NodeId, float] = field(default_factory=dict)
    """When each node last answered a poll; nobody is older than this driver."""
    begun: float = 0.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What became of a poll. status: None where there was none; reached: somebody answered, be it a refusal."""

    status: TaskState | None
    code: str = ""
    reached: bool = True


@dataclass(frozen=True, slots=True)
class _Snapshot:
    job: Job
    plan: Plan
    views: tuple[TaskView, ...]

    def stopped(self) -> frozenset[TaskName]:
        """Tasks ended by a stop with task_name (B-43)."""
        return frozenset(view.task_name for view in self.views if view.stopped)

    def states(self) -> dict[TaskName, TaskState]:
        """task_name -> state over all nodes and roles (C-062, C-063)."""
        grouped: dict[TaskName, list[TaskState]] = {}
        for view in self.views:
            grouped.setdefault(view.task_name, []).append(view.status)
        return {name: aggregate(found) for name, found in grouped.items()}


class Scheduler:
    """All jobs of this node that run."""

    def __init__(
        self,
        *,
        store: Store,
        book: JobBook,
        partners: Partners,
        grants: Grants,
        peers: PeerClient,
        outgoing: Outgoing,
        clock: Clock,
        entropy: Entropy,
        journal: Journal,
    ) -> None:
        self._outgoing = outgoing
        book.on_end(self._ended)
        self._store = store
        self._book = book
        self._partners = partners
        self._grants = grants
        self._peers = peers
        self._clock = clock
        self._entropy = entropy
        self._journal = journal
        self._drives: dict[JobId, _Drive] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._schedule: Schedule | None = None
        self._settle: Callable[[JobId], None] = lambda _: None
        self._turns: dict[NodeId, asyncio.Semaphore] = {}
        self._asked: dict[JobId, float] = {}
        self._handed: set[JobId] = set()

    # -- life

    async def start(self, *, schedule: Schedule, settle: Callable[[JobId], None]) -> None:
        """Begin; jobs that ran before a restart are taken up again. settle: JobRuntime.settle."""
        self._loop = asyncio.get_running_loop()
        self._schedule = schedule
        self._settle = settle
        self._spawn(self._watch())

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def poke(self, job_id: JobId) -> None:
        """Soon look at a job again, or for one to begin with; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._poked, job_id)

    def _poked(self, job_id: JobId) -> None:
        if not self.wake(job_id):
            self._wake.set()

    def wake(self, job_id: JobId) -> bool:
        """Let the driver of a job look at it now; whether there is one."""
        drive = self._drives.get(job_id)
        if drive is not None:
            drive.wake.set()
        return drive is not None

    async def _watch(self) -> None:
        """Find jobs to drive, and participants' jobs whose scheduler is silent."""
        while True:
            self._wake.clear()
            try:
                for job in await self._store.run(self._mine):
                    self._drive(job.job_id)
                for job in await self._store.run(self._others):
                    self._hand_over(job)
                    self._look_after(job)
                for job in await self._store.run(lambda tx: list(tx.select(Job, unsure=True))):
                    self._confirm(job)
                if self._schedule is not None:
                    await self._schedule.expire()
            except GatewayError as error:
                self._journal.note("scheduler.error", reason=str(error))
            except Exception as error:  # noqa: BLE001  # said below
                # Whatever it was: without this loop no job of this node would ever move again.
                self._journal.note("scheduler.error", error=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                # Not wait_for, which can swallow a cancellation that comes together with the event.
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()

    @staticmethod
    def _mine(tx: Tx) -> list[Job]:
        ready = tx.select(Job, scheduling=True, status=JobState.READY)
        return [*ready, *tx.select(Job, scheduling=True, status=JobState.RUNNING)]

    def _others(self, tx: Tx) -> list[Job]:
        ready = [job for job in tx.select(Job, scheduling=False, status=JobState.READY) if job.scheduler]
        return [*ready, *tx.select(Job, scheduling=False, status=JobState.RUNNING)]

    def _drive(self, job_id: JobId) -> _Drive:
        drive = self._drives.get(job_id)
        if drive is None:
            drive = _Drive(job_id, asyncio.get_running_loop().create_future(), begun=self._clock.monotonic())
            self._drives[job_id] = drive
            self._spawn(self._run(drive))
        return drive

    async def distribute(self, job_id: JobId) -> Mapping[NodeId, str]:
        """Begin to drive a job and wait until create has been answered by all: node -> "" or why it refused."""
        return await asyncio.shield(self._drive(job_id).created)

    async def stop_from(self, job_id: JobId, name: TaskName) -> None:
        """Tell every participant to stop `name` and what comes after it; the own part was stopped by the caller."""
        drive = self._drives.get(job_id)
        snapshot = await self._snapshot(job_id)
        if drive is not None:
            drive.wake.set()
        await self._store.run(lambda tx: self._tell(tx, snapshot.job, {"job_id": job_id, "task_name": name}))

    # -- one job

    async def _run(self, drive: _Drive) -> None:
        try:
            await self._begin(drive)
            await self._advance(drive)
        except GatewayError as error:
            await self._end(drive.job_id, JobEvent.FAIL, Outcome.FAILED, str(error))
        except Exception as error:  # noqa: BLE001  # said below
            # Else the job would be taken up again every second, to fail in the same place.
            self._journal.note("scheduler.error", job_id=drive.job_id, error=type(error).__name__)
            await self._end(drive.job_id, JobEvent.FAIL, Outcome.FAILED, "internal error of the scheduler")
        finally:
            if not drive.created.done():
                drive.created.set_result({})
            self._drives.pop(drive.job_id, None)

    async def _begin(self, drive: _Drive) -> None:
        """Create and start the job everywhere; raises Refused naming who did not."""
        snapshot = await self._snapshot(drive.job_id)
        job, plan = snapshot.job, snapshot.plan
        if job.status is JobState.RUNNING and snapshot.views:
            drive.created.set_result({})
            return
        if job.status is JobState.READY:
            body = {"job_id": job.job_id, "flow_id": job.flow_id, "dag": job.dag, "config": job.config}
            tokens = await self._store.run(lambda tx: self._permits(tx, job, plan))
            results = await self._to_all(snapshot, "job.create", body, tokens=tokens, insist=True)
            drive.created.set_result(results)
            self._unless_all(results, "did not create the job")
            if self._book.own not in plan.participants:
                await self._store.run(lambda tx: self._book.advance(tx, self._book.get(tx, job.job_id), JobEvent.START))
        else:
            drive.created.set_result({})
        results = await self._to_all(snapshot, "job.start", {"job_id": job.job_id}, insist=True)
        self._unless_all(results, "did not start the job")
        await self._store.run(lambda tx: self._make_views(tx, job.job_id, plan))

    def _permits(self, tx: Tx, job: Job, plan: Plan) -> dict[NodeId, str]:
        """x-mprac-token-set for each participant: what the initiator holds from it (c.0)."""
        carried = job.permits.get("")
        if isinstance(carried, str):
            return dict.fromkeys(plan.participants, carried)
        tokens: dict[NodeId, str] = {}
        held: dict[str, Json] = {}
        for node in plan.participants:
            if node == self._book.own:
                continue
            datasets = list(plan.uses(party for party in plan.parties if party.node_id == node))
            permits = self._grants.permits_held(tx, holder=node, dataset_ids=datasets, now=self._clock.now_ms())
            tokens[node] = self._grants.token_set(permits)
            for permit in permits:
                held.setdefault(str(permit.get("resource_id")), permit)
        current = self._book.get(tx, job.job_id)
        if held and dict(current.permits) != held:
            tx.replace(current, replace(current, permits=held))
        return tokens

    @staticmethod
    def _unless_all(results: Mapping[NodeId, str], what: str) -> None:
        """Raises where one refused."""
        refused = {node: why for node, why in results.items() if why}
        if not refused:
            return
        # The end of the job, which follows, is told to all: those that accepted stop (C-014).
        raise Refused("; ".join(f"{node} {what}: {why}" for node, why in refused.items()), kind=Kind.PEER_REFUSED)

    def _make_views(self, tx: Tx, job_id: JobId, plan: Plan) -> None:
        """One view per task, node and role; the task's id is the same for all (C-034, C-035)."""
        if tx.count(TaskView, job_id=job_id):
            return
        now = self._clock.now_ms()
        lookup = self._book.lookup(tx)
        prefix = next((each.task_prefix for each in self._dialects(tx, plan) if each.task_prefix != "task_"), "task_")
        for name in plan.order:
            task_id = TaskId(f"{prefix}{self._entropy.token(16).hex()}")
            for node, role in dict.fromkeys((p.node_id, p.role) for p in plan.parties_of(name, lookup)):
                tx.insert(TaskView(task_id, job_id, name, node, role, TaskState.PENDING, misses=0, updated=now))

    def _dialects(self, tx: Tx, plan: Plan) -> list[ControlProfile]:
        """How the other participants' products speak, in the order of config.role."""
        return [dialect_of(tx, node).control for node in plan.participants if node != self._book.own]

    async def _advance(self, drive: _Drive) -> None:
        """Until the job is FINISHED: start what is ready, see what became of what runs."""
        last_poll = self._clock.monotonic()
        plan = (await self._snapshot(drive.job_id)).plan
        dialects = await self._store.run(lambda tx: self._dialects(tx, plan))
        # Who never calls back has to be asked, whatever the job says (B-31).
        polls = plan.sync is SyncType.POLL or not all(each.calls_back for each in dialects)
        while True:
            drive.wake.clear()
            snapshot = await self._store.run(lambda tx: self._see_own(tx, drive.job_id))
            if snapshot.job.status in JOB_FINAL or await self._concluded(snapshot):
                return
            states = snapshot.states()
            ready = snapshot.plan.ready(states, stopped=snapshot.stopped())
            if ready:
                await asyncio.gather(*(self._start_task(snapshot, name) for name in ready))
                continue
            pause = min(self._book.rules.poll_s, snapshot.plan.number("poll_s") or self._book.rules.poll_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(MIN_POLL_S, pause)):
                    await drive.wake.wait()
            # A wake-up, too, is a good moment to poll: where our share has ended the partner's often has.
            # Who calls back is polled, too, but rarely: to know that it is there at all.
            rarely = self._book.rules.of(snapshot.plan, "silence_s") / 4
            every = MIN_POLL_S if polls else rarely
            if self._clock.monotonic() - last_poll >= every:
                last_poll = self._clock.monotonic()
                await self._poll(snapshot, drive)

    def _see_own(self, tx: Tx, job_id: JobId) -> _Snapshot:
        """The job as it is now, this node's own shares seen as a poll would see them."""
        job = self._book.get(tx, job_id)
        now = self._clock.now_ms()
        views = []
        for view in tx.select(TaskView, job_id=job_id):
            seen = view
            if view.node_id == self._book.own and view.status not in TASK_FINAL:
                shares = tx.select(Share, task_id=view.task_id, role=view.role)
                status = observe(view.status, aggregate(s.status for s in shares)) if shares else view.status
                if status is not view.status:
                    seen = replace(view, status=status, updated=now)
                    tx.replace(view, seen)
            views.append(seen)
        return _Snapshot(job, self._book.plan(job), tuple(views))

    async def _concluded(self, snapshot: _Snapshot) -> bool:
        """End the job where it has an end: a failure, a deadline, or nothing left to do."""
        job, states = snapshot.job, snapshot.states()
        failed = [v for v in snapshot.views if v.status is TaskState.FAILED and not v.stopped]
        if failed:
            reason = await self._store.run(lambda tx: self._failure(tx, snapshot.plan, failed))
            await self._end(job.job_id, JobEvent.FAIL, Outcome.FAILED, reason)
            return True
        limit = self._book.rules.of(snapshot.plan, "job_timeout_s")
        if job.started is not None and self._clock.now_ms() - job.started > limit * 1000:
            waiting = ", ".join(name for name, state in states.items() if state in _OPEN) or "the next task"
            reason = f"the job did not end within {limit:g} s; it waited for {waiting}"
            await self._end(job.job_id, JobEvent.FAIL, Outcome.FAILED, reason)
            return True
        if all(state is TaskState.SUCCESS for state in states.values()):
            await self._end(job.job_id, JobEvent.SUCCEED, Outcome.SUCCEEDED, "")
            return True
        stopped = snapshot.stopped()
        busy = any(state in _OPEN for name, state in states.items() if name not in stopped)
        if stopped and not busy and not snapshot.plan.ready(states, stopped=stopped):
            names = ", ".join(sorted(stopped))
            await self._end(job.job_id, JobEvent.STOP, Outcome.STOPPED, f"stopped from {names} on")
            return True
        return False

    def _failure(self, tx: Tx, plan: Plan, failed: Sequence[TaskView]) -> str:
        """Party, component, code and its meaning; the node that has a code of its own for it is named first."""
        given = {view.key(): view.code or self._own_code(tx, view) for view in failed}
        # A partner that gave up because of another is not the cause.
        view = min(failed, key=lambda v: (not given[v.key()], given[v.key()] in CONSEQUENCES))
        component = plan.nodes[view.task_name].component
        where = "here" if view.node_id == self._book.own else f"at {view.node_id}"
        lost = f" (no answer to {view.misses} polls)" if view.misses else ""
        code = given[view.key()]
        text = meaning(plan, self._book.lookup(tx), view.task_name, code)
        why = f", result code {code}{f' ({text})' if text else ''}" if code else ""
        return f"task {view.task_name} failed {where}, role {view.role}, component {component.name}{why}{lost}"

    def _own_code(self, tx: Tx, view: TaskView) -> str:
        if view.node_id != self._book.own:
            return ""
        shares = tx.select(Share, task_id=view.task_id, role=view.role, status=TaskState.FAILED)
        return next((share.result_code for share in shares if share.result_code), "")

    async def _start_task(self, snapshot: _Snapshot, name: TaskName) -> None:
        """task/start at every node that takes part in the task (C-033, C-034)."""
        views = [view for view in snapshot.views if view.task_name == name]
        body = {"task_id": views[0].task_id, "job_id": snapshot.job.job_id, "task_name": name}
        nodes = list(dict.fromkeys(view.node_id for view in views))
        results = await self._to_all(snapshot, "task.start", body, to=nodes, insist=True)

        def work(tx: Tx) -> bool:
            late = False
            for view in tx.select(TaskView, task_id=views[0].task_id):
                late |= view.stopped
                if view.status in TASK_FINAL:  # stopped, or ended and already reported, while the start was under way
                    continue
                why = results.get(view.node_id, "")
                status = step_task(view.status, TaskEvent.FAIL if why else TaskEvent.START)
                if status is not view.status:
                    tx.replace(view, replace(view, status=status, updated=self._clock.now_ms()))
                if why:
                    self._journal.note("task.refused", task_id=view.task_id, peer=view.node_id, reason=why)
            return late

        if await self._store.run(work):
            # The stop may have overtaken the start on its way: say it again.
            await self._to_all(snapshot, "job.stop", {"job_id": snapshot.job.job_id, "task_name": name}, to=nodes)

    async def _poll(self, snapshot: _Snapshot, drive: _Drive) -> None:
        """Poll every node that has not ended its part, once per role (C-054)."""
        open_views = [v for v in snapshot.views if v.node_id != self._book.own and v.status in _OPEN]
        answers = await asyncio.gather(*(self._poll_one(snapshot, view) for view in open_views))
        at, rules = self._clock.monotonic(), self._book.rules
        drive.heard.update({v.node_id: at for v, a in zip(open_views, answers, strict=True) if a.reached})
        silence = rules.of(snapshot.plan, "silence_s")
        refusals_count = snapshot.plan.sync is SyncType.POLL

        def work(tx: Tx) -> None:
            now = self._clock.now_ms()
            for view, answer in zip(open_views, answers, strict=True):
                current = tx.get(TaskView, view.key())
                if current is None or current.status in TASK_FINAL:
                    continue
                if answer.status is not None:
                    status = observe(current.status, answer.status)
                    if current.misses or status is not current.status:
                        changed = now if status is not current.status else current.updated
                        fresh = replace(current, misses=0, status=status, updated=changed, code=answer.code)
                        tx.replace(current, fresh)
                elif not answer.reached or refusals_count:
                    misses = current.misses + 1
                    quiet = at - drive.heard.get(view.node_id, drive.begun)
                    lost = misses >= rules.misses and (answer.reached or quiet >= silence)
                    status = step_task(current.status, TaskEvent.FAIL) if lost else current.status
                    tx.replace(current, replace(current, misses=misses, status=status))

        if open_views:
            await self._store.run(work)

    async def _poll_one(self, snapshot: _Snapshot, view: TaskView) -> _Answer:
        body = {"task_id": view.task_id, "role": view.role}
        try:
            data = await self._call(snapshot.job, view.node_id, "task.poll", body)
            return _Answer(TaskState(str(data.get("status"))), result_code(data))
        except (GatewayError, ValueError) as error:
            self._journal.note("task.poll_missed", task_id=view.task_id, peer=view.node_id, reason=str(error))
            return _Answer(None, reached=not (isinstance(error, GatewayError) and passing(error)))

    async def _end(
        self, job_id: JobId, event: JobEvent, outcome: Outcome, reason: str, *, unsure: bool = False
    ) -> None:
        def work(tx: Tx) -> None:
            job = self._book.get(tx, job_id)
            if job.status not in JOB_FINAL:
                self._book.advance(tx, job, event, outcome=outcome, reason=reason, unsure=unsure)

        await self._store.run(work)
        self._settle(job_id)

    # -- calls

    async def _snapshot(self, job_id: JobId) -> _Snapshot:
        return await self._store.run(lambda tx: self._see_own(tx, job_id))

    async def _to_all(
        self,
        snapshot: _Snapshot,
        route: str,
        body: Json,
        *,
        to: Iterable[NodeId] | None = None,
        tokens: Mapping[NodeId, str] | None = None,
        insist: bool = False,
    ) -> dict[NodeId, str]:
        """Call nodes (all participants by default) at the same time: node -> "" or why it failed.

        insist: try those that cannot be reached for silence_s, while the job has not ended; a few calls at a time for
        all jobs together.
        """
        until = self._clock.monotonic() + (self._book.rules.of(snapshot.plan, "silence_s") if insist else 0.0)
        nodes = list(snapshot.plan.participants if to is None else to)

        async def one(node: NodeId) -> str:
            pause = RETRY_S
            turn = self._turns.setdefault(node, asyncio.Semaphore(AT_ONCE)) if insist else contextlib.nullcontext()
            while True:
                try:
                    async with turn:
                        await self._call(snapshot.job, node, route, body, token_set=(tokens or {}).get(node, ""))
                except GatewayError as error:
                    over = not passing(error) or self._clock.monotonic() + pause >= until
                    if over or (await self._snapshot(snapshot.job.job_id)).job.status in JOB_FINAL:
                        return str(error) or error.public_text()
                else:
                    return ""
                await asyncio.sleep(pause)
                pause = min(RETRY_MOST_S, 2 * pause)

        return dict(zip(nodes, await asyncio.gather(*(one(node) for node in nodes)), strict=True))

    def _ended(self, tx: Tx, before: Job, job: Job) -> None:
        """A job that this node drives has ended: all others are told, whatever happens to this process meanwhile.

        Also after success: it is the clean-up that participants wait for (B-20, C-084).
        """
        # Of a job that was still PENDING no partner has heard more than the audit, which ends by itself.
        if job.scheduling and job.status is JobState.FINISHED and before.status is not JobState.PENDING:
            self._tell(tx, job, {"job_id": job.job_id}, kin=told(tx, job, own=self._book.own))

    def _tell(self, tx: Tx, job: Job, body: Json, *, kin: Json = MappingProxyType({})) -> None:
        """job/stop to the others through the outbox; one without a contract is left to its own watchdog (C-089).

        kin: what gateways of our own kind hear besides.
        """
        for node in self._book.plan(job).participants:
            if node == self._book.own:
                continue
            try:
                contract = self._partners.contract_with(tx, node)
            except Refused as error:
                self._journal.note("job.stop_failed", job_id=job.job_id, peer=node, reason=str(error))
                continue
            if not accepts(profile(contract.profile).control, "job.stop", body):
                continue  # a stop of one task would stop its whole job: it hears of the end (B-21)
            self._outgoing.put(
                tx,
                contract=contract,
                route="job.stop",
                body={**body, **kin} if is_kin(self._book.identity, contract) else body,
                subject=f"job:{job.job_id}",
                trace_id=job.trace_id or TraceId(job.job_id),
            )

    async def _call(self, job: Job, node: NodeId, route: str, body: Json, *, token_set: str = "") -> Mapping[str, Any]:
        if node == self._book.own:
            return await self._locally(route, Caller(node, None, job.trace_id, token_set), body)
        contract = await self._store.run(lambda tx: self._partners.contract_with(tx, node))
        trace = job.trace_id or TraceId(job.job_id)
        return (await self._peers.call(contract, route, body, trace_id=trace, token_set=token_set)).data

    async def _locally(self, route: str, caller: Caller, body: Json) -> Mapping[str, Any]:
        if self._schedule is None:
            raise CallerError("the scheduler was not started")
        match route:
            case "job.create":
                return await self._schedule.create(caller, body)
            case "job.start":
                return await self._schedule.job_start(caller, body)
            case "task.start":
                return await self._schedule.task_start(caller, body)
        raise CallerError(f"{route} is not called locally")

    # -- as a participant, and as an initiator with another scheduler

    def _hand_over(self, job: Job) -> None:
        """Give an approved job of ours to the scheduler that its Config names."""
        if job.status is not JobState.READY or job.initiator != self._book.own or job.job_id in self._handed:
            return
        self._handed.add(job.job_id)
        self._spawn(self._create_all(job))

    async def _create_all(self, job: Job) -> None:
        plan = self._book.plan(job)
        body = {"job_id": job.job_id, "flow_id": job.flow_id, "dag": job.dag, "config": job.config}
        try:
            tokens = await self._store.run(lambda tx: self._permits(tx, job, plan))
            everything = ",".join(dict.fromkeys(text for text in tokens.values() if text))
            await self._call(job, job.scheduler, "job.create_all", body, token_set=everything)
        except GatewayError as error:
            quiet = (self._clock.now_ms() - job.heard) / 1000
            if passing(error) and quiet < self._book.rules.of(plan, "silence_s"):
                self._journal.note("job.create_all_failed", job_id=job.job_id, peer=job.scheduler, reason=str(error))
                await asyncio.sleep(RETRY_S)
                self._handed.discard(job.job_id)
                return
            reason = f"the scheduler {job.scheduler} did not take the job: {error}"
            await self._end(job.job_id, JobEvent.FAIL, Outcome.FAILED, reason, unsure=passing(error))

    def _look_after(self, job: Job) -> None:
        """Ask a scheduler that has been quiet; end our part where it has been silent for too long."""
        plan = self._book.plan(job)
        silence = self._book.rules.of(plan, "silence_s")
        quiet = (self._clock.now_ms() - job.heard) / 1000
        now = self._clock.monotonic()
        if quiet < silence / 4 or now - self._asked.get(job.job_id, float("-inf")) < silence / 4:
            return
        self._asked = {known: at for known, at in self._asked.items() if now - at < silence}
        self._asked[job.job_id] = now
        self._spawn(self._ask(job, plan, silence))

    async def _ask(self, job: Job, plan: Plan, silence: float) -> None:
        try:
            data = await self._call(job, job.scheduler, "job.status_all", {"job_id": job.job_id})
            status = job_word(plan, data)
        except GatewayError as error:
            if isinstance(error, PeerError) and not passing(error):
                # It answered, and it does not know the job or us.
                await self._end(job.job_id, JobEvent.FAIL, Outcome.FAILED, f"{job.scheduler} disowns the job: {error}")
                return
            await self._silent(job, silence, str(error))
            return
        if not status:
            # Success with nothing in it, as FATE-Flow answers for a job that it has lost (B-33).
            await self._silent(job, silence, "it names no state of the job")
        elif status in {JobState.FINISHED, JobState.REJECTED}:
            await self._end(job.job_id, JobEvent.STOP, *await self._judged(job, data))
        elif job.started is not None and self._clock.now_ms() - job.started > 1000 * self._book.rules.of(
            plan, "job_timeout_s"
        ):
            reason = "the job did not end within its time limit"
            await self._end(job.job_id, JobEvent.FAIL, Outcome.FAILED, reason, unsure=True)
        else:
            await self._store.run(lambda tx: self._book.note_heard(tx, self._book.get(tx, job.job_id)))

    async def _silent(self, job: Job, silence: float, why: str) -> None:
        """Nothing was learnt of the job; for long enough, that ends our part."""
        quiet = (self._clock.now_ms() - job.heard) / 1000
        if quiet >= silence:
            reason = f"no word from the scheduler {job.scheduler} for {quiet:.0f} s ({why})"
            await self._end(job.job_id, JobEvent.FAIL, Outcome.FAILED, reason, unsure=True)

    async def _judged(self, job: Job, data: Mapping[str, Any]) -> tuple[Outcome, str]:
        """How a job ended, from what its scheduler answers."""
        plan = self._book.plan(job)
        why = await self._store.run(lambda tx: why_failed(tx, job, plan, self._book.lookup(tx), data))
        return verdict(plan, data, job.scheduler, why=why)

    def verify(self, job_id: JobId) -> None:
        """Soon ask the scheduler how a job ended: another party's last task may have failed; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: self._spawn(self._verify(job_id)))

    def _confirm(self, job: Job) -> None:
        """Ask again how a job ended that ended here without the scheduler's word, now and then."""
        every = self._book.rules.of(self._book.plan(job), "silence_s") / 8
        now = self._clock.monotonic()
        if now - self._asked.get(job.job_id, float("-inf")) >= every:
            self._asked[job.job_id] = now
            self._spawn(self._verify(job.job_id))

    async def _verify(self, job_id: JobId) -> None:
        job = await self._store.run(lambda tx: self._book.get(tx, job_id))
        if not job.unsure:
            return
        found: tuple[Outcome, str] | None = None
        try:
            data = await self._call(job, job.scheduler, "job.status_all", {"job_id": job_id})
            word = job_word(self._book.plan(job), data)
            if word in {JobState.FINISHED, JobState.REJECTED}:
                found = await self._judged(job, data)
            elif not word:
                found = job.outcome, job.reason  # it answers, and has nothing on the job
        except GatewayError as error:
            self._journal.note("job.unverified", job_id=job_id, reason=str(error))
            if not passing(error):
                found = job.outcome, job.reason  # nobody will ever say more
        if found is None and self._clock.now_ms() - (job.finished or 0) > CONFIRM_MS:
            found = job.outcome, job.reason
        if found is None:
            return
        outcome, reason = found

        def work(tx: Tx) -> None:
            current = self._book.get(tx, job_id)
            if current.unsure:
                why = current.reason if current.outcome is outcome else reason
                tx.replace(current, replace(current, outcome=outcome, reason=why, unsure=False))

        await self._store.run(work)


@dataclass(frozen=True, slots=True)
class Runtime:
    """JobRuntime of a gateway: tasks and scheduler together."""

    runner: TaskRunner
    scheduler: Scheduler

    async def open(self, job_id: JobId) -> None:
        await self.runner.open(job_id)

    def settle(self, job_id: JobId) -> None:
        self.runner.settle(job_id)

    def poke(self, job_id: JobId) -> None:
        self.scheduler.poke(job_id)

    def verify(self, job_id: JobId) -> None:
        self.scheduler.verify(job_id)

    async def distribute(self, job_id: JobId) -> Mapping[NodeId, str]:
        return await self.scheduler.distribute(job_id)

    async def stop_from(self, job_id: JobId, name: TaskName) -> None:
        await self.scheduler.stop_from(job_id, name)

    async def adopt(self) -> None:
        """Find what a former process of this gateway left running; before anything is served."""
        await self.runner.adopt()

    async def start(self, schedule: Schedule) -> None:
        """Take up the work: shares first, so that the scheduler sees what a restart has cost."""
        await self.runner.start(schedule=schedule, changed=self.scheduler.wake)
        await self.scheduler.start(schedule=schedule, settle=self.runner.settle)

    async def close(self, *, leave: bool = False) -> None:
        """Stop; leave: the gateway goes on in another process, and so do the components."""
        await self.scheduler.close()
        await self.runner.close(leave=leave)
