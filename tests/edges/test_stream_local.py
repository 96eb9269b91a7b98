"""A task's line to its gateway over the Unix socket."""

import asyncio
import contextlib
import hashlib
import socket
import stat
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.data_plane.core import stream as st
from gateway.data_plane.io import stream_local
from gateway.model import Limits, NodeId
from gateway.sdk import channel
from gateway.sdk.async_channel import AsyncChannel
from gateway.sdk.channel import Channel, Line
from gateway.sdk.environment import Address
from gateway.sdk.local import LocalLine
from gateway.sdk.result import ComponentError
from tests.edges import rig
from tests.edges.rig import SID, Node, pair
from tests.waiting import eventually

OK = "E0000000000"
A, B = NodeId("LX-A"), NodeId("LX-B")
TO_A, TO_B = Address(A, "JG-A"), Address(B, "JG-B")


def task(at: Node, token: str = rig.TOKEN, **more: str) -> Channel:
    """A task's channel at a node."""
    local = str(at.folder / stream_local.SOCKET)
    return Channel(Line(f"127.0.0.1:{at.ports.platform}", SID, "trace-1", token, **{"local": local, **more}))


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


def lines(at: Node) -> int:
    return int(at.process.stats()["task_lines"])


async def test_a_task_sends_and_receives_over_the_socket() -> None:
    sizes = [0, 1, 1000, 100_000, 20 << 20]
    bodies = [hashlib.shake_256(bytes([n])).digest(size) for n, size in enumerate(sizes)]
    async with pair() as (a, b):
        here, there = task(a), task(b)
        path = a.folder / stream_local.SOCKET
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

        def send() -> None:
            for body in bodies:
                here.push("t", b"head", body[:7], memoryview(body)[7:], to=TO_B, deadline=soon())
            here.push("other", b"x", to=TO_A, deadline=soon())
            here.push("kept", b"y", to=TO_A, deadline=soon())

        def receive() -> None:
            for body in bodies:
                message = there.pop("t", source=TO_A, wait_ms=10_000, deadline=soon())
                assert message is not None
                assert bytes(message) == b"head" + body

        await asyncio.gather(asyncio.to_thread(send), asyncio.to_thread(receive))
        assert await asyncio.to_thread(there.pop, "t", source=TO_A, wait_ms=30, deadline=soon()) is None
        assert await asyncio.to_thread(here.peek, "nothing", source=TO_A) is None
        assert bytes(await asyncio.to_thread(here.peek, "other", source=TO_A)) == b"x"
        await asyncio.to_thread(here.release, "kept", target=TO_A)
        assert await asyncio.to_thread(here.peek, "kept", source=TO_A) is None
        assert a.process.channel.traffic.pushed_out == len(sizes)
        # The socket carried all of it, one line for each thread that used it.
        assert lines(a) >= 1
        assert lines(b) >= 1
        assert a.process.channel.stats()["bytes_held"] == b.process.channel.stats()["bytes_held"] == 0
        here.close()
        there.close()


async def test_what_is_too_large_for_the_socket_goes_over_http(tmp_path: Path) -> None:
    body = hashlib.shake_256(b"large").digest(stream_local.FRAME_BYTES + 1)
    limits = Limits(session_bytes=1 << 20, process_bytes=8 << 20)
    async with pair(limits=limits, spools=tmp_path) as (a, b):
        here, there = task(a), task(b)
        async with loopline(a, local=True) as loop_here, loopline(b, local=True) as loop_there:
            now = asyncio.get_running_loop().time()
            await loop_here.push("t", body, to=TO_B, deadline=now + 20)
            await asyncio.to_thread(here.push, "t", b"second", body, to=TO_B, deadline=soon(20))
            # What was asked for comes over the socket, whatever its size.
            first = await asyncio.to_thread(there.pop, "t", source=TO_A, wait_ms=1000, deadline=soon())
            assert bytes(first or b"") == body
            assert bytes(await loop_there.pop("t", source=TO_A, wait_ms=1000, deadline=now + 20) or b"")[6:] == body
            over_http = task(b, local="")
            await asyncio.to_thread(here.push, "t", body, to=TO_B, deadline=soon(20))
            third = await asyncio.to_thread(over_http.pop, "t", source=TO_A, wait_ms=1000, deadline=soon())
            assert bytes(third or b"") == body
        for one in (here, there, over_http):
            one.close()


