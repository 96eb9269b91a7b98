"""Which changes of the store are acts that the audit trail tells, and in which words.

Read off the records themselves, old and new, so that no service can forget to tell. No secret of a record gets into an
act: credentials and keys go in as fingerprint and digest, permits without their token, bodies as digest.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from gateway.model import (
    AccessToken,
    Audit,
    Component,
    Contract,
    Crl,
    Dataset,
    Decision,
    DeclaredSession,
    Grant,
    GrantUse,
    Job,
    Json,
    LogConsent,
    OwnKey,
    OwnTls,
    PartnerWay,
    Project,
    RelayPair,
    RevokedCert,
    User,
    UseState,
)
from gateway.ports import Record, Tx


@dataclass(frozen=True, slots=True)
class Act:
    """What happened, to what, and what is worth knowing of it; who and when come from the door it came through."""

    event: str
    subject: str
    facts: Json


def digest(value: object) -> str:
    """SHA-256 hex of a text or of a JSON value in compact form with sorted names; "" for nothing."""
    if value is None or value == "":
        return ""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _contract(contract: Contract) -> Json:
    return {
        "direction": contract.direction.value,
        "peer": contract.peer_node_id,
        "peer_name": contract.peer_name,
        "address": contract.peer_address,
        "auth_type": contract.auth_type,
        "fingerprint": contract.fingerprint,
        "credential_sha256": digest(contract.auth_credential),
        "proven": contract.proven,
        "expired_time": contract.expired_time,
    }


def _audit(audit: Audit) -> Json:
    permit = audit.permit or {}
    limits = {name: permit[name] for name in ("time_limit", "times_limit") if name in permit}
    return {
        "kind": audit.kind.value,
        "direction": audit.direction.value,
        "peer": audit.peer_node_id,
        "about": audit.subject,
        "contract_id": audit.contract_id,
        "body_sha256": digest(audit.body),
        **limits,
    }


def _grant(grant: Grant) -> Json:
    return {
        "dataset_id": grant.dataset_id,
        "user": grant.user,
        "audit": grant.audit_key,
        "scope": grant.scope,
        "columns": list(grant.columns),
        "time_limit": grant.time_limit,
        "times_limit": grant.times_limit,
        "schema_sha256": grant.schema_digest,
        "components": grant.components,
    }


def _job(job: Job) -> Json:
    return {
        "name": job.name,
        "project_id": job.project_id,
        "initiator": job.initiator,
        "scheduler": job.scheduler,
        "dag_sha256": digest(job.dag),
        "conf_sha256": digest(job.config),
        "outcome": job.outcome.value,
        "reason": job.reason,
    }


def _dataset(dataset: Dataset) -> Json:
    return {
        "name": dataset.name,
        "public": dataset.public,
        "count": dataset.count,
        "schema_sha256": digest(list(dataset.column_metas)),
    }


def _subject(record: Record) -> str:
    return f"{type(record).__name__.lower()}:{record.key()}"


_KEYS: Final = ("auth_type", "auth_credential", "tls_ca", "fingerprint")
"""Ends of the names of a contract's members that say by which key the partner is known."""
_DIGESTED: Final = ("auth_credential", "tls_ca")
_QUIET: Final = frozenset({"updated", "created", "proven"})
_COUNTED: Final = frozenset({"used", "reserved", "revoked", "token_digest"})
"""Members of a grant whose changes are told by its uses and by its end."""


