"""JSON read in steps: the same as JSON read as a whole, whatever the steps are, and no step that takes long."""

import base64
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.data_plane.core import frame as fr
from gateway.data_plane.core import long_json
from gateway.errors import ProtocolViolation
from gateway.model import Limits
from specs.proto import ptp_pb2


@pytest.fixture
def small_steps() -> Iterator[None]:
    """Strings of more than 7 bytes are long, a step takes 8 characters of base64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_json, "LONG", 8)
        patch.setattr(long_json, "SCAN", 5)
        patch.setattr(long_json, "CHARS", 8)
        yield


def done(steps: long_json.Steps[Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def room(size: int) -> memoryview:
    return memoryview(bytearray(size))


def in_steps(body: bytes, *, inbound: bool = False) -> tuple[str, bytes] | None:
    """(topic, payload), None where it is refused."""
    read = long_json.read_inbound if inbound else long_json.read_push
    try:
        topic, payload = done(read(body, room))
    except ProtocolViolation:
        return None
    return topic, bytes(payload)


ENVELOPE = fr.read_envelope({"content-type": "application/json"}, Limits())


def as_a_whole(body: bytes) -> tuple[str, bytes] | None:
    try:
        frame = fr.decode(fr.Operation.PUSH, ENVELOPE, body, limits=Limits())
    except ProtocolViolation:
        return None
    return frame.topic, bytes(frame.payload)


names = st.sampled_from(["a", "b", 'q"', "\\", "ä"])
texts = st.text(alphabet='ab"\\/{}[]:,\u00e4\n1e0 ', max_size=30)
values = st.one_of(
    texts, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none(), st.lists(texts, max_size=3)
)
payloads = st.one_of(
    st.binary(max_size=60).map(lambda data: base64.b64encode(data).decode()),
    st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("=")),
    texts,
)


@pytest.mark.usefixtures("small_steps")
@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(names, values, max_size=4),
    payloads,
    st.sampled_from(["", "t", "abc"]),
    st.booleans(),
    st.booleans(),
)
@example({}, "aGVsbG8gd29ybGQh", "", True, True)
@example({"a": "1e100 \\", "b": 1e100}, "aGVsbG8gd29ybGQh", "", True, True)
def test_the_same_as_a_whole(more: dict[str, Any], payload: str, topic: str, first: bool, escaped: bool) -> None:
    members = {"payload": payload, **more} if first else {**more, "payload": payload}
    text = json.dumps({"topic": topic, **members}, ensure_ascii=escaped)
    if escaped:
        text = text.replace("/", "\\/").replace("=", "\\u003d")
    assert in_steps(text.encode()) == as_a_whole(text.encode())


@pytest.mark.usefixtures("small_steps")
@settings(max_examples=300, deadline=None)
@given(st.integers(0, 80), st.integers(0, 3), st.binary(max_size=4))
def test_broken_bodies(at: int, gone: int, new: bytes) -> None:
    """A body with a fault anywhere is refused, or read as a whole would read it."""
    body = b'{"topic":"t","x":"long and longer","payload":"aGVsbG8gd29ybGQh","y":[1e1,{"z":null}]}'
    broken = body[:at] + new + body[at + gone :]
    found = in_steps(broken)
    # What stands in a long string that nobody asked for is not looked at.
    assert found is None or found == as_a_whole(broken) or 17 <= at <= 34


@pytest.mark.parametrize(
    "body",
    [
        b'{"payload":"' + b"A" * 100_000,
        b'{"payload":"' + b"A" * 99_999 + b"!" + b'"}',
        b'{"payload":"' + b"AA==" * 50_000 + b'"}',
        b'{"payload":"' + b"A" * 200_001 + b'"}',
        b'{"payload":"' + b"A" * 200_000 + b'"1}',
        b'{"payload":1"' + b"A" * 200_000 + b'"}',
        b'{"payload":1e10}' + b" " * 10,
        b'{"other":"' + b"A" * 200_000 + b'"}',
        b'{"topic":"' + b"A" * 200_000 + b'","payload":""}',
        b'{"payload":"","a":[' + b"1," * 100_000 + b"1]}",
        b'{"payload":"","a":"' + b'\\"' * 100_000 + b'"}',
        b'{"payload":"","a":"' + b"\\" * 100_000 + b'"}',
        b"[" * 60_000,
        b'["' + b"A" * 200_000 + b'"]',
        b"\xff" * 10,
        b"",
    ],
)
def test_what_is_refused(body: bytes) -> None:
    assert in_steps(body) is None


def test_large_payloads_in_any_spelling() -> None:
    payload = os.urandom(1_000_001)
    plain = base64.b64encode(payload).decode()
    for text in (plain, plain.replace("/", "\\/").replace("=", "\\u003d"), plain.replace("+", "-").replace("/", "_")):
        body = b'{"metadata":{"a":"b"},"topic":"t","payload":"' + text.encode() + b'"}'
        assert in_steps(body) == ("t", payload)
    assert b"".join(done(long_json.encode(payload))).decode() == plain


def test_pushes_within_an_inbound() -> None:
    payload = os.urandom(500_000)
    inner = json.dumps({"topic": "t", "payload": base64.b64encode(payload).decode()}).encode()
    proto = ptp_pb2.PushInbound(topic="t", payload=payload).SerializeToString()
    for message in (inner, proto):
        body = json.dumps({"payload": base64.b64encode(message).decode()}).encode()
        assert in_steps(body, inbound=True) == ("t", payload)
