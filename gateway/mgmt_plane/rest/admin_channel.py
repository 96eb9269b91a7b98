"""Admin route of what passes on the channel."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from gateway.mgmt_plane.rest.admin_server import AdminRoute
from specs.admin import BASE

SESSIONS: Final = 100
"""Shown where the caller does not say how many."""

Figures = Callable[[int], Awaitable[Mapping[str, Any]]]


class ChannelAdmin:
    """The handler; `routes` lists it. figures: of the data process, of at most so many sessions."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("GET", f"{BASE}/channel", self.show)]

    async def show(self, _params: Mapping[str, str], query: Mapping[str, str], _body: Mapping[str, Any]) -> Any:
        """Counters since the data process started, and levels; two answers make rates, `at` (ms) is their time."""
        return await self._figures(min(SESSIONS, int(query.get("limit", SESSIONS))))
