"""Dense ring products over every backend against Python's integers; shares, Beaver products and truncation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.entropy import OsRandom
from accel.kernels import BadInput, RingMatrices, Uints
from accel.probe import probe
from accel.registry import BACKENDS

KERNELS = [
    pytest.param(backend.make, id=backend.name)
    for backend in BACKENDS["ringmatrices"]
    if backend.refuses(probe()) is None
]
MADE = [parameter.values[0]() for parameter in KERNELS]
RANDOM = OsRandom()
EDGES = [0, 1, 2**63, 2**64 - 1, 2**64, 2**127, 2**128 - 1]


@pytest.fixture(params=KERNELS)
def ring(request: pytest.FixtureRequest) -> RingMatrices:
    made: RingMatrices = request.param()
    return made


def matrix(values: np.ndarray, words: int) -> Uints:
    """From an object array of integers of any sign."""
    data = b"".join(int(v % (1 << 64 * words)).to_bytes(8 * words, "little") for v in values.ravel())
    flat = np.frombuffer(data, np.uint64).copy()
    return flat.reshape(values.shape if words == 1 else (*values.shape, 2))


def integers(a: Uints) -> np.ndarray:
    if a.ndim == 2:
        return a.astype(object)
    return a[..., 0].astype(object) + (a[..., 1].astype(object) << 64)


def some(rows: int, cols: int, words: int, seed: int) -> Uints:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**64, (rows, cols, words), np.uint64)
    edges = matrix(np.array([EDGES], dtype=object), words).reshape(-1, words)
    where = rng.random((rows, cols)) < 0.3
    values[where] = edges[rng.integers(0, len(edges), int(where.sum()))]
    return values[..., 0].copy() if words == 1 else values


def check(ring: RingMatrices, n: int, k: int, m: int, words: int) -> None:
    modulus = 1 << 64 * words
    a = some(n, k, words, 1)
    for transposed in (False, True):
        b = some(n if transposed else k, m, words, 2)
        left = integers(a).T if transposed else integers(a)
        shape = (left.shape[0], m)
        wanted = left.dot(integers(b)) % modulus if 0 not in (*left.shape, m) else np.zeros(shape, object)
        got = ring.product(a, b, transposed=transposed)
        assert got.shape[:2] == shape
        assert (integers(got) == wanted).all()
        onto = some(*shape, words, 3)
        before = integers(onto)
        assert ring.product(a, b, transposed=transposed, onto=onto) is onto
        assert (integers(onto) == (before + wanted) % modulus).all()


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize(
    "shape",
    [(0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (7, 8, 1), (8, 9, 1), (9, 7, 3), (17, 40, 1), (70, 65, 2), (9, 130, 8),
     (5, 3, 33), (65, 16, 9)],
)  # fmt: skip
def test_both_products(ring: RingMatrices, shape: tuple[int, int, int], words: int) -> None:
    check(ring, *shape, words)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, len(MADE) - 1), st.integers(0, 20), st.integers(0, 20), st.integers(0, 12), st.integers(1, 2))
def test_products_of_any_shape(which: int, n: int, k: int, m: int, words: int) -> None:
    check(MADE[which], n, k, m, words)


@pytest.mark.parametrize("words", [1, 2])
def test_blocks_of_rows_and_strides(ring: RingMatrices, words: int) -> None:
    a, w, d = some(50, 11, words, 1), some(11, 1, words, 2), some(50, 1, words, 3)
    whole, gradient = ring.product(a, w), ring.product(a, d, transposed=True)
    rows, onto = [], np.zeros_like(gradient)
    for start, end in itertools.pairwise([0, 1, 20, 20, 50]):
        rows.append(ring.product(a[start:end], w))
        ring.product(a[start:end], d[start:end], transposed=True, onto=onto)
    assert np.array_equal(np.concatenate(rows), whole)
    assert np.array_equal(onto, gradient)
    assert np.array_equal(ring.product(a[::2], w), ring.product(a[::2].copy(), w))
    assert np.array_equal(ring.product(np.swapaxes(a, 0, 1), d), gradient)


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_beaver_product_between_two_parties(ring: RingMatrices, words: int, transposed: bool) -> None:
    x, y = some(9, 5, words, 4), some(9 if transposed else 5, 3, words, 5)
    a, b = some(9, 5, words, 6), some(*y.shape[:2], words, 7)
    c = ring.product(a, b, transposed=transposed)
    shares = [ring.share(v, RANDOM) for v in (x, y, a, b, c)]
    for whole, (first, second) in zip((x, y, a, b, c), shares, strict=True):
        assert np.array_equal(ring.combine(first, second), whole)
        assert not np.array_equal(first, whole)
    xs, ys, *triple = shares
    left = ring.combine(*(ring.difference(xs[i], triple[0][i]) for i in (0, 1)))
    right = ring.combine(*(ring.difference(ys[i], triple[1][i]) for i in (0, 1)))
    parts = [
        ring.beaver(
            (triple[0][i], triple[1][i], triple[2][i]), left, right, first=i == 0, transposed=transposed
        )
        for i in (0, 1)
    ]  # fmt: skip
    assert np.array_equal(ring.combine(*parts), ring.product(x, y, transposed=transposed))


@pytest.mark.parametrize("words", [1, 2])
def test_truncation_is_wrong_as_seldom_as_stated(ring: RingMatrices, words: int) -> None:
    """|v| < 2^k: wrong by the ring's size over 2^bits, with a probability of at most 2^(k+1-64): 1/256 at k = 55."""
    count, bits, k = 20_000, 13, 55
    rng = np.random.default_rng(9)
    values = rng.integers(-(1 << k) + 1, 1 << k, count)
    v = matrix(values.astype(object).reshape(-1, 1), words)
    first, second = ring.share(v, RANDOM)
    total = ring.combine(ring.truncate(first, bits, first=True), ring.truncate(second, bits, first=False))
    half = 1 << (64 * words - 1)
    got = (integers(total)[:, 0] + half) % (2 * half) - half
    off = np.array([abs(int(g) * 2**bits - int(x)) for g, x in zip(got, values, strict=True)], dtype=object)
    wrong = int((off >= 1 << bits).sum())
    assert wrong <= 3 * count / 256 if words == 1 else wrong == 0
    if words == 1:
        assert (off[off >= 1 << bits] > 1 << 63).all()


