"""Batches of modular powers over every backend, against Python's pow."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.kernels import BadInput, ModularPower, SparseMatrix, Uints
from accel.probe import probe
from accel.registry import BACKENDS

MAKERS = {backend.name: backend.make for backend in BACKENDS["modpow"] if backend.refuses(probe()) is None}


@pytest.fixture(params=sorted(MAKERS))
def kernel(request: pytest.FixtureRequest) -> ModularPower:
    made: ModularPower = MAKERS[request.param]()
    return made


def plain(values: list[int], limbs: int) -> Uints:
    data = b"".join(value.to_bytes(8 * limbs, "little") for value in values)
    return np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(len(values), limbs)


def numbers(batch: Uints) -> list[int]:
    return [int.from_bytes(row.tobytes(), "little") for row in batch]


@pytest.mark.parametrize("bits", [2, 64, 1024, 2048, 4096, 8192])
def test_powers_and_products(kernel: ModularPower, bits: int) -> None:
    rng = random.Random(bits)
    n = rng.getrandbits(bits) | 1 | 1 << (bits - 1)
    limbs = (bits + 63) // 64
    bases = [0, 1, n - 1, n // 2, *(rng.randrange(n) for _ in range(5))]
    exponents = [0, 1, 2, (1 << 128) - 1, *(rng.getrandbits(128) for _ in range(5))]
    for count in (0, 1, 8, 9):
        some, powers = bases[:count], exponents[:count]
        x, e = plain(some, limbs), plain(powers, 2)
        got = kernel.power(n, x, e)
        assert got.shape == (count, limbs)
        assert numbers(got) == [pow(b, k, n) for b, k in zip(some, powers, strict=True)]
        for secret in (True, False):
            got = kernel.power(n, x, plain([exponents[4]], 3), secret=secret)
            assert numbers(got) == [pow(b, exponents[4], n) for b in some]
        assert numbers(kernel.multiply(n, x, x[::-1].copy())) == [
            a * b % n for a, b in zip(some, some[::-1], strict=True)
        ]


@pytest.mark.parametrize("bits", [2, 64, 1024, 8192])
def test_batches_that_stay_in_their_own_form(kernel: ModularPower, bits: int) -> None:
    rng = random.Random(bits)
    n = rng.getrandbits(bits) | 1 | 1 << (bits - 1)
    limbs = (bits + 63) // 64
    ring = kernel.ring(n)
    assert ring.modulus == n
    for count in (0, 1, 8, 9):
        a = ([0, 1, n - 1] + [rng.randrange(n) for _ in range(6)])[:count]
        x = ring.load(plain(a, limbs))
        assert len(x) == count
        assert numbers(ring.dump(ring.multiply(x, ring.square(x)))) == [pow(v, 3, n) for v in a]
        assert numbers(ring.dump(ring.square(x, 3))) == [pow(v, 8, n) for v in a]
        assert numbers(ring.dump(ring.multiply(x, ring.load(plain([n - 1], limbs))))) == [-v % n for v in a]
        for secret in (True, False):
            assert numbers(ring.dump(ring.power(x, plain([77], 1), secret=secret))) == [pow(v, 77, n) for v in a]
        units = [v for v in a if math.gcd(v, n) == 1]
        assert numbers(ring.dump(ring.invert(ring.load(plain(units, limbs))))) == [pow(v, -1, n) for v in units]
        assert numbers(kernel.invert(n, plain(units, limbs))) == [pow(v, -1, n) for v in units]
        assert numbers(kernel.square(n, plain(a, limbs))) == [v * v % n for v in a]
        index, starts = np.arange(count, dtype=np.int64), np.array([0, 0, count], np.int64)
        assert numbers(ring.dump(ring.products(x, index, starts))) == [1 % n, math.prod(a) % n]
    other = kernel.ring(n + 2 if bits < 8192 else n - 2)
    two = ring.load(plain([1, 1], limbs))
    for bad in (
        lambda: ring.load(plain([n], limbs + 1)),
        lambda: ring.invert(ring.load(plain([0], limbs))),
        lambda: ring.square(two, 0),
        lambda: ring.multiply(two, ring.load(plain([1, 1, 1], limbs))),
        lambda: ring.power(two, plain([1, 1, 1], 1)),
        lambda: ring.products(two, np.array([2], np.int64), np.array([0, 1], np.int64)),
        lambda: other.dump(two),
        lambda: kernel.ring(n + 1),
    ):
        with pytest.raises(BadInput):
            bad()


@pytest.mark.parametrize("bits", [2, 64, 1024])
def test_matvec(kernel: ModularPower, bits: int) -> None:
    """Row i is the product of a[j]^matrix[i, j]: empty rows, one long row, entries of both signs and of 40 bits."""
    rng = random.Random(bits)
    n = rng.getrandbits(bits) | 1 | 1 << (bits - 1)
    units = [v for v in [1, n - 1, *(rng.randrange(1, n) for _ in range(130))] if math.gcd(v, n) == 1]
    a, ring = units[:70], kernel.ring(n)
    a += [1] * (70 - len(a))
    x = ring.load(plain(a, (bits + 63) // 64))
    edges = [1, -1, (1 << 40) - 1, 1 - (1 << 40), 15, 16, -17]
    rows = [[(j, rng.choice(edges)) for j in range(70)], [], [(3, 1)], [(0, 0), (69, -5)], [(7, 3 << 38)]]
    for signed in (True, False):
        entries = [[(j, v if signed else abs(v)) for j, v in row] for row in rows]
        starts = np.cumsum([0, *map(len, entries)])
        cols, values = (np.array([entry[i] for row in entries for entry in row], np.int64) for i in (0, 1))
        matrix = SparseMatrix(len(entries), 70, starts, cols, values)
        wanted = [math.prod(pow(a[j], v, n) for j, v in row) % n for row in entries]
        assert numbers(ring.dump(ring.matvec(matrix, x))) == wanted
    nothing = np.zeros(0, np.int64)
    empty = SparseMatrix(2, 70, np.zeros(3, np.int64), nothing, nothing)
    assert numbers(ring.dump(ring.matvec(empty, x))) == [1, 1]
    assert len(ring.matvec(SparseMatrix(0, 70, np.zeros(1, np.int64), nothing, nothing), x)) == 0
    with pytest.raises(BadInput):
        ring.matvec(empty, ring.load(plain([1], 1)))
    minus = SparseMatrix(1, 1, np.array([0, 1]), np.array([0]), np.array([-1]))
    with pytest.raises(BadInput):
        ring.matvec(minus, ring.load(plain([0], 1)))


@given(
    n=st.integers(1, 1 << 300).map(lambda v: 2 * v + 1),
    values=st.lists(st.tuples(st.integers(0, 1 << 310), st.integers(0, (1 << 64) - 1)), min_size=1, max_size=17),
)
@settings(max_examples=60, deadline=None)
def test_all_backends_agree(n: int, values: list[tuple[int, int]]) -> None:
    limbs = (n.bit_length() + 63) // 64
    bases = [base % n for base, _ in values]
    x, e = plain(bases, limbs + 1), plain([power for _, power in values], 1)
    wanted = [pow(b, k, n) for b, (_, k) in zip(bases, values, strict=True)]
    for make in MAKERS.values():
        assert numbers(make().power(n, x, e)) == wanted


def test_bad_arguments_are_refused(kernel: ModularPower) -> None:
    one = plain([1], 1)
    for modulus, bases, exponents in (
        (10, one, one),
        (1, one, one),
        ((1 << 8192) + 1, one, one),
        (7, plain([7], 1), one),
        (7, plain([1 << 64], 2), one),
        (7, one, plain([1, 1], 1)),
        (7, plain([1, 1, 1], 1), plain([1, 1], 1)),
        (7, one[0], one),
        (7, one.astype(np.int64), one),
        (7, one, one.astype(np.int64)),
    ):
        with pytest.raises(BadInput):
            kernel.power(modulus, bases, exponents)
    with pytest.raises(BadInput):
        kernel.multiply(7, one, plain([1, 1], 1))
    with pytest.raises(BadInput):
        kernel.multiply(7, one, plain([8], 1))
