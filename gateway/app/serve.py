"""The parent of a gateway's processes, made from a node.toml."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Final

from accel.probe import probe
from gateway.app.node import CONTROL_READY, DATA_READY, READY, clock_of, url_of
from gateway.config import Config, ConfigError, load, of_a_lab
from gateway.errors import GatewayError
from gateway.runtime.journal import FileJournal
from gateway.runtime.supervisor import Child, Supervisor

SOCKET_PATH_BYTES: Final = 107
_LONGEST_SOCKET: Final = "control.sock"


def serve(file: Path) -> int:
    """Run the gateway of a node.toml until SIGTERM or SIGINT; the exit code."""
    # Staged rows, logs and sockets, also those of components, are nobody else's, whatever folder they were put in.
    os.umask(0o077)
    try:
        config = load(file)
        if config.node.insecure_clock_offset and not of_a_lab(config.folder):
            raise ConfigError("node.insecure_clock_offset is for a lab, and this node belongs to none")
        run = _folders(config)
    except GatewayError as error:
        sys.stderr.write(f"interconn: {error}\n")
        return 2
    if "accel._native" not in probe().modules:  # pip does not show what the build said
        sys.stderr.write(
            "interconn: no native kernels here: computing is slow and not constant in time, see `interconn backends`\n"
        )
    clock = clock_of(config)
    journal = FileJournal(config.path(config.paths.log), clock, process="supervisor")
    command = [sys.executable, "-P", "-m", "gateway.app"]
    children = [
        Child("control", [*command, "control", str(file.resolve()), str(os.getpid())], run / CONTROL_READY),
        Child("data", [*command, "data", str(file.resolve()), str(os.getpid())], run / DATA_READY),
    ]
    announcement = json.dumps(
        {
            "pid": os.getpid(),
            "edge_url": config.node.address,
            "platform_url": url_of("http", config.platform.host, config.platform.port),
            "admin_url": url_of("http", config.admin.host, config.admin.port),
        }
    )
    return asyncio.run(Supervisor(children, journal, clock).run(run / READY, announcement))


def _folders(config: Config) -> Path:
    """Make the folders that the processes need; the run folder, which only this user may enter."""
    run = config.path(config.paths.run)
    if len(os.fsencode(run / _LONGEST_SOCKET)) > SOCKET_PATH_BYTES:
        raise ConfigError(f"paths.run {run} is too long for a Unix socket (at most {SOCKET_PATH_BYTES} bytes in all)")
    for folder in (run, config.path(config.paths.work), config.path(config.paths.state).parent):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"cannot make {folder}: {error.strerror}") from error
    return run
