"""One test body over every backend of the ring, against Python's integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.entropy import OsRandom
from accel.kernels import BadInput, Ring128, SparseMatrix, Uints
from accel.probe import probe
from accel.registry import BACKENDS

EDGES = [0, 1, -1, 2**63, 2**64 - 1, 2**64, -(2**64), 2**127 - 1, -(2**127), 2**100 + 7, -(2**100) - 7]
INTEGERS = st.one_of(st.sampled_from(EDGES), st.integers(-(2**127), 2**127 - 1))


def signed(value: int) -> int:
    return (value + 2**127) % 2**128 - 2**127


@pytest.fixture(params=[b.name for b in BACKENDS["ring128"]])
def ring(request: pytest.FixtureRequest) -> Ring128:
    backend = next(b for b in BACKENDS["ring128"] if b.name == request.param)
    reason = backend.refuses(probe())
    if reason:
        pytest.skip(reason)
    made: Ring128 = backend.make()
    return made


RINGS = [b.make() for b in BACKENDS["ring128"] if b.refuses(probe()) is None]


@pytest.mark.parametrize("ring", RINGS, ids=lambda r: r.name)
@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(INTEGERS, INTEGERS), min_size=1, max_size=9), factor=INTEGERS, bits=st.integers(0, 63))
def test_element_wise_operations(ring: Ring128, pairs: list[tuple[int, int]], factor: int, bits: int) -> None:
    x, y = ring.from_ints([a for a, _ in pairs]), ring.from_ints([b for _, b in pairs])
    assert ring.to_ints(ring.add(x, y)) == [signed(a + b) for a, b in pairs]
    assert ring.to_ints(ring.sub(x, y)) == [signed(a - b) for a, b in pairs]
    assert ring.to_ints(ring.mul(x, y)) == [signed(a * b) for a, b in pairs]
    assert ring.to_ints(ring.neg(x)) == [signed(-a) for a, _ in pairs]
    assert ring.to_ints(ring.scale(x, factor)) == [signed(a * factor) for a, _ in pairs]
    assert ring.to_ints(ring.truncate(x, bits, first=True)) == [a >> bits for a, _ in pairs]
    assert ring.to_ints(ring.truncate(x, bits, first=False)) == [signed(-(signed(-a) >> bits)) for a, _ in pairs]
    assert ring.to_ints(ring.from_bytes(memoryview(ring.to_bytes(x)), len(pairs))) == [a for a, _ in pairs]


@pytest.mark.parametrize("ring", RINGS, ids=lambda r: r.name)
@settings(max_examples=60, deadline=None)
@given(value=st.integers(-(2**70), 2**70), mask=st.integers(-(2**127) + 2**80, 2**127 - 2**80), bits=st.integers(0, 60))
def test_truncated_shares_differ_by_less_than_one_unit(ring: Ring128, value: int, mask: int, bits: int) -> None:
    first, second = ring.from_ints([value - mask]), ring.from_ints([mask])
    total = ring.add(ring.truncate(first, bits, first=True), ring.truncate(second, bits, first=False))
    assert abs(ring.to_ints(total)[0] * 2**bits - value) < 2**bits


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 70), (64, 9), (4, 0)])
@pytest.mark.parametrize("size", [1, 2**22, 2**39])
def test_matvec(ring: Ring128, shape: tuple[int, int], size: int) -> None:
    rng = np.random.default_rng(shape[0])
    dense = rng.integers(-size, size + 1, shape) * (rng.random(shape) < 0.6)
    dense[1:2] = 0
    row, col = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=shape[0]))]).astype(np.int64)
    matrix = SparseMatrix(*shape, indptr, col.astype(np.int64), dense[row, col].astype(np.int64))
    for way, table in ((matrix, dense), (matrix.transpose(), dense.T)):
        v = ring.random(way.cols, OsRandom())
        ints = ring.to_ints(v)
        wanted = [signed(sum(int(x) * n for x, n in zip(line, ints, strict=True))) for line in table]
        assert ring.to_ints(ring.matvec(way, v)) == wanted
    back = matrix.transpose().transpose()
    assert np.array_equal(back.indptr, matrix.indptr)
    assert np.array_equal(back.values, matrix.values)


def test_aliasing_and_broadcasting(ring: Ring128) -> None:
    x = ring.from_ints(EDGES)
    before = x.copy()
    assert ring.to_ints(ring.sub(x, x)) == [0] * len(EDGES)
    assert ring.to_ints(ring.add(x, x[1])) == [signed(e + 1) for e in EDGES]
    assert np.array_equal(x, before)
    grid = x[:10].reshape(5, 2, 2)
    assert ring.mul(grid, grid).shape == (5, 2, 2)


def test_fixed_point(ring: Ring128) -> None:
    values = np.array([0.0, 1.5, -1.5, 2.0**-25, -(2.0**30), 0.3])
    fixed = ring.from_floats(values, 24)
    assert ring.to_ints(fixed) == [0, 3 << 23, -3 << 23, 0, -(1 << 54), round(0.3 * 2**24)]
    assert np.abs(ring.to_floats(fixed, 24) - values).max() <= 2.0**-25
    for bad in ([np.nan], [np.inf], [2.0**40]):
        with pytest.raises(BadInput):
            ring.from_floats(np.array(bad), 24)


def test_bad_arguments(ring: Ring128) -> None:
    good = ring.from_ints([1, 2, 3])
    bad: list[Uints] = [good.astype(np.int64), good[:, :1], good.reshape(2, 3)]  # type: ignore[list-item]
    for array in bad:
        with pytest.raises(BadInput):
            ring.add(array, array)
    with pytest.raises(BadInput):
        ring.scale(good, 2**127)
    with pytest.raises(BadInput):
        ring.truncate(good, 64, first=True)
    with pytest.raises(BadInput):
        ring.from_bytes(memoryview(bytes(31)), 2)


def test_sparse_matrices_are_checked() -> None:
    def ints(*values: int) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    SparseMatrix(2, 2, ints(0, 1, 2), ints(0, 1), ints(5, 6))
    bad = [
        (-1, 2, ints(0), ints(), ints()),
        (2, 2, ints(0, 1), ints(0), ints(1)),
        (2, 2, ints(0, 2, 1), ints(0), ints(1)),
        (2, 2, ints(0, 1, 3), ints(0, 1), ints(5, 6)),
        (2, 2, ints(0, 1, 2), ints(0, 2), ints(5, 6)),
        (2, 2, ints(0, 1, 2), ints(0, -1), ints(5, 6)),
        (2, 2, ints(0, 2, 2), ints(1, 1), ints(5, 6)),
        (2, 2, ints(0, 1, 2), ints(0, 1), ints(5, 1 << 40)),
        (2, 2, ints(0, 1, 2), ints(0, 1), ints(-(1 << 40), 5)),
        (1, 1, ints(0, 1), ints(0), ints(-(1 << 63))),
        (2, 2, ints(0, 1, 2).astype(np.int32), ints(0, 1), ints(5, 6)),
    ]
    for parts in bad:
        with pytest.raises(BadInput):
            SparseMatrix(*parts)  # type: ignore[arg-type]
