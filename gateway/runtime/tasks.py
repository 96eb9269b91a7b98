"""Runs this node's shares of tasks: makes the processes and sessions match what the store says.

`TaskRunner.settle(job)` may be asked at any time and as often as one likes: it launches shares that are READY, kills
what is final in the store and closes the session of a job that has ended. The exit code of a component is the truth;
a call-back with the task's secret counts only against it, one without is a hint (C-060, C-119, A-022 to A-025).

A component outlives this process. The digest of its secret is in the store before it is started and names the folder of
its run, so whoever comes after finds what was begun: `adopt` takes up what runs, records what has ended meanwhile, and
leaves what was never started to `settle`. Which task runs when is the scheduler's.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from gateway.errors import CallerError, GatewayError, Kind, ProtocolViolation, Refused, Unavailable
from gateway.mgmt_plane.core.dag import Plan, Resources, artifact, session_of
from gateway.mgmt_plane.core.job import JOB_FINAL, TASK_FINAL, TaskEvent, aggregate
from gateway.mgmt_plane.service.code import code_digest
from gateway.mgmt_plane.service.jobs import JobBook, Partners, passing
from gateway.mgmt_plane.service.membership import TaskChannel, channel_of, check_task_channel, task_channel
from gateway.mgmt_plane.service.schedule import Schedule
from gateway.model import (
    Component,
    Contract,
    Dataset,
    DatasetId,
    InstId,
    Job,
    JobId,
    Json,
    NodeId,
    Party,
    SessionId,
    Share,
    TaskId,
    TaskName,
)
from gateway.ports import Clock, DataPlane, Entropy, Journal, PeerClient, SessionRule, Store, Tx
from gateway.runtime import shim
from gateway.runtime.cores import threads_for, usable_cores
from gateway.runtime.launch import (
    WHY,
    Addresses,
    Exit,
    Launch,
    Launcher,
    Running,
    component_environment,
    count_lines,
    read_lines,
    tail_lines,
)
from gateway.runtime.slots import Capacity, Slots
from gateway.runtime.staging import Folders, reuse, source_name, stage, staged_so
from specs.description import ParameterError
from specs.states import JobState, SyncType, TaskState

SECRET_BYTES: Final = 32
PROGRESS_S: Final = 1.0
CLOSE_S: Final = 2.0
PUSH_S: Final = 0.25
"""Before a call-back is tried again; longer each time."""
PUSH_MOST_S: Final = 8.0
_REPORTS: Final = frozenset({"RUNNING", "SUCCESS", "FAILED"})


@dataclass(slots=True)
class _Live:
    """A share that is being launched or runs."""

    share: Share
    digest: str = ""
    running: Running | None = None
    claim: str = ""
    """Final state that the component itself reported, with its secret."""
    result: Mapping[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    dirty: bool = False
    ended: bool = False
    """To be killed: stopped, or past its deadline."""
    late: bool = False
    started: float = 0.0
    adopted: bool = False
    """Was begun by a former process of this gateway."""
    channel: TaskChannel | None = None
    """Known once it was prepared."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Everything a launch needs from the store."""

    job: Job
    plan: Plan
    component: Component
    columns: Mapping[DatasetId, tuple[str, ...]]
    dataset: Dataset | None
    producers: Mapping[TaskName, TaskId]
    inst_ids: Mapping[NodeId, InstId]
    channel: TaskChannel


