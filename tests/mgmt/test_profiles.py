"""Peer profiles: the translation, the dialects between two nodes, contracts and grants by hand, the doctor."""

import json
from typing import Any

import pytest

from gateway.errors import GatewayError, Kind, Refused
from gateway.mgmt_plane.core.doctor import ASKED, NEEDED, ROUTES, Outcome, Seen, diagnose
from gateway.mgmt_plane.core.profile import PROFILES, from_peer, profile, to_peer
from gateway.mgmt_plane.rest.admin_profiles import ProfileAdmin
from gateway.mgmt_plane.service.grants import DatasetUse
from gateway.model import Audit, Contract, DatasetId, Grant, JobId, NodeId, OutCall
from specs.routes import MANAGEMENT
from specs.states import ApprovalState
from tests.mgmt.world import NOW, Node, World

V10, V11, LENIENT = profile("legacy-1.0"), profile("legacy-1.1"), profile("lenient")
PERMIT = {"token": "t", "resource_node_id": "N", "resource_inst_id": "I", "extra": [1]}
OLD_PERMIT = {"token": "t", "resourse_node_id": "N", "resourse_inst_id": "I", "extra": [1]}


def admin(node: Node) -> ProfileAdmin:
    return ProfileAdmin(
        services=node.services, client=node.client, clock=node.clock, entropy=node.entropy, journal=node.journal
    )


async def set_profile(node: Node, other: Node, name: str) -> Any:
    return await admin(node).set_profile({"node_id": other.id}, {}, {"profile": name})


# --- data and translation -------------------------------------------------------------------------------------------


def test_the_profiles_there_are() -> None:
    assert set(PROFILES) >= {"strict-1.2", "legacy-1.1", "legacy-1.0", "fate-2.x", "kuscia"}
    assert len([name for name in MANAGEMENT if V10.offers(name)]) == 29  # job audits came with v1.1.0
    assert all(profile(name).managed for name in ASKED)
    assert not profile("kuscia").managed
    assert (profile("kuscia").success, profile("kuscia").ok) == ({200}, 200)


@pytest.mark.parametrize(
    ("dialect", "route", "ours", "theirs"),
    [
        (V10, "component.list", {"contract_id": "c", "page_num": 1}, {"contractId": "c", "page_num": 1}),
        (V11, "component.list", {"contract_id": "c"}, {"contract_Id": "c"}),
        (V10, "component.query", {"contract_id": "c"}, {"contract_id": "c"}),
        (V10, "dataset.audit.confirm", {"resource_permit": PERMIT}, {"resource_permit": OLD_PERMIT}),
        (V11, "dataset.audit.confirm", {"resource_permit": PERMIT}, {"resource_permit": PERMIT}),
    ],
)
def test_translation_there_and_back(dialect: Any, route: str, ours: Any, theirs: Any) -> None:
    assert to_peer(dialect, route, ours) == theirs
    assert from_peer(dialect, route, theirs) == ours
    assert from_peer(dialect, route, ours) == ours
    assert to_peer(profile("strict-1.2"), route, ours) == from_peer(profile("strict-1.2"), route, ours) == ours


def test_a_permit_that_is_text_is_translated_inside() -> None:
    """A-06: text in the model's confirm."""
    sent = to_peer(V10, "model.audit.confirm", {"resource_permit": json.dumps(PERMIT)})
    assert json.loads(sent["resource_permit"]) == OLD_PERMIT
    back = from_peer(LENIENT, "model.audit.confirm", sent)
    assert json.loads(back["resource_permit"]) == PERMIT
    for text in ("resourse_node_id", '{"resourse_node_id": ', "{" * 100_000 + '"resourse_node_id"', "[]", ""):
        assert from_peer(V10, "model.audit.confirm", {"resource_permit": text}) == {"resource_permit": text}


def test_nothing_of_ours_is_overwritten_by_an_alias() -> None:
    both = {"contract_id": "ours", "contractId": "theirs"}
    assert from_peer(V10, "component.list", both) == both


