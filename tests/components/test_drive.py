"""Numbered messages and the driver of a party, over real sockets."""

import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest

from gateway.errors import CallerError, ProtocolViolation
from gateway.operators.party import Awaited, Effect, Finish, PartyName, Progress, Send, require_turn
from gateway.sdk import drive as driving
from gateway.sdk.channel import Channel, Line
from gateway.sdk.drive import Link, Patience, drive
from gateway.sdk.environment import Address
from gateway.sdk.result import Code, ComponentError
from tests.components.platform import Platform, soon

GUEST, HOST = PartyName("guest.0"), PartyName("host.0")
PARTIES = {GUEST: Address("LX-A", "JG-A"), HOST: Address("LX-B", "JG-B")}
SESSION = "session_job-1"


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "SLICE_MS", 40)
    monkeypatch.setattr(driving, "SHARED_SLICE_MS", 10)
    monkeypatch.setattr(driving, "ABORT_SECONDS", 0.2)


def link_of(platform: Platform, own: PartyName, **options: int) -> Link:
    channel = Channel(Line(platform.address, SESSION, "tr", "tok"))
    return Link(channel, task_id="task_1", own=own, parties=PARTIES, **options)


def wait_for(link: Link, topic: str) -> memoryview | None:
    return link.receive(HOST if link._own == GUEST else GUEST, topic, wait_ms=30, deadline=soon())


def put(platform: Platform, topic: str, frame: bytes) -> None:
    """Something in the guest's queue that claims to come from the host."""
    platform.queues[SESSION, f"task_1.host.0-guest.0.{topic}"].append(frame)


def numbered(number: int, payload: bytes, *, more: bool = False) -> bytes:
    return struct.pack("<Q", number | (1 << 63 if more else 0)) + payload


# --- messages ---------------------------------------------------------------------------------------------------------


def test_messages_keep_order_and_topics_apart(platform: Platform) -> None:
    guest, host = link_of(platform, GUEST), link_of(platform, HOST)
    for payload in (b"one", b"", b"three"):
        host.send(GUEST, "a", payload, deadline=soon())
    host.send(GUEST, "b", bytearray(b"other"), deadline=soon())
    assert [bytes(wait_for(guest, "a") or b"none") for _ in range(4)] == [b"one", b"none", b"three", b"none"]
    assert wait_for(guest, "b") == b"other"
    topics = {topic for session, topic in platform.queues if session == SESSION}
    assert "task_1.host.0-guest.0.a" in topics


def test_long_messages_travel_in_parts(platform: Platform) -> None:
    guest, host = link_of(platform, GUEST), link_of(platform, HOST, part_bytes=100)
    payload = bytes(range(256)) * 4
    for _ in range(2):
        host.send(GUEST, "a", payload, deadline=soon())
    assert len([request for request in platform.requests if request.operation == "push"]) == 22
    assert wait_for(guest, "a") == payload
    assert wait_for(guest, "a") == payload
    host.send(GUEST, "a", payload[:200], deadline=soon())
    assert wait_for(guest, "a") == payload[:200]


def test_repeats_are_dropped(platform: Platform) -> None:
    guest = link_of(platform, GUEST)
    for frame in (numbered(0, b"a"), numbered(0, b"a"), numbered(1, b"b"), numbered(0, b"x"), numbered(2, b"c")):
        put(platform, "t", frame)
    assert [bytes(wait_for(guest, "t") or b"") for _ in range(4)] == [b"a", b"b", b"c", b""]


def test_endless_repeats_do_not_outlast_the_deadline(platform: Platform) -> None:
    guest = link_of(platform, GUEST)
    put(platform, "t", numbered(0, b"a"))
    assert wait_for(guest, "t") == b"a"
    for _ in range(20):
        put(platform, "t", numbered(0, b"a"))
    assert guest.receive(HOST, "t", wait_ms=30, deadline=time.monotonic()) is None
    assert platform.queues[SESSION, "task_1.host.0-guest.0.t"]


