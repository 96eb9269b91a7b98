"""Keeps the data process told of the sessions that an admin declared."""

import asyncio

from gateway.errors import GatewayError
from gateway.mgmt_plane.service.sessions import DeclaredSessions
from gateway.model import SessionId
from gateway.ports import DataPlane, Journal, SessionRule, Store


class DeclaredTeller:
    """`tell` after every change and once in a while; only what differs from what was told goes out."""

    def __init__(self, *, store: Store, sessions: DeclaredSessions, data_plane: DataPlane, journal: Journal) -> None:
        self._store = store
        self._sessions = sessions
        self._data_plane = data_plane
        self._journal = journal
        self._told: dict[SessionId, SessionRule] = {}
        self._turn = asyncio.Lock()

    async def rules(self) -> list[SessionRule]:
        """All of them, for a data process that has started and knows nothing."""
        async with self._turn:
            found = await self._store.run(self._sessions.rules)
            self._told = {each.session_id: each for each in found}
            return found

    async def tell(self) -> None:
        """Bring the data process up to date; one that is away asks for everything when it comes back."""
        async with self._turn:
            found = {each.session_id: each for each in await self._store.run(self._sessions.rules)}
            try:
                for session in self._told.keys() - found.keys():
                    await self._data_plane.close_session(session)
                    del self._told[session]
                for session, rule in found.items():
                    if self._told.get(session) != rule:
                        await self._data_plane.open_session(rule)
                        self._told[session] = rule
            except GatewayError as error:
                self._journal.note("sessions.untold", reason=str(error))