async def test_without_the_socket_everything_goes_over_http() -> None:
    async with pair() as (a, _):
        here = task(a, local="/nowhere/tasks.sock")

        def send() -> None:
            here.push("t", b"1", to=TO_A, deadline=soon())
            assert bytes(here.pop("t", source=TO_A, wait_ms=1000, deadline=soon()) or b"") == b"1"
            here.close()

        await asyncio.to_thread(send)
        assert lines(a) == 0


@pytest.mark.parametrize(
    ("token", "node_id", "code"),
    [("wrong", B, "E0000000403"), ("", B, "E0000000403"), (rig.TOKEN, NodeId("LX-C"), "E0000000618")],
)
async def test_the_socket_alone_lets_nobody_in(token: str, node_id: NodeId, code: str) -> None:
    async with pair() as (a, _):
        here = task(a, token)
        to = Address(node_id, "")

        def tried() -> None:
            with pytest.raises(ComponentError, match=code):
                here.push("t", b"1", to=to, deadline=soon())
            with pytest.raises(ComponentError, match=code):
                here.pop("t", source=to, wait_ms=10, deadline=soon())
            here.close()

        await asyncio.to_thread(tried)
        assert a.process.channel.stats()["bytes_held"] == 0


async def test_a_token_that_ends_is_noticed_with_the_next_call() -> None:
    async with pair() as (a, _):
        here = task(a)
        await asyncio.to_thread(here.push, "t", b"1", to=TO_A, deadline=soon())
        a.process.channel.open_session(rig.rule(A, B, token="another task's"))
        with pytest.raises(ComponentError, match="E0000000403"):
            await asyncio.to_thread(here.push, "t", b"2", to=TO_A, deadline=soon())
        a.process.channel.close_session(SID)
        with pytest.raises(ComponentError, match="E0000000608"):
            await asyncio.to_thread(here.pop, "t", source=TO_A, wait_ms=10, deadline=soon())


async def test_a_reader_that_leaves_takes_nothing_with_it() -> None:
    async with pair() as (a, _):
        here = task(a)
        gone = task(a)

        def wait() -> None:
            with contextlib.suppress(ComponentError):
                gone.pop("t", source=TO_A, wait_ms=60_000, deadline=soon(0))

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        await eventually(lambda: a.process.channel.traffic.waiting == 1)
        for line in list(a.process._tasks._lines):
            line.end()
        await eventually(lambda: a.process.channel.traffic.waiting == 0)
        await asyncio.to_thread(here.push, "t", b"1", to=TO_A, deadline=soon())
        message = await asyncio.to_thread(here.pop, "t", source=TO_A, wait_ms=1000, deadline=soon())
        assert bytes(message or b"") == b"1"
        await asyncio.to_thread(thread.join, 5)


async def test_a_gateway_that_starts_anew_is_found_again() -> None:
    async with pair() as (a, _):
        here = task(a)
        await asyncio.to_thread(here.push, "t", b"1", to=TO_A, deadline=soon())
        await a.process._tasks.stop()
        pushing = asyncio.create_task(
            asyncio.to_thread(here.push, "t", b"2", to=TO_A, deadline=soon(), repeatable=True)
        )
        await asyncio.sleep(0.1)
        await a.process._tasks.start(a.folder)
        await pushing
        assert a.process.channel.traffic.pushed_local == 2


