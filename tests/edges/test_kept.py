"""Sessions kept on disk, and what memory has no room for: two gateways, real sockets, restarts."""

import asyncio
import base64
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.data_plane.core.budget import MESSAGE_OVERHEAD, Budget
from gateway.data_plane.core.frame import Codec, Operation
from gateway.data_plane.io.process import DataProcess
from gateway.data_plane.lanes import Readback
from gateway.model import Limits, NodeId
from gateway.ports import SessionRule
from gateway.runtime.system import SystemClock, SystemEntropy
from tests.edges import rig
from tests.edges.rig import Container, Node, node
from tests.waiting import eventually

OK = "E0000000000"
A, B = NodeId("LX-A"), NodeId("LX-B")


def kept(*nodes: NodeId) -> SessionRule:
    return replace(rig.rule(*nodes), durability="spool")


async def restart(one: Node, *, peers: list[Node], told: bool = True) -> None:
    """End the process as a kill does, as far as the disk is concerned, and start another in its place."""
    old = one.process
    for spool in old._spools:
        # What the thread was given is written; nothing is said or tidied any more.
        spool._loop = None
    await old.stop()
    made = replace(old._settings, edge_port=one.ports.edge, platform_port=one.ports.platform)
    one.process = DataProcess(made, journal=one.journal, clock=SystemClock(), entropy=SystemEntropy())
    one.ports = await one.process.start()
    await one.process.set_routes([peer.route() for peer in peers])
    if told:
        one.process.channel.open_session(kept(A, B))


@asynccontextmanager
async def kept_pair(tmp_path: Path, *, limits: Limits | None = None, **more: Any) -> AsyncIterator[tuple[Node, Node]]:
    async with (
        node(A, limits=limits, spool_dir=tmp_path / "a", **more) as a,
        node(B, limits=limits, spool_dir=tmp_path / "b", **more) as b,
    ):
        await a.process.set_routes([b.route()])
        await b.process.set_routes([a.route()])
        for one in (a, b):
            one.process.channel.open_session(kept(A, B))
        yield a, b


