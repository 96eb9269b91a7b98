"""Calls to a partner's `chan/invoke` over HTTP/1.1: kept connections, opened by a `dial.Way`.

One attempt per call; whether to try again is `channel`'s decision, so every failure says whether the message can have
arrived. Answers are read by `core.http1`, whatever form of HTTP/1 a stranger gives them.
"""

import asyncio
from typing import Final, cast

from yarl import URL

from gateway.data_plane.core import frame as fr
from gateway.data_plane.core import http1, wire
from gateway.data_plane.io import transports
from gateway.data_plane.io.dial import Way
from gateway.data_plane.io.roads import CONNECT_S
from gateway.data_plane.io.speaking import ANSWER_S, SLOWEST_BYTES_PER_S, Speaking
from gateway.errors import CallerError, Kind, ProtocolViolation, Unavailable
from specs.routes import CHANNEL

CONNECTIONS: Final = 64
KEEP_S: Final = 15.0
"""Idle connections are closed before a usual server (75 s) does it: a request on a dying one may be lost."""
ANSWER_BYTES: Final = 1 << 20


class _Line(asyncio.Protocol):
    """One connection, one call at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader: http1.AnswerReader | None = None
        self._answer: asyncio.Future[http1.Answer] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._full = False
        self.usable = True
        """Whether another call may be made on it."""
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            whole = None if error is not None or self._reader is None else self._reader.end()
            if whole is not None:
                self._answer.set_result(whole)
            else:
                self._answer.set_exception(ConnectionResetError("the connection broke"))
        self._wake()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self._reader is None or self._answer is None or self._answer.done():
            self.abort()  # nobody asked
            return
        try:
            answer = self._reader.feed(data)
        except ProtocolViolation as e:
            self._answer.set_exception(e)
            self.abort()
            return
        if answer is not None:
            self.usable &= answer.keep
            self._answer.set_result(answer)
            self._wake()

    async def ask(self, head: bytes, body: wire.Pieces, *, size: int) -> http1.Answer:
        """Send a request and wait for its answer. Raises ConnectionError, TimeoutError, ProtocolViolation."""
        transport = self._transport
        if transport is None or not self.usable:
            raise ConnectionResetError("the connection broke")
        self._reader = http1.AnswerReader(ANSWER_BYTES)
        answer: asyncio.Future[http1.Answer] = self._loop.create_future()
        self._answer = answer
        try:
            if size <= wire.JOIN_BELOW:
                transport.write(b"".join((head, *body)))
            else:
                transport.write(head)
                await self._send(transport, body)
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except BaseException:
            self.abort()
            raise
        finally:
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also where something else ended the call
            self._reader = self._answer = None

    async def _send(self, transport: asyncio.Transport, body: wire.Pieces) -> None:
        """The body in slices, as fast as they are taken; an answer that comes before its end ends it."""
        for piece in wire.slices(body):
            if self._full:
                self._drained = self._loop.create_future()
                await self._drained
            if self._answer is None or self._answer.done():
                self.usable = False
                return
            transport.write(piece)

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def abort(self) -> None:
        self.usable = False
        if self._transport is not None:
            transports.abort(self._transport)

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.close()


class HttpPartner(Speaking):
    """What is spoken with one partner: HTTP/1.1."""

    def __init__(self, way: Way) -> None:
        super().__init__(way)
        url = URL(way.route.address.rstrip("/") + CHANNEL["chan.invoke"].path)
        self._start = (
            f"POST {url.raw_path_qs} HTTP/1.1\r\nhost: {url.host_port_subcomponent}\r\n"
            "accept: */*\r\naccept-encoding: identity\r\n"
        )
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._lines: set[_Line] = set()
        self._idle: list[_Line] = []
        self._expiry: asyncio.TimerHandle | None = None

    async def _deliver(self, outgoing: fr.Outgoing) -> fr.Answer:
        node = self._way.route.node_id
        begun = False
        try:
            call = fr.invoke(outgoing)
            size = call.size
            head = self._head(call, size)
            async with asyncio.timeout(ANSWER_S + CONNECT_S + size / SLOWEST_BYTES_PER_S), self._places:
                line = await self._take()
                begun = True
                try:
                    answer = await line.ask(head, call.body, size=size)
                finally:
                    self._give(line)
            return self._read(answer)
        except TimeoutError as e:
            kind = Kind.PEER_TIMEOUT if begun else Kind.NO_ROUTE
            raise Unavailable(f"{node}: no answer in time", kind=kind) from e
        except ConnectionError as e:
            raise Unavailable(f"{node}: {type(e).__name__}", kind=Kind.PEER_UNREACHABLE) from e

    async def close(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._idle.clear()
        for line in list(self._lines):
            line.abort()
        self._lines.clear()

    def _head(self, call: fr.Invoke, size: int) -> bytes:
        lines = [self._start, f"content-length: {size}\r\n"]
        for name, value in call.headers.items():
            if not value.isprintable():
                raise CallerError(f"{name}: cannot be sent")
            lines.append(f"{name}: {value}\r\n")
        lines.append("\r\n")
        return "".join(lines).encode()

    async def _take(self) -> _Line:
        """A kept connection that is still there, or a new one: of the call nothing has been sent before."""
        loop = asyncio.get_running_loop()
        while self._idle:
            line = self._idle.pop()
            if line.usable and loop.time() - line.idle_since < KEEP_S:
                return line
            self._drop(line)
        line = (await self._way.open(_Line))[1]
        if not line.usable:
            raise Unavailable(f"{self._way.route.node_id}: closed at once", kind=Kind.NO_ROUTE)
        self._lines.add(line)
        return line

    def _give(self, line: _Line) -> None:
        if not line.usable or self._retired or line not in self._lines:
            self._drop(line)
            return
        loop = asyncio.get_running_loop()
        line.idle_since = loop.time()
        self._idle.append(line)
        if self._expiry is None:
            self._expiry = loop.call_later(KEEP_S, self._expire)

    def _expire(self) -> None:
        """Close what nobody has used for KEEP_S."""
        self._expiry = None
        loop = asyncio.get_running_loop()
        before = loop.time() - KEEP_S
        # The last used is the first taken, so those that idle longest stand in front.
        while self._idle and (not self._idle[0].usable or self._idle[0].idle_since <= before):
            self._drop(self._idle.pop(0))
        if self._idle:
            self._expiry = loop.call_at(self._idle[0].idle_since + KEEP_S, self._expire)

    def _drop(self, line: _Line) -> None:
        self._lines.discard(line)
        line.close()

    def _read(self, answer: http1.Answer) -> fr.Answer:
        if answer.status in {502, 503, 504} and not fr.CODE_IN.search(answer.body):
            # Something in front of the partner speaks; whether it has handed the message on is not known.
            raise Unavailable(f"{self._way.route.node_id}: HTTP {answer.status}", kind=Kind.PEER_UNREACHABLE)
        return fr.read_answer(answer.content_type, answer.body)
