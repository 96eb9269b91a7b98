"""Admin routes about notices to the webhook: what waits to be sent, what was given up, and that once more.

Sending is runtime.notifier's; what waits for a decision is `GET /v1/admin/pending` (rest.admin).
"""

from collections.abc import Callable, Mapping
from typing import Any

from gateway.errors import Kind, Refused
from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.rest.listing import listed
from gateway.mgmt_plane.service.notices import retry
from gateway.model import Notice
from gateway.ports import Clock, Store
from specs.admin import BASE


class NoticeAdmin:
    """The handlers; `routes` lists them. wake: there is something to send; None where no webhook is set."""

    def __init__(self, *, store: Store, clock: Clock, wake: Callable[[], None] | None) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("GET", f"{BASE}/notices", self.list),
            AdminRoute("POST", f"{BASE}/notices/{{notice_id}}/retry", self.retry),
        ]

    async def list(
        self, _params: Mapping[str, str], query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Newest first. What has been decided meanwhile goes with the next look at what is to be sent."""
        equals: dict[str, Any] = {"state": query["state"]} if query.get("state") else {}
        found = await self._store.run(lambda tx: listed(tx, Notice, query, order="-created", **equals))
        return [_shown(each) for each in found]

    async def retry(
        self, params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> dict[str, Any]:
        if self._wake is None:
            raise Refused("no webhook is set (notify.webhook)", kind=Kind.CONFLICT)
        now = self._clock.now_ms()
        notice = await self._store.run(lambda tx: retry(tx, params["notice_id"], now=now))
        self._wake()
        return _shown(notice)


def _shown(notice: Notice) -> dict[str, Any]:
    return {
        "notice_id": notice.notice_id,
        "kind": notice.kind,
        "id": notice.subject,
        "partner": notice.peer_name,
        "partner_node_id": notice.peer_node_id,
        "state": notice.state,
        "attempts": notice.attempts,
        "due": notice.due,
        "since": notice.created,
        "error": notice.error,
    }
