"""What a receipt may say, who may sign it, and whose word is not taken."""

from typing import Any

import pytest

from gateway.errors import ProtocolViolation
from gateway.mgmt_plane.core.receipt import CLOCKS_MS, check_receipt, differences, judge, receipt_text
from tests.mgmt.world import NOW
from tests.trail.test_verify import signer


def stated(**changes: Any) -> dict[str, Any]:
    return {
        "job_id": "job-1",
        "digest": "d" * 64,
        "project_id": "p",
        "initiator": "A",
        "scheduler": "A",
        "participants": ["A", "B"],
        "outcome": "succeeded",
        "started": NOW,
        "finished": NOW + 1000,
        "tasks": {"psi_1": "task_1"},
        "datasets": {"A": ["d1"], "B": ["d2"]},
        **changes,
    }


def signed(value: dict[str, Any], node: str, *, claims: str | None = None) -> dict[str, Any]:
    by = signer(node)
    name = claims or node
    return {
        "node_id": name,
        "at": NOW,
        "auth_type": by.auth_type.value,
        "credential": by.credential,
        "signature": by.sign(receipt_text(value, node_id=name, at=NOW)),
    }


def test_signatures_stand_each_by_itself() -> None:
    value = stated()
    both = [signed(value, "A"), signed(value, "B")]
    assert [each.problem for each in judge(value, both)] == ["", ""]
    trusted = frozenset({signer("A").fingerprint})
    assert [bool(each.problem) for each in judge(value, both, trusted=trusted)] == [False, True]
    assert all(each.problem for each in judge(stated(outcome="failed"), both))
    assert "no part" in judge(value, [signed(value, "C")])[0].problem
    assert judge(value, [signed(value, "C", claims="B")])[0].problem  # C's certificate names C
    assert judge(value, [{**both[0], "at": NOW + 1}])[0].problem
    assert judge(value, [{**both[0], "node_id": "B"}])[0].problem
    assert judge(value, [{**both[0], "at": 1 << 52}])[0].problem


def test_what_contradicts_our_records() -> None:
    own = stated()
    assert differences(own, stated(finished=NOW + 1000 + CLOCKS_MS, started=None)) == []
    assert differences(own, stated(tasks={})) == []  # the other had no share in it
    for name, value in (
        ("outcome", "failed"),
        ("digest", "e" * 64),
        ("participants", ["A"]),
        ("scheduler", "B"),
        ("datasets", {"A": ["d1"]}),
        ("tasks", {"psi_1": "task_2"}),
        ("finished", NOW + 1001 + CLOCKS_MS),
    ):
        assert len(differences(own, stated(**{name: value}))) == 1, name


def test_who_heard_late_signs_the_schedulers_time() -> None:
    own = stated(finished=NOW + 3_600_000)
    assert differences(own, stated())
    assert differences(own, stated(), told_late=True) == []
    assert differences(own, stated(finished=NOW - CLOCKS_MS - 1), told_late=True)
    assert differences(own, stated(finished=NOW + 3_600_001 + CLOCKS_MS), told_late=True)
    assert differences({**own, "started": None}, stated(), told_late=True) == []


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"receipt": {}, "signatures": []},
        {"receipt": stated(more=1), "signatures": []},
        {"receipt": stated(participants="A"), "signatures": []},
        {"receipt": stated(finished=True), "signatures": []},
        {"receipt": stated(finished=1 << 60), "signatures": []},
        {"receipt": stated(tasks=[]), "signatures": []},
        {"receipt": stated(tasks={"x": 1}), "signatures": []},
        {"receipt": stated(datasets={"A": "d"}), "signatures": []},
        {"receipt": stated(outcome=1), "signatures": []},
        {"receipt": stated(), "signatures": {}},
        {"receipt": stated(), "signatures": [{}]},
        {"receipt": stated(), "signatures": [{**signed(stated(), "A"), "at": "1"}]},
        {"receipt": stated(), "signatures": [{**signed(stated(), "A"), "signature": 1}]},
        {"receipt": stated(), "signatures": [signed(stated(), "A")] * 65},
    ],
)
def test_what_is_no_receipt(value: Any) -> None:
    with pytest.raises(ProtocolViolation):
        check_receipt(value)
