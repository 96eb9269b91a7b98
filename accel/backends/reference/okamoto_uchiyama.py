"""Okamoto and Uchiyama, "A New Public-Key Cryptosystem as Secure as Factoring", EUROCRYPT 1998.

n = p^2 q; a message m < p is encrypted as g^m h^r mod n with h = g^n mod n. One-way under factoring n = p^2 q,
semantically secure under the p-subgroup assumption. r is short (256 bits): h^r is then taken for a random power under
the short-exponent discrete logarithm assumption (Koshiba and Kurosawa, PKC 2004), at twice the 128 bits aimed for.
"""

from typing import Final

import gmpy2

from accel.backends.reference.group import GroupPublicKey, pack_key, unpack_key
from accel.backends.reference.modular import (
    FixedBase,
    Mpz,
    check_modulus,
    check_unit,
    random_below,
    random_prime,
    to_limbs,
)
from accel.backends.reference.sealed import SealedSecret, open_sealed
from accel.kernels import BadInput, Ciphertexts, HePublicKey, HeSecretKey, RandomSource, Uints

_TAG: Final = 1
NOISE_BITS: Final = 256


class OuSecretKey(SealedSecret):
    """HeSecretKey; decryption needs p alone."""

    __slots__ = ("_inverse", "_p", "_p_squared", "public")
    _SECRETS = ("_inverse", "_p", "_p_squared")

    def __init__(self, p: Mpz, g: Mpz, public: GroupPublicKey) -> None:
        self.public: GroupPublicKey = public
        self._p = p
        self._p_squared = p * p
        self._inverse = gmpy2.invert(self._log(gmpy2.powmod(g, p - 1, self._p_squared)), p)

    def __repr__(self) -> str:
        return f"OuSecretKey({self.public.modulus_bits} bits)"

    def factors(self) -> tuple[int, int]:
        self.check_alive()
        return int(self._p), int(self.public.modulus // self._p_squared)

    def decrypt(self, a: Ciphertexts) -> Uints:
        self.check_alive()
        reduced = [c % self._p_squared for c in self.public._own(a)]  # noqa: SLF001  # the two halves of one key
        powers = gmpy2.powmod_base_list(reduced, self._p - 1, self._p_squared)  # releases the GIL
        return to_limbs([self._log(x) * self._inverse % self._p for x in powers], gmpy2.bit_length(self._p))

    def _log(self, x: Mpz) -> Mpz:
        return (x - 1) // self._p


class OkamotoUchiyama:
    """AdditiveHE. `insecure_min_bits` below 2048 is for tests and known answers."""

    scheme = "ou"
    name = "reference"

    def __init__(self, *, insecure_min_bits: int = 2048, cache_leaking_tables: bool = False, threads: int = 1) -> None:
        del cache_leaking_tables, threads
        self._min_bits = insecure_min_bits

    def __repr__(self) -> str:
        return f"OkamotoUchiyama(min_bits={self._min_bits})"

    def generate(self, bits: int, random: RandomSource) -> HeSecretKey:
        if not isinstance(bits, int) or not self._min_bits <= bits <= 8192:
            raise BadInput(f"a modulus of {self._min_bits} to 8192 bits")
        size = _prime_bits(bits)
        while True:
            p = random_prime(size, random)
            q = random_prime(bits - 2 * size, random)
            n = p * p * q
            if p != q and gmpy2.bit_length(n) == bits and gmpy2.gcd(n, (p - 1) * (q - 1)) == 1:
                break
        while True:
            g = 2 + random_below(n - 3, random)
            if gmpy2.gcd(g, n) == 1 and gmpy2.powmod(g, p - 1, p * p) != 1:
                return self.from_factors(p, q, g)

    def from_factors(self, p: int, q: int, base: int) -> HeSecretKey:
        """A key from its parts, for known answers; they are not checked."""
        prime, g = gmpy2.mpz(p), gmpy2.mpz(base)
        return OuSecretKey(prime, g, _public(prime * prime * q, g))

    def load_secret(self, data: memoryview, passphrase: bytes) -> HeSecretKey:
        return self.from_factors(*open_sealed(data, passphrase, _TAG))

    def load_public(self, data: memoryview) -> HePublicKey:
        bits, (n, g) = unpack_key(data, _TAG, 2)
        check_modulus(n, bits, self._min_bits)
        check_unit(g, n)
        check_unit(gmpy2.powmod(g, n, n), n)
        return _public(n, g)


def _prime_bits(bits: int) -> int:
    """Length of p; q is of about equal size, and shorter where bits is no multiple of three."""
    return (bits + 2) // 3


def _public(n: Mpz, g: Mpz) -> GroupPublicKey:
    bits = gmpy2.bit_length(n)
    return GroupPublicKey(
        scheme="ou",
        modulus_bits=bits,
        # p has _prime_bits(bits) bits and its two top bits set, so every integer below 2^(size-1) is below p.
        plaintext_bits=_prime_bits(bits) - 1,
        noise_bits=NOISE_BITS,
        modulus=n,
        message=FixedBase(g, n).multiply,
        noise=gmpy2.powmod(g, n, n),
        header=pack_key(_TAG, bits, [n, g]),
    )
