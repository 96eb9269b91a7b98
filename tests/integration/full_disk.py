"""Fill the disk of two whole gateways, before and in the middle of a job, and see that both come through it.

Run by itself: `python -m tests.integration.full_disk` (also part of `make soak`). Both nodes live on one small file
system in memory, which only root may mount; elsewhere it says so and ends well.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gateway import lab
from gateway.errors import GatewayError, Kind
from tests.integration.crash import AGREE_S, BODIES, DAG, RULES, config, register
from tests.integration.crash import platform as north_south
from tests.waiting import wait_for

SIZE = "600m"
"""Components must leave 256 MiB of a disk free."""
SLOW = {**BODIES, "work": BODIES["work"].replace("0.05", "1.0")}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True, capture_output=True
    )
    try:
        yield folder
    finally:
        for _ in range(50):
            if subprocess.run(["umount", str(folder)], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)


def fill(disk: Path) -> Path:
    """Take all that is left."""
    file = disk / "filler"
    with suppress(OSError), file.open("wb", buffering=0) as out:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while out.write(bytes(size)):
                    pass
    return file


def ready(node: lab.LabNode) -> bool:
    try:
        with urllib.request.urlopen(f"{node.admin_url}/readyz", timeout=5) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError:
        return False


def view(node: lab.LabNode, job_id: str) -> dict[str, Any]:
    """{} where the node does not tell: it has not heard of the job yet, or cannot work."""
    with suppress(GatewayError):
        return dict(node.client().get("jobs", job_id))
    return {}


def agreed(nodes: tuple[lab.LabNode, ...], job_id: str) -> str:
    """Outcome, once all nodes know it for sure."""

    def same() -> str | None:
        jobs = [view(node, job_id).get("job", {}) for node in nodes]
        ends = {(job.get("status"), job.get("outcome"), job.get("unsure")) for job in jobs}
        return str(jobs[0]["outcome"]) if len(ends) == 1 and next(iter(ends))[::2] == ("FINISHED", False) else None

    return str(wait_for(same, f"both agree on {job_id}", seconds=AGREE_S))


def submit(nodes: tuple[lab.LabNode, ...]) -> str:
    roles = {"guest": [nodes[0].node_id], "host": [nodes[1].node_id]}
    body = {"dag": DAG, "config": config(nodes[0], roles, sync_type="poll")}
    return str(north_south(nodes[0], "job/create_all", body)["job_id"])


def play(disk: Path) -> None:
    directory = disk / "lab"
    nodes = lab.up(directory, parties=2, approved=True, jobs=RULES).nodes
    try:
        for node in nodes:
            register(node, disk / "programs", SLOW)
        assert agreed(nodes, submit(nodes)) == "succeeded"

        filler = fill(disk)
        # A write of some pages; a small one may still fit into what the database holds already.
        refused: list[GatewayError] = []
        for number in range(50):
            try:
                nodes[0].client().post(
                    "projects", name=f"p{number}", type="HETERO_FL", description="x" * 4000, datasets={}
                )
            except GatewayError as error:
                refused.append(error)
                break
        assert refused, "a full disk takes everything"
        assert refused[0].kind in {Kind.STORE, Kind.OVERLOADED}, refused[0]
        assert "disk is full" in str(refused[0]), refused[0]
        print(f"full: {refused[0]}; readyz says {[ready(node) for node in nodes]}")
        assert nodes[0].client().get("node")["node_id"], "what is only read is answered"
        filler.unlink()
        wait_for(lambda: all(ready(node) for node in nodes), "both are ready again", seconds=30)
        assert agreed(nodes, submit(nodes)) == "succeeded"
        print("freed: a job succeeds again")

        job_id = submit(nodes)
        wait_for(lambda: view(nodes[1], job_id).get("job", {}).get("status") == "RUNNING", "the job runs")
        filler = fill(disk)
        time.sleep(5)
        filler.unlink()
        outcome = agreed(nodes, job_id)
        told = view(nodes[0], job_id).get("explanation")
        print(f"full for 5 s in the middle of a job: {outcome}: {told}")
        assert agreed(nodes, submit(nodes)) == "succeeded"
        for node in nodes:
            names = {str(json.dumps(each)) for each in node.client().get("jobs")}
            assert len(names) == 4, names
    finally:
        lab.down(directory)


def main() -> int:
    argparse.ArgumentParser(prog="python -m tests.integration.full_disk", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder) / "disk") as disk:
                play(disk)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            print(f"skipped: no file system can be mounted here ({error})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