def digest_of(secret: str) -> str:
    """What is kept of a task's secret: SHA-256, hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TaskRunner:
    """Shares of tasks as components, one process each."""

    def __init__(
        self,
        *,
        store: Store,
        book: JobBook,
        partners: Partners,
        peers: PeerClient,
        data_plane: DataPlane,
        launcher: Launcher,
        folders: Folders,
        addresses: Addresses,
        clock: Clock,
        entropy: Entropy,
        journal: Journal,
    ) -> None:
        self._store = store
        self._book = book
        self._partners = partners
        self._peers = peers
        self._data_plane = data_plane
        self._launcher = launcher
        self._folders = folders
        self._addresses = addresses
        self._clock = clock
        self._entropy = entropy
        self._journal = journal
        self._live: dict[str, _Live] = {}
        self._open: set[JobId] = set()
        rules = book.rules
        self._slots = Slots(Capacity(rules.max_running, rules.max_cpus, rules.max_memory_gib))
        self._pushing: dict[tuple[TaskId, str], bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling: dict[JobId, bool] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._schedule: Schedule | None = None
        self._changed: Callable[[JobId], object] = lambda _: None
        self._closed = False

    # -- life

    async def adopt(self) -> None:
        """Find out what a former process of this gateway left: before anything is served, for `rules` tells of it."""
        self._loop = asyncio.get_running_loop()
        shares, running = await self._store.run(self._unfinished)
        self._open.update(running)
        for share in shares:
            if not share.token_digest:
                continue
            live = _Live(share, digest=share.token_digest, adopted=True, progress=dict(share.progress))
            run = self._run_of(share, share.token_digest)
            live.claim = _read_claim(run)
            live.running = await self._launcher.adopt(run, live.digest, self._reporter(live))
            if live.running is not None:
                live.channel = await self._store.run(partial(self._channel, share=share))
                self._live[share.key()] = live
                self._journal.note("task.adopted", job_id=share.job_id, task_id=share.task_id, pid=live.running.pid)

    def _unfinished(self, tx: Tx) -> tuple[list[Share], list[JobId]]:
        found: list[Share] = []
        for state in (TaskState.PENDING, TaskState.READY, TaskState.RUNNING):
            found += tx.select(Share, status=state)
        return found, [job.job_id for job in tx.select(Job, status=JobState.RUNNING)]

    async def start(self, *, schedule: Schedule, changed: Callable[[JobId], object]) -> None:
        """Begin, after `adopt`. changed: called with its job when a share has ended."""
        self._schedule = schedule
        self._changed = changed
        for live in list(self._live.values()):
            self._spawn(self._run(live))
        lost, running = await self._store.run(self._lose)
        for job_id in {share.job_id for share in lost} | set(running):
            self.settle(job_id)
        for job_id in running:
            self._spawn(self._reopen(job_id))
        for share in await self._store.run(lambda tx: _shares_of(tx, running)):
            self._push(share)

    def _lose(self, tx: Tx) -> tuple[list[Share], list[JobId]]:
        """Fail what is said to run and was not found; the shares that were unfinished and the jobs that run."""
        shares, running = self._unfinished(tx)
        for share in shares:
            if share.status is TaskState.RUNNING and share.key() not in self._live:
                message = "the gateway was restarted while the task ran, and its component was not found again"
                self._book.move_share(tx, share, TaskEvent.FAIL, message=message, exit_code=-1)
        return shares, running

    async def _reopen(self, job_id: JobId) -> None:
        with contextlib.suppress(Unavailable):
            await self.open(job_id)

    async def close(self, *, leave: bool = False) -> None:
        """Kill every component and wait until they are gone; their shares are FAILED then.

        leave: this process ends, the gateway does not: components go on and the next process adopts them.
        """
        self._closed = True
        runs = [live.running for live in self._live.values() if live.running is not None]
        if leave:
            for run in runs:
                run.release()
        else:
            await asyncio.gather(*(run.kill() for run in runs), return_exceptions=True)
            if self._tasks:
                await asyncio.wait(list(self._tasks), timeout=CLOSE_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- sessions

    async def open(self, job_id: JobId) -> None:
        """Open the job's session for its nodes; raises Unavailable."""
        await self._rule(job_id)
        self._open.add(job_id)

    async def _rule(self, job_id: JobId) -> None:
        """Tell the data plane who may use the session now."""
        for rule in await self._rules_of(job_id):
            await self._data_plane.open_session(rule)

    def _channel(self, tx: Tx, share: Share) -> TaskChannel:
        job = self._book.get(tx, share.job_id)
        return task_channel(tx, job, self._book.plan(job), share, own=self._book.own, lookup=self._book.lookup(tx))

    async def _rules_of(self, job_id: JobId) -> list[SessionRule]:
        """Who may use the session of a job, and those of its tasks, now: its nodes, and the tasks that run here."""

        def work(tx: Tx) -> tuple[Job, SessionId]:
            job = self._book.get(tx, job_id)
            return job, channel_of(tx, job, self._book.plan(job))

        job, session = await self._store.run(work)
        plan = self._book.plan(job)
        permits: dict[NodeId, str] = {}
        for permit in job.permits.values():
            if isinstance(permit, Mapping):
                node, token = permit.get("resource_node_id"), permit.get("token")
                if node in plan.participants and isinstance(token, str) and token:
                    permits[NodeId(str(node))] = token
        running = [live for live in self._live.values() if live.share.job_id == job_id and live.digest]
        used: dict[SessionId, list[_Live]] = {session: []}
        for live in running:
            used.setdefault(live.channel.session if live.channel else session, []).append(live)
        return [
            SessionRule(
                session_id=each,
                nodes=plan.participants,
                tokens={live.digest: f"{live.share.role}.{live.share.index}" for live in tasks},
                outgoing=dict.fromkeys(plan.participants, str(each)) | permits,
                durability=plan.text("durability") or self._book.rules.durability,
                aliases={live.digest: live.channel.aliases for live in tasks if live.channel and live.channel.aliases},
            )
            for each, tasks in used.items()
        ]

    async def rules(self) -> list[SessionRule]:
        """The rules of all open sessions: for a data process that has started and knows nothing."""
        return [rule for job_id in sorted(self._open) for rule in await self._rules_of(job_id)]

    async def _close_task(self, job_id: JobId, session: SessionId) -> None:
        """Close a session that tasks of a job have for themselves, once none of them runs here."""
        if session not in {rule.session_id for rule in await self._rules_of(job_id)}:
            await self._data_plane.close_session(session)

    # -- settling

    def settle(self, job_id: JobId) -> None:
        """Soon make processes and session of a job match the store; from any thread."""
        if self._loop is not None and not self._closed:
            self._loop.call_soon_threadsafe(self._settle_soon, job_id)

    def _settle_soon(self, job_id: JobId) -> None:
        if job_id in self._settling:
            self._settling[job_id] = True
            return
        self._settling[job_id] = False
        self._spawn(self._settle(job_id))

    async def _settle(self, job_id: JobId) -> None:
        try:
            while True:
                self._settling[job_id] = False
                await self._settle_once(job_id)
                if not self._settling[job_id]:
                    return
        except Unavailable as error:
            self._journal.note("task.unsettled", job_id=job_id, reason=str(error))
        finally:
            self._settling.pop(job_id, None)

    async def _settle_once(self, job_id: JobId) -> None:
        def work(tx: Tx) -> tuple[Job | None, SessionId, list[Share]]:
            job = tx.get(Job, job_id)
            session = session_of(job_id) if job is None else channel_of(tx, job, self._book.plan(job))
            return job, session, list(tx.select(Share, job_id=job_id))

        job, session, shares = await self._store.run(work)
        for share in shares:
            live = self._live.get(share.key())
            if share.status in TASK_FINAL and live is not None and not live.ended:
                live.ended = True
                if live.running is not None:
                    self._spawn(live.running.kill())
            elif share.status is TaskState.READY and live is None and not self._closed:
                self._live[share.key()] = _Live(share)
                self._spawn(self._run(self._live[share.key()]))
        if job is not None and job.status in JOB_FINAL and job_id in self._open:
            self._open.discard(job_id)
            await self._data_plane.close_session(session)

    # -- one share

    async def _run(self, live: _Live) -> None:
        share = live.share
        try:
            plan, image = await self._store.run(lambda tx: self._place(tx, share))
            party = Party(share.role, share.index, self._book.own)
            async with contextlib.AsyncExitStack() as held:
                await self._await_turn(held, live, plan, party)
                if not live.ended or live.adopted:
                    await self._conclude(live, plan, party, image)
        except GatewayError as error:
            await self._fail(share, str(error), code=str(error.wire.code))
        except ParameterError as error:
            await self._fail(share, str(error))
        except Exception as error:
            self._journal.note("task.error", task_id=share.task_id, job_id=share.job_id, error=type(error).__name__)
            await self._fail(share, "internal error while the component was launched")
            raise
        finally:
            self._live.pop(share.key(), None)
            self._changed(share.job_id)
            await self._after(live)

    async def _await_turn(self, held: contextlib.AsyncExitStack, live: _Live, plan: Plan, party: Party) -> None:
        """Hold one of the node's places; raises Refused where there is none within queue_s."""
        limit = self._book.rules.of(plan, "queue_s")
        need = Resources() if live.share.task_name in plan.reused else plan.resources(party)
        try:
            async with asyncio.timeout(limit):
                await held.enter_async_context(self._slots.turn(need, at_once=live.adopted))
        except TimeoutError:
            raise Refused(
                f"this node had no free place for the task within {limit:g} s", kind=Kind.OVERLOADED
            ) from None

    def _place(self, tx: Tx, share: Share) -> tuple[Plan, str]:
        """The plan, and the image of the share's component, "" where that is not known."""
        component = tx.get(Component, share.component)
        return self._book.plan(self._book.get(tx, share.job_id)), component.image if component is not None else ""

    async def _conclude(self, live: _Live, plan: Plan, party: Party, image: str) -> None:
        """From the start, or from where a former process left it, to the recorded end."""
        if live.share.task_name in plan.reused:
            await self._reuse(live, plan, party, image)
            await self._record(live, Exit(0), ())
            return
        end = await (self._resume(live, plan) if live.adopted else self._execute(live, party, image))
        missing: Sequence[str] = ()
        if end.success:
            missing = await asyncio.to_thread(self._missing, live.share, plan, party)
        await self._record(live, end, missing)

    def _missing(self, share: Share, plan: Plan, party: Party) -> Sequence[str]:
        """Outputs that the job names and that are not there. Blocking."""
        store = self._folders.store(share.job_id, party)
        places = {
            o.key: artifact(share.job_id, party, share.task_id, o.key) for o in plan.nodes[share.task_name].outputs
        }
        return [key for key, at in places.items() if not _filled(store / at["namespace"] / at["name"])]

    async def _reuse(self, live: _Live, plan: Plan, party: Party, image: str) -> None:
        """Give this run of the job what a former run of it has written (`Plan.reused`)."""
        share = live.share

        def former(tx: Tx) -> TaskId:
            for other in tx.select(Share, job_id=plan.rerun_of, task_name=share.task_name, status=TaskState.SUCCESS):
                if (other.role, other.index) == (share.role, share.index):
                    return other.task_id
            raise Refused(f"{share.task_name} has not succeeded here in {plan.rerun_of}", kind=Kind.NOT_FOUND)

        code = await asyncio.to_thread(_code, image)
        prepared = await self._store.run(lambda tx: self._prepare(tx, live, party, "", code))
        task_id = await self._store.run(former)
        before = self._folders.store(JobId(plan.rerun_of), party)
        if prepared.dataset is not None and plan.initiator != self._book.own:
            columns = prepared.columns.get(prepared.dataset.dataset_id, ())
            await asyncio.to_thread(staged_so, prepared.dataset, columns, before)
        now = self._folders.store(share.job_id, party)
        for output in plan.nodes[share.task_name].outputs:
            old = artifact(plan.rerun_of, party, task_id, output.key)
            new = artifact(share.job_id, party, share.task_id, output.key)
            await asyncio.to_thread(
                reuse, before / old["namespace"] / old["name"], now / new["namespace"] / new["name"]
            )
        self._journal.note("task.reused", job_id=share.job_id, task_id=share.task_id, task=share.task_name)

    async def _resume(self, live: _Live, plan: Plan) -> Exit:
        """Wait for a component that a former process started."""
        await self._store.run(lambda tx: self._started(tx, live))
        return await self._await_end(live, plan)

    async def _execute(self, live: _Live, party: Party, image: str) -> Exit:
        """Stage, launch, wait; raises GatewayError where it cannot be launched."""
        share = live.share
        secret = base64.urlsafe_b64encode(self._entropy.token(SECRET_BYTES)).rstrip(b"=").decode()
        digest = digest_of(secret)
        code = await asyncio.to_thread(_code, image)
        prepared = await self._store.run(lambda tx: self._prepare(tx, live, party, digest, code))
        store = self._folders.store(share.job_id, party)
        source = None
        if prepared.dataset is not None:
            columns = prepared.columns.get(prepared.dataset.dataset_id, ())
            now = self._clock.now_ms()
            strict = prepared.plan.initiator != self._book.own
            await asyncio.to_thread(
                stage,
                prepared.dataset,
                columns,
                store,
                now_ms=now,
                strict=strict,
                stopped=lambda: live.ended or self._closed,
            )
            source = source_name(prepared.dataset.dataset_id)
        store.mkdir(parents=True, exist_ok=True)
        log = self._folders.log(share.job_id, party, share.task_name)
        description = self._book.describe(prepared.component)
        environment = component_environment(
            job=prepared.job,
            session=prepared.channel.session,
            plan=prepared.plan,
            party=party,
            name=share.task_name,
            task_id=share.task_id,
            producers=prepared.producers,
            description=description,
            bindings=prepared.plan.bind(share.task_name, description),
            source=source,
            inst_ids=prepared.inst_ids,
            token=secret,
            storage=store.resolve().as_uri(),
            log_path=str(log.parent.resolve()),
            addresses=self._addresses,
            threads=self._threads(prepared.plan.resources(party)),
        )
        live.digest, live.channel = digest, prepared.channel
        await self._rule(share.job_id)
        if live.ended:
            return Exit(0)
        plan, rules = prepared.plan, self._book.rules
        directory = self._folders.task(share.job_id, party, share.task_name).resolve()
        launch = Launch(
            image=prepared.component.image,
            environment=environment,
            directory=directory,
            log=log,
            run=self._run_of(share, digest).resolve(),
            resources=plan.resources(party),
            writes=(directory, store.resolve()),
            timeout_s=rules.of(plan, "task_timeout_s"),
            silent_s=rules.of(plan, "heartbeat_s"),
        )
        live.running = await self._launcher.launch(launch, self._reporter(live))
        await self._store.run(lambda tx: self._started(tx, live))
        return await self._await_end(live, plan)

    def _threads(self, need: Resources) -> int:
        wanted, cores = self._book.rules.threads, usable_cores()
        return threads_for(wanted=wanted, cores=cores, running=self._slots.running, cpu=need.cpu)

    def _reporter(self, live: _Live) -> Callable[[str, Mapping[str, Any]], None]:
        return lambda kind, record: self._report(live, kind, record)

    def _prepare(self, tx: Tx, live: _Live, party: Party, digest: str, code: str) -> _Prepared:
        """What the launch needs; the digest of its secret is in the store before anything is started."""
        share = live.share
        job = self._book.get(tx, share.job_id)
        if job.status is not JobState.RUNNING:
            raise Refused("the job has ended", kind=Kind.STOPPED)
        component = tx.get(Component, share.component)
        if component is None or not component.enabled:
            raise Refused(f"component {share.component} is not registered here", kind=Kind.COMPONENT_UNKNOWN)
        if self._schedule is None:
            raise CallerError("the runner was not started")
        plan = self._book.plan(job)
        if plan.initiator != self._book.own and component.code_digest not in ("", code):
            words = f"the code of component {share.component} has changed since it was registered"
            raise Refused(words, kind=Kind.NOT_AS_APPROVED)
        wanted = plan.dataset_of(party, share.task_name)
        dataset = tx.get(Dataset, wanted) if wanted else None
        if wanted and dataset is None:
            raise Refused(f"this node has no dataset {wanted[:64]}", kind=Kind.NOT_FOUND)
        done = tx.select(Share, job_id=share.job_id, role=share.role, index=share.index, status=TaskState.SUCCESS)
        producers = {other.task_name: other.task_id for other in done}
        for edge in plan.nodes[share.task_name].inputs:
            if edge.producer not in producers:
                raise Refused(f"{edge.producer} has not succeeded here", kind=Kind.ILLEGAL_TRANSITION)
        current = tx.get(Share, share.key())
        if current is None or current.status in TASK_FINAL:
            raise Refused("the task was stopped before its data were opened", kind=Kind.STOPPED)
        if digest:
            tx.replace(current, replace(current, token_digest=digest))
        # The data are opened after this transaction, so the grant must hold in it, and its use is consumed by it.
        columns = self._schedule.open(tx, job, plan, share.task_name)
        inst_ids, channel = self._inst_ids(tx, plan), self._channel(tx, share)
        check_task_channel(tx, job, channel)
        return _Prepared(job, plan, component, columns, dataset, producers, inst_ids, channel)

    def _inst_ids(self, tx: Tx, plan: Plan) -> dict[NodeId, InstId]:
        found = {self._book.own: self._book.identity.inst_id}
        for node in plan.participants:
            if node != self._book.own:
                with contextlib.suppress(Refused):
                    found[node] = self._partners.contract_with(tx, node).peer_inst_id
        return found

    def _started(self, tx: Tx, live: _Live) -> None:
        share = tx.get(Share, live.share.key())
        if share is None or share.status in TASK_FINAL:
            live.ended = True
            return
        live.started = self._clock.monotonic()
        if share.started is not None:
            live.started -= max(0, self._clock.now_ms() - share.started) / 1000
        pid = live.running.pid if live.running is not None else None
        self._book.move_share(tx, share, TaskEvent.START, pid=pid, token_digest=live.digest)

    async def _await_end(self, live: _Live, plan: Plan) -> Exit:
        """Wait for the component, store its progress now and then, and end it at its deadline (A-026)."""
        if live.running is None:
            raise CallerError("not launched")
        deadline = live.started + self._book.rules.of(plan, "task_timeout_s")
        self._push(live.share)
        if live.ended:
            await live.running.kill()
        while True:
            left = deadline - self._clock.monotonic()
            try:
                async with asyncio.timeout(max(0.0, min(PROGRESS_S, left))):
                    return await live.running.wait()
            except TimeoutError:
                if left <= 0:
                    live.late = True
                    await live.running.kill()
                    return await live.running.wait()
            if live.dirty:
                live.dirty = False
                await self._store.run(lambda tx: self._save_progress(tx, live))

    def _save_progress(self, tx: Tx, live: _Live) -> None:
        share = tx.get(Share, live.share.key())
        if share is not None and share.status not in TASK_FINAL:
            tx.replace(share, replace(share, progress=live.progress))

    def _report(self, live: _Live, kind: str, record: Mapping[str, Any]) -> None:
        if kind == "progress":
            live.progress = {key: value for key, value in record.items() if isinstance(value, str | int | float)}
            live.progress |= {"at": self._clock.now_ms()}
            live.dirty = True
        else:
            live.result = record

    async def _record(self, live: _Live, end: Exit, missing: Sequence[str]) -> None:
        """The end of a component: exit 0 is SUCCESS unless it said FAILED itself, all else is FAILED (A-022, A-023)."""
        success = end.success and live.claim != TaskState.FAILED and not live.late and not missing
        result = end.result or live.result
        said = live.claim or ("SUCCESS" if str(result.get("code", "")) == "0" else "")
        contradiction = (said == TaskState.SUCCESS) != success and bool(said)
        if contradiction:
            self._journal.note(
                "task.contradiction", task_id=live.share.task_id, claim=said, code=end.code, signal=end.signal
            )
        code, message = str(result.get("code", ""))[:64], str(result.get("message", ""))[:2000]
        if live.late:
            message = WHY["late"]
        elif self._closed and not success:
            message = "the gateway was stopped while the task ran"
        elif missing:
            message = f"ended with exit code 0, but did not write its output {', '.join(missing)}"
        elif end.why or end.problem or (not success and (not message or contradiction)):
            message = end.words()

        def work(tx: Tx) -> None:
            share = tx.get(Share, live.share.key())
            if share is None:
                return
            if live.progress and share.status not in TASK_FINAL:
                known, share = share, replace(share, progress=live.progress)
                tx.replace(known, share)
            event = TaskEvent.SUCCEED if success else TaskEvent.FAIL
            self._book.move_share(
                tx, share, event, message=message, result_code=code, exit_code=-end.signal if end.signal else end.code
            )

        await self._store.run(work)

    async def _fail(self, share: Share, message: str, *, code: str = "") -> None:
        def work(tx: Tx) -> None:
            current = tx.get(Share, share.key())
            if current is not None:
                self._book.move_share(
                    tx, current, TaskEvent.FAIL, message=message[:2000], result_code=code, exit_code=-1
                )

        await self._store.run(work)

    async def _after(self, live: _Live) -> None:
        """The secret of a share that has ended opens nothing any more; a scheduler that wants call-backs gets one."""
        share = live.share
        if self._closed:
            return
        self._push(share)
        if live.channel is not None and live.channel.session != session_of(share.job_id):
            with contextlib.suppress(GatewayError):
                await self._close_task(share.job_id, live.channel.session)
        if share.job_id in self._open:
            with contextlib.suppress(GatewayError):
                await self._rule(share.job_id)

    # -- reports of components, and to a scheduler that asked for call-backs

    def called_back(self, *, task_id: object, role: object, status: object, token: str) -> None:
        """A component's call-back (2-control 4.1): with the task's secret it counts, without it is a hint (C-119).

        Raises ProtocolViolation for a status outside the three words (C-059), Refused(NOT_FOUND) for a task that does
        not run here.
        """
        if not isinstance(task_id, str) or not task_id or not isinstance(role, str):
            raise ProtocolViolation("task_id and role must be texts")
        if status not in _REPORTS:
            raise ProtocolViolation("status must be RUNNING, SUCCESS or FAILED")
        of_task = [live for live in self._live.values() if live.share.task_id == task_id]
        if not of_task:
            raise Refused("no such task runs here", kind=Kind.NOT_FOUND)
        named = [live for live in of_task if role in {live.share.role, f"{live.share.role}.{live.share.index}"}]
        if not named:
            raise Refused("this node has no such role in the task", kind=Kind.NOT_FOUND)
        given = digest_of(token)
        proven = [live for live in named if token and live.digest and hmac.compare_digest(given, live.digest)]
        for live in proven:
            # The first final word stands.
            if status != TaskState.RUNNING and not live.claim:
                live.claim = str(status)
            _note_call(self._run_of(live.share, live.digest), live.claim)
        if token and not proven:
            raise Refused("the secret is not that of the task", kind=Kind.UNAUTHENTICATED)
        self._journal.note("task.callback", task_id=task_id, role=role, status=str(status), proven=bool(proven))

    def _push(self, share: Share) -> None:
        """Callback mode: soon tell the scheduler this node's state of the task in this role, until it knows (C-055)."""
        where = (share.task_id, share.role)
        if self._closed:
            return
        if where in self._pushing:
            self._pushing[where] = True
            return
        self._pushing[where] = False
        self._spawn(self._push_on(share, where))

    async def _push_on(self, share: Share, where: tuple[TaskId, str]) -> None:
        pause = PUSH_S
        try:
            while await self._push_once(share):
                if not self._pushing[where]:
                    await asyncio.sleep(pause)
                    pause = min(PUSH_MOST_S, 2 * pause)
                self._pushing[where] = False
        finally:
            self._pushing.pop(where, None)

    async def _push_once(self, share: Share) -> bool:
        """One call-back; whether there is one more to be made."""

        def work(tx: Tx) -> tuple[Job, Contract, dict[str, str]] | None:
            job = tx.get(Job, share.job_id)
            if job is None or job.scheduling or self._book.plan(job).sync is not SyncType.CALLBACK:
                return None
            shares = tx.select(Share, task_id=share.task_id, role=share.role)
            status = aggregate(other.status for other in shares)
            codes = [other.result_code for other in shares if other.status is TaskState.FAILED and other.result_code]
            body = {"task_id": share.task_id, "status": status.value, "role": share.role}
            contract = self._partners.contract_with(tx, job.scheduler)
            return job, contract, body | ({"result_code": codes[0]} if codes else {})

        try:
            found = await self._store.run(work)
        except GatewayError as error:
            self._journal.note("task.callback_failed", task_id=share.task_id, reason=str(error))
            return passing(error)
        if found is None:
            return False
        job, contract, body = found
        try:
            await self._peers.call(contract, "task.callback", body, trace_id=job.trace_id)
        except GatewayError as error:
            self._journal.note("task.callback_failed", task_id=share.task_id, peer=job.scheduler, reason=str(error))
            return passing(error) and job.status not in JOB_FINAL
        return self._pushing[share.task_id, share.role]

    # -- what admins see

    def progress_of(self, share: Share) -> Json:
        """The newest progress of a share, not older than what the store has."""
        live = self._live.get(share.key())
        return live.progress if live is not None and live.progress else share.progress

    def count_log(self, share: Share, level: str) -> int:
        """Lines of the share's log at a level and above. Blocking."""
        return count_lines(self._log_of(share), level)

    def read_log(self, share: Share, level: str, *, start: int, length: int | None) -> str:
        """Lines of the share's log (`launch.read_lines`). Blocking."""
        return read_lines(self._log_of(share), level, start=start, length=length)

    def tail_log(self, share: Share, lines: int) -> Sequence[str]:
        """The newest lines of the share's log. Blocking."""
        return tail_lines(self._log_of(share), lines)

    def artifact(self, job_id: JobId, party: Party, namespace: str, name: str) -> tuple[Path, int, int | None] | None:
        """File, bytes and rows (where its metadata counts them) of an artifact; None where there is none. Blocking."""
        file = self._folders.artifact(job_id, party, namespace, name)
        if file is None:
            return None
        try:
            rows = json.loads((file.parent / "metadata").read_text(encoding="utf-8")).get("count")
        except (OSError, ValueError, AttributeError, RecursionError):
            rows = None
        return file, file.stat().st_size, rows if isinstance(rows, int) else None

    def _run_of(self, share: Share, digest: str) -> Path:
        return self._folders.run(share.job_id, Party(share.role, share.index, self._book.own), share.task_name, digest)

    def _log_of(self, share: Share) -> Path:
        return self._folders.log(share.job_id, Party(share.role, share.index, self._book.own), share.task_name)


def _shares_of(tx: Tx, jobs: Sequence[JobId]) -> list[Share]:
    return [share for job_id in jobs for share in tx.select(Share, job_id=job_id)]


def _code(image: str) -> str:
    """Digest of the code that is about to run, "" where the component is not known. Blocking."""
    return code_digest(image) if image else ""


def _filled(folder: Path) -> bool:
    """Something was written there."""
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def _note_call(run: Path, claim: str) -> None:
    """What a call-back said, for a process of this gateway that comes after; and that the component lives."""
    with contextlib.suppress(OSError):
        (run / shim.ALIVE).touch()
        if claim:
            shim.write_whole(run / shim.CLAIM, claim)


def _read_claim(run: Path) -> str:
    try:
        word = (run / shim.CLAIM).read_text(encoding="utf-8")
    except OSError:
        return ""
    return word if word in _REPORTS else ""
