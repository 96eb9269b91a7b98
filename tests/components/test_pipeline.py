"""The six components as processes of their own, two parties at a time, over a real socket; then what goes wrong."""

import io
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accel import registry
from gateway.components.model import ModelPart
from gateway.operators.lr.params import LrParams
from gateway.sdk import drive as driving
from gateway.sdk.component import run
from gateway.sdk.environment import Artifact
from gateway.sdk.storage import FileStore
from specs.description import builtin_description
from specs.proto import ptp_pb2
from tests.components.platform import Platform, running_platform

GUEST, HOST = "guest.0", "host.0"
NODES = {GUEST: "LX-A", HOST: "LX-B"}
ROWS, COMMON = 60, 48


@dataclass
class Outcome:
    """What one party's process left behind."""

    code: int
    lines: list[str]

    @property
    def result(self) -> dict[str, str]:
        assert self.lines[-1].startswith("@result "), self.lines
        record: dict[str, str] = json.loads(self.lines[-1].removeprefix("@result "))
        return record


@dataclass
class Job:
    """Two parties, each with a storage of its own; tasks are numbered, artifacts named as a scheduler would."""

    folder: Path
    platform: Platform
    tasks: int = 0
    made: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)
    """Further variables of every component."""

    def store(self, party: str) -> FileStore:
        return FileStore(self.folder / party)

    def give(
        self, party: str, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], **extra: object
    ) -> None:
        """Put a table where the task's input `<task>.<output>` of this party is looked for."""
        self.made[party, name] = Artifact("given", name)
        self.store(party).write_table(self.made[party, name], columns, rows, extra=extra)

    def read(self, party: str, name: str) -> Any:
        artifact = self.made[party, name]
        is_table = self.store(party).read_metadata(artifact)["file_type"] == "csv"
        return self.store(party).read_table(artifact) if is_table else self.store(party).read_json(artifact)

    def variables(
        self, component: str, party: str, inputs: Mapping[str, str], parameters: Mapping[str, object]
    ) -> dict[str, str]:
        description = builtin_description(component)
        task_id = f"task_{self.tasks}"
        variables = {
            "system.storage": f"file://{self.folder / party}",
            "system.transport": self.platform.address,
            "system.callback": f"{self.platform.url}/v1/platform/schedule/task/callback",
            "config.self_role": party,
            "config.task_id": task_id,
            "config.session_id": "session_job-1",
            "config.trace_id": "tr-7",
            "config.token": f"token-of-{party}",
            "config.log.path": str(self.folder),
            "runtime.component.name": component,
            **self.more,
        }
        for other, node in NODES.items():
            variables |= {f"config.node_id.{other}": node, f"config.inst_id.{other}": node}
        for name, text in description.resolve_parameters(parameters).items():
            variables[f"runtime.component.parameter.{name}"] = text
        for name, source in inputs.items():
            variables[f"runtime.component.input.{name}"] = _reference(self.made[party, source])
        for name in description.output_data:
            artifact = Artifact(f"job-1-{party.replace('.', '-')}", f"{task_id}-{name}")
            self.made[party, f"{component}.{name}"] = artifact
            variables[f"runtime.component.output.{name}"] = _reference(artifact)
        return variables

    def run(
        self,
        component: str,
        inputs: Mapping[str, str],
        parameters: Mapping[str, Mapping[str, object]] | None = None,
        *,
        parties: Sequence[str] = (GUEST, HOST),
        processes: bool = False,
    ) -> dict[str, Outcome]:
        """Run one task at all parties and wait for its end, each in a process of its own or, else, in a thread."""
        self.tasks += 1
        parameters = parameters or {}
        given = {
            party: self.variables(component, party, inputs, {**parameters.get("", {}), **parameters.get(party, {})})
            for party in parties
        }
        return _in_processes(component, given) if processes else _in_threads(component, given)


def _reference(artifact: Artifact) -> str:
    return json.dumps({"namespace": artifact.namespace, "name": artifact.name})


