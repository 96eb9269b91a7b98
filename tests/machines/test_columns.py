"""Columns that a job's parameters name, against tables that are known."""

import json
from typing import Any

import pytest

from gateway.mgmt_plane.core.columns import SHOWN, column_problems
from gateway.mgmt_plane.core.dag import Plan, parse_plan
from gateway.mgmt_plane.core.jobfile import expand
from gateway.model import Limits
from specs.description import Description, builtin_descriptions, parse_description

OURS: dict[str, Description] = {each.component_name: each for each in builtin_descriptions()}
TABLES = {"ds-a": ["customer", "age", "label"]}


def plan_of(**changes: dict[str, Any]) -> Plan:
    """guest A with ds-a and host B with ds-b; changes: parameters of a step, for all parties."""
    steps: list[dict[str, Any]] = [
        {"component": "psi", "params": {"id": "customer"}},
        {"component": "split"},
        {"component": "feature_encode", "params": {"id": "customer"}, "guest": {"label": "label"}},
        {"component": "hetero_lr", "params": {"id": "customer"}, "guest": {"label": "label"}},
    ]
    for step in steps:
        given = {**step.get("params", {}), **changes.get(step["component"], {})}
        step["params"] = {key: value for key, value in given.items() if value is not None}
        step.get("guest", {}).update(changes.get(f"{step['component']}_guest", {}))
    body = {
        "name": "x", "parties": {"guest": "A", "host": "B"}, "data": {"guest": "ds-a", "host": "ds-b"}, "step": steps,
    }  # fmt: skip
    made = expand(body, own_node="A", catalogue=lambda name: [OURS[name]])
    return parse_plan(made.dag, made.config, Limits())


def found(plan: Plan, tables: dict[str, list[str]] = TABLES) -> list[tuple[str, str]]:
    problems = column_problems(plan, lambda ref: OURS.get(ref.name), tables.get, parties=plan.parties)
    return [(problem.where.rpartition(".")[2], problem.message) for problem in problems]


def test_a_right_job_has_no_problem() -> None:
    assert found(plan_of()) == []


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        ({"psi": {"id": "costumer"}}, "psi_1", "dataset ds-a has no column 'costumer'; it has: customer, age, label"),
        # The default of a parameter is as wrong as any other value.
        ({"psi": {"id": None}}, "psi_1", "no column 'id'"),
        # Through two components that keep the columns, and into an encoded table.
        ({"feature_encode_guest": {"label": "lable"}}, "feature_encode_1", "no column 'lable'"),
        ({"feature_encode": {"drop": ["age", "agee"]}}, "feature_encode_1", "parameter drop"),
        ({"hetero_lr_guest": {"label": "lable"}}, "hetero_lr_1", "the table that comes in has no column 'lable'"),
    ],
)
def test_a_wrong_column_is_named_before_anything_runs(changes: Any, where: str, words: str) -> None:
    ((place, message),) = found(plan_of(**changes))
    assert place == where
    assert words in message


def test_what_may_be_a_level_is_no_problem() -> None:
    assert found(plan_of(hetero_lr_guest={"label": "age=30"})) == []


def test_of_a_table_that_is_not_known_nothing_is_said() -> None:
    assert found(plan_of(psi={"id": "nonsense"}), {}) == []


def test_a_component_that_says_nothing_ends_what_is_known() -> None:
    plan = plan_of(hetero_lr_guest={"label": "lable"})
    silent = {**OURS["split"].raw, "outputData": [{k: v for k, v in each.items() if not k.startswith("x-")}
                                                  for each in OURS["split"].raw["outputData"]]}  # fmt: skip
    known = {**OURS, "split": parse_description(json.dumps(silent))}
    assert not column_problems(plan, lambda ref: known.get(ref.name), TABLES.get, parties=plan.parties)


def test_a_wide_table_is_not_told_in_full() -> None:
    ((_, message),) = found(plan_of(psi={"id": "nonsense"}), {"ds-a": [f"c{i}" for i in range(SHOWN + 5)]})[:1]
    assert message.endswith("and 5 more")
