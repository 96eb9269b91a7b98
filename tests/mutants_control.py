"""Breaks of the requirements of part 2, for tests/mutations.py: file, old text, new text."""

from collections.abc import Mapping, Sequence
from typing import Final

_ROUTES: Final = "specs/routes.py"
_ERRORS: Final = "gateway/errors.py"
_DESCRIPTION: Final = "specs/description.py"
_DAG: Final = "gateway/mgmt_plane/core/dag.py"
_TABLE: Final = "gateway/mgmt_plane/core/job.py"
_EDGE: Final = "gateway/mgmt_plane/rest/edge.py"
_CLIENT: Final = "gateway/mgmt_plane/rest/client.py"
_PLATFORM: Final = "gateway/mgmt_plane/rest/platform.py"
_JOBS: Final = "gateway/mgmt_plane/service/jobs.py"
_SCHEDULE: Final = "gateway/mgmt_plane/service/schedule.py"
_SCHEDULER: Final = "gateway/runtime/scheduler.py"
_TASKS: Final = "gateway/runtime/tasks.py"
_LAUNCH: Final = "gateway/runtime/launch.py"

CONTROL: Final[Mapping[str, Sequence[Sequence[str]]]] = {
    "C-001": [
        (_ROUTES, 'f"{_S}/job/start"', 'f"{_S}/job/begin"'),
        ("gateway/mgmt_plane/rest/schedule.py", '        "task.poll": schedule.task_poll,\n', ""),
    ],
    "C-002": [
        (_ROUTES, 'f"{_P}/task/callback"', 'f"{_P}/task/call_back"'),
        (_PLATFORM, '            "platform.task.get_log": self._log,\n', ""),
    ],
    "C-004": [
        (_SCHEDULE, "if not isinstance(body.get(member), Mapping):", "if False:"),
        (
            _DAG,
            'for key in ("componentName", "provider", "version"))',
            'for key in ("componentName", "provider", "name"))',
        ),
    ],
    "C-006": [(_DAG, 'dag=_mapping(dag, "dag"),', 'dag={"components": _mapping(dag, "dag")["components"]},')],
    "C-007": [(_CLIENT, "        if data is None:\n            data = {}\n", "")],
    "C-008": [("gateway/data_plane/io/http_server.py", "    merge_slashes = True", "    merge_slashes = False")],
    "C-009": [
        (_SCHEDULE, "if caller.node_id not in {create.plan.initiator, create.plan.scheduler}:", "if False:"),
        (_SCHEDULE, "if caller.node_id not in {job.scheduler, job.initiator}:", "if False:"),
        (
            _SCHEDULE,
            "if caller.node_id not in {*self._book.plan(job).participants, job.initiator, job.scheduler}:",
            "if False:",
        ),
    ],
    "C-010": [
        (_PLATFORM, 'return {"job_id": job.job_id}', 'return {"id": job.job_id}'),
        (_JOBS, 'JobId(f"job-{self._entropy.token(16).hex()}")', 'JobId(f"job_{self._entropy.token(16).hex()}")'),
    ],
    "C-011": [(_JOBS, 'JobId(f"job-{self._entropy.token(16).hex()}")', 'JobId(f"job-{0:032}")')],
    "C-012": [
        (
            _SCHEDULER,
            "nodes = list(snapshot.plan.participants if to is None else to)",
            "nodes = list(snapshot.plan.participants[:1] if to is None else to)",
        )
    ],
    "C-013": [
        (
            _SCHEDULER,
            'results = await self._to_all(snapshot, "job.create", body, tokens=tokens, insist=True)',
            'results = await self._to_all(snapshot, "job.create", {**body, "flow_id": ""}, tokens=tokens, insist=True)',
        ),
    ],
    "C-014": [
        (_SCHEDULER, 'self._unless_all(results, "did not create the job")', "pass"),
        (
            _SCHEDULER,
            '            self._tell(tx, job, {"job_id": job.job_id}, kin=told(tx, job, own=self._book.own))\n',
            "            pass\n",
        ),
    ],
    "C-015": [
        (_DAG, "    if len(order) < len(nodes):\n", "    if False:\n"),
        (_DAG, "    if producer is None:\n        raise", "    if producer is None:\n        return\n        raise"),
        (_DAG, "    if output is None:\n        raise", "    if output is None:\n        return\n        raise"),
        (_DAG, "        if name in nodes:\n            raise", "        if False:\n            raise"),
    ],
    "C-016": [(_DAG, "    if not components:\n", "    if False:\n")],
    "C-017": [(_DAG, "            found.append(Problem(where, message, Kind.COMPONENT_UNKNOWN))\n", "")],
    "C-018": [
        (
            _SCHEDULE,
            "if self._book.own not in create.plan.participants:\n            raise",
            "if False:\n            raise",
        )
    ],
    "C-019": [
        (
            _DAG,
            'given = {} if raw is None else _mapping(raw, f"config.{member}")',
            'given = _mapping(raw, f"config.{member}")',
        ),
        (
            _DAG,
            'if value is None or (role != "common" and role not in roles):',
            'if role != "common" and role not in roles:',
        ),
    ],
    "C-020": [
        (
            _SCHEDULE,
            "            if digest(job.dag, job.config) != digest(plan.dag, plan.config):\n",
            "            if False:\n",
        ),
        (_SCHEDULE, "                if job.scheduler != caller.node_id:\n", "                if True:\n"),
        (_DAG, 'sort_keys=True, separators=(",", ":"), ensure_ascii', 'separators=(",", ":"), ensure_ascii'),
    ],
    "C-021": [
        (
            _SCHEDULE,
            "            status=JobState.READY,\n            outcome",
            "            status=JobState.RUNNING,\n            outcome",
            _TABLE,
            "(JobState.PENDING, JobEvent.APPROVE): JobState.READY,",
            "(JobState.PENDING, JobEvent.APPROVE): JobState.RUNNING,",
        )
    ],
    "C-022": [
        (_JOBS, 'return tx.select(Job, order="-created", flow_id=flow_id)', 'return tx.select(Job, order="-created")')
    ],
    "C-030": [
        (
            _SCHEDULER,
            "nodes = list(snapshot.plan.participants if to is None else to)",
            "nodes = [p.node_id for p in snapshot.plan.parties] if to is None else list(to)",
        )
    ],
    "C-031": [
        (
            _TABLE,
            "(JobState.READY, JobEvent.START): JobState.RUNNING,",
            "(JobState.READY, JobEvent.START): JobState.READY,",
        ),
        (_TABLE, "    (JobState.RUNNING, JobEvent.START): JobState.RUNNING,\n", ""),
    ],
    "C-032": [(_ERRORS, "Kind.NOT_FOUND: Wire(200, 404,", "Kind.NOT_FOUND: Wire(200, 0,")],
    "C-033": [
        (
            _DAG,
            "and all(states.get(edge.producer) is TaskState.SUCCESS for edge",
            "and any(states.get(edge.producer) is TaskState.SUCCESS for edge",
        )
    ],
    "C-034": [
        (
            _SCHEDULER,
            'body = {"task_id": views[0].task_id, "job_id": snapshot.job.job_id, "task_name": name}',
            'body = {"task_id": views[0].task_id + "x", "job_id": snapshot.job.job_id, "task_name": name}',
        ),
    ],
    "C-035": [(_SCHEDULER, 'if each.task_prefix != "task_"), "task_")', 'if each.task_prefix != "task_"), "task-")')],
    "C-036": [
        (
            _SCHEDULE,
            "if p.node_id == self._book.own]\n        component",
            "if p.node_id == self._book.own][:1]\n        component",
        )
    ],
    "C-037": [
        (_SCHEDULE, "        if name not in plan.nodes:\n", "        if False:\n"),
        (_ERRORS, "Kind.NOT_FOUND: Wire(200, 404,", "Kind.NOT_FOUND: Wire(200, 0,"),
    ],
    "C-038": [
        (
            _SCHEDULE,
            'if job.status is not JobState.RUNNING:\n            raise Refused("the job has not been started"',
            'if False:\n            raise Refused("the job has not been started"',
        )
    ],
    "C-039": [
        (
            _SCHEDULE,
            "        known = tx.select(Share, job_id=job_id, task_name=name)\n        if known:",
            "        known = tx.select(Share, job_id=job_id, task_name=name)\n        if False:",
        )
    ],
    "C-040": [
        (
            _DAG,
            "            and name not in stopped\n",
            "            and name not in stopped\n            and TaskState.RUNNING not in states.values()\n",
        )
    ],
    "C-041": [
        (
            _DAG,
            "if any(state is TaskState.FAILED for name, state in states.items() if name not in stopped):",
            "if False:",
        )
    ],
    "C-042": [(_SCHEDULER, "            if ready:\n", "            if False:\n")],
    "C-050": [
        (_SCHEDULE, "asked or shares).value\n            return", "asked or shares).value.lower()\n            return")
    ],
    "C-051": [
        (_ERRORS, "Kind.NOT_FOUND: Wire(200, 404,", "Kind.NOT_FOUND: Wire(404, 404,"),
        (_ERRORS, "Kind.NOT_FOUND: Wire(200, 404,", "Kind.NOT_FOUND: Wire(200, 0,"),
    ],
    "C-052": [
        (
            _SCHEDULE,
            "status = aggregate(share.status for share in asked or shares).value",
            "status = aggregate(share.status for share in asked).value",
        )
    ],
    "C-053": [
        (
            _SCHEDULE,
            'if role in {share.role, f"{share.role}.{share.index}"}]',
            "if role == share.role]\n            if role and not asked:\n                raise KeyError",
        ),
        (
            _SCHEDULE,
            'if role in {share.role, f"{share.role}.{share.index}"}]',
            'if role in ("", f"{share.role}.{share.index}")]\n            if not asked:\n                raise',
        ),
    ],
    "C-054": [(_SCHEDULER, "                await self._poll(snapshot, drive)\n", "                pass\n")],
    "C-055": [
        (_TASKS, "self._book.plan(job).sync is not SyncType.CALLBACK:", "True:"),
        (_SCHEDULER, "elif not answer.reached or refusals_count:", "else:"),
    ],
    "C-056": [(_DAG, 'common.get("sync_type") or SyncType.POLL', 'common.get("sync_type") or SyncType.CALLBACK')],
    "C-057": [(_SCHEDULE, "mine = [view for view in views if view.node_id == caller.node_id]", "mine = list(views)")],
    "C-058": [
        (
            _TABLE,
            'return TaskState(str(word)) if isinstance(word, str) else TaskState("")',
            "return TaskState(word) if word in set(TaskState) else TaskState.RUNNING",
        )
    ],
    "C-059": [
        (_TASKS, "        if status not in _REPORTS:\n", "        if False:\n"),
        (
            _TASKS,
            'if role in {live.share.role, f"{live.share.role}.{live.share.index}"}]',
            "if role == live.share.role]",
        ),
        (
            _TASKS,
            'if role in {live.share.role, f"{live.share.role}.{live.share.index}"}]',
            'if role == f"{live.share.role}.{live.share.index}"]',
        ),
    ],
    "C-061": [
        (
            _TABLE,
            "(TaskState.SUCCESS, TaskEvent.FAIL): TaskState.SUCCESS,",
            "(TaskState.SUCCESS, TaskEvent.FAIL): TaskState.FAILED,",
        ),
        (
            _TABLE,
            "(TaskState.FAILED, TaskEvent.SUCCEED): TaskState.FAILED,",
            "(TaskState.FAILED, TaskEvent.SUCCEED): TaskState.SUCCESS,",
        ),
    ],
    "C-062": [
        (
            _TABLE,
            "_ORDER: Final = (TaskState.FAILED, TaskState.RUNNING,",
            "_ORDER: Final = (TaskState.RUNNING, TaskState.FAILED,",
        )
    ],
    "C-063": [(_TABLE, "TaskState.PENDING, TaskState.SUCCESS)\n", "TaskState.SUCCESS, TaskState.PENDING)\n")],
    "C-064": [
        (
            _SCHEDULER,
            "        if all(state is TaskState.SUCCESS for state in states.values()):\n",
            "        if False:\n",
        )
    ],
    "C-065": [(_ROUTES, '"job.status_all": Route("2:3.7", "GET",', '"job.status_none": Route("2:3.7", "GET",')],
    "C-066": [
        (_SCHEDULE, "return {task_id: aggregate(found).value for task_id, found in grouped.items()}", "return {}"),
        (_SCHEDULE, "grouped.setdefault(view.task_id, [])", "grouped.setdefault(view.task_name, [])"),
    ],
    "C-067": [(_ERRORS, "Kind.NOT_FOUND: Wire(200, 404,", "Kind.NOT_FOUND: Wire(200, 0,")],
    "C-068": [
        (
            _PLATFORM,
            'return {"job_list": {job.job_id: job.status.value for job in jobs}}',
            'return {"job_list": [job.job_id for job in jobs]}',
        ),
        (_PLATFORM, '"READY" if word == "PENDING" else word', "word"),
    ],
    "C-069": [
        (
            _TABLE,
            "(JobState.PENDING, JobEvent.REFUSE): JobState.REJECTED,",
            "(JobState.PENDING, JobEvent.REFUSE): JobState.FINISHED,",
        ),
        ("specs/states.py", 'REJECTED = "REJECTED"\n    RUNNING', 'REJECTED = "REFUSED"\n    RUNNING'),
    ],
    "C-080": [
        (
            _SCHEDULE,
            "if name is None or job.status is not JobState.RUNNING:",
            "if name is None:\n                return False\n            if job.status is not JobState.RUNNING:",
        )
    ],
    "C-081": [
        (
            _TABLE,
            "(TaskState.RUNNING, TaskEvent.STOP): TaskState.FAILED,",
            "(TaskState.RUNNING, TaskEvent.STOP): TaskState.RUNNING,",
        ),
        (
            _TABLE,
            "(TaskState.SUCCESS, TaskEvent.STOP): TaskState.SUCCESS,",
            "(TaskState.SUCCESS, TaskEvent.STOP): TaskState.FAILED,",
        ),
    ],
    "C-082": [
        (
            _DAG,
            "        found = {name}\n        for other in self.order:",
            "        found = {name}\n        for other in ():",
        ),
        (
            _DAG,
            "        found = {name}\n        for other in self.order:",
            "        found = {name, *self.order}\n        for other in self.order:",
        ),
    ],
    "C-083": [
        (
            _SCHEDULE,
            "            job = self._concerned(tx, caller, job_id)\n            if not job.scheduling:",
            "            job = self._commanded(tx, caller, job_id)\n            if not job.scheduling:",
        )
    ],
    "C-084": [
        (
            _SCHEDULER,
            '            self._tell(tx, job, {"job_id": job.job_id}, kin=told(tx, job, own=self._book.own))\n',
            "            pass\n",
        )
    ],
    "C-085": [(_TABLE, "    (JobState.FINISHED, JobEvent.STOP): JobState.FINISHED,\n", "")],
    "C-086": [
        (
            _SCHEDULE,
            "        if named and all(share.status is TaskState.SUCCESS for share in named):\n            return\n",
            "",
        )
    ],
    "C-088": [(_PLATFORM, '_text(payload, "job_id"), _text(payload, "task_name"))', '_text(payload, "job_id"))')],
    "C-089": [
        (
            _SCHEDULER,
            "for node in self._book.plan(job).participants:\n            if node == self",
            "for node in self._book.plan(job).participants[:2]:\n            if node == self",
        ),
    ],
    "C-090": [
        (_SCHEDULER, "if stopped and not busy and not snapshot.plan.ready(states, stopped=stopped):", "if stopped:")
    ],
    "C-091": [
        (
            _SCHEDULE,
            '                await self._peers.call(contract, "job.stop_all", body, trace_id=job.trace_id)\n',
            "",
        )
    ],
    "C-100": [
        (_LAUNCH, "if (length is not None and len(text) >= length) or size > limit:", "if size > limit:"),
        (_LAUNCH, "        if number < start:\n", "        if False:\n"),
        (_PLATFORM, 'return {"num": sum(counts)}', 'return {"num": -1}'),
    ],
    "C-101": [(_PLATFORM, "    if word not in set(LogLevel):\n", "    if False:\n")],
    "C-102": [
        (_JOBS, "        description=info,\n        image=image,", '        description=info,\n        image="",')
    ],
    "C-103": [
        (_JOBS, '    "title",\n', ""),
        (_JOBS, '    "outputData",\n', ""),
    ],
    "C-104": [
        (
            _DESCRIPTION,
            '            return parse_bool(value)\n        except ValueError as e:\n            item.fail("optional"',
            '            return True\n        except ValueError as e:\n            item.fail("optional"',
        ),
    ],
    "C-110": [
        (_LAUNCH, '        "config.task_id": task_id,\n', ""),
        (_LAUNCH, '        "system.storage": storage,\n', ""),
        (_LAUNCH, '        "config.trace_id": job.trace_id,\n', ""),
    ],
    "C-111": [(_LAUNCH, '"config.self_role": party.name,', '"config.self_role": party.role,')],
    "C-112": [
        (_LAUNCH, "    for other in plan.parties:\n", "    for other in plan.parties[:1]:\n"),
        (_LAUNCH, 'variables[f"config.inst_id.{other.name}"] =', 'variables[f"config.inst.{other.name}"] ='),
    ],
    "C-113": [(_DAG, 'SessionId(f"session_{job_id}")', "SessionId(job_id)")],
    "C-114": [
        (
            _DAG,
            '{**self._task_params["common"].get(name, {}), **_of_party(self._task_params, party).get(name, {})}',
            '{**_of_party(self._task_params, party).get(name, {}), **self._task_params["common"].get(name, {})}',
        )
    ],
    "C-116": [
        (_DAG, 'return f"{job_id}-{party.role}-{party.index}"', 'return f"{job_id}-{party.role}"'),
        (_DAG, 'return f"{task_id}-{key}"', "return task_id"),
    ],
    "C-117": [
        (
            _DAG,
            "and 0 < value < 1e9\n    return float(value) if usable else None  # type",
            "and -2 < value < 1e9\n    return float(value) if usable else None  # type",
        )
    ],
    "C-118": [(_LAUNCH, '"system.callback": addresses.callback,', '"system.callback": addresses.transport,')],
    "C-119": [(_TASKS, "        if token and not proven:\n", "        if not proven:\n")],
}
