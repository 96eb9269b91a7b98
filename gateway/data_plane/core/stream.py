"""The frames of interconn-stream/1 <-> records: what two of our gateways, and a task and its gateway, say on a kept
connection (docs/transport.md has the layout for others). No I/O, no waiting.

A frame is a header of 20 bytes, a short text and a body. Nothing is taken in before its length is known to be within
the bound of its kind; a large body is read straight into the place that the receiver names for it. Which messages are
sent when is `core.stream_send`, which parts of a message have come is `core.stream_take`. The component SDK reads and
writes the same frames, so this module imports next to nothing.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.errors import ProtocolViolation

PROTOCOL: Final = "interconn-stream/1"
"""As it stands in the Upgrade header."""
VERSION: Final = 1
HEADER: Final = struct.Struct("!IBBHIQ")
"""Bytes of the body, kind, bytes of the text, flow, reference, value."""

# Both legs.
HELLO, FLOW, MESSAGE, ACK, NACK, PING, PONG, CLOSE = range(1, 9)
# Between gateways: messages above `Hello.whole` in parts.
BEGIN, RESUME, CHUNK, HAVE = range(16, 20)
# A task to its gateway.
POP, PEEK, RELEASE, NOTHING = range(32, 36)

SCRATCH: Final = 256 << 10
"""Bytes read at once while no large body is awaited; a frame that is not large fits in."""
LARGE: Final = 64 << 10
"""A longer body is read into a place of its own."""
FLOW_BYTES: Final = 16 << 10
FLOW_LINES: Final = 32
ACKS: Final = 4096
"""References in one ACK frame."""
WORDS: Final = 512
"""Bytes of the text of a NACK."""
TRANSFER: Final = 16
"""Bytes of the name of a transfer in parts."""
UNIT: Final = 64
"""What a message counts in the window besides its payload."""

_HELLO: Final = struct.Struct("!IIIIIQ")


class Frame(NamedTuple):
    """One frame. text: the message's name in MESSAGE, BEGIN and RESUME, the code in NACK.

    value: bytes in all (BEGIN, RESUME), an offset (CHUNK, HAVE), milliseconds (POP), a version (HELLO).
    """

    kind: int
    text: bytes
    flow: int
    ref: int
    value: int
    body: bytes | memoryview
    size: int
    """Bytes of the body, also of one that was thrown away."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What the side that says it takes: all as a receiver.

    window: bytes that may be on the way unanswered, payloads and UNIT each; messages: how many. flows: numbers 0 to
    flows - 1. chunk: bytes of a CHUNK; whole: bytes of a MESSAGE; total: bytes of any message.
    """

    window: int = 32 << 20
    messages: int = 8192
    flows: int = 1024
    chunk: int = 1 << 20
    whole: int = 1 << 20
    total: int = 128 << 20


FEWEST: Final = Hello(window=1 << 20, messages=1, flows=1, chunk=16 << 10, whole=0, total=0)
"""A side that takes less than this cannot be worked with."""


def pack(kind: int, *, size: int = 0, text: bytes = b"", flow: int = 0, ref: int = 0, value: int = 0) -> bytes:
    """A frame up to its body of `size` bytes, which follows."""
    return HEADER.pack(size, kind, len(text), flow, ref, value) + text


def pack_hello(hello: Hello) -> bytes:
    body = _HELLO.pack(hello.window, hello.messages, hello.flows, hello.chunk, hello.whole, hello.total)
    return pack(HELLO, size=len(body), value=VERSION) + body


def read_hello(frame: Frame) -> Hello:
    """The limits of the other side; what a later version says besides is passed over. Raises ProtocolViolation."""
    if frame.value != VERSION or len(frame.body) < _HELLO.size:
        raise ProtocolViolation("stream: HELLO of another version")
    hello = Hello(*_HELLO.unpack_from(frame.body))
    if any(getattr(hello, name) < getattr(FEWEST, name) for name in Hello.__slots__):
        raise ProtocolViolation("stream: HELLO with limits too small")
    return hello


def pack_flow(number: int, headers: Mapping[str, str]) -> bytes:
    """Headers, with names in lower case and printable values, under a number. Absent ones are left out."""
    body = "\n".join(f"{name}: {value}" for name, value in headers.items() if value).encode()
    return pack(FLOW, size=len(body), flow=number) + body


def read_flow(body: bytes | memoryview) -> Mapping[str, str]:
    """The headers of a FLOW. Raises ProtocolViolation; values are for the reader to judge (frame.read_envelope)."""
    try:
        lines = str(body, "utf-8").split("\n")
    except UnicodeDecodeError as e:
        raise ProtocolViolation("stream: FLOW is not UTF-8") from e
    if len(lines) > FLOW_LINES:
        raise ProtocolViolation("stream: FLOW has too many lines")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        if not colon or not name.startswith("x-ptp-") or name in headers:
            raise ProtocolViolation("stream: FLOW has a line that is no header, or one twice")
        headers[name] = value
    return headers


def pack_acks(refs: Sequence[int]) -> list[bytes]:
    """References of taken messages, in as few frames as are needed."""
    out: list[bytes] = []
    for at in range(0, len(refs), ACKS):
        some = refs[at : at + ACKS]
        out += (pack(ACK, size=4 * len(some)), struct.pack(f"!{len(some)}I", *some))
    return out


def read_acks(frame: Frame) -> tuple[int, ...]:
    if frame.size % 4:
        raise ProtocolViolation("stream: ACK cut off")
    return struct.unpack(f"!{frame.size // 4}I", frame.body)


def pack_nack(ref: int, code: str, words: str) -> bytes:
    body = words.encode()[:WORDS]
    return pack(NACK, size=len(body), text=code.encode(), ref=ref) + body


def name_of(frame: Frame) -> str:
    """The message's name. Raises ProtocolViolation."""
    if not frame.text:
        return ""
    name = frame.text.decode("latin-1")
    if not (name.isascii() and name.isprintable()):
        raise ProtocolViolation("stream: a message's name must be printable ASCII")
    return name


