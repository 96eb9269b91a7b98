"""The table of repairs: every cell, and that two sides following it end up agreed."""

import itertools

import pytest

from gateway.errors import GatewayError
from gateway.mgmt_plane.core.approval import Event, step
from gateway.mgmt_plane.core.reconcile import AUDITS, CONTRACTS, Repair, Theirs, repair_of_audit, repair_of_contract
from gateway.model import Direction
from specs.states import ApprovalState

A, Y, N, T = ApprovalState.APPLIED, ApprovalState.APPROVED, ApprovalState.REJECTED, ApprovalState.TERMINATED
OUT, IN = Direction.OUT, Direction.IN
CLOSED = {N, T, None}
CELLS = list(itertools.product((A, Y, N, T, None), repeat=2))


def try_step(state: Theirs, event: Event) -> Theirs:
    try:
        return step(state, event)[0]
    except GatewayError:
        return state


def acted(repair: Repair, ours: Theirs, theirs: Theirs) -> tuple[Theirs, Theirs]:
    """(our state, their state) once the repair has been carried out and delivered."""
    match repair:
        case Repair.TAKE_OVER:
            return {Y: Y, N: N, T: T}[theirs], theirs  # type: ignore[index]
        case Repair.END:
            return try_step(ours, Event.TERMINATE), theirs
        case Repair.WITHDRAW:
            return try_step(ours, Event.TERMINATE), try_step(theirs, Event.TERMINATE)
        case Repair.TERMINATE:
            return ours, try_step(theirs, Event.TERMINATE)
        case Repair.APPLY:
            return ours, try_step(theirs, Event.APPLY)
        case Repair.CONFIRM:
            return ours, try_step(theirs, Event.APPROVE if ours is Y else Event.REJECT)
        case _:
            return ours, theirs


@pytest.mark.parametrize(("applicant", "holder"), CELLS)
def test_two_sides_agree_in_the_end(applicant: Theirs, holder: Theirs) -> None:
    """Whoever looks first. Open at both or closed at both, and never approved without the holder."""
    for first in (OUT, IN):
        one, other = applicant, holder
        for turn in range(6):
            side = first if turn % 2 == 0 else (IN if first is OUT else OUT)
            if side is OUT and one is not None:
                one, other = acted(repair_of_audit(OUT, one, other), one, other)
            elif side is IN and other is not None:
                other, one = acted(repair_of_audit(IN, other, one), other, one)
        if applicant is None or holder is None:
            # A holder alone with an application that its applicant has forgotten leaves it to its admin.
            assert (one in CLOSED) == (other in CLOSED) or (one, other) == (None, A)
        else:
            assert (one in CLOSED) == (other in CLOSED)
            assert one in CLOSED or one is other
        assert not (one is Y and holder is not Y)


def test_no_comparison_makes_a_holder_say_yes() -> None:
    for (side, ours, _), repair in [*AUDITS.items(), *CONTRACTS.items()]:
        if side is IN and ours is A:
            assert repair in (Repair.END, Repair.NOTHING)


def test_what_agrees_is_left_alone() -> None:
    for side, state in itertools.product(Direction, ApprovalState):
        assert repair_of_audit(side, state, state) is Repair.NOTHING
        assert repair_of_contract(side, state, state) is Repair.NOTHING


def test_a_partnership_is_not_ended_for_being_unknown() -> None:
    for side, state in itertools.product(Direction, ApprovalState):
        assert repair_of_contract(side, state, None) in (Repair.NOTHING, Repair.DIFFERS)
