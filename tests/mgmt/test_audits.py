"""Audits of all kinds, grants and permits, between nodes that talk through their real edges."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.auth.tokens import token_digest
from gateway.errors import WIRE, CallerError, GatewayError, Kind, Refused
from gateway.mgmt_plane.core.acl import parse_token_set
from gateway.mgmt_plane.core.profile import STRICT
from gateway.mgmt_plane.rest import handlers
from gateway.mgmt_plane.service.grants import DatasetUse
from gateway.model import (
    Audit,
    AuditId,
    CallState,
    DatasetId,
    Direction,
    Grant,
    GrantUse,
    JobId,
    Json,
    Limits,
    NodeId,
    OutCall,
    Permit,
    Project,
)
from gateway.ports import Tx
from specs.routes import ROUTES
from specs.states import ApprovalState, AuditKind
from tests.mgmt.world import Node, World, trace

DAG = {"version": "2.0", "components": [{"name": "psi_1", "componentName": "psi"}]}
CONF = {"version": "2.0.0", "initiator": {"role": "guest", "node_id": "A"}}


def code(kind: Kind) -> int:
    return WIRE[kind].code


def bodies(contract_id: str) -> dict[AuditKind, dict[str, Any]]:
    """A right apply body of each kind."""
    return {
        AuditKind.DATASET: {"audit_id": "au-1", "contract_id": contract_id, "dataset_id": "ds"},
        AuditKind.PROJECT: {"audit_id": "au-1", "contract_id": contract_id, "project_id": "pj", "name": "p"},
        AuditKind.FLOW: {"audit_id": "au-1", "flow_id": "fl", "name": "f", "dag": DAG},
        AuditKind.JOB: {
            "audit_id": "au-1",
            "job_id": "job-1",
            "flow_id": "fl",
            "project_id": "pj",
            "name": "j",
            "dag": DAG,
            "conf": CONF,
        },
        AuditKind.MODEL: {"audit_id": "au-1", "model_id": "md", "apply_project_id": "pj"},
    }


REQUIRED = {
    AuditKind.DATASET: ["audit_id", "contract_id", "dataset_id"],
    AuditKind.PROJECT: ["audit_id", "contract_id", "name", "project_id"],
    AuditKind.FLOW: ["audit_id", "dag", "flow_id", "name"],
    AuditKind.JOB: ["audit_id", "job_id", "flow_id", "name", "project_id", "dag", "conf"],
    AuditKind.MODEL: ["apply_project_id", "audit_id", "model_id"],
}

KINDS = list(AuditKind)


@pytest.fixture
async def ds(b: Node, contract_id: str) -> str:
    await b.add_dataset("ds")
    return "ds"


async def status(node: Node, key: str) -> ApprovalState:
    audit = await node.run(lambda tx: tx.get(Audit, key))
    assert audit is not None
    return audit.status


async def asked(a: Node, b: Node, kind: AuditKind, contract_id: str) -> str:
    """A asks B; the key of the audit."""
    body = bodies(contract_id)[kind]
    member = {AuditKind.MODEL: "model_id"}.get(kind, f"{kind.value}_id")
    subject = body.pop(member)
    del body["audit_id"]

    def work(tx: Tx) -> Audit:
        contract = a.partners.contract_with(tx, b.id)
        return a.audits.apply(tx, kind=kind, contract=contract, subject=subject, body=body, trace_id=trace())

    audit = await a.run(work)
    await a.flush()
    return audit.key()


@pytest.mark.req("M-045", "M-050", "M-060", "M-062", "M-068")
@pytest.mark.parametrize("kind", KINDS)
async def test_apply_needs_its_members(a: Node, b: Node, contract_id: str, ds: str, kind: AuditKind) -> None:
    body = bodies(contract_id)[kind]
    for member in REQUIRED[kind]:
        lacking = {name: value for name, value in body.items() if name != member}
        answer = await a.send(b, f"{kind.value}.audit.apply", lacking)
        assert answer["code"] == 400
        assert f"{member} is missing" in answer["msg"]
    assert await b.run(lambda tx: tx.count(Audit)) == 0
    assert (await a.send(b, f"{kind.value}.audit.apply", body))["code"] == 0
    audit = await b.only_audit()
    assert (audit.key(), audit.status, audit.body) == ("A/au-1", ApprovalState.APPLIED, body)


@pytest.mark.req("M-047", "M-051", "M-052", "M-055", "M-061", "M-064", "M-069")
@pytest.mark.parametrize("kind", KINDS)
async def test_the_whole_life(a: Node, b: Node, contract_id: str, ds: str, kind: AuditKind) -> None:
    key = await asked(a, b, kind, contract_id)
    audit_id = {"audit_id": key.partition("/")[2]}

    async def both(wanted: str) -> None:
        assert (await status(a, key), await status(b, key)) == (wanted, wanted)
        if kind is not AuditKind.JOB:
            answer = await a.send(b, f"{kind.value}.audit.query", audit_id)
            assert (answer["code"], answer["data"]) == (0, {"status": wanted})

    await both("APPLIED")
    permit = None if kind is AuditKind.DATASET else {"token": "tk", **NAMES}
    await b.run(lambda tx: b.audits.decide(tx, key, approve=True, permit=with_resource(permit, kind)))
    await b.flush()
    await both("APPROVED")
    sent = (await b.run(lambda tx: tx.select(OutCall, route=f"{kind.value}.audit.confirm")))[0].body["resource_permit"]
    assert isinstance(sent, str if kind in (AuditKind.JOB, AuditKind.MODEL) else Mapping)  # A-06
    held = await a.run(lambda tx: a.audits.get(tx, "A", audit_id["audit_id"]))
    assert held.permit is not None
    assert held.permit == (json.loads(sent) if isinstance(sent, str) else sent)
    assert (await a.send(b, f"{kind.value}.audit.terminate", audit_id))["code"] == 0
    assert (await a.send(b, f"{kind.value}.audit.terminate", audit_id))["code"] == 0
    assert (await b.send(a, f"{kind.value}.audit.terminate", audit_id))["code"] == 0
    await both("TERMINATED")
    again = await b.send(a, f"{kind.value}.audit.confirm", {**audit_id, "status": "APPROVED"})
    assert again["code"] == code(Kind.ILLEGAL_TRANSITION)
    await both("TERMINATED")


NAMES: dict[str, Any] = {
    "resource_level": 2,
    "resource_type": "X",
    "resource_node_id": "B",
    "resource_inst_id": "JGB",
    "request_node_id": "A",
    "request_inst_id": "JGA",
}


def with_resource(permit: Json | None, kind: AuditKind) -> Json | None:
    ids = {AuditKind.PROJECT: "pj", AuditKind.FLOW: "fl", AuditKind.JOB: "job-1", AuditKind.MODEL: "md"}
    return None if permit is None else {**permit, "resource_id": ids[kind]}


@pytest.mark.req("M-051", "M-073")
@pytest.mark.parametrize("kind", KINDS)
async def test_rejected_is_final(a: Node, b: Node, contract_id: str, ds: str, kind: AuditKind) -> None:
    key = await asked(a, b, kind, contract_id)
    await b.admin_call("POST", f"/v1/admin/audits/{key}/reject")
    await b.flush()
    assert (await status(a, key), await status(b, key)) == ("REJECTED", "REJECTED")
    body = {"audit_id": key.partition("/")[2]}
    for node, other, route, payload in (
        (b, a, "confirm", {**body, "status": "APPROVED"}),
        (a, b, "terminate", body),
        (b, a, "terminate", body),
    ):
        answer = await node.send(other, f"{kind.value}.audit.{route}", payload)
        assert answer["code"] == code(Kind.ILLEGAL_TRANSITION)
    assert (await status(a, key), await status(b, key)) == ("REJECTED", "REJECTED")


@pytest.mark.req("M-033", "M-073")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_third_partner_can_do_nothing(
    world: World, a: Node, b: Node, c: Node, contract_id: str, ds: str, kind: AuditKind
) -> None:
    """C is a good partner of both and knows the ids."""
    await world.partners(c, a)
    await world.partners(c, b)
    key = await asked(a, b, kind, contract_id)
    body = {"audit_id": key.partition("/")[2]}
    verbs = ["confirm", "terminate"] + ([] if kind is AuditKind.JOB else ["query"])
    for target in (a, b):
        for verb in verbs:
            answer = await c.send(target, f"{kind.value}.audit.{verb}", {**body, "status": "APPROVED"})
            assert answer["code"] == code(Kind.NOT_FOUND)
    # Nor can the applicant confirm its own application.
    answer = await a.send(b, f"{kind.value}.audit.confirm", {**body, "status": "APPROVED"})
    assert answer["code"] == code(Kind.NOT_FOUND)
    assert (await status(a, key), await status(b, key)) == ("APPLIED", "APPLIED")


@pytest.mark.req("M-073")
@pytest.mark.parametrize("kind", KINDS)
async def test_unknown_ids_and_wrong_words(a: Node, b: Node, contract_id: str, ds: str, kind: AuditKind) -> None:
    for verb in ("confirm", "terminate", "query"):
        name = f"{kind.value}.audit.{verb}"
        if name in ROUTES:
            answer = await a.send(b, name, {"audit_id": "nothing", "status": "APPROVED"})
            assert (answer["code"], answer["data"]) == (404, {})
    key = await asked(a, b, kind, contract_id)
    for word in ("TERMINATED", "APPLIED", "", None):
        answer = await b.send(a, f"{kind.value}.audit.confirm", {"audit_id": key.partition("/")[2], "status": word})
        assert answer["code"] == code(Kind.MALFORMED)
    other = AuditKind.FLOW if kind is not AuditKind.FLOW else AuditKind.MODEL
    answer = await b.send(a, f"{other.value}.audit.confirm", {"audit_id": key.partition("/")[2], "status": "APPROVED"})
    assert answer["code"] == code(Kind.NOT_FOUND)
    assert await status(a, key) == "APPLIED"


@pytest.mark.req("M-071")
@pytest.mark.parametrize("kind", KINDS)
async def test_apply_again(a: Node, b: Node, contract_id: str, ds: str, kind: AuditKind) -> None:
    route, body = f"{kind.value}.audit.apply", bodies(contract_id)[kind]
    assert (await a.send(b, route, body))["code"] == 0
    before = await b.only_audit()
    assert (await a.send(b, route, dict(reversed(body.items()))))["code"] == 0
    changed = await a.send(b, route, {**body, "more": 1})
    assert changed["code"] == code(Kind.CONFLICT)
    assert await b.only_audit() == before


@pytest.mark.req("M-071")
async def test_apply_again_is_answered_again(a: Node, b: Node, contract_id: str, ds: str) -> None:
    """A-08: the confirm was lost for good; the same application makes the holder send it again."""
    key = await asked(a, b, AuditKind.JOB, contract_id)
    await b.run(lambda tx: b.audits.decide(tx, key, approve=True))
    call = (await b.run(lambda tx: tx.select(OutCall, route="job.audit.confirm")))[0]
    apply = (await a.run(lambda tx: tx.select(OutCall, route="job.audit.apply")))[0]
    assert (await a.send(b, "job.audit.apply", apply.body))["code"] == 0  # it is due anyway: not written twice
    assert await b.run(lambda tx: tx.count(OutCall, route="job.audit.confirm")) == 1
    await b.run(lambda tx: tx.replace(call, replace(call, state=CallState.DEAD)))
    assert (await a.send(b, "job.audit.apply", apply.body))["code"] == 0
    await b.flush()
    assert await status(a, key) == "APPROVED"


@pytest.mark.req("M-063")
async def test_a_job_audit_reply_without_data(a: Node, b: Node, contract_id: str) -> None:
    for body in (b'{"code": 0, "msg": "ok"}', b'{"code": 0, "msg": "ok", "data": null}', b'{"code": 0, "message": ""}'):
        call: Any = type("Call", (), {"name": "job.audit.apply", "peer": "B", "dialect": STRICT})()
        assert a.client._judge(call, 200, body).data == {}


@pytest.mark.req("M-074")
async def test_either_name_of_the_configuration(a: Node, b: Node, contract_id: str) -> None:
    job = bodies(contract_id)[AuditKind.JOB]
    job["config"] = job.pop("conf")
    assert (await a.send(b, "job.audit.apply", job))["code"] == 0
    assert (await b.only_audit()).body["conf"] == CONF
    flow = {**bodies(contract_id)[AuditKind.FLOW], "audit_id": "au-2", "conf": {"version": "2.0.0"}}
    assert (await a.send(b, "flow.audit.apply", flow))["code"] == 0
    audit = await b.run(lambda tx: b.audits.get(tx, "A", "au-2"))
    assert audit.body["config"] == {"version": "2.0.0"}


async def test_only_the_initiator_asks_for_a_job(world: World, a: Node, b: Node, c: Node, contract_id: str) -> None:
    await world.partners(c, b)
    job = bodies(contract_id)[AuditKind.JOB]
    assert (await c.send(b, "job.audit.apply", job))["code"] == code(Kind.FORBIDDEN)
    for conf in ({}, {"initiator": "A"}, {"initiator": {}}):
        assert (await a.send(b, "job.audit.apply", {**job, "conf": conf}))["code"] == code(Kind.FORBIDDEN)
    assert (await a.send(b, "job.audit.apply", job))["code"] == 0


async def test_the_same_audit_id_of_two_applicants(world: World, a: Node, b: Node, c: Node, contract_id: str) -> None:
    """A-21: the key is (applicant, audit_id)."""
    await world.partners(c, b)
    job = bodies(contract_id)[AuditKind.JOB]
    assert (await a.send(b, "job.audit.apply", job))["code"] == 0
    theirs = {**job, "conf": {"initiator": {"node_id": "C"}}}
    assert (await c.send(b, "job.audit.apply", theirs))["code"] == 0
    await b.admin_call("POST", "/v1/admin/audits/C/au-1/reject")
    assert (await status(b, "A/au-1"), await status(b, "C/au-1")) == ("APPLIED", "REJECTED")


async def test_our_own_audit_id_cannot_be_taken(a: Node, b: Node, contract_id: str) -> None:
    """terminate says nothing but the id, so the partner may not give its application the id of ours."""
    key = await asked(a, b, AuditKind.FLOW, contract_id)
    body = {**bodies(contract_id)[AuditKind.FLOW], "audit_id": key.partition("/")[2]}
    assert (await b.send(a, "flow.audit.apply", body))["code"] == code(Kind.CONFLICT)


async def test_waiting_audits_are_bounded_per_partner(world: World, a: Node, c: Node) -> None:
    b = world.node("B", limits=Limits(open_audits=2, request_attempts=1))
    for node in (a, c):
        await world.partners(node, b)
    answers = []
    for number in range(3):
        body = {**bodies("")[AuditKind.FLOW], "audit_id": f"au-{number}"}
        answers.append((await a.send(b, "flow.audit.apply", body))["code"])
    assert answers == [0, 0, 429]
    assert (await c.send(b, "flow.audit.apply", bodies("")[AuditKind.FLOW]))["code"] == 0


async def test_listeners_hear_every_change_inside_the_transaction(a: Node, b: Node, contract_id: str) -> None:
    heard: dict[str, list[str]] = {"A": [], "B": []}
    for node in (a, b):
        node.audits.listen(AuditKind.JOB, lambda tx, audit, at=heard[node.id]: at.append(audit.status.value))  # type: ignore[misc]
    key = await asked(a, b, AuditKind.JOB, contract_id)
    assert heard == {"A": [], "B": ["APPLIED"]}
    await b.admin_call("POST", f"/v1/admin/audits/{key}/approve")
    await b.admin_call("POST", f"/v1/admin/audits/{key}/approve")
    await b.flush()
    assert heard == {"A": ["APPROVED"], "B": ["APPLIED", "APPROVED"]}
    await a.admin_call("POST", f"/v1/admin/partners/{contract_id}/terminate")
    assert heard["A"] == ["APPROVED", "TERMINATED"]

    def refuse(_tx: Tx, _audit: Audit) -> None:
        raise Refused("the job cannot be taken", kind=Kind.BAD_DAG)

    b.audits.listen(AuditKind.JOB, refuse)
    job = {**bodies(contract_id)[AuditKind.JOB], "audit_id": "au-9"}
    assert (await a.send(b, "job.audit.apply", job))["code"] == code(Kind.BAD_DAG)
    assert await b.run(lambda tx: tx.get(Audit, "A/au-9")) is None


async def test_an_application_refused_for_good_counts_as_rejected(a: Node, b: Node, contract_id: str) -> None:
    heard: list[str] = []
    a.audits.listen(AuditKind.DATASET, lambda _tx, audit: heard.append(audit.status.value))
    shown = await a.admin_call("POST", "/v1/admin/datasets/apply", {"node_id": "B", "dataset_id": "nothing"})
    await a.flush()
    assert await status(a, f"A/{shown['audit_id']}") == "REJECTED"
    assert heard == ["REJECTED"]
    (call,) = await a.run(lambda tx: tx.select(OutCall, state=CallState.DEAD))
    assert "404" in call.error


async def test_our_own_mistakes_stay_here(a: Node, b: Node, contract_id: str) -> None:
    with pytest.raises(CallerError) as caught:
        await asked_wrongly(a, b)
    assert caught.value.kind is Kind.MALFORMED
    assert await a.run(lambda tx: tx.count(OutCall, route="job.audit.apply")) == 0


async def asked_wrongly(a: Node, b: Node) -> None:
    def work(tx: Tx) -> Audit:
        contract = a.partners.contract_with(tx, b.id)
        return a.audits.apply(tx, kind=AuditKind.JOB, contract=contract, subject="j", body={}, trace_id=trace())

    await a.run(work)


# --- dataset grants -------------------------------------------------------------------------------------------------


@pytest.mark.req("M-044")
async def test_auth_scope(a: Node, b: Node, contract_id: str, ds: str) -> None:
    body = bodies(contract_id)[AuditKind.DATASET]
    for scope in ({"OTHER": ["x"]}, {"NODE": "A"}, {"NODE": [1]}, ["NODE"], {"node": ["A"]}):
        answer = await a.send(b, "dataset.audit.apply", {**body, "auth_scope": scope})
        assert answer["code"] == code(Kind.MALFORMED)
    good = {"NODE": ["A"], "PROJECT": ["pj"], "COMPONENT": ["psi", "hetero_lr"]}
    assert (await a.send(b, "dataset.audit.apply", {**body, "auth_scope": good}))["code"] == 0


@pytest.mark.parametrize(
    "changes",
    [{"time_limit": 1}, {"time_limit": "x"}, {"times_limit": 0}, {"times_limit": 1 << 31}, {"times_limit": 1.5}],
)
async def test_odd_limits(a: Node, b: Node, contract_id: str, ds: str, changes: dict[str, Any]) -> None:
    answer = await a.send(b, "dataset.audit.apply", {**bodies(contract_id)[AuditKind.DATASET], **changes})
    assert answer["code"] == code(Kind.MALFORMED)


async def test_unknown_dataset_and_contract(world: World, a: Node, b: Node, c: Node, contract_id: str) -> None:
    body = bodies(contract_id)[AuditKind.DATASET]
    assert (await a.send(b, "dataset.audit.apply", body))["code"] == code(Kind.NOT_FOUND)
    await b.add_dataset("ds")
    foreign = await world.partners(c, b)
    for wrong in ("ct-nothing", foreign.contract_id):
        answer = await a.send(b, "dataset.audit.apply", {**body, "contract_id": wrong})
        assert answer["code"] == code(Kind.CONTRACT_UNKNOWN)
    assert await b.run(lambda tx: tx.count(Audit)) == 0


@pytest.mark.req("M-046")
async def test_a_grant_gives_a_permit(world: World, a: Node, b: Node, ds: str) -> None:
    audit = await world.grant(a, b, ds, times_limit=5, time_limit=world.clock.ms + 10_000)
    assert audit.permit is not None
    permit = dict(audit.permit)
    token = permit.pop("token")
    assert permit == {
        "resource_level": 2,
        "resource_type": "DATASET",
        "resource_id": "ds",
        "resource_node_id": "B",
        "resource_inst_id": "JGB",
        "request_node_id": "A",
        "request_inst_id": "JGA",
        "time_limit": audit.body["time_limit"],
        "times_limit": 5,
    }
    (grant,) = await b.run(lambda tx: tx.select(Grant))
    assert grant.token_digest == token_digest(token)
    assert token not in repr(grant)
    for node in (a, b):
        shown = await node.admin_call("GET", "/v1/admin/audits")
        assert token not in json.dumps(shown)
        assert token not in json.dumps(node.journal.events)
        assert token not in json.dumps(await node.admin_call("GET", "/v1/admin/outbox"))


@pytest.mark.req("M-046")
async def test_permits_that_are_refused(a: Node, b: Node, contract_id: str, ds: str) -> None:
    key = await asked(a, b, AuditKind.DATASET, contract_id)
    confirm = {"audit_id": key.partition("/")[2], "status": "APPROVED"}
    full = {"token": "tk", "resource_id": "ds", **NAMES}
    for name in full:
        lacking = {other: value for other, value in full.items() if other != name}
        answer = await b.send(a, "dataset.audit.confirm", {**confirm, "resource_permit": lacking})
        assert answer["code"] == code(Kind.MALFORMED), name
    for changes in (
        {"token": ""},
        {"token": "a,b"},
        {"token": "a/b"},
        {"token": "ü"},
        {"token": 5},
        {"resource_level": "2"},
        {"resource_level": -1},
        {"resource_level": True},
        {"resource_id": "other"},
        {"resource_node_id": "C"},
        {"request_node_id": "B"},
    ):
        answer = await b.send(a, "dataset.audit.confirm", {**confirm, "resource_permit": {**full, **changes}})
        assert answer["code"] == code(Kind.MALFORMED), changes
    for text in ('{"token": NaN}', '{"token": 1, "token": 2}', "{" * 100):
        answer = await b.send(a, "dataset.audit.confirm", {**confirm, "resource_permit": text})
        assert answer["code"] == code(Kind.MALFORMED)
    assert await status(a, key) == "APPLIED"
    assert (await b.send(a, "dataset.audit.confirm", {**confirm, "resource_permit": json.dumps(full)}))["code"] == 0
    assert (await b.send(a, "dataset.audit.confirm", {**confirm, "resource_permit": full}))["code"] == 0
    other = {**confirm, "resource_permit": {**full, "token": "another"}}
    assert (await b.send(a, "dataset.audit.confirm", other))["code"] == code(Kind.CONFLICT)
    held = await a.run(lambda tx: a.audits.get(tx, "A", confirm["audit_id"]))
    assert held.permit == full


@pytest.mark.req("M-064", "M-069", "M-046")
@pytest.mark.parametrize("permit", [None, "", "bare-token"])
async def test_a_permit_is_optional_and_may_be_a_bare_token(
    a: Node, b: Node, contract_id: str, permit: str | None
) -> None:
    for kind in (AuditKind.JOB, AuditKind.MODEL, AuditKind.FLOW):
        key = await asked(a, b, kind, contract_id)
        body = {"audit_id": key.partition("/")[2], "status": "APPROVED", "resource_permit": permit}
        assert (await b.send(a, f"{kind.value}.audit.confirm", body))["code"] == 0
        held = await a.run(lambda tx, body=body: a.audits.get(tx, "A", body["audit_id"]))  # type: ignore[misc]
        assert held.permit == ({"token": "bare-token"} if permit else None)


def use(*components: str, dataset: str = "ds", version: str = "1.0.0") -> DatasetUse:
    return DatasetUse(DatasetId(dataset), frozenset(f"interconn/{each}/{version}" for each in components))


async def authorise(
    b: Node,
    permits: Sequence[Permit],
    uses: Sequence[DatasetUse],
    *,
    job: str = "job-1",
    project: str = "pj",
    user: str = "A",
) -> Kind | None:
    """None, or the kind of refusal."""
    try:
        await b.run(
            lambda tx: b.grants.authorise(
                tx,
                user=NodeId(user),
                job_id=JobId(job),
                project_id=project,
                uses=uses,
                permits=permits,
                now=b.clock.ms,
            )
        )
    except GatewayError as e:
        return e.kind
    return None


async def join(b: Node, project: str) -> None:
    """B has approved this project of A's."""
    contract = await b.run(lambda tx: b.partners.contract_with(tx, NodeId("A")))
    audit = Audit(
        applicant=NodeId("A"),
        audit_id=AuditId(f"au-{project}"),
        kind=AuditKind.PROJECT,
        direction=Direction.IN,
        peer_node_id=NodeId("A"),
        contract_id=contract.contract_id,
        status=ApprovalState.APPROVED,
        subject=project,
        body={},
        permit=None,
        created=b.clock.ms,
        updated=b.clock.ms,
    )
    await b.run(lambda tx: tx.insert(audit))


