"""The door for partners: authenticates once and hands the proven origin inwards (1-management c.0, 2-control c.0).

In this order: body size, route, headers (aliases of A-18), target node (M-011), clock (M-013), partner, contract and
client certificate, signature (M-014), nonce (M-012), JSON, schema, handler, envelope (M-003). A nonce is remembered
only once its signature is verified, so nobody can burn another's. Two groups of routes read the body earlier, because
it says whose key verifies: apply and confirm carry their key, contract query and terminate name their contract.

Whoever is no partner, or cannot prove to be one, gets one and the same answer: it cannot find out who our partners are.

Wiring (the composition root does this):

    base = {"identity": identity, "clock": clock, "entropy": entropy}
    outgoing = Outgoing(clock=clock, entropy=entropy)
    partners = Partners(**base, signer=signer, limits=limits, outgoing=outgoing)
    grants = Grants(**base, partners=partners)
    audits = Audits(**base, partners=partners, grants=grants, outgoing=outgoing, limits=limits)
    datasets = Datasets(**base, grants=grants)
    projects = Projects(**base, partners=partners, audits=audits)
    services = Services(identity=identity, store=store, limits=limits, partners=partners, audits=audits,
                        datasets=datasets, projects=projects)
    edge = Edge(**base, partners=partners, store=store, limits=limits, journal=journal,
                handlers={**management_handlers(services), **control_handlers})
    reply = await edge.handle(request)   # EdgeRequest -> EdgeReply, never raises
"""

import traceback
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from gateway.auth.canonical import Signed, canonical
from gateway.auth.chain import check_client
from gateway.auth.httpsig import verify as verify_rfc9421
from gateway.auth.replay import ReplayGuard
from gateway.auth.revocation import NONE, Revocations
from gateway.auth.schemes import Credential, parse_credential
from gateway.errors import WIRE, GatewayError, Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core.jsontext import encode_object, parse_object
from gateway.mgmt_plane.core.messages import check, checked_routes
from gateway.mgmt_plane.core.profile import STRICT, Profile, Signature, from_peer, profile, to_peer
from gateway.mgmt_plane.rest.streamed import Records, Streamed, body
from gateway.mgmt_plane.service.known import KnownPartners
from gateway.mgmt_plane.service.outgoing import new_trace
from gateway.mgmt_plane.service.partners import Partners, is_valid, pinned_cas
from gateway.mgmt_plane.service.trail import Actor, acting
from gateway.model import Contract, Identity, Limits, NodeId, SeenNonce, TraceId
from gateway.ports import Caller, Clock, EdgeReply, EdgeRequest, Entropy, Journal, NonceLog, Store
from specs import headers as names
from specs.codes import OK
from specs.routes import BY_PATH, ROUTES, Auth, Route, Side

Handler = Callable[[Caller, Mapping[str, Any]], Awaitable[Mapping[str, Any] | Streamed]]

_QUERY_AND_BODY: Final = frozenset({"job.status_all"})
"""POST whose parameters are declared as query (2-control 3.7)."""
_QUERY_FIELDS: Final = 64
_MS_DIGITS: Final = 13
_S_DIGITS: Final = 10
_CARRIED_NONCES: Final = 10
"""One part in so many of the nonce memory is for keys of applicants and such: they belong to no partner (yet)."""
_SIGNED, _CARRIED = 0, 1
"""The two guards, as the nonce log tells them apart."""


@dataclass(frozen=True, slots=True)
class _Head:
    """The headers that matter, under their names of the standard; "" where absent."""

    source: str
    target: str
    nonce: str
    timestamp: str
    trace: str
    csrf: str
    sign: str = field(repr=False)
    token_set: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Call:
    """A request whose head has been read; now: ms."""

    request: EdgeRequest
    name: str
    route: Route
    head: _Head
    query: tuple[tuple[str, str], ...]
    trace_id: TraceId
    now: int

    def signed(self) -> Signed:
        return Signed(
            method=self.request.method,
            path=self.request.path,
            query=self.query,
            source=self.head.source,
            target=self.head.target,
            nonce=self.head.nonce,
            timestamp=self.head.timestamp,
            body=self.request.body,
        )


def _a01(credential: Credential, call: _Call) -> None:
    credential.verify(canonical(call.signed()), call.head.sign)


