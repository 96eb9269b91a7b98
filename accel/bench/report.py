"""A run's report: its JSON form, and the same as Markdown and on a terminal.

Numbers are written for people: three digits of a rate at most, a ratio with one decimal, with two below 2 (the aims
there have two) and with two significant digits below 0.1.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby, takewhile
from typing import Any, Final, Self

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from accel.bench.measure import Result
from accel.bench.targets import Met, Verdict, judge

VERSION: Final = 1
BUSY: Final = 0.5
"""Load average of a core at the start above which a report begins with a warning."""
_COLUMNS: Final = ("kernel", "conditions", "ours", "rate", "rival", "its rate", "ratio (min-max)")
_NARROW: Final = 120
_KEPT: Final = (0, 2, 4, 6)
"""Columns that a terminal narrower than _NARROW gets."""
_OWN: Final = 4
"""So many columns of a row tell of ours."""
_TARGETS: Final = ("kernel", "rival", "at least", "aim", "measured", "")
_STYLES: Final = {Met.AIM: "green", Met.LEAST: "green", Met.MISSED: "red", Met.UNKNOWN: "dim"}


class NoReport(ValueError):
    """What was read is not a report of this version."""


@dataclass(frozen=True, slots=True)
class Report:
    """machine: facts in words and numbers (accel.bench.run.machine). absent: rival, and why it was left out."""

    machine: Mapping[str, Any]
    results: Sequence[Result]
    absent: Mapping[str, str]

    def value(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "version": VERSION,
            "machine": dict(self.machine),
            "absent": dict(self.absent),
            "verdicts": [_verdict_value(verdict) for verdict in judge(self.results)],
            "results": [asdict(result) for result in self.results],
        }

    def text(self) -> str:
        """value() as the text of a file, a line for each result."""
        value = self.value()
        results = ",\n  ".join(json.dumps(result) for result in value.pop("results"))
        return f'{json.dumps(value, indent=1)[:-2]},\n "results": [\n  {results}\n ]\n}}\n'

    @classmethod
    def read(cls, text: str) -> Self:
        """Inverse of text(); NoReport for anything else. Verdicts are made anew."""
        try:
            value = json.loads(text)
            if value["version"] != VERSION:
                raise NoReport("a report of another version")
            return cls(value["machine"], [_result(each) for each in value["results"]], value["absent"])
        except (ValueError, KeyError, TypeError) as error:
            raise NoReport("not a report of this benchmark") from error

    @property
    def busy(self) -> bool:
        """Whether other work was running at the start."""
        return bool(self.machine["load_average_before"] > BUSY * self.machine["cores"])

    def families(self) -> Iterator[tuple[str, list[Result]]]:
        for name, results in groupby(self.results, key=lambda result: result.family):
            yield name, list(results)


def _verdict_value(verdict: Verdict) -> dict[str, Any]:
    target = verdict.target
    return {
        "line": target.line, "ours": target.ours, "rivals": list(target.rivals), "at_least": target.least,
        "aim": target.aim, "measured": dict(verdict.found), "verdict": verdict.met.value,
    }  # fmt: skip


def _result(value: Mapping[str, Any]) -> Result:
    members = {each.name: value[each.name] for each in fields(Result)}
    for name in ("rate_spread", "ratio_spread"):
        members[name] = None if members[name] is None else tuple(members[name])
    return Result(**members)


def ratio_text(ratio: float | None, *, down: bool = False) -> str:
    """See the module's docstring; empty for None. down: never rounded up, for what is held against a target."""
    if ratio is None:
        return ""
    if ratio < 0.0995:
        return f"{ratio:.2g}"
    digits = 2 if ratio < (2 if down else 1.995) else 1
    return f"{math.floor(ratio * 10**digits + 1e-9) / 10**digits if down else ratio:.{digits}f}"


def rate_text(rate: float | None, unit: str) -> str:
    """Three digits and a unit: 12,300/s, 14.7 GB/s."""
    if rate is None:
        return ""
    if unit == "B/s":
        return f"{rate / 1e9:.1f} GB/s" if rate >= 1e9 else f"{rate / 1e6:.0f} MB/s"
    per = "/s" if unit == "1/s" else f" {unit}"
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if rate >= 0.9995 * size:
            return f"{rate / size:.3g} {letter}{per}"
    digits = max(0, len(f"{rate:.0f}") - 3)
    return f"{round(rate, -digits):,.0f}{per}" if rate >= 100 else f"{rate:.1f}{per}"


