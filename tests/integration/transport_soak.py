"""What networks, disks and attackers do to the data plane, against data processes of their own.

`python -m tests.integration.transport_soak [--only NAME] [--quick] [--seed N]` is the long form, part of `make soak`;
tests/integration/test_transport_soak.py runs the short form of what has none elsewhere. Each trial asserts and returns
a line of figures. What is covered where:

| fault | short form, `make test` | long form |
|---|---|---|
| slowloris | edges/test_front, test_forward (slow senders, slow readers) | slowloris |
| bodies that end early, wrong lengths | edges/test_bodies, test_front, test_http_client; data/test_http1 | bodies |
| gzip and zstd bombs | edges/test_channel, test_forward (refused), test_recorded (gRPC); bombs | bombs |
| protobuf of wrong types and depth | data/test_wire, test_frame; edges/test_grpc | garbage |
| HTTP/2 rapid reset | edges/test_http2, test_grpc | resets |
| 100,000 sessions | sessions | sessions |
| 1,000,000 tiny messages in one topic | tiny | tiny |
| slow reader, fast writer | slow | slow |
| a full disk under the spool | data/test_spool, edges/test_kept | disk |
| kill -9, queues in memory: what it costs, and no more | killed | killed |
| kill -9, queues on disk | test_kept | tests.integration.kept |
| a link with delay, little room, cuts, half-closes and repeats | edges/test_stream, data/test_delivery; links | links |
| a request that arrives twice, late, or whose answer is lost | edges/test_channel; requests | requests |
| a large body over a link that breaks | edges/test_stream (64 MiB) | resume (1 GiB) |
| memory within its budget | bulk | bulk (10 GB) |
"""

import argparse
import asyncio
import contextlib
import gzip
import itertools
import os
import random
import socket
import ssl
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc

from gateway.data_plane.core import stream as st
from gateway.data_plane.core.stream_send import RESEND
from gateway.data_plane.io.process import open_files
from gateway.model import Limits, NodeId, SessionId
from gateway.sdk.channel import BUFFER_FULL
from gateway.sdk.environment import Address
from gateway.sdk.result import ComponentError
from specs.proto import ptp_pb2
from tests.edges import rig
from tests.edges.link import Link
from tests.integration.faulty import Faults, FaultyTap
from tests.integration.processes import Gateway, gateway

OK: Final = "E0000000000"
A, B = NodeId("LX-A"), NodeId("LX-B")
TO_B, FROM_A = Address(B, "i"), Address(A, "i")
MiB: Final = 1 << 20
GROWTH: Final = 64 * MiB
"""By so much a process may grow, whatever an attacker sends."""
TIGHT: Final = Limits(session_bytes=128 * MiB, process_bytes=256 * MiB)
BLOCK: Final = random.Random(5).randbytes(4 * MiB)


# -- two gateways, and what passes between them


Two = Callable[..., contextlib.AbstractAsyncContextManager[tuple[Gateway, Gateway]]]
"""As `fresh`; may give two that stand already."""


