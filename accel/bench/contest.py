"""What several families of rows need to set up their contests: our backends, and the rivals that are always there."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Final

from accel import registry
from accel.bench.measure import Contestant, Job
from accel.bench.rivals import RivalFailed, Rivals
from accel.probe import probe

ONE_THREAD: Final = "one thread"
REFERENCE: Final = "reference"


def backends(kernel: str) -> list[str]:
    """Names of the native backends of this machine, the preferred one first; `reference` where there is none."""
    able = [b for b in registry.BACKENDS[kernel] if b.priority > 0 and b.refuses(probe()) is None]
    return [b.name for b in sorted(able, key=lambda b: -b.priority)] or [REFERENCE]


def package(distribution: str, what: str = "") -> str:
    """Name and version of a package of this environment, as a rival's name begins."""
    return f"{distribution} {metadata.version(distribution)} {what}".rstrip()


def two_threads(units: int, run: Callable[[int], Callable[[], object]]) -> tuple[list[Job], list[Job]]:
    """run(threads) prepares the job; ours has two, the rival one."""
    return [Job("two threads", units, run(2))], [Job(ONE_THREAD, units, run(1))]


@dataclass(frozen=True, slots=True)
class OpensslSpeed:
    """`openssl speed`, one second for each rate: operations or bytes a second."""

    name: str
    arguments: tuple[str, ...]

    def rate(self, seconds: float) -> float:
        if not seconds:
            return 0.0
        ran = subprocess.run(
            ["openssl", "speed", "-elapsed", "-seconds", "1", "-mr", *self.arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = [line for line in ran.stdout.splitlines() if line.startswith("+F")]
        try:
            return float(lines[-1].split(":")[3])
        except (IndexError, ValueError) as error:
            raise RivalFailed("openssl: speed does not answer as expected") from error


def openssl(rivals: Rivals, quick: bool, what: str, *arguments: str) -> list[Contestant]:
    """The command's own measurement, where there is such a command."""
    version = _openssl_version()
    if version is None or quick:
        why = "takes a second each time: left out of a --quick run" if version else "there is no such command here"
        rivals.absent["openssl speed"] = why
        return []
    return [OpensslSpeed(f"openssl {version} speed {what}", arguments)]


@cache
def _openssl_version() -> str | None:
    if shutil.which("openssl") is None:
        return None
    ran = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=False, timeout=10)
    words = ran.stdout.split()
    return words[1] if len(words) > 1 and words[0] == "OpenSSL" else None


def versions() -> dict[str, str]:
    """Of what the rivals in this process are made."""
    found = {name: metadata.version(name) for name in ("gmpy2", "numpy", "cryptography")}
    return found | {"openssl": _openssl_version() or "not here"}
