"""The audit trail of this node: written in the transaction of what it tells, chained, sealed, handed out for export.

`TrailedStore` stands in front of the real store and watches every transaction, so that no service has to remember to
tell. Who acts is bound at the doors (partner edge, admin listener, platform listener) with `acting` and read here and
nowhere else: a context variable, because between door and store lie fifty functions whose business it is not.

Failed authentications have no transaction. They are counted in `Failures`, which bounds what a stranger can make us
write, and are written by `Trail.flush`, which runtime.trail calls every second.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeVar
from weakref import ReferenceType, ref

from gateway.auth.schemes import Signer
from gateway.errors import CallerError, Kind, Refused
from gateway.mgmt_plane.core.acts import Act, of_delete, of_insert, of_replace
from gateway.mgmt_plane.core.trail import SEAL, START, Header, chained, seal_text
from gateway.model import Identity, OutCall, TrailEntry
from gateway.ports import Clock, Record, Store, Tx

R = TypeVar("R", bound=Record)
T = TypeVar("T")

STARTED: Final = "node.started"
SEAL_ENTRIES: Final = 100
SEAL_MS: Final = 600_000
PAGE: Final = 500
"""Entries per read: one transaction must not keep the others waiting."""
FAILURES_A_MINUTE: Final = 60
"""Rows per minute that strangers can make us write; what is beyond is counted in one row more."""

_REFUSALS: Final = frozenset(
    {
        Kind.FORBIDDEN,
        Kind.GRANT_MISSING,
        Kind.GRANT_EXPIRED,
        Kind.GRANT_EXHAUSTED,
        Kind.GRANT_REVOKED,
        Kind.NOT_AS_APPROVED,
        Kind.UNAUTHENTICATED,
    }
)
"""Refusals inside a transaction of our own side that are acts; those of partners come from the edge."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. kind: admin, partner, platform, node, claimed. who: token id or node id; "" for this node itself."""

    kind: str
    who: str = ""
    trace_id: str = ""


_ITSELF: Final = Actor("node")
_acting: ContextVar[tuple[Actor, "ReferenceType[asyncio.Task[Any]]"] | None] = ContextVar("acting", default=None)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """What the running task does inside is done by `actor`. For the doors alone.

    A task that is started inside acts for the node itself: it may live for hours after its occasion.
    """
    task = asyncio.current_task()
    if task is None:
        raise CallerError("only a task can act")
    token = _acting.set((actor, ref(task)))
    try:
        yield
    finally:
        _acting.reset(token)


def _actor() -> Actor:
    bound = _acting.get()
    return bound[0] if bound is not None and bound[1]() is asyncio.current_task() else _ITSELF


def record(tx: Tx, event: str, subject: str, **facts: Any) -> None:
    """Add an act that the records do not show, e.g. the use of an invite. Without a trail (some tests) nothing."""
    if isinstance(tx, TrailedTx):
        tx.tell(Act(event, subject, facts))


class TrailedTx:
    """A transaction that notes the acts of what passes through it. Same contract as ports.Tx."""

    def __init__(self, inner: Tx, watched: Mapping[type, Callable[[], None]] = MappingProxyType({})) -> None:
        """watched: record class -> called before one of it is written; see TrailedStore."""
        self._inner = inner
        self._watched = watched
        self.acts: list[Act] = []
        self.trace_id = ""
        """Of the first call that the transaction puts into the outbox: it carries the matter to the partner."""

    def tell(self, act: Act) -> None:
        self.acts.append(act)

    def get(self, kind: type[R], key: str) -> R | None:
        return self._inner.get(kind, key)

    def insert(self, record: Record) -> None:
        self._guard(record)
        self._inner.insert(record)
        if isinstance(record, OutCall):
            self.trace_id = self.trace_id or record.trace_id
        self.acts.extend(of_insert(self._inner, record))

    def replace(self, old: R, new: R) -> None:
        self._guard(old)
        self._inner.replace(old, new)
        self.acts.extend(of_replace(self._inner, old, new))

    def delete(self, record: Record) -> None:
        self._guard(record)
        known = self._inner.get(type(record), record.key())
        self._inner.delete(record)
        if known is not None:
            self.acts.extend(of_delete(self._inner, known))

    def _guard(self, record: Record) -> None:
        if isinstance(record, TrailEntry):
            raise CallerError("the trail is written by Trail alone")
        if (told := self._watched.get(type(record))) is not None:
            told()

    def select(
        self,
        kind: type[R],
        /,
        *,
        order: str = "created",
        limit: int | None = None,
        offset: int = 0,
        after: R | None = None,
        **equals: object,
    ) -> Sequence[R]:
        return self._inner.select(kind, order=order, limit=limit, offset=offset, after=after, **equals)

    def count(self, kind: type[R], /, **equals: object) -> int:
        return self._inner.count(kind, **equals)


@dataclass(frozen=True, slots=True)
class Failure:
    """A refused attempt. who: whom the caller claimed to be."""

    event: str
    actor: str
    who: str
    subject: str
    kind: str
    address: str


