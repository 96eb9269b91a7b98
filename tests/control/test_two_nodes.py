"""A job of two nodes through the real services: who calls whom, what each ends up with, and what goes wrong."""

import asyncio
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import WIRE, Kind, PeerError, Unavailable
from gateway.model import NodeId, Outcome, TraceId
from gateway.ports import Caller, EdgeRequest, Tx
from specs.states import JobState, TaskState
from tests.control.world import FAST, TOKEN, Call, World, approved, fail, hang, job_file, succeed
from tests.waiting import eventually

STEPS = (
    "psi",
    "split",
    "feature_encode",
    {"component": "hetero_lr", "guest": {"label": "age"}},
    "hetero_lr_predict",
    "evaluation",
)


async def call(world: World, route: str, body: Any, *, source: str = "A", target: str = "B", tokens: str = "") -> Any:
    return await world.carry(Call(source, target, route, body, tokens), TraceId("t"))


async def agreed(world: World, job_id: str, outcome: Outcome, *nodes: str) -> None:
    """These nodes come to the same end and know that they do."""

    async def same() -> bool:
        jobs = [await world[node].job(job_id) for node in nodes]
        return all((job.status, job.outcome, job.unsure) == (JobState.FINISHED, outcome, False) for job in jobs)

    await eventually(same)


async def shares_at(world: World, node: str, job_id: str, count: int) -> None:
    async def enough() -> bool:
        return len(await world[node].shares(job_id)) >= count

    await eventually(enough)


async def refused(world: World, route: str, body: Any, kind: Kind, **where: str) -> str:
    with pytest.raises(PeerError) as error:
        await call(world, route, body, **where)
    assert WIRE[kind].code > 200
    assert error.value.peer_code == str(WIRE[kind].code), error.value
    return str(error.value)