# --- two nodes ------------------------------------------------------------------------------------------------------


@pytest.mark.req("M-072")
async def test_200_is_success_only_where_the_profile_says_so(a: Node, b: Node, contract_id: str) -> None:
    await set_profile(b, a, "legacy-1.0")  # from now on B answers A with 200
    reply = await a.send(b, "node.contract.query", {"contract_id": contract_id})
    assert (reply["code"], reply["data"]) == (200, {"status": "APPROVED"})
    contract = await a.contract(b)
    with pytest.raises(GatewayError) as caught:
        await a.client.call(contract, "node.contract.query", {"contract_id": contract_id}, trace_id=_trace())
    assert caught.value.kind is Kind.PEER_REFUSED
    await set_profile(a, b, "lenient")
    contract = await a.contract(b)
    assert (
        await a.client.call(contract, "node.contract.query", {"contract_id": contract_id}, trace_id=_trace())
    ).data == {"status": "APPROVED"}


def _trace() -> Any:
    from tests.mgmt.world import trace

    return trace()


async def test_a_stranger_is_answered_as_the_standard_says(a: Node, b: Node, contract_id: str) -> None:
    """Else everybody could find out who B's partners are, and how old they are."""
    await set_profile(b, a, "legacy-1.0")
    reply = await a.send(b, "node.query", {"node_id": b.id}, sign=False, cert=None)
    assert reply["code"] == 0
    reply = await a.send(b, "dataset.pub.list", {"contract_id": contract_id}, sign=False)
    assert reply["code"] == 401


async def test_a_grant_between_v10_and_v12(world: World, a: Node, b: Node, contract_id: str) -> None:
    """B speaks v1.0 to A; A is lenient, keeps its own words, and gets the permit in the spelling of v1.2."""
    await set_profile(b, a, "legacy-1.0")
    await set_profile(a, b, "lenient")
    dataset = await b.add_dataset("loans")
    audit = await world.grant(a, b, dataset.dataset_id)
    assert audit.status is ApprovalState.APPROVED
    assert audit.permit is not None
    assert audit.permit["resource_node_id"] == b.id
    assert not any("resourse" in name for name in audit.permit)


async def test_a_strict_node_takes_no_v10_answer_for_a_yes(world: World, a: Node, b: Node, contract_id: str) -> None:
    await set_profile(b, a, "legacy-1.0")
    dataset = await b.add_dataset("loans")
    audit = await world.grant(a, b, dataset.dataset_id)
    assert (audit.status, audit.permit) == (ApprovalState.REJECTED, None)


async def test_what_v10_does_not_have_is_not_asked_for(a: Node, b: Node, contract_id: str) -> None:
    from specs.states import AuditKind

    await set_profile(a, b, "legacy-1.0")
    contract = await a.contract(b)
    body = {"flow_id": "f", "name": "n", "project_id": "p", "dag": {}, "conf": {}}
    with pytest.raises(Refused) as caught:
        await a.run(
            lambda tx: a.audits.apply(
                tx, kind=AuditKind.JOB, contract=contract, subject="job-1", body=body, trace_id=_trace()
            )
        )
    assert caught.value.kind in (Kind.NOT_OFFERED, Kind.MALFORMED)


async def test_set_profile_refuses(a: Node, b: Node, contract_id: str) -> None:
    before = await a.contract(b)
    for name, kind in (("kuscia", Kind.CONFLICT), ("v9", Kind.MALFORMED), ("", Kind.MALFORMED)):
        with pytest.raises(GatewayError) as caught:
            await set_profile(a, b, name)
        assert caught.value.kind is kind
    with pytest.raises(Refused) as unknown:
        await admin(a).set_profile({"node_id": "X"}, {}, {"profile": "lenient"})
    assert unknown.value.kind is Kind.NODE_UNKNOWN
    assert await a.contract(b) == before


# --- by hand --------------------------------------------------------------------------------------------------------


async def recorded(node: Node, **more: Any) -> Any:
    return await admin(node).record({}, {}, {"node_id": "K", "profile": "kuscia", "inst_id": "IK", **more})


