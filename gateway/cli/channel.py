"""`interconn channel top`: what passes between our containers and the partners, now.

Two looks a second apart make rates; the gateway only counts. On a terminal the picture is drawn anew every second until
Ctrl-C; elsewhere, with --once and with --json it is shown once.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gateway.admin_client import AdminClient
from gateway.cli.call import Call, Exit, UsageError
from gateway.cli.parser import Group
from gateway.cli.show import clean, size, when
from gateway.errors import Unavailable

if TYPE_CHECKING:
    from rich.console import Group as Lines
    from rich.table import Table

EVERY_S: Final = 1.0
SESSIONS: Final = 100
"""Asked for at a time; the gateway gives those that moved last, and those in which messages wait."""
HISTORY: Final = 40
"""Seconds of the curves."""
BAR: Final = 12
LATE_S: Final = 10.0
"""A session in which a message has waited so long for its reader stands out."""
_RISING: Final = "▁▂▃▄▅▆▇█"
_FILLED, _EMPTY = "█", "░"

GAP: Final = 3
_COLUMNS: Final = (
    "session",
    "with",
    "",
    ">in/s",
    ">out/s",
    ">msg/s",
    ">waiting",
    ">held",
    ">on disk",
    ">oldest",
    ">waited",
    ">readers",
)
"""Of sessions; a `>` before a heading puts its column to the right."""
_LEAST_FIRST: Final = ("", ">waited", ">readers", "with", ">held", ">on disk")

Figures = Mapping[str, Any]
"""As GET /v1/admin/channel answers."""


def add(group: Group) -> None:
    top = group.command("top", watching, "who sends how fast, what waits and where, every second until Ctrl-C")
    top.add_argument("--once", action="store_true", help="look for one second and print it once")
    top.add_argument("--limit", type=int, metavar="N", help="so many sessions (as many as fit; 20)")


@dataclass(frozen=True, slots=True)
class Rates:
    """A second's worth, to us and from us."""

    bytes_in: float = 0.0
    bytes_out: float = 0.0
    messages_in: float = 0.0
    messages_out: float = 0.0

    @property
    def bytes(self) -> float:
        return self.bytes_in + self.bytes_out

    @property
    def messages(self) -> float:
        return self.messages_in + self.messages_out


@dataclass(frozen=True, slots=True)
class Look:
    """What two looks tell. partners, sessions: the busiest first, each with its figures. seconds: between them."""

    figures: Figures
    seconds: float
    total: Rates
    partners: Sequence[tuple[Rates, Figures]]
    sessions: Sequence[tuple[Rates, Figures]]

    def value(self, limit: int | None = None) -> Mapping[str, Any]:
        """For scripts: the figures, with rates beside them."""
        return {
            **self.figures,
            "seconds": round(self.seconds, 3),
            "per_s": asdict(self.total),
            "partners": [{**each, "per_s": asdict(rates)} for rates, each in self.partners],
            "sessions": [{**each, "per_s": asdict(rates)} for rates, each in self.sessions[:limit]],
        }


def compare(before: Figures, now: Figures) -> Look:
    """Rates from counters. What was not there before counts from nothing, where `before` named everything there was."""
    seconds = max(0.001, (now["at"] - before["at"]) / 1000)
    partners = _rates(before["partners"], now["partners"], "node_id", seconds, whole=True)
    whole = len(before["sessions"]) >= before["sessions_in_all"]
    sessions = _rates(before["sessions"], now["sessions"], "session_id", seconds, whole=whole)
    partners.sort(key=lambda pair: (-pair[0].bytes, pair[1]["node_id"]))
    sessions.sort(key=lambda pair: (-pair[0].bytes, -_kept(pair[1]), pair[1]["session_id"]))
    total = Rates(*(sum(getattr(rates, name) for rates, _ in partners) for name in Rates.__dataclass_fields__))
    return Look(now, seconds, total, partners, sessions)


def _rates(
    before: Iterable[Figures], now: Iterable[Figures], key: str, seconds: float, *, whole: bool
) -> list[tuple[Rates, Figures]]:
    known = {each[key]: each for each in before}
    found = []
    for each in now:
        # Counters begin anew with the data process; and of what was left out before nothing is known.
        old = known.get(each[key], {} if whole else each)
        names = Rates.__dataclass_fields__
        moved = Rates(*(max(0.0, each[name] - old.get(name, 0)) / seconds for name in names))
        found.append((moved, each))
    return found


