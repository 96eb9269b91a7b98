"""Modular powers and multi-exponentiation on a CUDA device; see accel/notes/cuda.md."""

from typing import Final

import gmpy2
import numpy as np

from accel import kernels
from accel.backends.cuda.device import Device, DeviceArray, default
from accel.backends.reference.group import check_fits, check_segments, cut_segments
from accel.backends.reference.modular import check_batch
from accel.backends.reference.power import PowerByRing, check_modulus_of_batch
from accel.kernels import BadInput, Ints, SparseMatrix, Uints, check_threads

_LIMBS: Final = (4, 16, 32, 48, 64, 96, 128)
"""The kernels are compiled for these lengths; a modulus takes the next one."""
_WINDOW: Final = 4
_ENTRIES: Final = 1 << _WINDOW
_SCRATCH: Final = 256 << 20
"""Bytes of the tables of powers: a larger batch is worked off in parts."""
_LONGEST: Final = 64
"""A longer segment is cut, so that one row does not keep one thread busy while the others wait."""


class CudaResidues:
    """A batch in Montgomery form, on the device."""

    __slots__ = ("device", "modulus", "rows")

    def __init__(self, rows: DeviceArray, modulus: int, device: Device) -> None:
        self.rows = rows
        self.modulus = modulus
        self.device = device

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"CudaResidues({len(self.rows)})"


