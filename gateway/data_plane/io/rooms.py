"""Room for large bodies: blocks of memory that are used again, because the first touch of fresh pages costs more than
receiving into them (1 MiB: 0.36 ms, against 0.02 ms where the pages are there).

A block is free again when nobody has a view of it any more, whoever that was: a queue, an answer being sent. Bytes of
an earlier body are never shown, since a body is handed out only when it has filled its room.
"""

import mmap
from collections import deque
from contextlib import suppress
from typing import Final

_LOOKS: Final = 8
_SMALLEST: Final = 64 << 10
_HUGE_FROM: Final = 4 << 20
"""Behind so many bytes of a block the system is asked for pages of 2 MiB. Not before: who claims a large body and sends
a byte of it would cost us such a page, uncounted.
"""


class Rooms:
    """Hands out room and remembers some of the blocks.

    kept_bytes: of blocks that are remembered; the process keeps them until the second `tidy` after their last use.
    """

    def __init__(self, kept_bytes: int) -> None:
        self._left = kept_bytes
        self._lines: dict[int, deque[mmap.mmap]] = {}
        self._wanted: set[int] = set()

    def take(self, length: int) -> memoryview:
        """Writable room of exactly `length` bytes (not 0), with anything in it. A fresh block costs memory only as it
        is written.
        """
        size = _size_for(length)
        line = self._lines.setdefault(size, deque())
        self._wanted.add(size)
        for _ in range(min(_LOOKS, len(line))):
            line.rotate(-1)
            if _unseen(line[-1]):
                return memoryview(line[-1])[:length]
        block = _fresh(size)
        if size <= self._left:
            self._left -= size
            line.append(block)
        return memoryview(block)[:length]

    def tidy(self) -> None:
        """Forget the blocks of sizes that nobody has wanted since the last call."""
        for size in [size for size in self._lines if size not in self._wanted]:
            self._left += size * len(self._lines.pop(size))
        self._wanted.clear()


def _size_for(length: int) -> int:
    """The next of four sizes between a power of two and its double, so that at most a quarter lies idle."""
    step = max(_SMALLEST, (1 << length.bit_length()) >> 3)
    return -(-length // step) * step


def _fresh(size: int) -> mmap.mmap:
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size > _HUGE_FROM and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            block.madvise(mmap.MADV_HUGEPAGE, _HUGE_FROM, size - _HUGE_FROM)
    return block


def _unseen(block: mmap.mmap) -> bool:
    """Whether no view of the block exists: only then may it be resized, and resized to what it is it stays as it is."""
    try:
        block.resize(len(block))
    except (BufferError, OSError, SystemError, TypeError, ValueError):
        return False
    return True