def _kept(session: Figures) -> int:
    return int(session["bytes_held"] + session["bytes_on_disk"])


def watching(call: Call) -> Exit:
    if call.limit is not None and call.limit < 1:
        raise UsageError("--limit must be positive")
    client = call.client()
    names = {each["peer_node_id"]: each["peer_name"] for each in client.get("partners")}
    picture = Picture(client.get("node")["name"], names)
    before = client.get("channel", limit=SESSIONS)
    if call.once or call.out.as_json or not call.out.stream.isatty():
        time.sleep(EVERY_S)
        look = compare(before, client.get("channel", limit=SESSIONS))
        picture.see(look)

        def human() -> None:
            console = call.out.console()
            console.print(picture.draw(call.limit or 20, width=console.width))

        call.out.value(look.value(call.limit), human)
        return Exit.OK
    return _live(call, client, before, picture)


def _live(call: Call, client: AdminClient, before: Figures, picture: "Picture") -> Exit:
    from rich.live import Live  # noqa: PLC0415  # only where it is drawn, as in gateway.cli.show

    console = call.out.console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                rows = call.limit or console.height  # more than fit
                live.update(picture.draw(rows, height=console.height, width=console.width), refresh=True)
                time.sleep(EVERY_S)
                try:
                    now = client.get("channel", limit=SESSIONS)
                except Unavailable as error:
                    picture.lost = str(error)
                    continue
                picture.see(compare(before, now))
                before = now
        except KeyboardInterrupt:
            return Exit.OK


