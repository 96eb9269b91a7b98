"""Paillier, EUROCRYPT 1999: as published ("paillier-textbook": c = (1+N)^m r^N mod N^2, r random modulo N), and in the
variant of Damgard, Jurik and Nielsen with short exponents (IJIS 9(6), 2010; "paillier").

DJN: N = p q with p = q = 3 mod 4 and gcd(p-1, q-1) = 2; a message m < N is encrypted as (1+N)^m * (h^N)^r mod N^2 with
h = -x^2 mod N. r has 448 bits, four times the 112 bits of a 2048-bit modulus, under the short-exponent assumption in
that subgroup; the paper's own choice is half the modulus. The owner decrypts both by CRT modulo p^2 and q^2.
"""

from typing import Final

import gmpy2

from accel.backends.reference.group import GroupPublicKey, check_noise, pack_key, unpack_key
from accel.backends.reference.modular import (
    Mpz,
    Residues,
    check_modulus,
    check_unit,
    random_below,
    random_prime,
    to_limbs,
    to_mpz,
)
from accel.backends.reference.sealed import SealedSecret, open_sealed
from accel.kernels import BadInput, Ciphertexts, HePublicKey, HeSecretKey, RandomSource, Uints

_TAG: Final = 2
_TEXTBOOK: Final = 3
_EXTRA_BITS: Final = 128
"""An r drawn this much longer than N is uniform modulo N but for 2^-128."""
NOISE_BITS: Final = 448


