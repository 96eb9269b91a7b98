"""Jobs that must not run or must end badly: both sides agree, and each admin reads why."""

import json
import time
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import WIRE, Kind
from specs.description import builtin_description
from tests.integration import rig as rigs
from tests.integration.rig import Partner, Rig, refused
from tests.waiting import wait_for

PSI: Sequence[Mapping[str, Any]] = [{"component": "psi"}]


def people(*numbers: int) -> list[dict[str, object]]:
    return [{"id": f"customer-{number}", "amount": number % 7} for number in numbers]


@pytest.fixture(scope="module")
def room(rig: Rig) -> tuple[str, str, str]:
    """A project with a table of each side, payment's granted for every component: (project, bank's, payment's)."""
    bank = rig.add_dataset(rig.bank, people(*range(40)))
    payment = rig.add_dataset(rig.payment, people(*range(20, 60)))
    rig.grant(payment)
    return rig.project(bank, payment), bank, payment


def other_table(rig: Rig, rows: Sequence[Mapping[str, object]]) -> str:
    """A granted table of payment's."""
    dataset = rig.add_dataset(rig.payment, rows)
    rig.grant(dataset)
    return dataset


def words(view: Mapping[str, Any]) -> str:
    shares = [share for task in view["tasks"] for share in task["shares"]]
    return " ".join([view["explanation"], view["job"]["reason"], *(share["message"] for share in shares)])


def test_a_small_job_that_succeeds(rig: Rig, room: tuple[str, str, str]) -> None:
    project, bank, payment = room
    job_id = rig.submit(rig.job_file(project, (bank, payment), PSI))
    for view in rig.ended(job_id):
        assert (view["job"]["status"], view["job"]["outcome"]) == ("FINISHED", "succeeded"), words(view)
    table = [rig.download(side, job_id, "psi_1", "data0").decode().splitlines() for side in rig.sides]
    ids = [[line.split(",")[0] for line in lines[1:]] for lines in table]
    assert ids[0] == ids[1]
    assert sorted(ids[0]) == sorted(f"customer-{number}" for number in range(20, 40))


@pytest.mark.req("C-060", "C-062", "A-022")
def test_duplicated_ids(rig: Rig, room: tuple[str, str, str]) -> None:
    project, bank, _ = room
    payment = other_table(rig, people(1, 2, 3, 2))
    job_id = rig.submit(rig.job_file(project, (bank, payment), PSI))
    views = rig.ended(job_id)
    for view in views:
        assert (view["job"]["status"], view["job"]["outcome"]) == ("FINISHED", "failed")
        assert {task["status"] for task in view["tasks"]} == {"FAILED"}
        assert "psi" in words(view)
    assert any(share["exit_code"] > 0 for task in views[1]["tasks"] for share in task["shares"])
    told = words(views[1])
    assert "rows 2 and 4 have the same id" in told
    assert "host.0" in told
    assert "customer-2" not in words(views[0]), "the partner must not learn an id"


def test_empty_intersection(rig: Rig, room: tuple[str, str, str]) -> None:
    project, bank, _ = room
    payment = other_table(rig, people(*range(100, 120)))
    job_id = rig.submit(rig.job_file(project, (bank, payment), PSI))
    for view in rig.ended(job_id):
        assert (view["job"]["status"], view["job"]["outcome"]) == ("FINISHED", "failed")
        assert "in common" in words(view) or "intersection" in words(view), words(view)
        assert "psi" in words(view)


def test_a_dataset_without_a_grant(rig: Rig, room: tuple[str, str, str]) -> None:
    project, bank, _ = room
    ungranted = rig.add_dataset(rig.payment, people(*range(30)))
    job_id = rig.submit(rig.job_file(project, (bank, ungranted), PSI))
    views = rig.ended(job_id)
    assert {view["job"]["outcome"] for view in views} <= {"refused", "failed", "stopped"}
    assert "grant" in words(views[0])
    assert all(not task["shares"] for view in views for task in view["tasks"]), "nothing was launched"


