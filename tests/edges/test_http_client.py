"""The client's own HTTP: connections that are kept, closed, cut, and answers in any form, on both loops."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from gateway.data_plane.core import frame as fr
from gateway.data_plane.io import http_client, tls
from gateway.data_plane.io.dial import Way
from gateway.data_plane.io.http_client import HttpPartner
from gateway.data_plane.io.roads import Roads
from gateway.errors import GatewayError, Kind
from gateway.model import Limits, NodeId, TraceId
from gateway.ports import PeerRoute
from specs.proto import ptp_pb2
from tests.edges import rig
from tests.edges.test_front import Loop, both_loops, run
from tests.waiting import eventually

F = NodeId("LX-F")
OK = ptp_pb2.Outbound(code="E0000000000", message="ok").SerializeToString()
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n" % len(OK) + OK
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Partner:
    """A partner that answers as scripted; bodies: what it read in each call."""

    ours: HttpPartner
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0


@contextlib.asynccontextmanager
async def partner(serve: Callable[[Partner], Serve]) -> AsyncIterator[Partner]:
    with rig.folder() as folder:
        ca, own = rig.authority(), rig.authority()
        files, ours = rig.issue(folder, ca, rig.urn(F), name="f"), rig.issue(folder, own, rig.urn("LX-A"), name="a")
        context = tls.server_context(files.chain, files.key, [own.der])
        made = Partner(None)  # type: ignore[arg-type]
        script = serve(made)

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            made.connections += 1
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await script(reader, writer)
            writer.close()

        server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        route = PeerRoute(F, "JG-F", f"https://127.0.0.1:{port}/base", ca.pem, "other")
        made.ours = HttpPartner(Way(route, roads=Roads(), chain_file=ours.chain, key_file=ours.key))
        try:
            yield made
        finally:
            await made.ours.close()
            server.close()


def outgoing(payload: bytes) -> fr.Outgoing:
    body = ptp_pb2.PushInbound(topic="t", payload=payload).SerializeToString()
    envelope = fr.read_envelope({"content-type": "application/x-protobuf", **rig.ns_headers(F)}, Limits())
    frame = fr.decode(fr.Operation.PUSH, envelope, body, limits=Limits())
    return fr.Outgoing(
        frame,
        body,
        source_node=NodeId("LX-A"),
        source_inst="JG-A",
        target_inst="JG-F",
        trace_id=TraceId("t"),
        token="permit",
        provider="x",
    )


async def read_call(made: Partner, reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"POST /base/v1/interconn/chan/invoke HTTP/1.1\r\nhost: 127.0.0.1:")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    made.bodies.append(await reader.readexactly(length))


def answering(*answers: bytes, close: bool = False) -> Callable[[Partner], Serve]:
    """Each call on any connection gets the next answer, the last one for ever."""
    left = list(answers)

    def serve(made: Partner) -> Serve:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await read_call(made, reader)
                writer.write(left.pop(0) if len(left) > 1 else left[0])
                await writer.drain()
                if close:
                    return

        return script

    return serve


async def fails(made: Partner, payload: bytes = b"hi") -> Kind:
    with pytest.raises(GatewayError) as caught:
        await made.ours.deliver(outgoing(payload))
    return caught.value.kind


@both_loops
def test_connections_are_kept_and_bodies_arrive(loop: Loop) -> None:
    async def main() -> None:
        async with partner(answering(PLAIN)) as made:
            sent = [os.urandom(size) for size in (0, 1, 65_000, 66_000, 3 << 20)]
            for payload in sent:
                assert (await made.ours.deliver(outgoing(payload))).code == "E0000000000"
            got = [ptp_pb2.PushInbound.FromString(ptp_pb2.Inbound.FromString(body).payload) for body in made.bodies]
            assert [message.payload for message in got] == sent
            assert made.connections == 1
            await asyncio.gather(*(made.ours.deliver(outgoing(b"x")) for _ in range(20)))
            assert 1 < made.connections <= 20
            before = made.connections
            await asyncio.gather(*(made.ours.deliver(outgoing(b"x")) for _ in range(20)))
            assert made.connections == before

    run(loop, main())


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x;x=y\r\n%s\r\n0\r\n\r\n" % (len(OK), OK)


@both_loops
@pytest.mark.parametrize(
    ("answer", "close", "connections"),
    [
        (PLAIN, False, 1),
        (CHUNKED, False, 1),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, False, 1),
        (PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), False, 2),
        (PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"), True, 2),
        (HEAD + b"\r\n" + OK, True, 2),
        (PLAIN, True, 2),
    ],
    ids=["plain", "chunked", "interim", "close", "1.0", "to the end", "closed"],
)
def test_forms_of_answers(loop: Loop, answer: bytes, close: bool, connections: int) -> None:
    """Whatever form it has it is read; a connection that was closed or will be is not used again."""

    async def main() -> None:
        async with partner(answering(answer, close=close)) as made:
            for _ in range(2):
                assert (await made.ours.deliver(outgoing(b"hi"))).code == "E0000000000"
                await eventually(lambda: not close or not any(line.usable for line in made.ours._lines))
            assert made.connections == connections
            assert len(made.bodies) == 2

    run(loop, main())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (PLAIN + b"HTTP/1.1 200 OK\r\n", Kind.PEER_MALFORMED),
        (PLAIN.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n"), Kind.PEER_MALFORMED),
        (CHUNKED.replace(b";x=y", b"0"), Kind.PEER_UNREACHABLE),
        (HEAD + b"Content-Length: 9999999\r\n\r\n", Kind.PEER_MALFORMED),
        (PLAIN[:-1], Kind.PEER_UNREACHABLE),
        (PLAIN[:30], Kind.PEER_UNREACHABLE),
        (b"", Kind.PEER_UNREACHABLE),
        (b"SSH-2.0-x\r\n\r\n", Kind.PEER_MALFORMED),
        (b"HTTP/1.1 504 Gateway Timeout\r\n\r\n<html>", Kind.PEER_UNREACHABLE),
    ],
    ids=["more", "two lengths", "chunk", "too long", "cut", "cut head", "nothing", "no http", "gateway"],
)
async def test_answers_that_say_nothing(answer: bytes, kind: Kind) -> None:
    """What may have arrived is never said not to have, and nothing is sent a second time."""
    async with partner(answering(answer, close=True)) as made:
        assert await fails(made) is kind
        assert len(made.bodies) == 1
        assert not made.ours._lines


@both_loops
def test_an_answer_before_the_body_has_been_sent(loop: Loop) -> None:
    def serve(_: Partner) -> Serve:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Large\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n")
            writer.write(b'{"code":"E0000000413"}')
            await writer.drain()
            await asyncio.sleep(0.2)

        return script

    async def main() -> None:
        async with partner(serve) as made:
            assert (await made.ours.deliver(outgoing(bytes(32 << 20)))).code == "E0000000413"
            await eventually(lambda: not made.ours._lines)

    run(loop, main())


async def test_bytes_that_nobody_asked_for() -> None:
    """A line on which something comes between calls is not used again: it could be taken for the next answer."""
    gate = asyncio.Event()

    def serve(made: Partner) -> Serve:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await read_call(made, reader)
                writer.write(PLAIN)
                if made.connections == 1:
                    await gate.wait()
                    writer.write(PLAIN)

        return script

    async with partner(serve) as made:
        await made.ours.deliver(outgoing(b"1"))
        gate.set()
        await eventually(lambda: not any(line.usable for line in made.ours._lines))
        await made.ours.deliver(outgoing(b"2"))
        assert (made.connections, len(made.bodies)) == (2, 2)


async def test_a_partner_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "ANSWER_S", 0.1)

    def serve(made: Partner) -> Serve:
        async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await read_call(made, reader)
            await reader.read()

        return script

    async with partner(serve) as made:
        assert await fails(made) is Kind.PEER_TIMEOUT
        call = asyncio.create_task(made.ours.deliver(outgoing(b"x")))
        await eventually(lambda: len(made.bodies) == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not made.ours._lines


async def test_idle_connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "KEEP_S", 0.1)
    async with partner(answering(PLAIN)) as made:
        await asyncio.gather(*(made.ours.deliver(outgoing(b"x")) for _ in range(3)))
        assert len(made.ours._lines) == 3
        await eventually(lambda: not made.ours._lines and not made.ours._idle)
        await made.ours.deliver(outgoing(b"x"))
        assert made.connections == 4


async def test_connections_are_bounded_and_waiting_is_no_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "CONNECTIONS", 2)
    monkeypatch.setattr(http_client, "CONNECT_S", 0.0)
    gate = asyncio.Event()

    def serve(made: Partner) -> Serve:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await read_call(made, reader)
                await gate.wait()
                writer.write(PLAIN)

        return script

    async with partner(serve) as made:
        calls = [asyncio.create_task(made.ours.deliver(outgoing(b"x"))) for _ in range(4)]
        await eventually(lambda: len(made.bodies) == 2)
        monkeypatch.setattr(http_client, "ANSWER_S", 0.05)
        assert await fails(made) is Kind.NO_ROUTE
        gate.set()
        assert [answer.code for answer in await asyncio.gather(*calls)] == ["E0000000000"] * 4
        assert made.connections == 2
        await made.ours.retire()
        assert not made.ours._lines
