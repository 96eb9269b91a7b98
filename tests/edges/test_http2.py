"""What is read of HTTP/2 frames, in any pieces and of any content."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.data_plane.core import http2
from gateway.data_plane.core.frame import metadata_of
from gateway.errors import Kind, ProtocolViolation

DATA, HEADERS, RST, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def watch() -> http2.Watch:
    made = http2.Watch(header_bytes=1000, now=0.0)
    made.inward(http2.PREFACE, now=0.0)
    return made


frames = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40), st.integers(0, 255), st.integers(0, 9)))


@given(frames, st.lists(st.integers(0, 60)))
def test_pieces_do_not_matter(sent: list[tuple[int, bytes, int, int]], cuts: list[int]) -> None:
    data = http2.PREFACE + b"".join(frame(k, p, flags=f, stream=s) for k, p, f, s in sent)
    heads, seen, at = http2.Heads(skip=len(http2.PREFACE)), [], 0
    for cut in cuts:
        seen += heads.feed(data[at : at + cut])
        at += cut
    seen += heads.feed(data[at:])
    assert seen == [(len(p), k, f, s) for k, p, f, s in sent]


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=40))
def test_any_bytes_are_judged_or_refused(parts: list[tuple[bool, bytes]]) -> None:
    one = watch()
    with contextlib.suppress(ProtocolViolation):
        for inward, data in parts:
            one.inward(data, now=0.0) if inward else one.outward(data)
    assert one.held == sum(one._streams.values()) >= 0


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_who_is_refused_may_say_anything(parts: list[bytes]) -> None:
    one = http2.Refusal(16, "no certificate")
    said = b"".join(one.answer(part) for part in parts)
    heads = list(http2.Heads().feed(said))
    assert len(heads) <= 257
    assert not parts or heads[0] == (0, SETTINGS, 0, 0)


def test_each_call_of_who_is_refused_gets_the_reason_and_not_without_end() -> None:
    one = http2.Refusal(16, "no certificate")
    said = one.answer(http2.PREFACE + frame(SETTINGS) + frame(HEADERS, b"h", flags=4, stream=1) * 1000)
    assert said.count(b"no certificate") == 255


@given(st.binary(max_size=200))
def test_metadata_of_any_message(body: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        for name, value in metadata_of(body).items():
            assert name == name.lower()
            assert name.startswith("x-")
            assert isinstance(value, str)


def test_data_is_held_until_it_is_answered() -> None:
    one = watch()
    one.inward(frame(DATA, bytes(9), stream=1), now=0.0)
    assert one.held == 0  # nobody has called
    one.inward(frame(HEADERS, b"h", flags=4, stream=1) + frame(HEADERS, b"h", flags=4, stream=3), now=0.0)
    for stream, size in ((1, 100), (3, 50), (1, 7)):
        one.inward(frame(DATA, bytes(size), stream=stream), now=0.0)
    assert one.held == 157
    one.outward(frame(DATA, b"answer", stream=1))
    assert one.held == 50
    one.inward(frame(DATA, bytes(9), stream=1) + frame(RST, bytes(4), stream=3), now=0.0)
    assert one.held == 9
    one.outward(frame(HEADERS, b"trailers", flags=1, stream=1))
    one.inward(frame(DATA, bytes(9), stream=1) + frame(DATA, bytes(9), stream=3), now=0.0)
    assert one.held == 0


@pytest.mark.parametrize(
    "flood",
    [
        frame(HEADERS, b"h", flags=4, stream=1) + frame(RST, bytes(4), stream=1),
        frame(PING, bytes(8)),
        frame(SETTINGS),
        frame(DATA, stream=1),
        frame(200, b"unknown"),
    ],
)
def test_floods_end(flood: bytes) -> None:
    one = watch()
    one.inward(frame(HEADERS, b"h", flags=4, stream=1), now=0.0)
    one.inward(flood * int(http2.PURSE), now=0.0)
    one.inward(flood * int(http2.PER_SECOND), now=1.0)
    with pytest.raises(ProtocolViolation) as caught:
        one.inward(flood, now=1.0)
    assert caught.value.kind is Kind.TOO_MANY


def test_streams_that_a_caller_makes_us_reset_count_too() -> None:
    one = watch()
    with pytest.raises(ProtocolViolation):
        one.outward(frame(RST, bytes(4), stream=1) * 1001)


def test_a_client_that_gets_answers_may_acknowledge_them() -> None:
    one = watch()
    for _ in range(3000):
        one.outward(frame(DATA, b"answer", stream=1))
        one.inward(frame(PING, bytes(8)) * 3, now=0.0)


def test_headers_have_an_end() -> None:
    one = watch()
    one.inward(frame(HEADERS, bytes(900), stream=1) + frame(CONTINUATION, bytes(100), flags=4, stream=1), now=0.0)
    one.inward(frame(HEADERS, bytes(900), stream=3), now=0.0)
    with pytest.raises(ProtocolViolation) as caught:
        one.inward(frame(CONTINUATION, bytes(101), stream=3), now=0.0)
    assert caught.value.kind is Kind.TOO_LARGE
