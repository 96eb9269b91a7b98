"""The listener's own reader of HTTP, on both loops: what it serves, what it leaves to aiohttp, how long it waits."""

import asyncio
import contextlib
import gzip
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.data_plane.core.budget import Budget
from gateway.data_plane.io import body as pace
from gateway.data_plane.io import door, front, http_server, tls
from gateway.data_plane.io.edge import Edge
from gateway.data_plane.io.filed import Files
from gateway.data_plane.io.front import Front
from gateway.data_plane.io.process import PLATFORM_SOCKET, loop_factory
from gateway.data_plane.io.rooms import Rooms
from gateway.data_plane.io.standing import Standing
from gateway.errors import GatewayError
from gateway.model import Limits, NodeId
from gateway.runtime.system import SystemClock
from tests.edges import rig
from tests.edges.rig import node
from tests.waiting import eventually

A = NodeId("LX-A")
FILED = 2 << 20
"""Bodies of this size go to disk, where there is one."""
LOOPS = [asyncio.new_event_loop, *([made] if (made := loop_factory()) else [])]
Loop = Callable[[], asyncio.AbstractEventLoop]
both_loops = pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"][: len(LOOPS)])


def run(loop: Loop, main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(main, 30))


class Recorder:
    """A door that remembers calls; `pop` waits until `release`, `big` answers much."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None, bytes]] = []
        self.waiting = 0
        self.gone = 0
        self.release = asyncio.Event()
        self.answer: tuple[bytes | memoryview, ...] = (b"ok",)

    async def chan(self, call: door.Call) -> door.Reply:
        body = b""
        if call.name == "refused":
            return door.Reply(200, "text/plain", (b"no",))
        try:
            async with call.body(64 << 20) as got:
                body = bytes(got)
        except GatewayError as e:
            return door.Reply(200, "text/plain", (str(e).encode(),))
        self.calls.append((call.name, call.wait, body))
        if call.name == "pop":
            self.waiting += 1
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.gone += 1
                raise
            finally:
                self.waiting -= 1
        return door.Reply(200, "text/plain", self.answer)


class Listening:
    """A front and, on another port, what is behind it alone."""

    def __init__(self, limits: Limits, budget_bytes: int, folder: Path | None, disk_bytes: int, **changes: Any) -> None:
        self.doors = Recorder()
        self.behind_doors = Recorder()
        self.budget = Budget(process_bytes=budget_bytes, session_bytes=0, disk_bytes=disk_bytes)
        self.journal = rig.ListJournal()
        self.files = Files(folder, self.budget, self.journal, least=FILED)
        self.limits = limits
        made: dict[str, Any] = {"cancel_with_client": True, "address_connections": limits.connections, **changes}
        self.front = Front(
            doors=self.doors,  # type: ignore[arg-type]
            standing=standing(self.journal, limits),
            files=self.files,
            rooms=Rooms(8 << 20),
            limits=limits,
            journal=self.journal,
            rest=self.behind(self.doors),
            side="platform",
            **made,
        )
        self.alone = self.behind(self.behind_doors)
        self.port = self.alone_port = 0

    def behind(self, doors: Recorder) -> web.Server:
        listener = http_server.PlatformListener(
            doors=doors,  # type: ignore[arg-type]
            standing=standing(self.journal, self.limits),
            control=Control(),  # type: ignore[arg-type]
            files=self.files,
            journal=self.journal,
        )
        return http_server.server(listener, self.limits, cancel_with_client=True)


def standing(journal: rig.ListJournal, limits: Limits) -> Standing:
    return Standing(Edge(SystemClock()), most=limits.partner_connections, journal=journal)


class Control:
    async def handle(self, request: web.BaseRequest, *_: Any, **__: Any) -> web.StreamResponse:
        return web.Response(body=b"control " + await request.read())


@contextlib.asynccontextmanager
async def listening(
    *,
    limits: Limits | None = None,
    context: ssl.SSLContext | None = None,
    budget_bytes: int = 1 << 30,
    folder: Path | None = None,
    disk_bytes: int = 0,
    **changes: Any,
) -> AsyncIterator[Listening]:
    made = Listening(limits or Limits(), budget_bytes, folder, disk_bytes, **changes)
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(what, "127.0.0.1", 0, ssl=context, backlog=600) for what in (made.front, made.alone)
    ]
    made.port, made.alone_port = (server.sockets[0].getsockname()[1] for server in servers)
    try:
        yield made
    finally:
        for server in servers:
            server.close()
        await made.front.stop(1)
        await made.alone.shutdown(0.1)
        assert (made.budget.used, made.budget.on_disk) == (0, 0)


def post(name: str = "push", body: bytes = b"", *lines: str, length: int | None = None) -> bytes:
    extra = "".join(f"{line}\r\n" for line in lines)
    size = len(body) if length is None else length
    return (
        f"POST /v1/interconn/chan/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n{extra}\r\n".encode() + body
    )


LAST = post("push", b"last", "Connection: close")


async def exchange(port: int, data: bytes, *, context: ssl.SSLContext | None = None, first: bytes = b"") -> bytes:
    """What comes back until the other end closes. first: a request that is answered before `data` is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    begun = b""
    if first:
        writer.write(first)
        begun = await reader.readuntil(b"\r\n\r\nok")
    writer.write(data)
    try:
        return begun + await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def statuses(answer: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)


