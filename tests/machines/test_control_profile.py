"""Dialects of the control layer: the pure translation."""

from typing import Any

import pytest

from gateway.mgmt_plane.core.control_profile import MEMBERS, accepts, channel_id, way
from gateway.mgmt_plane.core.profile import PROFILES, from_peer, profile, to_peer
from specs.routes import CONTROL, ROUTES
from tests.peers.stand_ins import KUBERNETES_ID

FATE, KUSCIA, V10, STRICT = (profile(name) for name in ("fate-2.x", "kuscia", "legacy-1.0", "strict-1.2"))
NODE = {"name": "one", "componentName": "psi", "provider": "p", "version": "1"}
JOB: dict[str, Any] = {
    "job_id": "job-1",
    "flow_id": "",
    "dag": {"components": [NODE]},
    "config": {
        "role": {"guest": ["a"], "host": ["b"]},
        "task_params": {"common": {"one": {"n": None, "l": [1, "x"]}}, "host": {"0": {"one": {"k": ["id"], "t": 1}}}},
    },
    "ours": 1,
}


@pytest.mark.parametrize(
    ("dialect", "method", "query", "body"),
    [(STRICT, "POST", True, True), (FATE, "GET", False, True), (KUSCIA, "GET", True, False), (V10, "GET", True, False)],
    ids=lambda value: getattr(value, "name", str(value)),
)
@pytest.mark.req("C-130", "C-132")
def test_how_status_all_goes_out(dialect: Any, method: str, query: bool, body: bool) -> None:
    found = way(dialect.control, "job.status_all", ROUTES["job.status_all"])
    assert (found.route.method, found.query, found.body) == (method, query, body)
    assert found.route.path == ROUTES["job.status_all"].path


@pytest.mark.parametrize("name", sorted(set(CONTROL) - {"job.status_all"}))
def test_all_else_is_as_the_standard_says(name: str) -> None:
    for dialect in PROFILES.values():
        if name not in dialect.control.instead:
            found = way(dialect.control, name, ROUTES[name])
            assert (found.route, found.query, found.body) == (ROUTES[name], False, True)


@pytest.mark.req("C-132")
def test_version_1_0() -> None:
    assert V10.success == {0, 200}
    assert channel_id(V10.control, "job-1") == "job-1"
    assert channel_id(STRICT.control, "job-1", "t-1") == "session_job-1"
    assert channel_id(PROFILES["kuscia"].control, "job-1", "t-1") == "session_t-1"


@pytest.mark.req("C-131")
def test_kuscia_takes_no_stop_of_one_task() -> None:
    assert not accepts(KUSCIA.control, "job.stop", {"job_id": "j", "task_name": "one"})
    assert not accepts(KUSCIA.control, "job.stop_all", {"job_id": "j", "task_name": "one"})
    assert not accepts(KUSCIA.control, "task.callback", {})
    assert accepts(KUSCIA.control, "job.stop", {"job_id": "j", "task_name": None})
    assert accepts(FATE.control, "job.stop", {"job_id": "j", "task_name": "one"})
    # It has no stop_all: its participants say stop.
    assert way(KUSCIA.control, "job.stop_all", ROUTES["job.stop_all"]).route == CONTROL["job.stop"]


@pytest.mark.req("C-131")
def test_a_job_for_kuscia_and_back() -> None:
    sent = to_peer(KUSCIA, "job.create", JOB)
    assert sent["dag"]["components"] == [{**NODE, "module_name": "psi", "code": "p"}]
    params = sent["config"]["task_params"]
    assert params == {"common": {"one": {"l": '[1, "x"]'}}, "host": {"0": {"one": {"k": '["id"]', "t": 1}}}}
    theirs = {"name": "one", "module_name": "psi", "code": "p", "version": "1"}
    back = from_peer(KUSCIA, "job.create", {"dag": {"components": [theirs, "odd"]}})
    assert back["dag"]["components"] == [{**theirs, **NODE}, "odd"]
    assert KUBERNETES_ID.fullmatch(KUSCIA.control.task_prefix + "0" * 32)
    assert KUBERNETES_ID.fullmatch(STRICT.control.task_prefix + "0" * 32) is None


@pytest.mark.req("C-131")
def test_an_answer_to_kuscia_has_nothing_but_the_states() -> None:
    told = {"job_status": "FINISHED", "job_outcome": "succeeded", "status": {"t": "SUCCESS"}}
    assert to_peer(KUSCIA, "job.status_all", told) == {"status": {"t": "SUCCESS"}}
    assert to_peer(KUSCIA, "job.status_all", {"job_id": "j"}) == {"job_id": "j"}


@pytest.mark.req("C-130")
def test_fate_gets_nothing_it_does_not_know_and_all_it_wants() -> None:
    sent = to_peer(FATE, "job.create", JOB)
    assert set(sent) == {"job_id", "flow_id", "dag", "config"}
    assert sent["config"]["job_params"] == {"common": {}}
    assert (sent["config"]["version"], sent["dag"]["version"]) == ("2.0.0", "2.0.0")
    callback = {"task_id": "t", "role": "host", "status": "FAILED", "result_code": "4003"}
    assert set(to_peer(FATE, "task.callback", callback)) == MEMBERS["task.callback"]
    assert from_peer(FATE, "job.status_all", {"job_status": "FAILED"}) == {"job_status": "FINISHED"}


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_odd_forms_are_left_to_whoever_checks_them(name: str) -> None:
    dialect = PROFILES[name]
    for dag in (None, 7, [], {"components": 7}, {"components": [None, []]}):
        for config in (None, 7, {"task_params": 7}, {"task_params": {"common": 7, "host": [], "x": None}}):
            for step in (to_peer, from_peer):
                step(dialect, "job.create", {"dag": dag, "config": config})
    assert to_peer(STRICT, "job.create", JOB) == JOB
