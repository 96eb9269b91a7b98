"""`interconn demo`: two institutions that have never met train one model, from an empty folder to the report.

Starts a lab of two real gateways and does, through their admin APIs alone, what their two administrators would do. The
lab is always stopped, also after an error or Ctrl-C. Leaves to others: the data (data.py), the comparison with an
unprotected model (plaintext.py), the pages (report.py).
"""

import csv
import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console

from gateway import lab
from gateway.admin_client import AdminClient
from gateway.demo import data, plaintext, report
from gateway.demo.progress import Progress
from gateway.errors import Kind, Refused, Unavailable
from specs.states import ApprovalState, AuditKind, AuthScope, JobState, ProjectType

COMPONENTS: Final = ("psi", "split", "feature_encode", "hetero_lr", "hetero_lr_predict", "evaluation")
AGREE_S: Final = 30.0
JOB_S: Final = 300.0
POLL_S: Final = 0.3
EVENTS: Final = 10_000
TEST_FRACTION: Final = 0.3
SEED: Final = "2026"
ENDED: Final = frozenset({JobState.FINISHED.value, JobState.REJECTED.value})
LAB_JOBS: Final[Mapping[str, int | float]] = {"poll_s": 0.5, "silence_s": 30.0}


@dataclass(slots=True)
class Played:
    """One institution as the demo plays it."""

    node: lab.LabNode
    client: AdminClient
    dataset_id: str = ""


@dataclass(slots=True)
class _Run:
    """What is known so far; the steps fill it in one after the other."""

    started: int
    bank: Played
    payment: Played
    progress: Progress
    steps: list[report.Step] = field(default_factory=list)
    project_id: str = ""
    job_id: str = ""

    @contextmanager
    def step(self, title: str, story: str, *, messages: bool = False) -> Iterator[None]:
        # Steps do not overlap and end after their last event, although both may carry the same millisecond.
        began = max(now_ms(), self.steps[-1].finished) if self.steps else now_ms()
        self.progress.begin(title)
        yield
        self.steps.append(report.Step(title, story, began, now_ms() + 1, messages=messages))
        self.progress.done(title)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def run(out: Path, console: Console, *, keep_lab: Path | None = None) -> report.Facts:
    """The whole demo; reports go to `out`. Whether everything came out as promised is `Facts.problems`.

    keep_lab: folder to make the lab in and to leave (stopped) afterwards, instead of a temporary one.
    """
    started = now_ms()
    with ExitStack() as stack:
        stack.enter_context(_sigterm_as_interrupt())
        base = keep_lab or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interconn-demo-")))
        halves = data.split(data.read_source())
        base.mkdir(parents=True, exist_ok=True)
        data.write_tables(base, halves)
        progress = stack.enter_context(Progress(console))
        progress.begin("Two gateways")
        began = now_ms()
        stack.callback(_stop_lab, base / "lab")
        nodes = lab.up(base / "lab", parties=2, jobs=LAB_JOBS)
        progress.done("Two gateways")
        bank, payment = nodes.node("bank"), nodes.node("payment")
        play = _Run(started, Played(bank, bank.client()), Played(payment, payment.client()), progress)
        play.steps.append(
            report.Step(
                "Two gateways",
                "Each institution starts its own gateway: own process, folder, database, certificate authority. They "
                "know nothing of each other.",
                began,
                now_ms(),
            )
        )
        _prepare(play, base)
        _work(play)
        facts = _harvest(play, halves, base)
        page = report.write(out, facts)
    for problem in facts.problems():
        console.print(f"NOT AS PROMISED: {problem}", style="bold red", markup=False)
    console.print(
        f"{facts.intersection_size} customers in common. AUC: bank alone {facts.bank_only['auc']:.4f}, "
        f"both, protected {facts.metric['auc']:.4f}, both, unprotected {facts.plaintext['auc']:.4f}. "
        f"{facts.seconds:.0f} s.",
        markup=False,
    )
    console.print(f"The report: {page}", markup=False, soft_wrap=True)
    return facts


