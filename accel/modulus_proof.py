"""A zero-knowledge proof that a modulus is a Paillier-Blum modulus: N = p q for two primes that are 3 modulo 4, and
gcd(N, phi(N)) = 1.

The protocol is Pi^mod of Canetti, Gennaro, Goldfeder, Makriyannis and Peled (CCS 2020, eprint 2021/060, figure 16),
after van de Graaf and Peralta (CRYPTO 1987); made non-interactive by SHA-256 over N, w and a context. For each of
ROUNDS random y the prover shows an N-th root of y and a fourth root of one of y, -y, w y, -w y.

Who learns what: the verifier learns that N has this form, and nothing else of p and q. A prover whose N has not
convinces it with a probability of at most 2^-ROUNDS a try, so many tries it must hash. Encryption under a proven N is a
bijection. The proof says nothing of the size or the quality of the primes, nor of the base h of a DJN key.
"""

import hashlib
from typing import Any, Final

import gmpy2

from accel.kernels import BadInput, HePublicKey, HeSecretKey, RandomSource, check_bytes

ROUNDS: Final = 80
_FORM: Final = 1
_LABEL: Final = b"interconn Paillier-Blum modulus proof"


def prove(secret: HeSecretKey, random: RandomSource, *, context: bytes = b"") -> bytes:
    """A proof for the modulus of a "paillier" key made here (or of any whose primes are both 3 modulo 4), bound to
    `context`: the names of session and parties, so that it cannot be used elsewhere. Depends in time on the primes:
    made once for a key, on its owner's machine.
    """
    n = _modulus(secret.public)
    p, q = (gmpy2.mpz(v) for v in secret.factors())
    if p % 4 != 3 or q % 4 != 3 or p == q or gmpy2.gcd(n, (p - 1) * (q - 1)) != 1:
        raise BadInput("this modulus is none that can be proven")
    size = _size(n)
    w = _no_residue(n, random)
    root_of_n = gmpy2.invert(n, (p - 1) * (q - 1))
    parts = [int(w).to_bytes(size, "little")]
    for y in _challenges(n, w, context):
        z = gmpy2.powmod(y, root_of_n, n)
        a, b, x = _fourth_root(y, w, p, q)
        parts += [bytes([a << 1 | b]), int(x).to_bytes(size, "little"), int(z).to_bytes(size, "little")]
    return bytes([_FORM]) + b"".join(parts)


def verify(key: HePublicKey, proof: memoryview, *, context: bytes = b"") -> None:
    """Raises BadInput unless the proof convinces of this key's modulus in this context. Costs 80 powers modulo N."""
    check_bytes(proof)
    n = _modulus(key)
    size = _size(n)
    each = 1 + 2 * size
    if len(proof) != 1 + size + ROUNDS * each or proof[0] != _FORM:
        raise BadInput("not a modulus proof of this form")
    w = _number(proof[1 : 1 + size])
    if gmpy2.is_even(n) or gmpy2.is_prime(n, 25) or not 0 < w < n or gmpy2.jacobi(w, n) != -1:
        raise BadInput("the modulus proof does not hold")
    for i, y in enumerate(_challenges(n, w, context)):
        part = proof[1 + size + i * each : 1 + size + (i + 1) * each]
        flags, x, z = part[0], _number(part[1 : 1 + size]), _number(part[1 + size :])
        if flags > 3 or not (0 < x < n and 0 < z < n):
            raise BadInput("the modulus proof does not hold")
        wanted = (-1 if flags >> 1 else 1) * (w if flags & 1 else 1) * y % n
        if gmpy2.powmod(z, n, n) != y or gmpy2.powmod(x, 4, n) != wanted:
            raise BadInput("the modulus proof does not hold")


def _modulus(key: HePublicKey) -> Any:
    if not key.scheme.startswith("paillier"):
        raise BadInput("the proof is for Paillier's moduli")
    return gmpy2.mpz(int.from_bytes(key.to_bytes()[4 : 4 + (key.modulus_bits + 7) // 8], "little"))


def _size(n: Any) -> int:
    return (int(gmpy2.bit_length(n)) + 7) // 8


def _number(data: memoryview) -> Any:
    return gmpy2.mpz(int.from_bytes(data, "little"))


def _no_residue(n: Any, random: RandomSource) -> Any:
    while True:
        w = _number(memoryview(random.bytes(_size(n) + 16))) % n
        if gmpy2.jacobi(w, n) == -1:
            return w


def _challenges(n: Any, w: Any, context: bytes) -> list[Any]:
    """ROUNDS numbers modulo N, nearly uniform: 128 bits more than N each."""
    check_bytes(context)
    size = _size(n)
    seed = hashlib.sha256(
        _LABEL + bytes([_FORM]) + hashlib.sha256(context).digest() + int(n).to_bytes(size, "little")
        + int(w).to_bytes(size, "little")
    ).digest()  # fmt: skip
    blocks = -(-(size + 16) // 32)
    found = []
    for i in range(ROUNDS):
        data = b"".join(hashlib.sha256(seed + (i * blocks + j).to_bytes(4, "little")).digest() for j in range(blocks))
        found.append(gmpy2.mpz(int.from_bytes(data, "little")) % n)
    return found


def _fourth_root(y: Any, w: Any, p: Any, q: Any) -> tuple[int, int, Any]:
    """The signs (a, b) that make (-1)^a w^b y a square modulo both primes, and a fourth root of it."""
    for b in (0, 1):
        for a in (0, 1):
            value = (-1 if a else 1) * (w if b else 1) * y
            if gmpy2.legendre(value, p) != -1 and gmpy2.legendre(value, q) != -1:
                # Modulo a prime of 3 mod 4 the square root (p+1)/4 of a square is a square again.
                left, right = (gmpy2.powmod(value, ((prime + 1) // 4) ** 2, prime) for prime in (p, q))
                return a, b, left + p * ((right - left) * gmpy2.invert(p, q) % q)
    raise BadInput("this modulus is none that can be proven")
