"""Sessions without a job of ours: which partners may use them is what an admin declared, and nothing else.

For containers that some other product runs beside this gateway (FATE-Flow, a vendor's, an SPU started by hand). One
session is declared by its id, or all whose ids begin alike where the product makes one per job. Works inside
transactions that the callers open; the data process is told by `runtime.declared`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.service.jobs import JobBook
from gateway.mgmt_plane.service.membership import channel_of
from gateway.mgmt_plane.service.partners import Partners
from gateway.model import Contract, DeclaredSession, Job, NodeId, SessionId
from gateway.ports import ANY_TOKEN, Clock, SessionRule, Tx
from specs.states import JobState

MOST: Final = 256
"""Declarations at a time."""
MOST_NODES: Final = 64
MOST_CHARS: Final = 256
"""Of an id: as many as its header may have."""
_LIVE: Final = (JobState.PENDING, JobState.READY, JobState.RUNNING)


class DeclaredSessions:
    """The declarations of one node. A contract that ends takes its partner out of them.

    durability: of the messages of all of them.
    """

    def __init__(self, *, partners: Partners, book: JobBook, clock: Clock, durability: str = "memory") -> None:
        self._durability = durability
        self._partners = partners
        self._book = book
        self._clock = clock
        partners.on_closed(self._on_closed)

    def declare(
        self, tx: Tx, session_id: str, *, prefix: bool, nodes: Sequence[NodeId], expires: int | None
    ) -> DeclaredSession:
        """Let containers here and these partners use a session; repeated, it changes nodes and end of a declaration.

        prefix: session_id is the beginning of ids. expires: ms since 1970. Raises ProtocolViolation,
        Refused(NODE_UNKNOWN, CONTRACT_INVALID) for who is no partner, Refused(CONFLICT) where another declaration or
        a job is about a session that this one covers, Refused(TOO_MANY).
        """
        now = self._clock.now_ms()
        made = DeclaredSession(
            session_id=_checked(session_id), prefix=prefix, nodes=tuple(nodes), expires=expires, created=now
        )
        if not 1 <= len(made.nodes) <= MOST_NODES or len(set(made.nodes)) != len(made.nodes):
            raise ProtocolViolation(f"nodes must be 1 to {MOST_NODES} different node ids")
        if made.ended(now):
            raise ProtocolViolation("expired_time must lie in the future (milliseconds)")
        for node in made.nodes:
            if not self._partners.contract_with(tx, node).tls_ca:
                raise Refused(f"the TLS CA of {node} is not known", kind=Kind.CONTRACT_INVALID)
        old = self._clear(tx, made)
        for session in self._of_jobs(tx):
            if made.covers(session):
                raise Refused(f"{session} is the session of a job that has not ended", kind=Kind.CONFLICT)
        if old is None:
            if tx.count(DeclaredSession) >= MOST:
                raise Refused(f"there are {MOST} declarations already: close some", kind=Kind.TOO_MANY)
            tx.insert(made)
            return made
        made = replace(made, created=old.created)
        if made != old:
            tx.replace(old, made)
        return made

    def close(self, tx: Tx, session_id: str) -> DeclaredSession:
        """Take a declaration back; raises Refused(NOT_FOUND)."""
        found = tx.get(DeclaredSession, session_id)
        if found is None:
            raise Refused("no such declaration", kind=Kind.NOT_FOUND)
        tx.delete(found)
        return found

    def all(self, tx: Tx) -> list[DeclaredSession]:
        return sorted(tx.select(DeclaredSession), key=lambda each: each.created)

    def rules(self, tx: Tx) -> list[SessionRule]:
        """What the data process must know."""
        own, now = self._partners.identity.node_id, self._clock.now_ms()
        return [
            SessionRule(
                session_id=SessionId(each.session_id),
                nodes=(own, *each.nodes),
                tokens={ANY_TOKEN: ""},
                outgoing={},
                prefix=each.prefix,
                until=each.expires,
                durability=self._durability,
            )
            for each in tx.select(DeclaredSession)
            if not each.ended(now)
        ]

    def _clear(self, tx: Tx, made: DeclaredSession) -> DeclaredSession | None:
        """What is declared under the same id, after those that have ended are gone. Raises Refused(CONFLICT)."""
        same = None
        for each in tx.select(DeclaredSession):
            if each.ended(made.created):
                tx.delete(each)
            elif (each.session_id, each.prefix) == (made.session_id, made.prefix):
                same = each
            elif each.covers(made.session_id) or made.covers(each.session_id):
                raise Refused(f"{each.session_id} is declared already: close it first", kind=Kind.CONFLICT)
        return same

    def _of_jobs(self, tx: Tx) -> Iterator[SessionId]:
        for state in _LIVE:
            for job in tx.select(Job, status=state):
                yield channel_of(tx, job, self._book.plan(job))

    def _on_closed(self, tx: Tx, contract: Contract) -> None:
        for each in tx.select(DeclaredSession):
            if contract.peer_node_id not in each.nodes:
                continue
            rest = tuple(node for node in each.nodes if node != contract.peer_node_id)
            if rest:
                tx.replace(each, replace(each, nodes=rest))
            else:
                tx.delete(each)


def _checked(text: str) -> str:
    """It stands in a header."""
    if not 1 <= len(text) <= MOST_CHARS or not text.isascii() or not text.isprintable() or text != text.strip():
        raise ProtocolViolation(f"session_id must be 1 to {MOST_CHARS} printable ASCII characters")
    return text
