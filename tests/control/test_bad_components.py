"""Components that misbehave, below a real shim; and shims and gateways that are killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.mgmt_plane.core.dag import Resources
from gateway.runtime import shim
from gateway.runtime.launch import LOST, Exit, Launch, ProcessLauncher, ProcessRun
from gateway.runtime.tasks import digest_of
from tests.control.test_launch import alive, program
from tests.waiting import eventually

ESCAPE = (
    "def escape():\n"
    "    if os.fork() == 0:\n"
    "        os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "        if os.fork() == 0: os.setsid(); print(os.getpid(), flush=True); time.sleep(60)\n"
    "        os._exit(0)\n"
    "    os.wait()\n"
    "escape()\n"
)
"""A daemon as the book says: two forks, two sessions, deaf to SIGTERM. Prints its pid."""


def quick(**more: Any) -> ProcessLauncher:
    return ProcessLauncher(**{"term_s": 0.2, "watch_s": 0.1, "keep_free": 0, **more})


def what(folder: Path, body: str, resources: Resources | None = None, **more: Any) -> Launch:
    own = folder / uuid.uuid4().hex
    own.mkdir()
    return Launch(
        program(own, body), {"config.token": uuid.uuid4().hex}, own / "work", own / "task.log", own / "run",
        resources or Resources(), **more,
    )  # fmt: skip


async def end_of(launcher: ProcessLauncher, launch: Launch) -> tuple[Exit, str]:
    running = await launcher.launch(launch, lambda *_: None)
    async with asyncio.timeout(20):
        return await running.wait(), launch.log.read_text()


async def word_of(launch: Launch) -> int:
    """The number that a component has printed."""
    await eventually(lambda: launch.log.exists() and launch.log.read_text().strip())
    return int(launch.log.read_text().split()[-1])


async def test_one_that_prints_a_gigabyte(tmp_path: Path) -> None:
    body = (
        "line = (b'x' * 1023 + b'\\n') * 1024\n"
        "for _ in range(1024): os.write(1, line)\n"
        'print(\'@result {"code": "7"}\')'
    )
    end, log = await end_of(quick(log_bytes=100_000), what(tmp_path, body))
    assert end.success
    assert end.result == {"code": "7"}, "what it reports is heard even when nothing more is kept"
    assert len(log) < 110_000
    assert "reached its limit" in log


@pytest.mark.req("C-117", "A-026", "A-028")
@pytest.mark.parametrize(
    ("body", "why", "launcher", "launch"),
    [
        ("time.sleep(60)", "late", {}, {"timeout_s": 0.3}),
        ("print('x', flush=True); time.sleep(60)", "silent", {}, {"silent_s": 0.3}),
        # Each of its own size would do; together they are too many, or too much.
        ("[os.fork() for _ in range(6)]; time.sleep(60)", "processes", {"processes": 20}, {}),
        (
            "os.fork(); b = bytearray(60 << 20); time.sleep(60)",
            "memory",
            {},
            {"resources": Resources(memory=100 / 1024)},
        ),
        (
            "[open(str(i), 'wb').write(bytes(600_000)) for i in range(5)]; time.sleep(60)",
            "disk",
            {},
            {"resources": Resources(disk=1 / 1024)},
        ),
        ("time.sleep(60)", "full", {"keep_free": 1 << 60}, {}),
    ],
)
async def test_one_that_takes_too_much(tmp_path: Path, body: str, why: str, launcher: Any, launch: Any) -> None:
    end, log = await end_of(quick(**launcher), what(tmp_path, body, **launch))
    assert (end.why, end.success) == (why, False)
    assert f"ended: {why}" in log
    assert end.words() != why, "the admin reads words"


async def test_one_that_calls_often_is_not_silent(tmp_path: Path) -> None:
    launch = what(tmp_path, "time.sleep(1.3)", silent_s=1.0)
    running = await quick().launch(launch, lambda *_: None)
    for _ in range(12):
        (launch.run / shim.ALIVE).touch()
        await asyncio.sleep(0.1)
    assert (await running.wait()).success


@pytest.mark.req("C-087", "A-029")
@pytest.mark.parametrize("cgroups", [True, False])
async def test_none_of_its_children_gets_away(tmp_path: Path, cgroups: bool) -> None:
    """However it ends: by itself, stopped, or with its shim killed; where control groups are allowed and where not."""
    launcher = quick(cgroups=cgroups)
    gone = what(tmp_path, ESCAPE)
    end, log = await end_of(launcher, gone)
    assert end.success
    assert not alive(int(log.split()[-1]))

    stopped = what(tmp_path, f"{ESCAPE}time.sleep(60)")
    running = await launcher.launch(stopped, lambda *_: None)
    daemon = await word_of(stopped)
    assert alive(daemon)
    await running.kill()
    assert not alive(daemon)
    assert (await running.wait()).why == "stopped"

    orphaned = what(tmp_path, f"{ESCAPE}time.sleep(60)")
    running = await launcher.launch(orphaned, lambda *_: None)
    daemon = await word_of(orphaned)
    assert running.pid
    os.kill(running.pid, signal.SIGKILL)
    end = await running.wait()
    assert (end.why, end.success) == (LOST, False)
    await eventually(lambda: not alive(daemon))


def test_control_groups_that_nobody_ended_are_removed_when_empty() -> None:
    """A keeper that was killed together with its gateway leaves its group behind."""
    prefix = f"interconn-test-{uuid.uuid4().hex}-"
    groups = [shim.make_cgroup(f"{prefix}{n}", memory=0, cpus=0, processes=10) for n in range(2)]
    if groups[0] is None or groups[1] is None:
        pytest.skip("no control groups (version 2) may be made here")
    process = subprocess.Popen(["sleep", "60"])
    try:
        (groups[0] / "cgroup.procs").write_text(str(process.pid))
        assert shim.remove_empty_cgroups(prefix=prefix) == 0, "young ones stay"
        assert shim.remove_empty_cgroups(prefix=prefix, older_s=0) == 1
        assert (groups[0].exists(), groups[1].exists()) == (True, False)
    finally:
        shim.end_cgroup(groups[0])
        process.wait()
    assert not groups[0].exists()


async def test_one_that_cannot_be_started(tmp_path: Path) -> None:
    launch = what(tmp_path, "")
    Path(launch.image.removeprefix("file://")).write_text("#!/does/not/exist\n")
    end, _ = await end_of(quick(), launch)
    assert not end.success
    assert "could not be started" in end.words()


# --- who comes after --------------------------------------------------------------------------------------------------

GATEWAY = """
import asyncio, sys
from pathlib import Path
from gateway.mgmt_plane.core.dag import Resources
from gateway.runtime.launch import Launch, ProcessLauncher

