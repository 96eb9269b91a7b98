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
from gateway.auth.chain import fingerprint
from gateway.auth.keys import KeyRing, load_signer, path_of
from gateway.auth.pki import Pki, load_issuer, renew_signing
from gateway.auth.revocation import RevocationLists
from gateway.auth.revocation import make as make_crl
from gateway.auth.schemes import Signer
from gateway.auth.tls_ring import TlsFiles, TlsRing
from gateway.errors import Unavailable
from gateway.mgmt_plane.core.messages import check_address
from gateway.mgmt_plane.rest.admin import Admin, AdminContext
from gateway.mgmt_plane.rest.admin_crls import CrlAdmin, Write
from gateway.mgmt_plane.rest.admin_keys import KeyAdmin, KeyContext
from gateway.mgmt_plane.rest.admin_outbox import OutboxAdmin
from gateway.mgmt_plane.rest.admin_tls import MadeTls, TlsAdmin
from gateway.mgmt_plane.rest.client import FirstContact, SignedClient
from gateway.mgmt_plane.rest.edge import Edge, Handler
from gateway.mgmt_plane.rest.handlers import Services, management_handlers
from gateway.mgmt_plane.service.audits import Audits
from gateway.mgmt_plane.service.crls import Crls
from gateway.mgmt_plane.service.datasets import Datasets
from gateway.mgmt_plane.service.decisions import Decisions
from gateway.mgmt_plane.service.grants import Grants
from gateway.mgmt_plane.service.keys import Keys
from gateway.mgmt_plane.service.known import KnownPartners
from gateway.mgmt_plane.service.outgoing import Outgoing
from gateway.mgmt_plane.service.partners import Partners
from gateway.mgmt_plane.service.projects import Projects
from gateway.mgmt_plane.service.reconcile import Reconcile
from gateway.mgmt_plane.service.tls_keys import TlsKeys
from gateway.mgmt_plane.service.trail import Trail, TrailedStore
from gateway.mgmt_plane.service.users import Principal
from gateway.model import (
    Audit,
    CallState,
    Component,
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
from gateway.runtime.new_keys import OwnFiles, make_tls
from gateway.runtime.observe import failures_of
from gateway.runtime.outbox import Outbox
from gateway.runtime.reconcile import Reconciler
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
    return leaf_of(made.tls)


def leaf_of(chain: Path) -> bytes:
    return x509.load_pem_x509_certificates(chain.read_bytes())[0].public_bytes(Encoding.DER)


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
        super().__init__(**parts)
        self._world = world
        self._made = made
        self.lost: list[str] = []
        self.calls: list[tuple[str, Mapping[str, str]]] = []

    def _context(self, tls_ca: str, node_id: str, *, show: TlsFiles | None) -> Any:
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
                peer_cert=leaf_of(context.chain) if context is not None else None,
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
    insecure_unsigned: bool = False
    profile: str = "strict-1.2"

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
        self.shown = TlsRing(TlsFiles(made.fingerprint, made.tls, made.tls_key))
        store = MemoryStore()
        self.trail = Trail(store, identity=self.identity, signer=lambda: self.signer, clock=self.clock)
        self.store = TrailedStore(store, self.trail, self.clock)
        self.journal.listeners.append(failures_of(self.trail.failures, self.clock))
        base: dict[str, Any] = {"identity": self.identity, "clock": self.clock, "entropy": self.entropy}
        self.outgoing = Outgoing(clock=self.clock, entropy=self.entropy)
        self.lists = RevocationLists()
        self.partners = Partners(
            **base,
            lists=self.lists,
            insecure_unsigned=self.insecure_unsigned,
            default_profile=self.profile,
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
            self.world,
            made,
            **base,
            shown=self.shown,
            signer=self.ring,
            limits=self.limits,
            journal=self.journal,
            lists=self.lists,
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
                fingerprint=lambda: self.ring.greeting.fingerprint,
                listeners={"edge": self.identity.address},
                decisions=Decisions(clock=self.clock, four_eyes=self.four_eyes),
                four_eyes=self.four_eyes,
            )
        )

        self.reconciler = Reconciler(
            store=self.store,
            client=self.client,
            reconcile=Reconcile(partners=self.partners, audits=self.audits, clock=self.clock),
            journal=self.journal,
            clock=self.clock,
            entropy=self.entropy,
            every_s=600.0,
        )
        self.outbox_admin = OutboxAdmin(
            store=self.store,
            clock=self.clock,
            wake=self.wake,
            compare=self.reconciler.round,
        )
        of_keys: dict[str, Any] = {
            "store": self.store,
            "keys": self.keys,
            "ring": self.ring,
            "journal": self.journal,
        }
        self.tls = TlsKeys(ring=self.ring, shown=self.shown, partners=self.partners, clock=self.clock)
        self.partners.on_shown(self.tls.shown_to)
        self.ring.anchor(self.shown.shown.ca)
        self.rekeyer = Rekeyer(**of_keys, client=self.client, entropy=self.entropy, settle=self.settle)
        self.tls_admin = TlsAdmin(
            store=self.store,
            tls=self.tls,
            keys=self.keys,
            make=self.new_tls,
            changed=self.tls_changed,
            learn=lambda signer, emergency: self.ring.add(signer, emergency=emergency),
            journal=self.journal,
        )
        self.key_admin = KeyAdmin(
            KeyContext(
                **of_keys,
                make=self.new_signer,
                take=self.take_signer,
                wake=lambda: None,
                refusals=self.rekeyer.refusals,
                clock=self.clock,
            )
        )

        self.crls = Crls(partners=self.partners, lists=self.lists, clock=self.clock)
        self.crl_admin = CrlAdmin(
            store=self.store, crls=self.crls, own=self.own_list, clock=self.clock, journal=self.journal
        )

    async def settle(self) -> None:
        await self.run(self.tls.settle)
        await self.tls_changed()

    async def tls_changed(self) -> None:
        await self.tls.load(self.store)

    async def new_tls(self, new_ca: bool, emergency: bool) -> MadeTls:  # as the route calls it
        newest = await self.run(self.tls.newest)
        files = OwnFiles(
            directory=self.pki.ca.parent,
            node_id=self.id,
            hosts=("gate.example",),
            ca=path_of(newest.ca_uri) if newest else self.pki.ca,
            ca_key=path_of(newest.ca_key_uri) if newest else self.pki.ca_key,
        )
        return make_tls(
            files,
            before=[self.shown.shown.chain],
            new_ca=new_ca,
            emergency=emergency,
            signing=self.auth_type is AuthType.CERT,
            now=datetime.fromtimestamp(self.clock.ms / 1000, UTC),
        )

    async def own_list(self) -> tuple[str, Write]:
        """As the composition root's."""
        ca, key = load_issuer(self.pki.ca, self.pki.ca_key)
        now = datetime.fromtimestamp(self.clock.ms / 1000, UTC)
        return fingerprint(ca), lambda revoked, until: make_crl(ca, key, revoked, now=now, until=until)

    async def take_signer(self, key_uri: str, credential: str) -> tuple[Signer, str]:
        return load_signer(auth_type=self.auth_type, key_uri=key_uri, credential=credential), key_uri

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

    def wake(self) -> None:
        """Of whichever outbox is in place."""
        self.outgoing._wake()

    def _changed(self) -> None:
        self.routes_changed += 1

    def new_edge(self, nonces: NonceLog | None = None) -> Edge:
        known = KnownPartners(self.partners, self.store)
        self.store.on_write(Contract, known.forget)
        return Edge(
            known=known,
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
            lists=self.lists,
            insecure_unsigned=self.insecure_unsigned,
        )

    @property
    def id(self) -> NodeId:
        return self.identity.node_id

    async def run(self, work: Callable[[Tx], T]) -> T:
        return await self.store.run(work)

    async def admin_call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Any:
        """Call an admin handler by its path, as the server would."""
        for route in [
            *self.admin.routes(),
            *self.key_admin.routes(),
            *self.crl_admin.routes(),
            *self.outbox_admin.routes(),
            *self.tls_admin.routes(),
        ]:
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
        await self.add_components("psi", "split", "hetero_lr")
        self.clock.ms += 1
        return dataset

    async def add_components(self, *names: str, version: str = "1.0.0", code: str = "c0de") -> None:
        """Register components of the provider interconn, unless they are."""

        def work(tx: Tx) -> None:
            for name in names:
                made = Component(name, "interconn", version, {}, "image", True, self.clock.ms, code_digest=code)
                if tx.get(Component, made.key()) is None:
                    tx.insert(made)

        await self.run(work)

    async def send(self, to: "Node", route: str, payload: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """One signed request of this node to another's edge, with `changes`; returns the decoded answer."""
        reply = await to.edge.handle(self.request(to, route, payload, **changes))
        return decoded(await whole(reply))

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


async def whole(reply: EdgeReply) -> EdgeReply:
    """With what is streamed read to its end."""
    if reply.more is None:
        return reply
    return replace(reply, body=b"".join([reply.body, *[piece async for piece in reply.more]]), more=None)


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
