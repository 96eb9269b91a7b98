"""One SVG for each family of kernels: bars of the ratios that bench.kernels measured, on a logarithmic axis."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

_STYLE: Final = (
    "text{font:12px sans-serif;fill:#222}.own{fill:#2a6fb0}.spread{stroke:#111;stroke-width:1.5}"
    ".even{stroke:#b03030;stroke-dasharray:4 3}.tick{fill:#666}"
)
_LEFT, _WIDTH, _BAR = 520, 420, 20


def write_plots(folder: Path, families: Mapping[str, Sequence[Any]]) -> list[Path]:
    """families: name to results of bench.kernels. Back come the files that were written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, results in families.items():
        if results:
            written.append(folder / f"{name}.svg")
            written[-1].write_text(plot(name, results), encoding="utf-8")
    return written


def plot(title: str, results: Sequence[Any]) -> str:
    """A bar for each result; the line across it runs from the smallest to the largest ratio of a round."""
    highest = max(2.0, *(r.ratio_spread[1] for r in results))
    lowest = min(0.5, *(r.ratio_spread[0] for r in results))
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))

    def x(ratio: float) -> float:
        return _LEFT + _WIDTH * (math.log10(ratio) - first) / (last - first)

    top, height = 34, 34 + _BAR * len(results) + 26
    parts = [f'<text x="8" y="20">{escape(title.replace("_", " "))}: times as fast as the rival</text>']
    parts += [
        f'<text x="{x(10.0**power):.1f}" y="{height - 8}" class="tick" text-anchor="middle">{10.0**power:g}</text>'
        for power in range(first, last + 1)
    ]
    parts.append(f'<line x1="{x(1):.1f}" y1="{top}" x2="{x(1):.1f}" y2="{height - 24}" class="even"/>')
    for i, r in enumerate(results):
        y = top + _BAR * i
        label = escape(f"{r.kernel}, {r.detail.split(';')[0]} ({r.backend})"[:90])
        low, high = (x(v) for v in r.ratio_spread)
        middle = y + _BAR / 2 - 2
        parts += [
            (
                f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{label}'
                f"<title>rival: {escape(r.rival)}</title></text>"
            ),
            (
                f'<rect x="{_LEFT}" y="{y + 2}" width="{max(1.0, x(r.ratio) - _LEFT):.1f}" height="{_BAR - 6}" '
                'class="own"/>'
            ),
            f'<line x1="{low:.1f}" y1="{middle:.1f}" x2="{high:.1f}" y2="{middle:.1f}" class="spread"/>',
            f'<text x="{max(high, x(r.ratio)) + 5:.1f}" y="{y + 13}">{r.ratio:.2f}</text>',
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 70} {height}" role="img" '
        f'aria-label="{escape(title)}"><style>{_STYLE}</style>{"".join(parts)}</svg>\n'
    )
