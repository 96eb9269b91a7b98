"""Messages of training and prediction: their bytes, their limits, and the hand-shake's checks.

All integers are little-endian. Every message starts with one byte of version and one of kind; a batch then says its
round, count and item size, and must be exactly as long as they say. Whether they are what the receiver expects is
checked before the content is looked at.

| message | topic | bytes after version and kind |
|---|---|---|
| hello | `hello` | role u8, scheme u8, ring bits u16, feature bits u8, value bits u8, iterations u16, rows u32, cols u32, curvature u32, SHA-256 of the parameters, key length u32, key |
| batch | `e` `g` `w` `z` `c` `q` `open` `sum` | round u16, count u32, item size u32, count * item size bytes |
"""  # noqa: E501  # a table

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Final

from gateway.errors import ProtocolViolation

VERSION: Final = 1
MAX_KEY_BYTES: Final = 4096

SCHEMES: Final[Mapping[str, int]] = {"ou": 1, "paillier": 2, "paillier-textbook": 3}


@unique
class Kind(IntEnum):
    """What a message is; the topic says the same, this guards against a relay that mixes them up."""

    HELLO = 1
    RESIDUAL = 2
    GRADIENT = 3
    WEIGHTS = 4
    PREDICTION = 5
    CUBE_IN = 6
    CUBE_OUT = 7
    OPEN = 8
    PREDICT_HELLO = 9
    PARTIAL_SUM = 10


TOPICS: Final[Mapping[Kind, str]] = {
    Kind.HELLO: "hello",
    Kind.RESIDUAL: "e",
    Kind.GRADIENT: "g",
    Kind.WEIGHTS: "w",
    Kind.PREDICTION: "z",
    Kind.CUBE_IN: "c",
    Kind.CUBE_OUT: "q",
    Kind.OPEN: "open",
    Kind.PREDICT_HELLO: "hello",
    Kind.PARTIAL_SUM: "sum",
}

_HELLO = struct.Struct("<BBBBHBBHIII32sI")
_BATCH = struct.Struct("<BBHII")


@dataclass(frozen=True, slots=True)
class Hello:
    """What both sides must agree on, and the sender's public key. role: 0 guest, 1 host."""

    role: int
    scheme: str
    ring_bits: int
    feature_bits: int
    value_bits: int
    iterations: int
    rows: int
    cols: int
    curvature: int
    digest: bytes = field(repr=False)
    key: bytes = field(repr=False)


_AGREED: Final = ("scheme", "ring_bits", "feature_bits", "value_bits", "iterations", "rows", "digest")


def write_hello(kind: Kind, hello: Hello) -> bytes:
    head = _HELLO.pack(
        VERSION, kind, hello.role, SCHEMES[hello.scheme], hello.ring_bits, hello.feature_bits, hello.value_bits,
        hello.iterations, hello.rows, hello.cols, hello.curvature, hello.digest, len(hello.key),
    )  # fmt: skip
    return head + hello.key


def read_hello(kind: Kind, payload: memoryview, *, ours: Hello, max_cols: int) -> Hello:
    """The partner's hello, compared with ours; ProtocolViolation names the first field that does not agree."""
    if len(payload) < 2 or payload[0] != VERSION:
        raise ProtocolViolation("hello: version")
    if payload[1] != kind or len(payload) < _HELLO.size:
        raise ProtocolViolation("hello: kind or length")
    (_, _, role, scheme, ring, feature, value, iterations, rows, cols, curvature, digest, key_length) = _HELLO.unpack(
        payload[: _HELLO.size]
    )
    names = {number: name for name, number in SCHEMES.items()}
    if scheme not in names:
        raise ProtocolViolation("hello: scheme")
    if key_length > MAX_KEY_BYTES or len(payload) != _HELLO.size + key_length:
        raise ProtocolViolation("hello: key length")
    key = bytes(payload[_HELLO.size :])
    hello = Hello(role, names[scheme], ring, feature, value, iterations, rows, cols, curvature, digest, key)
    if hello.role != 1 - ours.role:
        raise ProtocolViolation("hello: role")
    for name in _AGREED:
        if getattr(hello, name) != getattr(ours, name):
            raise ProtocolViolation(f"hello: {'parameters' if name == 'digest' else name} differ")
    if not 1 <= hello.cols <= max_cols:
        raise ProtocolViolation("hello: cols")
    if not 1 <= hello.curvature <= hello.cols << 12:
        raise ProtocolViolation("hello: curvature")
    return hello


def write_batch(kind: Kind, turn: int, count: int, content: bytes) -> bytes:
    """`content` holds `count` items of one size."""
    size = len(content) // count if count else 0
    return _BATCH.pack(VERSION, kind, turn, count, size) + content


def read_batch(kind: Kind, payload: memoryview, *, turn: int, count: int, size: int) -> memoryview:
    """The items, if the message is exactly the one expected."""
    if len(payload) < _BATCH.size:
        raise ProtocolViolation(f"{TOPICS[kind]}: too short")
    version, got_kind, got_turn, got_count, got_size = _BATCH.unpack(payload[: _BATCH.size])
    if version != VERSION or got_kind != kind:
        raise ProtocolViolation(f"{TOPICS[kind]}: version or kind")
    if got_turn != turn:
        raise ProtocolViolation(f"{TOPICS[kind]}: of another round")
    if got_count != count or (count and got_size != size):
        raise ProtocolViolation(f"{TOPICS[kind]}: count or item size")
    if len(payload) != _BATCH.size + count * size:
        raise ProtocolViolation(f"{TOPICS[kind]}: length")
    return payload[_BATCH.size :]
