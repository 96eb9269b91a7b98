"""A joint component's first exchange: do both parties mean the same task? Catches mistakes, not a lying partner."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.errors import ProtocolViolation
from gateway.operators.party import Awaited, Effect, Finish, PartyName, Send, require_turn
from gateway.sdk.component import Task
from gateway.sdk.drive import Link, drive
from gateway.sdk.result import Code, ComponentError

TOPIC: Final = "agreement"
MAX_BYTES: Final = 16 * 1024


class Agreement:
    """Sends own facts, awaits the partner's and finishes with them. Facts are texts that both parties may know."""

    def __init__(self, *, partner: PartyName, facts: Mapping[str, str]) -> None:
        self._partner = partner
        self._facts = facts
        self._done = False

    def start(self) -> Sequence[Effect]:
        return [Send(self._partner, TOPIC, json.dumps(dict(self._facts), sort_keys=True).encode())]

    def awaits(self) -> Sequence[Awaited]:
        return () if self._done else (Awaited(self._partner, TOPIC),)

    def receive(self, sender: PartyName, topic: str, payload: memoryview) -> Sequence[Effect]:
        require_turn(self.awaits(), sender, topic)
        self._done = True
        try:
            value = json.loads(bytes(payload[: MAX_BYTES + 1])) if len(payload) <= MAX_BYTES else None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise ProtocolViolation("agreement: not a JSON object of texts")
        return [Finish(value)]


def require_agreement(task: Task, link: Link, facts: Mapping[str, str]) -> None:
    """Raise ComponentError(DISAGREEMENT), naming what differs, unless the partner states the same facts."""
    partner = task.partner()
    party = Agreement(partner=partner, facts=facts)
    theirs = drive(party, link, patience=task.patience(), progress=task.output.progress)
    differing = sorted(name for name in facts if theirs.get(name) != facts[name])
    if differing:
        raise ComponentError(Code.DISAGREEMENT, f"not the same at {partner}: {', '.join(differing)}")
