"""Admin routes about delivery: perform a call of the outbox again, compare with the partners now.

The list of calls is `GET /v1/admin/outbox` (rest.admin); sending and comparing are runtime's.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.mgmt_plane.rest.admin import show_call
from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.service.outgoing import retry
from gateway.ports import Clock, Store
from specs.admin import BASE

Compare = Callable[[], Awaitable[Mapping[str, int]]]
"""One round of reconciliation: what was compared and what was done about it, counted."""


class OutboxAdmin:
    """The handlers; `routes` lists them. wake: there is something to send."""

    def __init__(self, *, store: Store, clock: Clock, wake: Callable[[], None], compare: Compare) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake
        self._compare = compare

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("POST", f"{BASE}/outbox/{{call_id}}/retry", self.retry),
            AdminRoute("POST", f"{BASE}/reconcile", self.reconcile),
        ]

    async def retry(
        self, params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> dict[str, Any]:
        now = self._clock.now_ms()
        call = await self._store.run(lambda tx: retry(tx, params["call_id"], now=now))
        self._wake()
        return show_call(call)

    async def reconcile(
        self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> Mapping[str, int]:
        return await self._compare()
