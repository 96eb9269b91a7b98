"""Names of messages: 0 lost, 0 doubled, 0 swapped whatever the network does, on the cores alone and with the waits."""

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.data_plane.core.delivery import LANE_IDLE_S, WINDOW, Inbox, Name, Outbox, SendLane, Verdict, read_name
from gateway.data_plane.lanes import HELD, Arrivals, Departures
from gateway.errors import GatewayError, Kind, ProtocolViolation, Refused, Unavailable
from gateway.model import NodeId, SessionId
from gateway.runtime.system import SystemClock

S, T, A, B = SessionId("s-1"), "t", NodeId("LX-A"), NodeId("LX-B")


def epochs() -> Iterator[str]:
    return (f"0123456789ab{n:08x}" for n in itertools.count())


class Delivery(RuleBasedStateMachine):
    """One lane over a network that loses, doubles, delays and reorders calls and answers; the sender may start anew."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs = epochs()
        self.lane = SendLane(next(self.epochs))
        self.inbox = Inbox()
        self.written = 0
        self.on_its_way: dict[int, int] = {}  # number -> message, of the present lane
        self.network: list[tuple[Name, int]] = []  # calls that the partner may get, any time
        self.taken: list[int] = []
        self.told: set[int] = set()  # messages whose writer heard success
        self.given_up: set[int] = set()

    @rule()
    def write(self) -> None:
        self.on_its_way[self.lane.begin()] = self.written
        self.written += 1

    @precondition(lambda self: self.on_its_way)
    @rule(pick=st.randoms(use_true_random=False))
    def attempt(self, pick) -> None:
        able = [number for number in self.on_its_way if self.lane.may_go(number)]
        number = pick.choice(able)
        self.network.append((self.lane.name(number), self.on_its_way[number]))

    @precondition(lambda self: self.network)
    @rule(pick=st.randoms(use_true_random=False), copy=st.booleans(), answered=st.booleans())
    def arrive(self, pick, copy: bool, answered: bool) -> None:
        at = pick.randrange(len(self.network))
        name, message = self.network[at]
        if not copy:
            del self.network[at]
        verdict = self.inbox.judge(S, T, A, name, now=0.0)
        if verdict is Verdict.TAKE:
            self.taken.append(message)
            self.inbox.took(S, T, A, name)
        success = verdict in {Verdict.TAKE, Verdict.REPEAT}
        if name.epoch == self.lane.epoch and name.sequence in self.on_its_way:
            if answered and success:
                self.lane.end(name.sequence, taken=True)
                self.told.add(self.on_its_way.pop(name.sequence))
            else:
                self.lane.failed()

    @precondition(lambda self: self.on_its_way)
    @rule(pick=st.randoms(use_true_random=False))
    def give_up(self, pick) -> None:
        number = pick.choice(list(self.on_its_way))
        self.lane.end(number, taken=False)
        self.given_up.add(self.on_its_way.pop(number))

    @rule()
    def lose_calls(self) -> None:
        self.network.clear()

    @rule()
    def sender_starts_anew(self) -> None:
        self.given_up.update(self.on_its_way.values())
        self.on_its_way.clear()
        self.lane = SendLane(next(self.epochs))

    @invariant()
    def none_doubled_none_swapped(self) -> None:
        assert self.taken == sorted(set(self.taken))
        assert self.told <= set(self.taken)

    def teardown(self) -> None:
        """With a network that works again everything that was not given up arrives."""
        self.network.clear()
        while self.on_its_way:
            number = self.lane.floor
            name = self.lane.name(number)
            verdict = self.inbox.judge(S, T, A, name, now=0.0)
            assert verdict in {Verdict.TAKE, Verdict.REPEAT}
            if verdict is Verdict.TAKE:
                self.taken.append(self.on_its_way[number])
                self.inbox.took(S, T, A, name)
            self.lane.end(number, taken=True)
            self.told.add(self.on_its_way.pop(number))
        self.none_doubled_none_swapped()
        assert set(range(self.written)) == self.told | self.given_up


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


@given(st.text(max_size=60) | st.from_regex(r"t?[0-9a-f]{6,34}-[0-9]{1,19}-[0-9]{1,19}", fullmatch=True))
def test_a_name_is_read_or_refused(text: str) -> None:
    try:
        name = read_name(text)
    except ProtocolViolation:
        return
    assert str(name or "") == text
    assert name is None or name.floor <= name.sequence


def test_the_window_and_trouble() -> None:
    lane = SendLane("0" * 8)
    numbers = [lane.begin() for _ in range(WINDOW + 1)]
    assert [n for n in numbers if not lane.may_go(n)] == [WINDOW]
    lane.failed()
    assert [n for n in numbers if lane.may_go(n)] == [0]
    lane.end(3, taken=True)
    assert lane.name(5) == Name("0" * 8, 5, 0)
    lane.end(0, taken=False)
    assert (lane.floor, lane.may_go(1), lane.may_go(WINDOW)) == (1, True, True)


def test_lanes_are_bounded_and_end_with_the_session() -> None:
    outbox = Outbox(epochs(), lanes=2)
    first = outbox.lane(S, "a", B)
    number = first.begin()
    outbox.lane(S, "b", B)
    with pytest.raises(Unavailable) as caught:
        outbox.lane(S, "c", B)
    assert caught.value.kind is Kind.TOO_MANY
    first.end(number, taken=True)
    outbox.lane(S, "c", B)
    assert outbox.lane(S, "b", B).idle
    assert outbox.lane(S, "a", B).epoch != first.epoch
    outbox.forget(S)
    assert len(outbox) == 0

    inbox = Inbox(lanes=2)
    for topic in ("a", "b"):
        assert inbox.judge(S, topic, A, Name("0" * 8, 0, 0), now=0.0) is Verdict.TAKE
    with pytest.raises(Unavailable) as caught:
        inbox.judge(S, "c", A, Name("0" * 8, 0, 0), now=1.0)
    assert caught.value.kind is Kind.BUFFER_FULL
    assert inbox.judge(S, "c", B, Name("0" * 8, 0, 0), now=1.0) is Verdict.TAKE
    assert inbox.judge(S, "c", A, Name("0" * 8, 0, 0), now=LANE_IDLE_S) is Verdict.TAKE
    inbox.forget(S)
    assert len(inbox) == 0


def test_a_receiver_that_knows_nothing_begins_at_the_floor() -> None:
    inbox = Inbox()
    assert inbox.judge(S, T, A, Name("0" * 8, 9, 7), now=0.0) is Verdict.EARLY
    assert inbox.judge(S, T, A, Name("0" * 8, 7, 7), now=0.0) is Verdict.TAKE


def test_a_numbering_that_was_followed_is_over_but_containers_stand_side_by_side() -> None:
    inbox, old, new = Inbox(), Name("a" * 8, 0, 0), Name("b" * 8, 0, 0)
    for name, verdict in [(old, Verdict.TAKE), (new, Verdict.TAKE), (old, Verdict.STALE), (new, Verdict.TAKE)]:
        assert inbox.judge(S, T, A, name, now=0.0) is verdict
    # A clock that was set back shuts nobody out for good.
    assert inbox.judge(S, T, A, old, now=LANE_IDLE_S) is Verdict.TAKE
    for epoch in ("t" + "a" * 8, "t" + "b" * 8, "t" + "a" * 8):
        assert inbox.judge(S, T, A, Name(epoch, 0, 0), now=0.0) is Verdict.TAKE
    inbox.took(S, T, A, Name("t" + "a" * 8, 0, 0))
    assert inbox.judge(S, T, A, Name("t" + "a" * 8, 0, 0), now=0.0) is Verdict.REPEAT
    assert inbox.judge(S, T, A, Name("t" + "b" * 8, 0, 0), now=0.0) is Verdict.TAKE


def test_what_a_restart_remembers() -> None:
    inbox = Inbox()
    for n in range(3):
        inbox.judge(S, T, A, Name("a" * 8, n, 0), now=0.0)
        inbox.took(S, T, A, Name("a" * 8, n, 0))
    again = Inbox()
    for topic, source, name in inbox.state(S):
        again.recall(S, topic, source, name, now=0.0)
    assert again.judge(S, T, A, Name("a" * 8, 2, 2), now=0.0) is Verdict.REPEAT
    assert again.judge(S, T, A, Name("a" * 8, 3, 2), now=0.0) is Verdict.TAKE


def test_a_disk_with_more_lanes_than_are_remembered() -> None:
    """A partner that numbers anew with each message must not keep us from starting: the newest lanes are known."""
    inbox = Inbox(lanes=2)
    for n in range(3):
        inbox.recall(S, T, A, Name(f"t{n:08x}", 0, 0), now=0.0)
    assert len(inbox) == 2
    assert inbox.judge(S, T, A, Name(f"t{2:08x}", 0, 0), now=0.0) is Verdict.REPEAT
    assert inbox.judge(S, T, A, Name(f"t{1:08x}", 0, 0), now=0.0) is Verdict.REPEAT
    with pytest.raises(Unavailable):
        inbox.judge(S, T, A, Name(f"t{3:08x}", 0, 0), now=0.0)


# -- with the waits


def arrivals(gaps: list[int] | None = None, *, gap_s: float = 5.0) -> Arrivals:
    return Arrivals(Inbox(), SystemClock(), gap_s, lambda _s, _t, _n, skipped: (gaps or []).append(skipped))


async def arrive(into: Arrivals, taken: list[int], sequence: int, floor: int = 0, epoch: str = "a" * 8) -> bool:
    name = Name(epoch, sequence, floor)
    if not await into.admit(S, T, A, name):
        return False
    taken.append(sequence)
    into.took(S, T, A, name)
    return True


async def test_arrivals_wait_for_what_is_missing() -> None:
    into, taken = arrivals(), list[int]()
    tasks = [asyncio.create_task(arrive(into, taken, n)) for n in (3, 1, 2, 2, 4)]
    await asyncio.sleep(0)
    assert (taken, into.held) == ([], 5)
    assert await arrive(into, taken, 0)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert taken == [0, 1, 2, 3, 4]
    # Of two copies that waited together one is taken; the other's caller asks again and hears that it was.
    assert sorted(isinstance(d, Unavailable) for d in done) == [False] * 4 + [True]
    assert not await arrive(into, taken, 2)
    assert (into.held, into._held) == (0, {})


async def test_a_gap_that_does_not_close_is_an_error_not_a_swap() -> None:
    into, taken = arrivals(gap_s=0.05), list[int]()
    with pytest.raises(Unavailable) as caught:
        await arrive(into, taken, 1)
    assert (caught.value.kind, taken) == (Kind.OVERLOADED, [])


async def test_a_gap_that_the_sender_gave_up_is_told() -> None:
    gaps = [0]
    into, taken = arrivals(gaps), list[int]()
    await arrive(into, taken, 0)
    waiting = asyncio.create_task(arrive(into, taken, 2))
    await asyncio.sleep(0)
    assert await arrive(into, taken, 3, floor=3) or True
    assert gaps == [0, 2]
    with pytest.raises(Unavailable):
        await waiting
    assert taken == [0, 3]


async def test_a_new_epoch_sends_away_who_waited_in_the_old() -> None:
    into, taken = arrivals(), list[int]()
    await arrive(into, taken, 0)
    waiting = asyncio.create_task(arrive(into, taken, 5))
    await asyncio.sleep(0)
    assert await arrive(into, taken, 0, epoch="b" * 8)
    with pytest.raises(Refused) as caught:
        await waiting
    assert (caught.value.kind, taken) == (Kind.CONFLICT, [0, 0])


async def test_held_arrivals_are_bounded() -> None:
    into, taken = arrivals(), list[int]()
    tasks = [asyncio.create_task(arrive(into, taken, n + 1)) for n in range(HELD)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as caught:
        await arrive(into, taken, HELD + 1)
    assert caught.value.kind is Kind.BUFFER_FULL
    await arrive(into, taken, 0)
    await asyncio.gather(*tasks)
    assert taken == list(range(HELD + 1))


def test_lanes_are_told_one_by_one_while_others_come_and_go() -> None:
    """Those that were there at the beginning and still are: each, as it is when it is told."""
    inbox = Inbox(lanes=12)
    for n in range(10):
        inbox.recall(S, f"t{n}", A, Name("0123456789abcdef", n, 0), now=0.0)
    telling = inbox.state(S)
    first = [next(telling) for _ in range(3)]
    inbox.recall(S, "t9", A, Name("0123456789abcdef", 99, 0), now=0.0)
    for n in range(10, 14):  # over the bound, so the two that are longest unused go
        inbox.recall(S, f"t{n}", A, Name("0123456789abcdef", 0, 0), now=1.0)
    told = {topic: name.sequence for topic, _, name in [*first, *telling]}
    assert {f"t{n}": n for n in range(2, 9)} | {"t9": 99} == {
        topic: told[topic] for topic in told if int(topic[1:]) in range(2, 10)
    }
    inbox.forget(S)
    assert list(inbox.state(S)) == []


@pytest.mark.parametrize("seed", range(6))
async def test_many_pushes_over_a_bad_link(seed: int) -> None:
    """Concurrent pushes, each repeated until it is told: calls and answers get lost, delayed and doubled."""
    import random  # of this test alone

    chance = random.Random(seed)
    into, out = arrivals(), Departures(Outbox(epochs()))
    taken: list[int] = []

    async def call(message: int, name: Name) -> bool:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if chance.random() < 0.2:
            return False
        copies = [receive(message, name) for _ in range(1 + (chance.random() < 0.2))]
        results = await asyncio.gather(*copies, return_exceptions=True)
        assert all(isinstance(r, GatewayError) or r is None for r in results)
        return results[0] is None and chance.random() > 0.2

    async def receive(message: int, name: Name) -> None:
        if await into.admit(S, T, A, name):
            taken.append(message)
            into.took(S, T, A, name)

    async def push(message: int) -> None:
        ticket = out.begin(S, T, B)
        while await out.turn(ticket, seconds=10) and not await call(message, ticket.name):
            ticket.lane.failed()
        out.end(ticket, taken=True)

    async with asyncio.timeout(20):
        await asyncio.gather(*(push(n) for n in range(400)))
    assert taken == list(range(400))
    assert (into.held, out._waiting) == (0, {})
