"""A gateway whose components are coroutines of its control process: `python -m bench.control_inside --config FILE`.

Everything else is the gateway as it is: supervisor, control and data process, TLS, SQLite. Not a measurement of any
component; it shows what a task costs apart from its processes.
"""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import gateway.app.control
from gateway.app.__main__ import main
from gateway.app.serve import serve
from gateway.runtime.supervisor import Child, Supervisor
from tests.control.world import FakeLauncher

_start = Supervisor._start  # noqa: SLF001  # the one place where a process of ours is started


async def _start_here(self: Supervisor, child: Child) -> asyncio.subprocess.Process:
    return await _start(self, replace(child, command=[sys.executable, "-P", "-m", __spec__.name, *child.command[4:]]))


if __name__ == "__main__":
    if sys.argv[1] == "--config":
        Supervisor._start = _start_here  # type: ignore[method-assign]  # noqa: SLF001
        sys.exit(serve(Path(sys.argv[2])))
    gateway.app.control._launcher = lambda *_, **__: FakeLauncher()  # noqa: SLF001
    sys.exit(main(sys.argv[1:]))