def test_truncation_by_itself(ring: RingMatrices) -> None:
    v = matrix(np.array([[-5, 5, 4, 0, -4]], dtype=object), 1)
    assert ring.truncate(v, 1, first=True).view(np.int64).tolist() == [[-3, 2, 2, 0, -2]]
    assert ring.truncate(v, 1, first=False).view(np.int64).tolist() == [[-2, 3, 2, 0, -2]]
    assert np.array_equal(ring.truncate(v, 0, first=False), v)


def test_refusals(ring: RingMatrices) -> None:
    a, b, c = some(3, 4, 1, 1), some(4, 2, 1, 2), some(3, 4, 2, 1)
    good = np.zeros((3, 2), np.uint64)
    tries = [
        lambda: ring.product(a, a),
        lambda: ring.product(a, b, transposed=True),
        lambda: ring.product(a, c),
        lambda: ring.product(a[0], b),
        lambda: ring.product(a.astype(np.int64), b),
        lambda: ring.product(a, b, onto=np.zeros((2, 2), np.uint64)),
        lambda: ring.product(a, b, onto=np.zeros((3, 4), np.uint64)[:, ::2]),
        lambda: ring.product(a, b, onto=np.zeros((3, 2))),
        lambda: ring.product(a[:2, :2], b[:2], onto=b[:2]),
        lambda: ring.share(c[..., :1], RANDOM),
        lambda: ring.combine(a, b),
        lambda: ring.difference(a, c),
        lambda: ring.truncate(a, 64, first=True),
        lambda: ring.truncate(a, -1, first=True),
        lambda: ring.beaver((a, b, a), a, b, first=True),
        lambda: ring.beaver((a, b, good), b, b, first=True),
    ]
    for number, attempt in enumerate(tries):
        with pytest.raises(BadInput):  # noqa: PT012  # the second statement tells which case
            attempt()
            pytest.fail(f"case {number} was accepted")


def test_the_binding_checks_for_itself() -> None:
    native = pytest.importorskip("accel._native")
    one = np.zeros(1, np.uint64)
    good = ("portable", 1, one, one.copy(), one.copy(), 1, 1, 1, False, False, 1)
    native.ring_product(*good)
    for place, value in (
        (0, "nonesuch"),
        (1, 3),
        (1, 2),
        (2, np.zeros(2, np.uint64)),
        (5, 2),
        (5, -1),
        (6, 1 << 40),
        (7, 0),
        (10, 0),
    ):
        with pytest.raises(ValueError):
            native.ring_product(*good[:place], value, *good[place + 1 :])
