"""Admin API of jobs: what the CLI, and later the console, asks. Bound and guarded by `rest.admin_server`.

Only this node's own artifacts can be downloaded, and of those only what a task's DAG node names as an output.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.rest.admin_server import AdminRoute, FileAnswer, PersonalRoute
from gateway.mgmt_plane.rest.listing import listed
from gateway.mgmt_plane.service.decisions import Decisions, show_decision
from gateway.mgmt_plane.service.jobs import Jobs
from gateway.mgmt_plane.service.schedule import Schedule
from gateway.mgmt_plane.service.users import Principal
from gateway.model import Decision, Job, JobId, Json, NodeId, Party, SessionId, Share
from gateway.ports import Store, Tx
from specs.admin import BASE
from specs.states import LogLevel

Params = Mapping[str, str]
SentBytes = Callable[[SessionId], Awaitable[Mapping[NodeId, int]]]


class TaskFiles(Protocol):
    """What the admin side needs of runtime.tasks.TaskRunner. The methods but the first read files and block."""

    def progress_of(self, share: Share) -> Json: ...

    def count_log(self, share: Share, level: str) -> int: ...

    def read_log(self, share: Share, level: str, *, start: int, length: int | None) -> str: ...

    def artifact(
        self, job_id: JobId, party: Party, namespace: str, name: str
    ) -> tuple[Path, int, int | None] | None: ...


class JobAdmin:
    """Handlers of /v1/admin/jobs."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        schedule: Schedule,
        files: TaskFiles,
        sent_bytes: SentBytes,
        decisions: Decisions,
        store: Store,
    ) -> None:
        self._jobs = jobs
        self._schedule = schedule
        self._files = files
        self._sent_bytes = sent_bytes
        self._decisions = decisions
        self._store = store

    def routes(self) -> Sequence[AdminRoute]:
        """Routes for the admin server."""
        base = f"{BASE}/jobs"
        return (
            AdminRoute("POST", f"{base}/validate", self._validate),
            AdminRoute("POST", base, self._submit),
            AdminRoute("GET", base, self._list),
            AdminRoute("GET", f"{base}/{{job_id}}", self._show),
            PersonalRoute("POST", f"{base}/{{job_id}}/approve", self._approve),
            PersonalRoute("POST", f"{base}/{{job_id}}/reject", self._reject),
            AdminRoute("POST", f"{base}/{{job_id}}/stop", self._stop),
            AdminRoute("POST", f"{base}/{{job_id}}/rerun", self._rerun),
            AdminRoute("GET", f"{base}/{{job_id}}/logs", self._logs),
            AdminRoute("GET", f"{base}/{{job_id}}/outputs", self._outputs),
            AdminRoute("GET", f"{base}/{{job_id}}/outputs/{{namespace}}/{{name}}", self._download),
            AdminRoute("GET", f"{base}/{{job_id}}/bytes", self._bytes),
        )

    async def _validate(self, _params: Params, _query: Params, body: Json) -> Any:
        return await self._jobs.validate(body)

    async def _submit(self, _params: Params, _query: Params, body: Json) -> Any:
        return _job(await self._jobs.submit_file(body))

    async def _list(self, _params: Params, query: Params, _body: Json) -> Any:
        equals = {"flow_id": query["flow_id"]} if query.get("flow_id") else {}
        found = await self._store.run(lambda tx: listed(tx, Job, query, order="-created", **equals))
        return [_brief(job) for job in found]

    async def _show(self, params: Params, _query: Params, _body: Json) -> Any:
        shown = await self._jobs.show(params["job_id"])
        for task in shown["tasks"]:
            if task["shares"]:
                live = await self._jobs.task(params["job_id"], task["task_name"])
                newest = {(share.role, share.index): self._files.progress_of(share) for share in live}
                for share in task["shares"]:
                    share["progress"] = newest.get((share["role"], share["index"]), share["progress"])
        return shown

    async def _approve(self, by: Principal, params: Params, _query: Params, _body: Json) -> Any:
        return await self._decide(by, params["job_id"], approve=True)

    async def _reject(self, by: Principal, params: Params, _query: Params, _body: Json) -> Any:
        return await self._decide(by, params["job_id"], approve=False)

    async def _decide(self, by: Principal, job_id: str, *, approve: bool) -> Any:
        done = await self._decisions.decide(
            self._store,
            by,
            find=lambda tx: self._jobs.application(tx, job_id),
            approve=approve,
            terms={},
            do=lambda tx, _terms: self._jobs.answer(tx, job_id, approve=approve),
        )
        if done is not None:
            self._jobs.answered(done)

        def look(tx: Tx) -> tuple[Job, Decision | None]:
            job, asked = tx.get(Job, job_id), self._jobs.application(tx, job_id)
            if job is None:
                raise Refused("the job is gone", kind=Kind.NOT_FOUND)
            return job, tx.get(Decision, f"{asked.kind}:{asked.key()}")

        job, decision = await self._store.run(look)
        return {**_job(done or job), "decision": show_decision(decision)}

    async def _stop(self, params: Params, _query: Params, body: Json) -> Any:
        await self._schedule.stop(params["job_id"], _task_name(body))
        return _job((await self._jobs.parties(params["job_id"]))[0])

    async def _rerun(self, params: Params, _query: Params, body: Json) -> Any:
        file = body.get("file")
        if file is not None and not isinstance(file, Mapping):
            raise ProtocolViolation("file must be a job file")
        return _job(await self._jobs.rerun(params["job_id"], _task_name(body), file))

    async def _logs(self, params: Params, query: Params, _body: Json) -> Any:
        """Per share of the task, or of every task: number of lines and the lines asked for."""
        level = query.get("level") or LogLevel.DEBUG.value
        if level not in set(LogLevel):
            raise ProtocolViolation("level must be info, debug or error")
        start, length = _count(query, "start") or 0, _count(query, "length")
        job_id = params["job_id"]
        names = [query["task_name"]] if query.get("task_name") else await self._names(job_id)
        found = []
        for name in names:
            for share in await self._jobs.task(job_id, name):
                lines = await asyncio.to_thread(self._files.count_log, share, level)
                text = await asyncio.to_thread(self._files.read_log, share, level, start=start, length=length)
                place = {"task_name": share.task_name, "role": share.role, "index": share.index}
                found.append({**place, "status": share.status, "lines": lines, "start": start, "text": text})
        return found

    async def _names(self, job_id: str) -> list[str]:
        return [task["task_name"] for task in (await self._jobs.show(job_id))["tasks"]]

    async def _outputs(self, params: Params, _query: Params, _body: Json) -> Any:
        job, artifacts = await self._jobs.artifacts(params["job_id"])
        found = []
        for item in artifacts:
            known = await asyncio.to_thread(self._find, job.job_id, item)
            if known is not None:
                found.append({**item, "bytes": known[1], "rows": known[2]})
        return found

    async def _download(self, params: Params, _query: Params, _body: Json) -> Any:
        job, artifacts = await self._jobs.artifacts(params["job_id"])
        for item in artifacts:
            if (item["namespace"], item["name"]) == (params["namespace"], params["name"]):
                known = await asyncio.to_thread(self._find, job.job_id, item)
                if known is not None:
                    return FileAnswer(known[0], f"{item['task_name']}-{item['key']}")
        raise Refused("this node has no such output of the job", kind=Kind.NOT_FOUND)

    def _find(self, job_id: JobId, item: Mapping[str, Any]) -> tuple[Path, int, int | None] | None:
        party = Party(item["role"], item["index"], self._jobs.own)
        return self._files.artifact(job_id, party, item["namespace"], item["name"])

    async def _bytes(self, params: Params, _query: Params, _body: Json) -> Any:
        found: Counter[NodeId] = Counter()
        for session in await self._jobs.channels(params["job_id"]):
            found.update(await self._sent_bytes(session))
        return dict(found)


def _task_name(body: Json) -> str | None:
    name = body.get("task_name")
    if name is not None and not isinstance(name, str):
        raise ProtocolViolation("task_name must be a text")
    return name or None


def _job(job: Job) -> dict[str, Any]:
    """The job as JSON; the permits it was given stay here."""
    return asdict(replace(job, permits={}))


def _brief(job: Job) -> dict[str, Any]:
    return {key: value for key, value in _job(job).items() if key not in {"dag", "config", "permits"}}


def _count(query: Params, key: str) -> int | None:
    text = query.get(key, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ProtocolViolation(f"{key} must be a number, 0 or more")
    return int(text)
