"""The machine's clock and randomness, as the ports want them."""

import os
import time


class SystemClock:
    """ports.Clock of this machine."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class SystemEntropy:
    """ports.Entropy of the operating system."""

    def token(self, size: int) -> bytes:
        return os.urandom(size)
