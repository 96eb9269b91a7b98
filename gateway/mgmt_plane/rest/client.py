"""Signed calls to partners over TLS that trusts, for each partner, exactly the CA pinned for it.

Host names are not checked; the leaf must be issued directly by the pinned CA and name the partner's node, and a server
that fails this is refused before a byte of the request is sent. A client certificate is shown only under a contract
that holds (ADR 0003). Answers are bounded before they are parsed; whether one means success is the profile's.
"""

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from yarl import URL

from gateway.auth.canonical import Signed, canonical, encode_query
from gateway.auth.chain import MAX_CHAIN, check_client, check_leaf, fingerprint, named_node
from gateway.auth.httpsig import sign as sign_rfc9421
from gateway.auth.keys import KeyRing
from gateway.auth.revocation import RevocationLists
from gateway.auth.schemes import Signer
from gateway.auth.tls_ring import TlsFiles, TlsRing
from gateway.errors import CallerError, GatewayError, Kind, PeerError, ProtocolViolation, Refused, Unavailable
from gateway.mgmt_plane.core.control_profile import accepts, way
from gateway.mgmt_plane.core.jsontext import encode_object, parse_object
from gateway.mgmt_plane.core.messages import check_address
from gateway.mgmt_plane.core.profile import STRICT, Profile, Signature, from_peer, profile, to_peer
from gateway.mgmt_plane.service.partners import is_valid, pinned_cas
from gateway.model import Contract, Identity, Limits, NodeId, TraceId
from gateway.ports import Clock, Entropy, Journal, PeerReply
from specs import headers as names
from specs.routes import ROUTES, Auth, Route

Reach = Callable[[NodeId, str], Awaitable[socket.socket]]
"""(node id, or "" where it is not known, URL) -> a connected socket. Raises Unavailable."""

_CONTEXTS: Final = 256
_PAUSE_S: Final = 0.2
_CHUNK: Final = 64 << 10
_REPLY_TEXT: Final = 300
_OVERLOADED: Final = frozenset({429, 500, 502, 503, 504})
"""HTTP status without a JSON body behind which nobody has judged the request: try again."""
_CONTROL: Final = "/v1/interconn/schedule/"
_ONCE: Final = frozenset({"node.contract.apply"})
"""Not repeated within a call: each makes a contract of its own (M-023)."""
_ANY: Final = replace(STRICT, success=frozenset({0, 200}))
"""For somebody of whom nothing is known yet."""
_EITHER: Final = frozenset({"node.contract.query", "node.contract.terminate"})
"""The two sides may disagree about the state of this contract, hence about the client certificate: try both ways."""


@dataclass(frozen=True, slots=True)
class FirstContact:
    """What a server shows to somebody it does not know. node: its node/query, or None if it did not answer."""

    node_id: str
    ca_pem: str
    fingerprint: str
    node: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Call:
    """One call before it is signed."""

    peer: str
    address: str
    name: str
    route: Route
    query: tuple[tuple[str, str], ...]
    body: bytes
    trace_id: TraceId
    token_set: str
    dialect: Profile
    signer: Signer
    signature: Signature


def _a01(signed: Signed, signer: Signer) -> dict[str, str]:
    return {names.AUTH_SIGN: signer.sign(canonical(signed))}


def _rfc9421(signed: Signed, signer: Signer) -> dict[str, str]:
    return sign_rfc9421(signed, raw_query=encode_query(signed.query), signer=signer)


_SIGN: Final[Mapping[Signature, Callable[[Signed, Signer], dict[str, str]]]] = {
    Signature.A_01: _a01,
    Signature.NONE: _a01,
    Signature.RFC_9421: _rfc9421,
}


def _presented(sslobject: ssl.SSLObject) -> list[bytes]:
    """DER of the chain that the server sent, leaf first."""
    public = getattr(sslobject, "get_unverified_chain", None)
    if public is not None:
        return list(public())  # Python 3.13 and later
    inner: Any = sslobject._sslobj  # type: ignore[attr-defined]  # noqa: SLF001  # no public way before 3.13
    return [each.public_bytes(ssl._ssl.ENCODING_DER) for each in inner.get_unverified_chain() or ()]  # type: ignore[attr-defined]  # noqa: SLF001


