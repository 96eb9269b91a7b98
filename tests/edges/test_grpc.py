"""Containers and partners that speak gRPC: the table of requests of the HTTP front, and what only gRPC has."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from gateway.data_plane.core import http2
from gateway.data_plane.core.wire import Pieces
from gateway.data_plane.io import accept, grpc_entry, grpc_server
from gateway.data_plane.io.pump import Half, Room
from gateway.model import Limits, NodeId
from gateway.ports import PeerRoute
from specs.proto import ptp_pb2
from tests.edges import rig, test_authorisation, test_channel
from tests.edges.rig import (
    PROTOCOL,
    TRANSFER,
    Container,
    ew_headers,
    grpc_call,
    grpc_channel,
    inbound,
    ns_headers,
    pair,
)
from tests.edges.test_http2 import HEADERS, PING, RST, SETTINGS, frame
from tests.waiting import eventually

OK = "E0000000000"
A, B, F = NodeId("LX-A"), NodeId("LX-B"), NodeId("LX-F")


@pytest.fixture(autouse=True)
def _spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test does not say otherwise is said in gRPC."""
    monkeypatch.setattr(rig, "USUAL", "grpc")


# The same requests, told to the other front.
test_order_and_isolation = test_channel.test_order_and_isolation
test_pop_may_come_first = test_channel.test_pop_may_come_first
test_peek = test_channel.test_peek
test_two_readers_never_get_one_message = test_channel.test_two_readers_never_get_one_message
test_a_reader_that_left_takes_no_message = test_channel.test_a_reader_that_left_takes_no_message
test_release = test_channel.test_release
test_whose_id_a_pop_may_name = test_channel.test_whose_id_a_pop_may_name
test_a_pop_that_names_a_source_gets_no_others = test_channel.test_a_pop_that_names_a_source_gets_no_others
test_a_full_queue = test_channel.test_a_full_queue
test_tokens_on_the_way_out = test_channel.test_tokens_on_the_way_out
test_an_unreachable_partner = test_channel.test_an_unreachable_partner
test_a_push_waits_for_the_partners_task = test_channel.test_a_push_waits_for_the_partners_task
test_a_closed_session = test_channel.test_a_closed_session
test_idle_sessions_without_tasks_expire = test_channel.test_idle_sessions_without_tasks_expire
test_a_split_sequence_is_ordinary_topics = test_channel.test_a_split_sequence_is_ordinary_topics
test_the_strict_profile_wants_all_headers = test_channel.test_the_strict_profile_wants_all_headers
test_where_a_container_may_send = test_authorisation.test_where_a_container_may_send
test_what_a_partner_may_send = test_authorisation.test_what_a_partner_may_send


def over_grpc(one: rig.Node) -> PeerRoute:
    return one.route(address=one.edge.replace("https", "grpcs"))


def at(url: str) -> str:
    return url.partition("//")[2]


@contextlib.asynccontextmanager
async def partner_channel(a: rig.Node, b: rig.Node) -> AsyncIterator[grpc.aio.Channel]:
    """A's identity at the edge of B."""
    async with grpc_channel(at(b.edge), ca=b.ca.pem, files=a.files) as channel:
        yield channel


# -- both sides, and between them


@pytest.mark.req("T-034", "T-035", "T-036")
@pytest.mark.parametrize(
    ("between", "writer", "reader"),
    [
        ("grpc", "grpc", "grpc"),
        ("grpc", "grpc", "json"),
        ("grpc", "json", "grpc"),
        ("grpc", "raw", "proto"),
        ("http", "grpc", "grpc"),
        ("http", "grpc", "raw"),
        ("http", "json", "grpc"),
    ],
)
async def test_bytes_arrive_as_sent(client: aiohttp.ClientSession, between: str, writer: str, reader: str) -> None:
    """Each side speaks what it speaks, and so do the gateways between them."""
    async with pair() as (a, b):
        if between == "grpc":
            await a.process.set_routes([over_grpc(b)])
        push, pop = Container(client, a.platform, writer), Container(client, b.platform, reader)
        for version in ("", "1"):
            for size in (0, 1, 255, 65536):
                payload = os.urandom(size)
                assert (await push.push(B, payload, x_ptp_version=version)).code == OK
                got = await pop.pop(B)
                assert (got.status, got.code, got.payload or b"") == (200, OK, payload)
        large = os.urandom(5 << 20)
        assert (await push.push(B, large)).code == OK
        assert (await pop.pop()).payload == large
        # A message is in hand until its answer has left.
        await eventually(lambda: a.process.stats()["bytes_held"] == b.process.stats()["bytes_held"] == 0)
        await eventually(lambda: b.process._edge_grpc._room.used == a.process._platform_grpc._room.used == 0)


