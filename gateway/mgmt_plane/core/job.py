"""The job and the task machine of part 2 (d.1, d.2) and the one word several states make together (d.3).

Everything that affects these two states is in this file, and the file does not know whether this node schedules the
job or only takes part in it. Waiting, storing and doing what the effects say is the shell's work. Final states are
sticky: what comes late changes nothing (C-061, C-085, C-086).
"""

from collections.abc import Iterable, Mapping
from enum import Enum, unique
from typing import Final

from gateway.errors import IllegalTransition, ProtocolViolation
from specs.states import JobState, TaskState


@unique
class JobEvent(Enum):
    """What can happen to a job."""

    APPROVE = "approve"
    """Every approval that is needed has been given."""
    REFUSE = "refuse"
    """A participant refused the job."""
    START = "start"
    SUCCEED = "succeed"
    """Every task is SUCCESS."""
    FAIL = "fail"
    """A task failed, a party did not create the job, a deadline passed or the scheduler went silent."""
    STOP = "stop"


@unique
class TaskEvent(Enum):
    """What can happen to one party's share of a task, and to the scheduler's view of it."""

    ADMIT = "admit"
    """Accepted; waits for its turn to be launched."""
    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    STOP = "stop"


@unique
class Effect(Enum):
    """What the shell owes after it has stored the new state."""

    OPEN_SESSION = "open_session"
    END_SHARES = "end_shares"
    """Shares that are not final are stopped; the job's session is closed."""
    KILL = "kill"
    """The component of this share is ended together with its children (C-087)."""


JOB: Final[Mapping[tuple[JobState, JobEvent], tuple[JobState, tuple[Effect, ...]]]] = {
    (JobState.PENDING, JobEvent.APPROVE): (JobState.READY, ()),
    (JobState.PENDING, JobEvent.REFUSE): (JobState.REJECTED, ()),
    (JobState.PENDING, JobEvent.STOP): (JobState.FINISHED, (Effect.END_SHARES,)),
    (JobState.PENDING, JobEvent.FAIL): (JobState.FINISHED, (Effect.END_SHARES,)),
    (JobState.READY, JobEvent.START): (JobState.RUNNING, (Effect.OPEN_SESSION,)),
    (JobState.READY, JobEvent.STOP): (JobState.FINISHED, (Effect.END_SHARES,)),
    (JobState.READY, JobEvent.FAIL): (JobState.FINISHED, (Effect.END_SHARES,)),
    (JobState.RUNNING, JobEvent.SUCCEED): (JobState.FINISHED, (Effect.END_SHARES,)),
    (JobState.RUNNING, JobEvent.FAIL): (JobState.FINISHED, (Effect.END_SHARES,)),
    (JobState.RUNNING, JobEvent.STOP): (JobState.FINISHED, (Effect.END_SHARES,)),
    # A partner that lost our answer repeats its call; the repeat changes nothing.
    (JobState.READY, JobEvent.APPROVE): (JobState.READY, ()),
    (JobState.RUNNING, JobEvent.START): (JobState.RUNNING, ()),
    (JobState.RUNNING, JobEvent.APPROVE): (JobState.RUNNING, ()),
    (JobState.REJECTED, JobEvent.REFUSE): (JobState.REJECTED, ()),
    (JobState.REJECTED, JobEvent.STOP): (JobState.REJECTED, ()),
    (JobState.REJECTED, JobEvent.FAIL): (JobState.REJECTED, ()),
    # Stop races with the end, and schedulers in the field also stop what has succeeded (B-20).
    (JobState.FINISHED, JobEvent.SUCCEED): (JobState.FINISHED, ()),
    (JobState.FINISHED, JobEvent.FAIL): (JobState.FINISHED, ()),
    (JobState.FINISHED, JobEvent.STOP): (JobState.FINISHED, ()),
}

