"""A sparse integer matrix times a vector of residues, in the exponent. Depends in time on the matrix, which is its
owner's; the residues are ciphertexts.

Two ways, the cheaper by count of multiplications: tables of the multiples of every base (Straus), when a base serves
many rows; buckets of equal digits (Pippenger), when a row has many entries. Both come down to products of segments.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from accel import _native
from accel.backends.native.residues import ResidueRing
from accel.kernels import Ints, SparseMatrix, Uints

_SAMPLE: Final = 1 << 16
_WINDOWS: Final = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)


def matvec(ring: ResidueRing, matrix: SparseMatrix, bases: Uints) -> Uints:
    """Row i: the product over j of bases[j]^matrix[i, j]."""
    if not matrix.rows or not len(matrix.values):
        return np.repeat(ring.one, matrix.rows, axis=0)
    window, by_tables = _plan(matrix)
    return (_by_tables if by_tables else _by_buckets)(ring, matrix, bases, _Digits.of(matrix, window))


@dataclass(frozen=True, slots=True)
class _Digits:
    """How a matrix is cut: `windows` digits of `window` bits, `terms` of them not zero, negative ones where signed."""

    window: int
    windows: int
    terms: int
    signed: bool

    @classmethod
    def of(cls, matrix: SparseMatrix, window: int) -> Self:
        terms, negative, windows = _native.count_digits(matrix.values, window)
        return cls(window, windows, terms, negative > 0)


def _plan(matrix: SparseMatrix) -> tuple[int, bool]:
    """The window, and whether tables are cheaper than buckets."""
    values = matrix.values
    if len(values) > _SAMPLE:
        values = np.ascontiguousarray(values[:: -(-len(values) // _SAMPLE)])
    best = None
    for window in _WINDOWS:
        half = 1 << (window - 1)
        digits, negative, windows = _native.count_digits(values, window)
        signs = 2 if negative else 1
        work = digits * len(matrix.values) / len(values)
        tables = work + matrix.cols * (windows * signs * half + windows * window + 3 * (signs - 1))
        # A bucket costs two multiplications whether it is filled or not.
        buckets = work + matrix.rows * 4 * windows * half
        for cost, by_tables in ((tables, True), (buckets, False)):
            if best is None or cost < best[0]:
                best = (cost, window, by_tables)
    assert best is not None  # noqa: S101  # there are windows to try
    return best[1], best[2]


def _sorted(matrix: SparseMatrix, digits: _Digits, *, tables: bool, keys: int) -> tuple[Ints, Ints]:
    starts, found = np.empty(keys + 1, np.int64), np.empty(digits.terms, np.int64)
    indptr, indices, values = (np.ascontiguousarray(a) for a in (matrix.indptr, matrix.indices, matrix.values))
    _native.sort_digits(indptr, indices, values, digits.window, digits.windows, tables, starts, found)
    return starts, found


def _by_tables(ring: ResidueRing, matrix: SparseMatrix, bases: Uints, digits: _Digits) -> Uints:
    """Entry (col, k, sign, size - 1) of the table is bases[col]^(+-size * 2^(window * k))."""
    window, windows, cols, half = digits.window, digits.windows, matrix.cols, 1 << (digits.window - 1)
    stride = bases.shape[1]
    table = np.empty((cols, windows, 2, half, stride), np.uint64)
    starts = [(0, bases)] + ([(1, ring.invert(bases))] if digits.signed else [])
    for sign, first in starts:
        power = first
        for k in range(windows):
            if k:
                power = ring.square(power, window)
            multiple = power
            table[:, k, sign, 0] = power
            for size in range(2, half + 1):
                multiple = ring.mul(multiple, power)
                table[:, k, sign, size - 1] = multiple
    segments, idx = _sorted(matrix, digits, tables=True, keys=matrix.rows)
    return ring.product(table.reshape(-1, stride), idx, segments)


def _by_buckets(ring: ResidueRing, matrix: SparseMatrix, bases: Uints, digits: _Digits) -> Uints:
    """Bucket (size, k, row, sign) collects the bases whose digit k in this row is +-size."""
    window, windows, rows, half = digits.window, digits.windows, matrix.rows, 1 << (digits.window - 1)
    group = windows * rows * 2
    starts, cols = _sorted(matrix, digits, tables=False, keys=half * group)
    buckets = ring.product(bases, cols, starts)
    # The sum of size * bucket by running sums from the largest size down.
    running = buckets[(half - 1) * group :].copy()
    weighted = running.copy()
    for size in range(half - 1, 0, -1):
        ring.multiply_into(running, buckets[(size - 1) * group : size * group])
        ring.multiply_into(weighted, running)
    total = weighted[(windows - 1) * rows * 2 :]
    for k in range(windows - 2, -1, -1):
        total = ring.mul(ring.square(total, window), weighted[k * rows * 2 : (k + 1) * rows * 2])
    plus = np.ascontiguousarray(total[0::2])
    return ring.mul(plus, ring.invert(np.ascontiguousarray(total[1::2]))) if digits.signed else plus
