"""What is taken back stops what runs under it: two gateways, real components, and the holder's own command."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.errors import WIRE, Kind
from tests.integration.rig import Rig, descendants
from tests.waiting import wait_for

REVOKED = WIRE[Kind.GRANT_REVOKED]
LONG = [
    {"component": "psi"},
    {"component": "split", "params": {"seed": "1"}},
    {"component": "feature_encode", "guest": {"label": "y", "positive": "1"}},
    {"component": "hetero_lr", "params": {"iterations": 1000}, "guest": {"label": "y"}},
]


def reason(view: Mapping[str, Any]) -> str:
    return str(view["job"]["reason"])


def training(rig: Rig, job_id: str) -> bool:
    return all(
        any(
            task["task_name"] == "hetero_lr_1" and share["status"] == "RUNNING" and share["progress"]
            for task in side.job(job_id)["tasks"]
            for share in task["shares"]
        )
        for side in rig.sides
    )


def about_grants(rig: Rig, dataset: str, file: Path) -> list[tuple[str, str]]:
    """(event, job) of everything that payment's trail tells of grants of a dataset, oldest first."""
    config = str(rig.payment.folder / "node.toml")
    file.unlink(missing_ok=True)
    assert cli.main(["audit", "export", "--config", config, "--out", str(file)]) == 0
    told = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    return [
        (each["event"], each["facts"].get("job_id", ""))
        for each in told
        if each["event"].startswith("grant.") and each["facts"].get("dataset_id") == dataset
    ]


@pytest.mark.req("M-048")
def test_a_running_job_is_stopped_when_its_grant_is_taken_back(rig: Rig, tmp_path: Path) -> None:
    rows = [{"id": f"c{number}", "a": number % 5, "b": number % 3, "y": number % 2} for number in range(400)]
    bank = rig.add_dataset(rig.bank, rows, label_columns="y")
    payment = rig.add_dataset(rig.payment, [{key: row[key] for key in ("id", "a", "b")} for row in rows])
    rig.grant(payment)
    project = rig.project(bank, payment)
    job_id = rig.submit(rig.job_file(project, (bank, payment), LONG))
    wait_for(lambda: training(rig, job_id), "training has begun")
    config = str(rig.payment.folder / "node.toml")
    assert cli.main(["dataset", "revoke", payment, "--yes", "--config", config]) == 0

    def said() -> tuple[dict[str, Any], dict[str, Any]] | None:
        views = rig.ended(job_id)
        return views if all(f"code {REVOKED.code}" in reason(view) for view in views) else None

    for view in wait_for(said, "both sides end the job and say why"):
        assert (view["job"]["outcome"], view["job"]["unsure"]) == ("failed", False), reason(view)
        assert REVOKED.text in reason(view)
        assert payment in reason(view)
        assert {share["status"] for task in view["tasks"] for share in task["shares"]} == {"SUCCESS", "FAILED"}

    def gone() -> bool:
        return not any(_works_for(process, job_id) for side in rig.sides for process in descendants(side.node.pid or 0))

    wait_for(gone, "its components are gone at both sides")

    # It opens nothing any more: with the table away, whoever still tried would complain about the file.
    events = about_grants(rig, payment, tmp_path / "before.jsonl")
    assert events.count(("grant.used", job_id)) == 1
    (table,) = [each for each in rig.payment.client.get("datasets") if each["dataset_id"] == payment]
    (rig.directory / f"{table['name']}.csv").unlink()
    again = rig.submit(rig.job_file(project, (bank, payment), LONG[:1]))
    views = rig.ended(again)
    assert all(view["job"]["outcome"] != "succeeded" for view in views)
    assert WIRE[Kind.GRANT_MISSING].text in views[0]["explanation"]
    assert all(not task["shares"] for view in views for task in view["tasks"])
    assert not any(job == again for _, job in about_grants(rig, payment, tmp_path / "after.jsonl"))


def _works_for(process: int, job_id: str) -> bool:
    try:
        return job_id.encode() in Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return False
