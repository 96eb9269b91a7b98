"""A sparse integer matrix times a vector of residues, in the exponent. Depends in time on the matrix, which is its
owner's; the residues are ciphertexts.

Two ways, the cheaper by count of multiplications: tables of the multiples of every base (Straus), when a base serves
many rows; buckets of equal digits (Pippenger), when a row has many entries. Negative digits have buckets of their own,
or take the inverses of the bases where there are fewer of these than of such buckets.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from accel import _native
from accel.backends.native.residues import ResidueRing
from accel.kernels import Ints, SparseMatrix, Uints

_SAMPLE: Final = 1 << 10
_WINDOWS: Final = range(14, 1, -1)
_TASKS: Final = 128
"""Rows of buckets for each thread, of which eight are worked on at once: with fewer the last ones leave lanes idle."""
_SIZES: Final = 16
"""A row of buckets is not cut shorter."""


def matvec(ring: ResidueRing, matrix: SparseMatrix, bases: Uints) -> Uints:
    """Row i: the product over j of bases[j]^matrix[i, j]."""
    if not matrix.rows or not matrix.values.any():
        return np.repeat(ring.one, matrix.rows, axis=0)
    plan = _plan(matrix)
    return (_by_tables if plan.tables else _by_buckets)(ring, matrix, bases, plan)


@dataclass(frozen=True, slots=True)
class Plan:
    """Digits of `window` bits, at most `windows` an entry. inverses: those of the bases serve for negative digits, of
    which there are none unless `signed`; always so with tables.
    """

    window: int
    windows: int
    signed: bool
    tables: bool
    inverses: bool

    @property
    def half(self) -> int:
        """The largest size of a digit."""
        return 1 << (self.window - 1)


def _plan(matrix: SparseMatrix) -> Plan:
    """The fewest multiplications, judged by a sample of the entries."""
    values = matrix.values
    least, largest = int(values.min()), int(values.max())
    sample = np.ascontiguousarray(values[:: -(-len(values) // _SAMPLE)])
    best: tuple[float, Plan] | None = None
    for window in _WINDOWS:
        half = 1 << (window - 1)
        windows, top = digits_of(max(largest, -least), window)
        signed = least < 0 or largest > half
        work = _native.count_digits(sample, window)[0] * len(values) / len(sample)
        if best is not None and work >= best[0]:
            break  # shorter windows have more digits
        # A size costs a multiplication whether its bucket is filled or not, up to the largest.
        sizes = matrix.rows * ((windows - 1) * half + top)
        signs = 1 + signed
        inverses = 3 * matrix.cols * signed
        table = matrix.cols * signs * windows * (half + window)
        for cost, tables, inverted in (
            (work + table + inverses, True, signed),
            (work + sizes + inverses, False, signed),
            (work + signs * sizes, False, False),
        ):
            if best is None or cost < best[0]:
                best = (cost, Plan(window, windows, signed, tables, inverted))
    assert best is not None  # noqa: S101  # there are windows to try
    return best[1]


def digits_of(size: int, window: int) -> tuple[int, int]:
    """How many digits of at most 2^(window - 1) in absolute value the number `size` >= 0 has, and its top one. No
    smaller number has more, or a larger one there.
    """
    count, top, half = 0, 0, 1 << (window - 1)
    while size:
        digit = size & (2 * half - 1)
        digit -= 2 * half if digit > half else 0
        size = (size - digit) >> window
        count, top = count + 1, digit
    return count, top


def _sorted(ring: ResidueRing, matrix: SparseMatrix, plan: Plan, *, signs: int, keys: int) -> tuple[Ints, Ints]:
    """Where each key's terms start, and the terms, as accel/csrc/module.c has them."""
    starts, terms = np.empty(keys + 1, np.int64), np.empty(plan.windows * len(matrix.values), np.int64)
    indptr, indices, values = (np.ascontiguousarray(a) for a in (matrix.indptr, matrix.indices, matrix.values))
    tables = 2 * matrix.cols if plan.tables else 0
    found = _native.sort_digits(
        indptr, indices, values, plan.window, plan.windows, signs, tables, starts, terms, ring.threads
    )
    return starts, terms[:found]


def _with_inverses(ring: ResidueRing, bases: Uints, plan: Plan) -> Uints:
    """Rows 2 j and 2 j + 1: base j and its inverse, if that is needed."""
    other = ring.invert(bases) if plan.signed else bases
    return np.stack([bases, other], axis=1).reshape(-1, bases.shape[1])


def _by_tables(ring: ResidueRing, matrix: SparseMatrix, bases: Uints, plan: Plan) -> Uints:
    """Entry (size - 1, k, base) of the table is base^(size * 2^(window * k))."""
    powers = [_with_inverses(ring, bases, plan)]
    for _ in range(plan.windows - 1):
        powers.append(ring.square(powers[-1], plan.window))
    group = plan.windows * 2 * matrix.cols
    table = ring.empty(plan.half * group)
    table[:group] = np.concatenate(powers)
    known = 1
    while known < plan.half:
        done = known * group
        largest = np.tile(table[done - group : done], (known, 1))
        ring.multiply_into(table[done : 2 * done], table[:done], largest)
        known *= 2
    starts, terms = _sorted(ring, matrix, plan, signs=1, keys=matrix.rows)
    return ring.product(table, terms, starts)


def _by_buckets(ring: ResidueRing, matrix: SparseMatrix, bases: Uints, plan: Plan) -> Uints:
    """Bucket (k, row, sign, size) collects the bases whose digit k in this row is +-size; inverses need no sign."""
    signs = 2 if plan.signed and not plan.inverses else 1
    group = matrix.rows * signs
    starts, terms = _sorted(ring, matrix, plan, signs=signs, keys=plan.windows * group * plan.half)
    src = _with_inverses(ring, bases, plan) if signs == 1 else bases
    weighted = _weigh(ring, src, terms, starts, plan.half)
    total = weighted[(plan.windows - 1) * group :]
    for k in range(plan.windows - 2, -1, -1):
        total = ring.mul(ring.square(total, plan.window), weighted[k * group : (k + 1) * group])
    if signs == 1:
        return total
    return ring.mul(np.ascontiguousarray(total[0::2]), ring.invert(np.ascontiguousarray(total[1::2])))


def _weigh(ring: ResidueRing, src: Uints, idx: Ints, starts: Ints, sizes: int) -> Uints:
    """For every `sizes` segments (a power of two of them), the product of segment s, from 1, to the power s."""
    tasks, parts = (len(starts) - 1) // sizes, 1
    while tasks * parts < _TASKS * ring.threads and sizes >= 2 * parts * _SIZES:
        parts *= 2
    weighted, plain = ring.buckets(src, idx, starts, sizes // parts)
    if parts == 1:
        return weighted
    # The sizes of part c lie above c * (sizes / parts): its plain product is due that many times more.
    everything = np.arange(tasks * parts, dtype=np.int64)
    joined = ring.product(weighted, everything, np.arange(0, tasks * parts + 1, parts, dtype=np.int64))
    late = everything.reshape(tasks, parts)[:, 1:].ravel()
    more, _ = ring.buckets(plain, late, np.arange(len(late) + 1, dtype=np.int64), parts - 1)
    return ring.mul(joined, ring.square(more, (sizes // parts).bit_length() - 1))