@pytest.mark.req("T-018", "T-043")
async def test_an_empty_queue_answers_at_the_timeout() -> None:
    async with pair() as (_, b):
        headers = {k: v for k, v in ns_headers("").items() if k != "x-ptp-tech-provider-code"}
        headers["x-ptp-tecn-provider-code"] = "SecretFlow"
        start = time.monotonic()
        asked = ptp_pb2.PopInbound(topic="t", timeout=300).SerializeToString()
        got = await grpc_call(at(b.platform), TRANSFER + "pop", headers, asked)
        assert (got.code, got.payload) == (OK, None)
        assert 0.27 <= time.monotonic() - start <= 2.3


# -- what the digest's tables say of names and numbers


@pytest.mark.req("T-037")
def test_messages_and_services_are_those_of_the_standard() -> None:
    inbound_fields = {1: ("metadata", "MetadataEntry"), 2: ("payload", "")}
    outbound = {**inbound_fields, 3: ("code", ""), 4: ("message", "")}
    timed = {1: ("topic", ""), 2: ("timeout", "")}
    wanted = {
        "PeekInbound": {1: ("topic", "")},
        "PopInbound": timed,
        "PushInbound": {1: ("topic", ""), 2: ("payload", ""), 3: ("metadata", "MetadataEntry")},
        "ReleaseInbound": timed,
        "TransportOutbound": outbound,
        "Inbound": inbound_fields,
        "Outbound": outbound,
    }
    file = ptp_pb2.DESCRIPTOR
    found = {
        name: {each.number: (each.name, each.message_type.name if each.message_type else "") for each in message.fields}
        for name, message in file.message_types_by_name.items()
    }
    assert (file.package, found) == ("org.ppc.ptp", wanted)
    methods = {
        service: [
            (m.name, m.input_type.name, m.output_type.name, m.client_streaming, m.server_streaming) for m in d.methods
        ]
        for service, d in file.services_by_name.items()
    }
    unary = [
        (name, f"{name.title()}Inbound", "TransportOutbound", False, False)
        for name in ("peek", "pop", "push", "release")
    ]
    assert methods == {
        "PrivateTransferTransport": unary,
        "PrivateTransferProtocol": [
            ("invoke", "Inbound", "Outbound", False, False),
            ("transport", "Inbound", "Outbound", True, True),
        ],
    }


@pytest.mark.req("T-037", "T-054")
async def test_what_each_listener_offers() -> None:
    async with pair() as (a, b):
        for name in ("push", "pop", "peek", "release"):
            got = await grpc_call(at(b.edge), TRANSFER + name, ew_headers(A, B), b"", ca=b.ca.pem, files=a.files)
            assert got.code == "E0000000614"
        got = await grpc_call(at(b.platform), PROTOCOL + "invoke", ew_headers(A, B), inbound(b"x"))
        assert got.code == "E0000000614"
        for method in (TRANSFER + "Push", TRANSFER + "invoke", PROTOCOL + "push", "/org.ppc.ptp.Other/push", "/x"):
            got = await grpc_call(at(b.platform), method, ns_headers(B), b"")
            assert grpc.StatusCode.UNIMPLEMENTED.value[0] == got.status
        # Kuscia's name of the same service.
        got = await grpc_call(at(b.platform), TRANSFER.replace("ptp.", "grpc_ptp."), ns_headers(B), b"")
        assert grpc.StatusCode.UNIMPLEMENTED.value[0] == got.status
        pushed = ptp_pb2.PushInbound(topic="t", payload=b"hi").SerializeToString()
        got = await grpc_call(at(b.platform), TRANSFER.replace("ptp.", "grpc_ptp.") + "push", ns_headers(B), pushed)
        assert got.code == OK


# -- streams


@pytest.mark.req("T-039")
async def test_a_stream_answers_each_message_in_its_turn(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b), partner_channel(a, b) as channel:
        stream = channel.stream_stream(PROTOCOL + "transport")(metadata=tuple(ew_headers(A, B).items()), timeout=20)
        bodies = [inbound(bytes([n])) for n in range(200)]
        bodies[50:50] = [b"\x0b", ptp_pb2.Inbound(metadata={"x-ptp-target-node-id": "LX-Z"}).SerializeToString()]

        async def write() -> None:
            for body in bodies:
                await stream.write(body)
            await stream.done_writing()

        writing = asyncio.create_task(write())
        codes = [ptp_pb2.Outbound.FromString(each).code async for each in stream]
        await writing
        assert codes == [OK] * 50 + ["E0000000616", "E0000000404"] + [OK] * 150
        assert await stream.code() is grpc.StatusCode.OK
        reader = Container(client, b.platform, "proto")
        assert [(await reader.pop()).payload for _ in range(200)] == [bytes([n]) for n in range(200)]
        await eventually(lambda: b.process._edge_grpc._room.used == 0)