def test_lost_answer_to_a_push_does_no_harm(platform: Platform) -> None:
    """The module has the message, the sender does not know it and sends it again."""
    guest, host = link_of(platform, GUEST), link_of(platform, HOST)

    def take_and_deny(request: object) -> tuple[int, bytes, str]:
        platform.serve(request)  # type: ignore[arg-type]
        return platform.answer("E0000000607")

    platform.answers.append(take_and_deny)
    host.send(GUEST, "t", b"once", deadline=soon())
    host.send(GUEST, "t", b"twice", deadline=soon())
    assert [bytes(wait_for(guest, "t") or b"") for _ in range(3)] == [b"once", b"twice", b""]


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([b"x"], "without number"),
        ([numbered(1, b"x")], "message 0 of host.0 on 't' is missing"),
        ([numbered(0, b"x"), numbered(2, b"y")], "message 1 of host.0"),
        ([numbered(0, b"x" * 60, more=True), numbered(1, b"x" * 60)], "too long"),
        ([numbered(0, b"x" * 101)], "too long"),
    ],
)
def test_broken_sequences(platform: Platform, frames: Sequence[bytes], words: str) -> None:
    guest = link_of(platform, GUEST, max_message_bytes=100)
    for frame in frames:
        put(platform, "t", frame)
    with pytest.raises(ComponentError, match=words) as caught:
        [wait_for(guest, "t") for _ in frames]
    assert caught.value.code == Code.PARTNER_VIOLATION


def test_only_parties_of_the_task_are_addressed(platform: Platform) -> None:
    with pytest.raises(CallerError):
        link_of(platform, GUEST).send(PartyName("host.9"), "t", b"", deadline=soon())


# --- the driver -------------------------------------------------------------------------------------------------------


class Counter:
    """Sends numbers to and fro until `rounds`, on two topics; refuses a number that is not the next."""

    def __init__(self, own: PartyName, *, first: bool, rounds: int = 6, extra: Sequence[Awaited] = ()) -> None:
        self._peer = HOST if own == GUEST else GUEST
        self._first = first
        self._rounds = rounds
        self._extra = extra
        self._next = 0 if first else 1
        self.seen: list[int] = []

    def _send(self, number: int) -> Send:
        return Send(self._peer, "even" if number % 2 == 0 else "odd", memoryview(bytes([number])))

    def start(self) -> Sequence[Effect]:
        return [self._send(0), Progress("count", 0, self._rounds, "rounds")] if self._first else []

    def awaits(self) -> Sequence[Awaited]:
        expected = len(self.seen) * 2 + (1 if self._first else 0)
        return [Awaited(self._peer, "even" if expected % 2 == 0 else "odd"), *self._extra]

    def receive(self, sender: PartyName, topic: str, payload: memoryview) -> Sequence[Effect]:
        require_turn(self.awaits(), sender, topic)
        number = payload[0]
        if number != len(self.seen) * 2 + (1 if self._first else 0):
            raise ProtocolViolation("not the next number")
        self.seen.append(number)
        effects: list[Effect] = [] if number >= self._rounds else [self._send(number + 1)]
        if number >= self._rounds - 1:
            effects.append(Finish(self.seen))
        return effects


def run_party(platform: Platform, party: Counter, own: PartyName, *, message: float = 5, total: float = 5) -> object:
    shown: list[Progress] = []
    try:
        return drive(
            party, link_of(platform, own), patience=Patience(total=total, message=message), progress=shown.append
        )
    except ComponentError as e:
        return e


@pytest.mark.parametrize("extra", [(), (Awaited(GUEST, "never"), Awaited(GUEST, "neither"))])
def test_two_parties_over_the_wire(platform: Platform, extra: Sequence[Awaited]) -> None:
    results: dict[PartyName, object] = {}

    def other() -> None:
        results[HOST] = run_party(platform, Counter(HOST, first=False, extra=extra), HOST)

    thread = threading.Thread(target=other)
    thread.start()
    results[GUEST] = run_party(platform, Counter(GUEST, first=True), GUEST)
    thread.join(10)
    assert results == {GUEST: [1, 3, 5], HOST: [0, 2, 4, 6]}


