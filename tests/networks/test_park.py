"""A partner that nobody can dial: it parks connections with us, and we reach it over them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from gateway.data_plane.io import park
from gateway.data_plane.io.handover import RoadsLink
from gateway.errors import Unavailable
from gateway.model import NodeId
from gateway.ports import Network
from tests.edges import rig
from tests.edges.rig import Container, Node, node
from tests.edges.test_authorisation import Later
from tests.networks.test_proxy import NO_ROUTE, OK, acquaint, way
from tests.waiting import eventually

A, B = NodeId("LX-A"), NodeId("LX-B")
NOWHERE = "https://127.0.0.1:1"


def parked(at: Node, partner: NodeId) -> int:
    return int(at.process.stats()["parked"].get(partner, 0))


@asynccontextmanager
async def outbound_only(*, told: bool = True) -> AsyncIterator[tuple[Node, Node]]:
    """A, which nobody can dial, and its partner B. told: B's admin said that A is held."""
    async with node(A) as a, node(B) as b:
        await a.process.set_routes([b.route()])
        await b.process.set_routes([a.route(address=NOWHERE)])
        if told:
            b.process.set_network(way(A, held=True))
        acquaint(a, b)
        yield a, b


def hold(a: Node, b: Node) -> None:
    a.process.set_network(replace(way(B, hold=True), holding=[b.route()]))


@pytest.mark.parametrize("told", [True, False])
async def test_messages_both_ways(client: aiohttp.ClientSession, told: bool) -> None:
    async with outbound_only(told=told) as (a, b):
        hold(a, b)
        await eventually(lambda: parked(b, A) == park.SEATS)
        ours, theirs = Container(client, a.platform), Container(client, b.platform)
        for i in range(10):
            assert (await theirs.push(A, f"to A {i}".encode())).code == OK
            assert (await ours.push(B, f"to B {i}".encode())).code == OK
        assert [(await ours.pop(B)).payload for _ in range(10)] == [f"to A {i}".encode() for i in range(10)]
        assert [(await theirs.pop(A)).payload for _ in range(10)] == [f"to B {i}".encode() for i in range(10)]
        # Each that is taken is followed by another, also when many are taken at once.
        big = bytes(300_000)
        codes = await asyncio.gather(*(theirs.push(A, big, topic=f"t{i}") for i in range(20)))
        assert {each.code for each in codes} == {OK}
        await eventually(lambda: parked(b, A) == park.SEATS == parked(a, B))