async def test_a_queue_outlives_its_gateway(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Order, sources, what was read, and what is a repeat: all as before."""
    async with kept_pair(tmp_path) as (a, b):
        push = Container(client, a.platform)
        for n in range(6):
            name = f"0123456789-{n}-0"
            assert (await push.push(B, b"%d" % n, x_interconn_message=name)).code == OK
        reader = Container(client, b.platform)
        assert [(await reader.pop()).payload for _ in range(2)] == [b"0", b"1"]
        assert (tmp_path / "b" / "kept").stat().st_mode & 0o077 == 0
        await restart(b, peers=[a])
        for n in (1, 5, 6):
            assert (await push.push(B, b"%d" % n, x_interconn_message=f"0123456789-{n}-0")).code == OK
        reader = Container(client, b.platform)
        assert [(await reader.pop(wait_ms=0)).payload for _ in range(6)] == [b"2", b"3", b"4", b"5", b"6", None]
        assert b.process.stats()["bytes_on_disk"] == b.process.stats()["bytes_held"] == 0


async def test_a_push_to_a_partner_that_is_away_is_kept(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with kept_pair(tmp_path) as (a, b):
        push = Container(client, a.platform)
        assert (await push.push(B, b"0")).code == OK
        await a.process.set_routes([b.route(address="https://127.0.0.1:1")])
        for n, dialect in [(1, "json"), (2, "raw"), (3, "proto")]:
            assert (await Container(client, a.platform, dialect).push(B, b"%d" % n)).code == OK
        assert a.process.stats()["to_be_delivered"] == 3
        assert a.process.channel.sent_bytes(rig.SID) == {B: 1}
        await restart(a, peers=[])
        await a.process.set_routes([b.route(address="https://127.0.0.1:1")])
        push = Container(client, a.platform)
        assert (await push.push(B, b"4")).code == OK
        await a.process.set_routes([b.route()])
        reader = Container(client, b.platform)
        assert [(await reader.pop()).payload for _ in range(5)] == [b"%d" % n for n in range(5)]
        await eventually(lambda: a.process.stats()["to_be_delivered"] == 0)
        assert a.process.channel.sent_bytes(rig.SID) == {B: 4}
        assert a.process.stats()["bytes_on_disk"] == 0
        assert (await push.push(B, b"5")).code == OK
        assert (await reader.pop()).payload == b"5"


async def test_what_can_never_be_delivered_is_said(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with kept_pair(tmp_path) as (a, b):
        await a.process.set_routes([b.route(address="https://127.0.0.1:1")])
        assert (await Container(client, a.platform).push(B, b"0")).code == OK
        b.process.channel.close_session(rig.SID)
        await a.process.set_routes([b.route()])
        await eventually(lambda: a.process.stats()["undeliverable"] == 1)
        assert [event["peer"] for event in a.events("chan.undeliverable")] == [B]
        assert a.process.stats()["bytes_on_disk"] == 0


async def test_a_session_of_another_time_is_forgotten(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    """What control does not know after a restart goes after the idle time, and with it its room."""
    async with kept_pair(tmp_path, limits=replace(Limits(), session_idle_s=0.0)) as (a, b):
        assert (await Container(client, a.platform).push(B, b"0")).code == OK
        await restart(b, peers=[a], told=False)
        assert b.process.stats()["bytes_on_disk"] == 1 + MESSAGE_OVERHEAD
        b.process.channel.expire()
        assert b.process.stats()["bytes_on_disk"] == 0


async def test_a_reader_that_leaves_takes_nothing_with_it(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    """A pop whose answer could not be written leaves the message where it was, in memory sessions too."""
    async with kept_pair(tmp_path) as (a, b):
        channel = b.process.channel
        for n in range(2):
            assert (await Container(client, a.platform).push(B, b"%d" % n)).code == OK
        frame = rig.pop_frame(B)
        first, second = await channel.pop(frame), await channel.pop(frame)
        assert first is not None
        assert second is not None
        second.settle(False)
        first.settle(False)
        reader = Container(client, b.platform)
        assert [(await reader.pop()).payload for _ in range(2)] == [b"0", b"1"]
        assert b.process.stats()["put_back"] == 2


async def test_a_reader_that_acknowledges_loses_and_doubles_nothing(
    client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with kept_pair(tmp_path) as (a, b):
        for n in range(5):
            assert (await Container(client, a.platform).push(B, b"%d" % n)).code == OK

        async def pop(ack: str) -> tuple[bytes | None, str]:
            url, headers = f"{b.platform}{rig.CHAN}pop", {**rig.ns_headers(B), "x-interconn-ack": ack}
            text = b'{"topic":"t","timeout":0}'
            async with client.post(url, data=text, headers={**headers, "content-type": "application/json"}) as got:
                value = await got.json()
                payload = value.get("payload")
                return payload and base64.b64decode(payload), value.get("metadata", {}).get("x-interconn-message", "")

        first, named = await pop("0")
        assert (first, await pop("0")) == (b"0", (b"0", named))
        second, named = await pop(named)
        await restart(b, peers=[a])
        # What was given and not acknowledged comes again, what is acknowledged after a restart does not.
        assert (second, (await pop("0"))[0]) == (b"1", b"1")
        third, named = await pop(named)
        await restart(b, peers=[a])
        fourth, named = await pop(named)
        assert (third, fourth) == (b"2", b"3")
        # A plain reader gets what the other did not acknowledge.
        reader = Container(client, b.platform)
        assert [(await reader.pop(wait_ms=0)).payload for _ in range(3)] == [b"3", b"4", None]
        assert b.process.stats()["bytes_on_disk"] == 0


async def test_a_reader_that_asks_again_while_its_first_call_waits(
    client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Whichever of the calls is woken first, its later one gets what the reader has not said that it has."""
    async with kept_pair(tmp_path) as (a, b):
        channel, frame = b.process.channel, rig.pop_frame(B, wait_ms=5000)
        frame = replace(frame, envelope=replace(frame.envelope, ack="k0"))
        given_up, again = [asyncio.create_task(channel.pop(frame)) for _ in range(2)]
        await eventually(lambda: b.process.stats()["waiting"] == 2)
        for n in range(2):
            assert (await Container(client, a.platform).push(B, b"%d" % n)).code == OK
        await given_up
        got = await again
        assert got is not None
        assert got.payload == b"0"
        frame = replace(frame, envelope=replace(frame.envelope, ack=got.named), wait_ms=0)
        assert [each and each.payload for each in (await channel.pop(frame), await channel.peek(frame))] == [b"1", None]


async def test_a_push_whose_caller_leaves_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is delivered all the same, or its room is given back."""
    async with kept_pair(tmp_path) as (a, b):
        await a.process.set_routes([b.route(address="https://127.0.0.1:1")])
        channel, pop = a.process.channel, rig.pop_frame(B)
        push = replace(pop, operation=Operation.PUSH, codec=Codec.RAW, payload=b"0")
        for failure in (None, OSError("no")):
            begun, go, synced = threading.Event(), threading.Event(), os.fdatasync

            def slow(
                fd: int,
                begun: threading.Event = begun,
                go: threading.Event = go,
                synced: Callable[[int], None] = synced,
                failure: OSError | None = failure,
            ) -> None:
                begun.set()
                go.wait(5)
                monkeypatch.setattr(os, "fdatasync", synced)
                if failure is not None:
                    raise failure
                synced(fd)

            monkeypatch.setattr(os, "fdatasync", slow)
            pushing = asyncio.create_task(channel.push(push, b"0"))
            await eventually(begun.is_set)
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)
            go.set()
            await eventually(lambda: a.process.stats()["to_be_delivered"] == 1)
            await eventually(lambda: a.process.stats()["bytes_on_disk"] == 1 + MESSAGE_OVERHEAD)
        await a.process.set_routes([b.route()])
        await eventually(lambda: a.process.stats()["to_be_delivered"] == 0)
        assert b.process.channel.stats()["pushed_in"] == 1
        assert a.process.stats()["bytes_on_disk"] == 0


@pytest.mark.req("T-028")
async def test_over_memory_to_disk_and_then_no_further(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    """A session in memory overflows to disk, comes back in order, and what the disk may not take is refused."""
    limits = replace(Limits(), session_bytes=3 * (1000 + MESSAGE_OVERHEAD), spool_bytes=5 * (1000 + MESSAGE_OVERHEAD))
    async with kept_pair(tmp_path, limits=limits, push_retry_s=0.1, room_s=0.05) as (a, b):
        for one in (a, b):
            one.process.channel.close_session(rig.SID)
            one.process.channel.open_session(rig.rule(A, B))
        push, payloads = Container(client, a.platform), [os.urandom(1000) for _ in range(8)]
        for payload in payloads:
            assert (await push.push(B, payload)).code == OK
        assert (await push.push(B, bytes(1000))).code == "E0000000700"
        assert b.process.stats()["bytes_on_disk"] == limits.spool_bytes
        reader = Container(client, b.platform)
        assert [(await reader.pop()).payload for _ in range(8)] == payloads
        stats = b.process.stats()
        assert (stats["bytes_on_disk"], stats["bytes_held"]) == (0, 0)


async def test_what_is_read_back_from_disk_is_bounded_in_memory(
    client: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts until the reader has it; others wait for room, in their turn, and one that gives up takes none."""
    monkeypatch.setattr("gateway.data_plane.channel.READBACK", Limits().process_bytes // 2500)
    async with rig.node(A, limits=replace(Limits(), session_bytes=0), spool_dir=tmp_path) as a:
        channel = a.process.channel
        channel.open_session(rig.rule(A))
        for n in range(5):
            assert (await Container(client, a.platform).push(A, bytes([n]) * 1000)).code == OK
        frame, empty = rig.pop_frame(A, wait_ms=5000), a.process.stats()["bytes_held"]
        first, second = [await channel.pop(frame) for _ in range(2)]
        assert a.process.stats()["bytes_held"] == empty + 2000
        waiting = [asyncio.create_task(channel.pop(frame)) for _ in range(3)]
        await asyncio.wait(waiting, timeout=0.05)
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        assert first is not None
        first.settle(True)
        third = await asyncio.wait_for(waiting[1], 5)
        assert not waiting[2].done()
        assert third is not None
        assert second is not None
        assert (bytes(first.payload[:1]), bytes(second.payload[:1]), bytes(third.payload[:1])) == (b"\0", b"\1", b"\3")
        second.settle(True)
        third.settle(True)
        for left in (await asyncio.wait_for(waiting[2], 5), await channel.pop(frame)):
            assert left is not None
            assert left.payload[0] in {2, 4}
            left.settle(True)
        assert a.process.stats()["bytes_held"] == 0


async def test_a_reader_that_takes_nothing_keeps_others_waiting_for_a_while_only(
    client: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was given counts in memory all the while."""
    monkeypatch.setattr("gateway.data_plane.channel.READBACK", Limits().process_bytes // 1000)
    monkeypatch.setattr("gateway.data_plane.lanes.SLOW_S", 0.05)
    async with rig.node(A, limits=replace(Limits(), session_bytes=0), spool_dir=tmp_path) as a:
        channel = a.process.channel
        channel.open_session(rig.rule(A))
        for n in range(3):
            assert (await Container(client, a.platform).push(A, bytes([n]) * 1000)).code == OK
        empty = a.process.stats()["bytes_held"]
        given = [await asyncio.wait_for(channel.pop(rig.pop_frame(A, wait_ms=5000)), 5) for _ in range(3)]
        assert a.process.stats()["bytes_held"] == empty + 3000
        for each in given:
            assert each is not None
            each.settle(True)
        assert a.process.stats()["bytes_held"] == 0
        assert channel._readback._used == 0


async def test_a_reader_that_leaves_as_it_is_let_in_holds_nothing() -> None:
    budget = Budget(process_bytes=100, session_bytes=100)
    readback = Readback(budget, 10)
    first = await readback.enter(10)
    waiting = [asyncio.create_task(readback.enter(10)) for _ in range(2)]
    await asyncio.sleep(0)
    readback.leave(first)
    waiting[0].cancel()
    readback.leave(await asyncio.wait_for(waiting[1], 5))
    assert (budget.used, readback._used) == (0, 0)


async def test_a_reader_that_takes_nothing_is_closed_whatever_form_it_has(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By aiohttp as by us; the message stands where it stood."""
    monkeypatch.setattr("gateway.data_plane.io.body.STALL_S", 0.1)
    async with rig.node(A) as a:
        a.process.channel.open_session(rig.rule(A))
        assert (await Container(client, a.platform).push(A, bytes(8 << 20))).code == OK
        headers = {"host": "a", "content-length": "0", "upgrade": "no", "x-ptp-topic": "t"}
        lines = {**headers, **rig.ns_headers("")}.items()
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        _, writer = await asyncio.open_connection("127.0.0.1", a.ports.platform, limit=1)
        writer.write(f"POST {rig.CHAN}pop?timeout=5 HTTP/1.1\r\n{head}\r\n".encode())
        await eventually(lambda: a.process.channel.traffic.put_back == 1)
        writer.close()
        assert len((await Container(client, a.platform).pop()).payload) == 8 << 20


async def test_a_slow_reader_slows_the_writer(client: aiohttp.ClientSession) -> None:
    """Over its bound a push waits for room; nothing is refused while the reader goes on."""
    limits = replace(Limits(), session_bytes=2 * (1000 + MESSAGE_OVERHEAD))
    async with rig.pair(limits=limits) as (a, b):
        push, reader = Container(client, a.platform), Container(client, b.platform)

        async def write() -> list[str]:
            return [(await push.push(B, b"%03d" % n + bytes(997))).code for n in range(12)]

        writing, got = asyncio.create_task(write()), list[bytes]()
        for _ in range(12):
            await asyncio.sleep(0.02)
            payload = (await reader.pop()).payload
            assert payload is not None
            got.append(payload[:3])
            assert b.process.channel.stats()["bytes_held"] <= limits.session_bytes + 4096
        assert await writing == [OK] * 12
        assert got == [b"%03d" % n for n in range(12)]


async def test_figures_of_a_session_and_a_partner(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with kept_pair(tmp_path) as (a, b):
        for _ in range(3):
            await Container(client, a.platform).push(B, b"12345")
        await Container(client, b.platform).pop()
        seen = b.process.channel.figures(limit=10)
        (session,) = seen["sessions"]
        (flow,) = session["nodes"]
        assert (session["session_id"], session["durability"], session["depth"]) == (rig.SID, "spool", 2)
        assert (flow["messages_in"], flow["bytes_in"], flow["read"], flow["waited_s"] > 0) == (3, 15, 1, True)
        assert session["bytes_on_disk"] == session["bytes_held"] == 2 * (5 + MESSAGE_OVERHEAD)
        assert session["oldest_s"] >= 0
        assert seen["partners"] == [flow]
        assert flow["node_id"] == A
        ((out,),) = (each["nodes"] for each in a.process.channel.figures(limit=10)["sessions"])
        assert (out["node_id"], out["messages_out"], out["bytes_out"]) == (B, 3, 15)
