"""Every error of the gateway and the one table that turns a kind of error into what each wire says.

The message of an error is for our own log. A partner gets the code and the fixed text of the kind, and the trace id;
`detail` is the exception: words that were written for the partner (a field name, a component name), never a value that
came from a key, a payload or a stack.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final


@unique
class Kind(Enum):
    """What went wrong, in the words of the two planes. One row of WIRE each."""

    INTERNAL = "internal"
    OVERLOADED = "overloaded"
    STORE = "store"
    STORAGE = "storage"
    PEER_UNREACHABLE = "peer_unreachable"
    PEER_REFUSED = "peer_refused"
    PEER_MALFORMED = "peer_malformed"
    PEER_TIMEOUT = "peer_timeout"
    MALFORMED = "malformed"
    UNAUTHENTICATED = "unauthenticated"
    STALE = "stale"
    REPLAYED = "replayed"
    MISADDRESSED = "misaddressed"
    FORBIDDEN = "forbidden"
    GRANT_MISSING = "grant_missing"
    GRANT_EXPIRED = "grant_expired"
    GRANT_EXHAUSTED = "grant_exhausted"
    GRANT_REVOKED = "grant_revoked"
    NOT_AS_APPROVED = "not_as_approved"
    CONTRACT_UNKNOWN = "contract_unknown"
    CONTRACT_INVALID = "contract_invalid"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    ILLEGAL_TRANSITION = "illegal_transition"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    BAD_DAG = "bad_dag"
    COMPONENT_UNKNOWN = "component_unknown"
    NODE_UNKNOWN = "node_unknown"
    NO_ROUTE = "no_route"
    LOOP = "loop"
    BUFFER_FULL = "buffer_full"
    RELEASED = "released"
    NOT_OFFERED = "not_offered"
    CODEC = "codec"
    TASK_FAILED = "task_failed"
    TASK_TIMEOUT = "task_timeout"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Wire:
    """One kind on every wire.

    http: status where the failure is the transport's (401, 413, 429 ...); 200 for every business error (M-005).
    code: int32 of management and control; ranges of part 3 section 10 (100-199 own system, 200-299 local dependency,
      300-399 peer, 400-999 caller), never 0, 104 or 200 (M-076).
    transport: string code of part 4 section 7.
    grpc: numeric gRPC status.
    text: the fixed text a partner sees.
    """

    http: int
    code: int
    transport: str
    grpc: int
    text: str


WIRE: Final[Mapping[Kind, Wire]] = {
    Kind.INTERNAL: Wire(200, 100, "E0000000500", 13, "internal error"),
    Kind.OVERLOADED: Wire(200, 101, "E0000000503", 14, "busy, try again later"),
    Kind.STORE: Wire(200, 201, "E0000000500", 14, "the gateway's database is not available"),
    Kind.STORAGE: Wire(200, 202, "E0000000500", 14, "the gateway's storage is not available"),
    Kind.PEER_UNREACHABLE: Wire(200, 301, "E0000000607", 14, "the partner cannot be reached"),
    Kind.PEER_REFUSED: Wire(200, 302, "E0000000403", 9, "the partner refused"),
    Kind.PEER_MALFORMED: Wire(200, 303, "E0000000616", 13, "the partner's answer cannot be read"),
    Kind.PEER_TIMEOUT: Wire(200, 304, "E0000000601", 4, "the partner did not answer in time"),
    Kind.MALFORMED: Wire(200, 400, "E0000000400", 3, "malformed request"),
    Kind.UNAUTHENTICATED: Wire(200, 401, "E0000000615", 16, "signature or credential refused"),
    Kind.FORBIDDEN: Wire(200, 403, "E0000000403", 7, "not allowed"),
    Kind.NOT_FOUND: Wire(200, 404, "E0000000404", 5, "not found"),
    Kind.CONFLICT: Wire(200, 409, "E0000000400", 6, "conflicts with what is known under this id"),
    Kind.TOO_LARGE: Wire(413, 413, "E0000000413", 8, "body too large"),
    Kind.STALE: Wire(200, 420, "E0000000603", 16, "timestamp outside the clock window"),
    Kind.REPLAYED: Wire(200, 421, "E0000000603", 16, "nonce seen before"),
    Kind.MISADDRESSED: Wire(200, 422, "E0000000404", 3, "addressed to another node"),
    Kind.ILLEGAL_TRANSITION: Wire(200, 423, "E0000000400", 9, "not possible in the present state"),
    Kind.NOT_OFFERED: Wire(200, 424, "E0000000614", 12, "not offered here"),
    Kind.TOO_MANY: Wire(429, 429, "E0000000503", 8, "too many requests"),
    Kind.CONTRACT_UNKNOWN: Wire(200, 430, "E0000000618", 5, "unknown contract"),
    Kind.CONTRACT_INVALID: Wire(200, 431, "E0000000605", 9, "contract not approved, ended or expired"),
    Kind.NODE_UNKNOWN: Wire(200, 432, "E0000000618", 5, "unknown node"),
    Kind.GRANT_MISSING: Wire(200, 440, "E0000000403", 7, "no grant for this use of the resource"),
    Kind.GRANT_EXPIRED: Wire(200, 441, "E0000000604", 7, "the grant has expired"),
    Kind.GRANT_EXHAUSTED: Wire(200, 442, "E0000000403", 8, "the grant's number of uses is exhausted"),
    Kind.GRANT_REVOKED: Wire(200, 443, "E0000000403", 7, "the grant or approval was taken back"),
    Kind.NOT_AS_APPROVED: Wire(200, 444, "E0000000403", 9, "not what was approved"),
    Kind.BAD_DAG: Wire(200, 450, "E0000000400", 3, "the DAG or its configuration is not valid"),
    Kind.COMPONENT_UNKNOWN: Wire(200, 451, "E0000000404", 5, "component not registered here"),
    Kind.TASK_FAILED: Wire(200, 460, "E0000000500", 10, "the task failed"),
    Kind.TASK_TIMEOUT: Wire(200, 461, "E0000000601", 4, "the task did not end in time"),
    Kind.STOPPED: Wire(200, 462, "E0000000608", 1, "stopped"),
    Kind.NO_ROUTE: Wire(200, 470, "E0000000619", 14, "no route to the node"),
    Kind.LOOP: Wire(200, 471, "E0000000503", 9, "forwarding loop"),
    Kind.BUFFER_FULL: Wire(200, 472, "E0000000700", 8, "message buffer full"),
    Kind.RELEASED: Wire(200, 473, "E0000000608", 9, "session released"),
    Kind.CODEC: Wire(200, 474, "E0000000616", 3, "body cannot be decoded"),
}


class GatewayError(Exception):
    """Base of all errors the gateway raises on purpose.

    kind: row of WIRE. detail: words for the other side, or "" for the fixed text alone. str(error) is for our log.
    """

    default_kind: Kind = Kind.INTERNAL

    def __init__(self, message: str, *, kind: Kind | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.kind = kind or self.default_kind
        self.detail = detail

    @property
    def wire(self) -> Wire:
        return WIRE[self.kind]

    def public_text(self) -> str:
        """The fixed text, with the detail where there is one; safe for a partner."""
        return f"{self.wire.text}: {self.detail}" if self.detail else self.wire.text


class ProtocolViolation(GatewayError):
    """The other side broke the protocol; `detail` may tell it where."""

    default_kind = Kind.MALFORMED

    def __init__(self, message: str, *, kind: Kind | None = None, detail: str | None = None) -> None:
        super().__init__(message, kind=kind, detail=message if detail is None else detail)


class CallerError(GatewayError):
    """Our own code called something wrongly; the other side learns nothing of it."""


class Refused(GatewayError):
    """A rule says no: not allowed, unknown, expired. The message is also the detail unless another is given."""

    default_kind = Kind.FORBIDDEN

    def __init__(self, message: str, *, kind: Kind | None = None, detail: str | None = None) -> None:
        super().__init__(message, kind=kind, detail=message if detail is None else detail)


class IllegalTransition(GatewayError):
    """An event that the present state does not know."""

    default_kind = Kind.ILLEGAL_TRANSITION

    def __init__(self, message: str) -> None:
        super().__init__(message, detail=message)


class Unavailable(GatewayError):
    """Nobody's fault: a peer, a store, a storage that does not answer now."""

    default_kind = Kind.PEER_UNREACHABLE


class PeerError(GatewayError):
    """A partner answered with an error; `peer_code` is its code as it stands on the wire."""

    default_kind = Kind.PEER_REFUSED

    def __init__(self, message: str, *, peer_code: str, kind: Kind | None = None, detail: str = "") -> None:
        super().__init__(message, kind=kind, detail=detail)
        self.peer_code = peer_code