@pytest.mark.req("M-049")
def test_a_grant_that_has_expired(rig: Rig, room: tuple[str, str, str]) -> None:
    project, bank, _ = room
    dataset = rig.add_dataset(rig.payment, people(*range(30)))
    limit = time.time_ns() // 1_000_000 + 1500
    rig.grant(dataset, time_limit=limit)
    wait_for(lambda: time.time_ns() // 1_000_000 > limit, "the grant expires")
    job_id = rig.submit(rig.job_file(project, (bank, dataset), PSI))
    views = rig.ended(job_id)
    assert all(view["job"]["outcome"] != "succeeded" for view in views)
    assert "expired" in words(views[0]) or "grant" in words(views[0])
    assert all(not task["shares"] for view in views for task in view["tasks"])


@pytest.mark.req("M-049")
def test_a_grant_that_is_used_up(rig: Rig, room: tuple[str, str, str]) -> None:
    project, bank, _ = room
    dataset = rig.add_dataset(rig.payment, people(*range(30)))
    rig.grant(dataset, times_limit=1)
    outcomes = []
    for _ in range(2):
        job_id = rig.submit(rig.job_file(project, (bank, dataset), PSI))
        outcomes.append(rig.ended(job_id)[0]["job"]["outcome"])
    assert outcomes[0] == "succeeded"
    assert outcomes[1] != "succeeded"


def test_another_component_than_granted(rig: Rig, room: tuple[str, str, str]) -> None:
    """The grant names psi alone, the job also splits what psi made of the data."""
    project, bank, _ = room
    dataset = rig.add_dataset(rig.payment, people(*range(30)))
    rig.grant(dataset, components=["psi"])
    job_id = rig.submit(rig.job_file(project, (bank, dataset), [*PSI, {"component": "split", "params": {"seed": "1"}}]))
    views = rig.ended(job_id)
    assert all(view["job"]["outcome"] != "succeeded" for view in views)
    assert "grant" in words(views[0])
    job_id = rig.submit(rig.job_file(project, (bank, dataset), PSI))
    assert rig.ended(job_id)[0]["job"]["outcome"] == "succeeded"


@pytest.mark.req("M-065")
def test_a_rejected_job_does_not_run(rig: Rig, room: tuple[str, str, str]) -> None:
    project, bank, payment = room
    job_id = str(rig.bank.client.post_json("jobs", body=rig.job_file(project, (bank, payment), PSI))["job_id"])
    wait_for(lambda: rig._audit(rig.payment, job_id), "the job's audit arrives")
    rig.payment.client.post("jobs", job_id, "reject")

    def rejected() -> bool:
        return bool(rig.bank.job(job_id)["job"]["status"] == "REJECTED")

    wait_for(rejected, "the bank hears of it")
    assert not [event for event in rig.bank.events(job_id=job_id) if event.get("route") == "job.create"]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"step": [{"component": "no_such_component"}]}, "step[0]"),
        ({"step": [{"component": "psi", "params": {"nonsense": 1}}]}, "nonsense"),
        ({"step": []}, "step"),
        ({"parties": {"guest": "LX0000000000000", "host": "LX0000000000001"}}, "parties"),
    ],
)
def test_job_files_that_are_wrong(rig: Rig, room: tuple[str, str, str], change: Mapping[str, Any], where: str) -> None:
    project, bank, payment = room
    file = {**rig.job_file(project, (bank, payment), PSI), **change}
    before = len(rig.bank.client.get("jobs"))
    checked = rig.bank.client.post_json("jobs", "validate", body=file)
    assert not checked["ok"]
    assert any(where in problem["where"] + problem["message"] for problem in checked["problems"]), checked["problems"]
    assert where in str(refused(rig.bank.client, "jobs", **file))
    assert len(rig.bank.client.get("jobs")) == before


def dag(*components: Mapping[str, Any]) -> dict[str, Any]:
    return {"version": "2.0", "components": list(components)}


def node(name: str, *inputs: str, component: str = "psi", output: str = "data0") -> dict[str, Any]:
    return {
        "name": name,
        "componentName": component,
        "provider": "interconn",
        "version": "1.0.0",
        "input": [{"key": key, "type": "dataset"} for key in inputs],
        "output": [{"key": output, "type": "dataset"}],
    }


