"""What a call on a session means: who may make it, and the step it takes. One object per data process.

A session exists where `open_session` told of it; its rule names the nodes of the job and the tasks that run here
(ports.SessionRule). Containers prove a task's token, partners their mTLS identity; both are looked at before a body is
read. A message for a partner leaves through a `Partner`: plain invoke today, a framed stream or gRPC with the same
two methods later. Bodies, sockets and dialects stay outside (`core.frame`, `io`); queues and bounds are `core.session`.

Timing between the two sides (a partner's task may start earlier than ours): a message for a session that is not known
here yet is refused with OVERLOADED (E0000000503) and nothing is kept; the sending side repeats such a push, with
growing pauses, until its deadline. Every message has a name (`core.delivery`). To a partner that gives names back,
and so drops what it has, a push is repeated also when it may have arrived; to any other only what certainly did not
arrive, and the rest is answered E0000000607 or E0000000601 and left to the container, whose payload carries a number.
"""

import asyncio
import hashlib
import hmac
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from gateway.data_plane.backlog import Backlog, Item
from gateway.data_plane.core import frame as fr
from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.declared import Declared
from gateway.data_plane.core.delivery import TASK, Inbox, Name, Outbox, read_name
from gateway.data_plane.core.frame import Envelope, Frame, Operation
from gateway.data_plane.core.ledger import SentBytes, in_all
from gateway.data_plane.core.quota import Quotas
from gateway.data_plane.core.records import Leaving
from gateway.data_plane.core.session import Message, Queues, Stored
from gateway.data_plane.core.wire import Buffer
from gateway.data_plane.keeping import Found, Keeper, Spools, on_disk_already
from gateway.data_plane.lanes import Arrivals, Departures, Loan, Readback, Readers, Room, Ticket
from gateway.errors import WIRE, GatewayError, Kind, PeerError, ProtocolViolation, Refused, Unavailable
from gateway.model import Limits, NodeId, SessionId, TraceId
from gateway.ports import ANY_TOKEN, Clock, Entropy, Journal, SessionRule
from specs import headers as h
from specs.codes import Transport

WAITERS: Final = 4096
PAUSE_FIRST_S: Final = 0.05
PAUSE_LAST_S: Final = 1.0
SPOOL: Final = "spool"
"""The durability of a session whose messages are on disk before a push is answered."""
SMALL: Final = 4096
"""A payload up to this size is copied out of the body that it came in, which is larger."""
KEPT: Final = "k"
"""Begins the names by which messages on disk are acknowledged."""
READBACK: Final = 4
"""Messages that are read from disk for readers may take so large a part of what the process may hold."""
NOT_ARRIVED: Final = frozenset({WIRE[Kind.OVERLOADED].transport, WIRE[Kind.BUFFER_FULL].transport, "E0000000602"})
"""Codes by which a partner says that it has not taken the message and that a later try may succeed."""
UNCERTAIN: Final = frozenset({Kind.PEER_UNREACHABLE, Kind.PEER_TIMEOUT})


class Partner(Protocol):
    """The way to one partner's data plane."""

    @property
    def inst_id(self) -> str: ...

    async def deliver(self, outgoing: fr.Outgoing) -> fr.Answer:
        """One attempt.

        Raises Unavailable: NO_ROUTE when it certainly didn't arrive, PEER_UNREACHABLE or PEER_TIMEOUT when that is not
        known; Refused(UNAUTHENTICATED) when the other end is not that partner, and nothing was sent.
        """
        ...


