"""Comparing with partners: lost confirms, given-up calls, a partner whose database is an old one again."""

from typing import Any

import pytest

from gateway.model import Audit, CallState, Contract, Grant, OutCall
from specs.states import ApprovalState
from tests.mgmt.world import Node, World


async def drop_calls(node: Node, state: CallState = CallState.DUE) -> int:
    """As if they had been given up long ago and forgotten."""
    calls = await node.run(lambda tx: tx.select(OutCall, state=state))
    for call in calls:
        await node.run(lambda tx, call=call: tx.delete(call))
    return len(calls)


async def copy(node: Node) -> dict[str, Any]:
    """An image of a node's approvals, for `restore`."""
    return {
        kind.__name__: list(await node.run(lambda tx, kind=kind: tx.select(kind))) for kind in (Contract, Audit, Grant)
    }


async def restore(node: Node, image: dict[str, Any]) -> None:
    """The old records in place of the new ones."""
    for kind in (Contract, Audit, Grant):
        for record in await node.run(lambda tx, kind=kind: tx.select(kind)):
            await node.run(lambda tx, record=record: tx.delete(record))
        for record in image[kind.__name__]:
            await node.run(lambda tx, record=record: tx.insert(record))
    await drop_calls(node)


async def settle(*nodes: Node) -> None:
    """Both compare and deliver until nothing is left to do."""
    for _ in range(3):
        for node in nodes:
            await node.reconciler.round()
            await node.flush()


async def states(*nodes: Node) -> list[ApprovalState | None]:
    found = [await node.run(lambda tx: tx.select(Audit)) for node in nodes]
    return [each[0].status if each else None for each in found]


async def applied(world: World, a: Node, b: Node) -> Audit:
    await world.partners(a, b)
    await b.add_dataset("ds")
    await a.admin_call("POST", "/v1/admin/datasets/apply", {"node_id": "B", "dataset_id": "ds"})
    await a.flush()
    return await b.only_audit()


async def decide(node: Node, audit: Audit, verb: str) -> None:
    await node.admin_call("POST", f"/v1/admin/audits/{audit.applicant}/{audit.audit_id}/{verb}")


@pytest.mark.parametrize("verb", ["approve", "reject"])
@pytest.mark.parametrize("who", ["A", "B"])
async def test_a_lost_confirm_is_repaired_from_either_side(world: World, a: Node, b: Node, verb: str, who: str) -> None:
    audit = await applied(world, a, b)
    await decide(b, audit, verb)
    assert await drop_calls(b) == 1
    await settle(a if who == "A" else b)
    await b.flush()
    expected = ApprovalState.APPROVED if verb == "approve" else ApprovalState.REJECTED
    assert await states(a, b) == [expected, expected]
    if verb == "approve":
        held = await a.only_audit()
        assert held.permit is not None
        assert held.permit == (await b.only_audit()).permit
    assert len(await b.run(lambda tx: tx.select(Grant))) == (verb == "approve")


async def test_a_lost_application_is_made_again(world: World, a: Node, b: Node) -> None:
    await applied(world, a, b)
    await a.reconciler.round()  # B answers this query: now its word that it knows nothing counts
    image = await copy(b)
    image["Audit"] = []
    await restore(b, image)
    await settle(a)
    assert await states(a, b) == [ApprovalState.APPLIED, ApprovalState.APPLIED]


async def test_a_lost_terminate_is_repaired(world: World, a: Node, b: Node) -> None:
    audit = await applied(world, a, b)
    await decide(b, audit, "approve")
    await b.flush()
    await decide(b, audit, "terminate")
    await drop_calls(b)
    assert await states(a, b) == [ApprovalState.APPROVED, ApprovalState.TERMINATED]
    await settle(a)
    assert await states(a, b) == [ApprovalState.TERMINATED, ApprovalState.TERMINATED]


async def test_a_lost_contract_confirm_and_terminate(world: World, a: Node, b: Node) -> None:
    contract = await world.apply(a, b)
    await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/approve")
    await drop_calls(b)
    assert (await a.contract(b)).status is ApprovalState.APPLIED
    await settle(b)
    assert (await a.contract(b)).status is ApprovalState.APPROVED
    await a.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/terminate")
    await drop_calls(a)
    await settle(b)
    assert (await b.contract(a)).status is ApprovalState.TERMINATED


