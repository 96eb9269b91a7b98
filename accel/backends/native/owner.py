"""The noise of Paillier's ciphertexts, made by who knows p and q: modulo p^2 and q^2, each at a quarter of the work
modulo N^2, joined by the Chinese remainder theorem. It is distributed as that of the public key.

Constant time as the public key's encryption, but for the constants, which gmpy2 computes once for a key. The tables
depend on the primes: they are wiped with the key.
"""

import gmpy2
import numpy as np

from accel.backends.native.residues import FixedBase, Octets, ResidueRing
from accel.backends.reference.modular import Mpz
from accel.kernels import Uints


class PrimeSquare:
    """Residues modulo f^2 for a prime factor f of N, where noise is a short power of one base: the same that the public
    key makes of the same bytes.
    """

    __slots__ = ("_base", "_prime", "_ring", "_unit")

    def __init__(self, ring: ResidueRing, f: Mpz, n: Mpz, noise: Mpz, *, leaking: bool) -> None:
        """Takes the ring modulo N^2 and the base there."""
        square, rest = f * f, (n // f) ** 2
        self._ring = ring.beside(square, root=f)
        self._prime = f
        self._unit = rest * gmpy2.invert(rest, square)  # 1 modulo f^2, 0 modulo the other square
        self._base = FixedBase(self._ring, noise, leaking=leaking)

    def wipe(self) -> None:
        """Overwrites tables and constants; gmpy2's integers are released."""
        self._base.wipe()
        self._ring.wipe()
        self._prime = self._unit = gmpy2.mpz(0)

    def term(self, drawn: bytes, size: int) -> tuple[Octets, Mpz]:
        """The noise of `size` drawn bytes each, as a term of ResidueRing.combine modulo N^2."""
        return self._ring.dump(self._noise(self._ring, drawn, size)), self._unit

    def _noise(self, ring: ResidueRing, drawn: bytes, size: int) -> Uints:
        return self._base.multiply(ring.one, drawn, size=size, bits=8 * size)


class TextbookPrimeSquare(PrimeSquare):
    """With noise r^f in the place of r^N: N / f is prime to f - 1, so r^(N / f) is as uniform modulo f as r, and the
    power f of a number modulo f^2 depends on it modulo f alone.
    """

    __slots__ = ()

    def _noise(self, ring: ResidueRing, drawn: bytes, size: int) -> Uints:
        r = ring.combine((np.frombuffer(drawn, np.uint8).reshape(-1, size), gmpy2.mpz(1)))
        bits = int(gmpy2.bit_length(self._prime))
        return ring.power(r, int(self._prime).to_bytes((bits + 7) // 8, "little"), bits)


class OwnerNoise:
    """Of one key pair, modulo N^2."""

    __slots__ = ("_ring", "_squares")

    def __init__(self, ring: ResidueRing, squares: tuple[PrimeSquare, PrimeSquare]) -> None:
        self._ring = ring
        self._squares = squares

    def wipe(self) -> None:
        for square in self._squares:
            square.wipe()

    def rows(self, drawn: bytes, count: int) -> Uints:
        """Of so many ciphertexts, each with its part of the drawn bytes."""
        if not count:
            return self._ring.empty(0)
        terms = [square.term(drawn, len(drawn) // count) for square in self._squares]
        rows = self._ring.combine(*terms)
        for noise, _ in terms:
            noise[...] = 0  # with the ciphertext it gives the prime away
        return rows
