"""How many components run at a time on this node, and what they may use together.

First come, first served: who asks for much is not overtaken for ever by those who ask for little. What a component is
held to is the launcher's; here only the turn is given.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.errors import Kind, Refused
from gateway.mgmt_plane.core.dag import Resources


@dataclass(frozen=True, slots=True)
class Capacity:
    """Of one node. cpus: cores; memory: GiB; both may be infinite."""

    running: int
    cpus: float
    memory: float


class Slots:
    """The turns of components. A component without a limit of its own counts as nothing but one of `running`."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._running = 0
        self._cpus = 0.0
        self._memory = 0.0
        self._waiting: deque[tuple[Resources, asyncio.Future[None]]] = deque()

    @property
    def running(self) -> int:
        """Turns that are held now."""
        return self._running

    @asynccontextmanager
    async def turn(self, need: Resources, *, at_once: bool = False) -> AsyncIterator[None]:
        """Hold a turn; waits for it unless `at_once`, which is for what runs already.

        Raises Refused(TOO_LARGE) where the node could never give it.
        """
        if not at_once:
            for what, wanted, most in (
                ("cpus", need.cpu, self._capacity.cpus),
                ("GiB of memory", need.memory, self._capacity.memory),
            ):
                if wanted is not None and wanted > most:
                    raise Refused(f"{wanted:g} {what} are asked for, this node gives {most:g}", kind=Kind.TOO_LARGE)
            if self._waiting or not self._fits(need):
                await self._wait(need)
            else:
                self._take(need)
        else:
            self._take(need)
        try:
            yield
        finally:
            self._running -= 1
            self._cpus -= need.cpu or 0.0
            self._memory -= need.memory or 0.0
            self._serve()

    async def _wait(self, need: Resources) -> None:
        given = asyncio.get_running_loop().create_future()
        self._waiting.append((need, given))
        try:
            await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():  # given and taken away in the same moment
                self._running -= 1
                self._cpus -= need.cpu or 0.0
                self._memory -= need.memory or 0.0
            else:
                self._waiting = deque(each for each in self._waiting if each[1] is not given)
            self._serve()
            raise

    def _fits(self, need: Resources) -> bool:
        return (
            self._running < self._capacity.running
            and self._cpus + (need.cpu or 0.0) <= self._capacity.cpus
            and self._memory + (need.memory or 0.0) <= self._capacity.memory
        )

    def _take(self, need: Resources) -> None:
        self._running += 1
        self._cpus += need.cpu or 0.0
        self._memory += need.memory or 0.0

    def _serve(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            need, given = self._waiting.popleft()
            if not given.done():
                self._take(need)
                given.set_result(None)
