"""How many bytes of messages may be held: per session and for the process, with what each message costs besides.

Nothing is allocated here; whoever wants to hold bytes takes them first and gives them back. The spool of a later
step attaches where `take` says no.
"""

from typing import Final

from gateway.errors import Kind, Unavailable
from gateway.model import SessionId

MESSAGE_OVERHEAD: Final = 512
"""Bytes that a queued message costs beyond its payload, so that a flood of empty messages is bounded too."""


class Budget:
    """Counts bytes held by queues (per session and in all) and by bodies in flight (in all)."""

    def __init__(self, *, process_bytes: int, session_bytes: int) -> None:
        self._process_bytes = process_bytes
        self._session_bytes = session_bytes
        self._used = 0
        self._sessions: dict[SessionId, int] = {}

    @property
    def used(self) -> int:
        return self._used

    def used_by(self, session: SessionId) -> int:
        return self._sessions.get(session, 0)

    def take(self, session: SessionId, size: int) -> None:
        """Account `size` bytes to a session; raises Unavailable(BUFFER_FULL) and changes nothing (T-028)."""
        held = self._sessions.get(session, 0)
        if held + size > self._session_bytes:
            raise Unavailable("the session's buffer is full", kind=Kind.BUFFER_FULL)
        self.borrow(size)
        self._sessions[session] = held + size

    def give(self, session: SessionId, size: int) -> None:
        """Return bytes of a session."""
        left = self._sessions.get(session, 0) - size
        if left > 0:
            self._sessions[session] = left
        else:
            self._sessions.pop(session, None)
        self.repay(size)

    def borrow(self, size: int) -> None:
        """Account bytes of a body in flight; raises Unavailable(BUFFER_FULL) and changes nothing."""
        if self._used + size > self._process_bytes:
            raise Unavailable("the process's buffer is full", kind=Kind.BUFFER_FULL)
        self._used += size

    def repay(self, size: int) -> None:
        """Return bytes of a body in flight."""
        self._used -= size