def _checking(tls_ca: str, node_id: str, clock: Clock, lists: RevocationLists) -> type[ssl.SSLObject]:
    """An SSLObject that ends the handshake with an error unless the leaf is this partner's."""

    class Pinned(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            der = self.getpeercert(binary_form=True)
            try:
                check_client(der or b"", tls_ca, node_id=node_id, now_ms=clock.now_ms(), lists=lists)
            except Refused as e:
                raise ssl.SSLCertVerificationError(f"server of {node_id}: {e}") from e

    return Pinned


class _Connector(aiohttp.BaseConnector):
    """Connections of aiohttp on sockets that `reach` opens; to whom, the TLS context says."""

    def __init__(self, reach: Reach, peers: Mapping[ssl.SSLContext, str]) -> None:
        super().__init__()
        self._reach = reach
        self._peers = peers

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp calls it so
    ) -> ResponseHandler:
        del traces, timeout
        context = req.ssl
        if not isinstance(context, ssl.SSLContext):
            raise CallerError("calls to partners are made over TLS")
        raw = await self._reach(NodeId(self._peers.get(context, "")), str(req.url.origin()))
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.create_connection(
                self._factory, sock=raw, ssl=context, server_hostname=req.url.host or ""
            )
        except (ssl.SSLCertVerificationError, ssl.CertificateError) as e:
            raise aiohttp.ClientConnectorCertificateError(req.connection_key, e) from e
        return protocol


