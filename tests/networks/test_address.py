"""A partner that moves in the middle of a transfer, and one whose address has a path."""

import asyncio

import aiohttp
import pytest

from gateway.model import NodeId
from tests.edges import rig
from tests.edges.link import Link
from tests.edges.rig import Container, node
from tests.networks.test_proxy import OK, acquaint

A, B = NodeId("LX-A"), NodeId("LX-B")
MANY = 60


@pytest.mark.parametrize("cut", [True, False])
async def test_a_partner_moves_in_the_middle(client: aiohttp.ClientSession, cut: bool) -> None:
    """cut: the old address goes first, so that messages wait for the new one; else both work for a while."""
    async with node(A) as a, node(B) as b, Link(b.ports.edge) as old:
        await a.process.set_routes([b.route(address=old.url)])
        await b.process.set_routes([a.route()])
        acquaint(a, b)
        ours, theirs = Container(client, a.platform, "proto"), Container(client, b.platform, "proto")

        async def push_all() -> list[str]:
            return [(await ours.push(B, b"%d" % i + bytes(10_000))).code for i in range(MANY)]

        async def pop_all() -> list[bytes]:
            found: list[bytes] = []
            while len(found) < MANY:
                payload = (await theirs.pop(A)).payload
                assert payload is not None
                found.append(payload.rstrip(b"\0"))
                if len(found) == MANY // 3:
                    move.set()
            return found

        move = asyncio.Event()
        pushing, popping = asyncio.create_task(push_all()), asyncio.create_task(pop_all())
        await move.wait()
        if cut:
            old.leave()
            await asyncio.sleep(0.05)
        before = old.connections
        async with Link(b.ports.edge) as new:
            await a.process.set_routes([b.route(address=new.url)])
            assert await pushing == [OK] * MANY
            assert await popping == [b"%d" % i for i in range(MANY)]
            assert new.connections
            assert old.connections == before


async def test_an_address_with_a_path(client: aiohttp.ClientSession) -> None:
    """A node that advertises https://host/prefix serves under it as well as without it."""
    async with node(A) as a, node(B, edge_prefix="/gw/b") as b:
        await a.process.set_routes([b.route(address=f"{b.edge}/gw/b")])
        await b.process.set_routes([a.route()])
        acquaint(a, b)
        assert (await Container(client, a.platform).push(B, b"x")).code == OK
        for prefix, seen in (("", 1), ("/gw/b", 2)):
            url = f"{b.edge}{prefix}/v1/interconn/node/health"
            async with client.get(url, ssl=rig.partner_tls(a.files)) as answer:
                assert answer.status == 200
            assert [each.path for each in b.control.seen] == ["/edge/v1/interconn/node/health"] * seen
        for path in ("/gw/bv1/interconn/node/health", "/gw/b", "/GW/b/v1/interconn/node/health"):
            async with client.get(f"{b.edge}{path}", ssl=rig.partner_tls(a.files)):
                pass
        assert not any(each.path == "/edge/v1/interconn/node/health" for each in b.control.seen[2:])
