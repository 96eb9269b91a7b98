"""What passes on an HTTP/2 connection (RFC 9113), read by frame heads alone: bounds on a caller, bytes under way.

gRPC's library speaks HTTP/2; this only looks on, so that what a caller can make it hold or do is bounded by us, in any
release: streams reset at once, by the caller or by a mistake that it provokes, pings, settings and empty frames (a
purse that answers refill), header blocks without an end, data of calls that nobody has taken yet. Payloads are skipped,
never looked at; what a frame means stays the library's business.
"""

import struct
from collections.abc import Iterator
from typing import Final

from gateway.errors import Kind, ProtocolViolation

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
PURSE: Final = 1000.0
PER_SECOND: Final = 100.0
PER_ANSWER: Final = 4.0
"""A frame that carries nothing costs 1. A client opens windows, acknowledges and pings as answers come: those earn."""

ENHANCE_YOUR_CALM: Final = 0xB

_REFUSED: Final = 256
"""Frames that are answered to a caller who is not let in."""
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY, _CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x7, 0x9
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1


class Heads:
    """The heads of the frames in a stream of bytes that comes in any pieces. skip: bytes before the first frame."""

    def __init__(self, *, skip: int = 0) -> None:
        self._skip = skip
        self._part = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, int]]:
        """(length, type, flags, stream) of each frame that begins in `data`. Read it to its end."""
        at, end = 0, len(data)
        while True:
            step = min(self._skip, end - at)
            at += step
            self._skip -= step
            if at == end:
                return
            need = HEAD_BYTES - len(self._part)
            head = self._part + data[at : at + need]
            at += need
            if len(head) < HEAD_BYTES:
                self._part = head
                return
            self._part = b""
            first, second = int.from_bytes(head[:5], "big"), int.from_bytes(head[5:], "big")
            self._skip = first >> 16
            yield self._skip, first >> 8 & 0xFF, first & 0xFF, second & 0x7FFFFFFF


class Watch:
    """One connection of a caller. header_bytes: of a block of headers, compressed; now: seconds of a steady clock."""

    def __init__(self, *, header_bytes: int, now: float) -> None:
        self._header_bytes = header_bytes
        self._in = Heads(skip=len(PREFACE))
        self._out = Heads()
        self._purse = PURSE
        self._since = now
        self._block = 0
        self._newest = 0
        self._streams: dict[int, int] = {}
        self.held = 0
        """Bytes of data that came for calls since they were last answered: what the library may be holding."""

    def inward(self, data: bytes, *, now: float) -> None:
        """Bytes of the caller, its preface first. Raises ProtocolViolation(TOO_LARGE, TOO_MANY)."""
        self._purse = min(PURSE, self._purse + PER_SECOND * (now - self._since))
        self._since = now
        for length, kind, flags, stream in self._in.feed(data):
            if kind == _DATA:
                # What comes for a call that has its answer is dropped by the library.
                if length and stream in self._streams:
                    self._streams[stream] += length
                    self.held += length
                elif not length and not flags & _END_STREAM:
                    self._pay()
            elif kind in {_HEADERS, _CONTINUATION}:
                self._headers(length, first=kind == _HEADERS, last=bool(flags & _END_HEADERS))
                if stream > self._newest:
                    self._newest = stream
                    self._streams[stream] = 0
            else:
                self._pay()
                if kind == _RST_STREAM:
                    self._end(stream)

    def outward(self, data: bytes) -> None:
        """Bytes of our library. Raises ProtocolViolation(TOO_MANY) where it had to reset too many streams."""
        for _, kind, flags, stream in self._out.feed(data):
            if kind == _DATA:
                self._purse += PER_ANSWER
                if stream in self._streams:
                    self.held -= self._streams[stream]
                    self._streams[stream] = 0
            elif kind == _RST_STREAM:
                self._end(stream)
                self._pay()
            elif kind == _HEADERS and flags & _END_STREAM:
                self._end(stream)

    def _headers(self, length: int, *, first: bool, last: bool) -> None:
        if not first:
            self._pay()
        self._block = length if first else self._block + length
        if self._block > self._header_bytes:
            raise ProtocolViolation("HTTP/2: headers too large", kind=Kind.TOO_LARGE)
        if last:
            self._block = 0

    def _end(self, stream: int) -> None:
        self.held -= self._streams.pop(stream, 0)

    def _pay(self) -> None:
        self._purse -= 1
        if self._purse < 0:
            raise ProtocolViolation("HTTP/2: too many frames without use", kind=Kind.TOO_MANY)


def goaway(words: str) -> bytes:
    """What ends the connection of a caller that goes too far."""
    # Said to be after the highest stream there is: a client takes up again, for ever, the calls above it.
    return _frame(_GOAWAY, struct.pack("!II", 0x7FFFFFFF, ENHANCE_YOUR_CALM) + words.encode())


class Refusal:
    """Speaks with a caller that is not let in: every call gets one gRPC status and these words (printable ASCII)."""

    def __init__(self, status: int, words: str) -> None:
        self._heads = Heads(skip=len(PREFACE))
        fields = (("grpc-status", str(status)), ("grpc-message", words))
        # HPACK: indexed `:status: 200`, then literals without indexing; 0x0f 0x10 is the name content-type.
        block = b"\x88\x0f\x10" + _literal("application/grpc")
        self._block = block + b"".join(b"\x00" + _literal(name) + _literal(value) for name, value in fields)
        self._greeting = _frame(_SETTINGS, b"")
        self._left = _REFUSED

    def answer(self, data: bytes) -> bytes:
        """What to say to these bytes of the caller, its preface first."""
        said = [self._greeting]
        self._greeting = b""
        for _, kind, flags, stream in self._heads.feed(data):
            if self._left == 0:
                continue
            self._left -= 1
            if kind == _HEADERS:
                said.append(_frame(_HEADERS, self._block, flags=_END_STREAM | _END_HEADERS, stream=stream))
            elif kind == _SETTINGS and not flags & _ACK:
                said.append(_frame(_SETTINGS, b"", flags=_ACK))
        return b"".join(said)


def _literal(text: str) -> bytes:
    """A string of HPACK, at most 126 characters."""
    return bytes((min(len(text), 126),)) + text.encode()[:126]


def _frame(kind: int, payload: bytes, *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload
