"""What all processes of a node take from its node.toml in the same way: names of files, clock, addresses."""

from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.runtime.system import SystemClock

CONTROL_READY: Final = "control.json"
DATA_READY: Final = "data.json"
READY: Final = "ready.json"


def clock_of(config: Config) -> SystemClock:
    """The machine's clock; a node of a lab may be wrong on purpose."""
    return SystemClock(round(config.node.insecure_clock_offset * 1000))


def log_of(config: Config, process: str) -> Path:
    """The log of one process, beside that of its parent."""
    file = config.path(config.paths.log)
    return file.with_name(f"{file.stem}-{process}{file.suffix}")


def url_of(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{bracketed(host)}:{port}"


def bracketed(host: str) -> str:
    """A host as it stands in a URL (RFC 3986 3.2.2)."""
    return f"[{host}]" if ":" in host else host
