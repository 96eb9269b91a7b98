"""Ports for a lab: outside the range the kernel hands out by itself, and never two labs the same.

A port counts as claimed while a socket with its number is bound in Linux's abstract namespace, which lives and dies
with the process and spans exactly the network namespace; that closes the gap between "this port is free" and "the
gateway listens on it". Against programs that do not know the claim there is only the retry of the caller.
"""

import random
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gateway.errors import Unavailable

LOWEST: Final = 10_000
HIGHEST: Final = 65_535
ATTEMPTS: Final = 2_000
_RANGE_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def candidates(ephemeral: tuple[int, int]) -> list[int]:
    """Ports LOWEST..HIGHEST outside `ephemeral` (both ends in it); all of them where that leaves nothing."""
    low, high = ephemeral
    outside = [port for port in range(LOWEST, HIGHEST + 1) if not low <= port <= high]
    return outside or list(range(LOWEST, HIGHEST + 1))


def ephemeral_range(file: Path = _RANGE_FILE) -> tuple[int, int]:
    """The kernel's own range, or Linux's default where it cannot be read."""
    try:
        low, high = file.read_text().split()
    except OSError:
        return 32_768, 60_999
    return int(low), int(high)


class PortClaims:
    """Claims ports for as long as it is open. `choose` picks a candidate; tests give their own."""

    def __init__(self, choose: Callable[[list[int]], int] | None = None) -> None:
        self._choose = choose or random.SystemRandom().choice
        self._candidates = candidates(ephemeral_range())
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.close()

    def take(self) -> int:
        """A port nobody listens on at 127.0.0.1 and no other lab has claimed; raises Unavailable when there is none."""
        for _ in range(ATTEMPTS):
            port = self._choose(self._candidates)
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0interconn-lab-port-{port}")
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                    probe.bind(("127.0.0.1", port))
            except OSError:
                claim.close()
                continue
            self._held.callback(claim.close)
            return port
        raise Unavailable("no free port found for the lab")
