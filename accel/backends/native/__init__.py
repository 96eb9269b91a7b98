"""The backend in C (accel/csrc): eight AVX512-IFMA lanes, or plain C on 64-bit limbs; the caller names the core.

What is constant in time and what is not stands in accel/notes. Loading this package needs the extension
`accel._native`; whether it is there is asked by accel.registry.
"""

from accel.backends.native.group25519 import NativeGroup25519
from accel.backends.native.hashing import NativeDigest
from accel.backends.native.masks import NativeMasks
from accel.backends.native.power import NativePower
from accel.backends.native.prime_curve import NativeCurve
from accel.backends.native.ring128 import NativeRing128
from accel.backends.native.ring_matrices import NativeRingMatrices
from accel.backends.native.schemes import OkamotoUchiyama, Paillier, TextbookPaillier
from accel.backends.native.x25519 import NativeX25519

__all__ = [
    "NativeCurve", "NativeDigest", "NativeGroup25519", "NativeMasks", "NativePower", "NativeRing128",
    "NativeRingMatrices", "NativeX25519", "OkamotoUchiyama", "Paillier", "TextbookPaillier",
]  # fmt: skip
