"""Okamoto-Uchiyama and Paillier-DJN on native batches. Keys are made and judged by the reference backend: that is
done once for a key and must not differ.

Constant in time: encryption (unless leaking tables were asked for), masking and decryption depend on shapes and bit
lengths only, but for two things. The decryptor's constants are computed once by gmpy2, and `scale` shows the length of
its longest factor. `matvec` depends on its matrix. See accel/notes/montgomery.md.
"""

from collections.abc import Callable, Sequence
from typing import Final

import gmpy2
import numpy as np

from accel.backends import reference
from accel.backends.native.multiexp import matvec
from accel.backends.native.owner import OwnerNoise, PrimeSquare, TextbookPrimeSquare
from accel.backends.native.residues import FixedBase, Octets, ResidueRing, octets
from accel.backends.reference.group import GroupPublicKey, check_fits, check_noise, check_segments
from accel.backends.reference.modular import Mpz, check_batch, check_plain_bits
from accel.backends.reference.paillier import draw_textbook
from accel.backends.reference.sealed import SealedSecret
from accel.kernels import (
    BadInput,
    Ciphertexts,
    HePublicKey,
    HeSecretKey,
    Ints,
    RandomSource,
    SparseMatrix,
    Uints,
    check_bytes,
    check_threads,
)

AddPlain = Callable[[Uints, Uints], Uints]
"""(ciphertexts or one row, plain batch) -> ciphertexts with the plaintexts added, no noise."""

_LANES: Final = 64


class Batch:
    """Ciphertexts in Montgomery form."""

    __slots__ = ("core", "modulus", "rows")

    def __init__(self, rows: Uints, ring: ResidueRing) -> None:
        self.rows = rows
        self.core = ring.core
        self.modulus = ring.modulus

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Batch({self.core}, {len(self.rows)})"


