"""Jobs between a real gateway and stand-ins of FATE-Flow and Kuscia over TLS: both ways, and all three in one job."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import lab
from tests.integration.crash import node_of, platform, register
from tests.integration.rig import _Loop
from tests.peers.psi import ended, unsigned_node
from tests.peers.stand_ins import FateFlow, Heard, Kuscia, StandIn
from tests.waiting import wait_for

# silence_s: a Kuscia scheduler says nothing at the end; after a quarter of this it is asked.
RULES = {"poll_s": 0.1, "misses": 4, "silence_s": 4.0}
FATE, KUSCIA = "JG0100001100000010", "alice"


class World:
    """One gateway and its two partners."""

    def __init__(self, directory: Path) -> None:
        self.node = unsigned_node(directory, **RULES)
        self.directory = directory
        self.client = self.node.client()
        self.loop = _Loop()
        place = (self.node.edge_url, self.node.ca_file)
        self.fate = FateFlow(FATE, directory / "fate", *place)
        self.kuscia = Kuscia(KUSCIA, directory / "kuscia", *place)
        for peer, profile in ((self.fate, "fate-2.x"), (self.kuscia, "kuscia")):
            self.loop.run(peer.start())
            self.client.post(
                "partners", "record", node_id=peer.node_id, profile=profile, name=profile,
                ca_pem=peer.pki.ca.read_text(), address=f"https://127.0.0.1:{peer.port}",
            )  # fmt: skip
        register(self.node, directory / "programs")
        register(self.node, directory / "programs", {"talk": TALK})
        rows = directory / "rows.csv"
        rows.write_text("id,age\n1,30\n2,40\n")
        made = self.client.post("datasets", name="people", path=str(rows), id_column="id")
        self.dataset = str(made["dataset_id"])

    def close(self) -> None:
        for peer in (self.fate, self.kuscia):
            self.loop.run(peer.stop())
        self.loop.close()
        lab.down(self.directory)

    def grant(self, peer: StandIn) -> None:
        self.client.post("grants", "record", node_id=peer.node_id, dataset_id=self.dataset)

    def ended(self, job_id: str) -> dict[str, Any]:
        return ended(self.client, job_id)

    def job(self, guest: str, host: str, *, dag: dict[str, Any], **task_params: Any) -> dict[str, Any]:
        return {
            "flow_id": "",
            "dag": dag,
            "config": {
                "version": "2.0.0",
                "initiator": {"role": "guest", "node_id": guest},
                "role": {"guest": [guest], "host": [host]},
                "job_params": {"common": {"sync_type": "poll"}, "guest": {"0": {"resources": {"cpu": -1}}}},
                "task_params": {"common": {}, "host": {"0": task_params}},
            },
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("peers") / "lab")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def quiet(world: World) -> None:
    world.fate.heard.clear()
    world.kuscia.heard.clear()


DAG = {"version": "2.0", "components": [node_of("one", "work"), node_of("two", "work", "one")]}


TALK = """
def body(task):
    with task.link() as link:
        for peer in sorted(set(task.environment.parties) - {task.party}):
            for number in range(3):
                deadline = time.monotonic() + 8
                link.send(peer, "hello", str(number).encode(), deadline=deadline)
                while (got := link.receive(peer, "hello", wait_ms=500, deadline=deadline)) is None:
                    assert time.monotonic() < deadline
                assert bytes(got) == str(number).encode()
    task.write_json("report0", {"session": task.environment.session_id})