@contextlib.asynccontextmanager
async def fresh(*, link: Link | None = None, **settings: Any) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Partners with the session of the rig, warm: something has passed. A reaches B through the link."""
    async with gateway(A, **settings) as a, gateway(B, **settings) as b:
        rule = rig.rule(A, B)
        async with contextlib.AsyncExitStack() as stack:
            if link is not None:
                link.upstream = b.edge
                await stack.enter_async_context(link)
            await a.told([b.route(link.port if link else 0)], [rule])
            await b.told([a.route()], [rule])
            await carry(a, b, topic="warm", messages=50, size=20_000)
            yield a, b


def body(n: int, size: int) -> bytes:
    """The n-th message of a topic, at least 8 bytes."""
    whole, rest = divmod(max(0, size - 8), len(BLOCK))
    return n.to_bytes(8, "big") + BLOCK * whole + BLOCK[:rest]


async def carry(
    a: Gateway, b: Gateway, *, topic: str, messages: int, size: int, window: int = 1, session: SessionId = rig.SID
) -> None:
    """So many messages from a task at A to one at B: each arrives once, whole and in its turn."""
    async with a.task(session) as here, b.task(session) as there:
        places, loop = asyncio.Semaphore(window), asyncio.get_running_loop()

        async def push(n: int) -> None:
            try:
                await here.push(topic, body(n, size), to=TO_B, deadline=loop.time() + 600)
            finally:
                places.release()

        async def write() -> None:
            async with asyncio.TaskGroup() as pushes:
                for n in range(messages):
                    await places.acquire()
                    pushes.create_task(push(n))

        async def read() -> None:
            for n in range(messages):
                got = await there.pop(topic, source=FROM_A, wait_ms=300_000, deadline=loop.time() + 600)
                assert got is not None, f"{topic}: {n} did not come"
                assert got == body(n, size), f"{topic}: {bytes(got[:8]).hex()} in the place of {n}"

        async with asyncio.TaskGroup() as both:
            both.create_task(write())
            both.create_task(read())


@dataclass(slots=True)
class Peak:
    """Of RssAnon. bytes: the most above where it began."""

    before: int
    bytes: int = 0

    @property
    def mib(self) -> str:
        return f"{self.bytes / MiB:.0f} MiB"


@contextlib.asynccontextmanager
async def growth(of: Gateway, *, most: int = GROWTH) -> AsyncIterator[Peak]:
    """The process stays the one it is, and grows by no more than `most` bytes."""
    peak, process = Peak(of.resident()), of.process

    async def sample() -> None:
        while True:
            peak.bytes = max(peak.bytes, of.resident() - peak.before)
            await asyncio.sleep(0.02)

    sampling = asyncio.create_task(sample())
    try:
        yield peak
    finally:
        sampling.cancel()
    assert of.process is process
    assert process is not None
    assert process.returncode is None, "the process has ended"
    peak.bytes = max(peak.bytes, of.resident() - peak.before)
    assert peak.bytes <= most, f"grew by {peak.mib}"


async def clean(*gateways: Gateway) -> None:
    """Nothing is held any more."""
    async with asyncio.timeout(40):
        for one in gateways:
            while (await one.stats())["bytes_held"]:  # noqa: ASYNC110  # another process's state
                await asyncio.sleep(0.05)


async def served(b: Gateway) -> float:
    """Seconds of a push and a pop of a newcomer at the platform listener of B."""
    began = time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as client:
        here = rig.Container(client, f"http://127.0.0.1:{b.platform}", "proto")
        got = await here.push(B, b"hello", topic="served")
        assert got.code == OK, got
        assert (await here.pop(B, topic="served")).payload == b"hello"
    return time.monotonic() - began


# -- attackers


def post(name: str, headers: Mapping[str, str], more: str, content: bytes) -> bytes:
    """A request to chan/`name` as it stands on the wire."""
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    return f"POST {rig.CHAN}{name} HTTP/1.1\r\nHost: x\r\n{lines}{more}\r\n\r\n".encode() + content


PROTO: Final = {"content-type": "application/x-protobuf"}
PUSH: Final = ptp_pb2.PushInbound(topic="bad", payload=b"x" * 200).SerializeToString()


def push_to_b(more: str, content: bytes, **headers: str) -> bytes:
    return post("push", {**PROTO, **rig.ns_headers(B), **headers}, more, content)


def invoke_b(more: str, content: bytes, **headers: str) -> bytes:
    return post("invoke", {**PROTO, **rig.ew_headers(A, B), **headers}, more, content)


async def says(port: int, data: bytes, *, tls: ssl.SSLContext | None = None, patience: float = 0.3) -> bytes:
    """What a listener answers to these bytes until it hangs up, or has said something and falls silent."""
    answer = b""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        try:
            writer.write(data)
            with contextlib.suppress(TimeoutError):
                while piece := await asyncio.wait_for(reader.read(65536), patience):
                    answer += piece
        finally:
            writer.transport.abort()
    return answer


async def each(tasks: Iterable[Awaitable[Any]], at_a_time: int) -> None:
    """All of them, so many at a time."""
    places = asyncio.Semaphore(at_a_time)

    async def one(task: Awaitable[Any]) -> None:
        try:
            await task
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        for task in tasks:
            await places.acquire()
            group.create_task(one(task))


async def slowloris(two: Two, _chance: random.Random, *, sockets: int, seconds: float) -> str:
    """As many half heads in clear, half heads under TLS and half handshakes, a byte at a time; everybody is served."""
    # A connection under TLS costs some 40 KiB, whoever holds it.
    async with two() as (a, b), growth(b, most=2 * GROWTH) as peak:
        tls = rig.partner_tls(a.files)
        half = b"POST /v1/interconn/chan/push HTTP/1.1\r\nHost: x\r\nx-ptp-"
        open_ones: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]] = []

        async def begin(port: int, said: bytes, context: ssl.SSLContext | None, drip: bytes) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(said)
            open_ones.append((reader, writer, drip))

        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        kinds = [(b.platform, half, None, b"a"), (b.edge, half, tls, b"a"), (b.edge, hello, None, b"\x00")]
        worst = 0.0
        try:
            for port, said, context, drip in kinds:
                await each((begin(port, said, context, drip) for _ in range(sockets)), 50)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for _, writer, drip in open_ones:
                    if not writer.is_closing():
                        writer.write(drip)
                worst = max(worst, await served(b))
                answer = await says(b.edge, invoke_b(f"content-length: {len(PUSH)}", PUSH), tls=tls, patience=5)
                assert b"HTTP/1.1 200" in answer, answer
                await carry(a, b, topic="meanwhile", messages=5, size=1000)
                await asyncio.sleep(0.5)
            gone = sum(reader.at_eof() or writer.is_closing() for reader, writer, _ in open_ones)
        finally:
            for _, writer, _ in open_ones:
                writer.transport.abort()
        if seconds > 15:
            assert gone == len(open_ones), f"{len(open_ones) - gone} are still there"
        return f"3 x {sockets} sockets, slowest call {worst * 1000:.0f} ms, grew by {peak.mib}"


async def bodies(two: Two, chance: random.Random, *, rounds: int) -> str:
    """Bodies that end early and lengths that lie, at both listeners and over gRPC."""
    inbound = rig.inbound(b"x" * 200, "bad")
    lies = [f"content-length: {n}" for n in ("201", "999999999999", "134217728", "-1", "1e3", "0x10", "1, 2", "+5")]
    lies += ["transfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 5", "transfer-encoding: x"]
    count = 0
    async with two() as (a, b), growth(a), growth(b) as peak:
        tls = rig.partner_tls(a.files)
        before = (await b.stats())["pushed_in"]

        async def one() -> None:
            lie, cut = chance.choice(lies), chance.randrange(200)
            if chance.random() < 0.5:
                await says(b.platform, push_to_b(lie, PUSH[:cut]), patience=0.1)
            else:
                await says(b.edge, invoke_b(lie, inbound[:cut]), tls=tls, patience=0.1)

        for _ in range(rounds):
            await each((one() for _ in range(50)), 25)
            count += 50
        await clean(a, b)
        assert (await b.stats())["pushed_in"] == before
        await served(b)
        await carry(a, b, topic="after", messages=20, size=100_000)
        return f"{count} bodies, nothing taken or held, grew by {peak.mib}"


async def bombs(two: Two, _chance: random.Random, *, rounds: int, size: int) -> str:
    """What is small on the wire and large once unpacked, or large once read. A body of `size` bytes is held as what it
    is, and counted; nothing may come on top of it.
    """
    packed = gzip.compress(bytes(8 * size))
    wide = b'{"topic":"bad","payload":"","metadata":[' + b"[]," * (size // 3) + b"[]]}"
    deep = b'{"topic":"bad","payload":' + b"[" * size
    many = b"\x1a\x00" * (size // 2)
    async with two() as (a, b), growth(b, most=GROWTH + 2 * size) as peak:
        tls = rig.partner_tls(a.files)
        for _ in range(rounds):
            for coding, (port, request, context) in itertools.product(
                ("gzip", "zstd", "br", "deflate"), ((b.platform, push_to_b, None), (b.edge, invoke_b, tls))
            ):
                more = f"content-encoding: {coding}\r\ncontent-length: {len(packed)}\r\nconnection: close"
                answer = await says(port, request(more, packed), tls=context, patience=20)
                assert b"E0000000400" in answer, answer
            for content, kind in (
                (wide, "application/json"),
                (deep, "application/json"),
                (many, PROTO["content-type"]),
            ):
                headers = {**rig.ns_headers(B), "content-type": kind}
                more = f"content-length: {len(content)}\r\nconnection: close"
                answer = await says(b.platform, post("push", headers, more, content), patience=20)
                assert b"HTTP/1.1 200" in answer, answer
            metadata = tuple(rig.ns_headers(B).items())
            options = [("grpc.max_send_message_length", -1)]
            where = f"127.0.0.1:{b.platform}"
            async with grpc.aio.insecure_channel(where, options=options) as channel:
                push = channel.unary_unary(rig.TRANSFER + "push")
                for bomb in (
                    packed,
                    gzip.compress(ptp_pb2.PushInbound(topic="bad", payload=bytes(size)).SerializeToString()),
                ):
                    answer = await push(bomb, metadata=metadata, timeout=60)
                    assert ptp_pb2.TransportOutbound.FromString(answer).code == "E0000000413"
        await served(b)
        return f"{rounds} rounds of {8 * size / MiB:.0f} MiB in {len(packed) >> 10} KiB, grew by {peak.mib}"


def mutated(chance: random.Random, whole: bytes) -> bytes:
    """Changed, cut or doubled in a few places."""
    data = bytearray(whole)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0 if at < len(data):
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randint(1, 20)]
            case 2:
                data[at:at] = chance.randbytes(chance.randint(1, 20))
            case _:
                data[at:at] = data[at : at + chance.randint(1, 60)]
    return bytes(data)


async def garbage(two: Two, chance: random.Random, *, count: int) -> str:
    """Requests of every kind with a few bytes changed: answered or hung up on, and nothing else happens."""
    inbound = rig.inbound(b"x" * 200, "bad")
    hello = http2_frame(4, 0, b"")
    asked = "GET /v1/{} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: interconn-{}/1\r\n\r\n"
    flow = st.pack_flow(0, rig.ew_headers(A, B) | {"x-ptp-topic": "bad"})
    message = st.pack(st.MESSAGE, size=100, text=b"", flow=0, ref=1) + bytes(100)
    part = st.pack(st.BEGIN, size=16, ref=2, value=1000) + bytes(16) + st.pack(st.CHUNK, size=500, ref=2) + bytes(500)
    names = b"".join(b"\x00" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode() for k, v in _GRPC.items())
    call = http2_frame(1, 1, b"\x83\x86" + names, flags=4) + http2_frame(
        0, 1, b"\0" + len(PUSH).to_bytes(4, "big") + PUSH, flags=1
    )
    # A connection under TLS stays until Python collects it.
    async with two() as (a, b), growth(b, most=2 * GROWTH) as peak:
        tls = rig.partner_tls(a.files)
        plain: list[bytes] = [
            push_to_b(f"content-length: {len(PUSH)}", PUSH),
            push_to_b("transfer-encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(PUSH), PUSH)),
            post(
                "push",
                {"content-type": "application/json", **rig.ns_headers(B)},
                "content-length: 29",
                b'{"topic":"bad","payload":"eA"}',
            ),
            post("pop", {**PROTO, **rig.ns_headers("")}, "content-length: 6", b"\x0a\x01z\x10\x01"),
            PREFACE + hello + call,
        ]
        east: list[bytes] = [
            invoke_b(f"content-length: {len(inbound)}", inbound),
            invoke_b(f"content-length: {len(PUSH)}", PUSH, **{"x-ptp-version": "1"}),
            asked.format("interconn/chan/transport", "stream").encode()
            + st.pack_hello(st.Hello())
            + flow
            + message
            + part,
            asked.format("interconn-ext/park", "bytes").encode() + b"\x01\x01\x03",
        ]

        async def one() -> None:
            if chance.random() < 0.6:
                await says(b.platform, mutated(chance, chance.choice(plain)), patience=0.1)
            else:
                await says(b.edge, mutated(chance, chance.choice(east)), tls=tls, patience=0.1)

        await each((one() for _ in range(count)), 30)
        async with b.task() as there:
            await there.release("bad", target=Address(B, "i"))
            await there.release("", target=Address(B, "i"))
        await served(b)
        await carry(a, b, topic="after", messages=20, size=100_000)
        log = (b.folder / "data.log").read_bytes()
        assert b'"INTERNAL"' not in log, "an error of our own"
        return f"{count} requests, grew by {peak.mib}"


PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_GRPC: Final = {
    ":path": rig.TRANSFER + "push",
    ":authority": "h",
    "content-type": "application/grpc",
    **rig.ns_headers(B),
}


def http2_frame(kind: int, stream: int, payload: bytes, flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


async def resets(two: Two, _chance: random.Random, *, connections: int, streams: int) -> str:
    """HTTP/2 rapid reset at both listeners, connection after connection."""
    path = rig.TRANSFER.encode() + b"push"
    block = b"\x83\x86\x04" + bytes([len(path)]) + path + b"\x01\x01h\x0f\x10\x10application/grpc"
    flood = (
        PREFACE
        + http2_frame(4, 0, b"")
        + b"".join(http2_frame(1, n, block, flags=4) + http2_frame(3, n, bytes(4)) for n in range(1, 2 * streams, 2))
    )
    # What OpenSSL had not been asked for goes when Python collects the connection.
    async with two() as (a, b), growth(b, most=2 * GROWTH) as peak:
        tls = rig.partner_tls(a.files)
        tls.set_alpn_protocols(["h2"])
        attacks = ((b.edge, tls) if n % 2 else (b.platform, None) for n in range(connections))
        attacking = asyncio.create_task(each((says(port, flood, tls=c, patience=5) for port, c in attacks), 8))
        worst, calls = 0.0, 0
        while not attacking.done() or not calls:
            worst, calls = max(worst, await served(b)), calls + 1
            await carry(a, b, topic="meanwhile", messages=5, size=1000)
        await attacking
        return f"{connections} x {streams} resets, slowest of {calls} calls {worst * 1000:.0f} ms, grew by {peak.mib}"


# -- many


async def sessions(two: Two, _chance: random.Random, *, count: int) -> str:
    """So many sessions at a time, a message in each."""
    names = [SessionId(f"session-{n:06d}") for n in range(count)]
    rules = [rig.rule(A, B, session=name) for name in names]
    async with two() as (a, b), growth(a, most=GROWTH + count * 8192), growth(b, most=GROWTH + count * 8192) as peak:
        before = (await b.stats())["bytes_held"]
        for one, peer in ((a, b), (b, a)):
            await one.told([peer.route()], [rig.rule(A, B), *rules])
        began = time.monotonic()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as client:
            here, there = (rig.Container(client, f"http://127.0.0.1:{one.platform}", "proto") for one in (a, b))

            async def push(name: SessionId) -> None:
                got = await here.push(B, name.encode(), session=name)
                assert got.code == OK, got

            async def pop(name: SessionId) -> None:
                got = await there.pop(A, session=name)
                assert got.payload == name.encode(), got

            await each(map(push, names), 32)
            assert (await b.stats())["sessions_with_messages"] == count
            took = time.monotonic() - began
            await each(map(pop, names), 32)
        assert (await b.stats())["bytes_held"] == before
        for one, peer in ((a, b), (b, a)):
            await one.told([peer.route()], [rig.rule(A, B)])
            assert (await one.stats())["sessions"] == 1
        await carry(a, b, topic="after", messages=20, size=1000)
        return f"{count} sessions, {count / took:.0f} messages a second, grew by {peak.mib}"


async def tiny(two: Two, _chance: random.Random, *, messages: int) -> str:
    """So many messages of 16 bytes wait in one topic before the first is read."""
    limits = Limits(session_bytes=1 << 30, process_bytes=2 << 30)
    async with two(limits=limits) as (a, b), growth(b, most=GROWTH + messages * 1024) as peak:
        loop, began = asyncio.get_running_loop(), time.monotonic()
        async with a.task() as here, b.task() as there:

            async def write(first: int, last: int) -> None:
                async with asyncio.TaskGroup() as group:
                    for n in range(first, last):
                        group.create_task(here.push("t", body(n, 16), to=TO_B, deadline=loop.time() + 600))

            for first in range(0, messages, 256):
                await write(first, min(messages, first + 256))
            written = time.monotonic() - began
            for first in range(0, messages, 64):
                asked = [
                    asyncio.create_task(there.pop("t", source=FROM_A, wait_ms=60_000, deadline=loop.time() + 60))
                    for _ in range(min(64, messages - first))
                ]
                for n, got in enumerate(await asyncio.gather(*asked), first):
                    assert got is not None
                    assert got == body(n, 16), f"{bytes(got[:8]).hex()} in the place of {n}"
        await clean(b)
        return f"{messages} messages, {messages / written:.0f} a second written, grew by {peak.mib}"


async def slow(two: Two, _chance: random.Random, *, messages: int) -> str:
    """A reader that takes its time holds the writer back: what waits in between is bounded, nothing is lost."""
    size, held = 256 << 10, 8 * MiB
    limits = Limits(session_bytes=held, process_bytes=8 * held)
    async with two(limits=limits) as (a, b), growth(a, most=4 * GROWTH), growth(b, most=4 * GROWTH) as peak:
        loop, written, ahead = asyncio.get_running_loop(), 0, 0
        async with a.task() as here, b.task() as there:

            async def write() -> None:
                nonlocal written
                for n in range(messages):
                    await here.push("t", body(n, size), to=TO_B, deadline=loop.time() + 600)
                    written += 1

            writing = asyncio.create_task(write())
            await asyncio.sleep(1)
            for n in range(messages):
                got = await there.pop("t", source=FROM_A, wait_ms=60_000, deadline=loop.time() + 60)
                assert got is not None
                assert got == body(n, size)
                ahead = max(ahead, written - n)
                await asyncio.sleep(0.005)
            await writing
        assert ahead <= held // size + 2, f"{ahead} messages were taken and not read"
        return f"{messages} x {size >> 10} KiB, at most {ahead} ahead of the reader, grew by {peak.mib}"


async def bulk(two: Two, _chance: random.Random, *, total: int) -> str:
    """So many bytes pass, in messages of four sizes and sixteen topics: memory stays within its bound."""
    most = TIGHT.process_bytes + GROWTH
    async with two(limits=TIGHT) as (a, b), growth(a, most=most) as of_a, growth(b, most=most) as of_b:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for size, share in ((1000, total // 100), (100_000, total // 4), (MiB, total // 3), (8 * MiB, total // 3)):
                for n in range(4):
                    count = max(1, share // (4 * size))
                    group.create_task(carry(a, b, topic=f"{size}-{n}", messages=count, size=size))
        took = time.monotonic() - began
        await clean(a, b)
        return f"{total / 1e9:.1f} GB, {total / 1e6 / took:.0f} MB/s, grew by {of_a.mib} and {of_b.mib} of {most >> 20}"


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Of so many bytes; only root may make one."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def disk(two: Two, _chance: random.Random, *, size: int, rounds: int) -> str:
    """The disk under a spool is full: what was answered with success is there, in its turn, and there is room again."""
    if os.geteuid():
        return "not tried: only root may mount a small disk"
    session = SessionId("kept")
    rule, body_bytes, refused, kept = replace(rig.rule(A, B, session=session), durability="spool"), 100_000, 0, 0
    with rig.folder() as folder, small_disk(folder / "disk", size) as small:
        async with two(spool_dir=str(small / "{name}")) as (a, b), b.task(session) as here:
            await b.told([a.route()], [rule])
            loop = asyncio.get_running_loop()
            for n in range(rounds):
                taken = []
                for number in itertools.count():
                    try:
                        await here.push(f"t{n}", body(number, body_bytes), to=TO_B, deadline=loop.time())
                    except ComponentError as e:
                        if BUFFER_FULL not in str(e):
                            raise
                        refused += 1
                        break
                    taken.append(number)
                    assert len(taken) < size // body_bytes, "more than the disk can hold"
                assert taken
                if n % 2:
                    await b.kill()
                    await b.start()
                for number in taken:
                    got = await here.pop(f"t{n}", source=TO_B, wait_ms=5000, deadline=loop.time() + 20)
                    assert got is not None
                    assert got == body(number, body_bytes)
                kept += len(taken)
            assert b'"spool.failed"' in (b.folder / "data.log").read_bytes()
    return f"{rounds} times full at {size >> 20} MiB, {kept} messages kept and read, {refused} refused"


# -- links and ends


async def resume(two: Two, chance: random.Random, *, size: int) -> str:
    """A body over a link that breaks three times: each break costs what was on its way, 4 MiB at most."""
    limits = Limits(channel_body_bytes=size + MiB, session_bytes=2 * size, process_bytes=4 * size + 64 * MiB)
    link = Link(0)
    async with two(limits=limits, link=link) as (a, b):
        before = link.up
        link.cut_after = sorted(before + chance.randrange(size // 10, size) for _ in range(3))
        await carry(a, b, topic="large", messages=1, size=size)
        again = link.up - before - size
        assert not link.cut_after
        # TLS adds its heads, 29 bytes to 16 KiB, and a break what was in its buffers.
        assert again <= 3 * RESEND + size // 100, f"{again} bytes were sent again"
        return f"{size / MiB:.0f} MiB, 3 breaks, {again / MiB:.1f} MiB more than the body on the wire"


async def links(two: Two, chance: random.Random, *, messages: int, scale: float, ways: Sequence[str]) -> str:
    """Far, thin, cut, half-closed and repeated; over streams, plain invokes and gRPC."""
    told = []
    for way in ways:
        link = Link(0, recorded=bytearray())
        async with two(link=link, streams=way == "streams") as (a, b):
            if way == "gRPC":
                await a.told([replace(b.route(), address=f"grpcs://127.0.0.1:{link.port}")], [rig.rule(A, B)])
            began = time.monotonic()
            taken = (await b.stats())["pushed_in"]
            link.cut()
            link.delay_s = 0.1
            await carry(a, b, topic="far", messages=max(3, messages // 20), size=10_000, window=8)
            link.cut()
            link.delay_s, link.bytes_per_s = 0.0, 20e6 / 8
            await carry(a, b, topic="thin", messages=3, size=int(MiB * scale), window=2)
            link.bytes_per_s = 0.0
            link.cut()
            spread = messages * 30_000
            places = sorted(link.up + chance.randrange(spread) for _ in range(6))
            link.cut_after, link.half_close_after = places[::2], places[1::2]
            await carry(a, b, topic="cut", messages=messages, size=30_000, window=8)
            assert not link.cut_after
            assert not link.half_close_after
            before = (await b.stats())["pushed_in"]
            assert before - taken == max(3, messages // 20) + 3 + messages
            await link.repeat()
            assert (await b.stats())["pushed_in"] == before
            async with b.task() as there:
                assert await there.peek("warm", source=FROM_A) is None
            told.append(f"{way} {time.monotonic() - began:.1f} s")
    return f"{messages} messages, 3 cuts, 3 half-closes, 100 ms, 20 Mbit/s: " + ", ".join(told)


@dataclass(slots=True)
class Course:
    """One topic of `killed` and `requests`: what was sent and read. began: numbers whose push has begun."""

    topic: str
    epoch: str = field(default_factory=lambda: os.urandom(8).hex())
    began: int = 0
    read: list[int] = field(default_factory=list)


async def insist(
    client: aiohttp.ClientSession, at: Gateway, call: str, headers: Mapping[str, str], content: bytes
) -> rig.Got:
    """Repeat a container's call until it succeeds."""
    pause = 0.01
    while True:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            url = f"http://127.0.0.1:{at.platform}{rig.CHAN}{call}"
            got = await rig.post(client, url, headers, content, "proto")
            if got.code == OK:
                return got
        await asyncio.sleep(pause)
        pause = min(0.5, 2 * pause)


