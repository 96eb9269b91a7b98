"""How much a partner, or a stranger, can make us keep; and messages in every order, repeated, from the wrong node."""

import itertools
from typing import Any

import pytest

from gateway.errors import WIRE, Kind
from gateway.model import Audit, Contract, Grant, Limits, OutCall, Project
from specs.states import ApprovalState, AuditKind
from tests.mgmt.world import Node, World

COMPONENT = {"name": "p", "componentName": "psi", "provider": "x", "version": "1", "input": [], "output": []}

JOB = {"flow_id": "fl-1", "project_id": "pj", "name": "j"}


def application(kind: AuditKind, number: int, contract_id: str) -> dict[str, Any]:
    """An apply body of `kind`."""
    body: dict[str, Any] = {"audit_id": f"au-{kind}-{number}"}
    match kind:
        case AuditKind.DATASET:
            return {**body, "contract_id": contract_id, "dataset_id": "ds"}
        case AuditKind.PROJECT:
            return {
                **body,
                "contract_id": contract_id,
                "project_id": f"pj-{number}",
                "name": "p",
                "type": "MPC",
                "datasets": [{"dataset_id": "ds", "name": "ds", "owner": "JGB"}],
            }
        case AuditKind.FLOW:
            dag = {"version": "2.0", "components": [COMPONENT]}
            return {**body, "contract_id": contract_id, "flow_id": f"fl-{number}", "name": "f", "dag": dag}
        case AuditKind.MODEL:
            return {**body, "contract_id": contract_id, "model_id": f"md-{number}", "apply_project_id": "pj"}
        case AuditKind.JOB:
            conf = {"initiator": {"role": "guest", "node_id": "A"}, "role": {"guest": ["A"], "host": ["B"]}}
            dag = {"version": "2.0", "components": [COMPONENT]}
            return {**body, "job_id": f"job-{number}", **JOB, "conf": conf, "dag": dag}


async def kept(node: Node) -> list[Any]:
    """Everything that a partner could change."""
    found: list[Any] = []
    for record in (Audit, Contract, Grant, Project, OutCall):
        found += await node.run(lambda tx, record=record: list(tx.select(record)))
    return found


@pytest.mark.parametrize("kind", list(AuditKind))
async def test_a_partner_can_file_so_many_of_each_kind_and_no_more(world: World, kind: AuditKind) -> None:
    """Also where it withdraws each: what has ended counts, too."""
    a, b = world.node("A"), world.node("B", limits=Limits(audits_per_kind=5, request_attempts=1))
    contract_id = (await world.partners(a, b)).contract_id
    await b.add_dataset("ds")
    verbs = [f"{kind}.audit.apply", f"{kind}.audit.terminate"]
    for number in range(5):
        body = application(kind, number, contract_id)
        assert (await a.send(b, verbs[0], body))["code"] == 0
        if number % 2:
            assert (await a.send(b, verbs[1], {"audit_id": body["audit_id"]}))["code"] == 0
    before = await kept(b)
    for number in range(5, 8):
        answer = await a.send(b, verbs[0], application(kind, number, contract_id))
        assert answer["code"] == WIRE[Kind.TOO_MANY].code
    assert await kept(b) == before
    # A repeat of what is known is no growth.
    assert (await a.send(b, verbs[0], application(kind, 0, contract_id)))["code"] == 0
    assert len([each for each in await kept(b) if isinstance(each, Audit)]) == 5


async def test_who_applies_and_withdraws_for_ever_fills_nothing(world: World) -> None:
    a = world.node("A")
    b = world.node("B", limits=Limits(ended_contracts=3, unsigned_per_minute=10_000, request_attempts=1))
    for _ in range(6):
        contract = await world.apply(a, b)
        ended = await a.send(b, "node.contract.terminate", {"contract_id": contract.contract_id}, cert=None)
        assert ended["code"] == 0
    contracts = await b.run(lambda tx: tx.select(Contract))
    assert len(contracts) == 3
    assert contract.contract_id in {each.contract_id for each in contracts}


