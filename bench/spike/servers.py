"""The server processes: a forwarding gateway, an edge in three layouts, and a sink for bulk bodies."""

import asyncio
import base64
import contextlib
import json
import signal
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp
from aiohttp import web

from bench.spike.frames import FrameConnection, Payload
from bench.spike.pki import Pki

BODY_LIMIT = 64 * 1024 * 1024
MAILBOX_BYTES = 32 * 1024 * 1024
UPGRADE = "interconn-frames"


@contextlib.asynccontextmanager
async def serving(app: web.Application, *sites: Callable[[web.AppRunner], web.BaseSite]) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        for site in sites:
            await site(runner).start()
        yield
    finally:
        await runner.cleanup()


async def until_terminated() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print("ready", flush=True)
    await stop.wait()


# -- items 1-4: container -> gateway A -> TLS -> gateway B -> container


@dataclass(slots=True)
class Mailbox:
    """One topic's queue, bounded in bytes: what does not fit is accepted only when a reader made room."""

    items: deque[Payload] = field(default_factory=deque)
    held: int = 0
    parked: deque[tuple[Payload, Callable[[], None]]] = field(default_factory=deque)
    readers: deque[asyncio.Future[Payload]] = field(default_factory=deque)
    subscriber: tuple[FrameConnection, bytes] | None = None
    credit: int = 0

    def put(self, payload: Payload, accepted: Callable[[], None]) -> None:
        if self.held and self.held + len(payload) > MAILBOX_BYTES:
            self.parked.append((payload, accepted))
            return
        self.items.append(payload)
        self.held += len(payload)
        accepted()
        self.pump()

    def pump(self) -> None:
        while self.items:
            while self.readers and self.readers[0].done():
                self.readers.popleft()
            if self.readers:
                self.readers.popleft().set_result(self._take())
            elif self.subscriber is not None and self.credit > 0:
                self.credit -= 1
                connection, topic = self.subscriber
                connection.submit(topic, self._take(), self._returned)
            else:
                return

    def _returned(self) -> None:
        self.credit += 1
        self.pump()

    def _take(self) -> Payload:
        payload = self.items.popleft()
        self.held -= len(payload)
        while self.parked and self.held + len(self.parked[0][0]) <= MAILBOX_BYTES:
            parked, accepted = self.parked.popleft()
            self.items.append(parked)
            self.held += len(parked)
            accepted()
        return payload


async def gateway(config: dict[str, Any]) -> None:
    """Container side on `http_port` and `uds`; partner side, always mutual TLS, on `wire_port` (http or framed)."""
    pki = Pki(*config["pki"])
    loop = asyncio.get_running_loop()
    mailboxes: dict[bytes, Mailbox] = {}

    def mailbox(topic: bytes) -> Mailbox:
        return mailboxes.setdefault(topic, Mailbox())

    async def invoke(request: web.Request) -> web.Response:
        payload = await request.read()
        accepted = loop.create_future()
        mailbox(request.headers["x-ptp-topic"].encode()).put(payload, lambda: accepted.set_result(None))
        await accepted
        return web.Response(body=b'{"code":"E0000000000"}')

    def arrived(connection: FrameConnection, topic: bytes, payload: Payload, sequence: int) -> None:
        mailbox(topic).put(payload, lambda: connection.acknowledge(sequence))

    connector = aiohttp.TCPConnector(limit=128)
    session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
    client_tls = pki.client()
    peer = f"https://localhost:{config['peer_port']}/v1/interconn/chan/invoke"
    wire: FrameConnection | None = None
    wire_lock = asyncio.Lock()

    async def framed_peer() -> FrameConnection:
        nonlocal wire
        async with wire_lock:
            if wire is None:
                _, wire = await loop.create_connection(
                    FrameConnection, "127.0.0.1", config["peer_port"], ssl=client_tls, server_hostname="localhost"
                )
        return wire

    async def push(request: web.Request) -> web.Response:
        payload = await request.read()
        topic = request.headers["x-ptp-topic"]
        if config["wire"] == "http":
            async with session.post(
                peer, data=payload, ssl=client_tls, headers={"x-ptp-topic": topic, "x-ptp-version": "1"}
            ) as answer:
                return web.Response(body=await answer.read(), status=answer.status)
        done = loop.create_future()
        (wire or await framed_peer()).submit(topic.encode(), payload, partial(_end, done))
        await done
        return web.Response(body=b'{"code":"E0000000000"}')

    async def pop(request: web.Request) -> web.Response:
        box = mailbox(request.headers["x-ptp-topic"].encode())
        reader: asyncio.Future[Payload] = loop.create_future()
        box.readers.append(reader)
        box.pump()
        return web.Response(body=await reader)

    def forward(connection: FrameConnection, topic: bytes, payload: Payload, sequence: int) -> None:
        assert wire is not None
        wire.submit(topic, payload, lambda: connection.acknowledge(sequence))

    def subscribed(connection: FrameConnection, topic: bytes, credit: int) -> None:
        box = mailbox(topic)
        box.subscriber, box.credit = (connection, topic), credit
        box.pump()

    containers = web.Application(client_max_size=BODY_LIMIT)
    containers.router.add_post("/v1/interconn/chan/push", push)
    containers.router.add_post("/v1/interconn/chan/pop", pop)
    edge = web.Application(client_max_size=BODY_LIMIT)
    edge.router.add_post("/v1/interconn/chan/invoke", invoke)
    server_tls = pki.server()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(session.close)
        await stack.enter_async_context(
            serving(containers, lambda r: web.TCPSite(r, "127.0.0.1", config["http_port"], backlog=512))
        )
        if config["wire"] == "http":
            await stack.enter_async_context(
                serving(edge, lambda r: web.TCPSite(r, "127.0.0.1", config["wire_port"], ssl_context=server_tls))
            )
        else:
            await loop.create_server(
                lambda: FrameConnection(on_data=arrived), "127.0.0.1", config["wire_port"], ssl=server_tls
            )
        await loop.create_unix_server(lambda: FrameConnection(on_data=forward, on_subscribe=subscribed), config["uds"])
        if config["wire"] == "framed" and config["dials"]:
            await _when_listening(config["peer_port"])
            await framed_peer()
        await until_terminated()


