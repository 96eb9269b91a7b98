"""The process between the gateway and a component: starts it, keeps its log, ends it, and writes down how it ended.

It is a program of its own (`python -I -S shim.py RUN`), not a part of the control process, so that a component lives on
when the gateway is killed, and its end is known to the gateway that comes after. All it is told stands in RUN/spec.json
and in its environment, which is the component's; all it tells stands in files of the run's folder, whole or absent:

    launch      pid and start time of this process; whoever makes this file first decides whether there is a start
    progress    the last @progress record
    claim       final state that the component told the gateway's call-back (written by the gateway)
    alive       touched by the gateway when the component calls back: a sign of life like a line of output
    exit        how it ended; written last, when nothing of the component runs any more
    words       what this process itself had to say, a traceback for example

It is the reaper of its descendants (PR_SET_CHILD_SUBREAPER), so none of them gets away by a session of its own. Only
the standard library, and little of it: it is there once per running component, and its start is part of every task.
Where an interpreter waits (`runtime.forker`), keeper and component are forked from that instead: the same code runs.
"""

import contextlib
import ctypes
import json
import math
import os
import resource
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

LOG_BYTES: Final = 16 << 20
LINE_BYTES: Final = 64 << 10
RECORD_BYTES: Final = 16 << 10
"""Longest @progress or @result line that is read."""
TICK_S: Final = 0.5
NICE: Final = 5
"""Where cores are short, components wait for the gateway: who asks how a job is going must not wait for its work."""
DRAIN_S: Final = 2.0
"""After its end a component's last words are read for so long at most."""
STARTED: Final = "launch"
PROGRESS: Final = "progress"
CLAIM: Final = "claim"
ALIVE: Final = "alive"
EXIT: Final = "exit"
SPEC: Final = "spec.json"
WORDS: Final = "words"
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_PAGE: Final = resource.getpagesize()
# Fields of /proc/PID/stat, counted from the one after the command's closing bracket (proc_pid_stat(5), field 3 there).
STATE, PARENT, START, RSS = 0, 1, 19, 21


