"""One use of a grant is one (job, dataset): RESERVED, then CONSUMED or RETURNED. The table, and no I/O.

Everything that affects the state of a use is in this file. Who counts what in which transaction is service.grants'.
Retries of a job change nothing: a use that has been consumed stays so, whatever happens to the job afterwards.
"""

from collections.abc import Mapping
from enum import Enum, unique
from typing import Final

from gateway.errors import IllegalTransition
from gateway.model import UseState


@unique
class UseEvent(Enum):
    """What happens to a use."""

    RESERVE = "reserve"
    """The job is created."""
    OPEN = "open"
    """A task of the job is about to read the data."""
    END = "end"
    """The job has ended, however."""


_R, _C, _B = UseState.RESERVED, UseState.CONSUMED, UseState.RETURNED

TRANSITIONS: Final[Mapping[tuple[UseState | None, UseEvent], UseState]] = {
    (None, UseEvent.RESERVE): _R,
    (_R, UseEvent.OPEN): _C,
    (_R, UseEvent.END): _B,
    # Retries, and an end that is told twice.
    (_R, UseEvent.RESERVE): _R,
    (_C, UseEvent.RESERVE): _C,
    (_C, UseEvent.OPEN): _C,
    (_C, UseEvent.END): _C,
    (_B, UseEvent.END): _B,
    # Not here on purpose: what was returned is never opened, since its place may be another job's by now.
}

HOLDS: Final = frozenset({_R, _C})
"""States that count against times_limit."""


def step_use(state: UseState | None, event: UseEvent) -> UseState:
    """Next state; raises IllegalTransition and changes nothing if there is none."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.value} of a use that is {state or 'not reserved'}") from None
