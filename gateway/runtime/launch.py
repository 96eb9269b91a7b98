"""Starting a component (part 3 section 4): the environment it gets, and the launcher that runs it as a local process.

`component_environment` is the same for every launcher (A-042). `ProcessLauncher` gives a component its own session and
process group, a clean environment, a folder of its own and a log; its exit code is the truth (A-022). Docker and
Kubernetes are other `Launcher`s, later. What a component reads and who may start it is decided elsewhere.
"""

import asyncio
import contextlib
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

from gateway.errors import Kind, Refused, Unavailable
from gateway.mgmt_plane.core.dag import Bindings, Plan, Resources, artifact, session_of
from gateway.mgmt_plane.service.code import BUILTIN, EXECUTABLE
from gateway.model import InstId, Job, NodeId, Party, TaskId, TaskName
from specs.description import Description

LOG_BYTES: Final = 16 << 20
LINE_BYTES: Final = 64 << 10
RECORD_BYTES: Final = 16 << 10
"""Longest @progress or @result line that is read."""
TERM_S: Final = 2.0
"""Between asking a component to end and killing it."""
_GIB: Final = 1 << 30
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a component finds the gateway. transport: host:port of the platform listener; callback: URL of 4.1."""

    transport: str
    callback: str


def component_environment(
    *,
    job: Job,
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
) -> dict[str, str]:
    """The dotted variables of part 3 section 5 for one party of one task (C-110 to C-118).

    producers: task ids of the tasks whose outputs it reads. source: namespace and name of the staged dataset, for the
    first input that no edge feeds. Raises specs.description.ParameterError.
    """
    node = plan.nodes[name]
    variables = {
        "system.storage": storage,
        "system.transport": addresses.transport,
        "system.callback": addresses.callback,
        "config.self_role": party.name,
        "config.task_id": task_id,
        "config.session_id": session_of(job.job_id),
        "config.trace_id": job.trace_id,
        "config.token": token,
        "config.log.path": log_path,
        "runtime.component.name": node.component.name,
    }
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
    """One component to start. directory: its working folder and HOME; log: file that its output is appended to."""

    image: str
    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    log: Path
    resources: Resources


@dataclass(frozen=True, slots=True)
class Exit:
    """How a component ended: code >= 0, or signal > 0 where one killed it."""

    code: int
    signal: int = 0

    @property
    def success(self) -> bool:
        return self.code == 0 and self.signal == 0


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


Report = Callable[[str, Mapping[str, Any]], None]
"""Called with `progress` or `result` and the record, as the component prints them."""


class Launcher(Protocol):
    """Starts components."""

    async def launch(self, launch: Launch, report: Report) -> Running:
        """Start one. Raises Refused (an image it cannot run), Unavailable (the machine refuses)."""
        ...


class TaskLog:
    """A task's log file: `<time> <LEVEL> <text>` per line, bounded."""

    def __init__(self, file: Path, *, limit: int = LOG_BYTES) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = file.open("a", encoding="utf-8", errors="replace")
        self._left = limit - self._file.tell()

    def line(self, text: str, default: str) -> None:
        """Append a line; its first word may name its level, else it has `default`."""
        if self._left <= 0:
            return
        word = text.partition(" ")[0].rstrip(":").strip("[]").upper()
        level = word if word in _LEVELS else default
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = f"{now} {level} {text}\n"
        self._left -= len(record.encode(errors="replace"))
        if self._left <= 0:
            record = f"{now} ERROR the log has reached its limit; what follows is dropped\n"
        self._file.write(record)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class ProcessLauncher:
    """Components as processes of this machine.

    Images: `builtin:<module>` runs `python -m <module>`, `file:///path/to/program` runs that program. A component that
    leaves its process group by itself escapes the kill; cgroups would be needed against that.
    """

    def __init__(
        self, *, python: str = sys.executable, python_path: Sequence[Path] = (), term_s: float = TERM_S
    ) -> None:
        self._python = python
        self._python_path = os.pathsep.join(str(path) for path in python_path)
        self._term_s = term_s

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
        try:
            launch.directory.mkdir(parents=True, exist_ok=True)
            log = TaskLog(launch.log)
        except OSError as error:
            raise Unavailable(f"the task's folder cannot be made: {error.strerror}", kind=Kind.STORAGE) from error
        output, complaints = await _Pipe.open(), await _Pipe.open()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=launch.directory,
                env=self._environment(launch),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output.write_end,
                stderr=complaints.write_end,
                start_new_session=True,
            )
        except (OSError, ValueError) as problem:
            log.close()
            output.transport.close()
            complaints.transport.close()
            raise Unavailable(f"the component cannot be started: {problem}", kind=Kind.STORAGE) from problem
        finally:
            os.close(output.write_end)
            os.close(complaints.write_end)
        _limit(process.pid, launch.resources)
        secret = launch.environment.get("config.token", "")
        return ProcessRun(process, log, report, pipes=(output, complaints), term_s=self._term_s, secret=secret)

    def _environment(self, launch: Launch) -> dict[str, str]:
        """The dotted variables and what any program needs, nothing of our own surroundings."""
        path = os.environ.get("PATH", os.defpath)
        common = {"PATH": path, "LANG": "C.UTF-8", "HOME": str(launch.directory)}
        if launch.image.startswith(BUILTIN) and self._python_path:
            common["PYTHONPATH"] = self._python_path
        return {**common, **launch.environment}


