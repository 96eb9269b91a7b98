"""Keys that follow each other: node/update from both sides, the overlap, emergencies, a new CA."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.auth.canonical import key_proof
from gateway.auth.keys import KeyRing, load_signer
from gateway.auth.pki import Pki, renew_signing
from gateway.errors import WIRE, CallerError, Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.service.keys import OVERLAP, PROOF
from gateway.mgmt_plane.service.partners import pinned_cas
from gateway.model import OwnKey
from specs.states import ApprovalState, AuthType
from tests.mgmt.world import Node, World, decoded, pki, tampered, tls_leaf, trace

UPDATE, LIST = "node.update", "dataset.pub.list"
DAY_MS = 86_400_000


def code(kind: Kind) -> int:
    return WIRE[kind].code


@pytest.fixture
async def contract_id(world: World, a: Node, b: Node) -> str:
    return (await world.partners(a, b)).contract_id


async def rotate(node: Node, *, how: str = "rotate") -> str:
    node.clock.ms += 10
    return str((await node.admin_call("POST", f"/v1/admin/keys/{how}"))["key_id"])


async def heard(a: Node, b: Node, contract_id: str, **changes: Any) -> int:
    return int((await a.send(b, LIST, {"contract_id": contract_id}, **changes))["code"])


async def body(a: Node, b: Node) -> dict[str, Any]:
    contract = await a.contract(b)
    return await a.run(lambda tx: a.keys.update_body(tx, contract))


@pytest.mark.req("M-037")
async def test_a_new_key_goes_to_the_partner_and_counts_from_then_on(a: Node, b: Node, contract_id: str) -> None:
    before, old = await b.contract(a), a.signer
    new_id = await rotate(a)
    new = a.ring.current
    assert await heard(a, b, contract_id, signer=new) == code(Kind.UNAUTHENTICATED)
    assert await a.rekeyer.tell() == 0
    after = await b.contract(a)
    assert (after.contract_id, after.status) == (before.contract_id, ApprovalState.APPROVED)
    assert (after.auth_credential, after.proven) == (new.credential, True)
    assert (after.old_auth_credential, after.old_until) == (old.credential, b.clock.ms + DAY_MS)
    assert (await a.contract(b)).our_key == new_id
    assert await heard(a, b, contract_id, signer=new) == 0
    # A call that was signed with the old key while the update was under way is still taken, for the overlap.
    assert await heard(a, b, contract_id, signer=old) == 0
    b.clock.ms += DAY_MS
    assert await heard(a, b, contract_id, signer=old) == code(Kind.UNAUTHENTICATED)
    # Our own client signs with the new one, and nothing is left to tell.
    await a.client.call(await a.contract(b), LIST, {"contract_id": contract_id}, trace_id=trace())
    assert await a.run(a.keys.untold) == []


@pytest.mark.req("M-037")
async def test_until_the_partner_has_acknowledged_we_sign_with_the_old_key(a: Node, b: Node, contract_id: str) -> None:
    await rotate(a)
    b.up = False
    assert await a.rekeyer.tell() == 1
    assert a.rekeyer.refusals
    b.up = True
    await a.client.call(await a.contract(b), LIST, {"contract_id": contract_id}, trace_id=trace())
    shown = await a.admin_call("GET", "/v1/admin/keys")
    assert [(each["told"], bool(each["refusal"])) for each in shown["partners"]] == [(False, True)]
    assert await a.rekeyer.tell() == 0
    shown = await a.admin_call("GET", "/v1/admin/keys")
    assert [(each["told"], each["refusal"]) for each in shown["partners"]] == [(True, "")]
    assert "BEGIN" not in str(shown)


@pytest.mark.req("M-037")
@pytest.mark.parametrize("how", ["rotate", "revoke"])
async def test_a_lost_answer_is_repaired_by_the_repeat(a: Node, b: Node, contract_id: str, how: str) -> None:
    await rotate(a, how=how)
    a.client.lost.append(UPDATE)
    assert await a.rekeyer.tell() == 1
    taken = await b.contract(a)
    assert taken.auth_credential == a.ring.current.credential
    assert (await a.contract(b)).our_key == a.signer.key_id
    a.clock.ms += 1000
    assert await a.rekeyer.tell() == 0
    assert await b.contract(a) == taken
    assert (await a.contract(b)).our_key == a.ring.current.key_id


async def test_revoking_leaves_no_overlap(a: Node, b: Node, contract_id: str) -> None:
    old = a.signer
    await rotate(a, how="revoke")
    assert (await body(a, b))[OVERLAP] == 0
    # An ordinary rotation that comes before the partner has heard of it does not soften it.
    await rotate(a)
    assert (await body(a, b))[OVERLAP] == 0
    assert await a.rekeyer.tell() == 0
    assert await heard(a, b, contract_id, signer=old) == code(Kind.UNAUTHENTICATED)
    assert await heard(a, b, contract_id, signer=a.ring.current) == 0
    await rotate(a)
    assert (await body(a, b))[OVERLAP] == DAY_MS // 1000


async def test_our_admin_ends_the_overlap_of_a_partner(a: Node, b: Node, contract_id: str) -> None:
    old = a.signer
    await rotate(a)
    assert await a.rekeyer.tell() == 0
    assert await heard(a, b, contract_id, signer=old) == 0
    await b.admin_call("POST", f"/v1/admin/partners/{contract_id}/keys/revoke")
    assert await heard(a, b, contract_id, signer=old) == code(Kind.UNAUTHENTICATED)
    assert await heard(a, b, contract_id, signer=a.ring.current) == 0
    shown = await b.admin_call("GET", "/v1/admin/keys")
    assert shown["partners"][0]["old_until"] is None


async def test_the_replaced_key_can_do_everything_but_replace_the_new_one(a: Node, b: Node, contract_id: str) -> None:
    thief = a.signer
    await rotate(a)
    assert await a.rekeyer.tell() == 0
    taken = await b.contract(a)
    signer, _ = await a.new_signer()
    stolen = {**(await body(a, b)), "auth_credential": signer.credential}
    del stolen[PROOF]
    moved = {**(await body(a, b)), "address": "https://thief.example"}
    for sent in (stolen, moved):
        assert (await a.send(b, UPDATE, sent, signer=thief))["code"] == code(Kind.UNAUTHENTICATED)
        assert await b.contract(a) == taken


@pytest.mark.req("M-037")
async def test_names_and_address_follow_and_the_route_is_told(a: Node, b: Node, contract_id: str) -> None:
    changed = b.routes_changed
    sent = {
        **(await body(a, b)),
        "address": "https://moved.example:7304/x/",
        "name": "n2",
        "institution": "i2",
        "system_version": "9",
    }
    assert (await a.send(b, UPDATE, sent))["code"] == 0
    after = await b.contract(a)
    assert (after.peer_address, after.peer_name, after.peer_institution) == ("https://moved.example:7304/x", "n2", "i2")
    assert (after.peer_system_version, after.auth_credential) == ("9", a.signer.credential)
    assert b.routes_changed == changed + 1
    assert [each.address for each in await b.run(b.partners.routes)] == ["https://moved.example:7304/x"]


async def test_bad_updates_change_nothing(a: Node, b: Node, c: Node, contract_id: str) -> None:
    before = await b.contract(a)
    await rotate(a)
    good = await body(a, b)
    foreign = pki("X").signing.read_text()
    proof_for_c = a.ring.current.sign(
        key_proof(source=a.id, target=c.id, contract_id=contract_id, credential=good["auth_credential"])
    )
    cases: list[tuple[dict[str, Any], Kind]] = [
        ({"contract_id": "ct-unknown"}, Kind.CONTRACT_UNKNOWN),
        ({"inst_id": "JGother"}, Kind.CONFLICT),
        ({"address": "http://plain.example"}, Kind.MALFORMED),
        ({"auth_credential": "no key"}, Kind.UNAUTHENTICATED),
        ({"auth_credential": foreign}, Kind.UNAUTHENTICATED),
        ({"auth_type": "SHA256_RSA"}, Kind.UNAUTHENTICATED),
        ({PROOF: proof_for_c}, Kind.UNAUTHENTICATED),
        ({PROOF: "AAAA"}, Kind.UNAUTHENTICATED),
        ({OVERLAP: -1}, Kind.MALFORMED),
        ({OVERLAP: "1"}, Kind.MALFORMED),
    ]
    for change, kind in cases:
        assert (await a.send(b, UPDATE, {**good, **change}))["code"] == code(kind), change
    for name in ("contract_id", "address", "auth_credential", "auth_type", "inst_id", "institution", "name", "system"):
        missing = {key: value for key, value in good.items() if key != name}
        assert (await a.send(b, UPDATE, missing))["code"] == code(Kind.MALFORMED), name
    unsigned = await a.send(b, UPDATE, good, sign=False)
    by_new_key = await a.send(b, UPDATE, good, signer=a.ring.current)
    bent = await a.send(b, UPDATE, good, after=tampered(body=b"{}"))
    assert {each["code"] for each in (unsigned, by_new_key, bent)} == {code(Kind.UNAUTHENTICATED)}
    assert await b.contract(a) == before


async def test_another_partner_cannot_update_it(world: World, a: Node, b: Node, c: Node, contract_id: str) -> None:
    await world.partners(c, b)
    before = await b.contract(a)
    assert (await c.send(b, UPDATE, {**(await body(a, b)), "name": "c"}))["code"] == code(Kind.CONTRACT_UNKNOWN)
    assert await b.contract(a) == before


async def test_bare_keys_follow_each_other(world: World) -> None:
    a, b = world.node("A", auth_type=AuthType.SHA256_ECDSA), world.node("B")
    contract = await world.apply(a, b)
    await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/approve", {"ca_pem": a.pki.ca.read_text()})
    await b.flush()
    pinned = (await b.contract(a)).tls_ca
    await rotate(a)
    unproven = {key: value for key, value in (await body(a, b)).items() if key != PROOF}
    assert (await a.send(b, UPDATE, unproven))["code"] == 0
    after = await b.contract(a)
    assert (after.fingerprint, after.proven, after.tls_ca) == (a.ring.current.key_id, False, pinned)
    assert await a.rekeyer.tell() == 0
    assert await heard(a, b, contract.contract_id, signer=a.ring.current) == 0


async def test_a_new_ca_needs_the_word_of_our_admin(a: Node, b: Node, contract_id: str, tmp_path: Path) -> None:
    before = await b.contract(a)
    other = Pki.create(tmp_path / "pki", a.id, now=datetime.fromtimestamp(a.clock.ms / 1000, UTC))
    signer = load_signer(
        auth_type=AuthType.CERT, key_uri=other.signing_key.as_uri(), credential=other.signing.read_text()
    )
    a.ring.add(signer)
    assert await a.rekeyer.tell() == 1
    offered = await b.contract(a)
    assert replace(offered, updated=before.updated, ca_offered="") == before
    assert offered.ca_offered == other.fingerprint
    assert await heard(a, b, contract_id, signer=signer) == code(Kind.UNAUTHENTICATED)
    assert await heard(a, b, contract_id, cert=other) == code(Kind.UNAUTHENTICATED)

    allow = f"/v1/admin/partners/{contract_id}/keys/allow"
    for wrong in ({}, {"fingerprint": "12"}):
        with pytest.raises((ProtocolViolation, Refused), match="fingerprint"):
            await b.admin_call("POST", allow, wrong)
    await b.admin_call("POST", allow, {"fingerprint": "0" * 64})
    assert await a.rekeyer.tell() == 1
    await b.admin_call("POST", allow, {"fingerprint": other.fingerprint})
    assert await a.rekeyer.tell() == 0

    after = await b.contract(a)
    assert (after.fingerprint, after.tls_ca) == (other.fingerprint, other.ca.read_text())
    assert (after.ca_offered, after.ca_allowed) == ("", "")
    # Both CAs vouch for its TLS during the overlap, then the new one alone.
    for made in (a.pki, other):
        assert await heard(a, b, contract_id, signer=signer, cert=made) == 0
    [route] = await b.run(b.partners.routes)
    assert route.tls_ca == pinned_cas(after, b.clock.ms) == other.ca.read_text() + a.pki.ca.read_text()
    b.clock.ms += DAY_MS
    assert await heard(a, b, contract_id, signer=signer, cert=other) == 0
    assert await heard(a, b, contract_id, signer=signer, cert=a.pki) == code(Kind.UNAUTHENTICATED)
    [route] = await b.run(b.partners.routes)
    assert route.tls_ca == other.ca.read_text()
    assert tls_leaf(other) != tls_leaf(a.pki)


async def test_keys_are_kept_in_order_and_only_their_place(a: Node, contract_id: str) -> None:
    ids = [await rotate(a) for _ in range(3)]
    kept = await a.run(lambda tx: tx.select(OwnKey))
    assert [each.key_id for each in kept] == ids
    assert all(each.key_uri.startswith("file:") and "PRIVATE" not in each.credential for each in kept)
    again = KeyRing(a.signer)
    for each in kept:
        again.add(load_signer(auth_type=AuthType.CERT, key_uri=each.key_uri, credential=each.credential))
    assert again.current.key_id == ids[-1]
    assert again.of("") is a.signer
    with pytest.raises(CallerError):
        again.of("00")


async def test_the_contract_shown_holds_no_credential(a: Node, b: Node, contract_id: str) -> None:
    await rotate(a)
    await a.rekeyer.tell()
    shown = await b.admin_call("GET", "/v1/admin/partners")
    assert "BEGIN" not in str(shown)


def test_a_key_is_made_only_by_the_key_of_the_ca(tmp_path: Path) -> None:
    one, two = pki("one"), pki("two")
    now = datetime.now(UTC)
    with pytest.raises(CallerError):
        renew_signing(ca=one.ca, ca_key=two.ca_key, directory=tmp_path, node_id="one", now=now)
    with pytest.raises(CallerError):
        renew_signing(ca=one.ca, ca_key=tmp_path / "away.key", directory=tmp_path, node_id="one", now=now)
    assert list(tmp_path.iterdir()) == []


def test_a_proof_has_no_line_breaks() -> None:
    with pytest.raises(ProtocolViolation, match="line break"):
        key_proof(source="a\n", target="b", contract_id="c", credential="d")


@pytest.mark.req("M-012", "M-014")
async def test_a_partner_with_whom_rfc_9421_was_agreed(a: Node, b: Node, contract_id: str) -> None:
    asked = {"contract_id": contract_id}
    await b.run(lambda tx: b.partners.set_profile(tx, a.id, "strict-1.2-rfc9421"))
    # What was not agreed is not taken, on either side.
    assert await heard(a, b, contract_id) == code(Kind.UNAUTHENTICATED)
    await a.run(lambda tx: a.partners.set_profile(tx, b.id, "strict-1.2-rfc9421"))
    known = await a.contract(b)
    await a.client.call(known, LIST, {**asked, "page_num": 1, "page_size": 5}, trace_id=trace())
    _, headers = a.client.calls[-1]
    assert "x-auth-sign" not in headers
    assert headers["signature-input"].startswith('interconn=("@method"')
    await rotate(a)
    assert await a.rekeyer.tell() == 0
    await a.client.call(await a.contract(b), LIST, asked, trace_id=trace())
    _, headers = a.client.calls[-1]
    unsigned = {name: value for name, value in headers.items() if name != "content-type"}
    again = await a.send(b, LIST, asked, headers=unsigned, sign=False)
    assert again["code"] == code(Kind.REPLAYED)
    bent = await a.send(b, LIST, asked, headers={**unsigned, "x-nonce": "other"}, sign=False)
    assert bent["code"] == code(Kind.UNAUTHENTICATED)


@pytest.mark.req("M-012")
@pytest.mark.parametrize("auth_type", [AuthType.CERT, AuthType.SHA256_ECDSA])
async def test_a_call_captured_before_the_rotation_is_a_replay_after_it(world: World, auth_type: AuthType) -> None:
    a, b = world.node("A", auth_type=auth_type), world.node("B")
    contract = await world.apply(a, b)
    approve = f"/v1/admin/partners/{contract.contract_id}/approve"
    ca = {} if auth_type is AuthType.CERT else {"ca_pem": a.pki.ca.read_text()}
    await b.admin_call("POST", approve, ca)
    await b.flush()
    world.clock.ms += 10
    captured = a.request(b, LIST, {"contract_id": contract.contract_id})
    assert decoded(await b.edge.handle(captured))["code"] == 0
    await rotate(a)
    assert await a.rekeyer.tell() == 0
    assert decoded(await b.edge.handle(captured))["code"] == code(Kind.REPLAYED)


async def test_a_partner_without_a_management_layer_is_told_nothing(a: Node, b: Node, contract_id: str) -> None:
    contract = await a.contract(b)
    await rotate(a)
    assert len(await a.run(a.keys.untold)) == 1
    await a.run(lambda tx: tx.replace(contract, replace(contract, profile="fate-2.x")))
    assert await a.run(a.keys.untold) == []


@pytest.mark.req("M-037")
async def test_a_key_that_our_admin_made(a: Node, b: Node, contract_id: str) -> None:
    """As one in a token is taken into use: by its URI, with its certificate."""
    made, uri = await a.new_signer()
    rotate_with = "/v1/admin/keys/rotate"
    for wrong in ({"key_uri": uri}, {"credential": made.credential}, {"key_uri": 7, "credential": made.credential}):
        with pytest.raises(ProtocolViolation, match="go together"):
            await a.admin_call("POST", rotate_with, wrong)
    with pytest.raises(CallerError, match="not the one of the credential"):
        await a.admin_call("POST", rotate_with, {"key_uri": uri, "credential": a.signer.credential})
    assert a.ring.current == a.signer
    a.clock.ms += 10
    answer = await a.admin_call("POST", rotate_with, {"key_uri": uri, "credential": made.credential})
    assert answer["key_id"] == made.key_id
    assert await a.rekeyer.tell() == 0
    assert await heard(a, b, contract_id, signer=a.ring.current) == 0
