"""Messages to a partner over a stream that we keep open, where the partner has one to offer; else over its other way.

The meanings are those of HTTP invoke. A stream that breaks is opened again: a message in parts
goes on where the receiver has it, what has certainly not arrived is said to be so, and of everything else only
`channel` knows whether it may be sent once more.
"""

import asyncio
import hashlib
import math
import os
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from gateway.data_plane.core import frame as fr
from gateway.data_plane.core import heads
from gateway.data_plane.core import stream as st
from gateway.data_plane.core.delivery import read_name
from gateway.data_plane.core.stream_send import RESEND, Buffer, Headers, Item, Sender
from gateway.data_plane.io.dial import Way
from gateway.data_plane.io.speaking import ANSWER_S, SLOWEST_BYTES_PER_S, Speaking
from gateway.data_plane.io.stream_line import FrameLine
from gateway.errors import CallerError, GatewayError, Kind, ProtocolViolation, Unavailable
from specs import headers as h
from specs.codes import Transport
from specs.routes import CHANNEL

ASK_S: Final = 5.0
"""For the 101 and HELLO."""
BUSY_S: Final = 10.0
"""How long a partner that has given streams before is left alone when it refuses one."""
NOT_OFFERED_S: Final = 900.0
"""How long a partner that gave no stream is not asked again."""
KEEP_S: Final = 120.0
"""A stream that carries nothing for so long is closed."""
PING_S: Final = 15.0
RESUME_S: Final = 20.0
"""How long a broken stream is opened anew for a message in parts, from its last progress."""
PAUSE_S: Final = 0.2
BULK: Final = 256 << 10
"""Longer messages go on the stream for large ones."""
KINDS: Final = (st.HELLO, st.ACK, st.NACK, st.HAVE, st.PING, st.PONG, st.CLOSE)


class _NotOffered(Exception):
    """The partner gave no stream. answered: it said so, it did not just hang up."""

    def __init__(self, *, answered: bool) -> None:
        super().__init__()
        self.answered = answered


class _Broken(Exception):
    """The stream has ended, or nothing came for too long, with this message unanswered."""

    def __init__(self, *, timed_out: bool) -> None:
        super().__init__()
        self.timed_out = timed_out


