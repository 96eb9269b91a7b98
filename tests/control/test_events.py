"""Jobs in any order of events, and partners that do what they should not: both sides come to the same end."""

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, Kind
from gateway.model import Outcome, TraceId
from specs.states import JobState, TaskState
from tests.control.test_two_nodes import agreed, refused
from tests.control.world import FAST, Call, FakeRun, World, approved, hang, job_file, succeed
from tests.waiting import eventually

PORTS = 5


def description() -> dict[str, Any]:
    port = {"description": "", "dataFormat": ["json"], "category": "report"}
    return {
        "componentName": "step", "title": "step", "provider": "we", "version": "1", "description": "step",
        "roleList": ["guest", "host"], "storageEngine": ["file"], "inputParam": [],
        "inputData": [{"name": f"in{n}", **port} for n in range(PORTS)],
        "outputData": [{"name": "out", **port}],
        "result": [{"resultCode": "0", "resultMessage": "ok"}],
    }  # fmt: skip


def dag(size: int, edges: frozenset[tuple[int, int]]) -> dict[str, Any]:
    """Nodes n0 ... and an edge from the first to the second of each pair."""
    return {
        "version": "2.0",
        "components": [
            {
                "name": f"n{at}", "componentName": "step", "provider": "we", "version": "1",
                "input": [{"key": f"n{p}.out", "type": "report"} for p, c in sorted(edges) if c == at],
                "output": [{"key": "out", "type": "report"}],
            }
            for at in range(size)
        ],
    }  # fmt: skip


@dataclass(frozen=True)
class Course:
    """What happens in one job. fails, slow: of (task, node); stop: who stops after how many component starts."""

    size: int
    edges: frozenset[tuple[int, int]]
    fails: frozenset[tuple[int, str]]
    slow: Mapping[tuple[int, str], int]
    stop: tuple[str, int] | None
    sync: str

    def possible(self) -> set[Outcome]:
        """The ends that this course may have, from its definition alone."""
        ends = {Outcome.FAILED} if self.fails else {Outcome.SUCCEEDED}
        return ends | ({Outcome.STOPPED} if self.stop else set())


@st.composite
def courses(draw: Any) -> Course:
    size = draw(st.integers(1, 6))
    pairs = [(p, c) for c in range(size) for p in range(max(0, c - PORTS), c)]
    places = [(task, node) for task in range(size) for node in "AB"]
    return Course(
        size=size,
        edges=frozenset(draw(st.lists(st.sampled_from(pairs), max_size=8)) if pairs else ()),
        fails=frozenset(draw(st.lists(st.sampled_from(places), max_size=1))),
        slow=draw(st.dictionaries(st.sampled_from(places), st.integers(1, 4), max_size=6)),
        stop=draw(st.none() | st.tuples(st.sampled_from("AB"), st.integers(1, 2 * size))),
        sync=draw(st.sampled_from(["poll", "callback"])),
    )


async def play(course: Course, folder: Path) -> None:
    async with World(
        folder, "A", "B", rules=dict.fromkeys("AB", replace(FAST, require_job_audit=False))
    ).running() as w:
        starts: list[str] = []
        going: set[asyncio.Task[Any]] = set()
        job_id = ""

        def script(node: str) -> Callable[[FakeRun], Any]:
            async def run(it: FakeRun) -> int:
                task = int(it.launch.directory.name.removeprefix("t-n"))
                starts.append(it.launch.directory.name)
                if course.stop and len(starts) == course.stop[1]:
                    going.add(asyncio.ensure_future(w[course.stop[0]].schedule.stop(job_id)))
                await asyncio.sleep(0.01 * course.slow.get((task, node), 0))
                return 1 if (task, node) in course.fails else await succeed(it)

            return run

        for node in "AB":
            w[node].launcher.scripts["step"] = script(node)
            await w[node].jobs.register(info=description(), image="file:///bin/true")
        config = {
            "initiator": {"role": "guest", "node_id": "A"}, "role": {"guest": ["A"], "host": ["B"]},
            "job_params": {"common": {"sync_type": course.sync}},
        }  # fmt: skip
        job = await w["A"].jobs.submit(
            dag=dag(course.size, course.edges), config=config, flow_id="", project_id="", name=""
        )
        job_id = job.job_id
        ends = []
        for node in "AB":
            await w[node].until(job_id, JobState.FINISHED)

            async def sure(node: str = node) -> bool:
                return not (await w[node].job(job_id)).unsure

            await eventually(sure)
            ends.append((await w[node].job(job_id)).outcome)
        await asyncio.gather(*going)
        assert ends[0] is ends[1], ends
        assert ends[0] in course.possible()
        shares = {(s.task_name, node): s.status for node in "AB" for s in await w[node].shares(job_id)}
        assert set(shares.values()) <= {TaskState.SUCCESS, TaskState.FAILED}
        for task in range(course.size):
            name = f"n{task}"
            for node in "AB":
                if (name, node) in shares:  # nothing begins before all it reads is there, at every party
                    assert all(
                        shares[f"n{p}", n] is TaskState.SUCCESS for p, c in course.edges if c == task for n in "AB"
                    )
                if (task, node) in course.fails:
                    assert shares.get((name, node)) is not TaskState.SUCCESS
        if ends[0] is Outcome.SUCCEEDED:
            assert len(shares) == 2 * course.size
            assert len(starts) == 2 * course.size
        assert len(starts) == len([*w["A"].launcher.runs, *w["B"].launcher.runs])
        await eventually(lambda: all(run._work.done() for n in "AB" for run in w[n].launcher.runs))


