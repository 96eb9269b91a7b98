"""The short job file: what it expands to, and that every complaint names its place."""

import copy
import tomllib
from typing import Any

import pytest

from gateway.mgmt_plane.core.dag import parse_plan, problems
from gateway.mgmt_plane.core.jobfile import Expanded, JobFileError, expand, template
from gateway.model import Limits
from specs.description import Description, builtin_descriptions, parse_description

DESCRIPTIONS = {d.component_name: d for d in builtin_descriptions()}


def catalogue(name: str) -> list[Description]:
    return [DESCRIPTIONS[name]] if name in DESCRIPTIONS else []


def expanded(body: Any, own: str = "A", **kwargs: Any) -> Expanded:
    return expand(body, own_node=own, catalogue=kwargs.get("catalogue", catalogue))


PSI = {"component": "psi"}
BODY: dict[str, Any] = {
    "name": "x",
    "parties": {"guest": "A", "host": ["B", "C"]},
    "data": {"guest": "ds-a", "host": ["ds-b", "ds-c"]},
    "step": [
        {"component": "psi", "params": {"id": "key"}, "host": {"id": "kunde"}},
        {"component": "split", "params": {"seed": "s"}},
        {"component": "feature_encode", "guest": {"label": "y"}},
        {"component": "hetero_lr"},
        {"component": "hetero_lr_predict"},
        {"component": "evaluation"},
    ],
    "result_to": "guest",
    "deadlines": {"task_s": 60},
    "resources": {"host": {"memory": 2}},
}


def test_the_template_expands_and_has_no_problem() -> None:
    made = expanded(tomllib.loads(template()), own="NODE-ID-OF-THE-BANK")
    plan = parse_plan(made.dag, made.config, Limits())
    assert problems(plan, lambda ref: DESCRIPTIONS.get(ref.name)) == []
    assert plan.order == ("psi_1", "split_1", "feature_encode_1", "hetero_lr_1", "hetero_lr_predict_1", "evaluation_1")


def test_steps_are_chained_by_type() -> None:
    made = expanded(BODY)
    edges = {c["name"]: [i["key"] for i in c["input"]] for c in made.dag["components"]}
    assert edges == {
        "psi_1": [],
        "split_1": ["psi_1.data0"],
        "feature_encode_1": ["split_1.train", "split_1.test"],
        "hetero_lr_1": ["feature_encode_1.train"],
        "hetero_lr_predict_1": ["feature_encode_1.test", "hetero_lr_1.model0"],
        "evaluation_1": ["hetero_lr_predict_1.data0"],
    }


def test_the_config() -> None:
    config = expanded(BODY).config
    assert config["initiator"] == {"role": "guest", "node_id": "A"}
    assert config["role"] == {"guest": ["A"], "host": ["B", "C"], "arbiter": []}
    params = config["task_params"]
    assert params["common"]["psi_1"] == {"id": "key"}
    assert params["host"]["1"]["psi_1"] == {"id": "kunde", "dataset_id": "ds-c", "namespace": "C", "name": "ds-c"}
    # An entry for every party that runs a step, empty or not (g.2), and none for those that do not.
    assert params["host"]["0"]["hetero_lr_1"] == {}
    assert "evaluation_1" not in params["host"]["0"]
    # The conf says which party gets which result.
    assert params["common"]["hetero_lr_predict_1"] == {"result_to": ["guest"]}
    assert config["job_params"]["common"] == {"sync_type": "poll", "task_timeout_s": 60}
    assert config["job_params"]["host"]["1"]["resources"] == {"cpu": -1, "memory": 2, "disk": -1}


def test_messages_kept_on_disk_are_asked_for_in_the_config() -> None:
    common = expanded({**BODY, "durability": "spool"}).config["job_params"]["common"]
    assert common["durability"] == "spool"


