"""The job and the task machine of part 2 (d.1, d.2) and the one word several states make together (d.3).

Everything that affects these two states is in this file, and the file does not know whether this node schedules the
job or only takes part in it. Waiting and storing is the shell's work, and so is making processes and sessions match
what was stored: that follows from the states alone and can be done again at any time. Final states are sticky: what
comes late changes nothing (C-061, C-085, C-086).
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


JOB: Final[Mapping[tuple[JobState, JobEvent], JobState]] = {
    (JobState.PENDING, JobEvent.APPROVE): JobState.READY,
    (JobState.PENDING, JobEvent.REFUSE): JobState.REJECTED,
    (JobState.PENDING, JobEvent.STOP): JobState.FINISHED,
    (JobState.PENDING, JobEvent.FAIL): JobState.FINISHED,
    (JobState.READY, JobEvent.START): JobState.RUNNING,
    (JobState.READY, JobEvent.STOP): JobState.FINISHED,
    (JobState.READY, JobEvent.FAIL): JobState.FINISHED,
    (JobState.RUNNING, JobEvent.SUCCEED): JobState.FINISHED,
    (JobState.RUNNING, JobEvent.FAIL): JobState.FINISHED,
    (JobState.RUNNING, JobEvent.STOP): JobState.FINISHED,
    # A partner that lost our answer repeats its call; the repeat changes nothing.
    (JobState.READY, JobEvent.APPROVE): JobState.READY,
    (JobState.RUNNING, JobEvent.START): JobState.RUNNING,
    (JobState.RUNNING, JobEvent.APPROVE): JobState.RUNNING,
    (JobState.REJECTED, JobEvent.REFUSE): JobState.REJECTED,
    (JobState.REJECTED, JobEvent.STOP): JobState.REJECTED,
    (JobState.REJECTED, JobEvent.FAIL): JobState.REJECTED,
    # Stop races with the end, and schedulers in the field also stop what has succeeded (B-20).
    (JobState.FINISHED, JobEvent.SUCCEED): JobState.FINISHED,
    (JobState.FINISHED, JobEvent.FAIL): JobState.FINISHED,
    (JobState.FINISHED, JobEvent.STOP): JobState.FINISHED,
}

TASK: Final[Mapping[tuple[TaskState, TaskEvent], TaskState]] = {
    (TaskState.PENDING, TaskEvent.ADMIT): TaskState.READY,
    (TaskState.PENDING, TaskEvent.START): TaskState.RUNNING,
    (TaskState.PENDING, TaskEvent.SUCCEED): TaskState.SUCCESS,
    (TaskState.PENDING, TaskEvent.FAIL): TaskState.FAILED,
    (TaskState.PENDING, TaskEvent.STOP): TaskState.FAILED,
    (TaskState.READY, TaskEvent.START): TaskState.RUNNING,
    (TaskState.READY, TaskEvent.SUCCEED): TaskState.SUCCESS,
    (TaskState.READY, TaskEvent.FAIL): TaskState.FAILED,
    (TaskState.READY, TaskEvent.STOP): TaskState.FAILED,
    (TaskState.RUNNING, TaskEvent.SUCCEED): TaskState.SUCCESS,
    (TaskState.RUNNING, TaskEvent.FAIL): TaskState.FAILED,
    (TaskState.RUNNING, TaskEvent.STOP): TaskState.FAILED,
    # Repeats.
    (TaskState.READY, TaskEvent.ADMIT): TaskState.READY,
    (TaskState.RUNNING, TaskEvent.START): TaskState.RUNNING,
    # Final states never change again (C-061); only a new start is an error.
    (TaskState.SUCCESS, TaskEvent.SUCCEED): TaskState.SUCCESS,
    (TaskState.SUCCESS, TaskEvent.FAIL): TaskState.SUCCESS,
    (TaskState.SUCCESS, TaskEvent.STOP): TaskState.SUCCESS,
    (TaskState.FAILED, TaskEvent.SUCCEED): TaskState.FAILED,
    (TaskState.FAILED, TaskEvent.FAIL): TaskState.FAILED,
    (TaskState.FAILED, TaskEvent.STOP): TaskState.FAILED,
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


def step_job(state: JobState, event: JobEvent) -> JobState:
    """Next state of a job; raises IllegalTransition if illegal."""
    try:
        return JOB[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.value} of a job that is {state.value}") from None


def step_task(state: TaskState, event: TaskEvent) -> TaskState:
    """Next state of a share or view; raises IllegalTransition if illegal."""
    try:
        return TASK[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.value} of a task that is {state.value}") from None


def observe(known: TaskState, reported: TaskState) -> TaskState:
    """The scheduler's view after a poll or callback: reports move forwards only, an older one changes nothing."""
    event = _REPORTS.get(reported)
    if event is None or (known, event) not in TASK:
        return known
    return TASK[known, event]


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
