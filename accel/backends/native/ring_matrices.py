"""Dense ring products in C; the rest is numpy's, which memory bounds. See accel/notes/masks.md."""

from accel import _native
from accel.backends.reference import NumpyRingMatrices
from accel.kernels import Uints, check_threads


class NativeRingMatrices(NumpyRingMatrices):
    """See accel.kernels.RingMatrices for the contract. Modulo 2^128 both cores are plain C."""

    def __init__(self, core: str, *, threads: int = 1) -> None:
        super().__init__()
        self.name = core
        self._threads = check_threads(threads)

    def _multiply(self, a: Uints, b: Uints, transposed: bool, out: Uints) -> None:
        _native.ring_product(
            self.name, a.ndim - 1, out, a, b, a.shape[0], a.shape[1], b.shape[1], transposed, True, self._threads
        )  # fmt: skip
