"""Which processes belong to a gateway, read from /proc: for the tests that kill them.

A process of a node has the node's configuration on its command line. Its role stands there, too, or, where it was
forked instead of started (undying.py), in its name.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROLES = ("supervisor", "control", "data")


@dataclass(frozen=True, slots=True)
class Seen:
    """A process that is not a zombie."""

    pid: int
    parent: int
    name: str
    words: tuple[bytes, ...]

    def environment(self) -> bytes:
        """b"" where it has ended meanwhile."""
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/environ").read_bytes()
        return b""


def processes() -> Iterator[Seen]:
    """All that run now."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words != [b""]:
                    before, _, after = (entry / "stat").read_text(errors="replace").rpartition(")")
                    yield Seen(int(entry.name), int(after.split()[1]), before.partition("(")[2], tuple(words))


def alive(pid: int) -> bool:
    """It runs, and is not a zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pid: int) -> bool:
    """Its last thread has ended. Until then its sockets take calls, though it looks like a zombie already."""
    if alive(pid):
        return False
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    return True


def of_node(config: Path) -> dict[str, list[int]]:
    """Role -> pids of the gateway whose configuration that is; components are not among them."""
    found: dict[str, list[int]] = {role: [] for role in ROLES}
    file = os.fsencode(config)
    for seen in processes():
        if file in seen.words:
            own = [role for role in ROLES[1:] if seen.name == role or role.encode() in seen.words]
            found[own[0] if own else ROLES[0]].append(seen.pid)
    return found


def descendants(root: int) -> list[int]:
    """`root` and everything started by it, components included."""
    children: dict[int, list[int]] = {}
    for seen in processes():
        children.setdefault(seen.parent, []).append(seen.pid)
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found
