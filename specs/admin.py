"""Our own admin API as data: where it is, every route of it, and who may use it. The standard does not know it.

A route that is not in ROUTES may be used by nobody. Bodies, queries and answers are in schemas/admin.json under the
same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

BASE: Final = "/v1/admin"
"""Every path of the admin API begins so, but those that watchers are used to (/metrics)."""


@unique
class Role(StrEnum):
    """What a user of the admin API is there for; one user has one."""

    ADMIN = "admin"
    """Everything: partners, keys, users, approvals, and what the others may."""
    OPERATOR = "operator"
    """Jobs, datasets and what is asked of partners; decides nothing and grants nothing."""
    AUDITOR = "auditor"
    """Reads, and exports the audit trail; changes nothing and sees no row of data."""


@dataclass(frozen=True, slots=True)
class AdminEntry:
    """One route. path: below BASE, unless it stands outside. command: how the command line does it."""

    method: str
    path: str
    roles: frozenset[Role]
    words: str
    command: str = ""


_A: Final = frozenset({Role.ADMIN})
_AO: Final = frozenset({Role.ADMIN, Role.OPERATOR})
_AU: Final = frozenset({Role.ADMIN, Role.AUDITOR})
_ALL: Final = frozenset(Role)

_Row = tuple[str, str, frozenset[Role], str, str]
_TABLE: Final[Mapping[str, _Row]] = {
    "node.show": ("GET", "/node", _ALL, "This node: identity, fingerprint, listeners.", "node"),
    "expiring.list": ("GET", "/expiring", _ALL, "What ends soon: contracts, grants, keys.", "node"),
    "partner.list": ("GET", "/partners", _ALL, "Contracts with other nodes.", "partner list"),
    "partner.probe": ("POST", "/partners/probe", _A, "Who answers at an address, and its CA.", "partner probe"),
    "partner.apply": ("POST", "/partners/apply", _A, "Apply for a contract.", "partner apply"),
    "partner.record": ("POST", "/partners/record", _A, "Note a contract made on paper.", "partner record"),
    "partner.approve": ("POST", "/partners/{contract_id}/approve", _A, "Accept an application.", "partner approve"),
    "partner.reject": ("POST", "/partners/{contract_id}/reject", _A, "Decline an application.", "partner reject"),
    "partner.terminate": ("POST", "/partners/{contract_id}/terminate", _A, "End a contract.", "partner terminate"),
    "partner.query": (
        "POST",
        "/partners/{contract_id}/query",
        _A,
        "Ask the partner how it sees a contract whose confirm never came.",
        "partner query",
    ),
    "partner.datasets": ("GET", "/partners/{node_id}/datasets", _ALL, "What a partner offers.", "dataset remote"),
    "partner.ask": ("POST", "/partners/{node_id}/ask", _AO, "Read an endpoint of a partner.", "partner ask"),
    "partner.profile": ("POST", "/partners/{node_id}/profile", _A, "Set a partner's dialect.", "partner set-profile"),
    "partner.doctor": ("POST", "/partners/{node_id}/doctor", _AO, "Which profile fits a partner.", "partner doctor"),
    "way.set": ("POST", "/partners/{node_id}/way", _A, "How a partner is reached.", "partner way"),
    "way.list": ("GET", "/ways", _ALL, "Partners that are not simply at their address.", "partner way"),
    "relay.list": ("GET", "/relays", _ALL, "Whom this node relays for.", "relay list"),
    "relay.allow": ("POST", "/relays", _A, "Relay between two partners.", "relay allow"),
    "relay.remove": ("POST", "/relays/remove", _A, "Stop relaying between two nodes.", "relay remove"),
    "profile.list": ("GET", "/profiles", _ALL, "Names of the profiles.", "partner profiles"),
    "invite.create": ("POST", "/invites", _A, "Make an invitation.", "invite create"),
    "invite.check": ("POST", "/invites/check", _A, "What an invitation says; changes nothing.", "partner apply"),
    "invite.apply": ("POST", "/invites/apply", _A, "Apply with an invitation.", "partner apply"),
    "key.list": ("GET", "/keys", _ALL, "Our signing keys, and who knows them.", "key show"),
    "key.rotate": ("POST", "/keys/rotate", _A, "A new signing key; the old one overlaps.", "key rotate"),
    "key.revoke": ("POST", "/keys/revoke", _A, "A new signing key at once.", "key revoke"),
    "key.allow": (
        "POST",
        "/partners/{contract_id}/keys/allow",
        _A,
        "A partner may sign under the CA with this fingerprint.",
        "key allow",
    ),
    "key.revoke_old": (
        "POST",
        "/partners/{contract_id}/keys/revoke",
        _A,
        "End the overlap of a partner's old key.",
        "key revoke",
    ),
    "tls.list": ("GET", "/tls", _ALL, "Our TLS certificates, and who knows them.", "key show"),
    "tls.rotate": ("POST", "/tls/rotate", _A, "A new TLS CA and certificate.", "key rotate"),
    "tls.revoke": ("POST", "/tls/revoke", _A, "A new TLS CA at once.", "key revoke"),
    "tls.finish": ("POST", "/tls/finish", _A, "Show the new certificate from now on.", "key rotate"),
    "crl.list": ("GET", "/crls", _ALL, "Revocation lists held and made.", "key show"),
    "crl.take": ("POST", "/partners/{node_id}/crl", _A, "Take a partner's revocation list.", "partner crl"),
    "crl.drop": ("POST", "/partners/{node_id}/crl/drop", _A, "Do without a partner's list.", "partner crl"),
    "crl.write": ("POST", "/keys/crl", _A, "Our own revocation list.", "key crl"),
    "grant.list": ("GET", "/grants", _ALL, "Grants and their uses.", "dataset grants"),
    "dataset.list": ("GET", "/datasets", _ALL, "Our catalogue.", "dataset list"),
    "dataset.add": ("POST", "/datasets", _AO, "Enter a file into the catalogue.", "dataset add"),
    "dataset.apply": ("POST", "/datasets/apply", _AO, "Ask a partner for the use of a dataset.", "dataset apply"),
    "grant.record": ("POST", "/grants/record", _A, "A grant to a partner that cannot apply.", "dataset record-grant"),
    "audit.list": ("GET", "/audits", _ALL, "Approvals given and asked for.", "audit list"),
    "audit.apply": ("POST", "/audits/apply", _AO, "Ask a partner to approve a flow or a model.", "audit apply"),
    "audit.approve": ("POST", "/audits/{applicant}/{audit_id}/approve", _A, "Say yes.", "audit approve"),
    "audit.reject": ("POST", "/audits/{applicant}/{audit_id}/reject", _A, "Say no.", "audit reject"),
    "audit.terminate": (
        "POST",
        "/audits/{applicant}/{audit_id}/terminate",
        _A,
        "End an approval, or withdraw an application of ours.",
        "audit terminate",
    ),
    "audit.reconcile": (
        "POST",
        "/audits/{applicant}/{audit_id}/reconcile",
        _AO,
        "Ask the partner how it sees an application of ours.",
        "audit reconcile",
    ),
    "pending.list": ("GET", "/pending", _ALL, "What waits for a decision here.", "pending"),
    "project.list": ("GET", "/projects", _ALL, "Projects.", "project list"),
    "project.add": ("POST", "/projects", _AO, "Open a project and ask the partners to join.", "project new"),
    "outbox.list": ("GET", "/outbox", _ALL, "Calls to partners, newest first.", "outbox list"),
    "outbox.retry": ("POST", "/outbox/{call_id}/retry", _AO, "Perform a parked or dead call again.", "outbox retry"),
    "notice.list": ("GET", "/notices", _ALL, "Word to the webhook that was not taken yet.", "notice list"),
    "notice.retry": ("POST", "/notices/{notice_id}/retry", _AO, "Send one that was given up again.", "notice retry"),
    "outbox.compare": ("POST", "/reconcile", _AO, "Compare with the partners and repair.", "outbox compare"),
    "event.list": ("GET", "/events", _ALL, "The newest events of the log.", "events"),
    "trail.export": ("POST", "/trail/export", _AU, "The signed heading of an export.", "audit export"),
    "trail.entries": ("GET", "/trail", _AU, "Entries of the audit trail.", "audit export"),
    "job.validate": ("POST", "/jobs/validate", _AO, "Check a job file.", "job validate"),
    "job.submit": ("POST", "/jobs", _AO, "Start a job.", "job submit"),
    "job.list": ("GET", "/jobs", _ALL, "Jobs known here.", "job list"),
    "job.show": ("GET", "/jobs/{job_id}", _ALL, "A job, its tasks and why it is where it is.", "job status"),
    "job.approve": ("POST", "/jobs/{job_id}/approve", _A, "Take part in a partner's job.", "job approve"),
    "job.reject": ("POST", "/jobs/{job_id}/reject", _A, "Decline a partner's job.", "job reject"),
    "job.stop": ("POST", "/jobs/{job_id}/stop", _AO, "Stop a job or a task of it.", "job stop"),
    "job.rerun": ("POST", "/jobs/{job_id}/rerun", _AO, "Run an ended job again.", "job rerun"),
    "job.logs": ("GET", "/jobs/{job_id}/logs", _AO, "Log lines of our tasks.", "job logs"),
    "job.partner_logs": (
        "GET",
        "/jobs/{job_id}/logs/{node_id}",
        _AO,
        "What a partner shows of its tasks' log.",
        "job logs",
    ),
    "log_consent.list": ("GET", "/log-consents", _ALL, "Who may see our tasks' log.", "partner shared-logs"),
    "log_consent.set": ("POST", "/log-consents", _A, "Show a partner our tasks' log.", "partner share-logs"),
    "job.outputs": ("GET", "/jobs/{job_id}/outputs", _ALL, "Results that this side has.", "job outputs"),
    "job.output": ("GET", "/jobs/{job_id}/outputs/{namespace}/{name}", _AO, "One result, a file.", "job outputs"),
    "job.bytes": ("GET", "/jobs/{job_id}/bytes", _ALL, "Bytes sent to each partner.", "job bytes"),
    "job.receipt": (
        "POST",
        "/jobs/{job_id}/receipt",
        _AO,
        "A job's receipt, or a partner's countersigned.",
        "job receipt",
    ),
    "channel.show": ("GET", "/channel", _ALL, "What passes, by session and partner.", "channel top"),
    "session.list": ("GET", "/sessions", _ALL, "Sessions without a job of ours.", "session list"),
    "session.declare": ("POST", "/sessions", _A, "Let partners use a session without a job.", "session declare"),
    "session.close": ("POST", "/sessions/close", _A, "End a declared session.", "session close"),
    "user.list": ("GET", "/users", _AU, "Users and their tokens.", "user list"),
    "user.add": ("POST", "/users", _A, "A new user.", "user add"),
    "user.close": ("POST", "/users/{name}/close", _A, "Shut a user out for good, all tokens with it.", "user revoke"),
    "user.token": (
        "POST",
        "/users/{name}/tokens",
        _ALL,
        "A new token, shown this once. Who is not admin makes only their own.",
        "user token",
    ),
    "user.token.revoke": (
        "POST",
        "/users/{name}/tokens/{token_id}/revoke",
        _ALL,
        "A token is void from now on. Who is not admin revokes only their own.",
        "user revoke",
    ),
    "user.password": (
        "POST",
        "/users/{name}/password",
        _ALL,
        "Set or remove a password; ends the sessions. Who is not admin sets only their own.",
        "user passwd",
    ),
    "user.me": ("GET", "/me", _ALL, "Whose token this is.", "user me"),
    "user.logout": ("POST", "/logout", _ALL, "The token that this call carries is void from now on.", "user logout"),
    "user.login": ("POST", "/login", frozenset(), "Password to short-lived token; needs none.", "user login"),
    "metrics": ("GET", "/metrics", _ALL, "Counters for Prometheus.", ""),
    "healthz": ("GET", "/healthz", frozenset(), "The process answers; needs no token.", ""),
    "readyz": ("GET", "/readyz", frozenset(), "It can serve partners; needs no token.", ""),
}
OUTSIDE: Final = frozenset({"metrics", "healthz", "readyz"})
"""Their paths do not begin with BASE."""
OPEN: Final = frozenset({"user.login", "healthz", "readyz"})
"""They need no token, and so no role."""

ROUTES: Final[Mapping[str, AdminEntry]] = {
    name: AdminEntry(method, path if name in OUTSIDE else BASE + path, roles, words, command)
    for name, (method, path, roles, words, command) in _TABLE.items()
}
BY_PLACE: Final[Mapping[tuple[str, str], str]] = {(each.method, each.path): name for name, each in ROUTES.items()}
"""(method, path template) -> name."""
