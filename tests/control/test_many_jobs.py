"""Two hundred jobs at once: each is looked at for its own sake, and none crowds out the others."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Job, JobId, Outcome, TraceId
from gateway.runtime import scheduler
from specs.states import JobState
from tests.control.world import FAST, Call, FakeRun, World, approved, hang, job_file, succeed
from tests.waiting import eventually

JOBS = 200
QUIET = replace(FAST, poll_s=60, silence_s=240, require_job_audit=False)
CALLBACK = {"sync_type": "callback"}


async def test_two_hundred_jobs_at_once_all_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few calls to a node and as many components as may run are under way at a time, whatever waits behind them."""
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def counted(what: str, work: Any) -> Any:
        running[what] += 1
        most[what] = max(most[what], running[what])
        try:
            return await work
        finally:
            running[what] -= 1

    async def short(run: FakeRun) -> int:
        async def work() -> int:
            await asyncio.sleep(0.001)
            return await succeed(run)

        return int(await counted(run.environment["config.self_role"], work()))

    carry = World.carry

    async def slowly(self: World, call: Call, trace_id: TraceId) -> Mapping[str, Any]:
        async def work() -> Mapping[str, Any]:
            await asyncio.sleep(0.001)
            return await carry(self, call, trace_id)

        insisted = call.route in {"job.create", "job.start", "task.start"}
        return dict(await counted("insisted" if insisted else call.route, work()))

    monkeypatch.setattr(World, "carry", slowly)
    async with World(tmp_path, "A", "B", rules={"A": QUIET, "B": QUIET}).running() as world:
        await world.grant("B", "A")
        for name in "AB":
            world[name].launcher.scripts["psi"] = short
        jobs = await asyncio.gather(*(world["A"].jobs.submit_file(job_file(**CALLBACK)) for _ in range(JOBS)))
        for job in jobs:
            for name in "AB":
                ended: Job = await world[name].until(job.job_id, JobState.FINISHED, seconds=60)
                assert ended.outcome is Outcome.SUCCEEDED
        assert most["insisted"] == scheduler.AT_ONCE
        assert most["guest.0"] <= QUIET.max_running
        assert most["host.0"] <= QUIET.max_running


async def test_what_happens_to_one_job_wakes_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: Counter[JobId] = Counter()
    see = scheduler.Scheduler._see_own

    def counting(self: scheduler.Scheduler, tx: Any, job_id: JobId) -> Any:
        looked[job_id] += 1
        return see(self, tx, job_id)

    monkeypatch.setattr(scheduler.Scheduler, "_see_own", counting)
    async with World(tmp_path, "A", "B", rules={"A": QUIET, "B": QUIET}).running() as world:
        await world.grant("B", "A")
        for name in "AB":
            world[name].launcher.scripts["psi"] = hang
        waiting = await approved(world, job_file(**CALLBACK), by=())
        await eventually(lambda: all(world[name].launcher.runs for name in "AB"))
        for name in "AB":
            world[name].launcher.scripts["psi"] = succeed
        before, other = looked[waiting], await approved(world, job_file("psi", "split", **CALLBACK), by=())
        await world["A"].until(other, JobState.FINISHED)
        assert looked[other] > 5
        # Its own two call-backs that it runs may come late; the other job's ten events are none of its business.
        assert looked[waiting] - before <= 2
