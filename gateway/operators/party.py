"""What a secure operator looks like from outside: a message handler without I/O (style: one class per role).

A runner (`gateway.sdk.drive`, or `tests/bench.py`) performs the effects. It delivers only what `awaits` names, so a
message that comes early stays in its queue and one that comes twice is never seen twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NewType, Protocol

from gateway.errors import CallerError

PartyName = NewType("PartyName", str)
"""`<role>.<index>` of a party in a task, e.g. `guest.0`."""


@dataclass(frozen=True, slots=True)
class Send:
    """Give `payload` to `to` under `topic`; messages of one (sender, topic) arrive in the order sent."""

    to: PartyName
    topic: str
    payload: bytes | bytearray | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class Finish:
    """This party is done; `result` is the operator's own result type."""

    result: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """Something to show while working: `done` of `total` `unit`s of `phase`."""

    phase: str
    done: int
    total: int
    unit: str


Effect = Send | Finish | Progress


@dataclass(frozen=True, slots=True)
class Awaited:
    """A message that the party is ready to take now."""

    sender: PartyName
    topic: str


class Party(Protocol):
    """One side of a secure operator."""

    def start(self) -> Sequence[Effect]:
        """First effects; called once."""
        ...

    def awaits(self) -> Sequence[Awaited]:
        """What may be delivered now; empty only when finished."""
        ...

    def receive(self, sender: PartyName, topic: str, payload: memoryview) -> Sequence[Effect]:
        """Take one awaited message. Raises ProtocolViolation for a bad one, and is then unusable."""
        ...


def require_turn(awaited: Sequence[Awaited], sender: PartyName, topic: str) -> None:
    """Refuse a message that the party did not await: the runner's mistake, since it delivers only awaited ones."""
    if Awaited(sender, topic) not in awaited:
        raise CallerError(f"message {topic!r} from {sender} out of turn")