def _stop_lab(directory: Path) -> None:
    """Stop what runs of the lab, if it came so far; an impatient second Ctrl-C does not interrupt this."""
    old = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        lab.down(directory)
    except Refused as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
    finally:
        for number, handler in old:
            signal.signal(number, handler)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Stop the lab on SIGTERM as on Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _prepare(play: _Run, base: Path) -> None:
    """Everything before the job: partnership, catalogues, grant, project."""
    bank, payment = play.bank, play.payment
    with play.step(
        "Partnership",
        "Payment writes a signed invitation and sends it to the bank. The bank compares the fingerprint in it with the "
        "one that payment reads to it over the telephone, and applies. Payment compares the bank's and approves. From "
        "now on each accepts the other's certificates, and nobody else's for it.",
    ):
        _pair(inviter=payment, applicant=bank)
    with play.step(
        "Catalogues",
        "Each puts its table into its own catalogue: name, columns and number of rows. The rows stay where they are. "
        "Then the bank looks at what payment offers.",
    ):
        bank.dataset_id = bank.client.post(
            "datasets",
            name="loans",
            path=str((base / "bank.csv").resolve()),
            id_column=data.ID,
            label_columns=data.LABEL,
            public=False,
            description="900 loans and how they ended",
        )["dataset_id"]
        payment.dataset_id = payment.client.post(
            "datasets",
            name="accounts",
            path=str((base / "payment.csv").resolve()),
            id_column=data.ID,
            public=True,
            description="900 customers and their accounts",
        )["dataset_id"]
        offered = bank.client.get("partners", payment.node.node_id, "datasets")
        if payment.dataset_id not in {entry["dataset_id"] for entry in offered}:
            raise Refused("payment's dataset is not in the list it shows to the bank", kind=Kind.NOT_FOUND)
    with play.step(
        "Grant",
        "The bank asks to use payment's table for these six components and nothing else. Payment approves and sends a "
        "permit, which the bank will have to show.",
    ):
        asked = bank.client.post(
            "datasets",
            "apply",
            node_id=payment.node.node_id,
            dataset_id=payment.dataset_id,
            auth_scope={AuthScope.COMPONENT.value: list(COMPONENTS)},
        )
        _approve(payment, AuditKind.DATASET, payment.dataset_id)
        _await_audit(bank, asked["audit_id"])
    with play.step("Project", "The bank opens a project with both tables in it and payment joins."):
        play.project_id = bank.client.post(
            "projects",
            name="loan default",
            type=ProjectType.HETERO_FL.value,
            datasets={
                bank.node.node_id: [bank.dataset_id],
                payment.node.node_id: [payment.dataset_id],
            },
        )["project_id"]
        _approve(payment, AuditKind.PROJECT, play.project_id)
        _await_audit(bank, play.project_id)


def _pair(*, inviter: Played, applicant: Played) -> None:
    """One file, one comparison and one approval on each side; what is "read over the telephone" is each ca_file."""
    file = inviter.client.post("invites")["file"]
    seen = applicant.client.post("invites", "check", file=file)
    _compare(inviter, seen["fingerprint"])
    applicant.client.post("invites", "apply", file=file, fingerprint=seen["fingerprint"])
    waiting = _await(
        lambda: _contract(inviter, applicant, ApprovalState.APPLIED), f"{inviter.node.name} receives the application"
    )
    _compare(applicant, waiting["fingerprint"])
    inviter.client.post("partners", waiting["contract_id"], "approve", fingerprint=waiting["fingerprint"])
    _await(
        lambda: _contract(applicant, inviter, ApprovalState.APPROVED), f"{applicant.node.name} hears of the approval"
    )


def _compare(party: Played, fingerprint: str) -> None:
    if fingerprint != party.node.fingerprint():
        raise Refused(f"{fingerprint} is not {party.node.name}'s CA", kind=Kind.UNAUTHENTICATED)


def _contract(party: Played, partner: Played, status: ApprovalState) -> Mapping[str, Any] | None:
    contracts: Sequence[Mapping[str, Any]] = party.client.get("partners")
    return next(
        (each for each in contracts if each["peer_node_id"] == partner.node.node_id and each["status"] == status), None
    )


def _audits(party: Played, kind: AuditKind | None, direction: str) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = party.client.get("audits", kind=kind, direction=direction)
    return found


