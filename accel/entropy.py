"""The operating system's randomness as a RandomSource. A shell module: kernels and operators are given one."""

import builtins
import os


class OsRandom:
    """Randomness from the kernel of the operating system."""

    __slots__ = ()

    def bytes(self, count: int, /) -> builtins.bytes:
        return os.urandom(count)
