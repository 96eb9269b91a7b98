"""Starting and stopping a lab's gateways: each leads a session of its own and outlives the command that started it.

A pid alone proves nothing after a reboot or a wrap-around, so a process is remembered by pid and start time, and its
command line must name the node's configuration; anything else is never signalled.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STOP_S: Final = 10.0
LEFTOVER_S: Final = 3.0
_POLL_S: Final = 0.02
# Fields of /proc/PID/stat, counted from the one after the command's closing bracket (proc_pid_stat(5), field 3 there).
_STATE, _SESSION, _STARTED = 0, 3, 19


@dataclass(frozen=True, slots=True)
class Process:
    """A gateway's supervisor. `started` is in clock ticks since boot; `config` stands on its command line."""

    pid: int
    started: int
    config: Path


def spawn(command: Sequence[str], config: Path, output: Path) -> Process:
    """Start `command` with stdin closed, all output appended to `output`, as leader of a new session."""
    output.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        pid = os.posix_spawn(
            command[0],
            list(command),
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    finally:
        os.close(log)
    stat = _stat(pid)
    return Process(pid, int(stat[_STARTED]) if stat else 0, config)


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _has_threads(pid: int) -> bool:
    """The first thread is dead but others of the process still end: until then its sockets are open."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def alive(process: Process) -> bool:
    """The process still runs and is the one we started. Takes the exit status where it is our child."""
    try:
        if os.waitpid(process.pid, os.WNOHANG)[0] == process.pid:
            return False
    except ChildProcessError:
        pass
    stat = _stat(process.pid)
    if stat is None or int(stat[_STARTED]) != process.started:
        return False
    if stat[_STATE] in "ZX":
        return _has_threads(process.pid)
    try:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    # For a moment after exec the kernel shows no arguments yet; pid and start time have told already.
    return words == [b""] or os.fsencode(process.config) in words


def _orphans(process: Process) -> list[int]:
    """What still runs of a session whose leader is gone: the kernel gives its number to nobody else until then."""
    if _stat(process.pid) is not None:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (stat := _stat(int(entry.name))) and stat[_STATE] not in "ZX":
            ours = int(stat[_SESSION]) == process.pid and int(stat[_STARTED]) >= process.started
            if ours:
                found.append(int(entry.name))
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it may go by itself between the look and the signal
        os.kill(pid, number)


def stop(processes: Sequence[Process], *, grace_s: float = STOP_S) -> list[Process]:
    """SIGTERM to all that live, SIGKILL to what is left after `grace_s`; those that had to be killed.

    Returns only when nothing of their sessions runs any more. A process that is gone, or not ours, is left alone.
    """
    running = [process for process in processes if alive(process)]
    for process in running:
        _signal(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while (running := [process for process in running if alive(process)]) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for process in running:
        _signal(process.pid, signal.SIGKILL)
    while any(alive(process) for process in running):
        time.sleep(_POLL_S)
    deadline = time.monotonic() + LEFTOVER_S
    for process in processes:
        while (left := _orphans(process)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        for pid in left:
            _signal(pid, signal.SIGKILL)
        while _orphans(process):
            time.sleep(_POLL_S)
    return running
