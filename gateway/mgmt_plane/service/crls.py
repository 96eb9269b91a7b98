"""Revocation lists: those of the partners' CAs that our admin gives, and what goes into our own.

A list is kept only if a CA that is pinned for the partner signed it, and never replaced by an older one. Works inside
transactions that the callers open; the lists that the edges ask are replaced afterwards (`load`).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from gateway.auth.chain import certificates, fingerprint
from gateway.auth.revocation import RevocationList, RevocationLists, reread, take
from gateway.auth.schemes import parse_credential
from gateway.errors import Kind, Refused
from gateway.mgmt_plane.service.partners import Partners, pinned_cas
from gateway.model import Contract, Crl, NodeId, RevokedCert
from gateway.ports import Clock, Store, Tx
from specs.states import AuthType

MOST: Final = 4
"""Lists of one partner: of its CA for TLS and the one it signs under, and of those before them."""


def revoke(tx: Tx, credential: str, *, now: int) -> None:
    """Note that a certificate of ours (PEM: leaf, then CA) does not count any more; repeating it changes nothing."""
    leaf, ca = certificates(credential)[:2]
    made = RevokedCert(ca=fingerprint(ca), serial=f"{leaf.serial_number:x}", created=now)
    if tx.get(RevokedCert, made.key()) is None:
        tx.insert(made)


def revoked_under(tx: Tx, ca: str) -> Mapping[int, datetime]:
    """Serial -> since when, of our certificates under the CA with this fingerprint."""
    return {
        int(each.serial, 16): datetime.fromtimestamp(each.created / 1000, UTC) for each in tx.select(RevokedCert, ca=ca)
    }


def _cas(contract: Contract, now: int) -> dict[str, x509.Certificate]:
    found = certificates(pinned_cas(contract, now)) if contract.tls_ca else []
    if contract.auth_type == AuthType.CERT.value and contract.auth_credential:
        found.append(parse_credential(contract.auth_type, contract.auth_credential).chain[1])
    return {fingerprint(each): each for each in found}


class Crls:
    """The partners' lists. lists: what the edges ask; `load` brings it up to date."""

    def __init__(self, *, partners: Partners, lists: RevocationLists, clock: Clock) -> None:
        self._partners = partners
        self._lists = lists
        self._clock = clock

    def take(self, tx: Tx, node_id: NodeId, raw: bytes) -> Crl:
        """Keep a list that our admin got from this partner.

        Raises Refused(NODE_UNKNOWN, CONTRACT_INVALID), as revocation.take does, and Refused(CONFLICT) where a newer
        list of the same CA is here.
        """
        contract = self._partners.contract_with(tx, node_id)
        found = take(raw, _cas(contract, self._clock.now_ms()), now_ms=self._clock.now_ms())
        made = Crl(
            ca=found.ca,
            node_id=node_id,
            pem=found.pem,
            revoked=len(found.serials),
            this_update=found.this_update,
            next_update=found.next_update,
            created=self._clock.now_ms(),
        )
        old = tx.get(Crl, made.ca)
        if old is None:
            if tx.count(Crl, node_id=node_id) >= MOST:
                raise Refused(f"there are {MOST} lists of this partner already: drop them first", kind=Kind.TOO_MANY)
            tx.insert(made)
        elif old.pem == made.pem:
            return old
        elif made.this_update <= old.this_update:
            raise Refused("the revocation list is older than the one that is kept", kind=Kind.CONFLICT)
        else:
            tx.replace(old, made)
        self._partners.routes_changed()
        return made

    def drop(self, tx: Tx, node_id: NodeId) -> int:
        """Forget the lists of a partner; how many there were."""
        found = tx.select(Crl, node_id=node_id)
        for each in found:
            tx.delete(each)
        if found:
            self._partners.routes_changed()
        return len(found)

    def all(self, tx: Tx) -> Sequence[Crl]:
        return tx.select(Crl)

    async def load(self, store: Store) -> None:
        """Let the edges ask what the store holds now."""
        kept = await store.run(self.all)
        self._lists.replace(_reread(each) for each in kept)


def _reread(kept: Crl) -> RevocationList:
    return reread(kept.pem, kept.ca)
