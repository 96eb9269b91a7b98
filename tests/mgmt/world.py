"""Nodes of one process that talk through their real edges and real signatures, without sockets."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.auth.canonical import Signed, canonical, encode_query
from gateway.auth.keys import KeyRing, load_signer
from gateway.auth.pki import Pki, renew_signing
from gateway.auth.schemes import Signer
from gateway.errors import Unavailable
from gateway.mgmt_plane.core.messages import check_address
from gateway.mgmt_plane.rest.admin import Admin, AdminContext
from gateway.mgmt_plane.rest.admin_keys import KeyAdmin, KeyContext
from gateway.mgmt_plane.rest.client import FirstContact, SignedClient
from gateway.mgmt_plane.rest.edge import Edge, Handler
from gateway.mgmt_plane.rest.handlers import Services, management_handlers
from gateway.mgmt_plane.service.audits import Audits
from gateway.mgmt_plane.service.datasets import Datasets
from gateway.mgmt_plane.service.decisions import Decisions
from gateway.mgmt_plane.service.grants import Grants
from gateway.mgmt_plane.service.keys import Keys
from gateway.mgmt_plane.service.outgoing import Outgoing
from gateway.mgmt_plane.service.partners import Partners
from gateway.mgmt_plane.service.projects import Projects
from gateway.mgmt_plane.service.trail import Trail, TrailedStore
from gateway.mgmt_plane.service.users import Principal
from gateway.model import (
    Audit,
    CallState,
    Contract,
    Dataset,
    DatasetId,
    Identity,
    InstId,
    Limits,
    NodeId,
    OutCall,
    TraceId,
)
from gateway.ports import EdgeReply, EdgeRequest, NonceLog, PeerReply, Tx
from gateway.runtime.observe import failures_of
from gateway.runtime.outbox import Outbox
from gateway.runtime.rekey import Rekeyer
from gateway.runtime.system import SystemEntropy
from gateway.store.memory import MemoryStore
from specs import headers as names
from specs.admin import Role
from specs.routes import ROUTES
from specs.states import AuditKind, AuthType

NOW = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
T = TypeVar("T")
ALICE = Principal("alice", Role.ADMIN, "")


@dataclass
class FakeClock:
    ms: int = NOW

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


@dataclass
class ListJournal:
    events: list[dict[str, Any]] = field(default_factory=list)
    listeners: list[Callable[[str, Mapping[str, Any]], None]] = field(default_factory=list)

    def note(self, event: str, **ids: str | float | bool | None) -> None:
        json.dumps(ids)
        self.events.append({"event": event, **ids})
        for listener in self.listeners:
            listener(event, ids)

    def recent(self, *, limit: int, **equals: str) -> list[Mapping[str, Any]]:
        return [each for each in self.events if all(each.get(k) == v for k, v in equals.items())][-limit:]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event]


@cache
def pki(node_id: str) -> Pki:
    """One set of keys per node id for the whole test run."""
    folder = Path(tempfile.mkdtemp(prefix="interconn-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Pki.create(folder / "pki", node_id, now=datetime.fromtimestamp(NOW / 1000, UTC))


def tls_leaf(made: Pki) -> bytes:
    return x509.load_pem_x509_certificates(made.tls.read_bytes())[0].public_bytes(Encoding.DER)


def credential_text(made: Pki, auth_type: AuthType) -> str:
    """What a node with these keys sends as auth_credential."""
    if auth_type is AuthType.CERT:
        return made.signing.read_text()
    return public_key_text(made.signing)


def public_key_text(chain: Path) -> str:
    """The public key of the first certificate in a file, as PEM."""
    leaf = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    return leaf.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class InProcessClient(SignedClient):
    """The real client with the network replaced by the other node's edge. `lost`: routes whose answer is lost."""

    def __init__(self, world: "World", made: Pki, **parts: Any) -> None:
        super().__init__(tls_chain=made.tls, tls_key=made.tls_key, **parts)
        self._world = world
        self._made = made
        self.lost: list[str] = []
        self.calls: list[tuple[str, Mapping[str, str]]] = []

    def _context(self, tls_ca: str, node_id: str, *, show: bool) -> Any:
        return show

    async def _exchange(self, call: Any, context: Any) -> PeerReply:
        headers = self._headers(call)
        self.calls.append((call.name, headers))
        node = self._world.by_address.get(call.address)
        if node is None or not node.up:
            raise Unavailable(f"{call.address} is down")
        reply = await node.edge.handle(
            EdgeRequest(
                method=call.route.method,
                path=call.route.path,
                query=dict(call.query),
                raw_query=encode_query(call.query),
                headers=headers,
                body=call.body,
                peer_cert=tls_leaf(self._made) if context else None,
                peer_address="10.0.0.9",
            )
        )
        if call.name in self.lost:
            self.lost.remove(call.name)
            raise Unavailable("the answer was lost")
        return self._judge(call, reply.status, reply.body)

    async def first_contact(self, address: str, *, node_id: str | None = None) -> FirstContact:
        node = self._world.by_address.get(check_address(address))
        if node is None or not node.up:
            raise Unavailable(f"{address} is down")
        made = pki(node.identity.node_id)
        return FirstContact(
            node.identity.node_id, made.ca.read_text(), made.fingerprint, {"node_id": node.identity.node_id}
        )