async def write(client: aiohttp.ClientSession, at: Gateway, course: Course, messages: int) -> None:
    """Named by the container itself, so that a repeat is known as one."""
    for n in range(messages + 1):
        course.began = n
        named = {**rig.ns_headers(B), "x-interconn-message": f"{course.epoch}-{n}-{n}"}
        message = ptp_pb2.PushInbound(topic=course.topic, payload=body(n, 100)).SerializeToString()
        await insist(client, at, "push", named, message)


async def read(client: aiohttp.ClientSession, at: Gateway, course: Course, messages: int) -> None:
    """Up to the last message, which comes after all trouble is over."""
    asked = ptp_pb2.PopInbound(topic=course.topic, timeout=500).SerializeToString()
    while not course.read or course.read[-1] != messages:
        got = await insist(client, at, "pop", rig.ns_headers(A), asked)
        if got.payload is not None:
            n = int.from_bytes(got.payload[:8], "big")
            assert got.payload == body(n, 100)
            course.read.append(n)


async def killed(two: Two, chance: random.Random, *, messages: int, kills: int) -> str:
    """kill -9 of either side, queues in memory: what the killed queues held is missing and seen to be; a message whose
    push had no answer yet may have been read and come again, right behind itself; nothing else happens. (With
    `durability = spool` none is lost or doubled: tests.integration.kept.)
    """
    courses = [Course(f"t{n}") for n in range(4)]
    windows: dict[str, list[tuple[int, int]]] = {course.topic: [] for course in courses}
    each_one = messages // len(courses)
    async with two() as (a, b), aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as client:

        async def havoc() -> None:
            for n in range(kills):
                while sum(course.began for course in courses) < (n + 1) * messages / (kills + 1):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                await asyncio.sleep(chance.random() * 0.02)
                one = a if n % 2 else b
                read_before = {course.topic: (course.read or [-1])[-1] for course in courses}
                await one.kill()
                if one is b:
                    for course in courses:
                        windows[course.topic].append((read_before[course.topic], course.began))
                await one.start()

        trouble = asyncio.create_task(havoc())
        calls = [write(client, a, course, each_one - 1) for course in courses]
        reads = [read(client, b, course, each_one - 1) for course in courses]
        await asyncio.gather(*calls, *reads)
        await trouble
    lost = doubled = 0
    for course in courses:
        told = windows[course.topic]
        turns = [(one, other) for one, other in itertools.pairwise(course.read) if other <= one]
        strange = [(one, other) for one, other in turns if one != other or not any(began == one for _, began in told)]
        assert not strange, f"{course.topic}: doubled or swapped {strange}, kills {told}"
        missing = sorted(set(range(each_one)) - set(course.read))
        unseen = [n for n in missing if not any(read < n <= began for read, began in told)]
        assert not unseen, f"{course.topic}: {unseen} were lost without a kill of the queue that held them"
        lost, doubled = lost + len(missing), doubled + len(turns)
    return (
        f"{messages} messages, {kills} kills: {lost} lost and {doubled} doubled by kills of the reader's side, no swap"
    )


