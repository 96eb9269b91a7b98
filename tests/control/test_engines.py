"""Containers through the engines' own clients, against stand-ins of their HTTP interfaces: no engine runs here."""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.app.control import _launcher
from gateway.config import ConfigError, ContainersSection, load
from gateway.errors import Refused, Unavailable
from gateway.mgmt_plane.core.dag import Resources
from gateway.runtime.engines import ByImage, Engine, EngineLauncher, container_name
from gateway.runtime.launch import LOST, Exit, Launch, ProcessLauncher
from tests.control.engines import StandIn, stand_in
from tests.control.test_launch import launch, program

pytest.importorskip("docker")
pytest.importorskip("kubernetes")
KINDS = ("docker", "kubernetes")
VARIABLES = {
    "system.transport": "127.0.0.1:7305",
    "config.self_role": "guest.0",
    "config.task_id": "task_7f",
    "config.token": "hunter2secret",
    "runtime.component.parameter.text": 'a "b" $c = d\nsecond line',
    "runtime.component.input.data0": '{"namespace": "n", "name": "m"}',
}
SHOW = "print(json.dumps({k: v for k, v in os.environ.items() if '.' in k}))"


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as state:
        yield state


def engine(kind: str, server: StandIn, **more: Any) -> Engine:
    if kind == "docker":
        from gateway.runtime.docker_engine import DockerEngine

        return DockerEngine(address=server.url, **more)
    from kubernetes import client

    from gateway.runtime.kubernetes_engine import KubernetesEngine

    return KubernetesEngine(namespace="tasks", api=client.ApiClient(client.Configuration(host=server.url)), **more)


def what(folder: Path, server: StandIn, body: str, **variables: str) -> Launch:
    server.programs["they/algo:1"] = program(folder, body).removeprefix("file://")
    return launch(folder, "they/algo:1", **variables)


async def ended(launcher: EngineLauncher, given: Launch) -> tuple[Exit, str, list[Any]]:
    reports: list[Any] = []
    running = await launcher.launch(given, lambda kind, record: reports.append((kind, record)))
    async with asyncio.timeout(10):
        end = await running.wait()
    return end, given.log.read_text(), reports


@pytest.mark.req("A-042", "A-043", "A-013")
@pytest.mark.parametrize("kind", KINDS)
async def test_every_launcher_gives_the_same_environment(tmp_path: Path, server: StandIn, kind: str) -> None:
    given = what(tmp_path, server, SHOW.replace("'.' in k", "'.' in k and 'token' not in k"))
    given = replace(given, environment=VARIABLES)
    end, log, _ = await ended(EngineLauncher(engine(kind, server), tell_s=0.02), given)
    assert end.success
    process = replace(given, image=f"file://{server.programs['they/algo:1']}", run=tmp_path / "run-process")
    process = replace(process, log=tmp_path / "log" / "process.log")
    running = await ProcessLauncher(term_s=0.3).launch(process, lambda *_: None)
    assert (await running.wait()).success
    seen = [json.loads(text[text.index("{") :]) for text in (log, process.log.read_text())]
    assert seen[0] == seen[1] == {key: value for key, value in VARIABLES.items() if key != "config.token"}


@pytest.mark.req("A-022", "A-027", "A-029", "A-039")
@pytest.mark.parametrize("kind", KINDS)
async def test_log_records_and_end(tmp_path: Path, server: StandIn, kind: str) -> None:
    body = (
        "print('one'); print('token is hunter2secret'); sys.stdout.flush(); sys.stdout.buffer.write(b'\\xff two\\n')\n"
        'print(\'@progress {"phase": "x", "done": 1}\'); print(\'@result {"code": "4003", "message": "m"}\')\n'
        "sys.exit(7)"
    )
    given = what(tmp_path, server, body, **VARIABLES)
    end, log, reports = await ended(EngineLauncher(engine(kind, server), tell_s=0.02), given)
    assert end == Exit(7, result={"code": "4003", "message": "m"})
    assert not end.success
    assert "INFO one" in log
    assert "\ufffd two" in log
    assert "hunter2secret" not in log
    assert reports == [("progress", {"phase": "x", "done": 1})]
    assert server.containers == {}
    assert given.log.is_file()


