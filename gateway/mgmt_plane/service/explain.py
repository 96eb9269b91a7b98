"""Why a job is where it is, in words: what it waits for since when and until when, or what failed where and what to do.

Of a partner's part only its node, role and result code are known here, and the code's text in the component's
self-description; what its component wrote stays with the partner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from gateway.errors import WIRE, Kind
from gateway.mgmt_plane.core.dag import Plan
from gateway.mgmt_plane.core.job import TASK_FINAL
from gateway.model import Audit, Direction, Job, NodeId, Outcome, Share, TaskName, TaskView
from specs.states import ApprovalState, JobState, TaskState


class Rules(Protocol):
    """What is needed of service.jobs.JobRules."""

    @property
    def approval_s(self) -> float: ...

    def of(self, plan: Plan, key: str) -> float: ...


class Book(Protocol):
    """What is needed of service.jobs.JobBook."""

    @property
    def own(self) -> NodeId: ...

    @property
    def rules(self) -> Rules: ...


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that a job waits for. since, until: ms; until None: no end of its own."""

    what: str
    node_id: str
    task_name: str
    since: int | None
    until: int | None

    def words(self) -> str:
        end = f", given up at {_at(self.until)}" if self.until is not None else ""
        return f"{self.what} since {_at(self.since)}{end}"


