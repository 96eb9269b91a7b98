"""Contracts between nodes that talk through their real edges."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import GatewayError, Kind, PeerError, Refused
from gateway.model import CallState, Contract, Direction, Limits, NodeId, OutCall
from gateway.ports import Caller
from specs import headers as names
from specs.states import ApprovalState, AuthType
from tests.mgmt.world import NOW, Node, World, credential_text, pki, trace

DAY = 86_400_000


def apply_body(node: Node, **changes: Any) -> dict[str, Any]:
    body = {**node.partners.apply_body(expired_time=None, description="hello"), **changes}
    return {name: value for name, value in body.items() if value is not None}


async def statuses(contract_id: str, *nodes: Node) -> list[str]:
    return [(await node.run(lambda tx, n=node: n.partners.get(tx, contract_id))).status.value for node in nodes]  # type: ignore[misc]


@pytest.mark.req("M-021", "M-023", "M-010")
async def test_apply_signed_or_not_gives_a_new_unguessable_id(a: Node, b: Node) -> None:
    ids = set()
    for sign in (True, False):
        answer = await a.send(b, "node.contract.apply", apply_body(a), sign=sign, cert=None)
        assert answer["code"] == 0
        ids.add(answer["data"]["contract_id"])
    assert len(ids) == 2
    assert all(len(each) == len("ct-") + 32 for each in ids)
    contracts = await b.run(lambda tx: tx.select(Contract))
    assert sorted(each.proven for each in contracts) == [False, True]
    assert {each.fingerprint for each in contracts} == {a.pki.fingerprint}
    assert {each.tls_ca for each in contracts} == {a.pki.ca.read_text()}
    assert {each.direction for each in contracts} == {Direction.IN}


@pytest.mark.req("M-022")
@pytest.mark.parametrize(
    "missing",
    [
        "address",
        "auth_credential",
        "auth_type",
        "inst_id",
        "institution",
        "name",
        "node_id",
        "system",
        "system_version",
    ],
)
async def test_apply_lacking_a_member(a: Node, b: Node, missing: str) -> None:
    answer = await a.send(b, "node.contract.apply", apply_body(a, **{missing: None}), sign=False, cert=None)
    assert answer["code"] == 400
    assert f"{missing} is missing" in answer["msg"]
    assert await b.run(lambda tx: tx.count(Contract)) == 0


@pytest.mark.req("M-024", "M-015")
async def test_apply_describes_its_sender(a: Node, b: Node) -> None:
    body = apply_body(a, unknown={"x": [1]})
    assert (await a.send(b, "node.contract.apply", body, cert=None))["code"] == 0
    contract = await b.contract(a)
    assert (contract.peer_node_id, contract.peer_inst_id, contract.peer_name) == ("A", "JGA", "node A")
    for changes in ({"node_id": "C"}, {"node_id": "A/x"}, {"node_id": "A\n"}):
        answer = await a.send(b, "node.contract.apply", apply_body(a, **changes), sign=False, cert=None)
        assert answer["code"] == 400


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"address": "http://a.example"}, 400),
        ({"address": "https://user:pw@a.example"}, 400),
        ({"address": "https://a.example/?x=1"}, 400),
        ({"address": "https://a.example\n.evil"}, 400),
        ({"expired_time": NOW - 1}, 400),
        ({"expired_time": "soon"}, 400),
        ({"expired_time": 1.5}, 400),
        ({"auth_type": "NONE"}, 401),
        ({"auth_credential": "no certificate"}, 401),
        ({"name": ""}, 400),
        ({"name": "x" * 300}, 400),
        ({"description": "x" * 5000}, 400),
        ({"inst_id": "a/b"}, 400),
    ],
)
async def test_apply_with_a_wrong_member(a: Node, b: Node, changes: dict[str, Any], code: int) -> None:
    answer = await a.send(b, "node.contract.apply", apply_body(a, **changes), sign=False, cert=None)
    assert answer["code"] == code
    assert await b.run(lambda tx: tx.count(Contract)) == 0


async def test_a_credential_must_name_the_applicant(a: Node, b: Node, c: Node) -> None:
    """C has a right key and certificate of its own, but not A's name."""
    stolen = apply_body(a, auth_credential=c.signer.credential)
    for changes in ({"sign": False}, {"signer": c.signer}):
        answer = await a.send(b, "node.contract.apply", stolen, cert=None, **changes)
        assert answer["code"] == 401
    answer = await a.send(b, "node.contract.apply", apply_body(a), signer=c.signer, cert=None)
    assert answer["code"] == 401
    assert await b.run(lambda tx: tx.count(Contract)) == 0


