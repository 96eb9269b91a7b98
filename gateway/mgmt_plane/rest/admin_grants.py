"""Admin route of the grants this node has given: what was approved, how often it was used, what is left."""

from collections.abc import Mapping
from typing import Any

from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.service.grants import Grants, left_of
from gateway.model import Audit, Grant
from gateway.ports import Clock, Store, Tx
from specs.admin import BASE


class GrantAdmin:
    """The handlers; `routes` lists them."""

    def __init__(self, grants: Grants, store: Store, clock: Clock) -> None:
        self._grants = grants
        self._store = store
        self._clock = clock

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("GET", f"{BASE}/grants", self.grants)]

    async def grants(self, _params: Mapping[str, str], query: Mapping[str, str], _body: Mapping[str, Any]) -> Any:
        """-> [{audit_id, dataset_id, user, ..., state, used, reserved, left, uses}], newest first; no token."""
        wanted = {name: query[name] for name in ("dataset_id", "user") if query.get(name)}

        def work(tx: Tx) -> list[dict[str, Any]]:
            return [
                {
                    **self._shown(tx, grant),
                    "uses": [
                        {"job_id": use.job_id, "state": use.state, "created": use.created, "opened": use.opened}
                        for use in uses
                    ],
                }
                for grant, uses in self._grants.all(tx)
                if all(getattr(grant, name) == value for name, value in wanted.items())
            ]

        return await self._store.run(work)

    def _shown(self, tx: Tx, grant: Grant) -> dict[str, Any]:
        audit = tx.get(Audit, grant.audit_key)
        ended = grant.time_limit is not None and self._clock.now_ms() > grant.time_limit
        left = left_of(grant)
        return {
            "audit_id": audit.audit_id if audit is not None else "",
            "dataset_id": grant.dataset_id,
            "user": grant.user,
            "state": "revoked" if grant.revoked else "expired" if ended else "used up" if left == 0 else "holds",
            "scope": grant.scope,
            "columns": list(grant.columns),
            "time_limit": grant.time_limit,
            "times_limit": grant.times_limit,
            "used": grant.used,
            "reserved": grant.reserved,
            "left": left,
            "schema_digest": grant.schema_digest,
            "components": grant.components,
            "created": grant.created,
        }
