"""Deadlines, lost calls, restarts and reruns: nothing waits for ever, and both sides come to the same end."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Kind, Refused, Unavailable
from gateway.mgmt_plane.core.dag import Resources
from gateway.model import Grant, Outcome, Share
from gateway.ports import Tx
from gateway.runtime.cores import usable_cores
from gateway.runtime.slots import Capacity, Slots
from gateway.sdk.environment import MAX_THREADS
from specs.states import JobState, TaskState
from tests.control.test_two_nodes import agreed
from tests.control.world import FAST, Call, FakeRun, World, approved, fail, hang, job_file, succeed
from tests.waiting import eventually


def lose(world: World, *routes: str, times: int) -> list[Call]:
    """The first `times` calls of each of these routes do not arrive; a list of those that were lost."""
    lost: list[Call] = []

    def disturb(call: Call) -> None:
        if call.route in routes and [c.route for c in lost].count(call.route) < times:
            lost.append(call)
            raise Unavailable("lost on the way")

    world.disturb = disturb
    return lost


async def test_lost_calls_are_made_again(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        lost = lose(world, "job.create", "job.start", "task.start", "task.poll", times=1)
        job_id = await approved(world, job_file("psi", "split"))
        await agreed(world, job_id, Outcome.SUCCEEDED, "A", "B")
        assert {call.route for call in lost} >= {"job.create", "job.start", "task.start"}


@pytest.mark.req("C-055")
async def test_a_call_back_is_repeated_until_it_arrives(tmp_path: Path) -> None:
    patient = dict.fromkeys("AB", replace(FAST, silence_s=60))
    async with World(tmp_path, "A", "B", rules=patient).running() as world:
        await world.grant("B", "A")
        lost = lose(world, "task.callback", times=3)
        job = await world["A"].jobs.submit_file(job_file("psi"))
        plan = json.loads(json.dumps(job.config))
        assert plan["job_params"]["common"].get("sync_type") != "callback"
        await world["A"].schedule.stop(job.job_id)
        plan["job_params"]["common"]["sync_type"] = "callback"
        again = await world["A"].jobs.submit(dag=job.dag, config=plan, flow_id="", project_id=job.project_id, name="x")
        await world["B"].until(again.job_id, JobState.PENDING)
        await world["B"].jobs.decide(again.job_id, approve=True)
        await agreed(world, again.job_id, Outcome.SUCCEEDED, "A", "B")
        assert len(lost) == 3


async def test_who_gave_up_learns_how_it_ended(tmp_path: Path) -> None:
    """B hears nothing and ends its part; A, whose views of B's tasks were final, ends the job otherwise."""
    rules = {"A": replace(FAST, silence_s=60), "B": replace(FAST, silence_s=0.4)}
    async with World(tmp_path, "A", "B", rules=rules).running() as world:
        await world.grant("B", "A")
        go = asyncio.Event()

        async def later(run: FakeRun) -> int:
            await go.wait()
            return await succeed(run)

        world["A"].launcher.scripts["psi"] = later
        job_id = await approved(world, job_file("psi"))

        async def done_at_b() -> bool:
            return [v.status for v in await world["A"].views(job_id) if v.node_id == "B"] == [TaskState.SUCCESS]

        await eventually(done_at_b)
        world.down.add("A")
        at_b = await world["B"].until(job_id, JobState.FINISHED)
        assert (at_b.outcome, at_b.unsure) == (Outcome.FAILED, True)
        assert "has not confirmed that yet" in (await world["B"].jobs.show(job_id))["explanation"]
        go.set()
        await world["A"].until(job_id, JobState.FINISHED)
        world.down.clear()
        await agreed(world, job_id, Outcome.SUCCEEDED, "A", "B")