def failed(result: object, code: Code) -> str:
    assert isinstance(result, ComponentError)
    assert result.code == code, result.message
    return result.message


def test_silent_partner_is_named(platform: Platform) -> None:
    result = run_party(platform, Counter(GUEST, first=True), GUEST, message=0.1)
    assert failed(result, Code.PARTNER_SILENT) == "host.0 sent nothing for 0.1 s (awaited: odd)"


def test_a_part_that_cannot_be_delivered_ends_the_task_as_silence_does(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when the time of the whole task is over."""
    limits: list[float] = []

    def unreachable(_channel: Channel, *_parts: object, deadline: float, **_options: object) -> NoReturn:
        limits.append(deadline - begun)
        raise ComponentError(Code.TRANSPORT, "push to node LX-B failed: code E0000000503")

    monkeypatch.setattr(Channel, "push", unreachable)
    begun = time.monotonic()
    failed(run_party(platform, Counter(GUEST, first=True), GUEST, message=60, total=3600), Code.TRANSPORT)
    failed(run_party(platform, Counter(GUEST, first=True), GUEST, message=3600, total=60), Code.TRANSPORT)
    assert all(limit == pytest.approx(60, abs=30) for limit in limits)
    assert len(limits) == 2


def test_total_limit(platform: Platform) -> None:
    result = run_party(platform, Counter(GUEST, first=True), GUEST, total=0.1)
    assert "time limit of 0.1 s is over while waiting for host.0" in failed(result, Code.PARTNER_SILENT)


def test_violation_names_the_partner(platform: Platform) -> None:
    put(platform, "odd", numbered(0, b"\x07"))
    result = run_party(platform, Counter(GUEST, first=True), GUEST)
    assert failed(result, Code.PARTNER_VIOLATION) == "host.0 broke the protocol: not the next number"


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (numbered(0, b'{"code": "4002"}'), "4002"),
        (numbered(0, b'{"code": "<b>"}'), "unknown"),
        (numbered(0, b'{"code": 7}'), "unknown"),
        (numbered(0, b"[" * 900), "unknown"),
        (b"", "unknown"),
        (b"x", "unknown"),
    ],
)
def test_abort_of_the_partner_ends_the_wait(platform: Platform, frame: bytes, told: str) -> None:
    put(platform, "abort", frame or numbered(0, b"x" * 5000))
    result = run_party(platform, Counter(GUEST, first=True), GUEST)
    assert failed(result, Code.PARTNER_GAVE_UP) == f"host.0 gave up with result code {told}"


def test_abort_reaches_the_other_side_and_never_raises(platform: Platform) -> None:
    link_of(platform, HOST).abort("4002")
    with pytest.raises(ComponentError, match="4002"):
        link_of(platform, GUEST).check_abort()
    link_of(platform, GUEST).check_abort()
    platform.answers.extend([lambda _request: platform.answer("E0000000403")] * 1)
    link_of(platform, HOST).abort("4002")


def test_early_messages_wait_for_their_turn(platform: Platform) -> None:
    for number, topic in ((3, "odd"), (5, "odd")):
        put(platform, topic, numbered((number - 1) // 2, bytes([number])))
    platform.queues[SESSION, "task_1.host.0-guest.0.odd"].appendleft(numbered(0, b"\x01"))
    assert run_party(platform, Counter(GUEST, first=True), GUEST) == [1, 3, 5]


def test_idle_party_is_our_own_mistake(platform: Platform) -> None:
    class Idle(Counter):
        awaits: Callable[..., Sequence[Awaited]] = lambda _self: ()  # type: ignore[assignment]

    with pytest.raises(CallerError):
        run_party(platform, Idle(GUEST, first=True), GUEST)
