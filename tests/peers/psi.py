"""A job of our `psi` with FATE-Flow, real or not: what both sides are given, and waiting for its end."""

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gateway import lab
from gateway.admin_client import AdminClient
from gateway.lab.lab import LabNode
from gateway.lab.node import CONFIG
from tests.waiting import PROCESSES_S, wait_for

ROOT = Path(__file__).resolve().parents[2]


def unsigned_node(directory: Path, **jobs: float) -> LabNode:
    """The first node of a lab, which takes calls that are not signed; jobs: its [jobs]."""
    lab.up(directory, parties=2, jobs=jobs)
    lab.down(directory)
    config = config_of(directory)
    text = config.read_text()
    assert "[profile]\n" in text
    config.write_text(text.replace("[profile]\n", "[profile]\ninsecure_unsigned = true\n"))
    return lab.up(directory).nodes[0]


def config_of(directory: Path) -> Path:
    return directory / lab.read(directory).nodes[0].name / CONFIG


def image(folder: Path) -> Path:
    """The "image" of psi: a program without a shell in between, as most of them drop variables with dots."""
    made = folder / "psi"
    made.write_text(
        f"#!{sys.executable}\nimport runpy, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "runpy.run_module('gateway.components.psi', run_name='__main__')\n"
    )
    made.chmod(0o755)
    return made


def our_dataset(client: AdminClient, folder: Path, rows: Iterable[tuple[str, str]]) -> str:
    """The id of a table of ours in the catalogue."""
    table = folder / "people.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "age"), *rows])
    return str(client.post("datasets", name="people", path=str(table), id_column="id")["dataset_id"])


def psi_job(guest: tuple[str, str], host: tuple[str, str], *more: str) -> dict[str, Any]:
    """A psi `common`, and further ones of what was found before. guest, host: node and the dataset that it brings.

    An edge of data orders them: FATE-Flow starts a task that only reads a report at once.
    """
    outputs = [{"key": "data0", "type": "dataset"}, {"key": "report0", "type": "report"}]
    psi = {"componentName": "psi", "provider": "interconn", "version": "1.0.0", "output": outputs}
    names = ["common", *more]
    nodes = [
        {**psi, "name": name, "input": [{"key": f"{before}.data0", "type": "dataset"}] if before else []}
        for before, name in zip(["", *names], names, strict=False)
    ]
    return {
        "flow_id": "",
        "dag": {"version": "2.0", "components": nodes},
        "config": {
            "version": "2.0.0",
            "initiator": {"role": "guest", "node_id": guest[0]},
            "role": {"guest": [guest[0]], "host": [host[0]]},
            "job_params": {"common": {"sync_type": "poll"}},
            "task_params": {
                "common": {name: {"id": "id", "wait_seconds": 60} for name in names},
                "guest": {"0": {"common": {"dataset_id": guest[1]}}},
                "host": {"0": {"common": {"dataset_id": host[1]}}},
            },
        },
    }


def ended(client: AdminClient, job_id: str, *, seconds: float = PROCESSES_S) -> dict[str, Any]:
    """The job once it has ended here and everybody knows it."""

    def final() -> dict[str, Any] | None:
        view: dict[str, Any] = client.get("jobs", job_id)
        return view if view["job"]["status"] == "FINISHED" and not view["job"]["unsure"] else None

    return dict(wait_for(final, f"{job_id} ends", seconds=seconds))


def found_here(client: AdminClient, job_id: str, folder: Path) -> dict[str, list[str]]:
    """Task -> the ids of our own table that it found, in its order."""
    result = {}
    for each in client.get("jobs", job_id, "outputs"):
        if each["key"] == "data0":
            file = folder / f"{job_id}-{each['task_name']}.csv"
            client.download("jobs", job_id, "outputs", each["namespace"], each["name"], to=file)
            result[each["task_name"]] = [row["id"] for row in csv.DictReader(file.read_text().splitlines())]
    return result
