"""The insecure_unsigned profile: per partner, behind a switch, and never without the TLS certificate."""

import json

import pytest

from gateway.errors import WIRE, CallerError, Kind, Refused
from gateway.mgmt_plane.service.outgoing import Outgoing
from gateway.mgmt_plane.service.partners import Partners
from gateway.model import NodeId
from gateway.ports import EdgeRequest
from gateway.runtime.metrics import _levels
from tests.mgmt.world import Node, World

LIST = "dataset.pub.list"
UNSIGNED = "insecure_unsigned"
PROVED = WIRE[Kind.UNAUTHENTICATED].code


@pytest.fixture
def lax(world: World) -> Node:
    return world.node("L", insecure_unsigned=True)


async def allow(node: Node, other: Node) -> None:
    await node.run(lambda tx: node.partners.set_profile(tx, NodeId(other.id), UNSIGNED))


@pytest.mark.req("M-014")
async def test_without_the_switch_it_is_refused(a: Node, b: Node, contract_id: str) -> None:
    with pytest.raises(Refused, match="insecure_unsigned") as refused:
        await allow(b, a)
    assert refused.value.kind is Kind.FORBIDDEN
    assert (await b.contract(a)).profile == "strict-1.2"
    assert (await a.send(b, LIST, {"contract_id": contract_id}, sign=False))["code"] == PROVED


async def test_for_one_partner_and_with_its_certificate_only(world: World, a: Node, c: Node, lax: Node) -> None:
    contract_id = (await world.partners(a, lax)).contract_id
    strict = (await world.partners(c, lax)).contract_id
    asked = {"contract_id": contract_id}
    assert (await a.send(lax, LIST, asked, sign=False))["code"] == PROVED
    await allow(lax, a)
    assert (await a.send(lax, LIST, asked, sign=False))["code"] == 0
    assert lax.journal.of("insecure.unsigned")[-1] == {"event": "insecure.unsigned", "peer": a.id, "route": LIST}
    assert (await a.send(lax, LIST, asked))["code"] == 0
    # Nobody else, nothing without TLS, and a signature that is there must be right.
    assert (await c.send(lax, LIST, {"contract_id": strict}, sign=False))["code"] == PROVED
    assert (await c.send(lax, LIST, asked, sign=False))["code"] != 0
    assert (await a.send(lax, LIST, asked, sign=False, cert=None))["code"] == PROVED
    assert (await a.send(lax, LIST, asked, sign=False, cert=c.pki))["code"] == PROVED
    assert (await a.send(lax, LIST, asked, signer=c.signer))["code"] == PROVED
    assert "interconn_insecure_unsigned_partners 1\n" in await lax.run(lambda tx: _levels(tx, lax.clock.ms))
    # What it sends is still remembered against repeats.
    again = a.request(lax, LIST, asked, sign=False)
    codes = [(await _code(lax, again)), (await _code(lax, again))]
    assert codes == [0, WIRE[Kind.REPLAYED].code]


async def _code(node: Node, request: EdgeRequest) -> int:
    return int(json.loads((await node.edge.handle(request)).body)["code"])


async def test_a_contract_that_ended_is_not_ended_by_anybody(world: World, a: Node, lax: Node) -> None:
    contract_id = (await world.partners(a, lax)).contract_id
    await allow(lax, a)
    lax.clock.ms += 400 * 86_400_000
    asked = {"contract_id": contract_id}
    assert (await a.send(lax, "node.contract.query", asked, sign=False, cert=None))["code"] == PROVED


async def test_a_switch_that_was_taken_away_closes_the_door(world: World, a: Node, lax: Node) -> None:
    contract_id = (await world.partners(a, lax)).contract_id
    await allow(lax, a)
    lax.insecure_unsigned = False
    lax.edge = lax.new_edge()
    for sign in (False, True):
        assert (await a.send(lax, LIST, {"contract_id": contract_id}, sign=sign))["code"] == PROVED


def test_never_as_the_default(a: Node) -> None:
    with pytest.raises(CallerError, match="never the default"):
        Partners(
            identity=a.identity,
            signer=a.ring,
            limits=a.limits,
            clock=a.clock,
            entropy=a.entropy,
            outgoing=Outgoing(clock=a.clock, entropy=a.entropy),
            default_profile=UNSIGNED,
            insecure_unsigned=True,
        )
