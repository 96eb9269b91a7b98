"""Modular powers on one native core."""

import gmpy2
import numpy as np

from accel import kernels
from accel.backends.native import multiexp
from accel.backends.native.residues import Octets, ResidueRing, octets
from accel.backends.reference.group import check_fits, check_segments
from accel.backends.reference.modular import check_batch
from accel.backends.reference.power import PowerByRing, check_modulus_of_batch
from accel.kernels import BadInput, Ints, SparseMatrix, Uints, check_threads


class NativeResidues:
    """A batch in Montgomery form."""

    __slots__ = ("core", "modulus", "rows")

    def __init__(self, rows: Uints, ring: ResidueRing) -> None:
        self.rows = rows
        self.core = ring.core
        self.modulus = ring.modulus

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"NativeResidues({self.core}, {len(self.rows)})"


class NativeModularRing:
    """See accel.kernels.ModularRing for the contract."""

    __slots__ = ("_ring", "modulus", "name")

    def __init__(self, core: str, modulus: int, *, threads: int = 1) -> None:
        check_modulus_of_batch(modulus)
        self.name = core
        self.modulus = modulus
        self._ring = ResidueRing(core, gmpy2.mpz(modulus), threads=threads)

    def __repr__(self) -> str:
        return f"NativeModularRing({self.name}, {self.modulus.bit_length()} bits)"

    def load(self, plain: Uints) -> NativeResidues:
        check_batch(plain)
        ring, data = self._ring, octets(plain)
        if data.shape[1] > ring.size and data[:, ring.size :].any():
            raise BadInput("a base is not below the modulus")
        data = np.pad(data[:, : ring.size], ((0, 0), (0, max(0, ring.size - data.shape[1]))))
        if not ring.holds(data.tobytes(), ring.size, zero=True):
            raise BadInput("a base is not below the modulus")
        return self._made(ring.load(data.tobytes(), ring.size))

    def dump(self, a: kernels.Residues) -> Uints:
        return _limbs(self._ring.dump(self._own(a)), self._ring)

    def multiply(self, a: kernels.Residues, b: kernels.Residues) -> NativeResidues:
        left, right = self._own(a), self._own(b)
        if len(left) != len(right) and 1 not in (len(left), len(right)):
            raise BadInput("the batches have different lengths")
        return self._made(self._ring.mul(left, right))

    def square(self, a: kernels.Residues, times: int = 1) -> NativeResidues:
        if not isinstance(times, int) or times < 1:
            raise BadInput("at least one squaring")
        return self._made(self._ring.square(self._own(a), times))

    def power(self, a: kernels.Residues, exponents: Uints, *, secret: bool = True) -> NativeResidues:
        rows = self._own(a)
        check_batch(exponents)
        if len(exponents) not in (1, len(rows)):
            raise BadInput("one exponent for all, or one for each base")
        if not len(rows):
            return self._made(rows)
        if len(exponents) == 1 and not secret:
            exponent = gmpy2.mpz(int.from_bytes(octets(exponents).tobytes(), "little"))
            return self._made(self._ring.power_public(rows, exponent))
        return self._made(self._ring.power(rows, octets(exponents), 64 * exponents.shape[1]))

    def invert(self, a: kernels.Residues) -> NativeResidues:
        return self._made(self._ring.invert(self._own(a)))

    def products(self, a: kernels.Residues, index: Ints, starts: Ints) -> NativeResidues:
        rows = self._own(a)
        check_segments(len(rows), index, starts)
        begin, end = int(starts[0]), int(starts[-1])
        return self._made(self._ring.product(rows, np.ascontiguousarray(index[begin:end]), starts - begin))

    def matvec(self, matrix: SparseMatrix, a: kernels.Residues) -> NativeResidues:
        rows = self._own(a)
        check_fits(matrix, len(rows))
        return self._made(multiexp.matvec(self._ring, matrix, rows))

    def _own(self, a: kernels.Residues) -> Uints:
        if not isinstance(a, NativeResidues) or a.modulus != self._ring.modulus or a.core != self._ring.core:
            raise BadInput("residues of another modulus or backend")
        return a.rows

    def _made(self, rows: Uints) -> NativeResidues:
        return NativeResidues(rows, self._ring)


class NativePower(PowerByRing):
    """See accel.kernels.ModularPower for the contract. The last modulus' constants are kept."""

    __slots__ = ("_last", "_threads", "name")

    def __init__(self, core: str, *, threads: int = 1) -> None:
        self.name = core
        self._threads = check_threads(threads)
        self._last: NativeModularRing | None = None

    def __repr__(self) -> str:
        return f"NativePower({self.name})"

    def ring(self, modulus: int) -> NativeModularRing:
        if self._last is None or self._last.modulus != modulus:
            self._last = NativeModularRing(self.name, modulus, threads=self._threads)
        return self._last


def _limbs(data: Octets, ring: ResidueRing) -> Uints:
    limbs = (ring.modulus.bit_length() + 63) // 64
    padded = np.pad(data, ((0, 0), (0, 8 * limbs - data.shape[1])))
    return np.ascontiguousarray(padded).view("<u8").astype(np.uint64).reshape(len(data), limbs)
