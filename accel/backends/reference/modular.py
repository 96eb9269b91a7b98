"""Shared by both schemes: primes, fixed-base powers, batches of residues and sparse products on them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import gmpy2
import numpy as np

from accel.kernels import BadInput, Ints, RandomSource, SparseMatrix, Uints, check_bytes, is_array

Mpz = Any
"""gmpy2 ships no types."""

_WITNESSES: Final = 40
_SMALL_PRIMES: Final[Mpz] = gmpy2.primorial(2000)


def random_below(limit: Mpz, random: RandomSource) -> Mpz:
    """Uniform in [0, limit) by rejection."""
    bits = gmpy2.bit_length(limit - 1) if limit > 1 else 1
    size = (bits + 7) // 8
    while True:
        value = to_mpz(random.bytes(size)) & ((gmpy2.mpz(1) << bits) - 1)
        if value < limit:
            return value


def is_prime(candidate: Mpz, random: RandomSource) -> bool:
    """FIPS 186-5 B.3: Miller-Rabin with 40 random bases (error below 2^-80 even for a chosen number) and Lucas."""
    if candidate < 2 or gmpy2.is_even(candidate):
        return bool(candidate == 2)
    if gmpy2.gcd(candidate, _SMALL_PRIMES) != 1:
        return candidate < 2000 and bool(gmpy2.is_prime(candidate))
    for _ in range(_WITNESSES):
        base = 2 + random_below(candidate - 3, random)
        # A base that shares a factor is a proof of its own; gmpy2 raises ValueError for it.
        if gmpy2.gcd(base, candidate) != 1 or not gmpy2.is_strong_prp(candidate, base):
            return False
    return bool(gmpy2.is_strong_selfridge_prp(candidate))


def random_prime(bits: int, random: RandomSource, *, suits: Callable[[Mpz], bool] = lambda _: True) -> Mpz:
    """A uniformly chosen odd candidate of exactly `bits` bits with the two top bits set, until one is prime and suits.

    The top bits keep a product at full length (FIPS 186-5 A.1.3 asks for p >= sqrt(2) * 2^(bits-1); 3/4 is above it).
    """
    top = gmpy2.mpz(3) << (bits - 2)
    while True:
        candidate = top | random_below(gmpy2.mpz(1) << (bits - 2), random) | 1
        if suits(candidate) and is_prime(candidate, random):
            return candidate


def check_modulus(n: Mpz, bits: int, min_bits: int) -> None:
    """What can be told of a partner's modulus without its factors."""
    if bits < min_bits or bits > 8192 or gmpy2.bit_length(n) != bits:
        raise BadInput(f"the modulus must have {min_bits} to 8192 bits, as declared")
    if gmpy2.is_even(n) or gmpy2.gcd(n, _SMALL_PRIMES) != 1:
        raise BadInput("the modulus has a small factor")
    if gmpy2.is_power(n) or gmpy2.is_prime(n, 25):
        raise BadInput("the modulus is a prime or a perfect power")


def check_unit(value: Mpz, n: Mpz) -> None:
    if not 1 < value < n - 1 or gmpy2.gcd(value, n) != 1:
        raise BadInput("a base of the key is out of range or not invertible")


def to_mpz(data: bytes | memoryview) -> Mpz:
    return gmpy2.mpz(int.from_bytes(data, "little"))


def check_batch(batch: Uints) -> None:
    """Refuse what is no plain batch."""
    if not is_array(batch, np.uint64) or batch.ndim != 2 or batch.shape[1] < 1:
        raise BadInput("a plain batch is uint64 of shape (count, limbs)")


def plain_rows(plain: Uints, count: int | None = None) -> list[bytes]:
    """Each integer of a plain batch as little-endian bytes, trailing zeros kept."""
    check_batch(plain)
    if count is not None and len(plain) != count:
        raise BadInput("the batches have different lengths")
    data = np.ascontiguousarray(plain, dtype="<u8").tobytes()
    size = 8 * plain.shape[1]
    return [data[i : i + size] for i in range(0, len(data), size)]


