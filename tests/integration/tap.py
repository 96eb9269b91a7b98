"""A recording proxy between two gateways: it holds both nodes' TLS keys and sees every byte in clear.

One `Tap` stands in front of one node's edge. Downstream it presents that node's own certificate; upstream it presents
the calling node's client certificate exactly when the caller presented one. Nothing is changed on the way.
"""

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path

CHUNK = 1 << 16


@dataclass
class Exchange:
    """One HTTP request and its answer as they stood on the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    status: int
    reply_headers: dict[str, str]
    reply: bytes
    client_certificate: bool

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass
class _Connection:
    certificate: bool
    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)


class Tap:
    """Listens on `port` for callers of the node whose keys are in `server_pki`; dials `upstream_port`."""

    def __init__(self, port: int, upstream_port: int, server_pki: Path, client_pki: Path) -> None:
        self.port = port
        self.upstream_port = upstream_port
        self.server_pki = server_pki
        self.client_pki = client_pki
        self.connections: list[_Connection] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_pki / "tls.pem", self.server_pki / "tls.key")
        context.load_verify_locations(self.client_pki / "ca.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=context)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        connection = _Connection(bool(writer.get_extra_info("peercert")))
        self.connections.append(connection)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.server_pki / "ca.pem")
        if connection.certificate:
            context.load_cert_chain(self.client_pki / "tls.pem", self.client_pki / "tls.key")
        with contextlib.suppress(OSError, ssl.SSLError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port, ssl=context)
            try:
                await asyncio.gather(
                    self._pump(reader, far_writer, connection.up), self._pump(far_reader, writer, connection.down)
                )
            finally:
                far_writer.close()
        writer.close()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(CHUNK):
                record += data
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError, ssl.SSLError):
            writer.close()

    def raw(self) -> bytes:
        """Everything that went through, both directions, connection by connection."""
        return b"\n".join(bytes(part) for c in self.connections for part in (c.up, c.down))

    def exchanges(self) -> list[Exchange]:
        """All complete exchanges; raises ValueError where a connection carried anything but HTTP/1.1."""
        found: list[Exchange] = []
        for connection in self.connections:
            requests = _messages(bytes(connection.up))
            replies = _messages(bytes(connection.down))
            if len(requests) - len(replies) not in (0, 1):
                raise ValueError(f"{len(requests)} requests, {len(replies)} replies on one connection")
            for (line, headers, body), (status, reply_headers, reply) in zip(requests, replies, strict=False):
                method, target, version = line.split(" ")
                if version != "HTTP/1.1":
                    raise ValueError(f"not HTTP/1.1: {line!r}")
                found.append(
                    Exchange(
                        method,
                        target,
                        headers,
                        body,
                        int(status.split(" ")[1]),
                        reply_headers,
                        reply,
                        connection.certificate,
                    )
                )
        return found


def _messages(stream: bytes) -> list[tuple[str, dict[str, str], bytes]]:
    found = []
    at = 0
    while at < len(stream):
        end = stream.find(b"\r\n\r\n", at)
        if end < 0:
            break
        first, *lines = stream[at:end].decode("ascii").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        at = end + 4
        if headers.get("transfer-encoding") == "chunked":
            body, at = _chunks(stream, at)
        else:
            size = int(headers.get("content-length", "0"))
            body = stream[at : at + size]
            if len(body) < size:
                break
            at += size
        found.append((first, headers, body))
    return found


def _chunks(stream: bytes, at: int) -> tuple[bytes, int]:
    body = bytearray()
    while True:
        end = stream.index(b"\r\n", at)
        size = int(stream[at:end].split(b";")[0], 16)
        at = end + 2
        body += stream[at : at + size]
        at += size + 2
        if size == 0:
            return bytes(body), at
