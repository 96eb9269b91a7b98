"""Messages of the set intersection and their bytes. Their form is checked here; their turn and order in ecdh.py.

hello (topic `hello`): 8 bytes MAGIC (name, version 1, suite 1), 8 bytes number of ids.
batch (topic `points`): 1 byte kind, 3 zero bytes, 4 bytes batch number, then the points. Numbers are little-endian.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Final

import numpy as np

from gateway.errors import Kind, ProtocolViolation
from gateway.operators.psi.kernel import POINT_BYTES

HELLO: Final = "hello"
POINTS: Final = "points"
MAGIC: Final = b"ICPSI\x00\x01\x01"
"""Suite 1: u = SHA-256(id), X25519, both rounds in full 32-byte points."""

_HELLO: Final = struct.Struct("<8sQ")
_HEAD: Final = struct.Struct("<B3xI")
_LOW, _FULL, _TOP = (1 << 64) - 19, (1 << 64) - 1, (1 << 63) - 1
"""The words of p = 2^255 - 19; two of them are full."""


@unique
class BatchKind(IntEnum):
    """What the points of a batch are."""

    MASKED = 1
    DUAL = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """A run of points; `points` is a multiple of 32 bytes, each canonical and not zero."""

    kind: BatchKind
    index: int
    points: bytes = field(repr=False)


def encode_hello(count: int) -> bytes:
    return _HELLO.pack(MAGIC, count)


def decode_hello(payload: memoryview, *, max_count: int) -> int:
    """The partner's number of ids, 1 to max_count. Raises ProtocolViolation."""
    if len(payload) != _HELLO.size:
        raise ProtocolViolation("hello of wrong length")
    magic, count = _HELLO.unpack(payload)
    if magic != MAGIC:
        raise ProtocolViolation("the partner speaks another intersection protocol, version or suite")
    if not 1 <= count <= max_count:
        raise ProtocolViolation(f"the partner offers {count} ids, allowed are 1 to {max_count}", kind=Kind.TOO_LARGE)
    return int(count)


def encode_batch(batch: Batch) -> bytes:
    return _HEAD.pack(batch.kind, batch.index) + batch.points


def decode_batch(payload: memoryview) -> Batch:
    """Raises ProtocolViolation for an unknown kind, a broken length, a point that is zero or not canonical."""
    if len(payload) < _HEAD.size + POINT_BYTES or (len(payload) - _HEAD.size) % POINT_BYTES:
        raise ProtocolViolation("batch of wrong length")
    if any(payload[1:4]):
        raise ProtocolViolation("batch of unknown form")
    kind, index = _HEAD.unpack(payload[: _HEAD.size])
    try:
        known = BatchKind(kind)
    except ValueError:
        raise ProtocolViolation("batch of unknown kind") from None
    points = bytes(payload[_HEAD.size :])
    if not all_canonical(points):
        raise ProtocolViolation("batch with a point that is not canonical")
    if has_zero(points):
        raise ProtocolViolation("batch with a zero point")
    return Batch(known, index, points)


def all_canonical(points: bytes) -> bool:
    """True when every u-coordinate is below p = 2^255 - 19: two texts of one point would hide a repeat."""
    words = np.frombuffer(points, "<u8").reshape(-1, POINT_BYTES // 8)
    high = words[words[:, 3] >= _TOP]  # of others the highest word alone tells
    return not bool(((high[:, 3] > _TOP) | ((high[:, 1:3] == _FULL).all(axis=1) & (high[:, 0] >= _LOW))).any())


def has_zero(points: bytes) -> bool:
    """True when some point is all zero bytes, the image of a point of low order."""
    words = np.frombuffer(points, "<u8").reshape(-1, POINT_BYTES // 8)
    return not bool((words[:, 0] | words[:, 1] | words[:, 2] | words[:, 3]).all())