@pytest.mark.req("T-038", "T-039")
async def test_a_message_of_a_stream_may_say_what_is_its_own(client: aiohttp.ClientSession) -> None:
    """Inbound.metadata goes over the stream's, in any case; not who speaks, nor what the messages are."""
    async with pair() as (a, b), partner_channel(a, b) as channel:
        b.process.channel.open_session(rig.rule(A, B, session="other"))

        async def say(*messages: Any, **headers: str) -> list[str]:
            stream = channel.stream_stream(PROTOCOL + "transport")(
                metadata=tuple(ew_headers(A, B, **headers).items()), timeout=20
            )
            for message in messages:
                await stream.write(message.SerializeToString())
            await stream.done_writing()
            return [ptp_pb2.Outbound.FromString(each).code async for each in stream]

        inner = ptp_pb2.PushInbound(topic="t", payload=b"x")
        wrapped = inner.SerializeToString()
        codes = await say(
            ptp_pb2.Inbound(payload=wrapped, metadata={"X-PTP-Session-ID": "other", "x-ptp-version": "1"}),
            ptp_pb2.Inbound(payload=wrapped, metadata={"x-ptp-topic": "u"}),
            ptp_pb2.Inbound(payload=wrapped, metadata={"x-ptp-source-node-id": "LX-C"}),
            ptp_pb2.Inbound(payload=wrapped, metadata={f"k{n}": "" for n in range(65)}),
            ptp_pb2.Inbound(payload=wrapped, metadata={"x-ptp-session-id": "s" * 300}),
        )
        assert codes == [OK, OK, "E0000000403", "E0000000400", "E0000000400"]
        # In pass-through the messages are the container's own, and field 1 is a topic.
        assert await say(inner, x_ptp_version="1") == [OK]
        reader = Container(client, b.platform, "proto")
        assert (await reader.pop(session="other")).payload == b"x"
        assert (await reader.pop(topic="u")).payload == b"x"
        assert (await reader.pop()).payload == b"x"
        assert (await reader.pop(wait_ms=0)).payload is None
        # Streams are between nodes.
        async with grpc_channel(at(b.platform)) as own:
            stream = own.stream_stream(PROTOCOL + "transport")(metadata=tuple(ns_headers(B).items()), timeout=20)
            await stream.write(inbound(b"x"))
            assert ptp_pb2.Outbound.FromString(await stream.read()).code == "E0000000614"


# -- who speaks


async def test_who_shows_no_partners_certificate_gets_no_further() -> None:
    async with pair() as (_, b), rig.node("LX-C") as c:
        got = await grpc_call(at(b.edge), PROTOCOL + "invoke", ew_headers(A, B), inbound(b"x"), ca=b.ca.pem)
        assert (got.status, "certificate" in got.message) == (grpc.StatusCode.UNAUTHENTICATED.value[0], True)
        # Another node's leaf, but that of a CA which nobody pinned: TLS itself ends it.
        got = await grpc_call(
            at(b.edge), PROTOCOL + "invoke", ew_headers(A, B), inbound(b"x"), ca=b.ca.pem, files=c.files
        )
        assert got.status == grpc.StatusCode.UNAVAILABLE.value[0]
        assert b.process._edge_grpc._server is None
        assert b.process.stats()["bytes_held"] == 0


async def test_a_partner_may_have_so_many_connections() -> None:
    async with pair(limits=replace(Limits(), partner_connections=1)) as (a, b), partner_channel(a, b) as channel:
        headers = tuple(ew_headers(A, B).items())
        assert await channel.unary_unary(PROTOCOL + "invoke")(inbound(b"x"), metadata=headers)
        got = await grpc_call(
            at(b.edge), PROTOCOL + "invoke", ew_headers(A, B), inbound(b"x"), ca=b.ca.pem, files=a.files
        )
        assert (got.status, got.message) == (grpc.StatusCode.UNAVAILABLE.value[0], "busy, try again later")


async def test_a_contract_that_ends_ends_on_connections_that_stand() -> None:
    async with pair() as (a, b), partner_channel(a, b) as channel:
        invoke = channel.unary_unary(PROTOCOL + "invoke", response_deserializer=ptp_pb2.Outbound.FromString)
        headers = tuple(ew_headers(A, B).items())
        assert (await invoke(inbound(b"x"), metadata=headers)).code == OK
        await b.process.set_routes([])
        assert (await invoke(inbound(b"x"), metadata=headers)).code == "E0000000615"


