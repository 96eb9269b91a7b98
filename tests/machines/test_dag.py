"""The DAG engine: what it refuses and where, and every question the scheduler asks."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Kind, ProtocolViolation
from gateway.mgmt_plane.core.dag import (
    ComponentRef,
    DagError,
    Plan,
    Resources,
    artifact,
    digest,
    parse_plan,
    problems,
    safe_id,
    session_of,
)
from gateway.model import Limits, NodeId, Party, TaskName
from specs.description import Description, builtin_descriptions
from specs.states import SyncType, TaskState

LIMITS = Limits()
DESCRIPTIONS = {d.component_name: d for d in builtin_descriptions()}


def lookup(ref: ComponentRef) -> Description | None:
    known = DESCRIPTIONS.get(ref.name)
    return known if known and known.key == (ref.name, ref.provider, ref.version) else None


def node(name: str, component: str, *inputs: str, outputs: tuple[str, ...] = ("data0:dataset",)) -> dict[str, Any]:
    """inputs and outputs as `key:type`."""
    return {
        "name": name,
        "componentName": component,
        "version": "1.0.0",
        "provider": "interconn",
        "input": [dict(zip(("key", "type"), i.split(":"), strict=True)) for i in inputs],
        "output": [dict(zip(("key", "type"), o.split(":"), strict=True)) for o in outputs],
    }


SETS = ("train:training_set", "test:test_set")
DAG = {
    "version": "2.0",
    "components": [
        node("psi_1", "psi"),
        node("split_1", "split", "psi_1.data0:dataset", outputs=SETS),
        node("enc", "feature_encode", "split_1.train:training_set", "split_1.test:test_set", outputs=SETS),
        node("lr", "hetero_lr", "enc.train:training_set", outputs=("model0:model",)),
        node("pred", "hetero_lr_predict", "enc.test:test_set", "lr.model0:model"),
        node("eval", "evaluation", "pred.data0:dataset", outputs=("metric0:metric",)),
    ],
}  # fmt: skip
CONFIG = {
    "version": "2.0.0",
    "initiator": {"role": "guest", "node_id": "A"},
    "role": {"guest": ["A"], "host": ["B", "A"], "arbiter": []},
    "job_params": {
        "common": {"sync_type": "poll", "silence_s": 9, "secret_extension": {"kept": True}},
        "host": {"0": {"resources": {"cpu": 2, "memory": 0.5, "disk": -1}}, "1": {"resources": {"cpu": 0}}},
    },
    "task_params": {
        "common": {"psi_1": {"id": "id", "wait_seconds": 5}},
        "guest": {"0": {"psi_1": {"dataset_id": "ds-A"}}},
        "host": {"0": {"psi_1": {"dataset_id": "ds-B", "id": "customer"}}, "1": {"psi_1": {"dataset_id": "ds-A"}}},
    },
}


def plan(dag: Any = DAG, config: Any = CONFIG) -> Plan:
    return parse_plan(dag, config, LIMITS)


def changed(value: Any, path: str, new: Any) -> Any:
    """A copy of `value` with the member at `a.0.b` replaced, or removed where new is ..."""
    copied = copy.deepcopy(value)
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place = copied
    for part in way:
        place = place[part] if isinstance(place, list) else place[str(part)]
    if new is ...:
        del place[last]
    else:
        place[last if isinstance(place, list) else str(last)] = new
    return copied


@pytest.mark.req("C-015", "C-016", "C-004")
@pytest.mark.parametrize(
    ("path", "new", "where", "words"),
    [
        ("components", [], "dag.components", "at least one"),
        ("components", ..., "dag.components", "at least one"),
        ("components", {}, "dag.components", "not an array"),
        ("components/0", 7, "dag.components[0]", "not an object"),
        ("components/0/name", ..., "dag.components[0].name", "missing"),
        ("components/0/name", "a.b", "dag.components[0].name", "not usable"),
        ("components/0/name", "../x", "dag.components[0].name", "not usable"),
        ("components/0/componentName", "", "dag.components[0].componentName", "missing"),
        ("components/0/version", 1, "dag.components[0].version", "missing"),
        ("components/0/provider", ..., "dag.components[0].provider", "missing"),
        ("components/1/name", "psi_1", "dag.components[1].name", "twice"),
        ("components/1/input/0/key", "nobody.data0", "dag.components[1].input[0].key", "no component named"),
        ("components/1/input/0/key", "psi_1.other", "dag.components[1].input[0].key", "no output"),
        ("components/1/input/0/key", "psi_1", "dag.components[1].input[0].key", "<producer name>.<output key>"),
        ("components/1/input/0/key", "psi_1.data0.x", "dag.components[1].input[0].key", "<producer name>"),
        ("components/1/input/0/type", "model", "dag.components[1].input[0].type", "is 'dataset'"),
        ("components/0/input", [{"key": "eval.metric0", "type": "metric"}], "dag.components", "cycle"),
        ("components/0/input", [{"key": "psi_1.data0", "type": "dataset"}], "dag.components", "psi_1 -> psi_1"),
        ("components/1/output/1/key", "train", "dag.components[1].output[1].key", "twice"),
        ("components/1/output/1/key", "a/b", "dag.components[1].output[1].key", "not usable"),
    ],
)
def test_a_bad_dag_is_refused_with_its_place(path: str, new: Any, where: str, words: str) -> None:
    with pytest.raises(DagError) as error:
        plan(changed(DAG, path, new))
    assert error.value.where == where
    assert words in error.value.problem
    assert error.value.kind is Kind.BAD_DAG


@pytest.mark.parametrize(
    ("path", "new", "where"),
    [
        ("role", ..., "config.role"),
        ("role", {}, "config.role"),
        ("role/guest", [], None),
        ("role/guest", "A", "config.role.guest"),
        ("role/guest", [""], "config.role.guest[0]"),
        ("role/guest", ["bad id"], "config.role.guest[0]"),
        ("role/common", ["A"], "config.role"),
        ("role/host", ["B"] * 65, "config.role.host"),
        ("initiator", ..., "config.initiator"),
        ("initiator/node_id", ..., "config.initiator.node_id"),
        ("job_params", [], "config.job_params"),
        ("job_params/host", "x", "config.job_params.host"),
        ("job_params/common/sync_type", "push", "config.job_params.common.sync_type"),
        ("job_params/common/durability", "disk", "config.job_params.common.durability"),
        ("job_params/common/durability", ["spool"], "config.job_params.common.durability"),
        ("job_params/common/scheduler_node_id", 5, "config.job_params.common.scheduler_node_id"),
        ("task_params/common/psi_1", 5, "config.task_params.common.psi_1"),
        ("task_params/host/0/psi_1", [], "config.task_params.host.0.psi_1"),
        ("task_params/host/0", [], "config.task_params.host.0"),
    ],
)
def test_a_bad_config_is_refused_with_its_place(path: str, new: Any, where: str | None) -> None:
    if where is None:
        assert plan(config=changed(CONFIG, path, new)).roles.keys() == {"host"}
        return
    with pytest.raises(DagError) as error:
        plan(config=changed(CONFIG, path, new))
    assert error.value.where == where


@pytest.mark.req("C-019", "C-056")
def test_absent_members_are_empty() -> None:
    bare = {"initiator": {"role": "guest", "node_id": "A"}, "role": {"guest": ["A"]}}
    found = plan(
        {"components": [{k: v for k, v in node("psi_1", "psi").items() if k not in {"input", "output"}}]}, bare
    )
    assert found.sync is SyncType.POLL
    assert found.params(found.parties[0], TaskName("psi_1")) == {}
    assert found.resources(found.parties[0]) == Resources()
    null = {**bare, "job_params": None, "task_params": {"common": None, "guest": None, "host": None}}
    assert plan({"components": [node("psi_1", "psi")]}, null).params(found.parties[0], TaskName("psi_1")) == {}
    # The GUIDE's template spells it nodeId (B-37).
    assert plan({"components": [node("p", "psi")]}, {**bare, "initiator": {"nodeId": "A"}}).initiator == "A"


@pytest.mark.req("C-006")
def test_unknown_members_are_kept() -> None:
    dag = changed(DAG, "components/0/code", "psi-image")
    found = plan(dag)
    assert found.dag == dag
    assert found.config["job_params"]["common"]["secret_extension"] == {"kept": True}


def test_limits() -> None:
    many = {"components": [node(f"n{i}", "psi") for i in range(LIMITS.dag_components + 1)]}
    with pytest.raises(DagError, match="more than 256"):
        plan(many)
    assert len(plan({"components": many["components"][:-1]}).order) == 256


@pytest.mark.req("C-114", "A-021")
def test_a_partys_parameters_override_the_common_ones() -> None:
    found = plan()
    host = Party("host", 0, NodeId("B"))
    assert found.params(host, TaskName("psi_1")) == {"id": "customer", "wait_seconds": 5, "dataset_id": "ds-B"}
    assert found.params(found.parties[0], TaskName("psi_1"))["id"] == "id"
    joined = {**CONFIG["task_params"], "host": {"0|1": {"psi_1": {"id": "both"}}}}  # type: ignore[dict-item]
    both = plan(config={**CONFIG, "task_params": joined})
    assert [both.params(p, TaskName("psi_1"))["id"] for p in both.parties if p.role == "host"] == ["both", "both"]


@pytest.mark.req("C-117", "A-028")
def test_resources() -> None:
    found = plan()
    assert found.resources(Party("host", 0, NodeId("B"))) == Resources(cpu=2.0, memory=0.5)
    assert found.resources(Party("host", 1, NodeId("A"))) == Resources()
    odd = changed(CONFIG, "job_params/host/0/resources", {"cpu": "4", "memory": True, "disk": float("inf")})
    assert plan(config=odd).resources(Party("host", 0, NodeId("B"))) == Resources()


def test_parties() -> None:
    found = plan()
    assert [p.name for p in found.parties] == ["guest.0", "host.0", "host.1"]
    assert found.participants == ("A", "B")
    assert [p.name for p in found.parties_of(TaskName("eval"), lookup)] == ["guest.0"]
    assert found.scheduler == "A"
    assert plan(config=changed(CONFIG, "job_params/common/scheduler_node_id", "S")).scheduler == "S"


@pytest.mark.req("C-033", "C-040", "C-041")
def test_ready() -> None:
    names = [TaskName(n) for n in ("a", "b", "c", "d")]
    dag = {
        "components": [
            node("a", "x"),
            node("b", "x", "a.data0:dataset"),
            node("c", "x", "a.data0:dataset"),
            node("d", "x", "b.data0:dataset", "c.data0:dataset"),
        ]
    }
    found = plan(dag)
    a, b, c, d = names
    s = TaskState
    assert found.ready({}) == [a]
    assert found.ready({a: s.RUNNING}) == []
    assert found.ready({a: s.SUCCESS}) == [b, c]
    assert found.ready({a: s.SUCCESS, b: s.RUNNING}) == [c]
    assert found.ready({a: s.SUCCESS, b: s.SUCCESS, c: s.RUNNING}) == []
    assert found.ready({a: s.SUCCESS, b: s.SUCCESS, c: s.SUCCESS}) == [d]
    assert found.ready({a: s.SUCCESS, b: s.FAILED}) == []
    assert found.ready({a: s.SUCCESS, b: s.FAILED, d: s.FAILED}, stopped=frozenset({b, d})) == [c]


@pytest.mark.req("C-082")
def test_downstream() -> None:
    found = plan()
    assert found.downstream(TaskName("enc")) == {"enc", "lr", "pred", "eval"}
    assert found.downstream(TaskName("eval")) == {"eval"}


def test_uses_reach_everything_derived() -> None:
    found = plan()
    names = ("psi", "split", "feature_encode", "hetero_lr", "hetero_lr_predict", "evaluation")
    every = frozenset(f"interconn/{each}/1.0.0" for each in names)
    assert found.uses(p for p in found.parties if p.node_id == "B") == {"ds-B": every}
    late = changed(CONFIG, "task_params/host/0", {"pred": {"dataset_id": "ds-late"}})
    assert plan(config=late).uses([Party("host", 0, NodeId("B"))]) == {
        "ds-late": frozenset({"interconn/hetero_lr_predict/1.0.0", "interconn/evaluation/1.0.0"})
    }


@pytest.mark.req("C-116", "C-113")
def test_names_of_artifacts_and_sessions() -> None:
    assert artifact("job-1", Party("host", 1, NodeId("B")), "task_2", "data0") == {
        "namespace": "job-1-host-1",
        "name": "task_2-data0",
    }
    assert session_of("job-1") == "session_job-1"


def test_ports_bind_by_type_and_position() -> None:
    found = plan()
    bound = found.bind(TaskName("pred"), DESCRIPTIONS["hetero_lr_predict"])
    assert {port: f"{e.producer}.{e.output}" for port, e in bound.inputs.items()} == {
        "test_data": "enc.test",
        "model": "lr.model0",
    }
    assert bound.source_port is None
    assert found.bind(TaskName("psi_1"), DESCRIPTIONS["psi"]).source_port == "train_data"
    # Two inputs of one class fill the ports in their order, whatever their exact words (g.2).
    plain = changed(
        DAG,
        "components/2/input",
        [{"key": "split_1.test", "type": "dataset"}, {"key": "split_1.train", "type": "dataset"}],
    )
    bound = plan(plain).bind(TaskName("enc"), DESCRIPTIONS["feature_encode"])
    assert {port: e.output for port, e in bound.inputs.items()} == {"train": "test", "test": "train"}
    # Outputs keep their DAG keys as suffix, under the port they stand for.
    other = changed(DAG, "components/3/output/0/key", "weights")
    other = changed(other, "components/4/input/1/key", "lr.weights")
    assert plan(other).bind(TaskName("lr"), DESCRIPTIONS["hetero_lr"]).outputs == {"model0": "weights"}


def test_a_right_plan_has_no_problems() -> None:
    assert problems(plan(), lookup) == []


TABLE = {"key": "psi_1.data0", "type": "dataset"}
DATA0 = {"key": "data0", "type": "dataset"}
MODEL = {"key": "m", "type": "model"}
PSI_AT_GUEST = "config.task_params.guest.0.psi_1"


@pytest.mark.req("C-017")
@pytest.mark.parametrize(
    ("dag", "config", "where", "words"),
    [
        (("components/0/version", "9"), None, "dag.components[0]", "psi 9 of interconn is not registered"),
        (None, ("role", {"arbiter": ["A"]}), "dag.components[0]", "no party of the job has a role"),
        (("components/1/input", [TABLE, TABLE]), None, "dag.components[1].input[1]", "no input left"),
        (("components/0/output", [DATA0, MODEL]), None, "dag.components[0].output[1]", "no output for model"),
        (None, ("task_params/common/psi_1", {"wait_seconds": "soon"}), PSI_AT_GUEST, "wait_seconds"),
        (None, ("task_params/common/psi_1", {"typo": 1}), PSI_AT_GUEST, "typo"),
    ],
)
def test_problems_name_their_place(dag: Any, config: Any, where: str, words: str) -> None:
    made = plan(changed(DAG, *dag) if dag else DAG, changed(CONFIG, *config) if config else CONFIG)
    found = [p for p in problems(made, lookup) if p.where == where]
    assert found, problems(made, lookup)
    assert words in found[0].message
    assert found[0].kind is (Kind.COMPONENT_UNKNOWN if "registered" in words else Kind.BAD_DAG)


def test_a_consumer_must_have_run_the_producer() -> None:
    evaluation = node("e", "evaluation", "psi_1.data0:dataset", outputs=("data0:metric",))
    dag = {"components": [node("psi_1", "psi"), evaluation, node("s", "split", "e.data0:metric", outputs=())]}
    found = [p.message for p in problems(plan(dag), lookup)]
    assert any("host.0, host.1 would need e, which does not run there" in message for message in found)


@pytest.mark.req("C-020")
def test_digest_ignores_the_order_of_members_only() -> None:
    again = {key: CONFIG[key] for key in reversed(list(CONFIG))}
    assert digest(DAG, again) == digest(DAG, CONFIG)
    assert digest(DAG, changed(CONFIG, "role/host", ["A", "B"])) != digest(DAG, CONFIG)


@pytest.mark.parametrize("bad", ["", "..", "a/b", ".hidden", "a b", "a\0", "x" * 129, None, 5, ["a"]])
def test_ids_that_could_leave_their_folder_are_refused(bad: object) -> None:
    with pytest.raises(ProtocolViolation):
        safe_id(bad, "job_id", LIMITS)


def test_usual_ids_pass() -> None:
    for good in (
        "job-7d0c2a64f1b94d0f9a1f5d2c3b4e5f60",
        "202603010800001234560",
        "3f6f2b1e-58f0-4b52-9d55-0f6f7c1f9a11",
    ):
        assert safe_id(good, "job_id", LIMITS) == good


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30))
def test_random_dags(edges: list[tuple[int, int]]) -> None:
    """A cycle is found exactly when there is one; else the order puts producers first and everything gets ready."""
    components = [node(f"n{i}", "x", *sorted({f"n{p}.data0:dataset" for p, c in edges if c == i})) for i in range(12)]
    reach = {i: {c for p, c in edges if p == i} for i in range(12)}
    closed = {i: set(found) for i, found in reach.items()}
    for k in range(12):
        for i in range(12):
            if k in closed[i]:
                closed[i] |= closed[k]
    cyclic = any(i in closed[i] for i in range(12))
    try:
        found = plan({"components": components}, {"initiator": {"node_id": "A"}, "role": {"guest": ["A"]}})
    except DagError as error:
        words = error.problem
    else:
        words = ""
    assert ("cycle" in words) == cyclic
    if cyclic:
        return
    done: dict[TaskName, TaskState] = {}
    while ready := found.ready(done):
        for name in ready:
            assert all(done.get(edge.producer) is TaskState.SUCCESS for edge in found.nodes[name].inputs)
        done |= dict.fromkeys(ready, TaskState.SUCCESS)
    assert len(done) == 12
