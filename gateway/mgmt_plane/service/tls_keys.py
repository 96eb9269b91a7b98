"""Our TLS certificates that follow each other, and a new CA of ours (ADR 0004; docs/keys.md).

Under the same CA a new certificate is shown at once: partners have pinned the CA, not the leaf. A new CA must be told
to the partners first (node/update, with a signing key under it) and each partner's admin must allow it; until then our
calls to that partner show the certificate under the CA that it knows. The listener changes over when every partner has
taken the new CA; or, so that those who have are not cut off at the end of their overlap, when three quarters of the
overlap since the first of them have passed. Works inside transactions that the callers open.
"""

from collections.abc import Sequence
from dataclasses import replace

from gateway.auth.keys import KeyRing, path_of
from gateway.auth.tls_ring import TlsFiles, TlsRing
from gateway.errors import Kind, Refused
from gateway.mgmt_plane.service.crls import revoke
from gateway.mgmt_plane.service.partners import Partners, is_valid
from gateway.model import Contract, OwnTls
from gateway.ports import Clock, Store, Tx
from specs.states import ApprovalState


def files_of(kept: OwnTls) -> TlsFiles:
    return TlsFiles(kept.ca, path_of(kept.chain_uri), path_of(kept.key_uri))


class TlsKeys:
    """shown: what clients ask. overlap_ms: for how long partners keep the CA that was replaced."""

    def __init__(
        self, *, ring: KeyRing, shown: TlsRing, partners: Partners, clock: Clock, overlap_ms: int = 86_400_000
    ) -> None:
        self._ring = ring
        self._shown = shown
        self._partners = partners
        self._clock = clock
        self._overlap_ms = overlap_ms

    def all(self, tx: Tx) -> Sequence[OwnTls]:
        """Oldest first."""
        return tx.select(OwnTls)

    def newest(self, tx: Tx) -> OwnTls | None:
        found = tx.select(OwnTls, order="-created", limit=1)
        return found[0] if found else None

    def serving(self, tx: Tx) -> OwnTls | None:
        """What the listener shows; None: what the configuration names."""
        return next((each for each in tx.select(OwnTls, order="-created") if each.serving), None)

    def keep(self, tx: Tx, made: OwnTls, *, revoked: Sequence[str] = ()) -> OwnTls:
        """A new certificate. revoked: PEM chains of those that are compromised; they go into our revocation list.

        Raises Refused(CONFLICT) while partners are still being told of another new CA.
        """
        now = self._clock.now_ms()
        newest, serving = self.newest(tx), self.serving(tx)
        if newest is not None and not newest.serving and not made.emergency:
            raise Refused("a new CA is on its way to the partners; see: interconn key show", kind=Kind.CONFLICT)
        same_ca = made.ca == (serving.ca if serving is not None else self._shown.base.ca)
        made = replace(
            made, created=max(now, newest.created + 1 if newest is not None else 0), serving=now if same_ca else 0
        )
        tx.insert(made)
        for chain in revoked:
            revoke(tx, chain, now=now)
        self._partners.routes_changed()
        return made

    def waiting(self, tx: Tx) -> list[Contract]:
        """Partners with a contract that holds who do not know our newest CA yet."""
        newest, now = self.newest(tx), self._clock.now_ms()
        if newest is None or newest.serving:
            return []
        return [each for each in self._contracts(tx, now) if self._known(each) != newest.ca]

    def _contracts(self, tx: Tx, now: int) -> list[Contract]:
        return [each for each in tx.select(Contract, status=ApprovalState.APPROVED) if is_valid(each, now)]

    def _known(self, contract: Contract) -> str:
        return self._ring.of(contract.our_key).fingerprint

    def settle(self, tx: Tx, *, finish: bool = False) -> OwnTls | None:
        """Let the listener change over where it is time for it, or at our admin's word; what it shows then."""
        newest, now = self.newest(tx), self._clock.now_ms()
        if newest is None or newest.serving:
            return None
        contracts = self._contracts(tx, now)
        known = [each for each in contracts if self._known(each) == newest.ca]
        told = newest.told or (now if known else 0)
        overlap_ms = 0 if newest.emergency else self._overlap_ms
        due = finish or len(known) == len(contracts) or (told > 0 and now >= told + overlap_ms * 3 // 4)
        new = replace(newest, told=told, serving=now if due else 0)
        if new != newest:
            tx.replace(newest, new)
            self._partners.routes_changed()
        return new if due else None

    def shown_to(self, contract: Contract) -> tuple[str, str]:
        """Files (chain, key) that our calls to this partner show."""
        files = self._shown.of(self._known(contract))
        return str(files.chain), str(files.key)

    async def load(self, store: Store) -> TlsFiles:
        """Let clients show what the store holds now, and sign first contact with a key under the CA that is shown."""
        kept, serving = await store.run(lambda tx: (self.all(tx), self.serving(tx)))
        shown = files_of(serving) if serving is not None else None
        self._shown.replace([files_of(each) for each in kept], shown=shown)
        self._ring.anchor(self._shown.shown.ca)
        return self._shown.shown
