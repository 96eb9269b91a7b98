"""Drawings of the demo's report as inline SVG: plain functions from figures to text, colours from the page's classes.

Every text that comes from outside goes through `escape`; numbers are formatted here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

Point = tuple[float, float]
MARKERS: Final = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" class="tip"/></marker></defs></svg>'
)
"""Arrow heads, once on a page."""
_PLOT: Final = (56.0, 16.0, 420.0, 300.0)
"""left, top, width, height of the plotting area of a curve."""


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart. style: class of the page."""

    name: str
    style: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Arrow:
    """One kind of call in a sequence: from column `start` to column `end` (0-based), repeated `count` times."""

    start: int
    end: int
    text: str
    count: int
    note: str
    failed: bool = False


def svg(width: float, height: float, body: str, *, title: str) -> str:
    """A drawing that scales with its column."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}" '
        f'style="max-width:{width:.0f}px">{body}</svg>'
    )


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def unit_chart(series: Sequence[Series], *, x_label: str, y_label: str, title: str, diagonal: bool) -> str:
    """Lines over the unit square, with a legend to the right."""
    left, top, width, height = _PLOT

    def place(point: Point) -> Point:
        return left + width * point[0], top + height * (1 - point[1])

    parts = []
    for tenth in range(0, 11, 2):
        share = tenth / 10
        x, y = place((share, share))
        parts += [
            _line(left, y, left + width, y, "grid"),
            _line(x, top, x, top + height, "grid"),
            text(left - 8, y + 4, f"{share:.1f}", "tick", "end"),
            text(x, top + height + 18, f"{share:.1f}", "tick", "middle"),
        ]
    if diagonal:
        parts.append(_line(*place((0, 0)), *place((1, 1)), "guide"))
    for number, line in enumerate(series):
        path = " ".join(f"{x:.2f},{y:.2f}" for x, y in map(place, line.points))
        parts.append(f'<polyline points="{path}" class="curve {line.style}"/>')
        y = top + 16 + 22 * number
        parts.append(_line(left + width + 20, y, left + width + 44, y, f"curve {line.style}"))
        parts.append(text(left + width + 52, y + 4, line.name, "legend"))
    parts.append(text(left + width / 2, top + height + 40, x_label, "label", "middle"))
    parts.append(
        f'<text transform="translate(14 {top + height / 2:.0f}) rotate(-90)" class="label" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    return svg(left + width + 230, top + height + 50, "".join(parts), title=title)


def roc(curves: Sequence[tuple[str, str, Sequence[Mapping[str, Any]]]]) -> str:
    """ROC curves of (name, style, points with fpr and tpr)."""
    series = [Series(name, style, [(point["fpr"], point["tpr"]) for point in points]) for name, style, points in curves]
    return unit_chart(
        series,
        x_label="good loans flagged (false positive rate)",
        y_label="bad loans found (true positive rate)",
        title="ROC curves",
        diagonal=True,
    )


def ks(points: Sequence[Mapping[str, Any]], *, bad_share: float) -> str:
    """Shares of bad and good loans found, and their distance, over the share of all loans flagged so far."""
    at = [bad_share * point["tpr"] + (1 - bad_share) * point["fpr"] for point in points]
    series = [
        Series(name, style, [(x, point[member]) for x, point in zip(at, points, strict=True)])
        for name, style, member in (
            ("bad loans", "bad", "tpr"),
            ("good loans", "good", "fpr"),
            ("distance", "joint", "ks"),
        )
    ]
    return unit_chart(
        series,
        x_label="share of all loans flagged, highest score first",
        y_label="share found",
        title="KS curve",
        diagonal=False,
    )


def bars(values: Sequence[tuple[str, str, float]], *, low: float, high: float, title: str) -> str:
    """Horizontal bars of (name, style, value) on an axis from `low` to `high`."""
    left, width, step = 190.0, 380.0, 46.0
    parts = []
    for number, (name, style, value) in enumerate(values):
        y = 10 + step * number
        length = width * min(max((value - low) / (high - low), 0), 1)
        parts += [
            text(left - 12, y + 19, name, "label", "end"),
            f'<rect x="{left:.0f}" y="{y:.0f}" width="{width:.0f}" height="28" rx="4" class="track"/>',
            f'<rect x="{left:.0f}" y="{y:.0f}" width="{length:.1f}" height="28" rx="4" class="fill {style}"/>',
            text(left + width + 10, y + 19, f"{value:.4f}", "value"),
        ]
    bottom = 10 + step * len(values)
    parts += [
        text(left, bottom + 8, f"{low:g}", "tick"),
        text(left + width, bottom + 8, f"{high:g}", "tick", "end"),
    ]
    return svg(left + width + 80, bottom + 18, "".join(parts), title=title)


def weights(values: Sequence[tuple[str, float]], *, title: str) -> str:
    """Signed horizontal bars around a zero line, in the order given."""
    left, width, step = 360.0, 300.0, 20.0
    largest = max((abs(value) for _, value in values), default=1.0) or 1.0
    zero, scale = left + width / 2, width / 2 / largest
    parts = [_line(zero, 4, zero, 8 + step * len(values), "axis")]
    for number, (name, value) in enumerate(values):
        y = 8 + step * number
        length = abs(value) * scale
        start = zero if value >= 0 else zero - length
        shown = name if len(name) <= 56 else name[:55] + "…"
        parts += [
            text(left - 10, y + 12, shown, "small", "end"),
            (
                f'<rect x="{start:.1f}" y="{y + 2:.1f}" width="{length:.1f}" height="13" rx="2" '
                f'class="fill {"bad" if value >= 0 else "good"}"><title>{escape(name)}: {value:+.6f}</title></rect>'
            ),
            text(left + width + 10, y + 12, f"{value:+.4f}", "small"),
        ]
    return svg(left + width + 70, 14 + step * len(values), "".join(parts), title=title)


def ranks(components: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Column of each task: one more than the furthest of the tasks it takes from."""
    column: dict[str, int] = {}
    for component in components:  # a job file's order is already topological; a foreign one may need more passes
        column[component["name"]] = 0
    for _ in components:
        for component in components:
            producers = {link["key"].rpartition(".")[0] for link in component["input"]}
            column[component["name"]] = max((column[name] + 1 for name in producers if name in column), default=0)
    return column


