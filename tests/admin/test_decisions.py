"""Four eyes, and two admins who decide at once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.mgmt_plane.service.decisions import KINDS
from gateway.model import Audit, Decision, Grant, NodeId, OutCall
from specs.admin import Role
from specs.states import ApprovalState
from tests.admin.world import Listener, listening
from tests.mgmt.world import Node, World


@pytest.fixture
async def holder(world: World) -> AsyncIterator[tuple[Node, Listener, Node]]:
    """B, which has an application for a dataset to decide on under four eyes; its listener; A, which applied."""
    a = world.node("A")
    b = world.node("B", four_eyes=frozenset({"dataset", "contract"}))
    async with listening(b, four_eyes=True) as listener:
        for name in ("ada", "bob"):
            await listener.make(name, Role.ADMIN)
        await listener.make("otto", Role.OPERATOR)
        yield b, listener, a


async def partnership(b: Node, listener: Listener, a: Node) -> str:
    made = await a.admin_call(
        "POST",
        "/v1/admin/partners/apply",
        {"address": b.identity.address, "node_id": "B", "fingerprint": b.pki.fingerprint},
    )
    for who in ("ada", "bob"):
        status, _ = await listener.name(who, "partner.approve", {}, contract_id=made["contract_id"])
        assert status == 200
    await b.flush()
    return str(made["contract_id"])


async def application(b: Node, a: Node) -> Audit:
    await b.add_dataset("ds-1")
    await a.admin_call("POST", "/v1/admin/datasets/apply", {"node_id": "B", "dataset_id": "ds-1"})
    await a.flush()
    return await b.only_audit()


def place(audit: Audit) -> dict[str, str]:
    return {"applicant": audit.applicant, "audit_id": audit.audit_id}


async def test_two_must_agree(holder: tuple[Node, Listener, Node]) -> None:
    b, listener, a = holder
    contract_id = await partnership(b, listener, a)
    audit = await application(b, a)
    at = place(audit)
    _, waiting = await listener.name("otto", "pending.list")
    assert [(each["kind"], each["approvals_needed"], each["decision"]) for each in waiting] == [("dataset", 2, None)]
    status, answer = await listener.name("ada", "audit.approve", {"times_limit": 3}, **at)
    assert (status, answer["status"]) == (200, "APPLIED")
    said = {"approve": True, "by": "ada", "second": "", "terms": {"times_limit": 3}, "final": False}
    assert {name: value for name, value in answer["decision"].items() if name != "at"} == said
    # Nothing has happened yet, and everybody sees who said yes.
    assert await b.run(lambda tx: (tx.count(Grant), tx.count(OutCall, route="dataset.audit.confirm"))) == (0, 0)
    _, waiting = await listener.name("otto", "pending.list")
    assert (waiting[0]["approvals_needed"], waiting[0]["decision"]["by"]) == (1, "ada")
    _, listed = await listener.name("otto", "audit.list")
    assert listed[0]["decision"]["by"] == "ada"
    # The same person again, the token file, an operator, other terms: no.
    for who, body, code in (
        ("ada", {}, 409),
        ("ada", {"times_limit": 3}, 409),
        ("machine", {}, 403),
        ("otto", {}, 403),
        ("bob", {"times_limit": 4}, 409),
    ):
        status, answer = await listener.name(who, "audit.approve", body, **at)
        assert (status, answer["code"]) == (code, code), who
    status, answer = await listener.name("bob", "audit.approve", {}, **at)
    assert (status, answer["status"]) == (200, "APPROVED")
    assert (answer["decision"]["by"], answer["decision"]["second"]) == ("ada", "bob")
    grants = await b.run(lambda tx: tx.select(Grant))
    assert [each.times_limit for each in grants] == [3]
    assert (await listener.name("otto", "pending.list"))[1] == []
    entries = await b.trail.entries(first=1, last=500)
    told = [(each.event, each.who) for each in entries if each.subject == f"dataset:{audit.key()}"]
    assert told == [("decision.first", "ada"), ("decision.final", "bob")]
    assert [each.who for each in entries if each.event == "audit.approved"] == ["bob"]
    assert [each.who for each in entries if each.event == "contract.approved"] == ["bob"]
    assert contract_id


async def test_one_no_is_final(holder: tuple[Node, Listener, Node]) -> None:
    b, listener, a = holder
    await partnership(b, listener, a)
    at = place(await application(b, a))
    assert (await listener.name("ada", "audit.approve", {}, **at))[0] == 200
    status, answer = await listener.name("bob", "audit.reject", {}, **at)
    assert (status, answer["status"], answer["decision"]["by"]) == (200, "REJECTED", "bob")
    status, answer = await listener.name("ada", "audit.approve", {}, **at)
    assert (status, answer["code"]) == (409, 409)
    assert "bob" in answer["msg"]
    assert await b.run(lambda tx: tx.count(Grant)) == 0


async def test_what_cannot_be_done_does_not_wait_for_a_second(holder: tuple[Node, Listener, Node]) -> None:
    b, listener, a = holder
    await partnership(b, listener, a)
    at = place(await application(b, a))
    status, _ = await listener.name("ada", "audit.approve", {"columns": ["no-such-column"]}, **at)
    assert status == 404
    assert await b.run(lambda tx: tx.count(Decision, final=False)) == 0
    assert await b.run(lambda tx: tx.count(Grant)) == 0
    assert (await listener.name("ada", "audit.approve", {}, **at))[0] == 200


async def test_a_kind_that_is_not_named_needs_one(holder: tuple[Node, Listener, Node]) -> None:
    b, listener, a = holder
    await partnership(b, listener, a)
    await a.admin_call("POST", "/v1/admin/projects", {"name": "p", "type": "PSI", "datasets": {"B": [], "A": []}})
    await a.flush()
    at = place(await b.only_audit())
    # The token file may, where one is enough.
    status, answer = await listener.name("machine", "audit.approve", {}, **at)
    assert (status, answer["status"], answer["decision"]["final"]) == (200, "APPROVED", True)


@pytest.mark.parametrize("verbs", [("approve", "reject"), ("approve", "approve"), ("reject", "reject")])
async def test_two_decide_at_once(world: World, verbs: tuple[str, str]) -> None:
    """Exactly one decision applies; the other is told so. The terms of the loser are not applied either."""
    a, b = world.node("A"), world.node("B")
    await world.partners(a, b)
    async with listening(b) as listener:
        for name in ("ada", "bob"):
            await listener.make(name, Role.ADMIN)
        at = place(await application(b, a))
        calls = [
            listener.name(who, f"audit.{verb}", {"times_limit": limit} if verb == "approve" else {}, **at)
            for who, verb, limit in (("ada", verbs[0], 1), ("bob", verbs[1], 2))
        ]
        answers: list[tuple[int, Any]] = await asyncio.gather(*calls)
        assert sorted(status for status, _ in answers) == [200, 409]
        first = next(number for number, (status, _) in enumerate(answers) if status == 200)
        lost = answers[1 - first][1]
        assert lost["code"] == 409
        assert ("ada", "bob")[first] in lost["msg"]
        decided = await b.only_audit()
        assert decided.status is (ApprovalState.APPROVED if verbs[first] == "approve" else ApprovalState.REJECTED)
        limits = [grant.times_limit for grant in await b.run(lambda tx: tx.select(Grant))]
        assert limits == ([first + 1] if verbs[first] == "approve" else [])
        confirms = await b.run(lambda tx: tx.count(OutCall, route="dataset.audit.confirm"))
        assert confirms == 1
        # Whoever won may ask again, e.g. because the answer was lost: the same, nothing more.
        who, verb = ("ada", "bob")[first], verbs[first]
        body = {"times_limit": first + 1} if verb == "approve" else {}
        assert (await listener.name(who, f"audit.{verb}", body, **at))[0] == 200
        assert await b.run(lambda tx: tx.count(OutCall, route="dataset.audit.confirm")) == 1


async def test_many_first_words_at_once_are_one(holder: tuple[Node, Listener, Node]) -> None:
    b, listener, a = holder
    await partnership(b, listener, a)
    at = place(await application(b, a))
    answers = await asyncio.gather(
        *(listener.name(who, "audit.approve", {}, **at) for who in ("ada", "bob") for _ in range(4))
    )
    good = [answer for status, answer in answers if status == 200]
    assert [each["status"] for each in good].count("APPLIED") == 1
    assert (await b.only_audit()).status is ApprovalState.APPROVED
    assert len(await b.run(lambda tx: tx.select(Grant))) == 1
    decision = (await b.run(lambda tx: tx.select(Decision, kind="dataset")))[0]
    assert {decision.by, decision.second} == {"ada", "bob"}


def test_every_kind_may_be_named() -> None:
    assert set(KINDS) == {"contract", "dataset", "project", "flow", "job", "model"}
    assert NodeId("A")