@contextlib.asynccontextmanager
async def raw(at: Node) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(str(at.folder / stream_local.SOCKET))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        st.pack(st.PING),
        st.pack_hello(st.Hello()) + st.pack(st.POP, flow=3),
        st.pack_hello(st.Hello()) + st.pack(st.CHUNK, size=3) + b"abc",
        st.pack_hello(st.Hello()) + st.pack(st.BEGIN, size=16),
        st.pack_hello(st.Hello()) + st.pack(st.MESSAGE, size=(128 << 20) + 1),
        st.pack_hello(st.Hello()) + st.pack_flow(9999, {"x-ptp-topic": "t"}),
    ],
)
async def test_who_does_not_speak_frames_is_hung_up_on(said: bytes) -> None:
    async with pair() as (a, _), raw(a) as (reader, writer):
        writer.write(said)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        await eventually(lambda: lines(a) == 0)


async def test_bounds_of_the_process_hold_on_the_socket_too() -> None:
    limits = Limits(process_bytes=1 << 20, session_bytes=1 << 20)
    async with pair(limits=limits) as (a, _):
        here = await asyncio.to_thread(LocalLine, str(a.folder / stream_local.SOCKET), seconds=5)
        said = rig.ns_headers(A) | {"x-ptp-topic": "t"}

        def tried() -> None:
            assert here.push(said, [bytes(2 << 20)], wait=5).code == "E0000000700"
            assert here.push(said, [bytes(100)], wait=5).code == OK
            assert here.push(said, [bytes(1)] * 3, name="not a name", wait=5).code == "E0000000400"
            assert here.push({**said, "x-ptp-topic": "a\x01"}, [b"1"], wait=5).code == "E0000000400"
            assert bytes(here.ask("pop", said, wait_ms=1000, wait=5).payload) == bytes(100)
            here.close()

        await asyncio.to_thread(tried)
        await eventually(lambda: a.process.channel.stats()["bytes_held"] == 0)


def test_headers_of_two_kinds_with_the_same_values_are_two_flows() -> None:
    """A release without a topic towards an instance, and one of a topic that is called so."""
    said = {"x-ptp-target-node-id": A}
    with rig.folder() as folder, socket.socket(socket.AF_UNIX) as listening:
        path = str(folder / "s")
        listening.bind(path)
        listening.listen()

        def greet() -> None:
            with listening.accept()[0] as peer:
                peer.sendall(st.pack_hello(st.Hello()))
                peer.makefile("rb").read()

        peer = threading.Thread(target=greet)
        peer.start()
        line = LocalLine(path, seconds=10)
        first = line._flow({**said, "x-ptp-target-inst-id": "n"})
        second = line._flow({**said, "x-ptp-topic": "n"})
        line.close()
        peer.join()
    assert first[1] != second[1]
    assert b"x-ptp-topic" in second[0]


def test_a_socket_where_nobody_speaks_frames() -> None:
    with rig.folder() as folder:
        path = str(folder / "s")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            with pytest.raises(OSError, match="timed out"):
                LocalLine(path, seconds=0.1)


# -- many calls on one line


@pytest.mark.parametrize("local", [True, False])
async def test_the_channel_of_a_loop(local: bool) -> None:
    async with pair() as (a, b):
        loop = asyncio.get_running_loop()
        ends = [loopline(at, local=local) for at in (a, b)]
        async with ends[0] as here, ends[1] as there:
            until = loop.time() + 10
            waiting = [
                asyncio.create_task(there.pop(f"t{n}", source=TO_A, wait_ms=10_000, deadline=until)) for n in range(5)
            ]
            for n in range(5):
                await here.push(f"t{n}", b"head", bytes([n]) * 100_000, to=TO_B, deadline=until)
            got = await asyncio.gather(*waiting)
            assert [bytes(message or b"") for message in got] == [b"head" + bytes([n]) * 100_000 for n in range(5)]
            array = np.arange(300_000.0).reshape(3, -1)
            await here.send("array", array, to=TO_B, deadline=until)
            np.testing.assert_array_equal(await there.recv("array", source=TO_A, wait_ms=10_000, deadline=until), array)
            assert await there.recv("array", source=TO_A, wait_ms=1, deadline=until) is None
            await here.push("t", b"", to=TO_A, deadline=until)
            await here.release("t", target=TO_A)
            assert await here.peek("t", source=TO_A) is None
            with pytest.raises(ComponentError, match="E0000000618"):
                await here.push("t", b"x", to=Address("LX-C", ""), deadline=until)
        await eventually(lambda: lines(a) == 0)


