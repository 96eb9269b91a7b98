"""Components forked from an interpreter that waits: to them and to whoever ends them as if each had its own start."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.mgmt_plane.core.dag import Resources
from gateway.runtime import shim, warm
from gateway.runtime.launch import LOST, Exit, Launch, ProcessLauncher
from gateway.runtime.tasks import digest_of
from gateway.runtime.warm import Warm, _begun, _fits
from tests.control.test_bad_components import ESCAPE, word_of
from tests.control.test_launch import alive
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = "import json, os, resource, signal, subprocess, sys, threading, time\n"
FACTS = """
ours = {name: value for name, value in os.environ.items() if name != "LC_CTYPE"}
child = subprocess.run([sys.executable, "-c", "import os, json; print(json.dumps(dict(os.environ)))"],
                       stdout=subprocess.PIPE, text=True, check=True).stdout
shown = open("/proc/self/environ").read().split("\\0")
def link(name):
    try:
        return os.readlink("/proc/self/fd/" + name).partition(":")[0]
    except OSError:
        return "of the list itself"
stat = open("/proc/self/stat").read().rpartition(")")[2].split()
print(json.dumps({
    "name": __name__, "file": __file__, "main": sys.modules["__main__"].__dict__ is globals(),
    "argv": sys.argv, "path": sys.path, "flags": str(sys.flags),
    "environment": ours,
    "of a child": {name: value for name, value in json.loads(child).items() if name != "LC_CTYPE"},
    "in /proc": sorted(each for each in shown if each),
    "command line": open("/proc/self/cmdline").read().rstrip("\\0").split("\\0"),
    "directory": os.getcwd(), "session": stat[3] == str(os.getpid()), "group": stat[2] == str(os.getpid()),
    "streams": [[each.encoding, each.errors, each.line_buffering, each.isatty()]
                for each in (sys.stdin, sys.stdout, sys.stderr)],
    "descriptors": sorted(link(each) for each in os.listdir("/proc/self/fd")),
    "limits": [resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)],
    "cores": len(os.sched_getaffinity(0)),
    "signals": [str(signal.getsignal(each)) for each in (1, 2, 13, 15, 17, 25)],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "threads": threading.active_count(), "umask": os.umask(0o77), "gives way": os.nice(0) >= 5,
}), flush=True)
"""


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[Warm]:
    made = Warm(sys.executable, f"{ROOT}{os.pathsep}{tmp_path}")
    yield made
    made.close()


def launcher(waiting: Warm | None, folder: Path) -> ProcessLauncher:
    return ProcessLauncher(python_path=[ROOT, folder], warm=waiting, term_s=0.3, keep_free=0, watch_s=0.1)


def module(folder: Path, body: str, **more: Any) -> Launch:
    """One of our own components, as far as a launcher can tell."""
    name = f"component_{uuid.uuid4().hex}"
    (folder / f"{name}.py").write_text(IMPORTS + body)
    own = folder / name
    environment = {"config.token": uuid.uuid4().hex, "runtime.component.parameter.x": 'a "b" \u00fc', "empty": ""}
    given: dict[str, Any] = {"resources": Resources(), "directory": own / "work", **more}
    return Launch(f"builtin:{name}", environment, log=own / "task.log", run=own / "run", **given)


async def end_of(launch: Launch, waiting: Warm | None, folder: Path) -> tuple[Exit, str]:
    running = await launcher(waiting, folder).launch(launch, lambda *_: None)
    async with asyncio.timeout(20):
        return await running.wait(), launch.log.read_text()


def forked(launch: Launch) -> bool:
    """Its keeper's command line is that of no start by `ProcessLauncher`."""
    pid = json.loads((launch.run / shim.STARTED).read_text())["pid"]
    return b"-I" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def memory_of(pid: int) -> bytes:
    """All that a process could have written to."""
    found = bytearray()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if rights.startswith("rw"):
                first, last = (int(number, 16) for number in place.split("-"))
                memory.seek(first)
                found += memory.read(last - first)
    return bytes(found)