def check_plain_bits(plain: Uints, bits: int) -> None:
    """Refuse what is no plain batch, or has an integer of more than `bits` bits."""
    check_batch(plain)
    whole, rest = divmod(bits, 64)
    over = plain[:, whole:].copy()
    if over.shape[1]:
        over[:, 0] >>= np.uint64(rest)
        if over.any():
            raise BadInput(f"a plaintext has more than {bits} bits")


def to_limbs(values: Sequence[Mpz], bits: int) -> Uints:
    """Non-negative integers below 2^bits as a plain batch."""
    limbs = (bits + 63) // 64
    data = b"".join(int(value).to_bytes(8 * limbs, "little") for value in values)
    return np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(len(values), limbs)


class FixedBase:
    """Powers of one base by tables of base^(d * 256^k): one multiplication for each non-zero byte of the exponent.

    Grows with the longest exponent seen: 255 residues a byte (64 KiB at 2048 bits).
    """

    __slots__ = ("_modulus", "_next", "_tables", "base")

    def __init__(self, base: Mpz, modulus: Mpz) -> None:
        self.base = base % modulus
        self._modulus = modulus
        self._next = self.base
        self._tables: list[list[Mpz]] = []

    def multiply(self, start: Mpz, exponent: bytes) -> Mpz:
        """Return start * base^exponent, the exponent in little-endian bytes."""
        modulus = self._modulus
        if len(exponent) > len(self._tables):
            self._grow(len(exponent))
        for table, digit in zip(self._tables, exponent, strict=False):
            if digit:
                start = start * table[digit] % modulus
        return start

    def _grow(self, count: int) -> None:
        while len(self._tables) < count:
            table = [gmpy2.mpz(1), self._next]
            for _ in range(255):
                table.append(table[-1] * self._next % self._modulus)
            self._next = table.pop()
            self._tables.append(table)


class Residues:
    """A batch of ciphertexts: residues modulo one key's ciphertext modulus."""

    __slots__ = ("modulus", "values")

    def __init__(self, values: list[Mpz], modulus: Mpz) -> None:
        self.values = values
        self.modulus = modulus

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Residues({len(self.values)})"


def load_residues(data: memoryview, count: int, modulus: Mpz, size: int) -> Residues:
    """Ciphertexts from outside: `size` bytes each, 0 < c < modulus, all invertible (one gcd of the product)."""
    check_bytes(data)
    if count < 0 or len(data) != count * size:
        raise BadInput("ciphertexts of another number or size")
    values = [to_mpz(data[i : i + size]) for i in range(0, len(data), size)]
    product = gmpy2.mpz(1)
    for value in values:
        if not 0 < value < modulus:
            raise BadInput("a ciphertext is out of range")
        product = product * value % modulus
    if gmpy2.gcd(product, modulus) != 1:
        raise BadInput("a ciphertext is not invertible")
    return Residues(values, modulus)


def dump_residues(values: Iterable[Mpz], size: int) -> bytes:
    return b"".join(int(value).to_bytes(size, "little") for value in values)


# --- sparse integer matrix times a vector of residues, in the exponent ---

_WINDOW: Final = 4
_HALF: Final = 1 << (_WINDOW - 1)


def signed_digits(values: Ints) -> tuple[Ints, Ints, Ints]:
    """All non-zero digits in base 16, each in (-8, 8], as three arrays: position of the value, window, digit."""
    rest = values.copy()
    found: list[tuple[Ints, Ints, Ints]] = []
    window = 0
    while np.any(rest):
        digit = rest & (2 * _HALF - 1)
        digit = np.where(digit > _HALF, digit - 2 * _HALF, digit)
        at = np.flatnonzero(digit)
        found.append((at, np.full(len(at), window, np.int64), digit[at]))
        rest = (rest - digit) >> _WINDOW
        window += 1
    if not found:
        empty = np.zeros(0, np.int64)
        return empty, empty, empty
    at, windows, digits = (np.concatenate(part) for part in zip(*found, strict=True))
    return at, windows, digits