class CudaRing:
    """See accel.kernels.ModularRing for the contract."""

    name = "cuda"

    def __init__(self, modulus: int, device: Device) -> None:
        check_modulus_of_batch(modulus)
        self.modulus = modulus
        self._device = device
        self._used = (modulus.bit_length() + 63) // 64
        self._limbs = limbs = next(limbs for limbs in _LIMBS if limbs >= self._used)
        radix = 1 << 64 * limbs
        self._n = _words(modulus, limbs)
        self._ring = device.array(
            np.concatenate([self._n, _words(radix % modulus, limbs), _words(-pow(modulus, -1, 1 << 64) % (1 << 64), 1)])
        )
        self._square_of_radix = device.array(_words(radix * radix % modulus, limbs).reshape(1, limbs))
        self._plain_one = device.array(_words(1, limbs).reshape(1, limbs))
        self._one = device.array(_words(radix % modulus, limbs).reshape(1, limbs))

    def __repr__(self) -> str:
        return f"CudaRing({self.modulus.bit_length()} bits)"

    def load(self, plain: Uints) -> CudaResidues:
        check_batch(plain)
        rows = np.zeros((len(plain), self._limbs), np.uint64)
        shared = min(plain.shape[1], self._limbs)
        rows[:, :shared] = plain[:, :shared]
        if plain[:, shared:].any() or not _all_below(rows, self._n):
            raise BadInput("a base is not below the modulus")
        return self._made(self._multiply(self._device.array(rows), self._square_of_radix))

    def dump(self, a: kernels.Residues) -> Uints:
        rows: Uints = self._device.host(self._multiply(self._own(a), self._plain_one))
        return np.ascontiguousarray(rows[:, : self._used])

    def multiply(self, a: kernels.Residues, b: kernels.Residues) -> CudaResidues:
        left, right = self._own(a), self._own(b)
        if len(left) != len(right) and 1 not in (len(left), len(right)):
            raise BadInput("the batches have different lengths")
        return self._made(self._multiply(left, right))

    def square(self, a: kernels.Residues, times: int = 1) -> CudaResidues:
        rows = self._own(a)
        if not isinstance(times, int) or times < 1:
            raise BadInput("at least one squaring")
        out = self._device.empty(rows.shape)
        self._each("mont_square", len(rows), out, rows, np.uint32(times))
        return self._made(out)

    def power(self, a: kernels.Residues, exponents: Uints, *, secret: bool = True) -> CudaResidues:
        rows = self._own(a)
        check_batch(exponents)
        if len(exponents) not in (1, len(rows)):
            raise BadInput("one exponent for all, or one for each base")
        device, words = self._device, exponents.shape[1]
        step, out = 0 if len(exponents) == 1 else words, device.empty(rows.shape)
        powers = device.array(exponents)
        part = max(1, min(len(rows), _SCRATCH // (8 * _ENTRIES * self._limbs)))
        table = device.empty((_ENTRIES * self._limbs * part,))
        for at in range(0, len(rows), part):
            some = slice(at, at + part)
            self._each(
                "mont_power", len(rows[some]), out[some], rows[some], powers[some] if step else powers,
                np.uint64(step), np.uint32(words), table, np.uint32(secret),
            )  # fmt: skip
        device.wipe(powers, table)
        return self._made(out)

    def invert(self, a: kernels.Residues) -> CudaResidues:
        """By a tree of products, one inversion by gmpy2 at its root and the tree down again."""
        device, levels = self._device, [self._own(a)]
        if not len(levels[0]):
            return self._made(levels[0])
        while len(levels[-1]) > 1:
            if len(levels[-1]) % 2:
                levels[-1] = device.rows(levels[-1], self._one)
            last = levels[-1]
            levels.append(self._multiply(device.rows(last[0::2]), device.rows(last[1::2])))
        root = self.dump(self._made(levels.pop()))
        try:
            number = int(gmpy2.invert(int.from_bytes(root.tobytes(), "little"), self.modulus))
        except ZeroDivisionError:
            raise BadInput("not invertible") from None
        inverse = self.load(_words(number, self._used).reshape(1, -1)).rows
        while levels:
            below = levels.pop()
            parents, inverse = inverse[: len(below) // 2], device.empty(below.shape)  # a parent may be padding
            with device.working():
                inverse[0::2] = self._multiply(parents, device.rows(below[1::2]))
                inverse[1::2] = self._multiply(parents, device.rows(below[0::2]))
        return self._made(device.rows(inverse[: len(a)]))

    def products(self, a: kernels.Residues, index: Ints, starts: Ints) -> CudaResidues:
        rows = self._own(a)
        check_segments(len(rows), index, starts)
        return self._made(self._products(rows, index, starts))

    def matvec(self, matrix: SparseMatrix, a: kernels.Residues) -> CudaResidues:
        bases, device = self._own(a), self._device
        check_fits(matrix, len(bases))
        index, values = matrix.indices, matrix.values
        if (values < 0).any():
            bases = device.rows(bases, self.invert(a).rows)
            index = index + len(a) * (values < 0)
        sizes = np.abs(values).astype(np.uint64)
        digits = -(-int(sizes.max(initial=0)).bit_length() // _WINDOW)
        table = device.empty((len(bases) * (_ENTRIES - 1), self._limbs))
        self._each("mont_multiples", len(bases), table, bases)
        cuts, groups = cut_segments(matrix.indptr, _LONGEST)
        parts = device.empty((len(cuts) - 1, self._limbs))
        self._each(
            "mont_multiexp", len(parts), parts, table, device.array(index), device.array(sizes), device.array(cuts),
            np.uint32(digits),
        )  # fmt: skip
        device.wipe(table)
        return self._made(self._products(parts, np.arange(len(parts), dtype=np.int64), groups))

    def _products(self, rows: DeviceArray, index: Ints, starts: Ints) -> DeviceArray:
        cuts, groups = cut_segments(starts, _LONGEST)
        out = self._device.empty((len(cuts) - 1, self._limbs))
        self._each("mont_products", len(out), out, rows, self._device.array(index), self._device.array(cuts))
        if len(cuts) == len(starts):
            return out
        return self._products(out, np.arange(len(out), dtype=np.int64), groups)

    def _multiply(self, a: DeviceArray, b: DeviceArray) -> DeviceArray:
        """Element-wise; one of them may be a single row."""
        count = max(len(a), len(b)) if len(a) and len(b) else 0
        steps = [np.uint64(self._limbs if len(rows) > 1 else 0) for rows in (a, b)]
        out = self._device.empty((count, self._limbs))
        self._each("mont_multiply", count, out, a, steps[0], b, steps[1])
        return out

    def _each(self, kernel: str, count: int, *args: object) -> None:
        self._device.each("mont", kernel, count, *args, self._ring, np.uint64(count), limbs=self._limbs)

    def _own(self, a: kernels.Residues) -> DeviceArray:
        if not isinstance(a, CudaResidues) or a.modulus != self.modulus or a.device is not self._device:
            raise BadInput("residues of another modulus, backend or device")
        return a.rows

    def _made(self, rows: DeviceArray) -> CudaResidues:
        return CudaResidues(rows, self.modulus, self._device)


class CudaPower(PowerByRing):
    """See accel.kernels.ModularPower for the contract. The last modulus' constants are kept."""

    name = "cuda"

    def __init__(self, *, threads: int = 1, device: Device | None = None) -> None:
        check_threads(threads)
        self._device = device or default()
        self._last: CudaRing | None = None

    def __repr__(self) -> str:
        return "CudaPower()"

    def ring(self, modulus: int) -> CudaRing:
        if self._last is None or self._last.modulus != modulus:
            self._last = CudaRing(modulus, self._device)
        return self._last


def _words(value: int, limbs: int) -> Uints:
    return np.frombuffer(int(value).to_bytes(8 * limbs, "little"), "<u8").astype(np.uint64)


def _all_below(rows: Uints, bound: Uints) -> bool:
    """Whether every row, as a number, is below the bound; limb by limb from the top."""
    below, equal = np.zeros(len(rows), bool), np.ones(len(rows), bool)
    for j in range(rows.shape[1] - 1, -1, -1):
        below |= equal & (rows[:, j] < bound[j])
        equal &= rows[:, j] == bound[j]
    return bool(below.all())
