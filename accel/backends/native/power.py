"""Modular powers on one native core."""

import gmpy2
import numpy as np

from accel.backends.native.residues import Octets, ResidueRing, octets
from accel.backends.reference.power import check_modulus_of_batch
from accel.kernels import BadInput, Uints, check_threads


class NativePower:
    """See accel.kernels.ModularPower for the contract. The last modulus' constants are kept."""

    __slots__ = ("_ring", "_threads", "name")

    def __init__(self, core: str, *, threads: int = 1) -> None:
        self.name = core
        self._threads = check_threads(threads)
        self._ring: ResidueRing | None = None

    def __repr__(self) -> str:
        return f"NativePower({self.name})"

    def power(self, modulus: int, bases: Uints, exponents: Uints, *, secret: bool = True) -> Uints:
        ring, rows = self._load(modulus, bases)
        _check_batch(exponents)
        if len(exponents) not in (1, len(bases)):
            raise BadInput("one exponent for all, or one for each base")
        if not len(rows):
            return _limbs(ring.dump(rows), ring)
        if len(exponents) == 1 and not secret:
            exponent = gmpy2.mpz(int.from_bytes(octets(exponents).tobytes(), "little"))
            return _limbs(ring.dump(ring.power_public(rows, exponent)), ring)
        return _limbs(ring.dump(ring.power(rows, octets(exponents), 64 * exponents.shape[1])), ring)

    def multiply(self, modulus: int, a: Uints, b: Uints) -> Uints:
        ring, left = self._load(modulus, a)
        _, right = self._load(modulus, b)
        if len(left) != len(right):
            raise BadInput("the batches have different lengths")
        return _limbs(ring.dump(ring.mul(left, right)), ring)

    def _load(self, modulus: int, batch: Uints) -> tuple[ResidueRing, Uints]:
        check_modulus_of_batch(modulus)
        _check_batch(batch)
        ring = self._ring
        if ring is None or ring.modulus != modulus:
            ring = self._ring = ResidueRing(self.name, gmpy2.mpz(modulus), threads=self._threads)
        data = octets(batch)
        if data.shape[1] > ring.size and data[:, ring.size :].any():
            raise BadInput("a base is not below the modulus")
        data = np.pad(data[:, : ring.size], ((0, 0), (0, max(0, ring.size - data.shape[1]))))
        if not ring.holds(data.tobytes(), ring.size, zero=True):
            raise BadInput("a base is not below the modulus")
        return ring, ring.load(data.tobytes(), ring.size)


def _check_batch(batch: Uints) -> None:
    if batch.dtype != np.uint64 or batch.ndim != 2 or batch.shape[1] < 1:
        raise BadInput("a plain batch is uint64 of shape (count, limbs)")


def _limbs(data: Octets, ring: ResidueRing) -> Uints:
    limbs = (ring.modulus.bit_length() + 63) // 64
    padded = np.pad(data, ((0, 0), (0, 8 * limbs - data.shape[1])))
    return np.ascontiguousarray(padded).view("<u8").astype(np.uint64).reshape(len(data), limbs)