async def test_control_calls_over_it_and_waits_for_it(client: aiohttp.ClientSession) -> None:
    async with outbound_only() as (a, b):
        asked = asyncio.create_task(RoadsLink(b.folder).reach(A, NOWHERE))
        pushed = asyncio.create_task(Container(client, b.platform).push(A, b"early"))
        await asyncio.sleep(0.05)
        assert not asked.done()
        hold(a, b)
        raw = await asked
        context = rig.partner_tls(b.files)
        reader, writer = await asyncio.open_connection(sock=raw, ssl=context, server_hostname="nobody")
        writer.write(b"GET /v1/interconn/node/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert a.control.seen[-1].path == "/edge/v1/interconn/node/health"
        assert a.control.seen[-1].certificate is not None
        writer.close()
        assert (await pushed).code == OK


async def test_only_a_partner_may_park(client: aiohttp.ClientSession) -> None:
    async with outbound_only() as (_, b), node("LX-C") as c:
        url = f"{b.edge}/v1/interconn-ext/park"
        headers = {"connection": "upgrade", "upgrade": "interconn-bytes/1"}
        async with client.get(url, headers=headers, ssl=rig.partner_tls(None)) as answer:
            assert (answer.status, (await answer.json())["code"]) == (200, 401)
        for method, sent in (("GET", {}), ("POST", headers), ("GET", {**headers, "upgrade": "websocket"})):
            async with client.request(method, url, headers=sent, ssl=rig.partner_tls(None)) as answer:
                assert (await answer.json())["code"] == 424
        with pytest.raises(aiohttp.ClientError):
            await client.get(url, headers=headers, ssl=rig.partner_tls(c.files))
        c.process.set_network(replace(way(B, hold=True), holding=[b.route()]))
        await eventually(lambda: bool(c.events("park.lost")))
        assert b.process.stats()["parked"] == {}
        # Approved later: it comes in by itself.
        await b.process.set_routes([c.route(address=NOWHERE)])
        await eventually(lambda: parked(b, NodeId("LX-C")) == park.SEATS)


async def test_so_many_of_one_partner(client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "MOST", park.SEATS)
    async with outbound_only() as (a, b):
        hold(a, b)
        await eventually(lambda: parked(b, A) == park.SEATS)
        headers = {"connection": "upgrade", "upgrade": "interconn-bytes/1"}
        tls = rig.partner_tls(a.files)
        async with client.get(f"{b.edge}/v1/interconn-ext/park", headers=headers, ssl=tls) as answer:
            assert answer.status == 429
        assert parked(b, A) == park.SEATS


async def test_who_is_taken_is_proven_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that expires while its connection is parked: nothing is said over that."""
    monkeypatch.setattr("gateway.data_plane.io.roads.CONNECT_S", 0.2)
    async with outbound_only() as (a, b):
        hold(a, b)
        await eventually(lambda: parked(b, A) == park.SEATS)
        b.process._edge._clock = Later()
        with pytest.raises(Unavailable, match="in time"):
            await RoadsLink(b.folder).reach(A, NOWHERE)
        assert b.process.stats()["parked"] == {}


async def test_an_ended_contract_closes_them(client: aiohttp.ClientSession) -> None:
    async with outbound_only() as (a, b):
        hold(a, b)
        theirs = Container(client, b.platform)
        assert (await theirs.push(A, b"x")).code == OK
        raw = await RoadsLink(b.folder).reach(A, NOWHERE)
        await b.process.set_routes([])
        async with asyncio.timeout(5):
            assert await asyncio.get_running_loop().sock_recv(raw, 1) == b""
        raw.close()
        await eventually(lambda: not b.process.stats()["parked"])
        # And at the holder, when its admin says so.
        await b.process.set_routes([a.route(address=NOWHERE)])
        await eventually(lambda: parked(b, A) == park.SEATS)
        a.process.set_network(Network())
        await eventually(lambda: not b.process.stats()["parked"])


async def test_silence_is_noticed_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(park, "PING_S", 0.02)
    async with outbound_only() as (a, b):
        hold(a, b)
        await eventually(lambda: parked(b, A) == park.SEATS)
        await asyncio.sleep(0.1)
        assert parked(b, A) == park.SEATS
        monkeypatch.setattr(park, "PING", b"")  # the holder falls silent: nothing to answer
        monkeypatch.setattr(park, "SILENT_S", 0.05)
        await eventually(lambda: bool(a.events("park.lost")))


async def test_it_comes_back_after_a_restart_of_the_other_side(client: aiohttp.ClientSession) -> None:
    async with outbound_only() as (a, b):
        hold(a, b)
        await eventually(lambda: parked(b, A) == park.SEATS)
        b.process._parked.close()  # as when its process is restarted
        await eventually(lambda: parked(b, A) == park.SEATS)
        assert (await Container(client, b.platform).push(A, b"x")).code == OK


async def test_nobody_parks(client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.data_plane.io.roads.CONNECT_S", 0.1)
    async with outbound_only() as (_, b):
        with pytest.raises(Unavailable, match="in time"):
            await RoadsLink(b.folder).reach(A, NOWHERE)
        b.process.channel._policy = replace(b.process.channel._policy, push_retry_s=0.0)
        assert (await Container(client, b.platform).push(A, b"x")).code == NO_ROUTE


@pytest.mark.parametrize("said", [b"\2", b"\4", b"\1x", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_holder_that_says_something_else(said: bytes) -> None:
    async with outbound_only() as (a, b):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", b.ports.edge, ssl=rig.partner_tls(a.files), server_hostname="b"
        )
        writer.write(
            b"GET /v1/interconn-ext/park HTTP/1.1\r\nHost: b\r\nConnection: upgrade\r\n"
            b"Upgrade: interconn-bytes/1\r\n\r\n"
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"\1")
        assert await reader.readexactly(1) == b"\2"
        writer.write(said)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(100)
        writer.close()
        await eventually(lambda: not b.process.stats()["parked"])


async def test_a_holder_that_does_not_read_our_answers_loses_its_connections() -> None:
    async with outbound_only() as (a, b):
        hold(a, b)
        await eventually(lambda: parked(b, A) == park.SEATS)
        full = next(iter(b.process._parked._all))
        full.pause_writing()  # what the transport says then
        await eventually(lambda: full not in b.process._parked._all)
        await eventually(lambda: parked(b, A) == park.SEATS)
