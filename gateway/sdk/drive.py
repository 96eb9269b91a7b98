"""Runs one party of a secure operator over a channel: performs its effects, delivers what it awaits.

Every message on the wire begins with eight bytes, little-endian: bit 63 says that more parts of the same message
follow, the rest counts the parts of one topic from 0. Repeats are dropped and gaps refused, so pushing twice is safe
(part 4, rule 7). Topics are `<task id>.<sender>-<receiver>.<topic>`; both names are in it because modules disagree on
whether the sender is part of a queue's address (9.2). The topic `abort` tells the other side not to wait any longer.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import CallerError, ProtocolViolation
from gateway.operators.party import Awaited, Effect, Finish, Party, PartyName, Progress, Send
from gateway.sdk.channel import Channel, Payload
from gateway.sdk.environment import Address
from gateway.sdk.result import Code, ComponentError

ABORT: Final = "abort"
MORE: Final = 1 << 63
PART_BYTES: Final = 4 << 20
MAX_MESSAGE_BYTES: Final = 1 << 30
SLICE_MS: Final = 2_000
"""One long poll; between two of them the abort topics are looked at."""
SHARED_SLICE_MS: Final = 50
"""One poll when several topics are awaited at once."""
ABORT_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait, in seconds: in all, and for any one message."""

    total: float
    message: float