@both_loops
def test_requests_one_after_another_and_ahead_of_time(loop: Loop) -> None:
    """Bodies of any size around the buffers' edges, in pieces of any size, answered in order on one connection."""

    async def main() -> None:
        async with listening() as on:
            bodies = [os.urandom(size) for size in (0, 1, 65_000, 65_536, 70_000, 300_000, 5, 1 << 20)]
            data = b"".join(post("push", body) for body in bodies) + LAST
            answer = await exchange(on.port, data)
            assert answer.count(b"HTTP/1.1 200 OK\r\n") == len(bodies) + 1
            assert [body for _, _, body in on.doors.calls] == [*bodies, b"last"]
            on.doors.calls.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
            small = b"".join(post("push", body) for body in bodies[:3]) + LAST
            for at in range(0, len(small), 997):
                writer.write(small[at : at + 997])
                await asyncio.sleep(0)
            assert (await reader.read()).count(b"HTTP/1.1 200 OK\r\n") == 4
            writer.close()
            assert [body for _, _, body in on.doors.calls] == [*bodies[:3], b"last"]

    run(loop, main())


@both_loops
def test_the_same_over_tls(loop: Loop) -> None:
    async def main() -> None:
        with rig.folder() as folder:
            files = rig.issue(folder, rig.authority(), rig.urn(A))
            async with listening(context=tls.server_context(files.chain, files.key, [])) as on:
                bodies = [os.urandom(size) for size in (3, 100_000, 2 << 20)]
                on.doors.answer = (bytes(300_000), b"end")
                data = b"".join(post("push", body) for body in bodies)
                mixed = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + post("push", b"behind", "Connection: close")
                answer = await exchange(on.port, data + mixed, context=rig.partner_tls(None))
                assert [body for _, _, body in on.doors.calls] == [*bodies, b"behind"]
                assert answer.count(bytes(300_000) + b"end") == 4
                assert b"control " in answer
                await eventually(lambda: _nobody(on))

    run(loop, main())


def _nobody(on: Listening) -> bool:
    on.front._forget_away()
    return on.front.connections == 0 and not on.front._addresses


HIDDEN = post("push", b"hidden")
ODD = {
    "get": b"GET /v1/interconn/chan/push HTTP/1.1\r\nHost: x\r\n\r\n",
    "no length": b"POST /v1/interconn/chan/push HTTP/1.1\r\nHost: x\r\n\r\n",
    "old": b"POST /v1/interconn/chan/push HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
    "chunked": post("push", b"", "X: 1").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    + b"2\r\nhi\r\n0\r\n\r\n",
    "chunked, and a length": post("push", b"", "Transfer-Encoding: chunked", length=6) + b"0\r\n\r\n" + HIDDEN,
    "chunked, not quite": post("push", b"", "Transfer-Encoding: xchunked", length=len(HIDDEN)) + HIDDEN,
    "chunked, spelt with a space": post("push", b"", "Transfer-Encoding : chunked", length=len(HIDDEN)) + HIDDEN,
    "chunked, folded": post("push", b"", "Transfer-Encoding:\r\n chunked", length=len(HIDDEN)) + HIDDEN,
    "chunked, behind a bare line feed": post("push", b"", "X: y\nTransfer-Encoding: chunked", length=5) + b"0\r\n\r\n",
    "two lengths": post("push", b"", "Content-Length: 0", length=len(HIDDEN)) + HIDDEN,
    "two equal lengths": post("push", b"hi", "Content-Length: 2"),
    "a list of lengths": post("push", HIDDEN).replace(b"Content-Length: ", b"Content-Length: 0, "),
    "a signed length": post("push", HIDDEN).replace(b"Content-Length: ", b"Content-Length: +"),
    "a length in hex": post("push", b"hi").replace(b": 2", b": 0x2"),
    "a length with a zero before": post("push", b"hi").replace(b": 2", b": 02"),
    "bare line feeds": post("push", b"hi").replace(b"\r\n", b"\n") + b"\r\n\r\n",
    "a nul": post("push", b"hi", "X: a\0b"),
    "a lonely carriage return": post("push", b"hi", "X: a\rb: c"),
    "lines before the request": b"\r\n\r\n" + post("push", b"hi"),
    "an absolute address": post("push", b"hi").replace(b"/v1", b"http://x/v1", 1),
    "an encoded path": post("%70ush", b"hi"),
    "doubled slashes": post("push", b"hi").replace(b"chan/", b"chan//"),
    "utf-8 in a header": post("push", b"hi", "X-Ptp-Topic: ä"),
    "other queries": post("pop?timeout=x&timeout=1", b"hi").replace(b"pop?", b"push?"),
    "upgrade": post("push", b"hi", "Connection: close, upgrade", "Upgrade: h2c", "HTTP2-Settings: AA"),
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0",
    "two hosts": post("push", b"hi", "Host: y"),
    "names twice": post("push", b"hi", "X: 1", "x: 2"),
    "no http": b"hello\r\n\r\n",
}


