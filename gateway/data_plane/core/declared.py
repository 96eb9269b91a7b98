"""Sessions that open by themselves, under a beginning of ids that an admin declared for named partners.

A product that makes one session per job (FATE-Flow: `session_<job>`) cannot tell our admin the ids beforehand. Such a
session opens when one of our own containers uses it, and lets in only the declared partners that the container named
in it: one partner cannot fill what our containers do with another. A read that names nobody asks for anybody's
messages and so lets in every declared one. Pure: who is told and when is `data_plane.channel`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from gateway.errors import Kind, Unavailable
from gateway.model import NodeId, SessionId
from gateway.ports import SessionRule

MOST_BEGUN: Final = 1024
"""Sessions open at a time under all beginnings; our own containers alone open them."""


@dataclass(slots=True)
class _Begun:
    under: SessionId
    nodes: tuple[NodeId, ...]
    used: float


class Declared:
    """The beginnings, and which sessions have begun under them."""

    def __init__(self, *, own: NodeId, most: int = MOST_BEGUN) -> None:
        self._own = own
        self._most = most
        self._rules: dict[SessionId, SessionRule] = {}
        self._begun: dict[SessionId, _Begun] = {}

    def __contains__(self, session: SessionId) -> bool:
        """Whether this session has begun under a beginning."""
        return session in self._begun

    def put(self, rule: SessionRule) -> list[SessionId]:
        """Make or replace a beginning; the sessions under it that have a node too many now, which are to be closed."""
        self._rules[rule.session_id] = rule
        allowed = {*rule.nodes, self._own}
        return [each for each in self._under(rule.session_id) if not allowed.issuperset(self._begun[each].nodes)]

    def drop(self, beginning: SessionId) -> list[SessionId]:
        """Forget a beginning; the sessions under it, which are to be closed."""
        self._rules.pop(beginning, None)
        return self._under(beginning)

    def _under(self, beginning: SessionId) -> list[SessionId]:
        return [session for session, begun in self._begun.items() if begun.under == beginning]

    def missing(self, kept: Iterable[SessionId]) -> list[SessionId]:
        """The beginnings that are not among `kept`."""
        return sorted(set(self._rules) - set(kept))

    def over(self, session: SessionId, *, now_ms: int) -> SessionRule | None:
        """The beginning that this session is under; now_ms: wall clock."""
        for beginning, rule in self._rules.items():
            if session.startswith(beginning) and session != beginning and not rule.ended(now_ms):
                return rule
        return None

    def named(
        self, session: SessionId, partner: NodeId, known: SessionRule | None, *, reads: bool, now: float, now_ms: int
    ) -> SessionRule | None:
        """The rule of a session after one of our containers named `partner` in it ("" or own id: nobody).

        known: its rule before. None: no beginning covers it; the beginning's own rule where nothing opens, as the
        partner is not one of its nodes. Raises Unavailable(TOO_MANY).
        """
        under = self.over(session, now_ms=now_ms)
        nobody = partner in {"", self._own}
        if under is None or not (nobody or partner in under.nodes):
            return under
        if session not in self._begun and len(self._begun) >= self._most:
            raise Unavailable(f"{self._most} sessions are open under declared beginnings", kind=Kind.TOO_MANY)
        nodes = (self._own,) if known is None else known.nodes
        asked = (partner,) if not nobody else under.nodes if reads else ()
        more = tuple(each for each in asked if each not in nodes)
        self._begun[session] = _Begun(under.session_id, nodes + more, now)
        if known is not None and not more:
            return known
        # Its end is that of the beginning, which may be changed meanwhile.
        return replace(under, session_id=session, nodes=nodes + more, prefix=False, until=None)

    def touch(self, session: SessionId, *, now: float) -> None:
        """The session was used."""
        if session in self._begun:
            self._begun[session].used = now

    def forget(self, session: SessionId) -> None:
        self._begun.pop(session, None)

    def idle(self, *, before: float, kept: Callable[[SessionId], bool]) -> list[SessionId]:
        """Sessions that have begun and were not used since `before`, but for those `kept`."""
        return sorted(each for each, begun in self._begun.items() if begun.used < before and not kept(each))