async def test_an_answer_counts_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a copy; a reader that gives up before it is there leaves the message where it was."""
    size, making, go_on = 2 << 20, asyncio.Event(), asyncio.Event()
    joined = grpc_server._joined

    async def slowly(body: Pieces) -> bytes:
        making.set()
        await go_on.wait()
        return await joined(body)

    async with rig.node(A) as a:
        a.process.channel.open_session(rig.rule(A))
        headers = rig.ns_headers(A)
        pushed = ptp_pb2.PushInbound(topic="t", payload=bytes(size)).SerializeToString()
        asked = ptp_pb2.PopInbound(topic="t", timeout=5000).SerializeToString()
        async with grpc_channel(at(a.platform)) as channel:
            await channel.unary_unary(rig.TRANSFER + "push")(pushed, metadata=tuple(headers.items()))
            held = a.process.stats()["bytes_held"]
            monkeypatch.setattr(grpc_server, "_joined", slowly)
            reading = channel.unary_unary(rig.TRANSFER + "pop")(asked, metadata=tuple(headers.items()))
            await asyncio.wait_for(making.wait(), 5)
            assert a.process.stats()["bytes_held"] >= held + size
            reading.cancel()
            await eventually(lambda: a.process.channel.traffic.put_back == 1)
            assert a.process.stats()["bytes_held"] == held
            go_on.set()
            again = await channel.unary_unary(rig.TRANSFER + "pop")(asked, metadata=tuple(headers.items()))
            assert rig.read(200, "application/x-protobuf", again).payload == bytes(size)
            await eventually(lambda: a.process.stats()["bytes_held"] == 0)


async def test_another_process_cannot_come_in_behind_the_edge() -> None:
    async with pair() as (a, b), partner_channel(a, b) as channel:
        assert await channel.unary_unary(PROTOCOL + "invoke")(inbound(b"x"), metadata=tuple(ew_headers(A, B).items()))
        inside = b.folder / "grpc-edge.sock"
        got = await grpc_call(f"unix:{inside}", PROTOCOL + "invoke", ew_headers(A, B), inbound(b"x"))
        assert got.status == grpc.StatusCode.UNAUTHENTICATED.value[0]
        async with grpc_channel(f"unix:{inside}") as own:
            stream = own.stream_stream(PROTOCOL + "transport")(metadata=tuple(ew_headers(A, B).items()), timeout=20)
            assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
        assert b.process.stats()["pushed_in"] == 1


# -- bad input


@pytest.mark.req("T-009", "T-010", "T-027", "T-038")
async def test_what_is_wrong_has_its_code() -> None:
    limits = replace(Limits(), channel_body_bytes=1000)
    async with pair(limits=limits) as (a, _):
        push = ptp_pb2.PushInbound(topic="t", payload=b"hi").SerializeToString()
        full = ns_headers(B)
        cases: list[tuple[dict[str, Any], bytes, str]] = [
            ({k: v for k, v in full.items() if k != "x-ptp-session-id"}, push, "E0000000400"),
            ({k: v for k, v in full.items() if k != "x-ptp-target-node-id"}, push, "E0000000400"),
            # Binary metadata mean nothing, and stand for no header.
            ({**full, "x-ptp-target-node-id-bin": b"\xff\x00", "other-bin": b"\x00"}, push, OK),
            ({**{k: v for k, v in full.items() if k != "x-ptp-token"}, "x-ptp-token-bin": b"x"}, push, "E0000000403"),
            ({**full, "x-ptp-session-id": "s" * 257}, push, "E0000000400"),
            (full, b"\x0b\x0c", "E0000000616"),
            (full, b"\x08\x01", OK),
            (full, b"\x12\x7f", "E0000000616"),
            (full, b"\x0b" * 900, "E0000000616"),
            (full, b"\x0a\x02\xff\xfe", "E0000000616"),
            (full, bytes(1001), "E0000000413"),
        ]
        for headers, body, code in cases:
            assert (await grpc_call(at(a.platform), TRANSFER + "push", headers, body)).code == code
        twice = (*full.items(), ("x-ptp-target-node-id", A))
        async with grpc_channel(at(a.platform)) as channel:
            answer = await channel.unary_unary(TRANSFER + "push")(push, metadata=twice)
            assert ptp_pb2.TransportOutbound.FromString(answer).code == "E0000000400"
            nothing = channel.stream_unary(TRANSFER + "push")(metadata=tuple(full.items()))
            await nothing.done_writing()
            assert ptp_pb2.TransportOutbound.FromString(await nothing).code == "E0000000400"
        cut_off = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert (await grpc_call(at(a.platform), TRANSFER + "push", full, bytes(2 << 20))).status == cut_off
        got = await grpc_call(at(a.platform), TRANSFER + "push", {**full, "padding": "p" * (33 << 10)}, push)
        assert got.status == cut_off
        assert a.process.stats()["bytes_held"] == 0
        # Whatever was wrong, the next one is served.
        assert (await grpc_call(at(a.platform), TRANSFER + "push", full, push)).code == OK


def hello() -> bytes:
    return http2.PREFACE + frame(SETTINGS)


def opened(stream: int, *names: bytes) -> bytes:
    """HEADERS of a POST of push; further names as literals, value `x`."""
    path = TRANSFER.encode() + b"push"
    block = b"\x83\x86\x04" + bytes([len(path)]) + path + b"\x01\x01h\x0f\x10\x10application/grpc"
    block += b"".join(b"\x00" + bytes([len(name)]) + name + b"\x01x" for name in names)
    return frame(HEADERS, block, flags=4, stream=stream)


async def told(url: str, data: bytes, *, tls: ssl.SSLContext | None = None, patience: float = 5.0) -> bytes:
    """What the other end says to these bytes until it closes, or nothing more for a while."""
    host, port = at(url).split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    said = b""
    try:
        writer.write(data)
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(patience):
                while piece := await reader.read(65536):
                    said += piece
    finally:
        writer.transport.abort()
    return said


@pytest.mark.parametrize(
    ("flood", "side"),
    [("resets", "edge"), ("resets", "platform"), ("pings", "platform"), ("settings", "edge"), ("headers", "platform")],
)
async def test_floods_of_frames_end_their_connection(flood: str, side: str) -> None:
    """HTTP/2 rapid reset and its relatives, on the port of everybody else."""
    floods = {
        "resets": b"".join(opened(n) + frame(RST, bytes(4), stream=n) for n in range(1, 6001, 2)),
        "pings": frame(PING, bytes(8)) * 3000,
        "settings": frame(SETTINGS) * 3000,
        "headers": frame(HEADERS, b"\x83", stream=1) + frame(9, b"\x00\x01a\x7f" + b"a" * 127, stream=1) * 1200,
    }
    async with pair() as (a, b):
        tls = rig.partner_tls(a.files)
        tls.set_alpn_protocols(["h2"])
        here = (b.edge, tls) if side == "edge" else (b.platform, None)
        assert b"HTTP/2:" in await told(here[0], hello() + floods[flood], tls=here[1])
        await a.process.set_routes([over_grpc(b)])
        push = ptp_pb2.PushInbound(topic="t", payload=b"hi").SerializeToString()
        assert (await grpc_call(at(a.platform), TRANSFER + "push", ns_headers(B), push)).code == OK
        asked = ptp_pb2.PopInbound(topic="t", timeout=1000).SerializeToString()
        assert (await grpc_call(at(b.platform), TRANSFER + "pop", ns_headers(""), asked)).payload == b"hi"
        entry = b.process._edge_grpc if side == "edge" else b.process._platform_grpc
        await eventually(lambda: len(entry._callers) <= 1 and entry._room.used == 0)


@pytest.mark.req("T-038")
async def test_upper_case_on_the_wire_is_no_http2() -> None:
    async with pair() as (a, _):
        said = await told(
            a.platform, hello() + opened(1, b"X-Ptp-Session-Id") + frame(0, bytes(5), flags=1, stream=1), patience=0.3
        )
        kinds = [kind for _, kind, _, stream in http2.Heads().feed(said) if stream == 1]
        assert OK.encode() not in said
        assert not kinds or 0 not in kinds


async def test_who_speaks_no_http2_after_all() -> None:
    async with pair() as (a, b):
        for data in (http2.PREFACE + b"GET / HTTP/1.1\r\n\r\n" * 20, b"PRI * HTTP/1.1\r\n\r\n", b"PRI" + bytes(30)):
            assert OK.encode() not in await told(a.platform, data, patience=0.3)
        refused = http2.PREFACE + opened(1) * 1000
        assert await told(b.edge, refused, tls=rig.partner_tls(None))
        got = await Container(None, a.platform).push(B, b"x")  # type: ignore[arg-type]
        assert got.code == OK


async def test_connections_wait_for_room() -> None:
    """What the library may hold is bounded over all connections: a side that brings more is read no further."""
    room, loop = Room(100), asyncio.get_running_loop()
    ends = [end for _ in range(4) for end in socket.socketpair()]
    halves = [(await loop.create_connection(Half, sock=end))[1] for end in ends[::2]]
    first, second, *sinks = halves
    for half, sink in zip((first, second), sinks, strict=True):
        half.join(sink)
    room.change(first, 80)
    assert not first._held
    room.change(second, 80)
    assert second._held == {"room"}
    room.change(first, -80)
    assert not second._held
    room.change(first, 40)
    assert first._held == {"room"}
    room.leave(second)
    assert not first._held
    room.change(first, -40)
    assert room.used == 0
    # Who began much and goes on with nothing is the one to go, not who waits.
    room.change(first, 90)
    room.change(second, 20)
    assert second._held == {"room"}
    room._make()
    assert first._other is None
    room.leave(first)
    assert not second._held
    room.leave(second)
    assert room.used == 0
    assert room._late is None
    for half in halves:
        half.close()
    for end in ends[1::2]:
        end.close()


async def test_who_takes_no_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that opens no window keeps its answer in the library, outside of every budget."""
    monkeypatch.setattr(grpc_entry, "STALL_S", 0.3)
    async with rig.node(A) as a:
        a.process.channel.open_session(rig.rule(A, token=None))
        push = ptp_pb2.PushInbound(topic="t", payload=bytes(1 << 20)).SerializeToString()
        assert (await grpc_call(at(a.platform), TRANSFER + "push", ns_headers(A), push)).code == OK
        path, named = TRANSFER.encode() + b"pop", {**ns_headers(""), "te": "trailers"}
        block = b"\x83\x86\x04" + bytes([len(path)]) + path + b"\x01\x01h\x0f\x10\x10application/grpc"
        for name, value in named.items():
            block += b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        asked = ptp_pb2.PopInbound(topic="t", timeout=1000).SerializeToString()
        data = frame(0, b"\0" + len(asked).to_bytes(4, "big") + asked, flags=1, stream=1)
        said = await told(a.platform, hello() + frame(HEADERS, block, flags=4, stream=1) + data)
        assert 60_000 < len(said) < 70_000
        await eventually(lambda: not a.process._platform_grpc._halves)


