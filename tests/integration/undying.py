"""`python undying.py node.toml`: a gateway whose supervisor restarts its processes however often they are killed.

Its processes are forked from the supervisor, which has everything loaded, instead of started afresh: of a start of two
seconds more than half is Python reading modules, and a test that kills some dozens of them would wait for nothing else.
Whoever looks for them (pids.py) finds their role in the name of the process.
"""

import asyncio
import os
import signal
import sys
import traceback
from pathlib import Path

import gateway.app.control
import gateway.app.data  # noqa: F401  # loaded before any fork
from gateway.app.__main__ import main
from gateway.app.serve import serve
from gateway.runtime import supervisor


class Forked:
    """As much of asyncio.subprocess.Process as the supervisor uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    @property
    def returncode(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    async def wait(self) -> int:
        while (code := self.returncode) is None:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
        return code

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


async def _fork(name: str, arguments: list[str]) -> Forked:
    if pid := os.fork():
        return Forked(pid)
    code = 1
    try:
        # What the supervisor's loop listens with is not ours.
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        Path("/proc/self/comm").write_text(name, encoding="ascii")
        code = main(arguments)
    except BaseException:  # noqa: BLE001  # nothing may return into the supervisor's stack
        traceback.print_exc()
    finally:
        os._exit(code)


async def _start(self: supervisor.Supervisor, child: supervisor.Child) -> Forked:
    child.ready_file.unlink(missing_ok=True)
    process = await _fork(child.name, list(child.command[4:]))
    self._journal.note("process.started", name=child.name, pid=process.pid)
    return process


supervisor.DEATHS = 1 << 30  # type: ignore[misc]
supervisor.Supervisor._start = _start  # type: ignore[assignment,method-assign]

if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))
