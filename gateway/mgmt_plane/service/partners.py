"""Contracts with partners: apply, confirm, terminate (1-management c.2, d.1), and which of them holds now.

Works inside transactions that the callers open. The machine is core.approval; who may cause an event is decided here:
only the stored counterpart (A-20, M-033). A partner's credential is checked, its CA pinned for it alone (ADR 0003).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.auth.chain import certificates, fingerprint
from gateway.auth.keys import KeyRing
from gateway.auth.revocation import NONE, Revocations
from gateway.auth.schemes import Credential, Signer, parse_credential, pin_ca
from gateway.errors import WIRE, CallerError, Kind, PeerError, ProtocolViolation, Refused
from gateway.mgmt_plane.core.approval import Effect, Event, decision, step
from gateway.mgmt_plane.core.messages import apply_body, check_address, confirm_body
from gateway.mgmt_plane.core.profile import Profile, Signature, profile
from gateway.mgmt_plane.service.outgoing import Outgoing
from gateway.model import (
    CallState,
    Contract,
    ContractId,
    Crl,
    Direction,
    Identity,
    InstId,
    Limits,
    NodeId,
    OutCall,
    PartnerWay,
)
from gateway.ports import Caller, Clock, Entropy, PeerRoute, Tx
from specs.states import ApprovalState, AuthType

DEFAULT_LIFE_MS: Final = 365 * 86_400_000
"""Of a contract for which nobody named an end; confirm must carry one (M-026)."""
TRANSPORT_SCHEMES: Final = ("https", "grpcs")
"""Of the address of a transport module: HTTP/1.1 or gRPC is spoken with it."""
_CANDIDATES: Final = 8
_UNSAID: Final = {"inst_id": "", "institution": "", "system": "", "system_version": ""}
"""What an application that describes its receiver leaves open about its sender."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """What the admin decided about a partner before applying: the CA whose fingerprint was compared out of band."""

    tls_ca: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Described:
    """A partner without a management layer, as our admin describes it; tls_ca and address are "" where unknown.

    transport: where its transport module is, "" where that is at `address` too.
    """

    node_id: NodeId
    inst_id: str
    name: str
    institution: str
    address: str
    transport: str
    profile: str
    tls_ca: str
    fingerprint: str
    expired_time: int | None


def is_valid(contract: Contract, now: int) -> bool:
    """APPROVED and not past its end (M-034)."""
    return contract.status is ApprovalState.APPROVED and (contract.expired_time is None or now < contract.expired_time)


def pinned_cas(contract: Contract, now: int) -> str:
    """The CA of a partner as PEM, and after it the one that it has just replaced, while that is still accepted."""
    if now < contract.old_until and contract.old_tls_ca != contract.tls_ca:
        return contract.tls_ca + contract.old_tls_ca
    return contract.tls_ca


class Partners:
    """All contracts of this node.

    signer: our key, or the ring of keys of which a new partner is told the one for first contact.

    on_routes_changed: called inside the transaction, on the store's thread, when `routes` may give another answer; it
    may only schedule, and sees the change when it reads through the store afterwards (M-075).
    """

    def __init__(
        self,
        *,
        identity: Identity,
        signer: Signer | KeyRing,
        limits: Limits,
        clock: Clock,
        entropy: Entropy,
        outgoing: Outgoing,
        default_profile: str = "strict-1.2",
        on_routes_changed: Callable[[], None] = lambda: None,
        lists: Revocations = NONE,
        insecure_unsigned: bool = False,
    ) -> None:
        if profile(default_profile).signature is Signature.NONE:  # an unknown one stops the start too
            raise CallerError(f"{default_profile} is for single partners, never the default")
        self._insecure_unsigned = insecure_unsigned
        self.identity = identity
        self._signer = signer
        self._limits = limits
        self._clock = clock
        self._entropy = entropy
        self._outgoing = outgoing
        self._profile = default_profile
        self._on_routes_changed = on_routes_changed
        self._lists = lists
        self._shows: Callable[[Contract], tuple[str, str]] = lambda _contract: ("", "")
        self._closed: list[Callable[[Tx, Contract], None]] = []
        self._applied: list[Callable[[Tx, Contract], None]] = []

    @property
    def default_profile(self) -> str:
        """The dialect of whoever has no contract yet."""
        return self._profile

    def on_closed(self, listener: Callable[[Tx, Contract], None]) -> None:
        """`listener` is called inside the transaction that terminates an approved or applied contract."""
        self._closed.append(listener)

    def on_applied(self, listener: Callable[[Tx, Contract], None]) -> None:
        """`listener` is called inside the transaction that keeps a partner's application."""
        self._applied.append(listener)

    def on_routes_changed(self, listener: Callable[[], None]) -> None:
        """Set who learns of new and removed routes."""
        self._on_routes_changed = listener

    def on_shown(self, shows: Callable[[Contract], tuple[str, str]]) -> None:
        """Set who says which TLS files of ours (chain, key) a partner is shown; "" for those of the process itself."""
        self._shows = shows

    def routes_changed(self) -> None:
        """Say that `routes` may give another answer; inside the transaction that makes it so."""
        self._on_routes_changed()

    # --- which contract holds ---------------------------------------------------------------------------------------

    def contract_with(self, tx: Tx, node_id: NodeId) -> Contract:
        """The contract under which `node_id` may be called now. Raises Refused(NODE_UNKNOWN or CONTRACT_INVALID)."""
        now = self._clock.now_ms()
        approved = tx.select(Contract, peer_node_id=node_id, status=ApprovalState.APPROVED, order="-updated")
        for contract in approved:
            if is_valid(contract, now):
                return contract
        if approved or tx.count(Contract, peer_node_id=node_id):
            raise Refused(f"no valid contract with {node_id}", kind=Kind.CONTRACT_INVALID)
        raise Refused(f"{node_id} is not a partner", kind=Kind.NODE_UNKNOWN)

    def verifiers(self, tx: Tx, node_id: NodeId) -> Sequence[Contract]:
        """Contracts whose credential may prove a call of `node_id`: those that hold, else the newest of the others.

        Anybody can apply in anybody's name, so what merely waits never hides what holds.
        """
        now = self._clock.now_ms()
        approved = tx.select(Contract, peer_node_id=node_id, status=ApprovalState.APPROVED, order="-updated")
        valid = [each for each in approved if is_valid(each, now)]
        if valid:
            return valid[:_CANDIDATES]
        others = tx.select(Contract, peer_node_id=node_id, order="-updated", limit=_CANDIDATES)
        return [each for each in (*approved[:_CANDIDATES], *others) if each.auth_credential]

    def get(self, tx: Tx, contract_id: str) -> Contract:
        """Raises Refused(CONTRACT_UNKNOWN)."""
        contract = tx.get(Contract, contract_id)
        if contract is None:
            raise Refused(f"contract {contract_id} is not known", kind=Kind.CONTRACT_UNKNOWN, detail="")
        return contract

    def of_caller(self, tx: Tx, caller: Caller, contract_id: str) -> Contract:
        """The contract a caller names, if it is one with the caller; another's is as good as unknown (M-033)."""
        contract = self.get(tx, contract_id)
        if contract.peer_node_id != caller.node_id:
            raise Refused(f"contract {contract_id} is not {caller.node_id}'s", kind=Kind.CONTRACT_UNKNOWN, detail="")
        return contract

    def valid_of_caller(self, tx: Tx, caller: Caller, contract_id: str) -> Contract:
        """As `of_caller`, and it must hold now (M-034)."""
        contract = self.of_caller(tx, caller, contract_id)
        if not is_valid(contract, self._clock.now_ms()):
            raise Refused(f"contract {contract_id} does not hold", kind=Kind.CONTRACT_INVALID, detail="")
        return contract

    def routes(self, tx: Tx) -> list[PeerRoute]:
        """Where the data plane may go and whom it may hear: one route per partner with a valid contract (M-075).

        The longest partnership first: where two CAs bear one name, the newcomer must not shut the other out.
        """
        now = self._clock.now_ms()
        found: dict[NodeId, Contract] = {}
        for each in tx.select(Contract, status=ApprovalState.APPROVED, order="-updated"):
            if is_valid(each, now) and each.tls_ca:
                found.setdefault(each.peer_node_id, each)
        lists = self.lists(tx)
        ordered = sorted(found.values(), key=lambda contract: (contract.created, contract.contract_id))
        return [self.route_of(each, lists) for each in ordered]

    def lists(self, tx: Tx) -> Mapping[str, str]:
        """The partners' revocation lists as PEM, by CA."""
        return {each.ca: each.pem for each in tx.select(Crl)}

    def route_of(self, contract: Contract, lists: Mapping[str, str]) -> PeerRoute:
        """Where the partner of a contract is and who it is. lists: revocation lists by CA."""
        cas = pinned_cas(contract, self._clock.now_ms())
        chain, key = self._shows(contract)
        return PeerRoute(
            node_id=contract.peer_node_id,
            inst_id=contract.peer_inst_id,
            address=contract.peer_transport or contract.peer_address,
            tls_ca=cas,
            profile=contract.profile,
            crls=_lists_of(cas, lists),
            our_chain=chain,
            our_key=key,
        )

    # --- we apply ---------------------------------------------------------------------------------------------------

    def apply_body(self, *, expired_time: int | None, description: str) -> dict[str, Any]:
        """The body of our contract/apply."""
        if expired_time is not None:
            self._check_end(expired_time)
        signer = self._signer.greeting
        return apply_body(
            self.identity,
            auth_type=signer.auth_type.value,
            credential=signer.credential,
            expired_time=expired_time,
            description=description,
        )

    def applicant(self, *, node: Mapping[str, Any], address: str, pinned: Pinned, description: str) -> Contract:
        """An OUT contract that has no id yet: what a client needs for first contact. node: their node/query."""
        if node["node_id"] == self.identity.node_id:
            raise ProtocolViolation("that is this node itself")
        now = self._clock.now_ms()
        return Contract(
            contract_id=ContractId(""),
            direction=Direction.OUT,
            status=ApprovalState.APPLIED,
            peer_node_id=NodeId(node["node_id"]),
            peer_inst_id=InstId(node.get("inst_id", "")),
            peer_name=node.get("name", ""),
            peer_institution=node.get("institution", ""),
            peer_system=node.get("system", ""),
            peer_system_version=node.get("system_version", ""),
            peer_address=check_address(address),
            auth_type="",
            auth_credential="",
            tls_ca=pinned.tls_ca,
            fingerprint=pinned.fingerprint,
            proven=False,
            expired_time=None,
            profile=self._profile,
            description=description,
            created=now,
            updated=now,
            our_key=self._signer.greeting.key_id,
        )

    def applied(self, tx: Tx, contract: Contract) -> Contract:
        """Keep an OUT contract under the id that the partner gave it (M-023)."""
        if not contract.contract_id:
            raise CallerError("an applied contract has an id")
        state, _ = step(None, Event.APPLY)
        made = replace(contract, status=state)
        tx.insert(made)
        way = tx.get(PartnerWay, made.peer_node_id)
        if way is not None and way.hold:  # so that it can confirm
            self._on_routes_changed()
        return made

    def confirmed(self, tx: Tx, caller: Caller, body: Mapping[str, Any]) -> Contract:
        """The partner decided (c.2, 3.2). The credential must carry the CA that was pinned before we applied."""
        old = self.of_caller(tx, caller, body["contract_id"])
        if old.direction is not Direction.OUT:
            raise Refused("we did not apply for this contract", kind=Kind.ILLEGAL_TRANSITION)
        event = decision(body["status"])
        state, effects = step(old.status, event)
        if event is Event.REJECT:
            return self._save(tx, old, replace(old, status=state))
        credential = self.credential(body["auth_type"], body["auth_credential"], node_id=old.peer_node_id)
        if credential.auth_type is AuthType.CERT and credential.fingerprint != self._pinned_fingerprint(old):
            raise Refused("the credential's CA is not the one that was pinned", kind=Kind.UNAUTHENTICATED)
        new = replace(
            old,
            status=state,
            auth_type=body["auth_type"],
            auth_credential=body["auth_credential"],
            fingerprint=credential.fingerprint,
            expired_time=body["expired_time"],
        )
        if state is old.status:
            # A repeat. It may prove nothing new and must not change the terms (M-031).
            if new != old:
                raise Refused("confirmed before with other content", kind=Kind.CONFLICT)
            return old
        self._check_end(body["expired_time"])
        new = self._save(tx, old, replace(new, proven=caller.proven))
        self._act(tx, new, effects)
        return new

    def _pinned_fingerprint(self, contract: Contract) -> str:
        return pin_ca(contract.tls_ca, now_ms=self._clock.now_ms())[1]

    # --- a partner applies ------------------------------------------------------------------------------------------

    def receive_apply(self, tx: Tx, caller: Caller, body: Mapping[str, Any]) -> Contract:
        """A new IN contract with an id of 128 random bits; every apply makes its own (M-021, M-023)."""
        if caller.node_id == self.identity.node_id:
            raise ProtocolViolation("node_id is this node's own")
        if profile(self._profile).describes_receiver and body["node_id"] == self.identity.node_id:
            # As in v1.0: it says whom it is for. Who applies is in the head alone; our admin adds the rest.
            body = {**body, "node_id": caller.node_id, "name": caller.node_id, "address": "", **_UNSAID}
        if body["node_id"] != caller.node_id:
            raise ProtocolViolation("node_id is not that of x-source-node-id")
        if tx.count(Contract, direction=Direction.IN, status=ApprovalState.APPLIED) >= self._limits.open_contracts:
            raise Refused("too many contracts wait for a decision", kind=Kind.TOO_MANY, detail="")
        self._forget_withdrawn(tx)
        credential = self.credential(body["auth_type"], body["auth_credential"], node_id=caller.node_id)
        if "expired_time" in body:
            self._check_end(body["expired_time"])
        now = self._clock.now_ms()
        state, _ = step(None, Event.APPLY)
        contract = Contract(
            contract_id=ContractId(f"ct-{self._entropy.token(16).hex()}"),
            direction=Direction.IN,
            status=state,
            peer_node_id=caller.node_id,
            peer_inst_id=InstId(body["inst_id"]),
            peer_name=body["name"],
            peer_institution=body["institution"],
            peer_system=body["system"],
            peer_system_version=body["system_version"],
            peer_address=check_address(body["address"]) if body["address"] else "",
            auth_type=body["auth_type"],
            auth_credential=body["auth_credential"],
            tls_ca=credential.ca,
            fingerprint=credential.fingerprint,
            proven=caller.proven,
            expired_time=body.get("expired_time"),
            profile=self._profile,
            description=body.get("description", ""),
            created=now,
            updated=now,
        )
        tx.insert(contract)
        for listener in self._applied:
            listener(tx, contract)
        return contract

    def _forget_withdrawn(self, tx: Tx) -> None:
        """Whoever applies and withdraws for ever must not fill the database; the trail has told of each."""
        nothing: dict[str, Any] = {"direction": Direction.IN, "status": ApprovalState.TERMINATED, "our_key": ""}
        if tx.count(Contract, **nothing) >= self._limits.ended_contracts:
            for oldest in tx.select(Contract, limit=1, **nothing):
                tx.delete(oldest)

    def decide(
        self,
        tx: Tx,
        contract_id: str,
        *,
        approve: bool,
        expired_time: int | None = None,
        fingerprint: str | None = None,
        ca_pem: str | None = None,
        address: str = "",
        inst_id: str = "",
    ) -> Contract:
        """Our admin's answer to an IN contract; goes to the partner as confirm through the outbox.

        fingerprint: must be the contract's when given. ca_pem: the partner's TLS CA, needed where its credential is a
        bare key. address, inst_id: the partner's, where its application (v1.0) does not say.
        Deciding the same again changes nothing.
        """
        old = self.get(tx, contract_id)
        if old.direction is not Direction.IN:
            raise Refused("the partner decides on this contract", kind=Kind.ILLEGAL_TRANSITION)
        state, effects = step(old.status, Event.APPROVE if approve else Event.REJECT)
        if state is old.status:
            return old
        signer = self._signer.greeting
        new = replace(old, status=state, our_key=signer.key_id)
        if address and not old.peer_address:
            new = replace(new, peer_address=check_address(address), peer_inst_id=InstId(inst_id or old.peer_node_id))
        if not new.peer_address:
            raise Refused("the application says not where its sender is: give its address", kind=Kind.MALFORMED)
        if approve:
            new = self._approved(tx, new, expired_time, fingerprint, ca_pem)
        new = self._save(tx, old, new)
        self.confirm_again(tx, new)
        self._act(tx, new, effects)
        return new

    def confirm_again(self, tx: Tx, contract: Contract) -> None:
        """Send our decision, with the key that the contract says the partner knows."""
        signer = self._signer.of(contract.our_key) if isinstance(self._signer, KeyRing) else self._signer
        self._put(
            tx,
            contract,
            "node.contract.confirm",
            confirm_body(contract, auth_type=signer.auth_type.value, credential=signer.credential),
        )

    def confirm_refused(self, tx: Tx, call: OutCall, refusal: PeerError) -> None:
        """An applicant that does not know the contract it asked for (it fell over before it kept the id) has none."""
        contract = tx.get(Contract, call.contract_id)
        unknown = str(WIRE[Kind.CONTRACT_UNKNOWN].code)
        if contract is not None and contract.status is ApprovalState.APPROVED and refusal.peer_code == unknown:
            self._end(tx, contract)

    def _put(self, tx: Tx, contract: Contract, route: str, body: Mapping[str, Any]) -> None:
        self._outgoing.put(tx, contract=contract, route=route, body=body, subject=f"contract:{contract.contract_id}")

    def _approved(
        self, tx: Tx, contract: Contract, expired_time: int | None, fingerprint: str | None, ca_pem: str | None
    ) -> Contract:
        now = self._clock.now_ms()
        if fingerprint is not None and fingerprint.lower().replace(":", "") != contract.fingerprint:
            raise Refused("the fingerprint is not that of the contract", kind=Kind.UNAUTHENTICATED)
        for other in tx.select(Contract, peer_node_id=contract.peer_node_id, status=ApprovalState.APPROVED):
            if is_valid(other, now):
                raise Refused(
                    f"contract {other.contract_id} with this node holds; terminate it first", kind=Kind.CONFLICT
                )
        self.credential(contract.auth_type, contract.auth_credential, node_id=contract.peer_node_id)
        tls_ca = contract.tls_ca
        if not tls_ca:
            if not ca_pem:
                raise Refused("this credential carries no CA: give ca_pem", kind=Kind.MALFORMED)
            tls_ca, _ = pin_ca(ca_pem, now_ms=now)
        end = expired_time or contract.expired_time or now + DEFAULT_LIFE_MS
        self._check_end(end)
        return replace(contract, expired_time=end, tls_ca=tls_ca)

    # --- either side ends it ----------------------------------------------------------------------------------------

    def terminate(self, tx: Tx, contract_id: str) -> Contract:
        """Our admin ends a contract, or withdraws our application; the partner is told through the outbox."""
        old = self.get(tx, contract_id)
        if old.direction is Direction.IN and old.status is ApprovalState.APPLIED:
            raise Refused("an application is rejected, not terminated", kind=Kind.ILLEGAL_TRANSITION)
        new = self._end(tx, old)
        if new != old and profile(new.profile).managed:
            self.terminate_again(tx, new)
        return new

    def terminate_again(self, tx: Tx, contract: Contract) -> None:
        """Tell the partner that a contract is over."""
        self._put(tx, contract, "node.contract.terminate", {"contract_id": contract.contract_id})

    def ended_there(self, tx: Tx, contract: Contract) -> Contract:
        """A comparison showed that the partner has closed it (service.reconcile); nobody is told."""
        return self._end(tx, contract)

    def terminated(self, tx: Tx, caller: Caller, body: Mapping[str, Any]) -> Contract:
        """The partner ends it (M-032)."""
        return self._end(tx, self.of_caller(tx, caller, body["contract_id"]))

    def _end(self, tx: Tx, old: Contract) -> Contract:
        state, effects = step(old.status, Event.TERMINATE)
        if state is old.status:
            return old
        new = self._save(tx, old, replace(old, status=state))
        for call in tx.select(OutCall, contract_id=new.contract_id, state=CallState.DUE):
            tx.replace(call, replace(call, state=CallState.DEAD, error="the contract was terminated"))
        self._act(tx, new, effects)
        return new

    def reported(self, tx: Tx, contract_id: str, status: str) -> Contract:
        """What contract/query says of an OUT contract whose confirm never came (M-039).

        REJECTED and TERMINATED are taken over, APPROVED is not: the key is in confirm alone, which the partner repeats.
        """
        old = self.get(tx, contract_id)
        if old.direction is not Direction.OUT or old.status is not ApprovalState.APPLIED:
            return old
        if status == ApprovalState.TERMINATED.value:
            return self._end(tx, old)
        if status == ApprovalState.REJECTED.value:
            return self._save(tx, old, replace(old, status=step(old.status, Event.REJECT)[0]))
        return old

    # --- by hand ----------------------------------------------------------------------------------------------------

    def set_profile(self, tx: Tx, node_id: NodeId, name: str) -> list[Contract]:
        """Name the dialect of a partner, in all open contracts with it. Raises Refused(NODE_UNKNOWN, CONFLICT)."""
        wanted = _known_profile(name)
        open_ = self._open(tx, node_id)
        if any(profile(each.profile).managed is not wanted.managed for each in open_):
            raise Refused(
                "whether a partner has a management layer is settled when the contract is made", kind=Kind.CONFLICT
            )
        if wanted.signature is Signature.NONE and not self._insecure_unsigned:
            raise Refused(
                "calls without a signature are not allowed: [profile] insecure_unsigned is not set", kind=Kind.FORBIDDEN
            )
        changed = [self._save(tx, each, replace(each, profile=name)) for each in open_]
        self._on_routes_changed()
        return changed

    def set_address(self, tx: Tx, node_id: NodeId, address: str) -> list[Contract]:
        """A partner is elsewhere from now on, in all open contracts with it. Raises Refused(NODE_UNKNOWN)."""
        changed = [self._save(tx, each, replace(each, peer_address=address)) for each in self._open(tx, node_id)]
        self._on_routes_changed()
        return changed

    def _open(self, tx: Tx, node_id: NodeId) -> list[Contract]:
        open_ = [
            each
            for each in tx.select(Contract, peer_node_id=node_id)
            if each.status in (ApprovalState.APPLIED, ApprovalState.APPROVED)
        ]
        if not open_:
            raise Refused(f"{node_id} is not a partner", kind=Kind.NODE_UNKNOWN)
        return open_

    def record(self, tx: Tx, described: Described) -> Contract:
        """A contract that was made on paper, with a node whose product has no management layer: it holds at once.

        It carries no credential: what such a node sends passes the edge only where its TLS certificate proves it and
        the configuration allows calls without a signature. Raises Refused(CONFLICT) where a contract holds already,
        ProtocolViolation for a profile that has a management layer.
        """
        if _known_profile(described.profile).managed:
            raise ProtocolViolation(f"a {described.profile} partner is applied to, not recorded")
        if described.node_id == self.identity.node_id:
            raise ProtocolViolation("that is this node itself")
        now = self._clock.now_ms()
        for other in tx.select(Contract, peer_node_id=described.node_id, status=ApprovalState.APPROVED):
            if is_valid(other, now):
                raise Refused(f"contract {other.contract_id} with this node holds", kind=Kind.CONFLICT)
        end = described.expired_time or now + DEFAULT_LIFE_MS
        self._check_end(end)
        applied, _ = step(None, Event.APPLY)
        state, effects = step(applied, Event.APPROVE)
        contract = Contract(
            contract_id=ContractId(f"ct-recorded-{self._entropy.token(16).hex()}"),
            direction=Direction.OUT,
            status=state,
            peer_node_id=described.node_id,
            peer_inst_id=InstId(described.inst_id),
            peer_name=described.name or described.node_id,
            peer_institution=described.institution,
            peer_system=described.profile,
            peer_system_version="",
            peer_address=check_address(described.address) if described.address else "",
            auth_type="",
            auth_credential="",
            tls_ca=described.tls_ca,
            fingerprint=described.fingerprint,
            proven=False,
            expired_time=end,
            profile=described.profile,
            description="recorded by hand",
            created=now,
            updated=now,
            peer_transport=check_address(described.transport, schemes=TRANSPORT_SCHEMES) if described.transport else "",
        )
        tx.insert(contract)
        self._act(tx, contract, effects)
        return contract

    # --- shared -----------------------------------------------------------------------------------------------------

    def _act(self, tx: Tx, contract: Contract, effects: Sequence[Effect]) -> None:
        if Effect.OPEN in effects or Effect.CLOSE in effects:
            self._on_routes_changed()
        if contract.status is ApprovalState.TERMINATED:
            for listener in self._closed:
                listener(tx, contract)

    def _save(self, tx: Tx, old: Contract, new: Contract) -> Contract:
        if new == old:
            return old
        new = replace(new, updated=self._clock.now_ms())
        tx.replace(old, new)
        return new

    def credential(self, auth_type: str, text: str, *, node_id: NodeId) -> Credential:
        """What a partner wants to sign with, checked as of now. Raises Refused(UNAUTHENTICATED)."""
        credential = parse_credential(auth_type, text)
        credential.check(node_id=node_id, now_ms=self._clock.now_ms(), lists=self._lists)
        return credential

    def _check_end(self, expired_time: int) -> None:
        if expired_time <= self._clock.now_ms():
            raise ProtocolViolation("expired_time must lie in the future (milliseconds)")


def _lists_of(cas: str, lists: Mapping[str, str]) -> Mapping[str, str]:
    """Those of the revocation lists (by CA) that are of these CAs (PEM)."""
    marks = [fingerprint(each) for each in certificates(cas)] if lists else []
    return {mark: lists[mark] for mark in marks if mark in lists}


def _known_profile(name: str) -> Profile:
    """A profile that an admin named; raises ProtocolViolation where there is none."""
    try:
        return profile(name)
    except CallerError as e:
        raise ProtocolViolation(str(e)) from e
