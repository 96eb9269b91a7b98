"""What monitoring asks of a gateway: counters fed by the journal, levels read when asked, in Prometheus text format.

Written by hand: the format is a page long, and labels come from our own tables, so that no partner can make us remember
names of its choosing. Ids of sessions alone are others', and only so many of them are told at a time.
docs/audit-trail.md lists what is told.
"""

import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from gateway.errors import WIRE, GatewayError, Kind
from gateway.mgmt_plane.core.profile import WITHOUT_SIGNATURE
from gateway.mgmt_plane.service.trail import Trail
from gateway.model import Audit, CallState, Contract, Direction, Job, Notice, OutCall
from gateway.ports import Clock, Store, Tx
from specs.codes import OK
from specs.routes import ROUTES
from specs.states import ApprovalState, AuditKind, JobState

Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]

_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CODES: Final = frozenset({str(OK), *(str(wire.code) for wire in WIRE.values()), *(kind.value for kind in Kind)})
_SIGNATURE: Final = frozenset({Kind.UNAUTHENTICATED.value, Kind.STALE.value, Kind.REPLAYED.value})
_NETWORK: Final = (
    ("parked", "peer", "gauge", "Connections that wait, ours at partners or theirs here."),
    ("relayed", "pair", "gauge", "Connections passed on between two partners."),
    ("relayed_bytes_total", "pair", "counter", "Bytes passed on between two partners."),
)
_CHANNEL_LEVELS: Final = ("sessions", "sessions_with_messages", "bytes_held", "waiting", "partners")
_CHANNEL_COUNTS: Final = ("pushed_local", "pushed_out", "pushed_in", "popped", "bytes_out", "bytes_in")
_SESSIONS: Final = 20
"""Told by name; those in which most has passed or waits."""
_LOOKED_AT: Final = 100
_SESSION_LEVELS: Final = (
    ("depth", "Messages that wait."),
    ("bytes_held", "Bytes of messages in memory."),
    ("bytes_on_disk", "Bytes of messages in the spool."),
    ("readers", "Readers that wait for a message."),
)
_WAITS: Final = (("sum", "waited_s"), ("count", "read"))
_OTHERS: Final = "(others)"
"""In place of a session: all that are not told by name, of those that moved last or hold messages."""

Figures = Callable[[int], Awaitable[Mapping[str, Any]]]
"""What passes in the data process, of at most so many sessions; raises Unavailable."""
Stats = Callable[[], Awaitable[Mapping[str, Any]]]
"""Counters of the data process; raises Unavailable."""


def _route(name: object) -> str:
    return name if isinstance(name, str) and name in ROUTES else "unknown"


def _code(code: object) -> str:
    text = str(code)
    return text if text in _CODES else "other"