@both_loops
@pytest.mark.parametrize("first", [b"", post("push", b"first")], ids=["alone", "second"])
def test_nothing_is_read_in_two_ways(loop: Loop, first: bytes) -> None:
    """Whatever is odd is read as aiohttp alone reads it, whether it opens a connection or follows a plain request."""

    async def main() -> None:
        async with listening() as on:
            for name, odd in ODD.items():
                on.doors.calls.clear()
                on.behind_doors.calls.clear()
                got = await exchange(on.port, first + odd + LAST)
                alone = await exchange(on.alone_port, odd + LAST, first=first)
                assert on.doors.calls == on.behind_doors.calls, name
                assert statuses(got) == statuses(alone), name
                assert ("push", None, b"hidden") not in on.doors.calls, name

    run(loop, main())


@both_loops
def test_who_waits_for_a_message_and_leaves_takes_none(loop: Loop) -> None:
    async def main() -> None:
        async with listening() as on:
            for leave in ("close", "abort", "half"):
                _, writer = await asyncio.open_connection("127.0.0.1", on.port)
                writer.write(post("pop?timeout=9", b""))
                await eventually(lambda: on.doors.waiting == 1)
                if leave == "half":
                    writer.write_eof()
                elif leave == "abort":
                    writer.transport.abort()
                else:
                    writer.close()
                await eventually(lambda: on.doors.waiting == 0)
                writer.close()
            assert on.doors.gone == 3
            assert [call[:2] for call in on.doors.calls] == [("pop", "9")] * 3
            await eventually(lambda: _nobody(on))

    run(loop, main())


@both_loops
def test_a_caller_that_ends_after_its_request_is_answered(loop: Loop) -> None:
    async def main() -> None:
        async with listening() as on:
            for body in (b"x", bytes(200_000)):
                reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
                writer.write(post("push", body))
                writer.write_eof()
                answer = await reader.read()
                assert answer.startswith(b"HTTP/1.1 200")
                writer.close()
            # Requests ahead of time too, up to one whose answer could get lost.
            reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
            on.doors.calls.clear()
            writer.write(post("push", b"1") + post("push", b"2") + post("pop", b"3") + post("push", b"4"))
            writer.write_eof()
            assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 2
            assert [body for _, _, body in on.doors.calls] == [b"1", b"2"]
            writer.close()
            # A body that ends early is no message and gets no answer.
            for body in (b"x", bytes(200_000)):
                on.doors.calls.clear()
                reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
                writer.write(post("push", body, length=300_000))
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
                assert on.doors.calls == []
            await eventually(lambda: _nobody(on))

    run(loop, main())


@both_loops
def test_a_refused_body_is_dropped_and_the_connection_goes_on(loop: Loop) -> None:
    async def main() -> None:
        async with listening(budget_bytes=100_000) as on:
            data = post("refused", bytes(500_000)) + post("refused", b"abc") + post("push", bytes(300_000))
            answer = await exchange(on.port, data + LAST)
            assert answer.count(b"HTTP/1.1 200 OK") == 4
            assert b"the process's buffer is full" in answer
            assert [call[2] for call in on.doors.calls] == [b"last"]
            closing = await exchange(on.port, post("refused", bytes(500_000), "Connection: close"))
            assert closing.endswith(b"no")

    run(loop, main())


