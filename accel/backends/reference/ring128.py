"""Z_{2^128} on pairs of 64-bit limbs, vectorised with numpy."""

from collections.abc import Sequence

import numpy as np

from accel.backends.reference.group import check_fits
from accel.kernels import BadInput, Floats, Ints, RandomSource, SparseMatrix, Uints, is_array

_MASK32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


class NumpyRing128:
    """Ring128 by numpy; see accel.kernels.Ring128 for the contract."""

    name = "reference"

    def __init__(self, *, threads: int = 1) -> None:
        del threads

    def add(self, a: Uints, b: Uints) -> Uints:
        _check(a, b)
        low = a[..., 0] + b[..., 0]
        carry = (low < a[..., 0]).astype(np.uint64)
        return np.stack([low, a[..., 1] + b[..., 1] + carry], axis=-1)

    def neg(self, a: Uints) -> Uints:
        _check(a)
        low = ~a[..., 0] + np.uint64(1)
        carry = (low == 0).astype(np.uint64)
        return np.stack([low, ~a[..., 1] + carry], axis=-1)

    def sub(self, a: Uints, b: Uints) -> Uints:
        _check(a, b)
        low = a[..., 0] - b[..., 0]
        borrow = (a[..., 0] < b[..., 0]).astype(np.uint64)
        return np.stack([low, a[..., 1] - b[..., 1] - borrow], axis=-1)

    def mul(self, a: Uints, b: Uints) -> Uints:
        _check(a, b)
        low, high = _mul_64(a[..., 0], b[..., 0])
        return np.stack([low, high + a[..., 0] * b[..., 1] + a[..., 1] * b[..., 0]], axis=-1)

    def scale(self, a: Uints, factor: int) -> Uints:
        if not isinstance(factor, int) or not -(1 << 127) <= factor < 1 << 127:
            raise BadInput("factor does not fit the ring")
        return self.mul(a, self.from_ints([factor])[0])

    def matvec(self, matrix: SparseMatrix, vector: Uints) -> Uints:
        check_vector(matrix, vector)
        out = np.zeros((matrix.rows, 2), np.uint64)
        filled = np.flatnonzero(np.diff(matrix.indptr))
        if not len(filled):
            return out
        starts = matrix.indptr[filled]
        # A limb of `width` bits times a row's absolute sum stays below 2^62, so int64 sums are exact.
        heaviest = int(np.add.reduceat(np.abs(matrix.values), starts).max())
        width = 62 - heaviest.bit_length()
        if width < 1:
            raise BadInput("the entries of a row are too large to sum")
        for shift in range(0, 128, width):
            limb = _bits(vector, shift, width)
            sums = np.add.reduceat(matrix.values * limb[matrix.indices], starts)
            out[filled] = self.add(out[filled], _shift_left(sums, shift))
        return out

    def truncate(self, share: Uints, bits: int, *, first: bool) -> Uints:
        _check(share)
        if not isinstance(bits, int) or not 0 <= bits < 64:
            raise BadInput("truncation by 0 to 63 bits")
        if first:
            return _shift_right(share, bits)
        return self.neg(_shift_right(self.neg(share), bits))

    def random(self, count: int, random: RandomSource) -> Uints:
        if count < 0:
            raise BadInput("a count below zero")
        return np.frombuffer(random.bytes(16 * count), dtype="<u8").astype(np.uint64).reshape(count, 2)

    def from_ints(self, values: Sequence[int]) -> Uints:
        if not all(isinstance(value, int) for value in values):
            raise BadInput("Python's integers are wanted")
        data = b"".join((value % (1 << 128)).to_bytes(16, "little") for value in values)
        return np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(len(values), 2)

    def to_ints(self, a: Uints) -> list[int]:
        data = self.to_bytes(a)
        return [int.from_bytes(data[i : i + 16], "little", signed=True) for i in range(0, len(data), 16)]

    def from_floats(self, values: Floats, bits: int) -> Uints:
        scaled = np.rint(np.asarray(values, dtype=np.float64) * 2.0**bits)
        if scaled.ndim != 1 or not np.all(np.abs(scaled) < 2.0**62):  # also false for NaN
            raise BadInput("values must be finite, one-dimensional and below 2^62 after scaling")
        signed = scaled.astype(np.int64)
        return np.stack([signed.astype(np.uint64), (signed >> 63).astype(np.uint64)], axis=-1)

    def to_floats(self, a: Uints, bits: int) -> Floats:
        return np.array([value / (1 << bits) for value in self.to_ints(a)], dtype=np.float64)

    def to_bytes(self, a: Uints) -> bytes:
        _check(a)
        return np.ascontiguousarray(a, dtype="<u8").tobytes()

    def from_bytes(self, data: memoryview, count: int) -> Uints:
        if len(data) != 16 * count:
            raise BadInput("ring elements take 16 bytes each")
        return np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(count, 2)


def check_vector(matrix: SparseMatrix, vector: Uints) -> None:
    """Refuse what cannot be multiplied."""
    _check(vector)
    check_fits(matrix, len(vector))
    if vector.ndim != 2:
        raise BadInput("vector does not fit the matrix")


def _check(*arrays: Uints) -> None:
    for array in arrays:
        if not is_array(array, np.uint64) or array.ndim < 1 or array.shape[-1] != 2:
            raise BadInput("a ring array is uint64 with a last axis of two limbs")
    try:
        np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        raise BadInput("the arrays do not fit together") from None


def _mul_64(a: Uints, b: Uints) -> tuple[Uints, Uints]:
    """The low and high halves of the 128-bit products."""
    a0, a1, b0, b1 = a & _MASK32, a >> _32, b & _MASK32, b >> _32
    low, mid1, mid2 = a0 * b0, a0 * b1, a1 * b0
    carry = (low >> _32) + (mid1 & _MASK32) + (mid2 & _MASK32)
    return a * b, a1 * b1 + (mid1 >> _32) + (mid2 >> _32) + (carry >> _32)


def _bits(a: Uints, shift: int, width: int) -> Ints:
    """Bits [shift, shift + width) of each element, width < 64."""
    low, high = a[..., 0], a[..., 1]
    if shift >= 64:
        part = high >> np.uint64(shift - 64)
    elif shift == 0:
        part = low
    else:
        part = low >> np.uint64(shift) | high << np.uint64(64 - shift)
    return (part & np.uint64((1 << width) - 1)).astype(np.int64)


def _shift_left(values: Ints, shift: int) -> Uints:
    """Sign-extended values times 2^shift mod 2^128."""
    low, high = values.astype(np.uint64), (values >> 63).astype(np.uint64)
    if shift >= 64:
        return np.stack([np.zeros_like(low), low << np.uint64(shift - 64)], axis=-1)
    if shift == 0:
        return np.stack([low, high], axis=-1)
    s = np.uint64(shift)
    return np.stack([low << s, high << s | low >> np.uint64(64 - shift)], axis=-1)


def _shift_right(a: Uints, bits: int) -> Uints:
    """Arithmetic shift right, 0 <= bits < 64."""
    low, high = a[..., 0], a[..., 1]
    if bits == 0:
        return a.copy()
    shifted = (high.astype(np.int64) >> bits).astype(np.uint64)
    return np.stack([low >> np.uint64(bits) | high << np.uint64(64 - bits), shifted], axis=-1)
