"""The four messages a component exchanges with the transport module, package `org.ppc.ptp`, without a protobuf runtime.

PushInbound {1 topic, 2 payload}; PopInbound {1 topic, 2 timeout}; PeekInbound {1 topic}; ReleaseInbound {1 topic};
TransportOutbound in both layouts that exist on real wires (part 4 section 9.3).
"""

import re
from dataclasses import dataclass, field
from typing import Final

from specs import headers

NAME_BYTES: Final = 64
_CODE: Final = re.compile(rb"E[0-9]{10}")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class CodecError(ValueError):
    """Bytes that are no message."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """An answer. code: "" when there is none, which is a failure (T-050); payload: a view into the answer's bytes.

    named: the name by which the message is acknowledged; "" where the module gives none.
    """

    code: str
    message: str
    payload: memoryview = field(repr=False)
    named: str = ""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(number: int, text: str) -> bytes:
    data = text.encode()
    return bytes([number << 3 | _BYTES]) + _varint(len(data)) + data if data else b""


def push_head(topic: str, payload_bytes: int) -> bytes:
    """The bytes of a PushInbound up to its payload, which follows as the last field and is not copied."""
    return _text(1, topic) + bytes([2 << 3 | _BYTES]) + _varint(payload_bytes)


def pop_request(topic: str, timeout_ms: int) -> bytes:
    return _text(1, topic) + bytes([2 << 3 | _VARINT]) + _varint(timeout_ms)


def peek_request(topic: str) -> bytes:
    return _text(1, topic)


def release_request(topic: str, timeout_ms: int) -> bytes:
    return pop_request(topic, timeout_ms)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise CodecError("cut off inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise CodecError("number longer than ten bytes")


def _fields(data: memoryview) -> dict[int, memoryview]:
    """The last length-delimited value of each field; other wire types are skipped."""
    found: dict[int, memoryview] = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            size, at = 0, _read_varint(data, at)[1]
        elif kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise CodecError(f"unknown wire type {kind}")
        if size > len(data) - at:
            raise CodecError("cut off inside a field")
        if kind == _BYTES:
            found[tag >> 3] = data[at : at + size]
        at += size
    return found


def read_outbound(data: bytes | bytearray | memoryview) -> Outbound:
    """Read a TransportOutbound of either layout (T-042): the field that looks like a code tells which, 3 before 2.

    Raises CodecError for bytes that are no protobuf message.
    """
    fields = _fields(memoryview(data))
    nothing = memoryview(b"")
    for code, payload, message in ((3, 2, 4), (2, 1, 3)):
        text = bytes(fields.get(code, nothing)[:12])
        if _CODE.fullmatch(text):
            words = bytes(fields.get(message, nothing)[:1000]).decode("utf-8", "replace")
            named = _named(fields.get(1, nothing)) if code == 3 else ""  # the layout with metadata
            return Outbound(text.decode(), words, fields.get(payload, nothing), named)
    return Outbound("", "", nothing)


def _named(entry: memoryview) -> str:
    """The message's name, where an entry of the metadata (a map: 1 key, 2 value) is that."""
    try:
        member = _fields(entry)
    except CodecError:
        return ""
    value = bytes(member.get(2, b""))
    known = bytes(member.get(1, b"")) == headers.MESSAGE.encode() and len(value) <= NAME_BYTES
    return value.decode("latin-1") if known and value.isascii() else ""
