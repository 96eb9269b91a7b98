"""The hand-written protobuf reader and writer against the generated code, which is the truth."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from gateway.data_plane.core import wire
from gateway.errors import Kind, ProtocolViolation
from specs.proto import ptp_pb2


@given(st.text(max_size=20), st.binary(max_size=400), st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
def test_reads_what_protobuf_writes(topic: str, payload: bytes, metadata: dict[str, str]) -> None:
    body = ptp_pb2.PushInbound(topic=topic, payload=payload, metadata=metadata).SerializeToString()
    found = wire.members(body)
    assert wire.text(found, 1, "topic") == topic
    assert wire.delimited(found, 2) == payload


@given(st.text(max_size=20), st.integers(-(2**31), 2**31 - 1))
def test_reads_numbers_as_protobuf_does(topic: str, timeout: int) -> None:
    found = wire.members(ptp_pb2.PopInbound(topic=topic, timeout=timeout).SerializeToString())
    assert (wire.text(found, 1, "topic"), wire.int32(found, 2)) == (topic, timeout)


@given(st.text(max_size=20), st.binary(max_size=400))
def test_writes_what_protobuf_writes(topic: str, payload: bytes) -> None:
    ours = b"".join((*wire.member(1, topic.encode()), *wire.member(2, payload)))
    assert ours == ptp_pb2.PushInbound(topic=topic, payload=payload).SerializeToString(deterministic=True)


@given(st.binary(max_size=60))
def test_never_reads_more_than_protobuf_and_never_fails_otherwise(body: bytes) -> None:
    """Whatever it reads protobuf reads the same, and what it refuses it refuses with the one error."""
    try:
        found = wire.members(body)
        topic, payload = wire.text(found, 1, "topic"), bytes(wire.delimited(found, 2))
    except ProtocolViolation:
        return
    try:
        truth = ptp_pb2.PushInbound.FromString(body)
    except DecodeError:
        # The metadata entries, which we do not look at, may be broken.
        assert 3 in found
        return
    if (topic, payload) != (truth.topic, truth.payload):
        # A member given twice, once in another wire type: protobuf keeps the last of the right type.
        assert any(not isinstance(found.get(number, memoryview(b"")), memoryview) for number in (1, 2))


@pytest.mark.parametrize(
    "body",
    [
        b"\x1a\x00" * (wire.MEMBERS + 1),
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0b\x0c",
        b"\x00\x00",
        b"\xff" * 11,
        b"\x0d\x01",
        b"\x0a\xff\xff\xff\xff\xff\x01",
    ],
)
def test_broken_messages_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        wire.members(body)
    assert caught.value.kind is Kind.CODEC
