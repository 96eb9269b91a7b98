"""Streams that partners open: GET chan/transport with `Upgrade: interconn-stream/1`, and what comes over them.

A message of a stream is an invoke in another form: who sends it is proven, and whether it may be taken is asked, as for
an invoke and as often: a contract that ends or a rule that changes is noticed with the next message. An ACK says what
the answer of an invoke says, that the message is in the queue; until then it counts in the sender's window.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Final

from gateway.data_plane.channel import Channel
from gateway.data_plane.core import frame as fr
from gateway.data_plane.core import stream as st
from gateway.data_plane.core.frame import Envelope
from gateway.data_plane.core.stream_send import Buffer
from gateway.data_plane.core.stream_take import File, Part, Parts
from gateway.data_plane.io import door
from gateway.data_plane.io.filed import Files
from gateway.data_plane.io.rooms import Rooms
from gateway.data_plane.io.stream_line import FrameLine
from gateway.errors import GatewayError, Kind, ProtocolViolation, Unavailable
from gateway.model import Limits, NodeId
from gateway.ports import Clock, Journal

STREAMS: Final = 8
"""Open at a time, of one partner."""
SILENT_S: Final = 180.0
"""A stream on which nothing comes for so long is closed; a sender that keeps it asks with PING."""
PART_S: Final = 180.0
"""A message in parts of which nothing comes for so long is given up, whatever else comes: it holds memory or disk."""
IGNORED: Final = 256
"""References given up whose parts may still come."""
KINDS: Final = (st.HELLO, st.FLOW, st.MESSAGE, st.BEGIN, st.RESUME, st.CHUNK, st.PING, st.PONG)


class Streams:
    """All streams that partners have opened, and what is unfinished of each partner."""

    def __init__(
        self, *, channel: Channel, files: Files, rooms: Rooms, limits: Limits, clock: Clock, journal: Journal
    ) -> None:
        self.channel = channel
        self.files = files
        self.budget = files.budget
        self.rooms = rooms
        self.limits = limits
        self.clock = clock
        self.journal = journal
        self.takes = st.Hello(total=limits.channel_body_bytes)
        self._open: Counter[NodeId] = Counter()
        self._all: set[PartnerStream] = set()
        self._parts: dict[NodeId, Parts] = {}
        self._stopping = False

    @staticmethod
    def asked(method: str, name: str, headers: Mapping[str, str]) -> bool:
        """Whether a call of chan/<name> asks for a stream. headers: names as `headers` looks them up, in any case."""
        return method == "GET" and name == door.TRANSPORT and headers.get("upgrade", "").lower() == st.PROTOCOL

    def admit(self, prove: Callable[[], NodeId]) -> "PartnerStream":
        """A stream for a connection whose other end is a partner; hand the connection over after the answer 101.

        It has its place from here on, until its `end`, also where no connection is handed over any more. prove: as of
        door.Call, asked again for every message. Raises Refused(UNAUTHENTICATED), Unavailable(TOO_MANY).
        """
        node = prove()
        if self._stopping:
            raise Unavailable("the node stops", kind=Kind.OVERLOADED)
        if self._open[node] >= STREAMS:
            raise Unavailable("too many streams of this partner", kind=Kind.TOO_MANY)
        stream = PartnerStream(self, node, prove)
        self._open[node] += 1
        self._all.add(stream)
        self.journal.note("stream.opened", peer=node)
        return stream

    def parts(self, node: NodeId) -> Parts:
        """What is unfinished of a partner."""
        known = self._parts.get(node)
        if known is None:
            kept = self.limits.channel_body_bytes
            make, file = self.rooms.take, self.files.make
            known = self._parts[node] = Parts(self.budget, make=make, kept_bytes=kept, file=file)
        return known

    def closed(self, stream: "PartnerStream", failure: GatewayError | None) -> None:
        self._open[stream.node] -= 1
        self._all.discard(stream)
        self.journal.note("stream.closed", peer=stream.node, reason=str(failure) if failure else None)

    def __len__(self) -> int:
        return len(self._all)

    def expire(self) -> None:
        """Drop transfers that were interrupted long ago."""
        for parts in self._parts.values():
            parts.expire(now=self.clock.monotonic())

    async def stop(self, drain_s: float) -> None:
        """Ask for no more messages, answer those that have come, close."""
        self._stopping = True
        streams = list(self._all)
        for stream in streams:
            stream.say(st.pack(st.CLOSE))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await asyncio.gather(*(stream.settled() for stream in streams))
        for stream in streams:
            stream.end()


class PartnerStream(FrameLine):
    """One stream of a partner."""

    def __init__(self, streams: Streams, node: NodeId, prove: Callable[[], NodeId]) -> None:
        super().__init__(takes=streams.takes, kinds=KINDS)
        self.node = node
        self._streams = streams
        self._prove = prove
        self._proven = False
        self._parts = streams.parts(node)
        self._flows: dict[int, Envelope | GatewayError] = {}
        self._carried: dict[int, Part | None] = {}
        self._came: dict[int, tuple[int, float]] = {}
        """Of a reference carried: bytes held when `watch` last saw more of them, and when that was."""
        self._borrowed = self._pending = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writes: set[asyncio.Task[None]] = set()

    def buffer_updated(self, nbytes: int) -> None:
        # Once for what has come together: nothing else runs in between.
        self._proven = False
        super().buffer_updated(nbytes)

    def frame(self, frame: st.Frame) -> None:
        match frame.kind:
            case st.MESSAGE:
                self._message(frame)
            case st.CHUNK:
                self._chunk(frame)
            case st.FLOW:
                self._flow(frame)
            case st.BEGIN | st.RESUME:
                self._begin_part(frame)

    def room(self, frame: st.Frame) -> memoryview | None:
        if frame.kind != st.CHUNK:
            try:
                self._streams.budget.borrow(frame.size)
            except Unavailable:
                return None
            self._borrowed = frame.size
            return self._streams.rooms.take(frame.size)
        part = self._part(frame.ref)
        if part is None:
            return None
        try:
            return self._parts.room(part, frame.value, frame.size)
        except Unavailable as e:
            self.give_up(frame.ref, part, e)
            return None

    def ended(self, failure: GatewayError | None) -> None:
        now = self._streams.clock.monotonic()
        for ref, part in self._carried.items():
            if part is not None and part.owner == (self, ref):
                self._parts.interrupt(part, now=now)
        self._carried.clear()
        self._repay()
        self._streams.closed(self, failure)

    def watch(self) -> None:
        try:
            self._prove()
        except GatewayError as gone:
            self.end(gone)
            return
        now = self.loop.time()
        if now - self.heard > SILENT_S:
            self.end()
            return
        self._give_up_stalled(now)

    def _give_up_stalled(self, now: float) -> None:
        before, self._came = self._came, {}
        for ref, part in list(self._carried.items()):
            if part is None or part.complete or part.owner != (self, ref):
                continue
            held, since = before.get(ref, (-1, now))
            if part.held == held and now - since > PART_S:
                self.give_up(ref, part, ProtocolViolation("stream: a message in parts stalled"))
            else:
                self._came[ref] = (held, since) if part.held == held else (part.held, now)

    async def settled(self) -> None:
        """Until what has come is answered, and the answers are written."""
        while under_way := self._tasks | self._writes:
            await asyncio.wait(under_way)
        await asyncio.sleep(0)

    # -- frames

    def _flow(self, frame: st.Frame) -> None:
        if frame.flow >= self.takes.flows:
            raise ProtocolViolation("stream: flow out of range")
        headers = st.read_flow(frame.body)
        try:
            self._flows[frame.flow] = fr.read_envelope(headers, self._streams.limits)
        except GatewayError as wrong:
            # The fault of who made the messages, not of the gateway that carries them: each is told.
            self._flows[frame.flow] = wrong

    def _admitted(self, frame: st.Frame) -> Envelope:
        """The headers of a message that may be taken. Raises GatewayError."""
        envelope = self._flows.get(frame.flow)
        if envelope is None:
            raise ProtocolViolation("stream: no such flow")
        if isinstance(envelope, GatewayError):
            raise envelope
        if frame.text:
            envelope = replace(envelope, message=st.name_of(frame))
        if not self._proven:
            self._prove()
            self._proven = True
        self._streams.channel.admit_partner(envelope, self.node)
        return envelope

    def _message(self, frame: st.Frame) -> None:
        if frame.flow not in self._flows:
            raise ProtocolViolation("stream: no such flow")
        if self._pending + frame.size > self.takes.window or len(self._tasks) >= self.takes.messages:
            raise ProtocolViolation("stream: more than the window")
        borrowed, self._borrowed = self._borrowed, 0
        try:
            envelope = self._admitted(frame)
            if not borrowed:
                # Not yet, because it is short; or thrown away, because there was no room.
                self._streams.budget.borrow(frame.size)
                borrowed = frame.size
            if len(frame.body) < frame.size:
                raise Unavailable("the process's buffer is full", kind=Kind.BUFFER_FULL)
        except GatewayError as e:
            self._streams.budget.repay(borrowed)
            self._refuse(frame, e)
            return
        self._pending += borrowed
        self._start(self._take(envelope, frame.ref, frame.body, borrowed))

    def _begin_part(self, frame: st.Frame) -> None:
        if frame.flow not in self._flows:
            raise ProtocolViolation("stream: no such flow")
        if frame.ref in self._carried:
            raise ProtocolViolation("stream: reference in use")
        try:
            envelope = self._admitted(frame)
            if frame.value > self.takes.total:
                raise ProtocolViolation(f"body: more than {self.takes.total} bytes", kind=Kind.TOO_LARGE)
            if frame.value == 0:
                raise ProtocolViolation("stream: a message in parts cannot be empty")
            part = self._parts.begin(
                bytes(frame.body),
                envelope,
                total=frame.value,
                owner=(self, frame.ref),
                resume=frame.kind == st.RESUME,
            )
        except GatewayError as e:
            if frame.kind == st.BEGIN:
                self._ignore(frame.ref)
            self._refuse(frame, e)
            return
        if part is None:
            self.ack(frame.ref)
            return
        self._carried[frame.ref] = part
        if frame.kind == st.RESUME and not part.complete:
            self.have(frame.ref, part.held)

    def _chunk(self, frame: st.Frame) -> None:
        part = self._part(frame.ref)
        if part is None:
            return
        piece = memoryview(frame.body)
        if frame.size <= st.LARGE:
            try:
                piece = self._parts.room(part, frame.value, frame.size)
            except Unavailable as e:
                self.give_up(frame.ref, part, e)
                return
            piece[:] = frame.body
        self._parts.came(part, frame.size)
        if part.file is not None:
            # What is not written yet holds the sender back: it is not told that we have it.
            task = self.loop.create_task(self._write(part, part.file, piece, frame.value))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)
            return
        self.have(frame.ref, part.held)
        if part.complete:
            self._start(self._take_part(part))

    async def _write(self, part: Part, file: File, piece: memoryview, at: int) -> None:
        """Put a piece on disk. The stream that brought it may be over when it is there."""
        try:
            await file.write(piece, at)
        except Unavailable as e:
            if part in self._parts:
                if part.owner is not None:
                    stream, ref = part.owner
                    stream.give_up(ref, part, e)
                else:
                    self._parts.drop(part)
            return
        self._parts.wrote(part, len(piece))
        if part not in self._parts:
            return
        if part.written == part.total:
            part.place = file.whole(part.total)
            self._start(self._take_part(part))
        elif part.owner is not None and part.written > part.told:
            stream, ref = part.owner
            part.told = part.written
            stream.have(ref, part.told)

    def _part(self, ref: int) -> Part | None:
        """What a reference stands for; None: given up, its bytes may still come. Raises ProtocolViolation."""
        if ref not in self._carried:
            raise ProtocolViolation("stream: part of no message")
        part = self._carried[ref]
        return part if part is not None and part.owner == (self, ref) else None

    def have(self, ref: int, offset: int) -> None:
        """Say how much of a message in parts has come."""
        self.say(st.pack(st.HAVE, ref=ref, value=offset))

    def give_up(self, ref: int, part: Part, error: GatewayError) -> None:
        """Refuse a message in parts."""
        self._parts.end(part, taken=False)
        self._ignore(ref)
        self._streams.channel.refused(part.envelope, "stream", error)
        self._nack(ref, error)

    def _ignore(self, ref: int) -> None:
        """Parts that are already on their way are thrown away."""
        self._carried[ref] = None
        gone = [known for known, part in self._carried.items() if part is None]
        for known in gone[:-IGNORED]:
            del self._carried[known]

    # -- into the queue

    def _start(self, taking: Coroutine[None, None, None]) -> None:
        # Tasks begin in the order of their making, so messages enter their queues as they came.
        task = self.loop.create_task(taking)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, envelope: Envelope, ref: int, payload: Buffer, borrowed: int) -> None:
        error = await self._accept(envelope, payload)
        self._pending -= borrowed
        self._streams.budget.repay(borrowed)
        self.settle(ref, error)

    def settle(self, ref: int, error: GatewayError | None) -> None:
        """Answer a message."""
        self._carried.pop(ref, None)
        if error is None:
            self.ack(ref)
        else:
            self._nack(ref, error)

    async def _take_part(self, part: Part) -> None:
        self._parts.hand_over(part)
        error = await self._accept(part.envelope, part.place)
        self._parts.end(part, taken=error is None)
        if part.owner is not None:
            # The stream that carries it now: the one that brought it may have broken meanwhile.
            stream, ref = part.owner
            stream.settle(ref, error)

    async def _accept(self, envelope: Envelope, payload: Buffer) -> GatewayError | None:
        """None: in the queue."""
        channel = self._streams.channel
        try:
            await channel.accept(fr.Frame(fr.Operation.PUSH, fr.Codec.RAW, envelope, envelope.topic, payload))
        except GatewayError as e:
            channel.refused(envelope, "stream", e)
            return e
        except Exception as e:  # noqa: BLE001  # the edge: nothing of it may reach the caller
            return door.internal(self._streams.journal, e)
        return None

    def _refuse(self, frame: st.Frame, error: GatewayError) -> None:
        known = self._flows.get(frame.flow)
        self._streams.channel.refused(known if isinstance(known, Envelope) else None, "stream", error)
        self._nack(frame.ref, error)

    def _nack(self, ref: int, error: GatewayError) -> None:
        self.say(st.pack_nack(ref, error.wire.transport, error.public_text()))

    def _repay(self) -> None:
        self._streams.budget.repay(self._borrowed)
        self._borrowed = 0