@pytest.mark.parametrize("local", [True, False])
async def test_what_was_not_acknowledged_comes_again_where_it_is_on_disk(tmp_path: Path, local: bool) -> None:
    async with pair(session=False, spools=tmp_path) as (a, b):
        for one in (a, b):
            one.process.channel.open_session(replace(rig.rule(A, B), durability="spool"))
        more = {} if local else {"local": ""}

        def passing() -> None:
            here, first, second = task(a, **more), task(b, **more), task(b, **more)
            for n in range(3):
                here.push("t", b"%d" % n, to=TO_B, deadline=soon())

            def read(reader: Channel) -> bytes:
                return bytes(reader.pop("t", source=TO_A, wait_ms=1000, deadline=soon()) or b"")

            assert [read(first), read(first)] == [b"0", b"1"]
            # Whoever comes in its place has what it has not said to have.
            assert [read(second), read(second)] == [b"1", b"2"]
            for one in (here, first, second):
                one.close()

        await asyncio.to_thread(passing)
        assert b.process.stats()["repeats_dropped"] == 0
        assert [str(lane[2])[0] for lane in b.process.channel._inbox.state(SID)] == ["t"]


async def test_a_loop_has_each_message_once(tmp_path: Path) -> None:
    async with pair(session=False, spools=tmp_path) as (a, b):
        for one in (a, b):
            one.process.channel.open_session(replace(rig.rule(A, B), durability="spool"))
        async with loopline(a, local=True, once=True) as here, loopline(b, local=True, once=True) as there:
            until = asyncio.get_running_loop().time() + 20

            def read() -> Coroutine[Any, Any, memoryview | None]:
                return there.pop("t", source=TO_A, wait_ms=5000, deadline=until)

            gone = asyncio.create_task(read())
            await eventually(lambda: b.process.stats()["waiting"] == 1)
            gone.cancel()
            pushes = [here.push("t", b"%d" % n, to=TO_B, deadline=until) for n in range(4)]
            got = await asyncio.gather(*(read() for _ in range(4)), *pushes)
            assert [bytes(each or b"") for each in got[:4]] == [b"0", b"1", b"2", b"3"]
            assert [str(lane[2])[0] for lane in b.process.channel._inbox.state(SID)] == ["t"]


async def test_in_memory_readers_take_turns_as_they_like() -> None:
    async with pair() as (a, b):

        def passing() -> None:
            here = task(a)
            readers = [task(b), task(b), task(b, local="")]
            for n in range(6):
                here.push("t", b"%d" % n, to=TO_B, deadline=soon())
            got = [one.pop("t", source=TO_A, wait_ms=1000, deadline=soon()) for _ in range(2) for one in readers]
            assert [bytes(each or b"") for each in got] == [b"%d" % n for n in range(6)]
            for one in (here, *readers):
                one.close()

        await asyncio.to_thread(passing)
        assert b.process.stats()["bytes_held"] == 0


def loopline(at: Node, *, local: bool, once: bool = False) -> AsyncChannel:
    path = str(at.folder / stream_local.SOCKET) if local else ""
    return AsyncChannel(Line(f"127.0.0.1:{at.ports.platform}", SID, "trace-1", rig.TOKEN, local=path), once=once)


async def test_pushes_of_one_line_keep_their_order_though_nobody_waits_between_them() -> None:
    async with pair() as (a, b), loopline(a, local=True) as here, loopline(b, local=True) as there:
        until = asyncio.get_running_loop().time() + 20
        pushes = [
            asyncio.create_task(here.push("t", n.to_bytes(2, "big"), to=TO_B, deadline=until)) for n in range(1000)
        ]
        for n in range(1000):
            message = await there.pop("t", source=TO_A, wait_ms=10_000, deadline=until)
            assert int.from_bytes(message or b"", "big") == n
        await asyncio.gather(*pushes)


