"""Two data processes with a control process each that only answers what it is told, on real sockets of loopback."""

import base64
import contextlib
import datetime as dt
import hashlib
import json
import shutil
import ssl
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.data_plane.core import frame as fr
from gateway.data_plane.io import hop, tls
from gateway.data_plane.io.link import snapshot_to_json
from gateway.data_plane.io.process import DataProcess, DataSettings, Ports
from gateway.model import InstId, Limits, NodeId, SessionId
from gateway.ports import PeerRoute, SessionRule
from gateway.runtime.system import SystemClock, SystemEntropy
from specs.proto import ptp_pb2

CHAN = "/v1/interconn/chan/"
SID = SessionId("session_job-1")
TOKEN = "secret-of-the-task"
PERMIT = "permit-for-the-partner"


class ListJournal:
    """Events in memory."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []

    def note(self, event: str, **ids: str | float | bool | None) -> None:
        self.events.append({"event": event, **ids})

    def recent(self, *, limit: int, **equals: str) -> Sequence[Mapping[str, Any]]:
        return [e for e in self.events if all(e.get(k) == v for k, v in equals.items())][-limit:]


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA of a node."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


def authority(name: str = "") -> Authority:
    """A CA of the given name, or of one of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name or f"CA {uuid.uuid4()}")])
    certificate = _builder(subject, subject, key, days=1).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    return Authority(key, certificate.sign(key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: float
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(now + dt.timedelta(days=days))
    )


@dataclass(frozen=True, slots=True)
class Files:
    """A TLS certificate with its key, as files."""

    chain: Path
    key: Path


def issue(folder: Path, ca: Authority, *uris: str, days: float = 1, name: str = "tls") -> Files:
    """A leaf under `ca` whose SAN names `uris`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    certificate = (
        _builder(subject, ca.certificate.subject, key, days=days)
        .add_extension(x509.SubjectAlternativeName([*names, x509.DNSName("localhost")]), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    files = Files(folder / f"{name}.pem", folder / f"{name}.key")
    files.chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + ca.pem.encode())
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def urn(node: str) -> str:
    return f"urn:interconn:node:{node}"


@dataclass(slots=True)
class Seen:
    """A request that control, or a partner, got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    certificate: bytes | None = None
    address: str = ""


@dataclass(slots=True)
class FakeControl:
    """Serves control.sock, a snapshot, and frames.sock, an echo."""

    run_dir: Path
    routes: list[PeerRoute] = field(default_factory=list)
    rules: list[SessionRule] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    answer: Callable[[hop.Ask], hop.Reply] | None = None
    runner: web.ServerRunner | None = None
    frames: hop.HopServer | None = None

    async def start(self) -> None:
        self.frames = hop.HopServer(self.run_dir / hop.SOCKET, self._forwarded, body_bytes=64 << 20)
        await self.frames.start()
        self.runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self.runner.setup()
        await web.UnixSite(self.runner, str(self.run_dir / "control.sock")).start()

    async def stop(self) -> None:
        if self.frames is not None:
            await self.frames.stop(0.1)
        if self.runner is not None:
            await self.runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.path == "/link/snapshot"
        return web.json_response(snapshot_to_json(self.routes, self.rules))

    async def _forwarded(self, ask: hop.Ask) -> hop.Reply:
        headers = {name.lower(): value for name, value in zip(ask.headers[::2], ask.headers[1::2], strict=True)}
        path = f"/{ask.door}{ask.path}{'?' + ask.query if ask.query else ''}"
        self.seen.append(Seen(ask.method, path, headers, bytes(ask.body), ask.certificate, ask.address))
        if self.answer is not None:
            return self.answer(ask)
        return hop.Reply(200, json.dumps({"code": 0, "msg": "success", "data": {"bytes": len(ask.body)}}).encode())


@dataclass(slots=True)
class Node:
    """One gateway's data process and what surrounds it."""

    node_id: NodeId
    folder: Path
    ca: Authority
    files: Files
    control: FakeControl
    journal: ListJournal
    process: DataProcess
    ports: Ports = field(default_factory=lambda: Ports(0, 0))

    @property
    def edge(self) -> str:
        return f"https://127.0.0.1:{self.ports.edge}"

    @property
    def platform(self) -> str:
        return f"http://127.0.0.1:{self.ports.platform}"

    def route(self, **changes: str) -> PeerRoute:
        """How others reach this node."""
        route = PeerRoute(self.node_id, f"inst-{self.node_id}", self.edge, self.ca.pem, "strict-1.2")
        return replace(route, **changes)

    def events(self, name: str) -> list[Mapping[str, Any]]:
        return [event for event in self.journal.events if event["event"] == name]


def rule(*nodes: NodeId, session: str = SID, token: str | None = TOKEN) -> SessionRule:
    """A session of these nodes in which one task with `token` runs here; None: declared without tasks."""
    digest = "*" if token is None else hashlib.sha256(token.encode()).hexdigest()
    return SessionRule(SessionId(session), nodes, {digest: "guest.0"}, dict.fromkeys(nodes, PERMIT))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for sockets in it."""
    path = Path(tempfile.mkdtemp(prefix="ic"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def settings(path: Path, name: NodeId, *, ca: Authority | None = None, **changes: Any) -> DataSettings:
    """Settings of a data process that lives in `path`, any free ports, a new certificate."""
    files = issue(path, ca or authority(), urn(name))
    made = DataSettings(
        node_id=name,
        inst_id=InstId(f"inst-{name}"),
        edge_host="127.0.0.1",
        edge_port=0,
        tls_chain=files.chain,
        tls_key=files.key,
        run_dir=path,
    )
    return replace(made, **changes)


@contextlib.asynccontextmanager
async def node(name: str, *, limits: Limits | None = None, ca_name: str = "", **more: Any) -> AsyncIterator[Node]:
    """A started gateway that knows no partner and no session yet."""
    with folder() as path:
        ca = authority(ca_name)
        control, journal = FakeControl(path), ListJournal()
        told = replace(settings(path, NodeId(name), ca=ca), limits=limits or Limits(), **more)
        files = Files(told.tls_chain, told.tls_key)
        process = DataProcess(told, journal=journal, clock=SystemClock(), entropy=SystemEntropy())
        await control.start()
        made = Node(NodeId(name), path, ca, files, control, journal, process)
        try:
            made.ports = await process.start()
            yield made
        finally:
            await process.stop()
            await control.stop()


@contextlib.asynccontextmanager
async def pair(
    *, limits: Limits | None = None, session: bool = True, spools: Path | None = None, **settings: Any
) -> AsyncIterator[tuple[Node, Node]]:
    """Two partners; with `session`, each also knows the session SID with the task TOKEN. spools: of both."""
    a_spool, b_spool = (None if spools is None else spools / name for name in "ab")
    async with (
        node("LX-A", limits=limits, spool_dir=a_spool, **settings) as a,
        node("LX-B", limits=limits, spool_dir=b_spool, **settings) as b,
    ):
        await a.process.set_routes([b.route()])
        await b.process.set_routes([a.route()])
        if session:
            for one in (a, b):
                one.process.channel.open_session(rule(a.node_id, b.node_id))
        yield a, b


def ns_headers(target: str, *, token: str | None = TOKEN, session: str = SID, **more: str) -> dict[str, str]:
    """North-south headers; keyword names with underscores for hyphens."""
    headers = {
        "x-ptp-tech-provider-code": "test",
        "x-ptp-trace-id": "trace-1",
        "x-ptp-session-id": session,
        "x-ptp-target-node-id": target,
    }
    if token is not None:
        headers["x-ptp-token"] = token
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    return {name: value for name, value in headers.items() if value}


def pop_frame(target: str, *, topic: str = "t", wait_ms: int = 0) -> fr.Frame:
    """A container's pop, decoded."""
    envelope = fr.read_envelope(ns_headers(target), Limits())
    return fr.Frame(fr.Operation.POP, fr.Codec.PROTO, envelope, topic, wait_ms=wait_ms)


@dataclass(frozen=True, slots=True)
class Got:
    """An answer of a channel endpoint, whichever its codec."""

    status: int
    content_type: str
    code: str
    payload: bytes | None
    message: str = ""


USUAL = "json"
"""What a container speaks where a test does not say it; test_grpc.py makes it "grpc", and partners too."""


class Container:
    """Speaks one of the dialects to a platform listener."""

    def __init__(self, session: aiohttp.ClientSession, base: str, dialect: str = "") -> None:
        self.session = session
        self.base = base
        self.dialect = dialect or USUAL

    async def push(self, target: str, payload: bytes, topic: str = "t", **headers: Any) -> Got:
        headers = ns_headers(target, **headers)
        if self.dialect == "json":
            text = base64.b64encode(payload).decode()
            return await self.call("push", headers, json.dumps({"topic": topic, "payload": text}).encode())
        if self.dialect in {"proto", "grpc"}:
            message = ptp_pb2.PushInbound(topic=topic, payload=payload)
            return await self.call("push", headers, message.SerializeToString())
        return await self.call("push", {**headers, "x-ptp-topic": topic}, payload)

    async def pop(self, target: str = "", topic: str = "t", wait_ms: int = 5000, **headers: Any) -> Got:
        headers = ns_headers(target, **headers)
        if self.dialect == "json":
            return await self.call("pop", headers, json.dumps({"topic": topic, "timeout": wait_ms}).encode())
        if self.dialect in {"proto", "grpc"}:
            return await self.call(
                "pop", headers, ptp_pb2.PopInbound(topic=topic, timeout=max(1, wait_ms)).SerializeToString()
            )
        seconds = max(1, wait_ms // 1000)
        return await self.call(f"pop?timeout={seconds}", {**headers, "x-ptp-topic": topic}, b"")

    async def peek(self, topic: str = "t", **headers: Any) -> Got:
        if self.dialect == "grpc":
            return await self.call(
                "peek", ns_headers("", **headers), ptp_pb2.PeekInbound(topic=topic).SerializeToString()
            )
        body = json.dumps({"topic": topic}).encode()
        return await self.call("peek", ns_headers("", **headers), body, dialect="json")

    async def release(self, topic: str = "", **headers: Any) -> Got:
        if self.dialect == "grpc":
            message = ptp_pb2.ReleaseInbound(topic=topic)
            return await self.call("release", ns_headers("", **headers), message.SerializeToString())
        body = json.dumps({"topic": topic} if topic else {}).encode()
        return await self.call("release", ns_headers("", **headers), body, dialect="json")

    async def call(self, name: str, headers: Mapping[str, str], body: bytes, *, dialect: str = "") -> Got:
        if (dialect or self.dialect) == "grpc":
            return await grpc_call(self.base.partition("//")[2], TRANSFER + name, headers, body)
        return await post(self.session, self.base + CHAN + name, headers, body, dialect or self.dialect)


TRANSFER = "/org.ppc.ptp.PrivateTransferTransport/"
PROTOCOL = "/org.ppc.ptp.PrivateTransferProtocol/"
GRPC = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


async def grpc_call(where: str, method: str, headers: Mapping[str, str], body: bytes, **tls: Any) -> Got:
    """One unary call on a connection of its own; a status but OK is `Got.status`, its text `Got.message`."""
    async with grpc_channel(where, **tls) as channel:
        try:
            data = await channel.unary_unary(method)(body, metadata=tuple(headers.items()), timeout=20)
        except grpc.aio.AioRpcError as e:
            return Got(e.code().value[0], "", "", None, e.details() or "")
    return read(200, "application/x-protobuf", data)


def grpc_channel(where: str, *, ca: str = "", files: Files | None = None, more: Sequence[Any] = ()) -> grpc.aio.Channel:
    """To a platform listener or, where `ca` (PEM) is given, over TLS, with `files` shown."""
    if not ca:
        return grpc.aio.insecure_channel(where, options=[*GRPC, *more])
    shown = (files.key.read_bytes(), files.chain.read_bytes()) if files else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.encode(), *shown)
    named = ("grpc.ssl_target_name_override", "localhost")
    return grpc.aio.secure_channel(where, credentials, options=[*GRPC, *more, named])


CONTENT = {"json": "application/json", "proto": "application/x-protobuf", "raw": ""}


async def post(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], body: bytes, dialect: str, **more: Any
) -> Got:
    typed = {"content-type": CONTENT[dialect], **headers} if CONTENT[dialect] else headers
    skip = () if CONTENT[dialect] else ("content-type",)
    async with session.post(url, data=body, headers=typed, skip_auto_headers=skip, **more) as response:
        data = await response.read()
        return read(response.status, response.headers.get("content-type", ""), data)