async def held(a: Node, *datasets: str) -> list[Permit]:
    """What A would present to B, through the header and back."""
    ids = [DatasetId(each) for each in datasets]
    permits = await a.run(lambda tx: a.grants.permits_held(tx, holder=NodeId("B"), dataset_ids=ids, now=a.clock.ms))
    return parse_token_set(a.grants.token_set(permits), limit=64)


async def test_use_within_and_outside_the_scope(world: World, a: Node, b: Node, ds: str) -> None:
    scope = {"PROJECT": ["pj"], "COMPONENT": ["psi", "split"], "NODE": ["A"]}
    await world.grant(a, b, ds, auth_scope=scope)
    permits = await held(a, "ds")
    assert len(permits) == 1
    assert await authorise(b, permits, [use("psi", "split")]) is Kind.GRANT_MISSING  # nobody joined the project
    await join(b, "pj")
    assert await authorise(b, permits, [use("psi", "split")]) is None
    assert await authorise(b, permits, [use("psi", "hetero_lr")]) is Kind.GRANT_MISSING
    assert await authorise(b, permits, [use("psi")], project="other") is Kind.GRANT_MISSING
    assert await authorise(b, permits, [use("psi", dataset="nothing")]) is Kind.NOT_FOUND
    assert await authorise(b, [], [use("psi")]) is Kind.GRANT_MISSING
    assert await authorise(b, [replace(permits[0], token="guess")], [use("psi")]) is Kind.GRANT_MISSING
    await b.add_dataset("ds2")
    assert await authorise(b, permits, [use("psi", dataset="ds2")]) is Kind.GRANT_MISSING