async def test_waiting_contracts_are_bounded(world: World) -> None:
    a, b = world.node("A"), world.node("B", limits=Limits(open_contracts=2))
    codes = [(await a.send(b, "node.contract.apply", apply_body(a), cert=None))["code"] for _ in range(3)]
    assert codes == [0, 0, 429]


@pytest.mark.req("M-025", "M-029", "M-075")
async def test_apply_confirm_approved(world: World, a: Node, b: Node) -> None:
    contract = await world.apply(a, b)
    assert await statuses(contract.contract_id, a, b) == ["APPLIED", "APPLIED"]
    asked = await a.send(b, "node.contract.query", {"contract_id": contract.contract_id}, cert=None)
    assert (asked["code"], asked["data"]) == (0, {"status": "APPLIED"})
    assert await a.run(a.partners.routes) == await b.run(b.partners.routes) == []

    shown = await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/approve")
    assert shown["status"] == "APPROVED"
    await b.flush()
    assert await statuses(contract.contract_id, a, b) == ["APPROVED", "APPROVED"]
    mine, theirs = await a.contract(b), await b.contract(a)
    assert (mine.auth_type, mine.auth_credential) == ("CERT", b.signer.credential)
    assert mine.proven
    assert theirs.proven
    assert mine.expired_time == theirs.expired_time
    assert mine.fingerprint == b.pki.fingerprint
    routes = await a.run(a.partners.routes)
    assert [(each.node_id, each.address, each.tls_ca) for each in routes] == [
        ("B", b.identity.address, b.pki.ca.read_text())
    ]
    assert (a.routes_changed, b.routes_changed) == (1, 1)


@pytest.mark.req("M-029", "M-027", "M-030")
async def test_rejected_stays_rejected(world: World, a: Node, b: Node) -> None:
    contract = await world.apply(a, b)
    await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/reject")
    call = (await b.run(lambda tx: tx.select(OutCall)))[0]
    assert call.body == {"contract_id": contract.contract_id, "status": "REJECTED"}
    await b.flush()
    assert await statuses(contract.contract_id, a, b) == ["REJECTED", "REJECTED"]
    for node, other in ((a, b), (b, a)):
        with pytest.raises(GatewayError) as caught:
            await node.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/terminate")
        assert caught.value.kind is Kind.ILLEGAL_TRANSITION
        answer = await node.send(other, "node.contract.terminate", {"contract_id": contract.contract_id}, cert=None)
        assert answer["code"] != 0
    assert await statuses(contract.contract_id, a, b) == ["REJECTED", "REJECTED"]


@pytest.mark.req("M-031", "M-070")
async def test_confirm_again(world: World, a: Node, b: Node, contract_id: str) -> None:
    body = dict((await b.run(lambda tx: tx.select(OutCall)))[0].body)
    before = await a.contract(b)
    assert (await b.send(a, "node.contract.confirm", body, cert=None))["code"] == 0
    assert await a.contract(b) == before
    for changes, code in (
        ({"status": "REJECTED"}, 423),
        ({"expired_time": body["expired_time"] + 1}, 409),
        ({"auth_type": "SHA256_ECDSA", "auth_credential": public_key(b)}, 409),
    ):
        answer = await b.send(a, "node.contract.confirm", {**body, **changes}, sign=False, cert=None)
        assert answer["code"] == code
    assert await a.contract(b) == before


def public_key(node: Node) -> str:
    return credential_text(node.pki, AuthType.SHA256_ECDSA)


@pytest.mark.req("M-026", "M-028")
async def test_confirm_lacking_something(world: World, a: Node, b: Node) -> None:
    contract = await world.apply(a, b)
    full = {
        "contract_id": contract.contract_id,
        "status": "APPROVED",
        "auth_type": "CERT",
        "auth_credential": b.signer.credential,
        "expired_time": NOW + DAY,
    }
    for member in ("auth_type", "auth_credential", "expired_time"):
        body = {name: value for name, value in full.items() if name != member}
        answer = await b.send(a, "node.contract.confirm", body, sign=False, cert=None)
        assert answer["code"] == 400
        assert f"{member} is missing" in answer["msg"]
    for status in ("APPLIED", "TERMINATED", "yes", None, 1):
        answer = await b.send(a, "node.contract.confirm", {**full, "status": status}, sign=False, cert=None)
        assert answer["code"] == 400
    assert (await b.send(a, "node.contract.confirm", {**full, "expired_time": NOW}, sign=False, cert=None))[
        "code"
    ] == 400
    assert await statuses(contract.contract_id, a) == ["APPLIED"]
    assert (await b.send(a, "node.contract.confirm", full, cert=None))["code"] == 0


