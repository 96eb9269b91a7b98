"""Three gateways and one job: every role at a node of its own, one node in two roles, and a component of curl."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import cli, lab
from gateway.lab.node import CONFIG
from tests.integration.crash import BODIES, RULES, config, description, node_of, platform, register
from tests.waiting import wait_for

SHELL = Path(__file__).with_name("shell_component.sh")
BODIES_HERE = {
    **BODIES,
    # Says hello to everybody, waits for everybody's hello, and writes down who spoke.
    "ring": """
def body(task):
    heard = {}
    with task.link() as link:
        for peer in link.peers:
            link.send(peer, "hello", task.party.encode(), deadline=time.monotonic() + 10)
        for peer in link.peers:
            deadline = time.monotonic() + 10
            while (got := link.receive(peer, "hello", wait_ms=500, deadline=deadline)) is None:
                if time.monotonic() > deadline:
                    raise ComponentError(Code.PARTNER_SILENT, f"{peer} said nothing")
            heard[peer] = bytes(got).decode()
    task.write_json("report0", heard)
""",
}
DAG = {"version": "2.0", "components": [node_of("one", "work"), node_of("two", "ring", "one")]}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[lab.LabNode, ...]]:
    directory = tmp_path_factory.mktemp("three") / "lab"
    made = lab.up(directory, parties=3, approved=True, jobs=RULES)
    try:
        for node in made.nodes:
            register(node, directory / "programs", BODIES_HERE)
        yield made.nodes
    finally:
        lab.down(directory)


def ended(node: lab.LabNode, job_id: str) -> dict[str, Any]:
    def final() -> dict[str, Any] | None:
        if all(job["job_id"] != job_id for job in node.client().get("jobs")):
            return None
        view: dict[str, Any] = node.client().get("jobs", job_id)
        return view if view["job"]["status"] == "FINISHED" and not view["job"]["unsure"] else None

    return dict(wait_for(final, f"the job ends at {node.name}"))


@pytest.mark.req("C-012", "C-036", "C-054", "C-055", "C-064", "A-054")
@pytest.mark.parametrize("sync", ["poll", "callback"])
@pytest.mark.parametrize(
    "places",
    [
        {"guest": [0], "host": [1], "arbiter": [2]},
        {"guest": [0], "host": [1, 2], "arbiter": [0]},
    ],
    ids=["arbiter of its own", "shared arbiter, two hosts"],
)
def test_three_parties(nodes: tuple[lab.LabNode, ...], places: dict[str, list[int]], sync: str) -> None:
    roles = {role: [nodes[at].node_id for at in found] for role, found in places.items()}
    body = {"dag": DAG, "config": config(nodes[0], roles, sync_type=sync)}
    job_id = str(platform(nodes[0], "job/create_all", body)["job_id"])
    parties = {f"{role}.{i}": at for role, found in places.items() for i, at in enumerate(found)}
    views = [ended(node, job_id) for node in nodes]
    assert [view["job"]["outcome"] for view in views] == ["succeeded"] * 3, [view["explanation"] for view in views]
    shares = {
        (f"{share['role']}.{share['index']}", task["task_name"]): at
        for at, view in enumerate(views)
        for task in view["tasks"]
        for share in task["shares"]
    }
    assert shares == {(party, task): at for party, at in parties.items() for task in ("one", "two")}
    for at, node in enumerate(nodes):
        for output in node.client().get("jobs", job_id, "outputs"):
            if output["task_name"] == "two":
                party = f"{output['role']}.{output['index']}"
                assert parties[party] == at
                folder = node.ca_file.parent.parent / "work" / "jobs" / job_id / f"{output['role']}-{output['index']}"
                file = folder / "store" / output["namespace"] / output["name"] / "data_0"
                assert json.loads(file.read_text()) == {other: other for other in parties if other != party}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.req("A-013", "A-018", "A-022", "A-033", "A-043")
def test_a_component_made_of_curl(nodes: tuple[lab.LabNode, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for node in nodes[:2]:
        body = {"imageUrl": f"file://{SHELL}", "component_info": description("greet")}
        platform(node, "component/register", body)
    roles = {"guest": [nodes[0].node_id], "host": [nodes[1].node_id], "arbiter": []}
    dag = {"version": "2.0", "components": [node_of("hello", "greet")]}
    job_id = str(platform(nodes[0], "job/create_all", {"dag": dag, "config": config(nodes[0], roles)})["job_id"])
    for node, own, other in zip(nodes[:2], ("guest", "host"), ("host.0", "guest.0"), strict=True):
        view = ended(node, job_id)
        (log,) = node.client().get("jobs", job_id, "logs")
        assert view["job"]["outcome"] == "succeeded", (view["explanation"], log["text"])
        (share,) = [share for share in view["tasks"][0]["shares"] if share["role"] == own]
        assert (share["status"], share["result_code"], share["progress"]["phase"]) == ("SUCCESS", "0", "listen")
        assert "push: E0000000000" in log["text"]
        (output,) = node.client().get("jobs", job_id, "outputs")
        file = node.ca_file.parent.parent / "work" / "jobs" / job_id / f"{own}-0" / "store"
        assert cli.main(["job", "logs", job_id, "--follow", "--config", str(node.ca_file.parent.parent / CONFIG)]) == 0
        followed = capsys.readouterr().out.splitlines()
        assert len(followed) == log["lines"]
        assert all(line.startswith(f"hello {own}.0  ") for line in followed)
        told = json.loads((file / output["namespace"] / output["name"] / "data_0").read_text())
        assert told == {"heard": f"hello from {other}"}