MESSAGES = ("apply", "confirm yes", "confirm no", "terminate")
"""What B can send to A about the audit that A applied for, and A to B."""
A_, Y, N, T = ApprovalState.APPLIED, ApprovalState.APPROVED, ApprovalState.REJECTED, ApprovalState.TERMINATED
AFTER: dict[tuple[ApprovalState | None, str], ApprovalState | None] = {
    (None, "apply"): A_,
    (A_, "confirm yes"): Y,
    (A_, "confirm no"): N,
    (A_, "terminate"): T,
    (Y, "terminate"): T,
}
"""Of the applicant's record for confirm and terminate, of the holder's for apply and terminate."""
REPEATS = {(A_, "apply"), (Y, "apply"), (N, "apply"), (Y, "confirm yes"), (N, "confirm no"), (T, "terminate")}


@pytest.mark.parametrize("order", list(itertools.permutations(MESSAGES, 3)))
async def test_every_order_of_messages_does_what_the_table_says(
    world: World, a: Node, b: Node, order: tuple[str, ...]
) -> None:
    """Sent to the applicant, each twice: what has no place in the present state is refused and changes nothing."""
    contract = await world.partners(a, b)
    await a.run(
        lambda tx: a.audits.apply(
            tx,
            kind=AuditKind.MODEL,
            contract=contract,
            subject="md-1",
            body={"apply_project_id": "pj"},
            trace_id="tr-x",  # type: ignore[arg-type]
        )
    )
    audit = await a.only_audit()
    bodies = {
        "apply": ("model.audit.apply", dict(audit.body)),
        "confirm yes": ("model.audit.confirm", {"audit_id": audit.audit_id, "status": "APPROVED"}),
        "confirm no": ("model.audit.confirm", {"audit_id": audit.audit_id, "status": "REJECTED"}),
        "terminate": ("model.audit.terminate", {"audit_id": audit.audit_id}),
    }
    state: ApprovalState | None = A_
    for message in (each for name in order for each in (name, name)):
        route, body = bodies[message]
        before = await kept(a)
        code = (await b.send(a, route, body))["code"]
        new = None if message == "apply" else AFTER.get((state, message))
        if new is not None:
            assert code == 0
            state = new
        else:
            # An application under the id of one of ours is never one of B's.
            assert (code == 0) == (message != "apply" and (state, message) in REPEATS), (message, state, code)
            assert await kept(a) == before
        assert (await a.only_audit()).status is state


@pytest.mark.req("M-033")
@pytest.mark.parametrize("kind", list(AuditKind))
async def test_a_third_node_with_a_valid_signature_reaches_nobody_elses_audit(
    world: World, a: Node, b: Node, c: Node, kind: AuditKind
) -> None:
    """C is a partner of both and knows every id; it can neither confirm, nor end, nor see what A and B have (A-20)."""
    contract_id = (await world.partners(a, b)).contract_id
    await world.partners(c, a)
    await world.partners(c, b)
    await b.add_dataset("ds")
    body = application(kind, 1, contract_id)
    assert (await a.send(b, f"{kind}.audit.apply", body))["code"] == 0
    await a.run(
        lambda tx: a.audits.apply(
            tx,
            kind=kind,
            contract=next(each for each in tx.select(Contract, peer_node_id="B")),
            subject="s-1",
            body={name: value for name, value in body.items() if name not in ("audit_id", "contract_id")},
            trace_id="tr-x",  # type: ignore[arg-type]
        )
    )
    ours = (await a.run(lambda tx: tx.select(Audit)))[0]
    before = (await kept(a), await kept(b))
    for node, audit_id in ((a, ours.audit_id), (b, body["audit_id"])):
        for status in ("APPROVED", "REJECTED"):
            answer = await c.send(node, f"{kind}.audit.confirm", {"audit_id": audit_id, "status": status})
            assert answer["code"] == WIRE[Kind.NOT_FOUND].code
        answer = await c.send(node, f"{kind}.audit.terminate", {"audit_id": audit_id})
        assert answer["code"] == WIRE[Kind.NOT_FOUND].code
        if kind is not AuditKind.JOB:
            answer = await c.send(node, f"{kind}.audit.query", {"audit_id": audit_id})
            assert answer["code"] in (WIRE[Kind.NOT_FOUND].code, WIRE[Kind.MALFORMED].code)
    assert (await kept(a), await kept(b)) == before
