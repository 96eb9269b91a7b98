"""How many bytes of messages may be held: in memory per session, per partner and for the process; on disk likewise.

Nothing is allocated here; whoever wants to hold bytes takes them first and gives them back. What does not fit into
memory may go to disk (`Budget.spill`), and where that is full too there is no room (T-028).
"""

from collections.abc import Callable
from typing import Final, TypeVar

from gateway.errors import Kind, Unavailable
from gateway.model import NodeId, SessionId

K = TypeVar("K")

MESSAGE_OVERHEAD: Final = 256
"""Bytes that a queued message costs beyond its payload, so that a flood of empty messages is bounded too."""


def _no_room(what: str) -> Unavailable:
    return Unavailable(f"{what} is full", kind=Kind.BUFFER_FULL)


class Budget:
    """Counts bytes held by queues (per session, per source and in all) and by bodies and answers in flight (in all).

    partner_bytes None: as the process. disk_bytes: of messages on disk; disk_session_bytes None: as disk_bytes.
    """

    def __init__(
        self,
        *,
        process_bytes: int,
        session_bytes: int,
        partner_bytes: int | None = None,
        disk_bytes: int = 0,
        disk_session_bytes: int | None = None,
    ) -> None:
        self._process_bytes = process_bytes
        self._session_bytes = session_bytes
        self._partner_bytes = process_bytes if partner_bytes is None else partner_bytes
        self._disk_bytes = disk_bytes
        self._disk_session_bytes = disk_bytes if disk_session_bytes is None else disk_session_bytes
        self._used = 0
        self._on_disk = 0
        self._sessions: dict[SessionId, int] = {}
        self._partners: dict[NodeId, int] = {}
        self._disk_sessions: dict[SessionId, int] = {}
        self.on_room: Callable[[SessionId | None], None] = lambda _session: None
        """Told when room was given back: by this session, or, None, by nobody's."""

    @property
    def used(self) -> int:
        return self._used

    @property
    def on_disk(self) -> int:
        return self._on_disk

    def used_by(self, session: SessionId) -> int:
        return self._sessions.get(session, 0)

    def on_disk_of(self, session: SessionId) -> int:
        return self._disk_sessions.get(session, 0)

    def take(self, session: SessionId, source: NodeId, size: int) -> None:
        """Account `size` bytes of memory to a session and a source.

        Raises Unavailable(BUFFER_FULL) and changes nothing (T-028).
        """
        held, sent = self._sessions.get(session, 0), self._partners.get(source, 0)
        if held + size > self._session_bytes:
            raise _no_room("the session's buffer")
        if sent + size > self._partner_bytes:
            raise _no_room("the partner's buffer")
        self.borrow(size)
        self._sessions[session] = held + size
        self._partners[source] = sent + size

    def give(self, session: SessionId, source: NodeId, size: int) -> None:
        """Return bytes of memory of a session."""
        _lower(self._sessions, session, size)
        _lower(self._partners, source, size)
        self._used -= size
        self.on_room(session)

    def spill(self, session: SessionId, size: int) -> None:
        """Account `size` bytes on disk to a session, and what knowing of them costs in memory to the process.

        Raises Unavailable(BUFFER_FULL) and changes nothing.
        """
        held = self._disk_sessions.get(session, 0)
        if held + size > self._disk_session_bytes or self._on_disk + size > self._disk_bytes:
            raise _no_room("the spool")
        self.borrow(MESSAGE_OVERHEAD)
        self._on_disk += size
        self._disk_sessions[session] = held + size

    def refill(self, session: SessionId, size: int) -> None:
        """Account what was found on disk at the start, whatever the bounds are now."""
        self._used += MESSAGE_OVERHEAD
        self._on_disk += size
        self._disk_sessions[session] = self._disk_sessions.get(session, 0) + size

    def unspill(self, session: SessionId, size: int) -> None:
        """Return bytes on disk of a session."""
        _lower(self._disk_sessions, session, size)
        self._on_disk -= size
        self._used -= MESSAGE_OVERHEAD
        self.on_room(session)

    def borrow(self, size: int) -> None:
        """Account bytes of a body in flight; raises Unavailable(BUFFER_FULL) and changes nothing."""
        if self._used + size > self._process_bytes:
            raise _no_room("the process's buffer")
        self._used += size

    def lend(self, size: int) -> None:
        """Account bytes of an answer, whatever the bounds are: what leaves must not wait for what comes."""
        self._used += size

    def repay(self, size: int) -> None:
        """Return bytes of a body in flight, or of an answer."""
        self._used -= size
        if size:
            self.on_room(None)

    def borrow_disk(self, size: int) -> None:
        """Account bytes on disk of a body in flight; raises Unavailable(BUFFER_FULL) and changes nothing."""
        if self._on_disk + size > self._disk_bytes:
            raise _no_room("the spool")
        self._on_disk += size

    def repay_disk(self, size: int) -> None:
        """Return bytes on disk of a body in flight."""
        self._on_disk -= size
        if size:
            self.on_room(None)


def _lower(counts: dict[K, int], key: K, size: int) -> None:
    left = counts.get(key, 0) - size
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
