"""APPLIED / APPROVED / REJECTED / TERMINATED: one table for the contract and every audit (1-management d.1, d.2).

The table does not know which side we are: the same rule judges the partner's call and our own admin's decision. Who may
cause an event is the services' business. Rows that the standard does not state are marked [P].
"""

from collections.abc import Mapping
from enum import Enum, unique
from typing import Final

from gateway.errors import IllegalTransition, ProtocolViolation
from specs.states import ApprovalState


@unique
class Event(Enum):
    """What happens to an approval; a terminate while it is only APPLIED is a withdrawal."""

    APPLY = "apply"
    APPROVE = "approve"
    REJECT = "reject"
    TERMINATE = "terminate"


@unique
class Effect(Enum):
    """What the shell must do with the new state."""

    OPEN = "open"
    """What was asked for may be used now: grant, route."""
    CLOSE = "close"
    """It may no longer be used."""
    ANSWER_AGAIN = "answer_again"
    """The applicant asks again: it may have lost our confirm (A-08)."""


_A, _Y, _N, _T = ApprovalState.APPLIED, ApprovalState.APPROVED, ApprovalState.REJECTED, ApprovalState.TERMINATED

TRANSITIONS: Final[Mapping[tuple[ApprovalState | None, Event], tuple[ApprovalState, tuple[Effect, ...]]]] = {
    (None, Event.APPLY): (_A, ()),
    (_A, Event.APPROVE): (_Y, (Effect.OPEN,)),
    (_A, Event.REJECT): (_N, ()),
    (_A, Event.TERMINATE): (_T, ()),  # withdrawn [P]
    (_Y, Event.TERMINATE): (_T, (Effect.CLOSE,)),
    # Repeats change nothing [P]: calls are retried when their answer is lost (M-031, M-071).
    (_A, Event.APPLY): (_A, ()),
    (_Y, Event.APPLY): (_Y, (Effect.ANSWER_AGAIN,)),
    (_N, Event.APPLY): (_N, (Effect.ANSWER_AGAIN,)),
    (_Y, Event.APPROVE): (_Y, ()),
    (_N, Event.REJECT): (_N, ()),
    (_T, Event.TERMINATE): (_T, ()),
    # Not here on purpose: REJECTED and TERMINATED are final, and REJECTED never turns into TERMINATED (M-030).
}

DECISIONS: Final[Mapping[str, Event]] = {_Y.value: Event.APPROVE, _N.value: Event.REJECT}
"""The status words of a confirm."""


def step(state: ApprovalState | None, event: Event) -> tuple[ApprovalState, tuple[Effect, ...]]:
    """Next state and what the shell must do; raises IllegalTransition and changes nothing if there is none."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.value} is not possible in {state or 'no state'}") from None


def decision(status: object) -> Event:
    """The event of a confirm's `status` (M-028, M-073)."""
    event = DECISIONS.get(status) if isinstance(status, str) else None
    if event is None:
        raise ProtocolViolation("status must be APPROVED or REJECTED")
    return event