class PaillierSecretKey(SealedSecret):
    """HeSecretKey with the factors of N."""

    __slots__ = ("_factors", "_p_inverse", "public")
    _SECRETS = ("_factors", "_p_inverse")

    def __init__(self, p: Mpz, q: Mpz, public: GroupPublicKey) -> None:
        self.public: GroupPublicKey = public
        n = p * q
        self._p_inverse = gmpy2.invert(p, q)
        # (1+N)^(p-1) = 1 + (p-1) N mod p^2, and L_p of it is (p-1) q = -q mod p
        self._factors = tuple((f, f * f, gmpy2.invert(-(n // f) % f, f)) for f in (p, q))

    def __repr__(self) -> str:
        return f"PaillierSecretKey({self.public.modulus_bits} bits)"

    def factors(self) -> tuple[int, int]:
        self.check_alive()
        return int(self._factors[0][0]), int(self._factors[1][0])

    def decrypt(self, a: Ciphertexts) -> Uints:
        self.check_alive()
        values = self.public._own(a)  # noqa: SLF001  # the two halves of one key
        halves = []
        for factor, square, inverse in self._factors:
            powers = gmpy2.powmod_base_list([c % square for c in values], factor - 1, square)  # releases the GIL
            halves.append([(x - 1) // factor * inverse % factor for x in powers])
        (p, _, _), (q, _, _) = self._factors
        messages = [a + (b - a) * self._p_inverse % q * p for a, b in zip(*halves, strict=True)]
        return to_limbs(messages, self.public.modulus_bits)


class Paillier:
    """AdditiveHE. `insecure_min_bits` below 2048 is for tests and known answers."""

    scheme = "paillier"
    name = "reference"

    def __init__(self, *, insecure_min_bits: int = 2048, cache_leaking_tables: bool = False, threads: int = 1) -> None:
        del cache_leaking_tables, threads
        self._min_bits = insecure_min_bits

    def __repr__(self) -> str:
        return f"{type(self).__name__}(min_bits={self._min_bits})"

    def generate(self, bits: int, random: RandomSource) -> HeSecretKey:
        if not isinstance(bits, int) or not self._min_bits <= bits <= 8192 or bits % 2:
            raise BadInput(f"a modulus of an even number of {self._min_bits} to 8192 bits")
        half = bits // 2
        p = random_prime(half, random, suits=lambda x: x % 4 == 3)
        while True:
            q = random_prime(half, random, suits=lambda x: x % 4 == 3)
            # FIPS 186-5 A.1.3 step 5.4: the factors must not lie close together.
            if abs(p - q) >> max(half - 100, 1) and gmpy2.gcd(p - 1, q - 1) == 2:
                break
        return self.from_factors(p, q, self._base(p * q, random))

    def _base(self, n: Mpz, random: RandomSource) -> Mpz:
        while True:
            x = 2 + random_below(n - 3, random)
            if gmpy2.gcd(x, n) == 1:
                return -x * x % n

    def from_factors(self, p: int, q: int, base: int) -> HeSecretKey:
        """A key from its parts, for known answers; they are not checked."""
        left, right = gmpy2.mpz(p), gmpy2.mpz(q)
        return PaillierSecretKey(left, right, _public(left * right, gmpy2.mpz(base)))

    def load_secret(self, data: memoryview, passphrase: bytes) -> HeSecretKey:
        return self.from_factors(*open_sealed(data, passphrase, _TAG))

    def load_public(self, data: memoryview) -> HePublicKey:
        bits, (n, h) = unpack_key(data, _TAG, 2)
        check_modulus(n, bits, self._min_bits)
        check_unit(h, n)
        if n % 4 != 1 or gmpy2.jacobi(h, n) != 1:
            raise BadInput("the modulus or the base is not of the form the scheme asks for")
        return _public(n, h)


def _public(n: Mpz, h: Mpz) -> GroupPublicKey:
    bits = gmpy2.bit_length(n)
    square = n * n

    def message(c: Mpz, m: bytes) -> Mpz:
        return c * (1 + to_mpz(m) * n) % square

    return GroupPublicKey(
        scheme="paillier",
        modulus_bits=bits,
        plaintext_bits=bits - 1,
        noise_bits=NOISE_BITS,
        modulus=square,
        message=message,
        noise=gmpy2.powmod(h, n, square),
        header=pack_key(_TAG, bits, [n, h]),
    )


class TextbookPublicKey(GroupPublicKey):
    """HePublicKey whose noise is r^N for a fresh r: the key is N alone."""

    __slots__ = ()

    def _masked(self, values: list[Mpz], rows: list[bytes], random: RandomSource, noise_bits: int) -> Residues:
        check_noise(noise_bits)
        drawn = draw_textbook(self.modulus_bits, len(values), random)
        size = len(drawn) // len(values) if values else 1
        modulus, n = self.modulus, gmpy2.isqrt(self.modulus)
        return self._batch(
            [
                self._message(x, m) * gmpy2.powmod(to_mpz(drawn[i * size : (i + 1) * size]), n, modulus) % modulus
                for i, (x, m) in enumerate(zip(values, rows, strict=True))
            ]
        )


def draw_textbook(bits: int, count: int, random: RandomSource) -> bytes:
    """`count` numbers of (bits + 128) bits: r and a multiple of N, which does not change r^N modulo N^2."""
    return random.bytes((bits + _EXTRA_BITS + 7) // 8 * count)


class TextbookPaillier(Paillier):
    """AdditiveHE with r^N."""

    scheme = "paillier-textbook"

    def from_factors(self, p: int, q: int, base: int) -> HeSecretKey:  # noqa: ARG002  # there is no base
        left, right = gmpy2.mpz(p), gmpy2.mpz(q)
        return PaillierSecretKey(left, right, _textbook(left * right))

    def load_secret(self, data: memoryview, passphrase: bytes) -> HeSecretKey:
        return self.from_factors(*open_sealed(data, passphrase, _TEXTBOOK))

    def load_public(self, data: memoryview) -> HePublicKey:
        bits, (n,) = unpack_key(data, _TEXTBOOK, 1)
        check_modulus(n, bits, self._min_bits)
        return _textbook(n)

    def _base(self, n: Mpz, random: RandomSource) -> Mpz:  # noqa: ARG002
        return gmpy2.mpz(1)


def _textbook(n: Mpz) -> TextbookPublicKey:
    bits = gmpy2.bit_length(n)
    square = n * n
    return TextbookPublicKey(
        scheme="paillier-textbook",
        modulus_bits=bits,
        plaintext_bits=bits - 1,
        noise_bits=bits + _EXTRA_BITS,
        modulus=square,
        message=lambda c, m: c * (1 + to_mpz(m) * n) % square,
        noise=gmpy2.mpz(1),
        header=pack_key(_TEXTBOOK, bits, [n]),
    )
