"""Messages that the SDK of mesh has split over topics: `<topic>-mesh-split-0` holds the number of pieces in decimal,
`<topic>-mesh-split-1` and so on hold the pieces (4-transport 9.4, T-052). The module passes them like any topic; who
talks with a container that uses that SDK puts them together here, or sends so itself.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

from gateway.sdk.environment import Address
from gateway.sdk.result import Code, ComponentError

PIECES: Final = 65_536
PIECE_BYTES: Final = 4 << 20
MAX_BYTES: Final = 1 << 30

Payload = bytes | bytearray | memoryview


class Line(Protocol):
    """A gateway.sdk.channel.Channel."""

    def push(self, topic: str, *parts: Payload, to: Address, deadline: float) -> None: ...

    def pop(self, topic: str, *, source: Address, wait_ms: int, deadline: float) -> memoryview | None: ...


def topic_of(topic: str, number: int) -> str:
    """Where a piece stands; 0: where their number does."""
    return f"{topic}-mesh-split-{number}"


def push_split(
    line: Line, topic: str, payload: Payload, *, to: Address, deadline: float, piece_bytes: int = PIECE_BYTES
) -> None:
    """Push a message in pieces. Raises ComponentError(TRANSPORT), as Channel.push, BAD_INPUT for an empty message."""
    view = memoryview(payload).cast("B")
    starts = range(0, len(view), piece_bytes)
    if not starts:
        raise ComponentError(Code.BAD_INPUT, "an empty message has no pieces")
    line.push(topic_of(topic, 0), str(len(starts)).encode(), to=to, deadline=deadline)
    for number, start in enumerate(starts, 1):
        line.push(topic_of(topic, number), view[start : start + piece_bytes], to=to, deadline=deadline)


def pop_split(
    line: Line,
    topic: str,
    *,
    source: Address,
    wait_ms: int,
    deadline: float,
    max_bytes: int = MAX_BYTES,
    clock: Callable[[], float] = time.monotonic,
) -> memoryview | None:
    """The next message that was split; None when none has begun within `wait_ms` milliseconds.

    deadline: by `clock`, for all of its pieces. Raises ComponentError: PARTNER_VIOLATION for a number of pieces that is
    none, a piece missing at the deadline or a message above `max_bytes`; TRANSPORT.
    """
    first = line.pop(topic_of(topic, 0), source=source, wait_ms=wait_ms, deadline=deadline)
    if first is None:
        return None
    text = bytes(first[:16])
    if not text.isdigit() or len(first) > 8 or not 0 < int(text) <= PIECES:
        raise ComponentError(Code.PARTNER_VIOLATION, f"{topic!r}: not a number of pieces")
    pieces, size = list[memoryview](), 0
    for number in range(1, int(text) + 1):
        left_ms = max(1, int((deadline - clock()) * 1000))
        piece = line.pop(topic_of(topic, number), source=source, wait_ms=left_ms, deadline=deadline)
        if piece is None:
            raise ComponentError(Code.PARTNER_VIOLATION, f"{topic!r}: piece {number} of {int(text)} is missing")
        size += len(piece)
        if size > max_bytes:
            raise ComponentError(Code.PARTNER_VIOLATION, f"{topic!r}: longer than {max_bytes} bytes")
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
