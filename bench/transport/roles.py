"""The processes of a measurement: `python -m bench.transport.roles ROLE JSON`; each prints JSON lines.

Servers say {"ready": ...} and serve until their input ends. Loads wait for a line, run `warm` and then `seconds`, and
print what they counted in the latter.
"""

import asyncio
import json
import os
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop
from aiohttp import web

from bench.transport.line import Line, connect, head
from gateway.auth.pki import Pki
from gateway.data_plane.core import wire
from gateway.data_plane.io import hop
from gateway.data_plane.io.link import snapshot_to_json
from gateway.data_plane.io.process import DataProcess, DataSettings
from gateway.model import InstId, Limits, NodeId, SessionId
from gateway.ports import PeerRoute, SessionRule
from gateway.runtime.system import SystemClock, SystemEntropy
from gateway.sdk.async_channel import AsyncChannel
from gateway.sdk.channel import Line as ChannelLine
from gateway.sdk.environment import Address

SID = "session_bench"
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
STAMP = struct.Struct("!q")


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def until_input_ends() -> None:
    await asyncio.to_thread(sys.stdin.read)


class Silent:
    """A journal that keeps nothing."""

    def note(self, event: str, **ids: str | float | bool | None) -> None:
        pass

    def recent(self, *, limit: int, **equals: str) -> Sequence[Any]:
        del limit, equals
        return []


# -- servers