class NativePublicKey:
    """HePublicKey; the numbers of the key stand in the reference's key."""

    square: type[PrimeSquare] = PrimeSquare
    __slots__ = (
        "_add", "_key", "_noise", "_ring", "ciphertext_bytes", "modulus_bits", "noise_bits", "plaintext_bits", "scheme",
    )  # fmt: skip

    def __init__(self, key: GroupPublicKey, ring: ResidueRing, add: AddPlain, *, leaking: bool) -> None:
        self.scheme = key.scheme
        self.modulus_bits = key.modulus_bits
        self.plaintext_bits = key.plaintext_bits
        self.noise_bits = key.noise_bits
        self.ciphertext_bytes = key.ciphertext_bytes
        self._key = key
        self._ring = ring
        self._add = add
        self._noise = FixedBase(ring, key.noise_base, leaking=leaking)

    def __repr__(self) -> str:
        return f"NativePublicKey({self.scheme}, {self.modulus_bits} bits, {self._ring.core})"

    @property
    def ring(self) -> ResidueRing:
        """Of the ciphertexts."""
        return self._ring

    @property
    def noise_base(self) -> Mpz:
        """See GroupPublicKey."""
        return self._key.noise_base

    def to_bytes(self) -> bytes:
        return self._key.to_bytes()

    def encrypt(self, plain: Uints, random: RandomSource) -> Batch:
        plain = self._plain(plain)
        return self._masked(self._add(self._ring.one, plain), random, self.noise_bits)

    def encrypt_as(self, owner: OwnerNoise, plain: Uints, random: RandomSource) -> Batch:
        """As encrypt, by the owner's way."""
        plain = self._plain(plain)
        noise = owner.rows(self._draw(len(plain), random, self.noise_bits), len(plain))
        return self._batch(self._add(noise, plain))

    def add(self, a: Ciphertexts, b: Ciphertexts) -> Batch:
        left, right = self.own(a), self.own(b)
        if len(left) != len(right):
            raise BadInput("the batches have different lengths")
        return self._batch(self._ring.mul(left, right))

    def negate(self, a: Ciphertexts) -> Batch:
        return self._batch(self._ring.invert(self.own(a)))

    def subtract(self, a: Ciphertexts, b: Ciphertexts) -> Batch:
        return self.add(a, self.negate(b))

    def sums(self, a: Ciphertexts, index: Ints, starts: Ints) -> Batch:
        rows = self.own(a)
        check_segments(len(rows), index, starts)
        begin, end = int(starts[0]), int(starts[-1])
        return self._batch(self._ring.product(rows, np.ascontiguousarray(index[begin:end]), starts - begin))

    def shift(self, a: Ciphertexts, constant: int) -> Batch:
        return self._batch(self._ring.mul(self.own(a), self._ring.take(self._key.shift_factor(constant))))

    def add_plain(self, a: Ciphertexts, plain: Uints) -> Batch:
        rows = self.own(a)
        return self._batch(self._add(rows, self._plain(plain, len(rows))))

    def scale(self, a: Ciphertexts, factors: Uints) -> Batch:
        rows, factors = self.own(a), _check_plain(factors, len(a))
        used = np.flatnonzero(factors.any(axis=0))
        limbs = int(used[-1]) + 1 if len(used) else 1
        bits = 64 * (limbs - 1) + max(1, int(factors[:, limbs - 1].max(initial=0)).bit_length())
        exponents = np.ascontiguousarray(octets(factors)[:, : (bits + 7) // 8])
        return self._batch(self._ring.power(rows, exponents, bits))

    def matvec(self, matrix: SparseMatrix, vector: Ciphertexts) -> Batch:
        bases = self.own(vector)
        check_fits(matrix, len(bases))
        return self._batch(matvec(self._ring, matrix, bases))

    def mask(self, a: Ciphertexts, plain: Uints, random: RandomSource, *, noise_bits: int) -> Batch:
        rows = self.own(a)
        plain = self._plain(plain, len(rows))
        check_noise(noise_bits)
        return self._masked(self._add(rows, plain), random, noise_bits)

    def rerandomise(self, a: Ciphertexts, random: RandomSource, *, noise_bits: int) -> Batch:
        rows = self.own(a)
        check_noise(noise_bits)
        return self._masked(rows, random, noise_bits)

    def join(self, parts: Sequence[Ciphertexts]) -> Batch:
        return self._batch(np.concatenate([self.own(part) for part in parts]) if parts else self._ring.empty(0))

    def split(self, a: Ciphertexts, lengths: Sequence[int]) -> list[Ciphertexts]:
        rows, parts, start = self.own(a), list[Ciphertexts](), 0
        if sum(lengths) != len(rows) or min(lengths, default=0) < 0:
            raise BadInput("the lengths do not add up to the batch")
        for length in lengths:
            parts.append(self._batch(rows[start : start + length].copy()))
            start += length
        return parts

    def dump(self, a: Ciphertexts) -> bytes:
        return self._ring.dump(self.own(a)).tobytes()

    def load(self, data: memoryview, count: int) -> Batch:
        size = self.ciphertext_bytes
        check_bytes(data)
        if count < 0 or len(data) != count * size:
            raise BadInput("ciphertexts of another number or size")
        if not self._ring.holds(data, size, zero=False):
            raise BadInput("a ciphertext is out of range")
        rows = self._ring.load(data, size)
        starts = np.linspace(0, count, min(count, _LANES) + 1).astype(np.int64)
        product = gmpy2.mpz(1)
        for part in self._ring.numbers(self._ring.product(rows, np.arange(count, dtype=np.int64), starts)):
            product = product * part % self._ring.modulus
        if gmpy2.gcd(product, self._ring.modulus) != 1:
            raise BadInput("a ciphertext is not invertible")
        return self._batch(rows)

    def own(self, a: Ciphertexts) -> Uints:
        """The rows of a batch of this key and backend."""
        if not isinstance(a, Batch) or a.modulus != self._ring.modulus or a.core != self._ring.core:
            raise BadInput("ciphertexts of another key or backend")
        return a.rows

    def canonical(self, a: Ciphertexts) -> Octets:
        """Ciphertexts as little-endian bytes, uint8 of shape (count, ciphertext_bytes)."""
        return self._ring.dump(self.own(a))

    def _plain(self, plain: Uints, count: int | None = None) -> Uints:
        plain = _check_plain(plain, count)
        check_plain_bits(plain, self.plaintext_bits)
        return plain

    def _batch(self, rows: Uints) -> Batch:
        return Batch(rows, self._ring)

    def _draw(self, count: int, random: RandomSource, noise_bits: int) -> bytes:
        return random.bytes((noise_bits + 7) // 8 * count)

    def _masked(self, rows: Uints, random: RandomSource, noise_bits: int) -> Batch:
        size = (noise_bits + 7) // 8
        noise = self._draw(len(rows), random, noise_bits)
        return self._batch(self._noise.multiply(rows, noise, size=size, bits=8 * size) if len(rows) else rows)


def _check_plain(plain: Uints, count: int | None = None) -> Uints:
    check_batch(plain)
    if count is not None and len(plain) != count:
        raise BadInput("the batches have different lengths")
    return np.ascontiguousarray(plain, dtype="<u8")


class NativeTextbookKey(NativePublicKey):
    """HePublicKey whose noise is r^N for a fresh r."""

    square = TextbookPrimeSquare
    __slots__ = ()

    def _draw(self, count: int, random: RandomSource, noise_bits: int) -> bytes:
        del noise_bits  # r always has full length
        return draw_textbook(self.modulus_bits, count, random)

    def _masked(self, rows: Uints, random: RandomSource, noise_bits: int) -> Batch:
        if not len(rows):
            return self._batch(rows)
        drawn = self._draw(len(rows), random, noise_bits)
        noise = self._ring.combine((np.frombuffer(drawn, np.uint8).reshape(len(rows), -1), gmpy2.mpz(1)))
        noise = self._ring.power_public(noise, gmpy2.isqrt(self._ring.modulus))
        return self._batch(self._ring.mul(rows, noise))


class _Logarithm:
    """From ciphertexts to (c^(p-1) mod p^2 - 1) / p * inverse mod p, for one secret prime p.

    The exact division is a multiplication by 1/p modulo p + 2, which is odd, prime to p and larger than the quotient.
    """

    __slots__ = ("_exponent", "_inverse", "_over", "_square", "prime")

    def __init__(self, ring: ResidueRing, p: Mpz, inverse: Mpz) -> None:
        self._square = ring.beside(p * p)
        self._over = ring.beside(p + 2)
        self.prime = ring.beside(p)
        self._inverse = inverse
        self._exponent = int(p - 1).to_bytes(self.prime.size, "little")

    def wipe(self) -> None:
        for ring in (self._square, self._over, self.prime):
            ring.wipe()
        self._inverse = gmpy2.mpz(0)
        self._exponent = b""

    def __call__(self, ciphertexts: Octets) -> Octets:
        """uint8 (count, bytes) -> canonical residues mod p, uint8 (count, size of p)."""
        p = self.prime.modulus
        quotient = self.prime.logs(ciphertexts, self._exponent, int(gmpy2.bit_length(p)))
        if quotient is not None:
            return self.prime.dump(self.prime.combine((quotient, self._inverse)))
        powers = self._square.power(
            self._square.combine((ciphertexts, gmpy2.mpz(1))), self._exponent, gmpy2.bit_length(p)
        )
        by_p = gmpy2.invert(p, p + 2)
        one = np.ones((len(ciphertexts), 1), np.uint8)
        quotient = self._over.dump(self._over.combine((self._square.dump(powers), by_p), (one, -by_p)))
        return self.prime.dump(self.prime.combine((quotient, self._inverse)))


class OuSecretKey(SealedSecret):
    """HeSecretKey; decryption needs p alone."""

    __slots__ = ("_log", "_p", "public")
    _SECRETS = ("_log", "_p")

    def __init__(self, p: Mpz, g: Mpz, public: NativePublicKey) -> None:
        self.public: NativePublicKey = public
        self._p = p
        square = p * p
        unit = (gmpy2.powmod_sec(g % square, p - 1, square) - 1) // p
        self._log = _Logarithm(public.ring, p, gmpy2.invert(unit, p))

    def __repr__(self) -> str:
        return f"OuSecretKey({self.public.modulus_bits} bits)"

    def factors(self) -> tuple[int, int]:
        self.check_alive()
        return int(self._p), int(_numbers(self.public)[0] // (self._p * self._p))

    def decrypt(self, a: Ciphertexts) -> Uints:
        self.check_alive()
        return _limbs(self._log(self.public.canonical(a)), gmpy2.bit_length(self._p))


class PaillierSecretKey(SealedSecret):
    """HeSecretKey with the factors of N."""

    __slots__ = ("_factors", "_logs", "_n", "_noise", "_p_inverse", "public")
    _SECRETS = ("_factors", "_logs", "_noise", "_p_inverse")

    def __init__(self, p: Mpz, q: Mpz, public: NativePublicKey, *, leaking: bool) -> None:
        self.public: NativePublicKey = public
        left, right = (public.square(public.ring, f, p * q, public.noise_base, leaking=leaking) for f in (p, q))
        self._noise = OwnerNoise(public.ring, (left, right))
        self._factors = ((p,), (q,))
        self._n = public.ring.beside(p * q)
        self._p_inverse = gmpy2.invert(p, q)
        # (1+N)^(p-1) = 1 + (p-1) N mod p^2, and L_p of it is (p-1) q = -q mod p
        self._logs = tuple(_Logarithm(public.ring, f, gmpy2.invert(-(p * q // f) % f, f)) for f in (p, q))

    def __repr__(self) -> str:
        return f"PaillierSecretKey({self.public.modulus_bits} bits)"

    def factors(self) -> tuple[int, int]:
        self.check_alive()
        return int(self._factors[0][0]), int(self._factors[1][0])

    def encrypt(self, plain: Uints, random: RandomSource) -> Ciphertexts:
        self.check_alive()
        return self.public.encrypt_as(self._noise, plain, random)

    def decrypt(self, a: Ciphertexts) -> Uints:
        self.check_alive()
        data = self.public.canonical(a)
        left, right = (log(data) for log in self._logs)
        ring, p = self._logs[1].prime, self._logs[0].prime.modulus
        lift = ring.dump(ring.combine((right, self._p_inverse), (left, -self._p_inverse)))
        return _limbs(self._n.dump(self._n.combine((left, gmpy2.mpz(1)), (lift, p))), self.public.modulus_bits)


def _limbs(data: Octets, bits: int) -> Uints:
    """uint8 (count, size) to a plain batch that covers `bits`."""
    size = 8 * ((bits + 63) // 64)
    padded = np.pad(data, ((0, 0), (0, size - data.shape[1])))
    return np.ascontiguousarray(padded).view("<u8").astype(np.uint64).reshape(len(data), size // 8)


class OkamotoUchiyama(reference.OkamotoUchiyama):
    """AdditiveHE on one native core.

    cache_leaking_tables: fixed-base tables indexed by secret digits; about twice as fast, for a machine whose cache
    nobody else shares.
    """

    def __init__(
        self, core: str, *, insecure_min_bits: int = 2048, cache_leaking_tables: bool = False, threads: int = 1
    ) -> None:
        super().__init__(insecure_min_bits=insecure_min_bits)
        self.name = core
        self._leaking = cache_leaking_tables
        self._threads = check_threads(threads)

    def from_factors(self, p: int, q: int, base: int) -> HeSecretKey:
        prime, g = gmpy2.mpz(p), gmpy2.mpz(base)
        key = super().from_factors(p, q, base).public
        return OuSecretKey(prime, g, self._native(key, g))

    def load_public(self, data: memoryview) -> HePublicKey:
        key = super().load_public(data)
        return self._native(key, _numbers(key)[1])

    def _native(self, key: HePublicKey, g: Mpz) -> NativePublicKey:
        assert isinstance(key, GroupPublicKey)  # noqa: S101  # that is what the reference makes
        ring = ResidueRing(self.name, key.modulus, threads=self._threads)
        base = FixedBase(ring, g, leaking=self._leaking)

        def add(a: Uints, plain: Uints) -> Uints:
            size = 8 * plain.shape[1]
            if not len(plain):
                return ring.empty(0)
            return base.multiply(a, plain, size=size, bits=min(8 * size, key.plaintext_bits))

        return NativePublicKey(key, ring, add, leaking=self._leaking)


class Paillier(reference.Paillier):
    """AdditiveHE on one native core; see OkamotoUchiyama."""

    _public: type[NativePublicKey] = NativePublicKey

    def __init__(
        self, core: str, *, insecure_min_bits: int = 2048, cache_leaking_tables: bool = False, threads: int = 1
    ) -> None:
        super().__init__(insecure_min_bits=insecure_min_bits)
        self.name = core
        self._leaking = cache_leaking_tables
        self._threads = check_threads(threads)

    def from_factors(self, p: int, q: int, base: int) -> HeSecretKey:
        key = super().from_factors(p, q, base).public
        public = self._native(key, gmpy2.mpz(p) * q)
        return PaillierSecretKey(gmpy2.mpz(p), gmpy2.mpz(q), public, leaking=self._leaking)

    def load_public(self, data: memoryview) -> HePublicKey:
        key = super().load_public(data)
        return self._native(key, _numbers(key)[0])

    def _native(self, key: HePublicKey, n: Mpz) -> NativePublicKey:
        assert isinstance(key, GroupPublicKey)  # noqa: S101  # that is what the reference makes
        ring = ResidueRing(self.name, key.modulus, root=n, threads=self._threads)
        return self._public(key, ring, lambda a, plain: ring.affine(a, plain, n, len(plain)), leaking=self._leaking)


class TextbookPaillier(Paillier, reference.TextbookPaillier):
    """AdditiveHE on one native core; there is no fixed base, hence no table."""

    _public = NativeTextbookKey

    def __init__(self, core: str, *, insecure_min_bits: int = 2048, threads: int = 1) -> None:
        super().__init__(core, insecure_min_bits=insecure_min_bits, threads=threads)


def _numbers(key: HePublicKey) -> list[Mpz]:
    """Modulus and base as they stand in a key's serialised form."""
    data = key.to_bytes()
    size = (key.modulus_bits + 7) // 8
    return [gmpy2.mpz(int.from_bytes(data[i : i + size], "little")) for i in range(4, len(data), size)]
