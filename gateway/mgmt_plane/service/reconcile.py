"""Which approvals are compared with the partners, and what is done about a difference; the rules are core.reconcile.

Works inside transactions that the callers open. A repair is made only if our record is still the one that was compared
and no call about it waits in the outbox: what is under way settles itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.mgmt_plane.core.profile import profile
from gateway.mgmt_plane.core.reconcile import Repair, Theirs, repair_of_audit, repair_of_contract
from gateway.mgmt_plane.service.audits import Audits, subject_of
from gateway.mgmt_plane.service.grants import RECORDED
from gateway.mgmt_plane.service.partners import Partners, is_valid
from gateway.model import Audit, CallState, Contract, Direction, OutCall, TraceId
from gateway.ports import Clock, Tx
from specs.routes import ROUTES
from specs.states import ApprovalState, AuditKind

RECENT_MS: Final = 7 * 86_400_000
"""Approvals that are over are compared for so long; an outbox call lives as long."""
_OPEN: Final = (ApprovalState.APPLIED, ApprovalState.APPROVED)


@dataclass(frozen=True, slots=True)
class Found:
    """Audits to be compared, and where to go on looking (0: from the start)."""

    audits: tuple[Audit, ...]
    following: int


class Reconcile:
    """Both halves of a comparison: what to ask about, and what follows from the answer."""

    def __init__(self, *, partners: Partners, audits: Audits, clock: Clock) -> None:
        self._partners = partners
        self._audits = audits
        self._clock = clock

    def _worth(self, status: ApprovalState, updated: int) -> bool:
        return status in _OPEN or self._clock.now_ms() - updated < RECENT_MS

    def contracts(self, tx: Tx) -> list[Contract]:
        """Contracts to compare. Not those that strangers merely applied for: we would call whom they name."""
        return [
            each
            for each in tx.select(Contract)
            if profile(each.profile).offers("node.contract.query")
            and each.peer_address
            and (each.direction is Direction.OUT or each.our_key)
            and self._worth(each.status, each.updated)
            and not self._waits(tx, f"contract:{each.contract_id}")
        ]

    def audits(self, tx: Tx, contract: Contract, *, start: int, limit: int) -> Found:
        """Of the audits under a contract that holds, those to compare among `limit` from number `start` on."""
        if not is_valid(contract, self._clock.now_ms()):
            return Found((), 0)
        some: Sequence[Audit] = tx.select(Audit, contract_id=contract.contract_id, limit=limit, offset=start)
        dialect = profile(contract.profile)
        chosen = tuple(
            each
            for each in some
            if self._worth(each.status, each.updated)
            and query_route(each.kind) in ROUTES  # none for jobs (M-067)
            and dialect.offers(query_route(each.kind))
            and not each.audit_id.startswith(RECORDED)
            and not self._waits(tx, subject_of(each.key()))
        )
        return Found(chosen, start + limit if len(some) == limit else 0)

    @staticmethod
    def _waits(tx: Tx, subject: str) -> bool:
        states = (CallState.DUE, CallState.PARKED)
        return any(tx.select(OutCall, subject=subject, state=state, limit=1) for state in states)

    def of_contract(self, tx: Tx, seen: Contract, theirs: Theirs) -> Repair:
        """Act on what the partner said of `seen`; what was done."""
        repair = repair_of_contract(seen.direction, seen.status, theirs)
        if repair in (Repair.NOTHING, Repair.DIFFERS):
            return repair
        if tx.get(Contract, seen.contract_id) != seen or self._waits(tx, f"contract:{seen.contract_id}"):
            return Repair.NOTHING
        match repair:
            case Repair.TAKE_OVER:
                self._partners.reported(tx, seen.contract_id, theirs.value if theirs else "")
            case Repair.END:
                self._partners.ended_there(tx, seen)
            case Repair.CONFIRM:
                self._partners.confirm_again(tx, seen)
            case Repair.TERMINATE:
                self._partners.terminate_again(tx, seen)
        return repair

    def of_audit(self, tx: Tx, seen: Audit, theirs: Theirs, *, trace_id: TraceId) -> Repair:
        """As `of_contract`."""
        repair = repair_of_audit(seen.direction, seen.status, theirs)
        if repair is Repair.TAKE_OVER and theirs is ApprovalState.APPROVED and seen.kind is AuditKind.DATASET:
            repair = Repair.APPLY  # its permit is in confirm alone
        if repair is Repair.NOTHING:
            return repair
        if tx.get(Audit, seen.key()) != seen or self._waits(tx, subject_of(seen.key())):
            return Repair.NOTHING
        match repair:
            case Repair.TAKE_OVER:
                self._audits.reported(tx, seen.key(), theirs.value if theirs else "")
            case Repair.END:
                self._audits.ended_there(tx, seen)
            case Repair.WITHDRAW:
                self._audits.terminate(tx, seen.key(), trace_id=trace_id)
            case Repair.APPLY | Repair.CONFIRM | Repair.TERMINATE:
                self._audits.send_again(tx, seen, repair.value, trace_id=trace_id)
        return repair


def query_route(kind: AuditKind) -> str:
    """Of specs.routes, except that jobs have none."""
    return f"{kind.value}.audit.query"
