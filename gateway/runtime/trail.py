"""Keeps the audit trail going while the gateway runs: writes waiting failures and seals what has waited too long.

Calls that the data process refused are told too, as counts once a minute: it has no store.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from gateway.errors import GatewayError
from gateway.mgmt_plane.service.trail import Trail
from gateway.ports import Journal

EVERY_S: Final = 1.0
CHANNEL_EVERY_S: Final = 60.0


class TrailTender:
    """One task between `start` and `stop`. stats: counters of the data process, `refused` among them."""

    def __init__(
        self,
        trail: Trail,
        journal: Journal,
        *,
        stats: Callable[[], Awaitable[Mapping[str, Any]]],
        every_s: float = EVERY_S,
        channel_every_s: float = CHANNEL_EVERY_S,
    ) -> None:
        self._trail = trail
        self._journal = journal
        self._stats = stats
        self._every_s = every_s
        self._channel_every_s = channel_every_s
        self._refused: Mapping[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="trail")

    async def stop(self) -> None:
        """Stop, write that the node stops and seal."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        try:
            await self._trail.close()
        except GatewayError as e:
            self._journal.note("trail.unwritten", reason=str(e))

    async def _channel(self) -> None:
        """How many calls the data process has refused since we last asked, by kind; it counts anew after a restart."""
        try:
            refused = {str(kind): int(count) for kind, count in (await self._stats())["refused"].items()}
        except (GatewayError, KeyError, TypeError, ValueError, AttributeError):
            return
        before, self._refused = self._refused, refused
        anew = any(count < before.get(kind, 0) for kind, count in refused.items())
        more = {kind: count if anew else count - before.get(kind, 0) for kind, count in refused.items()}
        more = {kind: count for kind, count in more.items() if count}
        if more:
            await self._trail.tell("channel.refused", "", **more)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._trail.tend()
                if loop.time() - asked >= self._channel_every_s:
                    asked = loop.time()
                    await self._channel()
            except GatewayError as e:
                self._journal.note("trail.unwritten", reason=str(e))