async def test_a_token_serves_its_user_alone(world: World, a: Node, b: Node, c: Node, ds: str) -> None:
    await world.grant(a, b, ds)
    await world.partners(c, b)
    assert await authorise(b, await held(a, "ds"), [use("psi")], user="C") is Kind.GRANT_MISSING


async def test_own_data_needs_no_permit(b: Node, ds: str) -> None:
    assert await authorise(b, [], [use("psi")], user="B") is None
    columns = await b.run(
        lambda tx: b.grants.recheck(
            tx, user=NodeId("B"), job_id=JobId("j"), project_id="", uses=[use("psi")], now=b.clock.ms
        )
    )
    assert columns == {"ds": ()}


@pytest.mark.req("M-049")
async def test_times_limit_counts_jobs_not_calls(world: World, a: Node, b: Node, ds: str) -> None:
    await world.grant(a, b, ds, times_limit=2)
    permits = await held(a, "ds")
    for job in ("job-1", "job-1", "job-2", "job-1"):
        assert await authorise(b, permits, [use("psi")], job=job) is None
    assert await authorise(b, permits, [use("psi")], job="job-3") is Kind.GRANT_EXHAUSTED
    (grant,) = await b.run(lambda tx: tx.select(Grant))
    assert (grant.used, grant.reserved) == (0, 2)
    assert await b.run(lambda tx: tx.count(GrantUse)) == 2
    assert await authorise(b, permits, [use("psi")], job="job-2") is None


