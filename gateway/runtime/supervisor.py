"""Parent of a gateway's processes: starts them in order, restarts one that dies, stops all on SIGTERM or SIGINT.

A process that dies three times within a minute takes the gateway down: an operator is better served by an error than
by a loop. The children watch their parent (`exit_with_parent`) so that a killed supervisor leaves none of them behind;
components are left to the gateway that comes next. Only who stops the supervisor on purpose stops the components.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.ports import Clock, Journal

STOP_S = 8.0
READY_S = 30.0
DEATHS = 3
DEATHS_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Child:
    """A process of the gateway and the file that it writes when it serves."""

    name: str
    command: Sequence[str]
    ready_file: Path


@dataclass(slots=True)
class _Running:
    child: Child
    process: asyncio.subprocess.Process
    deaths: deque[float] = field(default_factory=deque)


class Supervisor:
    """Keeps `children` running until stopped; `run` returns the exit code for the shell."""

    def __init__(self, children: Sequence[Child], journal: Journal, clock: Clock) -> None:
        self._children = children
        self._journal = journal
        self._clock = clock
        self._stop = asyncio.Event()

    async def run(self, on_ready: Path, announcement: str) -> int:
        """Start all; write `announcement` to `on_ready` when all serve; return when stopped (0) or given up (1)."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        on_ready.unlink(missing_ok=True)
        running: list[_Running] = []
        code = 0
        try:
            for child in self._children:
                running.append(_Running(child, await self._start(child)))
                if not await self._wait_ready(running[-1]):
                    return 0 if self._stop.is_set() else 1
            write_atomically(on_ready, announcement)
            self._journal.note("gateway.ready")
            code = await self._watch(running)
        finally:
            on_ready.unlink(missing_ok=True)
            await self._stop_all(running)
        return code

    async def _start(self, child: Child) -> asyncio.subprocess.Process:
        child.ready_file.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(*child.command, stdin=asyncio.subprocess.DEVNULL)
        self._journal.note("process.started", name=child.name, pid=process.pid)
        return process

    async def _wait_ready(self, running: _Running) -> bool:
        deadline = self._clock.monotonic() + READY_S
        while self._clock.monotonic() < deadline and not self._stop.is_set():
            if running.process.returncode is not None:
                sys.stderr.write(
                    f"interconn: the {running.child.name} process ended with {running.process.returncode}\n"
                )
                return False
            if running.child.ready_file.exists():
                return True
            await asyncio.sleep(0.02)
        if not self._stop.is_set():
            sys.stderr.write(f"interconn: the {running.child.name} process did not start within {READY_S:.0f} s\n")
        return False

    async def _watch(self, running: Sequence[_Running]) -> int:
        """Each child on its own: one that is starting may need the other, which may have died meanwhile."""
        stop = asyncio.ensure_future(self._stop.wait())
        keeping = [asyncio.ensure_future(self._keep(item)) for item in running]
        try:
            done, _ = await asyncio.wait({stop, *keeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stop, *keeping):
                task.cancel()
            await asyncio.gather(stop, *keeping, return_exceptions=True)
        return 0 if stop in done else 1

    async def _keep(self, item: _Running) -> None:
        """Restart a child whenever it dies; returns when it dies too often."""
        while True:
            await item.process.wait()
            self._journal.note("process.died", name=item.child.name, code=item.process.returncode)
            if not self._may_restart(item):
                sys.stderr.write(f"interconn: the {item.child.name} process keeps dying, giving up\n")
                return
            item.process = await self._start(item.child)
            if not await self._wait_ready(item) and not self._stop.is_set() and item.process.returncode is None:
                item.process.kill()  # one that lives and does not serve counts as dead, too

    def _may_restart(self, item: _Running) -> bool:
        now = self._clock.monotonic()
        item.deaths.append(now)
        while item.deaths[0] < now - DEATHS_WITHIN_S:
            item.deaths.popleft()
        return len(item.deaths) < DEATHS

    async def _stop_all(self, running: Sequence[_Running]) -> None:
        # The data process first: it stops taking requests that the control process would have to answer.
        for item in reversed(running):
            if item.process.returncode is None:
                item.process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await item.process.wait()
            except TimeoutError:
                self._journal.note("process.killed", name=item.child.name)
                item.process.kill()
                await item.process.wait()
        self._journal.note("gateway.stopped")


ABANDONED: Final = signal.SIGUSR1
"""What the control process sends itself when its parent is gone: nobody has asked the gateway to stop."""


def exit_with_parent(parent: int, number: signal.Signals) -> None:
    """Send this process a signal when `parent` is gone; checked twice a second by a daemon thread."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def write_atomically(file: Path, text: str) -> None:
    """Replace `file` in one step, so that a reader sees all or nothing."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
