"""The client processes: sending and receiving containers, a bulk sender and a prober of management calls.

Each prints one line of JSON with its figures. A window of `seconds` follows a warm-up of `warm` seconds.
"""

import asyncio
import base64
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from bench.spike.frames import FrameConnection, Payload
from bench.spike.pki import Pki
from bench.spike.servers import UPGRADE

END = b"end"
PROBE_EVERY = 0.01  # seconds
PROBE_CONNECTIONS = 4


def report(**figures: float | list[float]) -> None:
    print(json.dumps(figures), flush=True)


async def _keep_in_flight(depth: int, one: Callable[[], Awaitable[None]], until: float) -> None:
    async def worker() -> None:
        while time.perf_counter() < until:
            await one()

    await asyncio.gather(*(worker() for _ in range(depth)))


# -- containers (items 1-4)


async def sender(config: dict[str, Any]) -> None:
    """Pushes for warm + seconds + a little, then one `end` message for each pending read of the receiver."""
    payload = bytes(config["size"])
    until = time.perf_counter() + config["warm"] + config["seconds"] + 0.3
    topic = config["topic"]
    if config["container"] == "framed":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(FrameConnection, config["uds"])

        async def push(data: bytes = payload) -> None:
            done = loop.create_future()
            connection.submit(topic.encode(), data, lambda: done.set_result(None))
            await done

        await _keep_in_flight(config["depth"], push, until)
        await push(END)
        connection.close()
        return
    url = f"http://127.0.0.1:{config['http_port']}/v1/interconn/chan/push"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def push(data: bytes = payload) -> None:
            async with session.post(url, data=data, headers={"x-ptp-topic": topic}) as answer:
                await answer.read()
                answer.raise_for_status()

        await _keep_in_flight(config["depth"], push, until)
        for _ in range(config["depth"]):
            await push(END)


class _Window:
    """Counts messages from the first turn after the warm-up to the end of the window."""

    def __init__(self, warm: float, seconds: float) -> None:
        self._warm, self._seconds = warm, seconds
        self._first = 0.0
        self._began = self._last = 0.0
        self._count = 0

    def message(self) -> None:
        now = time.perf_counter()
        if not self._first:
            self._first = now
        elif not self._began:
            if now >= self._first + self._warm:
                self._began = now
        elif now <= self._began + self._seconds:
            self._count += 1
            self._last = now

    @property
    def rate(self) -> float:
        return self._count / (self._last - self._began) if self._count else 0.0


async def receiver(config: dict[str, Any]) -> None:
    window = _Window(config["warm"], config["seconds"])
    topic = config["topic"]
    if config["container"] == "framed":
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def arrived(connection: FrameConnection, _topic: bytes, payload: Payload, sequence: int) -> None:
            connection.acknowledge(sequence)
            if payload == END:
                ended.set_result(None)
            else:
                window.message()

        _, connection = await loop.create_unix_connection(lambda: FrameConnection(on_data=arrived), config["uds"])
        connection.subscribe(topic.encode(), config["depth"])
        await ended
        await asyncio.sleep(0.02)  # lets the last acknowledgement leave
        connection.close()
    else:
        url = f"http://127.0.0.1:{config['http_port']}/v1/interconn/chan/pop"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def reader() -> None:
                while True:
                    async with session.post(url, headers={"x-ptp-topic": topic}) as answer:
                        if await answer.read() == END:
                            return
                    window.message()

            await asyncio.gather(*(reader() for _ in range(config["depth"])))
    report(rate=window.rate)


# -- bulk (items 5 and 6)


async def _framed(config: dict[str, Any]) -> FrameConnection:
    loop = asyncio.get_running_loop()
    tls = Pki(*config["pki"]).client() if config["tls"] else None
    name = "localhost" if tls else None
    if not config.get("upgrade"):
        _, connection = await loop.create_connection(
            FrameConnection, "127.0.0.1", config["port"], ssl=tls, server_hostname=name
        )
        return connection
    reader, writer = await asyncio.open_connection("127.0.0.1", config["port"], ssl=tls, server_hostname=name)
    head = f"GET /v1/interconn/chan/transport HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: {UPGRADE}"
    writer.write(f"{head}\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101"), answer
    connection = FrameConnection()
    writer.transport.set_protocol(connection)
    connection.connection_made(writer.transport)
    # The stream writer would close the transport when it is collected.
    connection.stream = (reader, writer)
    return connection


