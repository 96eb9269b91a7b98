"""Every cell and every empty cell of the job and task tables, and random walks."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import IllegalTransition, ProtocolViolation
from gateway.mgmt_plane.core.job import (
    JOB_FINAL,
    TASK_FINAL,
    JobEvent,
    TaskEvent,
    aggregate,
    observe,
    parse_task_state,
    step_job,
    step_task,
)
from specs.states import JobState, TaskState

P, R, X, RUN, F = JobState.PENDING, JobState.READY, JobState.REJECTED, JobState.RUNNING, JobState.FINISHED
# The digest's d.1, written out a second time: state -> event -> next state; what is missing is illegal.
JOB_CELLS = {
    P: {"approve": R, "refuse": X, "stop": F, "fail": F},
    R: {"approve": R, "start": RUN, "stop": F, "fail": F},
    RUN: {"approve": RUN, "start": RUN, "succeed": F, "fail": F, "stop": F},
    F: {"succeed": F, "fail": F, "stop": F},
    X: {"refuse": X, "fail": X, "stop": X},
}
TP, TR, TRUN, TS, TF = TaskState
TASK_CELLS = {
    TP: {"admit": TR, "start": TRUN, "succeed": TS, "fail": TF, "stop": TF},
    TR: {"admit": TR, "start": TRUN, "succeed": TS, "fail": TF, "stop": TF},
    TRUN: {"start": TRUN, "succeed": TS, "fail": TF, "stop": TF},
    TS: {"succeed": TS, "fail": TS, "stop": TS},
    TF: {"succeed": TF, "fail": TF, "stop": TF},
}


@pytest.mark.req("C-021", "C-031", "C-069", "C-085")
@pytest.mark.parametrize(("state", "event"), list(itertools.product(JobState, JobEvent)))
def test_job_table(state: JobState, event: JobEvent) -> None:
    wanted = JOB_CELLS[state].get(event.value)
    if wanted is None:
        with pytest.raises(IllegalTransition):
            step_job(state, event)
    else:
        assert step_job(state, event) is wanted


@pytest.mark.req("C-061", "C-081")
@pytest.mark.parametrize(("state", "event"), list(itertools.product(TaskState, TaskEvent)))
def test_task_table(state: TaskState, event: TaskEvent) -> None:
    wanted = TASK_CELLS[state].get(event.value)
    if wanted is None:
        with pytest.raises(IllegalTransition):
            step_task(state, event)
    else:
        assert step_task(state, event) is wanted


@pytest.mark.req("C-061", "C-069")
@given(st.lists(st.sampled_from(list(JobEvent)), max_size=12), st.lists(st.sampled_from(list(TaskEvent)), max_size=12))
def test_walks_never_leave_a_final_state(job_events: list[JobEvent], task_events: list[TaskEvent]) -> None:
    job, task = JobState.PENDING, TaskState.PENDING
    for event in job_events:
        before = job
        try:
            job = step_job(job, event)
        except IllegalTransition:
            continue
        assert job is before or before not in JOB_FINAL
    for step in task_events:
        previous = task
        try:
            task = step_task(task, step)
        except IllegalTransition:
            continue
        assert task is previous or previous not in TASK_FINAL


@pytest.mark.req("C-061")
@pytest.mark.parametrize(("known", "reported"), list(itertools.product(TaskState, TaskState)))
def test_reports_move_forwards_only(known: TaskState, reported: TaskState) -> None:
    rank = {TP: 0, TR: 1, TRUN: 2, TS: 3, TF: 3}
    seen = observe(known, reported)
    assert seen is (reported if rank[reported] > rank[known] else known)


@pytest.mark.req("C-052", "C-062", "C-063")
@pytest.mark.parametrize("states", list(itertools.product(TaskState, repeat=3)))
def test_aggregate(states: tuple[TaskState, ...]) -> None:
    found = aggregate(states)
    if len(set(states)) == 1:
        assert found is states[0]
    else:
        assert found is next(s for s in (TF, TRUN, TR, TP, TS) if s in states)
    assert (found is TS) == all(s is TS for s in states)


def test_aggregate_of_nothing() -> None:
    assert aggregate([]) is TaskState.PENDING


@pytest.mark.req("C-058")
@pytest.mark.parametrize("word", ["DONE", "running", "", None, 1, ["RUNNING"], {}])
def test_other_words_are_refused(word: object) -> None:
    with pytest.raises(ProtocolViolation):
        parse_task_state(word)


def test_the_five_words() -> None:
    assert [parse_task_state(state.value) for state in TaskState] == list(TaskState)
