"""A partner recorded by hand whose product signs nothing, at the edge: what may be missing, and what may not."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import WIRE, Kind, ProtocolViolation
from gateway.mgmt_plane.service.partners import Described
from gateway.model import Contract, NodeId
from gateway.ports import EdgeRequest
from specs import headers as names
from tests.mgmt.world import Node, World

STOP, BODY = "job.stop", {"job_id": "job-1"}
PROVED = WIRE[Kind.UNAUTHENTICATED].code
MALFORMED = WIRE[Kind.MALFORMED].code


async def stopped(_caller: Any, _body: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


@pytest.fixture
def lax(world: World) -> Node:
    return world.node("L", insecure_unsigned=True, handlers={STOP: stopped})


async def record(
    node: Node, other: Node, profile: str, *, ca: bool = True, address: str = "", transport: str = ""
) -> None:
    described = Described(
        node_id=NodeId(other.id),
        inst_id="",
        name="",
        institution="",
        address=address,
        transport=transport,
        profile=profile,
        tls_ca=other.pki.ca.read_text() if ca else "",
        fingerprint=other.pki.fingerprint if ca else "",
        expired_time=None,
    )
    await node.run(lambda tx: node.partners.record(tx, described))


async def test_a_transport_module_may_speak_grpc(a: Node, lax: Node) -> None:
    for wrong in ("grpc://osx.example:9371", "http://osx.example", "grpcs://", "grpcs://u@osx.example:9371"):
        with pytest.raises(ProtocolViolation):
            await record(lax, a, "fate-2.x", transport=wrong)
    await record(lax, a, "fate-2.x", transport="grpcs://osx.example:9371")
    assert [r.address for r in await lax.run(lax.partners.routes)] == ["grpcs://osx.example:9371"]


def without(request: EdgeRequest, *gone: str, **more: str) -> EdgeRequest:
    kept = {name: value for name, value in request.headers.items() if name not in gone}
    return replace(request, headers={**kept, **more})


async def code(node: Node, request: EdgeRequest) -> int:
    return int(json.loads((await node.edge.handle(request)).body)["code"])


@pytest.mark.req("C-130")
async def test_fate_leaves_out_the_target_alone(a: Node, lax: Node) -> None:
    await record(lax, a, "fate-2.x")

    def asked(*gone: str) -> EdgeRequest:
        return without(a.request(lax, STOP, BODY, sign=False), *gone)

    assert await code(lax, asked()) == 0
    assert await code(lax, asked(names.TARGET_NODE)) == 0
    assert await code(lax, asked(names.NONCE)) == MALFORMED
    assert await code(lax, asked(names.TIMESTAMP)) == MALFORMED
    once = asked(names.TARGET_NODE)
    assert [await code(lax, once), await code(lax, once)] == [0, WIRE[Kind.REPLAYED].code]
    # Underscores, an empty signature.
    head = asked(names.SOURCE_NODE, names.TARGET_NODE)
    spelt = without(head, x_node_id=a.id, x_auth_sign="")
    assert await code(lax, spelt) == 0


@pytest.mark.req("C-131")
async def test_kuscia_leaves_out_the_nonce_and_counts_seconds(a: Node, lax: Node) -> None:
    await record(lax, a, "kuscia")
    bare = without(a.request(lax, STOP, BODY, sign=False), names.TARGET_NODE, names.NONCE, names.TRACE)
    seconds = str(lax.clock.ms // 1000)
    assert await code(lax, replace(bare, headers={**bare.headers, names.TIMESTAMP: seconds})) == 200
    late = str(lax.clock.ms // 1000 - 3600)
    assert await code(lax, replace(bare, headers={**bare.headers, names.TIMESTAMP: late})) == WIRE[Kind.STALE].code
    assert await code(lax, without(bare, names.TIMESTAMP)) == MALFORMED


async def test_its_certificate_is_all_it_has(world: World, a: Node, c: Node, lax: Node) -> None:
    await record(lax, a, "kuscia")
    gone = (names.TARGET_NODE, names.NONCE)
    assert await code(lax, without(a.request(lax, STOP, BODY, sign=False, cert=None), *gone)) == PROVED
    assert await code(lax, without(a.request(lax, STOP, BODY, sign=False, cert=c.pki), *gone)) == PROVED
    # A signature is no help where there is no key.
    assert await code(lax, a.request(lax, STOP, BODY)) == PROVED
    # A signing partner, and a stranger, may leave out nothing.
    await world.partners(c, lax)
    assert await code(lax, without(c.request(lax, STOP, BODY), names.NONCE)) != 0
    assert await code(lax, without(c.request(lax, STOP, BODY, sign=False), *gone)) == PROVED
    stranger = world.node("S")
    assert await code(lax, without(stranger.request(lax, STOP, BODY, sign=False), *gone)) == PROVED


async def test_not_without_the_switch_and_not_without_a_ca(world: World, a: Node, b: Node, lax: Node) -> None:
    await record(lax, a, "fate-2.x", ca=False)
    assert await code(lax, a.request(lax, STOP, BODY, sign=False)) == PROVED
    await record(b, a, "fate-2.x")
    assert await code(b, a.request(b, STOP, BODY, sign=False)) == PROVED
    assert await code(b, without(a.request(b, STOP, BODY, sign=False), names.TARGET_NODE)) == MALFORMED


async def test_with_a_transport_module_nothing_else_is_spoken(a: Node, lax: Node) -> None:
    """Neither signed nor, with the switch on, unsigned."""
    await record(lax, a, "transport-only")
    assert await code(lax, a.request(lax, STOP, BODY)) == PROVED
    assert await code(lax, a.request(lax, STOP, BODY, sign=False)) == PROVED
    (route,) = await lax.run(lax.partners.routes)
    assert (route.node_id, route.profile) == (a.id, "transport-only")


async def test_a_transport_module_may_be_elsewhere(a: Node, lax: Node) -> None:
    await record(lax, a, "fate-2.x", address="https://product:443", transport="https://module:7304")
    (route,) = await lax.run(lax.partners.routes)
    assert route.address == "https://module:7304"
    (contract,) = await lax.run(lambda tx: tx.select(Contract, peer_node_id=a.id))
    assert contract.peer_address == "https://product:443"