def _changes(old: Record, new: Record, *, quiet: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Member -> new value, of those that differ."""
    names = [each.name for each in fields(old)]  # type: ignore[arg-type]  # every record is a dataclass
    return {
        name: getattr(new, name) for name in names if getattr(old, name) != getattr(new, name) and name not in quiet
    }


def of_insert(tx: Tx, record: Record) -> Sequence[Act]:
    """The acts of a record that is kept for the first time."""
    match record:
        case Contract():
            return [Act(f"contract.{record.status.value.lower()}", _subject(record), _contract(record))]
        case Audit():
            return [Act(f"audit.{record.status.value.lower()}", _subject(record), _audit(record))]
        case Grant():
            return [Act("grant.made", _subject(record), _grant(record))]
        case GrantUse():
            return [Act("grant.reserved", f"grant:{record.grant}", _use(tx, record))]
        case Job():
            return [Act("job.created", _subject(record), _job(record))]
        case Dataset():
            return [Act("dataset.added", _subject(record), _dataset(record))]
        case Project():
            facts = {"name": record.name, "initiator": record.initiator, "datasets": record.datasets}
            return [Act("project.created", _subject(record), facts)]
        case OwnKey():
            made = {"emergency": record.emergency, "credential_sha256": digest(record.credential)}
            return [Act("key.made", f"key:{record.key_id}", made)]
        case OwnTls():
            return [Act("certificate.made", f"certificate:{record.leaf}", _tls(record))]
        case Crl():
            return [Act("crl.taken", _subject(record), _crl(record))]
        case RevokedCert():
            return [Act("certificate.revoked", f"certificate:{record.serial}", {"ca": record.ca})]
        case PartnerWay():
            return [Act("way.set", f"way:{record.node_id}", _way(record))]
        case RelayPair():
            return [Act("relay.allowed", f"relay:{record.key()}", {"bytes_per_s": record.bytes_per_s})]
        case Component():
            return [Act("component.registered", _subject(record), _component(record))]
        case DeclaredSession():
            return [Act("session.declared", f"session:{record.session_id}", _declared(record))]
        case LogConsent():
            return [Act("log.consented", f"node:{record.node_id}", {"job_id": record.job_id})]
        case User():
            return [Act("user.added", _subject(record), {"role": record.role.value})]
        case AccessToken():
            made = {"user": record.user, "session": record.session, "label": record.label, "expires": record.expires}
            return [Act("token.made", f"token:{record.token_id}", made)]
        case Decision():
            return [Act(f"decision.{'final' if record.final else 'first'}", record.key(), _decision(record))]
    return []


def _decision(decision: Decision) -> Json:
    return {
        "approve": decision.approve,
        "by": decision.by,
        "second": decision.second,
        "terms": decision.terms,
    }


def _tls(own: OwnTls) -> Json:
    return {"ca": own.ca, "emergency": own.emergency, "shown": own.serving > 0}


def _crl(crl: Crl) -> Json:
    return {
        "peer": crl.node_id,
        "revoked": crl.revoked,
        "this_update": crl.this_update,
        "next_update": crl.next_update,
        "crl_sha256": digest(crl.pem),
    }


def _way(way: PartnerWay) -> Json:
    return {"proxy": way.proxy, "relay": way.relay, "hold": way.hold, "held": way.held}


def _declared(session: DeclaredSession) -> Json:
    return {"prefix": session.prefix, "nodes": list(session.nodes), "expires": session.expires}


def _component(component: Component) -> Json:
    return {
        "image": component.image,
        "enabled": component.enabled,
        "description_sha256": digest(component.description),
        "code_sha256": component.code_digest,
    }


def _use(tx: Tx, use: GrantUse) -> Json:
    grant = tx.get(Grant, use.grant)
    more = {} if grant is None else {"dataset_id": grant.dataset_id, "user": grant.user}
    return {"job_id": use.job_id, **more}


def of_replace(tx: Tx, old: Record, new: Record) -> Sequence[Act]:
    """The acts of a change; a change that nobody would ask about has none."""
    match old, new:
        case Contract(), Contract():
            return _contract_changed(old, new)
        case Audit(), Audit() if old.status is not new.status:
            return [Act(f"audit.{new.status.value.lower()}", _subject(new), _audit(new))]
        case Grant(), Grant() if new.revoked and not old.revoked:
            return [Act("grant.revoked", _subject(new), _grant(new))]
        case Grant(), Grant() if changed := _changes(old, new, quiet=_QUIET | _COUNTED):
            return [Act("grant.changed", _subject(new), {"dataset_id": new.dataset_id, **_plain(changed)})]
        case GrantUse(), GrantUse() if new.state is not old.state:
            event = "grant.used" if new.state is UseState.CONSUMED else "grant.returned"
            return [Act(event, f"grant:{new.grant}", _use(tx, new))]
        case Job(), Job() if (old.status, old.outcome) != (new.status, new.outcome):
            return [Act(f"job.{new.status.value.lower()}", _subject(new), _job(new))]
        case Dataset(), Dataset() if old != new:
            return [Act("dataset.changed", _subject(new), _dataset(new))]
        case OwnTls(), OwnTls() if new.serving and not old.serving:
            return [Act("certificate.shown", f"certificate:{new.leaf}", _tls(new))]
        case Crl(), Crl() if old != new:
            return [Act("crl.taken", _subject(new), _crl(new))]
        case PartnerWay(), PartnerWay():
            return [Act("way.set", f"way:{new.node_id}", _way(new))]
        case RelayPair(), RelayPair():
            return [Act("relay.allowed", f"relay:{new.key()}", {"bytes_per_s": new.bytes_per_s})]
        case DeclaredSession(), DeclaredSession() if old != new:
            return [Act("session.declared", f"session:{new.session_id}", _declared(new))]
        case Component(), Component() if old != new:
            return [Act("component.changed", _subject(new), _component(new))]
        case User(), User() if old != new:
            return [Act("user.changed", _subject(new), _user_changed(old, new))]
        case Decision(), Decision() if new.final and not old.final:
            return [Act("decision.final", new.key(), _decision(new))]
    return []


def of_delete(_tx: Tx, record: Record) -> Sequence[Act]:
    """The acts of a record that is taken away."""
    match record:
        case AccessToken():
            return [Act("token.revoked", f"token:{record.token_id}", {"user": record.user})]
        case PartnerWay():
            return [Act("way.removed", f"way:{record.node_id}", {})]
        case RelayPair():
            return [Act("relay.removed", f"relay:{record.key()}", {})]
        case LogConsent():
            return [Act("log.consent_ended", f"node:{record.node_id}", {"job_id": record.job_id})]
        case DeclaredSession():
            return [Act("session.closed", f"session:{record.session_id}", {})]
        case Dataset() | Grant() | Contract() | Audit() | Component() | Crl():
            return [Act(f"{type(record).__name__.lower()}.removed", _subject(record), {})]
    return []


def _user_changed(old: User, new: User) -> Json:
    """A password is neither told nor digested: a digest could be tried at."""
    facts: dict[str, Any] = {"role": new.role.value, "closed": new.closed}
    if old.password != new.password:
        facts["password"] = "set" if new.password else "removed"
    return facts


def _plain(changed: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}


def _contract_changed(old: Contract, new: Contract) -> Sequence[Act]:
    if old.status is not new.status:
        return [Act(f"contract.{new.status.value.lower()}", _subject(new), _contract(new))]
    changed = _changes(old, new, quiet=_QUIET)
    acts = []
    if any(name.endswith(_KEYS) for name in changed):
        facts = {"peer": new.peer_node_id, "fingerprint_before": old.fingerprint, "fingerprint": new.fingerprint}
        digests = {f"{name}_sha256": digest(value) for name, value in changed.items() if name.endswith(_DIGESTED)}
        acts.append(Act("key.changed", _subject(new), {**facts, **digests}))
    if rest := {name: value for name, value in changed.items() if not name.endswith(_KEYS)}:
        acts.append(Act("contract.changed", _subject(new), {"peer": new.peer_node_id, **_plain(rest)}))
    return acts
