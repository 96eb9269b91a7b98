"""The backend in C (accel/csrc): eight AVX512-IFMA lanes, or plain C on 64-bit limbs; the caller names the core.

What is constant in time and what is not stands in accel/notes/montgomery.md. Loading this package needs the extension
`accel._native`; whether it is there is asked by accel.registry.
"""

from collections.abc import Callable, Mapping
from typing import Final

from accel.backends.native.schemes import OkamotoUchiyama, Paillier
from accel.kernels import AdditiveHE

SCHEMES: Final[Mapping[str, Callable[..., AdditiveHE]]] = {"ou": OkamotoUchiyama, "paillier": Paillier}

__all__ = ["SCHEMES", "OkamotoUchiyama", "Paillier"]
