"""What ends is told in time, once per threshold, also across restarts; and what has ended does not count."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.pki import Pki
from gateway.errors import WIRE, Kind, Unavailable
from gateway.mgmt_plane.core.expiry import DAY_MS, KINDS, NEVER, Deadline, due, words
from gateway.mgmt_plane.rest.admin_expiry import ExpiryAdmin
from gateway.mgmt_plane.service.deadlines import own
from gateway.model import ExpiryNotice, PeerTls, TrailEntry
from gateway.ports import Tx
from gateway.runtime.expiry import ExpiryWatch
from tests.mgmt.world import NOW, Node, World

THRESHOLDS = (30, 7, 1)
LIST = "dataset.pub.list"


@pytest.mark.parametrize(
    ("left_ms", "told", "expected"),
    [
        (30 * DAY_MS + 1, NEVER, None),
        (30 * DAY_MS, NEVER, 30),
        (8 * DAY_MS, 30, None),
        (7 * DAY_MS, 30, 7),
        (2 * DAY_MS, NEVER, 7),
        (DAY_MS, 7, 1),
        (1, 1, None),
        (0, 1, 0),
        (-400 * DAY_MS, 0, None),
    ],
)
def test_when_to_warn(left_ms: int, told: int, expected: int | None) -> None:
    assert due(NOW + left_ms, now=NOW, thresholds=THRESHOLDS, told=told) == expected


@given(steps=st.lists(st.integers(1, 9 * DAY_MS), max_size=60), thresholds=st.lists(st.integers(1, 60), max_size=5))
def test_every_threshold_is_told_once_at_most(steps: list[int], thresholds: list[int]) -> None:
    now, told, said = 0, NEVER, []
    for step in steps:
        now += step
        found = due(60 * DAY_MS, now=now, thresholds=thresholds, told=told)
        if found is not None:
            said.append(found)
            told = found
    assert said == sorted(set(said), reverse=True)
    assert (now >= 60 * DAY_MS) == (0 in said)


def test_words() -> None:
    deadline = Deadline("contract", "ct-1", "B", NOW + 3 * DAY_MS)
    assert words(deadline, now=NOW) == "the contract of B ends in 3 days (ct-1)"
    assert words(deadline, now=deadline.at - 1) == "the contract of B ends today (ct-1)"
    assert words(deadline, now=deadline.at) == "the contract of B has ended (ct-1)"
    assert all(words(Deadline(kind, "x", "", 0), now=0) for kind in KINDS)


def watch(node: Node, shown: Mapping[str, Mapping[str, Any]] | None = None) -> ExpiryWatch:
    """As after a start. shown: what the data process has seen of partners; None: it is away."""

    async def stats() -> Mapping[str, Any]:
        if shown is None:
            raise Unavailable("away", kind=Kind.OVERLOADED)
        return {"partner_tls": shown}

    return ExpiryWatch(
        store=node.store,
        own=lambda: own(node.ring.current, node.shown.shown.chain.read_text()),
        stats=stats,
        thresholds=THRESHOLDS,
        clock=node.clock,
        journal=node.journal,
    )


async def longer(node: Node, contract_id: str) -> None:
    """The contract outlives the keys."""

    def work(tx: Tx) -> None:
        old = node.partners.get(tx, contract_id)
        tx.replace(old, replace(old, expired_time=NOW + 999 * DAY_MS))

    await node.run(work)


def shown(node: Node) -> Pki:
    """The node's keys, with the TLS certificate that it shows now."""
    return replace(node.pki, tls=node.shown.shown.chain)


def warned(node: Node) -> list[tuple[Any, Any]]:
    return [(each["kind"], each["days"]) for each in node.journal.of("expiry.warned")]


async def test_told_once_across_restarts(world: World, a: Node, b: Node, contract_id: str) -> None:
    await b.add_dataset("ds-1")
    end = b.clock.ms + 20 * DAY_MS
    await world.grant(a, b, "ds-1", approve={"time_limit": end})
    assert await watch(b).look() == 1
    assert await watch(a).look() == 1
    assert (warned(b), warned(a)) == ([("grant", 30)], [("permit", 30)])
    for _ in range(3):
        assert await watch(b).look() == 0
    b.clock.ms = end - 6 * DAY_MS
    assert await watch(b).look() == 1
    b.clock.ms = end + 1
    assert await watch(b).look() == 1
    assert await watch(b).look() == 0
    assert warned(b) == [("grant", 30), ("grant", 7), ("grant", 0)]
    told = [
        each for each in await b.run(lambda tx: tx.select(TrailEntry, order="seq")) if each.event == "expiry.warned"
    ]
    assert [(each.subject.split(":")[0], each.facts["days"]) for each in told] == [
        ("grant", 30),
        ("grant", 7),
        ("grant", 0),
    ]
    [seen] = await ExpiryAdmin(soon=watch(b).soon, clock=b.clock).show({}, {}, {})
    assert (seen["kind"], seen["peer"]) == ("grant", a.id)
    assert "a grant of A has ended" in seen["words"]
    text = await watch(b).exposition()
    assert 'interconn_expiring{kind="grant"} 1\n' in text
    assert 'interconn_expiring{kind="contract"} 0\n' in text
    assert 'interconn_expiry_seconds{kind="grant"} -0.001\n' in text
    # What is gone is forgotten.
    await b.admin_call("POST", f"/v1/admin/partners/{contract_id}/terminate")
    assert await watch(b).look() == 0
    assert await b.run(lambda tx: tx.select(ExpiryNotice)) == []


