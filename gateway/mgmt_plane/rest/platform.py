"""North-south endpoints (part 2, 5.1-5.8) and the call-back of components (4.1): route name -> handler.

The call-back proves itself by the task's secret. Everything else needs `authorization: Bearer <token>` with the token
that was passed in; without one configured every call is refused.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.service.jobs import Jobs
from gateway.mgmt_plane.service.schedule import Schedule
from gateway.model import Job, Share
from gateway.ports import Caller, EdgeRequest
from specs.description import DescriptionError, read_lenient_json
from specs.headers import PTP_TOKEN
from specs.states import LogLevel

PlatformHandler = Callable[[EdgeRequest, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
MAX_LINES: Final = 1_000_000


class Tasks(Protocol):
    """What the platform side needs of runtime.tasks.TaskRunner."""

    def called_back(self, *, task_id: object, role: object, status: object, token: str) -> None: ...

    def count_log(self, share: Share, level: str) -> int: ...

    def read_log(self, share: Share, level: str, *, start: int, length: int | None) -> str: ...


class Platform:
    """Handlers of the platform listener, apart from the channel."""

    def __init__(self, *, jobs: Jobs, schedule: Schedule, tasks: Tasks, token: str) -> None:
        self._jobs = jobs
        self._schedule = schedule
        self._tasks = tasks
        self._token = hashlib.sha256(token.encode()).digest() if token else None

    def handlers(self) -> Mapping[str, PlatformHandler]:
        """Handlers keyed by the names of `specs.routes.PLATFORM`."""
        guarded: Mapping[str, PlatformHandler] = {
            "platform.job.create_all": self._create_all,
            "platform.job.stop_all": self._stop_all,
            "platform.job.status_all": self._status_all,
            "platform.task.get_log_line": self._log_line,
            "platform.task.get_log": self._log,
            "platform.job.query_job_list": self._job_list,
            "platform.job.stop_task": self._stop_task,
            "platform.component.register": self._register,
        }
        return {
            "platform.task.callback": self._callback,
            **{name: self._guard(handler) for name, handler in guarded.items()},
        }

    def _guard(self, handler: PlatformHandler) -> PlatformHandler:
        async def guarded(request: EdgeRequest, payload: Mapping[str, Any]) -> Mapping[str, Any]:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            given = hashlib.sha256(token.strip().encode()).digest()
            if self._token is None or scheme.lower() != "bearer" or not hmac.compare_digest(given, self._token):
                raise Refused("the platform token is missing or wrong", kind=Kind.UNAUTHENTICATED)
            return await handler(request, payload)

        return guarded

    async def _callback(self, request: EdgeRequest, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        self._tasks.called_back(
            task_id=payload.get("task_id"),
            role=payload.get("role"),
            status=payload.get("status"),
            token=request.headers.get(PTP_TOKEN, ""),
        )
        return {}

    async def _create_all(self, _: EdgeRequest, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        for member in ("dag", "config"):
            if not isinstance(payload.get(member), Mapping):
                raise ProtocolViolation(f"{member} is missing or not an object")
        config = payload["config"]
        common = (config.get("job_params") or {}).get("common") if isinstance(config.get("job_params"), Mapping) else {}
        # The standard has no member for the project here, but a job audit needs one: an extension of job_params.common.
        project = common.get("project_id", "") if isinstance(common, Mapping) else ""
        job = await self._jobs.submit(
            dag=payload["dag"],
            config=config,
            flow_id=_text(payload, "flow_id", required=False),
            project_id=project if isinstance(project, str) else "",
            name=_text(payload, "name", required=False),
        )
        return {"job_id": job.job_id}

    async def _stop_all(self, _: EdgeRequest, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._schedule.stop(_text(payload, "job_id"))

    async def _stop_task(self, _: EdgeRequest, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._schedule.stop(_text(payload, "job_id"), _text(payload, "task_name"))

    async def _status_all(self, _: EdgeRequest, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        job_id = _text(payload, "job_id")
        own = self._jobs.own
        status = await self._schedule.status_all(
            Caller(own, None, (await self._job(job_id)).trace_id), {"job_id": job_id}
        )
        # This twin of the call knows four words only (e): what has not begun is READY.
        words = {task: "READY" if word == "PENDING" else word for task, word in status["status"].items()}
        return {"job_status": status["job_status"], "status": words}

    async def _job(self, job_id: str) -> Job:
        return (await self._jobs.parties(job_id))[0]

    async def _job_list(self, _: EdgeRequest, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        jobs = await self._jobs.all(flow_id=_text(payload, "flow_id", required=False))
        return {"job_list": {job.job_id: job.status.value for job in jobs}}

    async def _log_line(self, _: EdgeRequest, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        level = _level(payload)
        shares = await self._jobs.shares_of(_text(payload, "task_id"))
        counts = [await asyncio.to_thread(self._tasks.count_log, share, level) for share in shares]
        return {"num": sum(counts)}

    async def _log(self, _: EdgeRequest, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        level = _level(payload)
        start, length = _number(payload, "start"), _number(payload, "length", required=False)
        text = ""
        left = length
        # Several roles of this node in one task: their logs one after the other.
        for share in await self._jobs.shares_of(_text(payload, "task_id")):
            count = await asyncio.to_thread(self._tasks.count_log, share, level)
            if start < count and left != 0:
                text += await asyncio.to_thread(self._tasks.read_log, share, level, start=start, length=left)
                left = None if left is None else max(0, left - (count - start))
            start = max(0, start - count)
        return {"data": text}

    async def _register(self, request: EdgeRequest, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        info, image = payload.get("component_info"), payload.get("imageUrl", "")
        if not isinstance(info, Mapping):
            raise ProtocolViolation("component_info is missing or not an object")
        if not isinstance(image, str):
            raise ProtocolViolation("imageUrl must be a text")
        await self._jobs.register(info=info, image=image, lines=_lines(request.body))
        return {}


def _lines(body: bytes) -> Mapping[str, int]:
    """Line of each path of a body that has been parsed; empty where the lenient reader's own bounds are narrower."""
    try:
        return read_lenient_json(body.decode())[1] if body else {}
    except DescriptionError:
        return {}


def _text(payload: Mapping[str, Any], key: str, *, required: bool = True) -> str:
    value = payload.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or len(value) > 128 or (required and not value):
        raise ProtocolViolation(f"{key} is missing or not a short text")
    return value


def _level(payload: Mapping[str, Any]) -> str:
    word = payload.get("log_level")
    if word not in set(LogLevel):
        raise ProtocolViolation("log_level must be info, debug or error")
    return str(word)


def _number(payload: Mapping[str, Any], key: str, *, required: bool = True) -> Any:
    """A count from a query string or a JSON body; None where it may be absent and is."""
    value = payload.get(key)
    if value in (None, "") and not required:
        return None
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or int(text[:9]) > MAX_LINES:
        raise ProtocolViolation(f"{key} must be a number of lines, 0 or more")
    return int(text)
