"""Looks once an hour at what ends soon: a line in the log and in the audit trail per threshold, a metric at any time.

What was told is kept in the store, so that a restart repeats nothing.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from gateway.errors import GatewayError
from gateway.mgmt_plane.core.expiry import KINDS, Deadline
from gateway.mgmt_plane.service.deadlines import collect, remember, soon, warn
from gateway.model import NodeId
from gateway.ports import Clock, Journal, Store, Tx
from gateway.runtime.metrics import Sample, family

EVERY_S: Final = 3600.0


class ExpiryWatch:
    """One task between `start` and `stop`. own: our certificates' ends. thresholds: days before the end.

    stats: of the data process, which sees what TLS certificates partners show (`partner_tls`).
    """

    def __init__(
        self,
        *,
        store: Store,
        own: Callable[[], list[Deadline]],
        stats: Callable[[], Awaitable[Mapping[str, Any]]],
        thresholds: Sequence[int],
        clock: Clock,
        journal: Journal,
        every_s: float = EVERY_S,
    ) -> None:
        self._store = store
        self._own = own
        self._stats = stats
        self._thresholds = tuple(sorted(thresholds, reverse=True))
        self._clock = clock
        self._journal = journal
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="expiry")

    async def stop(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except (GatewayError, OSError) as e:
                self._journal.note("expiry.unseen", reason=str(e)[:300])
            await asyncio.sleep(self._every_s)

    async def look(self) -> int:
        """Warn of what is due; how many warnings."""
        now, own, shown = self._clock.now_ms(), await asyncio.to_thread(self._own), await self._shown()

        def work(tx: Tx) -> list[tuple[Deadline, int]]:
            remember(tx, shown)
            return warn(tx, [*own, *collect(tx, now=now)], now=now, thresholds=self._thresholds)

        told = await self._store.run(work)
        for each, days in told:
            self._journal.note(
                "expiry.warned", kind=each.kind, about=each.subject, peer=each.peer or None, days=days, ends=each.at
            )
        return len(told)

    async def _shown(self) -> Mapping[NodeId, Mapping[str, Any]]:
        """What partners have shown; nothing new while the data process is away."""
        try:
            shown = (await self._stats())["partner_tls"]
        except GatewayError:
            return {}
        return {NodeId(node): each for node, each in shown.items()}

    async def soon(self) -> list[Deadline]:
        """What ends within the widest threshold or has ended, the nearest first."""
        now, own = self._clock.now_ms(), await asyncio.to_thread(self._own)
        found = [*own, *await self._store.run(lambda tx: collect(tx, now=now))]
        return soon(found, now=now, thresholds=self._thresholds)

    async def exposition(self) -> str:
        """How many end soon, and seconds until the first of each kind does, in text format."""
        now, found = self._clock.now_ms(), await self.soon()
        counts: list[Sample] = []
        first: list[Sample] = []
        for kind in KINDS:
            ends = [each.at for each in found if each.kind == kind]
            counts.append(((("kind", kind),), len(ends)))
            if ends:
                first.append(((("kind", kind),), (min(ends) - now) / 1000))
        return family(
            "interconn_expiring", "gauge", "Contracts, grants, keys that end soon or have ended.", counts
        ) + family("interconn_expiry_seconds", "gauge", "Until the first of them ends; negative once it has.", first)
