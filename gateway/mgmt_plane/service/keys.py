"""Keys that follow each other: node/update in both directions (1-management 3.4, M-037; ADR 0004).

Ours: a new key is kept, partners are told one after another, and each is spoken to with the old key until it has
acknowledged the new one. Theirs: an update must be signed with the key that counts now; the key it replaces stays valid
for the overlap, or not at all. A new trust anchor needs our admin's word first. Works inside transactions that the
callers open; making keys, sending and waiting are others' (app, runtime.rekey).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.auth.canonical import key_proof
from gateway.auth.keys import KeyRing
from gateway.auth.schemes import Credential, Signer, pin_ca
from gateway.errors import Kind, Refused
from gateway.mgmt_plane.core.messages import check_address, node_body
from gateway.mgmt_plane.core.profile import profile
from gateway.mgmt_plane.service.crls import revoke
from gateway.mgmt_plane.service.partners import Partners, is_valid
from gateway.model import Contract, Identity, OwnKey
from gateway.ports import Caller, Clock, Tx
from specs.states import ApprovalState, AuthType

PROOF: Final = "x-interconn-proof"
OVERLAP: Final = "x-interconn-overlap-s"
"""Extension members of node/update; a partner that does not know them ignores them (M-015)."""
_HEX_DIGITS: Final = 64


@dataclass(frozen=True, slots=True)
class Updated:
    """waits: nothing was changed, the new trust anchor needs our admin's word."""

    contract: Contract
    waits: bool