async def test_a_holder_with_an_old_database_is_not_believed_to_have_approved(world: World, a: Node, b: Node) -> None:
    """Its grant is gone, so the applicant's permit opens nothing: both close it, and the applicant asks anew."""
    audit = await applied(world, a, b)
    image = await copy(b)
    await decide(b, audit, "approve")
    await b.flush()
    assert await states(a, b) == [ApprovalState.APPROVED, ApprovalState.APPROVED]
    await restore(b, image)
    assert await states(a, b) == [ApprovalState.APPROVED, ApprovalState.APPLIED]
    await settle(b, a)
    assert await states(a, b) == [ApprovalState.TERMINATED, ApprovalState.TERMINATED]


async def test_a_holder_that_forgot_everything(world: World, a: Node, b: Node) -> None:
    audit = await applied(world, a, b)
    await decide(b, audit, "approve")
    await b.flush()
    image = await copy(b)
    await a.reconciler.round()
    image["Audit"] = image["Grant"] = []
    await restore(b, image)
    await settle(a)
    assert await states(a, b) == [ApprovalState.TERMINATED, None]


async def test_unknown_counts_only_from_a_partner_that_answers_such_queries(world: World, a: Node, b: Node) -> None:
    """An older product may not have the endpoint; its 404 must end nothing."""
    audit = await applied(world, a, b)
    await decide(b, audit, "approve")
    await b.flush()
    image = await copy(b)
    image["Audit"] = image["Grant"] = []
    await restore(b, image)
    await settle(a)
    assert await states(a, b) == [ApprovalState.APPROVED, None]


async def test_an_applicant_with_an_old_database(world: World, a: Node, b: Node) -> None:
    audit = await applied(world, a, b)
    image = await copy(a)
    await decide(b, audit, "approve")
    await b.flush()
    permit = (await a.only_audit()).permit
    await restore(a, image)
    assert await states(a, b) == [ApprovalState.APPLIED, ApprovalState.APPROVED]
    await settle(b)
    assert await states(a, b) == [ApprovalState.APPROVED, ApprovalState.APPROVED]
    assert (await a.only_audit()).permit == permit


async def test_a_partnership_that_the_partner_has_forgotten_is_left_to_the_admins(
    world: World, a: Node, b: Node
) -> None:
    await world.partners(a, b)
    await a.reconciler.round()
    contract = await b.contract(a)
    await b.run(lambda tx: tx.delete(contract))
    await settle(a)
    assert (await a.contract(b)).status is ApprovalState.APPROVED
    assert a.journal.of("reconcile.differs")[-1]["theirs"] == "unknown"


async def test_what_is_under_way_is_left_alone(world: World, a: Node, b: Node) -> None:
    audit = await applied(world, a, b)
    await decide(b, audit, "approve")
    before = await b.run(lambda tx: tx.select(OutCall, state=CallState.DUE))
    await b.reconciler.round()
    assert await b.run(lambda tx: tx.select(OutCall, state=CallState.DUE)) == before


async def test_strangers_that_applied_are_not_called(world: World, a: Node, b: Node) -> None:
    await world.apply(a, b)
    b.client.calls.clear()
    assert await b.reconciler.round() == {"partners": 0, "compared": 0}
    assert b.client.calls == []


async def test_a_round_is_bounded_and_the_next_goes_on(
    world: World, a: Node, b: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await applied(world, a, b)
    for _ in range(4):
        await a.admin_call("POST", "/v1/admin/datasets/apply", {"node_id": "B", "dataset_id": "ds"})
    await a.flush()
    monkeypatch.setattr("gateway.runtime.reconcile.AUDITS_A_ROUND", 2)
    a.client.calls.clear()
    for expected in (3, 3, 2, 3):  # the contract, and 2, 2, 1, 2 audits
        assert (await a.admin_call("POST", "/v1/admin/reconcile"))["compared"] == expected
    asked = [name for name, _ in a.client.calls if name == "dataset.audit.query"]
    assert len(asked) == 7


async def test_a_partner_that_is_down_ends_its_part_of_the_round(world: World, a: Node, b: Node) -> None:
    await applied(world, a, b)
    b.up = False
    assert await a.reconciler.round() == {"partners": 1, "compared": 0}
