"""v1.0's meaning of contract/apply, and times in seconds: data of the profile, read, written, told by the doctor."""

from typing import Any

import pytest

from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core.doctor import ASKED, ROUTES, Outcome, Seen, diagnose
from gateway.mgmt_plane.core.profile import apply_body_for, from_peer, has_seconds, profile, to_peer
from gateway.model import NodeId
from tests.mgmt.world import NOW, Node, World

DAY_MS = 86_400_000
APPLY = "node.contract.apply"


def body_of_apply(node: Node) -> dict[str, Any]:
    return node.partners.apply_body(expired_time=NOW + 100 * DAY_MS, description="d")


@pytest.fixture
def old(world: World) -> Node:
    """A node whose new partners speak v1.0."""
    return world.node("O", profile="legacy-1.0")


@pytest.mark.req("M-024")
def test_what_an_application_says_of_whom(a: Node, b: Node) -> None:
    body, receiver = body_of_apply(a), {"node_id": b.id, "name": "node B", "inst_id": "JGB", "address": "https://b"}
    assert apply_body_for(profile("strict-1.2"), body, receiver=receiver) == body
    written = apply_body_for(profile("legacy-1.0"), body, receiver=receiver)
    assert (written["node_id"], written["inst_id"], written["address"]) == (b.id, "JGB", "https://b")
    for ours in ("auth_credential", "auth_type", "expired_time", "description"):
        assert written[ours] == body[ours]


@pytest.mark.req("M-024")
async def test_a_pair_under_v1_0(world: World, a: Node, old: Node) -> None:
    await a.admin_call(
        "POST",
        "/v1/admin/partners/apply",
        {
            "address": old.identity.address,
            "node_id": old.id,
            "fingerprint": old.pki.fingerprint,
            "profile": "legacy-1.0",
        },
    )
    waiting = await old.contract(a)
    assert (waiting.peer_node_id, waiting.peer_address, waiting.peer_inst_id) == (a.id, "", "")
    approve = f"/v1/admin/partners/{waiting.contract_id}/approve"
    with pytest.raises(Refused, match="give its address"):
        await old.admin_call("POST", approve, {})
    assert (await old.contract(a)) == waiting
    await old.admin_call("POST", approve, {"address": a.identity.address, "inst_id": "JGA"})
    await old.flush()
    ours, theirs = await a.contract(old), await old.contract(a)
    assert (ours.status.value, theirs.status.value) == ("APPROVED", "APPROVED")
    assert (ours.profile, theirs.profile, theirs.peer_inst_id) == ("legacy-1.0", "legacy-1.0", "JGA")
    assert ours.peer_inst_id == old.identity.inst_id
    asked = {"contract_id": ours.contract_id}
    assert (await a.send(old, "dataset.pub.list", asked))["code"] == 200


@pytest.mark.req("M-024")
async def test_a_strict_node_refuses_an_application_that_describes_itself(a: Node, b: Node, old: Node) -> None:
    turned = apply_body_for(profile("legacy-1.0"), body_of_apply(a), receiver={"node_id": b.id})
    assert (await a.send(b, APPLY, turned))["code"] != 0
    # Nor may a third node be described, whatever the dialect; the sender's own data are taken in both.
    assert (await a.send(old, APPLY, {**turned, "node_id": "X"}))["code"] not in (0, 200)
    assert (await a.send(old, APPLY, body_of_apply(a)))["code"] == 200
    assert (await old.contract(a)).peer_address == a.identity.address


async def test_only_a_profile_that_is_there(a: Node, b: Node) -> None:
    for wrong in ("none", "kuscia", "insecure_unsigned"):
        with pytest.raises(ProtocolViolation) as refused:
            await a.admin_call(
                "POST",
                "/v1/admin/partners/apply",
                {"address": b.identity.address, "node_id": b.id, "fingerprint": b.pki.fingerprint, "profile": wrong},
            )
        assert refused.value.kind is Kind.MALFORMED


def test_times_in_seconds() -> None:
    dialect = profile("strict-1.2-seconds")
    sent = to_peer(
        dialect, "dataset.audit.confirm", {"time_limit": NOW, "resource_permit": {"time_limit": NOW, "n": 1}}
    )
    assert sent == {"time_limit": NOW // 1000, "resource_permit": {"time_limit": NOW // 1000, "n": 1}}
    read = from_peer(dialect, "dataset.audit.confirm", sent)
    assert read["time_limit"] == NOW + 999
    assert read["resource_permit"]["time_limit"] == NOW + 999
    # What is in milliseconds already, or is no time, stays as it is.
    for value in (NOW, -1, "soon", True, None, 1.5):
        assert from_peer(dialect, APPLY, {"expired_time": value})["expired_time"] is value
    strict = {"expired_time": NOW // 1000}
    assert from_peer(profile("strict-1.2"), APPLY, strict) is strict
    assert from_peer(profile("lenient"), APPLY, strict)["expired_time"] == NOW + 999
    assert to_peer(profile("lenient"), APPLY, {"expired_time": NOW}) == {"expired_time": NOW}


async def test_a_contract_confirmed_in_seconds(world: World, a: Node, b: Node) -> None:
    contract = await world.apply(a, b)
    for node, other in ((a, b), (b, a)):
        await node.run(lambda tx, n=node, o=other: n.partners.set_profile(tx, NodeId(o.id), "strict-1.2-seconds"))  # type: ignore[misc]
    end = NOW + 50 * DAY_MS + 1234
    await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/approve", {"expired_time": end})
    await b.flush()
    assert (await a.contract(b)).expired_time == end // 1000 * 1000 + 999
    # The repeat changes nothing.
    assert (await a.contract(b)).status.value == "APPROVED"


def test_the_doctor_tells() -> None:
    def seen(fits: str, *, seconds: bool = False) -> Any:
        good, bad = Seen(Outcome.OK, seconds=seconds), Seen(Outcome.REFUSED, "400")
        return {(name, route): good if name == fits else bad for name in ASKED for route in ROUTES}

    found = diagnose(seen("strict-1.2", seconds=True), now="strict-1.2")
    assert found.fits == "strict-1.2-seconds"
    assert "set-profile NODE strict-1.2-seconds" in found.words[0]
    assert any("times in seconds" in each for each in found.words)
    assert any("apply with --profile" in each for each in diagnose(seen("legacy-1.0"), now="legacy-1.0").words)
    assert has_seconds({"records": [{"permit": {"time_limit": NOW // 1000}}]})
    assert not has_seconds({"records": [{"time_limit": NOW, "count": 1_700_000_000}]})