class _Asked(FrameLine):
    """Our end of a stream, from the request for it on."""

    def __init__(self, request: bytes) -> None:
        super().__init__(takes=st.Hello(whole=0, total=0), kinds=KINDS)
        self.given: asyncio.Future[None] = self.loop.create_future()
        """Done when the partner has said what it takes; _NotOffered where it gives no stream."""
        self.closing = False
        """Nothing new is to be sent on it."""
        self.sender = Sender(code_ok=Transport.OK)
        self._request = request
        self._connection: asyncio.Transport
        self._head = b""
        self._upgraded = False
        self._piece = memoryview(bytearray(heads.HEAD_BYTES))
        self._used = self.loop.time()
        self._timed_out = False

    # -- the answer to the request

    def begin(self, transport: asyncio.Transport) -> None:
        transport.write(self._request)
        self._connection = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return super().get_buffer(sizehint) if self._upgraded else self._piece

    def buffer_updated(self, nbytes: int) -> None:
        if self._upgraded:
            super().buffer_updated(nbytes)
            return
        self._head += self._piece[:nbytes]
        try:
            head = heads.read_head(self._head)
        except GatewayError:
            self.decline()
            return
        if head is None:
            return
        if not head.switches_to(st.PROTOCOL):
            self.decline()
            return
        self._upgraded = True
        super().begin(self._connection)
        self.feed(head.rest)

    def decline(self) -> None:
        if not self.given.done():
            self.given.set_exception(_NotOffered(answered=True))
        self.end()

    # -- frames

    def greeted(self, hello: st.Hello) -> None:
        self.sender.begin(hello)
        self.given.set_result(None)
        self.schedule()

    def more(self, most: int) -> Sequence[Buffer]:
        return self.sender.pieces(most)

    def frame(self, frame: st.Frame) -> None:
        match frame.kind:
            case st.ACK:
                for ref in st.read_acks(frame):
                    self.sender.answered(ref)
            case st.NACK:
                code = frame.text.decode("latin-1")
                if not fr.is_code(code) or code == Transport.OK:
                    raise ProtocolViolation("stream: NACK without a code", kind=Kind.PEER_MALFORMED)
                self.sender.answered(frame.ref, code, bytes(frame.body).decode("utf-8", "replace"))
            case st.HAVE:
                self.sender.have(frame.ref, frame.value)
            case st.CLOSE:
                self.closing = True
        # An answer opens the window.
        self.schedule()

    def room(self, frame: st.Frame) -> memoryview | None:
        del frame
        return None

    async def carry(self, item: Item) -> fr.Answer:
        """Send a message and wait for the answer. Raises _Broken."""
        answer: asyncio.Future[fr.Answer] = self.loop.create_future()

        def done(code: str, words: str) -> None:
            if not answer.done():
                # Whoever gives streams knows names.
                answer.set_result(fr.Answer(code, words, named=str(item.name, "ascii")))

        def lost() -> None:
            if not answer.done():
                answer.set_exception(_Broken(timed_out=self._timed_out))

        item.done, item.lost = done, lost
        if self.closing:
            raise _Broken(timed_out=False)
        self._used = self.loop.time()
        self.sender.submit(item)
        self.schedule()
        try:
            return await answer
        except asyncio.CancelledError:
            self.sender.withdraw(item)
            raise

    def watch(self) -> None:
        now = self.loop.time()
        if not self.sender.idle:
            self._used = now
            if now - self.heard > ANSWER_S:
                self._timed_out = True
                self.end()
                return
            self._overdue(now)
        elif self.closing or now - self._used > KEEP_S:
            self.end()
            return
        if self.met and now - self.heard > PING_S:
            self.say(st.pack(st.PING))

    def _overdue(self, now: float) -> None:
        """Give up what the partner has had for too long, though it lives."""
        for item in self.sender.waiting():
            if not item.since or item.had != item.mark:
                item.since, item.mark = now, item.had
            elif now - item.since > ANSWER_S + min(len(item.payload), RESEND) / SLOWEST_BYTES_PER_S:
                timed_out, self._timed_out = self._timed_out, True
                item.lost()
                self._timed_out = timed_out
                self.sender.withdraw(item)

    def ended(self, failure: GatewayError | None) -> None:
        del failure
        self.closing = True
        if not self.given.done():
            self.given.set_exception(_NotOffered(answered=False))
            self.given.exception()  # whoever asked may be gone
        for item in self.sender.left():
            item.lost()


