"""Admin routes of the audit trail: a signed heading that fixes a run of entries, and the entries in pages.

The file is put together by whoever asks (`interconn audit export`), so that the node keeps nothing for it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gateway.errors import ProtocolViolation
from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.service.trail import Trail
from specs.admin import BASE

_DIGITS = 16


def _time(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (type(value) is not int or value < 0):
        raise ProtocolViolation(f"{name} must be milliseconds since the epoch")
    return value


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise ProtocolViolation(f"{name} must be a number")
    return int(text)


class TrailAdmin:
    """The handlers; `routes` lists them."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("POST", BASE + "/trail/export", self.export),
            AdminRoute("GET", BASE + "/trail", self.entries),
        ]

    async def export(self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        """{(since), (until)} in ms, both inclusive -> the heading of an export (core.trail.Header)."""
        await self._trail.tend()
        return asdict(await self._trail.heading(since=_time(body, "since"), until=_time(body, "until")))

    async def entries(self, _params: Mapping[str, str], query: Mapping[str, str], _body: Mapping[str, Any]) -> Any:
        """?first=&last= -> entries by seq, both inclusive; fewer than asked for means: ask again from there."""
        found = await self._trail.entries(first=_number(query, "first"), last=_number(query, "last"))
        return [asdict(each) for each in found]