def dag(components: Sequence[Mapping[str, Any]], notes: Mapping[str, str]) -> str:
    """Tasks as boxes, left to right, with the names of what flows between them; `notes` go below a task's name."""
    column = ranks(components)
    longest = max((len(component["name"]) for component in components), default=0)
    wide, high, gap_x, gap_y = max(110.0, 8.6 * longest), 54.0, 62.0, 40.0
    rows: dict[int, int] = {}
    spot: dict[str, Point] = {}
    for component in components:
        at = column[component["name"]]
        spot[component["name"]] = (10 + at * (wide + gap_x), 30 + rows.get(at, 0) * (high + gap_y))
        rows[at] = rows.get(at, 0) + 1
    parts: list[str] = []
    lowest = max((y for _, y in spot.values()), default=0) + high
    for component in components:
        x2, y2 = spot[component["name"]]
        taken: dict[str, list[str]] = {}
        for link in component["input"]:
            producer, _, key = link["key"].rpartition(".")
            taken.setdefault(producer, []).append(key)
        for producer, keys in taken.items():
            if producer not in spot:
                continue
            x1, y1 = spot[producer]
            key = ", ".join(keys)
            jump = column[component["name"]] - column[producer]
            if jump > 1:  # around the boxes in between
                low = y1 + high + 14 + 12 * jump
                lowest = max(lowest, low)
                path = f"M{x1 + wide / 2:.0f} {y1 + high:.0f}V{low:.0f}H{x2 + wide / 2:.0f}V{y2 + high + 2:.0f}"
                parts.append(text(x1 + wide / 2 + 6, low - 4, key, "tick"))
            else:
                path = f"M{x1 + wide:.0f} {y1 + high / 2:.0f}L{x2 - 2:.0f} {y2 + high / 2:.0f}"
                parts.append(text((x1 + wide + x2) / 2, (y1 + y2 + high) / 2 - 8, key, "tick", "middle"))
            parts.append(f'<path d="{path}" class="edge" marker-end="url(#tip)"/>')
    for component in components:
        x, y = spot[component["name"]]
        parts += [
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{wide:.0f}" height="{high:.0f}" rx="8" class="box"/>',
            text(x + wide / 2, y + 23, component["name"], "boxname", "middle"),
            text(x + wide / 2, y + 41, notes.get(component["name"], ""), "tick", "middle"),
        ]
    right = max((x for x, _ in spot.values()), default=0) + wide + 10
    return svg(right, lowest + 16, "".join(parts), title="Tasks of the job and what flows between them")


def sequence(columns: Sequence[tuple[str, str]], arrows: Sequence[Arrow]) -> str:
    """Lifelines (name, style) with arrows between them, top to bottom in order of first occurrence."""
    left, apart, step = 90.0, 480.0, 30.0
    bottom = 58 + step * len(arrows)
    parts: list[str] = []
    for number, (name, style) in enumerate(columns):
        x = left + apart * number
        parts += [
            _line(x, 34, x, bottom, "life"),
            f'<rect x="{x - 60:.0f}" y="6" width="120" height="28" rx="14" class="fill {style}"/>',
            text(x, 25, name, "onfill", "middle"),
        ]
    for number, arrow in enumerate(arrows):
        y = 62 + step * number
        x1, x2 = left + apart * arrow.start, left + apart * arrow.end
        side = 1 if x2 > x1 else -1
        times = f"  ×{arrow.count}" if arrow.count > 1 else ""
        parts += [
            (
                f'<line x1="{x1:.1f}" y1="{y:.1f}" x2="{x2 - 3 * side:.1f}" y2="{y:.1f}" '
                f'class="call{" failed" if arrow.failed else ""}" marker-end="url(#tip)"/>'
            ),
            text((x1 + x2) / 2, y - 5, arrow.text + times, "small", "middle"),
            text(max(x1, x2) + 12, y + 4, arrow.note, "tick"),
        ]
    return svg(left + apart * (len(columns) - 1) + 150, bottom + 8, "".join(parts), title="Who called whom")


def timeline(rows: Sequence[tuple[str, str, float, float]], *, title: str) -> str:
    """Bars of (name, style, start, end) in seconds on a common axis."""
    left, width, step = 210.0, 420.0, 24.0
    last = max((end for _, _, _, end in rows), default=1.0) or 1.0
    parts = []
    for quarter in range(5):
        x = left + width * quarter / 4
        parts += [
            _line(x, 4, x, 8 + step * len(rows), "grid"),
            text(x, 24 + step * len(rows), f"{last * quarter / 4:.1f} s", "tick", "middle"),
        ]
    for number, (name, style, start, end) in enumerate(rows):
        y = 8 + step * number
        length = max(width * (end - start) / last, 2)
        parts += [
            text(left - 10, y + 14, name, "small", "end"),
            (
                f'<rect x="{left + width * start / last:.1f}" y="{y + 3:.1f}" width="{length:.1f}" height="15" rx="3" '
                f'class="fill {style}"/>'
            ),
            text(left + width + 12, y + 14, f"{end - start:.1f} s", "small"),
        ]
    return svg(left + width + 70, 34 + step * len(rows), "".join(parts), title=title)
