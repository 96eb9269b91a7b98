"""What this machine has, as plain facts; judging them is the registry's business."""

import importlib.util
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """The architecture as the operating system names it, CPU flags as Linux lists them (empty elsewhere), and which
    optional Python modules can be imported.
    """

    architecture: str
    cpu_flags: frozenset[str]
    modules: frozenset[str]


_OPTIONAL = ("gmpy2", "cupy", "accel._native")


def probe(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """Looks, loads nothing."""
    flags: frozenset[str] = frozenset()
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, rest = line.partition(":")
            if name.strip() in ("flags", "Features"):
                flags = frozenset(rest.split())
                break
    modules = frozenset(name for name in _OPTIONAL if importlib.util.find_spec(name) is not None)
    return Machine(architecture=platform.machine(), cpu_flags=flags, modules=modules)
