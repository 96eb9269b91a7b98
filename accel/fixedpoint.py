"""Encrypted signed fixed-point numbers: batches of ciphertexts with the exponent and the bound of what they hold.

The value of a number is integer * 2^exponent. The bound is what its absolute integer can at most be by the operations
that made it, known without the key; an operation that could leave the plaintext space raises `Overflow` before any
work, so that a sum never wraps unseen. Exponents never change by themselves: numbers of different exponents are
refused, and `rescale` brings them together.

Negative integers are integers below zero in the group (a power of the message's base with a negative exponent), so for
Paillier they are residues n - |x| as in other libraries. To encrypt one in constant time, 2^L is added before and taken
away after, L = plaintext_bits - 1; the owner adds it again before it decrypts.

A result that goes back to the owner must be masked: `masked` draws noise that drowns what its history left in it.
"""

import builtins
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from accel import linear
from accel.kernels import (
    BadInput,
    Ciphertexts,
    Floats,
    HePublicKey,
    HeSecretKey,
    Ints,
    RandomSource,
    SparseMatrix,
    check_bytes,
)

_SMALL: Final = 62
"""Bits of an integer that is encoded."""
_ENTRY: Final = 40
"""Bits of an entry of a plain matrix (accel.kernels.SparseMatrix)."""
_FORM: Final = 1
_HEAD: Final = 40
_STATISTICAL: Final = 80


