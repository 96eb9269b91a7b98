"""What to do where a partner's state of an approval is not ours: one table, no I/O (1-management c.1, c.2: query).

Differences come from a call that was given up and from a database that was restored from an old backup. Two rules are
behind every row: nothing is ever approved because of a comparison that the holder did not approve, and what one side
has closed is closed on both. What the wire cannot repair (a contract that the partner has forgotten) is left to the
admins: DIFFERS.
"""

from collections.abc import Mapping
from enum import Enum, unique
from typing import Final

from gateway.model import Direction
from specs.states import ApprovalState


@unique
class Repair(Enum):
    """What this side does. Each is a repeat of a call that the protocol knows, or a step of our own machine."""

    NOTHING = "nothing"
    TAKE_OVER = "take_over"
    """Their decision becomes ours, as if the confirm had come."""
    END = "end"
    """Ours ends; they have ended or forgotten theirs."""
    APPLY = "apply"
    """Send our application again: it is unknown there, or its answer was lost (A-08)."""
    CONFIRM = "confirm"
    """Send our decision again."""
    TERMINATE = "terminate"
    """Say again that it is over."""
    WITHDRAW = "withdraw"
    """Ours ends, and they are told."""
    DIFFERS = "differs"
    """No call repairs it; the admin is told."""


Theirs = ApprovalState | None
"""What the partner says; None where it does not know the approval."""
_A, _Y, _N, _T = ApprovalState.APPLIED, ApprovalState.APPROVED, ApprovalState.REJECTED, ApprovalState.TERMINATED
_OUT, _IN = Direction.OUT, Direction.IN

_CLOSED_HERE: Final[Mapping[tuple[Direction, ApprovalState, Theirs], Repair]] = {
    (side, ours, theirs): Repair.TERMINATE for side in Direction for ours in (_N, _T) for theirs in (_A, _Y)
}

AUDITS: Final[Mapping[tuple[Direction, ApprovalState, Theirs], Repair]] = {
    **_CLOSED_HERE,
    (_OUT, _A, _Y): Repair.TAKE_OVER,
    (_OUT, _A, _N): Repair.TAKE_OVER,
    (_OUT, _A, _T): Repair.TAKE_OVER,
    (_OUT, _A, None): Repair.APPLY,
    # The holder no longer knows its yes: what we hold opens nothing any more.
    (_OUT, _Y, _A): Repair.WITHDRAW,
    (_OUT, _Y, _N): Repair.END,
    (_OUT, _Y, _T): Repair.END,
    (_OUT, _Y, None): Repair.END,
    (_IN, _A, _N): Repair.END,
    (_IN, _A, _T): Repair.END,
    (_IN, _Y, _A): Repair.CONFIRM,
    (_IN, _Y, _N): Repair.END,
    (_IN, _Y, _T): Repair.END,
    (_IN, _Y, None): Repair.END,
    (_IN, _N, _A): Repair.CONFIRM,
}
"""Of an audit: (our direction, our state, their state). What is not here needs nothing."""

CONTRACTS: Final[Mapping[tuple[Direction, ApprovalState, Theirs], Repair]] = {
    **_CLOSED_HERE,
    # (OUT, APPLIED, APPROVED) is not here: the key is in confirm alone, which they repeat.
    (_OUT, _A, _N): Repair.TAKE_OVER,
    (_OUT, _A, _T): Repair.TAKE_OVER,
    (_OUT, _A, None): Repair.DIFFERS,
    (_OUT, _Y, _A): Repair.DIFFERS,
    (_OUT, _Y, _N): Repair.END,
    (_OUT, _Y, _T): Repair.END,
    (_OUT, _Y, None): Repair.DIFFERS,
    (_IN, _Y, _A): Repair.CONFIRM,
    (_IN, _Y, _N): Repair.END,
    (_IN, _Y, _T): Repair.END,
    (_IN, _Y, None): Repair.DIFFERS,
    (_IN, _N, _A): Repair.CONFIRM,
}
"""Of a contract. A partnership is never ended for being unknown over there: people settle that."""


def repair_of_audit(direction: Direction, ours: ApprovalState, theirs: Theirs) -> Repair:
    """What this side does about an audit."""
    return AUDITS.get((direction, ours, theirs), Repair.NOTHING)


def repair_of_contract(direction: Direction, ours: ApprovalState, theirs: Theirs) -> Repair:
    """What this side does about a contract."""
    return CONTRACTS.get((direction, ours, theirs), Repair.NOTHING)
