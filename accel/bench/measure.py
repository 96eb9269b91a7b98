"""Rows of a benchmark and how one is measured.

The contestants of a row take turns (A/B/A/B ...), so that a busy machine slows all of them alike. The ratio of a pair
is the median over the rounds of ours / rival, both of one round. Rates mean nothing on another machine; ratios mean
little on another class of CPU.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

ANY_CPU: Final = hasattr(os, "sched_setaffinity")
"""Whether this system lets a process choose its cores."""


class Contestant(Protocol):
    """Whoever does the work of a row. name: a rival's starts with its package and version."""

    @property
    def name(self) -> str: ...

    def rate(self, seconds: float) -> float:
        """Units of work a second, over at least so many seconds; 0 seconds only make it ready."""
        ...


def timed(work: Callable[[], int], seconds: float) -> float:
    """`work` says how many units it did; it is called once at least."""
    done, begun = 0, time.perf_counter()
    while True:
        done += work()
        spent = time.perf_counter() - begun
        if spent >= seconds:
            return done / spent


@dataclass(frozen=True, slots=True)
class Job:
    """A contestant inside this process: `run` does `units` units of work."""

    name: str
    units: int
    run: Callable[[], object]

    def rate(self, seconds: float) -> float:
        def work() -> int:
            self.run()
            return self.units

        return timed(work, seconds)


@dataclass(frozen=True, slots=True)
class Contest:
    """Every one of ours is compared with every rival."""

    ours: Sequence[Contestant]
    rivals: Sequence[Contestant]


@dataclass(frozen=True, slots=True)
class Row:
    """prepare: makes keys and inputs, so that a row which is not asked for costs nothing. detail: sizes of keys,
    exponents and numbers. one_core: all contestants run on one and the same core.
    """

    family: str
    kernel: str
    detail: str
    unit: str
    prepare: Callable[[], Contest]
    one_core: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """One of ours against one rival: medians, and (smallest, largest) over the rounds. Without a rival in this
    environment the members that need one are None.
    """

    family: str
    kernel: str
    detail: str
    unit: str
    ours: str
    rate: float
    rate_spread: tuple[float, float]
    rival: str | None
    rival_rate: float | None
    ratio: float | None
    ratio_spread: tuple[float, float] | None


def measure(row: Row, *, rounds: int, seconds: float) -> list[Result]:
    """One result for each pair. What a contestant raises goes through."""
    with one_core(row.one_core):
        contest = row.prepare()
        everyone = [*contest.rivals, *contest.ours]
        for contestant in everyone:
            contestant.rate(0)
        rates: list[list[float]] = [[] for _ in everyone]
        for _ in range(rounds):
            for contestant, found in zip(everyone, rates, strict=True):
                found.append(contestant.rate(seconds))
    theirs = list(zip(contest.rivals, rates, strict=False))
    return [
        _result(row, ours.name, found, rival)
        for ours, found in zip(contest.ours, rates[len(contest.rivals) :], strict=True)
        for rival in (theirs or (None,))
    ]


def _result(row: Row, name: str, rates: list[float], rival: tuple[Contestant, list[float]] | None) -> Result:
    ratios = [] if rival is None else [a / b for a, b in zip(rates, rival[1], strict=True)]
    return Result(
        row.family, row.kernel, row.detail, row.unit, name,
        statistics.median(rates), (min(rates), max(rates)),
        rival[0].name if rival else None, statistics.median(rival[1]) if rival else None,
        statistics.median(ratios) if ratios else None, (min(ratios), max(ratios)) if ratios else None,
    )  # fmt: skip


@contextmanager
def one_core(wanted: bool) -> Iterator[None]:
    """Inside, this process and those that it starts have the last of its cores only."""
    if not (wanted and ANY_CPU):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