def _rfc9421(credential: Credential, call: _Call) -> None:
    verify_rfc9421(call.signed(), call.request.headers, raw_query=call.request.raw_query, credential=credential)


def _unsigned(credential: Credential, call: _Call) -> None:
    """A signature that is there must still be right."""
    if call.head.sign:
        _a01(credential, call)


_VERIFY: Final[Mapping[Signature, Callable[[Credential, _Call], None]]] = {
    Signature.A_01: _a01,
    Signature.RFC_9421: _rfc9421,
    Signature.NONE: _unsigned,
}


@dataclass(slots=True)
class _Seen:
    """What is known of a request so far, for the journal."""

    trace_id: TraceId
    route: str = ""
    peer: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    ok: int = OK
    """The code of a successful reply (M-072)."""
    dialect: Profile = STRICT
    """Of the caller."""


class RateLimit:
    """Calls per minute and address, in windows of a minute; remembers a bounded number of addresses."""

    def __init__(self, *, per_minute: int, addresses: int, what: str = "unsigned calls") -> None:
        self._per_minute = per_minute
        self._what = what
        self._addresses = addresses
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def count(self, address: str, *, now: float) -> None:
        """now: monotonic seconds. Raises Refused(TOO_MANY)."""
        minute = int(now // 60)
        window, calls = self._seen.pop(address, (minute, 0))
        calls = calls + 1 if window == minute else 1
        self._seen[address] = (minute, calls)
        if len(self._seen) > self._addresses:
            self._seen.popitem(last=False)
        if calls > self._per_minute:
            raise Refused(f"more than {self._per_minute} {self._what} a minute", kind=Kind.TOO_MANY, detail="")


def _header(headers: Mapping[str, str], name: str, longest: int) -> str:
    value = headers.get(name)
    if value is None:
        value = next((headers[other] for other, real in names.ALIASES.items() if real == name and other in headers), "")
    value = value.strip()
    if len(value) > longest or not (value.isascii() and value.isprintable()):
        raise ProtocolViolation(f"{name} is too long or not printable ASCII")
    return value


def _query(raw: str) -> tuple[tuple[str, str], ...]:
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=_QUERY_FIELDS)
    except ValueError as e:
        raise ProtocolViolation("query string cannot be read") from e
    if len({name for name, _ in pairs}) != len(pairs):
        raise ProtocolViolation("query string has a parameter twice")
    if any(not text.isprintable() for pair in pairs for text in pair):
        raise ProtocolViolation("query string holds control characters")
    return tuple(pairs)


def _spelled(seen: _Seen, records: Records) -> Records:
    found: Records = to_peer(seen.dialect, seen.route, {"records": list(records)})["records"]
    return found


def _milliseconds(text: str) -> int:
    """A checked x-timestamp. Seconds count as their end: a call must not look older than it is for being rounded."""
    return int(text) if len(text) == _MS_DIGITS else int(text) * 1000 + 999


def _key_of(contract: Contract, *, retired: bool) -> str:
    """Whose nonces these are: fingerprint of the key that proved the call; of the CA where TLS alone did."""
    if retired:
        return parse_credential(contract.old_auth_type, contract.old_auth_credential).fingerprint
    if not contract.auth_credential:
        return contract.fingerprint
    return parse_credential(contract.auth_type, contract.auth_credential).fingerprint


