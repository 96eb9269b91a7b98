"""A matrix of one side times a secret vector of the other, into shares."""

import builtins

import numpy as np
import pytest

from accel.backends.reference import NumpyRing128, OkamotoUchiyama
from accel.entropy import OsRandom
from accel.kernels import SparseMatrix
from gateway.errors import CallerError, ProtocolViolation
from gateway.operators.hematmul.shares import (
    STATISTICAL_BITS,
    Bounds,
    encrypt_share,
    load_share,
    mask,
    open_share,
    require_room,
)
from tests.twoparty.transparent import Transparent, integers

RING = NumpyRing128()
RANDOM = OsRandom()


class Constant:
    """A RandomSource of one byte, over and over."""

    def __init__(self, byte: int) -> None:
        self._byte = builtins.bytes([byte])

    def bytes(self, count: int, /) -> builtins.bytes:
        return self._byte * count


def matrix(dense: list[list[int]]) -> SparseMatrix:
    array = np.array(dense, dtype=np.int64)
    row, col = np.nonzero(array)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(array)))]).astype(np.int64)
    return SparseMatrix(array.shape[0], array.shape[1], indptr, col.astype(np.int64), array[row, col])


def test_the_shares_add_up_to_the_product() -> None:
    he = OkamotoUchiyama(insecure_min_bits=1024)
    secret = he.generate(1024, RANDOM)
    public = he.load_public(memoryview(secret.public.to_bytes()))
    X = matrix([[1, -5, 0], [0, 0, 0], [-(1 << 21), 1 << 21, -1], [7, 0, 1 << 16]])
    v = RING.from_ints([-1, 1 << 127, 12345])
    bounds = Bounds.of_product(entry_bits=22, terms=3)
    received = load_share(public, memoryview(encrypt_share(secret, v, RANDOM)), 3)
    left, message = mask(public, public.matvec(X, received), bounds, RING, RANDOM)
    right = open_share(secret, memoryview(message), 4, bounds)
    assert RING.to_ints(RING.add(left, right)) == RING.to_ints(RING.matvec(X, v))


@pytest.mark.parametrize("scheme", ["Paillier", "TextbookPaillier"])
def test_the_owner_encrypts_by_its_key_pair_and_not_by_the_public_key(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = pytest.importorskip("accel.backends.native", reason="the native kernels are not built here")
    secret = getattr(native, scheme)("portable", insecure_min_bits=1024).generate(1024, RANDOM)

    def slow(*_: object) -> None:
        raise AssertionError("encrypted modulo n^2")

    monkeypatch.setattr(type(secret.public), "encrypt", slow)
    share = RING.from_ints([5, 1 << 127])
    received = load_share(secret.public, memoryview(encrypt_share(secret, share, RANDOM)), 2)
    assert RING.to_ints(np.ascontiguousarray(secret.decrypt(received)[:, :2])) == RING.to_ints(share)


@pytest.mark.parametrize(
    ("entry_bits", "terms", "gain"), [(22, 1, 22), (22, 2, 23), (22, 3, 24), (22, 560, 32), (0, 1, 0)]
)
def test_bounds_of_a_product(entry_bits: int, terms: int, gain: int) -> None:
    bounds = Bounds.of_product(entry_bits=entry_bits, terms=terms)
    assert bounds == Bounds(product_bits=128 + gain, gain_bits=gain)
    assert bounds.plaintext_bits == 128 + gain + STATISTICAL_BITS + 1


@pytest.mark.parametrize("product_bits", [128, 150, 191, 192, 257, 319, 320])
@pytest.mark.parametrize("byte", [0, 0xFF])
def test_masks_fill_their_range_exactly(product_bits: int, byte: int) -> None:
    he = Transparent()
    public = he.generate(2048, RANDOM).public
    bounds = Bounds(product_bits, 10)
    zero = public.encrypt(np.zeros((2, 1), np.uint64), RANDOM)
    share, message = mask(public, zero, bounds, RING, Constant(byte))
    top = (1 << product_bits + STATISTICAL_BITS) - 1 if byte else 0
    assert [m.mask for m in he.masked] == [(1 << product_bits) + top] * 2
    assert [v % (1 << 128) for v in RING.to_ints(share)] == [-m.mask % (1 << 128) for m in he.masked]
    assert he.masked[0].noise_bits == public.noise_bits + 10 + STATISTICAL_BITS
    opened = open_share(he.generate(2048, RANDOM), memoryview(message), 2, bounds)
    assert integers(opened) == [m.mask % (1 << 128) for m in he.masked]


def test_a_value_outside_the_bounds_is_refused() -> None:
    he = Transparent()
    secret = he.generate(2048, RANDOM)
    bounds = Bounds(150, 22)
    for value, good in (((1 << 215) - 1, True), (1 << 215, False), (-1, False)):
        message = secret.public.dump(type(secret.public.encrypt(np.zeros((1, 1), np.uint64), RANDOM))([(value, 1)]))
        if good:
            open_share(secret, memoryview(message), 1, bounds)
        else:
            with pytest.raises(ProtocolViolation, match="bounds"):
                open_share(secret, memoryview(message), 1, bounds)


def test_a_key_without_room_is_refused() -> None:
    public = Transparent().generate(2048, RANDOM).public
    require_room(public, Bounds(public.plaintext_bits - 65, 1))
    with pytest.raises(CallerError, match="too little room"):
        require_room(public, Bounds(public.plaintext_bits - 64, 1))