def test_explicit_inputs_and_a_second_dataset() -> None:
    body = copy.deepcopy(BODY)
    body["step"] = [
        {"component": "psi"},
        {"component": "split"},
        {"component": "hetero_lr", "inputs": {"train_data": "split_1.test"}},
        {"component": "split", "name": "other", "inputs": {"data0": "data"}},
    ]
    made = expanded(body)
    assert made.dag["components"][2]["input"] == [{"key": "split_1.test", "type": "test_set"}]
    assert made.dag["components"][3]["input"] == []
    assert made.config["task_params"]["guest"]["0"]["other"]["dataset_id"] == "ds-a"


def test_the_newest_version_is_the_default() -> None:
    import json

    def versions(name: str) -> list[Description]:
        raw = dict(DESCRIPTIONS[name].raw)
        return [parse_description(json.dumps({**raw, "version": v})) for v in ("1.9.0", "1.10.0", "1.2.0")]

    body = {
        **BODY,
        "step": [{"component": "psi"}, {"component": "psi", "version": "1.2.0", "inputs": {"train_data": "data"}}],
    }
    assert [c["version"] for c in expanded(body, catalogue=versions).dag["components"]] == ["1.10.0", "1.2.0"]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"name": ""}, "name"),
        ({"nmae": "x"}, "nmae"),
        ({"parties": {}}, "parties"),
        ({"parties": {"guest": "Z"}, "data": {"guest": "d"}}, "parties"),
        ({"parties": {"gast": "A"}}, "parties.gast"),
        ({"parties": {"guest": 5}}, "parties.guest"),
        ({"data": {"guest": "ds-a"}}, "data.host"),
        ({"data": {"guest": "ds-a", "host": ["b", "c", "d"]}}, "data.host"),
        ({"data": {"arbiter": "x"}}, "data.arbiter"),
        ({"step": []}, "step"),
        ({"step": ["psi"]}, "step[0]"),
        ({"step": [{"component": "nothing"}]}, "step[0].component"),
        ({"step": [{"component": "psi", "version": "9"}]}, "step[0].component"),
        ({"step": [{"component": "psi", "name": "a.b"}]}, "step[0].name"),
        ({"step": [{"component": "psi", "name": "a"}, {"component": "split", "name": "a"}]}, "step[1].name"),
        ({"step": [{"component": "psi", "colour": 1}]}, "step[0].colour"),
        ({"step": [{"component": "psi"}, {"component": "split", "params": {"seeed": 1}}]}, "step[1].params.seeed"),
        ({"step": [{"component": "psi", "params": {"wait_seconds": "x"}}]}, "step[0].params.wait_seconds"),
        ({"step": [{"component": "psi", "host": {"wait_seconds": 0}}]}, "step[0].host.wait_seconds"),
        ({"step": [{"component": "psi", "params": {"dataset_id": "d"}}]}, "step[0].params.dataset_id"),
        ({"step": [{"component": "psi", "inputs": {"nothing": "data"}}]}, "step[0].inputs.nothing"),
        ({"step": [{"component": "psi", "inputs": {"train_data": "a.b"}}]}, "step[0].inputs.train_data"),
        ({"step": [{"component": "hetero_lr_predict"}]}, "step[0].inputs.model"),
        ({"step": [PSI, {"component": "split", "inputs": {"data0": "psi_1.report0"}}]}, "step[1].inputs.data0"),
        ({"step": [{"component": "evaluation", "host": {"label": "y"}}]}, "step[0].host"),
        ({"deadlines": {"task_s": 0}}, "deadlines.task_s"),
        ({"deadlines": {"tusk_s": 1}}, "deadlines.tusk_s"),
        ({"resources": {"host": {"cpu": "2"}}}, "resources.host.cpu"),
        ({"resources": {"arbiter": {}}}, "resources.arbiter"),
        ({"result_to": ["arbiter"]}, "result_to"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(change: dict[str, Any], where: str) -> None:
    with pytest.raises(JobFileError) as error:
        expanded({**BODY, **change})
    assert error.value.where == where, error.value
