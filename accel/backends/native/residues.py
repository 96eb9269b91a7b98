"""Residues modulo one number as native batches in Montgomery form. Python's big integers appear at set-up only."""

from collections.abc import Sequence
from typing import Final

import gmpy2
import numpy as np
from numpy.typing import NDArray

from accel import _native
from accel.backends.reference.group import cut_segments
from accel.backends.reference.modular import Mpz, to_mpz
from accel.kernels import BadInput, Ints, Uints, check_threads

Octets = NDArray[np.uint8]

_SCAN_WINDOW: Final = 6
_LEAKING_WINDOWS: Final = range(13, 7, -1)
_LEAKING_BYTES: Final = 192 << 20
"""The longest window whose table stays below that is taken: 13 bits and 175 MiB at 448 bits modulo 4096."""
_LONG: Final = 96
"""Segments are cut into pieces of at least this length, so that few long ones still fill the lanes."""


def _as_pairs(core: str, bits: int, root: Mpz | None) -> tuple[str, Mpz | None]:
    """The core that computes, and the root where that is done with pairs: 5 D^2 half products for a multiplication with
    D digits of the root, instead of 2 F^2 with F digits of the modulus.
    """
    pairs = f"{core}-pairs"
    if root is None or core != "avx512ifma":
        return core, None
    of_root, of_square = _native.layout(pairs, bits)[0], _native.layout(core, bits)[0]
    return (pairs, root) if 5 * of_root**2 < 2 * of_square**2 else (core, None)


