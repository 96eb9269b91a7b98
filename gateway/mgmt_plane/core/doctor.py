"""Which profile fits a partner, judged from how it answers the same questions asked in several dialects. Pure.

Only reading endpoints are asked. Leaves to others: asking (rest.admin_profiles), and what a profile means (profile).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

from gateway.mgmt_plane.core.profile import PROFILES

ASKED: Final = ("strict-1.2", "legacy-1.1", "legacy-1.0", "lenient")
"""Profiles in which the questions are asked; the first that fits is proposed."""
NEEDED: Final = ("node.query", "dataset.pub.list", "component.list")
OPTIONAL: Final = ("node.health",)
ROUTES: Final = (*NEEDED, *OPTIONAL)
_FATE_CODES: Final = frozenset({"104", "5001", "6000"})


@unique
class Outcome(Enum):
    """How a question went."""

    OK = "ok"
    REFUSED = "refused"
    UNREADABLE = "unreadable"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer; code: the peer's, where it refused."""

    outcome: Outcome
    code: str = ""
    seconds: bool = False
    """It held a time of ten digits."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """fits: a profile, or "" where none does. words: sentences for the admin, most important first."""

    fits: str
    words: tuple[str, ...]


def diagnose(seen: Mapping[tuple[str, str], Seen], *, now: str) -> Diagnosis:
    """seen: (profile, route) -> how it went, for every pair of ASKED and ROUTES. now: the profile of the contract."""
    first = seen["strict-1.2", "node.query"]
    if first.outcome is Outcome.SILENT:
        return Diagnosis("", ("It does not answer: look at the address, the network, and its certificate authority.",))
    fits = next((name for name in ASKED if all(seen[name, route].outcome is Outcome.OK for route in NEEDED)), "")
    words = _differences(seen)
    if fits and PROFILES[fits].describes_receiver:
        words.append("In contract/apply it says whom it is for, where v1.2.0 says who applies: apply with --profile.")
    if any(each.seconds for each in seen.values()):
        # Nothing else tells the two apart: the standard states no unit.
        words.append("It writes times in seconds, where we write milliseconds.")
        fits = "strict-1.2-seconds" if fits == "strict-1.2" else fits
    if fits:
        done = "as it is set" if fits == now else f"but {now} is set: interconn partner set-profile NODE {fits}"
        return Diagnosis(fits, (f"{fits} fits, {done}.", *words))
    return Diagnosis("", (_why_none(seen), *words))


def _differences(seen: Mapping[tuple[str, str], Seen]) -> list[str]:
    words = []
    if any(seen["strict-1.2", route] == Seen(Outcome.REFUSED, "200") for route in ROUTES):
        words.append("It answers success with code 200, where v1.2.0 says 0.")
    # Whether the name in component/list matters shows only where the success code does not decide.
    plain = next((name for name in ("strict-1.2", "lenient") if seen[name, "node.query"].outcome is Outcome.OK), "")
    if plain and seen[plain, "component.list"].outcome is not Outcome.OK:
        words += [
            f"In component/list it knows the contract as {theirs}, where v1.2.0 says contract_id."
            for name, theirs in (("legacy-1.1", "contract_Id"), ("legacy-1.0", "contractId"))
            if seen[name, "component.list"].outcome is Outcome.OK
        ]
    words += [
        f"It does not offer {route}, which is optional."
        for route in OPTIONAL
        if all(seen[name, route].outcome is not Outcome.OK for name in ASKED)
    ]
    return words


def _why_none(seen: Mapping[tuple[str, str], Seen]) -> str:
    answers = [seen[name, "node.query"] for name in ASKED]
    if any(each.outcome is Outcome.OK for each in answers):
        failed = [route for route in NEEDED if all(seen[name, route].outcome is not Outcome.OK for name in ASKED)]
        codes = _codes(seen, failed)
        return f"No profile fits: it refuses {', '.join(failed) or 'something in each'} (codes {codes or 'none'})."
    if any(each.code in _FATE_CODES for each in answers):
        return "It has no management layer and answers like FATE-Flow: record it by hand as fate-2.x."
    if any(each.outcome is Outcome.UNREADABLE for each in answers):
        return "It has no management layer: record it by hand, as fate-2.x or kuscia."
    return f"No profile fits: it refuses node/query (codes {_codes(seen, ['node.query'])})."


def _codes(seen: Mapping[tuple[str, str], Seen], routes: Sequence[str]) -> str:
    return ", ".join(sorted({seen[name, route].code for name in ASKED for route in routes} - {""}))