def bounds(hello: Hello, kinds: Iterable[int]) -> Mapping[int, int]:
    """Bytes that a body may have, for each kind of frame that a side expects. hello: what that side has said."""
    most = {HELLO: 1024, FLOW: FLOW_BYTES, MESSAGE: hello.whole, ACK: 4 * ACKS, NACK: WORDS, CHUNK: hello.chunk}
    most |= {BEGIN: TRANSFER, RESUME: TRANSFER}
    return {kind: most.get(kind, 0) for kind in kinds}


class Inbox:
    """Bytes as they come -> frames. The caller reads into `buffer()` and says with `took` how much came.

    most: as of `bounds`; a frame of any other kind is a violation. deliver: is given every frame, in order. room: is
    asked for the place of a body of more than LARGE bytes, of exactly its size, once the frame's head has come; None:
    the body is thrown away, and the frame delivered without it.
    """

    def __init__(
        self,
        most: Mapping[int, int],
        *,
        deliver: Callable[[Frame], None],
        room: Callable[[Frame], memoryview | None],
    ) -> None:
        self.most = most
        self._deliver = deliver
        self._room = room
        self._view = memoryview(bytearray(SCRATCH))
        self._start = self._end = 0
        self._large: Frame | None = None
        self._place = memoryview(b"")
        self._filled = 0
        self._skip = 0

    @property
    def midway(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._large is not None or self._end > self._start

    def buffer(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._large is None:
            return self._view[self._end :]
        if self._skip:
            return self._view[: self._skip]
        return self._place[self._filled :]

    def took(self, size: int) -> None:
        """So many bytes are now at the beginning of what `buffer` gave. Raises ProtocolViolation, or what `deliver` and
        `room` raise; the connection is of no use after that.
        """
        if self._large is None:
            self._end += size
            self._parse()
            return
        if self._skip:
            self._skip -= size
            if self._skip:
                return
        else:
            self._filled += size
            if self._filled < self._large.size:
                return
        frame = self._large._replace(body=self._place)
        self._large, self._place = None, memoryview(b"")
        self._deliver(frame)

    def close(self) -> None:
        """Nothing comes any more: let go of what it was read into, or it stays until Python collects the connection."""
        self._view = self._place = memoryview(b"")

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes that someone else has read."""
        rest = memoryview(data)
        while rest:
            buffer = self.buffer()
            size = min(len(buffer), len(rest))
            buffer[:size] = rest[:size]
            rest = rest[size:]
            self.took(size)

    def _parse(self) -> None:
        view, start, end = self._view, self._start, self._end
        while end - start >= HEADER.size:
            size, kind, letters, flow, ref, value = HEADER.unpack_from(view, start)
            most = self.most.get(kind)
            if most is None:
                raise ProtocolViolation(f"stream: frame of kind {kind} is not expected here")
            if size > most:
                raise ProtocolViolation(f"stream: frame of kind {kind} longer than {most} bytes")
            at = start + HEADER.size
            body_at = at + letters
            if end < body_at:
                break
            text = bytes(view[at:body_at])
            if size > LARGE:
                self._begin(Frame(kind, text, flow, ref, value, b"", size), view[body_at:end])
                if self._large is not None:
                    return
                # All of it had come already.
                start = self._start = body_at + size
                continue
            if end - body_at < size:
                break
            start = self._start = body_at + size
            self._deliver(Frame(kind, text, flow, ref, value, bytes(view[body_at:start]), size))
        if start:
            view[: end - start] = bytes(view[start:end])
            self._start, self._end = 0, end - start

    def _begin(self, frame: Frame, come: memoryview) -> None:
        place = self._room(frame)
        here = min(len(come), frame.size)
        if place is not None:
            place[:here] = come[:here]
        if here == frame.size:
            self._deliver(frame if place is None else frame._replace(body=place))
            return
        self._large = frame
        self._place = memoryview(b"") if place is None else place
        self._filled, self._skip = here, 0 if place is not None else frame.size - here
        self._start = self._end = 0