@pytest.mark.req("M-010")
@pytest.mark.parametrize("status", ["APPROVED", "REJECTED"])
async def test_a_confirm_needs_no_signature(world: World, a: Node, b: Node, status: str) -> None:
    """What an approval says of its sender is believed for the CA that was pinned, signed or not."""
    contract = await world.apply(a, b)
    key = {"auth_type": "CERT", "auth_credential": b.signer.credential, "expired_time": NOW + DAY}
    body = {"contract_id": contract.contract_id, "status": status, **(key if status == "APPROVED" else {})}
    assert (await b.send(a, "node.contract.confirm", body, sign=False, cert=None))["code"] == 0
    assert await statuses(contract.contract_id, a) == [status]


@pytest.mark.req("M-033")
async def test_a_third_node_cannot_confirm_or_terminate(world: World, a: Node, b: Node, c: Node) -> None:
    contract = await world.apply(a, b)
    await world.partners(c, a)
    await world.partners(c, b)
    body = {
        "contract_id": contract.contract_id,
        "status": "APPROVED",
        "auth_type": "CERT",
        "auth_credential": c.signer.credential,
        "expired_time": NOW + DAY,
    }
    assert (await c.send(a, "node.contract.confirm", body, cert=None))["code"] == 430
    for node in (a, b):
        for route in ("node.contract.terminate", "node.contract.query"):
            answer = await c.send(node, route, {"contract_id": contract.contract_id})
            assert answer["code"] == 430
    assert await statuses(contract.contract_id, a, b) == ["APPLIED", "APPLIED"]


async def test_a_confirm_must_carry_the_pinned_ca(world: World, a: Node, b: Node) -> None:
    """Somebody who has B's contract id, but not B's CA, even with a certificate that names B."""
    contract = await world.apply(a, b)
    other = pki_of_another("B")
    body = {
        "contract_id": contract.contract_id,
        "status": "APPROVED",
        "auth_type": "CERT",
        "auth_credential": other.signing.read_text(),
        "expired_time": NOW + DAY,
    }
    answer = await b.send(a, "node.contract.confirm", body, sign=False, cert=None)
    assert answer["code"] == 401
    assert await statuses(contract.contract_id, a) == ["APPLIED"]


def pki_of_another(name: str) -> Any:
    return pki.__wrapped__(name)


@pytest.mark.req("M-032", "M-075")
@pytest.mark.parametrize("ender", ["A", "B"])
async def test_either_terminates(world: World, a: Node, b: Node, contract_id: str, ender: str) -> None:
    node = a if ender == "A" else b
    await node.admin_call("POST", f"/v1/admin/partners/{contract_id}/terminate")
    node.client.lost.append("node.contract.terminate")  # it is repeated, although the other side has ended it
    await node.flush()
    node.clock.ms += 120_000
    await node.flush()
    assert await statuses(contract_id, a, b) == ["TERMINATED", "TERMINATED"]
    calls = await node.run(lambda tx: tx.select(OutCall, route="node.contract.terminate"))
    assert [each.state for each in calls] == [CallState.DONE]
    assert await a.run(a.partners.routes) == await b.run(b.partners.routes) == []
    assert (a.routes_changed, b.routes_changed) == (2, 2)


async def test_withdraw(world: World, a: Node, b: Node) -> None:
    contract = await world.apply(a, b)
    await a.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/terminate")
    await a.flush()
    assert await statuses(contract.contract_id, a, b) == ["TERMINATED", "TERMINATED"]
    with pytest.raises(GatewayError):
        await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/approve")


@pytest.mark.req("M-034")
async def test_after_the_end_only_query_answers(world: World, a: Node, b: Node, contract_id: str) -> None:
    asked = {"contract_id": contract_id}
    assert (await a.send(b, "dataset.pub.list", asked))["code"] == 0
    await b.run(lambda tx: b.partners.terminate(tx, contract_id))
    assert (await a.send(b, "dataset.pub.list", asked))["code"] == 431
    answer = await a.send(b, "node.contract.query", asked, cert=None)
    assert (answer["code"], answer["data"]) == (0, {"status": "TERMINATED"})


