"""Ways to partners and relayed pairs as an admin sets them: what is kept, and told to data process and trail."""

from dataclasses import replace

import pytest

from gateway.errors import GatewayError, Kind
from gateway.mgmt_plane.service.ways import Wanted, Ways
from gateway.model import NodeId, PartnerWay, RelayPair, TrailEntry
from gateway.ports import Network
from tests.mgmt.world import Node, World

Z = NodeId("LX-Z")


@pytest.fixture
def ways(node: Node) -> Ways:
    return Ways(partners=node.partners, clock=node.clock)


@pytest.fixture
async def node(world: World) -> Node:
    """One of two partners."""
    a, b = world.node("A"), world.node("B")
    await world.partners(a, b)
    return a


async def test_a_way_is_kept_until_it_says_nothing(node: Node, ways: Ways) -> None:
    before = node.routes_changed
    made = await node.run(lambda tx: ways.set(tx, Z, Wanted(proxy="http://proxy.example:3128")))
    assert (made.node_id, made.proxy, made.relay, made.hold, made.held) == (
        Z,
        "http://proxy.example:3128",
        "",
        False,
        False,
    )
    assert await node.run(lambda tx: ways.set(tx, Z, Wanted())) == made
    assert node.routes_changed == before + 1
    moved = await node.run(lambda tx: ways.set(tx, Z, Wanted(proxy="", relay="B")))
    assert (moved.proxy, moved.relay) == ("", "B")
    network = await node.run(ways.network)
    assert network == Network(ways=[moved], holding=[], relays=[])
    await node.run(lambda tx: ways.set(tx, Z, Wanted(relay="")))
    assert await node.run(ways.all) == []
    told = [each.event for each in await node.run(lambda tx: tx.select(TrailEntry, subject=f"way:{Z}"))]
    assert told == ["way.set", "way.set", "way.removed"]


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(proxy="ftp://proxy.example"),
        Wanted(proxy="http://u:p@proxy.example"),
        Wanted(proxy="http://proxy.example/path"),
        Wanted(proxy="http://proxy.example:99999"),
        Wanted(relay=Z),
        Wanted(relay="A"),
        Wanted(relay="B", held=True),
        Wanted(relay="B", proxy="http://proxy.example"),
        Wanted(held=True, hold=True),
        Wanted(held=True, proxy="http://proxy.example"),
    ],
)
async def test_what_cannot_be_meant(node: Node, ways: Ways, wanted: Wanted) -> None:
    with pytest.raises(GatewayError) as refused:
        await node.run(lambda tx: ways.set(tx, Z, wanted))
    assert refused.value.kind is Kind.MALFORMED
    with pytest.raises(GatewayError):
        await node.run(lambda tx: ways.set(tx, NodeId("A"), Wanted(hold=True)))
    assert await node.run(ways.all) == []


async def test_who_is_held_to(node: Node, ways: Ways) -> None:
    await node.run(lambda tx: ways.set(tx, NodeId("B"), Wanted(hold=True)))
    (route,) = (await node.run(ways.network)).holding
    assert route in await node.run(node.partners.routes)
    await node.run(lambda tx: ways.set(tx, Z, Wanted(hold=True)))
    assert len((await node.run(ways.network)).holding) == 1  # nothing is known of Z


async def test_a_partner_moves(node: Node, ways: Ways) -> None:
    before = node.routes_changed
    (contract,) = await node.run(lambda tx: ways.move(tx, NodeId("B"), "https://new.example:7304/gw/"))
    assert contract.peer_address == "https://new.example:7304/gw"
    (route,) = await node.run(node.partners.routes)
    assert route.address == contract.peer_address
    assert node.routes_changed == before + 1
    for node_id, address, kind in (
        (NodeId("B"), "http://new.example", Kind.MALFORMED),
        (Z, "https://new.example", Kind.NODE_UNKNOWN),
    ):
        with pytest.raises(GatewayError) as refused:
            await node.run(lambda tx, n=node_id, a=address: ways.move(tx, n, a))
        assert refused.value.kind is kind
    (entry,) = await node.run(lambda tx: tx.select(TrailEntry, event="contract.changed"))
    assert entry.facts["peer_address"] == contract.peer_address


async def test_only_partners_are_relayed(world: World) -> None:
    r, a, b = world.node("R"), world.node("A"), world.node("B")
    await world.partners(r, a)
    ways = Ways(partners=r.partners, clock=r.clock)
    one, other = NodeId("B"), NodeId("A")
    with pytest.raises(GatewayError) as refused:
        await r.run(lambda tx: ways.allow(tx, one, other, bytes_per_s=0))
    assert refused.value.kind is Kind.NODE_UNKNOWN
    await world.partners(r, b)
    made = await r.run(lambda tx: ways.allow(tx, one, other, bytes_per_s=0))
    assert made == RelayPair(NodeId("A"), NodeId("B"), 0, made.created)
    assert await r.run(lambda tx: ways.allow(tx, other, one, bytes_per_s=0)) == made
    faster = await r.run(lambda tx: ways.allow(tx, one, other, bytes_per_s=5))
    assert faster == replace(made, bytes_per_s=5)
    assert (await r.run(ways.network)).relays == [faster]
    assert await r.run(lambda tx: ways.forbid(tx, one, other)) == faster
    with pytest.raises(GatewayError) as gone:
        await r.run(lambda tx: ways.forbid(tx, one, other))
    assert gone.value.kind is Kind.NOT_FOUND
    told = [each.event for each in await r.run(lambda tx: tx.select(TrailEntry, subject=f"relay:{made.key()}"))]
    assert told == ["relay.allowed", "relay.allowed", "relay.removed"]


def test_a_way_says_nothing_of_files() -> None:
    assert {"node_id", "proxy", "relay", "hold", "held", "created", "updated"} == set(PartnerWay.__dataclass_fields__)