def _approve(party: Played, kind: AuditKind, subject: str) -> None:
    """Wait for a partner's application about `subject`, then approve it."""

    def applied() -> Mapping[str, Any] | None:
        for audit in _audits(party, kind, "IN"):
            if audit["subject"] == subject and audit["status"] == ApprovalState.APPLIED:
                return audit
        return None

    audit = _await(applied, f"{party.node.name} receives the application for {kind} {subject}")
    party.client.post("audits", audit["applicant"], audit["audit_id"], "approve")


def _await_audit(party: Played, wanted: str) -> None:
    """Wait until our application (by audit id or subject) is approved; raises Refused where it is not."""

    def decided() -> Mapping[str, Any] | None:
        for audit in _audits(party, None, "OUT"):
            if wanted in {audit["audit_id"], audit["subject"]} and audit["status"] != ApprovalState.APPLIED:
                return audit
        return None

    audit = _await(decided, f"{party.node.name} hears of the decision on {wanted}")
    if audit["status"] != ApprovalState.APPROVED:
        raise Refused(f"the application about {audit['subject']} became {audit['status']}")


def _await(look: Callable[[], Mapping[str, Any] | None], what: str) -> Mapping[str, Any]:
    deadline = time.monotonic() + AGREE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise Unavailable(f"waited {AGREE_S:.0f} s in vain until {what}", kind=Kind.PEER_TIMEOUT)


def job_file(play: _Run) -> dict[str, Any]:
    """The short job file as a tree; see docs/jobfile.md."""
    steps: list[dict[str, Any]] = [{"component": name} for name in COMPONENTS]
    by_name = {step["component"]: step for step in steps}
    by_name["split"]["params"] = {"test_fraction": TEST_FRACTION, "seed": SEED}
    by_name["feature_encode"]["guest"] = {"label": data.LABEL, "positive": data.POSITIVE}
    by_name["hetero_lr"]["params"] = {"inverse_penalty": plaintext.C}
    by_name["hetero_lr"]["guest"] = {"label": data.LABEL}
    by_name["hetero_lr_predict"]["params"] = {"result_to": ["guest"]}
    by_name["hetero_lr_predict"]["guest"] = {"label": data.LABEL}
    return {
        "name": "loan default",
        "project": play.project_id,
        "parties": {"guest": play.bank.node.node_id, "host": play.payment.node.node_id},
        "data": {"guest": play.bank.dataset_id, "host": play.payment.dataset_id},
        "step": steps,
    }


def _work(play: _Run) -> None:
    """Submit, approve, watch."""
    bank, payment = play.bank, play.payment
    with play.step(
        "Job",
        "The bank submits a job of six tasks. Payment looks at its tasks, its data and who gets which result, and "
        "approves. The bank's gateway schedules; each task runs as a process of its own at each side, and the two "
        "processes talk through the gateways.",
        messages=True,
    ):
        file = job_file(play)
        checked = bank.client.post_json("jobs", "validate", body=file)
        if not checked["ok"]:
            problems = "; ".join(f"{problem['where']}: {problem['message']}" for problem in checked["problems"])
            raise Refused(f"the job file is refused: {problems}", kind=Kind.BAD_DAG)
        play.job_id = bank.client.post_json("jobs", body=file)["job_id"]

        def asked() -> Mapping[str, Any] | None:
            audits = _audits(payment, AuditKind.JOB, "IN")
            return next((audit for audit in audits if audit["subject"] == play.job_id), None)

        _await(asked, "payment receives the job")
        payment.client.post("jobs", play.job_id, "approve")
        _watch(play)


def _watch(play: _Run) -> None:
    deadline = time.monotonic() + JOB_S
    views: dict[str, Mapping[str, Any]] = {}
    while True:
        for party in (play.bank, play.payment):
            views[party.node.name] = party.client.get("jobs", play.job_id)
        play.progress.job(views)
        if all(view["job"]["status"] in ENDED for view in views.values()):
            break
        if time.monotonic() > deadline:
            play.bank.client.post("jobs", play.job_id, "stop")
            raise Unavailable(f"the job does not end within {JOB_S:.0f} s", kind=Kind.TASK_TIMEOUT)
        time.sleep(POLL_S)
    for name, view in views.items():
        if view["job"]["outcome"] != "succeeded":
            raise Refused(f"the job {view['job']['outcome']} at {name}: {_why(view)}", kind=Kind.TASK_FAILED)


