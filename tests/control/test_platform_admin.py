"""North-south endpoints, the components' call-back, component registration, and the admin API of jobs."""

import asyncio
import copy
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError, Kind
from gateway.mgmt_plane.rest.admin_jobs import JobAdmin
from gateway.mgmt_plane.rest.admin_server import FileAnswer
from gateway.mgmt_plane.service.decisions import Decisions
from gateway.mgmt_plane.service.users import Principal
from gateway.model import Component, Outcome
from gateway.ports import EdgeRequest
from specs.admin import Role
from specs.description import builtin_description
from specs.routes import CONTROL, LEGACY, PLATFORM
from specs.states import JobState, TaskState
from tests.control.world import TOKEN, FakeRun, Node, World, approved, fail, hang, job_file, succeed
from tests.waiting import eventually


def request(token: str = TOKEN, **headers: str) -> EdgeRequest:
    given = {"authorization": f"Bearer {token}"} if token else {}
    return EdgeRequest("POST", "/", {}, "", {**given, **headers}, b"", None, "127.0.0.1")


async def platform(node: Node, route: str, payload: Mapping[str, Any], **kwargs: str) -> Any:
    return await node.platform.handlers()[f"platform.{route}"](request(**kwargs), payload)


async def refused(kind: Kind, node: Node, route: str, payload: Mapping[str, Any], **kwargs: str) -> str:
    with pytest.raises(GatewayError) as error:
        await platform(node, route, payload, **kwargs)
    assert error.value.kind is kind, error.value
    return str(error.value)


ALICE = Principal("alice", Role.ADMIN, "")


def admin(node: Node) -> Any:
    made = JobAdmin(
        jobs=node.jobs,
        schedule=node.schedule,
        files=node.runner,
        sent_bytes=node.data_plane.sent_bytes,
        decisions=Decisions(clock=node.clock, four_eyes=frozenset()),
        store=node.store,
    )
    table = {(route.method, route.path.removeprefix("/v1/admin/jobs")): route for route in made.routes()}

    async def ask(method: str, path: str, body: Any = None, query: Any = None, **params: str) -> Any:
        answer = await table[method, path].serve(ALICE, params, query or {}, body or {})
        return answer if isinstance(answer, FileAnswer) else json.loads(json.dumps(answer))

    return ask


PATHS = """
POST /v1/interconn/schedule/job/create_all  POST /v1/interconn/schedule/job/create
POST /v1/interconn/schedule/job/start       POST /v1/interconn/schedule/task/start
POST /v1/interconn/schedule/job/stop_all    POST /v1/interconn/schedule/job/stop
POST /v1/interconn/schedule/job/status_all  POST /v1/interconn/schedule/task/poll
POST /v1/interconn/schedule/task/callback
POST /v1/platform/schedule/task/callback
POST /v1/platform/schedule/job/create_all   POST /v1/platform/schedule/job/stop_all
GET /v1/platform/schedule/job/status_all    GET /v1/platform/schedule/task/get_log_line
GET /v1/platform/schedule/task/get_log      GET /v1/platform/schedule/job/query_job_list
POST /v1/platform/schedule/job/stop_task    POST /v1/platform/schedule/component/register
"""
"""As c.1 of the digest lists them."""


@pytest.mark.req("C-001", "C-002")
async def test_every_path_has_a_handler(tmp_path: Path) -> None:
    words = PATHS.split()
    wanted = set(zip(words[::2], words[1::2], strict=True))
    assert {(route.method, route.path) for route in (*CONTROL.values(), *PLATFORM.values())} == wanted
    assert len(wanted) == 9 + 1 + 8
    async with World(tmp_path, "A").running() as world:
        assert set(world["A"].handlers) == {*CONTROL, *LEGACY}
        assert set(world["A"].platform.handlers()) == set(PLATFORM)