@pytest.mark.req("M-034")
async def test_an_expired_contract_is_refused(world: World, a: Node, b: Node) -> None:
    contract = await world.apply(a, b)
    end = world.clock.ms + 60_000
    await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/approve", {"expired_time": end})
    await b.flush()
    asked = {"contract_id": contract.contract_id}
    world.clock.ms = end - 1
    assert (await a.send(b, "dataset.pub.list", asked))["code"] == 0
    world.clock.ms = end
    assert (await a.send(b, "dataset.pub.list", asked))["code"] == 431
    assert (await a.send(b, "node.contract.query", asked, cert=None))["data"] == {"status": "APPROVED"}
    with pytest.raises(Refused) as caught:
        await b.run(lambda tx: b.partners.contract_with(tx, NodeId("A")))
    assert caught.value.kind is Kind.CONTRACT_INVALID
    assert await b.run(b.partners.routes) == []
    # A new contract may follow.
    again = await world.partners(a, b)
    assert again.contract_id != contract.contract_id
    assert (await a.send(b, "dataset.pub.list", {"contract_id": again.contract_id}))["code"] == 0


@pytest.mark.req("M-038")
async def test_query_of_an_unknown_contract(a: Node, b: Node, contract_id: str) -> None:
    answer = await a.send(b, "node.contract.query", {"contract_id": "ct-" + "0" * 32})
    assert (answer["code"], answer["http"]) == (430, 200)


@pytest.mark.req("M-039")
async def test_a_lost_confirm_is_recovered_through_query(world: World, a: Node, b: Node) -> None:
    rejected = await world.apply(a, b)
    await b.run(lambda tx: b.partners.decide(tx, rejected.contract_id, approve=False))
    shown = await a.admin_call("POST", f"/v1/admin/partners/{rejected.contract_id}/query")
    assert (shown["reported"], shown["status"]) == ("REJECTED", "REJECTED")
    # The key travels in confirm alone, so APPROVED waits for the repeated confirm.
    approved = await world.apply(a, b)
    await b.run(lambda tx: b.partners.decide(tx, approved.contract_id, approve=True))
    a.client._limits = replace(a.limits, request_attempts=2)  # query tries without and with the certificate
    shown = await a.admin_call("POST", f"/v1/admin/partners/{approved.contract_id}/query")
    assert (shown["reported"], shown["status"]) == ("APPROVED", "APPLIED")
    await b.flush()
    assert await statuses(approved.contract_id, a, b) == ["APPROVED", "APPROVED"]


@pytest.mark.req("M-031")
async def test_confirm_is_repeated_until_acknowledged(world: World, a: Node, b: Node) -> None:
    contract = await world.apply(a, b)
    a.up = False
    await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/approve")
    for _ in range(6):
        await b.flush()
        world.clock.ms += 120_000
    assert await statuses(contract.contract_id, a, b) == ["APPLIED", "APPROVED"]
    a.up = True
    b.client.lost.append("node.contract.confirm")
    await b.flush()
    world.clock.ms += 120_000
    await b.flush()
    assert await statuses(contract.contract_id, a, b) == ["APPROVED", "APPROVED"]
    headers = [sent for name, sent in b.client.calls if name == "node.contract.confirm"]
    assert len(headers) > 3
    for name in (names.NONCE, names.AUTH_SIGN):
        assert len({each[name] for each in headers}) == len(headers)  # M-012: each retry is fresh


async def test_apply_pins_what_the_admin_compared(world: World, a: Node, b: Node) -> None:
    with pytest.raises(Refused) as caught:
        await a.admin_call(
            "POST",
            "/v1/admin/partners/apply",
            {"address": b.identity.address, "node_id": "B", "fingerprint": "0" * 64},
        )
    assert caught.value.kind is Kind.UNAUTHENTICATED
    assert b.pki.fingerprint in str(caught.value)
    assert await b.run(lambda tx: tx.count(Contract)) == 0
    shown = await a.admin_call("POST", "/v1/admin/partners/probe", {"address": b.identity.address})
    assert shown["fingerprint"] == b.pki.fingerprint
    with_ca = {
        "address": b.identity.address + "/",
        "node_id": "B",
        "fingerprint": ":".join(b.pki.fingerprint.upper()[i : i + 2] for i in range(0, 64, 2)),
        "ca_pem": b.pki.ca.read_text(),
    }
    made = await a.admin_call("POST", "/v1/admin/partners/apply", with_ca)
    assert made["status"] == "APPLIED"
    assert made["peer_institution"] == "Institution B"
    assert not {"auth_credential", "tls_ca"} & set(made)


