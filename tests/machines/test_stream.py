"""The frames of a stream and both of its machines, without a socket."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from gateway.data_plane.core import stream as st
from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.frame import read_envelope
from gateway.data_plane.core.stream_send import RESEND, Item, Sender
from gateway.data_plane.core.stream_take import KEPT_S, TRANSFERS, Part, Parts
from gateway.errors import GatewayError, Kind, ProtocolViolation, Unavailable
from gateway.model import Limits

KINDS = [st.HELLO, st.FLOW, st.MESSAGE, st.ACK, st.NACK, st.BEGIN, st.RESUME, st.CHUNK, st.HAVE, st.PING, st.POP]
HELLO = st.Hello()


def inbox(got: list[st.Frame], *, throw_away: bool = False, hello: st.Hello = HELLO) -> st.Inbox:
    def room(frame: st.Frame) -> memoryview | None:
        return None if throw_away else memoryview(bytearray(frame.size))

    return st.Inbox(st.bounds(hello, KINDS), deliver=got.append, room=room)


def frame(kind: int, body: bytes = b"", **more: int | bytes) -> bytes:
    return st.pack(kind, size=len(body), **more) + body


frames = some.lists(
    some.tuples(
        some.sampled_from([st.MESSAGE, st.CHUNK]),
        some.binary(max_size=40),
        some.integers(0, 65535),
        some.integers(0, 2**32 - 1),
        some.integers(0, 2**64 - 1),
        some.one_of(some.binary(max_size=300), some.integers(st.LARGE - 2, 3 * st.SCRATCH).map(bytes)),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(frames, some.lists(some.integers(1, 400_000), min_size=1, max_size=8))
def test_frames_come_out_as_they_went_in_wherever_the_bytes_are_cut(messages, cuts) -> None:
    data = b"".join(st.pack(k, size=len(b), text=t, flow=f, ref=r, value=v) + b for k, t, f, r, v, b in messages)
    got: list[st.Frame] = []
    box = inbox(got)
    at = 0
    for turn in range(len(data) + 1):
        size = cuts[turn % len(cuts)]
        box.feed(data[at : at + size])
        at += size
        if at >= len(data):
            break
    assert [(g.kind, g.text, g.flow, g.ref, g.value, bytes(g.body)) for g in got] == messages
    assert not box.midway


@settings(max_examples=300, deadline=None)
@given(some.binary(max_size=600), some.integers(1, 64))
def test_any_bytes_give_frames_within_bounds_or_a_violation(data, cut) -> None:
    asked: list[int] = []

    def room(head: st.Frame) -> memoryview:
        asked.append(head.size)
        return memoryview(bytearray(head.size))

    most = st.bounds(HELLO, KINDS)
    got: list[st.Frame] = []
    box = st.Inbox(most, deliver=got.append, room=room)
    with contextlib.suppress(ProtocolViolation):
        for at in range(0, len(data), cut):
            box.feed(data[at : at + cut])
    assert all(len(one.body) == one.size <= most[one.kind] for one in got)
    assert all(size <= HELLO.chunk for size in asked)
    for one in got:
        for read in (st.read_acks, st.read_hello, st.name_of, lambda f: st.read_flow(f.body)):
            with contextlib.suppress(ProtocolViolation):
                read(one)


def test_a_body_may_be_thrown_away_without_being_kept() -> None:
    got: list[st.Frame] = []
    inbox(got, throw_away=True).feed(frame(st.CHUNK, bytes(1 << 20), ref=1) + frame(st.PING, value=7))
    assert [(one.kind, one.size, len(one.body)) for one in got] == [(st.CHUNK, 1 << 20, 0), (st.PING, 0, 0)]


@pytest.mark.parametrize(
    "data",
    [
        frame(99),
        st.pack(st.MESSAGE, size=(1 << 20) + 1),
        st.pack(st.FLOW, size=st.FLOW_BYTES + 1),
        st.pack(st.POP, size=1),
        st.pack(st.RELEASE),
        st.pack(st.ACK, size=0xFFFFFFFF),
    ],
)
def test_a_frame_out_of_bounds_is_refused_on_its_head_alone(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        inbox([]).feed(data)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"content-type: text/plain",
        b"x-ptp-topic=t",
        b"x-ptp-topic: a\nx-ptp-topic: b",
        b"\n".join(b"x-ptp-%d: a" % n for n in range(40)),
    ],
)
def test_headers_of_a_flow_are_judged(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        st.read_flow(body)


def test_what_a_side_says_of_itself() -> None:
    got: list[st.Frame] = []
    said = st.Hello(window=5 << 20, messages=7, flows=3, chunk=65536, whole=9, total=1 << 40)
    inbox(got).feed(st.pack_hello(said) + frame(st.HELLO, st.pack_hello(said)[20:] + b"later", value=1))
    assert [st.read_hello(one) for one in got] == [said, said]
    for broken in (got[0]._replace(value=2), got[0]._replace(body=b"short")):
        with pytest.raises(ProtocolViolation):
            st.read_hello(broken)
    with pytest.raises(ProtocolViolation):
        st.read_hello(got[0]._replace(body=struct.pack("!IIIIIQ", 0, 7, 3, 65536, 9, 1)))


def test_answers_are_written_in_few_frames() -> None:
    got: list[st.Frame] = []
    refs = range(st.ACKS + 5)
    inbox(got).feed(b"".join(st.pack_acks(refs)))
    assert [ref for one in got for ref in st.read_acks(one)] == list(refs)
    assert len(got) == 2
    got.clear()
    inbox(got).feed(st.pack_nack(5, "E0000000700", "x" * 1000))
    assert (got[0].ref, got[0].text, got[0].size) == (5, b"E0000000700", st.WORDS)


# -- sending


class Wire:
    """A sender whose frames are read back."""

    def __init__(self, hello: st.Hello = HELLO) -> None:
        self.sender = Sender(code_ok="ok")
        self.sender.begin(hello)
        self.answers: list[tuple[int, str]] = []
        self.items: list[Item] = []

    def submit(self, flow: str, size: int, *, resumed: int = 0) -> Item:
        number = len(self.items)
        item = Item(
            (("x-ptp-topic", flow),),
            bytes(size),
            lambda code, _words: self.answers.append((number, code)),
            name=str(number).encode(),
            transfer=number.to_bytes(16, "big"),
            resumed=resumed,
        )
        self.items.append(item)
        self.sender.submit(item)
        return item

    def frames(self, most: int = 1 << 30) -> list[st.Frame]:
        got: list[st.Frame] = []
        inbox(got, hello=st.Hello(whole=1 << 30)).feed(b"".join(self.sender.pieces(most)))
        return got

    def names(self) -> list[str]:
        return [str(f.text, "ascii") for f in self.frames() if f.kind == st.MESSAGE]


def test_nothing_is_sent_before_the_other_side_has_said_what_it_takes() -> None:
    sender = Sender(code_ok="ok")
    sender.submit(Item((("x-ptp-topic", "t"),), b"x", lambda *_: None))
    assert sender.pieces(1 << 20) == []
    sender.begin(HELLO)
    assert sender.pieces(1 << 20)


def test_a_flow_is_named_once_and_keeps_its_order() -> None:
    wire = Wire()
    for n in range(4):
        wire.submit("ab"[n % 2], 10)
    got = wire.frames()
    assert [f.kind for f in got] == [st.FLOW, st.MESSAGE, st.MESSAGE, st.FLOW, st.MESSAGE, st.MESSAGE]
    assert [str(f.text, "ascii") for f in got if f.kind == st.MESSAGE] == ["0", "2", "1", "3"]
    assert [f.flow for f in got] == [0, 0, 0, 1, 1, 1]
    for ref in (0, 1, 2):
        wire.sender.answered(ref)
    wire.sender.answered(3, "E0000000700", "full")
    assert wire.answers == [(0, "ok"), (2, "ok"), (1, "ok"), (3, "E0000000700")]
    assert wire.sender.idle
    wire.submit("b", 1)
    assert [f.kind for f in wire.frames()] == [st.MESSAGE]


def test_more_flows_than_numbers() -> None:
    wire = Wire(st.Hello(flows=2))
    for flow in "abcab":
        wire.submit(flow, 1)
    flows: dict[int, bytes] = {}
    seen = []
    for f in wire.frames():
        if f.kind == st.FLOW:
            flows[f.flow] = bytes(f.body)
        else:
            seen.append(flows[f.flow][-1:])
    assert sorted(seen) == [b"a", b"a", b"b", b"b", b"c"]
    assert set(flows) == {0, 1}


def test_a_window_is_kept_and_opens_with_answers() -> None:
    wire = Wire(st.Hello(window=1 << 20, messages=100))
    for _ in range(10):
        wire.submit("t", 300_000)
    assert wire.names() == ["0", "1", "2"]
    assert wire.names() == []
    wire.sender.answered(0)
    assert wire.names() == ["3"]
    many = Wire(st.Hello(messages=2))
    for _ in range(3):
        many.submit("t", 1)
    assert len(many.names()) == 2


def test_small_messages_pass_a_bulk_transfer() -> None:
    wire = Wire()
    wire.submit("bulk", 100 << 20)
    assert [f.kind for f in wire.frames(2 << 20)] == [st.FLOW, st.BEGIN, st.CHUNK, st.CHUNK]
    wire.submit("small", 100)
    kinds = [f.kind for f in wire.frames(2 << 20)]
    assert kinds.index(st.MESSAGE) <= 2
    # And with as many bulk transfers as fill their part of the window there is still room.
    for n in range(20):
        wire.submit(f"bulk {n}", 100 << 20)
    wire.frames()
    wire.submit("small", 100_000)
    assert wire.names() == ["22"]


def test_of_a_message_in_parts_little_is_on_its_way() -> None:
    wire = Wire()
    wire.submit("t", 10 << 20)
    wire.submit("t", 1)
    sent = sum(f.size for f in wire.frames() if f.kind == st.CHUNK)
    assert sent == RESEND
    got = []
    for held in range(1, 11):
        wire.sender.have(0, held << 20)
        got += wire.frames()
    assert sent + sum(f.size for f in got if f.kind == st.CHUNK) == 10 << 20
    assert got[-1].kind == st.MESSAGE
    wire.sender.answered(0)
    wire.sender.answered(1)
    assert wire.answers == [(0, "ok"), (1, "ok")]
    assert wire.sender.idle


def test_a_resumed_message_goes_on_where_the_receiver_says() -> None:
    wire = Wire()
    wire.submit("t", 10 << 20, resumed=1)
    assert [f.kind for f in wire.frames()] == [st.FLOW, st.RESUME]
    wire.sender.have(0, 7 << 20)
    assert [f.value for f in wire.frames() if f.kind == st.CHUNK] == [7 << 20, 8 << 20, 9 << 20]
    wire.sender.answered(0)
    assert wire.sender.idle
    # It had come whole, and the answer was lost.
    wire.submit("t", 10 << 20, resumed=1)
    wire.submit("t", 5)
    wire.frames()
    wire.sender.answered(1)
    assert [f.kind for f in wire.frames()] == [st.MESSAGE]


def test_a_message_refused_in_the_middle_makes_room_for_the_next() -> None:
    wire = Wire()
    wire.submit("t", 10 << 20)
    wire.submit("t", 5)
    wire.frames()
    wire.sender.answered(0, "E0000000700", "")
    assert wire.names() == ["1"]
    wire.sender.have(0, 1 << 20)  # on its way when the refusal was sent


def test_answers_out_of_range_end_the_stream() -> None:
    wire = Wire()
    wire.submit("t", 10 << 20)
    wire.frames()
    for wrong in (lambda: wire.sender.answered(9), lambda: wire.sender.have(0, 5 << 20)):
        with pytest.raises(ProtocolViolation):
            wrong()


def test_what_is_left_at_the_end() -> None:
    wire = Wire(st.Hello(messages=1))
    sent, waiting = wire.submit("t", 5), wire.submit("t", 5)
    wire.frames()
    assert [(i.begun, i.whole) for i in wire.sender.left()] == [(True, True), (False, False)]
    wire.sender.withdraw(waiting)
    wire.sender.withdraw(sent)
    wire.sender.answered(0)
    assert wire.sender.idle
    assert wire.answers == []


@settings(max_examples=60, deadline=None)
@given(some.lists(some.tuples(some.sampled_from("abc"), some.integers(0, 9_000)), max_size=30), some.randoms())
def test_everything_arrives_once_and_in_order_whatever_the_turns(messages, random) -> None:
    hello = st.Hello(window=1 << 20, messages=4, flows=2, chunk=1000, whole=2000)
    wire = Wire(hello)
    bodies = {n: random.randbytes(size) for n, (_, size) in enumerate(messages)}
    for flow, size in messages:
        item = wire.submit(flow, size)
        item.payload = bodies[len(wire.items) - 1]
    flows: dict[int, str] = {}
    parts: dict[int, tuple[str, int, bytearray]] = {}
    got: list[tuple[str, int, bytes]] = []
    for _ in range(1000):
        answers = []
        for f in wire.frames(random.randint(1, 5000)):
            if f.kind == st.FLOW:
                flows[f.flow] = st.read_flow(f.body)["x-ptp-topic"]
            elif f.kind == st.MESSAGE:
                got.append((flows[f.flow], int(f.text), bytes(f.body)))
                answers.append(f.ref)
            elif f.kind == st.BEGIN:
                parts[f.ref] = (flows[f.flow], int(f.text), bytearray())
            else:
                flow, name, body = parts[f.ref]
                assert f.value == len(body)
                body += f.body
                wire.sender.have(f.ref, len(body))
                if len(body) == len(bodies[name]):
                    got.append((flow, name, bytes(body)))
                    answers.append(f.ref)
        random.shuffle(answers)
        for ref in answers:
            wire.sender.answered(ref)
        if wire.sender.idle:
            break
    assert wire.sender.idle
    for flow in "abc":
        wanted = [(f, n, bodies[n]) for n, (f, _) in enumerate(messages) if f == flow]
        assert [one for one in got if one[0] == flow] == wanted


# -- taking


def envelope(topic: str = "t"):
    return read_envelope({"x-ptp-session-id": "s", "x-ptp-topic": topic, "x-ptp-source-node-id": "LX-A"}, Limits())


class Here:
    """Parts under a budget."""

    def __init__(self, *, process: int = 1000, kept: int = 500) -> None:
        self.budget = Budget(process_bytes=process, session_bytes=process)
        self.parts = Parts(self.budget, make=lambda size: memoryview(bytearray(size)), kept_bytes=kept)

    def begin(self, number: int, total: int = 100, *, resume: bool = False, topic: str = "t") -> Part | None:
        return self.parts.begin(
            number.to_bytes(16, "big"), envelope(topic), total=total, owner=(self, number), resume=resume
        )

    def fill(self, part: Part, data: bytes) -> None:
        self.parts.room(part, part.held, len(data))[:] = data
        self.parts.came(part, len(data))


def test_parts_are_put_together_and_counted() -> None:
    here = Here()
    part = here.begin(1)
    here.fill(part, b"a" * 60)
    assert here.budget.used == 60
    here.fill(part, b"b" * 40)
    assert part.complete
    here.parts.hand_over(part)
    assert (bytes(part.place), here.budget.used) == (b"a" * 60 + b"b" * 40, 0)
    here.parts.end(part, taken=True)
    assert len(here.parts) == 0
    assert here.begin(1, resume=True) is None
    assert here.begin(1) is not None


def test_an_interrupted_transfer_goes_on() -> None:
    here = Here()
    part = here.begin(1)
    here.fill(part, bytes(60))
    here.parts.room(part, 60, 30)  # a part that did not come whole
    here.parts.interrupt(part, now=5.0)
    again = here.begin(1, resume=True)
    assert again is part
    assert (part.held, part.owner) == (60, (here, 1))
    here.fill(part, bytes(40))
    assert here.budget.used == 100
    for wrong in ({"total": 99}, {"topic": "other"}):
        with pytest.raises(ProtocolViolation):
            here.begin(1, resume=True, **wrong)


def test_parts_out_of_place_are_refused() -> None:
    here = Here()
    part = here.begin(1)
    for offset, size in ((1, 5), (0, 101), (0, 0)):
        with pytest.raises(ProtocolViolation):
            here.parts.room(part, offset, size)
    with pytest.raises(ProtocolViolation):
        here.parts.begin(b"short", envelope(), total=5, owner=(here, 1), resume=False)


def test_what_a_partner_leaves_unfinished_is_bounded() -> None:
    here = Here(process=400, kept=150)
    full = here.begin(0, 1000)
    with pytest.raises(Unavailable) as refused:
        here.parts.room(full, 0, 401)
    assert refused.value.kind is Kind.BUFFER_FULL
    here.parts.end(full, taken=False)
    kept = [here.begin(n) for n in (1, 2, 3)]
    for n, part in enumerate(kept):
        here.fill(part, bytes(90))
        here.parts.interrupt(part, now=float(n))
    assert here.budget.used == 90
    here.parts.expire(now=KEPT_S)
    assert here.budget.used == 90
    here.parts.expire(now=KEPT_S + 2.1)
    assert (here.budget.used, len(here.parts)) == (0, 0)
    open_ones = [here.begin(n) for n in range(TRANSFERS)]
    with pytest.raises(Unavailable):
        here.begin(1000)
    here.parts.interrupt(open_ones[0], now=0.0)
    assert here.begin(1000) is not None


def test_a_message_that_is_being_taken_is_not_forgotten() -> None:
    here = Here()
    part = here.begin(1, 10)
    here.fill(part, bytes(10))
    here.parts.interrupt(part, now=0.0)
    here.parts.expire(now=1e9)
    assert here.begin(1, 10, resume=True) is part
    with pytest.raises(GatewayError):
        here.begin(1, 10)
