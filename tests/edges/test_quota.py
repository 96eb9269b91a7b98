"""A partner with a quota: it is slowed, loses nothing, and is in nobody's way."""

import asyncio

import aiohttp
import pytest

from gateway.model import Limits, NodeId
from tests.edges import rig
from tests.edges.rig import Container, Node, node, pair

OK, LATER = "E0000000000", "E0000000503"
A, B, C = NodeId("LX-A"), NodeId("LX-B"), NodeId("LX-C")


def overloaded(at: Node, peer: NodeId) -> int:
    return len([e for e in at.events("chan.refused") if e["kind"] == "overloaded" and e["peer"] == peer])


@pytest.mark.parametrize(
    ("streams", "limits"), [(True, Limits(partner_messages_per_s=5)), (False, Limits(partner_bytes_per_s=100_000))]
)
async def test_who_sends_too_fast_is_slowed_and_loses_nothing(
    client: aiohttp.ClientSession, streams: bool, limits: Limits
) -> None:
    async with pair(limits=limits, streams=streams) as (a, b), node(C, streams=streams) as c:
        await c.process.set_routes([b.route()])
        await b.process.set_routes([a.route(), c.route()])
        for one in (b, c):
            one.process.channel.open_session(rig.rule(b.node_id, c.node_id, session="other"))
        bodies = [bytes([n]) * 20_000 for n in range(16)]
        here, there = Container(client, a.platform, "proto"), Container(client, b.platform, "proto")

        async def send() -> None:
            for body in bodies:
                assert (await here.push(B, body)).code == OK

        sending = asyncio.create_task(send())
        while not overloaded(b, A):
            assert not sending.done()
            await asyncio.sleep(0.01)
        for n in range(5):
            assert (await Container(client, c.platform).push(B, bytes([n]), session="other")).code == OK
        await sending
        assert [(await there.pop(A)).payload for _ in bodies] == bodies
        assert overloaded(b, C) == 0
        assert b.process.channel.stats()["repeats_dropped"] == 0


async def test_a_stranger_is_told_to_come_again(client: aiohttp.ClientSession) -> None:
    async with pair(limits=Limits(partner_messages_per_s=1)) as (a, b):
        headers = rig.ew_headers(A, B)
        codes = [(await rig.invoke(client, b, a.files, headers, rig.inbound(b"x"))).code for _ in range(6)]
        assert codes[:2] == [OK, OK]
        assert LATER in codes
        assert set(codes) == {OK, LATER}
