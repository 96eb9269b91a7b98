"""The client against real TLS servers on loopback: whom it talks to, what it shows, what it reads."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.auth.chain import node_urn
from gateway.auth.keys import load_key, load_signer
from gateway.auth.pki import Pki, issue
from gateway.auth.tls_ring import TlsFiles, TlsRing
from gateway.errors import GatewayError, Kind, PeerError, ProtocolViolation, Refused, Unavailable
from gateway.mgmt_plane.rest.client import SignedClient
from gateway.model import Contract, ContractId, Direction, Identity, InstId, Limits, NodeId
from gateway.runtime.system import SystemClock, SystemEntropy
from specs import headers as names
from specs.states import ApprovalState, AuthType
from tests.mgmt.world import ListJournal, trace

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
OK = b'{"code": 0, "msg": "success", "data": {"x": 1}}'


class Server:
    """An HTTPS server that shows `chain`, asks for client certificates of `trusts`, and remembers what reached it."""

    def __init__(self, chain: Path, key: Path, trusts: Path | None = None) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain, key)
        if trusts is not None:
            self.context.verify_mode = ssl.CERT_OPTIONAL
            self.context.load_verify_locations(trusts)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.certificates: list[bytes | None] = []
        self.answers: list[web.StreamResponse] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.certificates.append(request.transport.get_extra_info("ssl_object").getpeercert(binary_form=True))
        self.requests.append(
            (request.path_qs, {k.lower(): v for k, v in request.headers.items()}, await request.read())
        )
        return self.answers.pop(0) if self.answers else web.Response(body=OK)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.context)
        await site.start()
        self.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pki]:
    base = tmp_path_factory.mktemp("keys")
    # "X": another CA that also says B.
    return {name: Pki.create(base / name, "B" if name == "X" else name) for name in ("A", "B", "X")}


@pytest.fixture
async def client(keys: dict[str, Pki]) -> AsyncIterator[SignedClient]:
    made = keys["A"]
    identity = Identity(NodeId("A"), InstId("JGA"), "a", "A", "interconn", "0.1", "https://a.example")
    client = SignedClient(
        identity=identity,
        signer=load_signer(
            auth_type=AuthType.CERT, key_uri=made.signing_key.as_uri(), credential=made.signing.read_text()
        ),
        shown=TlsRing(TlsFiles(made.fingerprint, made.tls, made.tls_key)),
        limits=Limits(request_s=5.0, request_attempts=2, body_bytes=10_000),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        journal=ListJournal(),
    )
    yield client
    await client.close()


def contract(keys: dict[str, Pki], address: str, status: ApprovalState = ApprovalState.APPROVED) -> Contract:
    return Contract(
        contract_id=ContractId("ct-1"),
        direction=Direction.OUT,
        status=status,
        peer_node_id=NodeId("B"),
        peer_inst_id=InstId("JGB"),
        peer_name="b",
        peer_institution="B",
        peer_system="x",
        peer_system_version="1",
        peer_address=address,
        auth_type="",
        auth_credential="",
        tls_ca=keys["B"].ca.read_text(),
        fingerprint=keys["B"].fingerprint,
        proven=True,
        expired_time=None,
        profile="strict-1.2",
        description="",
        created=0,
        updated=0,
    )


def leaf_of(made: Pki) -> bytes:
    return x509.load_pem_x509_certificates(made.tls.read_bytes())[0].public_bytes(Encoding.DER)


def other_leaf(made: Pki, folder: Path, name: str) -> tuple[Path, Path]:
    """A server certificate that `made`'s CA issues to another node."""
    from datetime import UTC, datetime

    key = ec.generate_private_key(ec.SECP256R1())
    ca_key = load_key(made.ca_key.as_uri())
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate(made.ca.read_bytes())
    uri = x509.UniformResourceIdentifier(node_urn(name))
    leaf = issue(ca, ca_key, key.public_key(), [uri], usages=[ExtendedKeyUsageOID.SERVER_AUTH], now=datetime.now(UTC))
    chain, key_file = folder / "leaf.pem", folder / "leaf.key"
    chain.write_bytes(leaf.public_bytes(Encoding.PEM) + made.ca.read_bytes())
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return chain, key_file


