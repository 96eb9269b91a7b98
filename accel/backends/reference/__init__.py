"""The backend that is always there and that all others are compared with: gmpy2 and numpy.

Not constant in time: tables are indexed by secret digits and gmpy2's powers depend on their operands. It is meant for a
machine that its owner does not share with strangers.
"""

from accel.backends.reference.group25519 import IntegerGroup25519
from accel.backends.reference.hashing import HashlibDigest
from accel.backends.reference.masks import OpensslMasks
from accel.backends.reference.okamoto_uchiyama import OkamotoUchiyama
from accel.backends.reference.paillier import Paillier, TextbookPaillier
from accel.backends.reference.power import GmpPower
from accel.backends.reference.prime_curve import IntegerCurve
from accel.backends.reference.ring128 import NumpyRing128
from accel.backends.reference.ring_matrices import NumpyRingMatrices
from accel.backends.reference.x25519 import OpensslX25519

__all__ = [
    "GmpPower", "HashlibDigest", "IntegerCurve", "IntegerGroup25519", "NumpyRing128", "NumpyRingMatrices",
    "OkamotoUchiyama", "OpensslMasks", "OpensslX25519", "Paillier", "TextbookPaillier",
]  # fmt: skip