def _why(view: Mapping[str, Any]) -> str:
    told = [
        f"{task['task_name']} {share['role']}: {share['message']}"
        for task in view["tasks"]
        for share in task["shares"]
        if share["status"] == "FAILED" and share.get("message")
    ]
    return "; ".join(told) or str(view.get("explanation") or view["job"].get("reason") or "no reason given")


def _harvest(play: _Run, halves: data.Halves, base: Path) -> report.Facts:
    """Fetch what the bank may see, train the unprotected model beside it, and put the facts together."""
    bank, payment = play.bank, play.payment
    with play.step(
        "Result",
        "The bank fetches its results: the model's figures and its own weights. Payment has only its own weights.",
    ):
        folder = base / "results"
        folder.mkdir(exist_ok=True)
        view = bank.client.get("jobs", play.job_id)
        results = _Results(bank.client, play.job_id, folder, view["job"]["dag"]["components"])
        intersection = int(results.json("psi", "report0")["intersection_size"])
        metric = results.json("evaluation", "metric0")
        weights = named_weights(results.json("hetero_lr", "model0"))
        train_ids, test_ids = (results.column("split", part, data.ID) for part in ("train", "test"))
    play.progress.begin("Comparison")
    compared = plaintext.compare(halves, train_ids=train_ids, test_ids=test_ids)
    play.progress.done("Comparison")
    return report.Facts(
        started=play.started,
        finished=now_ms(),
        parties=(
            _party(bank, "guest", "Loans and how they ended", data.BANK_COLUMNS, len(halves.bank)),
            _party(payment, "host", "Customers and their accounts", data.PAYMENT_COLUMNS, len(halves.payment)),
        ),
        steps=tuple(play.steps),
        events={party.node.node_id: party.client.get("events", limit=EVENTS) for party in (bank, payment)},
        job_id=play.job_id,
        dag=view["job"]["dag"],
        tasks=view["tasks"],
        shares={
            party.node.name: [
                {**share, "task_name": task["task_name"]}
                for task in party.client.get("jobs", play.job_id)["tasks"]
                for share in task["shares"]
            ]
            for party in (bank, payment)
        },
        intersection_size=intersection,
        metric=metric,
        weights=weights,
        plaintext=compared.joint.to_json(),
        bank_only=compared.bank_only.to_json(),
        bytes_sent={
            party.node.node_id: sum(party.client.get("jobs", play.job_id, "bytes").values())
            for party in (bank, payment)
        },
    )


def _party(party: Played, role: str, holds: str, columns: Sequence[str], rows: int) -> report.Party:
    node = party.node
    return report.Party(
        name=node.name,
        node_id=node.node_id,
        inst_id=node.inst_id,
        role=role,
        style=node.name,
        holds=holds,
        columns=columns,
        rows=rows,
        fingerprint=node.fingerprint(),
    )


class _Results:
    """Outputs of a job by component and key, fetched when asked for."""

    def __init__(self, client: AdminClient, job_id: str, folder: Path, components: Sequence[Mapping[str, Any]]) -> None:
        self._client = client
        self._job_id = job_id
        self._folder = folder
        self._component = {component["name"]: component["componentName"] for component in components}
        self._outputs = client.get("jobs", job_id, "outputs")

    def _fetch(self, component: str, key: str) -> Path:
        for output in self._outputs:
            if self._component.get(output["task_name"]) == component and output["key"] == key:
                file = self._folder / f"{component}.{key}"
                self._client.download("jobs", self._job_id, "outputs", output["namespace"], output["name"], to=file)
                return file
        raise Refused(f"the bank has no output {key} of {component}", kind=Kind.NOT_FOUND)

    def json(self, component: str, key: str) -> Mapping[str, Any]:
        """An output that is one JSON object."""
        read: Mapping[str, Any] = json.loads(self._fetch(component, key).read_text(encoding="utf-8"))
        return read

    def column(self, component: str, key: str, column: str) -> list[str]:
        """One column of an output that is a table."""
        with self._fetch(component, key).open(encoding="utf-8", newline="") as file:
            return [row[column] for row in csv.DictReader(file)]


def named_weights(model: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(feature, weight) of a `hetero_lr` model0, the intercept first where this side holds it."""
    pairs = list(zip(model["features"], map(float, model["weights"]), strict=True))
    return [("intercept", float(model["intercept"])), *pairs] if model["intercept"] else pairs
