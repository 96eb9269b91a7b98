"""The process launcher with real processes, the component's environment, staging."""

import asyncio
import json
import os
import signal
import stat
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Kind, Refused, Unavailable
from gateway.mgmt_plane.core.dag import Resources, parse_plan
from gateway.model import (
    Dataset,
    DatasetId,
    InstId,
    Job,
    JobId,
    Limits,
    NodeId,
    Outcome,
    Party,
    TaskId,
    TaskName,
    TraceId,
)
from gateway.runtime.launch import (
    Addresses,
    Exit,
    Launch,
    ProcessLauncher,
    component_environment,
    count_lines,
    read_lines,
    tail_lines,
)
from gateway.runtime.shim import TaskLog
from gateway.runtime.staging import Folders, source_name, stage
from specs.description import builtin_descriptions
from specs.states import JobState
from tests.machines.test_dag import CONFIG, DAG
from tests.waiting import eventually

DESCRIPTIONS = {d.component_name: d for d in builtin_descriptions()}
PARTY = Party("host", 0, NodeId("B"))


def program(folder: Path, body: str) -> str:
    """Image of a Python program."""
    file = folder / "component.py"
    file.write_text(f"#!{sys.executable}\nimport json, os, signal, subprocess, sys, time\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return f"file://{file}"


def launch(folder: Path, image: str, **variables: str) -> Launch:
    return Launch(
        image, variables, folder / "work", folder / "log" / "task.log", folder / f"run-{uuid.uuid4().hex}", Resources()
    )


async def run(folder: Path, body: str, **variables: str) -> tuple[Exit, str, list[Any]]:
    reports: list[Any] = []
    what = launch(folder, program(folder, body), **variables)
    running = await ProcessLauncher(term_s=0.3).launch(what, lambda kind, record: reports.append((kind, record)))
    async with asyncio.timeout(10):
        end = await running.wait()
    return end, what.log.read_text(), reports


@pytest.mark.req("A-022")
@pytest.mark.parametrize(
    ("body", "end"),
    [
        ("", Exit(0)),
        ("sys.exit(7)", Exit(7)),
        ("sys.exit(255)", Exit(255)),
        ("os.kill(os.getpid(), 9)", Exit(137, 9)),
    ],
)
async def test_exit_codes(tmp_path: Path, body: str, end: Exit) -> None:
    found, _, _ = await run(tmp_path, body)
    assert found == end
    assert found.success == (body == "")


@pytest.mark.req("A-043", "A-013")
async def test_the_environment_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERCONN_SECRET", "do not pass on")
    _, log, _ = await run(
        tmp_path, "print(json.dumps(dict(os.environ)))", **{"config.task_id": "t", "a.b.c": 'x "y" $z'}
    )
    seen = json.loads(log[log.index("{") :])
    assert set(seen) - {"LC_CTYPE"} == {"PATH", "LANG", "HOME", "config.task_id", "a.b.c"}
    assert seen["a.b.c"] == 'x "y" $z'
    assert seen["HOME"] == str(tmp_path / "work")


@pytest.mark.req("A-027", "A-039")
async def test_the_log(tmp_path: Path) -> None:
    body = (
        "print('one'); print('ERROR two'); sys.stdout.flush(); sys.stderr.write('three\\n')\n"
        "sys.stdout.buffer.write(b'\\xff\\xfe four\\n'); print('token is hunter2secret')\n"
        "print('x' * 200000); sys.stdout.write('no newline')"
    )
    end, log, _ = await run(tmp_path, body, **{"config.token": "hunter2secret"})
    assert end.success
    lines = log.splitlines()
    assert "hunter2secret" not in log
    assert any(line.endswith("INFO token is ***") for line in lines)
    assert any(line.endswith("INFO one") for line in lines)
    assert any(line.endswith("ERROR ERROR two") for line in lines)
    assert any(line.endswith("ERROR three") for line in lines)
    assert any("\ufffd\ufffd four" in line for line in lines)
    assert lines[-1].endswith("no newline") or lines[-2].endswith("no newline")
    assert max(map(len, lines)) < 70_000


async def test_records_are_reported_and_nonsense_is_only_logged(tmp_path: Path) -> None:
    body = (
        'print(\'@progress {"phase": "x", "done": 1}\'); print(\'@result {"code": "4003", "message": "m"}\')\n'
        "print('@progress not json'); print('@progress [1]'); print('@result ' + '{' * 9000)"
    )
    end, log, reports = await run(tmp_path, body)
    assert reports == [("progress", {"phase": "x", "done": 1})]
    assert end.result == {"code": "4003", "message": "m"}
    assert "@progress not json" in log


@pytest.mark.req("C-100")
def test_reading_a_log(tmp_path: Path) -> None:
    file = tmp_path / "task.log"
    log = TaskLog(file, limit=10_000)
    for text, level in (("a", "INFO"), ("DEBUG b", "INFO"), ("c", "ERROR"), ("d", "INFO")):
        log.line(text, level)
    log.close()
    assert [count_lines(file, level) for level in ("debug", "info", "error")] == [4, 3, 1]
    assert [line[-2] for line in read_lines(file, "info", start=1, length=None).splitlines(keepends=True)] == ["c", "d"]
    assert [line[-1] for line in read_lines(file, "debug", start=1, length=2).splitlines()] == ["b", "c"]
    assert read_lines(file, "debug", start=9, length=None) == ""
    assert count_lines(tmp_path / "none", "info") == 0
    assert [line[-2] for line in tail_lines(file, 2)] == ["c", "d"]
    assert tail_lines(tmp_path / "none", 2) == []


def test_the_tail_of_a_log_is_its_newest_lines_however_long_they_are(tmp_path: Path) -> None:
    file = tmp_path / "task.log"
    log = TaskLog(file, limit=16 << 20)
    for number in range(100):
        log.line(f"{number} " + "x" * 60_000, "INFO")
    log.close()
    assert [line.split()[2] for line in tail_lines(file, 90)] == [str(number) for number in range(10, 100)]


@pytest.mark.parametrize("end", ["\r", "\u2028", "\x0b", "\x85"])
def test_what_a_component_writes_begins_no_line_of_the_log(tmp_path: Path, end: str) -> None:
    file = tmp_path / "task.log"
    log = TaskLog(file, limit=10_000)
    log.line(f"a{end}2026-01-01T00:00:00Z ERROR ended: exit", "INFO")
    log.close()
    assert len(tail_lines(file, 9)) == count_lines(file, "debug") == 1
    assert count_lines(file, "error") == 0


def test_a_log_has_an_end(tmp_path: Path) -> None:
    log = TaskLog(tmp_path / "task.log", limit=1000)
    for _ in range(1000):
        log.line("x" * 50, "INFO")
    log.close()
    assert (tmp_path / "task.log").stat().st_size < 1200
    assert "reached its limit" in (tmp_path / "task.log").read_text()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.req("C-087", "A-029")
async def test_a_component_is_killed_with_its_children(tmp_path: Path) -> None:
    body = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "code = 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)'\n"
        "child = subprocess.Popen([sys.executable, '-c', code])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    what = launch(tmp_path, program(tmp_path, body))
    running = await ProcessLauncher(term_s=0.3).launch(what, lambda *_: None)
    await eventually(lambda: what.log.exists() and what.log.read_text().strip())
    child = int(what.log.read_text().split()[-1])
    assert running.pid
    assert os.getpgid(running.pid) == running.pid != os.getpgid(0)
    assert alive(child)
    async with asyncio.timeout(5):
        await running.kill()
    assert await running.wait() == Exit(128 + signal.SIGKILL, signal.SIGKILL, "stopped")
    await eventually(lambda: not alive(child))
    assert what.log.exists()


async def test_children_do_not_outlive_a_component_that_ends(tmp_path: Path) -> None:
    end, log, _ = await run(tmp_path, "print(subprocess.Popen(['sleep', '60']).pid, flush=True)")
    assert end.success
    await eventually(lambda: not alive(int(log.split()[-1])))


@pytest.mark.req("C-117", "A-028")
async def test_limits(tmp_path: Path) -> None:
    body = (
        "time.sleep(0.3); import resource as r\n"
        "kinds = (r.RLIMIT_AS, r.RLIMIT_FSIZE, r.RLIMIT_CORE)\n"
        "print(json.dumps([*(r.getrlimit(kind)[0] for kind in kinds), len(os.sched_getaffinity(0))]))"
    )
    image = program(tmp_path, body)
    for resources, wanted in (
        (Resources(), [-1, -1, 0, len(os.sched_getaffinity(0))]),
        (Resources(cpu=1, memory=2, disk=0.5), [2 << 30, 1 << 29, 0, 1]),
    ):
        log = tmp_path / f"{resources.cpu}.log"
        what = Launch(image, {}, tmp_path / "work", log, tmp_path / f"run-{resources.cpu}", resources)
        running = await ProcessLauncher().launch(what, lambda *_: None)
        assert (await running.wait()).success
        log = what.log.read_text()
        assert json.loads(log[log.index("[") :]) == wanted


async def test_images_that_cannot_be_run(tmp_path: Path) -> None:
    for image in ("images.example/psi:1.0.0", "file:///does/not/exist", "file://relative", ""):
        with pytest.raises(Refused) as error:
            await ProcessLauncher().launch(launch(tmp_path, image), lambda *_: None)
        assert error.value.kind is Kind.COMPONENT_UNKNOWN
    assert ProcessLauncher(python="py").command("builtin:gateway.components.psi") == [
        "py",
        "-P",
        "-m",
        "gateway.components.psi",
    ]


def environment(**changes: Any) -> dict[str, str]:
    plan = parse_plan(DAG, CONFIG, Limits())
    name = TaskName(changes.pop("name", "psi_1"))
    description = DESCRIPTIONS[plan.nodes[name].component.name]
    job = Job(
        JobId("job-1"), "", "", "", DAG, CONFIG, JobState.RUNNING, Outcome.OPEN, "", NodeId("A"), NodeId("A"),
        scheduling=False, trace_id=TraceId("tr-1"), permits={}, created=1, started=1, finished=None, heard=1,
    )  # fmt: skip
    given: dict[str, Any] = {
        "job": job,
        "plan": plan,
        "party": PARTY,
        "name": name,
        "task_id": TaskId("task_9"),
        "producers": {TaskName("enc"): TaskId("task_3"), TaskName("lr"): TaskId("task_4")},
        "description": description,
        "bindings": plan.bind(name, description),
        "source": {"namespace": "source", "name": "ds-B"},
        "inst_ids": {NodeId("A"): InstId("inst-A")},
        "token": "secret",
        "storage": "file:///work/store",
        "log_path": "/work/logs",
        "addresses": Addresses("127.0.0.1:1", "http://127.0.0.1:1/v1/platform/schedule/task/callback"),
        "threads": 3,
    }
    return component_environment(**{**given, **changes})


@pytest.mark.req("C-110", "C-111", "C-112", "C-113", "C-114", "C-116", "A-013", "A-014", "A-015", "A-018", "A-020")
def test_the_variables_of_a_source_task() -> None:
    seen = environment()
    assert {k: v for k, v in seen.items() if not k.startswith("runtime.component.parameter.")} == {
        "system.storage": "file:///work/store",
        "system.transport": "127.0.0.1:1",
        "system.callback": "http://127.0.0.1:1/v1/platform/schedule/task/callback",
        "interconn.threads": "3",
        "config.self_role": "host.0",
        "config.task_id": "task_9",
        "config.node_id.guest.0": "A",
        "config.node_id.host.0": "B",
        "config.node_id.host.1": "A",
        "config.inst_id.guest.0": "inst-A",
        "config.inst_id.host.0": "B",
        "config.inst_id.host.1": "inst-A",
        "config.session_id": "session_job-1",
        "config.trace_id": "tr-1",
        "config.token": "secret",
        "config.log.path": "/work/logs",
        "runtime.component.name": "psi",
        "runtime.component.input.train_data": '{"namespace": "source", "name": "ds-B"}',
        "runtime.component.output.data0": '{"namespace": "job-1-host-0", "name": "task_9-data0"}',
    }
    prefix = "runtime.component.parameter."
    assert seen[f"{prefix}id"] == "customer"
    assert seen[f"{prefix}wait_seconds"] == "5"
    assert seen[f"{prefix}total_seconds"] == "3600"
    assert f"{prefix}dataset_id" not in seen


@pytest.mark.req("C-115", "C-116", "A-016")
def test_the_variables_of_a_later_task() -> None:
    seen = environment(name="pred", source=None)
    assert json.loads(seen["runtime.component.input.test_data"]) == {"namespace": "job-1-host-0", "name": "task_3-test"}
    assert json.loads(seen["runtime.component.input.model"]) == {"namespace": "job-1-host-0", "name": "task_4-model0"}
    assert json.loads(seen["runtime.component.parameter.result_to"]) == ["guest"]


# --- staging ----------------------------------------------------------------------------------------------------------


def dataset(location: Path, dataset_id: str = "ds-1") -> Dataset:
    return Dataset(
        DatasetId(dataset_id), "people", InstId("i"), "", "", 2, "id", "",
        ({"name": "id", "data_type": "varchar"}, {"name": "age", "data_type": "int"}),
        public=True, location=str(location), created=1,
    )  # fmt: skip


def test_granted_columns_are_copied_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "data.csv"
    source.write_text('id,age,"diag, nosis"\n1,30,"a\nb"\n\n2,40,"c""d"\n')
    assert stage(dataset(source), ("age", "id", "unknown"), tmp_path / "store", now_ms=5000) == 2
    folder = tmp_path / "store" / "source" / "ds-1"
    assert (folder / "data_0").read_text() == "id,age\n1,30\n2,40\n"
    metadata = json.loads((folder / "metadata").read_text())
    assert metadata["column_info"] == [{"name": "id", "type": "varchar"}, {"name": "age", "type": "int"}]
    assert (metadata["count"], metadata["partitions"], metadata["create_time"]) == (2, 1, 5.0)
    # Again, and with other columns.
    assert stage(dataset(source), ("age", "id", "unknown"), tmp_path / "store", now_ms=9000) == 2
    assert json.loads((folder / "metadata").read_text())["create_time"] == 5.0
    assert stage(dataset(source), (), tmp_path / "store", now_ms=9000) == 2
    assert (folder / "data_0").read_text() == source.read_text().replace("\n\n2", "\n2")
    assert sorted(p.name for p in (tmp_path / "store" / "source").iterdir()) == ["ds-1"]


def test_what_cannot_be_staged_leaves_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(Unavailable) as error:
        stage(dataset(tmp_path / "none.csv"), (), store, now_ms=1)
    assert error.value.kind is Kind.STORAGE
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("id,age\n1\n")
    with pytest.raises(Unavailable):
        stage(dataset(ragged), (), store, now_ms=1)
    with pytest.raises(Refused) as refused:
        stage(dataset(ragged), ("other",), store, now_ms=1)
    assert refused.value.kind is Kind.GRANT_MISSING
    assert not [p for p in store.rglob("*") if p.is_file()]


def test_odd_dataset_ids_name_no_other_folder(tmp_path: Path) -> None:
    source = tmp_path / "data.csv"
    source.write_text("id\n1\n")
    stage(dataset(source, "../../x#y"), (), tmp_path / "store", now_ms=1)
    name = source_name("../../x#y")["name"]
    assert name.startswith("dataset-")
    assert (tmp_path / "store" / "source" / name / "data_0").exists()


def test_artifacts_outside_the_store_are_not_found(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    job, party = JobId("job-1"), Party("guest", 0, NodeId("A"))
    good = folders.store(job, party) / "ns" / "name"
    good.mkdir(parents=True)
    (good / "data_0").write_text("x")
    assert folders.artifact(job, party, "ns", "name") == good / "data_0"
    assert folders.artifact(job, party, "ns", "other") is None
    for namespace, name in (
        ("..", "name"),
        ("ns", "../ns/name"),
        ("ns", ".."),
        ("", "name"),
        ("ns", "a\0b"),
        ("ns/name", "x"),
    ):
        with pytest.raises(Refused):
            folders.artifact(job, party, namespace, name)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "data_0").write_text("s")
    (good.parent / "link").symlink_to(tmp_path / "secret")
    assert folders.artifact(job, party, "ns", "link") is None
    with pytest.raises(Refused):
        folders.job(JobId("../x"))
