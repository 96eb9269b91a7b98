"""Containers on both sides, two gateways and TLS between them."""

import asyncio
import os
import time
from dataclasses import replace

import aiohttp
import pytest

from gateway.data_plane.channel import Channel
from gateway.data_plane.core import frame as fr
from gateway.errors import Kind, Unavailable
from gateway.model import Limits, NodeId
from specs.proto import ptp_pb2
from tests.edges import rig
from tests.edges.rig import SID, Container, ew_headers, inbound, invoke, pair
from tests.waiting import eventually

OK = "E0000000000"
A, B = NodeId("LX-A"), NodeId("LX-B")
CONTENT = {"json": "application/json", "proto": "application/x-protobuf", "raw": "application/proto"}


@pytest.mark.req("T-003", "T-005", "T-006", "T-007", "T-034", "T-035", "T-036", "T-040", "T-050")
@pytest.mark.parametrize("reader", ["json", "proto", "raw"])
@pytest.mark.parametrize("writer", ["json", "proto", "raw"])
async def test_bytes_arrive_as_sent(client: aiohttp.ClientSession, writer: str, reader: str) -> None:
    """Every pair of dialects, both modes, the sizes of T-005; an empty payload is accepted."""
    async with pair() as (a, b):
        push, pop = Container(client, a.platform, writer), Container(client, b.platform, reader)
        for version in ("", "1"):
            for size in (0, 1, 255, 65536):
                payload = os.urandom(size)
                sent = await push.push(B, payload, x_ptp_version=version)
                assert (sent.status, sent.content_type, sent.code) == (200, CONTENT[writer], OK)
                got = await pop.pop(B)
                assert (got.status, got.content_type, got.code) == (200, CONTENT[reader], OK)
                assert (got.payload or b"") == payload


@pytest.mark.req("T-005")
async def test_a_large_body_passes(client: aiohttp.ClientSession) -> None:
    payload = os.urandom(5 << 20)
    async with pair() as (a, b):
        for dialect in ("proto", "json"):
            assert (await Container(client, a.platform, dialect).push(B, payload)).code == OK
            assert (await Container(client, b.platform, dialect).pop()).payload == payload
        assert a.process.channel.sent_bytes(SID) == {B: 2 * len(payload)}
        assert a.process.stats()["bytes_held"] == b.process.stats()["bytes_held"] == 0


async def test_a_chunked_body_is_taken(client: aiohttp.ClientSession) -> None:
    async def pieces():
        yield b'{"topic":"t",'
        yield b'"payload":"aGk="}'

    async with pair() as (a, b):
        headers = {"content-type": "application/json", **rig.ns_headers(B)}
        async with client.post(f"{a.platform}{rig.CHAN}push", data=pieces(), headers=headers) as response:
            assert (await response.json())["code"] == OK
        assert (await Container(client, b.platform).pop()).payload == b"hi"


