"""Invitations: what is in one, what makes one refused, and applying with it."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from gateway.auth.keys import load_signer
from gateway.auth.words import LIST, WORDS, from_words, in_words
from gateway.errors import GatewayError, Kind, ProtocolViolation, Refused, Unavailable
from gateway.mgmt_plane.core import invite as invites
from gateway.mgmt_plane.rest.admin_invites import InviteAdmin
from gateway.model import Contract, Limits
from specs.states import ApprovalState, AuthType
from tests.mgmt.world import NOW, Node, World, pki

DAY = 86_400_000


def admin(node: Node) -> InviteAdmin:
    return InviteAdmin(
        identity=node.identity,
        signer=lambda: node.signer,
        limits=Limits(),
        clock=node.clock,
        journal=node.journal,
        apply=node.admin.apply,
    )


async def created(node: Node, **body: Any) -> dict[str, Any]:
    return dict(await admin(node).create({}, {}, body))


def resigned(node: Node, file: dict[str, Any]) -> dict[str, Any]:
    """As the node itself would sign the changed content."""
    return {**file, "signature": node.signer.sign(invites._canonical(file["invite"]))}


def test_the_words_are_256_and_can_be_told_apart() -> None:
    assert len(LIST) == 256
    assert list(LIST) == sorted(LIST)
    assert len({word[:3] for word in LIST}) == 256
    assert all(word.isascii() and word.isalpha() and word.islower() and 4 <= len(word) <= 8 for word in LIST)


def test_words_are_the_first_96_bits_of_the_fingerprint_and_back() -> None:
    mark = "00ff10" + "ab" * 29
    words = in_words(mark)
    assert len(words) == WORDS == 12
    assert words[:3] == (LIST[0], LIST[255], LIST[16])
    assert from_words("-".join(words).upper()) == mark[:24]
    with pytest.raises(ValueError, match="none of the words"):
        from_words("able xyzzy")


async def test_an_invitation_holds_what_a_partner_needs_and_no_secret(a: Node) -> None:
    made = await created(a)
    file = made["file"]
    invite = file["invite"]
    assert (file["format"], file["version"]) == ("interconn-invite", 1)
    assert invite["node_id"] == a.id
    assert invite["endpoints"] == {"edge": a.identity.address}
    assert invite["ca"] == a.pki.ca.read_text()
    assert invite["signing_chain"] == a.pki.signing.read_text()
    assert invite["expires"] - invite["created"] == 14 * DAY
    assert "CERT" in invite["suites"]
    assert invite["fingerprint"]["sha256"] == a.pki.fingerprint == made["fingerprint"]
    assert invite["fingerprint"]["words"].split() == list(in_words(a.pki.fingerprint)) == made["words"]
    assert "PRIVATE" not in json.dumps(file)


async def test_it_verifies_after_a_trip_through_text(a: Node) -> None:
    file = json.loads(json.dumps((await created(a, days=30))["file"], indent=3, sort_keys=True))
    found = invites.verify(file, now=NOW + 29 * DAY, skew_ms=0)
    assert (found.node_id, found.address, found.fingerprint) == (a.id, a.identity.address, a.pki.fingerprint)


async def test_a_signed_member_that_is_not_known_is_ignored(a: Node) -> None:
    file = (await created(a))["file"]
    file["invite"]["later"] = {"x": [1, 2]}
    assert invites.verify(resigned(a, file), now=NOW, skew_ms=0).node_id == a.id


def _set(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(file: dict[str, Any]) -> None:
        inner = file
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = to

    return change


def _drop(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(file: dict[str, Any]) -> None:
        inner = file
        for name in path[:-1]:
            inner = inner[name]
        del inner[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_set("invite", "node_id", to="LX-OTHER"), Kind.UNAUTHENTICATED),
        (_set("invite", "name", to="somebody else"), Kind.UNAUTHENTICATED),
        (_set("invite", "endpoints", to={"edge": "https://evil.example"}), Kind.UNAUTHENTICATED),
        (_set("invite", "expires", to=NOW + 40 * DAY), Kind.UNAUTHENTICATED),
        (_set("invite", "extra", to="x"), Kind.UNAUTHENTICATED),
        (_set("invite", "suites", to=["NONE"]), Kind.UNAUTHENTICATED),
        (_set("signature", to="AAAA"), Kind.UNAUTHENTICATED),
        (_set("signature", to="not base64!"), Kind.UNAUTHENTICATED),
        (_set("signature", to=7), Kind.MALFORMED),
        (_set("version", to=2), Kind.NOT_OFFERED),
        (_set("version", to=True), Kind.MALFORMED),
        (_set("format", to="other"), Kind.MALFORMED),
        (_set("invite", to=[]), Kind.MALFORMED),
        (_set("invite", "created", to="now"), Kind.MALFORMED),
        (_set("invite", "ca", to="x"), Kind.UNAUTHENTICATED),
        (_drop("invite", "ca"), Kind.MALFORMED),
        (_drop("signature"), Kind.MALFORMED),
        (_drop("invite", "fingerprint", "words"), Kind.MALFORMED),
    ],
)
async def test_a_changed_file_is_refused(a: Node, change: Callable[[dict[str, Any]], None], kind: Kind) -> None:
    file = deepcopy((await created(a))["file"])
    change(file)
    with pytest.raises(GatewayError) as caught:
        invites.verify(file, now=NOW, skew_ms=0)
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_set("invite", "node_id", to="LX-OTHER"), "another node"),
        (_set("invite", "fingerprint", "sha256", to="0" * 64), "fingerprint"),
        (_set("invite", "fingerprint", "words", to="able acid"), "fingerprint"),
        (_set("invite", "endpoints", "edge", to="http://plain.example"), "https"),
        (_set("invite", "created", to=NOW + DAY), "impossible"),
        (_set("invite", "expires", to=NOW + 400 * DAY), "impossible"),
        (_set("invite", "expires", to=NOW), "expired"),
    ],
)
async def test_a_file_that_its_maker_signed_can_still_be_refused(
    a: Node, change: Callable[[dict[str, Any]], None], why: str
) -> None:
    file = deepcopy((await created(a))["file"])
    change(file)
    with pytest.raises(GatewayError, match=why):
        invites.verify(resigned(a, file), now=NOW, skew_ms=300_000)


async def test_a_ca_beside_the_chain_is_refused(a: Node, b: Node) -> None:
    """Somebody who signs with a chain of his own and hopes that the CA of a known node is what people compare."""
    file = deepcopy((await created(b))["file"])
    file["invite"]["ca"] = a.pki.ca.read_text()
    file["invite"]["fingerprint"] = {"sha256": a.pki.fingerprint, "words": " ".join(in_words(a.pki.fingerprint))}
    with pytest.raises(Refused, match="not under its CA"):
        invites.verify(resigned(b, file), now=NOW, skew_ms=0)


async def test_a_ca_speaks_for_no_other_node(a: Node, b: Node) -> None:
    file = deepcopy((await created(b))["file"])
    file["invite"]["node_id"] = a.id
    with pytest.raises(Refused, match="another node"):
        invites.verify(resigned(b, file), now=NOW, skew_ms=0)


@pytest.mark.parametrize("days", [0, -1, 367, "3", 1.5, True])
async def test_days_out_of_range_are_refused(a: Node, days: Any) -> None:
    with pytest.raises(ProtocolViolation):
        await created(a, days=days)


async def test_an_invitation_needs_a_certificate(a: Node) -> None:
    made = pki(a.id)
    from tests.mgmt.world import credential_text

    bare = load_signer(
        auth_type=AuthType.SHA256_ECDSA,
        key_uri=made.signing_key.as_uri(),
        credential=credential_text(made, AuthType.SHA256_ECDSA),
    )
    with pytest.raises(GatewayError):
        invites.make(a.identity, bare, now=NOW)


async def contracts(node: Node) -> list[Contract]:
    return list(await node.run(lambda tx: tx.select(Contract)))


async def test_pairing_takes_one_file_and_one_approval_on_each_side(a: Node, b: Node) -> None:
    file = (await created(a))["file"]
    seen = await admin(b).check({}, {}, {"file": file})
    assert (seen["node_id"], seen["fingerprint"], seen["words"]) == (
        a.id,
        a.pki.fingerprint,
        list(in_words(a.pki.fingerprint)),
    )
    assert await contracts(b) == []  # looking changes nothing
    await admin(b).apply({}, {}, {"file": file, "fingerprint": seen["fingerprint"]})
    [ours], [theirs] = await contracts(b), await contracts(a)
    assert ours.tls_ca == a.pki.ca.read_text()
    assert (theirs.peer_node_id, theirs.status, theirs.proven) == (b.id, ApprovalState.APPLIED, True)
    await a.admin_call("POST", f"/v1/admin/partners/{theirs.contract_id}/approve", {"fingerprint": b.pki.fingerprint})
    await a.flush()
    assert [each.status for each in (*await contracts(a), *await contracts(b))] == [ApprovalState.APPROVED] * 2


async def test_applying_needs_the_compared_fingerprint(a: Node, b: Node) -> None:
    file = (await created(a))["file"]
    with pytest.raises(ProtocolViolation):
        await admin(b).apply({}, {}, {"file": file})
    with pytest.raises(Refused) as caught:
        await admin(b).apply({}, {}, {"file": file, "fingerprint": "0" * 64})
    assert caught.value.kind is Kind.UNAUTHENTICATED
    assert await contracts(a) == await contracts(b) == []


async def test_what_is_no_invitation_or_ones_own_is_refused(a: Node) -> None:
    for body in ({}, {"file": "x"}, {"file": {}}, {"file": {"format": "interconn-invite", "version": 1}}):
        with pytest.raises(ProtocolViolation):
            await admin(a).check({}, {}, body)
    big = (await created(a))["file"]
    big["invite"]["pad"] = "x" * invites.MAX_BYTES
    with pytest.raises(ProtocolViolation) as caught:
        await admin(a).check({}, {}, {"file": big})
    assert caught.value.kind is Kind.TOO_LARGE
    with pytest.raises(Refused, match="own"):
        await admin(a).check({}, {}, {"file": (await created(a))["file"]})


async def test_a_server_with_another_ca_gets_no_application(world: World, a: Node, b: Node) -> None:
    """The CA is pinned before the first byte; the transport itself is tested in test_client_tls."""
    file = deepcopy((await created(a))["file"])
    file["invite"]["endpoints"]["edge"] = "https://nobody.example"
    with pytest.raises(Unavailable):
        await admin(b).apply({}, {}, {"file": resigned(a, file), "fingerprint": a.pki.fingerprint})
    assert await contracts(b) == []


def test_the_signature_is_over_a_prefix_of_its_own() -> None:
    assert invites._canonical({"b": 1, "a": "ä"}) == b'interconn-invite 1\n{"a":"\xc3\xa4","b":1}'