class Edge:
    """Turns an EdgeRequest of a partner into an EdgeReply; never raises.

    handlers: by name of specs.routes; a route of the edge without one is answered NOT_OFFERED. strict: also require
    x-csrf-protection on POST and x-trace-id (A-19). nonces: where they outlive this process; without it nothing signed
    before the start is taken. known: spares a look into the store at every call; None asks it each time. lists: the
    partners' revocation lists. insecure_unsigned: a partner whose profile says so need not sign; its TLS certificate
    alone proves it.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        partners: Partners,
        store: Store,
        handlers: Mapping[str, Handler],
        limits: Limits,
        clock: Clock,
        entropy: Entropy,
        journal: Journal,
        strict: bool = False,
        nonces: NonceLog | None = None,
        known: KnownPartners | None = None,
        lists: Revocations = NONE,
        insecure_unsigned: bool = False,
    ) -> None:
        self._identity = identity
        self._partners = partners
        self._store = store
        self._handlers = dict(handlers)
        self._limits = limits
        self._clock = clock
        self._entropy = entropy
        self._journal = journal
        self._strict = strict
        self._checked = checked_routes()
        start = clock.now_ms() if nonces is None else nonces.complete_since
        self._nonces = nonces
        self._known = known
        self._lists = lists
        self._insecure_unsigned = insecure_unsigned
        self._replay = ReplayGuard(window_ms=limits.clock_window_ms, capacity=limits.nonces, not_before=start)
        self._carried = ReplayGuard(
            window_ms=limits.clock_window_ms, capacity=max(4, limits.nonces // _CARRIED_NONCES), not_before=start
        )
        if nonces is not None:
            for guard, seen in nonces.recall():
                (self._carried if guard == _CARRIED else self._replay).recall(seen, now=clock.now_ms())
        self._rate = RateLimit(per_minute=limits.unsigned_per_minute, addresses=limits.edge_addresses)

    async def handle(self, request: EdgeRequest) -> EdgeReply:
        """Serve one request."""
        started = self._clock.monotonic()
        seen = _Seen(new_trace(self._entropy))
        try:
            data = await self._serve(request, seen)
            if isinstance(data, Streamed):
                reply = EdgeReply(200, b"", self._streamed(data, seen))
            else:
                reply = EdgeReply(200, encode_object({"code": seen.ok, "msg": "success", "data": dict(data)}))
        except GatewayError as e:
            return self._refuse(request, seen, started, e)
        except Exception as e:  # noqa: BLE001  # the one door: nothing may get out but a code
            frame = traceback.extract_tb(e.__traceback__)[-1]
            self._journal.note(
                "edge.error",
                error=type(e).__name__,
                where=f"{frame.name}:{frame.lineno}",
                route=seen.route,
                trace_id=seen.trace_id,
            )
            return self._refuse(request, seen, started, GatewayError(type(e).__name__))
        self._note("edge.call", request, seen, started, code=OK)
        return reply

    async def _streamed(self, data: Streamed, seen: _Seen) -> AsyncIterator[bytes]:
        """Raises ConnectionResetError whatever went wrong: the beginning is out."""
        try:
            async for piece in body(seen.ok, data, lambda records: _spelled(seen, records)):
                yield piece
        except Exception as e:
            reason = str(e)[:300] if isinstance(e, GatewayError) else type(e).__name__
            self._journal.note(
                "edge.broken_off", peer=seen.peer, route=seen.route, reason=reason, trace_id=seen.trace_id
            )
            raise ConnectionResetError("the list broke off") from e

    def _note(self, event: str, request: EdgeRequest, seen: _Seen, started: float, **more: str | int) -> None:
        self._journal.note(
            event,
            peer=seen.peer or None,
            address=request.peer_address,
            route=seen.route or None,
            ms=round((self._clock.monotonic() - started) * 1000),
            bytes=len(request.body),
            trace_id=seen.trace_id,
            **seen.ids,
            **more,
        )

    def _refuse(self, request: EdgeRequest, seen: _Seen, started: float, error: GatewayError) -> EdgeReply:
        wire = error.wire
        status = wire.http if seen.route else WIRE[Kind.NOT_FOUND].code if error.kind is Kind.NOT_FOUND else wire.http
        self._note(
            "edge.refused", request, seen, started, code=wire.code, kind=error.kind.value, reason=str(error)[:300]
        )
        text = f"{error.public_text()[:500]} (trace {seen.trace_id})"
        return EdgeReply(status, encode_object({"code": wire.code, "msg": text, "data": {}}))

    # --- the pipeline -----------------------------------------------------------------------------------------------

    async def _serve(self, request: EdgeRequest, seen: _Seen) -> Mapping[str, Any] | Streamed:
        self._check_size(request)
        name, route = self._route(request)
        seen.route = name
        if route.auth in (Auth.OPEN, Auth.CARRIED):
            self._rate.count(request.peer_address, now=self._clock.monotonic())
        head = self._headers(request, route, seen)
        query = _query(request.raw_query)
        self._check_target(head, route, may_lack=self._may_lack(route))
        now = self._clock.now_ms()
        self._check_time(head, route, now)
        call = _Call(request, name, route, head, query, seen.trace_id, now)
        caller = await self._authenticate(call)
        payload = self._payload(call)
        dialect = await self._dialect(caller, name, payload)
        payload = from_peer(dialect, name, payload)
        for member in ("job_id", "task_id"):
            value = payload.get(member)
            if isinstance(value, str):
                seen.ids[member] = value[: self._limits.id_chars]
        if name in self._checked:
            payload = check(name, payload)
        handler = self._handlers.get(name)
        if handler is None:
            raise Refused(f"{name} is not offered", kind=Kind.NOT_OFFERED, detail="")
        with acting(Actor("partner" if caller.proven else "claimed", caller.node_id, caller.trace_id)):
            data = await handler(caller, payload)
        seen.ok, seen.dialect = dialect.ok, dialect
        return data if isinstance(data, Streamed) else to_peer(dialect, name, data)

    async def _dialect(self, caller: Caller, name: str, payload: Mapping[str, Any]) -> Profile:
        """That of the contract which proved the caller; for confirm, which proves nothing, of the one it names; for
        apply, before which there is none, the default.

        Nobody else is answered in a partner's dialect: it would tell who our partners are.
        """
        contract, contract_id = caller.contract, payload.get("contract_id")
        if contract is None and name == "node.contract.confirm" and isinstance(contract_id, str):
            contract = await self._store.run(lambda tx: tx.get(Contract, contract_id))
            if contract is not None and contract.peer_node_id != caller.node_id:
                contract = None
        if name == "node.contract.apply":
            return profile(self._partners.default_profile)
        return STRICT if contract is None else profile(contract.profile)

    def _may_lack(self, route: Route) -> bool:
        """Whether headers may be missing until it is known whose profile judges that (`_check_whole`).

        Only where something without a signature may be let in at all, and only in the control layer.
        """
        return self._insecure_unsigned and route.auth is Auth.SIGNED and route.clause.startswith("2:")

    def _check_whole(self, head: _Head, contract: Contract) -> None:
        """What the caller's profile does not leave out must be there."""
        for name, value in (
            (names.TARGET_NODE, head.target),
            (names.NONCE, head.nonce),
            (names.TIMESTAMP, head.timestamp),
        ):
            if not value and name not in profile(contract.profile).omits:
                raise ProtocolViolation(f"{name} is missing")

    def _check_size(self, request: EdgeRequest) -> None:
        if len(request.body) > self._limits.body_bytes:
            raise ProtocolViolation(f"body has more than {self._limits.body_bytes} bytes", kind=Kind.TOO_LARGE)
        head = len(request.raw_query) + sum(len(name) + len(value) for name, value in request.headers.items())
        if head > self._limits.header_bytes:
            raise ProtocolViolation(f"head has more than {self._limits.header_bytes} bytes", kind=Kind.TOO_LARGE)

    def _route(self, request: EdgeRequest) -> tuple[str, Route]:
        name = BY_PATH.get((request.method.upper(), request.path))
        if name is None or ROUTES[name].side is not Side.EDGE or name.startswith("chan."):
            raise Refused("no such endpoint", kind=Kind.NOT_FOUND, detail="")
        return name, ROUTES[name]

    def _headers(self, request: EdgeRequest, route: Route, seen: _Seen) -> _Head:
        ids, headers = self._limits.id_chars, request.headers
        trace = _header(headers, names.TRACE, ids)
        if trace:
            seen.trace_id = TraceId(trace)
        head = _Head(
            source=_header(headers, names.SOURCE_NODE, ids),
            target=_header(headers, names.TARGET_NODE, ids),
            nonce=_header(headers, names.NONCE, ids),
            timestamp=_header(headers, names.TIMESTAMP, 16),
            trace=trace,
            csrf=_header(headers, names.CSRF, self._limits.text_chars),
            sign=_header(headers, names.AUTH_SIGN, self._limits.text_chars),
            token_set=_header(headers, names.MPRAC_TOKEN_SET, self._limits.header_bytes),
        )
        seen.peer = head.source
        if route.auth is not Auth.OPEN:
            required = [(names.SOURCE_NODE, head.source)]
            if not self._may_lack(route):
                required += [
                    (names.TARGET_NODE, head.target),
                    (names.NONCE, head.nonce),
                    (names.TIMESTAMP, head.timestamp),
                ]
            if self._strict:
                required.append((names.TRACE, head.trace))
                if request.method.upper() == "POST":
                    required.append((names.CSRF, head.csrf))
            for name, value in required:
                if not value:
                    raise ProtocolViolation(f"{name} is missing")
        if route.method == "POST" and request.body:
            kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise ProtocolViolation("content-type must be application/json")
        return head

    def _check_target(self, head: _Head, route: Route, *, may_lack: bool) -> None:
        if head.target != self._identity.node_id and (head.target or not (route.auth is Auth.OPEN or may_lack)):
            raise Refused("addressed to another node", kind=Kind.MISADDRESSED, detail="")

    def _check_time(self, head: _Head, route: Route, now: int) -> None:
        text = head.timestamp
        if not text and (route.auth is Auth.OPEN or self._may_lack(route)):
            return
        if not (text.isdigit() and len(text) in (_MS_DIGITS, _S_DIGITS)):
            raise ProtocolViolation("x-timestamp must be milliseconds in 13 digits")
        if len(text) == _MS_DIGITS:
            self._replay.check_time(int(text), now=now)
        elif route.auth in (Auth.OPEN, Auth.CARRIED):
            raise ProtocolViolation("x-timestamp must be milliseconds in 13 digits")
        # Ten digits: only with a partner whose profile says so, see _check_seconds.

    def _check_seconds(self, head: _Head, contract: Contract, now: int) -> None:
        if len(head.timestamp) != _S_DIGITS:
            return
        if not profile(contract.profile).seconds:
            raise ProtocolViolation("x-timestamp must be milliseconds in 13 digits")
        self._replay.check_time(_milliseconds(head.timestamp), now=now)

    def _payload(self, call: _Call) -> Mapping[str, Any]:
        if call.route.method == "GET":
            return dict(call.query)
        body = parse_object(call.request.body, self._limits) if call.request.body else {}
        return {**dict(call.query), **body} if call.name in _QUERY_AND_BODY else body

    # --- who is it --------------------------------------------------------------------------------------------------

    async def _authenticate(self, call: _Call) -> Caller:
        source = NodeId(call.head.source)
        claimed = Caller(source, None, call.trace_id, call.head.token_set)
        if call.route.auth is Auth.OPEN:
            return claimed
        if call.route.auth is Auth.CARRIED:
            return await self._carried_proof(call, claimed)
        if not (call.head.sign or "signature" in call.request.headers or self._insecure_unsigned):
            raise Refused("x-auth-sign is missing", kind=Kind.UNAUTHENTICATED, detail="")
        contract, retired = self._prove(await self._contracts(call, source), call)
        self._check_whole(call.head, contract)
        self._check_seconds(call.head, contract, call.now)
        await self._remember(contract, call, retired=retired)
        if call.route.auth is Auth.SIGNED and not is_valid(contract, call.now):
            raise Refused("the contract does not hold", kind=Kind.CONTRACT_INVALID, detail="")
        return Caller(source, contract, call.trace_id, call.head.token_set, proven=True, retired_key=retired)

    async def _remember(self, contract: Contract, call: _Call, *, retired: bool) -> None:
        """Take note of a nonce under the key that proved the call, in the memory of those whose contract holds.

        Anybody may apply, in any name, so other keys share the smaller memory and are counted like unsigned calls:
        otherwise an applicant could fill the memory of our partners, or use up what is theirs under their name.
        """
        nonce = call.head.nonce
        if not nonce:
            return  # its profile has none; TLS lets nobody repeat what it carried (B-07)
        signer, at = _key_of(contract, retired=retired), _milliseconds(call.head.timestamp)
        if is_valid(contract, call.now):
            if self._carried.knows(signer, nonce, now=call.now):
                raise Refused("nonce seen before", kind=Kind.REPLAYED, detail="")
            await self._keep(_SIGNED, self._replay.remember(signer, nonce, now=call.now, timestamp=at))
        else:
            self._rate.count(call.request.peer_address, now=self._clock.monotonic())
            await self._keep(_CARRIED, self._carried.remember(signer, nonce, now=call.now, timestamp=at))

    async def _contracts(self, call: _Call, source: NodeId) -> Sequence[Contract]:
        """The contracts whose credential may prove this call."""
        if call.route.auth is Auth.SIGNED:
            if self._known is not None:
                return await self._known.verifiers(source, call.now)
            return await self._store.run(lambda tx: self._partners.verifiers(tx, source))
        # APPLICANT: the call names its contract, which may be one that only waits or has ended.
        contract_id = self._payload(call).get("contract_id")
        if not isinstance(contract_id, str):
            raise ProtocolViolation("contract_id is missing")
        contract = await self._store.run(lambda tx: self._partners.get(tx, contract_id))
        if contract.peer_node_id != source:
            raise Refused("the contract is another node's", kind=Kind.CONTRACT_UNKNOWN, detail="")
        return [contract] if contract.auth_credential else []

    def _prove(self, contracts: Sequence[Contract], call: _Call) -> tuple[Contract, bool]:
        """The contract that the signature proves, and whether by the key that the partner has replaced (M-037)."""
        why = Refused("not a partner", kind=Kind.UNAUTHENTICATED, detail="")
        for contract in contracts:
            try:
                if is_valid(contract, call.now):
                    # A contract that only waits, or has ended, pins no CA in our listener.
                    self._check_certificate(contract, call)
                return contract, self._verify(contract, call)
            except Refused as e:
                why = e
        raise Refused(f"not proven: {why}", kind=Kind.UNAUTHENTICATED, detail="") from why

    def _verify(self, contract: Contract, call: _Call) -> bool:
        """Whether it took the replaced key; raises Refused where neither verifies."""
        signature = profile(contract.profile).signature
        if signature is Signature.NONE:
            if not self._insecure_unsigned or not is_valid(contract, call.now):
                # Where no contract holds, TLS proves nothing either.
                raise Refused("unsigned calls are not allowed here", kind=Kind.UNAUTHENTICATED)
            if not call.head.sign:
                self._journal.note("insecure.unsigned", peer=contract.peer_node_id, route=call.name)
                if not contract.auth_credential:
                    return False  # recorded by hand: it never had a key
        verify = _VERIFY[signature]
        try:
            credential = parse_credential(contract.auth_type, contract.auth_credential)
            credential.check(node_id=contract.peer_node_id, now_ms=call.now, lists=self._lists)
            verify(credential, call)
        except Refused:
            if call.now >= contract.old_until:
                raise
            credential = parse_credential(contract.old_auth_type, contract.old_auth_credential)
            credential.check(node_id=contract.peer_node_id, now_ms=call.now, lists=self._lists)
            verify(credential, call)
            return True
        return False

    def _check_certificate(self, contract: Contract, call: _Call) -> None:
        if call.request.peer_cert is None:
            raise Refused("no client certificate", kind=Kind.UNAUTHENTICATED)
        cas = pinned_cas(contract, call.now)
        check_client(call.request.peer_cert, cas, node_id=contract.peer_node_id, now_ms=call.now, lists=self._lists)

    async def _keep(self, guard: int, seen: SeenNonce) -> None:
        if self._nonces is not None:
            await self._nonces.keep(guard, seen)

    async def _carried_proof(self, call: _Call, claimed: Caller) -> Caller:
        """Apply and confirm: where signed, with the key they carry; unsigned is within the standard (M-010)."""
        if not call.head.sign:
            return claimed
        body = self._payload(call)
        auth_type, text = body.get("auth_type"), body.get("auth_credential")
        if not isinstance(auth_type, str) or not isinstance(text, str):
            return claimed  # a rejection carries no key
        try:
            credential = parse_credential(auth_type, text)
            credential.check(node_id=claimed.node_id, now_ms=call.now, lists=self._lists)
            _a01(credential, call)
        except Refused as e:
            # Everything in the body is the caller's own: it may know what is wrong with it.
            raise Refused(str(e), kind=Kind.UNAUTHENTICATED) from e
        at = _milliseconds(call.head.timestamp)
        seen = self._carried.remember(credential.fingerprint, call.head.nonce, now=call.now, timestamp=at)
        await self._keep(_CARRIED, seen)
        return Caller(claimed.node_id, None, claimed.trace_id, claimed.token_set, proven=True)