@pytest.mark.req("A-028")
@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_engine_is_asked_for(tmp_path: Path, server: StandIn, kind: str) -> None:
    store = tmp_path / "store"
    plain = replace(what(tmp_path, server, ""), writes=(store,))
    limited = replace(plain, resources=Resources(cpu=1.5, memory=2), run=tmp_path / "run-2", timeout_s=90)
    for given in (plain, limited):
        assert (await ended(EngineLauncher(engine(kind, server), tell_s=0.02), given))[0].success
    free, bound = server.made
    if kind == "docker":
        host = bound["HostConfig"]
        assert (host["NanoCpus"], host["Memory"]) == (1_500_000_000, 2 << 30)
        assert not {"NanoCpus", "Memory"} & set(free["HostConfig"])
        assert f"{store}:{store}:rw" in host["Binds"]
        assert (host["NetworkMode"], host["CapDrop"], host["SecurityOpt"]) == ("host", ["ALL"], ["no-new-privileges"])
        return
    spec = bound["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["resources"] == {
        "limits": {"cpu": "1.5", "memory": "2Gi"},
        "requests": {"cpu": "1.5", "memory": "2Gi"},
    }
    assert free["spec"]["template"]["spec"]["containers"][0]["resources"] == {"limits": {}, "requests": {}}
    assert (spec["activeDeadlineSeconds"], spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (90, 0, 3600)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert str(store) in [mount["mountPath"] for mount in container["volumeMounts"]]
    address = next(each for each in container["env"] if each["name"] == "MY_HOST_IP")
    assert address["valueFrom"] == {"fieldRef": {"fieldPath": "status.hostIP"}}


async def test_a_claim_is_one_volume(tmp_path: Path, server: StandIn) -> None:
    given = what(tmp_path, server, "")
    assert (await ended(EngineLauncher(engine("kubernetes", server, claim="work"), tell_s=0.02), given))[0].success
    spec = server.made[0]["spec"]["template"]["spec"]
    assert spec["volumes"] == [{"name": "work", "persistentVolumeClaim": {"claimName": "work"}}]
    mounts = {each["mountPath"]: each["subPath"] for each in spec["containers"][0]["volumeMounts"]}
    assert mounts[str(given.directory)] == str(given.directory).lstrip("/")


@pytest.mark.parametrize("kind", KINDS)
async def test_killed_late_and_silent(tmp_path: Path, server: StandIn, kind: str) -> None:
    launcher = EngineLauncher(engine(kind, server), tell_s=0.02)
    given = what(tmp_path, server, "time.sleep(60)")
    running = await launcher.launch(given, lambda *_: None)
    async with asyncio.timeout(10):
        await running.kill()
        assert (await running.wait()).why == "stopped"
    for number, (limits, why) in enumerate((({"timeout_s": 0.05}, "late"), ({"silent_s": 0.05}, "silent"))):
        end, _, _ = await ended(launcher, replace(given, run=tmp_path / f"run-{number}", **limits))
        assert (end.success, end.why) == (False, why)
    assert server.containers == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_container_outlives_the_gateway(tmp_path: Path, server: StandIn, kind: str) -> None:
    body = (
        f"print('begun hunter2secret', flush=True)\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(.01)"
    )
    given = what(tmp_path, server, body, **VARIABLES)
    launcher = EngineLauncher(engine(kind, server), tell_s=0.02)
    (await launcher.launch(given, lambda *_: None)).release()
    again = await EngineLauncher(engine(kind, server), tell_s=0.02).adopt(given.run, "", lambda *_: None)
    assert again is not None
    (tmp_path / "go").touch()
    async with asyncio.timeout(10):
        assert (await again.wait()).success
    assert "hunter2secret" not in given.log.read_text()
    # Ended and removed: the end is on record.
    third = await launcher.adopt(given.run, "", lambda *_: None)
    assert third is not None
    assert (await third.wait()).success
    (given.run / "exit").unlink()
    gone = await launcher.adopt(given.run, "", lambda *_: None)
    assert gone is not None
    assert (await gone.wait()).why == LOST
    # Prepared and never started.
    for name in ("launch", "exit"):
        (given.run / name).unlink()
    assert await launcher.adopt(given.run, "", lambda *_: None) is None


@pytest.mark.parametrize("kind", KINDS)
async def test_an_engine_that_refuses(tmp_path: Path, server: StandIn, kind: str) -> None:
    launcher = EngineLauncher(engine(kind, server), tell_s=0.02)
    given = what(tmp_path, server, "", **VARIABLES)
    server.refuse = 500
    with pytest.raises(Unavailable, match="HTTP status 500") as caught:
        await launcher.launch(given, lambda *_: None)
    assert "hunter2" not in str(caught.value)
    server.refuse = 0
    bad = replace(given, image="http://they/algo", run=tmp_path / "other")
    with pytest.raises(Refused, match="no name of a container image"):
        await launcher.launch(bad, lambda *_: None)


async def test_the_image_decides(tmp_path: Path, server: StandIn) -> None:
    containers = EngineLauncher(engine("docker", server), tell_s=0.02)
    launcher = ByImage(ProcessLauncher(term_s=0.3), containers)
    given = what(tmp_path, server, "")
    own = replace(given, image=f"file://{server.programs['they/algo:1']}", run=tmp_path / "own")
    for each in (given, own):
        assert (await (await launcher.launch(each, lambda *_: None)).wait()).success
        adopted = await launcher.adopt(each.run, "", lambda *_: None)
        assert adopted is not None
        assert (await adopted.wait()).success
    assert len(server.made) == 1
    assert not any(str(own.run.name) in name for name in server.containers)


def test_container_names() -> None:
    name = container_name(Path("/w/runs/t-PSI_1." + "x" * 60 + "-" + "0a" * 16))
    assert name.endswith("0a" * 16)
    assert len(name) <= 63
    assert name == name.lower().replace("_", "-").replace(".", "-")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('engine = "podman"', r"containers\.engine"),
        ('engine = "docker"\npull = "Sometimes"', r"containers\.pull"),
        ('colour = "red"', r"containers\.colour"),
    ],
)
def test_the_section_is_checked(tmp_path: Path, section: str, words: str) -> None:
    file = tmp_path / "node.toml"
    node = '[node]\nnode_id = "A"\ninst_id = "I"\nname = "n"\ninstitution = "i"\naddress = "https://a:1"\n'
    file.write_text(f"{node}[containers]\n{section}\n")
    with pytest.raises(ConfigError, match=words):
        load(file)


def test_a_node_starts_with_the_launcher_that_it_names(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(_launcher(ContainersSection()), ProcessLauncher)
    assert isinstance(_launcher(ContainersSection(engine="docker", address=server.url)), ByImage)
    with pytest.raises(ConfigError, match="was not reached"):
        _launcher(ContainersSection(engine="docker", address="tcp://127.0.0.1:1"))
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(ConfigError, match="no configuration"):
        _launcher(ContainersSection(engine="kubernetes"))
    monkeypatch.setitem(sys.modules, "gateway.runtime.docker_engine", None)
    with pytest.raises(ConfigError, match="install the extra 'docker'"):
        _launcher(ContainersSection(engine="docker"))
