"""The few protobuf messages of transport, read and written by hand so that a payload is never copied or re-encoded.

The messages are those of specs/proto/ptp.proto (4-transport 4.5), of which only length-delimited members matter here:
topic, payload, code, message. Reading gives views into the body; writing gives pieces to be sent one after another.
What `specs.proto.ptp_pb2` makes of the same bytes is the truth that the tests compare with.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.errors import Kind, ProtocolViolation

Buffer = bytes | bytearray | memoryview
Pieces = tuple[Buffer, ...]
"""Bytes that are sent one after another and never joined when they are many."""
JOIN_BELOW: Final = 64 << 10
"""What has no more bytes is sent in one piece."""
PIECE: Final = 256 << 10
"""Larger things are given to a connection in views of so many bytes."""

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10
_MASK64 = (1 << 64) - 1
MEMBERS: Final = 1024
"""Of one message. Each costs a microsecond or two, and a body of the largest size has room for 60 million."""


def members(body: Buffer) -> Mapping[int, memoryview | int]:
    """Field number -> last value: a view for length-delimited members, an int for varints; fixed ones are skipped.

    Raises ProtocolViolation(CODEC) for what is not a protobuf message (cut off, field 0, groups).
    """
    return dict(walk(body))


def walk(body: Buffer) -> Iterator[tuple[int, memoryview | int]]:
    """Every member in its order, as `members`; one that has too many raises ProtocolViolation(CODEC), too."""
    view = memoryview(body).cast("B")
    at, end, left = 0, len(view), MEMBERS
    while at < end:
        left -= 1
        if left < 0:
            raise ProtocolViolation("protobuf: too many members", kind=Kind.CODEC)
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        if number == 0 or number > 0x1FFFFFFF:
            raise ProtocolViolation("protobuf: illegal field number", kind=Kind.CODEC)
        if kind == _DELIMITED:
            length, at = _varint(view, at)
            if length > end - at:
                raise ProtocolViolation("protobuf: member longer than its message", kind=Kind.CODEC)
            yield number, view[at : at + length]
            at += length
        elif kind == _VARINT:
            value, at = _varint(view, at)
            yield number, value
        elif kind in {_FIXED64, _FIXED32}:
            at += 8 if kind == _FIXED64 else 4
            if at > end:
                raise ProtocolViolation("protobuf: message cut off", kind=Kind.CODEC)
        else:
            raise ProtocolViolation("protobuf: wire type not known", kind=Kind.CODEC)


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        if at >= len(view):
            raise ProtocolViolation("protobuf: message cut off", kind=Kind.CODEC)
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK64, at
    raise ProtocolViolation("protobuf: number too long", kind=Kind.CODEC)


def delimited(found: Mapping[int, memoryview | int], number: int) -> memoryview:
    """A bytes or string member; empty when absent. A member of another wire type counts as absent, as in protobuf."""
    value = found.get(number)
    return value if isinstance(value, memoryview) else memoryview(b"")


def text(found: Mapping[int, memoryview | int], number: int, name: str) -> str:
    """A string member. Raises ProtocolViolation(CODEC) when it isn't UTF-8."""
    try:
        return str(delimited(found, number), "utf-8")
    except UnicodeDecodeError as e:
        raise ProtocolViolation(f"{name}: not UTF-8", kind=Kind.CODEC) from e


def int32(found: Mapping[int, memoryview | int], number: int) -> int:
    """An int32 member (0 when absent), sign-extended as proto3 writes negative numbers."""
    value = found.get(number)
    if not isinstance(value, int):
        return 0
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def head(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited member."""
    out = bytearray()
    for value in (number << 3 | _DELIMITED, length):
        rest = value
        while rest > 0x7F:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def member(number: int, value: Buffer) -> Pieces:
    """Pieces of one length-delimited member; nothing for an empty value, as proto3 omits it."""
    return (head(number, len(value)), value) if len(value) else ()


def size(pieces: Pieces) -> int:
    """Bytes that the pieces have together."""
    return sum(len(piece) for piece in pieces)


def slices(pieces: Pieces, most: int = PIECE) -> Iterator[memoryview]:
    """The pieces in views of at most `most` bytes, so that a connection can take them one by one."""
    for piece in pieces:
        view = memoryview(piece).cast("B")
        for at in range(0, len(view), most):
            yield view[at : at + most]
