"""A whole run: every row that is wanted, with the progress shown."""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from accel import registry
from accel.bench import arrays, numbers, points
from accel.bench.contest import versions
from accel.bench.measure import Result, Row, measure
from accel.bench.plots import write_plots
from accel.bench.report import Report, markdown
from accel.bench.rivals import RivalFailed, Rivals
from accel.probe import probe

FAMILIES: Final[Sequence[Callable[[bool, Rivals], list[Row]]]] = (
    numbers.modexp, numbers.paillier, numbers.okamoto_uchiyama, points.x25519, points.prime_curves, points.groups,
    points.digests, arrays.masks, arrays.rings, arrays.threads,
)  # fmt: skip
_FULL: Final = (5, 0.25)
_QUICK: Final = (3, 0.08)


class NothingWanted(ValueError):
    """No row has the text that was given."""


def run(options: argparse.Namespace, console: Console) -> Report:
    """The rows that options.only wants, or all. Raises NothingWanted, and OSError where no folder can be made, before
    anything is measured. Progress goes to `console`: a bar on a terminal, else a line for each row.
    """
    quick, only = bool(options.quick), [text.lower() for text in options.only]
    rounds, seconds = _QUICK if quick else _FULL
    facts = machine() | {"quick": quick, "only": only, "rounds": rounds, "seconds": seconds}
    results: list[Result] = []
    with Rivals(options.rival) as rivals:
        rows = [row for family in FAMILIES for row in family(quick, rivals) if _wanted(row, only)]
        if not rows:
            raise NothingWanted("--only: no row has that in its family or kernel")
        if options.out_dir is not None:
            options.out_dir.mkdir(parents=True, exist_ok=True)
        with _told(console, len(rows)) as tell:
            for done, row in enumerate(rows):
                tell(done, row)
                results += _measured(row, rivals, rounds, seconds)
        facts |= {"rivals": rivals.labels, "load_average_after": os.getloadavg()[0]}
        return Report(facts, results, rivals.absent)


def _wanted(row: Row, only: Sequence[str]) -> bool:
    return not only or any(text in f"{row.family} {row.kernel}".lower() for text in only)


def _measured(row: Row, rivals: Rivals, rounds: int, seconds: float) -> list[Result]:
    """Without the rivals that fail in it."""
    while True:
        try:
            return measure(row, rounds=rounds, seconds=seconds)
        except RivalFailed as failure:
            name, _, why = str(failure).partition(": ")
            if name not in rivals.running:
                raise
            rivals.drop(name, why)


@contextmanager
def _told(console: Console, count: int) -> Iterator[Callable[[int, Row], None]]:
    if not console.is_terminal:
        begun = time.monotonic()

        def line(done: int, row: Row) -> None:
            console.print(Text(f"{done + 1}/{count} {row.kernel} ({time.monotonic() - begun:.0f} s so far)"))

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=count)

        def advance(done: int, row: Row) -> None:
            progress.update(task, description=f"{row.kernel:32}", completed=done)

        yield advance


def machine() -> dict[str, Any]:
    """Facts about the machine at the start of a run."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "avx512ifma": "avx512ifma" in probe().cpu_flags,
        "without_native": registry.without_native(),
        "load_average_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def write(report: Report, folder: Path) -> None:
    """kernels.json, kernels.md and the drawings; OSError goes through."""
    (folder / "kernels.json").write_text(report.text(), encoding="utf-8")
    (folder / "kernels.md").write_text(markdown(report, "."), encoding="utf-8")
    write_plots(folder, report)