async def test_without_the_token_nothing_but_the_call_back_is_served(tmp_path: Path) -> None:
    async with World(tmp_path, "A").running() as world:
        for name in PLATFORM:
            if name == "platform.task.callback":
                continue
            for token in ("", "wrong", TOKEN + "x"):
                await refused(Kind.UNAUTHENTICATED, world["A"], name.removeprefix("platform."), {}, token=token)


@pytest.mark.req("C-010", "C-011", "C-022", "C-068", "C-100", "C-101")
async def test_north_south_calls(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        node = world["A"]
        await world.grant("B", "A")
        made = await node.jobs.validate(job_file("psi", "split"))

        async def talk(run: FakeRun) -> int:
            run.launch.log.parent.mkdir(parents=True, exist_ok=True)
            run.launch.log.write_text("t INFO one\nt DEBUG two\nt ERROR three\n")
            return await hang(run)

        node.launcher.scripts["psi"] = talk
        world["B"].launcher.scripts["psi"] = hang
        body = {"flow_id": "fl-7", "dag": made["dag"], "config": made["conf"]}
        ids = [(await platform(node, "job.create_all", body))["job_id"] for _ in range(2)]
        assert len(set(ids)) == 2
        assert all(re.fullmatch(r"job-[0-9a-z]{32}", job_id) for job_id in ids)
        await platform(node, "job.stop_all", {"job_id": ids[1]})
        assert (await platform(node, "job.query_job_list", {"flow_id": "fl-7"})) == {
            "job_list": {ids[0]: "PENDING", ids[1]: "FINISHED"}
        }
        assert (await platform(node, "job.query_job_list", {"flow_id": "other"})) == {"job_list": {}}
        await world["B"].until(ids[0], JobState.PENDING)
        await world["B"].jobs.decide(ids[0], approve=True)
        await eventually(lambda: node.launcher.runs)
        status = await platform(node, "job.status_all", {"job_id": ids[0]})
        assert status["job_status"] == "RUNNING"
        task_id = (await node.shares(ids[0]))[0].task_id
        assert status["status"].pop(task_id) in {"READY", "RUNNING"}
        # split waits for psi; this form of the call has no word for what has not begun.
        assert list(status["status"].values()) == ["READY"]
        query = {"task_id": task_id, "log_level": "info"}
        await eventually(node.launcher.runs[0].launch.log.exists)
        assert await platform(node, "task.get_log_line", query) == {"num": 2}
        assert await platform(node, "task.get_log", {**query, "start": "1"}) == {"data": "t ERROR three\n"}
        assert await platform(node, "task.get_log", {**query, "start": 0, "length": 1}) == {"data": "t INFO one\n"}
        await refused(Kind.MALFORMED, node, "task.get_log_line", {**query, "log_level": "trace"})
        await refused(Kind.MALFORMED, node, "task.get_log", query)
        await refused(Kind.NOT_FOUND, node, "task.get_log_line", {**query, "task_id": "nope"})
        await refused(Kind.NOT_FOUND, node, "job.status_all", {"job_id": "nope"})
        await platform(node, "job.stop_task", {"job_id": ids[0], "task_name": "psi_1"})
        for name in "AB":
            await world[name].until(ids[0], JobState.FINISHED)
        await refused(Kind.MALFORMED, node, "job.create_all", {"dag": made["dag"]})
        await refused(Kind.BAD_DAG, node, "job.create_all", {**body, "dag": {"components": []}})


@pytest.mark.req("C-059", "C-060", "C-119", "A-022", "A-023", "A-024", "A-025")
async def test_call_backs_and_exit_codes(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        node = world["A"]
        await world.grant("B", "A")

        def component(*words: str, code: int, proven: bool = True, role: str = "guest.0") -> Any:
            async def script(run: FakeRun) -> int:
                await succeed(run)
                token = run.environment["config.token"] if proven else ""
                for word in words:
                    body = {"task_id": run.environment["config.task_id"], "status": word, "role": role}
                    headers = {"x-ptp-token": token} if token else {}
                    await node.platform.handlers()["platform.task.callback"](request("", **headers), body)
                return code

            return script

        for script, wanted in (
            (component("RUNNING", "SUCCESS", code=0), TaskState.SUCCESS),
            (component("SUCCESS", "FAILED", code=0, role="guest"), TaskState.SUCCESS),
            (component("SUCCESS", code=1), TaskState.FAILED),
            (component("FAILED", code=0), TaskState.FAILED),
            (component("FAILED", code=0, proven=False), TaskState.SUCCESS),
            (component(code=0), TaskState.SUCCESS),
            (component(code=3), TaskState.FAILED),
        ):
            node.launcher.scripts["psi"] = script
            job_id = await approved(world, job_file())
            await node.until(job_id, JobState.FINISHED)
            (share,) = await node.shares(job_id)
            assert share.status is wanted, share
        assert [e for e in node.journal.events if e["event"] == "task.contradiction"]


@pytest.mark.req("C-059")
async def test_a_call_back_for_somebody_elses_task(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        node = world["A"]
        await world.grant("B", "A")
        for name in "AB":
            world[name].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file())
        await eventually(lambda: node.launcher.runs)
        (share,) = await node.shares(job_id)
        body = {"task_id": share.task_id, "status": "SUCCESS", "role": "guest.0"}
        headers = {"x-ptp-token": "guessed"}
        for kind, change, given in (
            (Kind.UNAUTHENTICATED, {}, headers),
            (Kind.MALFORMED, {"status": "PENDING"}, {}),
            (Kind.MALFORMED, {"status": None}, {}),
            (Kind.MALFORMED, {"role": None}, {}),
            (Kind.NOT_FOUND, {"task_id": "other"}, {}),
            (Kind.NOT_FOUND, {"role": "host"}, {}),
        ):
            with pytest.raises(GatewayError) as error:
                await node.platform.handlers()["platform.task.callback"](request("", **given), {**body, **change})
            assert error.value.kind is kind
        # Without a secret it is heard, and changes nothing.
        assert await node.platform.handlers()["platform.task.callback"](request(""), body) == {}
        assert (await node.shares(job_id))[0].status in {TaskState.READY, TaskState.RUNNING}
        await node.schedule.stop(job_id)


async def test_a_secret_opens_the_channel_while_its_task_runs(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        job_id = await approved(world, job_file("psi", "split"))
        await world["A"].until(job_id, JobState.FINISHED)
        rules = world["A"].data_plane.history
        assert {party for rule in rules for party in rule.tokens.values()} == {"guest.0"}
        assert len({digest for rule in rules for digest in rule.tokens}) == 2
        assert rules[0].tokens == {}
        secrets = [run.environment["config.token"] for run in world["A"].launcher.runs]
        assert all(len(secret) == 43 for secret in secrets)
        stored = json.dumps([str(s) for s in await world["A"].shares(job_id)]) + json.dumps(world["A"].journal.events)
        assert not any(secret in stored for secret in secrets)


PSI = dict(builtin_description("psi").raw)


@pytest.mark.req("C-102", "C-103", "C-104", "A-002", "A-011")
async def test_component_registration(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        node = world["A"]
        info = {**PSI, "componentName": "mine", "provider": "we", "future": {"kept": 1}}
        body = {"imageUrl": "file:///bin/true", "component_info": info}
        texts, lists = ("componentName", "title", "provider", "version"), ("roleList", "storageEngine", "inputParam")
        for key in (*texts, *lists, "inputData", "outputData", "result"):
            lacking = {k: v for k, v in info.items() if k != key}
            assert key in await refused(Kind.MALFORMED, node, "component.register", {**body, "component_info": lacking})
        await refused(Kind.MALFORMED, node, "component.register", {"component_info": info})
        await refused(Kind.MALFORMED, node, "component.register", {"imageUrl": "x"})
        assert await platform(node, "component.register", body) == {}
        assert await platform(node, "component.register", body) == {}
        await refused(Kind.CONFLICT, node, "component.register", {**body, "imageUrl": "file:///bin/false"})
        stored = await node.run(lambda tx: tx.get(Component, "we/mine/1.0.0"))
        assert (stored.image, stored.description) == ("file:///bin/true", info)
        both = copy.deepcopy(info)
        both["version"] = "2.0.0"
        for parameter, optional in zip(both["inputParam"], (True, False, "true"), strict=True):
            parameter["optional"] = optional
        await platform(node, "component.register", {**body, "component_info": both})
        steps = ({"component": "mine", "params": {"wait_seconds": 3}},)
        found = await node.jobs.validate(job_file(*steps))
        assert found["ok"], found["problems"]
        assert found["dag"]["components"][0]["version"] == "2.0.0"


async def test_what_is_wrong_with_a_description_is_told_with_its_line(tmp_path: Path) -> None:
    """The line of the document that was submitted, whichever of its forms it has."""
    async with World(tmp_path, "A").running() as world:
        node = world["A"]

        async def told(body: dict[str, Any]) -> str:
            text = json.dumps(body, indent=1)
            sent = replace(request(), body=text.encode())
            with pytest.raises(GatewayError) as error:
                await node.platform.handlers()["platform.component.register"](sent, body)
            assert error.value.kind is Kind.MALFORMED
            return f"{error.value} / {text.splitlines()[int(re.search(r'line ([0-9]+)', str(error.value))[1]) - 1]}"

        info = copy.deepcopy({**PSI, "componentName": "mine", "provider": "we"})
        info["inputParam"][1]["validator"] = "nonsense"
        words = await told({"imageUrl": "file:///bin/true", "component_info": info})
        assert "component_info.inputParam[1].validator" in words
        assert words.endswith('"validator": "nonsense",')
        lacking = {key: value for key, value in PSI.items() if key != "title"}
        assert '"component_info": {' in await told({"imageUrl": "file:///bin/true", "component_info": lacking})
        inner = {key: value for key, value in info.items() if key not in {"componentName", "provider", "version"}}
        file = {"name": "we", "version": "1", "metadata": {"image": "x"}, "components_description": {"Mine": inner}}
        words = await told({"component_info": file})
        assert "component_info.components_description.Mine.inputParam[1].validator" in words
        assert words.endswith('"validator": "nonsense",')


@pytest.mark.req("A-011", "A-012", "A-045")
async def test_what_a_vendor_delivers_is_registered_as_a_whole(tmp_path: Path) -> None:
    async with World(tmp_path, "A").running() as world:
        node = world["A"]
        inner = {key: value for key, value in PSI.items() if key not in {"componentName", "provider", "version"}}
        file = {
            "name": "they",
            "device": "docker",
            "version": "2.0.0",
            "metadata": {"base_url": "", "image": "they/algo:2.0.0"},
            "protocol": "bfia",
            "components_description": {"Cross": inner, "Learn": {**inner, "version": "2.1.0"}},
        }
        broken = {**file, "components_description": {"Cross": inner, "Learn": {**inner, "roleList": None}}}
        assert "roleList" in await refused(Kind.MALFORMED, node, "component.register", {"component_info": broken})
        assert not await node.run(lambda tx: tx.get(Component, "they/Cross/2.0.0"))
        await platform(node, "component.register", {"component_info": file})
        for key in ("they/Cross/2.0.0", "they/Learn/2.1.0"):
            assert (await node.run(lambda tx, key=key: tx.get(Component, key))).image == "they/algo:2.0.0"
        other = {**file, "components_description": {"New": inner, "Cross": {**inner, "title": "another"}}}
        await refused(Kind.CONFLICT, node, "component.register", {"component_info": other})
        assert not await node.run(lambda tx: tx.get(Component, "they/New/2.0.0"))
        labels = {
            "component.1.name": "ss",
            "component.1.input.1.name": "train_data",
            "component.1.input.1.categories": "dataset",
            "component.2.name": "two",
        }
        about = {"provider": "they", "version": "1", "roleList": ["guest", "host"], "storageEngine": ["file"]}
        await platform(node, "component.register", {"component_info": {**about, **labels}, "imageUrl": "they/ss:1"})
        stored = await node.run(lambda tx: tx.get(Component, "they/ss/1"))
        assert stored.description["inputData"] == [{"name": "train_data", "category": "dataset"}]
        assert await node.run(lambda tx: tx.get(Component, "they/two/1"))


@pytest.mark.req("A-019", "C-104")
@pytest.mark.parametrize("optional", [False, "false"])
async def test_a_mandatory_parameter_without_a_value_is_refused_before_anything_starts(
    tmp_path: Path, optional: object
) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        node = world["A"]
        info = copy.deepcopy({**PSI, "componentName": "mine", "provider": "we"})
        info["inputParam"][0] |= {"name": "needed", "optional": optional}
        del info["inputParam"][0]["defaultValue"]
        await platform(node, "component.register", {"imageUrl": "file:///bin/true", "component_info": info})
        found = await node.jobs.validate(job_file("mine"))
        assert not found["ok"]
        assert any("needed" in problem["message"] for problem in found["problems"]), found
        body = {"dag": found["dag"], "config": found["conf"]}
        assert "needed" in await refused(Kind.BAD_DAG, node, "job.create_all", body)
        assert not await node.jobs.all()
        assert not world.calls
        value = {"component": "mine", "params": {"needed": "id"}}
        assert (await node.jobs.validate(job_file(value)))["ok"]


async def test_admin_api(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        a, b = admin(world["A"]), admin(world["B"])
        assert (await a("POST", "/validate", job_file()))["ok"]
        wrong = await a("POST", "/validate", job_file({"component": "psi", "params": {"typo": 1}}))
        assert (wrong["ok"], wrong["problems"][0]["where"]) == (False, "step[0].params.typo")
        absent = await a("POST", "/validate", job_file(data={"guest": "nope", "host": "ds-B"}))
        assert absent["problems"] == [{"where": "data", "message": "this node has no dataset nope"}]
        stranger = await a("POST", "/validate", job_file(parties={"guest": "A", "host": "Z"}))
        assert "no partnership with Z" in stranger["problems"][0]["message"]
        with pytest.raises(GatewayError):
            await a("POST", "", job_file("nothing"))
        assert await a("GET", "") == []
        job = await a("POST", "", job_file("psi", "split"))
        job_id = job["job_id"]
        assert (job["status"], job["permits"]) == ("PENDING", {})
        await world["B"].until(job_id, JobState.PENDING)
        seen = await b("GET", "/{job_id}", job_id=job_id)
        assert seen["job"]["dag"] == job["dag"]
        assert seen["datasets"] == {"ds-B": ["psi", "split"]}
        with pytest.raises(GatewayError):
            await a("POST", "/{job_id}/approve", job_id=job_id)
        assert (await b("POST", "/{job_id}/approve", job_id=job_id))["status"] == "READY"
        await world["A"].until(job_id, JobState.FINISHED)
        await world["B"].until(job_id, JobState.FINISHED)
        shown = await a("GET", "/{job_id}", job_id=job_id)
        assert shown["job"]["outcome"] == Outcome.SUCCEEDED
        assert [t["status"] for t in shown["tasks"]] == ["SUCCESS", "SUCCESS"]
        assert [(p["node_id"], p["role"]) for p in shown["tasks"][0]["parties"]] == [("A", "guest"), ("B", "host")]
        assert shown["explanation"].startswith("Succeeded at 20")
        outputs = await b("GET", "/{job_id}/outputs", job_id=job_id)
        assert {(o["task_name"], o["key"], o["role"]) for o in outputs} == {
            ("psi_1", "data0", "host"), ("psi_1", "report0", "host"),
            ("split_1", "train", "host"), ("split_1", "test", "host"), ("split_1", "report0", "host"),
        }  # fmt: skip
        assert all(o["bytes"] and o["rows"] == 1 for o in outputs)
        place = {"namespace": outputs[0]["namespace"], "name": outputs[0]["name"]}
        answer = await b("GET", "/{job_id}/outputs/{namespace}/{name}", job_id=job_id, **place)
        assert answer.path.read_text() == "psi wrote this\n"
        for namespace, name in (("source", "ds-B"), ("..", ".."), (place["namespace"], "../../source/ds-B")):
            with pytest.raises(GatewayError) as error:
                await b("GET", "/{job_id}/outputs/{namespace}/{name}", job_id=job_id, namespace=namespace, name=name)
            assert error.value.kind is Kind.NOT_FOUND
        assert await a("GET", "/{job_id}/bytes", job_id=job_id) == {"B": 42}
        assert [entry["task_name"] for entry in await a("GET", "/{job_id}/logs", job_id=job_id)] == ["psi_1", "split_1"]
        assert [brief["job_id"] for brief in await a("GET", "")] == [job_id]
        for call in ("", "/logs", "/outputs", "/bytes"):
            with pytest.raises(GatewayError) as error:
                await a("GET", "/{job_id}" + call, job_id="nope")
            assert error.value.kind is Kind.NOT_FOUND


async def test_progress_and_failures_are_shown(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        a = admin(world["A"])
        gate = asyncio.Event()

        async def slow(run: FakeRun) -> int:
            run.report("progress", {"phase": "encrypt", "done": 1, "total": 2, "unit": "ids"})
            await gate.wait()
            return await fail(run)

        world["A"].launcher.scripts["psi"] = slow
        world["B"].launcher.scripts["psi"] = hang
        job_id = await approved(world, job_file())
        await eventually(lambda: world["A"].launcher.runs)
        await asyncio.sleep(0.05)
        shown = await a("GET", "/{job_id}", job_id=job_id)
        progress = shown["tasks"][0]["shares"][0]["progress"]
        assert progress.pop("at") > 0
        assert progress == {"phase": "encrypt", "done": 1, "total": 2, "unit": "ids"}
        assert "waits for psi_1" in shown["explanation"]
        gate.set()
        await world["A"].until(job_id, JobState.FINISHED)
        share = (await a("GET", "/{job_id}", job_id=job_id))["tasks"][0]["shares"][0]
        assert (share["result_code"], share["message"], share["exit_code"]) == ("4003", "no common ids", 1)


async def test_a_wrong_column_is_told_before_anybody_runs_anything(tmp_path: Path) -> None:
    """The own ones at validation and submission; those of a partner's job before it is approved, here only."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        a, b = admin(world["A"]), admin(world["B"])
        wrong = job_file({"component": "psi", "guest": {"id": "costumer"}})
        checked = await a("POST", "/validate", wrong)
        assert not checked["ok"]
        assert "dataset ds-A has no column 'costumer'" in checked["problems"][0]["message"]
        with pytest.raises(GatewayError, match="it has: id, age, secret"):
            await a("POST", "", wrong)
        theirs = job_file({"component": "psi", "host": {"id": "costumer"}})
        job_id = (await a("POST", "", theirs))["job_id"]
        await world["B"].until(job_id, JobState.PENDING)
        (problem,) = (await b("GET", "/{job_id}", job_id=job_id))["problems"]
        assert problem["where"] == "config.task_params.host.0.psi_1"
        assert "dataset ds-B has no column 'costumer'" in problem["message"]
        assert (await a("GET", "/{job_id}", job_id=job_id))["problems"] == []


async def test_a_job_that_is_stopped_before_its_approval(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        a, b = admin(world["A"]), admin(world["B"])
        job_id = (await a("POST", "", job_file()))["job_id"]
        await world["B"].until(job_id, JobState.PENDING)
        assert (await a("POST", "/{job_id}/stop", job_id=job_id))["status"] == "FINISHED"
        assert (await world["B"].until(job_id, JobState.FINISHED)).outcome is Outcome.REFUSED
        with pytest.raises(GatewayError) as error:
            await b("POST", "/{job_id}/approve", job_id=job_id)
        assert error.value.kind is Kind.ILLEGAL_TRANSITION
        assert not world.routes("job.create")
