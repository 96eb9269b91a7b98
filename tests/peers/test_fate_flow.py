"""Our component `psi` between this gateway and a real FATE-Flow 2.x with its BFIA adapter, scheduled by the one and
by the other (docs/peers/fate-flow.md).

Runs where INTERCONN_PEER_FATE_FLOW names one, else says why not. FATE-Flow starts its side as a "container" through the
stand-in of Docker's API; a second gateway of ours is its transport module; both tables are known, so is the truth.
"""

import json
import os
import random
import ssl
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway import lab
from gateway.sdk.environment import Artifact
from gateway.sdk.result import ComponentError
from gateway.sdk.storage import Store, open_store
from specs.description import builtin_description
from tests.integration.crash import platform
from tests.integration.rig import _Loop
from tests.peers.beside import Beside, bytes_of, interconn
from tests.peers.docker_api import DockerApi
from tests.peers.psi import config_of, ended, found_here, image, our_dataset, psi_job, unsigned_node
from tests.peers.sidecar import Way, context
from tests.waiting import wait_for

URL = os.environ.get("INTERCONN_PEER_FATE_FLOW", "")
NODE = os.environ.get("INTERCONN_PEER_FATE_NODE", "JG0100001100000010")
PORT = int(os.environ.get("INTERCONN_PEER_FATE_PORT", "9480"))
"""Where its route table has our node."""
TRANSPORT_PORT = int(os.environ.get("INTERCONN_PEER_FATE_TRANSPORT", "9377"))
"""Where its settings.py has its transport module."""
STORAGE = os.environ.get("INTERCONN_PEER_FATE_STORAGE", "s3://127.0.0.1:9000?username=admin&password=12345678")
"""What its settings.py says."""
WAIT_S = 90.0
OUR_IDS, THEIR_IDS = range(600), range(200, 1000)

pytestmark = pytest.mark.skipif(not URL, reason="INTERCONN_PEER_FATE_FLOW names no FATE-Flow (docs/peers/fate-flow.md)")


def rows(ids: Sequence[int], seed: int) -> list[tuple[str, str]]:
    made = [(f"user-{n:05}", str(n % 90)) for n in ids]
    random.Random(seed).shuffle(made)
    return made


def storage() -> Store:
    """FATE-Flow's, with its table in it; the test says why not where nothing can be written there."""
    try:
        store = open_store(STORAGE)
        store.write_table(Artifact("people", "fate"), ("id", "age"), rows(THEIR_IDS, 2), extra={})
    except ComponentError as error:
        pytest.skip(f"INTERCONN_PEER_FATE_STORAGE cannot be written: {error}")
    return store


class World:
    def __init__(self, directory: Path) -> None:
        self.store = storage()
        self.directory = directory
        self.node = unsigned_node(directory, poll_s=0.5, silence_s=20.0)
        self.client = self.node.client()
        self.beside = Beside(directory / "beside", NODE, self.node, beginning="session_", platform_port=TRANSPORT_PORT)
        files = {"chain": self.beside.pki.tls, "key": self.beside.pki.tls_key, "trusted": self.node.ca_file}
        self.loop = _Loop()
        self.outside = Way(URL, listen_tls=context(ssl.PROTOCOL_TLS_SERVER, **files))
        self.inside = Way(self.node.edge_url, PORT, to_tls=context(ssl.PROTOCOL_TLS_CLIENT, **files))
        self.docker = DockerApi(directory)
        for each in (self.outside, self.inside, self.docker):
            self.loop.run(each.start())
        ours = ("--config", config_of(directory))
        interconn(
            "partner", "record", NODE, "--profile", "fate-2.x", "--name", "FATE-Flow", "--ca-file", self.beside.pki.ca,
            "--address", f"https://127.0.0.1:{self.outside.listen_port}", "--transport-address", self.beside.edge_url,
            *ours,
        )  # fmt: skip
        self.dataset = our_dataset(self.client, directory, rows(OUR_IDS, 1))
        interconn("dataset", "record-grant", NODE, self.dataset, "--component", "psi", *ours)
        made = fate(
            "/v2/provider/register",
            {
                "name": "interconn",
                "device": "docker",
                "version": "1.0.0",
                "metadata": {"base_url": f"tcp://127.0.0.1:{self.docker.port}", "image": str(image(directory))},
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
        sizes = bytes_of(world.beside.config.parent, event, f"session_{job_id}")
        print(f"   transport of {NODE}: {len(sizes)} messages {words}, {sum(sizes)} bytes")


def check_result(world: World, view: dict[str, Any], *, their_role: str) -> None:
    """Both sides hold their own rows of exactly the common ids, in one order."""
    truth = sorted(f"user-{n:05}" for n in set(OUR_IDS) & set(THEIR_IDS))
    found = found_here(world.client, view["job"]["job_id"], world.directory)
    tasks = {each["task_name"]: each["task_id"] for each in view["tasks"]}
    assert set(found) == set(tasks) == {"common", "again"}
    for name, ids in found.items():
        assert sorted(ids) == truth
        theirs = world.store.read_table(Artifact(f"{their_role}-{NODE}-dataset-data0", tasks[name]))
        assert [row[0] for row in theirs.rows] == ids
    print(f"   {len(OUR_IDS)} ids here, {len(THEIR_IDS)} there, {len(truth)} in common on both sides")


def test_we_schedule_a_job_with_fate_flow(world: World) -> None:
    body = psi_job((world.node.node_id, world.dataset), (NODE, "people#fate"), "again")
    job_id = str(platform(world.node, "job/create_all", body)["job_id"])
    view = ended(world.client, job_id, seconds=WAIT_S)
    tell(world, job_id)
    assert view["job"]["outcome"] == "succeeded", view["explanation"]
    check_result(world, view, their_role="host")


def test_fate_flow_schedules_a_job_with_us(world: World) -> None:
    body = psi_job((NODE, "people#fate"), (world.node.node_id, world.dataset), "again")
    made = fate("/v1/platform/schedule/job/create_all", body)
    assert made["code"] == 0, made
    job_id = str(made["data"]["job_id"])
    wait_for(lambda: any(each["job_id"] == job_id for each in world.client.get("jobs")), "job/create arrives")
    view = ended(world.client, job_id, seconds=WAIT_S)
    tell(world, job_id)
    assert view["job"]["outcome"] == "succeeded", view["explanation"]
    check_result(world, view, their_role="guest")

    def told() -> bool:
        there = fate("/v1/interconn/schedule/job/status_all", {"job_id": job_id}, "GET")
        return bool(there.get("data", {}).get("job_status") == "FINISHED")

    wait_for(told, "FATE-Flow has ended the job", seconds=WAIT_S)
