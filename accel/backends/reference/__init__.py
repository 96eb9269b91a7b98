"""The backend that is always there and that all others are compared with: gmpy2 and numpy.

Not constant in time: tables are indexed by secret digits and gmpy2's powers depend on their operands. It is meant for a
machine that its owner does not share with strangers.
"""

from accel.backends.reference.okamoto_uchiyama import OkamotoUchiyama
from accel.backends.reference.paillier import Paillier
from accel.backends.reference.ring128 import NumpyRing128

__all__ = ["NumpyRing128", "OkamotoUchiyama", "Paillier"]