KINDS: Final = ("cut", "lose", "twice", "late")


async def requests(two: Two, chance: random.Random, *, messages: int) -> str:
    """Invokes that are lost, arrive twice or late, or whose answers are lost: each message once and in its turn."""
    faults = Faults(chance.randrange(1 << 30), cut=0.03, lose=0.03, twice=0.05, late=0.03)
    async with two(streams=False) as (a, b):
        for one in (a, b):
            (one.folder / "ca.pem").write_text(one.ca.pem)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        tap = FaultyTap(port, b.edge, b.folder, a.folder, faults=faults)
        await tap.start()
        try:
            await a.told([b.route(port)], [rig.rule(A, B)])
            # Each kind of fault has to happen; with few messages one may be missing by chance.
            for rounds in range(1, 11):
                await asyncio.gather(
                    *(carry(a, b, topic=f"t{rounds}.{n}", messages=messages // 8, size=200, window=4) for n in range(8))
                )
                if all(faults.done[name] for name in KINDS):
                    break
            dropped = (await b.stats())["repeats_dropped"]
        finally:
            await tap.stop()
        done = ", ".join(f"{name} {count}" for name, count in sorted(faults.done.items()))
        assert all(faults.done[name] for name in KINDS), done
        return f"{rounds * messages} messages ({done}), {dropped} repeats dropped, none lost or swapped"


# -- which, and how long


WAYS: Final = ("streams", "invoke", "gRPC")


@dataclass(frozen=True, slots=True)
class Trial:
    """Arguments of the two forms."""

    run: Callable[..., Awaitable[str]]
    quick: Mapping[str, Any]
    long: Mapping[str, Any]


TRIALS: Final = {
    trial.run.__name__: trial
    for trial in (
        Trial(slowloris, {"sockets": 100, "seconds": 1.0}, {"sockets": 1000, "seconds": 45.0}),
        Trial(bodies, {"rounds": 1}, {"rounds": 60}),
        Trial(bombs, {"rounds": 1, "size": 24 * MiB}, {"rounds": 20, "size": 100 * MiB}),
        Trial(garbage, {"count": 120}, {"count": 20_000}),
        Trial(resets, {"connections": 4, "streams": 3000}, {"connections": 400, "streams": 3000}),
        Trial(sessions, {"count": 200}, {"count": 100_000}),
        Trial(tiny, {"messages": 1000}, {"messages": 1_000_000}),
        Trial(slow, {"messages": 60}, {"messages": 3000}),
        Trial(bulk, {"total": 60_000_000}, {"total": 10_000_000_000}),
        Trial(disk, {"size": 200 * MiB, "rounds": 2}, {"size": 400 * MiB, "rounds": 8}),
        Trial(resume, {"size": 16 * MiB}, {"size": 1 << 30}),
        Trial(
            links, {"messages": 60, "scale": 0.2, "ways": ("streams",)}, {"messages": 3000, "scale": 5.0, "ways": WAYS}
        ),
        Trial(killed, {"messages": 100, "kills": 2}, {"messages": 10_000, "kills": 40}),
        Trial(requests, {"messages": 80}, {"messages": 10_000}),
    )
}


async def run(name: str, *, quick: bool, seed: int, two: Two = fresh) -> str:
    """One trial; its figures. two: where it gets its gateways. Raises AssertionError with what was wrong."""
    open_files()
    trial = TRIALS[name]
    return await trial.run(two, random.Random(seed), **(trial.quick if quick else trial.long))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TRIALS, action="append", help="this trial; may be given again")
    parser.add_argument("--quick", action="store_true", help="the short forms")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    told = parser.parse_args()
    print(f"seed {told.seed}", flush=True)
    failed = 0
    for name in told.only or TRIALS:
        began = time.monotonic()
        try:
            figures = asyncio.run(run(name, quick=told.quick, seed=told.seed))
        except Exception:  # noqa: BLE001  # whatever it was: the others are still worth knowing
            figures, failed = f"FAILED\n{traceback.format_exc()}", failed + 1
        print(f"{name}: {figures} ({time.monotonic() - began:.0f} s)", flush=True)
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
