"""A framed stream: length-prefixed messages over one kept connection, acknowledged one by one, within a window.

Frame = header (payload bytes u32, kind u8, pad, topic bytes u16, sequence u64; big endian), topic, payload.
DATA carries a message; ACK's payload is the list of sequence numbers that reached the receiver's queue, so a full queue
of one topic holds back its own acknowledgements and nobody else's; SUBSCRIBE asks for a topic's messages, and its
sequence field is the number of messages the reader takes unacknowledged.

Small frames of one turn of the loop leave in one write; a large payload is received into a buffer of its exact size,
so that it is copied once by TLS or the kernel and never joined.
"""

import array
import asyncio
import struct
import sys
from collections import deque
from collections.abc import Callable
from typing import cast

HEADER = struct.Struct("!IBxHQ")
DATA, ACK, SUBSCRIBE = 1, 2, 3
SCRATCH = 256 * 1024  # bytes read at once while no large payload is awaited
LARGE = 32 * 1024  # from here on a payload is written by itself instead of being joined with its neighbours
WINDOW = 32 * 1024 * 1024  # bytes sent and not yet acknowledged
MAX_PAYLOAD = 64 * 1024 * 1024

Payload = bytes | bytearray
Done = Callable[[], None]


class FrameConnection(asyncio.BufferedProtocol):
    def __init__(
        self,
        *,
        on_data: "Callable[[FrameConnection, bytes, Payload, int], None] | None" = None,
        on_subscribe: "Callable[[FrameConnection, bytes, int], None] | None" = None,
    ) -> None:
        self._on_data = on_data
        self._on_subscribe = on_subscribe
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.stream: object = None
        """Kept for whoever opened the connection."""
        self.closed = self._loop.create_future()
        # Receiving
        self._scratch = bytearray(SCRATCH)
        self._view = memoryview(self._scratch)
        self._start = self._end = 0
        self._body: bytearray | None = None
        self._body_view = memoryview(b"")
        self._filled = 0
        self._pending: tuple[bytes, int] = (b"", 0)
        # Sending
        self._out: deque[tuple[int, bytes, Payload, int]] = deque()
        self._acks = array.array("Q")
        self._waiting: dict[int, tuple[int, Done]] = {}
        self._parked: deque[tuple[bytes, Payload, Done]] = deque()
        self._in_flight = 0
        self._sequence = 0
        self._scheduled = False
        self._paused = False

    # -- sending

    def submit(self, topic: bytes, payload: Payload, done: Done) -> None:
        """Sends in order; `done` runs once the far side has put the message into its queue."""
        if self._parked or self._in_flight >= WINDOW:
            self._parked.append((topic, payload, done))
            return
        self._sequence += 1
        self._in_flight += len(payload)
        self._waiting[self._sequence] = (len(payload), done)
        self._out.append((DATA, topic, payload, self._sequence))
        self._schedule()

    def acknowledge(self, sequence: int) -> None:
        self._acks.append(sequence)
        self._schedule()

    def subscribe(self, topic: bytes, credit: int) -> None:
        self._out.append((SUBSCRIBE, topic, b"", credit))
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._paused:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        small: list[Payload] = []
        if self._acks:
            acks = self._acks
            self._acks = array.array("Q")
            if sys.byteorder == "little":
                acks.byteswap()
            payload = acks.tobytes()
            small += (HEADER.pack(len(payload), ACK, 0, 0), payload)
        while self._out and not self._paused:
            kind, topic, body, sequence = self._out.popleft()
            small += (HEADER.pack(len(body), kind, len(topic), sequence), topic)
            if len(body) < LARGE:
                small.append(body)
                continue
            transport.write(b"".join(small))
            small.clear()
            transport.write(body)
        if small:
            transport.write(b"".join(small))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._schedule()

    # -- receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._out or self._acks:
            self._schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(exc)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        if self._body is not None:
            return self._body_view[self._filled :]
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._body is not None:
            self._filled += nbytes
            if self._filled == len(self._body):
                body, (topic, sequence) = self._body, self._pending
                self._body, self._body_view = None, memoryview(b"")
                self._deliver(DATA, topic, body, sequence)
            return
        self._end += nbytes
        self._parse()

    def feed(self, data: bytes) -> None:
        """Bytes that another protocol had read before this one took the connection over."""
        while data:
            room = self.get_buffer(0)
            piece = data[: len(room)]
            room[: len(piece)] = piece
            data = data[len(piece) :]
            self.buffer_updated(len(piece))

    def _parse(self) -> None:
        view = self._view
        while self._end - self._start >= HEADER.size:
            length, kind, topic_length, sequence = HEADER.unpack_from(view, self._start)
            if topic_length > 1024 or length > (MAX_PAYLOAD if kind == DATA else SCRATCH // 2):
                self.close()
                return
            at = self._start + HEADER.size
            if self._end < at + topic_length:
                break
            body_at = at + topic_length
            if self._end - body_at < length:
                if kind != DATA or body_at + length <= SCRATCH:
                    break
                topic = bytes(view[at:body_at])
                self._filled = self._end - body_at
                self._body = bytearray(length)
                self._body_view = memoryview(self._body)
                self._body_view[: self._filled] = view[body_at : self._end]
                self._pending = (topic, sequence)
                self._start = self._end = 0
                return
            self._start = body_at + length
            self._deliver(kind, bytes(view[at:body_at]), bytes(view[body_at : body_at + length]), sequence)
        if self._start:
            rest = self._end - self._start
            view[:rest] = view[self._start : self._end]
            self._start, self._end = 0, rest

    def _deliver(self, kind: int, topic: bytes, payload: Payload, sequence: int) -> None:
        if kind == DATA and self._on_data is not None:
            self._on_data(self, topic, payload, sequence)
        elif kind == SUBSCRIBE and self._on_subscribe is not None:
            self._on_subscribe(self, topic, sequence)
        elif kind == ACK:
            acks = array.array("Q", payload)
            if sys.byteorder == "little":
                acks.byteswap()
            for acked in acks:
                size, done = self._waiting.pop(acked)
                self._in_flight -= size
                done()
            while self._parked and self._in_flight < WINDOW:
                parked, self._parked = self._parked, deque()
                self.submit(*parked.popleft())
                self._parked = parked
