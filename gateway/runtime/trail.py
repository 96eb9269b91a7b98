"""Keeps the audit trail going while the gateway runs: writes waiting failures and seals what has waited too long."""

import asyncio
import contextlib
from typing import Final

from gateway.errors import GatewayError
from gateway.mgmt_plane.service.trail import Trail
from gateway.ports import Journal

EVERY_S: Final = 1.0


class TrailTender:
    """One task between `start` and `stop`."""

    def __init__(self, trail: Trail, journal: Journal, *, every_s: float = EVERY_S) -> None:
        self._trail = trail
        self._journal = journal
        self._every_s = every_s
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

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._trail.tend()
            except GatewayError as e:
                self._journal.note("trail.unwritten", reason=str(e))
