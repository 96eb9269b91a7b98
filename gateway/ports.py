"""What the planes need from outside, as Protocols; `app` passes the real ones in, tests pass theirs."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from gateway.model import Contract, NodeId, PartnerWay, RelayPair, SeenNonce, SessionId, TraceId

R = TypeVar("R", bound="Record")
T = TypeVar("T")


class Record(Protocol):
    """A frozen dataclass of gateway.model that the store keeps."""

    def key(self) -> str: ...


class Clock(Protocol):
    """Wall clock for what the wire carries, monotonic for waiting."""

    def now_ms(self) -> int: ...

    def monotonic(self) -> float: ...


class Entropy(Protocol):
    """Randomness of the operating system."""

    def token(self, size: int) -> bytes: ...


class Tx(Protocol):
    """One transaction. Synchronous; runs on the store's own thread; all or nothing."""

    def get(self, kind: type[R], key: str) -> R | None: ...

    def insert(self, record: Record) -> None:
        """Raises Refused(CONFLICT) where the key exists."""
        ...

    def replace(self, old: R, new: R) -> None:
        """Save `new` only if the stored record still equals `old`; else Refused(CONFLICT). Keys must be equal."""
        ...

    def delete(self, record: Record) -> None: ...

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
        """Records whose members equal those given, ordered by member `order` (`-order` descending), then by key.

        after: only what comes behind this record in that order; `order` must be a member that is never None.
        """
        ...

    def count(self, kind: type[R], /, **equals: object) -> int: ...


class Store(Protocol):
    """The management plane's memory."""

    async def run(self, work: Callable[[Tx], T]) -> T:
        """Run `work` in one transaction; a raised error rolls back. `work` must not do I/O of its own.

        Where another writer got in its way it is run again from the start, a few times.
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EdgeRequest:
    """A request of a partner or of our own side, body complete and within Limits; header names lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    raw_query: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    peer_cert: bytes | None = field(repr=False)
    """DER of the client certificate that TLS verified, or None."""
    peer_address: str


@dataclass(frozen=True, slots=True)
class EdgeReply:
    """What goes back: JSON already encoded. more: what follows `body` where the answer is too long to be held whole."""

    status: int
    body: bytes
    more: AsyncIterator[bytes] | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class Caller:
    """The proven origin of a request, handed inwards by the edge; handlers never look at headers for it."""

    node_id: NodeId
    contract: Contract | None
    """None only on the open and carried routes."""
    trace_id: TraceId
    token_set: str = field(default="", repr=False)
    """x-mprac-token-set as received."""
    proven: bool = False
    """A signature was present and verified; false on open routes and where an unsigned apply or confirm only claims."""
    retired_key: bool = False
    """The signature was made with the key that the partner has replaced (still in its overlap)."""


@dataclass(frozen=True, slots=True)
class PeerReply:
    """A partner's successful answer: `data` is {} where it was missing or null (C-007)."""

    data: Mapping[str, Any]


class PeerClient(Protocol):
    """Signed calls to partners: one attempt cycle (Limits.request_attempts) per call."""

    async def call(
        self,
        contract: Contract,
        route: str,
        payload: Mapping[str, Any],
        *,
        trace_id: TraceId,
        token_set: str = "",
    ) -> PeerReply:
        """Call `route` (name in specs.routes): GET sends `payload` as query, POST as JSON body.

        Raises PeerError (the partner answered with an error), Unavailable (no answer), ProtocolViolation
        (kind PEER_MALFORMED). Each attempt carries a fresh nonce, timestamp and signature (M-012).
        """
        ...


@dataclass(frozen=True, slots=True)
class PeerRoute:
    """Where and how the data plane reaches a partner; made from an APPROVED contract (M-075)."""

    node_id: NodeId
    inst_id: str
    address: str
    tls_ca: str
    profile: str
    crls: Mapping[str, str] = field(default_factory=dict, repr=False)
    """CA (SHA-256 of its DER, hex) -> its revocation list as PEM."""
    our_chain: str = ""
    our_key: str = ""
    """PEM files of the TLS certificate that we show it; empty: those that the data process was started with."""


ANY_TOKEN: Final = "*"  # noqa: S105  # no token
"""As a key of SessionRule.tokens: declared by an admin without tasks, any local caller may use it and its own token is
forwarded unchanged (T-047). Never a digest, so a rule whose tasks have all ended does not become open."""


@dataclass(frozen=True, slots=True)
class Network:
    """How partners are reached where that is not simply at their address, and whom this node relays for."""

    ways: Sequence[PartnerWay] = ()
    holding: Sequence[PeerRoute] = ()
    """Partners to which connections are kept open; also of a contract that we applied for and that still waits."""
    relays: Sequence[RelayPair] = ()


@dataclass(frozen=True, slots=True)
class SessionRule:
    """Who may use a session of the data plane: the nodes of its job, and the tasks running here.

    tokens: SHA-256 (hex) of each running task's secret -> `<role>.<index>` it speaks for.
    outgoing: node id -> x-ptp-token shown to it in place of the task's secret.
    aliases: as tokens -> node id -> what that node calls the session, where its product calls it otherwise.
    durability: memory, or spool: a message is on disk before its push is answered, and survives a restart.
    prefix: declared for every session whose id begins so. until: ms since 1970; it has ended from then on.
    """

    session_id: SessionId
    nodes: tuple[NodeId, ...]
    tokens: Mapping[str, str] = field(repr=False)
    outgoing: Mapping[NodeId, str] = field(repr=False)
    prefix: bool = False
    until: int | None = None
    aliases: Mapping[str, Mapping[NodeId, SessionId]] = field(default_factory=dict, repr=False)
    durability: str = "memory"

    def ended(self, now_ms: int) -> bool:
        return self.until is not None and now_ms >= self.until


class DataPlane(Protocol):
    """What the control process tells the data processes, over a Unix socket."""

    async def set_routes(self, routes: Sequence[PeerRoute]) -> None: ...

    async def open_session(self, rule: SessionRule) -> None:
        """Make or replace the rule of a session; messages that wait in it are kept."""
        ...

    async def close_session(self, session_id: SessionId) -> None:
        """Release the session and forget its rule."""
        ...

    async def sent_bytes(self, session_id: SessionId) -> Mapping[NodeId, int]:
        """Payload bytes sent to each partner so far, also just after the session was closed."""
        ...


class NonceLog(Protocol):
    """What is remembered of nonces across a restart."""

    @property
    def complete_since(self) -> int:
        """Every nonce taken since then is known, ms; 0 means all."""
        ...

    def recall(self) -> Iterable[tuple[int, SeenNonce]]:
        """(guard, nonce) of all that may still count; guard: number that the caller of `keep` chose, 0 to 255."""
        ...

    async def keep(self, guard: int, seen: SeenNonce) -> None:
        """Return when it will survive a crash. Raises Unavailable(STORE): then the request must be refused."""
        ...


class Journal(Protocol):
    """The structured log: one line per event with ids, never a payload, token, signature or header dump.

    Also keeps the newest events in memory for the admin ("who called whom").
    """

    def note(self, event: str, **ids: str | float | bool | None) -> None:
        """Record `event` (dotted snake_case, e.g. `call.out`, `edge.refused`, `job.state`) with its ids.

        Calls to and from partners use: peer, route, code, ms, trace_id, bytes and, where known, job_id, task_id.
        """
        ...

    def recent(self, *, limit: int, **equals: str) -> Sequence[Mapping[str, Any]]:
        """The newest events, oldest first, whose ids equal those given; each has `at` (ms) and `event`."""
        ...
