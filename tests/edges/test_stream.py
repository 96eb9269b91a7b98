"""Messages between two gateways of ours over the stream that they negotiate, and what a partner may try on one."""

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from gateway.data_plane.core import stream as st
from gateway.data_plane.core.budget import MESSAGE_OVERHEAD
from gateway.data_plane.io import stream_client, stream_line, stream_server
from gateway.errors import Unavailable
from gateway.model import Limits, NodeId, SessionId
from specs.proto import ptp_pb2
from tests.edges import rig
from tests.edges.link import Link
from tests.edges.rig import SID, Container, Node, foreign, node, pair
from tests.waiting import eventually

OK = "E0000000000"
A, B, F = NodeId("LX-A"), NodeId("LX-B"), NodeId("LX-F")
BIG = Limits(channel_body_bytes=256 << 20)


def streams(at: Node) -> int:
    return int(at.process.stats()["streams"])


@contextlib.asynccontextmanager
async def linked(link_to: Link | None = None, **settings) -> AsyncIterator[tuple[Node, Node, Link]]:
    """Two partners; what A sends to B goes through a link."""
    async with pair(**settings) as (a, b), Link(b.ports.edge) as link:
        await a.process.set_routes([b.route(address=f"https://127.0.0.1:{link.port}")])
        yield a, b, link


@pytest.mark.req("T-004", "T-014", "T-015")
async def test_messages_of_two_partners_go_over_a_stream(client: aiohttp.ClientSession) -> None:
    async with pair(limits=BIG) as (a, b):
        here, there = Container(client, a.platform, "proto"), Container(client, b.platform, "proto")
        sizes = [1, 1000, 100_000, 300_000, 1 << 20, (1 << 20) + 1, 9 << 20]
        bodies = [hashlib.shake_256(bytes([n])).digest(size) for n, size in enumerate(sizes)]
        for body in bodies:
            assert (await here.push(B, body)).code == OK
        for body in bodies:
            assert (await there.pop(A)).payload == body
        assert streams(b) == 2  # one for small messages, one for large ones
        assert (await there.push(A, b"back", topic="other")).code == OK
        assert (await here.pop(topic="other")).payload == b"back"
        assert a.process.channel.sent_bytes(SID) == {B: sum(sizes)}
        taken = [e for e in b.events("chan.invoke") if e["peer"] == A]
        assert [e["trace_id"] for e in taken] == ["trace-1"] * len(sizes)
        assert b.process.channel.stats()["bytes_held"] == 0


