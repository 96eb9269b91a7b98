"""Bodies that lie, break off or come to nothing: no message, no memory kept, and the connection's fault only."""

import asyncio
import gc
from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway.data_plane.io import body as body_module
from gateway.data_plane.io import hop
from gateway.model import NodeId
from tests.edges import rig
from tests.edges.rig import Container, Node, node, pair
from tests.integration.processes import resident
from tests.waiting import eventually

A, B = NodeId("LX-A"), NodeId("LX-B")


def head(extra: str, target: str = A) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in rig.ns_headers(target).items())
    start = "POST /v1/interconn/chan/push HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
    return f"{start}{lines}{extra}\r\n".encode()


async def connect(one: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", one.ports.platform)


def alone(one: Node) -> None:
    one.process.channel.open_session(rig.rule(A))


@pytest.mark.parametrize("extra", ["Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"])
async def test_a_body_that_breaks_off(extra: str) -> None:
    async with node(A) as a:
        alone(a)
        _, writer = await connect(a)
        writer.write(head(extra) + b"2710\r\n" + b"\x12\x03abc" * 10)
        await eventually(lambda: a.process.stats()["bytes_held"] > 0)
        writer.close()
        await eventually(lambda: a.process.stats()["bytes_held"] == 0)
        assert a.process.stats()["pushed_local"] == 0


async def test_a_claimed_length_takes_no_memory() -> None:
    async with node(A) as a:
        alone(a)
        before = resident()
        writers = [(await connect(a))[1] for _ in range(50)]
        for writer in writers:
            writer.write(head("Content-Length: 134217728\r\n") + b"x")
        await eventually(lambda: a.process.stats()["bytes_held"] >= 50)
        assert a.process.stats()["bytes_held"] == 50
        assert resident() - before < 20 << 20
        for writer in writers:
            writer.close()
        await eventually(lambda: a.process.stats()["bytes_held"] == 0)


async def test_a_large_body_that_breaks_off_is_let_go_at_once() -> None:
    """Not when Python next looks for cycles."""
    async with node(A) as a:
        alone(a)
        before = resident()
        gc.disable()
        try:
            for n in range(1, 6):
                _, writer = await connect(a)
                writer.write(head("Content-Length: 100000000\r\n") + bytes(30 << 20))
                await eventually(lambda: a.process.stats()["bytes_held"] == 30 << 20)
                writer.close()
                await eventually(lambda: a.process.stats()["bytes_held"] == 0)
                assert resident() - before < 100 << 20, n
        finally:
            gc.enable()


async def test_a_body_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "STALL_S", 0.05)
    async with node(A) as a:
        alone(a)
        reader, writer = await connect(a)
        writer.write(head("Content-Length: 10\r\n") + b"x")
        answer = await reader.readuntil(b"E0000000400")
        assert answer.startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.parametrize(
    "extra",
    [
        "Content-Length: -1\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "x-large: " + "a" * 40_000 + "\r\n",
        "bad header\r\n",
    ],
)
async def test_requests_that_are_no_http(
    extra: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Closed, and nothing of them, such as a token, is in what the process prints."""
    async with node(A) as a:
        alone(a)
        reader, writer = await connect(a)
        writer.write(head(extra) + b"\x12\x01a")
        answer = await reader.read(12)
        assert answer in {b"HTTP/1.1 400", b"HTTP/1.0 400", b""}
        writer.close()
        assert a.process.stats()["pushed_local"] == 0
    assert (caplog.text, capfd.readouterr().err) == ("", "")


async def test_a_caller_that_asks_first() -> None:
    async with node(A) as a:
        alone(a)
        for path, ok in [(head("Content-Length: 3\r\nExpect: 100-continue\r\n"), b"E0000000000"), (b"", b"success")]:
            reader, writer = await connect(a)
            writer.write(
                path or b"POST /v1/platform/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
            )
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"\x12\x01a")
            assert await reader.readuntil(ok)
            writer.close()
        # Who may not speak is not asked to.
        reader, writer = await connect(a)
        writer.write(head("Content-Length: 3\r\nExpect: 100-continue\r\n", target="LX-Z"))
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_an_answer_of_control_that_breaks_off(client: aiohttp.ClientSession) -> None:
    """The caller must not take a cut answer for a whole one, nor an error for the rest of it."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"more"
        raise ConnectionResetError

    async with node(A) as a:
        a.control.answer = lambda _: hop.Reply(200, b"begun", broken())
        with pytest.raises(aiohttp.ClientPayloadError):
            async with client.get(f"{a.platform}/v1/platform/schedule/task/get_log") as response:
                await response.read()
        a.control.answer = None
        async with client.get(f"{a.platform}/v1/platform/schedule/task/get_log") as response:
            assert response.status == 200


async def test_many_pushes_at_once(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        push, pop = Container(client, a.platform, "proto"), Container(client, b.platform, "proto")
        sizes = [0, 1, 70_000, 300_000, 5, 1 << 20, 65_536]
        sent = [bytes([n]) + bytes(sizes[n % len(sizes)]) for n in range(60)]
        readers = [asyncio.create_task(pop.pop(topic=f"t{n % 5}")) for n in range(60)]
        await asyncio.gather(*(push.push(B, payload, topic=f"t{n % 5}") for n, payload in enumerate(sent)))
        got = [(await reader).payload or b"" for reader in readers]
        assert sorted(got) == sorted(sent)
        assert a.process.stats()["bytes_held"] == b.process.stats()["bytes_held"] == 0
