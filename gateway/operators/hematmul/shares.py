"""Two-party products of one side's plaintext matrix with the other side's secret vector, into additive shares.

The *owner* holds a key pair and a ring vector v, the *evaluator* a sparse integer matrix X. The owner sends [[v]]; the
evaluator computes [[X v]] from it, adds a mask R and fresh noise, keeps -R mod 2^128 as its share, and sends the rest
back; the owner decrypts X v + R and keeps it mod 2^128. This is the secure sparse matrix multiplication of CAESAR (Chen
et al., KDD 2021), generalised to any linear function of the ciphertexts by `Bounds`.

Functionality: the two get uniformly random shares of X v mod 2^128. The owner learns nothing else about X, the
evaluator nothing else about v. Adversary: semi-honest; the evaluator bounded by the scheme's assumption, the owner
unbounded, since it is held off statistically, twice. Both rest on the owner having encrypted ring elements with noise
of the usual length, which the evaluator cannot see: an owner that deviates learns X, unnoticed.

- *plaintext*. |X v| < 2^b over the integers, since v is represented in [0, 2^128). R = 2^b + U with U uniform in
  [0, 2^(b + STATISTICAL_BITS)): the decrypted integer is within 2^-STATISTICAL_BITS of one that does not depend on X.
- *noise*. The owner knows the noise exponents of the ciphertexts it sent and, being able to take discrete logarithms
  with the factors at hand, the one of the ciphertext it gets back; without care that is sum_j X_ij * noise_j, a linear
  equation in X. The evaluator therefore adds fresh noise, uniform in [0, 2^(n + g + STATISTICAL_BITS)), where n is the
  length of a fresh noise and 2^g bounds sum_j |X_ij|: again within 2^-STATISTICAL_BITS.

b and g come from public sizes only (never from the entries). Leaves sending and turn-taking to the operators.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from accel.kernels import (
    RING_BITS,
    BadInput,
    Ciphertexts,
    HePublicKey,
    HeSecretKey,
    RandomSource,
    Ring128,
    Uints,
)
from gateway.errors import CallerError, ProtocolViolation

STATISTICAL_BITS: Final = 64
"""Statistical distance of each masked value from one that tells nothing: 2^-64."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Public bounds of a linear function of encrypted ring elements.

    product_bits: its value is below 2^product_bits in size, as an integer. gain_bits: the noise grows by less than
    2^gain_bits.
    """

    product_bits: int
    gain_bits: int

    @classmethod
    def of_product(cls, *, entry_bits: int, terms: int) -> "Bounds":
        """For a sum of `terms` products of an entry below 2^entry_bits in size and a ring element."""
        gain = entry_bits + max(terms - 1, 0).bit_length()
        return cls(RING_BITS + gain, gain)

    @property
    def plaintext_bits(self) -> int:
        """Every honest masked value is a non-negative integer below 2^plaintext_bits."""
        return self.product_bits + STATISTICAL_BITS + 1

    def noise_bits(self, public: HePublicKey) -> int:
        return public.noise_bits + self.gain_bits + STATISTICAL_BITS


def require_room(public: HePublicKey, bounds: Bounds) -> None:
    """Raise CallerError where the key's plaintexts are too short for a masked value."""
    if public.plaintext_bits < bounds.plaintext_bits:
        raise CallerError(f"a {public.modulus_bits}-bit {public.scheme} key has too little room for these sizes")


def encrypt_share(secret: HeSecretKey, share: Uints, random: RandomSource) -> bytes:
    """The owner's message: its ring vector under its own key."""
    return secret.public.dump(secret.encrypt(share, random))


def load_share(public: HePublicKey, payload: memoryview, count: int) -> Ciphertexts:
    """The evaluator's reading of it: exactly `count` valid ciphertexts, or ProtocolViolation."""
    try:
        return public.load(payload, count)
    except BadInput as bad:
        raise ProtocolViolation(str(bad)) from bad


def mask(
    public: HePublicKey, product: Ciphertexts, bounds: Bounds, ring: Ring128, random: RandomSource
) -> tuple[Uints, bytes]:
    """The evaluator's share of the product and its message to the owner, hidden as the module says."""
    offset = _masks(len(product), bounds, random)
    masked = public.mask(product, offset, random, noise_bits=bounds.noise_bits(public))
    return ring.neg(np.ascontiguousarray(offset[:, :2])), public.dump(masked)


def open_share(secret: HeSecretKey, payload: memoryview, count: int, bounds: Bounds) -> Uints:
    """The owner's share.

    Raises ProtocolViolation for anything but `count` ciphertexts of this key whose plaintexts lie where honest ones do;
    a damaged ciphertext decrypts to a random residue and is caught here.
    """
    plain = secret.decrypt(load_share(secret.public, payload, count))
    whole, rest = divmod(bounds.plaintext_bits, 64)
    above = plain[:, whole:].copy()
    if above.shape[1]:
        above[:, 0] >>= np.uint64(rest)
    if above.any():
        raise ProtocolViolation("a masked value lies outside its bounds")
    return np.ascontiguousarray(plain[:, :2])


def _masks(count: int, bounds: Bounds, random: RandomSource) -> Uints:
    """2^product_bits + U, U uniform in [0, 2^(product_bits + STATISTICAL_BITS)), as a plain batch."""
    bits = bounds.product_bits + STATISTICAL_BITS
    limbs = bits // 64 + 1
    masks = np.frombuffer(random.bytes(8 * limbs * count), dtype="<u8").astype(np.uint64).reshape(count, limbs)
    masks[:, -1] &= np.uint64((1 << bits % 64) - 1)
    whole, rest = divmod(bounds.product_bits, 64)
    low = masks[:, whole].copy()
    masks[:, whole] += np.uint64(1 << rest)
    carry = masks[:, whole] < low
    for limb in range(whole + 1, limbs):
        masks[:, limb] += carry.astype(np.uint64)
        carry &= masks[:, limb] == 0
    return masks