class ResidueRing:
    """Z_n for one odd n, on one core. A batch is an array of rows, shape (count, stride), in Montgomery form."""

    __slots__ = (
        "_chunk", "_core", "_handle", "_layout", "_pairs", "_powers", "_root", "core", "modulus", "one",
        "size", "threads",
    )  # fmt: skip

    def __init__(self, core: str, modulus: Mpz, *, root: Mpz | None = None, threads: int = 1) -> None:
        """Every batch is cut over at most `threads` native threads. root: the number whose square the modulus is."""
        self.core = core
        self.modulus = modulus
        self.threads = threads
        bits = int(gmpy2.bit_length(modulus))
        self.size = (bits + 7) // 8
        self._core, self._root = _as_pairs(core, bits, root)
        self._layout = _native.layout(self._core, bits)
        digits, _, digit_bits = self._layout
        self._chunk = digits * digit_bits // 8
        radix = gmpy2.mpz(1) << (digits * digit_bits)
        number = self._rows([(modulus if self._root is None else self._root,)])
        constants = np.concatenate([number, self.raw([radix % modulus]), self._lift()])
        self._handle: object = _native.modulus(self._core, bits, constants, check_threads(threads))
        constants[...] = 0
        chunks = -(-self.size // self._chunk)
        self._powers = self.raw([radix ** (k + 2) % modulus for k in range(chunks)])
        self.one = self.raw([radix % modulus])
        self._pairs: tuple[Uints, Uints] | None = None

    def beside(self, modulus: Mpz, *, root: Mpz | None = None) -> "ResidueRing":
        """Another modulus on the same core and as many threads."""
        return ResidueRing(self.core, modulus, root=root, threads=self.threads)

    def __repr__(self) -> str:
        return f"ResidueRing({self.core}, {8 * self.size} bits)"

    def wipe(self) -> None:
        """Overwrites the constants, here and in C; the ring is of no use afterwards."""
        for constants in (self._powers, *(self._pairs or ())):
            constants[...] = 0
        self.one[...] = 0
        self.modulus = gmpy2.mpz(0)
        self._root = None
        self._handle = None

    def raw(self, values: Sequence[Mpz]) -> Uints:
        """Rows that hold the numbers as they are, in no Montgomery form: constants for the native calls."""
        root = self._root
        return self._rows([(v,) if root is None else (v % root, v // root) for v in values])

    def _rows(self, elements: Sequence[tuple[Mpz, ...]]) -> Uints:
        """The digits of an element's parts, one part after the other."""
        digits, stride, digit_bits = self._layout
        out = np.zeros((len(elements), stride), np.uint64)
        for i, parts in enumerate(elements):
            for k, part in enumerate(parts):
                for j in range(digits):
                    out[i, k * digits + j] = int(part >> (digit_bits * j) & ((1 << digit_bits) - 1))
        return out

    def _lift(self) -> Uints:
        """A multiple of the root of pairs (else of the modulus) whose digits lie between 2^53 and twice that."""
        digits, stride, digit_bits = self._layout
        out = np.zeros((1, stride), np.uint64)
        if digit_bits < 64:  # digits of whole words have no room for it, and no pairs
            base = sum(gmpy2.mpz(2) << (digit_bits * (j + 1)) for j in range(digits))
            out = self.raw([-base % (self.modulus if self._root is None else self._root)])
            out[0, :digits] += np.uint64(2 << digit_bits)
        return out

    def empty(self, count: int) -> Uints:
        return np.empty((count, self._layout[1]), np.uint64)

    def take(self, value: Mpz) -> Uints:
        """One number, as a batch of one."""
        return self.load(int(value % self.modulus).to_bytes(self.size, "little"), self.size)

    def numbers(self, a: Uints) -> list[Mpz]:
        """Canonical residues, one Python object each: for few only."""
        data = self.dump(a).tobytes()
        return [to_mpz(data[i : i + self.size]) for i in range(0, len(data), self.size)]

    def holds(self, data: bytes | memoryview, size: int, *, zero: bool) -> bool:
        """Whether numbers of `size` bytes (at least the modulus' own) are below it, and not 0 unless that may be."""
        return _native.in_range(data, size, int(self.modulus).to_bytes(size, "little"), zero)

    def load(self, data: bytes | bytearray | memoryview, size: int) -> Uints:
        """Numbers below the modulus, `size` little-endian bytes each."""
        out = self.empty(len(data) // size)
        _native.load(self._handle, out, data, size, self._powers)
        return out

    def combine(self, *terms: tuple[Octets, Mpz]) -> Uints:
        """The sum of number * factor, the numbers of any size as uint8 arrays of shape (count, size)."""
        chunks = [-(-data.shape[1] // self._chunk) for data, _ in terms]
        joined = np.zeros((len(terms[0][0]), self._chunk * sum(chunks)), np.uint8)
        factors, start = list[Mpz](), 0
        for (data, factor), count in zip(terms, chunks, strict=True):
            joined[:, start : start + data.shape[1]] = data
            start += self._chunk * count
            factors += [factor * (gmpy2.mpz(1) << (8 * self._chunk * (k + 2))) % self.modulus for k in range(count)]
        out, rows = self.empty(len(joined)), self.raw(factors)
        _native.load(self._handle, out, joined, joined.shape[1], rows)
        rows[...] = joined[...] = 0  # a secret key's, perhaps
        return out

    def dump(self, a: Uints, size: int | None = None) -> Octets:
        """Canonical residues as a uint8 array of shape (count, size)."""
        out = np.empty((len(a), size or self.size), np.uint8)
        _native.dump(self._handle, out, size or self.size, a)
        return out

    def mul(self, a: Uints, b: Uints) -> Uints:
        """Element-wise; one of them may be a single row."""
        out = self.empty(max(len(a), len(b)) if len(a) and len(b) else 0)
        _native.mul(self._handle, out, a, b)
        return out

    def multiply_into(self, out: Uints, a: Uints, b: Uints) -> None:
        """As mul, into rows that are there."""
        _native.mul(self._handle, out, a, b)

    def square(self, a: Uints, times: int) -> Uints:
        out = self.empty(len(a))
        _native.square(self._handle, out, a, times)
        return out

    def affine(self, a: Uints, plain: Uints, slope: Mpz, count: int) -> Uints:
        """A * (1 + plain * slope): how Paillier adds a plaintext. `a` may be one row."""
        digits, _, digit_bits = self._layout
        factor = self.raw([slope * (gmpy2.mpz(1) << (2 * digits * digit_bits)) % self.modulus])
        out = self.empty(count)
        size = min(8 * plain.shape[1], self._chunk)
        data = plain if size == 8 * plain.shape[1] else np.ascontiguousarray(octets(plain)[:, :size])
        _native.affine(self._handle, out, a, data, size, factor)
        return out

    def power(self, a: Uints, exponents: bytes | Uints | Octets, bits: int) -> Uints:
        """a^e for one secret exponent of `bits` bits, or for one each; time depends on `bits` and the count only."""
        out = self.empty(len(a))
        if not len(a):
            return out
        _native.power(self._handle, out, a, exponents, bits, True)
        return out

    def logs(self, data: Octets, exponent: bytes, bits: int) -> Octets | None:
        """(c^e mod p^2 - 1) / p for this prime modulus p, a secret e that is a multiple of p - 1, and numbers c prime
        to p of any size; None where the core has no such way, or its digits fit p^2 better.
        """
        p = self.modulus
        digits, _, digit_bits = self._layout
        # Digits of whole words have no room for `lift`, and no core that has them offers logs.
        if digit_bits == 64 or digits * 2 > _native.layout(self.core, int(gmpy2.bit_length(p * p)))[0]:
            return None
        if self._pairs is None:
            radix = gmpy2.mpz(1) << (digits * digit_bits)
            chunks = 4
            powers = [*(radix ** (k + 2) % (p * p) for k in range(chunks)), radix % (p * p)]
            self._pairs = self.raw([v for power in powers for v in (power % p, power // p)]), self._lift()
        factors, lift = self._pairs
        used = -(-data.shape[1] // self._chunk)
        if used * 2 + 2 > len(factors):
            return None
        factors = np.concatenate([factors[: 2 * used], factors[-2:]])
        out = np.empty((len(data), self.size), np.uint8)
        done = _native.logs(self._handle, out, self.size, data, data.shape[1], factors, lift, exponent, bits)
        return out if done else None

    def power_public(self, a: Uints, exponent: Mpz) -> Uints:
        """a^e for one exponent that is no secret: time and addresses depend on it."""
        out = self.empty(len(a))
        bits = max(1, gmpy2.bit_length(exponent))
        data = int(exponent).to_bytes((bits + 7) // 8, "little")
        _native.power(self._handle, out, a, data, bits, False)
        return out

    def product(self, src: Uints, idx: Ints, starts: Ints) -> Uints:
        """Row s is the product of src[idx[starts[s] : starts[s + 1]]]. Long ones are cut, so that all lanes work."""
        count = len(starts) - 1
        piece = max(_LONG, (len(idx) >> 6) + 1)
        cuts, groups = cut_segments(starts, piece)
        if len(cuts) == len(starts):
            out = self.empty(count)
            _native.segments(self._handle, out, src, idx, starts)
            return out
        parts = self.empty(len(cuts) - 1)
        _native.segments(self._handle, parts, src, idx, cuts)
        return self.product(parts, np.arange(len(parts), dtype=np.int64), groups)

    def buckets(self, src: Uints, idx: Ints, starts: Ints, sizes: int) -> tuple[Uints, Uints]:
        """For every `sizes` segments: the product of segment s (from 1) to the power s, and that of all."""
        out = self.empty(2 * ((len(starts) - 1) // sizes))
        _native.buckets(self._handle, out, src, idx, starts, sizes)
        return np.ascontiguousarray(out[0::2]), np.ascontiguousarray(out[1::2])

    def invert(self, a: Uints) -> Uints:
        """Element-wise inverses by one inversion and three multiplications each (Montgomery's trick, as a tree).

        Raises BadInput where one has none. The one inversion is gmpy2's and not constant in time.
        """
        if not len(a):
            return self.empty(0)
        levels = [a]
        while len(levels[-1]) > 1:
            below = levels[-1]
            pairs, half = len(below) // 2, (len(below) + 1) // 2
            levels.append(self.empty(half))
            self.multiply_into(levels[-1][:pairs], below[:pairs], below[half:])
            levels[-1][pairs:] = below[pairs:half]  # the odd one stays alone
        try:
            inverse = self.take(gmpy2.invert(self.numbers(levels.pop())[0], self.modulus))
        except ZeroDivisionError:
            raise BadInput("not invertible") from None
        while levels:
            below, parents = levels.pop(), inverse
            pairs, half = len(below) // 2, (len(below) + 1) // 2
            inverse = self.empty(len(below))
            self.multiply_into(inverse[:pairs], parents[:pairs], below[half:])
            self.multiply_into(inverse[half:], parents[:pairs], below[:pairs])
            inverse[pairs:half] = parents[pairs:]
        return inverse

    def table(self, base: Uints, window: int, windows: int, *, leaking: bool) -> Uints:
        """For fixed_power with the same `leaking`."""
        out = self.empty(windows << window)
        _native.fixed_table(self._handle, out, base, window, not leaking)
        return out

    def fixed_power(
        self,
        start: Uints,
        table: Uints,
        exponents: bytes | Uints | Octets,
        *,
        size: int,
        window: int,
        windows: int,
        leaking: bool,
    ) -> Uints:
        out = self.empty((exponents.nbytes if isinstance(exponents, np.ndarray) else len(exponents)) // size)
        _native.fixed_power(self._handle, out, start, table, window, windows, exponents, size, not leaking)
        return out


class FixedBase:
    """Powers of one base by a table that grows with the longest exponent seen.

    leaking: look entries up by the secret digit instead of reading a small table whole. Faster, and whoever shares the
    cache of this machine may learn the exponents.
    """

    __slots__ = ("_base", "_leaking", "_ring", "_table", "_window", "_windows")

    def __init__(self, ring: ResidueRing, base: Mpz, *, leaking: bool) -> None:
        self._ring = ring
        self._base = ring.take(base)
        self._leaking = leaking
        self._window = _SCAN_WINDOW
        self._windows = 0
        self._table = ring.empty(0)

    def wipe(self) -> None:
        """Overwrites base and table; to be used no more."""
        self._base[...] = 0
        self._table[...] = 0

    def multiply(self, start: Uints, exponents: bytes | Uints | Octets, *, size: int, bits: int) -> Uints:
        """Start * base^e, exponents of `size` bytes of which `bits` bits count; start may be one row."""
        windows = -(-bits // self._window)
        if windows > self._windows:
            if self._leaking:
                row = self._base.nbytes
                fitting = (w for w in _LEAKING_WINDOWS if (-(-bits // w) << w) * row <= _LEAKING_BYTES)
                self._window = next(fitting, _LEAKING_WINDOWS[-1])
                windows = -(-bits // self._window)
            self._table = self._ring.table(self._base, self._window, windows, leaking=self._leaking)
            self._windows = windows
        return self._ring.fixed_power(
            start, self._table, exponents, size=size, window=self._window, windows=windows, leaking=self._leaking
        )


def octets(plain: Uints) -> Octets:
    """A plain batch as little-endian bytes, shape (count, 8 * limbs)."""
    return np.ascontiguousarray(plain, dtype="<u8").view(np.uint8).reshape(len(plain), 8 * plain.shape[1])
