"""The interpreter that waits with the component SDK loaded; every task of ours is a fork of it.

`python -P -m gateway.runtime.forker PARENT`, its socket as descriptor 3, is started by `runtime.warm` and dies with the
process that started it. For each request it forks a keeper (`runtime.shim`), the keeper forks the component, and the
component becomes what `python -m MODULE` would be: its environment alone, an own session, limits, group, output. The
waiting interpreter itself runs no component's code and leaves the request, with the task's secret, to the keeper to
read: nothing of one task is in the next. It has one thread, for a fork takes no others along: that is why NumPy is not
loaded here.
"""

import ctypes
import gc
import importlib.resources  # noqa: F401  # loaded for the components
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import gateway.sdk.component  # noqa: F401  # loaded for the components
from gateway.runtime import shim
from gateway.runtime.shim import Turned

SOCKET: Final = 3
MAX_REQUEST: Final = 1 << 20
# Fields of /proc/PID/stat, counted as in `shim`: where the kernel finds command line and environment of a process.
_ARGUMENTS, _ENVIRONMENT = (45, 46), (47, 48)


def read_request(asked: socket.socket) -> Mapping[str, Any] | None:
    """{"run": folder, "environment": {...}} after four bytes of length; None where there is no whole one."""
    size = int.from_bytes(asked.recv(4, socket.MSG_WAITALL), "big")
    body = asked.recv(min(size, MAX_REQUEST), socket.MSG_WAITALL)
    return json.loads(body) if 0 < size == len(body) else None


def show(fields: tuple[int, int], texts: Sequence[str]) -> None:
    """Make /proc/self/cmdline or environ say `texts`, as far as there is room; zero bytes follow.

    The kernel shows the memory in which a program found them at its start. Whoever looks for a task's processes by its
    secret (`launch.sweep`) finds those that were forked, too.
    """
    stat = shim.stat_of(os.getpid())
    if stat is None:
        return
    first, end = (int(stat[field]) for field in fields)
    content = b"".join(os.fsencode(text) + b"\0" for text in texts)[: end - first]
    if content:
        ctypes.memmove(first, content.ljust(end - first, b"\0"), end - first)


def take_on(environment: Mapping[str, str]) -> None:
    """This process's environment is exactly this now: for Python, for C libraries, for children and in /proc."""
    os.environ.clear()
    os.environ.update(environment)
    show(_ENVIRONMENT, [f"{name}={value}" for name, value in environment.items()])


def _turn(command: list[str], _: Mapping[str, str]) -> NoReturn:
    raise Turned(command[-1])


def _keep(asked: socket.socket, tell: int, forker: int) -> NoReturn:
    """The forked process reads its request and keeps that task; raises Turned in the process that it forks itself.

    tell: gets a byte when the socket is the forker's again.
    """
    os.setsid()
    shim.die_with_parent(forker)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, stat = read_request(asked), shim.stat_of(os.getpid())
    if request is None or stat is None:
        os._exit(1)
    asked.sendall(json.dumps({"pid": os.getpid(), "started": int(stat[shim.START])}).encode() + b"\n")
    asked.close()
    os.write(tell, b".")
    os.close(tell)
    run = Path(request["run"])
    words = os.open(run / shim.WORDS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(words, 1)
    os.dup2(words, 2)
    os.close(words)
    show(_ARGUMENTS, [sys.executable, shim.__file__, str(run)])
    take_on(request["environment"])
    code = 1
    try:
        code = shim.main(run, _turn)
    except Turned:
        raise
    except BaseException:  # noqa: BLE001  # the copy of a process must not go on as if it were that
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def begin(module: str) -> None:
    """What Python does between the start of its process and the first line of `module`."""
    show(_ARGUMENTS, [sys.executable, "-P", "-m", module])
    sys.argv[1:] = []
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    for number, (name, mode, errors) in enumerate(
        (("stdin", "r", "surrogateescape"), ("stdout", "w", "surrogateescape"), ("stderr", "w", "backslashreplace"))
    ):
        stream = open(  # noqa: SIM115  # for as long as the process lives
            number, mode, encoding="utf-8", errors=errors, buffering=1 if number == 2 else -1, closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def serve(asked: socket.socket) -> None:
    """Fork until the other end is gone; raises Turned in a component."""
    forker = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a keeper: what it did stands in its files
    gc.freeze()
    while asked.recv(1, socket.MSG_PEEK):
        told, tell = os.pipe()
        if os.fork() == 0:
            os.close(told)
            _keep(asked, tell, forker)
        os.close(tell)
        read = os.read(told, 1)
        os.close(told)
        if not read:
            return  # it died over the request, and what is left of that is no request


def main(arguments: Sequence[str]) -> str:
    """The module that this process has become, "" where it has only waited."""
    shim.die_with_parent(int(arguments[0]))
    try:
        with suppress(ConnectionError):
            serve(socket.socket(fileno=SOCKET))
    except Turned as turned:
        return turned.module
    return ""


if __name__ == "__main__":
    if module := main(sys.argv[1:]):
        begin(module)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