class StreamPartner(Speaking):
    """What is spoken with one partner: a stream where it gives one, else `other`, the standard's way to it.

    Small messages and large ones have a stream each, so that a slow link does not make the small ones wait behind
    megabytes; a flow that has messages under way stays on the stream where they are.
    """

    def __init__(self, way: Way, other: Speaking) -> None:
        super().__init__(way)
        self._other = other
        self._open: dict[bool, _Asked] = {}
        self._opening: dict[bool, asyncio.Task[_Asked | None]] = {}
        self._busy: dict[Headers, tuple[bool, int]] = {}
        self._asked = self._offered = False
        self._not_before = 0.0

    async def retire(self) -> None:
        await self._other.retire()
        await super().retire()

    async def close(self) -> None:
        for task in list(self._opening.values()):
            task.cancel()
        for stream in list(self._open.values()):
            stream.end()
        await self._other.close()

    async def _deliver(self, outgoing: fr.Outgoing) -> fr.Answer:
        headers = _flow(outgoing)
        size = len(outgoing.frame.payload)
        bulk, _ = self._busy.get(headers, (size > BULK, 0))
        stream = await self._stream(bulk=bulk)
        if stream is None:
            return await self._other.deliver(outgoing)
        item = Item(
            headers,
            outgoing.frame.payload,
            _nobody,
            name=outgoing.message.encode(),
            transfer=_transfer(outgoing) if size > st.LARGE else b"",
        )
        # Looked up anew: others of the flow may have come in while a stream was opened.
        bulk, under_way = self._busy.get(headers, (bulk, 0))
        self._busy[headers] = (bulk, under_way + 1)
        try:
            return await self._carry(stream, item, outgoing, bulk=bulk)
        finally:
            lane, under_way = self._busy[headers]
            if under_way > 1:
                self._busy[headers] = (lane, under_way - 1)
            else:
                del self._busy[headers]

    async def _carry(self, stream: "_Asked | None", item: Item, outgoing: fr.Outgoing, *, bulk: bool) -> fr.Answer:
        """Until there is an answer, on one stream after the other where nothing can be doubled by that."""
        loop = asyncio.get_running_loop()
        deadline, most = loop.time() + RESUME_S, 0
        while True:
            if stream is None:
                if item.whole:
                    raise self._unknown(timed_out=False)
                return await self._other.deliver(outgoing)
            if len(item.payload) > stream.other.total:
                return fr.Answer(Transport.TOO_LARGE, "")
            in_parts = len(item.payload) > stream.other.whole
            try:
                return await stream.carry(item)
            except _Broken as broken:
                if item.whole and (broken.timed_out or not in_parts):
                    raise self._unknown(timed_out=broken.timed_out) from None
            if item.had > most:
                deadline, most = loop.time() + RESUME_S, item.had
            item.resumed += item.begun
            stream = await self._again(item, bulk=bulk, deadline=deadline)

    async def _again(self, item: Item, *, bulk: bool, deadline: float) -> "_Asked | None":
        """A stream in place of one that broke; for a message that has begun it is tried until the deadline."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self._stream(bulk=bulk)
            except Unavailable:
                if not item.begun or loop.time() + PAUSE_S > deadline:
                    if item.whole:
                        raise self._unknown(timed_out=False) from None
                    raise
            await asyncio.sleep(PAUSE_S)

    def _unknown(self, *, timed_out: bool) -> Unavailable:
        kind = Kind.PEER_TIMEOUT if timed_out else Kind.PEER_UNREACHABLE
        return Unavailable(f"{self._way.route.node_id}: the stream broke before the answer", kind=kind)

    async def _stream(self, *, bulk: bool) -> "_Asked | None":
        """An open stream; None where the partner gives none. Raises as Way.open."""
        known = self._open.get(bulk)
        if known is not None and not known.closing:
            return known
        if asyncio.get_running_loop().time() < self._not_before:
            return None
        opening = self._opening.get(bulk)
        if opening is None:
            opening = self._opening[bulk] = asyncio.create_task(self._ask(bulk=bulk))
            opening.add_done_callback(lambda done: self._opened(done, bulk=bulk))
        if self._asked and not self._offered:
            return None  # it has said no before: the standard's way serves until we know better
        return await asyncio.shield(opening)

    async def _ask(self, *, bulk: bool) -> "_Asked | None":
        loop = asyncio.get_running_loop()
        address = urlsplit(self._way.route.address)
        path = address.path.rstrip("/") + CHANNEL["chan.transport"].path
        try:
            request = heads.upgrade(path, address.netloc, protocol=st.PROTOCOL)
        except CallerError:  # an address that another way may still understand
            self._not_before = math.inf
            return None
        try:
            _, stream = await self._way.open(lambda: _Asked(request))
        except GatewayError:
            if self._asked and not self._offered:
                self._not_before = loop.time() + BUSY_S
            raise
        try:
            async with asyncio.timeout(ASK_S):
                await stream.given
        except (_NotOffered, TimeoutError) as no:
            stream.end()
            if self._offered and not (isinstance(no, _NotOffered) and no.answered):
                raise Unavailable(f"{self._way.route.node_id}: no stream", kind=Kind.NO_ROUTE) from None
            self._not_before = loop.time() + (BUSY_S if self._offered else NOT_OFFERED_S)
            return None
        except BaseException:
            stream.end()
            raise
        else:
            self._offered = True
            self._open[bulk] = stream
            return stream
        finally:
            self._asked = True

    def _opened(self, done: "asyncio.Task[_Asked | None]", *, bulk: bool) -> None:
        del self._opening[bulk]
        if not done.cancelled():
            done.exception()  # whoever waits has been told; perhaps nobody waits


def _flow(outgoing: fr.Outgoing) -> Headers:
    """The headers that messages of a flow share: those of an invoke, with the topic and without the name."""
    named = fr.east_west(outgoing)
    named[h.PTP_TOPIC] = outgoing.frame.topic
    return tuple(named.items())


def _transfer(outgoing: fr.Outgoing) -> bytes:
    """The name under which the receiver keeps what it has of a message: the same in every attempt, where the message
    has a name of its own.
    """
    name = read_name(outgoing.message)
    if name is None:
        return os.urandom(st.TRANSFER)
    number = f"{name.epoch}-{name.sequence}"
    named = (outgoing.frame.envelope.session_id, outgoing.frame.topic, outgoing.source_node, number)
    return hashlib.sha256("\n".join(named).encode()).digest()[: st.TRANSFER]


def _nobody(_code: str, _words: str) -> None:
    """Before a stream carries the message."""