def stat_of(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on, None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


GROUP: Final = "interconn-"
"""Names of control groups begin so."""

# --- control groups ---------------------------------------------------------------------------------------------------


def make_cgroup(name: str, *, memory: int, cpus: float, processes: int) -> Path | None:
    """A control group (version 2) below ours, with the limits that its controllers offer; None where it may not be."""
    try:
        group = own_cgroup() / name
        group.mkdir()
    except (OSError, StopIteration, ValueError):
        return None
    limits = {"pids.max": str(processes)}
    if memory:
        limits |= {"memory.max": str(memory), "memory.swap.max": "0"}
    if cpus:
        limits["cpu.max"] = f"{max(1000, round(cpus * 100_000))} 100000"
    for file, value in limits.items():
        # Which controllers there are is up to whoever runs the machine.
        with contextlib.suppress(OSError):
            if (group / file).exists():
                (group / file).write_text(value, encoding="utf-8")
    return group


def own_cgroup() -> Path:
    """The control group of this process. Raises OSError, StopIteration, ValueError where there is no version 2."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    mount = next(words[4] for words in mounts if words[words.index("-") + 1] == "cgroup2")
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    own = next(line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::"))
    return Path(mount) / own


def remove_empty_cgroups(*, prefix: str = GROUP, older_s: float = 600.0) -> int:
    """Remove control groups of keepers that were killed together with their gateway; how many. Blocking.

    Only groups without any process; a new one may be about to get its first, so young ones stay.
    """
    removed = 0
    with contextlib.suppress(OSError, StopIteration, ValueError):
        for group in own_cgroup().glob(f"{prefix}*"):
            with contextlib.suppress(OSError):
                if time.time() - group.stat().st_mtime >= older_s:
                    group.rmdir()  # refused by the kernel while a process is in it
                    removed += 1
    return removed


def end_cgroup(group: Path) -> None:
    """Kill what is in it and remove it, as well as may be."""
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1", encoding="utf-8")
    for _ in range(200):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.005)
        else:
            return


# --- files ------------------------------------------------------------------------------------------------------------


def write_whole(file: Path, text: str) -> None:
    """Replace `file` in one step."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def claim_launch(run: Path, text: str) -> bool:
    """Make RUN/launch with its whole content, unless it is there: False then."""
    part = run / f".{STARTED}.{os.getpid()}"
    part.write_text(text, encoding="utf-8")
    try:
        os.link(part, run / STARTED)
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
    return True


def end_left(work: Path, *, grace_s: float = 10.0) -> int:
    """End what still runs below a gateway's work folder while the gateway does not; how many components. Blocking."""
    found = []
    for file in work.glob(f"jobs/*/*/runs/*/{STARTED}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(file.read_text(encoding="utf-8"))
            pid, started = int(known["pid"]), int(known["started"])
            if _is(pid, started):
                os.kill(pid, signal.SIGTERM)
                found.append((pid, started))
    deadline = time.monotonic() + grace_s
    while any(_is(*each) for each in found) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid, started in found:
        if _is(pid, started):
            _send(pid, signal.SIGKILL)
    return len(found)


def _is(pid: int, started: int) -> bool:
    """Exactly this process runs."""
    stat = stat_of(pid)
    return stat is not None and stat[STATE] not in "ZX" and int(stat[START]) == started


class TaskLog:
    """A task's log file: `<time> <LEVEL> <text>` per line, bounded."""

    def __init__(self, file: Path, *, limit: int = LOG_BYTES) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = file.open("a", encoding="utf-8", errors="replace")
        self._left = limit - self._file.tell()

    @property
    def full(self) -> bool:
        return self._left <= 0

    def line(self, text: str, default: str) -> None:
        """Append a line; its first word may name its level, else it has `default`."""
        if self._left <= 0:
            return
        word = text.partition(" ")[0].rstrip(":").strip("[]").upper()
        level = word if word in LEVELS else default
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = f"{now} {level} {text}\n"
        self._left -= len(record.encode(errors="replace"))
        if self._left <= 0:
            record = f"{now} ERROR the log has reached its limit; what follows is dropped\n"
        # A full disk must not end the keeper of the log; the watch over the disk will end the component.
        with contextlib.suppress(OSError):
            self._file.write(record)
            self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


class Lines:
    """Lines of one stream into the log; any bytes, any length (A-027). Records are kept apart."""

    def __init__(self, log: TaskLog, level: str, secret: bytes) -> None:
        self._log = log
        self._level = level
        self._secret = secret
        self._pending = b""
        self.records: dict[str, Mapping[str, Any]] = {}

    def feed(self, chunk: bytes) -> None:
        if self._log.full and b"@" not in chunk and not self._pending:
            return  # a component that prints without end costs little
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._pending) > LINE_BYTES:
            self._line(self._pending[:LINE_BYTES])
            self._pending = b""

    def end(self) -> None:
        if self._pending:
            self._line(self._pending)
            self._pending = b""

    def _line(self, raw: bytes) -> None:
        if self._secret:
            # A component that prints its surroundings must not print what it may speak with.
            raw = raw.replace(self._secret, b"***")
        if raw[:1] == b"@" and self._level == "INFO" and len(raw) <= RECORD_BYTES:
            for word in ("progress", "result"):
                if raw.startswith(f"@{word} ".encode()):
                    with contextlib.suppress(ValueError, RecursionError):
                        record = json.loads(raw[len(word) + 2 :])
                        if isinstance(record, dict):
                            self.records[word] = record
                            return
        if not self._log.full:
            self._log.line(raw[:LINE_BYTES].decode(errors="replace").rstrip("\r"), self._level)


def descendants(root: int) -> Iterator[tuple[int, list[str]]]:
    """Pid and stat fields of everything below `root` that is not a zombie."""
    below: dict[int, list[tuple[int, list[str]]]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  # thousands of names, once a second
        if name.isdecimal() and (stat := stat_of(int(name))):
            below.setdefault(int(stat[PARENT]), []).append((int(name), stat))
    waiting = [root]
    while waiting:
        for pid, stat in below.get(waiting.pop(), ()):
            waiting.append(pid)
            if stat[STATE] not in "ZX":
                yield pid, stat


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


class Turned(BaseException):
    """Unwinds the stack of a forked process that becomes a Python module by itself, without exec."""

    def __init__(self, module: str) -> None:
        super().__init__(module)
        self.module = module


Enter = Callable[[list[str], Mapping[str, str]], NoReturn]
"""Makes a forked process that is ready in all else run a command with an environment; may raise Turned."""


def execute(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """The `Enter` of a component that is started cold."""
    os.execve(command[0], command, dict(environment))  # noqa: S606  # an argument list, no shell


class Shim:
    """One component from its start to its end."""

    def __init__(
        self,
        run: Path,
        spec: Mapping[str, Any],
        environment: Mapping[str, str],
        group: Path | None = None,
        enter: Enter = execute,
    ) -> None:
        self._run = run
        self._enter = enter
        self._group = group
        self._spec = spec
        self._environment = environment
        self._log = TaskLog(Path(spec["log"]), limit=int(spec["log_bytes"]))
        secret = environment.get("config.token", "").encode()
        self._streams = {"INFO": Lines(self._log, "INFO", secret), "ERROR": Lines(self._log, "ERROR", secret)}
        self._selector = selectors.DefaultSelector()
        self._begun = time.monotonic()
        self._heard = self._begun
        self._told: Mapping[str, Any] | None = None
        self._why = ""
        """Why it is being ended: stopped, late, silent, memory, disk, processes."""
        self._asked: float | None = None
        self._child = 0
        self._status: int | None = None
        self._disk_before = 0

    def live(self) -> None:
        """Start it, keep it until it has ended, write the exit record."""
        signal.signal(signal.SIGTERM, lambda *_: self._end("stopped"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if self._spec["disk"]:
            self._disk_before = _used(self._folders())
        problem = self._start()
        watched = self._begun
        while self._child and self._status is None:
            self._listen(min(TICK_S, self._spec["watch_s"]))
            self._reap()
            now = time.monotonic()
            if now - watched >= self._spec["watch_s"] and not self._asked:
                watched = now
                self._look(now)
            if self._asked is not None and now - self._asked >= float(self._spec["term_s"]):
                break
        self._destroy()
        self._drain()
        self._finish(problem)

    # -- the start

    def _start(self) -> str:
        """Fork and enter the command; a problem in words, "" where it runs."""
        ends = [os.pipe(), os.pipe()]
        told, tell = os.pipe()
        parent = os.getpid()
        self._child = os.fork()
        if self._child == 0:
            try:
                self._become(ends[0][1], ends[1][1], parent)
                self._enter(self._spec["command"], self._environment)
            except Turned:
                # Nothing of the keeper's is the component's, as after exec.
                for descriptor in (*ends[0], *ends[1], told, tell):
                    os.close(descriptor)
                self._selector.close()
                self._log.close()
                raise
            except BaseException as error:  # noqa: BLE001  # the copy of a process must not go on as if it were that
                os.write(tell, f"{type(error).__name__}: {getattr(error, 'strerror', '') or error}".encode())
            os._exit(127)
        os.close(tell)
        for level, (read, write) in zip(self._streams, ends, strict=True):
            os.close(write)
            os.set_blocking(read, False)
            self._selector.register(read, selectors.EVENT_READ, self._streams[level])
        problem = os.read(told, 4096).decode(errors="replace")
        os.close(told)
        return problem

    def _become(self, out: int, err: int, parent: int) -> None:
        os.setsid()
        os.nice(NICE)
        with contextlib.suppress(OSError):
            # Where the kernel shares the cores between sessions, a process's own priority counts only within its own.
            Path("/proc/self/autogroup").write_text(str(NICE), encoding="ascii")
        if self._group is not None:
            with contextlib.suppress(OSError):
                (self._group / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")
        die_with_parent(parent)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (out, 1), (err, 2)):
            os.dup2(source, target)
        os.close(null)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(self._spec["directory"])
        self._limit()

    def _limit(self) -> None:
        """Limits that the kernel keeps for each process; the sums over all of them are looked at (`_look`)."""
        _bound(resource.RLIMIT_CORE, 0)  # core files could hold secrets
        if self._spec["memory"]:
            _bound(resource.RLIMIT_AS, int(self._spec["memory"]))
        if self._spec["disk"]:
            _bound(resource.RLIMIT_FSIZE, int(self._spec["disk"]))
        if self._spec["cpus"]:
            with contextlib.suppress(OSError):
                usable = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(0, usable[: math.ceil(self._spec["cpus"])])

    # -- while it runs

    def _listen(self, seconds: float) -> None:
        if not self._selector.get_map():
            time.sleep(min(seconds, 0.02))
            return
        for key, _ in self._selector.select(seconds):
            try:
                chunk = os.read(key.fd, 1 << 18)
            except BlockingIOError:
                continue
            if chunk:
                self._heard = time.monotonic()
                key.data.feed(chunk)
            else:
                self._selector.unregister(key.fd)
                os.close(key.fd)
        self._tell_progress()

    def _tell_progress(self) -> None:
        record = self._streams["INFO"].records.get("progress")
        if record is not None and record is not self._told:
            self._told = record
            with contextlib.suppress(OSError):
                write_whole(self._run / PROGRESS, json.dumps(record))

    def _reap(self) -> bool:
        """Take the exit status of the component and of whatever was left to us; whether any child is left."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._child:
                    self._status = status
        except ChildProcessError:
            return False

    def _end(self, why: str) -> None:
        """Ask the component to end; by force a little later."""
        if self._asked is None:
            self._why, self._asked = why, time.monotonic()
            for pid, _ in descendants(os.getpid()):
                _send(pid, signal.SIGTERM)

    def _look(self, now: float) -> None:
        """What it uses, how long it runs, when it was last heard of."""
        if now - self._begun >= float(self._spec["timeout_s"]):
            self._end("late")
            return
        if now - self._heard >= float(self._spec["silent_s"]):
            with contextlib.suppress(OSError):
                self._heard = max(self._heard, now - (time.time() - (self._run / ALIVE).stat().st_mtime))
            if now - self._heard >= float(self._spec["silent_s"]):
                self._end("silent")
                return
        found = list(descendants(os.getpid()))
        if len(found) > self._spec["processes"]:
            # What forks without end must not be given the time to do so.
            self._why, self._asked = "processes", now - float(self._spec["term_s"])
        elif self._spec["memory"] and sum(int(stat[RSS]) for _, stat in found) * _PAGE > int(self._spec["memory"]):
            self._end("memory")
        elif self._spec["disk"] and _used(self._folders()) - self._disk_before > int(self._spec["disk"]):
            self._end("disk")
        elif _free(self._run) < int(self._spec["keep_free"]):
            self._end("full")

    def _folders(self) -> Sequence[Path]:
        return [Path(folder) for folder in self._spec["writes"]]

    # -- the end

    def _destroy(self) -> None:
        """Leave nothing of the component running, in whatever session it may be."""
        if self._group is not None:
            end_cgroup(self._group)
        for _ in range(1000):
            # Who is left without its parent becomes our child: without any, nothing of it runs, and /proc need not be
            # searched.
            found = list(descendants(os.getpid())) if self._reap() else ()
            if not found:
                break
            for pid, _ in found:
                # Who is stopped does not fork while the others are counted.
                _send(pid, signal.SIGSTOP)
            for pid, _ in found:
                _send(pid, signal.SIGKILL)
            self._reap()
            self._listen(0.0)
            time.sleep(0.001)
        deadline = time.monotonic() + DRAIN_S
        while self._status is None and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.002)

    def _drain(self) -> None:
        deadline = time.monotonic() + DRAIN_S
        while self._selector.get_map() and time.monotonic() < deadline:
            before = len(self._selector.get_map())
            heard = self._heard
            self._listen(0.05)
            if self._heard == heard and len(self._selector.get_map()) == before:
                break
        for stream in self._streams.values():
            stream.end()
        self._tell_progress()

    def _finish(self, problem: str) -> None:
        status = self._status
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else 0
        code = 128 + number if number else os.WEXITSTATUS(status) if status is not None else 137
        record = {
            "code": code,
            "signal": number if status is not None else int(signal.SIGKILL),
            "why": self._why,
            "problem": problem[:400],
            "result": self._streams["INFO"].records.get("result", {}),
        }
        if self._why or problem:
            self._log.line(f"ERROR ended: {problem or self._why}", "ERROR")
        self._log.close()
        for attempt in range(50):
            try:
                write_whole(self._run / EXIT, json.dumps(record))
            except OSError:
                if attempt == 49:
                    raise
                time.sleep(0.1)
            else:
                return


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Be killed when the process that forked this one dies; at once where it is dead already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(127)


def _bound(kind: int, most: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _used(folders: Sequence[Path]) -> int:
    """Bytes that files below the folders take on the disk."""
    total = 0
    for folder in folders:
        for place, _, files in os.walk(folder):
            for name in files:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(place, name)).st_blocks * 512  # noqa: PTH118  # many files
    return total


def _free(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 1 << 62
    return found.f_bavail * found.f_frsize


def main(run: Path, enter: Enter = execute) -> int:
    """Entry: the folder of the run."""
    spec = json.loads((run / SPEC).read_text(encoding="utf-8"))
    stat = stat_of(os.getpid())
    if stat is None:
        return 1
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    group = None
    if spec["cgroups"]:
        limits = {"memory": spec["memory"], "cpus": spec["cpus"], "processes": spec["processes"]}
        group = make_cgroup(f"{GROUP}{run.name}", **limits)
    mine = {"pid": os.getpid(), "started": int(stat[START]), "group": str(group or "")}
    if not claim_launch(run, json.dumps(mine)):
        if group is not None:
            end_cgroup(group)
        return 0  # the gateway was restarted meanwhile and has decided otherwise
    _prctl(_PR_SET_PDEATHSIG, 0)  # from here on it outlives whoever has started it
    Shim(run, spec, os.environ, group, enter).live()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
