"""How a job ended: what its scheduler tells the others, and what a participant reads from that.

The wire has no word for it: job/stop ends a job whatever became of it, and FINISHED is one state. So ours stand beside
the standard's members, in the answer of status_all for everybody and in job/stop for gateways of our own kind.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import WIRE
from gateway.mgmt_plane.core.dag import Lookup, Plan
from gateway.mgmt_plane.core.job import JOB_FINAL
from gateway.model import Contract, Identity, Job, NodeId, Outcome, Share, TaskName, TaskView
from gateway.ports import Tx
from specs.states import JobState, TaskState

CONSEQUENCES: Final = frozenset({"4004", "4006"})
"""Result codes of our components that only say that the partner is silent or gave up."""
_OWN_WORDS: Final = {str(wire.code): wire.text for wire in WIRE.values()}
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,16}")


def is_kin(identity: Identity, contract: Contract | None) -> bool:
    """Whether the partner's gateway is this software too, as its contract says: only then it hears what is ours."""
    return contract is not None and contract.peer_system == identity.system


def result_code(body: Mapping[str, Any]) -> str:
    """The result code beside a FAILED state, "" where there is none that could stand in a message of ours."""
    return _code(body.get("result_code"))


def _code(value: object) -> str:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def meaning(plan: Plan, lookup: Lookup, name: TaskName, code: str) -> str:
    """What a task's result code says, in words; "" where nobody has said it."""
    description = lookup(plan.nodes[name].component)
    known = description.results.get(code) if description is not None else None
    return known.message if known is not None else _OWN_WORDS.get(code, "")


def told(tx: Tx, job: Job, *, own: NodeId) -> dict[str, Any]:
    """As the scheduler of a job that has ended: job_outcome, result_codes (task_id -> code) of what failed and
    result_nodes (task_id -> who said so).
    """
    if not job.scheduling or job.status not in JOB_FINAL:
        return {}
    codes: dict[str, str] = {}
    nodes: dict[str, str] = {}
    views = [v for v in tx.select(TaskView, job_id=job.job_id) if v.status is TaskState.FAILED]
    shares = [s for s in tx.select(Share, job_id=job.job_id) if s.status is TaskState.FAILED]
    given = [(v.task_id, v.code, v.node_id) for v in views] + [(s.task_id, s.result_code, own) for s in shares]
    for task_id, code, node in given:
        if code and codes.get(task_id, "4004") in CONSEQUENCES:
            codes[task_id], nodes[task_id] = code, node
    return {"job_outcome": job.outcome.value, **({"result_codes": codes, "result_nodes": nodes} if codes else {})}


def job_word(plan: Plan, data: Mapping[str, Any]) -> str:
    """job_status of an answer to status_all, from its tasks' states where it has none (B-09)."""
    status = data.get("status")
    if "job_status" in data or not isinstance(status, Mapping):
        return str(data.get("job_status", ""))
    words = list(status.values())
    done = len(words) >= len(plan.nodes) and all(word == TaskState.SUCCESS for word in words)
    return JobState.FINISHED if done or TaskState.FAILED in words else JobState.RUNNING


def verdict(plan: Plan, data: Mapping[str, Any], scheduler: NodeId, *, why: str) -> tuple[Outcome, str]:
    """How a FINISHED job ended, from status_all of its scheduler. why: from `why_failed`."""
    status, outcome = data.get("status"), data.get("job_outcome")
    words = list(status.values()) if isinstance(status, Mapping) else []
    if words and all(word == TaskState.SUCCESS for word in words) and len(words) >= len(plan.nodes):
        return Outcome.SUCCEEDED, ""
    if outcome == Outcome.STOPPED:
        return Outcome.STOPPED, f"ended by {scheduler}"
    if why:
        return Outcome.FAILED, why
    if TaskState.FAILED in words:
        return Outcome.FAILED, f"a task failed or was stopped at another party; {scheduler} ended the job"
    if outcome == Outcome.FAILED:
        return Outcome.FAILED, f"ended by {scheduler}"
    return Outcome.STOPPED, f"ended by {scheduler}"


def why_failed(tx: Tx, job: Job, plan: Plan, lookup: Lookup, data: Mapping[str, Any]) -> str:
    """The scheduler's reason as a participant can say it: task, party, code, meaning; "" where it gave none.

    Only codes and ids of the job's parties come from outside: the meaning is said by our own components and table.
    """
    codes, nodes = data.get("result_codes"), data.get("result_nodes")
    if data.get("job_outcome") != Outcome.FAILED or not isinstance(codes, Mapping):
        return ""
    names = {share.task_id: share.task_name for share in tx.select(Share, job_id=job.job_id)}
    nodes = nodes if isinstance(nodes, Mapping) else {}
    known = [(names[task_id], _code(code), nodes.get(task_id)) for task_id, code in codes.items() if task_id in names]
    known = sorted((name, code, node if node in plan.participants else "") for name, code, node in known if code)
    if not known:
        return ""
    name, code, node = min(known, key=lambda each: each[1] in CONSEQUENCES)
    text = meaning(plan, lookup, name, code)
    where = f" at {node}" if node else ""
    return f"task {name} failed{where}, result code {code}{f' ({text})' if text else ''}; {job.scheduler} ended the job"