async def test_only_the_partner_is_talked_to(client: SignedClient, keys: dict[str, Pki], tmp_path: Path) -> None:
    right = Server(keys["B"].tls, keys["B"].tls_key, keys["A"].ca)
    another_ca = Server(keys["X"].tls, keys["X"].tls_key)
    another_node = Server(*other_leaf(keys["B"], tmp_path, "C"))
    async with AsyncExitStack() as stack:
        for server in (right, another_ca, another_node):
            await stack.enter_async_context(server.running())
        deal = contract(keys, right.url + "/prefix")
        query = {"contract_id": "ct-1", "page_num": 2}
        reply = await client.call(deal, "dataset.pub.list", query, trace_id=trace(), token_set="u/2/secret")
        assert reply.data == {"x": 1}
        path, headers, _ = right.requests[0]
        assert path == "/prefix/v1/interconn/dataset/pub/list?contract_id=ct-1&page_num=2"
        assert headers[names.MPRAC_TOKEN_SET] == "u/2/secret"
        assert right.certificates == [leaf_of(keys["A"])]
        for server in (another_ca, another_node):
            with pytest.raises(Unavailable):
                await client.call(contract(keys, server.url), "job.start", {"job_id": "j"}, trace_id=trace())
            assert server.requests == []  # refused before a byte of the request was sent
    assert "secret" not in json.dumps(client._journal.events)  # type: ignore[attr-defined]


async def test_the_certificate_is_shown_under_a_contract_only(client: SignedClient, keys: dict[str, Pki]) -> None:
    server = Server(keys["B"].tls, keys["B"].tls_key, keys["A"].ca)
    async with server.running():
        deal = contract(keys, server.url)
        for route, status, shown in (
            ("node.query", ApprovalState.APPROVED, False),
            ("node.contract.confirm", ApprovalState.APPROVED, False),
            ("node.contract.apply", ApprovalState.APPLIED, False),
            ("node.contract.query", ApprovalState.APPLIED, False),
            ("node.contract.query", ApprovalState.APPROVED, True),
            ("node.contract.terminate", ApprovalState.TERMINATED, True),
            ("job.start", ApprovalState.APPROVED, True),
        ):
            server.certificates.clear()
            await client.call(replace(deal, status=status), route, {"contract_id": "x"}, trace_id=trace())
            assert server.certificates == [leaf_of(keys["A"]) if shown else None], route
        # Where the two sides disagree about the state, the other way is tried too.
        server.certificates.clear()
        server.answers = [web.Response(body=b'{"code": 401, "msg": "no", "data": {}}')]
        waiting = replace(deal, status=ApprovalState.APPLIED)
        await client.call(waiting, "node.contract.query", {"contract_id": "x"}, trace_id=trace())
        assert server.certificates == [None, leaf_of(keys["A"])]


async def test_first_contact(client: SignedClient, keys: dict[str, Pki], tmp_path: Path) -> None:
    lone = tmp_path / "lone.pem"
    lone.write_text(x509.load_pem_x509_certificates(keys["B"].tls.read_bytes())[0].public_bytes(Encoding.PEM).decode())
    server, without_ca = Server(keys["B"].tls, keys["B"].tls_key, keys["A"].ca), Server(lone, keys["B"].tls_key)
    async with server.running(), without_ca.running():
        server.answers = [web.json_response({"code": 0, "msg": "", "data": {"node_id": "B", "name": "bee"}})]
        found = await client.first_contact(server.url)
        assert (found.node_id, found.fingerprint) == ("B", keys["B"].fingerprint)
        assert found.ca_pem == keys["B"].ca.read_text()
        assert found.node == {"node_id": "B", "name": "bee"}
        assert server.certificates == [None]
        assert names.AUTH_SIGN not in server.requests[0][1]
        with pytest.raises(Refused, match="another node"):
            await client.first_contact(server.url, node_id="C")
        with pytest.raises(Refused, match="ca_pem"):
            await client.first_contact(without_ca.url)
        # The right certificate for a node that lies about its name.
        server.answers = [web.json_response({"code": 0, "msg": "", "data": {"node_id": "C"}})]
        assert (await client.first_contact(server.url)).node is None
    with pytest.raises(Unavailable):
        await client.first_contact(server.url)
    with pytest.raises(ProtocolViolation):
        await client.first_contact("http://127.0.0.1:1")


