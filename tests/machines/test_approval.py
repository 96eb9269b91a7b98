"""The whole table of approvals: every cell, every empty cell, and walks."""

import random

import pytest

from gateway.errors import IllegalTransition, ProtocolViolation
from gateway.mgmt_plane.core.approval import TRANSITIONS, Effect, Event, decision, step
from specs.states import ApprovalState

A, Y, N, T = ApprovalState.APPLIED, ApprovalState.APPROVED, ApprovalState.REJECTED, ApprovalState.TERMINATED

EXPECTED = {
    (None, Event.APPLY): (A, ()),
    (A, Event.APPLY): (A, ()),
    (A, Event.APPROVE): (Y, (Effect.OPEN,)),
    (A, Event.REJECT): (N, ()),
    (A, Event.TERMINATE): (T, ()),
    (Y, Event.APPLY): (Y, (Effect.ANSWER_AGAIN,)),
    (Y, Event.APPROVE): (Y, ()),
    (Y, Event.TERMINATE): (T, (Effect.CLOSE,)),
    (N, Event.APPLY): (N, (Effect.ANSWER_AGAIN,)),
    (N, Event.REJECT): (N, ()),
    (T, Event.TERMINATE): (T, ()),
}
CELLS = [(state, event) for state in (None, *ApprovalState) for event in Event]


def test_the_table_is_what_we_think() -> None:
    assert dict(TRANSITIONS) == EXPECTED


@pytest.mark.req("M-070")
@pytest.mark.parametrize(("state", "event"), CELLS)
def test_every_cell_and_every_empty_cell(state: ApprovalState | None, event: Event) -> None:
    if (state, event) in EXPECTED:
        assert step(state, event) == EXPECTED[state, event]
    else:
        with pytest.raises(IllegalTransition):
            step(state, event)


@pytest.mark.req("M-030")
def test_what_is_final_stays() -> None:
    """From REJECTED and TERMINATED no event leads anywhere else."""
    for (state, _), (after, _) in TRANSITIONS.items():
        if state in (N, T):
            assert after is state


def test_walks_open_at_most_once_and_close_only_what_is_open() -> None:
    chance = random.Random(7)
    for _ in range(500):
        state: ApprovalState | None = None
        opened = closed = 0
        for event in chance.choices(list(Event), k=12):
            before = state
            try:
                state, effects = step(state, event)
            except IllegalTransition:
                assert state is before
                continue
            opened += Effect.OPEN in effects
            closed += Effect.CLOSE in effects
            assert closed <= opened <= 1
            assert (state is Y) == (opened > closed)


@pytest.mark.req("M-028", "M-073")
def test_only_two_words_decide() -> None:
    assert decision("APPROVED") is Event.APPROVE
    assert decision("REJECTED") is Event.REJECT
    for word in ("APPLIED", "TERMINATED", "approved", "", None, 1, ["APPROVED"]):
        with pytest.raises(ProtocolViolation):
            decision(word)
