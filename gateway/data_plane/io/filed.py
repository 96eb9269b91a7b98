"""Room on disk for bodies too large to be held in memory: unlinked files, written by threads, read as mapped views.

The loop never waits for the disk while a body comes in: a piece of it is received into memory, written by a thread,
and only then more of the body is let in. So a body of any length has a few MiB of memory at a time, and what it claims
to be takes nothing from others before it is there. What is on disk counts in the disk's budget. A full disk refuses
the one body.
"""

import asyncio
import mmap
import os
import tempfile
import threading
from pathlib import Path
from typing import Final

from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.wire import Buffer
from gateway.data_plane.keeping import Filed
from gateway.errors import Kind, Unavailable
from gateway.ports import Journal

FROM: Final = 32 << 20
"""Bodies of fewer bytes are held in memory."""
BLOCK: Final = 1 << 20
"""Bytes of a body that are in memory before they are written."""


class Files:
    """Makes room. folder: of this user alone; None: there is no such disk."""

    def __init__(self, folder: Path | None, budget: Budget, journal: Journal, *, least: int = FROM) -> None:
        self.budget = budget
        self.least = least
        self._folder = folder
        self._journal = journal

    def make(self, length: int) -> "File | None":
        """Room for a body of `length` bytes, of which none is taken yet; None where it belongs in memory."""
        return None if self._folder is None or length < self.least else File(self._folder, self.budget, self._journal)


class File:
    """One body. `write` its pieces, then `whole`, and `repay` in any case when it is counted elsewhere or dropped."""

    def __init__(self, folder: Path, budget: Budget, journal: Journal) -> None:
        self._budget = budget
        self._journal = journal
        self._lent = 0
        self._over = False
        self._written = _Written(folder)

    async def write(self, piece: Buffer, at: int) -> None:
        """Put a piece in its place. Raises Unavailable(BUFFER_FULL): no room, in the budget or on the disk."""
        if self._over:
            return
        size = len(piece)
        self._budget.borrow_disk(size)
        self._lent += size
        try:
            await asyncio.to_thread(self._written.put, piece, at)
        except OSError as e:
            self._journal.note("spool.failed", reason=str(e), spool="bodies")
            raise Unavailable("a body cannot be written to disk", kind=Kind.BUFFER_FULL) from e

    def whole(self, length: int) -> memoryview:
        """The body, all of whose bytes were written; the file is gone with the last view of it."""
        return self._written.mapped(length)

    def repay(self) -> None:
        """Give back what is counted of it; nothing more is written."""
        self._over = True
        self._budget.repay_disk(self._lent)
        self._lent = 0


class _Written:
    """The file itself. Closed when nobody has it any more: a thread may still write when all else is over."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._opening = threading.Lock()

    def put(self, piece: Buffer, at: int) -> None:
        with self._opening:
            if self._fd < 0:
                self._fd, name = tempfile.mkstemp(dir=self._folder, prefix="body-")
                Path(name).unlink()
        view = memoryview(piece)
        while view:
            written = os.pwrite(self._fd, view, at)
            view = view[written:]
            at += written

    def mapped(self, length: int) -> memoryview:
        block = Filed(self._fd, length, access=mmap.ACCESS_READ)
        # It will be read once, from its beginning to its end.
        block.madvise(mmap.MADV_SEQUENTIAL)
        return memoryview(block)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
