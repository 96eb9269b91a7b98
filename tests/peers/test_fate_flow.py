"""Our component `psi` between this gateway and a real FATE-Flow 2.x with its BFIA adapter, scheduled by the one and
by the other (docs/peers/fate-flow.md).

Runs where INTERCONN_PEER_FATE_FLOW names one, else says why not. FATE-Flow starts its side as a "container" through the
stand-in of Docker's API; a second gateway of ours is its transport module; both tables are known, so is the truth.
"""

import csv
import json
import os
import random
import ssl
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway import lab
from gateway.lab.node import CONFIG
from gateway.sdk.environment import Artifact
from gateway.sdk.result import ComponentError
from gateway.sdk.storage import Store, open_store
from specs.description import builtin_description
from tests.integration.crash import platform
from tests.integration.rig import _Loop, wait_for
from tests.peers.beside import Beside, interconn
from tests.peers.docker_api import DockerApi
from tests.peers.sidecar import Way, context

URL = os.environ.get("INTERCONN_PEER_FATE_FLOW", "")
NODE = os.environ.get("INTERCONN_PEER_FATE_NODE", "JG0100001100000010")
PORT = int(os.environ.get("INTERCONN_PEER_FATE_PORT", "9480"))
"""Where its route table has our node."""
TRANSPORT_PORT = int(os.environ.get("INTERCONN_PEER_FATE_TRANSPORT", "9377"))
"""Where its settings.py has its transport module."""
STORAGE = os.environ.get("INTERCONN_PEER_FATE_STORAGE", "s3://127.0.0.1:9000?username=admin&password=12345678")
"""What its settings.py says."""
WAIT_S = 90.0
ROOT = Path(__file__).resolve().parents[2]
OUR_IDS, THEIR_IDS = range(600), range(200, 1000)
COLUMNS = ("id", "age")

pytestmark = pytest.mark.skipif(not URL, reason="INTERCONN_PEER_FATE_FLOW names no FATE-Flow (docs/peers/fate-flow.md)")


def rows(ids: Sequence[int], seed: int) -> list[tuple[str, str]]:
    made = [(f"user-{n:05}", str(n % 90)) for n in ids]
    random.Random(seed).shuffle(made)
    return made


def storage() -> Store:
    """FATE-Flow's, with its table in it; the test says why not where nothing can be written there."""
    try:
        store = open_store(STORAGE)
        store.write_table(Artifact("people", "fate"), COLUMNS, rows(THEIR_IDS, 2), extra={})
    except ComponentError as error:
        pytest.skip(f"INTERCONN_PEER_FATE_STORAGE cannot be written: {error}")
    return store


class World:
    def __init__(self, directory: Path) -> None:
        self.store = storage()
        lab.up(directory, parties=2, jobs={"poll_s": 0.5, "silence_s": 20.0})
        lab.down(directory)
        config = directory / lab.read(directory).nodes[0].name / CONFIG
        config.write_text(config.read_text().replace("[profile]\n", "[profile]\ninsecure_unsigned = true\n"))
        self.directory = directory
        self.node = lab.up(directory).nodes[0]
        self.client = self.node.client()
        self.beside = Beside(directory / "beside", NODE, self.node, beginning="session_", platform_port=TRANSPORT_PORT)
        files = {**self.beside.tls, "trusted": self.node.ca_file}
        self.loop = _Loop()
        self.outside = Way(URL, listen_tls=context(ssl.PROTOCOL_TLS_SERVER, **files))
        self.inside = Way(self.node.edge_url, PORT, to_tls=context(ssl.PROTOCOL_TLS_CLIENT, **files))
        self.docker = DockerApi(directory)
        for each in (self.outside, self.inside, self.docker):
            self.loop.run(each.start())
        ours = ("--config", config)
        interconn(
            "partner", "record", NODE, "--profile", "fate-2.x", "--name", "FATE-Flow", "--ca-file", self.beside.ca_file,
            "--address", f"https://127.0.0.1:{self.outside.listen_port}", "--transport-address", self.beside.edge_url,
            *ours,
        )  # fmt: skip
        table = directory / "people.csv"
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows(OUR_IDS, 1)])
        self.dataset = str(self.client.post("datasets", name="people", path=str(table), id_column="id")["dataset_id"])
        interconn("dataset", "record-grant", NODE, self.dataset, "--component", "psi", *ours)
        image = directory / "psi"
        # No shell in between: most of them drop variables with a dot in the name.
        image.write_text(
            f"#!{sys.executable}\nimport runpy, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            "runpy.run_module('gateway.components.psi', run_name='__main__')\n"
        )
        image.chmod(0o755)
        made = fate(
            "/v2/provider/register",
            {
                "name": "interconn",
                "device": "docker",
                "version": "1.0.0",
                "metadata": {"base_url": f"tcp://127.0.0.1:{self.docker.port}", "image": str(image)},
                "protocol": "bfia",
                "components_description": {"psi": dict(builtin_description("psi").raw)},
            },
        )
        assert made["code"] == 0, made

    def close(self) -> None:
        for each in (self.outside, self.inside, self.docker):
            self.loop.run(each.stop())
        self.loop.close()
        self.beside.close()
        lab.down(self.directory)


