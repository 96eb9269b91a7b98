"""Our `psi` between a gateway and FATE-Flow's stand-in, beside which another gateway is the transport module.

What tests/peers/test_fate_flow.py does with the real one, here with its recorded behaviour: the environment of its
containers, Docker's API, its storage, its call-back.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import lab
from gateway.auth.pki import Pki
from gateway.config import load
from gateway.lab.node import CONFIG, PKI
from gateway.sdk.channel import Channel, Line
from gateway.sdk.environment import Address, Artifact
from gateway.sdk.result import ComponentError
from gateway.sdk.storage import FileStore
from tests.integration.crash import platform
from tests.integration.rig import _Loop
from tests.peers.beside import bytes_of, interconn, stand_beside
from tests.peers.docker_api import DockerApi
from tests.peers.psi import config_of, ended, found_here, image, our_dataset, psi_job, unsigned_node
from tests.peers.stand_ins import Containers, FateFlow
from tests.waiting import wait_for

OURS, THEIRS = [f"u{n}" for n in range(60)], [f"u{n}" for n in range(20, 100)]
TRUTH = sorted(set(OURS) & set(THEIRS))


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node = unsigned_node(directory, poll_s=0.1, misses=4, silence_s=4.0)
        self.client = self.node.client()
        self.beside = lab.read(directory).nodes[1]
        self.folder = directory / self.beside.name
        self.config = self.folder / CONFIG
        stand_beside(self.config, self.node, beginning="session_")
        self.loop = _Loop()
        self.docker = DockerApi(directory)
        self.loop.run(self.docker.start())
        folder = directory / "storage"
        self.store = FileStore(folder)
        self.store.write_table(Artifact("people", "fate"), ("id", "age"), [(each, 1) for each in THEIRS], extra={})
        self.fate = FateFlow(self.beside.node_id, directory / "fate", self.node.edge_url, self.node.ca_file)
        self.fate.pki = Pki.load(self.folder / PKI)
        program = str(image(directory))
        self.fate.containers = Containers(
            self.docker.port, program, f"file://{folder}", self.beside.platform_url.removeprefix("http://")
        )
        self.loop.run(self.fate.start())
        ours = ("--config", config_of(directory))
        interconn(
            "partner", "record", self.fate.node_id, "--profile", "fate-2.x", "--ca-file", self.beside.ca_file,
            "--address", f"https://127.0.0.1:{self.fate.port}", "--transport-address", self.beside.edge_url, *ours,
        )  # fmt: skip
        self.dataset = our_dataset(self.client, directory, [(each, "1") for each in OURS])
        interconn("dataset", "record-grant", self.fate.node_id, self.dataset, "--component", "psi", *ours)

    def close(self) -> None:
        for each in (self.fate, self.docker):
            self.loop.run(each.stop())
        self.loop.close()
        lab.down(self.directory)

    def ours(self) -> str:
        """A job that this gateway schedules, ended well; its id."""
        job = psi_job((self.node.node_id, self.dataset), (self.fate.node_id, "people#fate"))
        job_id = str(platform(self.node, "job/create_all", job)["job_id"])
        self.check(job_id, their_role="host")
        return job_id

    def theirs(self, job_id: str) -> None:
        """A job that FATE-Flow schedules."""
        job = psi_job((self.fate.node_id, "people#fate"), (self.node.node_id, self.dataset)) | {"job_id": job_id}
        self.loop.run(self.fate.schedule(job))

    def check(self, job_id: str, *, their_role: str) -> None:
        """Both sides found exactly the common ids, in one order."""
        view = ended(self.client, job_id)
        assert view["job"]["outcome"] == "succeeded", view["explanation"]
        found = found_here(self.client, job_id, self.directory)["common"]
        assert sorted(found) == TRUTH
        theirs = Artifact(f"{their_role}-{self.fate.node_id}-dataset-data0", view["tasks"][0]["task_id"])
        assert [row[0] for row in self.store.read_table(theirs).rows] == found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("beside") / "lab")
    try:
        yield made
    finally:
        made.close()


@pytest.mark.req("C-130", "T-047")
def test_psi_in_a_job_of_ours(world: World) -> None:
    job_id = world.ours()
    environment = world.fate.environments[-1]
    assert environment["config.token"] == environment["config.session_id"] == f"session_{job_id}"
    assert sum(bytes_of(world.folder, "chan.push", f"session_{job_id}")) > 0
    assert sum(bytes_of(world.folder, "chan.invoke", f"session_{job_id}")) > 0


@pytest.mark.req("C-130")
def test_psi_in_a_job_of_fate_flow(world: World) -> None:
    world.theirs("202611212135501268270")
    world.check("202611212135501268270", their_role="guest")


def test_declared_sessions_outlive_a_crash(world: World) -> None:
    """Of both processes; the data process is told of them before it listens."""
    before = interconn("session", "list", "--json", "--config", world.config)
    run = load(world.config).path(Path(load(world.config).paths.run))
    killed = {name: json.loads((run / name).read_text())["pid"] for name in ("control.json", "data.json")}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        files = [run / name for name in killed]
        return all(each.exists() and json.loads(each.read_text())["pid"] not in killed.values() for each in files)

    wait_for(back, "both processes are back")
    assert interconn("session", "list", "--json", "--config", world.config) == before
    world.ours()


def test_a_declaration_that_is_closed(world: World) -> None:
    """The last test: nothing passes after it."""
    known = Channel(Line(world.beside.platform_url, "session_by-hand", "trace", ""))
    partner = Address(world.node.node_id, "")
    assert known.peek("t", source=partner) is None
    assert interconn("session", "close", "session_", "--config", world.config) == "session_ is closed.\n"
    with pytest.raises(ComponentError, match="E0000000608"):
        known.peek("t", source=partner)
    known.close()
    assert interconn("session", "list", "--config", world.config) == "No session was declared.\n"
