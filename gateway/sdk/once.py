"""What makes a task's messages pass exactly once where its gateway knows names (docs/transport.md): numbers of pushes,
acknowledgements of pops. A transport module that knows neither passes over both.

Pushes of a topic are numbered here, so that one repeated after the task's own gateway was killed arrives once, too.
Pops are acknowledged where messages are kept on disk, for only there is anything left to give out again; which that is,
the answer to the first says. Both want one call of a topic at a time, which is the caller's to see to.
"""

import os
from typing import Final

from gateway.data_plane.core.delivery import TASK, SendLane

KEPT_NOTHING_YET: Final = "k0"
"""Of a reader that has no message, and acknowledges those that are kept on disk."""

Key = tuple[str, str]
"""Topic and node of the other side."""


class Once:
    """Of one channel."""

    def __init__(self) -> None:
        self._epoch = TASK + os.urandom(8).hex()
        self._lanes: dict[Key, SendLane] = {}
        self._have: dict[Key, str] = {}
        self._plain = False

    def lane(self, key: Key) -> SendLane:
        """The numbering of the pushes of a topic."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = SendLane(self._epoch)
        return lane

    def ack(self, key: Key) -> str:
        """What the next pop says; "" for nothing."""
        return "" if self._plain else self._have.get(key, KEPT_NOTHING_YET)

    def answered(self, key: Key, named: str, *, message: bool) -> None:
        """The answer to such a pop: whether there was a message, and its name."""
        if named:
            self._have[key] = named
        elif message:
            self._plain = True