class Failures:
    """Refused attempts of the last moments: equal ones are counted together, and a minute has a bounded number of rows.

    `add` may be called from any thread.
    """

    def __init__(self, *, per_minute: int = FAILURES_A_MINUTE) -> None:
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._waiting: dict[Failure, list[Any]] = {}
        self._minute = 0
        self._rows = 0
        self._beyond = 0

    def add(self, failure: Failure, *, now: int, trace_id: str = "") -> None:
        """now: ms. trace_id: the newest attempt's is kept."""
        with self._lock:
            self._turn(now)
            known = self._waiting.get(failure)
            if known is not None:
                known[0] += 1
                known[1] = trace_id
            elif self._rows < self._per_minute:
                self._rows += 1
                self._waiting[failure] = [1, trace_id]
            else:
                self._beyond += 1

    def _turn(self, now: int) -> None:
        minute = now // 60_000
        if minute != self._minute:
            self._minute, self._rows = minute, 0

    def take(self, *, now: int, last: bool = False) -> list[tuple[Act, Actor]]:
        """What is to be written now; those beyond the bound once their minute is over, or with `last`."""
        with self._lock:
            minute = now // 60_000
            over = self._beyond if last or minute != self._minute else 0
            self._turn(now)
            waiting, self._waiting = self._waiting, {}
            self._beyond -= over
        taken = []
        for failure, (count, trace_id) in waiting.items():
            facts = {"kind": failure.kind, "address": failure.address, "count": count}
            actor = Actor(failure.actor, failure.who, trace_id)
            taken.append((Act(failure.event, failure.subject, facts), actor))
        if over:
            taken.append((Act("auth.failed_more", "", {"count": over}), Actor("claimed")))
        return taken


class Trail:
    """Writes and reads the trail. The store given to `TrailedStore` and to this must be the same.

    signer: the node's signing key as it is now.
    """

    def __init__(
        self,
        store: Store,
        *,
        identity: Identity,
        signer: Callable[[], Signer],
        clock: Clock,
        seal_entries: int = SEAL_ENTRIES,
        seal_ms: int = SEAL_MS,
    ) -> None:
        self._store = store
        self._identity = identity
        self._signer = signer
        self._clock = clock
        self._seal_entries = seal_entries
        self._seal_ms = seal_ms
        self.failures = Failures()

    # --- writing ----------------------------------------------------------------------------------------------------

    def append(self, tx: Tx, acts: Sequence[Act], actor: Actor) -> None:
        """Continue the chain inside the caller's transaction; seals it where one is due."""
        head = _head(tx)
        for act in acts:
            head = self._put(tx, head, act, actor)
        if head is not None and self._due(tx, head):
            self._seal(tx, head)

    def _put(self, tx: Tx, head: TrailEntry | None, act: Act, actor: Actor, *, bound: bool = True) -> TrailEntry:
        entry = chained(
            head,
            at=self._clock.now_ms(),
            event=act.event,
            actor=actor.kind,
            who=actor.who or (self._identity.node_id if actor.kind == "node" else ""),
            subject=act.subject,
            trace_id=actor.trace_id,
            facts=act.facts,
            bound=bound,
        )
        tx.insert(entry)
        return entry

    def _due(self, tx: Tx, head: TrailEntry) -> bool:
        """Whether so many entries, or the first of so long ago, have no seal over them."""
        if head.event == SEAL:
            return False
        sealed = tx.select(TrailEntry, event=SEAL, order="-seq", limit=1)
        after = sealed[0].seq if sealed else 0
        if head.seq - after >= self._seal_entries:
            return True
        first = tx.get(TrailEntry, f"{after + 1:016d}")
        return first is not None and self._clock.now_ms() - first.at >= self._seal_ms

    def _seal(self, tx: Tx, head: TrailEntry) -> TrailEntry:
        at, signer = self._clock.now_ms(), self._signer()
        text = seal_text(node_id=self._identity.node_id, seq=head.seq, digest=head.hash, at=at)
        entry = chained(
            head,
            at=at,
            event=SEAL,
            actor=_ITSELF.kind,
            who=self._identity.node_id,
            subject=f"trail:{head.seq}",
            trace_id="",
            facts={
                "auth_type": signer.auth_type.value,
                "credential": signer.credential,
                "signature": signer.sign(text),
            },
            bound=False,
        )
        tx.insert(entry)
        return entry

    async def tell(self, event: str, subject: str, **facts: Any) -> None:
        """An act that changes nothing in the store, e.g. that the gateway started."""
        actor = _actor()
        await self._store.run(lambda tx: self.append(tx, [Act(event, subject, facts)], actor))

    async def started(self, **facts: str) -> None:
        """The gateway starts with this configuration; `changed` names the facts that differ from the last start."""

        def work(tx: Tx) -> None:
            before = tx.select(TrailEntry, event=STARTED, order="-seq", limit=1)
            known = before[0].facts if before else facts
            changed = sorted(name for name, value in facts.items() if known.get(name) != value)
            self.append(tx, [Act(STARTED, "", {**facts, "changed": changed})], _ITSELF)

        await self._store.run(work)

    async def tend(self) -> None:
        """Write the failures that wait and seal what has waited too long."""
        taken = self.failures.take(now=self._clock.now_ms())

        def work(tx: Tx) -> None:
            for act, actor in taken:
                self.append(tx, [act], actor)
            if not taken:
                self.append(tx, [], _ITSELF)

        await self._store.run(work)

    async def close(self, **facts: Any) -> None:
        """Before the gateway stops: what waits, that it stops, and a seal over all."""
        taken = self.failures.take(now=self._clock.now_ms(), last=True)

        def work(tx: Tx) -> None:
            head = _head(tx)
            for act, actor in (*taken, (Act("node.stopped", "", facts), _ITSELF)):
                head = self._put(tx, head, act, actor)
            if head is not None:
                self._seal(tx, head)

        await self._store.run(work)

    # --- reading ----------------------------------------------------------------------------------------------------

    async def heading(self, *, since: int | None = None, until: int | None = None) -> Header:
        """The signed first line of an export of the entries of that time (ms, both inclusive); seals the chain first.

        The entries form one run of the chain. Where the clock was set back, the run is found as if it had not been.
        """

        def work(tx: Tx) -> Header:
            head = _head(tx)
            if head is not None and head.event != SEAL:
                head = self._seal(tx, head)
            count = 0 if head is None else head.seq
            first = 1 if since is None else _first_after(tx, count, lambda at: at >= since)
            last = count if until is None else _first_after(tx, count, lambda at: at > until) - 1
            last = max(last, first - 1)
            signer = self._signer()
            header = Header(
                node_id=self._identity.node_id,
                first=first,
                last=last,
                prev=_hash_of(tx, first - 1),
                head=_hash_of(tx, last),
                exported=self._clock.now_ms(),
                auth_type=signer.auth_type.value,
                credential=signer.credential,
            )
            return replace(header, signature=signer.sign(header.text()))

        return await self._store.run(work)

    async def entries(self, *, first: int, last: int) -> list[TrailEntry]:
        """Entries by seq, both inclusive, at most PAGE."""

        def work(tx: Tx) -> list[TrailEntry]:
            found = (tx.get(TrailEntry, f"{seq:016d}") for seq in range(first, min(last, first + PAGE - 1) + 1))
            return [each for each in found if each is not None]

        return await self._store.run(work)

    async def state(self) -> Mapping[str, int]:
        """entries; unsealed: those after the last seal."""

        def work(tx: Tx) -> Mapping[str, int]:
            head = _head(tx)
            sealed = tx.select(TrailEntry, event=SEAL, order="-seq", limit=1)
            count = 0 if head is None else head.seq
            return {"entries": count, "unsealed": count - (sealed[0].seq if sealed else 0)}

        return await self._store.run(work)


