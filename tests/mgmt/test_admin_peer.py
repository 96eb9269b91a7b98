"""The admin routes that ask a partner, apply for flows and models, and reconcile a lost confirm."""

from typing import Any

import pytest

from gateway.errors import Kind, PeerError, ProtocolViolation, Refused
from gateway.mgmt_plane.rest.admin_peer import READING, PeerAdmin
from gateway.model import Audit, OutCall
from tests.mgmt.world import Node


def admin(node: Node) -> PeerAdmin:
    return PeerAdmin(services=node.services, client=node.client, entropy=node.entropy)


async def ask(node: Node, other: Node, route: Any, **query: Any) -> Any:
    return await admin(node).ask({"node_id": other.id}, {}, {"route": route, "query": query})


def test_every_reading_endpoint_of_part_1_can_be_asked() -> None:
    assert len(READING) == 13
    assert "node.contract.query" in READING
    assert not any(name.endswith((".apply", ".confirm", ".terminate", ".update")) for name in READING)


async def test_the_contract_is_filled_in(a: Node, b: Node, contract_id: str) -> None:
    dataset = await b.add_dataset("loans")
    assert (await ask(a, b, "dataset.pub.query", dataset_id=dataset.dataset_id))["name"] == "loans"
    assert (await ask(a, b, "node.query"))["node_id"] == b.id
    assert await ask(a, b, "node.health") == {"status": "ok"}
    assert await ask(a, b, "node.contract.query") == {"status": "APPROVED"}


@pytest.mark.parametrize(
    "route", ["node.contract.terminate", "job.create", "", None, ["node.health"], "job.audit.query"]
)
async def test_what_does_not_only_read_is_refused(a: Node, b: Node, contract_id: str, route: Any) -> None:
    with pytest.raises(ProtocolViolation):
        await ask(a, b, route)


async def test_a_partner_without_contract_is_not_asked(a: Node, b: Node) -> None:
    with pytest.raises(Refused) as caught:
        await ask(a, b, "node.health")
    assert caught.value.kind is Kind.NODE_UNKNOWN
    assert a.client.calls == []


async def test_what_the_partner_refuses_is_told(a: Node, b: Node, contract_id: str) -> None:
    with pytest.raises(PeerError):
        await ask(a, b, "dataset.pub.query", dataset_id="none")


async def test_a_model_is_applied_for_and_approved(a: Node, b: Node, contract_id: str) -> None:
    shown = await admin(a).apply(
        {}, {}, {"kind": "model", "node_id": b.id, "subject": "md-1", "body": {"apply_project_id": "pj-1"}}
    )
    await a.flush()
    await b.admin_call("POST", f"/v1/admin/audits/{a.id}/{shown['audit_id']}/approve")
    await b.flush()
    assert (await a.only_audit()).status.value == "APPROVED"


@pytest.mark.req("M-074")
async def test_a_flow_is_sent_under_the_name_of_a_12(a: Node, b: Node, contract_id: str) -> None:
    more = {"name": "f", "dag": {}, "conf": {"version": "2.0.0"}}
    await admin(a).apply({}, {}, {"kind": "flow", "node_id": b.id, "subject": "fl-1", "body": more})
    (call,) = await a.run(lambda tx: tx.select(OutCall, route="flow.audit.apply"))
    assert call.body["config"] == {"version": "2.0.0"}
    assert "conf" not in call.body


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "job", "node_id": "B", "subject": "x"},
        {"kind": "nothing", "node_id": "B", "subject": "x"},
        {"node_id": "B", "subject": "x"},
        {"kind": "model", "subject": "x"},
        {"kind": "model", "node_id": "B", "subject": 1},
        {"kind": "model", "node_id": "B", "subject": "x", "body": []},
    ],
)
async def test_a_wrong_application_is_refused(a: Node, b: Node, contract_id: str, body: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolation):
        await admin(a).apply({}, {}, body)
    assert await a.run(lambda tx: tx.count(Audit)) == 0


async def test_a_lost_confirm_is_reconciled(a: Node, b: Node, contract_id: str) -> None:
    shown = await admin(a).apply(
        {}, {}, {"kind": "model", "node_id": b.id, "subject": "md-1", "body": {"apply_project_id": "pj-1"}}
    )
    await a.flush()
    await b.admin_call("POST", f"/v1/admin/audits/{a.id}/{shown['audit_id']}/approve")  # and never flushed
    found = await admin(a).reconcile({"applicant": a.id, "audit_id": shown["audit_id"]}, {}, {})
    assert (found["status"], found["reported"]) == ("APPROVED", "APPROVED")
    with pytest.raises(Refused):
        await admin(b).reconcile({"applicant": a.id, "audit_id": shown["audit_id"]}, {}, {})