async def test_a_contract_by_hand_holds_and_opens_no_door(a: Node, b: Node) -> None:
    shown = await recorded(a)
    assert (shown["status"], shown["proven"], shown["profile"]) == ("APPROVED", False, "kuscia")
    contract = await a.run(lambda tx: a.partners.contract_with(tx, NodeId("K")))
    assert contract.expired_time is not None
    assert await a.run(a.partners.routes) == []  # no CA is known: no route
    for sign in (True, False):
        reply = await b.send(
            a, "dataset.pub.list", {"contract_id": contract.contract_id}, headers={"x-source-node-id": "K"}, sign=sign
        )
        assert reply["code"] == 401
    await a.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/terminate")
    assert await a.run(lambda tx: tx.count(OutCall)) == 0  # there is nobody to be told


@pytest.mark.parametrize(
    "more",
    [
        {"profile": "strict-1.2"},
        {"profile": "legacy-1.0"},
        {"profile": "none"},
        {"node_id": "A"},
        {"node_id": ""},
        {"address": "http://plain.example"},
        {"ca_pem": "x"},
        {"expired_time": NOW - 1},
        {"expired_time": "soon"},
        {"name": "x\x1b[2J"},
    ],
)
async def test_a_wrong_record_is_refused(a: Node, more: dict[str, Any]) -> None:
    with pytest.raises(GatewayError):
        await recorded(a, **more)
    assert await a.run(lambda tx: tx.count(Contract)) == 0


async def test_a_second_record_needs_the_first_to_end(a: Node) -> None:
    await recorded(a)
    with pytest.raises(Refused) as caught:
        await recorded(a)
    assert caught.value.kind is Kind.CONFLICT


async def use(node: Node, user: str, dataset_id: str, *, component: str = "psi", job: str = "job-1") -> None:
    await node.run(
        lambda tx: node.grants.authorise(
            tx,
            user=NodeId(user),
            job_id=JobId(job),
            project_id="",
            uses=[DatasetUse(DatasetId(dataset_id), frozenset({f"interconn/{component}/1.0.0"}))],
            permits=[],
            now=node.clock.ms,
        )
    )


async def test_deny_by_default_does_not_lock_out_whom_a_grant_was_recorded_for(a: Node) -> None:
    await recorded(a)
    dataset = await a.add_dataset("loans")
    with pytest.raises(Refused) as caught:
        await use(a, "K", dataset.dataset_id)
    assert caught.value.kind is Kind.GRANT_MISSING
    audit = await admin(a).record_grant(
        {},
        {},
        {
            "node_id": "K",
            "dataset_id": dataset.dataset_id,
            "auth_scope": {"COMPONENT": ["psi"]},
            "columns": ["x"],
            "times_limit": 1,
        },
    )
    assert (audit["status"], audit["direction"]) == ("APPROVED", "IN")
    with pytest.raises(Refused):
        await use(a, "K", dataset.dataset_id, component="hetero_lr")
    await use(a, "K", dataset.dataset_id)
    await use(a, "K", dataset.dataset_id)  # the same job: counted once
    with pytest.raises(Refused) as caught:
        await use(a, "K", dataset.dataset_id, job="job-2")
    assert caught.value.kind is Kind.GRANT_EXHAUSTED
    await a.admin_call("POST", f"/v1/admin/audits/K/{audit['audit_id']}/terminate")
    with pytest.raises(Refused) as caught:
        await use(a, "K", dataset.dataset_id)
    assert caught.value.kind is Kind.GRANT_MISSING
    assert await a.run(lambda tx: tx.count(OutCall)) == 0


async def test_who_can_apply_gets_no_grant_by_hand_and_needs_a_permit(a: Node, b: Node, contract_id: str) -> None:
    dataset = await b.add_dataset("loans")
    with pytest.raises(Refused) as caught:
        await admin(b).record_grant({}, {}, {"node_id": a.id, "dataset_id": dataset.dataset_id})
    assert caught.value.kind is Kind.CONFLICT
    with pytest.raises(Refused) as caught:
        await use(b, a.id, dataset.dataset_id)
    assert caught.value.kind is Kind.GRANT_MISSING


