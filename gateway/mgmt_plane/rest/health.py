"""/healthz, /readyz and /metrics of the admin listener, for those who watch over the gateway.

Health needs no token and tells nothing but itself; metrics need the token like everything else.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from gateway.mgmt_plane.rest.admin_server import AdminRoute, TextAnswer

_TEXT_FORMAT: Final = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """The handlers. ready: part -> "ok" or what is wrong. metrics: the exposition as text."""

    def __init__(
        self, *, ready: Callable[[], Awaitable[Mapping[str, str]]], metrics: Callable[[], Awaitable[str]]
    ) -> None:
        self._ready = ready
        self._metrics = metrics

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("GET", "/healthz", self.healthz),
            AdminRoute("GET", "/readyz", self.readyz),
            AdminRoute("GET", "/metrics", self.metrics),
        ]

    async def healthz(self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]) -> Any:
        """The process is there and answers."""
        return {"status": "ok"}

    async def readyz(self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]) -> Any:
        """200 where it can serve partners, else 503, with what is missing."""
        parts = await self._ready()
        good = all(each == "ok" for each in parts.values())
        text = json.dumps({"status": "ok" if good else "not ready", **parts})
        return TextAnswer(text, "application/json", 200 if good else 503)

    async def metrics(self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]) -> Any:
        return TextAnswer(await self._metrics(), _TEXT_FORMAT)
