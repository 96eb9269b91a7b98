"""What ends when, and whether it is time to warn. Pure.

One warning per threshold: where several have passed since the last look, the nearest alone is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

DAY_MS: Final = 86_400_000
NEVER: Final = 1 << 20
"""More days than any threshold: nothing was told yet."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """Something that ends. kind: contract, grant, own_key ...; subject: its id; peer: node id, or ""."""

    kind: str
    subject: str
    peer: str
    at: int

    def key(self) -> str:
        """Another end is another deadline: what was renewed is told about anew."""
        return f"{self.kind}/{self.subject}/{self.at}"


def due(at: int, *, now: int, thresholds: Sequence[int], told: int = NEVER) -> int | None:
    """The threshold (days) to tell of: the nearest that has passed, unless it or a nearer one was told; 0 = has ended.

    at, now: ms. told: the nearest that was told so far.
    """
    passed = [days for days in (*thresholds, 0) if at - now <= days * DAY_MS]
    if not passed or min(passed) >= told:
        return None
    return min(passed)


def days_left(at: int, *, now: int) -> int:
    """Whole days until then; negative once it has passed."""
    return (at - now) // DAY_MS


def words(deadline: Deadline, *, now: int) -> str:
    """For a person: what ends, whose, and when."""
    left = days_left(deadline.at, now=now)
    when = "has ended" if deadline.at <= now else "ends today" if left < 1 else f"ends in {left} days"
    whose = f" of {deadline.peer}" if deadline.peer else ""
    return f"{_WORDS.get(deadline.kind, deadline.kind)}{whose} {when} ({deadline.subject[:24]})"


_WORDS: Final = {
    "contract": "the contract",
    "grant": "a grant",
    "permit": "a permit that we hold",
    "own_key": "our signing certificate",
    "own_tls": "our TLS certificate",
    "own_ca": "our CA",
    "peer_key": "the signing certificate",
    "peer_tls": "the TLS certificate",
    "peer_ca": "the CA",
    "crl": "the revocation list",
    "session": "the declared session",
}
"""The kinds there are."""
KINDS: Final = tuple(_WORDS)
