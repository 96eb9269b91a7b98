"""This process's end of the interpreter that waits (`runtime.forker`): starts it, asks it for tasks, replaces it.

There is at most one. It holds the other end of a socket pair that nobody else has, and ends when this process does,
however that happens. Whatever goes wrong with it, the task is started cold instead, or was begun and is looked after;
never both.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.runtime import shim

ANSWER_S: Final = 5.0
"""One that has not forked within this time is given up."""
AGAIN_S: Final = 10.0
"""Between two starts of one."""
ENVIRONMENT_BYTES: Final = 64 << 10
"""Room for a task's environment; one with more is started cold."""
_COMMAND_BYTES: Final = 1024
_SOCKET: Final = 3
"""As `forker` has it, which is not loaded here."""


class Warm:
    """One waiting interpreter. `start` may be called by several tasks at a time.

    python_path: where it finds the package, "" for where Python looks anyway.
    """

    def __init__(self, python: str, python_path: str = "") -> None:
        self._python = python
        self._python_path = python_path
        self._turn = asyncio.Lock()
        self._socket: socket.socket | None = None
        self._pid = 0
        self._begun = float("-inf")
        self._spawn()

    @property
    def pid(self) -> int:
        """Of the waiting interpreter, 0 where there is none."""
        return self._pid

    async def start(self, run: Path, environment: Mapping[str, str]) -> tuple[int, int] | None:
        """Start the task whose spec lies in `run`: pid and start time of its keeper. None: it was not and never will
        be started by this.
        """
        frame = json.dumps({"run": str(run), "environment": dict(environment)}).encode()
        if not _fits(environment):
            return None
        loop = asyncio.get_running_loop()
        async with self._turn:
            if self._socket is None:
                self._spawn()
                return None
            try:
                async with asyncio.timeout(ANSWER_S):
                    await loop.sock_sendall(self._socket, len(frame).to_bytes(4, "big") + frame)
                    answer = json.loads(await _line(loop, self._socket))
                return int(answer["pid"]), int(answer["started"])
            except (OSError, ValueError, KeyError, TypeError):
                await asyncio.to_thread(self.close)
                self._spawn()
                return _begun(run)
            except BaseException:
                self.close()  # what it will answer would be taken for the answer to the next request
                raise

    def close(self) -> None:
        """End it and wait until it is gone."""
        pid, self._pid = self._pid, 0
        held, self._socket = self._socket, None
        if held is not None:
            held.close()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _spawn(self) -> None:
        """Start one, unless the last was started just now; without one, tasks start cold."""
        now = time.monotonic()
        if now - self._begun < AGAIN_S:
            return
        self._begun = now
        own, theirs = socket.socketpair()
        own.setblocking(False)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": "/nonexistent",
            "ROOM": "." * ENVIRONMENT_BYTES,
        }
        if self._python_path:
            environment["PYTHONPATH"] = self._python_path
        arguments = [str(os.getpid()), "." * _COMMAND_BYTES]
        try:
            self._pid = os.posix_spawn(
                self._python,
                [self._python, "-P", "-m", "gateway.runtime.forker", *arguments],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), _SOCKET),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            )
        except OSError:
            own.close()
        else:
            self._socket = own
        finally:
            theirs.close()


def _fits(environment: Mapping[str, str]) -> bool:
    """It can be taken on as it is; what no process could have is left to the cold start to refuse."""
    size = sum(len(os.fsencode(name)) + len(os.fsencode(value)) + 2 for name, value in environment.items())
    plain = all(name and "=" not in name and "\0" not in name + value for name, value in environment.items())
    return plain and size <= ENVIRONMENT_BYTES


async def _line(loop: asyncio.AbstractEventLoop, held: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\n"):
        piece = await loop.sock_recv(held, 4096)
        if not piece:
            raise ConnectionResetError
        found += piece
    return found


def _begun(run: Path) -> tuple[int, int] | None:
    """The keeper that has begun this run, None where none has. Only where no process that could still begin it lives:
    a keeper dies with the forker until it has said that it begins.
    """
    if shim.claim_launch(run, "{}"):
        (run / shim.STARTED).unlink()
        return None
    known = json.loads((run / shim.STARTED).read_text(encoding="utf-8"))
    return int(known["pid"]), int(known["started"])
