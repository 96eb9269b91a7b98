"""Collects what ends when from the records of the store; whether to warn of it is core.expiry's."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from gateway.auth.chain import certificates, fingerprint
from gateway.auth.schemes import Signer, parse_credential
from gateway.errors import Refused
from gateway.mgmt_plane.core.expiry import Deadline, due
from gateway.mgmt_plane.service.partners import is_valid
from gateway.mgmt_plane.service.trail import record
from gateway.model import Audit, Contract, Crl, DeclaredSession, Direction, ExpiryNotice, Grant, NodeId, PeerTls
from gateway.ports import Tx
from specs.states import ApprovalState, AuditKind, AuthType


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _chain(kind: str, peer: str, pem: str) -> Iterable[Deadline]:
    """Leaf and CA of a chain; one that cannot be read is others' to refuse."""
    try:
        leaf, *rest = certificates(pem)
    except (Refused, ValueError):
        return
    yield Deadline(kind, fingerprint(leaf), peer, _ms(leaf.not_valid_after_utc))
    for ca in rest:
        yield Deadline(
            "own_ca" if kind.startswith("own") else "peer_ca", fingerprint(ca), peer, _ms(ca.not_valid_after_utc)
        )


def own(signer: Signer, tls_chain: str) -> list[Deadline]:
    """Our signing certificate, the TLS certificate that we show (PEM: leaf, then CA) and the CAs above them."""
    found = list(_chain("own_tls", "", tls_chain))
    if signer.auth_type is AuthType.CERT:
        found += _chain("own_key", "", signer.credential)
    return list(dict.fromkeys(found))


def remember(tx: Tx, shown: Mapping[NodeId, Mapping[str, Any]]) -> None:
    """Keep what partners were seen to show, by node id: `fingerprint` and `ends`. Silent ones stay as they were."""
    partners = {contract.peer_node_id for contract in tx.select(Contract, status=ApprovalState.APPROVED)}
    for gone in tx.select(PeerTls):
        if gone.node_id not in partners:
            tx.delete(gone)
    for node in partners & shown.keys():
        each = shown[node]
        now = PeerTls(node, str(each["fingerprint"]), int(each["ends"]))
        before = tx.get(PeerTls, node)
        if before is None:
            tx.insert(now)
        elif before != now:
            tx.replace(before, now)


def collect(tx: Tx, *, now: int) -> list[Deadline]:
    """What the store knows of. now: ms; contracts that do not hold take nothing with them that one would miss."""
    found: list[Deadline] = []
    for contract in tx.select(Contract, status=ApprovalState.APPROVED):
        peer = contract.peer_node_id
        if contract.expired_time is not None:
            found.append(Deadline("contract", contract.contract_id, peer, contract.expired_time))
        if not is_valid(contract, now):
            continue
        if contract.auth_type == AuthType.CERT.value and contract.auth_credential:
            leaf, ca = parse_credential(contract.auth_type, contract.auth_credential).chain
            found.append(Deadline("peer_key", fingerprint(leaf), peer, _ms(leaf.not_valid_after_utc)))
            found.append(Deadline("peer_ca", fingerprint(ca), peer, _ms(ca.not_valid_after_utc)))
        elif contract.tls_ca:
            ca = certificates(contract.tls_ca)[0]
            found.append(Deadline("peer_ca", fingerprint(ca), peer, _ms(ca.not_valid_after_utc)))
        shown = tx.get(PeerTls, peer)
        if shown is not None:
            found.append(Deadline("peer_tls", shown.fingerprint, peer, shown.ends))
    found += [Deadline("crl", each.ca, each.node_id, each.next_update) for each in tx.select(Crl)]
    for session in tx.select(DeclaredSession):
        if session.expires is not None:
            found.append(Deadline("session", session.session_id, ", ".join(session.nodes), session.expires))
    for grant in tx.select(Grant, revoked=False):
        if grant.time_limit is not None:
            found.append(Deadline("grant", grant.audit_key, grant.user, grant.time_limit))
    held = tx.select(Audit, kind=AuditKind.DATASET, status=ApprovalState.APPROVED)
    for audit in held:
        limit = (audit.permit or {}).get("time_limit")
        if audit.direction is Direction.OUT and isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            found.append(Deadline("permit", audit.key(), audit.peer_node_id, limit))
    return list(dict.fromkeys(found))


def soon(deadlines: Iterable[Deadline], *, now: int, thresholds: Sequence[int]) -> list[Deadline]:
    """Those within the widest threshold, the nearest first."""
    found = [each for each in deadlines if due(each.at, now=now, thresholds=thresholds) is not None]
    return sorted(found, key=lambda each: each.at)


def warn(tx: Tx, deadlines: Sequence[Deadline], *, now: int, thresholds: Sequence[int]) -> list[tuple[Deadline, int]]:
    """Note which warnings are due, and in the audit trail; (deadline, threshold) of those that were not told before."""
    known = {each.subject: each for each in tx.select(ExpiryNotice)}
    told: list[tuple[Deadline, int]] = []
    for each in deadlines:
        before = known.pop(each.key(), None)
        threshold = (
            due(each.at, now=now, thresholds=thresholds)
            if before is None
            else due(each.at, now=now, thresholds=thresholds, told=before.threshold)
        )
        if threshold is None:
            continue
        notice = ExpiryNotice(subject=each.key(), threshold=threshold, created=now)
        if before is None:
            tx.insert(notice)
        else:
            tx.replace(before, notice)
        facts = {"peer": each.peer} if each.peer else {}
        record(tx, "expiry.warned", f"{each.kind}:{each.subject}", days=threshold, ends=each.at, **facts)
        told.append((each, threshold))
    for gone in known.values():
        tx.delete(gone)
    return told
