"""What was taken back stops the work that uses it: grants, projects, flows, models, contracts.

Listens to the end of approvals and contracts, on either side, inside the transaction that ends them: jobs that use what
has ended are FAILED in it, with the reason, so that no task of theirs can open data afterwards; processes are killed
soon after (`JobRuntime.settle`). The partner hears of the end itself (audit/terminate, contract/terminate) and does the
same; where it polls first it sees our share FAILED and learns the reason a moment later. The approval of the job itself
is `Jobs.on_audit`'s.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from gateway.errors import WIRE, Kind
from gateway.mgmt_plane.core.dag import Plan
from gateway.mgmt_plane.core.job import JobEvent
from gateway.mgmt_plane.service.grants import Grants
from gateway.mgmt_plane.service.jobs import Audits, JobBook, JobRuntime, withdraw
from gateway.model import Audit, Contract, Direction, Job, NodeId, Outcome, Share, TaskView
from gateway.ports import Tx
from specs.states import ApprovalState, AuditKind, JobState

KINDS: Final = (AuditKind.DATASET, AuditKind.PROJECT, AuditKind.FLOW, AuditKind.MODEL)
LATE_MS: Final = 60_000
"""A job that failed at the partner so shortly before we hear what the partner took back failed because of it."""
_LATEST: Final = 100
_THEIRS: Final = ("failed at {}", "stopped by {}", "ended by {}", "{} ended the job")
"""How reasons name the partner that ended a job."""
_LIVE: Final = (JobState.PENDING, JobState.READY, JobState.RUNNING)
_WIRE: Final = WIRE[Kind.GRANT_REVOKED]


class Revocation:
    """`listen` to audits of KINDS and to closed contracts."""

    def __init__(self, *, book: JobBook, grants: Grants, audits: Audits, runtime: JobRuntime) -> None:
        self._book = book
        self._grants = grants
        self._audits = audits
        self._runtime = runtime

    def on_audit(self, tx: Tx, audit: Audit) -> None:
        """Listener of every change of an audit, inside its transaction."""
        if audit.status is not ApprovalState.TERMINATED:
            return
        contract = tx.get(Contract, audit.contract_id)
        if contract is not None and contract.status is ApprovalState.TERMINATED:
            what = _contract_words(contract)
        else:
            what = f"{audit.kind.value} {audit.subject}, agreed with {audit.peer_node_id}"
        uses = self._user_of(audit)
        for job in self._jobs(tx, audit, uses):
            self._fail(tx, job, what)
        self._explain(tx, audit, uses, what)

    def on_closed(self, tx: Tx, contract: Contract) -> None:
        """Listener of contracts that have ended: no job can go on with a node that we do not speak to any more."""
        for job in _live(tx):
            if contract.peer_node_id in self._nodes(job):
                self._fail(tx, job, _contract_words(contract))

    def _nodes(self, job: Job) -> set[NodeId]:
        return {*self._book.plan(job).participants, job.initiator, job.scheduler}

    def _jobs(self, tx: Tx, audit: Audit, uses: Callable[[Tx, Job], bool]) -> list[Job]:
        ours = audit.direction is Direction.OUT
        if audit.kind is AuditKind.DATASET and ours and self._still_granted(tx, audit):
            return []  # which of the two a job is using is the holder's to say
        return [job for job in _live(tx) if uses(tx, job)]

    def _still_granted(self, tx: Tx, ended: Audit) -> bool:
        return any(
            each.status is ApprovalState.APPROVED and each.peer_node_id == ended.peer_node_id
            for each in self._audits.find(tx, kind=AuditKind.DATASET, subject=ended.subject, direction=Direction.OUT)
        )

    def _user_of(self, audit: Audit) -> Callable[[Tx, Job], bool]:
        """Whether a job uses what an audit was about together with the audit's other side."""

        def uses(tx: Tx, job: Job) -> bool:
            plan = self._book.plan(job)
            if audit.peer_node_id not in self._nodes(job):
                return False
            match audit.kind:
                case AuditKind.DATASET if audit.direction is Direction.IN:
                    return job.job_id in self._grants.jobs_under(tx, audit.key())
                case AuditKind.DATASET:
                    theirs = plan.uses(each for each in plan.parties if each.node_id == audit.peer_node_id)
                    # A job that waits for its approvals has shown no permit yet; it may get another one.
                    return (
                        job.initiator == self._book.own
                        and job.status is not JobState.PENDING
                        and audit.subject in theirs
                    )
                case AuditKind.PROJECT:
                    return job.project_id == audit.subject
                case AuditKind.FLOW:
                    return job.flow_id == audit.subject
                case AuditKind.MODEL:
                    return audit.subject in _models(plan) or _makes(tx, job, audit.body.get("task_id"))
            return False

        return uses

    def _fail(self, tx: Tx, job: Job, what: str) -> None:
        ended = self._book.advance(
            tx, job, JobEvent.FAIL, outcome=Outcome.FAILED, reason=_words(what), code=str(_WIRE.code)
        )
        if ended.initiator == self._book.own and job.status is not JobState.RUNNING:
            withdraw(tx, self._audits, ended)
        self._runtime.settle(job.job_id)
        self._runtime.poke(job.job_id)

    def _explain(self, tx: Tx, audit: Audit, uses: Callable[[Tx, Job], bool], what: str) -> None:
        """The partner's task was seen to fail, or the partner stopped us, before its message came that says why."""
        now = self._book.clock.now_ms()
        for job in tx.select(Job, status=JobState.FINISHED, order="-finished", limit=_LATEST):
            late = now - (job.finished or 0) > LATE_MS
            theirs = any(words.format(audit.peer_node_id) in job.reason for words in _THEIRS)
            if theirs and not late and _words(what) not in job.reason and uses(tx, job):
                reason = f"{job.reason}; {_words(what)}"
                # Nobody need be asked any more how it ended.
                tx.replace(job, replace(job, outcome=Outcome.FAILED, reason=reason, unsure=False))


def _words(what: str) -> str:
    return f"{_WIRE.text} (code {_WIRE.code}): {what}"


def _contract_words(contract: Contract) -> str:
    return f"the contract with {contract.peer_node_id}"


def _live(tx: Tx) -> Iterator[Job]:
    for state in _LIVE:
        yield from list(tx.select(Job, status=state))


def _models(plan: Plan) -> set[object]:
    """Models that the parameters of a job name."""
    return {plan.params(party, name).get("model_id") for party in plan.parties for name in plan.order} - {None}


def _makes(tx: Tx, job: Job, task_id: object) -> bool:
    """Whether a task is one of the job's: its model is what was approved."""
    if not isinstance(task_id, str) or not task_id:
        return False
    own = any(each.job_id == job.job_id for each in tx.select(Share, task_id=task_id))
    return own or any(each.job_id == job.job_id for each in tx.select(TaskView, task_id=task_id))
