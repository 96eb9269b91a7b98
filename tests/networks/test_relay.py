"""Two partners that reach each other through a third only, which sees ciphertext."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from gateway.data_plane.io import relay as relays
from gateway.data_plane.io.handover import RoadsLink
from gateway.data_plane.io.pump import Half
from gateway.data_plane.io.tube import Tube
from gateway.errors import Kind, Unavailable
from gateway.model import NodeId, RelayPair
from gateway.ports import Network
from tests.edges import rig
from tests.edges.rig import Container, Node, node
from tests.networks import test_park
from tests.networks.test_proxy import NO_ROUTE, OK, acquaint, way
from tests.waiting import eventually

A, B, R = NodeId("LX-A"), NodeId("LX-B"), NodeId("LX-R")
NOWHERE = "https://127.0.0.1:1"
KEY = "LX-A LX-B"


def pair(bytes_per_s: int = 0) -> RelayPair:
    return RelayPair(A, B, bytes_per_s, 0)


@asynccontextmanager
async def three(allowed: RelayPair | None) -> AsyncIterator[tuple[Node, Node, Node]]:
    """A and B, which cannot dial each other, and R, which reaches both and is allowed to relay this pair."""
    async with node(A, push_retry_s=0.0) as a, node(B, push_retry_s=0.0) as b, node(R) as r:
        await a.process.set_routes([b.route(address=NOWHERE), r.route()])
        await b.process.set_routes([a.route(address=NOWHERE), r.route()])
        await r.process.set_routes([a.route(), b.route()])
        a.process.set_network(way(B, relay=R))
        b.process.set_network(way(A, relay=R))
        if allowed is not None:
            r.process.set_network(Network(relays=[allowed]))
        acquaint(a, b)
        yield a, b, r


async def test_messages_through_a_relay_that_cannot_read_them(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = bytearray()

    class Recording(Tube):
        def _moved(self, half: Half, data: bytes) -> None:
            seen.extend(data)
            super()._moved(half, data)

    async with three(pair()) as (a, b, r):
        with monkeypatch.context() as patched:
            # All ends are in this process; only the relay makes its tubes with a count.
            patched.setattr(relays, "Tube", lambda **more: Recording(**more) if more else Tube())
            ours, theirs = Container(client, a.platform), Container(client, b.platform)
            secret = b"a row of the bank" * 20_000
            assert (await ours.push(B, secret)).code == OK
            assert (await theirs.pop(A)).payload == secret
            assert (await theirs.push(A, b"an answer")).code == OK
            assert (await ours.pop(B)).payload == b"an answer"
        assert len(seen) > len(secret)
        for word in (b"a row of the bank", b"an answer", b"chan/invoke", b"x-ptp", b"session_job", b"LX-A", b"inst-"):
            assert word not in bytes(seen)
        stats = r.process.stats()
        assert stats["relayed"][KEY] > 0
        assert stats["relayed_bytes"] == {KEY: len(seen)}
        assert {event["peer"] for event in r.events("relay.opened")} == {A, B}


async def test_only_who_was_allowed(client: aiohttp.ClientSession) -> None:
    async with three(None) as (a, _, r):
        link = RoadsLink(a.folder)
        with pytest.raises(Unavailable, match="not relayed there") as refused:
            await link.reach(B, NOWHERE)
        assert refused.value.kind is Kind.NO_ROUTE
        got = await Container(client, a.platform).push(B, b"x")
        assert got.code == NO_ROUTE
        # Of who is unknown to the relay the answer is the same.
        a.process.set_network(way(NodeId("LX-Z"), relay=R))
        with pytest.raises(Unavailable, match="not relayed there"):
            await link.reach(NodeId("LX-Z"), NOWHERE)
        a.process.set_network(way(B, relay="LX-Q"))
        with pytest.raises(Unavailable, match="is no partner"):
            await link.reach(B, NOWHERE)
        url, headers = f"{r.edge}/v1/interconn-ext/relay?node=LX-B", {"upgrade": "interconn-bytes/1"}
        async with client.get(url, headers=headers, ssl=rig.partner_tls(None)) as answer:
            assert (await answer.json())["code"] == 401


async def test_a_relay_does_not_use_a_relay(client: aiohttp.ClientSession) -> None:
    async with three(pair()) as (a, _, r):
        r.process.set_network(replace(way(B, relay=A), relays=[pair()]))
        with pytest.raises(Unavailable, match="no route"):
            await RoadsLink(a.folder).reach(B, NOWHERE)
        assert r.process.stats()["relayed"] == {}


async def test_nothing_but_tls_is_relayed() -> None:
    """Whatever listens at an address that a partner has named, its plain listeners are out of reach."""
    async with three(pair()) as (a, b, r):
        await r.process.set_routes([a.route(), b.route(address=b.platform.replace("http:", "https:"))])
        raw = await RoadsLink(a.folder).reach(B, NOWHERE)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(raw, b"GET /v1/interconn/chan/peek HTTP/1.1\r\nHost: b\r\n\r\n")
        async with asyncio.timeout(5):
            assert b"HTTP" not in await loop.sock_recv(raw, 1000)
        raw.close()
        await eventually(lambda: r.process.stats()["relayed"] == {})


@pytest.mark.parametrize("end", ["pair", "contract"])
async def test_what_is_taken_back_is_cut(client: aiohttp.ClientSession, end: str) -> None:
    async with three(pair()) as (a, b, r):
        assert (await Container(client, a.platform).push(B, b"x")).code == OK
        raw = await RoadsLink(a.folder).reach(B, NOWHERE)
        if end == "pair":
            r.process.set_network(Network())
        else:
            await r.process.set_routes([a.route()])
        async with asyncio.timeout(5):
            assert await asyncio.get_running_loop().sock_recv(raw, 1) == b""
        raw.close()
        await eventually(lambda: r.process.stats()["relayed"] == {})
        got = await Container(client, a.platform).push(B, b"x")
        assert got.code in {NO_ROUTE, "E0000000607"}
        del b


async def test_a_relay_towards_somebody_who_parks(client: aiohttp.ClientSession) -> None:
    async with three(pair()) as (a, b, r):
        await r.process.set_routes([a.route(), b.route(address=NOWHERE)])
        b.process.set_network(replace(way(R, hold=True), holding=[r.route()]))
        await eventually(lambda: r.process.stats()["parked"].get(B) == 4)
        assert (await Container(client, a.platform).push(B, bytes(1 << 20))).code == OK
        assert (await Container(client, b.platform).pop(A)).payload == bytes(1 << 20)


async def test_a_limited_rate(client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rate does is test_tube's."""
    rates: list[int] = []

    class Noting(Tube):
        def __init__(self, **more: Any) -> None:
            rates.extend(more[name] for name in more if name == "bytes_per_s")
            super().__init__(**more)

    monkeypatch.setattr(relays, "Tube", Noting)
    async with three(pair(bytes_per_s=4_000_000)) as (a, b, _r):
        assert (await Container(client, a.platform, "proto").push(B, bytes(1_000_000))).code == OK
        assert (await Container(client, b.platform).pop(A)).payload == bytes(1_000_000)
    assert set(rates) == {4_000_000}


async def test_so_many_at_a_time(client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "OF_PAIR", 2)
    async with three(pair()) as (a, _, r):
        link = RoadsLink(a.folder)
        found = [await link.reach(B, NOWHERE) for _ in range(2)]
        with pytest.raises(Unavailable, match="too many requests"):
            await link.reach(B, NOWHERE)
        found.pop().close()
        await eventually(lambda: r.process.stats()["relayed"] == {KEY: 1})
        found.append(await link.reach(B, NOWHERE))
        for each in found:
            each.close()


def test_the_same_on_the_other_loop() -> None:
    async def everything() -> None:
        async with aiohttp.ClientSession() as client:
            await test_park.test_messages_both_ways(client, told=True)
            await test_park.test_an_ended_contract_closes_them(client)
            await test_park.test_control_calls_over_it_and_waits_for_it(client)
            for end in ("pair", "contract"):
                await test_what_is_taken_back_is_cut(client, end)
            await test_a_relay_towards_somebody_who_parks(client)
            await test_only_who_was_allowed(client)

    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(everything())
