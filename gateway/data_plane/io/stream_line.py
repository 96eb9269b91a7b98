"""One end of a stream: frames over a transport of asyncio, whoever is at the other end.

Reads straight into the places that `core.stream.Inbox` gives, writes what is due in one piece per turn of the loop, and
never more of a large message in one turn than TLS needs about a millisecond for. What the frames mean is a subclass's
business: `stream_server` and `stream_client` for partners, `stream_local` and the component SDK for tasks.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, cast

from gateway.data_plane.core import stream as st
from gateway.data_plane.core.stream_send import Buffer
from gateway.data_plane.io import transports
from gateway.errors import GatewayError, ProtocolViolation

TURN: Final = 1 << 20
"""Bytes written in one turn of the loop, about."""
JOIN: Final = 32 << 10
"""Shorter pieces are joined with their neighbours."""
AHEAD: Final = 1 << 20
"""Bytes that may wait in the transport before the next turn."""
ANSWERS: Final = 1 << 16
"""Frames of ours that may wait because the other side does not read."""
WATCH_S: Final = 5.0
STALL_S: Final = 60.0
"""A frame that has begun and does not end for so long, or a HELLO that does not come, ends the stream."""


class FrameLine(asyncio.BufferedProtocol):
    """takes: what this side takes, told in its HELLO. kinds: the frames it expects."""

    def __init__(self, *, takes: st.Hello, kinds: Iterable[int]) -> None:
        self.loop = asyncio.get_running_loop()
        self.takes = takes
        self.met = False
        self.other = st.FEWEST
        """What the other side takes, once we have `met`."""
        self.over = asyncio.Event()
        self.heard = self.loop.time()
        self._inbox = st.Inbox(st.bounds(takes, kinds), deliver=self._deliver, room=self.room)
        self._transport: asyncio.Transport | None = None
        self._control: list[bytes] = []
        self._acks: list[int] = []
        self._pong: int | None = None
        self._scheduled = self._paused = False
        self._frames = self._watched = 0
        self._moved = self.heard
        self._watching: asyncio.TimerHandle | None = None
        self._failure: GatewayError | None = None

    # -- what a subclass says

    def frame(self, frame: st.Frame) -> None:
        """One frame, in order. Raises GatewayError: the stream ends."""
        raise NotImplementedError

    def room(self, frame: st.Frame) -> memoryview | None:
        """As of core.stream.Inbox."""
        return memoryview(bytearray(frame.size))

    def more(self, most: int) -> Sequence[Buffer]:
        """What to send besides answers, some `most` bytes."""
        del most
        return ()

    def greeted(self, hello: st.Hello) -> None:
        """The other side's HELLO has come."""

    def ended(self, failure: GatewayError | None) -> None:
        """The stream has ended. failure: why, where it was this side's doing."""

    def watch(self) -> None:
        """Called every WATCH_S seconds."""

    # -- sending

    def ack(self, ref: int) -> None:
        self._acks.append(ref)
        self.schedule()

    def say(self, frame: bytes) -> None:
        """Send a frame that is not a message."""
        self._control.append(frame)
        self.schedule()

    def schedule(self) -> None:
        """Let `more` be asked in the next turn of the loop."""
        if not self._scheduled and self._transport is not None:
            self._scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._paused:
            if len(self._acks) + len(self._control) > ANSWERS:
                self.end(ProtocolViolation("stream: the other side does not read"))
            return
        out: list[Buffer] = list(self._control)
        self._control.clear()
        if self._pong is not None:
            out.append(st.pack(st.PONG, value=self._pong))
            self._pong = None
        if self._acks:
            out += st.pack_acks(self._acks)
            self._acks.clear()
        messages = self.more(TURN)
        out += messages
        if out:
            _write(transport, out)
        if messages and not self._paused:
            self.schedule()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.schedule()

    # -- receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one without saying so.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=AHEAD)
        self.heard = self._moved = self.loop.time()
        self._watching = self.loop.call_later(WATCH_S, self._watch)
        self.begin(self._transport)

    def begin(self, transport: asyncio.Transport) -> None:
        """The connection carries frames from now on."""
        del transport
        self._control.insert(0, st.pack_hello(self.takes))
        self.schedule()

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._inbox.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.heard = self.loop.time()
        try:
            self._inbox.took(nbytes)
        except GatewayError as failure:
            self.end(failure)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes that another protocol had read before this one took the connection over."""
        if self.over.is_set():
            return
        try:
            self._inbox.feed(data)
        except GatewayError as failure:
            self.end(failure)

    def _deliver(self, frame: st.Frame) -> None:
        self._frames += 1
        kind = frame.kind
        if not self.met:
            if kind != st.HELLO:
                raise ProtocolViolation("stream: HELLO expected first")
            self.other = st.read_hello(frame)
            self.met = True
            self.greeted(self.other)
        elif kind == st.PING:
            self._pong = frame.value
            self.schedule()
        elif kind == st.HELLO:
            raise ProtocolViolation("stream: HELLO twice")
        elif kind != st.PONG:
            self.frame(frame)

    # -- the end

    def end(self, failure: GatewayError | None = None) -> None:
        """Close at once; `ended` is called when it is done."""
        if self._failure is None:
            self._failure = failure
        if self._transport is not None:
            transports.abort(self._transport)
        elif not self.over.is_set():
            self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self.over.is_set():
            return
        self.over.set()
        if self._watching is not None:
            self._watching.cancel()
        # Whoever is reading just now goes on to the end of its turn.
        self.loop.call_soon(self._inbox.close)
        self.ended(self._failure)

    def _watch(self) -> None:
        self._watching = self.loop.call_later(WATCH_S, self._watch)
        now = self.loop.time()
        if self._frames != self._watched or (self.met and not self._inbox.midway):
            self._watched, self._moved = self._frames, now
        elif now - self._moved > STALL_S:
            self.end(ProtocolViolation("stream: stalled"))
            return
        self.watch()


def _write(transport: asyncio.Transport, pieces: Sequence[Buffer]) -> None:
    """In as few writes as possible, without joining what is large."""
    small: list[Buffer] = []
    for piece in pieces:
        if len(piece) < JOIN:
            small.append(piece)
            continue
        if small:
            transport.write(b"".join(small))
            small.clear()
        transport.write(piece)
    if small:
        transport.write(b"".join(small))