def _in_processes(component: str, given: Mapping[str, Mapping[str, str]]) -> dict[str, Outcome]:
    started = {
        party: subprocess.Popen(
            [sys.executable, "-m", f"gateway.components.{component}"],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for party, variables in given.items()
    }
    outcomes = {}
    try:
        for party, process in started.items():
            text, _ = process.communicate(timeout=60)
            outcomes[party] = Outcome(process.returncode, text.splitlines())
    finally:
        for process in started.values():
            process.kill()
            process.wait()
    return outcomes


def _in_threads(component: str, given: Mapping[str, Mapping[str, str]]) -> dict[str, Outcome]:
    body = import_module(f"gateway.components.{component}").body
    outcomes: dict[str, Outcome] = {}

    def one(party: str, variables: Mapping[str, str]) -> None:
        stdout = io.StringIO()
        code = run(builtin_description(component), body, variables=variables, stdout=stdout)
        outcomes[party] = Outcome(code, stdout.getvalue().splitlines())

    threads = [threading.Thread(target=one, args=item) for item in given.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return outcomes


def succeed(outcomes: Mapping[str, Outcome]) -> None:
    for outcome in outcomes.values():
        assert (outcome.code, outcome.result["code"]) == (0, "0"), outcome.lines


# --- the whole path, in processes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """Both parties have run all six components on small made-up data."""
    source = random.Random(5)
    people = [f"customer-{number}" for number in range(2 * ROWS - COMMON)]
    with running_platform() as platform:
        made = Job(tmp_path_factory.mktemp("job"), platform)
        worth = {person: source.gauss(0, 1) for person in people}
        guest = [
            [
                person,
                source.choice("ab"),
                f"{worth[person]:.3f}",
                "bad" if worth[person] + source.gauss(0, 0.5) > 0 else "good",
            ]
            for person in people[:ROWS]
        ]
        host = [
            [f" {person}", f"{worth[person] + source.gauss(0, 0.3):.4f}", source.choice(["x", "y", "z"]), "5"]
            for person in reversed(people[ROWS - COMMON :])
        ]
        made.give(GUEST, "data", ["id", "kind", "amount", "risk"], guest)
        made.give(HOST, "data", ["id", "balance", "status", "constant"], host)
        label = {"label": "risk"}
        succeed(made.run("psi", {"train_data": "data"}, processes=True))
        succeed(made.run("split", {"data0": "psi.data0"}, {"": {"test_fraction": 0.25, "seed": "s"}}, processes=True))
        succeed(
            made.run(
                "feature_encode",
                {"train": "split.train", "test": "split.test"},
                {GUEST: {**label, "positive": "bad"}},
                processes=True,
            )
        )
        succeed(
            made.run(
                "hetero_lr",
                {"train_data": "feature_encode.train"},
                {"": {"iterations": 4, "inverse_penalty": 0.5}, GUEST: label},
                processes=True,
            )
        )
        succeed(
            made.run(
                "hetero_lr_predict",
                {"test_data": "feature_encode.test", "model": "hetero_lr.model0"},
                {GUEST: label},
                processes=True,
            )
        )
        succeed(made.run("evaluation", {"scores": "hetero_lr_predict.data0"}, parties=[GUEST], processes=True))
        yield made


def columns_of(job: Job, party: str, name: str, column: str) -> list[str]:
    table = job.read(party, name)
    return [row[table.column(column)] for row in table.rows]


def test_intersection_is_aligned(job: Job) -> None:
    ids = columns_of(job, GUEST, "psi.data0", "id")
    assert ids == [text.strip() for text in columns_of(job, HOST, "psi.data0", "id")]
    assert len(set(ids)) == len(ids) == COMMON
    for party in (GUEST, HOST):
        report = job.read(party, "psi.report0")
        assert (report["own_rows"], report["partner_rows"], report["intersection_size"]) == (ROWS, ROWS, COMMON)
    tags = {job.read(party, "psi.data0").metadata["alignment"] for party in (GUEST, HOST)}
    assert len(tags) == 1


def test_split_and_encoding_keep_rows_together(job: Job) -> None:
    for part, count in (("train", 36), ("test", 12)):
        for step in ("split", "feature_encode"):
            name = f"{step}.{part}"
            ids = [[text.strip() for text in columns_of(job, party, name, "id")] for party in (GUEST, HOST)]
            assert ids[0] == ids[1]
            assert len(ids[0]) == count
            assert job.read(GUEST, name).metadata["alignment"] == job.read(HOST, name).metadata["alignment"]
    assert job.read(GUEST, "feature_encode.train").columns == ("id", "risk", "kind=a", "kind=b", "amount")
    assert job.read(HOST, "feature_encode.test").columns == (
        "id",
        "balance",
        "status=x",
        "status=y",
        "status=z",
        "constant",
    )
    risks = dict(zip(columns_of(job, GUEST, "data", "id"), columns_of(job, GUEST, "data", "risk"), strict=True))
    encoded = zip(
        columns_of(job, GUEST, "feature_encode.train", "id"),
        columns_of(job, GUEST, "feature_encode.train", "risk"),
        strict=True,
    )
    assert all((risks[person] == "bad") is (label == "1") for person, label in encoded)


def test_each_side_keeps_its_own_weights_and_the_guest_the_scores(job: Job) -> None:
    guest, host = job.read(GUEST, "hetero_lr.model0"), job.read(HOST, "hetero_lr.model0")
    assert guest["features"] == ["kind=a", "kind=b", "amount"]
    assert host["features"] == ["balance", "status=x", "status=y", "status=z", "constant"]
    assert host["intercept"] == 0
    assert guest["weights"][2] > 0
    assert host["weights"][0] > 0
    assert host["weights"][4] == pytest.approx(0, abs=1e-6)
    # What each side stored, put together, gives the scores that the guest alone received.
    parts = []
    for party, model, skipped in ((GUEST, guest, 2), (HOST, host, 1)):
        table = job.read(party, "feature_encode.test")
        parts.append(np.array([row[skipped:] for row in table.rows], dtype=np.float64) @ np.array(model["weights"]))
    expected = 1 / (1 + np.exp(-(parts[0] + parts[1] + guest["intercept"])))
    scores = np.array(columns_of(job, GUEST, "hetero_lr_predict.data0", "score"), dtype=np.float64)
    assert np.allclose(scores, expected, atol=1e-4)
    received = job.read(GUEST, "hetero_lr_predict.data0")
    assert received.columns == ("id", "row", "label", "score")
    assert job.read(HOST, "hetero_lr_predict.data0").rows == []
    assert job.read(HOST, "hetero_lr_predict.report0")["scores_here"] == 0


def test_evaluation_sees_the_label_holders_figures(job: Job) -> None:
    figures, short = job.read(GUEST, "evaluation.metric0"), job.read(GUEST, "evaluation.report0")
    assert figures["rows"] == 12
    assert 0.5 < figures["auc"] <= 1
    assert short["auc"] == figures["auc"]
    assert {"confusion", "lift", "curve", "ks"} <= set(figures)


def test_kernels_get_the_threads_that_the_component_was_given(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    made: set[tuple[str, int]] = set()
    make = registry._make

    def record(kernel: str, forced: str | None, threads: int) -> Any:
        made.add((kernel, threads))
        return make(kernel, forced, threads)

    monkeypatch.setattr(registry, "_make", record)
    again = Job(job.folder, job.platform, tasks=100, made=dict(job.made), more={"interconn.threads": "3"})
    label = {GUEST: {"label": "risk"}}
    succeed(again.run("psi", {"train_data": "data"}))
    succeed(again.run("hetero_lr", {"train_data": "feature_encode.train"}, {"": {"iterations": 1}, **label}))
    scored = {"test_data": "feature_encode.test", "model": "hetero_lr.model0"}
    succeed(again.run("hetero_lr_predict", scored, label))
    assert made == {(kernel, 3) for kernel in ("x25519", "hash.sha256", "he.ou", "ring128")}


@pytest.mark.req("A-041")
def test_every_call_carries_what_it_must(job: Job) -> None:
    calls = [request for request in job.platform.requests if "/chan/" in request.path]
    assert len(calls) > 50
    for request in calls:
        token = request.headers["x-ptp-token"]
        assert request.headers["x-ptp-tech-provider-code"] == "interconn"
        assert request.headers["x-ptp-trace-id"] == "tr-7"
        assert request.headers["x-ptp-session-id"] == "session_job-1"
        assert token in {"token-of-guest.0", "token-of-host.0"}
        partner = HOST if token.endswith(GUEST) else GUEST
        assert request.headers["x-ptp-target-node-id"] == NODES[partner]


def test_no_raw_value_is_sent(job: Job) -> None:
    """Neither ids nor categories nor numbers of the input appear in what the components push."""
    sent = b"".join(request.body for request in job.platform.requests if request.operation == "push")
    for party in (GUEST, HOST):
        for row in job.read(party, "data").rows:
            for text in row:
                if len(text) >= 5:
                    assert text.encode() not in sent
    for name in ("amount", "balance", "status", "risk", "kind="):
        assert name.encode() not in sent


@pytest.mark.req("A-033")
def test_reports_of_all_tasks(job: Job) -> None:
    for task in range(1, 6):
        for party in (GUEST, HOST):
            statuses = [
                r["status"] for r in job.platform.reports if (r["task_id"], r["role"]) == (f"task_{task}", party)
            ]
            assert statuses == ["RUNNING", "SUCCESS"]


# --- what goes wrong, in threads --------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Two parties with a table each, nothing run yet."""
    monkeypatch.setattr(driving, "SLICE_MS", 100)
    made = Job(tmp_path, platform)
    made.give(GUEST, "data", ["id", "x", "y"], [["1", "0.5", "0"], ["2", "1.5", "1"], ["3", "2", "1"]], alignment="aa")
    made.give(HOST, "data", ["id", "x", "y"], [["3", "1", "0"], ["2", "4", "1"], ["9", "1", "1"]], alignment="aa")
    return made


def codes(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    assert all(outcome.code == (outcome.result["code"] != "0") for outcome in outcomes.values())
    return {party: outcome.result["code"] for party, outcome in outcomes.items()}


def test_duplicated_ids_end_both_sides_before_anything_is_sent(small: Job) -> None:
    small.give(GUEST, "data", ["id"], [["1"], ["2"], ["1 "]])
    outcomes = small.run("psi", {"train_data": "data"})
    assert codes(outcomes) == {GUEST: "4002", HOST: "4006"}
    message = outcomes[GUEST].result["message"]
    assert message == "component psi, party guest.0: input train_data, column 'id': rows 1 and 3 have the same id"
    assert outcomes[HOST].result["message"] == "component psi, party host.0: guest.0 gave up with result code 4002"
    pushed = [request for request in small.platform.requests if request.operation == "push"]
    own = [ptp_pb2.PushInbound.FromString(r.body).topic for r in pushed if r.headers["x-ptp-token"].endswith(GUEST)]
    assert own == ["task_1.guest.0-host.0.abort"]
    assert {report["status"] for report in small.platform.reports} == {"RUNNING", "FAILED"}


@pytest.mark.parametrize(
    ("component", "inputs", "parameters"),
    [
        ("psi", {"train_data": "data"}, {GUEST: {"id": "customer"}}),
        ("hetero_lr", {"train_data": "data"}, {GUEST: {"label": "x"}}),
        ("hetero_lr_predict", {"test_data": "data"}, {GUEST: {"label": "x"}}),
    ],
)
def test_a_mistake_of_one_party_is_told_to_the_other(
    small: Job, component: str, inputs: Mapping[str, str], parameters: Mapping[str, Mapping[str, object]]
) -> None:
    small.made[HOST, "model"] = small.made[GUEST, "model"] = Artifact("given", "model")
    part = ModelPart(HOST, ("x", "y"), (0.5, 0.5), 0.0, LrParams())
    small.store(HOST).write_json(small.made[HOST, "model"], part.to_json())
    given = {**inputs, "model": "model"} if component == "hetero_lr_predict" else inputs
    outcomes = small.run(component, given, {"": {"wait_seconds": 30}, **parameters})
    assert codes(outcomes) == {GUEST: "4001", HOST: "4006"}


def test_empty_intersection_fails_at_both(small: Job) -> None:
    small.give(GUEST, "data", ["id"], [["7"], ["8"]])
    outcomes = small.run("psi", {"train_data": "data"})
    assert codes(outcomes) == {GUEST: "4003", HOST: "4003"}
    assert outcomes[GUEST].result["message"] == "component psi, party guest.0: the parties have no id in common"
    assert not (small.folder / GUEST / "job-1-guest-0").exists()


def test_absent_partner_is_named_within_the_limit(small: Job) -> None:
    outcomes = small.run("psi", {"train_data": "data"}, {"": {"wait_seconds": 1}}, parties=[GUEST])
    assert codes(outcomes) == {GUEST: "4004"}
    assert "host.0 sent nothing for 1 s" in outcomes[GUEST].result["message"]


@pytest.mark.parametrize(
    ("component", "inputs", "parameters", "words"),
    [
        ("psi", {"train_data": "data"}, {"id": "customer"}, "column 'customer' is missing"),
        ("psi", {}, {}, "input train_data is not given"),
        ("split", {"data0": "single"}, {}, "1 rows, too few to split"),
        ("feature_encode", {"train": "data", "test": "data"}, {"label": "nope"}, "column 'nope' is missing"),
        ("feature_encode", {"train": "data", "test": "data"}, {"label": "y", "positive": "bad"}, "label column 'y'"),
        ("feature_encode", {"train": "data", "test": "data"}, {"drop": ["z"]}, "parameter drop: column 'z'"),
        ("feature_encode", {"train": "data", "test": "data"}, {"categorical": {"x": 1}}, "list of column names"),
        ("feature_encode", {"train": "data", "test": "words"}, {}, "column 'x' is numeric in the training rows"),
        ("hetero_lr", {"train_data": "data"}, {}, "parameter label: the guest must name"),
        ("hetero_lr", {"train_data": "words"}, {"label": "y"}, "column 'x' is not numeric"),
        ("hetero_lr", {"train_data": "data"}, {"label": "x"}, "column 'x' holds something else than 0 and 1"),
        ("hetero_lr_predict", {"test_data": "data"}, {"result_to": ["host"]}, 'only ["guest"] is supported'),
        ("hetero_lr_predict", {"test_data": "data", "model": "note"}, {"label": "y"}, "input model is no part"),
        ("evaluation", {"scores": "data"}, {"label": "y", "score": "z"}, "column 'z' is missing"),
        ("evaluation", {"scores": "data"}, {"label": "x", "score": "x"}, "column 'x' holds something else"),
        ("evaluation", {"scores": "single"}, {"label": "y", "score": "x"}, "both labels"),
    ],
)
def test_mistakes_are_named(
    small: Job, component: str, inputs: Mapping[str, str], parameters: Mapping[str, object], words: str
) -> None:
    small.give(GUEST, "single", ["id", "x", "y"], [["1", "2", "1"]])
    small.give(GUEST, "words", ["id", "x", "y"], [["1", "many", "1"], ["2", "few", "0"]])
    small.made[GUEST, "note"] = Artifact("given", "note")
    small.store(GUEST).write_json(small.made[GUEST, "note"], {"component": "hetero_lr", "weights": ["x"]})
    outcomes = small.run(component, inputs, {"": parameters}, parties=[GUEST])
    assert codes(outcomes) == {GUEST: "4001"}
    assert words in outcomes[GUEST].result["message"]
    assert f"component {component}, party guest.0" in outcomes[GUEST].result["message"]


@pytest.mark.parametrize(
    ("parameters", "alignment", "differing"),
    [
        ({HOST: {"iterations": 5}}, "aa", "params"),
        ({}, "bb", "alignment"),
    ],
)
def test_parties_that_mean_different_tasks_stop(
    small: Job, parameters: Mapping[str, Mapping[str, object]], alignment: str, differing: str
) -> None:
    small.give(HOST, "data", ["id", "x"], [["3", "1"], ["2", "4"], ["9", "1"]], alignment=alignment)
    outcomes = small.run("hetero_lr", {"train_data": "data"}, {GUEST: {"label": "y"}, **parameters})
    assert codes(outcomes) == {GUEST: "4009", HOST: "4009"}
    assert outcomes[GUEST].result["message"].endswith(f"not the same at host.0: {differing}")


def test_host_with_a_label_is_refused(small: Job) -> None:
    outcomes = small.run("hetero_lr", {"train_data": "data"}, {"": {"label": "y"}}, parties=[HOST])
    assert codes(outcomes) == {HOST: "4001"}
    assert "host holds no label" in outcomes[HOST].result["message"]


def test_evaluation_runs_at_the_guest_only(small: Job) -> None:
    outcomes = small.run("evaluation", {"scores": "data"}, parties=[HOST])
    assert codes(outcomes) == {HOST: "4001"}
    assert "no role host" in outcomes[HOST].result["message"]
