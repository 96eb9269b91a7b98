"""How many cores this process may compute on, and how many threads a component that starts now gets of them.

What a component does with its threads is its own; what it is held to (affinity, control groups) is the launcher's.
"""

import math
import os
from pathlib import Path

from gateway.runtime.shim import own_cgroup
from gateway.sdk.environment import MAX_THREADS


def usable_cores() -> int:
    """Cores of the affinity, or fewer where a control group (version 2) of this process has a quota; at least 1."""
    cores = len(os.sched_getaffinity(0))
    try:
        group = own_cgroup()
    except (OSError, StopIteration, ValueError):
        return cores
    return max(1, min([cores, *(math.ceil(quota) for each in (group, *group.parents) if (quota := _quota(each)))]))


def _quota(group: Path) -> float:
    """Cores that a control group has, 0.0 where it has no limit or is none."""
    try:
        most, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return int(most) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0


def threads_for(*, wanted: int, cores: int, running: int, cpu: float | None) -> int:
    """Threads of a component: `wanted`, or where that is 0 its share of the cores among the `running` ones, itself
    among them; never more than the cpu that its job gives it. 1 to MAX_THREADS.
    """
    share = wanted or cores // max(running, 1)
    return max(1, min(share, MAX_THREADS, share if cpu is None else math.ceil(cpu)))