@pytest.mark.parametrize("decided", [False, True])
async def test_nothing_waits_for_an_approval_for_ever(tmp_path: Path, decided: bool) -> None:
    rules = dict.fromkeys("ABC", replace(FAST, approval_s=0.5))
    async with World(tmp_path, "A", "B", "C", rules=rules).running() as world:
        body = job_file()
        body["parties"] = {"guest": "A", "host": ["B", "C"]}
        body["data"] = {"guest": "ds-A", "host": ["ds-B", "ds-C"]}
        job = await world["A"].jobs.submit_file(body)
        await world["B"].until(job.job_id, JobState.PENDING)
        if decided:
            await world["B"].jobs.decide(job.job_id, approve=True)
        shown = await world["A"].jobs.show(job.job_id)
        waits = {wait["node_id"]: wait for wait in shown["waiting"]}
        assert "C" in waits
        assert waits["C"]["until"] == job.created + 500
        assert "given up at" in shown["explanation"]
        for name in "ABC":
            ended = await world[name].until(job.job_id, JobState.FINISHED)
            assert ended.outcome in {Outcome.FAILED, Outcome.REFUSED}
            assert ended.reason


async def test_a_task_waits_for_a_free_place_and_not_for_ever(tmp_path: Path) -> None:
    rules = {"A": replace(FAST, max_running=1, queue_s=0.5, threads=7), "B": FAST}
    async with World(tmp_path, "A", "B", rules=rules).running() as world:
        await world.grant("B", "A")
        world["A"].launcher.scripts["psi"] = hang
        first = await approved(world, job_file())
        await eventually(lambda: world["A"].launcher.runs)
        second = await approved(world, job_file())

        async def queued() -> bool:
            shown = await world["A"].jobs.show(second)
            return any("a free place for psi_1" in wait["what"] for wait in shown["waiting"])

        await eventually(queued)
        at_a = await world["A"].until(second, JobState.FINISHED)
        assert at_a.outcome is Outcome.FAILED
        assert "no free place" in (await world["A"].jobs.show(second))["explanation"]
        assert (await world["A"].job(first)).status is JobState.RUNNING
        threads = {name: world[name].launcher.runs[0].environment["interconn.threads"] for name in "AB"}
        assert threads == {"A": "7", "B": str(min(MAX_THREADS, usable_cores()))}  # nothing else runs there


async def test_what_a_job_waits_for_is_told(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        world["B"].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file())

        async def waits() -> bool:
            found = (await world["A"].jobs.show(job_id))["waiting"]
            return [(w["node_id"], w["task_name"]) for w in found] == [("B", "psi_1")] and found[0]["since"] > 0

        async def runs_at_b() -> bool:
            found = (await world["B"].jobs.show(job_id))["waiting"]
            return bool(found) and found[0]["what"].startswith("psi_1 here (host.0")

        await eventually(waits)
        await eventually(runs_at_b)
        at_b = (await world["B"].jobs.show(job_id))["waiting"][0]
        assert at_b["until"] > at_b["since"]


async def test_the_cause_names_party_component_and_code(tmp_path: Path) -> None:
    async def odd(run: FakeRun) -> int:
        run.report("result", {"code": "4003", "message": "row 17 is odd"})
        return 1

    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        world["A"].launcher.scripts["psi"] = hang
        world["B"].launcher.scripts["psi"] = odd
        job_id = await approved(world, job_file())
        at_a = await world["A"].until(job_id, JobState.FINISHED)
        assert at_a.reason.startswith("task psi_1 failed at B, role host, component psi, result code 4003 (")
        assert "row 17" not in at_a.reason, "the partner's message stays with the partner"
        assert "row 17" in (await world["B"].jobs.show(job_id))["explanation"]
        assert f"job logs {job_id} --partner B." in (await world["A"].jobs.show(job_id))["explanation"]


@pytest.mark.req("A-022")
async def test_exit_0_without_output_is_no_success(tmp_path: Path) -> None:
    async def nothing(run: FakeRun) -> int:
        return 0

    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        world["B"].launcher.scripts["psi"] = nothing
        job_id = await approved(world, job_file())
        await agreed(world, job_id, Outcome.FAILED, "A", "B")
        assert "did not write its output data0" in (await world["B"].jobs.show(job_id))["explanation"]