@pytest.mark.req("C-015", "C-016")
@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (dag(node("a", "b.data0", component="split"), node("b", "a.data0", component="split")), Kind.BAD_DAG),
        (dag(node("a", "nobody.data0", component="split")), Kind.BAD_DAG),
        (dag(node("p"), node("a", "p.nothing", component="split")), Kind.BAD_DAG),
        (dag(node("p"), node("p")), Kind.BAD_DAG),
        (dag(), Kind.BAD_DAG),
    ],
)
def test_job_create_with_a_bad_dag(rig: Rig, graph: Mapping[str, Any], expected: Kind) -> None:
    partner = Partner(rig.payment, rig.bank.node_id, rig.bank.pki)
    config = {
        "version": "2.0.0",
        "initiator": {"role": "guest", "node_id": rig.bank.node_id},
        "role": {"guest": [rig.bank.node_id], "host": [rig.payment.node_id], "arbiter": []},
        "job_params": {"common": {}},
        "task_params": {"common": {}},
    }
    job_id = f"job-{uuid.uuid4().hex}"
    _, reply = partner.call("job.create", {"job_id": job_id, "dag": graph, "config": config})
    assert reply["code"] == WIRE[expected].code, reply
    assert job_id not in {job["job_id"] for job in rig.payment.client.get("jobs")}


@pytest.mark.req("C-017", "C-102")
def test_a_component_that_only_one_side_has(rig: Rig, room: tuple[str, str, str]) -> None:
    """Registered at the bank over its platform listener, unknown to payment, which refuses to take part."""
    project, bank, payment = room
    info = {**description("psi"), "componentName": "psi_of_the_bank", "version": "0.1.0"}
    token = rig.bank.node.admin_token_file.read_text().strip()
    request = {"imageUrl": "builtin:gateway.components.psi", "component_info": info}
    status, reply = post(f"{rig.bank.node.platform_url}/v1/platform/schedule/component/register", request, token)
    assert (status, reply["code"]) == (200, 0), reply
    assert post(f"{rig.bank.node.platform_url}/v1/platform/schedule/component/register", request, "x")[1]["code"] == 401
    job_id = rig.submit(rig.job_file(project, (bank, payment), [{"component": "psi_of_the_bank"}]))
    views = rig.ended(job_id)
    assert all(view["job"]["outcome"] != "succeeded" for view in views)
    assert "psi_of_the_bank" in words(views[0])
    assert rig.payment.node_id in words(views[0])
    refusals = [event for event in rig.payment.events(job_id=job_id) if event["event"] == "edge.refused"]
    assert [event["code"] for event in refusals if event["route"] == "job.create"] == [
        WIRE[Kind.COMPONENT_UNKNOWN].code
    ]


def description(name: str) -> dict[str, Any]:
    return dict(json.loads(builtin_description(name).to_json()))


def post(url: str, body: Mapping[str, Any], token: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        url,
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, timeout=20) as reply:
        return reply.status, json.loads(reply.read())


@pytest.mark.req("C-089")
@pytest.mark.parametrize("victim", ["payment", "bank"])
def test_a_partner_that_disappears_in_mid_job(tmp_path: Path, victim: str) -> None:
    """Without a word, as by a power cut: the survivor's job ends within its deadline, the task FAILED."""
    made = rigs.start(tmp_path / "lab", taps=False)
    try:
        rows = [{"id": f"c{number}", "a": number % 5, "b": number % 3, "y": number % 2} for number in range(400)]
        bank = made.add_dataset(made.bank, rows, label_columns="y")
        payment = made.add_dataset(made.payment, [{key: row[key] for key in ("id", "a", "b")} for row in rows])
        made.grant(payment)
        steps = [
            {"component": "psi"},
            {"component": "split", "params": {"seed": "1"}},
            {"component": "feature_encode", "guest": {"label": "y", "positive": "1"}},
            {"component": "hetero_lr", "params": {"iterations": 1000}, "guest": {"label": "y"}},
        ]
        job_id = made.submit(made.job_file(made.project(bank, payment), (bank, payment), steps))
        gone, left = (made.bank, made.payment) if victim == "bank" else (made.payment, made.bank)

        def training() -> bool:
            return any(
                task["task_name"] == "hetero_lr_1" and share["status"] == "RUNNING" and share["progress"]
                for task in left.job(job_id)["tasks"]
                for share in task["shares"]
            )

        wait_for(training, "training has begun")
        made.kill(gone)

        def ended() -> dict[str, Any] | None:
            view = left.job(job_id)
            return view if view["job"]["status"] == "FINISHED" else None

        view = wait_for(ended, "the survivor ends the job", seconds=60)
        assert view["job"]["outcome"] == "failed"
        states = {task["task_name"]: task["status"] for task in view["tasks"]}
        assert states["hetero_lr_1"] == "FAILED"
        assert states["psi_1"] == "SUCCESS"
        assert gone.node_id in words(view), words(view)
    finally:
        made.close()
