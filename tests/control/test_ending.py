"""How a job ended is known at once where a gateway of our own kind says it, and asked for where none does."""

from pathlib import Path
from typing import Any

import pytest

from gateway.model import Outcome
from specs.states import JobState
from tests.control.world import Call, World, approved, fail, hang, job_file
from tests.waiting import eventually


def without(member: str) -> Any:
    """The partner's software does not say it."""

    def disturb(call: Call) -> None:
        if isinstance(call.body, dict):
            call.body.pop(member, None)

    return disturb


@pytest.mark.parametrize("mute", [False, True])
async def test_the_stop_of_a_failed_job_overtakes_the_participants_own_end(tmp_path: Path, mute: bool) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        if mute:
            world.disturb = without("job_outcome")
        world["A"].launcher.scripts["psi"] = fail
        world["B"].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file())
        at_b = await world["B"].until(job_id, JobState.FINISHED)
        if mute:

            async def sure() -> bool:
                return not (await world["B"].job(job_id)).unsure

            await eventually(sure)
            at_b = await world["B"].job(job_id)
        assert (at_b.outcome, at_b.unsure) == (Outcome.FAILED, False)
        assert "task psi_1 failed at A, result code 4003 (" in at_b.reason
        assert "A ended the job" in at_b.reason


async def test_a_stopped_job_is_told_as_stopped(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        for node in "AB":
            world[node].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file())
        await world["B"].until(job_id, JobState.RUNNING)
        await world["A"].schedule.stop(job_id)
        at_b = await world["B"].until(job_id, JobState.FINISHED)
        assert (at_b.outcome, at_b.unsure, at_b.reason) == (Outcome.STOPPED, False, "stopped by A")


async def test_nobody_else_says_how_a_job_ended(tmp_path: Path) -> None:
    """The word of whoever merely may stop it, and words that are none."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")

        def forge(call: Call) -> None:
            if call.route == "job.stop" and isinstance(call.body, dict):
                call.body.update(job_outcome=["failed"], result_codes={"x": 1, "y": "a b"})

        world.disturb = forge
        job_id = await approved(world, job_file())
        at_b = await world["B"].until(job_id, JobState.FINISHED)
        assert at_b.outcome is Outcome.SUCCEEDED