async def test_approve_checks_a_given_fingerprint(world: World, a: Node, b: Node) -> None:
    contract = await world.apply(a, b)
    path = f"/v1/admin/partners/{contract.contract_id}/approve"
    with pytest.raises(Refused):
        await b.admin_call("POST", path, {"fingerprint": "f" * 64})
    assert await statuses(contract.contract_id, b) == ["APPLIED"]
    await b.admin_call("POST", path, {"fingerprint": a.pki.fingerprint})


async def test_one_contract_holds_at_a_time(world: World, a: Node, b: Node, contract_id: str) -> None:
    second = await world.apply(a, b)
    with pytest.raises(Refused) as caught:
        await b.admin_call("POST", f"/v1/admin/partners/{second.contract_id}/approve")
    assert caught.value.kind is Kind.CONFLICT


@pytest.mark.parametrize("auth_type", [AuthType.SHA256_ECDSA])
async def test_bare_keys_need_the_ca_by_hand(world: World, auth_type: AuthType) -> None:
    a, b = world.node("A", auth_type=auth_type), world.node("B", auth_type=auth_type)
    contract = await world.apply(a, b)
    path = f"/v1/admin/partners/{contract.contract_id}/approve"
    with pytest.raises(Refused, match="ca_pem"):
        await b.admin_call("POST", path)
    await b.admin_call("POST", path, {"ca_pem": a.pki.ca.read_text()})
    await b.flush()
    assert await statuses(contract.contract_id, a, b) == ["APPROVED", "APPROVED"]
    for one, other in ((a, b), (b, a)):
        assert (await one.send(other, "dataset.pub.list", {"contract_id": contract.contract_id}))["code"] == 0


async def test_a_flood_of_claims_does_not_hide_the_partner(world: World, a: Node, b: Node, contract_id: str) -> None:
    """Anybody may apply in A's name; A's own contract must keep working, and the claims may not speak for it."""
    mallory = world.node("M")
    key = apply_body(mallory, node_id="A", auth_type="SHA256_ECDSA", auth_credential=public_key(mallory))
    for _ in range(30):
        world.clock.ms += 1
        answer = await mallory.send(b, "node.contract.apply", key, headers={names.SOURCE_NODE: "A"}, cert=None)
        assert answer["code"] == 0
    assert (await a.send(b, "dataset.pub.list", {"contract_id": contract_id}))["code"] == 0
    claimed = await mallory.send(b, "dataset.pub.list", {"contract_id": contract_id}, headers={names.SOURCE_NODE: "A"})
    assert claimed["code"] == 401


async def test_crossing_applications_end_in_partnership(world: World, a: Node, b: Node) -> None:
    first, second = await world.apply(a, b), await world.apply(b, a)
    await b.run(lambda tx: b.partners.decide(tx, first.contract_id, approve=True))
    await a.run(lambda tx: a.partners.decide(tx, second.contract_id, approve=True))
    await a.flush()
    await b.flush()
    for one, other in ((a, b), (b, a)):
        chosen = await one.run(lambda tx, one=one, other=other: one.partners.contract_with(tx, other.id))  # type: ignore[misc]
        assert (await one.send(other, "dataset.pub.list", {"contract_id": chosen.contract_id}))["code"] == 0


async def test_contract_with(world: World, a: Node, b: Node, contract_id: str) -> None:
    found = await a.run(lambda tx: a.partners.contract_with(tx, NodeId("B")))
    assert (found.contract_id, found.status) == (contract_id, ApprovalState.APPROVED)
    for node, kind in (("nobody", Kind.NODE_UNKNOWN),):
        with pytest.raises(Refused) as caught:
            await a.run(lambda tx, node=node: a.partners.contract_with(tx, NodeId(node)))  # type: ignore[misc]
        assert caught.value.kind is kind


async def test_a_peer_that_says_no_is_reported(world: World, a: Node, b: Node, contract_id: str) -> None:
    contract = await a.contract(b)
    with pytest.raises(PeerError) as caught:
        await a.client.call(
            contract, "dataset.pub.query", {"contract_id": contract_id, "dataset_id": "x"}, trace_id=trace()
        )
    assert caught.value.peer_code == "404"


async def test_no_contract_with_oneself(a: Node) -> None:
    answer = await a.send(a, "node.contract.apply", apply_body(a), cert=None)
    assert answer["code"] == 400
    caller = Caller(a.id, None, trace())
    with pytest.raises(GatewayError):
        await a.run(lambda tx: a.partners.receive_apply(tx, caller, apply_body(a)))
