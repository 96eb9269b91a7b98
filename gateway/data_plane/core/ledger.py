"""What has passed, per session and partner and per partner in all; kept for a bounded number of ended sessions."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gateway.model import NodeId, SessionId


@dataclass(slots=True)
class Flow:
    """Messages and payload bytes to and from one node. waited_s: summed over those read, from push to pop."""

    messages_out: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    bytes_in: int = 0
    read: int = 0
    waited_s: float = 0.0

    def shown(self) -> Mapping[str, float]:
        """By name. Written out, for of `asdict` a hundred sessions are felt."""
        return {
            "messages_out": self.messages_out,
            "bytes_out": self.bytes_out,
            "messages_in": self.messages_in,
            "bytes_in": self.bytes_in,
            "read": self.read,
            "waited_s": self.waited_s,
        }


def in_all(flows: Iterable[Flow]) -> Flow:
    """Their sum."""
    total = Flow()
    for flow in flows:
        total.messages_out += flow.messages_out
        total.bytes_out += flow.bytes_out
        total.messages_in += flow.messages_in
        total.bytes_in += flow.bytes_in
        total.read += flow.read
        total.waited_s += flow.waited_s
    return total


class SentBytes:
    """Counts what partners took and gave. `closed_sessions`: how many ended sessions are remembered, newest first."""

    def __init__(self, *, closed_sessions: int = 1024) -> None:
        self._keep = closed_sessions
        # By what passed last, the longest ago first.
        self._open: OrderedDict[SessionId, dict[NodeId, Flow]] = OrderedDict()
        self._closed: OrderedDict[SessionId, dict[NodeId, Flow]] = OrderedDict()
        self.partners: dict[NodeId, Flow] = {}
        """In all, also of sessions that are forgotten."""

    def open(self, session: SessionId) -> None:
        """Start, or go on with, counting a session."""
        if session not in self._open:
            self._open[session] = self._closed.pop(session, {})

    def close(self, session: SessionId) -> None:
        """The session has ended; its figures stay readable until pushed out by newer ones."""
        counts = self._open.pop(session, None)
        if counts is None:
            return
        self._closed[session] = counts
        while len(self._closed) > self._keep:
            self._closed.popitem(last=False)

    def latest(self) -> Iterator[SessionId]:
        """Open sessions, the one in which something passed last first."""
        return reversed(self._open)

    def is_closed(self, session: SessionId) -> bool:
        """Whether the session is known to have ended."""
        return session in self._closed

    def add(self, session: SessionId, target: NodeId, size: int) -> None:
        """A message that a partner took; also of a session that ended while it was on its way."""
        for flow in self._flows(session, target):
            flow.messages_out += 1
            flow.bytes_out += size

    def came(self, session: SessionId, source: NodeId, size: int) -> None:
        """A message that came in."""
        for flow in self._flows(session, source):
            flow.messages_in += 1
            flow.bytes_in += size

    def read(self, session: SessionId, source: NodeId, waited_s: float) -> None:
        """A message that was popped."""
        for flow in self._flows(session, source):
            flow.read += 1
            flow.waited_s += waited_s

    def of(self, session: SessionId) -> Mapping[NodeId, int]:
        """Bytes that each partner took, {} for an unknown session."""
        return {node: flow.bytes_out for node, flow in self.flows(session).items() if flow.messages_out}

    def flows(self, session: SessionId) -> Mapping[NodeId, Flow]:
        """What has passed in a session by node, {} for an unknown one."""
        return self._open.get(session) or self._closed.get(session) or {}

    def _flows(self, session: SessionId, node: NodeId) -> Iterator[Flow]:
        counts = self._open.get(session)
        if counts is None:
            counts = self._closed.get(session)
        else:
            self._open.move_to_end(session)
        if counts is None:
            return
        for known in (counts, self.partners):
            flow = known.get(node)
            if flow is None:
                flow = known[node] = Flow()
            yield flow