class Counters:
    """Counts what the doors note; `listen` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: Counter[Labels] = Counter()
        self.calls: Counter[Labels] = Counter()
        self.signatures: Counter[Labels] = Counter()
        self.refused_admins = 0
        self.dead = 0
        self._seconds: dict[str, list[float]] = {}
        """Route -> calls per bucket (the last: slower than all), then the sum."""

    def listen(self, event: str, ids: Mapping[str, Any]) -> None:
        """As observe.Listener."""
        door, _, what = event.partition(".")
        with self._lock:
            if door in ("edge", "platform") and what in ("call", "refused"):
                route = _route(ids.get("route"))
                self.requests[("door", door), ("route", route), ("code", _code(ids.get("code")))] += 1
                if door == "edge":
                    self._time(route, float(ids.get("ms") or 0) / 1000)
                    if ids.get("kind") in _SIGNATURE:
                        self.signatures[(("kind", str(ids["kind"])),)] += 1
            elif event == "call.out":
                self.calls[("route", _route(ids.get("route"))), ("code", _code(ids.get("code")))] += 1
            elif event == "admin.refused":
                self.refused_admins += 1
            elif event == "outbox.dead":
                self.dead += 1

    def _time(self, route: str, seconds: float) -> None:
        row = self._seconds.setdefault(route, [0.0] * (len(_BUCKETS_S) + 2))
        slot = next((index for index, bound in enumerate(_BUCKETS_S) if seconds <= bound), len(_BUCKETS_S))
        row[slot] += 1
        row[-1] += seconds

    def text(self) -> str:
        """The counters in text format."""
        with self._lock:
            return "".join(
                (
                    family("interconn_requests_total", "counter", "Requests by door, route and code.", self.requests),
                    family("interconn_calls_total", "counter", "Calls to partners by route and code.", self.calls),
                    family(
                        "interconn_signature_failures_total",
                        "counter",
                        "Partners' requests whose signature, time or nonce was refused.",
                        self.signatures,
                    ),
                    _one("interconn_admin_refused_total", "counter", "Admin requests refused.", self.refused_admins),
                    _one("interconn_outbox_dead_total", "counter", "Calls given up since the start.", self.dead),
                    self._histogram(),
                )
            )

    def _histogram(self) -> str:
        name = "interconn_request_seconds"
        lines = _head(name, "histogram", "Time to answer partners' requests.")
        for route, row in sorted(self._seconds.items()):
            total = 0.0
            for bound, count in zip((*map(str, _BUCKETS_S), "+Inf"), row[:-1], strict=True):
                total += count
                lines.append(_sample(f"{name}_bucket", (("route", route), ("le", bound)), total))
            lines.append(_sample(f"{name}_sum", (("route", route),), row[-1]))
            lines.append(_sample(f"{name}_count", (("route", route),), total))
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _sample(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(each)}"' for key, each in labels)
    number = str(int(value)) if float(value).is_integer() else repr(float(value))
    return f"{name}{{{shown}}} {number}" if shown else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def family(name: str, kind: str, text: str, samples: Mapping[Labels, float] | Iterable[Sample]) -> str:
    """One metric in text format; kind: counter or gauge."""
    pairs = samples.items() if isinstance(samples, Mapping) else samples
    return "\n".join([*_head(name, kind, text), *(_sample(name, *each) for each in sorted(pairs))]) + "\n"


def _one(name: str, kind: str, text: str, value: float) -> str:
    return family(name, kind, text, [((), value)])


def _levels(tx: Tx, now: int) -> str:
    approvals: list[Sample] = []
    for direction in Direction:
        for state in ApprovalState:
            more = (("direction", direction.value), ("state", state.value))
            contracts = tx.count(Contract, direction=direction, status=state)
            approvals.append(((("kind", "contract"), *more), contracts))
            for kind in AuditKind:
                count = tx.count(Audit, kind=kind, direction=direction, status=state)
                approvals.append(((("kind", kind.value), *more), count))
    oldest = tx.select(OutCall, state=CallState.DUE, limit=1)
    age = max(0, now - oldest[0].created) / 1000 if oldest else 0.0
    jobs = [((("state", state.value),), float(tx.count(Job, status=state))) for state in JobState]
    return "".join(
        (
            family("interconn_approvals", "gauge", "Contracts and audits by state.", approvals),
            family("interconn_jobs", "gauge", "Jobs by state.", jobs),
            _one(
                "interconn_insecure_unsigned_partners",
                "gauge",
                "Partners with a contract whose calls need no signature.",
                sum(tx.count(Contract, status=ApprovalState.APPROVED, profile=name) for name in WITHOUT_SIGNATURE),
            ),
            _one("interconn_outbox_due", "gauge", "Calls that wait.", tx.count(OutCall, state=CallState.DUE)),
            _one("interconn_outbox_parked", "gauge", "Calls parked for us.", tx.count(OutCall, state=CallState.PARKED)),
            _one("interconn_notices_dead", "gauge", "Notices given up.", tx.count(Notice, state=CallState.DEAD)),
            _one("interconn_outbox_oldest_seconds", "gauge", "Age of the call that waits longest.", age),
        )
    )


async def exposition(
    *,
    counters: Counters,
    store: Store,
    trail: Trail,
    stats: Stats,
    figures: Figures,
    clock: Clock,
    more: Callable[[], Awaitable[str]] | None = None,
) -> str:
    """Everything in text format 0.0.4. Raises Unavailable where the database does not answer."""
    now = clock.now_ms()
    levels = await store.run(lambda tx: _levels(tx, now))
    state = await trail.state()
    chain = _one("interconn_trail_entries", "gauge", "Entries of the audit trail.", state["entries"]) + _one(
        "interconn_trail_unsealed", "gauge", "Entries after the last seal.", state["unsealed"]
    )
    told = await more() if more is not None else ""
    return counters.text() + levels + chain + told + await _channel(stats, figures)


async def _channel(stats: Stats, figures: Figures) -> str:
    up = "interconn_data_process_up"
    try:
        found, passing = await stats(), await figures(_LOOKED_AT)
    except GatewayError:
        return _one(up, "gauge", "Whether the data process answers.", 0)
    parts = [_one(up, "gauge", "Whether the data process answers.", 1)]
    for names, kind, end in ((_CHANNEL_LEVELS, "gauge", ""), (_CHANNEL_COUNTS, "counter", "_total")):
        parts += [
            _one(f"interconn_channel_{name}{end}", kind, f"Data plane: {name.replace('_', ' ')}.", float(found[name]))
            for name in names
            if isinstance(found.get(name), int)
        ]
    refused = found.get("refused")
    if isinstance(refused, Mapping):
        samples: list[Sample] = [((("kind", str(kind)),), float(count)) for kind, count in refused.items()]
        parts.append(family("interconn_channel_refused_total", "counter", "Channel calls refused.", samples))
    for name, label, kind, words in _NETWORK:
        by = found.get(name.removesuffix("_total"))
        if isinstance(by, Mapping):
            of = [(((label, str(key)),), float(count)) for key, count in by.items()]
            parts.append(family(f"interconn_{name}", kind, words, of))
    return "".join((*parts, _flows(passing)))


def _flows(passing: Mapping[str, Any]) -> str:
    """What has passed by partner and by session, and what waits by session. passing: as of Figures."""
    sessions = sorted(passing["sessions"], key=lambda each: (-_weight(each), each["session_id"]))
    named, others = sessions[:_SESSIONS], sessions[_SESSIONS:]
    by_partner = [((("partner", str(each["node_id"])),), each) for each in passing["partners"]]
    by_session = [
        ((("session", str(session["session_id"])), ("partner", str(each["node_id"]))), each)
        for session in named
        for each in session["nodes"]
    ]
    parts = [*_passed("partner", by_partner), *_passed("session", by_session)]
    for name, text in _SESSION_LEVELS:
        levels: list[Sample] = [((("session", str(each["session_id"])),), float(each[name])) for each in named]
        if others:
            levels.append(((("session", _OTHERS),), float(sum(each[name] for each in others))))
        parts.append(family(f"interconn_session_{name}", "gauge", text, levels))
    ages: list[Sample] = [((("session", str(each["session_id"])),), float(each["oldest_s"] or 0)) for each in named]
    parts.append(family("interconn_session_oldest_seconds", "gauge", "Age of the message that waits longest.", ages))
    return "".join(parts)


def _weight(session: Mapping[str, Any]) -> float:
    return float(session["bytes_in"] + session["bytes_out"] + session["bytes_held"] + session["bytes_on_disk"])


def _passed(whose: str, flows: Sequence[tuple[Labels, Mapping[str, Any]]]) -> Iterable[str]:
    """Three families of counters. flows: labels, and figures of a node."""
    for unit, text in (("messages", "Messages"), ("bytes", "Payload bytes")):
        passed: list[Sample] = [
            ((*labels, ("direction", way)), float(each[f"{unit}_{way}"]))
            for labels, each in flows
            for way in ("in", "out")
        ]
        yield family(f"interconn_{whose}_{unit}_total", "counter", f"{text} that passed.", passed)
    name = f"interconn_{whose}_wait_seconds"
    waits = (_sample(f"{name}_{end}", labels, float(each[member])) for labels, each in flows for end, member in _WAITS)
    yield "\n".join((*_head(name, "summary", "How long messages waited for their reader."), *waits)) + "\n"


async def readiness(*, writable: Callable[[], Awaitable[str]], stats: Stats) -> Mapping[str, str]:
    """Part -> "ok" or what is wrong, in words without particulars: anybody may ask.

    writable: "" where the database can be read and written, else why not; raises Unavailable.
    """
    found = {"database": "ok", "data_process": "ok"}
    try:
        found["database"] = await writable() or "ok"
    except GatewayError:
        found["database"] = "not available"
    try:
        await stats()
    except GatewayError:
        found["data_process"] = "does not answer"
    return found