def _limit(pid: int, resources: Resources) -> None:
    """Limits of a process that has just started; None means none, but core files could hold secrets (C-117, A-028)."""
    with contextlib.suppress(OSError, ValueError):
        # It may have ended already, and a container may forbid what a machine allows.
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        if resources.memory is not None:
            most = int(resources.memory * _GIB)
            resource.prlimit(pid, resource.RLIMIT_AS, (most, most))
        if resources.disk is not None:
            most = int(resources.disk * _GIB)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
        if resources.cpu is not None:
            usable = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(pid, usable[: max(1, math.ceil(resources.cpu))])


@dataclass(frozen=True, slots=True)
class _Pipe:
    """A pipe of our own: a subprocess's PIPE would make its wait() wait for grandchildren that hold it open."""

    write_end: int
    reader: asyncio.StreamReader
    transport: asyncio.ReadTransport

    @classmethod
    async def open(cls) -> "_Pipe":
        read_end, write_end = os.pipe()
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", 0)
        )
        return cls(write_end, reader, transport)


class ProcessRun:
    """A component that runs as a process of ours."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        log: TaskLog,
        report: Report,
        *,
        pipes: tuple[_Pipe, _Pipe],
        term_s: float,
        secret: str,
    ) -> None:
        self._secret = secret.encode()
        self._process = process
        self._log = log
        self._report = report
        self._term_s = term_s
        self._pipes = pipes
        readers = zip(pipes, ("INFO", "ERROR"), strict=True)
        self._readers = [asyncio.ensure_future(self._read(pipe.reader, level)) for pipe, level in readers]
        self._end = asyncio.ensure_future(self._watch())

    @property
    def pid(self) -> int | None:
        return self._process.pid

    async def wait(self) -> Exit:
        return await asyncio.shield(self._end)

    async def kill(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._term_s):
                await asyncio.shield(self._end)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await asyncio.shield(self._end)

    def _signal(self, number: int) -> None:
        # The process leads its group, so its pid is the group's id as long as one member is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _watch(self) -> Exit:
        code = await self._process.wait()
        # Children that the component left behind would hold our pipes open and its data in use.
        self._signal(signal.SIGKILL)
        await asyncio.wait(self._readers, timeout=self._term_s)
        for reader in self._readers:
            reader.cancel()
        for pipe in self._pipes:
            pipe.transport.close()
        self._log.close()
        return Exit(code) if code >= 0 else Exit(128 - code, -code)

    async def _read(self, stream: asyncio.StreamReader, level: str) -> None:
        """Lines of a stream into the log; any bytes, any length (A-027)."""
        pending = b""
        while chunk := await stream.read(LINE_BYTES):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self._line(line, level)
            if len(pending) > LINE_BYTES:
                self._line(pending[:LINE_BYTES], level)
                pending = b""
        if pending:
            self._line(pending, level)

    def _line(self, raw: bytes, level: str) -> None:
        if self._secret:
            # A component that prints its surroundings must not print what it may speak with.
            raw = raw.replace(self._secret, b"***")
        for word in ("progress", "result"):
            if level == "INFO" and raw.startswith(f"@{word} ".encode()) and len(raw) <= RECORD_BYTES:
                with contextlib.suppress(ValueError, RecursionError):
                    record = json.loads(raw[len(word) + 2 :])
                    if isinstance(record, dict):
                        self._report(word, record)
                        return
        self._log.line(raw[:LINE_BYTES].decode(errors="replace").rstrip("\r"), level)


# --- reading logs -----------------------------------------------------------------------------------------------------

_SHOWN: Final[Mapping[str, frozenset[str]]] = {
    "debug": frozenset(_LEVELS),
    "info": frozenset(_LEVELS) - {"DEBUG"},
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


def _lines(file: Path, level: str) -> Iterator[str]:
    shown = _SHOWN[level]
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.split(" ", 2)[1:2] and line.split(" ", 2)[1] in shown:
                    yield line
    except FileNotFoundError:
        return
