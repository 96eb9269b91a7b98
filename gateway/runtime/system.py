"""The machine's clock and randomness, as the ports want them."""

import os
import time


class SystemClock:
    """ports.Clock of this machine. offset_ms: how far it is wrong on purpose, in a lab."""

    def __init__(self, offset_ms: int = 0) -> None:
        self._offset_ms = offset_ms

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._offset_ms

    def monotonic(self) -> float:
        return time.monotonic()


class SystemEntropy:
    """ports.Entropy of the operating system."""

    def token(self, size: int) -> bytes:
        return os.urandom(size)
