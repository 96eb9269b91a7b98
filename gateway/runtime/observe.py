"""What others make of the journal's events: counters for monitoring, failed authentications for the audit trail.

The doors note every call anyway; whoever wants to count them listens here, so that no door knows of counters.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gateway.errors import Kind
from gateway.mgmt_plane.service.trail import Failure, Failures
from gateway.ports import Clock, Journal

Listener = Callable[[str, Mapping[str, Any]], None]
"""(event, ids); may be called from any thread, must not block and must not raise."""

_UNPROVEN: Final = frozenset(
    {Kind.UNAUTHENTICATED, Kind.STALE, Kind.REPLAYED, Kind.MISADDRESSED, Kind.CONTRACT_UNKNOWN, Kind.TOO_MANY}
)
_DENIED: Final = frozenset(
    {
        Kind.FORBIDDEN,
        Kind.GRANT_MISSING,
        Kind.GRANT_EXPIRED,
        Kind.GRANT_EXHAUSTED,
        Kind.GRANT_REVOKED,
        Kind.NOT_AS_APPROVED,
        Kind.CONTRACT_INVALID,
    }
)


class ObservedJournal:
    """ports.Journal that hands every event on to listeners too."""

    def __init__(self, inner: Journal) -> None:
        self._inner = inner
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def note(self, event: str, **ids: str | float | bool | None) -> None:
        self._inner.note(event, **ids)
        for listener in self._listeners:
            listener(event, ids)

    def recent(self, *, limit: int, **equals: str) -> Sequence[Mapping[str, Any]]:
        return self._inner.recent(limit=limit, **equals)


def failures_of(failures: Failures, clock: Clock) -> Listener:
    """A listener that puts refused attempts at the three doors into `failures`."""

    def listen(event: str, ids: Mapping[str, Any]) -> None:
        if event not in ("edge.refused", "admin.refused", "platform.refused"):
            return
        door = event.partition(".")[0]
        kind = Kind(ids.get("kind") or Kind.UNAUTHENTICATED)
        if kind in _UNPROVEN:
            name, actor = "auth.failed", "claimed"
        elif kind in _DENIED:
            # Refused by a rule after the signature held, at the partners' door; elsewhere before anybody was known.
            name, actor = ("access.refused", "partner") if door == "edge" else ("auth.failed", "claimed")
        else:
            return
        if ids.get("user"):
            # The admin listener's door knows whom it refused.
            name, actor = "access.refused", "admin"
        who = str(ids.get("peer") or "") if door == "edge" else str(ids.get("user") or ids.get("claimed") or door)
        about = str(ids.get("route") or ids.get("path") or "")
        address = str(ids.get("address") or "")
        failure = Failure(name, actor, who, f"{door}:{about}", kind.value, address)
        failures.add(failure, now=clock.now_ms(), trace_id=str(ids.get("trace_id") or ""))

    return listen
