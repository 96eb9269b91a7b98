"""Our TLS certificate and our CA replaced, with one partner after another, without a moment in which one is cut off."""

from pathlib import Path

import pytest
from cryptography import x509

from gateway.auth.chain import certificates, check_client, check_leaf
from gateway.auth.pki import Pki
from gateway.errors import Kind, Refused
from gateway.mgmt_plane.service.partners import pinned_cas
from gateway.model import OwnTls, RevokedCert, TrailEntry
from tests.mgmt.world import Node, World, leaf_of, trace

LIST = "dataset.pub.list"
DAY_MS = 86_400_000
HOUR_MS = 3_600_000


@pytest.fixture
async def partners(world: World, a: Node, b: Node, c: Node) -> list[Node]:
    """Both partners of A, whose keys are going to change."""
    await world.partners(a, b)
    await world.partners(a, c)
    return [b, c]


async def speaks(one: Node, other: Node) -> bool:
    """Whether a call goes through: the caller's certificate and signature, and what the other's listener shows."""
    contract = await one.contract(other)
    shown = leaf_of(other.shown.shown.chain)
    try:
        check_client(shown, pinned_cas(contract, one.clock.ms), node_id=other.id, now_ms=one.clock.ms, lists=one.lists)
        await one.client.call(contract, LIST, {"contract_id": contract.contract_id}, trace_id=trace())
    except Exception:  # noqa: BLE001  # any reason
        return False
    return True


async def events(node: Node) -> list[str]:
    return [each.event for each in await node.run(lambda tx: tx.select(TrailEntry, order="seq"))]


async def test_a_new_tls_certificate_is_shown_at_once(a: Node, partners: list[Node]) -> None:
    before = a.shown.shown
    made = await a.admin_call("POST", "/v1/admin/tls/rotate")
    assert (made["shown"], made["new_ca"], made["ca"]) == (True, False, a.pki.fingerprint)
    assert a.shown.shown.chain != before.chain
    leaf, ca = certificates(a.shown.shown.chain.read_text())
    check_leaf(leaf, ca, node_id=a.id, now_ms=a.clock.ms)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "gate.example" in names.get_values_for_type(x509.DNSName)
    for partner in partners:
        assert await speaks(a, partner)
        assert await speaks(partner, a)
        [route] = [each for each in await a.run(a.partners.routes) if each.node_id == partner.id]
        assert (route.our_chain, route.our_key) == (str(a.shown.shown.chain), str(a.shown.shown.key))
    assert "certificate.made" in await events(a)
    assert (await a.admin_call("GET", "/v1/admin/tls"))["certificates"][0]["shown"] is True
    # A crash forgets nothing.
    a.shown.replace([], shown=None)
    await a.tls.load(a.store)
    assert a.shown.shown.chain != before.chain


async def test_a_compromised_tls_key_goes_on_our_list(a: Node, b: Node, partners: list[Node]) -> None:
    old = leaf_of(a.pki.tls)
    await a.admin_call("POST", "/v1/admin/tls/revoke")
    [revoked] = await a.run(lambda tx: tx.select(RevokedCert))
    assert int(revoked.serial, 16) == x509.load_der_x509_certificate(old).serial_number
    assert "certificate.revoked" in await events(a)
    assert await speaks(a, b)


@pytest.mark.req("M-037")
async def test_a_new_ca_with_one_partner_after_another(a: Node, b: Node, c: Node, partners: list[Node]) -> None:
    old, pairs = a.shown.shown, [(a, b), (b, a), (a, c), (c, a)]

    async def all_speak() -> bool:
        return all([await speaks(*pair) for pair in pairs])

    made = await a.admin_call("POST", "/v1/admin/tls/rotate", {"ca": True})
    assert (made["shown"], made["new_ca"]) == (False, True)
    assert made["ca"] != a.pki.fingerprint
    assert await a.rekeyer.tell() == 2
    assert a.shown.shown == old
    assert await all_speak()
    assert (await a.admin_call("GET", "/v1/admin/tls"))["waiting"] == [b.id, c.id]
    # Whoever meets us now is told the CA that it sees.
    assert (await a.admin_call("GET", "/v1/admin/node"))["fingerprint"] == a.pki.fingerprint

    for partner, left, shown in ((b, 1, a.pki.fingerprint), (c, 0, made["ca"])):
        contract = await partner.contract(a)
        assert contract.ca_offered == made["ca"]
        allowed = {"fingerprint": made["ca"]}
        await partner.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/keys/allow", allowed)
        a.clock.ms += HOUR_MS
        assert await a.rekeyer.tell() == left
        assert a.shown.shown.ca == shown
        assert await all_speak()
    assert (await a.admin_call("GET", "/v1/admin/node"))["fingerprint"] == made["ca"]
    assert "certificate.shown" in await events(a)
    a.clock.ms += DAY_MS
    assert await all_speak()
    # The old CA is worth nothing any more.
    check = pinned_cas(await b.contract(a), b.clock.ms)
    with pytest.raises(Refused):
        check_client(leaf_of(old.chain), check, node_id=a.id, now_ms=b.clock.ms)
    # The next signing key comes from the new CA.
    await a.admin_call("POST", "/v1/admin/tls/rotate")
    assert a.shown.shown.ca == made["ca"]


async def test_who_does_not_allow_in_time_does_not_cut_off_who_did(
    a: Node, b: Node, c: Node, partners: list[Node]
) -> None:
    made = await a.admin_call("POST", "/v1/admin/tls/rotate", {"ca": True})
    contract = await b.contract(a)
    allowed = {"fingerprint": made["ca"]}
    await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/keys/allow", allowed)
    assert await a.rekeyer.tell() == 1
    with pytest.raises(Refused) as refused:
        await a.admin_call("POST", "/v1/admin/tls/rotate", {"ca": True})
    assert refused.value.kind is Kind.CONFLICT
    a.clock.ms += 19 * HOUR_MS
    assert await a.rekeyer.tell() == 1
    assert a.shown.shown.ca == made["ca"]
    assert await speaks(b, a)
    assert await speaks(a, b)
    # Our calls to the late one go on under the CA that it knows; its calls to us wait for its admin.
    assert await speaks(a, c)
    assert not await speaks(c, a)
    late = await c.contract(a)
    await c.admin_call("POST", f"/v1/admin/partners/{late.contract_id}/keys/allow", allowed)
    assert await a.rekeyer.tell() == 0
    assert await speaks(c, a)


async def test_our_admin_may_change_over_at_once(a: Node, partners: list[Node]) -> None:
    made = await a.admin_call("POST", "/v1/admin/tls/rotate", {"ca": True})
    assert a.shown.shown.ca != made["ca"]
    assert await a.admin_call("POST", "/v1/admin/tls/finish") == {"changed": True}
    assert a.shown.shown.ca == made["ca"]
    assert await a.admin_call("POST", "/v1/admin/tls/finish") == {"changed": False}


async def test_without_partners_a_new_ca_counts_at_once(a: Node) -> None:
    made = await a.admin_call("POST", "/v1/admin/tls/rotate", {"ca": True})
    assert await a.rekeyer.tell() == 0
    assert a.shown.shown.ca == made["ca"]


async def test_a_ca_key_that_is_away_is_said_and_nothing_changes(
    a: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = Pki.create(tmp_path / "pki", a.id)
    made.ca_key.unlink()
    monkeypatch.setattr(a, "pki", made)
    with pytest.raises(Exception, match="cannot be used"):
        await a.admin_call("POST", "/v1/admin/tls/rotate")
    assert await a.run(lambda tx: tx.select(OwnTls)) == []
