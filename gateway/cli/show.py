"""What the command line prints: tables for people, JSON for scripts, errors as one line.

Much of it was written by partners, so control characters are replaced before anything reaches a terminal, and rich's
markup is never read from data. rich is imported when a table is drawn, not before.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console

PIPE_COLUMNS: Final = 160
"""Width of a table that does not go to a terminal."""
_COLOURS: Final = {
    "APPROVED": "green",
    "SUCCESS": "green",
    "succeeded": "green",
    "running": "green",
    "FINISHED": "cyan",
    "RUNNING": "yellow",
    "READY": "yellow",
    "APPLIED": "yellow",
    "open": "yellow",
    "FAILED": "red",
    "failed": "red",
    "REJECTED": "red",
    "refused": "red",
    "TERMINATED": "red",
    "stopped": "red",
}


class Output:
    """Standard output in one of two forms. `as_json`: exactly one JSON value per command, nothing else."""

    def __init__(self, *, as_json: bool, stream: TextIO | None = None) -> None:
        self.as_json = as_json
        self.stream = stream or sys.stdout

    def value(self, value: Any, human: Callable[[], None]) -> None:
        """Print `value` as JSON, or call `human`, which prints it for people."""
        if self.as_json:
            self.stream.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
        else:
            human()

    def line(self, text: str = "") -> None:
        """One line for people; nothing in JSON form."""
        if not self.as_json:
            self.stream.write(clean(text) + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
        """Rows under their headings, or the sentence `empty` where there are none.

        On a terminal that is too narrow a row becomes a block of lines: an id that is cut in pieces cannot be copied.
        """
        from rich import box  # noqa: PLC0415  # see the module's docstring
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        if not rows:
            self.line(empty)
            return
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell := clean(_cell(value)), style=_COLOURS.get(cell, "")) for value in row))
        console = self.console()
        if self.stream.isatty() and console.measure(table, options=console.options.update(width=1 << 16)).maximum > (
            console.width
        ):
            for row in rows:
                self.members(list(zip(columns, row, strict=True)))
                self.line()
            return
        console.print(table)

    def members(self, pairs: Sequence[tuple[str, object]]) -> None:
        """Name and value, one pair a line; pairs without a value are left out."""
        shown = [(name, _cell(value)) for name, value in pairs if _cell(value)]
        width = max((len(name) for name, _ in shown), default=0)
        for name, text in shown:
            self.line(f"{name:<{width}}  {text}")

    def console(self) -> "Console":
        from rich.console import Console  # noqa: PLC0415  # see the module's docstring

        return Console(file=self.stream, width=None if self.stream.isatty() else PIPE_COLUMNS, highlight=False)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_cell(member)}" for name, member in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_cell(member) for member in value)
    # Within a cell a line feed could begin a line that looks like one of ours, a false fingerprint say.
    return str(value).replace("\n", "\ufffd").replace("\t", "\ufffd")


def clean(text: str) -> str:
    """Line feeds and tabs stay, every other control or unprintable character becomes U+FFFD."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def error(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"interconn: {clean(text)}\n")


def when(milliseconds: int | None) -> str:
    """Local time of a wire timestamp, empty for none."""
    if milliseconds is None:
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "in the far future"  # a partner proposes what it likes


def grouped(fingerprint: str) -> str:
    """64 hex digits in groups of four, as two people read them to each other."""
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))


def size(count: int | None) -> str:
    """Bytes in a unit for people."""
    if count is None:
        return ""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
