"""What the two schemes have in common: a ciphertext is message^m * noise^r modulo the ciphertext modulus."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import gmpy2
import numpy as np

from accel.backends.reference.modular import (
    FixedBase,
    Mpz,
    Residues,
    check_plain_bits,
    dump_residues,
    load_residues,
    plain_rows,
    power_matvec,
    to_mpz,
)
from accel.kernels import BadInput, Ciphertexts, Ints, RandomSource, SparseMatrix, Uints, check_bytes, is_array

_FORM: Final = 1
"""Version of the serialised public key."""

MultiplyMessage = Callable[[Mpz, bytes], Mpz]
"""(ciphertext, plaintext bytes) -> the ciphertext with the plaintext added, no noise."""


class GroupPublicKey:
    """HePublicKey for a scheme given by its modulus, its way to add a plaintext, and its noise base."""

    __slots__ = (
        "_header", "_message", "_modulus", "_noise", "ciphertext_bytes", "modulus_bits", "noise_bits", "plaintext_bits",
        "scheme",
    )  # fmt: skip

    def __init__(
        self,
        *,
        scheme: str,
        modulus_bits: int,
        plaintext_bits: int,
        noise_bits: int,
        modulus: Mpz,
        message: MultiplyMessage,
        noise: Mpz,
        header: bytes,
    ) -> None:
        """Takes the ciphertexts' modulus, and the key in its serialised form as header."""
        self.scheme = scheme
        self.modulus_bits = modulus_bits
        self.plaintext_bits = plaintext_bits
        self.noise_bits = noise_bits
        self.ciphertext_bytes = (gmpy2.bit_length(modulus) + 7) // 8
        self._modulus = modulus
        self._message = message
        self._noise = FixedBase(noise, modulus)
        self._header = header

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.scheme}, {self.modulus_bits} bits)"

    @property
    def modulus(self) -> Mpz:
        """Of the ciphertexts."""
        return self._modulus

    @property
    def noise_base(self) -> Mpz:
        """What fresh noise is the exponent of."""
        return self._noise.base

    def to_bytes(self) -> bytes:
        return self._header

    def encrypt(self, plain: Uints, random: RandomSource) -> Residues:
        check_plain_bits(plain, self.plaintext_bits)
        return self._masked([gmpy2.mpz(1)] * len(plain), plain_rows(plain), random, self.noise_bits)

    def add(self, a: Ciphertexts, b: Ciphertexts) -> Residues:
        left, right = self._own(a), self._own(b)
        if len(left) != len(right):
            raise BadInput("the batches have different lengths")
        return self._batch([x * y % self._modulus for x, y in zip(left, right, strict=True)])

    def negate(self, a: Ciphertexts) -> Residues:
        return self._batch([gmpy2.invert(x, self._modulus) for x in self._own(a)])

    def subtract(self, a: Ciphertexts, b: Ciphertexts) -> Residues:
        return self.add(a, self.negate(b))

    def sums(self, a: Ciphertexts, index: Ints, starts: Ints) -> Residues:
        values = self._own(a)
        check_segments(len(values), index, starts)
        return self._batch(segment_products(values, index, starts, self._modulus))

    def shift(self, a: Ciphertexts, constant: int) -> Residues:
        factor = self.shift_factor(constant)
        return self._batch([x * factor % self._modulus for x in self._own(a)])

    def shift_factor(self, constant: int) -> Mpz:
        """The ciphertext of a constant without noise."""
        if not isinstance(constant, int) or abs(constant) >> self.plaintext_bits:
            raise BadInput(f"a plaintext has more than {self.plaintext_bits} bits")
        size = (self.plaintext_bits + 7) // 8
        factor = self._message(gmpy2.mpz(1), abs(constant).to_bytes(size, "little"))
        return gmpy2.invert(factor, self._modulus) if constant < 0 else factor

    def add_plain(self, a: Ciphertexts, plain: Uints) -> Residues:
        values, rows = self._own(a), plain_rows(plain, len(a))
        check_plain_bits(plain, self.plaintext_bits)
        return self._batch([self._message(x, m) for x, m in zip(values, rows, strict=True)])

    def scale(self, a: Ciphertexts, factors: Uints) -> Residues:
        values, rows = self._own(a), plain_rows(factors, len(a))
        return self._batch([gmpy2.powmod(x, to_mpz(k), self._modulus) for x, k in zip(values, rows, strict=True)])

    def matvec(self, matrix: SparseMatrix, vector: Ciphertexts) -> Residues:
        bases = self._own(vector)
        check_fits(matrix, len(bases))
        return self._batch(power_matvec(matrix, bases, self._modulus))

    def mask(self, a: Ciphertexts, plain: Uints, random: RandomSource, *, noise_bits: int) -> Residues:
        values, rows = self._own(a), plain_rows(plain, len(a))
        check_plain_bits(plain, self.plaintext_bits)
        return self._masked(values, rows, random, noise_bits)

    def rerandomise(self, a: Ciphertexts, random: RandomSource, *, noise_bits: int) -> Residues:
        values = self._own(a)
        return self._masked(values, [b""] * len(values), random, noise_bits)

    def join(self, parts: Sequence[Ciphertexts]) -> Residues:
        return self._batch([value for part in parts for value in self._own(part)])

    def split(self, a: Ciphertexts, lengths: Sequence[int]) -> list[Ciphertexts]:
        values, parts, start = self._own(a), list[Ciphertexts](), 0
        if sum(lengths) != len(values) or min(lengths, default=0) < 0:
            raise BadInput("the lengths do not add up to the batch")
        for length in lengths:
            parts.append(self._batch(values[start : start + length]))
            start += length
        return parts

    def dump(self, a: Ciphertexts) -> bytes:
        return dump_residues(self._own(a), self.ciphertext_bytes)

    def load(self, data: memoryview, count: int) -> Residues:
        return load_residues(data, count, self._modulus, self.ciphertext_bytes)

    def _own(self, a: Ciphertexts) -> list[Mpz]:
        if not isinstance(a, Residues) or a.modulus != self._modulus:
            raise BadInput("ciphertexts of another key or backend")
        return a.values

    def _batch(self, values: list[Mpz]) -> Residues:
        return Residues(values, self._modulus)

    def _masked(self, values: list[Mpz], rows: list[bytes], random: RandomSource, noise_bits: int) -> Residues:
        check_noise(noise_bits)
        size = (noise_bits + 7) // 8
        noise = random.bytes(size * len(values))
        return self._batch(
            [
                self._noise.multiply(self._message(x, m), noise[i * size : (i + 1) * size])
                for i, (x, m) in enumerate(zip(values, rows, strict=True))
            ]
        )