@pytest.mark.req("M-049")
async def test_time_limit(world: World, a: Node, b: Node, ds: str) -> None:
    end = world.clock.ms + 60_000
    await world.grant(a, b, ds, time_limit=end)
    permits = await held(a, "ds")
    world.clock.ms = end
    assert await authorise(b, permits, [use("psi")]) is None
    world.clock.ms = end + 1
    assert await authorise(b, permits, [use("psi")], job="job-2") is Kind.GRANT_EXPIRED
    assert await authorise(b, permits, [use("psi")]) is Kind.GRANT_EXPIRED
    assert await recheck(b, "job-1") is Kind.GRANT_EXPIRED
    assert await held(a, "ds") == []


async def recheck(b: Node, job: str, *components: str) -> Mapping[Any, Any] | Kind:
    try:
        return await b.run(
            lambda tx: b.grants.recheck(
                tx,
                user=NodeId("A"),
                job_id=JobId(job),
                project_id="pj",
                uses=[use(*components or ("psi",))],
                now=b.clock.ms,
            )
        )
    except GatewayError as e:
        return e.kind


@pytest.mark.req("M-048")
async def test_after_terminate_the_token_is_void(world: World, a: Node, b: Node, ds: str) -> None:
    audit = await world.grant(a, b, ds)
    permits = await held(a, "ds")
    assert await authorise(b, permits, [use("psi")]) is None
    assert await recheck(b, "job-1") == {"ds": ()}
    await b.admin_call("POST", f"/v1/admin/audits/{audit.key()}/terminate")
    assert await authorise(b, permits, [use("psi")]) is Kind.GRANT_REVOKED
    assert await recheck(b, "job-1") is Kind.GRANT_REVOKED
    await b.flush()
    assert await held(a, "ds") == []


