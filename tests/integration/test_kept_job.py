"""A whole job whose messages are kept on disk goes on when data processes are killed while messages wait in them."""

import asyncio
import os
import signal
import time
from pathlib import Path

from gateway.data_plane.io.link import DataPlaneLink
from gateway.demo import data
from gateway.lab.node import CONFIG
from tests.integration.pids import of_node, processes
from tests.integration.rig import Rig, Side
from tests.waiting import wait_for

STEPS = [
    {"component": "psi", "params": {"id": data.ID}},
    {"component": "feature_encode", "guest": {"label": data.LABEL, "positive": data.POSITIVE}},
    {"component": "hetero_lr", "params": {"iterations": 4}, "guest": {"label": data.LABEL}},
]
ROWS = 200


def components(side: Side, job_id: str) -> list[int]:
    """Processes of a job's components at a node, their keepers left out."""
    marks = (f"config.session_id=session_{job_id}".encode(), os.fsencode(side.folder))
    return [
        seen.pid
        for seen in processes()
        if not any(word.endswith(b"shim.py") for word in seen.words)
        and all(mark in seen.environment() for mark in marks)
    ]


def unread(side: Side) -> int:
    """Sessions in whose queues messages wait."""

    async def ask() -> int:
        link = DataPlaneLink(side.folder / "run")
        try:
            return int((await link.stats())["sessions_with_messages"])
        finally:
            await link.close()

    return asyncio.run(ask())


def kill_data(side: Side, job_id: str, component: str) -> None:
    """SIGKILL to a node's data process while messages wait in it; returns when another one serves."""

    def waiting() -> list[int]:
        """The components that were stopped, once there is a message that they have not read."""
        if not begun(side, job_id, component):
            return []
        stopped = components(side, job_id)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        # The partner goes on meanwhile, and sends what it has to send.
        for _ in range(10 if stopped else 0):
            if unread(side):
                return stopped
            time.sleep(0.05)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        return []

    stopped = wait_for(waiting, f"a message waits for {component} at {side.node.name}")
    ready = side.folder / "run" / "data.json"
    (pid,) = of_node(side.folder / CONFIG)["data"]
    ready.unlink()
    os.kill(pid, signal.SIGKILL)
    wait_for(ready.exists, f"{side.node.name}'s data process serves again")
    for each in stopped:
        os.kill(each, signal.SIGCONT)


def begun(side: Side, job_id: str, component: str) -> bool:
    return any(
        task["task_name"].startswith(component) and task["status"] == "RUNNING" for task in side.job(job_id)["tasks"]
    )


def run(rig: Rig, folder: Path, durability: str) -> tuple[dict[str, object], dict[str, object]]:
    """Both sides' views of the job at its end."""
    halves = data.split(data.read_source())
    ids = []
    for side, rows in ((rig.bank, halves.bank), (rig.payment, halves.payment)):
        file = folder / f"{side.node.name}.csv"
        data.write_csv(file, rows[:ROWS])
        labels = data.LABEL if side is rig.bank else ""
        made = side.client.post(
            "datasets", name=f"kept {side.node.name}", path=str(file), id_column=data.ID, label_columns=labels
        )
        ids.append(str(made["dataset_id"]))
    bank, payment = ids
    rig.grant(payment)
    file = rig.job_file(rig.project(bank, payment), (bank, payment), STEPS, durability=durability)
    job_id = rig.submit(file)
    kill_data(rig.payment, job_id, "psi")
    kill_data(rig.bank, job_id, "hetero_lr")
    views = rig.ended(job_id)
    return views[0], views[1]


def test_a_job_survives_the_kill_of_the_data_processes(rig: Rig, tmp_path: Path) -> None:
    for view in run(rig, tmp_path, "spool"):
        assert view["job"]["outcome"] == "succeeded", view