async def test_a_call_back_after_the_end_changes_nothing(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        job_id = await approved(world, job_file())
        await agreed(world, job_id, Outcome.SUCCEEDED, "A", "B")
        run = world["B"].launcher.runs[0].environment
        with pytest.raises(Refused) as error:
            world["B"].runner.called_back(
                task_id=run["config.task_id"], role="host.0", status="FAILED", token=run["config.token"]
            )
        assert error.value.kind is Kind.NOT_FOUND
        assert {s.status for s in await world["B"].shares(job_id)} == {TaskState.SUCCESS}


async def test_after_a_restart_what_was_not_begun_begins_and_what_is_gone_has_failed(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        node = world["B"]
        node.launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file())
        await eventually(lambda: node.launcher.runs)

        async def running() -> bool:
            return [s.status for s in await node.shares(job_id)] == [TaskState.RUNNING]

        await eventually(running)
        # As if the process had been killed before the component was started.
        await node.runner.close(leave=True)

        def back(tx: Tx) -> None:
            for share in tx.select(Share, job_id=job_id):
                tx.replace(share, replace(share, status=TaskState.READY, pid=None, started=None))

        await node.run(back)
        node.launcher.scripts["psi"] = succeed
        node.runner._closed = False
        node.runner._live.clear()
        await node.runner.adopt()
        await node.runner.start(schedule=node.schedule, changed=node.scheduler.wake)
        await agreed(world, job_id, Outcome.SUCCEEDED, "A", "B")
        assert len(node.launcher.runs) == 2


# --- rerun ------------------------------------------------------------------------------------------------------------


async def rerun(world: World, job_id: str, name: str | None = None, file: Any = None) -> str:
    again = await world["A"].jobs.rerun(job_id, name, file)
    await world["B"].until(again.job_id, JobState.PENDING)
    await world["B"].jobs.decide(again.job_id, approve=True)
    return again.job_id


def started(world: World, node: str) -> list[tuple[str, str]]:
    """(job, component) of every component that was started."""
    runs = [run.environment for run in world[node].launcher.runs]
    return [(e["config.session_id"].removeprefix("session_"), e["runtime.component.name"]) for e in runs]


async def test_what_has_succeeded_is_not_run_again(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        world["B"].launcher.scripts["split"] = fail
        first = await approved(world, job_file("psi", "split"))
        await agreed(world, first, Outcome.FAILED, "A", "B")
        assert f"interconn job rerun {first}" in (await world["A"].jobs.show(first))["explanation"]
        with pytest.raises(Refused, match="only A"):
            await world["B"].jobs.rerun(first, None)
        with pytest.raises(Refused, match="no task"):
            await world["A"].jobs.rerun(first, "nonsense")
        del world["B"].launcher.scripts["split"]
        second = await rerun(world, first)
        await agreed(world, second, Outcome.SUCCEEDED, "A", "B")
        for node in "AB":
            assert [name for job, name in started(world, node) if job == second] == ["split"]
            # What psi had written is there under the new run's own names, and split was given it.
            job, found = await world[node].jobs.artifacts(second)
            (party,) = world[node].book.own_parties(world[node].book.plan(job))
            places = [world[node].runner.artifact(job.job_id, party, a["namespace"], a["name"]) for a in found]
            assert all(places)
        assert {s.status for n in "AB" for s in await world[n].shares(second)} == {TaskState.SUCCESS}
        third = await rerun(world, second, "psi_1")
        await agreed(world, third, Outcome.SUCCEEDED, "A", "B")
        assert [name for job, name in started(world, "B") if job == third] == ["psi", "split"]


async def test_a_participant_reuses_only_what_was_the_same(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        first = await approved(world, job_file("psi", "split"))
        await agreed(world, first, Outcome.SUCCEEDED, "A", "B")
        job = await world["A"].job(first)
        config: Any = json.loads(json.dumps(job.config))
        config["job_params"]["common"]["rerun"] = {"job_id": first, "tasks": ["psi_1"]}
        config["task_params"]["common"].setdefault("psi_1", {})["wait_seconds"] = 77
        again = await world["A"].jobs.submit(
            dag=job.dag, config=config, flow_id="", project_id=job.project_id, name="other"
        )
        await world["B"].until(again.job_id, JobState.PENDING)
        await world["B"].jobs.decide(again.job_id, approve=True)
        ended = await world["A"].until(again.job_id, JobState.FINISHED)
        assert "other parameters" in ended.reason
        config["job_params"]["common"]["rerun"] = {"job_id": first, "tasks": ["split_1"]}
        with pytest.raises(Exception, match="psi_1, which is run again"):
            await world["A"].jobs.submit(dag=job.dag, config=config, flow_id="", project_id="p", name="x")


async def test_a_corrected_job_file_runs_what_it_changes(tmp_path: Path) -> None:
    """A wrong parameter behind a long first step: the first step need not run again, also where steps were added."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        world["B"].launcher.scripts["split"] = fail
        first = await approved(world, job_file("psi", {"component": "split", "params": {"seed": "a"}}))
        await agreed(world, first, Outcome.FAILED, "A", "B")
        del world["B"].launcher.scripts["split"]
        corrected = job_file("psi", {"component": "split", "params": {"seed": "b"}}, "feature_encode")
        second = await rerun(world, first, None, corrected)
        await agreed(world, second, Outcome.SUCCEEDED, "A", "B")
        assert [name for job, name in started(world, "B") if job == second] == ["split", "feature_encode"]
        # Another parameter of the first step makes all run; what is not in the file is not run.
        third = await rerun(world, second, None, job_file({"component": "psi", "params": {"wait_seconds": 60}}))
        await agreed(world, third, Outcome.SUCCEEDED, "A", "B")
        assert [name for job, name in started(world, "B") if job == third] == ["psi"]
        turned = {"parties": {"guest": "B", "host": "A"}, "data": {"guest": "ds-B", "host": "ds-A"}}
        with pytest.raises(Refused, match="other parties"):
            await world["A"].jobs.rerun(first, None, job_file("psi", **turned))


async def test_a_grant_of_fewer_columns_brings_no_old_output_back(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        first = await approved(world, job_file("psi", "split"))
        await agreed(world, first, Outcome.SUCCEEDED, "A", "B")

        def narrow(tx: Tx) -> None:
            (grant,) = tx.select(Grant, dataset_id="ds-B")
            tx.replace(grant, replace(grant, columns=("id",)))

        await world["B"].run(narrow)
        second = await rerun(world, first, "split_1")
        await agreed(world, second, Outcome.FAILED, "A", "B")
        share = next(s for s in await world["B"].shares(second) if s.task_name == "psi_1")
        assert "covers other columns" in share.message


# --- places on a node -------------------------------------------------------------------------------------------------


async def test_places_are_given_in_order_and_within_the_capacity() -> None:
    slots = Slots(Capacity(running=3, cpus=4, memory=8))
    order: list[str] = []
    holds: dict[str, asyncio.Event] = {}

    async def one(name: str, need: Resources, *, at_once: bool = False) -> None:
        async with slots.turn(need, at_once=at_once):
            order.append(name)
            holds[name] = asyncio.Event()
            await holds[name].wait()

    def begin(name: str, need: Resources, *, at_once: bool = False) -> asyncio.Task[None]:
        return asyncio.ensure_future(one(name, need, at_once=at_once))

    tasks = [begin("a", Resources(cpu=3)), begin("b", Resources(cpu=2)), begin("c", Resources())]
    await asyncio.sleep(0.01)
    assert order == ["a"], "c would fit, but b came first"
    gone = begin("d", Resources(memory=1))
    await asyncio.sleep(0.01)
    gone.cancel()
    adopted = begin("e", Resources(cpu=4), at_once=True)
    await asyncio.sleep(0.01)
    assert order == ["a", "e"], "what runs already is not made to wait"
    holds["a"].set()
    holds["e"].set()
    await asyncio.sleep(0.01)
    assert order == ["a", "e", "b", "c"]
    with pytest.raises(Refused, match="5 cpus are asked for, this node gives 4"):
        await one("f", Resources(cpu=5))
    for name in "bc":
        holds[name].set()
    await asyncio.gather(*tasks, adopted)
    assert (slots._running, slots._cpus, slots._memory) == (0, 0, 0)