"""
"""Sends three messages to each other party and wants each back."""


def run(
    world: World, roles: dict[str, list[str]], *, dag: dict[str, Any] | None = None, **common: Any
) -> tuple[str, dict[str, Any]]:
    """A job that this gateway schedules."""
    config = {
        "version": "2.0.0",
        "initiator": {"role": "guest", "node_id": world.node.node_id},
        "role": roles,
        "job_params": {"common": common},
        "task_params": {"common": {}},
    }
    job_id = str(platform(world.node, "job/create_all", {"dag": dag or DAG, "config": config})["job_id"])
    return job_id, world.ended(job_id)


def routes(calls: list[Heard]) -> list[str]:
    return [call.path.rpartition("schedule/")[2] for call in calls if "poll" not in call.path]


@pytest.mark.req("C-130")
@pytest.mark.parametrize("sync", ["poll", "callback"])
def test_we_schedule_a_job_with_fate_flow(world: World, sync: str) -> None:
    """In callback mode too: it never calls back, so it is polled."""
    job_id, view = run(world, {"guest": [world.node.node_id], "host": [FATE]}, sync_type=sync)
    assert view["job"]["outcome"] == "succeeded", view["explanation"]
    wait_for(lambda: world.fate.calls("job/stop"), "FATE-Flow is told of the end")
    assert routes(world.fate.heard) == ["job/create", "job/start", "task/start", "task/start", "job/stop"]
    assert all(call.headers["x-node-id"] == world.node.node_id for call in world.fate.heard)
    assert {call.body["role"] for call in world.fate.calls("task/poll")} == {"host"}
    assert world.fate.jobs[job_id]["status"] == "FINISHED"


@pytest.mark.req("C-130")
def test_fate_flow_schedules_a_job_with_us(world: World) -> None:
    """Headers with underscores, no signature, poll without a role, a stop after every task."""
    job = world.job(FATE, world.node.node_id, dag=DAG, one={"dataset_id": world.dataset})
    job |= {"job_id": "202611212135501268260", "old_job_id": ""}
    refused = world.loop.run(world.fate.schedule(job))
    assert refused["code"] not in (0, 200)  # no grant was recorded
    world.grant(world.fate)
    answer = world.loop.run(world.fate.schedule(job))
    assert answer["code"] == 0
    assert {task["status"] for task in world.fate.tasks.values()} == {"SUCCESS"}
    view = world.ended(job["job_id"])
    assert view["job"]["outcome"] == "succeeded", view["explanation"]
    assert [share["status"] for task in view["tasks"] for share in task["shares"]] == ["SUCCESS", "SUCCESS"]
    # GET with the parameter in the body, as its scheduler's own participants ask.
    told = world.loop.run(world.fate.call("GET", "job/status_all", {"job_id": job["job_id"]}))
    assert (told["code"], told["data"]["job_status"]) == (0, "FINISHED")


@pytest.mark.req("C-130")
def test_fate_flow_is_asked_with_a_body_on_get(world: World) -> None:
    """Its job that goes quiet: we ask, it says FINISHED for success and failure alike, the tasks tell."""
    job = world.job(FATE, world.node.node_id, dag=DAG) | {"job_id": "202611212135501268261"}

    async def begin() -> None:
        await world.fate.call("POST", "job/create", job)
        await world.fate.call("POST", "job/start", {"job_id": job["job_id"]})
        world.fate.jobs[job["job_id"]] = {**job, "status": "FINISHED"}
        world.fate.tasks["t"] = {"task_name": "one", "status": "FAILED", "polls": 0}

    world.loop.run(begin())
    view = world.ended(job["job_id"])
    assert view["job"]["outcome"] == "failed"
    asked = world.fate.calls("job/status_all")
    assert asked
    assert {(call.method, str(call.query), call.body["job_id"]) for call in asked} == {("GET", "{}", job["job_id"])}


@pytest.mark.req("C-130")
@pytest.mark.parametrize(
    ("route", "answer"),
    [("job/create", None), ("job/start", None), ("task/start", None), ("task/start", {"code": 1, "msg": "success"})],
)
def test_fate_flow_refuses_in_its_words(world: World, route: str, answer: Any) -> None:
    """HTTP 200 whatever happened; "success" beside a code that is none; the start of a traceback."""
    world.fate.refuses[route] = answer
    try:
        _, view = run(world, {"guest": [world.node.node_id], "host": [FATE]}, sync_type="poll")
    finally:
        world.fate.refuses.clear()
    assert view["job"]["outcome"] != "succeeded"
    assert FATE in view["explanation"]
    assert len(view["explanation"]) < 1000


@pytest.mark.req("C-130")
def test_fate_flow_has_lost_a_job_of_its_own(world: World) -> None:
    """Its answer for a job that it does not know is success with nothing in it: ours ends, and says who is silent."""
    job = world.job(FATE, world.node.node_id, dag=DAG) | {"job_id": "202611212135501268262"}

    async def begin() -> None:
        await world.fate.call("POST", "job/create", job)
        await world.fate.call("POST", "job/start", {"job_id": job["job_id"]})

    world.loop.run(begin())
    view = world.ended(job["job_id"])
    assert world.fate.calls("job/status_all")
    assert view["job"]["outcome"] == "failed"
    assert FATE in view["explanation"]


@pytest.mark.req("C-131")
def test_we_schedule_a_job_with_kuscia(world: World) -> None:
    job_id, view = run(world, {"guest": [world.node.node_id], "host": [KUSCIA]}, sync_type="callback")
    assert view["job"]["outcome"] == "succeeded", view["explanation"]
    wait_for(lambda: world.kuscia.calls("job/stop"), "Kuscia is told of the end")
    assert routes(world.kuscia.heard) == ["job/create", "job/start", "task/start", "task/start", "job/stop"]
    sent = world.kuscia.jobs[job_id]
    assert [(node["code"], node["module_name"]) for node in sent["dag"]["components"]] == [("crash", "work")] * 2
    assert all(call.body["role"] == "host" for call in world.kuscia.calls("task/poll"))
    assert all(call.body["task_id"].startswith("task-") for call in world.kuscia.calls("task/start"))
    assert all("task_name" not in call.body for call in world.kuscia.calls("job/stop"))


@pytest.mark.req("C-131")
def test_a_stop_of_one_task_is_kept_from_kuscia(world: World) -> None:
    """There it would stop the whole job; it hears of the end."""
    world.kuscia.tasks.clear()
    config = {
        "version": "2.0.0",
        "initiator": {"role": "guest", "node_id": world.node.node_id},
        "role": {"guest": [world.node.node_id], "host": [KUSCIA]},
        "job_params": {"common": {}},
        "task_params": {"common": {}},
    }
    job_id = str(platform(world.node, "job/create_all", {"dag": DAG, "config": config})["job_id"])
    wait_for(lambda: world.kuscia.calls("task/start"), "the first task starts")
    platform(world.node, "job/stop_task", {"job_id": job_id, "task_name": "two"})
    world.ended(job_id)
    wait_for(lambda: world.kuscia.calls("job/stop"), "Kuscia is told of the end")
    assert [call.body for call in world.kuscia.calls("job/stop")] == [{"job_id": job_id}]


@pytest.mark.req("C-131")
def test_kuscia_schedules_a_job_with_us(world: World) -> None:
    """Seconds, no nonce, members of its own, 200 or nothing; and no word at the end: we ask."""
    nodes = [
        {"code": "crash", "name": name, "module_name": "work", "version": "1.0.0",
         "output": [{"type": "report", "key": "report0"}]}
        for name in ("one", "two")
    ]  # fmt: skip
    job = world.job(KUSCIA, world.node.node_id, dag={"version": "2.0.0", "components": nodes})
    job |= {"job_id": "job-demo-1", "flow_id": "fl-12"}
    job["config"]["task_params"]["arbiter"] = {}
    told = world.loop.run(world.kuscia.schedule(job, roles=["host"]))
    assert told["code"] == 200
    assert set(told["data"]) == {"status"}  # a job_status would make its client miss states
    assert set(told["data"]["status"].values()) == {"SUCCESS"}
    view = world.ended("job-demo-1")
    assert view["job"]["outcome"] == "succeeded", view["explanation"]
    asked = world.kuscia.calls("job/status_all")
    assert asked
    assert {(call.method, call.query["job_id"]) for call in asked} == {("GET", "job-demo-1")}


@pytest.mark.req("C-130", "C-131")
def test_a_bridge_between_two_dialects(world: World) -> None:
    """They cannot talk to each other; each takes part in one job of ours in its own words."""
    world.kuscia.tasks.clear()
    job_id, view = run(world, {"guest": [world.node.node_id], "host": [FATE], "arbiter": [KUSCIA]}, sync_type="poll")
    assert view["job"]["outcome"] == "succeeded", view["explanation"]
    wait_for(lambda: world.fate.calls("job/stop") and world.kuscia.calls("job/stop"), "both are told of the end")
    started = {(call.body["task_name"], call.body["task_id"]) for call in world.fate.calls("task/start")}
    assert started == {(c.body["task_name"], c.body["task_id"]) for c in world.kuscia.calls("task/start")}
    assert {name for name, _ in started} == {"one", "two"}
    codes = [node.get("code") for peer in (world.fate, world.kuscia) for node in peer.jobs[job_id]["dag"]["components"]]
    assert codes == [None, None, "crash", "crash"]


@pytest.mark.req("C-113", "C-130", "C-131")
@pytest.mark.parametrize("others", [("host", "arbiter"), ("host",), ("arbiter",)])
def test_data_flow_in_the_channel_that_each_product_knows(world: World, others: tuple[str, ...]) -> None:
    """FATE-Flow gives its containers the job's channel, Kuscia the task's: ours talk with each in its own, also in one
    task with both.
    """
    peers: dict[str, StandIn] = {"host": world.fate, "arbiter": world.kuscia}
    for peer in peers.values():
        peer.said.clear()
    dag = {"version": "2.0", "components": [node_of("one", "talk"), node_of("two", "talk")]}
    roles: dict[str, list[str]] = {"guest": [world.node.node_id], **{role: [peers[role].node_id] for role in others}}
    job_id, view = run(world, roles, dag=dag, sync_type="poll")
    assert view["job"]["outcome"] == "succeeded", view["explanation"]
    tasks = {str(task["task_id"]) for task in view["tasks"]}
    sessions = {role: {said["x-ptp-session-id"] for said in peers[role].said} for role in others}
    expected = {"host": {f"session_{job_id}"}, "arbiter": {f"session_{task}" for task in tasks}}
    assert sessions == {role: expected[role] for role in others}
    assert all(len(peers[role].said) == 6 for role in others)
    given = set()
    for output in world.client.get("jobs", job_id, "outputs"):
        file = world.directory / "report"
        world.client.download("jobs", job_id, "outputs", output["namespace"], output["name"], to=file)
        given.add(json.loads(file.read_text())["session"])
    # Where all others of a task agree on another channel it is the task's own, so that none reads another's messages.
    assert given == (expected["arbiter"] if others == ("arbiter",) else {f"session_{job_id}"})
    sent = world.client.get("jobs", job_id, "bytes")
    assert {node for node, size in sent.items() if size > 0} == {peers[role].node_id for role in others}
