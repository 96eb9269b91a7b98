"""Revocation lists: which are taken, what they stop, and the one that we write ourselves."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.auth.chain import check_client
from gateway.auth.pki import Pki, load_issuer
from gateway.auth.revocation import MAX_BYTES, RevocationLists, make, reread
from gateway.data_plane.io import tls
from gateway.data_plane.io.edge import Edge as DataEdge
from gateway.data_plane.io.edge import _Shown
from gateway.errors import WIRE, Kind, ProtocolViolation, Refused
from gateway.model import Crl, RevokedCert, TrailEntry
from tests.mgmt.world import Node, World, tls_leaf

LIST = "dataset.pub.list"
DAY_MS = 86_400_000


@pytest.fixture
async def contract_id(world: World, a: Node, b: Node) -> str:
    return (await world.partners(a, b)).contract_id


class Connection:
    """Stands for a TLS connection whose handshake is done."""


def at(node: Node, days: float = 0) -> datetime:
    return datetime.fromtimestamp(node.clock.ms / 1000, UTC) + timedelta(days=days)


def serial(chain: Path) -> int:
    return x509.load_pem_x509_certificates(chain.read_bytes())[0].serial_number


def crl(made: Pki, node: Node, *serials: int, since: float = 0, until: float = 30) -> bytes:
    ca, key = load_issuer(made.ca, made.ca_key)
    revoked = dict.fromkeys(serials, at(node))
    return make(ca, key, revoked, now=at(node, since), until=at(node, until)).encode()


async def give(to: Node, of: Node, raw: bytes) -> Any:
    body = {"crl": base64.b64encode(raw).decode()}
    return await to.admin_call("POST", f"/v1/admin/partners/{of.id}/crl", body)


async def heard(a: Node, b: Node, contract_id: str) -> int:
    return int((await a.send(b, LIST, {"contract_id": contract_id}))["code"])


@pytest.mark.parametrize("which", ["signing", "tls"])
async def test_a_revoked_certificate_is_refused_at_once(a: Node, b: Node, contract_id: str, which: str) -> None:
    assert await heard(a, b, contract_id) == 0
    taken = await give(b, a, crl(a.pki, b, serial(getattr(a.pki, which))))
    assert (taken["node_id"], taken["revoked"]) == (a.id, 1)
    assert "BEGIN" not in str(taken)
    assert await heard(a, b, contract_id) == WIRE[Kind.UNAUTHENTICATED].code
    assert "revoked" in b.journal.of("edge.refused")[-1]["reason"]
    told = [each for each in await b.run(lambda tx: tx.select(TrailEntry, order="seq")) if each.event == "crl.taken"]
    assert len(told) == 1
    # Nothing but the list stood in the way.
    assert (await b.admin_call("POST", f"/v1/admin/partners/{a.id}/crl/drop"))["dropped"] == 1
    assert await heard(a, b, contract_id) == 0


async def test_a_list_counts_until_it_runs_out_and_then_nothing_does(a: Node, b: Node, contract_id: str) -> None:
    await give(b, a, crl(a.pki, b, 4711, until=30))
    assert await heard(a, b, contract_id) == 0
    b.clock.ms += 30 * DAY_MS
    assert await heard(a, b, contract_id) == WIRE[Kind.UNAUTHENTICATED].code
    await give(b, a, crl(a.pki, b, 4711, until=60).replace(b"\n", b"\r\n"))
    assert await heard(a, b, contract_id) == 0


async def test_what_counts_survives_a_restart(a: Node, b: Node, contract_id: str) -> None:
    await give(b, a, crl(a.pki, b, serial(a.pki.signing)))
    b.lists.replace(())
    assert await heard(a, b, contract_id) == 0
    await b.crls.load(b.store)
    assert await heard(a, b, contract_id) == WIRE[Kind.UNAUTHENTICATED].code


def _forged(made: Pki, node: Node, foreign: Pki) -> bytes:
    """In the name of one CA, signed with the key of another."""
    ca, _ = load_issuer(made.ca, made.ca_key)
    return make(ca, load_issuer(foreign.ca, foreign.ca_key)[1], {}, now=at(node), until=at(node, 30)).encode()


def _delta(made: Pki, node: Node) -> bytes:
    ca, key = load_issuer(made.ca, made.ca_key)
    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.subject).last_update(at(node))
    builder = builder.next_update(at(node, 9)).add_extension(x509.DeltaCRLIndicator(1), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("forged", Kind.UNAUTHENTICATED),
        ("another CA's", Kind.UNAUTHENTICATED),
        ("run out", Kind.UNAUTHENTICATED),
        ("from the future", Kind.UNAUTHENTICATED),
        ("tampered", Kind.UNAUTHENTICATED),
        ("delta", Kind.MALFORMED),
        ("no list", Kind.MALFORMED),
        ("too long", Kind.TOO_LARGE),
        ("older", Kind.CONFLICT),
    ],
)
async def test_a_bad_list_is_refused_and_changes_nothing(
    a: Node, b: Node, c: Node, contract_id: str, name: str, kind: Kind
) -> None:
    await give(b, a, crl(a.pki, b, 4711))
    before = await b.run(lambda tx: tx.select(Crl))
    good = x509.load_pem_x509_crl(crl(a.pki, b, 4712)).public_bytes(Encoding.DER)
    bad = {
        "forged": lambda: _forged(a.pki, b, c.pki),
        "another CA's": lambda: crl(c.pki, b, serial(a.pki.signing)),
        "run out": lambda: crl(a.pki, b, since=-9, until=-1),
        "from the future": lambda: crl(a.pki, b, since=2),
        "tampered": lambda: good[:-1] + bytes([good[-1] ^ 1]),
        "delta": lambda: _delta(a.pki, b),
        "no list": lambda: b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
        "too long": lambda: b"0" * (MAX_BYTES + 1),
        "older": lambda: crl(a.pki, b, since=-1),
    }[name]()
    with pytest.raises((Refused, ProtocolViolation)) as refused:
        await give(b, a, bad)
    assert refused.value.kind is kind
    assert await b.run(lambda tx: tx.select(Crl)) == before
    assert await heard(a, b, contract_id) == 0


async def test_only_of_a_partner(a: Node, b: Node, c: Node, contract_id: str) -> None:
    with pytest.raises(Refused) as refused:
        await give(b, c, crl(c.pki, b))
    assert refused.value.kind is Kind.NODE_UNKNOWN


async def test_a_key_that_we_revoke_is_on_our_list_which_a_partner_takes(a: Node, b: Node, contract_id: str) -> None:
    a.clock.ms += 10
    await a.admin_call("POST", "/v1/admin/keys/rotate")
    assert (await a.admin_call("POST", "/v1/admin/keys/crl"))["revoked"] == 0
    a.clock.ms += 10
    await a.admin_call("POST", "/v1/admin/keys/revoke")
    assert {int(each.serial, 16) for each in await a.run(lambda tx: tx.select(RevokedCert))} >= {serial(a.pki.signing)}
    a.clock.ms += 1000
    written = await a.admin_call("POST", "/v1/admin/keys/crl", {"days": 7})
    assert (written["ca"], written["revoked"]) == (a.pki.fingerprint, 2)
    # The partner has not been told the new key yet: the list alone makes the old one void.
    assert await heard(a, b, contract_id) == 0
    taken = await give(b, a, written["crl_pem"].encode())
    assert taken["next_update"] == pytest.approx(a.clock.ms + 7 * DAY_MS, abs=1000)
    assert await heard(a, b, contract_id) == WIRE[Kind.UNAUTHENTICATED].code
    with pytest.raises(ProtocolViolation):
        await a.admin_call("POST", "/v1/admin/keys/crl", {"days": 0})


async def test_the_routes_carry_the_list_to_the_data_plane(a: Node, b: Node, contract_id: str) -> None:
    await give(b, a, crl(a.pki, b, serial(a.pki.tls)))
    (route,) = await b.run(b.partners.routes)
    lists = RevocationLists(reread(pem, ca) for ca, pem in route.crls.items())
    ca = x509.load_pem_x509_certificate(a.pki.ca.read_bytes()).public_bytes(Encoding.DER)
    with pytest.raises(Refused, match="revoked"):
        tls.check_revoked([tls_leaf(a.pki), ca], lists, now_ms=b.clock.ms)
    edge = DataEdge(b.clock, lists)
    edge.set_roots({a.id: (ca,)})
    shown = Connection()
    edge._shown[shown] = _Shown([tls_leaf(a.pki), ca], tls.read_leaf(tls_leaf(a.pki)))
    with pytest.raises(Refused, match="revoked"):
        edge.prove(shown)
    lists.replace(())
    assert edge.prove(shown) == a.id


async def test_a_revoked_server_is_not_spoken_to(a: Node, b: Node, contract_id: str) -> None:
    """What the control client checks in every handshake."""
    await give(b, a, crl(a.pki, b, serial(a.pki.tls)))
    with pytest.raises(Refused, match="revoked"):
        check_client(tls_leaf(a.pki), a.pki.ca.read_text(), node_id=a.id, now_ms=b.clock.ms, lists=b.lists)
    generation = b.lists.generation
    b.lists.replace(())
    assert b.lists.generation == generation + 1
