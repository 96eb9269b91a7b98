"""A real PostgreSQL server for the tests: started when first asked for, one per test process, gone when that ends.

Its programs come from the wheel `pgserver` or from the system; as root it runs as `nobody`, since it refuses root.
Where no server can be had, `server` says why and the tests that need one are skipped with that reason.
"""

import contextlib
import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER = "interconn"
_START_S = 30.0
_PDEATHSIG = 1


@dataclass(frozen=True)
class Server:
    """A server on loopback whose one user needs a password."""

    port: int
    password: str
    _control: list[Any] = field(default_factory=list, repr=False)
    """How to start it, and its process."""

    def crash(self) -> None:
        """It stops at once, without a word to its clients."""
        process = self._control[1]
        process.send_signal(signal.SIGQUIT)
        process.wait(30)

    def start(self) -> None:
        """After `crash`."""
        self._control[1:] = [self._control[0]()]

    def url(self, database: str = "postgres", *, password: bool = True) -> str:
        secret = f":{self.password}" if password else ""
        return f"postgresql://{USER}{secret}@127.0.0.1:{self.port}/{database}"

    def admin(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]

    def database(self) -> str:
        """The address of a new, empty database."""
        name = f"t{secrets.token_hex(8)}"
        self.admin(f"CREATE DATABASE {name}")
        return self.url(name)


class NoServerError(Exception):
    """Why there is none."""


def _programs() -> list[Path]:
    found: list[Path] = []
    wheel = importlib.util.find_spec("pgserver")
    if wheel is not None and wheel.origin is not None:
        found.append(Path(wheel.origin).parent / "pginstall" / "bin")
    if (initdb := shutil.which("initdb")) is not None:
        found.append(Path(initdb).resolve().parent)
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return [each for each in found if (each / "postgres").is_file() and (each / "initdb").is_file()]


def _end_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PDEATHSIG, signal.SIGINT)


def _as_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _initialised(programs: Sequence[Path], folder: Path, password_file: Path, who: dict[str, Any]) -> Path:
    why = "neither the wheel pgserver nor a PostgreSQL of the system is installed"
    for each in programs:
        for locale in ("en_US.UTF-8", "C.UTF-8", "C"):
            shutil.rmtree(folder / "data", ignore_errors=True)
            command = [each / "initdb", "-D", folder / "data", "-U", USER, "-A", "scram-sha-256"]
            command += [f"--pwfile={password_file}", "-E", "UTF8", f"--locale={locale}", "--no-sync"]
            try:
                made = subprocess.run(
                    command, check=False, cwd=folder, capture_output=True, text=True, timeout=60, **who
                )
            except OSError as e:
                why = f"{each}: {e.strerror}"
                break
            if made.returncode == 0:
                return each
            why = made.stderr.strip()[-300:]
    raise NoServerError(why)


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """A running server; raises NoServerError."""
    if importlib.util.find_spec("psycopg") is None:
        raise NoServerError("psycopg is not installed")
    folder = Path(tempfile.mkdtemp(prefix="interconn-pg-"))
    server: Server | None = None
    try:
        who = _as_user()
        secret = folder / "password"
        server = Server(_port(), secrets.token_hex(16))
        secret.write_text(server.password)
        if who:
            for path in (folder, secret):
                os.chown(path, who["user"], who["group"])
        programs = _initialised(_programs(), folder, secret, who)
        secret.unlink()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": server.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 50,
            "dynamic_shared_memory_type": "mmap",
        }
        command = [str(programs / "postgres"), "-D", str(folder / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]

        def start() -> subprocess.Popen[bytes]:
            with (folder / "log").open("ab") as log:
                started = subprocess.Popen(
                    command,
                    cwd=folder,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    preexec_fn=_end_with_parent,  # noqa: PLW1509  # one C call; no server may outlive a killed test run
                    **who,
                )
            server._control[:] = [start, started]
            _wait(server, started, folder / "log")
            return started

        start()
        yield server
    finally:
        if server is not None and server._control:
            server._control[1].send_signal(signal.SIGINT)
            server._control[1].wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + _START_S
    while True:
        try:
            psycopg.connect(server.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NoServerError(f"the server does not start: {log.read_text(errors='replace')[-300:]}") from None
            time.sleep(0.05)
        else:
            return