async def bulk(config: dict[str, Any]) -> None:
    """Bodies of `size`, `depth` of them in flight, over HTTP or as frames: how many a second the far side takes.

    `json` wraps the payload as the standard's JSON body does, which the far side then decodes.
    """
    if config.get("nice"):
        os.nice(config["nice"])
    payload = bytes(config["size"])
    kind = "application/octet-stream"
    if config.get("json"):
        payload = json.dumps({"topic": "bulk", "payload": base64.b64encode(payload).decode()}).encode()
        kind = "application/json"
    end = time.perf_counter() + config["warm"] + config["seconds"]
    window = _Window(config["warm"], config["seconds"])
    if config["framed"]:
        loop = asyncio.get_running_loop()
        connection = await _framed(config)

        async def push() -> None:
            done = loop.create_future()
            connection.submit(b"bulk", payload, lambda: done.set_result(None))
            await done
            window.message()

        await _keep_in_flight(config["depth"], push, end + 0.1)
        connection.close()
    elif config.get("bare"):
        await asyncio.gather(*(_bare_posts(config, payload, window, end + 0.1) for _ in range(config["depth"])))
    else:
        tls = Pki(*config["pki"]).client() if config["tls"] else None
        scheme = "https" if tls else "http"
        url = f"{scheme}://localhost:{config['port']}{config['path']}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def push() -> None:
                async with session.post(url, data=payload, headers={"content-type": kind}, ssl=tls or True) as answer:
                    await answer.read()
                    answer.raise_for_status()
                window.message()

            await _keep_in_flight(config["depth"], push, end + 0.1)
    report(rate=window.rate)


async def _bare_posts(config: dict[str, Any], payload: bytes, window: _Window, until: float) -> None:
    """HTTP without an HTTP client, so that a receiver's cost can be told from the client library's."""
    tls = Pki(*config["pki"]).client() if config["tls"] else None
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", config["port"], ssl=tls, server_hostname="localhost" if tls else None
    )
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
    while time.perf_counter() < until:
        writer.write(head)
        writer.write(payload)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        window.message()
    writer.close()


async def prober(config: dict[str, Any]) -> None:
    """A management call of some 500 bytes every `PROBE_EVERY` seconds over a few kept connections.

    A call is timed from the moment it was due, not from when a connection was free: a stall counts for every call hit.
    """
    body = json.dumps({"contract_id": "c" * 32, "pad": "p" * 440}).encode()
    if config.get("uds"):
        connector: aiohttp.BaseConnector = aiohttp.UnixConnector(config["uds"], limit=PROBE_CONNECTIONS)
        url = "http://control/v1/interconn/node/status"
    else:
        connector = aiohttp.TCPConnector(ssl=Pki(*config["pki"]).client(), limit=PROBE_CONNECTIONS)
        url = f"https://localhost:{config['port']}/v1/interconn/node/status"
    latencies: list[float] = []
    headers = {"content-type": "application/json", "x-hold-ms": str(config.get("hold_ms", 0))}
    async with aiohttp.ClientSession(connector=connector) as session:

        async def call(due: float, into: list[float]) -> None:
            async with session.post(url, data=body, headers=headers) as answer:
                await answer.read()
                answer.raise_for_status()
            into.append((time.perf_counter() - due) * 1e3)

        await asyncio.gather(*(call(0, []) for _ in range(PROBE_CONNECTIONS)))
        start = time.perf_counter() + config["warm"]
        calls = []
        for number in range(int(config["seconds"] / PROBE_EVERY)):
            due = start + number * PROBE_EVERY
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            calls.append(asyncio.create_task(call(due, latencies)))
        await asyncio.gather(*calls)
    report(latencies=latencies)