def read(status: int, content_type: str, data: bytes) -> Got:
    if content_type == "application/json":
        value = json.loads(data)
        assert value.get("content") == value.get("payload")
        encoded = value.get("content")
        payload = None if encoded is None else base64.b64decode(encoded)
        return Got(status, content_type, value["code"], payload, value["message"])
    if content_type == "application/x-protobuf":
        new = ptp_pb2.TransportOutbound.FromString(data)
        return Got(status, content_type, new.code, new.payload or None, new.message)
    # The old layout: 1 payload, 2 code, 3 message. Read as the new one, shifted by a number.
    assert content_type == "application/proto"
    shifted = bytearray()
    at = 0
    while at < len(data):
        head = at
        at += 1
        length = shift = 0
        while True:
            byte = data[at]
            length |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if byte < 0x80:
                break
        at += length
        shifted += bytes([data[head] + 8]) + data[head + 1 : at]
    old = ptp_pb2.TransportOutbound.FromString(bytes(shifted))
    return Got(status, content_type, old.code, old.payload or None, old.message)


def partner_tls(files: Files | None, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that trusts anybody and shows `files`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if files is not None:
        context.load_cert_chain(files.chain, files.key)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def ew_headers(source: str, target: str, *, session: str = SID, **more: str) -> dict[str, str]:
    """East-west headers of an encapsulated protobuf push."""
    headers = {
        "x-ptp-version": "0",
        "x-ptp-tech-provider-code": "test",
        "x-ptp-trace-id": "trace-1",
        "x-ptp-token": "permit",
        "x-ptp-uri": "https://ptp.cn/v1/interconn/chan/push",
        "x-ptp-session-id": session,
        "x-ptp-source-node-id": source,
        "x-ptp-target-node-id": target,
    }
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    return {name: value for name, value in headers.items() if value}


def inbound(payload: bytes, topic: str = "t") -> bytes:
    inner = ptp_pb2.PushInbound(topic=topic, payload=payload).SerializeToString()
    return ptp_pb2.Inbound(payload=inner).SerializeToString()


async def invoke(
    client: aiohttp.ClientSession,
    at: Node,
    files: Files | None,
    headers: Mapping[str, str],
    body: bytes,
    dialect: str = "proto",
) -> Got:
    """A hand-made partner's call of chan/invoke."""
    if USUAL == "grpc" and dialect != "json":
        where = at.edge.partition("//")[2]
        return await grpc_call(where, PROTOCOL + "invoke", headers, body, ca=at.ca.pem, files=files)
    return await post(client, f"{at.edge}{CHAN}invoke", headers, body, dialect, ssl=partner_tls(files))


@contextlib.asynccontextmanager
async def foreign(
    at: Node, name: str, answer: Callable[[web.BaseRequest, bytes], web.StreamResponse]
) -> AsyncIterator[tuple[PeerRoute, list[Seen]]]:
    """A partner of another make that trusts `at`; answers each request as told, remembers what it got."""
    ca = authority()
    files = issue(at.folder, ca, urn(name), name="foreign")
    seen: list[Seen] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":  # it is asked for a stream, and has none
            return web.json_response({"code": "E0000000614", "message": "not licensed"})
        request._client_max_size = 64 << 20
        body = await request.read()
        seen.append(
            Seen(request.method, str(request.rel_url), {n.lower(): v for n, v in request.headers.items()}, body)
        )
        return answer(request, body)

    runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server_context(files.chain, files.key, [at.ca.der]))
        await site.start()
        port = runner.addresses[0][1]
        yield PeerRoute(NodeId(name), "JG-F", f"https://127.0.0.1:{port}/prefix/", ca.pem, "other"), seen
    finally:
        await runner.cleanup()