@pytest.mark.parametrize(
    "body",
    [
        {"dataset_id": "none"},
        {"columns": ["nope"]},
        {"columns": "x"},
        {"auth_scope": {"OTHER": []}},
        {"auth_scope": []},
        {"times_limit": 0},
        {"time_limit": NOW - 1},
        {"node_id": "X"},
    ],
)
async def test_a_wrong_grant_by_hand_changes_nothing(a: Node, body: dict[str, Any]) -> None:
    await recorded(a)
    dataset = await a.add_dataset("loans")
    with pytest.raises(GatewayError):
        await admin(a).record_grant({}, {}, {"node_id": "K", "dataset_id": dataset.dataset_id, **body})
    assert await a.run(lambda tx: (tx.count(Audit), tx.count(Grant))) == (0, 0)


# --- the doctor -----------------------------------------------------------------------------------------------------


def all_seen() -> dict[tuple[str, str], Seen]:
    return {(name, route): Seen(Outcome.OK) for name in ASKED for route in ROUTES}


async def test_the_doctor_of_a_healthy_partner(a: Node, b: Node, contract_id: str) -> None:
    found = await admin(a).doctor({"node_id": b.id}, {}, {})
    assert found["fits"] == "strict-1.2"
    assert found["words"] == ["strict-1.2 fits, as it is set."]


async def test_the_doctor_finds_a_v10_partner(a: Node, b: Node, contract_id: str) -> None:
    await set_profile(b, a, "legacy-1.0")
    found = await admin(a).doctor({"node_id": b.id}, {}, {})
    assert found["fits"] == "legacy-1.0"
    assert found["words"][0] == "legacy-1.0 fits, but strict-1.2 is set: interconn partner set-profile NODE legacy-1.0."
    assert "code 200" in found["words"][1]
    assert (await a.contract(b)).profile == "strict-1.2"  # it only says so


async def test_the_doctor_of_a_silent_partner(a: Node, b: Node, contract_id: str) -> None:
    b.up = False
    found = await admin(a).doctor({"node_id": b.id}, {}, {})
    assert found["fits"] == ""
    assert "does not answer" in found["words"][0]


def test_the_doctor_names_the_field_that_differs() -> None:
    seen = all_seen()
    seen["strict-1.2", "component.list"] = seen["legacy-1.0", "component.list"] = Seen(Outcome.REFUSED, "400")
    seen["lenient", "component.list"] = Seen(Outcome.REFUSED, "400")
    found = diagnose(seen, now="strict-1.2")
    assert found.fits == "legacy-1.1"
    assert any("contract_Id" in each for each in found.words)


def test_the_doctor_names_what_is_optional_and_missing() -> None:
    seen = all_seen()
    for name in ASKED:
        seen[name, "node.health"] = Seen(Outcome.REFUSED, "404")
    found = diagnose(seen, now="strict-1.2")
    assert found.fits == "strict-1.2"
    assert found.words[1:] == ("It does not offer node.health, which is optional.",)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (Seen(Outcome.REFUSED, "6000"), "fate-2.x"),
        (Seen(Outcome.UNREADABLE), "no management layer"),
        (Seen(Outcome.REFUSED, "401"), "401"),
    ],
)
def test_the_doctor_of_who_has_no_management_layer(answer: Seen, word: str) -> None:
    found = diagnose({(name, route): answer for name in ASKED for route in ROUTES}, now="strict-1.2")
    assert found.fits == ""
    assert word in found.words[0]


def test_the_doctor_names_what_is_refused_in_every_dialect() -> None:
    seen = all_seen()
    for name in ASKED:
        seen[name, NEEDED[1]] = Seen(Outcome.REFUSED, "403")
    found = diagnose(seen, now="strict-1.2")
    assert found.fits == ""
    assert "dataset.pub.list" in found.words[0]
    assert "403" in found.words[0]