async def test_a_contract_takes_its_grants_along(world: World, a: Node, b: Node, contract_id: str, ds: str) -> None:
    await world.grant(a, b, ds)
    permits = await held(a, "ds")
    assert await authorise(b, permits, [use("psi")]) is None
    await a.admin_call("POST", f"/v1/admin/partners/{contract_id}/terminate")
    await a.flush()
    assert await recheck(b, "job-1") is Kind.CONTRACT_INVALID
    assert await authorise(b, permits, [use("psi")]) is Kind.CONTRACT_INVALID
    # A new contract does not bring them back.
    await world.partners(a, b)
    assert await authorise(b, permits, [use("psi")]) is Kind.GRANT_REVOKED
    assert await held(a, "ds") == []


async def test_columns_and_recheck(world: World, a: Node, b: Node, ds: str) -> None:
    await world.grant(a, b, ds, approve={"columns": ["id", "x"]}, auth_scope={"COMPONENT": ["psi"]})
    permits = await held(a, "ds")
    assert await recheck(b, "job-1") is Kind.GRANT_MISSING  # never authorised
    assert await authorise(b, permits, [use("psi")]) is None
    assert await recheck(b, "job-1") == {"ds": ("id", "x")}
    assert await recheck(b, "job-1", "psi", "other") is Kind.GRANT_MISSING
    assert await recheck(b, "job-2") is Kind.GRANT_MISSING
    (grant,) = await b.run(lambda tx: tx.select(Grant))
    assert (grant.used, grant.reserved) == (0, 1)


