"""JSON bodies with a long payload, read and written in steps that each take well under a millisecond (docs/adr/0001).

A parser that takes such a body as a whole holds the process for as long as it is large, and makes a text of it first.
Here the long strings are cut out, the little that is left is parsed as JSON, and the payload's base64 is turned into
bytes piece by piece; what comes out is what `frame` makes of a short body. Everything is a generator: it yields between
steps, whoever drives it lets others go on meanwhile, and its result is what it returns.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gateway.data_plane.core import wire
from gateway.data_plane.core.wire import Buffer, Pieces
from gateway.errors import ProtocolViolation

T = TypeVar("T")
Steps = Generator[None, None, T]
Room = Callable[[int], memoryview]

LONG: Final = 16 << 10
"""Strings of more bytes are cut out."""
REST_BYTES: Final = 64 << 10
"""Of what is left; it is parsed as a whole."""
QUOTES: Final = 8192
_QUOTES_A_STEP: Final = 128
_BACKSLASHES: Final = 64
"""In a row before a quote."""
SCAN: Final = 256 << 10
CHARS: Final = 128 << 10
"""Of base64 in a step; a multiple of 4."""
PAYLOAD: Final = 96 << 10
"""Bytes made into base64 in a step; a multiple of 3."""
_ESCAPE: Final = 6
"""Bytes of the longest escape in a JSON string."""
_QUOTE: Final = re.compile(rb'"')
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class _Span:
    """A long string: where it stands in the body, without its quotes."""

    start: int
    end: int


def read_push(body: Buffer, room: Room) -> Steps[tuple[str, Buffer]]:
    """(topic, payload) of a std-json push. room: writable room for so many bytes. Raises ProtocolViolation."""
    view = memoryview(body)
    value = yield from _object(view)
    topic = value.get("topic")
    if topic is not None and not isinstance(topic, str):
        raise ProtocolViolation("topic: must be a string of moderate length")
    return topic or "", (yield from _payload(view, value, room))


def read_inbound(body: Buffer, room: Room) -> Steps[tuple[str, Buffer]]:
    """(topic, payload) of a push, JSON or protobuf, that an `Inbound` in JSON carries (as frame.decode_invoke)."""
    view = memoryview(body)
    inner = yield from _payload(view, (yield from _object(view)), room)
    if bytes(inner[:1]) == b"{":
        return (yield from read_push(inner, room))
    found = wire.members(inner)
    return wire.text(found, 1, "topic"), wire.delimited(found, 2)


def encode(payload: Buffer) -> Steps[Pieces]:
    """The payload's base64 in pieces."""
    pieces: list[Buffer] = []
    for piece in wire.slices((payload,), PAYLOAD):
        pieces.append(base64.b64encode(piece))
        yield
    return tuple(pieces)


def _object(body: memoryview) -> Steps[Mapping[str, Any]]:
    """The body's object, with a _Span in place of each long string."""
    spans = yield from _long_strings(body)
    starts = [0, *(span.end + 1 for span in spans)]
    ends = [*(span.start - 1 for span in spans), len(body)]
    if sum(ends) - sum(starts) > REST_BYTES:
        raise ProtocolViolation("JSON body has too many members")
    kept = [bytes(body[start:end]) for start, end in zip(starts, ends, strict=True)]
    # A number stands in for each long string: unlike a string's, its spelling reaches us as it stands in the text.
    mark = b"1e1"
    while any(mark in piece for piece in kept):
        mark += b"0"
    text = b"".join((kept[0], *(b" %s%d %s" % (mark, n, piece) for n, piece in enumerate(kept[1:]))))

    def number(literal: str) -> object:
        index = literal.removeprefix(mark.decode())
        return spans[int(index)] if index != literal else 0.0

    try:
        value = json.loads(text.decode(), parse_float=number)
    except (ValueError, RecursionError) as e:
        raise ProtocolViolation("body is not JSON") from e
    if not isinstance(value, dict):
        raise ProtocolViolation("JSON body must be an object")
    return value


def _long_strings(body: memoryview) -> Steps[list[_Span]]:
    found: list[_Span] = []
    start, at, quotes = -1, 0, 0
    while at < len(body):
        hit = _QUOTE.search(body, at, at + SCAN)
        if hit is None:
            at += SCAN
            yield
            continue
        quotes += 1
        if quotes > QUOTES:
            raise ProtocolViolation("JSON body has too many members")
        if not quotes % _QUOTES_A_STEP:
            yield
        here, at = hit.start(), hit.end()
        if start < 0:
            start = here
        elif not _escaped(body, here):
            if here - start > LONG:
                found.append(_Span(start + 1, here))
            start = -1
    if start >= 0:
        raise ProtocolViolation("body is not JSON")
    return found


def _escaped(body: memoryview, quote: int) -> bool:
    """Whether a backslash that stands for itself precedes the quote inside a string."""
    before = bytes(body[max(0, quote - _BACKSLASHES) : quote])
    run = len(before) - len(before.rstrip(b"\\"))
    if run == _BACKSLASHES:
        raise ProtocolViolation("body is not JSON of this channel")
    return run % 2 == 1


def _payload(body: memoryview, value: Mapping[str, Any], room: Room) -> Steps[Buffer]:
    """The member `payload`: base64 as frame takes it (T-amb 4), also with JSON's escapes in it."""
    span = value.get("payload")
    if isinstance(span, str):
        text = memoryview(span.encode("utf-8", "replace"))
        return (yield from _bytes(text, room))
    if not isinstance(span, _Span):
        raise ProtocolViolation("payload: must be a base64 string")
    return (yield from _bytes(body[span.start : span.end], room))


def _bytes(text: memoryview, room: Room) -> Steps[Buffer]:
    if not len(text):
        return b""
    whole = room(len(text) * 3 // 4 + 3)
    rest, filled, at = b"", 0, 0
    while at < len(text):
        end = at + CHARS
        if end < len(text):
            # No escape is cut in two.
            begun = bytes(text[end - _ESCAPE : end]).rfind(b"\\")
            end -= _ESCAPE - begun if begun >= 0 else 0
        piece = rest + _unescaped(bytes(text[at:end]))
        at = min(end, len(text))
        if at < len(text):
            whole_quads = len(piece) // 4 * 4
            piece, rest = piece[:whole_quads], piece[whole_quads:]
            if b"=" in piece:
                raise ProtocolViolation("payload: not base64")
        filled = _decode(piece, whole, filled)
        yield
    return whole[:filled]


def _decode(piece: bytes, whole: memoryview, filled: int) -> int:
    try:
        found = binascii.a2b_base64(piece + b"=" * (-len(piece) % 4), strict_mode=True)
    except ValueError as e:
        raise ProtocolViolation("payload: not base64") from e
    whole[filled : filled + len(found)] = found
    return filled + len(found)


def _unescaped(piece: bytes) -> bytes:
    if b"\\" in piece:
        try:
            piece = json.loads(b'"' + piece + b'"').encode()
        except ValueError as e:
            raise ProtocolViolation("body is not JSON") from e
    return piece.translate(_URL_SAFE) if b"-" in piece or b"_" in piece else piece
