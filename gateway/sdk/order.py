"""Pushes of one topic that are under way together, and which of them may be sent: what keeps their order.

As long as all goes well any number is on its way on one line, which keeps order by itself; each is sent in its turn,
also where those before it wait, for the line to be opened or for another. One that has to be alone (it goes another way
than the line, or was refused and is pushed again) waits for all before it, and all behind wait for it.
"""

import asyncio


class Order:
    """Of one topic towards one node."""

    __slots__ = ("_alone", "_next", "_open", "_unsent", "_waiting")

    def __init__(self) -> None:
        self._next = 0
        # Ascending; dicts because they forget in O(1) wherever the number stands.
        self._open: dict[int, None] = {}
        self._unsent: dict[int, None] = {}
        self._alone: set[int] = set()
        self._waiting: dict[int, asyncio.Future[None]] = {}

    @property
    def idle(self) -> bool:
        return not self._open

    def begin(self) -> int:
        """The number of a new push; it is under way until `end`."""
        number = self._next
        self._next += 1
        self._open[number] = self._unsent[number] = None
        return number

    async def turn(self, number: int, *, alone: bool, until: float) -> None:
        """Until it may be sent, which it is then, before anything is awaited. alone: with nothing else under way; from
        then on it stays so.

        until: by the loop's clock, raises TimeoutError.
        """
        if alone:
            self._alone.add(number)
        if not self._may_go(number):
            async with asyncio.timeout_at(until):
                while not self._may_go(number):
                    self._waiting[number] = asyncio.get_running_loop().create_future()
                    try:
                        await self._waiting[number]
                    finally:
                        del self._waiting[number]
        self._unsent.pop(number, None)
        self._wake()

    def end(self, number: int) -> None:
        """It was taken, or given up."""
        del self._open[number]
        self._unsent.pop(number, None)
        self._alone.discard(number)
        self._wake()

    def _may_go(self, number: int) -> bool:
        if number in self._alone:
            return number == next(iter(self._open))
        return number == next(iter(self._unsent)) and not (self._alone and min(self._alone) < number)

    def _wake(self) -> None:
        """Whoever may go now: nobody but the first of those under way and the first of those not sent."""
        if not self._waiting:
            return
        for first in (next(iter(self._open), None), next(iter(self._unsent), None)):
            waits = None if first is None else self._waiting.get(first)
            if first is not None and waits is not None and not waits.done() and self._may_go(first):
                waits.set_result(None)
