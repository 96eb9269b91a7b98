"""Word that something waits for a decision here: written with what waits, in one transaction, and sent afterwards.

A notice says what kind of thing, its id, whose, since when and where to look; nothing of what is asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.errors import Kind, Refused
from gateway.mgmt_plane.service.audits import Audits
from gateway.mgmt_plane.service.decisions import CONTRACT, show_decision
from gateway.mgmt_plane.service.partners import Partners
from gateway.model import Audit, CallState, Contract, ContractId, Decision, Direction, NodeId, Notice
from gateway.ports import Clock, Entropy, Tx
from specs.states import ApprovalState, AuditKind

_NAME: Final = 256


class Notices:
    """wake: something is to be sent; called inside the transaction, on the store's thread."""

    def __init__(self, *, clock: Clock, entropy: Entropy, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._entropy = entropy
        self._wake = wake

    def attend(self, partners: Partners, audits: Audits) -> None:
        """From now on, note every application that comes in."""
        partners.on_applied(
            lambda tx, contract: self._put(tx, kind=CONTRACT, subject=contract.key(), contract=contract)
        )
        for kind in AuditKind:
            audits.listen(kind, self._audit)

    def _audit(self, tx: Tx, audit: Audit) -> None:
        if audit.direction is Direction.IN and audit.status is ApprovalState.APPLIED:
            contract = tx.get(Contract, audit.contract_id)
            self._put(tx, kind=audit.kind.value, subject=audit.key(), contract=contract)

    def first_word(self, tx: Tx, decision: Decision) -> None:
        """One of two admins has agreed: the other is to know (service.decisions.OnFirst)."""
        self._put(
            tx,
            kind=decision.kind,
            subject=decision.subject,
            contract=tx.get(Contract, _contract_id(tx, decision.kind, decision.subject)),
            second=True,
        )

    def _put(self, tx: Tx, *, kind: str, subject: str, contract: Contract | None, second: bool = False) -> None:
        now = self._clock.now_ms()
        name = "" if contract is None else contract.peer_name
        tx.insert(
            Notice(
                notice_id=f"nt-{self._entropy.token(16).hex()}",
                kind=kind,
                subject=subject,
                peer_node_id=NodeId("") if contract is None else contract.peer_node_id,
                peer_name="".join(filter(str.isprintable, name))[:_NAME],
                second=second,
                attempts=0,
                due=now,
                created=now,
            )
        )
        self._wake()


def _contract_id(tx: Tx, kind: str, subject: str) -> ContractId:
    if kind == CONTRACT:
        return ContractId(subject)
    audit = tx.get(Audit, subject)
    return ContractId("") if audit is None else audit.contract_id


def still_waits(tx: Tx, notice: Notice) -> bool:
    """Whether what a notice tells of has not been decided meanwhile."""
    kind: type[Contract | Audit] = Contract if notice.kind == CONTRACT else Audit
    record = tx.get(kind, notice.subject)
    return record is not None and record.status is ApprovalState.APPLIED


def forget(tx: Tx) -> None:
    """Those that were given up, of what has been decided meanwhile."""
    for each in tx.select(Notice, state=CallState.DEAD):
        if not still_waits(tx, each):
            tx.delete(each)


def not_taken(notice: Notice, problem: str, *, due: int, most: int) -> Notice:
    """The notice after an attempt that failed: due again then, or given up where that was the last of `most`."""
    attempts = notice.attempts + 1
    state = CallState.DEAD if attempts >= most else CallState.DUE
    return replace(notice, attempts=attempts, due=due, state=state, error=problem)


def retry(tx: Tx, notice_id: str, *, now: int) -> Notice:
    """The admin's word: send one that was given up again, at once. Raises Refused(NOT_FOUND, CONFLICT)."""
    old = tx.get(Notice, notice_id)
    if old is None or not still_waits(tx, old):
        raise Refused(f"notice {notice_id} is not known, or what it tells of was decided", kind=Kind.NOT_FOUND)
    if old.state is not CallState.DEAD:
        raise Refused(f"notice {notice_id} was not given up", kind=Kind.CONFLICT)
    new = replace(old, state=CallState.DUE, attempts=0, due=now, error="")
    tx.replace(old, new)
    return new


def told(notice: Notice, *, node_id: NodeId) -> Mapping[str, Any]:
    """The body that the webhook gets."""
    return {
        "event": "approval.second" if notice.second else "approval.pending",
        "notice_id": notice.notice_id,
        "node_id": node_id,
        "kind": notice.kind,
        "id": notice.subject,
        "partner": notice.peer_name,
        "partner_node_id": notice.peer_node_id,
        "since": notice.created,
        "look": "interconn pending",
    }


def pending(tx: Tx, four_eyes: frozenset[str]) -> list[dict[str, Any]]:
    """Everything that waits for a decision here, oldest first."""
    names: dict[str, str] = {}
    found = [
        _waiting(tx, CONTRACT, contract, contract.peer_name, four_eyes)
        for contract in tx.select(Contract, direction=Direction.IN, status=ApprovalState.APPLIED)
    ]
    for audit in tx.select(Audit, direction=Direction.IN, status=ApprovalState.APPLIED):
        if audit.contract_id not in names:
            known = tx.get(Contract, audit.contract_id)
            names[audit.contract_id] = "" if known is None else known.peer_name
        found.append(_waiting(tx, audit.kind.value, audit, names[audit.contract_id], four_eyes))
    return sorted(found, key=lambda each: (each["since"], each["id"]))


def _waiting(tx: Tx, kind: str, record: Contract | Audit, name: str, four_eyes: frozenset[str]) -> dict[str, Any]:
    decision = tx.get(Decision, f"{kind}:{record.key()}")
    about = record.contract_id if isinstance(record, Contract) else record.subject
    return {
        "kind": kind,
        "id": record.key(),
        "about": about,
        "partner": name,
        "partner_node_id": record.peer_node_id,
        "since": record.created,
        "approvals_needed": (2 if kind in four_eyes else 1) - (decision is not None and not decision.final),
        "decision": show_decision(decision),
    }
