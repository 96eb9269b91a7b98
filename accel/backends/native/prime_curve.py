"""P-256 and SM2 on one native core; see accel/notes/wcurve.md."""

import numpy as np
from numpy.typing import NDArray

from accel import _native
from accel.backends.native.hashing import expand
from accel.backends.reference.prime_curve import IntegerCurve
from accel.kernels import AFFINE_BYTES, Texts, check_threads


class NativeCurve(IntegerCurve):
    """See accel.kernels.PrimeCurve for the contract. Multiples of the generator are made by the core itself, once."""

    def __init__(self, core: str, curve: str, *, threads: int = 1) -> None:
        super().__init__(curve)
        self.name = core
        self._threads = check_threads(threads)
        self._table = b""

    def _expand(self, digest: str, texts: Texts, tag: bytes, length: int) -> NDArray[np.uint8]:
        return expand(digest, texts, tag, length, threads=self._threads)

    def _valid(self, points: bytes) -> bool:
        return _native.wcurve_check(self.name, self.curve, points, self._threads)

    def _multiply(self, scalars: bytes, points: bytes, *, each: bool) -> bytes:
        out = bytearray(len(points))
        _native.wcurve_multiply(self.name, self.curve, out, scalars, points, each, self._threads)
        return bytes(out)

    def _base(self, scalars: bytes) -> bytes:
        if not self._table:
            # (2 j + 1) 16^w G for 64 windows of 8 entries
            x, y = self._numbers.generator
            generator = x.to_bytes(32, "big") + y.to_bytes(32, "big")
            factors = [(2 * j + 1) << (4 * w) for w in range(64) for j in range(8)]
            odd = b"".join((k % self._numbers.n).to_bytes(32, "big") for k in factors)
            self._table = self._multiply(odd, generator * len(factors), each=True)
        out = bytearray(2 * len(scalars))
        _native.wcurve_multiply_base(self.name, self.curve, out, scalars, self._table, self._threads)
        return bytes(out)

    def _lift(self, xs: bytes, parities: bytes) -> tuple[bytes, NDArray[np.uint8]]:
        out, flags = bytearray(2 * len(xs)), np.empty(len(parities), np.uint8)
        _native.wcurve_lift(self.name, self.curve, out, flags, xs, parities, self._threads)
        return bytes(out), flags

    def _map(self, elements: bytes, each: int) -> bytes:
        out = bytearray(len(elements) // each // AFFINE_BYTES * AFFINE_BYTES)
        _native.wcurve_map(self.name, self.curve, out, elements, self._threads)
        return bytes(out)
