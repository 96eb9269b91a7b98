"""How a partner's product departs from v1.2.0, as data, and the pure translation between the two.

A contract names its profile (`interconn partner set-profile`). Everything behind the edge and in front of the client
knows the forms of v1.2.0 alone: `to_peer` and `from_peer` rename members of a request or reply on the way, the rest of
a Profile says which codes mean success, which one we answer with, and what the headers look like.

legacy-1.0 and legacy-1.1 are the older texts of the standard (1-management h, version history). fate-2.x and kuscia
have no management layer: their contracts and grants are recorded by hand. How a product's control layer departs is
`core.control_profile`. The edge accepts nothing unsigned but from a partner whose profile has Signature.NONE, and only
where the configuration has that switch.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Any, Final

from gateway.errors import CallerError
from gateway.mgmt_plane.core import control_profile
from gateway.mgmt_plane.core.control_profile import ControlProfile
from specs import headers
from specs.routes import CONTROL, MANAGEMENT


@dataclass(frozen=True, slots=True)
class Rename:
    """A member that the peer spells in another way: in these routes; `inside` names the object that holds it."""

    routes: frozenset[str]
    ours: str
    theirs: str
    inside: str = ""


@unique
class Signature(Enum):
    """The form of a signature on the wire."""

    A_01 = "A-01"
    RFC_9421 = "RFC-9421"
    NONE = "none"
    """What they send need not be signed; we sign as A-01 says. Only where the configuration allows it."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One dialect.

    success: reply codes that mean success. ok: the code of our own successful replies. seconds: 10-digit timestamps are
    read as seconds (M-013). sends_seconds: our x-timestamp to this peer is in seconds. also_sent: headers that are sent
    a second time under another name, theirs -> ours (A-18). reads, writes: other spellings that are understood, and
    those that the peer needs. lacks: routes that the peer does not have.
    describes_receiver: contract/apply says who is applied to, not who applies (v1.0; A-04): so we write it, and so we
    take it from whoever applies where this is the default profile. field_seconds: times in bodies (TIMES) are written
    in seconds; reads_seconds: where they have ten digits they are read so.
    omits: headers that it does not send. control: its control layer.
    signature: how calls under a contract are signed. Apply and confirm are always signed as A-01 says: no contract has
    settled anything else yet.
    """

    name: str
    success: frozenset[int] = frozenset({0})
    ok: int = 0
    seconds: bool = False
    signature: Signature = Signature.A_01
    sends_seconds: bool = False
    field_seconds: bool = False
    reads_seconds: bool = False
    describes_receiver: bool = False
    also_sent: Mapping[str, str] | None = None
    reads: tuple[Rename, ...] = ()
    writes: tuple[Rename, ...] = ()
    lacks: frozenset[str] = frozenset()
    omits: frozenset[str] = frozenset()
    control: ControlProfile = field(default_factory=ControlProfile)

    def offers(self, route: str) -> bool:
        """Whether the peer has this endpoint."""
        return route not in self.lacks

    @property
    def managed(self) -> bool:
        """Whether the peer has a management layer at all."""
        return self.offers("node.contract.apply")


_LIST: Final = frozenset({"component.list"})
_CONFIRMS: Final = frozenset(name for name in MANAGEMENT if name.endswith(".audit.confirm"))
_PERMIT: Final = "resource_permit"
_V10: Final = (
    Rename(_LIST, "contract_id", "contractId"),
    Rename(_CONFIRMS, "resource_node_id", "resourse_node_id", inside=_PERMIT),
    Rename(_CONFIRMS, "resource_inst_id", "resourse_inst_id", inside=_PERMIT),
)
_V11: Final = (Rename(_LIST, "contract_id", "contract_Id"),)
_JOB_AUDITS: Final = frozenset(name for name in MANAGEMENT if name.startswith("job.audit."))
_NODE_ID: Final = {"x-node-id": headers.SOURCE_NODE}
_ENDED: Final = {"SUCCESS": "FINISHED", "FAILED": "FINISHED"}

STRICT: Final = Profile("strict-1.2")
TIMES: Final = ("expired_time", "time_limit")
"""Members of bodies that hold a time; the standard states no unit, we read milliseconds."""
_TEN_DIGITS: Final = range(10**9, 10**10)
_DESCRIBING: Final = ("address", "inst_id", "institution", "name", "node_id", "system", "system_version")
"""Members of contract/apply that say whom it describes (M-022)."""
TRANSPORT_ONLY: Final = "transport-only"
"""The profile of a partner with whom nothing but chan/invoke is spoken, in sessions that an admin declares."""
UNSIGNED: Final = "insecure_unsigned"
"""The profile of a partner whose calls TLS alone proves; refused unless [profile] insecure_unsigned is set."""
PROFILES: Final[Mapping[str, Profile]] = {
    each.name: each
    for each in (
        STRICT,
        Profile("strict-1.2-rfc9421", signature=Signature.RFC_9421),
        Profile(UNSIGNED, signature=Signature.NONE),
        Profile("lenient", success=frozenset({0, 200}), seconds=True, reads_seconds=True, reads=_V10 + _V11),
        Profile("strict-1.2-seconds", field_seconds=True, reads_seconds=True),
        Profile("legacy-1.1", reads=_V11, writes=_V11),
        Profile(
            TRANSPORT_ONLY,
            lacks=frozenset(MANAGEMENT),
            control=ControlProfile(lacks=frozenset(CONTROL)),
        ),
        Profile(
            "legacy-1.0",
            success=frozenset({0, 200}),
            ok=200,
            reads=_V10,
            writes=_V10,
            lacks=_JOB_AUDITS,
            describes_receiver=True,
            control=ControlProfile(status_all="query", channel="{job_id}", confirms=True),
        ),
        Profile(
            "fate-2.x",
            signature=Signature.NONE,
            also_sent=_NODE_ID,
            lacks=frozenset(MANAGEMENT),
            omits=frozenset({headers.TARGET_NODE}),
            control=ControlProfile(
                status_all="body",
                members=control_profile.MEMBERS,
                calls_back=False,
                filled=True,
                job_words=_ENDED,
            ),
        ),
        Profile(
            "kuscia",
            signature=Signature.NONE,
            success=frozenset({200}),
            ok=200,
            seconds=True,
            sends_seconds=True,
            also_sent=_NODE_ID,
            lacks=frozenset(MANAGEMENT),
            omits=frozenset({headers.TARGET_NODE, headers.NONCE}),
            control=ControlProfile(
                status_all="query",
                # Its scheduler has no stop_all and hears no call-back; whoever takes part may say stop to it.
                instead={"job.stop_all": "job.stop"},
                lacks=frozenset({"job.create_all", "task.callback"}),
                partial_stop=False,
                # Its client stops at the first member that is no object (B-09).
                members={"job.status_all": frozenset({"job_id", "status"})},
                calls_back=False,
                component=(("module_name", "componentName"), ("code", "provider")),
                flat=True,
                task_prefix="task-",
                channel="session_{task_id}",
                job_words=_ENDED,
            ),
        ),
    )
}

WITHOUT_SIGNATURE: Final = tuple(each.name for each in PROFILES.values() if each.signature is Signature.NONE)
"""Profiles of partners that need not sign."""


def profile(name: str) -> Profile:
    """The profile of this name; raises CallerError where there is none."""
    try:
        return PROFILES[name]
    except KeyError:
        raise CallerError(f"no profile {name}; there are: {', '.join(sorted(PROFILES))}") from None


def to_peer(dialect: Profile, route: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request or reply of `route` in the peer's spelling."""
    for each in dialect.writes:
        if route in each.routes:
            payload = _renamed(payload, each.ours, each.theirs, each.inside)
    payload = control_profile.to_peer(dialect.control, route, payload)
    return _timed(payload, lambda time: time // 1000) if dialect.field_seconds else payload


def from_peer(dialect: Profile, route: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request or reply of `route` in the spelling of v1.2.0; what is there under our name stays."""
    for each in dialect.reads:
        if route in each.routes:
            payload = _renamed(payload, each.theirs, each.ours, each.inside)
    payload = control_profile.from_peer(dialect.control, route, payload)
    # A second's end: what is granted must not end earlier for being rounded.
    return _timed(payload, lambda t: t * 1000 + 999 if t in _TEN_DIGITS else t) if dialect.reads_seconds else payload


def apply_body_for(dialect: Profile, body: Mapping[str, Any], *, receiver: Mapping[str, Any]) -> Mapping[str, Any]:
    """Our contract/apply as the peer reads it. receiver: its node/query."""
    if not dialect.describes_receiver:
        return body
    return {**body, **{name: receiver[name] for name in _DESCRIBING if name in receiver}}


def has_seconds(payload: object, *, depth: int = 4) -> bool:
    """Whether a reply holds a time of ten digits; looks a few levels deep."""
    if isinstance(payload, Mapping):
        return any(
            (name in TIMES or name.endswith("_time")) and isinstance(value, int) and value in _TEN_DIGITS
            for name, value in payload.items()
        ) or (depth > 0 and any(has_seconds(value, depth=depth - 1) for value in payload.values()))
    return isinstance(payload, list) and depth > 0 and any(has_seconds(each, depth=depth - 1) for each in payload[:64])


def _timed(payload: Mapping[str, Any], change: Callable[[int], int]) -> Mapping[str, Any]:
    """With its times changed, those of a permit inside as well; what is no whole number stays."""
    changed: dict[str, Any] = {
        name: change(value)
        for name, value in payload.items()
        if name in TIMES and isinstance(value, int) and not isinstance(value, bool) and value > 0
    }
    inner = payload.get(_PERMIT)
    if isinstance(inner, Mapping):
        changed[_PERMIT] = _timed(inner, change)
    return {**payload, **changed} if changed else payload


def _renamed(payload: Mapping[str, Any], old: str, new: str, inside: str) -> Mapping[str, Any]:
    if inside:
        inner = payload.get(inside)
        if isinstance(inner, Mapping):
            return {**payload, inside: _renamed(inner, old, new, "")}
        if isinstance(inner, str) and inner.lstrip().startswith("{") and f'"{old}"' in inner:
            return {**payload, inside: _renamed_text(inner, old, new)}
        return payload
    if old not in payload or new in payload:
        return payload
    return {(new if name == old else name): value for name, value in payload.items()}


def _renamed_text(text: str, old: str, new: str) -> str:
    """A permit as text (A-06). Text that is no JSON object is left to whoever reads it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(_renamed(value, old, new, "")) if isinstance(value, dict) else text
