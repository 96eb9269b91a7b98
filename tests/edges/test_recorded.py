"""Requests of other products' containers, byte for byte as they were recorded (docs/peers), and what they must get."""

import asyncio
import gzip

import aiohttp
import grpc.aio
import pytest

from gateway.model import Limits, NodeId
from specs.proto import ptp_pb2
from tests.edges.rig import Container, pair, rule

A, B = NodeId("LX-A"), NodeId("LX-B")
SESSION = "spu-1"
SPU_PUSH = (
    b"POST /v1/interconn/chan/push HTTP/1.1\r\n"
    b"Content-Length: 38\r\n"
    b"Host: 127.0.0.1:9601\r\n"
    b"Accept: */*\r\n"
    b"User-Agent: brpc/1.0 curl/7.0\r\n"
    b"x-ptp-target-inst-id: inst-LX-B\r\n"
    b"x-ptp-source-inst-id: inst-LX-A\r\n"
    b"x-ptp-tecn-provider-code: SecretFlow\r\n"
    b"x-ptp-topic: alice-bob\r\n"
    b"x-ptp-trace-id: t1\r\n"
    b"x-ptp-target-node-id: LX-B\r\n"
    b"x-ptp-session-id: spu-1\r\n"
    b"x-ptp-source-node-id: LX-A\r\n"
    b"x-ptp-token: tok\r\n"
    b"\r\n"
)
SPU_BODY = b"\x0a\x18root:P2P-1:0->1\x01\x021......\x12\x0asome bytes"
SPU_POP = (
    SPU_PUSH.replace(b"/push HTTP", b"/pop?timeout=1 HTTP")
    .replace(b"Content-Length: 38", b"Content-Length: 0")
    .replace(b"target-node-id: LX-B", b"target-node-id: LX-A")
    .replace(b"source-node-id: LX-A", b"source-node-id: LX-B")
)
IMESH = [
    ("x-ptp-trace-id", "C00002022736187772387713027"),
    ("mesh-span-id", "0"),
    ("x-ptp-source-inst-id", "JG0000000000000000"),
    ("x-ptp-source-node-id", "LX0000000000000"),
    ("mesh-incoming-host", "unknown@192.0.2.2:49801"),
    ("x-ptp-tech-provider-code", "X"),
    ("x-ptp-token", "tok"),
    ("x-ptp-session-id", "s-1"),
]
OK = "E0000000000"


async def exchange(port: int, request: bytes) -> tuple[bytes, bytes]:
    """(head, body) of the answer to one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    body = await reader.readexactly(length)
    writer.close()
    return head, body


@pytest.mark.req("T-040", "T-041", "T-046")
async def test_yacls_black_box_link() -> None:
    assert len(SPU_BODY) == 38
    async with pair(session=False) as (a, b):
        for one in (a, b):
            one.process.channel.open_session(rule(A, B, session=SESSION, token=None))
        head, body = await exchange(a.ports.platform, SPU_PUSH + SPU_BODY)
        assert head.startswith(b"HTTP/1.1 200")
        assert body == b"\x12\x0bE0000000000\x1a\x02ok"
        head, body = await exchange(b.ports.platform, SPU_POP)
        assert b"content-type: application/proto\r\n" in head.lower()
        assert body == b"\x0a\x26" + SPU_BODY + b"\x12\x0bE0000000000\x1a\x02ok"
        # Nothing there: an answer without a payload, within the second that it waits.
        async with asyncio.timeout(2):
            assert (await exchange(b.ports.platform, SPU_POP))[1] == b"\x12\x0bE0000000000\x1a\x02ok"


@pytest.mark.req("T-037", "T-038", "T-052")
@pytest.mark.parametrize("packed", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_imesh(client: aiohttp.ClientSession, packed: grpc.Compression) -> None:
    """Packets under topics of its own, gzip within gRPC, a placeholder for the node that sends."""
    async with pair(session=False) as (a, b):
        for one in (a, b):
            one.process.channel.open_session(rule(A, B, session="s-1", token=None))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{a.ports.platform}", compression=packed) as channel:
            push = channel.unary_unary("/org.ppc.ptp.PrivateTransferTransport/push")
            to = [*IMESH, ("x-ptp-target-node-id", "LX-B")]
            for body in (b"\n\x0ft1-mesh-split-0\x12\x011", b"\n\x0ft1-mesh-split-1\x12\x05hello"):
                answer = ptp_pb2.TransportOutbound.FromString(await push(body, metadata=to, wait_for_ready=True))
                assert (answer.code, answer.message) == (OK, "ok")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{b.ports.platform}", compression=packed) as channel:
            pop = channel.unary_unary("/org.ppc.ptp.PrivateTransferTransport/pop")
            for body, payload in (
                (b"\n\x0ft1-mesh-split-0\x10\xb8\x17", b"1"),
                (b"\n\x0ft1-mesh-split-1\x10\xb8\x17", b"hello"),
            ):
                answer = ptp_pb2.TransportOutbound.FromString(await pop(body, metadata=IMESH))
                assert (answer.code, answer.payload) == (OK, payload)
        assert (await Container(client, b.platform).peek(session="s-1")).payload in {None, b""}


@pytest.mark.parametrize("size", [3 << 20, 48 << 20])
async def test_a_packed_bomb_is_refused(size: int) -> None:
    """Unpacked by us, counted, and no further than a packed message may be."""
    bomb = b"\x12\x80\x80\x80\x10" + bytes(size)
    assert len(gzip.compress(bomb)) < size >> 8
    async with pair(session=False, limits=Limits(channel_body_bytes=2 << 20)) as (a, _):
        a.process.channel.open_session(rule(A, B, session="s-1", token=None))
        options = [("grpc.max_send_message_length", -1)]
        target = f"127.0.0.1:{a.ports.platform}"
        to = [*IMESH, ("x-ptp-target-node-id", "LX-A")]
        async with grpc.aio.insecure_channel(target, compression=grpc.Compression.Gzip, options=options) as channel:
            push = channel.unary_unary("/org.ppc.ptp.PrivateTransferTransport/push")
            assert ptp_pb2.TransportOutbound.FromString(await push(bomb, metadata=to)).code == "E0000000413"
        async with grpc.aio.insecure_channel(target) as channel:
            push = channel.unary_unary("/org.ppc.ptp.PrivateTransferTransport/push")
            for torn in (gzip.compress(b"x" * 100)[:-9], gzip.compress(b"x") + b"y", b"\x1f\x8bx"):
                assert ptp_pb2.TransportOutbound.FromString(await push(torn, metadata=to)).code == "E0000000616"
        async with grpc.aio.insecure_channel(target, compression=grpc.Compression.Deflate) as channel:
            push = channel.unary_unary("/org.ppc.ptp.PrivateTransferTransport/push")
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await push(b"\x12\x7f" + bytes(127), metadata=to)
            assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert a.process.channel.stats()["bytes_held"] == 0
