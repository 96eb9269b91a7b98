"""Parts of the demo's run that need no gateway."""

import io

import pytest
from rich.console import Console

pytest.importorskip("sklearn")

from gateway.demo import plaintext, run
from gateway.demo.progress import Progress, rows
from gateway.lab import LabNode
from gateway.mgmt_plane.core.jobfile import expand
from specs.description import builtin_descriptions


class Quiet:
    def begin(self, title):
        pass

    done = begin


@pytest.fixture
def play(tmp_path):
    def played(number):
        node = LabNode(f"node-{number}", f"inst-{number}", f"n{number}", 1, "", "", "http://x", tmp_path, tmp_path)
        return run.Played(node, client=None, dataset_id=f"ds-{number}")

    return run._Run(0, played(1), played(2), Quiet(), project_id="project-1")


def test_the_job_file_expands_with_our_own_components(play):
    by_name = {}
    for description in builtin_descriptions():
        by_name.setdefault(description.component_name, []).append(description)
    expanded = expand(run.job_file(play), own_node="node-1", catalogue=lambda name: by_name.get(name, []))
    components = expanded.dag["components"]
    names = [component["componentName"] for component in components]
    assert names == ["psi", "split", "feature_encode", "hetero_lr", "hetero_lr_predict", "evaluation"]
    takes = {
        component["name"]: [link["key"] for link in component["input"]] for component in expanded.dag["components"]
    }
    assert takes["hetero_lr_1"] == ["feature_encode_1.train"]
    assert takes["hetero_lr_predict_1"] == ["feature_encode_1.test", "hetero_lr_1.model0"]
    assert takes["evaluation_1"] == ["hetero_lr_predict_1.data0"]
    assert expanded.config["role"] == {"guest": ["node-1"], "host": ["node-2"], "arbiter": []}
    assert expanded.config["task_params"]["host"]["0"]["psi_1"]["dataset_id"] == "ds-2"
    assert expanded.config["task_params"]["common"]["hetero_lr_1"]["inverse_penalty"] == plaintext.C
    assert expanded.config["task_params"]["common"]["hetero_lr_predict_1"]["result_to"] == ["guest"]
    assert expanded.project_id == "project-1"


def test_the_intercept_is_named_where_this_side_holds_it():
    model = {"features": ["a", "b"], "weights": [1, -2.5], "intercept": 0.5}
    assert run.named_weights(model) == [("intercept", 0.5), ("a", 1.0), ("b", -2.5)]
    assert run.named_weights({**model, "intercept": 0.0}) == [("a", 1.0), ("b", -2.5)]


def share(status, done=0, total=0):
    return {"status": status, "role": "guest", "progress": {"phase": "x", "done": done, "total": total}, "message": "m"}


VIEWS = {
    "bank": {"tasks": [{"task_name": "psi_1", "shares": [share("RUNNING", 3, 4)]}, {"task_name": "x", "shares": []}]},
    "payment": {"tasks": [{"task_name": "psi_1", "shares": [share("SUCCESS")]}, {"task_name": "x", "shares": []}]},
}


def test_progress_of_a_task_at_each_party():
    assert rows(VIEWS) == [("psi_1", {"bank": ("RUNNING", 0.75), "payment": ("SUCCESS", 1.0)}), ("x", {})]


def test_lines_without_a_terminal_are_told_once():
    stream = io.StringIO()
    with Progress(Console(file=stream, width=100)) as progress:
        progress.begin("Job")
        progress.job(VIEWS)
        progress.job(VIEWS)
        progress.done("Job")
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["Job ...", "  psi_1: bank RUNNING, payment SUCCESS"]
    assert lines[-1].startswith("Job: done in")
    assert len([line for line in lines if "psi_1" in line]) == 1


def test_the_picture_on_a_terminal_can_be_drawn():
    stream = io.StringIO()
    with Progress(Console(file=stream, width=100, force_terminal=True)) as progress:
        progress.begin("Job")
        progress.job(VIEWS)
    assert "psi_1" in stream.getvalue()


def test_a_failed_share_tells_why():
    view = {"job": {"reason": ""}, "tasks": [{"task_name": "psi_1", "shares": [share("FAILED")]}], "explanation": "e"}
    assert run._why(view) == "psi_1 guest: m"
    assert run._why({**view, "tasks": []}) == "e"