async def test_pushes_keep_their_order_over_plain_http_too() -> None:
    async with pair() as (a, b), loopline(a, local=False) as here, loopline(b, local=True) as there:
        until = asyncio.get_running_loop().time() + 20
        pushes = [asyncio.create_task(here.push("t", bytes([n]), to=TO_B, deadline=until)) for n in range(40)]
        got = [await there.pop("t", source=TO_A, wait_ms=10_000, deadline=until) for _ in range(40)]
        assert [bytes(each or b"") for each in got] == [bytes([n]) for n in range(40)]
        await asyncio.gather(*pushes)


async def test_a_push_that_is_too_large_for_the_line_keeps_its_place() -> None:
    """It goes another way, and what is behind it waits."""
    async with pair() as (a, b), loopline(a, local=True) as here, loopline(b, local=True) as there:
        a.process._tasks.takes = replace(a.process._tasks.takes, whole=1 << 20)
        until = asyncio.get_running_loop().time() + 20
        sizes = [10, (1 << 20) + 1, 11, 12, (1 << 20) + 2, 13]
        pushes = [asyncio.create_task(here.push("t", bytes(size), to=TO_B, deadline=until)) for size in sizes]
        got = [await there.pop("t", source=TO_A, wait_ms=10_000, deadline=until) for _ in sizes]
        assert [len(each or b"") for each in got] == sizes
        await asyncio.gather(*pushes)
        assert here._orders == {}


async def test_a_push_that_is_refused_goes_before_all_that_were_not_sent() -> None:
    """Those behind it that were sent are beyond recall; of the others none overtakes, also if one gives up."""
    sent, full = list[bytes](), {1, 2}

    class Line:
        other = st.Hello(whole=1 << 20, total=0)

        async def push(self, _said: object, parts: list[bytes], _name: str) -> str:
            number = parts[0][0]
            sent.append(parts[0])
            await asyncio.sleep(0.001 * number)
            if number in full:
                full.discard(number)
                return "E0000000700"
            return OK

    here = AsyncChannel(channel.Line("127.0.0.1:1", SID, "trace-1", rig.TOKEN, local="x"))

    async def connected() -> Line:
        return Line()

    here._connected = connected  # type: ignore[method-assign,assignment]
    until = asyncio.get_running_loop().time() + 20
    pushes = [asyncio.create_task(here.push("t", bytes([n]), to=TO_B, deadline=until)) for n in range(4)]
    await eventually(lambda: full == set())
    late = asyncio.create_task(here.push("t", b"late", to=TO_B, deadline=asyncio.get_running_loop().time()))
    pushes += [asyncio.create_task(here.push("t", bytes([n]), to=TO_B, deadline=until)) for n in range(4, 6)]
    other = asyncio.create_task(here.push("u", b"u", to=TO_B, deadline=until))
    with pytest.raises(ComponentError, match="others wait"):
        await late
    await asyncio.gather(*pushes, other)
    assert [each[0] for each in sent if each != b"u"] == [0, 1, 2, 3, 1, 2, 4, 5]
    assert here._orders == {}


async def test_a_loop_finds_its_gateway_again() -> None:
    async with pair() as (a, _), loopline(a, local=True) as here:
        loop = asyncio.get_running_loop()
        await here.push("t", b"1", to=TO_A, deadline=loop.time() + 5)
        waiting = asyncio.create_task(here.pop("u", source=TO_A, wait_ms=5_000, deadline=loop.time() + 5))
        await eventually(lambda: a.process.channel.traffic.waiting == 1)
        for line in list(a.process._tasks._lines):
            line.end()
        await eventually(lambda: lines(a) == 1)
        await here.push("u", b"2", to=TO_A, deadline=loop.time() + 5, repeatable=True)
        assert bytes(await waiting or b"") == b"2"