async def test_admin_limits_override_those_asked_for(world: World, a: Node, b: Node, ds: str) -> None:
    shown = await a.admin_call(
        "POST", "/v1/admin/datasets/apply", {"node_id": "B", "dataset_id": "ds", "times_limit": 9}
    )
    await a.flush()
    path = f"/v1/admin/audits/A/{shown['audit_id']}/approve"
    with pytest.raises(Refused):
        await b.admin_call("POST", path, {"columns": ["nothing"]})
    await b.admin_call("POST", path, {"times_limit": 1})
    (grant,) = await b.run(lambda tx: tx.select(Grant))
    assert grant.times_limit == 1
    with pytest.raises(GatewayError):
        await a.admin_call("POST", path)


async def test_a_refused_use_counts_nothing(world: World, a: Node, b: Node, ds: str) -> None:
    await b.add_dataset("ds2")
    await world.grant(a, b, ds)
    permits = await held(a, "ds")
    assert await authorise(b, permits, [use("psi"), use("psi", dataset="ds2")]) is Kind.GRANT_MISSING
    (grant,) = await b.run(lambda tx: tx.select(Grant))
    assert (grant.used, grant.reserved) == (0, 0)
    assert await b.run(lambda tx: tx.count(GrantUse)) == 0


async def test_the_grant_that_fits_is_used(world: World, a: Node, b: Node, ds: str) -> None:
    await world.grant(a, b, ds, times_limit=1)
    await world.grant(a, b, ds, auth_scope={"PROJECT": ["other"]})
    permits = await held(a, "ds")
    assert len(permits) == 2
    await join(b, "other")
    assert await authorise(b, permits, [use("psi")], job="job-1") is None
    assert await authorise(b, permits, [use("psi")], job="job-2", project="other") is None
    assert await authorise(b, permits, [use("psi")], job="job-3") is not None


