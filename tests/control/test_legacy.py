"""A partner of v1.0.0 in the control layer: no job audits, job/audit_confirm, the job's id as channel id."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError, Kind
from gateway.model import Contract, NodeId, Outcome, TraceId
from gateway.ports import Caller, Tx
from specs.states import JobState
from tests.control.world import World, hang, job_file


async def old(world: World) -> None:
    """From now on both nodes take the other for a v1.0.0."""

    def work(tx: Tx) -> None:
        for each in tx.select(Contract):
            tx.replace(each, replace(each, profile="legacy-1.0"))

    for node in world.nodes.values():
        await node.run(work)


async def confirm(world: World, job_id: str, status: str) -> Any:
    caller = Caller(NodeId("B"), None, TraceId("t"))
    return await world["A"].handlers["job.audit_confirm"](caller, {"job_id": job_id, "status": status})


@pytest.mark.req("C-132")
async def test_a_job_runs_in_a_channel_with_its_own_id(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        await old(world)
        job_id = (await world["A"].jobs.submit_file(job_file())).job_id
        for name in "AB":
            job = await world[name].until(job_id, JobState.FINISHED)
            assert job.outcome is Outcome.SUCCEEDED, job.reason
            assert {rule.session_id for rule in world[name].data_plane.history} == {job_id}
            assert {run.environment["config.session_id"] for run in world[name].launcher.runs} == {job_id}
        assert world.routes("job.audit.apply") == []


@pytest.mark.req("C-132")
async def test_audit_confirm(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        world["A"].launcher.scripts["psi"] = hang
        world["B"].launcher.scripts["psi"] = hang
        await old(world)
        job_id = (await world["A"].jobs.submit_file(job_file())).job_id
        await world["A"].until(job_id, JobState.RUNNING)
        for word in ("RUNNING", "", None):
            with pytest.raises(GatewayError):
                await confirm(world, job_id, word)  # type: ignore[arg-type]
        assert await confirm(world, job_id, "READY") == {}
        assert (await world["A"].job(job_id)).status is JobState.RUNNING
        assert await confirm(world, job_id, "REJECTED") == {}
        job = await world["A"].until(job_id, JobState.FINISHED)
        assert (job.outcome, job.reason) == (Outcome.REFUSED, "B refused the job")
        assert await confirm(world, job_id, "REJECTED") == {}
        await world["B"].until(job_id, JobState.FINISHED)


async def test_audit_confirm_is_for_v1_0_alone(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        job_id = (await world["A"].jobs.submit_file(job_file())).job_id
        with pytest.raises(GatewayError) as caught:
            await confirm(world, job_id, "REJECTED")
        assert caught.value.kind is Kind.NOT_OFFERED
        assert (await world["A"].job(job_id)).status is JobState.PENDING