@pytest.mark.req("M-012")
async def test_a_retry_is_signed_anew(client: SignedClient, keys: dict[str, Pki]) -> None:
    server = Server(keys["B"].tls, keys["B"].tls_key)
    async with server.running():
        server.answers = [web.Response(status=503, text="busy")]
        await client.call(contract(keys, server.url), "job.start", {"job_id": "j"}, trace_id=trace())
        assert len(server.requests) == 2
        (_, first, body), (_, second, again) = server.requests
        assert body == again
        for name in (names.NONCE, names.AUTH_SIGN):
            assert first[name] != second[name]
        # An application makes a contract each time, so it is not repeated.
        server.requests.clear()
        server.answers = [web.Response(status=503, text="busy")]
        with pytest.raises(Unavailable):
            await client.call(contract(keys, server.url), "node.contract.apply", {}, trace_id=trace())
        assert len(server.requests) == 1


@pytest.mark.req("M-072", "C-007")
async def test_what_counts_as_an_answer(client: SignedClient, keys: dict[str, Pki]) -> None:
    server = Server(keys["B"].tls, keys["B"].tls_key)

    async def ask(body: bytes, status: int = 200, profile: str = "strict-1.2") -> Any:
        server.answers = [web.Response(body=body, status=status)]
        deal = replace(contract(keys, server.url), profile=profile)
        try:
            return (await client.call(deal, "job.start", {"job_id": "j"}, trace_id=trace())).data
        except PeerError as e:
            return e.peer_code
        except GatewayError as e:
            return e.kind

    async with server.running():
        assert await ask(b'{"code": 0, "msg": "ok", "data": {"a": 1}, "more": 2}') == {"a": 1}
        assert await ask(b'{"code": 0, "message": "ok"}') == {}
        assert await ask(b'{"code": 0, "msg": "ok", "data": null}') == {}
        assert await ask(b'{"code": 0, "msg": "ok", "data": {}}', status=500) == {}
        assert await ask(b'{"code": 200, "msg": "ok", "data": {}}') == "200"
        assert await ask(b'{"code": 200, "msg": "ok", "data": {}}', profile="lenient") == {}
        assert await ask(b'{"code": 404, "msg": "no", "data": {}}', status=404) == "404"
        for body in (
            b"<html>",
            b"",
            b"[]",
            b"{}",
            b'{"code": "0"}',
            b'{"code": true}',
            b'{"code": 0.0}',
            b'{"code": 0, "data": []}',
            b'{"code": 0, "code": 0}',
            b'{"code": 0, "data": {"x": "' + b"x" * 20_000 + b'"}}',
            b'{"code": 0, "data": ' + b"[" * 5000 + b"}",
        ):
            assert await ask(body) is Kind.PEER_MALFORMED, body[:30]
        server.answers = []


async def test_odd_servers(client: SignedClient, keys: dict[str, Pki]) -> None:
    server = Server(keys["B"].tls, keys["B"].tls_key)
    async with server.running():
        deal = contract(keys, server.url)
        server.answers = [web.Response(status=302, headers={"Location": "https://127.0.0.1:1/x"})]
        with pytest.raises(ProtocolViolation):
            await client.call(deal, "job.start", {"job_id": "j"}, trace_id=trace())
        assert len(server.requests) == 1  # not followed
        compressed = web.Response(body=OK)
        compressed.enable_compression(web.ContentCoding.gzip)
        compressed.enable_compression(force=web.ContentCoding.gzip)
        server.answers = [compressed]
        with pytest.raises(ProtocolViolation):
            await client.call(deal, "job.start", {"job_id": "j"}, trace_id=trace())
        words = json.dumps({"code": 9, "msg": "bad\n\x1b[31m" + "x" * 5000, "data": {}}).encode()
        server.answers = [web.Response(body=words)]
        with pytest.raises(PeerError) as caught:
            await client.call(deal, "job.start", {"job_id": "j"}, trace_id=trace())
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


async def test_a_silent_server(client: SignedClient, keys: dict[str, Pki]) -> None:
    client._limits = replace(client._limits, request_s=0.3, request_attempts=1)

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with listener:
        address = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        with pytest.raises(Unavailable) as caught:
            await client.call(contract(keys, address), "job.start", {"job_id": "j"}, trace_id=trace())
        assert caught.value.kind is Kind.PEER_TIMEOUT
        with pytest.raises(Unavailable) as caught:
            await client.first_contact(address)
        assert caught.value.kind is Kind.PEER_TIMEOUT