@pytest.mark.req("C-013", "C-033", "C-034", "C-035", "C-042", "C-054", "C-064", "C-113", "C-116")
async def test_a_whole_job(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        job_id = await approved(world, job_file(*STEPS))
        at_a = await world["A"].until(job_id, JobState.FINISHED)
        at_b = await world["B"].until(job_id, JobState.FINISHED)
        await asyncio.sleep(0.1)
        at_b = await world["B"].job(job_id)
        assert (at_a.outcome, at_b.outcome) == (Outcome.SUCCEEDED, Outcome.SUCCEEDED)
        assert {s.status for n in "AB" for s in await world[n].shares(job_id)} == {TaskState.SUCCESS}
        counts = Counter(c.route for c in world.calls)
        assert counts["job.create"] == counts["job.start"] == 1
        assert counts["task.start"] == 5  # evaluation runs at the guest only
        create = world.routes("job.create")[0].body
        assert create["job_id"] == job_id
        assert create["flow_id"] == at_a.flow_id
        assert (create["dag"], create["config"]) == (at_a.dag, at_a.config)
        ids = {s.task_name: s.task_id for s in await world["A"].shares(job_id)}
        started = {c.body["task_name"]: c.body["task_id"] for c in world.routes("task.start")}
        assert all(ids[name] == task_id for name, task_id in started.items())
        assert all(set(c.body) == {"task_id", "job_id", "task_name"} for c in world.routes("task.start"))
        # No task began before those whose outputs it reads had ended, on either side.
        plan = world["A"].book.plan(at_a)
        for name in "AB":
            shares = {s.task_name: s for s in await world[name].shares(job_id)}
            for task, share in shares.items():
                for edge in plan.nodes[task].inputs:
                    assert share.created >= (shares[edge.producer].finished or 0) > 0
        assert all(re.fullmatch(r"task_[0-9a-z]{32}", task_id) for task_id in ids.values())
        assert {(c.body["role"], c.target) for c in world.routes("task.poll")} == {("host", "B")}
        environments = [run.environment for n in "AB" for run in world[n].launcher.runs]
        assert {e["config.session_id"] for e in environments} == {f"session_{job_id}"}
        split = next(
            e for e in environments if e["runtime.component.name"] == "split" and e["config.self_role"] == "guest.0"
        )
        assert json.loads(split["runtime.component.input.data0"]) == {
            "namespace": f"{job_id}-guest-0",
            "name": f"{ids['psi_1']}-data0",
        }
        # Clean-up is told, and the session is closed on both sides.
        assert [c.body for c in world.routes("job.stop")] == [{"job_id": job_id, "job_outcome": "succeeded"}]
        assert world["A"].data_plane.closed == world["B"].data_plane.closed == [f"session_{job_id}"]
        # The permit went along, and B's messages to A carry no token of anybody's.
        token = at_a.permits["ds-B"]["token"]
        assert token in world.routes("job.create")[0].token_set
        assert world["A"].data_plane.history[0].outgoing["B"] == token


async def test_where_the_messages_of_a_job_are_kept(tmp_path: Path) -> None:
    """As the job says, on every node of it; where it does not, as each node's own default says."""
    rules = {"A": FAST, "B": replace(FAST, durability="spool")}
    async with World(tmp_path, "A", "B", rules=rules).running() as world:
        await world.grant("B", "A")
        for extra, expected in [({"durability": "spool"}, ("spool", "spool")), ({}, ("memory", "spool"))]:
            job_id = await approved(world, job_file("psi", **extra))
            await world["A"].until(job_id, JobState.FINISHED)
            opened = [world[name].data_plane.history[-1].durability for name in "AB"]
            assert tuple(opened) == expected


@pytest.mark.req("M-065")
async def test_nothing_runs_before_all_have_approved(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        job = await world["A"].jobs.submit_file(job_file())
        await world["B"].until(job.job_id, JobState.PENDING)
        shown = await world["A"].jobs.show(job.job_id)
        assert "Waits for the approval of B since" in shown["explanation"]
        assert "this node's own decision" in (await world["B"].jobs.show(job.job_id))["explanation"]
        create = {"job_id": job.job_id, "dag": job.dag, "config": job.config}
        await refused(world, "job.create", create, Kind.FORBIDDEN)
        assert (await world["B"].job(job.job_id)).status is JobState.PENDING
        await world["B"].jobs.decide(job.job_id, approve=True)
        await world["A"].until(job.job_id, JobState.FINISHED)


@pytest.mark.req("M-065", "M-074")
async def test_one_approval_of_two_is_not_enough(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "C").running() as world:
        body = job_file()
        body["parties"] = {"guest": "A", "host": ["B", "C"]}
        body["data"] = {"guest": "ds-A", "host": ["ds-B", "ds-C"]}
        job = await world["A"].jobs.submit_file(body)
        for name in "BC":
            await world[name].until(job.job_id, JobState.PENDING)
        for call in world.routes("job.audit.apply"):
            assert call.body["conf"] == job.config
            assert "config" not in call.body
        await world["B"].jobs.decide(job.job_id, approve=True)

        async def answered() -> bool:
            audits = (await world["A"].jobs.show(job.job_id))["audits"]
            return {each["peer_node_id"]: each["status"] for each in audits} == {"B": "APPROVED", "C": "APPLIED"}

        await eventually(answered)
        assert (await world["A"].job(job.job_id)).status is JobState.PENDING
        assert not world.routes("job.create")
        await world["C"].jobs.decide(job.job_id, approve=True)
        await eventually(lambda: world.routes("job.create"))


@pytest.mark.req("C-069")
async def test_one_refusal_rejects_the_job(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        job = await world["A"].jobs.submit_file(job_file())
        await world["B"].until(job.job_id, JobState.PENDING)
        await world["B"].jobs.decide(job.job_id, approve=False)
        at_a = await world["A"].until(job.job_id, JobState.REJECTED)
        at_b = await world["B"].job(job.job_id)
        assert at_b.status is JobState.REJECTED
        shown = await call(world, "job.status_all", {"job_id": job.job_id}, source="B", target="A")
        assert shown["job_status"] == "REJECTED"
        assert {s.value for s in JobState} == {"PENDING", "READY", "REJECTED", "RUNNING", "FINISHED"}
        assert at_a.outcome is Outcome.REFUSED
        assert "B refused" in at_a.reason
        assert not world.routes("job.create", "job.start")


@pytest.mark.req("M-066")
async def test_a_refusal_releases_who_has_approved(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "C").running() as world:
        body = job_file()
        body["parties"] = {"guest": "A", "host": ["B", "C"]}
        body["data"] = {"guest": "ds-A", "host": ["ds-B", "ds-C"]}
        job = await world["A"].jobs.submit_file(body)
        for name in "BC":
            await world[name].until(job.job_id, JobState.PENDING)
        await world["B"].jobs.decide(job.job_id, approve=True)
        await world["C"].jobs.decide(job.job_id, approve=False)
        await world["A"].until(job.job_id, JobState.REJECTED)
        at_b = await world["B"].until(job.job_id, JobState.FINISHED)
        assert (at_b.outcome, at_b.reason) == (Outcome.REFUSED, "the approval was withdrawn")


@pytest.mark.req("C-041", "C-062", "C-081", "C-084", "C-087")
async def test_a_failing_task_ends_the_job_everywhere(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        world["B"].launcher.scripts["psi"] = fail
        world["A"].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file("psi", "split"))
        at_a = await world["A"].until(job_id, JobState.FINISHED)
        at_b = await world["B"].until(job_id, JobState.FINISHED)
        assert at_a.outcome is at_b.outcome is Outcome.FAILED
        assert "psi_1 failed at B" in at_a.reason
        assert [s.status for n in "AB" for s in await world[n].shares(job_id)] == [TaskState.FAILED] * 2
        await eventually(lambda: all(run.killed for run in world["A"].launcher.runs))
        text = (await world["B"].jobs.show(job_id))["explanation"]
        assert all(
            word in text for word in ("psi_1", "component psi", "host.0", "4003", "no common ids", "same kind of id")
        )
        assert {c.body["task_name"] for c in world.routes("task.start")} == {"psi_1"}
        assert world.routes("job.stop", source="A")


@pytest.mark.req("C-080", "C-083", "C-085", "C-091")
async def test_stop_by_either_side(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        for stopper in "AB":
            for node in "AB":
                world[node].launcher.scripts["psi"] = hang
            job_id = await approved(world, job_file())
            await world["B"].until(job_id, JobState.RUNNING)
            await shares_at(world, "B", job_id, 1)
            await world[stopper].schedule.stop(job_id)
            for node in "AB":
                ended = await world[node].until(job_id, JobState.FINISHED)
                assert ended.outcome is Outcome.STOPPED, (node, ended)
                assert {s.status for s in await world[node].shares(job_id)} == {TaskState.FAILED}
            assert await call(world, "job.stop", {"job_id": job_id}) == {}
            assert await call(world, "job.stop_all", {"job_id": job_id}, source="B", target="A") == {}
            await world["A"].schedule.stop(job_id)


@pytest.mark.req("C-040", "C-082", "C-088", "C-090")
async def test_stop_from_a_task_on_leaves_the_other_branch(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        gate = asyncio.Event()

        async def waits(run: Any) -> int:
            await gate.wait()
            return await succeed(run)

        steps = (
            "psi",
            {"component": "split", "name": "left", "inputs": {"data0": "psi_1.data0"}},
            {"component": "split", "name": "right", "inputs": {"data0": "psi_1.data0"}},
            {"component": "feature_encode", "inputs": {"train": "left.train", "test": "left.test"}},
        )
        for node in "AB":
            world[node].launcher.scripts["split"] = waits
        job_id = await approved(world, job_file(*steps))
        await shares_at(world, "B", job_id, 3)
        # Both branches run at the same time; stop one of them.
        stop = world["A"].platform.handlers()["platform.job.stop_task"]
        ours = EdgeRequest("POST", "/", {}, "", {"authorization": f"Bearer {TOKEN}"}, b"", None, "127.0.0.1")
        await stop(ours, {"job_id": job_id, "task_name": "left"})
        assert (await world["A"].job(job_id)).status is JobState.RUNNING

        async def arrived() -> bool:
            return any(s.task_name == "left" and s.status is TaskState.FAILED for s in await world["B"].shares(job_id))

        await eventually(arrived)
        gate.set()
        at_a = await world["A"].until(job_id, JobState.FINISHED)
        await world["B"].until(job_id, JobState.FINISHED)
        assert (at_a.outcome, at_a.reason[:16]) == (Outcome.STOPPED, "stopped from fea"), at_a.reason
        for node in "AB":
            found = {s.task_name: s.status for s in await world[node].shares(job_id)}
            assert found == {"psi_1": TaskState.SUCCESS, "left": TaskState.FAILED, "right": TaskState.SUCCESS}


@pytest.mark.req("C-086")
async def test_clean_up_stop_changes_nothing(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        for node in "AB":
            world[node].launcher.scripts["split"] = hang
        job_id = await approved(world, job_file("psi", "split"))
        await shares_at(world, "B", job_id, 2)
        before = {s.task_name: s.status for s in await world["B"].shares(job_id)}
        assert before["psi_1"] is TaskState.SUCCESS
        assert await call(world, "job.stop", {"job_id": job_id, "task_name": "psi_1"}) == {}
        assert {s.task_name: s.status for s in await world["B"].shares(job_id)}["psi_1"] is TaskState.SUCCESS
        assert {s.status for s in await world["B"].shares(job_id)} & {TaskState.FAILED} == set()
        assert (await world["B"].job(job_id)).status is JobState.RUNNING
        await world["A"].schedule.stop(job_id)


@pytest.mark.req("C-009", "C-015", "C-016", "C-018", "C-020", "C-004")
async def test_create_is_checked_and_idempotent(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "C").running() as world:
        await world.grant("B", "A")

        def hold(c: Call) -> None:
            # Neither does B hear that A has given up: it still knows the job from its audit alone.
            if c.route in ("job.create", "job.stop") and not c.body.get("by_hand"):
                raise Unavailable("not yet")

        world.disturb = hold
        job_id = await approved(world, job_file())
        at_b = await world["B"].until(job_id, JobState.READY)
        await world["A"].until(job_id, JobState.FINISHED)
        good = {"job_id": job_id, "dag": at_b.dag, "config": at_b.config, "by_hand": True}
        tokens = (await world["A"].job(job_id)).permits["ds-B"]["token"]
        tokens = f"urn:x/2/{tokens}"
        assert at_b.scheduler == ""
        for member in ("job_id", "dag", "config"):
            await refused(world, "job.create", {k: v for k, v in good.items() if k != member}, Kind.MALFORMED)
        await refused(world, "job.create", good, Kind.FORBIDDEN, source="C")
        dag = json.loads(json.dumps(at_b.dag))
        dag["components"][0]["input"] = [{"key": "psi_1.data0", "type": "dataset"}]
        assert "cycle" in await refused(world, "job.create", {**good, "dag": dag}, Kind.BAD_DAG)
        await refused(world, "job.create", {**good, "dag": {"version": "2", "components": []}}, Kind.BAD_DAG)
        other = json.loads(json.dumps(at_b.dag))
        other["components"][0]["version"] = "9.9.9"
        await refused(world, "job.create", {**good, "dag": other}, Kind.CONFLICT)
        config = json.loads(json.dumps(at_b.config))
        config["role"]["host"] = ["C"]
        await refused(world, "job.create", {**good, "job_id": "job-x", "config": config}, Kind.NODE_UNKNOWN)
        # Without the permit the dataset stays closed, and nothing is stored.
        await refused(world, "job.create", good, Kind.GRANT_MISSING)
        assert (await world["B"].job(job_id)).scheduler == ""
        assert await call(world, "job.create", good, tokens=tokens) == {}
        assert await call(world, "job.create", good, tokens=tokens) == {}
        config = json.loads(json.dumps(at_b.config))
        config["task_params"]["common"]["psi_1"]["wait_seconds"] = 1
        await refused(world, "job.create", {**good, "config": config}, Kind.CONFLICT)


@pytest.mark.req("C-017")
async def test_an_unregistered_component_is_refused_where_it_is_missing(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        from gateway.model import Component

        await world["B"].run(lambda tx: tx.delete(tx.get(Component, "interconn/psi/1.0.0")))
        job_id = await approved(world, job_file())
        ended = await world["A"].until(job_id, JobState.FINISHED)
        assert ended.outcome is Outcome.FAILED
        assert "B did not create the job" in ended.reason
        assert "psi 1.0.0 of interconn is not registered here" in ended.reason
        assert await world["A"].shares(job_id) == []


@pytest.mark.req("C-014")
async def test_who_accepted_is_stopped_when_another_refuses(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "C").running() as world:
        await world.grant("B", "A")
        # C granted nothing.
        body = job_file()
        body["parties"] = {"guest": "A", "host": ["B", "C"]}
        body["data"] = {"guest": "ds-A", "host": ["ds-B", "ds-C"]}
        job_id = await approved(world, body, by=("B", "C"))
        at_a = await world["A"].until(job_id, JobState.FINISHED)
        assert "C did not create the job" in at_a.reason
        await eventually(lambda: [c for c in world.routes("job.stop", source="A") if c.target == "B"])
        await world["B"].until(job_id, JobState.FINISHED)
        await agreed(world, job_id, Outcome.FAILED, "A", "B")
        assert not world.routes("job.start", "task.start")


@pytest.mark.req("C-021", "C-031", "C-032", "C-037", "C-038", "C-039", "C-009")
async def test_start_calls_in_the_wrong_place(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "C").running() as world:
        await world.grant("B", "A")
        world["B"].launcher.scripts["psi"] = hang
        world["A"].launcher.scripts["psi"] = hang

        await refused(world, "job.start", {"job_id": "job-unknown"}, Kind.NOT_FOUND)
        unknown = {"task_id": "task_1", "job_id": "job-unknown", "task_name": "psi_1"}
        await refused(world, "task.start", unknown, Kind.NOT_FOUND)
        # Nobody drives this job but the test.
        for node in "AB":
            world[node].scheduler._drive = lambda job_id: None  # type: ignore[assignment]
        job_id = await approved(world, job_file())
        at_a = await world["A"].until(job_id, JobState.READY)
        permits = await world["A"].run(
            lambda tx: world["A"].grants.permits_held(
                tx, holder="B", dataset_ids=["ds-B"], now=world["A"].clock.now_ms()
            )
        )
        tokens = world["A"].grants.token_set(permits)
        task = {"task_id": "task_1", "job_id": job_id, "task_name": "psi_1"}
        create = {"job_id": job_id, "flow_id": "f", "dag": at_a.dag, "config": at_a.config}
        await refused(world, "job.start", {"job_id": job_id}, Kind.ILLEGAL_TRANSITION)
        await call(world, "job.create", create, tokens=tokens)
        assert (await world["B"].job(job_id)).status is JobState.READY
        await refused(world, "task.start", task, Kind.ILLEGAL_TRANSITION)
        await refused(world, "job.start", {"job_id": job_id}, Kind.FORBIDDEN, source="C")
        await call(world, "job.start", {"job_id": job_id})
        await call(world, "job.start", {"job_id": job_id})
        assert (await world["B"].job(job_id)).status is JobState.RUNNING
        await refused(world, "task.start", {**task, "task_name": "nobody"}, Kind.NOT_FOUND)
        await refused(world, "task.start", {**task, "task_id": "../../etc"}, Kind.MALFORMED)
        for _ in range(3):
            await call(world, "task.start", task)
        await refused(world, "task.start", {**task, "task_id": "task_2"}, Kind.CONFLICT)
        await eventually(lambda: world["B"].launcher.runs)
        assert len(world["B"].launcher.runs) == 1

        # Poll, with every spelling of the role.
        async def runs() -> bool:
            return (await call(world, "task.poll", {"task_id": "task_1", "role": ""}))["status"] == "RUNNING"

        await eventually(runs)
        for role in ("", "host", "host.0", "whoever"):
            assert (await call(world, "task.poll", {"task_id": "task_1", "role": role}))["status"] == "RUNNING"
        await call(world, "job.stop", {"job_id": job_id})
        assert (await call(world, "task.poll", {"task_id": "task_1", "role": "host"}))["status"] == "FAILED"
        assert len(world["B"].launcher.runs) == 1


@pytest.mark.req("C-050", "C-051", "C-052", "C-053", "C-057", "C-058", "C-063", "C-066", "C-067", "C-009")
async def test_states_are_told_to_participants_only(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "C").running() as world:
        await world.grant("B", "A")
        for node in "AB":
            world[node].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file())
        await eventually(lambda: world["B"].launcher.runs)
        task_id = (await world["B"].shares(job_id))[0].task_id
        await refused(world, "task.poll", {"task_id": "task_unknown", "role": "host"}, Kind.NOT_FOUND)
        assert (WIRE[Kind.NOT_FOUND].http, WIRE[Kind.NOT_FOUND].code) == (200, 404)
        await refused(world, "task.poll", {"task_id": task_id}, Kind.MALFORMED)
        await refused(world, "task.poll", {"task_id": task_id, "role": "host"}, Kind.FORBIDDEN, source="C")
        for role in ("", "host", "host.0", "whoever"):
            answer = await call(world, "task.poll", {"task_id": task_id, "role": role})
            assert answer["status"] in {"READY", "RUNNING"}
        at_a = await call(world, "job.status_all", {"job_id": job_id}, source="B", target="A")
        assert at_a["job_status"] == "RUNNING"
        assert set(at_a["status"]) == {task_id}
        await refused(world, "job.status_all", {"job_id": "nope"}, Kind.NOT_FOUND)
        await refused(world, "job.status_all", {"job_id": job_id}, Kind.FORBIDDEN, source="C")
        back = {"task_id": task_id, "status": "SUCCESS", "role": "host"}
        await refused(world, "task.callback", back, Kind.FORBIDDEN, source="C", target="A")
        await refused(world, "task.callback", {**back, "status": "DONE"}, Kind.MALFORMED, source="B", target="A")
        await refused(world, "task.callback", {**back, "task_id": "x"}, Kind.NOT_FOUND, source="B", target="A")
        before = {v.role: v.status for v in await world["A"].views(job_id)}
        assert before["host"] is not TaskState.SUCCESS
        await call(world, "task.callback", back, source="B", target="A")
        after = {v.role: v.status for v in await world["A"].views(job_id)}
        assert after["host"] is TaskState.SUCCESS
        both = await call(world, "job.status_all", {"job_id": job_id}, source="B", target="A")
        assert both["status"][task_id] in {"READY", "RUNNING"}
        assert after["guest"] is before["guest"] or after["guest"] is TaskState.RUNNING
        await world["A"].schedule.stop(job_id)


@pytest.mark.req("C-055")
async def test_callback_mode_without_any_poll(tmp_path: Path) -> None:
    quick = replace(FAST, silence_s=0.4)
    async with World(tmp_path, "A", "B", rules={"A": quick, "B": quick}).running() as world:
        await world.grant("B", "A")

        def no_polls(c: Call) -> None:
            if c.route == "task.poll":
                raise PeerError("no", peer_code="400")

        world.disturb = no_polls

        # Who calls back is polled rarely: long enough for more refusals than a node that is polled may give.
        async def slow(run: Any) -> int:
            await eventually(lambda: len(world.routes("task.poll")) > FAST.misses + 1)
            return await succeed(run)

        world["B"].launcher.scripts["psi"] = slow
        job_id = await approved(world, job_file("psi", "split", sync_type="callback"))
        assert (await world["A"].until(job_id, JobState.FINISHED)).outcome is Outcome.SUCCEEDED
        words = [c.body["status"] for c in world.routes("task.callback", source="B")]
        assert words == ["RUNNING", "SUCCESS", "RUNNING", "SUCCESS"]


@pytest.mark.req("C-036", "C-111", "C-112")
async def test_one_node_in_two_roles(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        body = job_file()
        body["parties"] = {"guest": "A", "host": ["B", "A"]}
        body["data"] = {"guest": "ds-A", "host": ["ds-B", "ds-A"]}
        await world.grant("B", "A")
        job_id = await approved(world, body)
        assert (await world["A"].until(job_id, JobState.FINISHED)).outcome is Outcome.SUCCEEDED
        mine = {run.environment["config.self_role"] for run in world["A"].launcher.runs}
        assert mine == {"guest.0", "host.1"}
        environment = world["A"].launcher.runs[0].environment
        assert {k: v for k, v in environment.items() if k.startswith("config.node_id.")} == {
            "config.node_id.guest.0": "A",
            "config.node_id.host.0": "B",
            "config.node_id.host.1": "A",
        }
        assert environment["config.inst_id.host.0"] == "inst-B"
        assert environment["config.inst_id.host.1"] == "inst-A"
        assert Counter(c.route for c in world.calls)["task.start"] == 1


@pytest.mark.req("C-030", "C-036")
async def test_a_partner_in_two_roles_is_called_once(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        body = job_file()
        body["parties"] = {"guest": "A", "host": ["B", "B"]}
        body["data"] = {"guest": "ds-A", "host": ["ds-B", "ds-B"]}
        await world.grant("B", "A")
        job_id = await approved(world, body)
        assert (await world["A"].until(job_id, JobState.FINISHED)).outcome is Outcome.SUCCEEDED
        counts = Counter(c.route for c in world.calls)
        assert counts["job.create"] == counts["job.start"] == counts["task.start"] == 1
        assert {(s.role, s.index) for s in await world["B"].shares(job_id)} == {("host", 0), ("host", 1)}


@pytest.mark.req("C-089")
async def test_a_partner_that_disappears(tmp_path: Path) -> None:
    from dataclasses import replace

    quick = replace(FAST, silence_s=0.8)
    async with World(tmp_path, "A", "B", rules={"A": quick, "B": quick}).running() as world:
        await world.grant("B", "A")
        for node in "AB":
            world[node].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file())
        await eventually(lambda: world["A"].launcher.runs and world["B"].launcher.runs)
        world.down.add("B")
        at_a = await world["A"].until(job_id, JobState.FINISHED)
        assert at_a.outcome is Outcome.FAILED
        assert re.search(r"failed at B, role host, component psi \(no answer to \d+ polls\)", at_a.reason)
        assert {s.status for s in await world["A"].shares(job_id)} == {TaskState.FAILED}
        at_b = await world["B"].until(job_id, JobState.FINISHED)
        assert at_b.outcome is Outcome.FAILED
        assert "no word from the scheduler A" in at_b.reason
        assert {s.status for s in await world["B"].shares(job_id)} == {TaskState.FAILED}


@pytest.mark.req("C-089")
async def test_one_that_cannot_be_reached_does_not_keep_the_others_from_stopping(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "C").running() as world:
        for holder in "BC":
            await world.grant(holder, "A")
        body = job_file()
        body["parties"] = {"guest": "A", "host": ["B", "C"]}
        body["data"] = {"guest": "ds-A", "host": ["ds-B", "ds-C"]}
        for node in "ABC":
            world[node].launcher.scripts["psi"] = hang
        job_id = await approved(world, body, by=("B", "C"))
        await eventually(lambda: all(world[node].launcher.runs for node in "ABC"))
        world.down.add("B")
        await world["A"].schedule.stop(job_id)
        await eventually(lambda: [c for c in world.routes("job.stop", source="A") if c.target == "C"])
        await world["C"].until(job_id, JobState.FINISHED)
        assert {s.status for n in "AC" for s in await world[n].shares(job_id)} == {TaskState.FAILED}


async def test_a_participant_learns_of_an_end_it_was_not_told(tmp_path: Path) -> None:
    from dataclasses import replace

    quick = replace(FAST, silence_s=0.8)
    async with World(tmp_path, "A", "B", rules={"A": quick, "B": quick}).running() as world:
        await world.grant("B", "A")

        def lose_stops(c: Call) -> None:
            if c.route == "job.stop":
                raise Unavailable("lost")

        world.disturb = lose_stops
        job_id = await approved(world, job_file())
        await world["A"].until(job_id, JobState.FINISHED)
        at_b = await world["B"].until(job_id, JobState.FINISHED)
        assert at_b.outcome is Outcome.SUCCEEDED
        assert world.routes("job.status_all", source="B")


async def test_the_last_task_failing_elsewhere_is_learnt(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        world["A"].launcher.scripts["evaluation"] = fail
        job_id = await approved(world, job_file(*STEPS))
        await world["A"].until(job_id, JobState.FINISHED)
        for _ in range(200):
            at_b = await world["B"].job(job_id)
            if at_b.outcome is Outcome.FAILED:
                break
            await asyncio.sleep(0.01)
        assert at_b.status is JobState.FINISHED
        assert at_b.outcome is Outcome.FAILED
        assert {s.status for s in await world["B"].shares(job_id)} == {TaskState.SUCCESS}


@pytest.mark.req("A-026")
async def test_deadlines(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        for node in "AB":
            world[node].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file(deadlines={"task_s": 0.2}))
        ended = await world["A"].until(job_id, JobState.FINISHED)
        assert ended.outcome is Outcome.FAILED
        shares = [*await world["A"].shares(job_id), *await world["B"].shares(job_id)]
        assert any("time limit" in share.message for share in shares)
        job_id = await approved(world, job_file(deadlines={"job_s": 0.2}))
        ended = await world["A"].until(job_id, JobState.FINISHED)
        assert "did not end within 0.2 s; it waited for psi_1" in ended.reason
        await world["B"].until(job_id, JobState.FINISHED)


async def test_granted_columns_only_are_staged(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A", columns=("id", "age"))
        job_id = await approved(world, job_file())
        await world["A"].until(job_id, JobState.FINISHED)
        store = tmp_path / "B" / "jobs" / job_id / "host-0" / "store" / "source" / "ds-B"
        assert (store / "data_0").read_text() == "id,age\n1,30\n2,40\n"
        assert [c["name"] for c in json.loads((store / "metadata").read_text())["column_info"]] == ["id", "age"]
        own = tmp_path / "A" / "jobs" / job_id / "guest-0" / "store" / "source" / "ds-A"
        assert (own / "data_0").read_text().startswith("id,age,secret\n")


async def test_a_grant_for_another_component_does_not_open_the_data(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A", auth_scope={"COMPONENT": ["psi"]})
        job_id = await approved(world, job_file("psi", "split"))
        ended = await world["A"].until(job_id, JobState.FINISHED)
        assert ended.outcome is Outcome.FAILED
        assert "B did not create" in ended.reason
        job_id = await approved(world, job_file("psi"))
        assert (await world["A"].until(job_id, JobState.FINISHED)).outcome is Outcome.SUCCEEDED


async def test_no_task_id_leads_a_task_to_anothers_output(tmp_path: Path) -> None:
    """`t` with output `z-data0` and `t-z` with output `data0` would be one artifact: data past a grant's scope."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        for node in "AB":
            world[node].scheduler._drive = lambda job_id: None  # type: ignore[assignment]
        psi = {"componentName": "psi", "provider": "interconn", "version": "1.0.0"}
        dag = {
            "components": [
                {"name": name, **psi, "input": [], "output": [{"type": "dataset", "key": key}]}
                for name, key in (("one", "data0"), ("two", "z-data0"), ("three", "data1"))
            ]
        }
        config = {
            "initiator": {"role": "guest", "node_id": "A"},
            "role": {"guest": ["A"], "host": ["B"]},
            "task_params": {
                side: {"0": {n: {"dataset_id": f"ds-{at}"} for n in ("one", "two", "three")}}
                for side, at in (("guest", "A"), ("host", "B"))
            },
        }
        job = await world["A"].jobs.submit(dag=dag, config=config, flow_id="", project_id="", name="")
        await world["B"].until(job.job_id, JobState.PENDING)
        await world["B"].jobs.decide(job.job_id, approve=True)
        await world["A"].until(job.job_id, JobState.READY)
        now = world["A"].clock.now_ms()
        permits = await world["A"].run(
            lambda tx: world["A"].grants.permits_held(tx, holder="B", dataset_ids=["ds-B"], now=now)
        )
        create = {"job_id": job.job_id, "flow_id": "f", "dag": dag, "config": config}
        await call(world, "job.create", create, tokens=world["A"].grants.token_set(permits))
        await call(world, "job.start", {"job_id": job.job_id})
        task = {"job_id": job.job_id, "task_name": "one", "task_id": "t-z"}
        await call(world, "task.start", task)
        await refused(world, "task.start", {**task, "task_name": "two", "task_id": "t"}, Kind.CONFLICT)
        await call(world, "task.start", {**task, "task_name": "three", "task_id": "t"})
        await world["A"].schedule.stop(job.job_id)


@pytest.mark.req("M-066")
async def test_a_withdrawn_approval_ends_the_job(tmp_path: Path) -> None:
    from gateway.model import Direction
    from specs.states import ApprovalState, AuditKind

    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        for node in "AB":
            world[node].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file())
        await world["B"].until(job_id, JobState.RUNNING)
        node = world["B"]

        def withdraw(tx: Any) -> None:
            audit = node.audits.find(tx, kind=AuditKind.JOB, subject=job_id, direction=Direction.IN)[0]
            node.audits.terminate(tx, audit.key())

        await node.run(withdraw)
        for name, direction in (("A", Direction.OUT), ("B", Direction.IN)):
            assert "approval" in (await world[name].until(job_id, JobState.FINISHED)).reason
            find = world[name].audits.find
            (audit,) = await world[name].run(
                lambda tx, f=find, d=direction: f(tx, kind=AuditKind.JOB, subject=job_id, direction=d)
            )
            assert audit.status is ApprovalState.TERMINATED
        await refused(world, "job.start", {"job_id": job_id}, Kind.ILLEGAL_TRANSITION)


async def test_a_contract_can_end_although_another_has_expired(tmp_path: Path) -> None:
    """A job of three: the end of one contract withdraws it from the third node, with which no contract holds."""
    async with World(tmp_path, "A", "B", "C").running() as world:
        body = job_file()
        body["parties"]["host"] = ["B", "C"]
        body["data"]["host"] = ["ds-B", "ds-C"]
        job = await world["A"].jobs.submit_file(body)
        await world["C"].until(job.job_id, JobState.PENDING)
        node = world["A"]

        def expire(tx: Tx) -> None:
            contract = node.partners.contract_with(tx, NodeId("C"))
            tx.replace(contract, replace(contract, expired_time=2))

        await node.run(expire)
        caller = Caller(NodeId("B"), None, TraceId("t"))
        await node.run(lambda tx: node.partners.terminated(tx, caller, {"contract_id": "c-A-B"}))
        assert (await node.job(job.job_id)).status is JobState.FINISHED


async def test_a_data_plane_that_is_down_fails_the_job_on_both_sides(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        world["B"].data_plane.down = True
        job_id = await approved(world, job_file())
        at_a = await world["A"].until(job_id, JobState.FINISHED)
        assert "B did not start the job" in at_a.reason
        await world["A"].until(job_id, JobState.FINISHED)
        assert not world.routes("task.start")


@pytest.mark.req("C-012")
async def test_a_third_node_schedules(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "S").running() as world:
        await world.grant("B", "A")
        made = await world["A"].jobs.validate(job_file())
        assert made["ok"], made["problems"]
        config = made["conf"]
        config["job_params"]["common"]["scheduler_node_id"] = "S"
        job = await world["A"].jobs.submit(dag=made["dag"], config=config, flow_id="", project_id="proj-1", name="x")
        await world["B"].until(job.job_id, JobState.PENDING)
        await world["B"].jobs.decide(job.job_id, approve=True)
        for node in "ABS":
            ended = await world[node].until(job.job_id, JobState.FINISHED)
            assert ended.outcome is Outcome.SUCCEEDED, (node, ended.reason)
        assert [c.target for c in world.routes("job.create_all")] == ["S"]
        assert sorted((c.source, c.target) for c in world.routes("job.create")) == [("S", "A"), ("S", "B")]


async def test_nobody_is_asked_about_a_job_whose_id_cannot_be_used(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        made = await world["A"].jobs.validate(job_file())
        body = {
            "audit_id": "au-1",
            "job_id": "job-\u00fc",
            "flow_id": "f",
            "name": "n",
            "project_id": "p",
            "dag": made["dag"],
            "conf": made["conf"],
        }
        await refused(world, "job.audit.apply", body, Kind.MALFORMED)
        assert await world["B"].jobs.all() == []


async def test_a_partner_cannot_have_any_number_of_jobs_scheduled(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "S").running() as world:
        for node in "AB":
            world[node].launcher.scripts["psi"] = hang
        made = await world["A"].jobs.validate(job_file())
        made["conf"]["job_params"]["common"]["scheduler_node_id"] = "S"
        body = {"job_id": "job-1", "flow_id": "f", "dag": made["dag"], "config": made["conf"]}
        scheduler = world["S"]
        scheduler.book.limits = replace(scheduler.book.limits, open_jobs=1)

        def one_open(tx: Tx) -> None:
            caller = Caller(NodeId("A"), None, TraceId("t"))
            scheduler.schedule._accept_scheduling(tx, caller, scheduler.schedule._read_create(body))

        await scheduler.run(one_open)
        await refused(world, "job.create_all", {**body, "job_id": "job-2"}, Kind.TOO_MANY, target="S")


async def test_a_restart_fails_what_ran_and_tells_the_partner(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        for node in "AB":
            world[node].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file())
        await eventually(lambda: world["A"].launcher.runs and world["B"].launcher.runs)
        node = world["A"]
        await node.runtime.close()
        assert all(run.killed for run in node.launcher.runs)
        from tests.control.world import Node

        again = Node(world, "A", tmp_path / "A", FAST, None)
        again.store = node.store
        for part in (again.runner, again.scheduler, again.jobs, again.schedule):
            part._store = node.store
        world.nodes["A"] = again
        await again.runtime.start(again.schedule)
        at_a = await again.until(job_id, JobState.FINISHED)
        assert at_a.outcome is Outcome.FAILED
        assert "gateway was" in (await again.shares(job_id))[0].message
        assert (await world["B"].until(job_id, JobState.FINISHED)).status is JobState.FINISHED


async def test_a_mistake_of_the_scheduler_ends_that_job_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        scheduler = world["A"].scheduler

        async def broken(_: Any) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(scheduler, "_advance", broken)
            job_id = await approved(world, job_file())
            at_a = await world["A"].until(job_id, JobState.FINISHED)
            assert (at_a.outcome, at_a.reason) == (Outcome.FAILED, "internal error of the scheduler")
            await world["B"].until(job_id, JobState.FINISHED)
            patch.setattr(scheduler, "_mine", lambda tx: 1 // 0)
            await eventually(lambda: [e for e in world["A"].journal.events if e["event"] == "scheduler.error"][1:])
        job_id = await approved(world, job_file())
        assert (await world["A"].until(job_id, JobState.FINISHED)).outcome is Outcome.SUCCEEDED