async def gateway(config: dict[str, Any]) -> None:
    """A data process with real TLS, and in place of a control process one that has nothing to say."""
    run_dir = Path(config["folder"])
    node = NodeId(config["node"])
    pki = Pki.create(run_dir / "pki", node)

    async def snapshot(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(snapshot_to_json([], []))

    async def nothing(_: hop.Ask) -> hop.Reply:
        return hop.Reply(200, b'{"code":0,"msg":"success","data":{}}')

    await hop.HopServer(run_dir / hop.SOCKET, nothing, body_bytes=1 << 20).start()
    runner = web.ServerRunner(web.Server(snapshot, access_log=None))
    await runner.setup()
    await web.UnixSite(runner, str(run_dir / "control.sock")).start()
    settings = DataSettings(
        node_id=node,
        inst_id=InstId(f"inst-{node}"),
        edge_host="127.0.0.1",
        edge_port=0,
        tls_chain=pki.tls,
        tls_key=pki.tls_key,
        run_dir=run_dir,
        limits=Limits(**config.get("limits", {})),
        spool_dir=run_dir / "spool" if config.get("spool") else None,
        **config.get("settings", {}),
    )
    process = DataProcess(settings, journal=Silent(), clock=SystemClock(), entropy=SystemEntropy())
    ports = await process.start()
    say(ready={**asdict(ports), "ca": pki.ca.read_text(), "folder": str(run_dir)})
    told = json.loads(await asyncio.to_thread(sys.stdin.readline))
    peer = NodeId(told["node"])
    route = PeerRoute(peer, f"inst-{peer}", f"https://127.0.0.1:{told['edge']}", told["ca"], told["profile"])
    await process.set_routes([route])
    rule = SessionRule(SessionId(SID), (node, peer), {"*": "guest.0"}, {}, **told.get("rule", {}))
    process.channel.open_session(rule)
    say(ready=True)
    await until_input_ends()
    await process.stop()


async def grpc_server(config: dict[str, Any]) -> None:
    """The rival: grpc.aio, unary and stream of bytes, a small answer."""
    server = grpc.aio.server(options=OPTIONS)

    async def unary(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return b"ok"

    async def stream(requests: Any, _context: grpc.aio.ServicerContext) -> Any:
        async for _ in requests:
            yield b"ok"

    handlers = {
        "unary": grpc.unary_unary_rpc_method_handler(unary),
        "stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say(ready={"port": port})
    await until_input_ends()
    await server.stop(0)
    del config


async def aiohttp_server(config: dict[str, Any]) -> None:
    """The rival: bare aiohttp that reads a body and answers."""

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(body=b"ok")

    runner = web.ServerRunner(web.Server(take, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    say(ready={"port": runner.addresses[0][1]})
    await until_input_ends()
    del config


# -- loads


class Window:
    """Counts what is done between the end of the warm-up and the end of the window."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.start: float = time.monotonic() + config["warm"]
        self.end: float = self.start + config["seconds"]
        self.count = 0
        self.delays: list[float] = []

    @property
    def open(self) -> bool:
        return time.monotonic() < self.end

    def done(self, delay: float | None = None) -> None:
        if self.start <= time.monotonic() < self.end:
            self.count += 1
            if delay is not None:
                self.delays.append(delay)

    def tell(self) -> None:
        found = sorted(self.delays)
        at = {f"p{p}_ms": 1000 * found[min(len(found) - 1, p * len(found) // 100)] for p in (50, 99) if found}
        usage = time.process_time()
        say(rate=self.count / (self.end - self.start), cpu_s=usage, **at)


async def keep(depth: int, window: Window, one: Callable[[int], Awaitable[None]]) -> None:
    """`depth` at a time until the window ends; each says what it has done itself."""

    async def worker(number: int) -> None:
        while window.open:
            await one(number)

    await asyncio.gather(*(worker(n) for n in range(depth)))


def chan_headers(config: dict[str, Any], codec: str = "application/x-protobuf") -> dict[str, str]:
    return {
        "Content-Type": codec,
        "x-ptp-tech-provider-code": "bench",
        "x-ptp-trace-id": "trace-bench",
        "x-ptp-token": "token",
        "x-ptp-session-id": SID,
        "x-ptp-target-node-id": config["target"],
    }


def push_body(config: dict[str, Any]) -> tuple[bytes, bytearray]:
    """(what goes before the payload, payload) of a PushInbound."""
    topic, payload = config["topic"].encode(), bytearray(os.urandom(config["size"]))
    before = b"".join((*wire.member(1, topic), *wire.member(2, payload)))
    return before[: len(before) - len(payload)], payload


OK = b"E0000000000"


async def push(config: dict[str, Any]) -> None:
    """A container that pushes over HTTP. `drain`: after so many bytes on a line it drops its topic, as nobody reads."""
    before, payload = push_body(config)
    request = head("gateway", "/v1/interconn/chan/push", chan_headers(config), len(before) + len(payload))
    lines = [await connect(config["port"]) for _ in range(config["depth"])]
    release = head("gateway", "/v1/interconn/chan/release", chan_headers(config), 0)
    every = max(1, config.get("drain", 0) // len(payload) // len(lines)) if config.get("drain") else 0
    sent = [0] * len(lines)
    stamp = config.get("stamp", False)
    view = memoryview(payload)
    window = Window(config)

    async def one(number: int) -> None:
        line: Line = lines[number]
        if stamp:
            STAMP.pack_into(payload, 0, time.monotonic_ns())
        pieces = (b"".join((request, before, payload)),) if len(payload) <= 65536 else (request + before, view)
        answer = await line.ask(*pieces)
        if bytes(answer).find(OK) < 0:
            raise RuntimeError(bytes(answer[:200]).decode("latin-1"))
        window.done()
        sent[number] += 1
        if stamp and config.get("pause"):
            await asyncio.sleep(config["pause"])
        if every and sent[number] % every == 0:
            await line.ask(release)

    await keep(len(lines), window, one)
    window.tell()


async def grpc_push(config: dict[str, Any]) -> None:
    """As `push`, of a container that speaks gRPC: one connection, as its library has it."""
    before, payload = push_body(config)
    body = before + payload
    service = "/org.ppc.ptp.PrivateTransferTransport/"
    metadata = tuple((name, value) for name, value in chan_headers(config).items() if name != "Content-Type")
    window = Window(config)
    every = max(1, config["drain"] // len(payload) // config["depth"])
    sent = [0] * config["depth"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{config['port']}", options=OPTIONS) as channel:
        call, release = channel.unary_unary(service + "push"), channel.unary_unary(service + "release")

        async def one(number: int) -> None:
            answer = await call(body, metadata=metadata)
            if answer.find(OK) < 0:
                raise RuntimeError(answer[:200].decode("latin-1"))
            window.done()
            sent[number] += 1
            if sent[number] % every == 0:
                await release(b"", metadata=metadata)

        await keep(config["depth"], window, one)
        window.tell()


async def pop(config: dict[str, Any]) -> None:
    """A container that pops over HTTP; with `stamp`, the age of each message."""
    body = b"".join((*wire.member(1, config["topic"].encode()), b"\x10\xd0\x0f"))  # timeout 2000 ms
    request = head("gateway", "/v1/interconn/chan/pop", chan_headers(config), len(body)) + body
    lines = [await connect(config["port"]) for _ in range(config["depth"])]
    window = Window(config)
    stamp = config.get("stamp", False)

    async def one(number: int) -> None:
        answer = await lines[number].ask(request)
        now = time.monotonic_ns()
        payload = wire.delimited(wire.members(answer), 2)
        if len(payload):
            window.done((now - STAMP.unpack_from(payload)[0]) / 1e9 if stamp else None)

    await keep(len(lines), window, one)
    window.tell()


def task_channel(config: dict[str, Any]) -> AsyncChannel:
    """The component SDK's channel, over the gateway's Unix socket."""
    local = str(Path(config["folder"]) / "tasks.sock")
    return AsyncChannel(ChannelLine("unused", SID, "trace-bench", "token", local=local))


async def task_push(config: dict[str, Any]) -> None:
    """A task of our own that pushes: `depth` at a time on one line."""
    window, to, loop = Window(config), Address(config["target"], ""), asyncio.get_running_loop()
    payloads = [bytearray(os.urandom(config["size"])) for _ in range(config["depth"])]

    async with task_channel(config) as channel:

        async def one(number: int) -> None:
            STAMP.pack_into(payloads[number], 0, time.monotonic_ns())
            await channel.push(config["topic"], payloads[number], to=to, deadline=loop.time() + 30)
            window.done()
            if config.get("pause"):
                await asyncio.sleep(config["pause"])

        await keep(config["depth"], window, one)
    window.tell()


async def task_pop(config: dict[str, Any]) -> None:
    """A task of our own that pops."""
    window, source, loop = Window(config), Address(config["target"], ""), asyncio.get_running_loop()

    async with task_channel(config) as channel:

        async def one(_: int) -> None:
            message = await channel.pop(config["topic"], source=source, wait_ms=2000, deadline=loop.time() + 30)
            if message is not None:
                age = (time.monotonic_ns() - STAMP.unpack_from(message)[0]) / 1e9
                window.done(age if config.get("stamp") else None)

        await keep(config["depth"], window, one)
    window.tell()


async def grpc_unary(config: dict[str, Any]) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{config['port']}", options=OPTIONS) as channel:
        call = channel.unary_unary("/bench/unary")
        payload = os.urandom(config["size"])
        window = Window(config)

        async def one(_: int) -> None:
            await call(payload)
            window.done()

        await keep(config["depth"], window, one)
        window.tell()


async def grpc_stream(config: dict[str, Any]) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{config['port']}", options=OPTIONS) as channel:
        payload = os.urandom(config["size"])
        window = Window(config)
        call = channel.stream_stream("/bench/stream")()
        free = asyncio.Semaphore(config["depth"])

        async def write() -> None:
            while window.open:
                await free.acquire()
                await call.write(payload)
            await call.done_writing()

        async def read() -> None:
            async for _ in call:
                free.release()
                window.done()

        await asyncio.gather(write(), read())
        window.tell()


async def http_post(config: dict[str, Any]) -> None:
    """Load for the bare aiohttp rival, by the same client as the gateway's."""
    payload = os.urandom(config["size"])
    request = head("rival", "/", {}, len(payload))
    lines = [await connect(config["port"]) for _ in range(config["depth"])]
    window = Window(config)

    async def one(number: int) -> None:
        await lines[number].ask(*((request + payload,) if len(payload) <= 65536 else (request, memoryview(payload))))
        window.done()

    await keep(len(lines), window, one)
    window.tell()


ROLES: dict[str, Callable[[dict[str, Any]], Coroutine[Any, Any, None]]] = {
    "gateway": gateway,
    "grpc-server": grpc_server,
    "aiohttp-server": aiohttp_server,
    "push": push,
    "grpc-push": grpc_push,
    "pop": pop,
    "task-push": task_push,
    "task-pop": task_pop,
    "grpc-unary": grpc_unary,
    "grpc-stream": grpc_stream,
    "http-post": http_post,
}


def main() -> None:
    role, config = sys.argv[1], json.loads(sys.argv[2])
    if config.get("core") is not None:
        os.sched_setaffinity(0, {config["core"]})
    if not role.endswith("server") and role != "gateway":
        say(ready=True)
        sys.stdin.readline()
    uvloop.run(ROLES[role](config))


if __name__ == "__main__":
    main()
