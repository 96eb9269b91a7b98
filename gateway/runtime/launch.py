"""Starting a component (part 3 section 4): the environment it gets, and the launcher that runs it as a local process.

`component_environment` is the same for every launcher (A-042). `ProcessLauncher` gives a component its own session, a
clean environment, a folder of its own, and a `runtime.shim` that keeps its log and its end; its exit code is the truth
(A-022). A component outlives the control process, and the next one adopts it. Containers are `runtime.engines`. What a
component reads and who may start it is decided elsewhere.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.errors import Kind, Refused, Unavailable
from gateway.mgmt_plane.core.dag import Bindings, Plan, Resources, artifact, session_of
from gateway.mgmt_plane.service.code import BUILTIN, EXECUTABLE
from gateway.model import InstId, Job, NodeId, Party, SessionId, TaskId, TaskName
from gateway.runtime import shim
from gateway.runtime.shim import LEVELS, LOG_BYTES
from gateway.runtime.warm import Warm
from specs.description import Description

TERM_S: Final = 2.0
"""Between asking a component to end and killing it."""
SHIM_S: Final = 8.0
"""After that its shim has so long to write down the end; then it is killed itself."""
LOOK_S: Final = 0.5
"""Between two looks at a component's progress."""
SWEEPS: Final = 50
PROCESSES: Final = 512
WATCH_S: Final = 1.0
KEEP_FREE: Final = 256 << 20
"""Bytes of the work folder's disk that components must leave free."""
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a component finds the gateway. transport: host:port of the platform listener; callback: URL of 4.1.

    channel: Unix socket of the data process for tasks of this user, "" for none.
    """

    transport: str
    callback: str
    channel: str = ""


def component_environment(
    *,
    job: Job,
    session: SessionId | None = None,
    plan: Plan,
    party: Party,
    name: TaskName,
    task_id: TaskId,
    producers: Mapping[TaskName, TaskId],
    description: Description,
    bindings: Bindings,
    source: Mapping[str, str] | None,
    inst_ids: Mapping[NodeId, InstId],
    token: str,
    storage: str,
    log_path: str,
    addresses: Addresses,
    threads: int = 1,
) -> dict[str, str]:
    """The dotted variables of part 3 section 5 for one party of one task (C-110 to C-118).

    session: channel id, where it is not the standard's. producers: task ids of the tasks whose outputs it reads.
    source: namespace and name of the staged dataset, for the first input that no edge feeds. threads: to compute with.
    Raises specs.description.ParameterError.
    """
    node = plan.nodes[name]
    variables = {
        "system.storage": storage,
        "system.transport": addresses.transport,
        "system.callback": addresses.callback,
        "config.self_role": party.name,
        "config.task_id": task_id,
        "config.session_id": session or session_of(job.job_id),
        "config.trace_id": job.trace_id,
        "config.token": token,
        "config.log.path": log_path,
        "runtime.component.name": node.component.name,
    }
    # These two are ours alone: a component that does not know them computes as it likes and uses system.transport.
    variables["interconn.threads"] = str(threads)
    if addresses.channel:
        variables["interconn.channel"] = addresses.channel
    for other in plan.parties:
        variables[f"config.node_id.{other.name}"] = other.node_id
        # Where the institution is not known the node id stands in for it, as others do (2-control g.4).
        variables[f"config.inst_id.{other.name}"] = inst_ids.get(other.node_id) or other.node_id
    for key, text in description.resolve_parameters(plan.params(party, name)).items():
        variables[f"runtime.component.parameter.{key}"] = text
    inputs = {
        port: artifact(job.job_id, party, producers[edge.producer], edge.output)
        for port, edge in bindings.inputs.items()
    }
    if source is not None and bindings.source_port is not None:
        inputs[bindings.source_port] = dict(source)
    for port, place in inputs.items():
        variables[f"runtime.component.input.{port}"] = json.dumps(place)
    for port, suffix in bindings.outputs.items():
        variables[f"runtime.component.output.{port}"] = json.dumps(artifact(job.job_id, party, task_id, suffix))
    return variables


# --- launching --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launch:
    """One component to start. directory: its working folder and HOME; log: file that its output is appended to;
    run: folder of this one run's records, below which nothing is the component's; writes: folders whose size counts
    against `resources.disk`; timeout_s, silent_s: how long it may run, and be without a word.
    """

    image: str
    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    log: Path
    run: Path
    resources: Resources
    writes: Sequence[Path] = ()
    timeout_s: float = 86400.0
    silent_s: float = 86400.0


@dataclass(frozen=True, slots=True)
class Exit:
    """How a component ended: code >= 0, or signal > 0 where one killed it; why: a word where we ended it or lost it.

    result: its last @result record.
    """

    code: int
    signal: int = 0
    why: str = ""
    problem: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def success(self) -> bool:
        return self.code == 0 and self.signal == 0 and not self.why and not self.problem

    def words(self) -> str:
        """For the admin: what ended it."""
        if self.problem:
            return f"the component could not be started: {self.problem}"
        if self.why:
            return WHY.get(self.why, self.why)
        return f"ended by signal {self.signal}" if self.signal else f"ended with exit code {self.code}"


LOST: Final = "lost"
WHY: Final[Mapping[str, str]] = {
    "stopped": "it was stopped",
    "late": "the task did not end within its time limit",
    "silent": "the component gave no sign of life for longer than its limit",
    "memory": "the component used more memory than it may",
    "disk": "the component wrote more to the disk than it may",
    "full": "the disk of the gateway's work folder is nearly full",
    "processes": "the component started too many processes",
    LOST: "the component is gone and nobody saw how it ended: it was killed from outside, or the machine was restarted",
}
"""Word of an exit record -> what the admin reads."""


class Running(Protocol):
    """A started component."""

    @property
    def pid(self) -> int | None: ...

    async def wait(self) -> Exit:
        """Wait for the end; everything it wrote is in the log then and none of its children is left."""
        ...

    async def kill(self) -> None:
        """End it and its children: politely, then by force. Returns when it is gone."""
        ...

    def release(self) -> None:
        """Look no longer at it; it goes on."""
        ...


Report = Callable[[str, Mapping[str, Any]], None]
"""Called with `progress` and the record, as the component prints them."""


class Launcher(Protocol):
    """Starts components."""

    async def launch(self, launch: Launch, report: Report) -> Running:
        """Start one. Raises Refused (an image it cannot run), Unavailable (the machine refuses)."""
        ...

    async def adopt(self, run: Path, digest: str, report: Report) -> Running | None:
        """Take up what a former process of this gateway began; None where it was not started and will not be.

        digest: SHA-256 (hex) of the task's secret, by which its processes are known.
        """
        ...


class ProcessLauncher:
    """Components as processes of this machine, each below a `runtime.shim` of its own.

    Images: `builtin:<module>` runs `python -m <module>`, `file:///path/to/program` runs that program.
    """

    def __init__(
        self,
        *,
        python: str = sys.executable,
        python_path: Sequence[Path] = (),
        term_s: float = TERM_S,
        log_bytes: int = LOG_BYTES,
        keep_free: int = KEEP_FREE,
        processes: int = PROCESSES,
        watch_s: float = WATCH_S,
        cgroups: bool = True,
        warm: Warm | None = None,
    ) -> None:
        """term_s: between asking a component to end and killing it; log_bytes: most that is kept of what it prints;
        keep_free: bytes of the work folder's disk that components must leave; processes: of one component at a time;
        watch_s: between two looks at what it uses; cgroups: use control groups where the machine allows it; warm: the
        interpreter from which components of ours are forked; None: each starts one of its own.
        """
        self._python = python
        self._python_path = os.pathsep.join(str(path) for path in python_path)
        self._term_s = term_s
        self._log_bytes = log_bytes
        self._keep_free = keep_free
        self._processes = processes
        self._watch_s = watch_s
        self._cgroups = cgroups
        self._warm = warm

    def command(self, image: str) -> list[str]:
        """Argument list of an image; raises Refused (COMPONENT_UNKNOWN) for one this launcher cannot run."""
        if image.startswith(BUILTIN):
            return [self._python, "-P", "-m", image.removeprefix(BUILTIN)]
        if image.startswith(EXECUTABLE):
            path = image.removeprefix(EXECUTABLE)
            if Path(path).is_absolute() and os.access(path, os.X_OK):
                return [path]
        raise Refused(f"image {image[:80]} cannot be run as a process here", kind=Kind.COMPONENT_UNKNOWN)

    async def launch(self, launch: Launch, report: Report) -> "ProcessRun":
        command = self.command(launch.image)
        environment = self._environment(launch)
        try:
            # Folders and log here and now, so that who cannot write is told so and not by a component's silence.
            launch.directory.mkdir(parents=True, exist_ok=True)
            launch.run.mkdir(parents=True)
            launch.log.parent.mkdir(parents=True, exist_ok=True)
            launch.log.touch()
            shim.write_whole(launch.run / shim.SPEC, json.dumps(self._spec(launch, command)))
        except OSError as error:
            raise Unavailable(f"the task's folder cannot be made: {error.strerror}", kind=Kind.STORAGE) from error
        digest = hashlib.sha256(environment.get("config.token", "").encode()).hexdigest()
        if self._warm is not None and launch.image.startswith(BUILTIN):
            begun = await self._warm.start(launch.run, environment)
            if begun is not None:
                return ProcessRun(*begun, launch.run, digest, report, term_s=self._term_s)
        words = str(launch.run / shim.WORDS)
        try:
            pid = os.posix_spawn(  # noqa: ASYNC221  # some milliseconds; a thread would not be faster
                self._python,
                [self._python, "-I", "-S", shim.__file__, str(launch.run)],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, words, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            )
        except (OSError, ValueError) as problem:
            raise Unavailable(f"the component cannot be started: {problem}", kind=Kind.STORAGE) from problem
        return ProcessRun(pid, None, launch.run, digest, report, term_s=self._term_s)

    def _spec(self, launch: Launch, command: Sequence[str]) -> dict[str, Any]:
        resources = launch.resources
        return {
            "command": list(command),
            "directory": str(launch.directory),
            "log": str(launch.log),
            "log_bytes": self._log_bytes,
            "term_s": self._term_s,
            "timeout_s": launch.timeout_s,
            "silent_s": launch.silent_s,
            "cpus": resources.cpu or 0,
            "memory": int((resources.memory or 0) * _GIB),
            "disk": int((resources.disk or 0) * _GIB),
            "writes": [str(folder) for folder in launch.writes or (launch.directory,)],
            "keep_free": self._keep_free,
            "processes": self._processes,
            "watch_s": self._watch_s,
            "cgroups": self._cgroups,
        }

    def _environment(self, launch: Launch) -> dict[str, str]:
        """The dotted variables and what any program needs, nothing of our own surroundings."""
        path = os.environ.get("PATH", os.defpath)
        common = {"PATH": path, "LANG": "C.UTF-8", "HOME": str(launch.directory)}
        if launch.image.startswith(BUILTIN):
            if self._python_path:
                common["PYTHONPATH"] = self._python_path
            if forced := os.environ.get("INTERCONN_ACCEL"):
                common["INTERCONN_ACCEL"] = forced
        return {**common, **launch.environment}

    async def adopt(self, run: Path, digest: str, report: Report) -> "ProcessRun | None":
        if not run.is_dir():
            return None
        # Whoever makes the file first has it: a shim that was slow to start finds ours and goes.
        if shim.claim_launch(run, "{}"):
            return None
        try:
            known = json.loads((run / shim.STARTED).read_text(encoding="utf-8"))
            if not known:
                return None
            pid, started = int(known["pid"]), int(known["started"])
        except (OSError, ValueError, KeyError, TypeError):
            pid, started = 0, 0
        return ProcessRun(pid, started, run, digest, report, term_s=self._term_s)


class ProcessRun:
    """A component below its shim, which is or is not a child of ours.

    Its pid is the shim's. started: the shim's start time in clock ticks since boot, None for one just spawned.
    """

    def __init__(self, pid: int, started: int | None, run: Path, digest: str, report: Report, *, term_s: float) -> None:
        self._pid = pid
        self._run = run
        self._digest = digest
        self._report = report
        self._term_s = term_s
        self._gone = asyncio.Event()
        self._told = 0
        self._loop = asyncio.get_running_loop()
        self._handle = _handle_of(pid, started)
        if self._handle is None:
            self._gone.set()
        else:
            self._loop.add_reader(self._handle, self._ended)
        self._end = asyncio.ensure_future(self._watch())

    @property
    def pid(self) -> int | None:
        return self._pid

    async def wait(self) -> Exit:
        return await asyncio.shield(self._end)

    async def kill(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._term_s + SHIM_S):
                await asyncio.shield(self._end)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await asyncio.shield(self._end)

    def release(self) -> None:
        self._end.cancel()
        self._close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, number)

    def _ended(self) -> None:
        self._gone.set()
        self._close()

    def _close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._loop.remove_reader(handle)
            os.close(handle)

    async def _watch(self) -> Exit:
        while not self._gone.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._gone.wait()
            self._look()
        with contextlib.suppress(ChildProcessError):
            if self._pid > 0:
                os.waitpid(self._pid, os.WNOHANG)  # noqa: ASYNC222  # it has ended and is only taken note of
        found = read_exit(self._run)
        if found is None:
            # Its keeper was killed; what the kernel and our mark can find of it must not go on alone.
            await asyncio.to_thread(_sweep, self._run, self._digest)
            return read_exit(self._run) or Exit(128 + signal.SIGKILL, signal.SIGKILL, LOST)
        return found

    def _look(self) -> None:
        """Tell a progress that is new."""
        file = self._run / shim.PROGRESS
        with contextlib.suppress(OSError, ValueError):
            at = file.stat().st_mtime_ns
            if at != self._told:
                self._told = at
                self._report("progress", json.loads(file.read_text(encoding="utf-8")))


def _handle_of(pid: int, started: int | None) -> int | None:
    """A descriptor of exactly this process, None where it is gone."""
    if pid <= 0:
        return None
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    stat = shim.stat_of(pid)
    if stat is None or (started is not None and int(stat[shim.START]) != started):
        os.close(handle)
        return None
    return handle


def read_exit(run: Path) -> Exit | None:
    """The end that is recorded in the folder of a run, None where there is none yet."""
    try:
        record = json.loads((run / shim.EXIT).read_text(encoding="utf-8"))
        result = record.get("result")
        return Exit(
            int(record["code"]),
            int(record["signal"]),
            str(record.get("why", "")),
            str(record.get("problem", "")),
            result if isinstance(result, dict) else {},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sweep(run: Path, digest: str) -> None:
    """Kill what is left of a component whose shim is gone: its control group, and whoever holds its secret. Blocking.

    A process that has hidden its surroundings is found in the control group alone.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        group = json.loads((run / shim.STARTED).read_text(encoding="utf-8"))["group"]
        if group:
            shim.end_cgroup(Path(group))
    for _ in range(SWEEPS):
        found = [int(entry.name) for entry in Path("/proc").iterdir() if _holds(entry, digest)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _holds(process: Path, digest: str) -> bool:
    """A folder of /proc is that of a living process with this secret in its environment."""
    if not process.name.isdecimal():
        return False
    try:
        environment = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    given = next((one[13:] for one in environment if one.startswith(b"config.token=")), None)
    if given is None or hashlib.sha256(given).hexdigest() != digest:
        return False
    stat = shim.stat_of(int(process.name))
    return stat is not None and stat[shim.STATE] not in "ZX"


# --- reading logs -----------------------------------------------------------------------------------------------------

_SHOWN: Final[Mapping[str, frozenset[str]]] = {
    "debug": frozenset(LEVELS),
    "info": frozenset(LEVELS) - {"DEBUG"},
    "error": frozenset({"ERROR", "CRITICAL"}),
}


def count_lines(file: Path, level: str) -> int:
    """Lines of a task's log at a level and above; 0 where there is no log (C-100)."""
    return sum(1 for _ in _lines(file, level))


def read_lines(file: Path, level: str, *, start: int, length: int | None, limit: int = 4 << 20) -> str:
    """Lines from `start` (0-based, B-42), at most `length` of them and `limit` characters; to the end where None."""
    text: list[str] = []
    size = 0
    for number, line in enumerate(_lines(file, level)):
        if number < start:
            continue
        size += len(line)
        if (length is not None and len(text) >= length) or size > limit:
            break
        text.append(line)
    return "".join(text)


def tail_lines(file: Path, count: int) -> list[str]:
    """The newest `count` lines of a task's log, each with its end."""
    return list(deque(_lines(file, "debug"), maxlen=count))


def _lines(file: Path, level: str) -> Iterator[str]:
    shown = _SHOWN[level]
    try:
        # A carriage return within a line is the component's text, and what follows it no line of the keeper's.
        with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            for line in lines:
                if line.split(" ", 2)[1:2] and line.split(" ", 2)[1] in shown:
                    yield line
    except FileNotFoundError:
        return
