"""What the kernels are meant to reach, and whether a run did.

One line for each line of the project's table of aims: on a CPU with AVX512-IFMA, one core unless said, as ratios to a
named rival of the same run. Where several rivals fit a line, or one in several versions, the fastest of them counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from accel.bench.measure import Result

IFMA: Final = "avx512ifma"
LEAKING: Final = f"{IFMA}, cache-leaking tables"
PORTABLE: Final = "portable"
_OPENSSL: Final = ("cryptography *", "openssl *")
_SIZES: Final = (2048, 3072, 4096, 6144)


class Met(StrEnum):
    """How a line came out; a line of several kernels as its worst."""

    AIM = "aim met"
    LEAST = "met"
    MISSED = "missed"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True)
class Target:
    """kernels: which count for it, each with the word for it within the line. rivals: patterns of their names. least or
    aim may be None where nothing is asked.
    """

    line: str
    kernels: Mapping[str, str]
    ours: str
    rivals: Sequence[str]
    least: float | None
    aim: float | None

    def covers(self, result: Result) -> bool:
        return (
            result.kernel in self.kernels
            and result.ours == self.ours
            and any(fnmatchcase(result.rival or "", pattern) for pattern in self.rivals)
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """found: kernel to the ratio to its fastest rival; a kernel without one is missing."""

    target: Target
    found: Mapping[str, float]
    met: Met


def _modexp(kind: str, ours: str, rival: str, least: float, aim: float) -> Target:
    kernels = {f"modexp {bits}, {kind} exponent": str(bits) for bits in _SIZES}
    return Target(f"modexp, {kind} exponent", kernels, ours, (f"gmpy2 * {rival}",), least, aim)


def _scalars(curve: str) -> Mapping[str, str]:
    return {f"{curve}, one scalar": "one scalar", f"{curve}, one scalar each": "one each"}


TARGETS: Final = (
    _modexp("public", IFMA, "powmod", 8, 10.5),
    _modexp("secret", IFMA, "powmod", 8, 10.5),
    _modexp("secret", IFMA, "powmod_sec", 8, 10.5),
    _modexp("public", PORTABLE, "powmod", 0.8, 0.95),
    _modexp("secret", PORTABLE, "powmod_sec", 0.8, 0.95),
    Target("Paillier-2048 encrypt, DJN (default)", {"paillier encrypt": ""}, IFMA, ("phe *",), 150, 260),
    Target("Paillier-2048 encrypt, DJN, fast table", {"paillier encrypt": ""}, LEAKING, ("phe *",), 400, 500),
    Target("Paillier-2048 encrypt, textbook", {"paillier encrypt, textbook": ""}, IFMA, ("phe *",), 9, 10),
    Target("Paillier-2048 decrypt", {"paillier decrypt": ""}, IFMA, ("phe *",), 8, 10),
    Target("Paillier-2048 ct + ct", {"paillier add": ""}, IFMA, ("phe *",), 10, 15),
    Target("Paillier-2048 X^T v 1000x10, 40 bits", {"paillier X^T v 1000x10": ""}, IFMA, ("phe *",), 40, 55),
    Target("Paillier-2048 X^T v 1e5x10, 40 bits", {"paillier X^T v 100000x10": ""}, IFMA, ("phe *",), 90, 120),
    Target("OU-2048 encrypt", {"ou encrypt": ""}, IFMA, ("sf-heu * OU",), 3, 5),
    Target("OU-2048 X^T v 1000x10", {"ou X^T v 1000x10": ""}, IFMA, ("sf-heu * OU",), 60, 95),
    Target("X25519 batch", _scalars("x25519"), IFMA, _OPENSSL, 6, 9),
    Target("P-256 batch", _scalars("p256"), IFMA, _OPENSSL, 2.5, 4),
    Target("SM2 batch", _scalars("sm2"), IFMA, _OPENSSL, 2.5, 4),
    Target("AES-128-CTR mask, 1e6 uint32", {"mask aes128ctr, uint32": ""}, IFMA, _OPENSSL, 0.85, 0.95),
    Target("ring product 1e6x40 uint64, X w", {"ring64 X w": ""}, IFMA, ("numpy * a @ b",), 1.2, None),
    Target("ring product 1e6x40 uint64, X^T d", {"ring64 X^T d": ""}, IFMA, ("numpy * a @ b",), 10, None),
    Target(
        "ring products, of the memory's speed", {"ring64 X w": "X w", "ring64 X^T d": "X^T d"}, IFMA,
        ("numpy * a.sum()*",), None, 0.95,
    ),
    Target(
        "two threads",
        {f"two threads: {name}": name for name in (
            "modexp 2048", "paillier encrypt", "paillier decrypt", "paillier X^T v", "x25519", "p256", "sm2",
            "mask aes128ctr", "ring64 X w", "ring64 X^T d",
        )},
        "two threads", ("one thread",), 1.9, 2.0,
    ),
)  # fmt: skip
"""From the issue that asked for the kernels; the portable path's numbers hold on every CPU."""


def judge(results: Sequence[Result], targets: Sequence[Target] = TARGETS) -> list[Verdict]:
    """One verdict for each target, in their order."""
    return [_judge(target, results) for target in targets]


def _judge(target: Target, results: Sequence[Result]) -> Verdict:
    found: dict[str, float] = {}
    for result in results:
        if result.ratio is not None and target.covers(result):
            found[result.kernel] = min(result.ratio, found.get(result.kernel, result.ratio))
    lowest = min(found.values(), default=None)
    if lowest is None:
        met = Met.UNKNOWN
    elif target.aim is not None and lowest >= target.aim:
        met = Met.AIM
    elif target.least is not None and lowest >= target.least:
        met = Met.LEAST
    else:
        met = Met.MISSED
    return Verdict(target, found, met)
