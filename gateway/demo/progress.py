"""What a person sees while the demo runs: steps and, during the job, each task's state at each party.

On a terminal one picture that changes; elsewhere a line for each change, so that a log can be read.
"""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_STYLES: Final = {"SUCCESS": "green", "RUNNING": "yellow", "FAILED": "bold red", "READY": "cyan", "PENDING": "dim"}
_BAR, _GAP = 24, 2
_WORDS, _WORD = 22, 8
"""Width of the column of task names with its gap, and of a state."""
View = Mapping[str, Any]


class Progress:
    """Shows `begin` and `done` of steps and `job` views (party name -> answer of GET jobs/{id})."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=False) if console.is_terminal else None
        self._steps: dict[str, tuple[float, float | None]] = {}
        self._views: Mapping[str, View] = {}
        self._told: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def begin(self, title: str) -> None:
        self._steps[title] = (time.monotonic(), None)
        self._show(f"{title} ...")

    def done(self, title: str) -> None:
        began = self._steps[title][0]
        self._steps[title] = (began, time.monotonic())
        self._show(f"{title}: done in {time.monotonic() - began:.1f} s")

    def job(self, views: Mapping[str, View]) -> None:
        """New views of the running job."""
        self._views = views
        if self._live:
            self._live.update(self._picture())
            return
        for task in rows(views):
            states = ", ".join(f"{party} {state}" for party, (state, _) in task[1].items())
            if states and self._told.get(task[0]) != states:
                self._told[task[0]] = states
                self._console.print(f"  {task[0]}: {states}", markup=False)

    def _show(self, line: str) -> None:
        if self._live:
            self._live.update(self._picture())
        else:
            self._console.print(line, markup=False)

    def _picture(self) -> RenderableType:
        steps = Table.grid(padding=(0, 1))
        for title, (began, ended) in self._steps.items():
            mark: RenderableType = Spinner("dots", style="yellow") if ended is None else Text("✓", style="green")
            seconds = "" if ended is None else f"{ended - began:.1f} s"
            steps.add_row(mark, Text(title), Text(seconds, style="dim"))
        shown: list[RenderableType] = [steps]
        if self._views and self._steps.get("Job", (0, 0))[1] is None:
            shown.append(self._tasks())
        return Group(*shown)

    def _tasks(self) -> Table:
        # What a bar may take of a narrow terminal once names and words are shown whole.
        bar = max(1, min(_BAR, (self._console.width - _WORDS) // max(1, len(self._views)) - 2 * _GAP - _WORD))
        table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim")
        table.add_column("task", no_wrap=True)
        for party in self._views:
            table.add_column(party, no_wrap=True, min_width=_WORD)
            table.add_column("", width=bar)
        for name, parties in rows(self._views):
            cells: list[RenderableType] = [Text(name)]
            for party in self._views:
                state, share = parties.get(party, ("", None))
                cells.append(Text(state, style=_STYLES.get(state, "")))
                cells.append(ProgressBar(total=1, completed=share, width=bar) if share is not None else Text(""))
            table.add_row(*cells)
        return table


def rows(views: Mapping[str, View]) -> list[tuple[str, dict[str, tuple[str, float | None]]]]:
    """Per task: its name, and for each party that has a share in it the state and the part done (None: unknown)."""
    tasks: dict[str, dict[str, tuple[str, float | None]]] = {}
    for party, view in views.items():
        for task in view["tasks"]:
            states = tasks.setdefault(task["task_name"], {})
            for share in task["shares"]:
                states[party] = (share["status"], _part(share))
    return list(tasks.items())


def _part(share: Mapping[str, Any]) -> float | None:
    if share["status"] == "SUCCESS":
        return 1.0
    progress = share.get("progress") or {}
    total = progress.get("total") or 0
    return min(float(progress.get("done", 0)) / float(total), 1.0) if share["status"] == "RUNNING" and total else None
