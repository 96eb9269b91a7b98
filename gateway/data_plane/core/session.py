"""The queues: messages by (session, topic), the source node as an attribute of each (4-transport 8 and 9.2).

Order within a topic is that of push, each message goes to exactly one reader, release and idleness drop (T-014 to
T-016, T-021 to T-026, T-049). Nothing waits here and nothing looks at a clock: `pop` gives None and the shell decides,
`now` comes in. Who may touch a session is decided by `gateway.data_plane.channel`. A session that holds nothing is
forgotten, so a released one starts empty.
"""

from collections import deque
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from gateway.data_plane.core.budget import MESSAGE_OVERHEAD, Budget
from gateway.data_plane.core.wire import Buffer
from gateway.errors import Kind, Unavailable
from gateway.model import NodeId, SessionId


@dataclass(frozen=True, slots=True)
class Message:
    """One queued message. `number` counts the pushes of the process and orders messages of several sources."""

    number: int
    source: NodeId
    payload: Buffer = field(repr=False)

    @property
    def cost(self) -> int:
        return len(self.payload) + MESSAGE_OVERHEAD


@dataclass(slots=True)
class _Session:
    # One deque per source, because a reader may ask for one source's messages only.
    topics: dict[str, dict[NodeId, deque[Message]]] = field(default_factory=dict)
    used: float = 0.0


class Queues:
    """All queues of one process. `peek_keeps`: whether peek leaves the message (T-022)."""

    def __init__(self, budget: Budget, *, session_topics: int, peek_keeps: bool) -> None:
        self._budget = budget
        self._session_topics = session_topics
        self._peek_keeps = peek_keeps
        self._sessions: dict[SessionId, _Session] = {}
        self._pushed = 0

    def __len__(self) -> int:
        """Sessions that hold messages."""
        return len(self._sessions)

    def depth(self, session: SessionId) -> int:
        """Messages that wait in a session."""
        held = self._sessions.get(session)
        return sum(len(q) for topic in held.topics.values() for q in topic.values()) if held else 0

    def push(self, session: SessionId, topic: str, source: NodeId, payload: Buffer, *, now: float) -> None:
        """Append a message. Raises Unavailable(BUFFER_FULL) and changes nothing when over a bound (T-028)."""
        held = self._sessions.get(session)
        if held and topic not in held.topics and len(held.topics) >= self._session_topics:
            raise Unavailable("the session has too many topics with unread messages", kind=Kind.BUFFER_FULL)
        message = Message(self._pushed, source, payload)
        self._budget.take(session, message.cost)
        self._pushed += 1
        if held is None:
            held = self._sessions[session] = _Session()
        held.used = now
        held.topics.setdefault(topic, {}).setdefault(source, deque()).append(message)

    def pop(self, session: SessionId, topic: str, *, source: NodeId | None, now: float) -> Message | None:
        """Remove and return the oldest message, of `source` where one is given; None when there is none."""
        return self._take(session, topic, source, now, keep=False)

    def peek(self, session: SessionId, topic: str, *, source: NodeId | None, now: float) -> Message | None:
        """As pop, but leaves the message where the declared setting says so (T-022)."""
        return self._take(session, topic, source, now, keep=self._peek_keeps)

    def release(self, session: SessionId, topic: str = "") -> int:
        """Drop a topic, or everything when `topic` is empty (T-024, T-025); returns how many messages.

        A session that is not known is fine (T-026).
        """
        held = self._sessions.get(session)
        if held is None:
            return 0
        dropped = 0
        for name in [topic] if topic else list(held.topics):
            for queue in held.topics.pop(name, {}).values():
                dropped += len(queue)
                self._budget.give(session, sum(message.cost for message in queue))
        if not held.topics:
            del self._sessions[session]
        return dropped

    def expire(self, *, before: float, kept: Container[SessionId]) -> Sequence[SessionId]:
        """Drop every session last used before `before`, except those in `kept`; returns the dropped ones (T-049)."""
        idle = [session for session, held in self._sessions.items() if held.used < before and session not in kept]
        for session in idle:
            self.release(session)
        return idle

    def _take(self, session: SessionId, topic: str, source: NodeId | None, now: float, *, keep: bool) -> Message | None:
        held = self._sessions.get(session)
        if held is None:
            return None
        held.used = now
        sources = held.topics.get(topic)
        if sources is None:
            return None
        if source is not None:
            queue = sources.get(source)
        else:
            queue = min(sources.values(), key=lambda candidate: candidate[0].number)
        if queue is None:
            return None
        if keep:
            return queue[0]
        message = queue.popleft()
        self._budget.give(session, message.cost)
        if not queue:
            del sources[message.source]
            if not sources:
                del held.topics[topic]
                if not held.topics:
                    del self._sessions[session]
        return message
