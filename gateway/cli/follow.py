"""`interconn job logs --follow`: the lines of our tasks as they come, until the job has ended."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

LOOK_S: Final = 1.0

Fetch = Callable[..., Sequence[Mapping[str, Any]]]
"""Asks the node for log lines: keywords task_name, start, length -> one entry per share of this node."""


@dataclass(slots=True)
class Follower:
    """How far the log of each share has been shown."""

    fetch: Fetch
    task: str | None = None
    _seen: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def fresh(self) -> Iterator[tuple[str, str]]:
        """(whose, line) of every line that was not there before; whose: task, role and index."""
        for share in self.fetch(task_name=self.task, start=None, length=0):
            key = _key(share)
            while self._seen.get(key, 0) < share["lines"]:
                lines = self._next(key)
                if not lines:
                    break
                self._seen[key] = self._seen.get(key, 0) + len(lines)
                yield from ((f"{key[0]} {key[1]}.{key[2]}", line) for line in lines)

    def _next(self, key: tuple[str, str, int]) -> list[str]:
        """As many lines as the node gives at a time, from where we are; of the shares of a task only this one's."""
        for share in self.fetch(task_name=key[0], start=self._seen.get(key, 0), length=None):
            if _key(share) == key:
                # Not splitlines: what a component prints may hold other line ends, which the node does not count.
                return str(share["text"]).removesuffix("\n").split("\n") if share["text"] else []
        return []


def _key(share: Mapping[str, Any]) -> tuple[str, str, int]:
    return str(share["task_name"]), str(share["role"]), int(share["index"])


def follow(
    fetch: Fetch,
    *,
    task: str | None,
    ended: Callable[[], bool],
    show: Callable[[str, str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show every line once. ended: whether the job has; what is written until then is still shown."""
    follower = Follower(fetch, task)
    while True:
        over = ended()
        for whose, line in follower.fresh():
            show(whose, line)
        if over:
            return
        sleep(LOOK_S)
