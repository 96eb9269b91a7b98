"""What `interconn store prune` removes, and what it must not."""

import os
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.lab.node import NodeSettings, create_folder
from gateway.model import InstId, Job, JobId, NodeId, Outcome
from gateway.runtime.retention import prune
from gateway.runtime.staging import Folders
from gateway.store.memory import MemoryStore
from gateway.store.sql import SqlStore, migrate
from specs.states import JobState
from tests.integration.rig import free_port

DAY = 86_400_000


def job(name: str, status: JobState, finished: int | None, created: int = 0) -> Job:
    return Job(
        job_id=JobId(name),
        flow_id="",
        project_id="p",
        name=name,
        dag={},
        config={},
        status=status,
        outcome=Outcome.OPEN,
        reason="",
        initiator=NodeId("n"),
        scheduler=NodeId("n"),
        scheduling=False,
        trace_id="t",  # type: ignore[arg-type]
        permits={},
        created=created,
        started=None,
        finished=finished,
        heard=0,
    )


JOBS = (
    job("old", JobState.FINISHED, 10 * DAY),
    job("refused", JobState.REJECTED, None, created=10 * DAY),
    job("young", JobState.FINISHED, 90 * DAY),
    job("running", JobState.RUNNING, None),
    job("pending", JobState.PENDING, None),
)


def files(folder: Path) -> None:
    for each in (*(one.job_id for one in JOBS), "unknown"):
        store = folder / "work" / "jobs" / each / "guest-0" / "store"
        store.mkdir(parents=True)
        (store / "data_0").write_text("x" * 100)
    outside = folder / "precious"
    outside.write_text("kept")
    (folder / "work" / "jobs" / "old" / "link").symlink_to(outside)
    (folder / "log").mkdir()
    for name in ("gateway.log", "gateway.log.1", "gateway-control.log.2", "notes.txt"):
        (folder / "log" / name).write_text("line\n")
        os.utime(folder / "log" / name, (10 * 86400, 10 * 86400))
    (folder / "log" / "gateway.log.3").write_text("new\n")


def left(folder: Path) -> tuple[set[str], set[str]]:
    return (
        {each.name for each in (folder / "work" / "jobs").iterdir()},
        {each.name for each in (folder / "log").iterdir()},
    )


async def test_only_what_ended_long_ago(tmp_path: Path) -> None:
    files(tmp_path)
    store = MemoryStore()
    for each in JOBS:
        await store.run(lambda tx, each=each: tx.insert(each))  # type: ignore[misc]
    folders, log = Folders(tmp_path / "work"), tmp_path / "log"
    before = left(tmp_path)
    told = await prune(store, folders, log, before_ms=60 * DAY, really=False)
    assert left(tmp_path) == before
    gone = await prune(store, folders, log, before_ms=60 * DAY, really=True)
    assert gone == told
    assert set(gone.jobs) == {"old", "refused"}
    assert set(gone.logs) == {"gateway.log.1", "gateway-control.log.2"}
    assert gone.bytes == 210
    assert left(tmp_path) == (
        {"young", "running", "pending", "unknown"},
        {"gateway.log", "gateway.log.3", "notes.txt"},
    )
    assert (tmp_path / "precious").read_text() == "kept"
    again = await prune(store, folders, log, before_ms=60 * DAY, really=True)
    assert (again.jobs, again.logs, again.bytes) == ((), (), 0)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    folder = tmp_path / "node"
    ports = [free_port() for _ in range(3)]
    create_folder(
        folder,
        NodeSettings(NodeId("n"), InstId("i"), "n", "i", "", f"https://127.0.0.1:{ports[0]}", "127.0.0.1", *ports),
    )
    return folder


def run(*arguments: object) -> int:
    return main([str(each) for each in ("store", *arguments)])


def test_the_commands(node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import asyncio

    config = node / "node.toml"
    file = tmp_path / "backup.jsonl"
    assert run("backup", file, "--config", config) == 1  # there is no database yet
    assert run("migrate", "--config", config) == 0

    async def fill() -> None:
        store = SqlStore(f"sqlite:///{node / 'state.db'}")
        for each in JOBS:
            await store.run(lambda tx, each=each: tx.insert(each))  # type: ignore[misc]
        await store.close()

    asyncio.run(fill())
    files(node)
    assert run("backup", file, "--config", config) == 0
    assert "5 rows" in capsys.readouterr().out
    assert run("restore", file, "--config", config) == 1
    assert "not empty" in capsys.readouterr().err

    (node / "state.db").rename(tmp_path / "old.db")
    for rest in ("-wal", "-shm"):
        (node / f"state.db{rest}").unlink(missing_ok=True)
    assert run("restore", file, "--config", config, "--json") == 0
    assert '"rows": 5' in capsys.readouterr().out.replace('":5', '": 5')
    assert run("prune", "--older-than", "soon", "--config", config) == 2
    assert run("prune", "--older-than", "30d", "--dry-run", "--config", config) == 0
    assert (node / "work" / "jobs" / "old").exists()
    assert run("prune", "--older-than", "30d", "--config", config) == 0
    assert left(node)[0] == {"running", "pending", "unknown"}
    assert run("rollback", "--config", config) == 0
    assert run("rollback", "--to", "nonsense", "--config", config) == 1
    assert run("migrate", "--config", config) == 0
    assert run("backup", file) == 2  # which node?


def test_what_would_pull_the_ground_away_is_refused_while_the_node_runs(
    node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = node / "node.toml"
    migrate(f"sqlite:///{node / 'state.db'}")
    (node / "run").mkdir()
    (node / "run" / "control.json").write_text(f'{{"pid": {os.getpid()}}}')
    file = tmp_path / "backup.jsonl"
    assert run("backup", file, "--config", config) == 0
    for command in (("rollback",), ("migrate",), ("restore", file)):
        capsys.readouterr()
        assert run(*command, "--config", config) == 1
        assert "stop the node" in capsys.readouterr().err
