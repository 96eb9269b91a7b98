"""A partner of v1.0.0 in the control layer: no job audits, job/audit_confirm, the job's id as channel id."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError, Kind, Refused
from gateway.mgmt_plane.service.membership import TaskChannel, check_channel, check_task_channel, task_channel
from gateway.model import Contract, NodeId, Outcome, SessionId, Share, TaskId, TaskName, TraceId
from gateway.ports import Caller, Tx
from specs.states import JobState, TaskState
from tests.control.world import World, approved, hang, job_file
from tests.waiting import eventually


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
async def test_each_partner_has_the_channel_id_that_it_knows(tmp_path: Path) -> None:
    """With a v1.0.0 and a v1.2.0 in one job: ours is given the older one's id, and the other is called by its own."""
    async with World(tmp_path, "A", "B", "C").running() as world:
        await world.grant("B", "A")

        def first(tx: Tx) -> None:
            for each in tx.select(Contract, peer_node_id="B"):
                tx.replace(each, replace(each, profile="legacy-1.0"))

        await world["A"].run(first)
        parties = {"parties": {"guest": "A", "host": ["B", "C"]}, "data": {"guest": "ds-A", "host": ["ds-B", "ds-C"]}}
        checked = await world["A"].jobs.validate(job_file("psi", **parties))
        assert checked["ok"], checked["problems"]
        job = (await world["A"].jobs.submit_file(job_file("psi", **parties))).job_id

        def channel(tx: Tx) -> TaskChannel:
            book = world["A"].book
            known = book.get(tx, job)
            share = Share(
                TaskId("task_1"), known.job_id, TaskName("psi_1"), "guest", 0, "x", TaskState.READY, token_digest="",
                pid=None, exit_code=None, result_code="", message="", progress={}, created=1, started=None,
                finished=None,
            )  # fmt: skip
            return task_channel(tx, known, book.plan(known), share, own=NodeId("A"), lookup=book.lookup(tx))

        assert await world["A"].run(channel) == TaskChannel(SessionId(job), {NodeId("C"): SessionId(f"session_{job}")})


async def test_no_task_id_leads_to_the_channel_of_another_job(tmp_path: Path) -> None:
    """Kuscia's channel is named by the task, and whoever schedules chooses that name."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        world["A"].launcher.scripts["psi"] = world["B"].launcher.scripts["psi"] = hang
        other = await approved(world, job_file())
        await eventually(lambda: world["A"].launcher.runs)
        job = await world["A"].job(other)
        for alias in (f"session_{other}", other):
            channel = TaskChannel(SessionId(alias), {})
            with pytest.raises(Refused, match="another one's"):
                await world["A"].run(
                    lambda tx, channel=channel: check_task_channel(tx, replace(job, job_id="job-2"), channel)
                )
        await world["A"].run(lambda tx: check_task_channel(tx, job, TaskChannel(SessionId(f"session_{other}"), {})))
        (share,) = await world["A"].shares(other)
        with pytest.raises(Refused, match="its id is a task's"):
            await world["A"].run(
                lambda tx: check_channel(tx, replace(job, job_id=share.task_id), world["A"].book.plan(job))
            )


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