class Keys:
    """What changes keys. overlap_ms: how long the key that a partner has replaced stays valid at most."""

    def __init__(
        self, *, identity: Identity, ring: KeyRing, partners: Partners, clock: Clock, overlap_ms: int = 86_400_000
    ) -> None:
        self._identity = identity
        self._ring = ring
        self._partners = partners
        self._clock = clock
        self._overlap_ms = overlap_ms

    # --- ours -------------------------------------------------------------------------------------------------------

    def keep(self, tx: Tx, signer: Signer, *, key_uri: str, emergency: bool) -> OwnKey:
        """Our newest key from now on; emergency: those before it are compromised, and go into our revocation list."""
        newest = tx.select(OwnKey, order="-created", limit=1)
        made = OwnKey(
            key_id=signer.key_id,
            auth_type=signer.auth_type.value,
            credential=signer.credential,
            key_uri=key_uri,
            emergency=emergency,
            created=max(self._clock.now_ms(), newest[0].created + 1 if newest else 0),
        )
        tx.insert(made)
        if emergency:
            for each in self._ring.all():
                if each.auth_type is AuthType.CERT:
                    revoke(tx, each.credential, now=self._clock.now_ms())
        return made

    def untold(self, tx: Tx) -> list[Contract]:
        """Contracts that hold and whose partner, if it has node/update, has not acknowledged our current key."""
        now, current = self._clock.now_ms(), self._ring.current.key_id
        return [
            each
            for each in tx.select(Contract, status=ApprovalState.APPROVED)
            if is_valid(each, now)
            and self._ring.id_of(each.our_key) != current
            and "node.update" not in profile(each.profile).lacks
        ]

    def update_body(self, tx: Tx, contract: Contract) -> dict[str, Any]:
        """node/update that tells the partner our current key and how we are called and reached."""
        signer = self._ring.current
        about = node_body(self._identity)
        del about["node_id"]
        proof = key_proof(
            source=self._identity.node_id,
            target=contract.peer_node_id,
            contract_id=contract.contract_id,
            credential=signer.credential,
        )
        return {
            **about,
            "contract_id": contract.contract_id,
            "auth_type": signer.auth_type.value,
            "auth_credential": signer.credential,
            PROOF: signer.sign(proof),
            OVERLAP: 0 if self._compromised(tx, contract) else self._overlap_ms // 1000,
        }

    def _compromised(self, tx: Tx, contract: Contract) -> bool:
        """Whether a key after the one that the partner knows was made because of a compromise."""
        told = tx.get(OwnKey, contract.our_key)
        since = told.created if told is not None else 0
        return any(each.created > since for each in tx.select(OwnKey, emergency=True))

    def acknowledged(self, tx: Tx, contract_id: str, key_id: str) -> Contract:
        """The partner has taken our key `key_id`: sign with it from now on."""
        old = self._partners.get(tx, contract_id)
        return self._save(tx, old, replace(old, our_key=key_id))

    # --- theirs -----------------------------------------------------------------------------------------------------

    def updated(self, tx: Tx, caller: Caller, body: Mapping[str, Any]) -> Updated:
        """The partner's node/update. Repeating it changes nothing; everything else needs the key that counts now."""
        old = self._partners.valid_of_caller(tx, caller, body["contract_id"])
        if caller.contract is None or caller.contract.contract_id != old.contract_id:
            raise Refused("signed under another contract", kind=Kind.CONTRACT_INVALID, detail="")
        if body["inst_id"] != old.peer_inst_id:
            raise Refused("inst_id cannot change under a contract", kind=Kind.CONFLICT)
        credential = self._partners.credential(body["auth_type"], body["auth_credential"], node_id=old.peer_node_id)
        proven = self._proven(old, credential, body)
        new = replace(
            old,
            peer_name=body["name"],
            peer_institution=body["institution"],
            peer_system=body["system"],
            peer_system_version=body["system_version"],
            peer_address=check_address(body["address"]),
        )
        same_key = (body["auth_type"], body["auth_credential"]) == (old.auth_type, old.auth_credential)
        if same_key and new == old:
            return Updated(old, waits=False)
        if caller.retired_key or caller.contract.auth_credential != old.auth_credential:
            raise Refused("an update is signed with the key that counts now", kind=Kind.UNAUTHENTICATED)
        if not same_key:
            if not _anchored(old, credential):
                waiting = self._save(tx, old, replace(old, ca_offered=credential.fingerprint))
                return Updated(waiting, waits=True)
            new = self._replaced(new, credential, body, proven=proven)
        return Updated(self._save(tx, old, new), waits=False)

    def _proven(self, contract: Contract, credential: Credential, body: Mapping[str, Any]) -> bool:
        """Whether the new key is shown to be the partner's: by the proof where it came, else by its certificate."""
        proof = body.get(PROOF)
        if proof is None:
            return credential.auth_type is AuthType.CERT
        message = key_proof(
            source=contract.peer_node_id,
            target=self._identity.node_id,
            contract_id=contract.contract_id,
            credential=body["auth_credential"],
        )
        credential.verify(message, proof)
        return True

    def _replaced(self, new: Contract, credential: Credential, body: Mapping[str, Any], *, proven: bool) -> Contract:
        asked_ms = body.get(OVERLAP, self._overlap_ms // 1000) * 1000
        return replace(
            new,
            auth_type=body["auth_type"],
            auth_credential=body["auth_credential"],
            tls_ca=credential.ca or new.tls_ca,
            fingerprint=credential.fingerprint,
            proven=proven,
            old_auth_type=new.auth_type,
            old_auth_credential=new.auth_credential,
            old_tls_ca=new.tls_ca,
            old_until=self._clock.now_ms() + min(asked_ms, self._overlap_ms),
            ca_offered="",
            ca_allowed="",
        )

    def allow(self, tx: Tx, contract_id: str, fingerprint: str) -> Contract:
        """Our admin allows the partner to sign under a new trust anchor; its next update with it is taken."""
        old = self._partners.get(tx, contract_id)
        mark = fingerprint.lower().replace(":", "")
        if len(mark) != _HEX_DIGITS or set(mark) - set("0123456789abcdef"):
            raise Refused("a fingerprint is 64 hex digits", kind=Kind.MALFORMED)
        return self._save(tx, old, replace(old, ca_allowed=mark))

    def allow_ca(self, tx: Tx, contract_id: str, ca_pem: str) -> Contract:
        """Our admin gives the new TLS CA of a partner that signs with a bare key, which cannot name one itself.

        The CA before it is accepted for the overlap. Raises Refused(CONFLICT) for a partner with certificates.
        """
        old = self._partners.get(tx, contract_id)
        if old.auth_type == AuthType.CERT.value:
            raise Refused("this partner tells its CA itself: allow its fingerprint", kind=Kind.CONFLICT)
        now = self._clock.now_ms()
        ca, _ = pin_ca(ca_pem, now_ms=now)
        if ca == old.tls_ca:
            return old
        new = replace(old, tls_ca=ca, old_tls_ca=old.tls_ca, old_until=now + self._overlap_ms)
        # A key that was replaced before must not live longer for it.
        return self._save(tx, old, replace(new, old_auth_type="", old_auth_credential=""))

    def revoke_old(self, tx: Tx, contract_id: str) -> Contract:
        """End the overlap of the key that the partner has replaced."""
        old = self._partners.get(tx, contract_id)
        return self._save(tx, old, replace(old, old_auth_type="", old_auth_credential="", old_tls_ca="", old_until=0))

    def _save(self, tx: Tx, old: Contract, new: Contract) -> Contract:
        if new == old:
            return old
        new = replace(new, updated=self._clock.now_ms())
        tx.replace(old, new)
        self._partners.routes_changed()
        return new


def _anchored(old: Contract, credential: Credential) -> bool:
    """Whether what our admin once compared still vouches: the same CA, or bare keys that follow each other."""
    if credential.fingerprint in (old.fingerprint, old.ca_allowed):
        return True
    return AuthType.CERT not in (credential.auth_type, AuthType(old.auth_type))
