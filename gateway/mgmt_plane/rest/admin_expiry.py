"""Admin route for what ends soon."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from gateway.mgmt_plane.core.expiry import Deadline, words
from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.ports import Clock
from specs.admin import BASE


class ExpiryAdmin:
    """soon: what ends within the widest threshold, the nearest first."""

    def __init__(self, *, soon: Callable[[], Awaitable[list[Deadline]]], clock: Clock) -> None:
        self._soon = soon
        self._clock = clock

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("GET", f"{BASE}/expiring", self.show)]

    async def show(self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]) -> Any:
        """[{kind, subject, peer, at, words}]: contracts, grants, keys and certificates that end soon or have ended."""
        now = self._clock.now_ms()
        return [{**asdict(each), "words": words(each, now=now)} for each in await self._soon()]
