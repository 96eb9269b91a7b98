"""The structured log of a process: one JSON line per event in a rotating file, and the newest events in memory.

Values are ids, numbers and our own words, bounded in length; whoever notes an event leaves payloads, tokens,
signatures and headers out (ports.Journal).
"""

import json
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.ports import Clock

VALUE_CHARS = 512
FILE_BYTES = 16 << 20
FILES = 4


class FileJournal:
    """Journal that writes JSON lines to `file` (rotated at 16 MiB, 4 kept) and remembers `keep` events.

    Threads may share it. A line is with the operating system when `note` returns; where the file cannot be written the
    line is lost and the work goes on.
    """

    def __init__(self, file: Path, clock: Clock, *, process: str, keep: int = 20_000) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._process = process
        self._recent: deque[Mapping[str, Any]] = deque(maxlen=keep)
        self._encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
        self._path = file
        self._lock = threading.Lock()
        self._file = file.open("ab", buffering=0)
        self._size = file.stat().st_size

    def note(self, event: str, **ids: str | float | bool | None) -> None:
        entry: dict[str, Any] = {"at": self._clock.now_ms(), "event": event, "process": self._process}
        for name, value in ids.items():
            if value is not None:
                entry[name] = value[:VALUE_CHARS] if isinstance(value, str) else value
        line = self._encode(entry).encode() + b"\n"
        with self._lock:
            self._recent.append(entry)
            with suppress(OSError, ValueError):  # a full disk; a file that `close` has closed
                if self._size and self._size + len(line) > FILE_BYTES:
                    self._turn()
                self._size += self._file.write(line)

    def _turn(self) -> None:
        """Move log to log.1, log.1 to log.2 ...; the eldest goes."""
        self._file.close()
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, FILES))]
        try:
            for newer, older in zip(names[-2::-1], names[:0:-1], strict=True):
                if newer.exists():
                    newer.replace(older)
        finally:
            self._file = self._path.open("ab", buffering=0)
            self._size = self._path.stat().st_size

    def recent(self, *, limit: int, **equals: str) -> Sequence[Mapping[str, Any]]:
        with self._lock:
            events = list(self._recent)
        found = [e for e in events if all(e.get(name) == value for name, value in equals.items())]
        return found[-limit:] if limit else []

    def close(self) -> None:
        self._file.close()
