"""Admin routes for revocation lists: take, drop and show those of partners, write our own."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.auth.revocation import MAX_BYTES
from gateway.errors import Kind, ProtocolViolation
from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.service.crls import Crls, revoked_under
from gateway.model import Crl, NodeId
from gateway.ports import Clock, Journal, Store
from specs.admin import BASE

Answer = dict[str, Any]
Write = Callable[[Mapping[int, datetime], datetime], str]
"""(serial -> since when, when the next list comes) -> our list as PEM."""
DAYS: Final = 30
MOST_DAYS: Final = 366


def show_crl(crl: Crl) -> Answer:
    """A list without its body."""
    shown = asdict(crl)
    del shown["pem"]
    return shown


class CrlAdmin:
    """The handlers; `routes` lists them. own: (fingerprint of our CA, how it signs a list)."""

    def __init__(
        self,
        *,
        store: Store,
        crls: Crls,
        own: Callable[[], Awaitable[tuple[str, Write]]],
        clock: Clock,
        journal: Journal,
    ) -> None:
        self._store = store
        self._crls = crls
        self._own = own
        self._clock = clock
        self._journal = journal

    def routes(self) -> list[AdminRoute]:
        base = BASE
        return [
            AdminRoute("GET", f"{base}/crls", self.show),
            AdminRoute("POST", f"{base}/partners/{{node_id}}/crl", self.take),
            AdminRoute("POST", f"{base}/partners/{{node_id}}/crl/drop", self.drop),
            AdminRoute("POST", f"{base}/keys/crl", self.write),
        ]

    async def show(
        self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> list[Answer]:
        """The lists that count, without their bodies."""
        return [show_crl(each) for each in await self._store.run(self._crls.all)]

    async def take(self, params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        """{crl: base64 of PEM or DER} -> the list, which counts from now on."""
        text = body.get("crl")
        if not isinstance(text, str) or len(text) > 4 * (MAX_BYTES // 3 + 2):
            raise ProtocolViolation(f"crl must be base64 of at most {MAX_BYTES} bytes", kind=Kind.TOO_LARGE)
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as e:
            raise ProtocolViolation("crl is not base64") from e
        taken = await self._store.run(lambda tx: self._crls.take(tx, NodeId(params["node_id"]), raw))
        await self._crls.load(self._store)
        self._journal.note("crl.taken", peer=taken.node_id, revoked=taken.revoked, next_update=taken.next_update)
        return show_crl(taken)

    async def drop(self, params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]) -> Answer:
        """Forget a partner's lists: its certificates count until they expire."""
        node_id = NodeId(params["node_id"])
        dropped = await self._store.run(lambda tx: self._crls.drop(tx, node_id))
        await self._crls.load(self._store)
        self._journal.note("crl.dropped", peer=node_id, lists=dropped)
        return {"node_id": node_id, "dropped": dropped}

    async def write(self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        """{(days)} -> our own list, signed by our CA: {crl_pem, ca, revoked, next_update}."""
        days = DAYS if body.get("days") is None else body["days"]
        if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= MOST_DAYS:
            raise ProtocolViolation(f"days must be 1 to {MOST_DAYS}")
        mark, sign = await self._own()
        revoked = await self._store.run(lambda tx: revoked_under(tx, mark))
        until = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC) + timedelta(days=days)
        pem = sign(revoked, until)
        self._journal.note("crl.written", revoked=len(revoked))
        return {"crl_pem": pem, "ca": mark, "revoked": len(revoked), "next_update": int(until.timestamp() * 1000)}