class Overflow(BadInput):
    """A number does not fit, or its integer might not fit the plaintext space after the operation."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class PlainMatrix:
    """A quantised plain matrix: entry = integer * 2^exponent. row_sum, col_sum: largest sums of absolute integers."""

    entries: SparseMatrix
    exponent: int
    row_sum: int
    col_sum: int

    def __repr__(self) -> str:
        return f"PlainMatrix({self.entries.rows}x{self.entries.cols}, 2^{self.exponent})"

    def transpose(self) -> "PlainMatrix":
        return PlainMatrix(self.entries.transpose(), self.exponent, self.col_sum, self.row_sum)


def quantise(values: Floats, exponent: int) -> PlainMatrix:
    """round(value / 2^exponent) of a float array of shape (rows, cols); Overflow beyond 40 bits or if not finite."""
    integers = _integers(values, exponent, _ENTRY)
    if integers.ndim != 2:
        raise BadInput("a plain matrix has two axes")
    sizes = np.abs(integers).astype(object)
    rows, cols = (max((int(v) for v in sizes.sum(axis=axis)), default=0) for axis in (1, 0))
    return PlainMatrix(linear.dense(integers), exponent, rows, cols)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Numbers:
    """A batch of encrypted numbers under one key. noise: a bound of its noise's absolute exponent."""

    key: HePublicKey
    batch: Ciphertexts
    exponent: int
    bound: int
    noise: int

    def __len__(self) -> int:
        return len(self.batch)

    def __repr__(self) -> str:
        return f"Numbers({len(self.batch)}, 2^{self.exponent}, {self.bound.bit_length()} bits)"

    def negated(self) -> "Numbers":
        return replace(self, batch=self.key.negate(self.batch))

    def add(self, other: "Numbers") -> "Numbers":
        """Element-wise; equal exponents and lengths."""
        self._like(other)
        return self._made(
            lambda: self.key.add(self.batch, other.batch), self.bound + other.bound, self.noise + other.noise
        )

    def subtract(self, other: "Numbers") -> "Numbers":
        self._like(other)
        return self._made(
            lambda: self.key.subtract(self.batch, other.batch), self.bound + other.bound, self.noise + other.noise
        )

    def rescale(self, exponent: int) -> "Numbers":
        """The same values with a smaller exponent (a finer unit): a multiplication by a power of two."""
        up = self.exponent - exponent
        if up < 0:
            raise BadInput("an encrypted number cannot be rounded to a coarser exponent")
        factors = np.zeros((len(self), up // 64 + 1), np.uint64)
        factors[:, up // 64] = 1 << (up % 64)
        made = self._made(lambda: self.key.scale(self.batch, factors), self.bound << up, self.noise << up)
        return replace(made, exponent=exponent)

    def times(self, values: Floats, exponent: int) -> "Numbers":
        """Element-wise with plain floats in units of 2^exponent, of at most 62 bits; the exponents add up."""
        integers = _integers(values, exponent, _SMALL)
        if integers.shape != (len(self),):
            raise BadInput("one factor for each number")
        sizes = np.abs(integers)
        top = int(sizes.max(initial=0))

        def scaled() -> Ciphertexts:
            product = self.key.scale(self.batch, sizes.astype(np.uint64).reshape(-1, 1))
            return _signed(self.key, product, integers < 0)

        made = self._made(scaled, self.bound * top, self.noise * top)
        return replace(made, exponent=self.exponent + exponent)

    def product(self, matrix: PlainMatrix, columns: int = 1) -> "Numbers":
        """Plain matrix (n, k) times these as (k, columns), flat (n, columns)."""
        _check_quantised(matrix)
        made = self._made(
            lambda: linear.matmul_plain(self.key, matrix.entries, self.batch, columns),
            self.bound * matrix.row_sum, self.noise * matrix.row_sum,
        )  # fmt: skip
        return replace(made, exponent=self.exponent + matrix.exponent)

    def times_matrix(self, matrix: PlainMatrix, rows: int = 1) -> "Numbers":
        """These as (rows, k) times a plain matrix (k, m), flat (rows, m)."""
        _check_quantised(matrix)
        made = self._made(
            lambda: linear.matmul_encrypted(self.key, self.batch, rows, matrix.entries),
            self.bound * matrix.col_sum, self.noise * matrix.col_sum,
        )  # fmt: skip
        return replace(made, exponent=self.exponent + matrix.exponent)

    def group_sums(self, groups: Ints, count: int) -> "Numbers":
        """See accel.linear.group_sums."""
        linear.check_groups(groups, len(self), count)
        size = int(np.bincount(groups[groups >= 0]).max(initial=1)) if len(groups) else 1
        return self._made(
            lambda: linear.group_sums(self.key, self.batch, groups, count), self.bound * size, self.noise * size
        )

    def sum(self) -> "Numbers":
        """All of them added up: a batch of one."""
        return self.group_sums(np.zeros(len(self), np.int64), 1)

    def masked(self, random: RandomSource) -> "Numbers":
        """With noise 2^80 times as large as what the history can have left, never less than a fresh one's: to send."""
        bits = max(self.key.noise_bits, self.noise.bit_length() + _STATISTICAL)
        batch = self.key.rerandomise(self.batch, random, noise_bits=bits)
        return replace(self, batch=batch, noise=self.noise + (1 << (bits + 7)))

    def dump(self) -> builtins.bytes:
        """Version, fingerprint of the key, exponent, bound in bits, count; then the ciphertexts. Keeps the noise."""
        return (
            bytes([_FORM, 0]) + _fingerprint(self.key) + self.exponent.to_bytes(2, "little", signed=True)
            + self.bound.bit_length().to_bytes(2, "little") + self.noise.bit_length().to_bytes(2, "little")
            + len(self).to_bytes(8, "little") + bytes(_HEAD - 32) + self.key.dump(self.batch)
        )  # fmt: skip

    def _like(self, other: "Numbers") -> None:
        if self.key is not other.key and self.key.to_bytes() != other.key.to_bytes():
            raise BadInput("numbers under different keys")
        if self.exponent != other.exponent:
            raise BadInput("numbers with different exponents; rescale one of them")
        if len(self) != len(other):
            raise BadInput("the batches have different lengths")

    def _made(self, compute: Callable[[], Ciphertexts], bound: int, noise: int) -> "Numbers":
        _check_bound(self.key, bound)
        return Numbers(self.key, compute(), self.exponent, bound, noise)


def encrypt(
    key: HePublicKey, values: Floats, *, exponent: int, random: RandomSource, owner: HeSecretKey | None = None
) -> Numbers:
    """Floats of shape (count,) in units of 2^exponent; Overflow beyond 62 bits or if not finite. The batch's bound is
    2^62 for all, since the largest of its secret values must not show. owner: the key pair of `key`, where it is ours.
    """
    if owner is not None and owner.public.to_bytes() != key.to_bytes():
        raise BadInput("the key pair of another key")
    integers = _integers(values, exponent, _SMALL)
    if integers.ndim != 1:
        raise BadInput("values have one axis")
    bound = 1 << _SMALL
    _check_bound(key, bound)
    lift = key.plaintext_bits - 1
    limbs = key.plaintext_bits // 64 + 1
    plain = np.repeat((integers >> 63).astype(np.uint64).reshape(-1, 1), limbs, axis=1)
    plain[:, 0] = integers.astype(np.uint64)
    # Two's complement plus 2^lift: from bit `lift` on, sign bits turn to zeros, and zeros to a one.
    plain[:, lift // 64] += np.uint64(1 << (lift % 64))
    carry = (plain[:, lift // 64] < np.uint64(1 << (lift % 64))).astype(np.uint64)
    plain[:, lift // 64 + 1 :] += carry.reshape(-1, 1)
    batch = key.shift((owner or key).encrypt(plain, random), -(1 << lift))
    return Numbers(key, batch, exponent, bound, 1 << key.noise_bits)


def decrypt_integers(secret: HeSecretKey, numbers: Numbers) -> list[int]:
    """The signed integers; Overflow if one is larger than the batch's bound says, which no honest history makes."""
    key = secret.public
    lift = 1 << (key.plaintext_bits - 1)
    plain = secret.decrypt(numbers.key.shift(numbers.batch, lift))
    data, size = plain.tobytes(), 8 * plain.shape[1]
    values = [int.from_bytes(data[i : i + size], "little") - lift for i in range(0, len(data), size)]
    if any(abs(value) > numbers.bound for value in values):
        raise Overflow("a decrypted number is larger than its batch allows")
    return values


def decrypt(secret: HeSecretKey, numbers: Numbers) -> Floats:
    """The values as doubles, rounded once; Overflow as above, or beyond a double."""
    try:
        return np.array([_float(v, numbers.exponent) for v in decrypt_integers(secret, numbers)], np.float64)
    except OverflowError:
        raise Overflow("a decrypted number does not fit a double") from None


def load(key: HePublicKey, data: memoryview) -> Numbers:
    """Inverse of Numbers.dump for bytes from outside."""
    check_bytes(data)
    if len(data) < _HEAD or data[0] != _FORM or data[1] != 0 or any(data[32:_HEAD]):
        raise BadInput("not encrypted numbers of this version")
    if bytes(data[2:18]) != _fingerprint(key):
        raise BadInput("encrypted numbers under another key")
    exponent = int.from_bytes(data[18:20], "little", signed=True)
    bound, noise = (int.from_bytes(data[i : i + 2], "little") for i in (20, 22))
    _check_bound(key, (1 << bound) - 1)
    count = int.from_bytes(data[24:32], "little")
    return Numbers(key, key.load(data[_HEAD:], count), exponent, (1 << bound) - 1, 1 << noise)


def _fingerprint(key: HePublicKey) -> builtins.bytes:
    return hashlib.sha256(key.to_bytes()).digest()[:16]


def _check_bound(key: HePublicKey, bound: int) -> None:
    if bound >= 1 << (key.plaintext_bits - 1):
        raise Overflow(f"the result might not fit {key.plaintext_bits - 1} bits and a sign")


def _check_quantised(matrix: PlainMatrix) -> None:
    if not isinstance(matrix, PlainMatrix):
        raise BadInput("a plain matrix is what `quantise` made of an array")


def _integers(values: Floats, exponent: int, bits: int) -> Ints:
    if not isinstance(exponent, int) or not -1000 <= exponent <= 1000:
        raise BadInput("a whole exponent between -1000 and 1000")
    try:
        given = np.asarray(values)
    except ValueError:  # lists of different lengths
        raise BadInput("values are an array of real numbers") from None
    if given.dtype.kind not in "fiub":
        raise BadInput("values are an array of real numbers")
    with np.errstate(over="ignore"):
        scaled = np.rint(np.ldexp(given.astype(np.float64), -exponent))
    if not np.all(np.abs(scaled) < 2.0**bits):  # also false for NaN
        raise Overflow(f"a value is not finite or has more than {bits} bits in units of 2^{exponent}")
    return scaled.astype(np.int64)


def _signed(key: HePublicKey, batch: Ciphertexts, negative: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Ciphertexts:
    """Negated where told; which ones shows in time: they belong to whoever computes."""
    if not negative.any():
        return batch
    count = len(batch)
    everything = np.arange(count + 1, dtype=np.int64)
    index = np.arange(count, dtype=np.int64) + np.where(negative, count, 0)
    return key.sums(key.join([batch, key.negate(batch)]), index, everything)


def _float(value: int, exponent: int) -> float:
    return float(value << exponent) if exponent >= 0 else value / (1 << -exponent)
