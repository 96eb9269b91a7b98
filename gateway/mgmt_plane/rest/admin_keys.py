"""Admin routes for keys: show ours and the partners', replace ours, end an overlap, allow a partner's new CA."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.auth.keys import KeyRing
from gateway.auth.schemes import Signer
from gateway.errors import ProtocolViolation
from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.service.keys import Keys
from gateway.model import Contract, ContractId, OwnKey
from gateway.ports import Clock, Journal, Store, Tx
from specs.admin import BASE
from specs.states import ApprovalState

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeyContext:
    """make: a new signing key with its URI. take: one that the admin made (URI, credential).

    wake: partners are to be told. refusals: why one has not taken it yet.
    """

    store: Store
    keys: Keys
    ring: KeyRing
    make: Callable[[], Awaitable[tuple[Signer, str]]]
    take: Callable[[str, str], Awaitable[tuple[Signer, str]]]
    wake: Callable[[], None]
    refusals: Mapping[ContractId, str]
    clock: Clock
    journal: Journal


class KeyAdmin:
    """The handlers; `routes` lists them."""

    def __init__(self, context: KeyContext) -> None:
        self._context = context

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("GET", f"{BASE}/keys", self.show),
            AdminRoute("POST", f"{BASE}/keys/rotate", self.rotate),
            AdminRoute("POST", f"{BASE}/keys/revoke", self.revoke),
            AdminRoute("POST", f"{BASE}/partners/{{contract_id}}/keys/allow", self.allow),
            AdminRoute("POST", f"{BASE}/partners/{{contract_id}}/keys/revoke", self.revoke_old),
        ]

    async def show(self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]) -> Answer:
        """Our keys, and for each partner which of ours it knows and what its own are."""

        def look(tx: Tx) -> tuple[list[OwnKey], list[Contract]]:
            return list(tx.select(OwnKey)), list(tx.select(Contract, status=ApprovalState.APPROVED))

        own, contracts = await self._context.store.run(look)
        current = self._context.ring.current
        return {
            "key_id": current.key_id,
            "auth_type": current.auth_type.value,
            "fingerprint": current.fingerprint,
            "keys": [{"key_id": each.key_id, "emergency": each.emergency, "created": each.created} for each in own],
            "partners": [self._partner(each) for each in contracts],
        }

    def _partner(self, contract: Contract) -> Answer:
        ring, now = self._context.ring, self._context.clock.now_ms()
        knows = ring.id_of(contract.our_key)
        return {
            "contract_id": contract.contract_id,
            "peer_node_id": contract.peer_node_id,
            "peer_name": contract.peer_name,
            "knows": knows,
            "told": knows == ring.current.key_id,
            "refusal": self._context.refusals.get(contract.contract_id, ""),
            "auth_type": contract.auth_type,
            "fingerprint": contract.fingerprint,
            "proven": contract.proven,
            "old_until": contract.old_until if contract.old_until > now else None,
            "ca_offered": contract.ca_offered,
            "ca_allowed": contract.ca_allowed,
        }

    async def rotate(self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        """A new signing key; partners keep taking the one before it for the overlap."""
        return await self._renew(body, emergency=False)

    async def revoke(self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        """A new key at once, and no overlap: every key before it is compromised."""
        return await self._renew(body, emergency=True)

    async def _renew(self, body: Mapping[str, Any], *, emergency: bool) -> Answer:
        """{(key_uri, credential)}: a key that our admin made, for example in a token."""
        key_uri, credential = body.get("key_uri"), body.get("credential")
        if key_uri is None and credential is None:
            signer, uri = await self._context.make()
        elif isinstance(key_uri, str) and isinstance(credential, str):
            signer, uri = await self._context.take(key_uri, credential)
        else:
            raise ProtocolViolation("key_uri and credential go together")
        await self._context.store.run(lambda tx: self._context.keys.keep(tx, signer, key_uri=uri, emergency=emergency))
        self._context.ring.add(signer, emergency=emergency)
        self._context.journal.note("key.made", key_id=signer.key_id, emergency=emergency)
        self._context.wake()
        return {"key_id": signer.key_id, "emergency": emergency}

    async def allow(self, params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        """The partner may sign under the trust anchor with this fingerprint, compared out of band.

        Or {ca_pem}: the new TLS CA of a partner with a bare key.
        """
        ca_pem = body.get("ca_pem")
        if isinstance(ca_pem, str) and ca_pem:
            given = await self._context.store.run(
                lambda tx: self._context.keys.allow_ca(tx, params["contract_id"], ca_pem)
            )
            self._context.journal.note("key.allowed", peer=given.peer_node_id)
            return {"contract_id": given.contract_id, "ca_allowed": ""}
        mark = body.get("fingerprint")
        if not isinstance(mark, str):
            raise ProtocolViolation("fingerprint is missing")
        contract = await self._context.store.run(lambda tx: self._context.keys.allow(tx, params["contract_id"], mark))
        self._context.journal.note("key.allowed", peer=contract.peer_node_id, fingerprint=contract.ca_allowed)
        return {"contract_id": contract.contract_id, "ca_allowed": contract.ca_allowed}

    async def revoke_old(
        self, params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> Answer:
        """The key that a partner has replaced is void from now on."""
        contract = await self._context.store.run(lambda tx: self._context.keys.revoke_old(tx, params["contract_id"]))
        self._context.journal.note("key.revoked", peer=contract.peer_node_id)
        return {"contract_id": contract.contract_id, "old_until": None}