async def main(image, work, log, run, token):
    launch = Launch(image, {"config.token": token}, Path(work), Path(log), Path(run), Resources())
    await ProcessLauncher(keep_free=0).launch(launch, lambda *_: None)
    print("launched", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def launched_by_another(launch: Launch) -> None:
    """As by a gateway that is killed as soon as it has started the component."""
    words = [
        sys.executable,
        "-c",
        GATEWAY,
        launch.image,
        launch.directory,
        launch.log,
        launch.run,
        launch.environment["config.token"],
    ]
    other = await asyncio.create_subprocess_exec(*map(str, words), stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert await other.stdout.readline() == b"launched\n"
    other.kill()
    await other.wait()


async def adopted(launch: Launch, reports: list[Any] | None = None) -> ProcessRun | None:
    return await quick().adopt(
        launch.run, digest_of(launch.environment["config.token"]), lambda *record: (reports or []).append(record)
    )


async def test_a_component_outlives_its_gateway(tmp_path: Path) -> None:
    go = tmp_path / "go"
    progress = 'print(\'@progress {"phase": "x"}\', flush=True)'
    launch = what(tmp_path, f"{progress}\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nsys.exit(7)")
    await launched_by_another(launch)
    await eventually((launch.run / shim.PROGRESS).exists)
    reports: list[Any] = [0]
    running = await adopted(launch, reports)
    assert running is not None
    go.touch()
    assert await running.wait() == Exit(7)
    assert reports == [0, ("progress", {"phase": "x"})]
    again = await adopted(launch)
    assert again is not None
    assert await again.wait() == Exit(7), "the record of its end stays"


async def test_an_adopted_component_can_be_stopped(tmp_path: Path) -> None:
    launch = what(tmp_path, f"{ESCAPE}time.sleep(60)")
    await launched_by_another(launch)
    daemon = await word_of(launch)
    running = await adopted(launch)
    assert running is not None
    await running.kill()
    assert (await running.wait()).why == "stopped"
    assert not alive(daemon)


async def test_a_lab_that_goes_down_leaves_none_behind(tmp_path: Path) -> None:
    """Also where the gateway was killed before and did not come back."""
    launch = what(tmp_path, f"{ESCAPE}time.sleep(60)")
    folder = tmp_path / "work" / "jobs" / "job-1" / "guest-0" / "runs"
    folder.mkdir(parents=True)
    launch = replace(launch, run=folder / "t-one")
    await launched_by_another(launch)
    daemon = await word_of(launch)
    assert await asyncio.to_thread(shim.end_left, tmp_path / "work") == 1
    assert not alive(daemon)
    assert (launch.run / shim.EXIT).exists()
    assert await asyncio.to_thread(shim.end_left, tmp_path / "work") == 0


async def test_one_whose_shim_is_gone_is_lost(tmp_path: Path) -> None:
    launch = what(tmp_path, f"{ESCAPE}time.sleep(60)")
    await launched_by_another(launch)
    daemon = await word_of(launch)
    os.kill(json.loads((launch.run / shim.STARTED).read_text())["pid"], signal.SIGKILL)
    running = await adopted(launch)
    assert running is not None
    assert (await running.wait()).why == LOST
    await eventually(lambda: not alive(daemon))


async def test_a_start_that_was_given_up_does_not_happen(tmp_path: Path) -> None:
    """The gateway was killed between its decision and the shim's first step, and the next one has decided otherwise."""
    mark = tmp_path / "ran"
    launch = what(tmp_path, f"open({str(mark)!r}, 'w')")
    assert await adopted(launch) is None, "no folder: nothing was begun"
    launch.run.mkdir()
    assert await adopted(launch) is None
    (launch.run / shim.SPEC).write_text(json.dumps(quick()._spec(launch, [launch.image.removeprefix("file://")])))
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", shim.__file__, str(launch.run))
    assert await process.wait() == 0
    assert not mark.exists()
    assert not (launch.run / shim.EXIT).exists()
    assert await adopted(launch) is None


async def test_another_process_with_its_number_is_left_alone(tmp_path: Path) -> None:
    launch = what(tmp_path, "")
    launch.run.mkdir()
    other = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        record = {"pid": other.pid, "started": 1, "group": ""}
        (launch.run / shim.STARTED).write_text(json.dumps(record))
        running = await adopted(launch)
        assert running is not None
        await running.kill()
        assert (await running.wait()).why == LOST
        assert alive(other.pid)
    finally:
        with suppress(ProcessLookupError):
            other.kill()
        await other.wait()