class Partners(Protocol):
    """The partners with an approved contract."""

    def find(self, node: NodeId) -> Partner | None: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator of the gateway chooses.

    strict: refuse calls without provider, trace id or token (T-055). push_retry_s: how long a push is repeated, from
    its first failure. gap_s: how long an arrival waits for an earlier message. room_s: how long one waits for room in
    full buffers. provider: our code where the container names none.
    """

    strict: bool = False
    push_retry_s: float = 20.0
    gap_s: float = 5.0
    room_s: float = 2.0
    provider: str = "interconn"


@dataclass(frozen=True, slots=True)
class Popped:
    """A message for a reader. settle: to be called once, whether the answer that carries it was written.

    named: what the reader's next pop acknowledges it by; "" for a reader that does not.
    """

    payload: Buffer = field(repr=False)
    settle: Callable[[bool], None] = field(repr=False)
    named: str = ""


@dataclass(slots=True)
class Traffic:
    """Counters since the start, for stats."""

    pushed_local: int = 0
    pushed_out: int = 0
    pushed_in: int = 0
    popped: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    waiting: int = 0
    put_back: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Channel:
    """Sessions of one data process, from both sides."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        inst_id: str,
        queues: Queues,
        budget: Budget,
        sent: SentBytes,
        partners: Partners,
        limits: Limits,
        policy: Policy,
        clock: Clock,
        entropy: Entropy,
        journal: Journal,
        spools: Spools | None = None,
    ) -> None:
        self._node_id = node_id
        self._inst_id = inst_id
        self._queues = queues
        self._budget = budget
        self._sent = sent
        self._partners = partners
        self._limits = limits
        self._quotas = Quotas(messages_per_s=limits.partner_messages_per_s, bytes_per_s=limits.partner_bytes_per_s)
        self._policy = policy
        self._clock = clock
        self._entropy = entropy
        self._journal = journal
        self._rules: dict[SessionId, SessionRule] = {}
        self._declared = Declared(own=node_id)
        # Rules with an end, looked at as time goes by.
        self._timed: set[SessionId] = set()
        self._readers = Readers(WAITERS)
        self._room = Room()
        budget.on_room = self._room.freed
        self._called: dict[tuple[SessionId, NodeId], SessionId] = {}
        """What a partner calls a session otherwise -> that session."""
        self._stopping = False
        # Greater than any before: by when the process started, and what it counts.
        self._started = started = clock.now_ms()
        self._outbox = Outbox(f"{started:012x}{n:08x}" for n in itertools.count())
        self._departures = Departures(self._outbox)
        self._inbox = Inbox()
        self._arrivals = Arrivals(self._inbox, clock, policy.gap_s, self._note_gap)
        self._know_names: set[NodeId] = set()
        self._unacknowledged: dict[SessionId, dict[tuple[str, NodeId | None], Message]] = {}
        self._keeper = Keeper(
            spools or Spools(), queues, budget, self._inbox, clock, journal, sessions=self._kept_sessions
        )
        self._readback = Readback(budget, limits.process_bytes // READBACK)
        self._orders = itertools.count()
        self._backlog = Backlog(
            keeper=self._keeper,
            departures=self._departures,
            attempt=self._attempt_late,
            is_open=self._rules.__contains__,
            clock=clock,
            journal=journal,
        )
        self.traffic = Traffic()

    # -- what the control process says

    def open_session(self, rule: SessionRule) -> None:
        """Make or replace a rule; messages that wait are kept, and so is the durability that it began with."""
        if rule.prefix:
            for session in self._declared.put(rule):
                self.close_session(session)
            return
        if rule.session_id in self._declared:
            self.close_session(rule.session_id)
        self._open(rule)

    def _open(self, rule: SessionRule) -> None:
        known = self._rules.get(rule.session_id)
        if known is not None and known.durability != rule.durability:
            rule = replace(rule, durability=known.durability)
        if rule.until is not None:
            self._timed.add(rule.session_id)
        self._rules[rule.session_id] = rule
        if known is not None:
            self._forget_aliases(known)
        self._called |= {(alias, node): rule.session_id for of in rule.aliases.values() for node, alias in of.items()}
        self._sent.open(rule.session_id)

    def close_session(self, session: SessionId) -> None:
        """Forget the rule, drop its messages; who waits in it is told RELEASED."""
        for begun in self._declared.drop(session):
            self.close_session(begun)
        rule = self._rules.pop(session, None)
        if rule is None:
            return
        self._declared.forget(session)
        self._timed.discard(session)
        self._forget_aliases(rule)
        self._sent.close(session)
        self._backlog.forget(session)
        self._departures.forget(session)
        self._arrivals.forget(session)
        dropped = self._queues.release(session)
        self._unacknowledged.pop(session, None)
        self._readers.wake_session(session)
        self._journal.note("chan.closed", session_id=session, dropped=dropped)

    def keep_sessions(self, rules: Mapping[SessionId, SessionRule]) -> None:
        """Replace all rules by a snapshot's; sessions it doesn't name are closed."""
        for session in self._declared.missing(each.session_id for each in rules.values() if each.prefix):
            self.close_session(session)
        for session in [known for known in self._rules if known not in rules and known not in self._declared]:
            self.close_session(session)
        for rule in rules.values():
            self.open_session(rule)

    def sent_bytes(self, session: SessionId) -> Mapping[NodeId, int]:
        """Payload bytes that each partner took, also of sessions that ended not long ago."""
        return self._sent.of(session)

    def stats(self) -> Mapping[str, int]:
        """Counters and levels, without names."""
        t = self.traffic
        return {
            "sessions": len(self._rules),
            "sessions_with_messages": len(self._queues),
            "bytes_held": self._budget.used,
            "waiting": t.waiting,
            "pushed_local": t.pushed_local,
            "pushed_out": t.pushed_out,
            "pushed_in": t.pushed_in,
            "popped": t.popped,
            "bytes_out": t.bytes_out,
            "bytes_in": t.bytes_in,
            "repeats_dropped": self._inbox.counts.repeats,
            "numbers_skipped": self._inbox.counts.skipped,
            "held_for_order": self._arrivals.held,
            "put_back": t.put_back,
            "bytes_on_disk": self._budget.on_disk,
            "to_be_delivered": len(self._backlog),
            "undeliverable": self._backlog.undeliverable,
            **self._keeper.sizes(),
        }

    def figures(self, *, limit: int) -> Mapping[str, Any]:
        """What passes, by session and partner: for an admin's eyes and for metrics. Ids and figures, never content.

        sessions: at most `limit`; half of them those that moved last, then those in which messages wait.
        """
        moved = self._sent.latest()
        names = dict.fromkeys(itertools.islice(moved, limit // 2))
        for session in itertools.chain(self._queues.sessions(), moved):
            if len(names) >= limit:
                break
            if session in self._rules:
                names[session] = None
        now = self._clock.monotonic()
        return {
            "at": self._clock.now_ms(),
            "node_id": self._node_id,
            "bytes_held": self._budget.used,
            "bytes_bound": self._limits.process_bytes,
            "bytes_on_disk": self._budget.on_disk,
            "readers": self._readers.waiting,
            "sessions_in_all": len(self._rules),
            "sessions": [self._session_figures(session, now) for session in names],
            "partners": [{"node_id": node, **flow.shown()} for node, flow in self._sent.partners.items()],
        }

    def _session_figures(self, session: SessionId, now: float) -> Mapping[str, Any]:
        flows = self._sent.flows(session)
        oldest = self._queues.oldest(session)
        return {
            "session_id": session,
            "durability": self._rules[session].durability,
            "depth": self._queues.depth(session),
            "bytes_held": self._budget.used_by(session),
            "bytes_on_disk": self._budget.on_disk_of(session),
            "oldest_s": None if oldest is None else round(now - oldest, 3),
            "readers": self._readers.of(session),
            **in_all(flows.values()).shown(),
            "nodes": [{"node_id": node, **flow.shown()} for node, flow in flows.items()],
        }

    # -- containers (north-south)

    def admit_container(self, envelope: Envelope, operation: Operation) -> None:
        """Check a container's call before its body is read: headers, token, nodes of the session.

        Raises ProtocolViolation(MALFORMED), Refused(FORBIDDEN, NODE_UNKNOWN, RELEASED).
        """
        fr.require(envelope, operation, strict=self._policy.strict)
        rule = self._rule_for_container(envelope, operation)
        if rule is None:
            # Before its own control process has opened the session no task of it runs here.
            kind = Kind.RELEASED if self._sent.is_closed(envelope.session_id) else Kind.FORBIDDEN
            raise Refused("no such session for this caller", kind=kind)
        if ANY_TOKEN not in rule.tokens and not _holds(rule, envelope.token):
            raise Refused(f"{h.PTP_TOKEN}: refused")
        target = envelope.target_node
        if target in {"", self._node_id}:
            return
        if target in rule.nodes:
            if operation is Operation.PUSH and self._partners.find(target) is None:
                raise Refused(f"{h.PTP_TARGET_NODE}: not a partner", kind=Kind.NODE_UNKNOWN)
            return
        known = self._partners.find(target) is not None
        raise Refused(
            f"{h.PTP_TARGET_NODE}: not a node of the session", kind=Kind.FORBIDDEN if known else Kind.NODE_UNKNOWN
        )

    async def push(self, frame: Frame, body: Buffer) -> None:
        """Queue here or hand to the partner; returns when it is in the receiver's queue (section 8.4).

        body: as received, for pass-through. Raises Unavailable, Refused, PeerError with the partner's code.
        """
        envelope = frame.envelope
        named = _of_container(envelope)
        if envelope.target_node == self._node_id:
            if await self._take(frame, self._node_id, named):
                self.traffic.pushed_local += 1
                self._note("chan.push", frame, peer=self._node_id)
        elif await self._deliver(frame, body, named):
            self._delivered(frame)

    async def pop(self, frame: Frame) -> Popped | None:
        """The next message, waiting for it at most `frame.wait_ms`; None when there is none by then (T-017, T-018).

        Of a reader that acknowledges, one at a time for a topic: what it does not say that it has, it gets again. One
        that does so for the sake of messages on disk (KEPT) reads plainly where there are none.
        Raises Refused(RELEASED) when the session ends meanwhile, Unavailable(TOO_MANY) over the bound of waiters,
        (STORAGE) where it was on a disk that cannot be read.
        """
        session, topic = frame.envelope.session_id, frame.topic
        source = self._source_wanted(frame.envelope)
        deadline = self._clock.monotonic() + frame.wait_ms / 1000
        place = self._readers.place()
        ack = frame.envelope.ack
        if ack.startswith(KEPT) and not self._is_kept(session):
            ack = ""
        self._acknowledge(session, topic, source, ack)
        while True:
            now = self._clock.monotonic()
            message = self._queues.pop(session, topic, source=source, now=now)
            if message is not None:
                if not ack:
                    return await self._popped(frame, message)
                self._unacknowledged.setdefault(session, {})[topic, source] = message
                return await self._popped(frame, message, named=self._id_of(message))
            if now >= deadline or self._stopping:
                return None
            self.traffic.waiting += 1
            try:
                await self._readers.wait(session, topic, source, place=place, seconds=deadline - now)
            finally:
                self.traffic.waiting -= 1
            if session not in self._rules:
                raise Refused("the session was closed", kind=Kind.RELEASED)
            if ack:
                # An earlier call of this reader, which has given it up, may have been given a message meanwhile.
                self._acknowledge(session, topic, source, ack)

    async def peek(self, frame: Frame) -> Popped | None:
        """The next message or None, at once (T-021)."""
        envelope = frame.envelope
        source, now = self._source_wanted(envelope), self._clock.monotonic()
        message = self._queues.peek(envelope.session_id, frame.topic, source=source, now=now)
        return None if message is None else await self._popped(frame, message)

    def release(self, frame: Frame) -> None:
        """Drop a topic or all topics of the session, on this node only (T-amb 7)."""
        dropped = self._queues.release(frame.envelope.session_id, frame.topic)
        self._note("chan.release", frame, dropped=dropped)

    # -- partners (east-west)

    def admit_partner(self, envelope: Envelope, proven: NodeId) -> None:
        """Check an invoke before its body is read. proven: the mTLS identity of the caller.

        Raises Refused(LOOP, MISADDRESSED, FORBIDDEN, RELEASED, NOT_OFFERED, NOT_FOUND), ProtocolViolation,
        Unavailable(OVERLOADED) while the session isn't known here yet.
        """
        fr.require(envelope, Operation.PUSH, strict=self._policy.strict)
        if envelope.source_node == self._node_id:
            raise Refused("a message of this node came back", kind=Kind.LOOP)
        if not envelope.source_node:
            raise ProtocolViolation(f"{h.PTP_SOURCE_NODE}: missing")
        if envelope.source_node != proven:
            raise Refused(f"{h.PTP_SOURCE_NODE}: not the node of the client certificate")
        if envelope.target_node != self._node_id:
            raise Refused(f"{h.PTP_TARGET_NODE}: another node, and nothing is relayed", kind=Kind.MISADDRESSED)
        fr.invoke_mode(envelope)
        session = self._ours(envelope.session_id, proven)
        rule = self._rule(session)
        if rule is None or proven not in rule.nodes:
            raise self._not_let_in(session, proven, rule)
        now = self._clock.monotonic()
        self._quotas.admit(proven, now=now)
        self._declared.touch(session, now=now)

    async def accept(self, frame: Frame) -> None:
        """Queue a partner's message, or drop one that it repeats; returns when it is in the queue, in order.

        Raises Unavailable(BUFFER_FULL, OVERLOADED), Refused(RELEASED, CONFLICT), ProtocolViolation.
        """
        envelope = frame.envelope
        self._quotas.spend(envelope.source_node, len(frame.payload))
        session = self._ours(envelope.session_id, envelope.source_node)
        if session != envelope.session_id:
            envelope = replace(envelope, session_id=session)
            frame = replace(frame, envelope=envelope)
        if await self._take(frame, envelope.source_node, read_name(envelope.message)):
            self.traffic.pushed_in += 1
            self.traffic.bytes_in += len(frame.payload)
            self._note("chan.invoke", frame, peer=envelope.source_node)

    # -- life

    def refused(self, envelope: Envelope | None, operation: str, error: GatewayError) -> None:
        """Record a refusal with the ids it came with; never a token or payload."""
        counts = self.traffic.refused
        counts[error.kind.value] = counts.get(error.kind.value, 0) + 1
        self._journal.note(
            "chan.refused",
            operation=operation,
            kind=error.kind.value,
            reason=str(error),
            session_id=envelope.session_id if envelope else None,
            trace_id=envelope.trace_id if envelope else None,
            peer=(envelope.source_node or envelope.target_node) if envelope else None,
        )

    def expire(self) -> None:
        """Forget messages of idle sessions in which no task runs here (T-049); a running job keeps its own.

        A session that began by itself ends with them, one whose time is over in any case.
        """
        for session in list(self._timed):
            self._rule(session)
        now = self._clock.monotonic()
        before = now - self._limits.session_idle_s
        for session in self._queues.expire(before=before, now=now, kept=self._is_busy):
            self._journal.note("chan.expired", session_id=session)
        for session in self._declared.idle(before=before, kept=self._is_busy):
            self.close_session(session)
        self._backlog.expire(before=before)
        for session in [each for each in self._unacknowledged if not self._is_busy(each)]:
            given = self._unacknowledged[session]
            for (topic, source), message in list(given.items()):
                if message.at < before:
                    self._acknowledge(session, topic, source, "")

    def recall(self, found: Iterable[Found]) -> None:
        """Take up what was on disk at the start; to be called before anything is served."""
        for leaving, stored in self._keeper.recall(found):
            order, since = next(self._orders), self._clock.monotonic()
            self._backlog.add(Item(order, leaving, stored, None, since))

    def stop(self) -> None:
        """Answer everyone who waits; nobody waits any more."""
        self._stopping = True
        self._readers.wake_everybody()

    async def end(self) -> None:
        """Stop what goes on without a call; what is on disk stays there."""
        await self._backlog.stop()

    # -- inside

    def _rule(self, session: SessionId) -> SessionRule | None:
        """The rule of a session that has not ended."""
        rule, now_ms = self._rules.get(session), self._clock.now_ms()
        if rule is None:
            return None
        begun = session in self._declared
        if rule.ended(now_ms) or (begun and self._declared.over(session, now_ms=now_ms) is None):
            self.close_session(session)
            return None
        return rule

    def _ours(self, session: SessionId, partner: NodeId) -> SessionId:
        """The session that a partner means by this id."""
        return session if session in self._rules else self._called.get((session, partner), session)

    def _forget_aliases(self, rule: SessionRule) -> None:
        for called in [(alias, node) for of in rule.aliases.values() for node, alias in of.items()]:
            if self._called.get(called) == rule.session_id:
                del self._called[called]

    def _rule_for_container(self, envelope: Envelope, operation: Operation) -> SessionRule | None:
        """As `_rule`; one under a declared beginning opens here, and lets in the partner that the call names."""
        session = envelope.session_id
        known = self._rule(session)
        if known is not None and session not in self._declared:
            return known
        reads = operation in {Operation.POP, Operation.PEEK}
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        rule = self._declared.named(session, envelope.target_node, known, reads=reads, now=now, now_ms=now_ms)
        if rule is not None and rule is not known and not rule.prefix:
            self._open(rule)
        return rule

    def _not_let_in(self, session: SessionId, proven: NodeId, rule: SessionRule | None) -> GatewayError:
        """Why a partner may not send to a session: never, no longer, or not yet."""
        own = rule is not None and session not in self._declared
        under = None if own else self._declared.over(session, now_ms=self._clock.now_ms())
        if rule is None and under is None and self._sent.is_closed(session):
            return Refused("the session was closed", kind=Kind.RELEASED)
        if (rule is None and under is None) or (under is not None and proven in under.nodes):
            # A job's session opens soon; one under a beginning when a container of ours names this partner in it.
            return Unavailable("session not open yet", kind=Kind.OVERLOADED, detail="the session is not open here yet")
        return Refused("not a node of the session")

    def _source_wanted(self, envelope: Envelope) -> NodeId | None:
        """Whose messages a read means: own id or no id is any source, a partner's id that partner (9.2, T-046)."""
        return None if envelope.target_node in {"", self._node_id} else envelope.target_node

    def _is_busy(self, session: SessionId) -> bool:
        rule = self._rules.get(session)
        running = rule is not None and any(token != ANY_TOKEN for token in rule.tokens)
        return running or session in self._readers

    def _kept_sessions(self) -> Sequence[SessionId]:
        return [session for session, rule in self._rules.items() if rule.durability == SPOOL]

    async def _take(self, frame: Frame, source: NodeId, name: Name | None) -> bool:
        """Queue a message in its order, waiting for room if need be; False for a repeat."""
        session, topic = frame.envelope.session_id, frame.topic
        deadline, waited = self._clock.monotonic() + self._policy.room_s, False
        payload = bytes(frame.payload) if len(frame.payload) <= SMALL else frame.payload
        while True:
            if name is not None and not await self._arrivals.admit(session, topic, source, name):
                if self._is_kept(session):
                    await self._keeper.settle()
                self._note("chan.repeat", frame, peer=source)
                return False
            if session not in self._rules:
                raise Refused("the session was closed", kind=Kind.RELEASED)
            try:
                written = self._put(session, topic, source, payload, name)
                break
            except Unavailable as e:
                left = deadline - self._clock.monotonic()
                if e.kind is not Kind.BUFFER_FULL or left <= 0 or self._stopping:
                    raise
                await self._room.wait(session, seconds=left)
                waited = True
        if waited:
            self._room.freed(session)
        if name is not None:
            self._arrivals.took(session, topic, source, name)
        if written is not None:
            await written
        return True

    def _put(
        self, session: SessionId, topic: str, source: NodeId, payload: Buffer, name: Name | None
    ) -> Awaitable[None] | None:
        """Queue a message, or begin to where it goes to disk: then the awaited is done when it is there.

        Raises Unavailable(BUFFER_FULL) and changes nothing.
        """
        if self._is_kept(session):

            def settled(failure: GatewayError | None) -> bool:
                if failure is not None and name is not None:
                    self._arrivals.undo(session, topic, source, name)
                return session in self._rules

            def queued() -> None:
                self._came(session, topic, source, len(payload))

            keep = self._keeper.keep
            return keep(session, topic, source, payload, name=name, settled=settled, queued=queued)
        written: Awaitable[None] | None = None
        if on_disk_already(payload):
            self._keeper.hold(session, topic, source, payload)
        else:
            try:
                self._queues.push(session, topic, source, payload, now=self._clock.monotonic())
            except Unavailable:
                written = self._keeper.overflow(session, topic, source, payload)
        self._came(session, topic, source, len(payload))
        return written

    def _came(self, session: SessionId, topic: str, source: NodeId, size: int) -> None:
        self._sent.came(session, source, size)
        self._readers.wake(session, topic, source)

    def _is_kept(self, session: SessionId) -> bool:
        rule = self._rules.get(session)
        return rule is not None and rule.durability == SPOOL

    async def _popped(self, frame: Frame, message: Message, *, named: str = "") -> Popped:
        """named: the reader's next pop says whether it has the message, however this one ends."""
        lent: Loan | None = None
        try:
            if message.payload is None:
                lent = await self._readback.enter(message.size)
            payload = await self._keeper.payload(message)
        except BaseException as e:
            self._return(lent)
            if isinstance(e, Unavailable):
                self._queues.done(message)
            elif not named:
                self._back(message)
            raise
        if on_disk_already(payload):
            self._return(lent)
            lent = None
        self.traffic.popped += 1
        self._sent.read(message.session, message.source, self._clock.monotonic() - message.at)
        self._note(f"chan.{frame.operation}", frame, peer=message.source, bytes=message.size)

        def settle(written: bool) -> None:
            self._return(lent)
            if named:
                return
            if written:
                self._queues.done(message)
            else:
                self._back(message)

        return Popped(payload, settle, named)

    def _return(self, lent: Loan | None) -> None:
        if lent is not None:
            self._readback.leave(lent)

    def _back(self, message: Message) -> None:
        """The reader went away without the message: it stands where it stood."""
        if self._queues.put_back(message, now=self._clock.monotonic()):
            self.traffic.put_back += 1
            self._readers.wake(message.session, message.topic, message.source)

    def _acknowledge(self, session: SessionId, topic: str, source: NodeId | None, ack: str) -> None:
        """The reader has the message that it names; any other that it was given stands where it stood."""
        given = self._unacknowledged.get(session)
        message = given.pop((topic, source), None) if given is not None else None
        if given is not None and not given:
            del self._unacknowledged[session]
        if message is not None and self._id_of(message) != ack:
            self._back(message)
        elif message is not None:
            self._queues.done(message)
        elif ack.startswith(KEPT) and self._is_kept(session):
            # A restart came between: what was acknowledged may be in its queue again, with what was read before it.
            while (head := self._queues.head(session, topic, source=source)) and _read_by(ack, self._id_of(head)):
                again = self._queues.pop(session, topic, source=source, now=self._clock.monotonic())
                if again is not None:
                    self._queues.done(again)

    def _id_of(self, message: Message) -> str:
        """Names a message for its reader: that of its record, where it has one that outlives this process."""
        if message.stored is not None and self._is_kept(message.session):
            return f"{KEPT}{message.stored.ident}"
        return f"{self._started:x}.{message.number}"

    def _delivered(self, frame: Frame) -> None:
        envelope, size = frame.envelope, len(frame.payload)
        self._sent.add(envelope.session_id, envelope.target_node, size)
        self.traffic.pushed_out += 1
        self.traffic.bytes_out += size
        self._note("chan.push", frame, peer=envelope.target_node)

    async def _deliver(self, frame: Frame, body: Buffer, named: Name | None) -> bool:
        """Attempts, in the order of the topic, until the partner has the message; named: by the container.

        False: it is on disk here and will be delivered, for the session keeps its messages and the partner is away.
        """
        envelope = frame.envelope
        session, topic, target = envelope.session_id, frame.topic, envelope.target_node
        if not envelope.trace_id:
            trace = TraceId(self._entropy.token(16).hex())
            self._journal.note("chan.untraced", session_id=session, trace_id=trace)
        else:
            trace = envelope.trace_id
        order = next(self._orders)
        outgoing = self._outgoing(frame, body, trace, "" if named is None else str(named))
        alias = self._alias(envelope)
        # What is another session there is another lane; no topic has a line break.
        lane = f"{alias}\n{topic}" if alias else topic
        ticket = None if named is not None else self._departures.begin(session, lane, target)
        ending: bool | None = False
        try:
            if (session, topic, target) not in self._backlog:
                try:
                    await self._repeat(outgoing, ticket)
                except _LaterError as e:
                    if not self._is_kept(session):
                        raise e.failure from e
                else:
                    ending = True
                    return True
            # What is passed through as it came is kept as it came; of all else, what is left when it was decoded.
            through = fr.passes_through(frame)
            name = outgoing.message if ticket is None else str(ticket.name)
            token = envelope.token if ANY_TOKEN in self._must_be_open(session).tokens else ""
            leaving = Leaving(
                session=session,
                topic=topic,
                target=target,
                name=name,
                codec=(frame.codec if through else fr.Codec.RAW).value,
                content_type=envelope.content_type,
                version=envelope.version,
                provider=envelope.provider,
                trace_id=trace,
                target_inst=envelope.target_inst,
                alias=alias,
                header_topic=envelope.topic,
                token=token,
            )

            def ended(stored: Stored | None) -> None:
                if stored is not None:
                    self._backlog.add(Item(order, leaving, stored, ticket, self._clock.monotonic()))
                    self._note("chan.kept", frame, peer=target)
                elif ticket is not None:
                    self._departures.end(ticket, taken=False)

            written = self._keeper.leave(leaving, body if through else frame.payload, ended=ended)
            ending = None
            await written
            return False
        finally:
            if ticket is not None and ending is not None:
                self._departures.end(ticket, taken=ending)

    async def _attempt_late(self, item: Item) -> GatewayError | None:
        """One attempt for a push of the backlog."""
        leaving = item.leaving
        body = await self._keeper.read(leaving.session, item.stored)
        envelope = Envelope(
            content_type=leaving.content_type,
            version=leaving.version,
            provider=leaving.provider,
            trace_id=TraceId(leaving.trace_id),
            token=leaving.token,
            uri="",
            session_id=leaving.session,
            source_node=NodeId(""),
            target_node=leaving.target,
            source_inst="",
            target_inst=leaving.target_inst,
            topic=leaving.header_topic,
            timeout_ms=None,
        )
        if leaving.codec == fr.Codec.RAW.value:
            frame = Frame(Operation.PUSH, fr.Codec.RAW, envelope, leaving.topic, body)
        else:
            frame = fr.decode(Operation.PUSH, envelope, body, limits=self._limits)
        name = leaving.name if item.ticket is None else str(item.ticket.name)
        failure = await self._attempt(self._outgoing(frame, body, envelope.trace_id, name), alias=leaving.alias)
        if failure is None:
            self._delivered(frame)
        return failure

    def _outgoing(self, frame: Frame, body: Buffer, trace: TraceId, name: str) -> fr.Outgoing:
        return fr.Outgoing(
            frame,
            body,
            source_node=self._node_id,
            source_inst=self._inst_id,
            target_inst="",
            trace_id=trace,
            token="",
            provider=self._policy.provider,
            message=name,
        )

    def _must_be_open(self, session: SessionId) -> SessionRule:
        rule = self._rules.get(session)
        if rule is None:
            raise Refused("the session was closed", kind=Kind.RELEASED)
        return rule

    async def _repeat(self, outgoing: fr.Outgoing, ticket: Ticket | None) -> None:
        """Raises _LaterError when the time for attempts is over, of kept sessions: once the partner is seen to be away.

        Raises the failure itself where another attempt might double or cannot help.
        """
        kept = self._is_kept(outgoing.frame.envelope.session_id)
        retry_s, pause = self._policy.push_retry_s, PAUSE_FIRST_S
        deadline: float | None = None
        failure: GatewayError | None = None
        while True:
            if ticket is not None:
                left = retry_s if deadline is None else max(deadline - self._clock.monotonic(), 0)
                if not await self._departures.turn(ticket, seconds=left):
                    raise _LaterError(failure or Unavailable("earlier messages wait", kind=Kind.NO_ROUTE))
                outgoing = replace(outgoing, message=str(ticket.name))
            failure = await self._attempt(outgoing)
            if failure is None:
                return
            if ticket is not None:
                ticket.lane.failed()
            now = self._clock.monotonic()
            # A long body that breaks late is owed its repeats too, so the time runs from the first failure.
            deadline = now + retry_s if deadline is None else deadline
            full = isinstance(failure, PeerError) and failure.peer_code == WIRE[Kind.BUFFER_FULL].transport
            if (kept and not full) or self._stopping or now + pause >= deadline:
                raise _LaterError(failure)
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_LAST_S)

    def _alias(self, envelope: Envelope) -> SessionId:
        """What the target of a container's call calls the session, where that differs; else ""."""
        rule = self._rules.get(envelope.session_id)
        found = rule.aliases.get(_digest(envelope.token), {}).get(envelope.target_node) if rule else None
        return found or SessionId("")

    async def _attempt(self, outgoing: fr.Outgoing, *, alias: str | None = None) -> GatewayError | None:
        """None: taken. An error: a later try may succeed and will not double. Raises where that is not so.

        alias: what the target calls the session; None: as the container's token says.
        """
        envelope = outgoing.frame.envelope
        target = envelope.target_node
        rule = self._must_be_open(envelope.session_id)
        partner = self._partners.find(target)
        if partner is None:
            raise Refused("not a partner any more", kind=Kind.NODE_UNKNOWN)
        token = envelope.token if ANY_TOKEN in rule.tokens else rule.outgoing.get(target, "")
        alias = self._alias(envelope) if alias is None else alias
        if alias:
            frame = replace(outgoing.frame, envelope=replace(envelope, session_id=SessionId(alias)))
            outgoing = replace(outgoing, frame=frame)
        try:
            answer = await partner.deliver(replace(outgoing, target_inst=partner.inst_id, token=token))
        except Unavailable as e:
            if e.kind is Kind.NO_ROUTE or (e.kind in UNCERTAIN and target in self._know_names):
                return e
            raise
        if answer.named == outgoing.message:
            self._know_names.add(target)
        elif answer.code == Transport.OK:
            self._know_names.discard(target)
        if answer.code == Transport.OK:
            return None
        kind = Kind.PEER_REFUSED if fr.is_code(answer.code) else Kind.PEER_MALFORMED
        error = PeerError(f"{target} answered {answer.code[:16] or 'no code'}", peer_code=answer.code, kind=kind)
        if answer.code in NOT_ARRIVED:
            return error
        raise error

    def _note_gap(self, session: SessionId, topic: str, source: NodeId, skipped: int) -> None:
        """Messages that their sender gave up, and told its writers: said here too, for a reader may wait for them."""
        self._journal.note("chan.gap", session_id=session, topic=topic, peer=source, skipped=skipped)

    def _note(self, event: str, frame: Frame, **ids: str | float | None) -> None:
        envelope = frame.envelope
        self._journal.note(
            event,
            session_id=envelope.session_id,
            topic=frame.topic,
            trace_id=envelope.trace_id,
            **{"bytes": len(frame.payload), **ids},
        )


def _of_container(envelope: Envelope) -> Name | None:
    """The name that a container gave its message, marked as a container's."""
    name = read_name(envelope.message)
    return name if name is None or name.writer else replace(name, epoch=TASK + name.epoch)


class _LaterError(Exception):
    """No more attempts now; a later one may succeed and will not double."""

    def __init__(self, failure: GatewayError) -> None:
        super().__init__(str(failure))
        self.failure = failure


def _read_by(ack: str, name: str) -> bool:
    """Whether a reader that has the record `ack` has read the record `name` too: they are read in order."""
    return name.startswith(KEPT) and ack[1:].isdecimal() and len(ack) <= 20 and int(name[1:]) <= int(ack[1:])


def _digest(token: str) -> str:
    """As tasks are known by in a SessionRule."""
    return hashlib.sha256(token.encode()).hexdigest()


def _holds(rule: SessionRule, token: str) -> bool:
    """Whether the token is that of a task in the session; compares with all, in constant time each."""
    digest = _digest(token)
    found = False
    for known in rule.tokens:
        found |= hmac.compare_digest(known, digest)
    return found and bool(token)