class SignedClient:
    """ports.PeerClient over aiohttp. Close it when done.

    shown: our client certificates. lists: the partners' revocation lists. reach: opens sockets; None: directly.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        signer: Signer | KeyRing,
        shown: TlsRing,
        limits: Limits,
        clock: Clock,
        entropy: Entropy,
        journal: Journal,
        lists: RevocationLists | None = None,
        reach: Reach | None = None,
    ) -> None:
        self._reach = reach
        self._peers: WeakKeyDictionary[ssl.SSLContext, str] = WeakKeyDictionary()
        self._lists = lists or RevocationLists()
        self._identity = identity
        self._signer = signer
        self._shown = shown
        self._limits = limits
        self._clock = clock
        self._entropy = entropy
        self._journal = journal
        self._contexts: OrderedDict[tuple[str, str, TlsFiles | None, int], ssl.SSLContext] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- calls ------------------------------------------------------------------------------------------------------

    async def call(
        self,
        contract: Contract,
        route: str,
        payload: Mapping[str, Any],
        *,
        trace_id: TraceId,
        token_set: str = "",
    ) -> PeerReply:
        """As ports.PeerClient says. Works also for a contract that only waits, as far as the standard lets it."""
        dialect = profile(contract.profile)
        if not accepts(dialect.control, route, payload):
            words = f"{contract.peer_node_id} is {contract.profile} and takes no such {route}"
            raise Refused(words, kind=Kind.NOT_OFFERED)
        going = way(dialect.control, route, ROUTES[route])
        found = going.route
        payload = to_peer(dialect, route, payload)
        plain = {name: str(value) for name, value in payload.items() if value is not None}
        query = tuple(plain.items()) if going.query else ()
        call = _Call(
            peer=contract.peer_node_id,
            address=contract.peer_address,
            name=route,
            route=found,
            query=query,
            body=encode_object(payload) if going.body else b"",
            trace_id=trace_id,
            token_set=token_set,
            dialect=dialect,
            signer=self._signer.of(contract.our_key),
            signature=Signature.A_01 if found.auth is Auth.CARRIED else dialect.signature,
        )
        now = self._clock.now_ms()
        known, tls_ca = is_valid(contract, now), pinned_cas(contract, now)
        ended = contract.status.value == "TERMINATED"
        show = found.auth in (Auth.SIGNED, Auth.APPLICANT) and (known or ended)
        attempts = 1 if route in _ONCE else max(self._limits.request_attempts, 2 if route in _EITHER else 1)
        for attempt in range(attempts):
            try:
                files = self._shown.of(call.signer.fingerprint) if show else None
                return await self._attempt(call, self._context(tls_ca, contract.peer_node_id, show=files))
            except (Unavailable, PeerError) as e:
                last = attempt + 1 == attempts
                if last or (isinstance(e, PeerError) and not (route in _EITHER and attempt == 0)):
                    raise
                if route in _EITHER:
                    show = not show
                if isinstance(e, Unavailable):
                    await asyncio.sleep(_PAUSE_S * (1 << attempt))
        raise Unavailable("no attempt was made")

    async def _attempt(self, call: _Call, context: ssl.SSLContext) -> PeerReply:
        started = self._clock.monotonic()
        code: int | str = ""
        try:
            reply = await self._exchange(call, context)
            code = 0
        except PeerError as e:
            code = e.peer_code
            raise
        except GatewayError as e:
            code = e.kind.value
            raise
        finally:
            self._journal.note(
                "call.out",
                peer=call.peer,
                route=call.name,
                code=code,
                ms=round((self._clock.monotonic() - started) * 1000),
                bytes=len(call.body),
                trace_id=call.trace_id,
                **_ids(call),
            )
        return reply

    def _headers(self, call: _Call) -> dict[str, str]:
        now = self._clock.now_ms()
        nonce, timestamp = self._entropy.token(16).hex(), str(now // 1000 if call.dialect.sends_seconds else now)
        headers = {
            names.SOURCE_NODE: self._identity.node_id,
            names.TARGET_NODE: call.peer,
            names.NONCE: nonce,
            names.TIMESTAMP: timestamp,
            names.TRACE: call.trace_id,
            "accept-encoding": "identity",
        }
        if call.route.method == "POST":
            headers[names.CSRF] = self._entropy.token(8).hex()
        if call.body or call.route.method == "POST":
            headers["content-type"] = "application/json"
        # Control calls carry it also where no permit is held (C-005).
        if call.token_set or call.route.path.startswith(_CONTROL):
            headers[names.MPRAC_TOKEN_SET] = call.token_set
        if call.route.auth is not Auth.OPEN:
            signed = Signed(
                method=call.route.method,
                path=call.route.path,
                query=call.query,
                source=self._identity.node_id,
                target=call.peer,
                nonce=nonce,
                timestamp=timestamp,
                body=call.body,
            )
            headers |= _SIGN[call.signature](signed, call.signer)
        headers |= {theirs: headers[ours] for theirs, ours in (call.dialect.also_sent or {}).items()}
        return headers

    async def _exchange(self, call: _Call, context: ssl.SSLContext) -> PeerReply:
        url = call.address + call.route.path + (f"?{encode_query(call.query)}" if call.query else "")
        try:
            async with self._connected().request(
                call.route.method,
                URL(url, encoded=True),
                data=call.body or None,
                headers=self._headers(call),
                ssl=context,
                allow_redirects=False,
            ) as response:
                body = await self._read(response)
                status = response.status
        except TimeoutError as e:
            raise Unavailable(f"{call.name} at {call.peer}: no answer in time", kind=Kind.PEER_TIMEOUT) from e
        except Unavailable as e:  # no way there
            raise Unavailable(f"{call.name} at {call.peer}: {e}") from e
        except aiohttp.ClientConnectorCertificateError as e:
            # The text is ours (see _checking) or OpenSSL's; neither holds a secret.
            raise Unavailable(f"{call.name} at {call.peer}: {e.certificate_error}"[:_REPLY_TEXT]) from e
        except (aiohttp.ClientError, OSError) as e:
            raise Unavailable(f"{call.name} at {call.peer}: {type(e).__name__}") from e
        return self._judge(call, status, body)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_chunked(_CHUNK):
            size += len(chunk)
            if size > self._limits.body_bytes:
                raise ProtocolViolation("the answer is too large", kind=Kind.PEER_MALFORMED, detail="")
            parts.append(chunk)
        return b"".join(parts)

    def _judge(self, call: _Call, status: int, body: bytes) -> PeerReply:
        """Judge by `code` whatever the HTTP status (A-03); success is what the profile says (M-072)."""
        where = f"{call.name} at {call.peer}"
        try:
            answer = parse_object(body, self._limits)
        except ProtocolViolation as e:
            if status in _OVERLOADED:
                raise Unavailable(f"{where}: HTTP {status}") from e
            raise ProtocolViolation(
                f"{where}: HTTP {status} without a JSON object", kind=Kind.PEER_MALFORMED, detail=""
            ) from e
        code = answer.get("code")
        if not isinstance(code, int) or isinstance(code, bool):
            raise ProtocolViolation(f"{where}: no integer code", kind=Kind.PEER_MALFORMED, detail="")
        if code not in call.dialect.success:
            text = "".join(each for each in str(answer.get("msg", answer.get("message", ""))) if each.isprintable())
            words = f"{call.peer} answered {call.name} with {code}: {text[:_REPLY_TEXT]}"
            raise PeerError(words, peer_code=str(code), detail=words)
        data = answer.get("data")
        if data is None:
            data = {}
        if not isinstance(data, Mapping):
            raise ProtocolViolation(f"{where}: data is not an object", kind=Kind.PEER_MALFORMED, detail="")
        return PeerReply(from_peer(call.dialect, call.name, data))

    # --- first contact ----------------------------------------------------------------------------------------------

    async def first_contact(self, address: str, *, node_id: str | None = None) -> FirstContact:
        """Look at the certificates a server shows, believing nothing: an admin compares the fingerprint.

        Raises ProtocolViolation for an address that is none, Refused(UNAUTHENTICATED) where the chain is no leaf issued
        by the CA sent with it or names another node than `node_id`, Unavailable where nobody answers.
        """
        address = check_address(address)
        chain = await self._chain(address, node_id or "")
        if len(chain) < 2:
            raise Refused("the server does not send its CA: give ca_pem", kind=Kind.UNAUTHENTICATED)
        leaf, ca = chain[0], chain[-1]
        named = named_node(leaf)
        check_leaf(leaf, ca, node_id=node_id or named, now_ms=self._clock.now_ms())
        ca_pem = ca.public_bytes(Encoding.PEM).decode()
        return FirstContact(named, ca_pem, fingerprint(ca), await self._node(address, ca_pem, named))

    async def _chain(self, address: str, node_id: str) -> list[x509.Certificate]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # nothing is sent or believed on this connection
        parts = urlsplit(address)
        try:
            async with asyncio.timeout(self._limits.request_s):
                end: dict[str, Any] = {"host": parts.hostname, "port": parts.port or 443}
                if self._reach is not None:
                    end = {"sock": await self._reach(NodeId(node_id), address)}
                _, writer = await asyncio.open_connection(**end, ssl=context, server_hostname=parts.hostname)
                try:
                    presented = _presented(writer.get_extra_info("ssl_object"))[:MAX_CHAIN]
                finally:
                    writer.close()
                    with suppress(OSError, ssl.SSLError):
                        await writer.wait_closed()
        except TimeoutError as e:
            raise Unavailable(f"{address} does not answer in time", kind=Kind.PEER_TIMEOUT) from e
        except Unavailable as e:  # no way there
            raise Unavailable(f"{address} cannot be reached: {e}", detail=f"{address}: {e}") from e
        except (OSError, ssl.SSLError) as e:
            raise Unavailable(f"{address} cannot be reached: {type(e).__name__}", detail=address) from e
        try:
            return [x509.load_der_x509_certificate(each) for each in presented]
        except ValueError as e:
            raise Refused("the server's certificate cannot be read", kind=Kind.UNAUTHENTICATED) from e

    async def _node(self, address: str, ca_pem: str, node_id: str) -> Mapping[str, Any] | None:
        call = _Call(
            peer=node_id,
            address=address,
            name="node.query",
            route=ROUTES["node.query"],
            query=(("node_id", node_id),),
            body=b"",
            trace_id=TraceId(f"tr-{self._entropy.token(16).hex()}"),
            token_set="",
            dialect=_ANY,
            signer=self._signer.current,
            signature=Signature.A_01,
        )
        try:
            reply = await self._attempt(call, self._context(ca_pem, node_id, show=None))
        except (PeerError, Unavailable, ProtocolViolation):
            return None
        return reply.data if reply.data.get("node_id") == node_id else None

    # --- connections ------------------------------------------------------------------------------------------------

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=None if self._reach is None else _Connector(self._reach, self._peers),
                timeout=aiohttp.ClientTimeout(total=self._limits.request_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent",),
                max_line_size=8190,
                max_field_size=8190,
            )
        return self._session

    def _context(self, tls_ca: str, node_id: str, *, show: TlsFiles | None) -> ssl.SSLContext:
        """One context per partner, CA and use of our certificate; connections are pooled by context."""
        # Under a new list a connection that stands may be one of a revoked certificate.
        key = (tls_ca, node_id, show, self._lists.generation)
        found = self._contexts.get(key)
        if found is not None:
            self._contexts.move_to_end(key)
            return found
        if not tls_ca:
            raise Unavailable(f"no CA is pinned for {node_id}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False  # the node id in the certificate is checked instead
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=tls_ca)
        if show is not None:
            context.load_cert_chain(show.chain, show.key)
        context.sslobject_class = _checking(tls_ca, node_id, self._clock, self._lists)
        self._contexts[key] = context
        self._peers[context] = node_id
        if len(self._contexts) > _CONTEXTS:
            self._contexts.popitem(last=False)
        return context


def _ids(call: _Call) -> dict[str, str]:
    """job_id and task_id of a call, for the journal."""
    if not call.body:
        payload: Mapping[str, Any] = dict(call.query)
    else:
        payload = parse_object(call.body, Limits(body_bytes=len(call.body)))
    return {name: str(payload[name])[:128] for name in ("job_id", "task_id") if isinstance(payload.get(name), str)}