def rows(results: Sequence[Result]) -> list[list[str]]:
    """The rows of a family's table; what stands in the row before is not said again."""
    made: list[list[str]] = []
    before: list[str] = []
    for result in results:
        full = _cells(result)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(full[:_OWN], before, strict=False)))
        made.append([""] * same + full[same:])
        before = full
    return made


def _cells(result: Result) -> list[str]:
    low, high = result.ratio_spread or (None, None)
    ratio = f"{ratio_text(result.ratio)} ({ratio_text(low)}-{ratio_text(high)})" if result.ratio is not None else "-"
    return [
        result.kernel, result.detail, result.ours, rate_text(result.rate, result.unit), result.rival or "none here",
        rate_text(result.rival_rate, result.unit), ratio,
    ]  # fmt: skip


def verdict_cells(verdict: Verdict) -> list[str]:
    """The row of the table of targets, with a ratio for each kernel that was measured."""
    target = verdict.target
    measured = [
        f"{word} {ratio_text(verdict.found[kernel], down=True)}".strip()
        for kernel, word in target.kernels.items()
        if kernel in verdict.found
    ]
    rivals = " or ".join(" ".join(part for part in pattern.split() if part != "*") for pattern in target.rivals)
    ours = "" if target.ours == "two threads" else f" ({target.ours})"
    return [
        target.line + ours, rivals.replace("*", ""), _wanted(target.least), _wanted(target.aim), ", ".join(measured),
        verdict.met.value,
    ]  # fmt: skip


def _wanted(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:g}"


def machine_lines(report: Report) -> list[str]:
    """Where and when it was measured; a warning first where the machine was busy."""
    m = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    rounds = f"{m['rounds']} rounds of {m['seconds']:g} s a contestant" + (" (--quick)" if m["quick"] else "")
    load = f"load average {m['load_average_before']:.1f} before and {m['load_average_after']:.1f} after"
    lines = [
        f"{m['date']}, {m['cpu']}, {m['cores']} cores, {load}; {rounds}.",
        f"Python {m['python']}, {versions}" + "".join(f", {label}" for label in m["rivals"]) + ".",
    ]
    if report.busy:
        lines.insert(
            0,
            f"Other work was running: a load average of {m['load_average_before']:.1f} on {m['cores']} cores at the "
            "start. Rates are too low and ratios are uncertain; the rows of two threads mean nothing.",
        )
    if note := m["without_native"]:
        lines.append(f"{note[0].upper()}{note[1:]}.")
    if not m["avx512ifma"]:
        lines.append("This CPU has no AVX512-IFMA: only the targets of the portable path apply.")
    return lines


def markdown(report: Report, plots: str | None = None) -> str:
    """The report as part of a page; plots: folder of the drawings as the page reaches it."""
    lines = [*_warned(report), "", "| " + " | ".join(_TARGETS) + " |", "|---|---|---:|---:|---|---|"]
    lines += ["| " + " | ".join(verdict_cells(verdict)) + " |" for verdict in judge(report.results)]
    for family, results in report.families():
        lines += ["", f"### {family.title()}", ""]
        if plots is not None:
            lines += [f"![{family}: times as fast as the rival]({plots}/{family}.svg)", ""]
        lines += ["| " + " | ".join(_COLUMNS) + " |", "|---|---|---|---:|---|---:|---:|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows(results)]
    if report.absent:
        lines += ["", "Rivals that were not there:", ""]
        lines += [f"- {name}: {why}" for name, why in report.absent.items()]
    return "\n".join(lines) + "\n"


def _warned(report: Report) -> list[str]:
    lines = machine_lines(report)
    if report.busy:
        lines[0] = f"**{lines[0]}**\n"
    return lines


def show(report: Report, console: Console) -> None:
    """The report for people."""
    for number, line in enumerate(machine_lines(report)):
        console.print(Text(line, style="bold red" if report.busy and number == 0 else ""))
    for family, results in report.families():
        kept = range(len(_COLUMNS)) if console.width >= _NARROW else _KEPT
        lines = [[row[at] for at in kept] for row in rows(results)]
        console.print(_table(family.title(), [_COLUMNS[at] for at in kept], lines))
    judged = [verdict for verdict in judge(report.results) if verdict.met is not Met.UNKNOWN]
    if judged:
        styles = [_STYLES[verdict.met] for verdict in judged]
        console.print(_table("Targets", _TARGETS, [verdict_cells(verdict) for verdict in judged], styles))
    for name, why in report.absent.items():
        console.print(Text(f"{name}: {why}"))


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] | None = None
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for number, row in enumerate(rows):
        last = Text(row[-1], style=styles[number] if styles else "")
        table.add_row(*(Text(cell) for cell in row[:-1]), last)
    return table
