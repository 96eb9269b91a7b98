"""Pushes that were answered when they were on this node's disk and are delivered when the partner is there again.

One worker for each (session, topic, target) with such pushes: in order, one at a time, until none is left; the names
under which they go were given before they were written, so that a restart changes nothing for the receiver.
"""

import asyncio
from bisect import insort
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from gateway.data_plane.core.records import Leaving
from gateway.data_plane.core.session import Stored
from gateway.data_plane.keeping import Keeper
from gateway.data_plane.lanes import Departures, Ticket
from gateway.errors import GatewayError
from gateway.model import NodeId, SessionId
from gateway.ports import Clock, Journal

PAUSE_FIRST_S: Final = 0.1
PAUSE_LAST_S: Final = 5.0

Key = tuple[SessionId, str, NodeId]


@dataclass(eq=False, slots=True)
class Item:
    """One such push. order: of the containers' calls. ticket: while this process has numbered it itself."""

    order: int
    leaving: Leaving
    stored: Stored
    ticket: Ticket | None
    since: float


Attempt = Callable[[Item], Awaitable[GatewayError | None]]
"""None: taken. An error: a later try may succeed. Raises where that is not so."""


class Backlog:
    """All of them. is_open: whether control has told of the session, since the start."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        departures: Departures,
        attempt: Attempt,
        is_open: Callable[[SessionId], bool],
        clock: Clock,
        journal: Journal,
    ) -> None:
        self._keeper = keeper
        self._departures = departures
        self._attempt = attempt
        self._is_open = is_open
        self._clock = clock
        self._journal = journal
        self._items: dict[Key, list[Item]] = {}
        self._workers: dict[Key, asyncio.Task[None]] = {}
        self._stopping = False
        self.undeliverable = 0

    def __len__(self) -> int:
        return sum(len(items) for items in self._items.values())

    def __contains__(self, key: Key) -> bool:
        return key in self._items

    def add(self, item: Item) -> None:
        """A push that is on disk."""
        key = (item.leaving.session, item.leaving.topic, item.leaving.target)
        insort(self._items.setdefault(key, []), item, key=lambda known: known.order)
        if key not in self._workers and not self._stopping:
            self._workers[key] = asyncio.create_task(self._work(key))

    def forget(self, session: SessionId) -> None:
        """The session has ended: what was not delivered never will be, which is said."""
        for key in [key for key in self._items if key[0] == session]:
            items = self._items.pop(key)
            for item in items:
                self._end(item, taken=False)
            worker = self._workers.pop(key, None)
            if worker is not None:
                worker.cancel()
            self._undeliverable(key, "the session has ended", len(items))

    def expire(self, *, before: float) -> None:
        """Forget those of sessions that control does not know and that were there before `before`."""
        for key, items in list(self._items.items()):
            if not self._is_open(key[0]) and items[-1].since < before:
                self.forget(key[0])

    async def stop(self) -> None:
        """End; what is on disk stays there."""
        self._stopping = True
        workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, key: Key) -> None:
        pause = PAUSE_FIRST_S
        try:
            while items := self._items.get(key):
                item = items[0]
                try:
                    failure = await self._attempt(item) if self._is_open(key[0]) else _unknown()
                except GatewayError as error:
                    self._remove(key, item, taken=False)
                    self._undeliverable(key, str(error), 1)
                    continue
                if failure is None:
                    self._remove(key, item, taken=True)
                    pause = PAUSE_FIRST_S
                    continue
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_LAST_S)
        finally:
            if self._workers.get(key) is asyncio.current_task():
                del self._workers[key]

    def _remove(self, key: Key, item: Item, *, taken: bool) -> None:
        items = self._items.get(key)
        if items is None or item not in items:
            return
        items.remove(item)
        if not items:
            del self._items[key]
        self._end(item, taken=taken)

    def _end(self, item: Item, *, taken: bool) -> None:
        self._keeper.left(item.leaving.session, item.stored)
        if item.ticket is not None:
            self._departures.end(item.ticket, taken=taken)

    def _undeliverable(self, key: Key, reason: str, count: int) -> None:
        self.undeliverable += count
        session, topic, target = key
        self._journal.note(
            "chan.undeliverable", session_id=session, topic=topic, peer=target, reason=reason, messages=count
        )


def _unknown() -> GatewayError:
    return GatewayError("the session is not known yet")