@dataclass(slots=True)
class Picture:
    """What is drawn. own: our name; names: node id -> name of a partner. lost: why there is nothing new."""

    own: str
    names: Mapping[str, str]
    look: Look | None = None
    lost: str = ""
    _in: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _out: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def see(self, look: Look) -> None:
        """The newest look."""
        self.look, self.lost = look, ""
        self._in.append(look.total.bytes_in)
        self._out.append(look.total.bytes_out)

    def draw(self, rows: int, *, width: int, height: int | None = None) -> "Lines":
        """At most so many sessions, and so many lines of a terminal. width: of it, in letters."""
        from rich.console import Group as Lines  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        if self.look is None:
            return Lines(Text(self.lost or "looking ...", style="dim"))
        figures = self.look.figures
        title = Text(f"{clean(self.own) or figures['node_id']}", style="bold reverse")
        title.append(f"  {when(figures['at'])}", style="not reverse not bold")
        more = f"   {figures['sessions_in_all']:,} sessions, {figures['readers']:,} waiting readers"
        title.append(more, style="not reverse not bold dim")
        partners = self.look.partners[: max(3, (height or 1000) // 4)]
        if height is not None:
            # Titles, headings, rules, empty lines and what stands below take fifteen.
            rows = max(1, min(rows, height - 15 - len(partners)))
        parts: list[Any] = [
            title,
            self._head(self.look),
            self._partners(self.look, partners),
            self._sessions(self.look, rows, width),
        ]
        if self.lost:
            parts.append(Text(f"no answer: {clean(self.lost)}", style="bold red"))
        return Lines(*parts)

    def _head(self, look: Look) -> "Table":
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        figures, total = look.figures, look.total
        grid = Table.grid(padding=(0, 2))
        peak = max((*self._in, *self._out, 1.0))
        for word, rate, messages, history, colour in (
            ("in", total.bytes_in, total.messages_in, self._in, "green"),
            ("out", total.bytes_out, total.messages_out, self._out, "cyan"),
        ):
            grid.add_row(
                Text(word, style="bold"),
                Text(f"{size(int(rate))}/s", style=f"bold {colour}"),
                Text(f"{messages:,.0f} messages/s"),
                Text(curve(history, peak), style=colour),
            )
        held, bound = figures["bytes_held"], figures["bytes_bound"]
        share = held / bound if bound else 0.0
        colour = "green" if share < 0.5 else "yellow" if share < 0.9 else "red"  # half full, nearly full
        grid.add_row(
            Text("held", style="bold"),
            Text(size(held), style=f"bold {colour}"),
            Text(f"of {size(bound)} memory"),
            Text(bar(share, BAR), style=colour),
        )
        if figures["bytes_on_disk"]:
            grid.add_row(Text("disk", style="bold"), Text(size(figures["bytes_on_disk"]), style="bold"))
        return grid

    def _partners(self, look: Look, partners: Sequence[tuple[Rates, Figures]]) -> "Table":
        table = _table("partner", "node", ">in/s", ">out/s", ">msg/s", ">in", ">out", ">msgs")
        for rates, each in partners:
            node = each["node_id"]
            name = "(this node)" if node == look.figures["node_id"] else self.names.get(node, "")
            table.add_row(
                *_cells(
                    name,
                    node,
                    *_speed(rates),
                    size(each["bytes_in"]),
                    size(each["bytes_out"]),
                    f"{each['messages_in'] + each['messages_out']:,}",
                ),
                style="" if rates.messages else "dim",
            )
        return table

    def _sessions(self, look: Look, rows: int, width: int) -> "Table":
        most = max((rates.bytes for rates, _ in look.sessions), default=0.0)
        own, id_width = look.figures["node_id"], max(16, width // 5)
        sessions = look.sessions[:rows]
        cells = [self._session(rates, each, own, most, id_width) for rates, each in sessions]
        used = _fitting(cells, width)
        table = _table(*(_COLUMNS[at] for at in used))
        for row, (rates, each) in zip(cells, sessions, strict=True):
            late = (each["oldest_s"] or 0) > LATE_S
            style = "yellow" if late else "" if rates.messages or each["depth"] else "dim"
            table.add_row(*_cells(*(row[at] for at in used)), style=style)
        left = look.figures["sessions_in_all"] - len(sessions)
        if left > 0:
            table.caption = f"and {left:,} more sessions"
        return table

    def _session(self, rates: Rates, each: Figures, own: str, most: float, width: int) -> tuple[str, ...]:
        nodes = [node["node_id"] for node in each["nodes"]]
        others = [self.names.get(node) or node for node in nodes if node != own]
        return (
            shortened(each["session_id"], width),
            shortened(", ".join(others), 24),
            bar(rates.bytes / most, BAR // 2) if most else "",
            *_speed(rates),
            f"{each['depth']:,}" if each["depth"] else "",
            size(each["bytes_held"]) if each["bytes_held"] else "",
            size(each["bytes_on_disk"]) if each["bytes_on_disk"] else "",
            age(each["oldest_s"]),
            age(each["waited_s"] / each["read"]) if each["read"] else "",
            f"{each['readers']:,}" if each["readers"] else "",
        )


def _fitting(rows: Sequence[Sequence[str]], width: int) -> Sequence[int]:
    """Columns with something in them; of those the less important ones left out, where the terminal is narrow."""
    used = [at for at in range(len(_COLUMNS)) if at == 0 or any(row[at] for row in rows)]
    widths = [max(len(_COLUMNS[at]), *(len(row[at]) for row in rows), 0) for at in range(len(_COLUMNS))]
    for least in _LEAST_FIRST:
        if sum(widths[at] + GAP for at in used) <= width:
            break
        used = [at for at in used if _COLUMNS[at] != least]
    return used


def _table(*columns: str) -> "Table":
    """As _COLUMNS."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", caption_justify="left")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=True)
    return table


def _cells(*values: str) -> Iterable[Any]:
    from rich.text import Text  # noqa: PLC0415

    return (Text(clean(value)) for value in values)


def _speed(rates: Rates) -> tuple[str, str, str]:
    into, out = (f"{size(int(rate))}/s" if rate else "" for rate in (rates.bytes_in, rates.bytes_out))
    return into, out, f"{rates.messages:,.0f}" if rates.messages else ""


def curve(values: Iterable[float], peak: float) -> str:
    """One letter for each value, as high as its share of `peak`."""
    last = len(_RISING) - 1
    return "".join(_RISING[min(last, round(value / peak * last))] for value in values)


def bar(share: float, width: int) -> str:
    """A filled part of so many letters; anything above nothing shows."""
    filled = min(width, max(1 if share > 0 else 0, round(share * width)))
    return _FILLED * filled + _EMPTY * (width - filled)


def shortened(text: str, width: int) -> str:
    """Ids of one job differ at their end, those of one product at their beginning: the middle is left out."""
    return text if len(text) <= width else f"{text[: width // 2 - 1]}…{text[-(width - width // 2) :]}"


def age(seconds: float | None) -> str:
    """For people, in one unit."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "<1 ms"
    for unit, name, below in ((1, "s", 120), (60, "min", 7200)):
        if seconds < below:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 3600:.0f} h"