# --- datasets, projects, components ----------------------------------------------------------------------------------


@pytest.mark.req("M-040", "M-041", "M-018", "M-019", "M-020")
async def test_the_public_list(a: Node, b: Node, contract_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(25):
        await b.add_dataset(f"ds-{number:02d}")
    await b.add_dataset("hidden", public=False)
    query = {"contract_id": contract_id}

    async def page(**more: object) -> tuple[list[str], int]:
        answer = await a.send(b, "dataset.pub.list", {**query, **more})
        assert answer["code"] == 0
        return [each["dataset_id"] for each in answer["data"]["records"]], answer["data"]["total"]

    names = [f"ds-{number:02d}" for number in range(25)]
    assert await page() == (names[:20], 25)
    assert await page(page_num=2) == (names[20:], 25)
    assert await page(page_num=3) == ([], 25)
    assert await page(page_num=2, page_size=10) == (names[10:20], 25)
    assert await page(page_size=-1) == (names, 25)
    for batch in (10, 25, 24, 26):
        monkeypatch.setattr(handlers, "BATCH", batch)
        assert await page(page_size=-1) == (names, 25)
    answer = await a.send(b, "dataset.pub.list", query)
    record = answer["data"]["records"][0]
    assert {"dataset_id", "name", "owner"} <= set(record)
    assert "secret" not in json.dumps(answer)
    assert [each["name"] for each in record["column_metas"]] == ["id", "y", "x"]
    for wrong in ({"page_num": 0}, {"page_size": 0}, {"page_size": 1001}, {"page_size": -2}, {"page_num": "x"}):
        assert (await a.send(b, "dataset.pub.list", {**query, **wrong}))["code"] == 400
    for wrong in ({}, {"page_num": 1}):
        assert (await a.send(b, "dataset.pub.list", wrong))["code"] == 400


@pytest.mark.req("M-019")
async def test_a_streamed_list_never_ends_as_a_part(
    a: Node, b: Node, contract_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are read while they go out: the count fits them, and who loses the contract gets no more of them."""
    monkeypatch.setattr(handlers, "BATCH", 10)
    for number in range(25):
        await b.add_dataset(f"ds-{number:02d}")
    query = {"contract_id": contract_id, "page_size": -1}

    async def begun() -> tuple[AsyncIterator[bytes], bytes]:
        reply = await b.edge.handle(a.request(b, "dataset.pub.list", query))
        assert reply.more is not None
        return reply.more, await anext(reply.more) + await anext(reply.more)

    more, first = await begun()
    await b.add_dataset("ds-25")
    answer = json.loads(first + b"".join([piece async for piece in more]))["data"]
    assert (len(answer["records"]), answer["total"]) == (26, 26)
    more, _ = await begun()
    await b.admin_call("POST", f"/v1/admin/partners/{contract_id}/terminate")
    with pytest.raises(ConnectionResetError):
        await anext(more)


@pytest.mark.req("M-043", "M-041")
async def test_a_private_dataset_shows_itself_after_a_grant(world: World, a: Node, b: Node, contract_id: str) -> None:
    await b.add_dataset("hidden", public=False)
    query = {"contract_id": contract_id, "dataset_id": "hidden"}
    hidden = await a.send(b, "dataset.pub.query", query)
    unknown = await a.send(b, "dataset.pub.query", {**query, "dataset_id": "nothing"})
    assert hidden == unknown
    assert hidden["code"] == code(Kind.NOT_FOUND)
    audit = await world.grant(a, b, "hidden")
    shown = await a.send(b, "dataset.pub.query", query)
    assert shown["code"] == 0
    assert [sorted(each) for each in shown["data"]["column_metas"]] == [["data_type", "distribution", "name"]] * 3
    assert "/secret" not in json.dumps(shown)
    await a.admin_call("POST", f"/v1/admin/audits/{audit.key()}/terminate")
    await a.flush()
    assert (await a.send(b, "dataset.pub.query", query))["code"] == code(Kind.NOT_FOUND)


async def open_project(a: Node, b: Node, **changes: Any) -> dict[str, Any]:
    body = {"name": "risk", "type": "HETERO_FL", "datasets": {"A": ["own"], "B": ["ds"]}, **changes}
    shown: dict[str, Any] = await a.admin_call("POST", "/v1/admin/projects", body)
    await a.flush()
    return shown


@pytest.mark.req("M-050", "M-053", "M-054")
async def test_a_project(world: World, a: Node, b: Node, c: Node, contract_id: str, ds: str) -> None:
    await a.add_dataset("own")
    shown = await open_project(a, b)
    project_id = shown["project_id"]
    audit = await b.only_audit()
    assert audit.body["datasets"] == [{"dataset_id": "ds", "name": "ds", "owner": "JGB", "count": 3}]
    assert not await a.run(lambda tx: a.projects.usable(tx, project_id))
    assert await b.run(lambda tx: tx.count(Project)) == 0
    await b.admin_call("POST", f"/v1/admin/audits/{audit.key()}/approve")
    await b.flush()
    assert await a.run(lambda tx: a.projects.usable(tx, project_id))
    (joined,) = await b.run(lambda tx: tx.select(Project))
    assert (joined.initiator, joined.nodes, joined.datasets) == ("A", ("A", "B"), {"B": ["ds"]})
    query = {"contract_id": contract_id}
    listed = await b.send(a, "project.list", query)
    assert listed["data"] == {
        "records": [{"project_id": project_id, "name": "risk", "description": "", "type": "HETERO_FL"}],
        "total": 1,
    }
    detail = (await b.send(a, "project.query", {**query, "project_id": project_id}))["data"]
    assert [each["node_id"] for each in detail["nodes"]] == ["A", "B"]
    assert detail["datasets"] == {"A": ["own"], "B": ["ds"]}
    outsider = await world.partners(c, a)
    theirs = {"contract_id": outsider.contract_id}
    assert (await c.send(a, "project.list", theirs))["data"] == {"records": [], "total": 0}
    refused = await c.send(a, "project.query", {**theirs, "project_id": project_id})
    assert refused["code"] == code(Kind.NOT_FOUND)


@pytest.mark.req("M-018", "M-019", "M-020")
async def test_pages_of_projects(world: World, a: Node, b: Node, contract_id: str) -> None:
    for number in range(25):
        await open_project(a, b, name=f"p-{number:02d}", datasets={"B": []})
        world.clock.ms += 1

    async def page(**more: object) -> tuple[list[str], int]:
        data = (await b.send(a, "project.list", {"contract_id": contract_id, **more}))["data"]
        return [each["name"] for each in data["records"]], data["total"]

    names = [f"p-{number:02d}" for number in range(25)]
    assert await page() == (names[:20], 25)
    assert await page(page_num=2) == (names[20:], 25)
    assert await page(page_num=3) == ([], 25)
    assert await page(page_size=-1) == (names, 25)


@pytest.mark.req("M-050")
async def test_odd_projects(world: World, a: Node, b: Node, c: Node, contract_id: str, ds: str) -> None:
    body = bodies(contract_id)[AuditKind.PROJECT]
    for changes, kind in (
        ({"type": "OTHER"}, Kind.MALFORMED),
        ({"datasets": [{"dataset_id": "nothing", "name": "x", "owner": "y"}]}, Kind.NOT_FOUND),
        ({"datasets": [{"dataset_id": "ds"}]}, Kind.MALFORMED),
        ({"datasets": {"B": ["ds"]}}, Kind.MALFORMED),
    ):
        assert (await a.send(b, "project.audit.apply", {**body, **changes}))["code"] == code(kind)
    for kind_name in ("HETERO_FL", "MPC", "HOMO_FL", "PSI", "ANONYM_FL"):
        good = {**body, "audit_id": f"au-{kind_name}", "type": kind_name}
        assert (await a.send(b, "project.audit.apply", good))["code"] == 0
    await b.admin_call("POST", "/v1/admin/audits/A/au-PSI/approve")
    other = await world.partners(c, b)
    taken = {**body, "contract_id": other.contract_id}
    assert (await c.send(b, "project.audit.apply", taken))["code"] == code(Kind.CONFLICT)
    with pytest.raises(GatewayError):
        await open_project(a, b, datasets={"A": ["nothing"]})
    with pytest.raises(GatewayError):
        await open_project(a, b, type="OTHER", datasets={})
    with pytest.raises(GatewayError):
        await open_project(a, b, datasets={"nobody": ["x"]})


async def test_query_tells_a_lost_answer(a: Node, b: Node, contract_id: str, ds: str) -> None:
    key = await asked(a, b, AuditKind.FLOW, contract_id)
    await a.run(lambda tx: a.audits.reported(tx, key, "APPLIED"))
    assert await status(a, key) == "APPLIED"
    await a.run(lambda tx: a.audits.reported(tx, key, "REJECTED"))
    assert await status(a, key) == "REJECTED"
    dataset = await asked(a, b, AuditKind.DATASET, contract_id)
    await a.run(lambda tx: a.audits.reported(tx, dataset, "APPROVED"))
    assert await status(a, dataset) == "APPLIED"  # the permit is in confirm alone