class Link:
    """Numbered messages between the parties of one task."""

    def __init__(
        self,
        channel: Channel,
        *,
        task_id: str,
        own: PartyName,
        parties: Mapping[PartyName, Address],
        clock: Callable[[], float] = time.monotonic,
        part_bytes: int = PART_BYTES,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        """clock: the channel's; part_bytes: a longer message is sent in parts of this size."""
        self._channel = channel
        self._task_id = task_id
        self._own = own
        self._parties = parties
        self._clock = clock
        self._part_bytes = part_bytes
        self._max_message_bytes = max_message_bytes
        self._sent: dict[tuple[PartyName, str], int] = {}
        self._seen: dict[tuple[PartyName, str], int] = {}
        self._parts: dict[tuple[PartyName, str], bytearray] = {}
        self.moved = 0
        """Bytes of messages sent and received so far."""

    @property
    def peers(self) -> Sequence[PartyName]:
        return [party for party in self._parties if party != self._own]

    def _topic(self, sender: PartyName, receiver: PartyName, topic: str) -> str:
        return f"{self._task_id}.{sender}-{receiver}.{topic}"

    def send(
        self, to: PartyName, topic: str, payload: Payload, *, deadline: float, part_seconds: float = math.inf
    ) -> None:
        """Queue a message at the partner's module. Raises ComponentError(TRANSPORT) when it fails until the deadline,
        or when one part of it fails for part_seconds.
        """
        view = memoryview(payload).cast("B")
        address = self._address(to)
        wire = self._topic(self._own, to, topic)
        for start in range(0, max(len(view), 1), self._part_bytes):
            number = self._sent.get((to, topic), 0)
            more = MORE if start + self._part_bytes < len(view) else 0
            head = (number | more).to_bytes(8, "little")
            part = view[start : start + self._part_bytes]
            until = min(deadline, self._clock() + part_seconds)
            self._channel.push(wire, head, part, to=address, deadline=until, repeatable=True)
            self._sent[to, topic] = number + 1
            self.moved += len(part)

    def receive(self, sender: PartyName, topic: str, *, wait_ms: int, deadline: float) -> memoryview | None:
        """The next whole message, or None when it is not there within one wait (parts of it are kept).

        Raises ComponentError: PARTNER_VIOLATION for a gap, a part without number or too long a message, TRANSPORT.
        """
        key = (sender, topic)
        while True:
            frame = self._channel.pop(
                self._topic(sender, self._own, topic), source=self._address(sender), wait_ms=wait_ms, deadline=deadline
            )
            if frame is None:
                return None
            if len(frame) < 8:
                raise ComponentError(Code.PARTNER_VIOLATION, f"{sender} sent a message without number on {topic!r}")
            number = int.from_bytes(frame[:8], "little")
            more, number = bool(number & MORE), number & ~MORE
            expected = self._seen.get(key, 0)
            if number < expected:
                if self._clock() >= deadline:
                    return None  # whoever repeats itself without end gets no more time than others
                continue
            if number > expected:
                raise ComponentError(Code.PARTNER_VIOLATION, f"message {expected} of {sender} on {topic!r} is missing")
            self._seen[key] = number + 1
            self.moved += len(frame) - 8
            begun = self._parts.get(key)
            if len(frame) - 8 + len(begun or b"") > self._max_message_bytes:
                raise ComponentError(Code.PARTNER_VIOLATION, f"message of {sender} on {topic!r} is too long")
            if begun is None and not more:
                return frame[8:]
            begun = self._parts.setdefault(key, bytearray())
            begun += frame[8:]
            if not more:
                return memoryview(self._parts.pop(key))

    def give(self, to: PartyName, topic: str, payload: Payload, *, patience: Patience) -> None:
        """`send` with the limits of a task."""
        end = self._clock() + patience.total
        self.send(to, topic, payload, deadline=end, part_seconds=patience.message)

    def take(self, sender: PartyName, topic: str, *, patience: Patience) -> memoryview:
        """Wait for the next message. Raises ComponentError: PARTNER_SILENT, PARTNER_GAVE_UP, and those of `receive`."""
        end = self._clock() + patience.total
        awaited = [Awaited(sender, topic)]
        return _await_one(self, awaited, patience=patience, end=end, clock=self._clock)[1]

    def abort(self, code: str) -> None:
        """Tell every partner, as far as it can be reached, that this side gives up. Never raises."""
        for peer in self.peers:
            try:
                payload = json.dumps({"code": code}).encode()
                self.send(peer, ABORT, payload, deadline=self._clock() + ABORT_SECONDS)
            except ComponentError:
                continue

    def check_abort(self) -> None:
        """Raise ComponentError(PARTNER_GAVE_UP) when a partner has said so. Only its code is repeated."""
        for peer in self.peers:
            try:
                frame = self._channel.peek(self._topic(peer, self._own, ABORT), source=self._address(peer))
            except ComponentError:
                # Only a hint was asked for; the next pop says whether the module is really gone.
                continue
            if frame is None:
                continue
            try:
                value = json.loads(bytes(frame[8:1024]))
                code = value.get("code") if isinstance(value, dict) else None
            except (ValueError, RecursionError):
                code = None
            told = (
                code if isinstance(code, str) and code.isascii() and code.isalnum() and len(code) <= 16 else "unknown"
            )
            raise ComponentError(Code.PARTNER_GAVE_UP, f"{peer} gave up with result code {told}")

    def _address(self, party: PartyName) -> Address:
        try:
            return self._parties[party]
        except KeyError:
            raise CallerError(f"{party} is not a party of this task") from None


def drive(
    party: Party,
    link: Link,
    *,
    patience: Patience,
    progress: Callable[[Progress], None],
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """Run a party to its end and return the result of its Finish.

    Only what `awaits` names is taken from the channel, so early messages stay in their queues.
    Raises ComponentError: PARTNER_SILENT after patience.message without a message (or patience.total in all), naming
    who is silent; TRANSPORT when a part cannot be delivered for as long; PARTNER_VIOLATION when the party refuses a
    message; PARTNER_GAVE_UP when a partner aborted.
    The caller sends the abort (`Link.abort`), since it also knows of failures outside the operator.
    """
    end = clock() + patience.total
    results = _perform(party.start(), link, patience=patience, end=end, progress=progress)
    while not results:
        awaited = list(party.awaits())
        if not awaited:
            raise CallerError("the party awaits nothing and is not finished")
        got, payload = _await_one(link, awaited, patience=patience, end=end, clock=clock)
        try:
            effects = party.receive(got.sender, got.topic, payload)
        except ProtocolViolation as e:
            raise ComponentError(Code.PARTNER_VIOLATION, f"{got.sender} broke the protocol: {e}") from e
        results = _perform(effects, link, patience=patience, end=end, progress=progress)
    return results[0].result


def _perform(
    effects: Sequence[Effect],
    link: Link,
    *,
    patience: Patience,
    end: float,
    progress: Callable[[Progress], None],
) -> list[Finish]:
    finished = []
    for effect in effects:
        match effect:
            case Send(to=to, topic=topic, payload=payload):
                link.send(to, topic, payload, deadline=end, part_seconds=patience.message)
            case Progress():
                progress(effect)
            case Finish():
                finished.append(effect)
    return finished


def _await_one(
    link: Link, awaited: Sequence[Awaited], *, patience: Patience, end: float, clock: Callable[[], float]
) -> tuple[Awaited, memoryview]:
    """The first message that comes on any awaited topic."""
    until = min(end, clock() + patience.message)
    looked = clock()
    while True:
        left = until - clock()
        for one in awaited:
            longest = SLICE_MS if len(awaited) == 1 else SHARED_SLICE_MS
            wait_ms = max(1, min(longest, int(left * 1000)))
            payload = link.receive(one.sender, one.topic, wait_ms=wait_ms, deadline=until)
            if payload is not None:
                return one, payload
        if clock() - looked >= SLICE_MS / 2000:
            link.check_abort()
            looked = clock()
        if clock() >= until:
            link.check_abort()
            silent = ", ".join(sorted({one.sender for one in awaited}))
            raise ComponentError(Code.PARTNER_SILENT, _silence(silent, awaited, patience, total=until >= end))


def _silence(silent: str, awaited: Sequence[Awaited], patience: Patience, *, total: bool) -> str:
    topics = ", ".join(sorted({one.topic for one in awaited}))
    if total:
        return f"the time limit of {patience.total:g} s is over while waiting for {silent} ({topics})"
    return f"{silent} sent nothing for {patience.message:g} s (awaited: {topics})"