@pytest.mark.req("T-014", "T-015", "T-016")
async def test_order_and_isolation(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        for one in (a, b):
            one.process.channel.open_session(rig.rule(A, B, session="other"))
        push, pop = Container(client, a.platform), Container(client, b.platform)
        for n in range(20):
            await push.push(B, bytes([n]))
            await push.push(B, bytes([100 + n]), topic="u")
            await push.push(B, bytes([200 + n]), session="other")
        await push.push(B, b"no topic", topic="")
        assert [(await pop.pop()).payload for _ in range(20)] == [bytes([n]) for n in range(20)]
        assert [(await pop.pop(topic="u")).payload for _ in range(20)] == [bytes([100 + n]) for n in range(20)]
        assert [(await pop.pop(session="other")).payload for _ in range(20)] == [bytes([200 + n]) for n in range(20)]
        absent = await Container(client, b.platform, "json").call("pop", rig.ns_headers(B), b'{"timeout":1000}')
        assert absent.payload == b"no topic"


@pytest.mark.req("T-017")
async def test_pop_may_come_first(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        waiting = asyncio.create_task(Container(client, b.platform).pop())
        await eventually(lambda: b.process.channel.traffic.waiting == 1)
        assert (await Container(client, a.platform).push(B, b"late")).code == OK
        assert (await waiting).payload == b"late"


@pytest.mark.req("T-018", "T-041")
async def test_an_empty_queue_answers_at_the_timeout(client: aiohttp.ClientSession) -> None:
    async with pair() as (_, b):
        start = time.monotonic()
        got = await Container(client, b.platform).pop(wait_ms=300)
        waited = time.monotonic() - start
        assert (got.code, got.payload) == (OK, None)
        assert 0.27 <= waited <= 2.3
        start = time.monotonic()
        got = await Container(client, b.platform, "raw").pop(wait_ms=1000)
        waited = time.monotonic() - start
        assert (got.code, got.payload, got.content_type) == (OK, None, "application/proto")
        assert 0.9 <= waited <= 2


@pytest.mark.req("T-021", "T-022")
@pytest.mark.parametrize(("settings", "left"), [({}, b"2"), ({"peek_keeps": True}, b"1")])
async def test_peek(client: aiohttp.ClientSession, settings: dict[str, bool], left: bytes) -> None:
    async with pair(**settings) as (a, b):
        start = time.monotonic()
        got = await Container(client, b.platform).peek()
        assert (got.code, got.payload) == (OK, None)
        assert time.monotonic() - start < 1
        for payload in (b"1", b"2"):
            await Container(client, a.platform).push(B, payload)
        assert (await Container(client, b.platform).peek()).payload == b"1"
        assert (await Container(client, b.platform).pop()).payload == left


@pytest.mark.req("T-023")
async def test_two_readers_never_get_one_message(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        reader = Container(client, b.platform)
        readers = [asyncio.create_task(reader.pop(wait_ms=5000)) for _ in range(8)]
        await eventually(lambda: b.process.channel.traffic.waiting == 8)
        for n in range(8):
            await Container(client, a.platform).push(B, bytes([n]))
        got = [(await task).payload for task in readers]
        assert sorted(got, key=str) == sorted((bytes([n]) for n in range(8)), key=str)
        assert (await reader.pop(wait_ms=0)).payload is None


async def test_a_reader_that_left_takes_no_message(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        gone = asyncio.create_task(Container(client, b.platform).pop())
        await eventually(lambda: b.process.channel.traffic.waiting == 1)
        gone.cancel()
        await eventually(lambda: b.process.channel.traffic.waiting == 0)
        await Container(client, a.platform).push(B, b"kept")
        assert (await Container(client, b.platform).pop()).payload == b"kept"


async def test_a_wake_up_is_not_lost_with_its_reader() -> None:
    async with rig.node(A) as a:
        channel, envelope = a.process.channel, fr.read_envelope(rig.ns_headers(A), Limits())
        channel.open_session(rig.rule(A))
        read = fr.Frame(fr.Operation.POP, fr.Codec.PROTO, envelope, "t", wait_ms=60_000)
        readers = [asyncio.create_task(channel.pop(read)) for _ in range(2)]
        await eventually(lambda: channel.traffic.waiting == 2)
        # The first is woken by the message and gone before it could take it.
        await channel.push(fr.Frame(fr.Operation.PUSH, fr.Codec.PROTO, envelope, "t", b"x"), b"")
        readers[0].cancel()
        async with asyncio.timeout(3):
            popped = await readers[1]
            assert popped is not None
            assert popped.payload == b"x"
        assert readers[0].cancelled()


@pytest.mark.req("T-024", "T-025", "T-026")
async def test_release(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        push, reader = Container(client, a.platform), Container(client, b.platform)
        for topic in ("t", "u", "v"):
            await push.push(B, b"x", topic=topic)
        assert (await reader.release("u")).code == OK
        assert (await reader.pop(topic="u", wait_ms=0)).payload is None
        assert (await reader.pop(topic="v", wait_ms=0)).payload == b"x"
        assert (await reader.release()).code == OK
        assert (await reader.release()).code == OK
        assert (await reader.pop(wait_ms=0)).payload is None
        await push.push(B, b"new")
        assert (await reader.pop()).payload == b"new"
        b.process.channel.open_session(rig.rule(A, B, session="never-used"))
        assert (await reader.release(session="never-used")).code == OK


@pytest.mark.req("T-046")
@pytest.mark.parametrize("target", ["", B, A])
async def test_whose_id_a_pop_may_name(client: aiohttp.ClientSession, target: str) -> None:
    async with pair() as (a, b):
        await Container(client, a.platform).push(B, b"x")
        assert (await Container(client, b.platform).pop(target)).payload == b"x"


@pytest.mark.req("T-046")
async def test_a_pop_that_names_a_source_gets_no_others(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        await Container(client, b.platform).push(B, b"own")
        await Container(client, a.platform).push(B, b"partner's")
        reader = Container(client, b.platform)
        assert (await reader.pop(A)).payload == b"partner's"
        assert (await reader.pop(A, wait_ms=0)).payload is None
        assert (await reader.pop(B)).payload == b"own"


@pytest.mark.req("T-027")
async def test_bodies_over_the_limit(client: aiohttp.ClientSession) -> None:
    limits = replace(Limits(), channel_body_bytes=1000, channel_json_bytes=600)
    async with pair(limits=limits) as (a, b):
        got = await Container(client, a.platform, "json").push(B, bytes(600))
        assert (got.status, got.code) == (413, "E0000000413")
        got = await Container(client, a.platform, "proto").push(B, bytes(1001))
        assert (got.status, got.code) == (413, "E0000000413")

        async def endless():
            for _ in range(3):
                yield bytes(500)

        headers = {"content-type": "application/x-protobuf", **rig.ns_headers(B)}
        async with client.post(f"{a.platform}{rig.CHAN}push", data=endless(), headers=headers) as response:
            assert ptp_pb2.TransportOutbound.FromString(await response.read()).code == "E0000000413"
        got = await invoke(client, b, a.files, ew_headers(A, B), bytes(1001))
        assert (got.status, got.code) == (413, "E0000000413")
        assert b.process.stats()["bytes_held"] == 0


@pytest.mark.req("T-028")
async def test_a_full_queue(client: aiohttp.ClientSession) -> None:
    limits = replace(Limits(), session_bytes=5000)
    async with pair(limits=limits, push_retry_s=0.2, room_s=0.1) as (a, b):
        push = Container(client, a.platform)
        assert (await push.push(B, bytes(3000))).code == OK
        assert (await push.push(B, bytes(3000))).code == "E0000000700"
        assert (await Container(client, b.platform).pop()).payload == bytes(3000)
        assert (await push.push(B, bytes(3000))).code == OK
        assert a.process.channel.sent_bytes(SID) == {B: 6000}


@pytest.mark.req("T-008", "T-009", "T-010", "T-011", "T-055")
async def test_missing_headers(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        push = Container(client, a.platform)
        for missing in ("x-ptp-session-id", "x-ptp-target-node-id"):
            headers = {k: v for k, v in rig.ns_headers(B).items() if k != missing}
            got = await push.call("push", headers, b'{"payload":""}')
            assert (got.code, missing in got.message) == ("E0000000400", True)
        got = await rig.post(
            client, f"{a.platform}{rig.CHAN}push", {"content-type": "text/x", **rig.ns_headers(B)}, b"?", "raw"
        )
        assert got.code == "E0000000400"
        headers = {
            k: v
            for k, v in rig.ns_headers(B).items()
            if k in {"x-ptp-session-id", "x-ptp-target-node-id", "x-ptp-token"}
        }
        assert (await push.call("push", headers, b'{"payload":"aGk="}')).code == OK
        assert (await Container(client, b.platform).pop(topic="")).payload == b"hi"
        for one in (a, b):
            one.process.channel.open_session(rig.rule(A, B, session="declared", token=None))
        bare = {"x-ptp-session-id": "declared", "x-ptp-target-node-id": B}
        assert (await push.call("push", bare, b'{"payload":"aGk="}')).code == OK
        assert (await Container(client, b.platform).call("pop", bare, b'{"timeout":1000}')).payload == b"hi"
        # Without a trace id one is made, and the log ties both sides together.
        made = a.events("chan.untraced")[-1]["trace_id"]
        assert b.events("chan.invoke")[-1]["trace_id"] == made


@pytest.mark.req("T-055")
async def test_the_strict_profile_wants_all_headers(client: aiohttp.ClientSession) -> None:
    async with pair(strict=True) as (a, _):
        for missing in ("x-ptp-tech-provider-code", "x-ptp-trace-id", "x-ptp-token"):
            headers = {k: v for k, v in rig.ns_headers(B).items() if k != missing}
            got = await Container(client, a.platform).call("push", headers, b'{"payload":""}')
            assert got.code == "E0000000400"


@pytest.mark.req("T-029", "T-047", "T-048")
async def test_tokens_on_the_way_out(client: aiohttp.ClientSession) -> None:
    """A task's secret never leaves: the partner sees the permit; a session without tasks forwards its token as is."""
    shown: list[tuple[str, str]] = []
    async with pair() as (a, b):
        admit = Channel.admit_partner

        def watch(self: Channel, envelope, proven) -> None:
            shown.append((envelope.token, envelope.trace_id))
            admit(self, envelope, proven)

        b.process.channel.admit_partner = watch.__get__(b.process.channel)  # type: ignore[method-assign]
        for one in (a, b):
            one.process.channel.open_session(rig.rule(A, B, session="declared", token=None))
        push = Container(client, a.platform)
        assert (await push.push(B, b"x")).code == OK
        assert (await push.push(B, b"x", session="declared", token="own")).code == OK
        assert shown == [(rig.PERMIT, "trace-1"), ("own", "trace-1")]
        assert {e["trace_id"] for e in (*a.events("chan.push"), *b.events("chan.invoke"))} == {"trace-1"}
        assert rig.TOKEN not in str(a.journal.events)


@pytest.mark.req("T-013")
async def test_an_unreachable_partner(client: aiohttp.ClientSession) -> None:
    async with pair(push_retry_s=0.2) as (a, b):
        await a.process.set_routes([b.route(address="https://127.0.0.1:1")])
        assert (await Container(client, a.platform).push(B, b"x")).code == "E0000000619"
        assert a.process.channel.sent_bytes(SID) == {}


async def test_a_push_waits_for_the_partners_task(client: aiohttp.ClientSession) -> None:
    """The partner's session opens later: the message is refused there, repeated, and arrives once."""
    async with pair(session=False) as (a, b):
        a.process.channel.open_session(rig.rule(A, B))
        pushing = asyncio.create_task(Container(client, a.platform).push(B, b"early"))
        await eventually(lambda: len(b.events("chan.refused")) >= 2)
        assert b.process.stats()["bytes_held"] == 0
        b.process.channel.open_session(rig.rule(A, B))
        assert (await pushing).code == OK
        reader = Container(client, b.platform)
        assert (await reader.pop()).payload == b"early"
        assert (await reader.pop(wait_ms=0)).payload is None


async def test_a_lost_answer_doubles_nothing(client: aiohttp.ClientSession) -> None:
    """Once the partner is known to drop repeats, a push whose answer was lost is repeated under the same name."""
    async with pair() as (a, b):
        push, reader = Container(client, a.platform), Container(client, b.platform)
        partner = a.process._partners.find(B)
        assert partner is not None
        deliver, names = partner.deliver, list[str]()

        async def lossy(outgoing: fr.Outgoing) -> fr.Answer:
            names.append(outgoing.message)
            answer = await deliver(outgoing)
            if len(names) % 2:
                raise Unavailable("cut", kind=Kind.PEER_UNREACHABLE)
            return answer

        assert (await push.push(B, b"0")).code == OK
        partner.deliver = lossy  # type: ignore[method-assign]
        for n in range(1, 6):
            assert (await push.push(B, b"%d" % n)).code == OK
        assert [(await reader.pop()).payload for _ in range(6)] == [b"%d" % n for n in range(6)]
        assert (await reader.pop(wait_ms=0)).payload is None
        assert len(names) == 2 * len(set(names)) == 10
        assert b.process.stats()["repeats_dropped"] == len(b.events("chan.repeat")) == 5
        assert a.process.channel.sent_bytes(SID) == {B: 6}


@pytest.mark.parametrize("target", [A, B])
async def test_a_container_may_name_its_messages_itself(client: aiohttp.ClientSession, target: NodeId) -> None:
    """A push that a container repeats under one name arrives once, also where its own gateway is the receiver."""
    async with pair() as (a, b):
        push, reader = Container(client, a.platform), Container(client, (a if target == A else b).platform)
        for name in ("0123456789-0-0", "0123456789-0-0", "0123456789-1-0", "9876543210-0-0"):
            assert (await push.push(target, name.encode(), x_interconn_message=name)).code == OK
        got = [(await reader.pop(wait_ms=0)).payload for _ in range(4)]
        assert got == [b"0123456789-0-0", b"0123456789-1-0", b"9876543210-0-0", None]
        assert (await push.push(target, b"x", x_interconn_message="0-1-2")).code == "E0000000400"


async def test_a_partner_that_leaves_a_number_out(client: aiohttp.ClientSession) -> None:
    """Nothing is put in front of what is missing: the call is refused as not taken, until the sender gives it up."""
    async with pair(gap_s=0.05) as (a, b):
        for name, code in [("a-0-0", OK), ("a-2-0", "E0000000503"), ("a-2-2", OK), ("a-1-1", OK)]:
            headers = ew_headers(A, B, x_interconn_message="0123456789" + name)
            got = await invoke(client, b, a.files, headers, inbound(name.encode()))
            assert got.code == code
        reader = Container(client, b.platform)
        assert [(await reader.pop(wait_ms=0)).payload for _ in range(3)] == [b"a-0-0", b"a-2-2", None]
        assert [event["skipped"] for event in b.events("chan.gap")] == [1]


async def test_a_closed_session(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        push, reader = Container(client, a.platform), Container(client, b.platform)
        await push.push(B, b"unread")
        waiting = asyncio.create_task(reader.pop(topic="other"))
        await eventually(lambda: b.process.channel.traffic.waiting == 1)
        b.process.channel.close_session(SID)
        assert (await waiting).code == "E0000000608"
        assert b.process.stats()["bytes_held"] == 0
        assert (await push.push(B, b"too late")).code == "E0000000608"
        assert (await reader.pop()).code == "E0000000608"
        assert a.process.channel.sent_bytes(SID) == {B: 6}


@pytest.mark.req("T-049")
async def test_idle_sessions_without_tasks_expire(client: aiohttp.ClientSession) -> None:
    limits = replace(Limits(), session_idle_s=0.0)
    async with pair(limits=limits) as (a, b):
        for one in (a, b):
            one.process.channel.open_session(rig.rule(A, B, session="declared", token=None))
        await Container(client, a.platform).push(B, b"job's")
        await Container(client, a.platform).push(B, b"x", session="declared")
        b.process.channel.expire()
        reader = Container(client, b.platform)
        assert (await reader.pop(session="declared", wait_ms=0)).payload is None
        assert (await reader.pop()).payload == b"job's"
        assert b.process.stats()["bytes_held"] == 0


@pytest.mark.req("T-003", "T-004", "T-054")
async def test_what_each_listener_offers(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        tls = rig.partner_tls(a.files)
        for name in ("pop", "peek", "release", "push", "transport"):
            got = await rig.post(client, f"{b.edge}{rig.CHAN}{name}", rig.ns_headers(B), b"{}", "json", ssl=tls)
            assert got.code == "E0000000614"
        for name in ("invoke", "transport"):
            got = await Container(client, b.platform).call(name, rig.ns_headers(B), b"{}")
            assert got.code == "E0000000614"
        assert (await Container(client, b.platform).call("nothing", rig.ns_headers(B), b"{}")).code == "E0000000404"
        for url in (f"{b.platform}{rig.CHAN}pop", f"{b.edge}{rig.CHAN}invoke"):
            async with client.get(url, ssl=tls) as response:
                assert response.status == 405


@pytest.mark.parametrize("coding", ["gzip", "zstd", "deflate", "br"])
async def test_a_compressed_body_is_refused(client: aiohttp.ClientSession, coding: str) -> None:
    async with pair() as (a, _):
        got = await Container(client, a.platform).push(B, b"x", content_encoding=coding)
        assert got.code == "E0000000400"


async def test_a_doubled_header_is_refused(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, _):
        headers = [*rig.ns_headers(B).items(), ("x-ptp-target-node-id", A), ("content-type", "application/json")]
        for sent, code in [(headers[:-2] + headers[-1:], OK), (headers, "E0000000400")]:
            async with client.post(f"{a.platform}{rig.CHAN}push", data=b'{"payload":""}', headers=sent) as response:
                assert (await response.json())["code"] == code


@pytest.mark.req("T-036", "T-056")
async def test_partners_of_other_makes(client: aiohttp.ClientSession) -> None:
    """What mesh, OSx and kuscia send to chan/invoke, each answered in its own form."""
    async with pair() as (a, b):
        raw = b"\x0a\x03key\x12\x05value"
        cases = [
            (ew_headers(A, B), inbound(b"1"), "proto", b"1"),
            (ew_headers(A, B, x_ptp_version=""), inbound(b"2"), "proto", b"2"),
            (
                ew_headers(A, B, x_ptp_version="1"),
                ptp_pb2.PushInbound(topic="t", payload=b"3").SerializeToString(),
                "proto",
                b"3",
            ),
            (ew_headers(A, B, x_ptp_version="1"), b'{"topic":"t","payload":"NA=="}', "json", b"4"),
            (ew_headers(A, B, x_ptp_version="", x_ptp_uri="", x_ptp_topic="t"), raw, "raw", raw),
        ]
        for headers, body, dialect, payload in cases:
            got = await invoke(client, b, a.files, headers, body, dialect)
            assert (got.code, got.content_type) == (OK, CONTENT[dialect])
            assert (await Container(client, b.platform).pop()).payload == payload
        for uri, code in [("/v1/interconn/chan/pop", "E0000000614"), ("/v1/interconn/net/weave", "E0000000404")]:
            got = await invoke(client, b, a.files, ew_headers(A, B, x_ptp_uri=uri), inbound(b"x"))
            assert (got.code, got.content_type) == (code, CONTENT["proto"])
        got = await invoke(client, b, a.files, ew_headers(A, B), b"not protobuf")
        assert got.code == "E0000000616"


async def test_a_split_sequence_is_ordinary_topics(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        for n, piece in enumerate([b"2", b"first", b"second"]):
            await Container(client, a.platform).push(B, piece, topic=f"x-mesh-split-{n}")
        reader = Container(client, b.platform)
        got = [(await reader.pop(topic=f"x-mesh-split-{n}")).payload for n in range(3)]
        assert got == [b"2", b"first", b"second"]