@dataclass
class Node:
    """One gateway's management plane."""

    world: "World"
    identity: Identity
    limits: Limits
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    strict: bool = False
    four_eyes: frozenset[str] = frozenset()
    auth_type: AuthType = AuthType.CERT
    up: bool = True

    def __post_init__(self) -> None:
        made = pki(self.identity.node_id)
        self.pki = made
        self.clock = self.world.clock
        self.entropy = SystemEntropy()
        self.journal = ListJournal()
        self.routes_changed = 0
        self.signer = load_signer(
            auth_type=self.auth_type,
            key_uri=made.signing_key.as_uri(),
            credential=credential_text(made, self.auth_type),
        )
        self.ring = KeyRing(self.signer)
        store = MemoryStore()
        self.trail = Trail(store, identity=self.identity, signer=lambda: self.signer, clock=self.clock)
        self.store = TrailedStore(store, self.trail, self.clock)
        self.journal.listeners.append(failures_of(self.trail.failures, self.clock))
        base: dict[str, Any] = {"identity": self.identity, "clock": self.clock, "entropy": self.entropy}
        self.outgoing = Outgoing(clock=self.clock, entropy=self.entropy)
        self.partners = Partners(
            **base,
            signer=self.ring,
            limits=self.limits,
            outgoing=self.outgoing,
            on_routes_changed=self._changed,
        )
        self.grants = Grants(**base, partners=self.partners)
        self.audits = Audits(
            **base, partners=self.partners, grants=self.grants, outgoing=self.outgoing, limits=self.limits
        )
        self.datasets = Datasets(**base, grants=self.grants)
        self.projects = Projects(**base, partners=self.partners, audits=self.audits)
        self.keys = Keys(identity=self.identity, ring=self.ring, partners=self.partners, clock=self.clock)
        self.services = Services(
            keys=self.keys,
            identity=self.identity,
            store=self.store,
            limits=self.limits,
            partners=self.partners,
            audits=self.audits,
            datasets=self.datasets,
            projects=self.projects,
        )
        self.edge = self.new_edge()
        self.client = InProcessClient(
            self.world, made, **base, signer=self.ring, limits=self.limits, journal=self.journal
        )
        self.outbox = Outbox(
            store=self.store,
            client=self.client,
            journal=self.journal,
            clock=self.clock,
            entropy=self.entropy,
            on_result=self.audits.call_ended,
        )
        self.admin = Admin(
            AdminContext(
                services=self.services,
                client=self.client,
                clock=self.clock,
                entropy=self.entropy,
                journal=self.journal,
                fingerprint=self.signer.fingerprint,
                listeners={"edge": self.identity.address},
                decisions=Decisions(clock=self.clock, four_eyes=self.four_eyes),
                four_eyes=self.four_eyes,
            )
        )

        of_keys: dict[str, Any] = {
            "store": self.store,
            "keys": self.keys,
            "ring": self.ring,
            "journal": self.journal,
        }
        self.rekeyer = Rekeyer(**of_keys, client=self.client, entropy=self.entropy)
        self.key_admin = KeyAdmin(
            KeyContext(
                **of_keys,
                make=self.new_signer,
                wake=lambda: None,
                refusals=self.rekeyer.refusals,
                clock=self.clock,
            )
        )

    async def new_signer(self) -> tuple[Signer, str]:
        """A signing key that follows the present one, under the node's own CA."""
        made = self.pki
        chain, key = renew_signing(
            ca=made.ca,
            ca_key=made.ca_key,
            directory=made.ca.parent,
            node_id=self.id,
            now=datetime.fromtimestamp(self.clock.ms / 1000, UTC),
        )
        text = chain.read_text() if self.auth_type is AuthType.CERT else public_key_text(chain)
        return load_signer(auth_type=self.auth_type, key_uri=key.as_uri(), credential=text), key.as_uri()

    def _changed(self) -> None:
        self.routes_changed += 1

    def new_edge(self, nonces: NonceLog | None = None) -> Edge:
        return Edge(
            identity=self.identity,
            partners=self.partners,
            store=self.store,
            handlers={**management_handlers(self.services), **self.handlers},
            limits=self.limits,
            clock=self.clock,
            entropy=self.entropy,
            journal=self.journal,
            strict=self.strict,
            nonces=nonces,
        )

    @property
    def id(self) -> NodeId:
        return self.identity.node_id

    async def run(self, work: Callable[[Tx], T]) -> T:
        return await self.store.run(work)

    async def admin_call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Any:
        """Call an admin handler by its path, as the server would."""
        for route in [*self.admin.routes(), *self.key_admin.routes()]:
            parts, wanted = path.split("/"), route.path.split("/")
            if route.method == method and len(parts) == len(wanted):
                params = {w[1:-1]: p for p, w in zip(parts, wanted, strict=True) if w.startswith("{")}
                if all(w.startswith("{") or p == w for p, w in zip(parts, wanted, strict=True)):
                    return await route.serve(ALICE, params, query, body or {})
        raise AssertionError(f"no admin route {method} {path}")

    async def flush(self) -> None:
        """Perform what is due, as the outbox would, until nothing is."""
        for _ in range(50):
            due = [
                each
                for each in await self.run(lambda tx: tx.select(OutCall, state=CallState.DUE))
                if each.due <= self.clock.ms
            ]
            if not due:
                return
            await self.outbox._perform(due[0])

    async def contract(self, node: "Node") -> Contract:
        """The newest contract with `node`, whatever its state."""
        found = await self.run(lambda tx: tx.select(Contract, peer_node_id=node.id, order="-created"))
        return found[0]

    async def only_audit(self) -> Audit:
        found = await self.run(lambda tx: tx.select(Audit))
        assert len(found) == 1
        return found[0]

    async def add_dataset(self, name: str, *, public: bool = True) -> Dataset:
        dataset = Dataset(
            dataset_id=DatasetId(name),
            name=name,
            owner=self.identity.inst_id,
            category="c",
            description="",
            count=3,
            join_columns="id",
            label_columns="y",
            column_metas=(
                {"name": "id", "data_type": "varchar", "distribution": "DISCRETE"},
                {"name": "y", "data_type": "int", "distribution": "DISCRETE"},
                {"name": "x", "data_type": "double", "distribution": "CONTINUOUS"},
            ),
            public=public,
            location="/secret/place.csv",
            created=self.clock.ms,
        )
        await self.run(lambda tx: tx.insert(dataset))
        self.clock.ms += 1
        return dataset

    async def send(self, to: "Node", route: str, payload: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """One signed request of this node to another's edge, with `changes`; returns the decoded answer."""
        reply = await to.edge.handle(self.request(to, route, payload, **changes))
        return decoded(reply)

    def request(
        self,
        to: "Node",
        route: str,
        payload: Mapping[str, Any],
        *,
        headers: Mapping[str, str | None] | None = None,
        body: bytes | None = None,
        sign: bool = True,
        cert: Pki | bool | None = True,
        signer: Any = None,
        after: Callable[[EdgeRequest], EdgeRequest] = lambda request: request,
    ) -> EdgeRequest:
        """headers: replaced before signing, None removes. cert: True own, None none. after: tampering."""
        found = ROUTES[route]
        pairs = [(k, str(v)) for k, v in payload.items()] if found.method == "GET" else []
        raw = b"" if found.method == "GET" else json.dumps(payload).encode()
        raw = raw if body is None else body
        made: dict[str, str | None] = {
            names.SOURCE_NODE: self.id,
            names.TARGET_NODE: to.id,
            names.NONCE: self.entropy.token(16).hex(),
            names.TRACE: "tr-test",
            names.TIMESTAMP: str(self.clock.ms),
            names.CSRF: "x",
            "content-type": "application/json",
            **(headers or {}),
        }
        if sign and names.AUTH_SIGN not in made:
            message = canonical(
                Signed(
                    method=found.method,
                    path=found.path,
                    query=tuple(pairs),
                    source=made[names.SOURCE_NODE] or "",
                    target=made[names.TARGET_NODE] or "",
                    nonce=made[names.NONCE] or "",
                    timestamp=made[names.TIMESTAMP] or "",
                    body=raw,
                )
            )
            made[names.AUTH_SIGN] = (signer or self.signer).sign(message)
        shown = self.pki if cert is True else cert
        return after(
            EdgeRequest(
                method=found.method,
                path=found.path,
                query=dict(pairs),
                raw_query=urlencode(pairs),
                headers={name: value for name, value in made.items() if value is not None},
                body=raw,
                peer_cert=tls_leaf(shown) if isinstance(shown, Pki) else None,
                peer_address="10.0.0.7",
            )
        )


def decoded(reply: EdgeReply) -> dict[str, Any]:
    answer = json.loads(reply.body)
    assert set(answer) == {"code", "msg", "data"}
    assert isinstance(answer["code"], int)
    assert isinstance(answer["msg"], str)
    assert isinstance(answer["data"], dict)
    return {**answer, "http": reply.status}


class World:
    """Some nodes and one clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.by_address: dict[str, Node] = {}

    def node(self, name: str, **parts: Any) -> Node:
        address = f"https://{name.lower()}.example:7304"
        identity = Identity(
            node_id=NodeId(name),
            inst_id=InstId(f"JG{name}"),
            name=f"node {name}",
            institution=f"Institution {name}",
            system="interconn",
            system_version="0.1",
            address=address,
        )
        limits = parts.pop("limits", Limits(request_attempts=1, unsigned_per_minute=1000))
        node = Node(self, identity, limits, **parts)
        self.by_address[address] = node
        return node

    async def apply(self, applicant: Node, holder: Node) -> Contract:
        """First contact and contract/apply; returns the applicant's contract."""
        self.clock.ms += 10
        await applicant.admin_call(
            "POST",
            "/v1/admin/partners/apply",
            {
                "address": holder.identity.address,
                "node_id": holder.id,
                "fingerprint": holder.pki.fingerprint,
            },
        )
        return await applicant.contract(holder)

    async def partners(self, applicant: Node, holder: Node) -> Contract:
        """A contract that both approved; returns the applicant's."""
        contract = await self.apply(applicant, holder)
        await holder.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/approve")
        await holder.flush()
        self.clock.ms += 10
        return await applicant.contract(holder)

    async def grant(
        self, user: Node, holder: Node, dataset_id: str, *, approve: Mapping[str, Any] | None = None, **asked: Any
    ) -> Audit:
        """A dataset audit that the holder approved; returns the user's audit."""
        self.clock.ms += 10
        shown = await user.admin_call(
            "POST", "/v1/admin/datasets/apply", {"node_id": holder.id, "dataset_id": dataset_id, **asked}
        )
        await user.flush()
        await holder.admin_call("POST", f"/v1/admin/audits/{user.id}/{shown['audit_id']}/approve", approve)
        await holder.flush()
        return await user.run(lambda tx: user.audits.get(tx, user.id, shown["audit_id"]))


def tampered(**changes: Any) -> Callable[[EdgeRequest], EdgeRequest]:
    return lambda request: replace(request, **changes)


def trace() -> TraceId:
    return TraceId("tr-test")


__all__ = ["NOW", "AuditKind", "Node", "World", "credential_text", "decoded", "pki", "tampered", "tls_leaf", "trace"]