@pytest.mark.req("A-013", "A-043")
async def test_a_task_sees_what_it_would_see_alone(
    tmp_path: Path, waiting: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERCONN_ACCEL", "portable")
    limits = Resources(cpu=1, memory=2, disk=0.5)
    found = []
    for start in (None, waiting):
        launch = module(tmp_path, FACTS, resources=limits, directory=tmp_path / "work")
        end, log = await end_of(launch, start, tmp_path)
        assert end == Exit(0), log
        secret, name = launch.environment["config.token"], launch.image.removeprefix("builtin:")
        assert secret not in log
        facts = json.loads(log[log.index("{") :].replace(name, "NAME"))
        assert facts["main"]
        assert facts["gives way"]
        assert facts["environment"] == facts["of a child"]
        assert facts["environment"]["INTERCONN_ACCEL"] == "portable"
        assert facts["in /proc"] == sorted(f"{key}={value}" for key, value in facts["environment"].items())
        assert facts["command line"] == [sys.executable, "-P", "-m", "NAME"]
        found.append(facts)
    cold, warmed = found
    assert warmed == cold


async def test_nothing_of_one_task_is_in_the_next(tmp_path: Path, waiting: Warm) -> None:
    body = (
        "import gateway.sdk.component as sdk, specs.description\n"
        "print('left:', sdk.__dict__.get('left'), os.environ.get('LEFT'), flush=True)\n"
        "sdk.left = os.environ['LEFT'] = 'left'\n"
    )
    waiter = waiting.pid
    for _ in range(3):
        launch = module(tmp_path, body)
        end, log = await end_of(launch, waiting, tmp_path)
        assert end.success
        assert "left: None None" in log
        memory = memory_of(waiter)
        assert b"gateway.runtime.forker" in memory
        assert launch.environment["config.token"].encode() not in memory, "it never had the task's secret"
    assert waiting.pid == waiter


@pytest.mark.req("A-022")
@pytest.mark.parametrize(
    ("body", "end"),
    [
        ("sys.exit(7)", Exit(7)),
        ("raise ValueError('in its own words')", Exit(1)),
        ("os._exit(3)", Exit(3)),
        ("os.kill(os.getpid(), 9)", Exit(137, 9)),
        ("import atexit; atexit.register(print, 'at exit'); print('@result {\"code\": \"4003\"}')", Exit(0)),
    ],
)
async def test_its_end_is_recorded(tmp_path: Path, waiting: Warm, body: str, end: Exit) -> None:
    found, log = await end_of(module(tmp_path, body), waiting, tmp_path)
    assert (found.code, found.signal, found.why) == (end.code, end.signal, "")
    assert ("in its own words" in log) == ("words" in body)
    assert ("at exit" in log) == ("atexit" in body)
    assert found.result == ({"code": "4003"} if "@result" in body else {})


@pytest.mark.req("C-087", "A-029")
@pytest.mark.parametrize("by", ["stop", "its keeper's death"])
async def test_it_is_killed_with_its_children(tmp_path: Path, waiting: Warm, by: str) -> None:
    launch = module(tmp_path, f"{ESCAPE}time.sleep(60)")
    running = await launcher(waiting, tmp_path).launch(launch, lambda *_: None)
    daemon = await word_of(launch)
    assert forked(launch)
    assert running.pid is not None
    if by == "stop":
        await running.kill()
    else:
        os.kill(running.pid, signal.SIGKILL)
    assert (await running.wait()).why == ("stopped" if by == "stop" else LOST)
    await eventually(lambda: not alive(daemon))
    assert alive(waiting.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_without_it_tasks_start_cold(
    tmp_path: Path, waiting: Warm, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It was killed, or hangs; each task runs once, and another interpreter waits for the ones after."""
    monkeypatch.setattr(warm, "ANSWER_S", 0.5)
    monkeypatch.setattr(warm, "AGAIN_S", 0.0)
    first = waiting.pid
    os.kill(first, number)
    mark = tmp_path / "ran"
    end, _ = await end_of(module(tmp_path, f"print('x', file=open({str(mark)!r}, 'a'))"), waiting, tmp_path)
    assert end.success
    assert mark.read_text() == "x\n"
    assert not alive(first)
    assert waiting.pid not in (0, first)
    # The next one may take longer than that to load what it waits with.
    monkeypatch.setattr(warm, "ANSWER_S", 20.0)
    launch = module(tmp_path, "time.sleep(0.3)")
    running = await launcher(waiting, tmp_path).launch(launch, lambda *_: None)
    await eventually((launch.run / shim.STARTED).exists)
    assert forked(launch)
    assert (await running.wait()).success


async def test_one_that_keeps_dying_is_not_started_without_end(tmp_path: Path, waiting: Warm) -> None:
    os.kill(waiting.pid, signal.SIGKILL)
    for _ in range(2):
        assert (await end_of(module(tmp_path, ""), waiting, tmp_path))[0].success
        assert waiting.pid == 0


async def test_an_environment_that_does_not_fit_is_left_to_a_cold_start(tmp_path: Path, waiting: Warm) -> None:
    launch = module(tmp_path, "print(len(os.environ['runtime.component.parameter.y']))")
    launch.environment["runtime.component.parameter.y"] = "y" * (warm.ENVIRONMENT_BYTES + 1)  # type: ignore[index]
    end, log = await end_of(launch, waiting, tmp_path)
    assert end.success
    assert str(warm.ENVIRONMENT_BYTES + 1) in log
    assert not _fits({"a\0": ""})
    assert not _fits({"a=b": ""})
    assert not _fits({"": "a"})
    assert _fits({"a.b": "=\n"})


def test_a_run_that_was_begun_is_not_begun_again(tmp_path: Path) -> None:
    assert _begun(tmp_path) is None
    assert list(tmp_path.iterdir()) == [], "a cold start finds nothing in its way"
    assert shim.claim_launch(tmp_path, json.dumps({"pid": 7, "started": 8, "group": ""}))
    assert _begun(tmp_path) == (7, 8)


GATEWAY = """
import asyncio, json, sys
from pathlib import Path
from gateway.mgmt_plane.core.dag import Resources
from gateway.runtime.launch import Launch, ProcessLauncher
from gateway.runtime.warm import Warm

async def main(image, work, log, run, token, path):
    waiting = Warm(sys.executable, path)
    launch = Launch(image, {"config.token": token}, Path(work), Path(log), Path(run), Resources())
    await ProcessLauncher(keep_free=0, warm=waiting).launch(launch, lambda *_: None)
    print(waiting.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.req("A-029")
@pytest.mark.parametrize("stopped", [False, True])
async def test_a_gateway_that_is_killed_leaves_the_task_and_nothing_else(tmp_path: Path, stopped: bool) -> None:
    """The waiting interpreter goes with it, even one that hangs; the task is adopted and can be stopped like others."""
    launch = module(tmp_path, f"{ESCAPE}time.sleep(60)")
    token = launch.environment["config.token"]
    words = [launch.image, launch.directory, launch.log, launch.run, token, f"{ROOT}{os.pathsep}{tmp_path}"]
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        GATEWAY,
        *map(str, words),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert other.stdout is not None
    waiter = int(await other.stdout.readline())
    try:
        daemon = await word_of(launch)
        assert forked(launch)
        if stopped:
            os.kill(waiter, signal.SIGSTOP)
        other.kill()
        await other.wait()
        await eventually(lambda: not alive(waiter))
        running = await launcher(None, tmp_path).adopt(launch.run, digest_of(token), lambda *_: None)
        assert running is not None
        assert alive(daemon)
        await running.kill()
        assert (await running.wait()).why == "stopped"
        assert not alive(daemon)
    finally:
        with suppress(ProcessLookupError):
            os.kill(waiter, signal.SIGKILL)