async def test_contracts_and_certificates_of_both_sides(a: Node, b: Node, contract_id: str) -> None:
    b.clock.ms = NOW + 340 * DAY_MS
    await watch(b).look()
    assert warned(b) == [("contract", 30)]
    b.clock.ms = NOW + 392 * DAY_MS
    assert ("own_tls", 7) not in warned(b)
    await watch(b).look()
    assert set(warned(b)) >= {("own_tls", 7), ("own_key", 7), ("contract", 0)}
    await b.admin_call("POST", "/v1/admin/tls/rotate")
    kinds = [each.kind for each in await watch(b).soon()]
    assert "own_tls" not in kinds
    assert "own_key" in kinds


async def test_a_partners_tls_certificate(world: World, a: Node, b: Node, contract_id: str) -> None:
    """Told as the data process has seen it, also when the partner is silent and after a restart."""
    shown = {
        a.id: {"fingerprint": "ab" * 32, "ends": NOW + 13 * DAY_MS // 2},
        "LX-NOBODY": {"fingerprint": "", "ends": 1},
    }
    assert await watch(b, shown).look() == 1
    assert await watch(b).look() == 0
    assert warned(b) == [("peer_tls", 7)]
    [seen] = await ExpiryAdmin(soon=watch(b).soon, clock=b.clock).show({}, {}, {})
    assert seen["words"] == f"the TLS certificate of A ends in 6 days ({'ab' * 12})"
    assert 'interconn_expiring{kind="peer_tls"} 1\n' in await watch(b).exposition()
    # A new one that lasts is none to warn of, and with the contract it is forgotten.
    await watch(b, {a.id: {"fingerprint": "cd" * 32, "ends": NOW + 99 * DAY_MS}}).look()
    assert await watch(b).soon() == []
    await b.admin_call("POST", f"/v1/admin/partners/{contract_id}/terminate")
    await watch(b).look()
    assert await b.run(lambda tx: tx.select(PeerTls)) == []


@pytest.mark.req("M-034")
async def test_a_key_that_ends_in_mid_conversation(world: World, a: Node, b: Node, contract_id: str) -> None:
    """The call before is served, the one after is refused, and a key that follows goes on where it stopped."""
    asked = {"contract_id": contract_id}
    await longer(a, contract_id)
    await longer(b, contract_id)
    leaf = x509.load_pem_x509_certificates(a.pki.signing.read_bytes())[0]
    end = int(leaf.not_valid_after_utc.timestamp() * 1000)
    a.clock.ms = end - 5 * DAY_MS
    await watch(b).look()
    assert ("peer_key", 7) in warned(b)
    await a.admin_call("POST", "/v1/admin/tls/rotate")
    a.clock.ms = end - 10
    assert (await a.send(b, LIST, asked, cert=shown(a)))["code"] == 0
    # Announced in time, but the partner was away: the old key ends first.
    await a.admin_call("POST", "/v1/admin/keys/rotate")
    a.clock.ms = end + 1000
    reply = await a.send(b, LIST, asked, cert=shown(a), signer=a.signer)
    assert reply["code"] == WIRE[Kind.UNAUTHENTICATED].code
    assert "not valid at this time" in b.journal.of("edge.refused")[-1]["reason"]
    # node/update must be signed with a key that counts: now it takes a new contract.
    assert await a.rekeyer.tell() == 1


@pytest.mark.req("M-037")
async def test_a_key_replaced_in_time_goes_on(world: World, a: Node, b: Node, contract_id: str) -> None:
    asked = {"contract_id": contract_id}
    await longer(b, contract_id)
    await longer(a, contract_id)
    end = NOW + 398 * DAY_MS
    a.clock.ms = end - DAY_MS // 2
    await a.admin_call("POST", "/v1/admin/tls/rotate")
    await a.admin_call("POST", "/v1/admin/keys/rotate")
    assert await a.rekeyer.tell() == 0
    assert (await a.send(b, LIST, asked, cert=shown(a), signer=a.signer))["code"] == 0
    a.clock.ms = end + 1000
    # Within its overlap, but the certificate itself has ended.
    assert (await a.send(b, LIST, asked, cert=shown(a), signer=a.signer))["code"] == WIRE[Kind.UNAUTHENTICATED].code
    assert (await a.send(b, LIST, asked, cert=shown(a), signer=a.ring.current))["code"] == 0
