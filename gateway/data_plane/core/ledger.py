"""Payload bytes sent per session and partner, kept for a bounded number of sessions that have ended."""

from collections import OrderedDict
from collections.abc import Mapping

from gateway.model import NodeId, SessionId


class SentBytes:
    """Counts what partners took. `closed_sessions`: how many ended sessions are remembered, the newest first."""

    def __init__(self, *, closed_sessions: int = 1024) -> None:
        self._keep = closed_sessions
        self._open: dict[SessionId, dict[NodeId, int]] = {}
        self._closed: OrderedDict[SessionId, dict[NodeId, int]] = OrderedDict()

    def open(self, session: SessionId) -> None:
        """Start, or go on with, counting a session."""
        self._open.setdefault(session, self._closed.pop(session, {}))

    def close(self, session: SessionId) -> None:
        """The session has ended; its figures stay readable until pushed out by newer ones."""
        counts = self._open.pop(session, None)
        if counts is None:
            return
        self._closed[session] = counts
        while len(self._closed) > self._keep:
            self._closed.popitem(last=False)

    def is_closed(self, session: SessionId) -> bool:
        """Whether the session is known to have ended."""
        return session in self._closed

    def add(self, session: SessionId, target: NodeId, size: int) -> None:
        """Count payload bytes; also for a session that ended while they were on their way."""
        counts = self._open.get(session)
        if counts is None:
            counts = self._closed.get(session)
        if counts is not None:
            counts[target] = counts.get(target, 0) + size

    def of(self, session: SessionId) -> Mapping[NodeId, int]:
        """Bytes per partner, {} for an unknown session."""
        return dict(self._open.get(session) or self._closed.get(session) or {})
