"""What of a task's log may be shown to a partner: when it wrote, at which level, and the phase it is in.

Never what was written: a line may hold anything of the data. Texts that stand in the answer are words of a fixed list,
or names that the partner knows. Pure; who may see it is `service.log_tails`.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from gateway.errors import WIRE
from gateway.model import Share
from specs.description import Description

LINES: Final = 200
"""The newest of a task."""
LEVELS: Final = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})
_AT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")
_PHASE: Final = re.compile(r"[a-z][a-z _-]{0,31}")
"""No digit, no capital letter: a phase is one of a handful of words, and what else it could be is not shown."""
_ENDED: Final = re.compile(r"(?:ERROR )?ended: ([a-z]{1,16})")
_OWN_CODES: Final = {str(wire.code): wire.text for wire in WIRE.values()}


def redacted(lines: Iterable[str], *, words: Collection[str]) -> list[dict[str, str]]:
    """{at, level, message} of the newest LINES lines of a log; what is no line of our keeper's is left out.

    message: "" but for the keeper's own `ended: <word>` with one of `words`.
    """
    found = []
    for line in lines:
        at, _, rest = line.partition(" ")
        level, _, text = rest.partition(" ")
        if _AT.fullmatch(at) and level in LEVELS:
            own = _ENDED.fullmatch(text.rstrip("\n"))
            found.append({"at": at, "level": level, "message": own[0] if own and own[1] in words else ""})
    return found[-LINES:]


def told(share: Share, description: Description | None) -> dict[str, Any]:
    """A share's part in words of ours: state, phase, times, result code and what the self-description says of it."""
    phase = share.progress.get("phase")
    known = description.results.get(share.result_code) if description is not None else None
    said = known is not None or share.result_code in _OWN_CODES
    return {
        "role": share.role,
        "index": share.index,
        "status": share.status.value,
        "phase": phase if isinstance(phase, str) and _PHASE.fullmatch(phase) else "",
        "result_code": share.result_code if said else "",
        "message": known.message if known is not None else _OWN_CODES.get(share.result_code, ""),
        "started": share.started,
        "finished": share.finished,
    }


def read_answer(data: Mapping[str, Any], most_tasks: int) -> list[dict[str, Any]]:
    """A partner's answer, bounded, with nothing in it that is no plain text, number or list of lines."""
    shares = data.get("tasks")
    found = []
    for each in shares[:most_tasks] if isinstance(shares, list) else ():
        if not isinstance(each, Mapping):
            continue
        kept: dict[str, Any] = {
            name: _plain(each.get(name)) for name in ("task_name", "role", "status", "phase", "result_code", "message")
        }
        kept |= {name: _number(each.get(name)) for name in ("index", "started", "finished")}
        lines = each.get("lines")
        kept["lines"] = [
            {name: _plain(line.get(name)) for name in ("at", "level", "message")}
            for line in (lines[:LINES] if isinstance(lines, list) else ())
            if isinstance(line, Mapping)
        ]
        found.append(kept)
    return found


def _plain(value: object) -> str:
    """It is printed on somebody's terminal."""
    return "".join(char for char in value[:256] if char.isprintable()) if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
