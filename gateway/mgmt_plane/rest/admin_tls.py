"""Admin routes for our TLS certificates and our CA: show, replace, revoke, change over at the admin's word."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.auth.schemes import Signer
from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.service.keys import Keys
from gateway.mgmt_plane.service.tls_keys import TlsKeys
from gateway.model import Contract, OwnTls
from gateway.ports import Journal, Store, Tx
from specs.admin import BASE

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MadeTls:
    """A certificate just made. signing: the key under a new CA, and its URI. before: PEM chains that it follows."""

    tls: OwnTls
    before: Sequence[str] = field(repr=False)
    signing: tuple[Signer, str] | None = None


Make = Callable[[bool, bool], Awaitable[MadeTls]]
"""(new CA?, emergency?) -> the files of a new certificate; nothing knows of it yet."""


class TlsAdmin:
    """The handlers; `routes` lists them.

    changed: to be called after every change; brings clients and listener up to date, and has partners told. learn: a
    new signing key (is it an emergency?).
    """

    def __init__(
        self,
        *,
        store: Store,
        tls: TlsKeys,
        keys: Keys,
        make: Make,
        changed: Callable[[], Awaitable[None]],
        learn: Callable[[Signer, bool], None],
        journal: Journal,
    ) -> None:
        self._store = store
        self._tls = tls
        self._keys = keys
        self._make = make
        self._changed = changed
        self._learn = learn
        self._journal = journal

    def routes(self) -> list[AdminRoute]:
        base = f"{BASE}/tls"
        return [
            AdminRoute("GET", base, self.show),
            AdminRoute("POST", f"{base}/rotate", self.rotate),
            AdminRoute("POST", f"{base}/revoke", self.revoke),
            AdminRoute("POST", f"{base}/finish", self.finish),
        ]

    async def show(self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]) -> Answer:
        """The certificates that followed the configuration's, and which partners do not know our newest CA yet."""

        def look(tx: Tx) -> tuple[Sequence[OwnTls], OwnTls | None, list[Contract]]:
            return self._tls.all(tx), self._tls.serving(tx), self._tls.waiting(tx)

        kept, serving, waiting = await self._store.run(look)
        return {
            "certificates": [
                {"leaf": each.leaf, "ca": each.ca, "created": each.created, "shown": each == serving} for each in kept
            ],
            "waiting": [each.peer_node_id for each in waiting],
        }

    async def rotate(self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        """{(ca)} -> a new TLS certificate; with `ca` under a new CA, which the partners must allow."""
        return await self._renew(new_ca=body.get("ca") is True, emergency=False)

    async def revoke(self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        """As rotate, and what was before is compromised: it goes into our revocation list and overlaps with nothing."""
        return await self._renew(new_ca=body.get("ca") is True, emergency=True)

    async def _renew(self, *, new_ca: bool, emergency: bool) -> Answer:
        made = await self._make(new_ca, emergency)

        def keep(tx: Tx) -> OwnTls:
            if made.signing is not None:
                signer, uri = made.signing
                self._keys.keep(tx, signer, key_uri=uri, emergency=emergency)
            return self._tls.keep(tx, made.tls, revoked=made.before if emergency else ())

        kept = await self._store.run(keep)
        if made.signing is not None:
            self._learn(made.signing[0], emergency)
        await self._changed()
        self._journal.note("certificate.made", leaf=kept.leaf, ca=kept.ca, emergency=emergency)
        return {"leaf": kept.leaf, "ca": kept.ca, "shown": kept.serving > 0, "new_ca": new_ca}

    async def finish(self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]) -> Answer:
        """The listener changes over to the newest CA now, whoever has not allowed it yet."""
        done = await self._store.run(lambda tx: self._tls.settle(tx, finish=True))
        await self._changed()
        return {"changed": done is not None}
