"""Admin routes for sessions that no job of ours runs: declare, list, close."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.service.sessions import DeclaredSessions
from gateway.model import DeclaredSession, NodeId
from gateway.ports import Clock, Journal, Store
from specs.admin import BASE

Answer = dict[str, Any]


class SessionAdmin:
    """The handlers; `routes` lists them. changed: to be called after every change."""

    def __init__(
        self,
        *,
        store: Store,
        sessions: DeclaredSessions,
        changed: Callable[[], Awaitable[None]],
        clock: Clock,
        journal: Journal,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._changed = changed
        self._clock = clock
        self._journal = journal

    def routes(self) -> list[AdminRoute]:
        base = f"{BASE}/sessions"
        return [
            AdminRoute("GET", base, self.show),
            AdminRoute("POST", base, self.declare),
            AdminRoute("POST", f"{base}/close", self.close),
        ]

    async def show(
        self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> list[Answer]:
        """The declarations, the oldest first."""
        return [self._shown(each) for each in await self._store.run(self._sessions.all)]

    async def declare(self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        """{session_id, nodes, (prefix), (expired_time)} -> the declaration, which counts from now on."""
        nodes = [NodeId(each) for each in body["nodes"]]
        made = await self._store.run(
            lambda tx: self._sessions.declare(
                tx,
                body["session_id"],
                prefix=body.get("prefix") is True,
                nodes=nodes,
                expires=body.get("expired_time"),
            )
        )
        await self._changed()
        self._journal.note("session.declared", session_id=made.session_id, prefix=made.prefix, ends=made.expires)
        return self._shown(made)

    async def close(self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        """{session_id} -> the declaration that was; messages that wait are dropped."""
        closed = await self._store.run(lambda tx: self._sessions.close(tx, body["session_id"]))
        await self._changed()
        self._journal.note("session.closed", session_id=closed.session_id)
        return self._shown(closed)

    def _shown(self, declared: DeclaredSession) -> Answer:
        return {
            "session_id": declared.session_id,
            "prefix": declared.prefix,
            "nodes": list(declared.nodes),
            "expired_time": declared.expires,
            "created": declared.created,
            "ended": declared.ended(self._clock.now_ms()),
        }
