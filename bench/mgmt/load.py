"""The client process: `python -m bench.mgmt.load` reads one job (JSON) from stdin and prints its figures.

Requests are signed before the clock starts and sent over kept connections, one in flight on each, so that the client
costs as little as a client in Python can. A latency is from the first byte sent to the last byte of the answer.
"""

import asyncio
import itertools
import json
import os
import ssl
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.mgmt.wire import Writer
from gateway.data_plane.io.process import loop_factory

PREFIX = "/v1/interconn/"


def requests(job: dict[str, Any], writer: Writer) -> Iterator[bytes]:
    """What one connection sends, without end."""
    kind, contract = job["what"], job["contract_id"]
    if kind == "write":
        while True:
            audit = f"au-{uuid.uuid4().hex}"
            body = {"audit_id": audit, "dataset_id": job["dataset_id"], "contract_id": contract}
            yield writer.request("POST", PREFIX + "dataset/audit/apply", body)
            yield writer.request("POST", PREFIX + "dataset/audit/terminate", {"audit_id": audit})
    path, query = {
        "read": ("dataset/pub/query", {"contract_id": contract, "dataset_id": job["dataset_id"]}),
        "list": ("dataset/pub/list", {"contract_id": contract, "page_num": job.get("page", 1), "page_size": 20}),
    }[kind]
    while True:
        yield writer.request("GET", PREFIX + path, query)


class Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last is complete."""

    def __init__(self, requests: list[bytes], until: float, done: asyncio.Future[None]) -> None:
        self._requests = iter(requests)
        self.until = until
        self._done = done
        self._buffer = bytearray()
        self._expected = -1
        self._begun = 0.0
        self.times: list[tuple[float, float]] = []
        """(when it was sent, seconds it took)."""
        self.bad: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def start(self) -> None:
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None or time.perf_counter() >= self.until:
            if not self._done.done():
                self._done.set_result(None)
            return
        self._begun = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._expected < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            at = head.find(b"content-length:")
            if at < 0:
                self._expected = 0 if self._buffer.endswith(b"0\r\n\r\n") else -1
                if self._expected < 0:
                    return
                self._expected = len(self._buffer)
            else:
                self._expected = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < self._expected:
            return
        now = time.perf_counter()
        self.times.append((self._begun, now - self._begun))
        if b'"code":0' not in self._buffer:
            self.bad.append(bytes(self._buffer[-300:]).decode("latin-1"))
        self._buffer.clear()
        self._expected = -1
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self.bad.append(f"connection lost: {error}")
            self._done.set_result(None)


async def run(job: dict[str, Any]) -> dict[str, Any]:
    pki = Path(job["pki"])
    writer = Writer(job["source"], job["target"], pki)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(job["ca"])
    context.load_cert_chain(pki / "tls.pem", pki / "tls.key")
    count = job["concurrency"]
    each = [list(itertools.islice(requests(job, writer), job["most"] // count)) for _ in range(count)]
    loop = asyncio.get_running_loop()
    opened = []
    for mine in each:
        done = loop.create_future()
        _, protocol = await loop.create_connection(
            partial(Connection, mine, 0.0, done), "127.0.0.1", job["port"], ssl=context
        )
        opened.append((protocol, done))
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    begun = time.perf_counter()
    until = begun + job["warm"] + job["seconds"]
    for protocol, _ in opened:
        protocol.until = until
        protocol.start()
    cpu = time.process_time()
    await asyncio.gather(*(done for _, done in opened))
    ended = time.perf_counter()
    for protocol, _ in opened:
        protocol.transport.close()
    start, end = begun + job["warm"], min(until, ended)
    taken = sorted(t for protocol, _ in opened for at, t in protocol.times if start <= at and at + t <= end)
    bad = [text for protocol, _ in opened for text in protocol.bad]
    if not taken:
        return {"requests": 0, "bad": len(bad), "example": bad[:1]}
    return {
        "requests": len(taken),
        "all_requests": sum(len(protocol.times) for protocol, _ in opened),
        "seconds": end - start,
        "rate": len(taken) / (end - start),
        "p50_ms": 1000 * taken[len(taken) // 2],
        "p99_ms": 1000 * taken[min(len(taken) - 1, len(taken) * 99 // 100)],
        "max_ms": 1000 * taken[-1],
        "bad": len(bad),
        "example": bad[:1],
        "client_cpu_share": (time.process_time() - cpu) / (ended - begun),
    }


def main() -> None:
    job = json.loads(sys.stdin.readline())
    if job["core"] is not None:
        os.sched_setaffinity(0, {job["core"]})
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        print(json.dumps(runner.run(run(job))), flush=True)


if __name__ == "__main__":
    main()