def power_matvec(matrix: SparseMatrix, bases: list[Mpz], modulus: Mpz) -> list[Mpz]:
    """Row i: the product over j of bases[j]^matrix[i, j].

    Two ways, the cheaper by count of multiplications: tables of small multiples of each base (Straus), when a base
    serves many rows; buckets of equal digits for each row (Pippenger), when a row has many entries.
    """
    at, windows, digits = signed_digits(matrix.values)
    row_of = np.repeat(np.arange(matrix.rows, dtype=np.int64), np.diff(matrix.indptr))[at]
    col_of = matrix.indices[at]
    table_cost = len(np.unique((col_of * 16 + windows) * 16 + np.abs(digits))) * 2
    bucket_cost = len(np.unique(row_of * 16 + windows)) * 2 * _HALF
    by_tables = table_cost <= bucket_cost
    terms = zip(row_of.tolist(), col_of.tolist(), windows.tolist(), digits.tolist(), strict=True)
    plus, minus = (_straus if by_tables else _pippenger)(terms, matrix.rows, bases, modulus)
    return [p if m == 1 else p * gmpy2.invert(m, modulus) % modulus for p, m in zip(plus, minus, strict=True)]


def _straus(
    terms: Iterable[tuple[int, int, int, int]], rows: int, bases: list[Mpz], modulus: Mpz
) -> tuple[list[Mpz], list[Mpz]]:
    """Positive and negative parts of each row, from lazily made tables base^(d * 16^window)."""
    one = gmpy2.mpz(1)
    sums: tuple[list[Mpz], list[Mpz]] = ([one] * rows, [one] * rows)
    tables: list[list[dict[int, Mpz]]] = [[{1: base}] for base in bases]
    for row, col, window, digit in terms:
        table = tables[col]
        while len(table) <= window:
            power = table[-1][1]
            for _ in range(_WINDOW):
                power = power * power % modulus
            table.append({1: power})
        multiples = table[window]
        size = abs(digit)
        if size not in multiples:
            known = max(d for d in multiples if d < size)
            value = multiples[known]
            for d in range(known + 1, size + 1):
                value = multiples[d] = value * multiples[1] % modulus
        part = sums[digit < 0]
        part[row] = part[row] * multiples[size] % modulus
    return sums


def _pippenger(
    terms: Iterable[tuple[int, int, int, int]], rows: int, bases: list[Mpz], modulus: Mpz
) -> tuple[list[Mpz], list[Mpz]]:
    """Positive and negative parts of each row, from buckets of equal digit."""
    one = gmpy2.mpz(1)
    buckets: tuple[list[dict[int, list[Mpz]]], ...] = ([{} for _ in range(rows)], [{} for _ in range(rows)])
    for row, col, window, digit in terms:
        windows = buckets[digit < 0][row]
        bucket = windows.get(window)
        if bucket is None:
            bucket = windows[window] = [one] * (_HALF + 1)
        size = abs(digit)
        bucket[size] = bucket[size] * bases[col] % modulus
    plus, minus = ([_combine(windows, modulus) for windows in side] for side in buckets)
    return plus, minus


def _combine(windows: dict[int, list[Mpz]], modulus: Mpz) -> Mpz:
    """The product over windows k and digits d of bucket^(d * 16^k)."""
    total = gmpy2.mpz(1)
    for window in range(max(windows, default=-1), -1, -1):
        if total != 1:
            for _ in range(_WINDOW):
                total = total * total % modulus
        bucket = windows.get(window)
        if bucket is not None:
            running = weighted = gmpy2.mpz(1)
            for value in reversed(bucket[1:]):
                if value != 1:
                    running = running * value % modulus
                if running != 1:
                    weighted = weighted * running % modulus
            total = total * weighted % modulus
    return total
