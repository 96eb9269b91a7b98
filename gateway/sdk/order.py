"""Pushes of one topic that are under way together, and which of them may be sent: what keeps their order.

As long as all goes well any number is on its way on one line, which keeps order by itself. One that has to be alone (it
goes another way than the line, or was refused and is pushed again) waits for all before it, and all behind wait for it.
"""

import asyncio
from typing import Final

_NOBODY: Final = float("inf")


class Order:
    """Of one topic towards one node."""

    __slots__ = ("_alone", "_next", "_open", "_waiting")

    def __init__(self) -> None:
        self._next = 0
        # Ascending; a dict because it forgets in O(1) wherever the number stands.
        self._open: dict[int, None] = {}
        self._alone: set[int] = set()
        self._waiting: dict[int, asyncio.Future[None]] = {}

    @property
    def idle(self) -> bool:
        return not self._open

    def begin(self) -> int:
        """The number of a new push; it is under way until `end`."""
        number = self._next
        self._next += 1
        self._open[number] = None
        return number

    async def turn(self, number: int, *, alone: bool, until: float) -> None:
        """Until it may be sent. alone: with nothing else under way; from then on it stays so.

        until: by the loop's clock, raises TimeoutError.
        """
        if alone:
            self._alone.add(number)
        if self._may_go(number):
            return
        async with asyncio.timeout_at(until):
            while not self._may_go(number):
                self._waiting[number] = asyncio.get_running_loop().create_future()
                try:
                    await self._waiting[number]
                finally:
                    del self._waiting[number]

    def end(self, number: int) -> None:
        """It was taken, or given up."""
        del self._open[number]
        self._alone.discard(number)
        for waits in sorted(self._waiting):
            if not self._may_go(waits):
                break
            if not self._waiting[waits].done():
                self._waiting[waits].set_result(None)

    def _may_go(self, number: int) -> bool:
        if number in self._alone:
            return number == next(iter(self._open))
        return number < min(self._alone, default=_NOBODY)