async def _when_listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


# -- items 6 and 7: who owns the edge


def _end(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)


async def edge(config: dict[str, Any]) -> None:
    """One building block for all layouts. It listens with TLS (`port`) or on a Unix socket (`uds`), and answers
    management calls and channel bodies itself or hands them to the process behind `manage_uds` / `chan_uds`
    (`chan_json_only`: of the bodies, only those that must be decoded).
    """
    manage = _unix_session(config.get("manage_uds"))
    chan = _unix_session(config.get("chan_uds"))

    async def status(request: web.Request) -> web.Response:
        if manage is not None:
            assert request.transport is not None
            tls = request.transport.get_extra_info("ssl_object")
            leaf = tls.getpeercert(binary_form=True)
            headers = {
                "content-type": "application/json",
                "x-interconn-peer-certificate": base64.b64encode(leaf).decode() if leaf else "",
                "x-hold-ms": request.headers.get("x-hold-ms", "0"),
            }
            url = "http://control" + request.raw_path
            async with manage.request(request.method, url, data=await request.read(), headers=headers) as answer:
                return web.Response(body=await answer.read(), status=answer.status, content_type="application/json")
        await request.json()
        # Stands for what a control process does without giving way: a commit, a signature, a big document.
        time.sleep(float(request.headers.get("x-hold-ms", "0")) / 1e3)  # noqa: ASYNC251  # holding the loop is the point
        return web.json_response({"code": 0, "msg": "success", "data": {"status": "APPROVED", "pad": "x" * 300}})

    async def invoke(request: web.Request) -> web.Response:
        is_json = request.content_type == "application/json"
        if chan is None or (config.get("chan_json_only") and not is_json):
            payload = await request.read()
            if is_json:
                base64.b64decode(json.loads(payload)["payload"])
            return web.Response(body=b'{"code":"E0000000000"}')
        headers = {"content-type": request.content_type, "content-length": str(request.content_length)}
        async with chan.post("http://data" + request.raw_path, data=request.content, headers=headers) as answer:
            return web.Response(body=await answer.read(), status=answer.status)

    async def transport(request: web.Request) -> web.StreamResponse:
        """The same port carries frames after an HTTP upgrade, so that one address is all a partner needs."""
        if request.headers.get("upgrade") != UPGRADE:
            raise web.HTTPUpgradeRequired
        answer = web.StreamResponse(status=101, headers={"upgrade": UPGRADE, "connection": "upgrade"})
        await answer.prepare(request)
        frames = FrameConnection(on_data=lambda c, _topic, _payload, sequence: c.acknowledge(sequence))
        channel = request.transport
        assert channel is not None
        channel.set_protocol(frames)
        frames.connection_made(channel)
        await frames.closed
        return answer

    app = web.Application(client_max_size=BODY_LIMIT)
    app.router.add_post("/v1/interconn/chan/invoke", invoke)
    app.router.add_get("/v1/interconn/chan/transport", transport)
    app.router.add_post("/v1/interconn/node/status", status)
    sites: list[Callable[[web.AppRunner], web.BaseSite]] = []
    if config.get("uds"):
        sites.append(lambda r: web.UnixSite(r, config["uds"]))
    if config.get("port"):
        tls = Pki(*config["pki"]).server()
        sites.append(lambda r: web.TCPSite(r, "127.0.0.1", config["port"], ssl_context=tls))
    async with contextlib.AsyncExitStack() as stack:
        for session in (manage, chan):
            if session is not None:
                stack.push_async_callback(session.close)
        await stack.enter_async_context(serving(app, *sites))
        await until_terminated()


def _unix_session(path: str | None) -> aiohttp.ClientSession | None:
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(path, limit=64)) if path else None


# -- item 5: bulk bodies on one leg


async def sink(config: dict[str, Any]) -> None:
    """Takes bodies by `mode`: aiohttp's joined `read()`, aiohttp's stream copied into a prepared buffer, or frames."""
    tls = Pki(*config["pki"]).server() if config["tls"] else None

    async def joined(request: web.Request) -> web.Response:
        payload = await request.read()
        return web.Response(text=str(len(payload)))

    async def streamed(request: web.Request) -> web.Response:
        buffer = bytearray(request.content_length or 0)
        at = 0
        async for piece in request.content.iter_any():
            buffer[at : at + len(piece)] = piece
            at += len(piece)
        return web.Response(text=str(at))

    if config["mode"] == "framed":
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: FrameConnection(on_data=lambda c, _topic, _payload, sequence: c.acknowledge(sequence)),
            "127.0.0.1",
            config["port"],
            ssl=tls,
        )
        await until_terminated()
        server.close()
        return
    app = web.Application(client_max_size=BODY_LIMIT)
    app.router.add_post("/", joined if config["mode"] == "joined" else streamed)
    async with serving(app, lambda r: web.TCPSite(r, "127.0.0.1", config["port"], ssl_context=tls)):
        await until_terminated()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
