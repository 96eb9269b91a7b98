"""The structured log of a process: one JSON line per event in a rotating file, and the newest events in memory.

Values are ids, numbers and our own words, bounded in length; whoever notes an event leaves payloads, tokens,
signatures and headers out (ports.Journal).
"""

import json
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from gateway.ports import Clock

VALUE_CHARS = 512
FILE_BYTES = 16 << 20
FILES = 4


class FileJournal:
    """Journal that writes JSON lines to `file` (rotated at 16 MiB, 4 kept) and remembers `keep` events."""

    def __init__(self, file: Path, clock: Clock, *, process: str, keep: int = 20_000) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._process = process
        self._recent: deque[Mapping[str, Any]] = deque(maxlen=keep)
        self._handler = RotatingFileHandler(file, maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(message)s"))

    def note(self, event: str, **ids: str | float | bool | None) -> None:
        entry: dict[str, Any] = {"at": self._clock.now_ms(), "event": event, "process": self._process}
        for name, value in ids.items():
            if value is not None:
                entry[name] = value[:VALUE_CHARS] if isinstance(value, str) else value
        self._recent.append(entry)
        line = json.dumps(entry, ensure_ascii=True, separators=(",", ":"))
        self._handler.emit(logging.LogRecord("interconn", logging.INFO, "", 0, "%s", (line,), None))

    def recent(self, *, limit: int, **equals: str) -> Sequence[Mapping[str, Any]]:
        found = [e for e in self._recent if all(e.get(name) == value for name, value in equals.items())]
        return found[-limit:] if limit else []

    def close(self) -> None:
        self._handler.close()
