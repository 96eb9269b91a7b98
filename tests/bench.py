"""Runs the parties of a secure operator in one process: no transport, no clock, no threads.

Models a runner: it performs the effects, keeps early messages in queues by (sender, topic), delivers only what a party
awaits, and starts everyone before it delivers anything.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.operators.party import Effect, Finish, Party, PartyName, Progress, Send


@dataclass(frozen=True, slots=True)
class Message:
    sender: PartyName
    to: PartyName
    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class PlayResult:
    """results: of each party that finished. transcript: every message as it was sent. progress: in order, per party."""

    results: Mapping[PartyName, object]
    transcript: Sequence[Message]
    progress: Mapping[PartyName, Sequence[Progress]]

    @property
    def stuck(self) -> bool:
        """A party waits for something that will never come."""
        return len(self.results) < len(self.progress)


Disturb = Callable[[int, Message], Iterable[Message]]
"""(number in the transcript, message) -> what is delivered instead: nothing drops it, the same twice repeats it."""


def play(parties: Mapping[PartyName, Party], disturb: Disturb | None = None) -> PlayResult:
    """Until all have finished or nothing more can be delivered. A party's error comes out as it is."""
    queues: dict[tuple[PartyName, PartyName, str], deque[bytes]] = defaultdict(deque)
    transcript: list[Message] = []
    results: dict[PartyName, object] = {}
    progress: dict[PartyName, list[Progress]] = {name: [] for name in parties}

    def perform(name: PartyName, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                message = Message(name, effect.to, effect.topic, bytes(effect.payload))
                transcript.append(message)
                for heard in [message] if disturb is None else disturb(len(transcript) - 1, message):
                    queues[heard.to, heard.sender, heard.topic].append(heard.payload)
            elif isinstance(effect, Finish):
                results[name] = effect.result
            else:
                progress[name].append(effect)

    for name, party in parties.items():
        perform(name, party.start())
    moved = True
    while moved:
        moved = False
        for name, party in parties.items():
            for awaited in party.awaits():
                queue = queues[name, awaited.sender, awaited.topic]
                if queue:
                    perform(name, party.receive(awaited.sender, awaited.topic, memoryview(queue.popleft())))
                    moved = True
                    break
    return PlayResult(results, transcript, progress)


def flip(message: Message, position: int, bits: int = 0xFF) -> Message:
    """The message with one byte changed; a negative position counts from the end."""
    payload = bytearray(message.payload)
    payload[position] ^= bits
    return Message(message.sender, message.to, message.topic, bytes(payload))
