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
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from gateway.data_plane.core import frame as fr
from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.declared import Declared
from gateway.data_plane.core.delivery import TASK, Inbox, Name, Outbox, read_name
from gateway.data_plane.core.frame import Envelope, Frame, Operation
from gateway.data_plane.core.ledger import SentBytes
from gateway.data_plane.core.quota import Quotas
from gateway.data_plane.core.session import Message, Queues
from gateway.data_plane.core.wire import Buffer
from gateway.data_plane.lanes import Arrivals, Departures, Ticket
from gateway.errors import WIRE, GatewayError, Kind, PeerError, ProtocolViolation, Refused, Unavailable
from gateway.model import Limits, NodeId, SessionId, TraceId
from gateway.ports import ANY_TOKEN, Clock, Entropy, Journal, SessionRule
from specs import headers as h
from specs.codes import Transport

WAITERS: Final = 4096
PAUSE_FIRST_S: Final = 0.05
PAUSE_LAST_S: Final = 1.0
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
    its first failure. gap_s: how long an arrival waits for an earlier message. provider: our code where the container
    names none.
    """

    strict: bool = False
    push_retry_s: float = 20.0
    gap_s: float = 5.0
    provider: str = "interconn"


@dataclass(eq=False, slots=True)
class _Waiter:
    source: NodeId | None
    woken: asyncio.Future[None]


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
        self._called: dict[tuple[SessionId, NodeId], SessionId] = {}
        """What a partner calls a session otherwise -> that session."""
        self._waiters: OrderedDict[tuple[SessionId, str], deque[_Waiter]] = OrderedDict()
        self._stopping = False
        # An epoch is never used twice: a new process draws anew, a process counts.
        drawn = entropy.token(8).hex()
        self._outbox = Outbox(f"{drawn}{n:x}" for n in itertools.count())
        self._departures = Departures(self._outbox)
        self._inbox = Inbox()
        self._arrivals = Arrivals(self._inbox, clock, policy.gap_s, self._note_gap)
        self._know_names: set[NodeId] = set()
        self.traffic = Traffic()

    # -- what the control process says

    def open_session(self, rule: SessionRule) -> None:
        """Make or replace a rule; messages that wait are kept."""
        if rule.prefix:
            for session in self._declared.put(rule):
                self.close_session(session)
            return
        if rule.session_id in self._declared:
            self.close_session(rule.session_id)
        self._open(rule)

    def _open(self, rule: SessionRule) -> None:
        self._rules[rule.session_id] = rule
        self._forget_aliases(rule.session_id)
        self._called |= {(alias, node): rule.session_id for of in rule.aliases.values() for node, alias in of.items()}
        self._sent.open(rule.session_id)

    def close_session(self, session: SessionId) -> None:
        """Forget the rule, drop its messages; who waits in it is told RELEASED."""
        for begun in self._declared.drop(session):
            self.close_session(begun)
        if self._rules.pop(session, None) is None:
            return
        self._declared.forget(session)
        self._forget_aliases(session)
        self._sent.close(session)
        self._departures.forget(session)
        self._arrivals.forget(session)
        dropped = self._queues.release(session)
        self._wake_all(session)
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
            return
        await self._deliver(frame, body, named)
        size = len(frame.payload)
        self._sent.add(envelope.session_id, envelope.target_node, size)
        self.traffic.pushed_out += 1
        self.traffic.bytes_out += size
        self._note("chan.push", frame, peer=envelope.target_node)

    async def pop(self, frame: Frame) -> Buffer | None:
        """The next message, waiting for it at most `frame.wait_ms`; None when there is none by then (T-017, T-018).

        Raises Refused(RELEASED) when the session ends meanwhile, Unavailable(TOO_MANY) over the bound of waiters.
        """
        session, topic = frame.envelope.session_id, frame.topic
        source = self._source_wanted(frame.envelope)
        deadline = self._clock.monotonic() + frame.wait_ms / 1000
        first = True
        while True:
            now = self._clock.monotonic()
            message = self._queues.pop(session, topic, source=source, now=now)
            if message is not None:
                return self._popped(frame, message)
            if now >= deadline or self._stopping:
                return None
            await self._wait(session, topic, source, seconds=deadline - now, first=first)
            first = False
            if session not in self._rules:
                raise Refused("the session was closed", kind=Kind.RELEASED)

    async def peek(self, frame: Frame) -> Buffer | None:
        """The next message or None, at once (T-021)."""
        envelope = frame.envelope
        source, now = self._source_wanted(envelope), self._clock.monotonic()
        message = self._queues.peek(envelope.session_id, frame.topic, source=source, now=now)
        return None if message is None else self._popped(frame, message)

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
        for session in list(self._rules):
            self._rule(session)
        busy = {s for s, rule in self._rules.items() if any(token != ANY_TOKEN for token in rule.tokens)}
        busy.update(session for session, _ in self._waiters)
        before = self._clock.monotonic() - self._limits.session_idle_s
        for session in self._queues.expire(before=before, kept=busy):
            self._journal.note("chan.expired", session_id=session)
        for session in self._declared.idle(before=before, kept=busy):
            self.close_session(session)

    def stop(self) -> None:
        """Answer everyone who waits; nobody waits any more."""
        self._stopping = True
        for session in {session for session, _ in self._waiters}:
            self._wake_all(session)

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

    def _forget_aliases(self, session: SessionId) -> None:
        for alias in [alias for alias, ours in self._called.items() if ours == session]:
            del self._called[alias]

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

    async def _take(self, frame: Frame, source: NodeId, name: Name | None) -> bool:
        """Queue a message in its order; False for a repeat."""
        session, topic = frame.envelope.session_id, frame.topic
        if name is not None and not await self._arrivals.admit(session, topic, source, name):
            self._note("chan.repeat", frame, peer=source)
            return False
        if session not in self._rules:
            raise Refused("the session was closed", kind=Kind.RELEASED)
        self._queues.push(session, topic, source, frame.payload, now=self._clock.monotonic())
        if name is not None:
            self._arrivals.took(session, topic, source, name)
        self._wake_one(session, topic, source)
        return True

    def _popped(self, frame: Frame, message: Message) -> Buffer:
        self.traffic.popped += 1
        self._note(f"chan.{frame.operation}", frame, peer=message.source, bytes=len(message.payload))
        return message.payload

    async def _deliver(self, frame: Frame, body: Buffer, named: Name | None) -> None:
        """Attempts, in the order of the topic, until the partner has the message. named: by the container."""
        envelope = frame.envelope
        if not envelope.trace_id:
            trace = TraceId(self._entropy.token(16).hex())
            self._journal.note("chan.untraced", session_id=envelope.session_id, trace_id=trace)
        else:
            trace = envelope.trace_id
        outgoing = fr.Outgoing(
            frame,
            body,
            source_node=self._node_id,
            source_inst=self._inst_id,
            target_inst="",
            trace_id=trace,
            token="",
            provider=self._policy.provider,
        )
        if named is not None:
            await self._repeat(replace(outgoing, message=str(named)), None)
            return
        ticket = self._departures.begin(envelope.session_id, frame.topic, envelope.target_node)
        taken = False
        try:
            await self._repeat(outgoing, ticket)
            taken = True
        finally:
            self._departures.end(ticket, taken=taken)

    async def _repeat(self, outgoing: fr.Outgoing, ticket: Ticket | None) -> None:
        retry_s, pause = self._policy.push_retry_s, PAUSE_FIRST_S
        deadline: float | None = None
        failure: GatewayError | None = None
        while True:
            if ticket is not None:
                left = retry_s if deadline is None else max(deadline - self._clock.monotonic(), 0)
                if not await self._departures.turn(ticket, seconds=left):
                    raise failure or Unavailable("earlier messages of the topic wait", kind=Kind.NO_ROUTE)
                outgoing = replace(outgoing, message=str(ticket.name))
            failure = await self._attempt(outgoing)
            if failure is None:
                return
            if ticket is not None:
                ticket.lane.failed()
            now = self._clock.monotonic()
            # A long body that breaks late is owed its repeats too, so the time runs from the first failure.
            deadline = now + retry_s if deadline is None else deadline
            if self._stopping or now + pause >= deadline:
                raise failure
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_LAST_S)

    async def _attempt(self, outgoing: fr.Outgoing) -> GatewayError | None:
        """None: taken. An error: a later try may succeed and will not double. Raises where that is not so."""
        envelope = outgoing.frame.envelope
        target = envelope.target_node
        rule = self._rules.get(envelope.session_id)
        if rule is None:
            raise Refused("the session was closed", kind=Kind.RELEASED)
        partner = self._partners.find(target)
        if partner is None:
            raise Refused("not a partner any more", kind=Kind.NODE_UNKNOWN)
        token = envelope.token if ANY_TOKEN in rule.tokens else rule.outgoing.get(target, "")
        alias = rule.aliases.get(_digest(envelope.token), {}).get(target) if rule.aliases else None
        if alias is not None:
            frame = replace(outgoing.frame, envelope=replace(envelope, session_id=alias))
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

    async def _wait(
        self, session: SessionId, topic: str, source: NodeId | None, *, seconds: float, first: bool
    ) -> None:
        """Until a matching message came, the session ended, the process stops, or `seconds` passed.

        first: a reader that was woken and found the message gone goes back to the head of the line.
        """
        if self.traffic.waiting >= WAITERS:
            raise Unavailable("too many readers wait", kind=Kind.TOO_MANY)
        waiter = _Waiter(source, asyncio.get_running_loop().create_future())
        line = self._waiters.setdefault((session, topic), deque())
        if first:
            line.append(waiter)
        else:
            line.appendleft(waiter)
        self.traffic.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await waiter.woken
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            # The reader is gone; a wake-up that was meant for it must not be lost for the next one.
            if waiter.woken.done() and not waiter.woken.cancelled():
                _wake(line)
            raise
        finally:
            self.traffic.waiting -= 1
            if waiter in line:
                line.remove(waiter)
            if not line and self._waiters.get((session, topic)) is line:
                del self._waiters[session, topic]

    def _wake_one(self, session: SessionId, topic: str, source: NodeId) -> None:
        line = self._waiters.get((session, topic), deque())
        for waiter in line:
            if waiter.source in {None, source} and not waiter.woken.done():
                waiter.woken.set_result(None)
                return

    def _wake_all(self, session: SessionId) -> None:
        for (waiting_in, _), line in self._waiters.items():
            if waiting_in == session:
                _wake(line)

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


def _wake(line: Iterable[_Waiter]) -> None:
    for waiter in line:
        if not waiter.woken.done():
            waiter.woken.set_result(None)


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
