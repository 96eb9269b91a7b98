"""How a partner's product departs from v1.2.0 in the control layer (2-control h), as data, and the pure translation.

`core.profile` holds one ControlProfile per dialect. The client asks it for method and place of a call (`way`), both
edge and client for the members of requests and replies (`to_peer`, `from_peer`); the scheduler and the services ask
`accepts`, `channel_id`, `task_prefix` and `calls_back`. Nothing here knows a product by its name: what it does is
a value of a field, and a new product is a new row in `core.profile`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from gateway.model import SessionId
from specs.routes import CONTROL, LEGACY, Route

_STATUS_ALL: Final = "job.status_all"
_CREATES: Final = frozenset({"job.create", "job.create_all"})

MEMBERS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "job.create_all": frozenset({"job_id", "flow_id", "dag", "config", "result"}),
        "job.create": frozenset({"job_id", "flow_id", "dag", "config"}),
        "job.start": frozenset({"job_id"}),
        "task.start": frozenset({"job_id", "task_id", "task_name"}),
        "job.stop_all": frozenset({"job_id", "task_name"}),
        "job.stop": frozenset({"job_id", "task_name"}),
        _STATUS_ALL: frozenset({"job_id", "job_status", "status"}),
        "task.poll": frozenset({"task_id", "role", "status"}),
        "task.callback": frozenset({"task_id", "role", "status"}),
    }
)
"""What the standard has in request and reply of each call, nothing of ours."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a call goes out. query, body: whether the parameters stand there (both: v1.2.0's status_all)."""

    route: Route
    query: bool
    body: bool


@dataclass(frozen=True, slots=True)
class ControlProfile:
    """One dialect of the control layer.

    status_all: where its parameter stands when it is asked by GET ("query" or "body"); "" for the POST of v1.2.0.
    instead: routes it does not have -> the one that does for them. lacks: those nothing does for. members: members
    it refuses to see beyond these, by route; None where it ignores what it does not know. partial_stop: whether a
    stop with task_name stops that task; else it would stop the whole job (B-21). calls_back: whether it reports
    states itself, when the job says callback (B-31). component: theirs -> ours, members of a DAG node that stand
    for ours (B-23). filled: some members of config and dag must not be absent (B-24). flat: no arrays and no null
    in parameters (B-34). task_prefix: beginning of the task ids it can use (B-26). channel: channel id of a job
    (B-27), or of a task where it has a task_id. job_words: its words for job states that are none of the standard's
    (B-33). confirms: approves jobs by job/audit_confirm (v1.0).
    """

    status_all: str = ""
    instead: Mapping[str, str] = field(default_factory=dict)
    lacks: frozenset[str] = frozenset()
    members: Mapping[str, frozenset[str]] | None = None
    partial_stop: bool = True
    calls_back: bool = True
    component: tuple[tuple[str, str], ...] = ()
    filled: bool = False
    flat: bool = False
    task_prefix: str = "task_"
    channel: str = "session_{job_id}"
    job_words: Mapping[str, str] = field(default_factory=dict)
    confirms: bool = False


def way(dialect: ControlProfile, name: str, route: Route) -> Way:
    """Method, path and place of the parameters of one call; route: as the standard has it."""
    name = dialect.instead.get(name, name)
    route = CONTROL.get(name, route)
    if name != _STATUS_ALL:
        return Way(route, query=route.method == "GET", body=route.method == "POST")
    if not dialect.status_all:
        return Way(route, query=True, body=True)
    return Way(LEGACY[_STATUS_ALL], query=dialect.status_all == "query", body=dialect.status_all == "body")


def accepts(dialect: ControlProfile, name: str, payload: Mapping[str, Any]) -> bool:
    """Whether this call can be made at all: the peer has it, and it would do there what it says."""
    if name in dialect.lacks:
        return False
    return dialect.partial_stop or name not in {"job.stop", "job.stop_all"} or not payload.get("task_name")


def per_task(dialect: ControlProfile) -> bool:
    """Whether each task has a channel of its own there."""
    return "{task_id}" in dialect.channel


def channel_id(dialect: ControlProfile, job_id: str, task_id: str = "") -> SessionId:
    """Channel id of a job, or of a task of it, with such a peer."""
    return SessionId(dialect.channel.format(job_id=job_id, task_id=task_id))


def to_peer(dialect: ControlProfile, name: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request or reply of `name` as the peer reads it."""
    if name in _CREATES:
        payload = _sent_job(dialect, payload)
    known = (dialect.members or {}).get(name)
    return payload if known is None else {key: value for key, value in payload.items() if key in known}


def from_peer(dialect: ControlProfile, name: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request or reply of `name` in the words of v1.2.0; what is there under our name stays."""
    if name in _CREATES and dialect.component:
        payload = {**payload, "dag": _with_nodes(payload.get("dag"), lambda node: _read_node(dialect, node))}
    word = payload.get("job_status")
    if name == _STATUS_ALL and isinstance(word, str) and word in dialect.job_words:
        payload = {**payload, "job_status": dialect.job_words[word]}
    return payload


def _sent_job(dialect: ControlProfile, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """A job for a peer. Members of ours stay beside theirs: a product ignores those it does not know (C-006)."""
    changed = dict(payload)
    if dialect.component:
        changed["dag"] = _with_nodes(payload.get("dag"), lambda node: _sent_node(dialect, node))
    config = payload.get("config")
    if not isinstance(config, Mapping):
        return changed
    config = dict(config)
    if dialect.filled:
        params = config.get("job_params")
        config["job_params"] = {"common": {}, **(params if isinstance(params, Mapping) else {})}
        config = {"task_params": {}, "version": "2.0.0", **config}
        dag = changed.get("dag")
        changed["dag"] = {"version": "2.0.0", **dag} if isinstance(dag, Mapping) else dag
    if dialect.flat and isinstance(config.get("task_params"), Mapping):
        config["task_params"] = _flat_blocks(config["task_params"])
    return {**changed, "config": config}


def _with_nodes(dag: Any, change: Any) -> Any:
    """The DAG with each of its nodes changed; what is no DAG is left to whoever checks it."""
    if not isinstance(dag, Mapping) or not isinstance(dag.get("components"), list):
        return dag
    return {**dag, "components": [change(each) if isinstance(each, Mapping) else each for each in dag["components"]]}


def _sent_node(dialect: ControlProfile, node: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**{theirs: node[ours] for theirs, ours in dialect.component if ours in node}, **node}


def _read_node(dialect: ControlProfile, node: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**{ours: node[theirs] for theirs, ours in dialect.component if theirs in node}, **node}


def _flat_blocks(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """task_params whose values are no arrays and never null: an array becomes its JSON text (C-115), null is absent.

    common has one level less than a role: {task: {name: value}} and {index: {task: {name: value}}}.
    """
    return {
        role: (
            _flat_tasks(block)
            if role == "common"
            else {index: _flat_tasks(tasks) for index, tasks in block.items()}
            if isinstance(block, Mapping)
            else block
        )
        for role, block in params.items()
        if block is not None
    }


def _flat_tasks(tasks: Any) -> Any:
    if not isinstance(tasks, Mapping):
        return tasks
    return {
        task: {
            key: json.dumps(value) if isinstance(value, list) else value
            for key, value in values.items()
            if value is not None
        }
        if isinstance(values, Mapping)
        else values
        for task, values in tasks.items()
    }