@pytest.mark.req("C-033", "C-041", "C-061", "C-062", "C-063", "C-064", "C-084")
@settings(max_examples=14, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(courses())
def test_any_job_in_any_order(course: Course) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(course, Path(folder)))


@pytest.mark.req("C-061", "C-081", "C-085")
@pytest.mark.parametrize("late", [0.0, 0.005, 0.02, 0.06])
@pytest.mark.parametrize("who", ["A", "B"])
async def test_a_stop_that_races_the_end(tmp_path: Path, who: str, late: float) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        job_id = await approved(world, job_file())
        await eventually(lambda: len([*world["A"].launcher.runs, *world["B"].launcher.runs]) == 2)
        await asyncio.sleep(late)
        await world[who].schedule.stop(job_id)
        first = (await world["A"].until(job_id, JobState.FINISHED)).outcome
        assert first in {Outcome.SUCCEEDED, Outcome.STOPPED}
        await agreed(world, job_id, first, "A", "B")


NONSENSE = [{}, {"status": "DONE"}, {"status": None}, {"status": ["SUCCESS"]}, {"status": {"a": 1}}]


@pytest.mark.parametrize("answer", NONSENSE, ids=str)
async def test_a_partner_that_answers_polls_with_nonsense(tmp_path: Path, answer: Any) -> None:
    """It is no state: after a few it counts as lost, and the job ends on both sides."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        for node in "AB":
            world[node].launcher.scripts["psi"] = hang
        world["B"].handlers = {**world["B"].handlers, "task.poll": _always(answer)}
        job_id = await approved(world, job_file())
        ended = await world["A"].until(job_id, JobState.FINISHED)
        assert "failed at B" in ended.reason
        await agreed(world, job_id, Outcome.FAILED, "A", "B")


def _always(answer: Any) -> Callable[..., Any]:
    async def handler(_caller: Any, _body: Any) -> Any:
        return answer

    return handler


async def test_a_partner_that_creates_and_vanishes(tmp_path: Path) -> None:
    quick = dict.fromkeys("AB", replace(FAST, silence_s=0.6))
    async with World(tmp_path, "A", "B", rules=quick).running() as world:
        await world.grant("B", "A")

        def disturb(call: Call) -> None:
            if call.route == "job.start":
                world.down.add("B")

        world.disturb = disturb
        job_id = await approved(world, job_file())
        at_a = await world["A"].until(job_id, JobState.FINISHED)
        assert "B did not start the job" in at_a.reason
        assert at_a.outcome is Outcome.FAILED
        assert not world["A"].launcher.runs
        # It comes back and learns that there is nothing to wait for.
        world.down.clear()
        await agreed(world, job_id, Outcome.FAILED, "A", "B")


async def test_two_schedulers_claim_one_job(tmp_path: Path) -> None:
    """A created it: B takes nothing of it from C, who would also be let in by its own contract, in any order."""
    async with World(tmp_path, "A", "B", "C").running() as world:
        await world.grant("B", "A")
        for node in "AB":
            world[node].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file())
        await eventually(lambda: world["B"].launcher.runs)
        (share,) = await world["B"].shares(job_id)
        job = await world["B"].job(job_id)
        body = {"job_id": job_id, "dag": job.dag, "config": job.config}
        claimed: dict[str, Any] = {**job.config, "initiator": {"role": "guest", "node_id": "C"}}
        claimed |= {"role": {"guest": ["C"], "host": ["B"]}}
        stolen: dict[str, Any] = {
            **job.config, "job_params": {"common": {"scheduler_node_id": "C"}},
        }  # fmt: skip
        for config, kind in ((job.config, Kind.FORBIDDEN), (claimed, Kind.CONFLICT), (stolen, Kind.CONFLICT)):
            await refused(world, "job.create", {**body, "config": config}, kind, source="C")
        mine = {"job_id": job_id, "task_id": share.task_id, "task_name": "psi_1", "role": "host", "status": "SUCCESS"}
        for route in ("job.start", "task.start", "job.stop", "task.poll", "task.callback", "job.stop_all"):
            with pytest.raises(GatewayError):
                await world.carry(Call("C", "B", route, mine, ""), TraceId("t"))
        assert (await world["B"].job(job_id)).status is JobState.RUNNING
        assert (await world["B"].shares(job_id))[0].status is TaskState.RUNNING
        await world["A"].schedule.stop(job_id)
        await agreed(world, job_id, Outcome.STOPPED, "A", "B")


async def test_two_hundred_jobs_at_once(tmp_path: Path) -> None:
    """They wait for the places of the node, run, and none is forgotten. With a partner: bench/control.py."""
    rules = {"A": replace(FAST, max_running=8, poll_s=2)}
    async with World(tmp_path, "A", rules=rules).running() as world:
        busy, most = 0, 0

        async def counted(run: FakeRun) -> int:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0)
            busy -= 1
            return await succeed(run)

        world["A"].launcher.scripts["step"] = counted
        await world["A"].jobs.register(info=description(), image="file:///bin/true")
        config = {"initiator": {"role": "guest", "node_id": "A"}, "role": {"guest": ["A"]}}
        asked = {"dag": dag(1, frozenset()), "config": config, "flow_id": "", "project_id": "", "name": ""}
        ids = [(await world["A"].jobs.submit(**asked)).job_id for _ in range(200)]
        for job_id in ids:
            job = await world["A"].until(job_id, JobState.FINISHED, seconds=60)
            assert job.outcome is Outcome.SUCCEEDED
        assert len(world["A"].launcher.runs) == 200
        assert most <= 8
