"""How a partner's product departs from the default profile (A-01, A-02); a contract names its profile.

There is no profile without signatures here: that is for a dialect with its own adapter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

from gateway.errors import CallerError


@unique
class Signature(Enum):
    """The form of a signature on the wire."""

    A_01 = "A-01"
    RFC_9421 = "RFC-9421"


@dataclass(frozen=True, slots=True)
class Profile:
    """success: reply codes that mean success. seconds: 10-digit timestamps are read as seconds (M-013).

    signature: how calls under a contract are signed. Apply and confirm are always signed as A-01 says: no contract has
    settled anything else yet.
    """

    name: str
    success: frozenset[int] = frozenset({0})
    seconds: bool = False
    signature: Signature = Signature.A_01


STRICT: Final = Profile("strict-1.2")
PROFILES: Final[Mapping[str, Profile]] = {
    each.name: each
    for each in (
        STRICT,
        Profile("strict-1.2-rfc9421", signature=Signature.RFC_9421),
        Profile("lenient", success=frozenset({0, 200}), seconds=True),
    )
}


def profile(name: str) -> Profile:
    """The profile of this name; raises CallerError where there is none."""
    try:
        return PROFILES[name]
    except KeyError:
        raise CallerError(f"no profile {name}; there are: {', '.join(sorted(PROFILES))}") from None