@both_loops
def test_a_body_too_large_for_memory_goes_to_disk(loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        body = os.urandom(4 * FILED + 12_345)
        pieces = [body[at : at + FILED] for at in range(0, len(body), FILED)]
        chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        head = b"POST /v1/interconn/chan/push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        # A body of unknown length goes to disk once it is seen to be large.
        memory = FILED + (1 << 20)
        async with listening(budget_bytes=memory, folder=tmp_path, disk_bytes=5 * FILED) as made:
            for port, doors in ((made.port, made.doors), (made.alone_port, made.behind_doors)):
                await exchange(port, post("push", body) + post("push", b"next") + head + chunked + b"0\r\n\r\n" + LAST)
                assert [len(got) for _, _, got in doors.calls] == [len(body), 4, len(body), 4]
                assert doors.calls[0][2] == doors.calls[2][2] == body
            assert list(tmp_path.iterdir()) == []
        async with listening(budget_bytes=memory, folder=tmp_path, disk_bytes=FILED) as made:
            for port in (made.port, made.alone_port):
                assert b"the spool is full" in await exchange(port, post("push", body, "Connection: close"))
        async with listening(budget_bytes=memory, folder=tmp_path / "missing", disk_bytes=5 * FILED) as made:
            for port in (made.port, made.alone_port):
                assert b"cannot be written" in await exchange(port, post("push", body, "Connection: close"))

    run(loop, main())


@both_loops
def test_time_is_bounded(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "SWEEP_S", 0.02)
    monkeypatch.setattr(front, "HEAD_S", 0.1)
    monkeypatch.setattr(front, "IDLE_S", 0.3)
    monkeypatch.setattr(front, "LINGER_S", 0.1)
    monkeypatch.setattr(pace, "STALL_S", 0.1)

    async def main() -> None:
        async with listening() as on:
            assert await exchange(on.port, b"") == b""
            assert (await exchange(on.port, b"POST /v1/inter")).startswith(b"HTTP/1.1 408 ")
            assert (
                (await exchange(on.port, post("push", b"hi") + b"POS"))
                .split(b"\r\n")[-5]
                .endswith(b"408 Request Timeout")
            )
            assert b"body: stalled" in await exchange(on.port, post("push", b"hi", length=3))
            assert b"body: stalled" in await exchange(on.port, post("push", bytes(90_000), length=100_000))
            assert (await exchange(on.port, post("refused", b"", length=100_000))).endswith(b"no")
            monkeypatch.setattr(pace, "SLOWEST_BYTES_PER_S", 1 << 40)
            reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
            writer.write(post("push", b"", length=100))
            for _ in range(6):
                writer.write(b"x")
                await asyncio.sleep(0.01)
            assert b"body: too slow" in await reader.read()
            writer.close()
            # Who does not take the answer is cut off.
            on.doors.answer = (memoryview(bytes(32 << 20)),)
            reader, writer = await asyncio.open_connection("127.0.0.1", on.port, limit=1024)
            writer.write(post("push", b"x"))
            await eventually(lambda: _nobody(on))
            writer.close()

    run(loop, main())


@both_loops
def test_a_head_without_end(loop: Loop) -> None:
    async def main() -> None:
        async with listening() as on:
            for data in (b"POST /" + b"a" * 100_000, b"POST / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, bytes(100_000)):
                answer = await exchange(on.port, data)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
            assert on.doors.calls == []

    run(loop, main())


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def slow_ones(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Sockets that have begun a head and go no further."""
    found = []
    try:
        for _ in range(count):
            found.append(socket.create_connection(("127.0.0.1", port)))
            found[-1].send(b"POST /v1/interconn/chan/push HTTP/1.1\r\nHost: x\r\nx-ptp-")
        yield found
    finally:
        for one in found:
            one.close()


@both_loops
def test_many_who_never_finish_keep_nobody_out(loop: Loop) -> None:
    """Slowloris: with room for all of them, and with places for fewer than they are."""

    async def main() -> None:
        before = resident()
        async with listening() as on:
            reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
            with await asyncio.to_thread(_entered, slow_ones(on.port, 500)) as _:
                await eventually(lambda: on.front.connections == 501)
                assert resident() - before < 32 << 20
                assert (await exchange(on.port, LAST)).endswith(b"ok")
                writer.write(LAST)
                assert (await reader.read()).endswith(b"ok")
                writer.close()
        few = replace(Limits(), connections=20)
        async with listening(limits=few) as on:
            with await asyncio.to_thread(_entered, slow_ones(on.port, 50)) as _:
                for _ in range(5):
                    assert (await exchange(on.port, LAST)).endswith(b"ok")
                assert on.front.connections <= 20

    run(loop, main())


def _entered(manager: Any) -> Any:
    stack = contextlib.ExitStack()
    stack.enter_context(manager)
    return stack


@pytest.mark.parametrize("coding", ["gzip", "zstd", "deflate", "br", "gzip, identity"])
async def test_compressed_bodies_are_not_taken(coding: str) -> None:
    """Neither here nor by what is behind, so that there is nothing to blow up."""
    async with listening() as on:
        bomb = gzip.compress(bytes(16 << 20))
        plain = post("push", bomb, f"Content-Encoding: {coding}")
        chunked = post("push", b"", f"Content-Encoding: {coding}").replace(
            b"Content-Length: 0", b"Transfer-Encoding: chunked"
        )
        chunked += b"%x\r\n%s\r\n0\r\n\r\n" % (len(bomb), bomb)
        answer = await exchange(on.port, plain + post("push", b"x", "Content-Encoding: identity") + chunked + LAST)
        assert answer.count(b"compressed bodies are not taken") == 2
        assert [body for _, _, body in on.doors.calls] == [b"x", b"last"]


async def test_places_of_an_address_and_of_all() -> None:
    """Connections that have served keep their places; who comes when all are taken is refused."""
    few = replace(Limits(), connections=4)
    async with listening(limits=few, address_connections=3) as on:
        held = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
            writer.write(post("push", b"x"))
            await reader.readuntil(b"ok")
            held.append(writer)
        assert await exchange(on.port, LAST) == b""
        held.pop().close()
        await eventually(lambda: on.front.connections == 2)
        assert (await exchange(on.port, LAST)).endswith(b"ok")
        for writer in held:
            writer.close()
        await eventually(lambda: any(event["event"] == "edge.full" for event in on.journal.events))


class Pump(asyncio.Protocol):
    def __init__(self) -> None:
        self.got = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data
        if self.got.endswith(b"end"):
            self.transport.write(self.got)
            self.transport.close()


@both_loops
def test_http_2_goes_where_it_is_served(loop: Loop) -> None:
    async def main() -> None:
        begun = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes, end"
        async with listening(http2=Pump) as on:
            assert await exchange(on.port, begun) == begun
            assert (await exchange(on.port, post("push", b"x") + begun)).endswith(b"ok" + begun)
            await eventually(lambda: _nobody(on))

    run(loop, main())


@both_loops
def test_a_stopping_listener_lets_calls_end(loop: Loop) -> None:
    async def main() -> None:
        async with listening() as on:
            waiting = asyncio.create_task(exchange(on.port, post("pop", b"")))
            idle = asyncio.create_task(exchange(on.port, post("push", b"")))
            await eventually(lambda: on.doors.waiting == 1 and len(on.doors.calls) == 2)
            stopping = asyncio.create_task(on.front.stop(5))
            await asyncio.sleep(0)
            on.doors.release.set()
            await stopping
            assert b"Connection: close" in await waiting
            assert (await idle).endswith(b"ok")
            assert on.front.connections == 0

    run(loop, main())


async def test_the_platform_on_a_unix_socket() -> None:
    async with node(A) as a:
        a.process.channel.open_session(rig.rule(A))
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(a.folder / PLATFORM_SOCKET))) as client:
            here = rig.Container(client, "http://platform", "proto")
            assert (await here.push(A, bytes(100_000))).code == "E0000000000"
            assert (await here.pop()).payload == bytes(100_000)
            assert (await here.push(A, b"x", token="wrong")).code == "E0000000403"
            async with client.get("http://platform/healthz") as response:
                assert response.status == 200


async def test_large_messages_through_a_node() -> None:
    """The real door: pushed and popped bytes are the same, in one piece or many, and nothing stays behind."""
    async with node(A) as a:
        a.process.channel.open_session(rig.rule(A))
        payload = os.urandom(3 << 20)
        lines = [f"{name}: {value}" for name, value in rig.ns_headers(A, x_ptp_topic="t").items()]
        answer = await exchange(a.ports.platform, post("push", payload, *lines, "Connection: close"))
        assert b"E0000000000" in answer
        answer = await exchange(a.ports.platform, post("pop?timeout=1", b"", *lines, "Connection: close"))
        assert payload in answer
        assert a.process.stats()["bytes_held"] == 0
