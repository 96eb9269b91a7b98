"""The receipt of a finished job: what ran, on which data, how it ended, signed by every participant that agrees.

One statement, several signatures: the first signer writes down what it knows, the others sign the same text after they
have compared it with their own records (`differences`). The standard knows no receipts, so nothing ever waits for one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.auth.schemes import parse_credential
from gateway.errors import ProtocolViolation, Refused
from gateway.mgmt_plane.core.dag import Plan, digest
from gateway.mgmt_plane.core.trail import canonical
from gateway.model import Job, Json, Share

CLOCKS_MS: Final = 300_000
"""How far the two sides' times of the end may lie apart."""
SIGNATURES: Final = 64
_TAG: Final = "interconn-job-receipt-1"
_TEXTS: Final = ("job_id", "digest", "project_id", "initiator", "scheduler", "outcome")
_NAMES: Final = frozenset({*_TEXTS, "participants", "started", "finished", "tasks", "datasets"})
_SIGNATURE_NAMES: Final = frozenset({"node_id", "at", "auth_type", "credential", "signature"})


def statement(job: Job, plan: Plan, shares: Sequence[Share]) -> dict[str, Any]:
    """What a node knows of a job that has ended. tasks: those it had a share in, name -> task_id."""
    datasets: dict[str, set[str]] = {}
    for party in plan.parties:
        found = {each for name in plan.order if (each := plan.dataset_of(party, name)) is not None}
        datasets.setdefault(party.node_id, set()).update(found)
    return {
        "job_id": job.job_id,
        "digest": digest(job.dag, job.config),
        "project_id": job.project_id,
        "initiator": job.initiator,
        "scheduler": job.scheduler,
        "participants": sorted(plan.participants),
        "outcome": job.outcome.value,
        "started": job.started,
        "finished": job.finished,
        "tasks": {share.task_name: share.task_id for share in shares},
        "datasets": {node: sorted(each) for node, each in datasets.items()},
    }


def differences(own: Json, other: Json, *, told_late: bool = False) -> list[str]:
    """Why we cannot sign `other`: the members in which it contradicts what we know, in words.

    told_late: `other` is the scheduler's, and we may have heard of the end long after it.
    """
    found = [
        f"{name}: {other[name]!r}, but here it is {own[name]!r}"
        for name in (*_TEXTS, "participants", "datasets")
        if own[name] != other[name]
    ]
    found += [
        f"tasks.{name}: {other['tasks'][name]!r}, but here it is {task_id!r}"
        for name, task_id in own["tasks"].items()
        if name in other["tasks"] and other["tasks"][name] != task_id
    ]
    earliest = (own["started"] or other["started"] or 0) if told_late else own["finished"] or 0
    if not earliest - CLOCKS_MS <= other["finished"] <= (own["finished"] or 0) + CLOCKS_MS:
        found.append(f"finished: {other['finished']}, but here it is {own['finished']}")
    return found


def receipt_text(stated: Json, *, node_id: str, at: int) -> bytes:
    """What one node's signature over a statement covers."""
    return f"{_TAG}\n{node_id}\n{at}\n{canonical(stated)}".encode()


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def check_receipt(value: Any) -> tuple[Json, Sequence[Json]]:
    """The statement and its signatures of a receipt from outside. Raises ProtocolViolation naming what is wrong."""
    if not isinstance(value, Mapping) or set(value) != {"receipt", "signatures"}:
        raise ProtocolViolation("a receipt has the members receipt and signatures")
    stated, signatures = value["receipt"], value["signatures"]
    if not isinstance(stated, Mapping) or set(stated) != _NAMES:
        raise ProtocolViolation("receipt: members are missing or too many")
    good = {
        **{name: isinstance(stated[name], str) for name in _TEXTS},
        "participants": _is_texts(stated["participants"]),
        "finished": _is_time(stated["finished"]),
        "started": stated["started"] is None or _is_time(stated["started"]),
        "tasks": isinstance(stated["tasks"], Mapping) and _is_texts(list(stated["tasks"].values())),
        "datasets": isinstance(stated["datasets"], Mapping) and all(map(_is_texts, stated["datasets"].values())),
    }
    for name, is_good in good.items():
        if not is_good:
            raise ProtocolViolation(f"receipt.{name} is not of its type")
    if not isinstance(signatures, list) or len(signatures) > SIGNATURES:
        raise ProtocolViolation("signatures must be a list")
    for each in signatures:
        if not isinstance(each, Mapping) or set(each) != _SIGNATURE_NAMES or not _is_time(each["at"]):
            raise ProtocolViolation("signatures: members are missing, too many or not of their type")
        if not all(isinstance(each[name], str) for name in _SIGNATURE_NAMES - {"at"}):
            raise ProtocolViolation("signatures: members are not of their type")
    return stated, signatures


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


@dataclass(frozen=True, slots=True)
class Signed:
    """One signature that was looked at; `problem` is empty where it holds."""

    node_id: str
    fingerprint: str
    at: int
    problem: str


def judge(stated: Json, signatures: Sequence[Json], *, trusted: frozenset[str] = frozenset()) -> list[Signed]:
    """Every signature by itself. trusted: fingerprints of trust anchors; without any, each shows its own."""
    found: list[Signed] = []
    for each in signatures:
        mark = ""
        try:
            credential = parse_credential(each["auth_type"], each["credential"])
            mark = credential.fingerprint
            problem = _wrong(stated, each, mark, trusted)
            credential.check(node_id=each["node_id"], now_ms=each["at"])
            credential.verify(receipt_text(stated, node_id=each["node_id"], at=each["at"]), each["signature"])
        except (Refused, ValueError, OverflowError, OSError) as e:
            problem = str(e)
        found.append(Signed(each["node_id"], mark, each["at"], problem))
    return found


def _wrong(stated: Json, signature: Json, mark: str, trusted: frozenset[str]) -> str:
    if trusted and mark not in trusted:
        return f"signed under another anchor: {mark}"
    return "" if signature["node_id"] in stated["participants"] else "the signer took no part in the job"
