"""Jobs between this gateway and a real FATE-Flow 2.x with its BFIA adapter, both ways (docs/peers/fate-flow.md).

Runs where INTERCONN_PEER_FATE_FLOW names one, else says why not. Both sides run a component of ours; FATE-Flow starts
its as a "container" through the stand-in of Docker's API.
"""

import json
import os
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import lab
from gateway.auth.pki import Pki
from gateway.lab.node import CONFIG
from tests.integration.crash import BODIES, description, node_of, platform, program
from tests.integration.rig import _Loop, wait_for
from tests.peers.docker_api import DockerApi
from tests.peers.sidecar import Way, context

URL = os.environ.get("INTERCONN_PEER_FATE_FLOW", "")
NODE = os.environ.get("INTERCONN_PEER_FATE_NODE", "JG0100001100000010")
PORT = int(os.environ.get("INTERCONN_PEER_FATE_PORT", "9480"))
"""Where its route table has our node."""
WAIT_S = 90.0

WORK = json.loads(json.dumps({**description("work"), "desVersion": "2.0.0"}).replace('"report"', '"dataset"'))
DAG = json.loads(
    json.dumps({"version": "2.0", "components": [node_of("one", "work"), node_of("two", "work", "one")]}).replace(
        '"report"', '"dataset"'
    )
)
"""Edges of data: FATE-Flow orders tasks by inputs of data and models alone, one that reads a report starts at once."""

pytestmark = pytest.mark.skipif(not URL, reason="INTERCONN_PEER_FATE_FLOW names no FATE-Flow (docs/peers/fate-flow.md)")


class World:
    def __init__(self, directory: Path) -> None:
        lab.up(directory, parties=2, jobs={"poll_s": 0.5, "silence_s": 20.0})
        lab.down(directory)
        config = directory / lab.read(directory).nodes[0].name / CONFIG
        config.write_text(config.read_text().replace("[profile]\n", "[profile]\ninsecure_unsigned = true\n"))
        self.directory = directory
        self.node = lab.up(directory).nodes[0]
        self.client = self.node.client()
        pki = Pki.create(directory / "fate-pki", NODE, hosts=["127.0.0.1"])
        files = {"chain": pki.tls, "key": pki.tls_key, "trusted": self.node.ca_file}
        self.loop = _Loop()
        self.outside = Way(URL, listen_tls=context(ssl.PROTOCOL_TLS_SERVER, **files))
        self.inside = Way(self.node.edge_url, PORT, to_tls=context(ssl.PROTOCOL_TLS_CLIENT, **files))
        self.docker = DockerApi(directory)
        for each in (self.outside, self.inside, self.docker):
            self.loop.run(each.start())
        self.client.post(
            "partners", "record", node_id=NODE, profile="fate-2.x", name="FATE-Flow", ca_pem=pki.ca.read_text(),
            address=f"https://127.0.0.1:{self.outside.listen_port}",
        )  # fmt: skip
        image = program(directory / "programs", "work", BODIES["work"])
        platform(self.node, "component/register", {"imageUrl": image, "component_info": WORK})
        made = fate(
            "/v2/provider/register",
            {
                "name": "crash",
                "device": "docker",
                "version": "1.0.0",
                "metadata": {"base_url": f"tcp://127.0.0.1:{self.docker.port}", "image": image[len("file://") :]},
                "protocol": "bfia",
                "components_description": {"work": WORK},
            },
        )
        assert made["code"] == 0, made

    def close(self) -> None:
        for each in (self.outside, self.inside, self.docker):
            self.loop.run(each.stop())
        self.loop.close()
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


def config(guest: str, host: str) -> dict[str, Any]:
    return {
        "version": "2.0.0",
        "initiator": {"role": "guest", "node_id": guest},
        "role": {"guest": [guest], "host": [host]},
        "job_params": {"common": {"sync_type": "poll"}},
        "task_params": {"common": {}},
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


def test_we_schedule_a_job_with_fate_flow(world: World) -> None:
    body = {"dag": DAG, "config": config(world.node.node_id, NODE)}
    job_id = str(platform(world.node, "job/create_all", body)["job_id"])
    view = ended(world, job_id)
    tell(world, job_id)
    assert view["job"]["outcome"] == "succeeded", view["explanation"]
    there = fate("/v1/interconn/schedule/job/status_all", {"job_id": job_id}, "GET")
    assert there["code"] == 0


def test_fate_flow_schedules_a_job_with_us(world: World) -> None:
    made = fate(
        "/v1/platform/schedule/job/create_all", {"dag": DAG, "config": config(NODE, world.node.node_id), "flow_id": ""}
    )
    assert made["code"] == 0, made
    job_id = str(made["data"]["job_id"])
    wait_for(lambda: any(each["job_id"] == job_id for each in world.client.get("jobs")), "job/create arrives")
    view = ended(world, job_id)
    tell(world, job_id)
    assert view["job"]["outcome"] == "succeeded", view["explanation"]

    def told() -> bool:
        there = fate("/v1/interconn/schedule/job/status_all", {"job_id": job_id}, "GET")
        return bool(there.get("data", {}).get("job_status") == "FINISHED")

    wait_for(told, "FATE-Flow has ended the job", seconds=WAIT_S)