def _head(tx: Tx) -> TrailEntry | None:
    # Without a member `created`, entries are ordered by their key.
    found = tx.select(TrailEntry, order="-created", limit=1)
    return found[0] if found else None


def _hash_of(tx: Tx, seq: int) -> str:
    if seq < 1:
        return START
    entry = tx.get(TrailEntry, f"{seq:016d}")
    if entry is None:
        raise CallerError(f"the trail has no entry {seq}", kind=Kind.STORE)
    return entry.hash


def _first_after(tx: Tx, count: int, holds: Callable[[int], bool]) -> int:
    """The first seq whose time `holds`, count + 1 where none does; by halving."""
    low, high = 1, count + 1
    while low < high:
        middle = (low + high) // 2
        entry = tx.get(TrailEntry, f"{middle:016d}")
        if entry is not None and holds(entry.at):
            high = middle
        else:
            low = middle + 1
    return low


class TrailedStore:
    """ports.Store: the inner store, and every act in it into the trail within the same transaction."""

    def __init__(self, inner: Store, trail: Trail, clock: Clock) -> None:
        self._inner = inner
        self._trail = trail
        self._clock = clock
        self._watched: dict[type, Callable[[], None]] = {}

    def on_write(self, kind: type, told: Callable[[], None]) -> None:
        """`told` is called before a record of `kind` is written, inside the transaction and on the store's thread.

        The transaction may still fail. Whoever reads through this store after `told` sees what it left behind.
        """
        self._watched[kind] = told

    async def run(self, work: Callable[[Tx], T]) -> T:
        actor = _actor()

        def watched(tx: Tx) -> T:
            seen = TrailedTx(tx, self._watched)
            result = work(seen)
            if seen.acts:
                by = actor if actor.trace_id else replace(actor, trace_id=seen.trace_id)
                self._trail.append(tx, seen.acts, by)
            return result

        try:
            return await self._inner.run(watched)
        except Refused as e:
            if e.kind in _REFUSALS and actor.kind != "partner":
                refused = Failure("access.refused", actor.kind, actor.who, str(e)[:200], e.kind.value, "")
                self._trail.failures.add(refused, now=self._clock.now_ms(), trace_id=actor.trace_id)
            raise

    async def close(self) -> None:
        await self._inner.close()