# -- ports


async def test_ports_of_their_own(client: aiohttp.ClientSession) -> None:
    settings = {"edge_grpc": False, "platform_grpc": False, "edge_grpc_port": 0, "platform_grpc_port": 0}
    async with pair(**settings) as (a, b):
        push = ptp_pb2.PushInbound(topic="t", payload=b"hi").SerializeToString()
        got = await grpc_call(f"127.0.0.1:{a.ports.platform_grpc}", TRANSFER + "push", ns_headers(B), push)
        assert got.code == OK
        where = f"127.0.0.1:{b.ports.edge_grpc}"
        got = await grpc_call(where, PROTOCOL + "invoke", ew_headers(A, B), inbound(b"x"), ca=b.ca.pem, files=a.files)
        assert got.code == OK
        for url in (a.platform, f"http://{where}"):
            assert (await grpc_call(at(url), TRANSFER + "push", ns_headers(B), push)).status == 14
        with pytest.raises(aiohttp.ClientError):
            await client.get(f"http://127.0.0.1:{a.ports.platform_grpc}/v1/interconn/chan/pop")


async def test_a_library_that_does_not_start_leaves_no_caller_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_name: str) -> None:
        raise RuntimeError("no such library")

    async with pair() as (a, _):
        with monkeypatch.context() as patched:
            patched.setattr(grpc_entry.importlib, "import_module", broken)
            got = await grpc_call(at(a.platform), TRANSFER + "pop", ns_headers(B), b"")
        assert got.status != 0
        assert [event["error"] for event in a.events("edge.internal")][:1] == ["RuntimeError"]
        await eventually(lambda: a.process.stats()["grpc_connections"] == 0)