TASK: Final[Mapping[tuple[TaskState, TaskEvent], tuple[TaskState, tuple[Effect, ...]]]] = {
    (TaskState.PENDING, TaskEvent.ADMIT): (TaskState.READY, ()),
    (TaskState.PENDING, TaskEvent.START): (TaskState.RUNNING, ()),
    (TaskState.PENDING, TaskEvent.SUCCEED): (TaskState.SUCCESS, ()),
    (TaskState.PENDING, TaskEvent.FAIL): (TaskState.FAILED, ()),
    (TaskState.PENDING, TaskEvent.STOP): (TaskState.FAILED, ()),
    (TaskState.READY, TaskEvent.START): (TaskState.RUNNING, ()),
    (TaskState.READY, TaskEvent.SUCCEED): (TaskState.SUCCESS, ()),
    (TaskState.READY, TaskEvent.FAIL): (TaskState.FAILED, ()),
    # Between READY and RUNNING the shell may already be preparing the launch.
    (TaskState.READY, TaskEvent.STOP): (TaskState.FAILED, (Effect.KILL,)),
    (TaskState.RUNNING, TaskEvent.SUCCEED): (TaskState.SUCCESS, ()),
    (TaskState.RUNNING, TaskEvent.FAIL): (TaskState.FAILED, ()),
    (TaskState.RUNNING, TaskEvent.STOP): (TaskState.FAILED, (Effect.KILL,)),
    # Repeats.
    (TaskState.READY, TaskEvent.ADMIT): (TaskState.READY, ()),
    (TaskState.RUNNING, TaskEvent.START): (TaskState.RUNNING, ()),
    # Final states never change again (C-061); only a new start is an error.
    (TaskState.SUCCESS, TaskEvent.SUCCEED): (TaskState.SUCCESS, ()),
    (TaskState.SUCCESS, TaskEvent.FAIL): (TaskState.SUCCESS, ()),
    (TaskState.SUCCESS, TaskEvent.STOP): (TaskState.SUCCESS, ()),
    (TaskState.FAILED, TaskEvent.SUCCEED): (TaskState.FAILED, ()),
    (TaskState.FAILED, TaskEvent.FAIL): (TaskState.FAILED, ()),
    (TaskState.FAILED, TaskEvent.STOP): (TaskState.FAILED, ()),
}

JOB_FINAL: Final = frozenset({JobState.FINISHED, JobState.REJECTED})
TASK_FINAL: Final = frozenset({TaskState.SUCCESS, TaskState.FAILED})

_REPORTS: Final[Mapping[TaskState, TaskEvent]] = {
    TaskState.READY: TaskEvent.ADMIT,
    TaskState.RUNNING: TaskEvent.START,
    TaskState.SUCCESS: TaskEvent.SUCCEED,
    TaskState.FAILED: TaskEvent.FAIL,
}
_ORDER: Final = (TaskState.FAILED, TaskState.RUNNING, TaskState.READY, TaskState.PENDING, TaskState.SUCCESS)


def step_job(state: JobState, event: JobEvent) -> tuple[JobState, tuple[Effect, ...]]:
    """Next state of a job and what the shell must do; raises IllegalTransition and changes nothing if illegal."""
    try:
        return JOB[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.value} of a job that is {state.value}") from None


def step_task(state: TaskState, event: TaskEvent) -> tuple[TaskState, tuple[Effect, ...]]:
    """Next state of a share or view and what the shell must do; raises IllegalTransition if illegal."""
    try:
        return TASK[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.value} of a task that is {state.value}") from None


def observe(known: TaskState, reported: TaskState) -> TaskState:
    """The scheduler's view after a poll or callback: reports move forwards only, an older one changes nothing."""
    event = _REPORTS.get(reported)
    if event is None or (known, event) not in TASK:
        return known
    return TASK[known, event][0]


def aggregate(states: Iterable[TaskState]) -> TaskState:
    """State of a task over several roles or parties (d.3); PENDING where there is none.

    All equal: that state. Else the first present of FAILED, RUNNING, READY, PENDING, SUCCESS (C-062, C-063).
    """
    present = set(states)
    return next((state for state in _ORDER if state in present), TaskState.PENDING)


def parse_task_state(word: object) -> TaskState:
    """One of the five words, else ProtocolViolation (C-058)."""
    try:
        return TaskState(str(word)) if isinstance(word, str) else TaskState("")
    except ValueError:
        raise ProtocolViolation("status must be PENDING, READY, RUNNING, SUCCESS or FAILED") from None