@dataclass(frozen=True, slots=True)
class Story:
    """A job with everything that is known of it here."""

    job: Job
    plan: Plan
    views: Sequence[TaskView]
    shares: Sequence[Share]
    audits: Sequence[Audit]
    book: Book

    # -- waiting

    def waits(self) -> list[Wait]:
        """What the job waits for now; empty once it has ended."""
        job = self.job
        rules = self.book.rules
        approval = job.created + round(rules.approval_s * 1000)
        match job.status:
            case JobState.PENDING:
                return self._approvals(approval)
            case JobState.READY:
                whom = job.scheduler or job.initiator
                what = f"{whom} to start it" if job.scheduler else f"{whom} to create and start it"
                return [Wait(what, whom, "", job.heard, approval)]
            case JobState.RUNNING:
                return self._work()
        return []

    def _approvals(self, until: int) -> list[Wait]:
        own = self.book.own
        for audit in self.audits:
            if audit.direction is Direction.IN and audit.status is ApprovalState.APPLIED:
                return [Wait("this node's own decision", own, "", audit.created, until)]
        asked = [a for a in self.audits if a.direction is Direction.OUT and a.status is ApprovalState.APPLIED]
        return [Wait(f"the approval of {a.peer_node_id}", a.peer_node_id, "", a.created, until) for a in asked] or [
            Wait(f"the approval of {own}", own, "", self.job.created, until)
        ]

    def _work(self) -> list[Wait]:
        job, plan, own, rules = self.job, self.plan, self.book.own, self.book.rules
        found = []
        for share in self.shares:
            if share.status in TASK_FINAL:
                continue
            party = f"{share.role}.{share.index}"
            if share.status is TaskState.RUNNING and share.started is not None:
                heard = share.progress.get("at")
                last = f", last heard of at {_at(heard)}" if isinstance(heard, int) else ""
                until = share.started + round(rules.of(plan, "task_timeout_s") * 1000)
                found.append(
                    Wait(f"{share.task_name} here ({party}{last})", own, share.task_name, share.started, until)
                )
            else:
                until = share.created + round(rules.of(plan, "queue_s") * 1000)
                what = f"a free place for {share.task_name} here ({party})"
                found.append(Wait(what, own, share.task_name, share.created, until))
        mine = {share.task_name for share in self.shares}
        end = None if job.started is None else job.started + round(rules.of(plan, "job_timeout_s") * 1000)
        for view in self.views:
            if view.status in {TaskState.RUNNING, TaskState.READY} and (
                view.node_id != own or view.task_name not in mine
            ):
                misses = f", no answer to the last {view.misses} polls" if view.misses else ""
                what = f"{view.task_name} at {view.node_id} ({view.role}{misses})"
                found.append(Wait(what, view.node_id, view.task_name, view.updated, end))
        return found or [Wait(f"{job.scheduler} to start the next task", job.scheduler, "", job.heard, end)]

    # -- words

    def text(self) -> str:
        """The whole story in a few sentences."""
        job = self.job
        waits = "; ".join(wait.words() for wait in self.waits())
        match job.status:
            case JobState.PENDING if waits.startswith("this node's own decision"):
                return f"Waits for {waits}. Look at dag and conf, then: interconn job approve {job.job_id} (or reject)."
            case JobState.PENDING:
                return f"Waits for {waits}."
            case JobState.READY:
                return f"Approved {'by all' if job.scheduler else 'here'}. Waits for {waits}."
            case JobState.RUNNING:
                done = {share.task_name for share in self.shares if share.status is TaskState.SUCCESS}
                so_far = f"{len(done)} of {len(self.plan.nodes)} tasks done here"
                return f"Running since {_at(job.started)}, {so_far}; waits for {waits}."
            case JobState.REJECTED:
                return (
                    f"Rejected at {_at(job.finished)}: {job.reason}. "
                    f"Nothing ran. Agree with the partner and submit anew."
                )
        return self._ended()

    def _ended(self) -> str:
        job = self.job
        asked = f" {job.scheduler}, who scheduled it, has not confirmed that yet." if job.unsure else ""
        if job.outcome is Outcome.SUCCEEDED:
            results = f"Results of this node: interconn job outputs {job.job_id}."
            return f"Succeeded at {_at(job.finished)}.{asked} {results}"
        failed = [share for share in self.shares if share.status is TaskState.FAILED and share.exit_code is not None]
        others = [node for node in self.plan.participants if node != self.book.own]
        text = f"{job.outcome.value.capitalize()} at {_at(job.finished)}: {job.reason}.{asked}"
        for share in failed:
            advice = ADVICE.get(share.result_code)
            component, party = self._component(share.task_name, share.component), f"{share.role}.{share.index}"
            # Our components name both themselves, for whoever has only the log.
            message = share.message.removeprefix(f"component {component}, party {party}: ")
            text += (
                f" Task {share.task_name} (component {component}, party {party}, here) ended with "
                f"code {share.result_code or share.exit_code}: {message}. {f'{advice} ' if advice else ''}"
                f"Its log: interconn job logs {job.job_id} --task {share.task_name}."
            )
        if "no answer to" in job.reason or "no word from" in job.reason:
            text += " Ask that party whether its gateway runs, and look at the connection between the nodes."
        elif any(words in job.reason for words in _GRANT_WORDS):
            text += " Ask for a grant that covers the job: interconn dataset apply."
        elif job.outcome is Outcome.FAILED and not failed and others:
            named = [node for node in others if node in job.reason] or others
            text += (
                " The cause lies with another party; its operator finds it with interconn job show there. Where that "
                f"side consents, a part is shown here: interconn job logs {job.job_id} --partner {named[0]}."
            )
            if job.initiator == self.book.own and "4001" in job.reason:
                text += f" Where the job file names it wrongly: interconn job rerun {job.job_id} --file FILE."
        if job.initiator == self.book.own and any(share.status is TaskState.SUCCESS for share in self.shares):
            text += (
                f" What has succeeded need not run again: interconn job rerun {job.job_id}, "
                f"with --file FILE where the job file was corrected."
            )
        return text

    def _component(self, name: TaskName, key: str) -> str:
        return self.plan.nodes[name].component.name if name in self.plan.nodes else key


ADVICE: Final[Mapping[str, str]] = {
    "4001": "Correct the parameter, column or dataset that it names and submit the job again.",
    "4002": "Remove the repeated ids from the dataset and submit the job again.",
    "4003": "Check that both sides use the same kind of id, in the same spelling.",
    "4004": "Ask the partner whether its side runs; look at the connection between the nodes.",
    "4005": "Ask the partner which version of the component it runs.",
    "4006": "The partner's own log has the cause.",
    "4007": "Look whether this gateway's data process runs and reaches the partner.",
    "4008": "Look at the free space and the rights of the gateway's work folder.",
    "4009": "Compare the parameters of both parties.",
}
_GRANT_KINDS: Final = (
    Kind.GRANT_MISSING,
    Kind.GRANT_EXPIRED,
    Kind.GRANT_EXHAUSTED,
    Kind.GRANT_REVOKED,
    Kind.NOT_AS_APPROVED,
)
_GRANT_WORDS: Final = tuple(WIRE[k].text for k in _GRANT_KINDS)


def _at(ms: int | None) -> str:
    return "?" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
