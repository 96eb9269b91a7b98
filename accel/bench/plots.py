"""One SVG for each family: a bar for each result, the ratio on a logarithmic axis, its spread and what was asked."""

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Final

from accel.bench.measure import Result
from accel.bench.report import Report, ratio_text
from accel.bench.targets import TARGETS

_STYLE: Final = (
    "text{font:12px sans-serif;fill:#222}.title{font-size:14px;font-weight:bold}.small{font-size:11px;fill:#666}"
    ".best{fill:#2a6fb0}.other{fill:#a9c4de}.spread{stroke:#111;stroke-width:1.5}.even{stroke:#888}"
    ".grid{stroke:#ddd}.least{stroke:#c02626;stroke-width:3}.aim{stroke:#1b8a3a;stroke-width:3}.paper{fill:#fff}.kernel{font-weight:bold}"
)
_LEFT, _WIDTH, _RIGHT, _BAR = 580, 430, 60, 20
_LONGEST: Final = 64
_FASTEST: Final = ("avx512ifma", "two threads")


def write_plots(folder: Path, report: Report) -> list[Path]:
    """The files that were written; a family without any rival has none."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, results in report.families():
        drawn = [result for result in results if result.ratio is not None]
        if drawn:
            written.append(folder / f"{name}.svg")
            written[-1].write_text(plot(name, drawn), encoding="utf-8")
    return written


def plot(title: str, results: Sequence[Result]) -> str:
    """Results that have a rival. The bar begins at 1: to the right it is faster than the rival, to the left slower."""
    marks = [
        mark
        for target in TARGETS
        for result in results
        if target.covers(result)
        for mark in (target.least, target.aim)
        if mark
    ]
    spreads = [edge for result in results for edge in result.ratio_spread or ()]
    first = math.log10(min(0.8, *spreads, *marks) * 0.9)
    last = math.log10(max(2.0, *spreads, *marks) * 1.15)

    def x(ratio: float) -> float:
        return _LEFT + _WIDTH * (math.log10(ratio) - first) / (last - first)

    top = 50
    bottom = top + _BAR * len(results)
    parts = [
        '<rect class="paper" width="100%" height="100%"/>',
        f'<text class="title" x="8" y="20">{escape(title.title())}: times as fast as the rival</text>',
        '<text class="small" x="8" y="38">logarithmic; red: asked at least, green: aim, black line: spread</text>',
    ]
    for tick in _ticks(10**first, 10**last):
        kind = "even" if tick == 1 else "grid"
        parts.append(f'<line class="{kind}" x1="{x(tick):.1f}" y1="{top}" x2="{x(tick):.1f}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="small" x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    before = ""
    for number, result in enumerate(results):
        y = top + _BAR * number
        if result.kernel != before:
            before = result.kernel
            parts.append(f'<text class="kernel" x="8" y="{y + 14}">{escape(before)}</text>')
            parts.append(f'<line class="grid" x1="8" y1="{y}" x2="{_LEFT + _WIDTH}" y2="{y}"/>')
        parts += _bar(result, y, x)
    size = f"{_LEFT + _WIDTH + _RIGHT} {bottom + 26}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" '
        f'aria-label="{escape(title)}"><style>{_STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bar(result: Result, y: int, x: Callable[[float], float]) -> list[str]:
    assert result.ratio is not None  # noqa: S101  # the caller's choice
    assert result.ratio_spread is not None  # noqa: S101
    label = f"{result.ours} · {result.rival}"
    shown = label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
    begin, end = sorted((x(1), x(result.ratio)))
    low, high = (x(edge) for edge in result.ratio_spread)
    kind = "best" if result.ours.startswith(_FASTEST) else "other"
    parts = [
        f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(shown)}<title>{escape(label)}</title></text>',
        f'<rect class="{kind}" x="{begin:.1f}" y="{y + 3}" width="{max(1.0, end - begin):.1f}" height="{_BAR - 6}"/>',
        f'<line class="spread" x1="{low:.1f}" y1="{y + 10}" x2="{high:.1f}" y2="{y + 10}"/>',
    ]
    furthest = max(high, end)
    for target in TARGETS:
        if target.covers(result):
            for mark, kind in ((target.least, "least"), (target.aim, "aim")):
                if mark:
                    at = f"{x(mark):.1f}"
                    parts.append(f'<line class="{kind}" x1="{at}" y1="{y + 1}" x2="{at}" y2="{y + _BAR - 1}"/>')
                    furthest = max(furthest, x(mark))
    parts.append(f'<text x="{furthest + 6:.1f}" y="{y + 14}">{ratio_text(result.ratio)}</text>')
    return parts


def _ticks(low: float, high: float) -> list[float]:
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for power in powers for step in steps if low <= (tick := float(f"{step}e{power}")) <= high]