async def test_handshakes_at_a_port_of_its_own_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "OF_AN_ADDRESS", 2)
    async with rig.node(B, edge_grpc_port=0) as b:
        assert b.ports.edge_grpc is not None
        silent = [await asyncio.open_connection("127.0.0.1", b.ports.edge_grpc) for _ in range(3)]
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await silent[0][0].read() == b""
        for _, writer in silent:
            writer.close()


async def test_who_can_speak_http1_is_not_led_to_grpc() -> None:
    async with rig.node(B) as b:
        for offered, chosen in ((["h2", "http/1.1"], "http/1.1"), (["h2"], "h2"), (["http/1.1"], "http/1.1")):
            tls = rig.partner_tls(None)
            tls.set_alpn_protocols(offered)
            _, writer = await asyncio.open_connection("127.0.0.1", b.ports.edge, ssl=tls)
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
            writer.transport.abort()


def test_nobody_pays_for_grpc_who_does_not_use_it() -> None:
    code = "import sys, gateway.data_plane.io.process as p; sys.exit('grpc' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# -- partners of other makes

Serve = Callable[[dict[str, str], bytes, Any], Awaitable[bytes]]


@contextlib.asynccontextmanager
async def foreign(a: rig.Node, serve: Serve) -> AsyncIterator[PeerRoute]:
    """A partner's gRPC server that trusts `a`."""
    ca = rig.authority()
    files = rig.issue(a.folder, ca, rig.urn(F), name="foreign")

    async def invoke(body: bytes, context: Any) -> bytes:
        return await serve(dict(context.invocation_metadata()), body, context)

    handlers = {"invoke": grpc.unary_unary_rpc_method_handler(invoke)}
    server = grpc.aio.server(
        handlers=[grpc.method_handlers_generic_handler("org.ppc.ptp.PrivateTransferProtocol", handlers)]
    )
    pairs = [(files.key.read_bytes(), files.chain.read_bytes())]
    credentials = grpc.ssl_server_credentials(pairs, a.ca.pem.encode(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield PeerRoute(F, "JG-F", f"grpcs://127.0.0.1:{port}", ca.pem, "transport-only")
    finally:
        await server.stop(None)


def outbound(code: str) -> bytes:
    return ptp_pb2.Outbound(code=code, message="ok").SerializeToString()


@pytest.mark.req("T-029", "T-030", "T-033", "T-034", "T-038")
async def test_what_a_partner_of_grpc_sees(client: aiohttp.ClientSession) -> None:
    seen: list[tuple[dict[str, str], bytes]] = []

    async def serve(headers: dict[str, str], body: bytes, _context: Any) -> bytes:
        seen.append((headers, body))
        return outbound(OK)

    message = ptp_pb2.PushInbound(topic="t", payload=b"hi").SerializeToString()
    wrapped = ptp_pb2.Inbound(payload=message).SerializeToString()
    async with rig.node(A) as a, foreign(a, serve) as route:
        await a.process.set_routes([route])
        a.process.channel.open_session(rig.rule(A, F))
        for dialect, body, version, sent in [
            ("grpc", message, "", wrapped),
            ("grpc", message, "1", message),
            # gRPC has no place for JSON.
            ("json", b'{"payload":"aGk=","topic":"t"}', "1", wrapped),
        ]:
            headers = ns_headers(F, x_ptp_version=version)
            assert (await Container(client, a.platform, dialect).call("push", headers, body)).code == OK
            ours, got = seen[-1]
            assert got == sent
            assert ours.pop("user-agent")
            assert ours.pop("x-interconn-message", "")
            assert ours == {
                "x-ptp-version": "1" if sent is message else "0",
                "x-ptp-tech-provider-code": "test",
                "x-ptp-trace-id": "trace-1",
                "x-ptp-token": rig.PERMIT,
                "x-ptp-uri": f"{route.address}/org.ppc.ptp.PrivateTransferTransport/push",
                "x-ptp-session-id": rig.SID,
                "x-ptp-source-node-id": A,
                "x-ptp-source-inst-id": "inst-LX-A",
                "x-ptp-target-node-id": F,
                "x-ptp-target-inst-id": "JG-F",
            }


@pytest.mark.req("T-042", "T-050")
async def test_what_its_answers_mean(client: aiohttp.ClientSession) -> None:
    said: list[Any] = []

    async def serve(_headers: dict[str, str], _body: bytes, context: Any) -> bytes:
        answer = said[-1]
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "no")
        return bytes(answer)

    old = b"\x12\x0bE0000000000\x1a\x02ok"
    status = grpc.StatusCode
    async with rig.node(A, push_retry_s=0.2) as a, foreign(a, serve) as route:
        await a.process.set_routes([route])
        a.process.channel.open_session(rig.rule(A, F))
        for answer, code in [
            (outbound(OK), OK),
            (old, OK),
            (outbound("E0000000700"), "E0000000700"),
            (outbound("PARTY"), "E0000000616"),
            (b"", "E0000000616"),
            (b"\x0b", "E0000000616"),
            (bytes(2 << 20), "E0000000607"),
            (status.UNIMPLEMENTED, "E0000000617"),
            (status.UNAUTHENTICATED, "E0000000615"),
            (status.PERMISSION_DENIED, "E0000000403"),
            (status.INTERNAL, "E0000000607"),
        ]:
            said.append(answer)
            assert (await Container(client, a.platform).push(F, b"hi")).code == code, answer


@pytest.mark.req("T-013")
async def test_a_partner_of_grpc_that_is_not_there(client: aiohttp.ClientSession) -> None:
    async with pair(push_retry_s=0.2) as (a, b), rig.node("LX-C") as c:
        push = Container(client, a.platform)
        await a.process.set_routes([replace(over_grpc(b), address="grpcs://127.0.0.1:1")])
        answers = await asyncio.gather(*(push.push(B, b"x", topic=f"t{n}") for n in range(4)))
        assert {each.code for each in answers} == {"E0000000619"}
        # Somebody else is there: nothing is said to it.
        await a.process.set_routes([replace(over_grpc(b), address=f"grpcs://127.0.0.1:{c.ports.edge}")])
        assert (await push.push(B, b"x")).code == "E0000000615"
        assert not list(a.folder.glob("grpc-out-*"))


async def test_a_connection_that_ended_is_opened_anew(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        await a.process.set_routes([over_grpc(b)])
        push = Container(client, a.platform, "proto")
        for n in range(3):
            assert (await push.push(B, bytes([n]))).code == OK
            for half in list(b.process._edge_grpc._halves):
                half.close()
        got = [(await Container(client, b.platform, "proto").pop()).payload for _ in range(3)]
        assert got == [b"\x00", b"\x01", b"\x02"]
        # Its last word: a new route, and the old connection goes.
        await a.process.set_routes([b.route()])
        await eventually(lambda: not b.process._edge_grpc._halves)


async def test_a_lost_answer_does_not_double_a_message(client: aiohttp.ClientSession) -> None:
    """Names of messages go as metadata, and come back in the answer's; so what may have arrived is sent again."""
    async with pair() as (a, b):
        await a.process.set_routes([over_grpc(b)])
        channel = b.process.channel
        accept, cut = channel.accept, iter([False, True, False])

        async def accept_and_hang_up(taken: Any) -> None:
            await accept(taken)
            if next(cut):
                for half in list(b.process._edge_grpc._halves):
                    half.close()
                await asyncio.sleep(0.05)

        channel.accept = accept_and_hang_up  # type: ignore[method-assign]
        push, pop = Container(client, a.platform, "proto"), Container(client, b.platform, "proto")
        assert [(await push.push(B, bytes([n]))).code for n in range(2)] == [OK, OK]
        assert [(await pop.pop()).payload for _ in range(2)] == [b"\0", b"\1"]
        assert (await pop.pop(wait_ms=0)).payload is None
        assert next(cut, None) is None


@pytest.mark.req("T-056")
async def test_headers_alone_say_what_an_invoke_is() -> None:
    async with pair() as (a, b):
        raw = b"\x0a\x03key\x12\x05value"
        bare = ptp_pb2.PushInbound(payload=b"no topic").SerializeToString()
        for headers, body, topic, payload in [
            (ew_headers(A, B, x_ptp_version="", x_ptp_uri="", x_ptp_topic="t"), raw, "t", raw),
            (ew_headers(A, B, x_ptp_version="1"), bare, "", b"no topic"),
        ]:
            got = await grpc_call(at(b.edge), PROTOCOL + "invoke", headers, body, ca=b.ca.pem, files=a.files)
            assert got.code == OK
            assert (await Container(None, b.platform).pop(topic=topic)).payload == payload  # type: ignore[arg-type]
        headers = ew_headers(A, B, x_ptp_version="", x_ptp_uri="")
        got = await grpc_call(at(b.edge), PROTOCOL + "invoke", headers, bare, ca=b.ca.pem, files=a.files)
        assert got.code == "E0000000400"
        # Nobody else's name, nor a session of others: as over HTTP.
        for headers, code in [
            (ew_headers("LX-C", B), "E0000000403"),
            (ew_headers(B, B), "E0000000503"),
            (ew_headers(A, "LX-C"), "E0000000404"),
        ]:
            got = await grpc_call(at(b.edge), PROTOCOL + "invoke", headers, inbound(b"x"), ca=b.ca.pem, files=a.files)
            assert got.code == code


async def test_a_client_of_fate(client: aiohttp.ClientSession) -> None:
    """FATE's Python client, as its broker sees it: no token and no version, its own message inside, waits of hours."""
    session, topic = "202611220001_hetero", "202611220001_hetero-guest-9999-host-10000-x-1"
    metadata = {
        "x-ptp-tech-provider-code": "FATE",
        "x-ptp-trace-id": "1795300000_4711",
        "x-ptp-session-id": session,
    }
    # Message {1 msgId, 2 head, 3 body} of its own protocol.
    head = b'{"content_type":"text/plain","app_id":"10000","message_id":"x","correlation_id":"1"}'
    message = b"\x12" + bytes([len(head)]) + head + b"\x1a\x04data"
    async with pair(session=False) as (a, b):
        await a.process.set_routes([over_grpc(b)])
        for one in (a, b):
            one.process.channel.open_session(rig.rule(A, B, session=session, token=None))
        asked = ptp_pb2.PopInbound(topic=topic, timeout=36_000_000).SerializeToString()
        popping = asyncio.create_task(grpc_call(at(b.platform), TRANSFER + "pop", metadata, asked))
        await eventually(lambda: b.process.channel.traffic.waiting == 1)
        body = ptp_pb2.PushInbound(topic=topic, payload=message).SerializeToString()
        sent = {**metadata, "x-ptp-target-node-id": B}
        assert (await grpc_call(at(a.platform), TRANSFER + "push", sent, body)).code == OK
        assert (await popping).payload == message
        assert (await grpc_call(at(a.platform), TRANSFER + "release", sent, b"")).code == OK


@pytest.mark.req("T-031", "T-033", "T-038")
async def test_what_osx_sends(client: aiohttp.ClientSession) -> None:
    """Its broker's invoke: Inbound without metadata, the topic and odd names among the headers, its own URI."""
    async with pair() as (a, b):
        headers = ew_headers(
            A,
            B,
            x_ptp_version="",
            x_ptp_token="",
            x_ptp_tech_provider_code="FATE",
            x_ptp_topic="t",
            x_ptp_message_code="",
            x_ptp_uri="grpcs://fedai.org/org.ppc.ptp.PrivateTransferTransport/push",
        )
        headers["fate-message-flag"] = "SENDMSG"
        got = await grpc_call(at(b.edge), PROTOCOL + "invoke", headers, inbound(b"x"), ca=b.ca.pem, files=a.files)
        assert got.code == OK
        assert (await Container(client, b.platform).pop()).payload == b"x"
        headers["x-ptp-uri"] = "grpcs://fedai.org/org.ppc.ptp.PrivateTransferTransport/pop"
        got = await grpc_call(at(b.edge), PROTOCOL + "invoke", headers, inbound(b"x"), ca=b.ca.pem, files=a.files)
        assert got.code == "E0000000614"