def segment_products(values: list[Mpz], index: Ints, starts: Ints, modulus: Mpz) -> list[Mpz]:
    products = []
    for begin, end in pairwise(starts.tolist()):
        product = gmpy2.mpz(1) % modulus
        for i in index[begin:end].tolist():
            product = product * values[i] % modulus
        products.append(product)
    return products


def check_segments(count: int, index: Ints, starts: Ints) -> None:
    """Refuse what does not name segments of places below `count`."""
    if any(not is_array(part, np.int64) or part.ndim != 1 for part in (index, starts)):
        raise BadInput("index and starts are one-dimensional int64 arrays")
    if not len(starts) or starts[0] < 0 or starts[-1] > len(index) or bool(np.any(np.diff(starts) < 0)):
        raise BadInput("starts do not rise within the index")
    if len(index) and (index.min() < 0 or index.max() >= count):
        raise BadInput("an index lies outside the batch")


def cut_segments(starts: Ints, longest: int) -> tuple[Ints, Ints]:
    """The starts of pieces of at most `longest` places, and where in these pieces each segment starts: their products
    by segments are what was asked for. Starts as check_segments has them.
    """
    pieces = np.maximum(1, -(-np.diff(starts) // longest))
    groups = np.concatenate([np.zeros(1, np.int64), np.cumsum(pieces)])
    which = np.repeat(np.arange(len(pieces), dtype=np.int64), pieces)
    cuts = starts[which] + (np.arange(len(which), dtype=np.int64) - groups[which]) * longest
    return np.append(cuts, starts[-1]), groups


def check_fits(matrix: SparseMatrix, count: int) -> None:
    """Refuse what is no sparse matrix, and a vector that is not as long as its rows."""
    if not isinstance(matrix, SparseMatrix):
        raise BadInput(f"a SparseMatrix is wanted (accel.linear.dense makes one), not {type(matrix).__name__}")
    if count != matrix.cols:
        raise BadInput("vector does not fit the matrix")


def check_noise(noise_bits: int) -> None:
    """Refuse what is no length of noise."""
    if not isinstance(noise_bits, int) or noise_bits < 1:
        raise BadInput("a ciphertext without noise hides nothing")


def pack_key(scheme: int, bits: int, numbers: Sequence[Mpz]) -> bytes:
    """A byte of version, one of scheme, two of modulus bits; then the numbers, ceil(bits / 8) bytes each."""
    size = (bits + 7) // 8
    return bytes([_FORM, scheme]) + bits.to_bytes(2, "little") + dump_residues(numbers, size)


def unpack_key(data: memoryview, scheme: int, count: int) -> tuple[int, list[Mpz]]:
    """Modulus bits as declared, at least one, and the numbers; the caller judges them."""
    check_bytes(data)
    if len(data) < 4 or data[0] != _FORM or data[1] != scheme:
        raise BadInput("not a public key of this scheme and version")
    bits = int.from_bytes(data[2:4], "little")
    size = (bits + 7) // 8
    if not bits or len(data) != 4 + count * size:
        raise BadInput("the public key has another length than declared")
    return bits, [to_mpz(data[i : i + size]) for i in range(4, len(data), size)]