def fate(path: str, body: dict[str, Any], method: str = "POST") -> dict[str, Any]:
    request = urllib.request.Request(
        URL + path, json.dumps(body).encode(), {"content-type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return dict(json.loads(reply.read()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("fate") / "lab")
    try:
        yield made
    finally:
        made.close()


def job(guest: tuple[str, str], host: tuple[str, str]) -> dict[str, Any]:
    """A psi `common` and a psi of what it found, `again`. guest, host: node and the dataset that it brings.

    An edge of data orders them: FATE-Flow starts a task that only reads a report at once.
    """
    outputs = [{"key": "data0", "type": "dataset"}, {"key": "report0", "type": "report"}]
    psi = {"componentName": "psi", "provider": "interconn", "version": "1.0.0", "output": outputs}
    first = {**psi, "name": "common", "input": []}
    second = {**psi, "name": "again", "input": [{"key": "common.data0", "type": "dataset"}]}
    return {
        "dag": {"version": "2.0", "components": [first, second]},
        "config": {
            "version": "2.0.0",
            "initiator": {"role": "guest", "node_id": guest[0]},
            "role": {"guest": [guest[0]], "host": [host[0]]},
            "job_params": {"common": {"sync_type": "poll"}},
            "task_params": {
                "common": {name: {"id": "id", "wait_seconds": 60} for name in ("common", "again")},
                "guest": {"0": {"common": {"dataset_id": guest[1]}}},
                "host": {"0": {"common": {"dataset_id": host[1]}}},
            },
        },
    }


def ended(world: World, job_id: str) -> dict[str, Any]:
    def final() -> dict[str, Any] | None:
        view: dict[str, Any] = world.client.get("jobs", job_id)
        return view if view["job"]["status"] == "FINISHED" and not view["job"]["unsure"] else None

    return dict(wait_for(final, f"{job_id} ends", seconds=WAIT_S))


def tell(world: World, job_id: str) -> None:
    """The transcript of a job, as this gateway saw it."""
    last = ""
    for event in world.client.get("events", limit=5000, job_id=job_id):
        name = event.get("event", "")
        line = {
            "call.out": lambda e: f"we -> {e.get('peer')}: {e.get('route')} = {e.get('code')}",
            "edge.call": lambda e: f"{e.get('peer')} -> us: {e.get('route')} = {e.get('code')}",
            "edge.refused": lambda e: f"{e.get('peer')} -> us: {e.get('route')} refused, {e.get('reason')}",
            "job.state": lambda e: f"   job {e.get('state')} {e.get('outcome')}",
            "task.state": lambda e: f"   task {e.get('task')} {e.get('party')} {e.get('state')}",
        }.get(name)
        text = line(event) if line else ""
        if text and text != last:
            print(text)  # the transcript is what the run is for
        last = text or last
    for event, words in (("chan.invoke", "from us"), ("chan.push", "to us")):
        sizes = world.beside.bytes_of(event, f"session_{job_id}")
        print(f"   transport of {NODE}: {len(sizes)} messages {words}, {sum(sizes)} bytes")


def check_result(world: World, view: dict[str, Any], *, our_role: str, their_role: str) -> None:
    """Both sides hold their own rows of exactly the common ids, in one order."""
    job_id = view["job"]["job_id"]
    truth = sorted(f"user-{n:05}" for n in set(OUR_IDS) & set(THEIR_IDS))
    outputs = {
        each["task_name"]: each for each in world.client.get("jobs", job_id, "outputs") if each["key"] == "data0"
    }
    tasks = {each["task_name"]: each["task_id"] for each in view["tasks"]}
    assert set(outputs) == set(tasks) == {"common", "again"}
    for name, found in outputs.items():
        assert found["role"] == our_role
        file = world.directory / f"{job_id}-{name}.csv"
        world.client.download("jobs", job_id, "outputs", found["namespace"], found["name"], to=file)
        ours = list(csv.DictReader(file.read_text().splitlines()))
        theirs = world.store.read_table(Artifact(f"{their_role}-{NODE}-dataset-data0", tasks[name]))
        assert sorted(row["id"] for row in ours) == truth
        assert [row[0] for row in theirs.rows] == [row["id"] for row in ours]
    print(f"   {len(OUR_IDS)} ids here, {len(THEIR_IDS)} there, {len(truth)} in common on both sides")


def test_we_schedule_a_job_with_fate_flow(world: World) -> None:
    body = job((world.node.node_id, world.dataset), (NODE, "people#fate"))
    job_id = str(platform(world.node, "job/create_all", body)["job_id"])
    view = ended(world, job_id)
    tell(world, job_id)
    assert view["job"]["outcome"] == "succeeded", view["explanation"]
    check_result(world, view, our_role="guest", their_role="host")


def test_fate_flow_schedules_a_job_with_us(world: World) -> None:
    body = job((NODE, "people#fate"), (world.node.node_id, world.dataset))
    made = fate("/v1/platform/schedule/job/create_all", {**body, "flow_id": ""})
    assert made["code"] == 0, made
    job_id = str(made["data"]["job_id"])
    wait_for(lambda: any(each["job_id"] == job_id for each in world.client.get("jobs")), "job/create arrives")
    view = ended(world, job_id)
    tell(world, job_id)
    assert view["job"]["outcome"] == "succeeded", view["explanation"]
    check_result(world, view, our_role="host", their_role="guest")

    def told() -> bool:
        there = fate("/v1/interconn/schedule/job/status_all", {"job_id": job_id}, "GET")
        return bool(there.get("data", {}).get("job_status") == "FINISHED")

    wait_for(told, "FATE-Flow has ended the job", seconds=WAIT_S)