async def test_many_at_once_keep_their_order_within_a_topic(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        here, there = Container(client, a.platform, "proto"), Container(client, b.platform, "proto")
        for topic in "xy":
            pushes = [asyncio.create_task(here.push(B, f"{topic}{n}".encode(), topic=topic)) for n in range(100)]
            assert {got.code for got in await asyncio.gather(*pushes)} == {OK}
        for topic in "xy":
            got = [(await there.pop(topic=topic)).payload for _ in range(100)]
            assert sorted(got) == sorted(f"{topic}{n}".encode() for n in range(100))


async def test_a_partner_without_streams_is_asked_once(client: aiohttp.ClientSession) -> None:
    async with pair(streams=False) as (a, b), node("LX-C") as c:
        await c.process.set_routes([b.route()])
        await b.process.set_routes([a.route(), c.route()])
        for one in (b, c):
            one.process.channel.open_session(rig.rule(b.node_id, c.node_id, session="s-2"))
        for n in range(3):
            got = await Container(client, c.platform).push(B, bytes([n]), session="s-2")
            assert got.code == OK
        refused = [e for e in b.events("chan.refused") if e["operation"] == "transport"]
        assert [e["kind"] for e in refused] == ["NOT_OFFERED"] or len(refused) == 1
        assert streams(b) == 0


@pytest.mark.req("T-004", "T-054")
@pytest.mark.parametrize(("method", "headers"), [("GET", {}), ("POST", {}), ("GET", {"upgrade": "websocket"})])
async def test_transport_without_our_upgrade_has_a_code(client: aiohttp.ClientSession, method, headers) -> None:
    async with pair() as (a, b):
        for base, files in ((b.edge, a.files), (b.platform, None)):
            tls = rig.partner_tls(files) if files else None
            more = {"connection": "upgrade", **headers} if headers else {}
            async with client.request(method, f"{base}{rig.CHAN}transport", headers=more, ssl=tls or True) as answer:
                assert (await answer.json())["code"] == "E0000000614"


# -- a partner's end, made by hand


class Peer:
    """The sending end of a stream, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.got: list[st.Frame] = []
        kinds = (st.HELLO, st.ACK, st.NACK, st.HAVE, st.PING, st.PONG, st.CLOSE)
        self.inbox = st.Inbox(
            st.bounds(st.Hello(), kinds),
            deliver=self.got.append,
            room=lambda frame: memoryview(bytearray(frame.size)),
        )

    def say(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    def flow(self, source: str, target: str, number: int = 0, **more: str) -> None:
        headers = rig.ew_headers(source, target) | {"x-ptp-topic": "t"}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        self.say(st.pack_flow(number, headers))

    def message(self, ref: int, body: bytes, flow: int = 0, name: bytes = b"") -> None:
        self.say(st.pack(st.MESSAGE, size=len(body), text=name, flow=flow, ref=ref), body)

    def begin(self, ref: int, total: int, kind: int = st.BEGIN, transfer: bytes = b"t" * 16) -> None:
        self.say(st.pack(kind, size=16, ref=ref, value=total), transfer)

    def chunk(self, ref: int, offset: int, body: bytes) -> None:
        self.say(st.pack(st.CHUNK, size=len(body), ref=ref, value=offset), body)

    async def next(self, *kinds: int) -> st.Frame | None:
        """The next frame of these kinds (HELLO and HAVE only where asked for); None at the end of the stream."""
        wanted = kinds or (st.ACK, st.NACK, st.CLOSE, st.PONG)
        async with asyncio.timeout(5):
            while True:
                while self.got:
                    frame = self.got.pop(0)
                    if frame.kind in wanted:
                        return frame
                try:
                    data = await self.reader.read(65536)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self.inbox.feed(data)

    async def code(self) -> str | None:
        """OK, the code of a NACK, None at the end."""
        frame = await self.next(st.ACK, st.NACK)
        if frame is None:
            return None
        return OK if frame.kind == st.ACK else str(frame.text, "ascii")


@contextlib.asynccontextmanager
async def peer(at: Node, context: ssl.SSLContext, *, hello: bytes | None = None) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", at.ports.edge, ssl=context)
    head = f"GET {rig.CHAN}transport HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: {st.PROTOCOL}\r\n\r\n"
    writer.write(head.encode())
    try:
        line = await reader.readuntil(b"\r\n\r\n")
        assert line.startswith(b"HTTP/1.1 101"), line
        made = Peer(reader, writer)
        made.say(st.pack_hello(st.Hello()) if hello is None else hello)
        yield made
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("certificate", ["none", "stranger"])
async def test_no_stream_for_strangers(client: aiohttp.ClientSession, certificate: str) -> None:
    async with pair() as (a, b), node("LX-C") as c:
        await b.process.set_routes([a.route(), c.route()])
        context = rig.partner_tls(None if certificate == "none" else c.files)
        await b.process.set_routes([a.route()])
        headers = {"connection": "upgrade", "upgrade": st.PROTOCOL}
        with contextlib.suppress(aiohttp.ClientError):
            async with client.get(f"{b.edge}{rig.CHAN}transport", headers=headers, ssl=context) as answer:
                assert (await answer.json())["code"] == "E0000000615"
        assert streams(b) == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, OK),
        ({"x_ptp_source_node_id": "LX-C"}, "E0000000403"),
        ({"x_ptp_target_node_id": "LX-C"}, "E0000000404"),
        ({"x_ptp_source_node_id": "LX-B"}, "E0000000503"),
        ({"x_ptp_session_id": "s-unknown"}, "E0000000503"),
        ({"x_ptp_session_id": ""}, "E0000000400"),
        ({"x_ptp_uri": "/v1/interconn/chan/pop"}, "E0000000614"),
        ({"x_ptp_uri": "/v1/other"}, "E0000000404"),
        ({"x_ptp_topic": "a\tb"}, "E0000000400"),
        ({"x_ptp_token": "x" * 5000}, "E0000000400"),
    ],
)
async def test_a_message_is_judged_as_an_invoke(change: dict[str, str], code: str) -> None:
    async with pair() as (a, b), peer(b, rig.partner_tls(a.files)) as p:
        p.flow(A, B, **change)
        p.message(1, b"hello")
        p.begin(2, 5)
        p.chunk(2, 0, b"large")
        assert [await p.code(), await p.code()] == [code, code]
        assert b.process.channel.stats()["bytes_held"] == (0 if code != OK else 10 + 2 * MESSAGE_OVERHEAD)


async def test_a_rule_or_a_contract_that_ends_is_noticed_with_the_next_message() -> None:
    async with pair() as (a, b), peer(b, rig.partner_tls(a.files)) as p:
        p.flow(A, B)
        p.message(1, b"1")
        assert await p.code() == OK
        p.begin(2, 10)
        p.chunk(2, 0, b"12345")
        assert (await p.next(st.HAVE)).value == 5
        b.process.channel.close_session(SID)
        p.chunk(2, 5, b"12345")
        p.message(3, b"3")
        assert [await p.code(), await p.code()] == ["E0000000608"] * 2
        b.process.channel.open_session(rig.rule(A, B))
        p.message(4, b"4")
        assert await p.code() == OK
        await b.process.set_routes([])
        p.message(5, b"5")
        assert await p.code() == "E0000000615"
        assert b.process.channel.traffic.pushed_in == 2


async def test_a_contract_that_ends_ends_a_stream_on_which_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_line, "WATCH_S", 0.02)
    async with pair() as (a, b), peer(b, rig.partner_tls(a.files)) as p:
        p.flow(A, B)
        p.message(1, b"1")
        assert await p.code() == OK
        await b.process.set_routes([])
        await eventually(lambda: b.process.stats()["streams"] == 0)


@pytest.mark.parametrize(
    "attack",
    [
        lambda p: p.say(b"\xff" * 64),
        lambda p: p.message(1, b"no flow", flow=9),
        lambda p: p.say(st.pack(st.CHUNK, size=3, ref=77), b"abc"),
        lambda p: p.say(st.pack(st.MESSAGE, size=(1 << 20) + 1)),
        lambda p: p.say(st.pack(st.POP)),
        lambda p: p.say(st.pack(st.ACK, size=4), bytes(4)),
        lambda p: p.say(st.pack_flow(5000, {"x-ptp-topic": "t"})),
        lambda p: p.say(st.pack(st.FLOW, size=4), b"junk"),
        lambda p: p.say(st.pack_hello(st.Hello())),
        lambda p: (p.begin(1, 100), p.chunk(1, 50, b"abc")),
        lambda p: (p.begin(1, 100), p.chunk(1, 0, bytes(101))),
        lambda p: (p.begin(1, 100), p.begin(1, 100, transfer=b"u" * 16)),
        lambda p: p.say(*[st.pack(st.MESSAGE, size=1 << 20, ref=n) + bytes(1 << 20) for n in range(40)]),
    ],
)
async def test_who_breaks_the_rules_of_a_stream_loses_it(attack) -> None:
    async with pair() as (a, b):
        # Nobody may take more than the window ahead, however slow the queue: here it takes nothing.
        blocked = asyncio.Event()

        async def never(_frame: object) -> None:
            await blocked.wait()

        b.process.channel.accept = never  # type: ignore[method-assign]
        async with peer(b, rig.partner_tls(a.files)) as p:
            p.flow(A, B)
            attack(p)
            assert await p.next(st.PONG) is None
        await eventually(lambda: streams(b) == 0)
        blocked.set()
        await eventually(lambda: b.process.channel.stats()["bytes_held"] == 0)


async def test_hello_comes_first_and_of_this_version() -> None:
    async with pair() as (a, b):
        for hello in (st.pack(st.PING), st.pack(st.HELLO, value=2), st.pack(st.HELLO, size=2, value=1) + b"xx"):
            async with peer(b, rig.partner_tls(a.files), hello=hello) as p:
                assert await p.next(st.PONG) is None


async def test_streams_of_a_partner_are_counted() -> None:
    async with pair() as (a, b), contextlib.AsyncExitStack() as stack:
        context = rig.partner_tls(a.files)
        for n in range(stream_server.STREAMS):
            p = await stack.enter_async_context(peer(b, context))
            p.say(st.pack(st.PING, value=n))
            assert (await p.next(st.PONG)).value == n
        with pytest.raises(AssertionError, match="429"):
            await stack.enter_async_context(peer(b, context))


async def test_a_stream_whose_connection_is_gone_before_its_101_is_counted_once() -> None:
    async with pair() as (_, b):
        for _ in range(3):
            b.process._streams.admit(lambda: A).end()
        assert streams(b) == 0
        admitted = [b.process._streams.admit(lambda: A) for _ in range(stream_server.STREAMS)]
        with pytest.raises(Unavailable, match="too many streams"):
            b.process._streams.admit(lambda: A)
        for stream in admitted:
            stream.end()
        assert streams(b) == 0


async def test_a_full_buffer_refuses_and_the_stream_lives_on() -> None:
    limits = Limits(session_bytes=3 << 20, process_bytes=8 << 20)
    async with pair(limits=limits) as (a, b), peer(b, rig.partner_tls(a.files)) as p:
        p.flow(A, B)
        p.begin(1, 20 << 20)
        for n in range(9):
            p.chunk(1, n << 20, bytes(1 << 20))
        assert await p.code() == "E0000000700"
        p.message(2, bytes(1 << 20))
        assert await p.code() == OK
        p.begin(3, Limits().channel_body_bytes + 1)
        assert await p.code() == "E0000000413"
        await eventually(lambda: b.process.channel.stats()["bytes_held"] == (1 << 20) + MESSAGE_OVERHEAD)


async def test_transfers_go_on_in_another_stream_and_only_for_their_sender() -> None:
    async with pair() as (a, b):
        context = rig.partner_tls(a.files)
        async with peer(b, context) as p:
            p.flow(A, B)
            p.begin(1, 10)
            p.chunk(1, 0, b"12345")
            assert (await p.next(st.HAVE)).value == 5
        async with peer(b, context) as p:
            p.flow(A, B)
            p.begin(7, 10, st.RESUME)
            assert (await p.next(st.HAVE)).value == 5
            p.chunk(7, 5, b"67890")
            assert await p.code() == OK
        async with peer(b, context) as p:  # the answer was lost: the message is not taken twice
            p.flow(A, B)
            p.begin(8, 10, st.RESUME)
            assert await p.code() == OK
            p.begin(9, 11, st.RESUME, transfer=b"u" * 16)  # nothing is known of this one
            assert (await p.next(st.HAVE)).value == 0
        assert b.process.channel.traffic.pushed_in == 1
        async with node("LX-C") as c:
            await b.process.set_routes([a.route(), c.route()])
            b.process.channel.open_session(rig.rule(A, B, c.node_id))
            async with peer(b, rig.partner_tls(c.files)) as p:
                p.flow("LX-C", B)
                p.begin(1, 11, st.RESUME, transfer=b"u" * 16)
                assert (await p.next(st.HAVE)).value == 0
                p.chunk(1, 0, b"of C")
            async with peer(b, context) as p:
                p.flow(A, B)
                p.begin(1, 11, st.RESUME, transfer=b"u" * 16)
                assert (await p.next(st.HAVE)).value == 0


async def test_a_message_in_parts_that_stalls_is_given_up_though_its_stream_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_line, "WATCH_S", 0.02)
    monkeypatch.setattr(stream_server, "PART_S", 0.2)
    async with pair() as (a, b), peer(b, rig.partner_tls(a.files)) as p:
        p.flow(A, B)
        p.begin(1, 10)
        p.chunk(1, 0, b"12345")
        assert (await p.next(st.HAVE)).value == 5
        assert await p.code() not in {OK, None}
        assert b.process.channel.stats()["bytes_held"] == 0
        p.chunk(1, 5, b"6789")  # already on its way
        p.begin(2, 10, transfer=b"u" * 16)
        p.chunk(2, 0, b"1234567890")
        assert await p.code() == OK


# -- links that break


async def test_a_large_body_over_a_link_that_breaks_three_times(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    size = 64 << 20
    # Memory is for a few pieces, not for the body: that is on disk at both ends.
    limits = Limits(process_bytes=8 << 20, session_bytes=8 << 20, spool_bytes=2 * size + (1 << 20))
    async with linked(limits=limits, spools=tmp_path) as (a, b, link):
        body = hashlib.shake_256(b"x").digest(size)
        pushing = asyncio.create_task(Container(client, a.platform, "proto").push(B, body))
        link.cut_after = [10 << 20, 30 << 20, 60 << 20]
        assert (await pushing).code == OK
        assert link.cut_after == []
        # What was on its way at a break is sent again: RESEND at most, and TLS adds its heads.
        assert link.up < (size + 3 * stream_client.RESEND) * 1.01
        assert b.process.channel.stats()["bytes_held"] == MESSAGE_OVERHEAD
        assert b.process.channel.stats()["bytes_on_disk"] == size + MESSAGE_OVERHEAD
        got = await Container(client, b.platform, "raw").pop(A)
        assert got.payload == body
        await eventually(lambda: b.process.channel.stats()["bytes_on_disk"] == 0)
        assert list(tmp_path.glob("*/overflow/*")) == []
        assert (await Container(client, b.platform).peek()).payload is None


async def test_breaks_between_and_in_small_messages(client: aiohttp.ClientSession) -> None:
    async with linked() as (a, b, link):
        here, there = Container(client, a.platform, "proto"), Container(client, b.platform, "proto")
        assert (await here.push(B, b"first")).code == OK
        link.cut()
        assert (await here.push(B, b"second")).code == OK
        # Arrived, and the answer did not: the repeat is noticed by its name.
        link.swallow_answers = True
        pushing = asyncio.create_task(here.push(B, b"third"))
        await eventually(lambda: b.process.channel.traffic.pushed_in == 3)
        link.swallow_answers = False
        link.cut()
        assert (await pushing).code == OK
        assert [(await there.pop()).payload for _ in range(3)] == [b"first", b"second", b"third"]
        assert b.process.channel.stats()["bytes_held"] == 0
        # Nobody there any more.
        link.refuse = True
        link.cut()
        a.process.channel._policy = replace(a.process.channel._policy, push_retry_s=0.3)
        assert (await here.push(B, b"fourth")).code == "E0000000619"


async def test_a_node_that_stops_ends_its_streams_first(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        here = Container(client, a.platform)
        assert (await here.push(B, b"1")).code == OK
        ours = a.process._partners.find(B)
        assert isinstance(ours, stream_client.StreamPartner)
        await b.process._streams.stop(1.0)
        await eventually(lambda: all(stream.closing for stream in ours._open.values()))
        await eventually(lambda: streams(b) == 0)


async def test_a_stranger_gets_invoke_and_is_asked_for_a_stream_once(client: aiohttp.ClientSession) -> None:
    body = ptp_pb2.Outbound(code=OK, message="ok").SerializeToString()

    def proto(*_: object) -> aiohttp.web.StreamResponse:
        return aiohttp.web.Response(body=body, headers={"content-type": "application/x-protobuf"})

    async with node(A) as a, foreign(a, F, proto) as (route, seen), Link(int(route.address.split(":")[2][:-8])) as link:
        await a.process.set_routes([replace(route, address=f"https://127.0.0.1:{link.port}")])
        a.process.channel.open_session(rig.rule(A, F))
        for _ in range(3):
            assert (await Container(client, a.platform).push(F, b"hi")).code == OK
        assert [one.method for one in seen] == ["POST"] * 3
        assert link.connections == 2  # one was asked for a stream


@pytest.mark.parametrize("session", ["s-a", "s-b"])
async def test_a_session_that_opens_later_gets_what_was_sent_before(
    client: aiohttp.ClientSession, session: str
) -> None:
    async with pair(session=False) as (a, b):
        a.process.channel.open_session(rig.rule(A, B, session=session))
        here = Container(client, a.platform)
        pushing = [asyncio.create_task(here.push(B, bytes([n]), session=session)) for n in range(5)]
        await eventually(lambda: len(b.events("chan.refused")) > 0)
        b.process.channel.open_session(rig.rule(A, B, session=SessionId(session)))
        assert {got.code for got in await asyncio.gather(*pushing)} == {OK}


def test_the_same_on_the_other_loop(tmp_path: Path) -> None:
    async def messages() -> None:
        async with aiohttp.ClientSession() as client:
            await test_messages_of_two_partners_go_over_a_stream(client)
            await test_a_large_body_over_a_link_that_breaks_three_times(client, tmp_path)
            await test_breaks_between_and_in_small_messages(client)

    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(messages())
