"""The component's channel for code that runs in an asyncio loop: as `gateway.sdk.channel`, with many calls under way.

Over the gateway's Unix socket all calls share one line: messages that are sent in one turn of the loop leave in one
write. Without the socket each call is the plain channel's, in a thread.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Protocol, Self, TypeVar

from gateway.data_plane.core import stream as st
from gateway.data_plane.core.stream_send import Buffer, Item, Sender
from gateway.data_plane.io.rooms import Rooms
from gateway.data_plane.io.stream_line import FrameLine
from gateway.errors import GatewayError
from gateway.sdk.arrays import pieces_of, value_of
from gateway.sdk.channel import BUFFER_FULL, SUCCESS, TIMED_OUT, TRANSIENT, Channel, Line, said
from gateway.sdk.codec import Outbound
from gateway.sdk.environment import Address
from gateway.sdk.local import ASKS, KINDS, LIMITS, ROOM_BYTES
from gateway.sdk.once import Key, Once
from gateway.sdk.order import Order
from gateway.sdk.result import Code, ComponentError

_JOIN: Final = 64 << 10
THREADS: Final = 64
"""Calls at a time where there is no socket."""

T = TypeVar("T")


class _Turn(Protocol):
    """As Order.turn of one push."""

    def __call__(self, *, alone: bool, until: float) -> Awaitable[None]: ...


class _Lost(ConnectionError):
    """The line ended before the answer. begun: the call may have arrived."""

    def __init__(self, *, begun: bool) -> None:
        super().__init__("the line to the gateway broke")
        self.begun = begun


class _Line(FrameLine):
    """This end of the socket."""

    def __init__(self) -> None:
        super().__init__(takes=LIMITS, kinds=KINDS)
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self._sender = Sender(code_ok=SUCCESS)
        self._asked: dict[int, asyncio.Future[Outbound]] = {}
        self._flows: dict[tuple[tuple[str, str], ...], int] = {}
        self._asks: list[Buffer] = []
        self._rooms = Rooms(ROOM_BYTES)
        self._ref = 0

    def greeted(self, hello: st.Hello) -> None:
        # Numbers of flows: the sender's from below, those of reads from above.
        self._most = hello.flows // 2
        self._sender.begin(st.Hello(hello.window, hello.messages, self._most, hello.chunk, hello.whole, hello.total))
        self.ready.set_result(None)

    def more(self, most: int) -> Sequence[Buffer]:
        asks, self._asks = self._asks, []
        return [*asks, *self._sender.pieces(most)]

    def room(self, frame: st.Frame) -> memoryview | None:
        return self._rooms.take(frame.size)

    def frame(self, frame: st.Frame) -> None:
        if frame.kind == st.ACK:
            for ref in st.read_acks(frame):
                self._answer(ref, Outbound(SUCCESS, "", memoryview(b"")))
        elif frame.kind == st.NACK:
            self._answer(frame.ref, Outbound(frame.text.decode("latin-1"), "", memoryview(b"")))
        else:
            self._answer(frame.ref, Outbound(SUCCESS, "", memoryview(frame.body), st.name_of(frame)))
        self.schedule()

    def ended(self, failure: GatewayError | None) -> None:
        del failure
        if not self.ready.done():
            self.ready.set_exception(ConnectionRefusedError("no frames are spoken there"))
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(_Lost(begun=True))
        for item in self._sender.left():
            item.lost()

    async def push(self, said: Mapping[str, str], parts: Sequence[Buffer], name: str = "") -> str:
        """The code of the answer. Raises _Lost."""
        if self.over.is_set():
            raise _Lost(begun=False)
        answer: asyncio.Future[str] = self.loop.create_future()

        def done(code: str, _words: str) -> None:
            if not answer.done():
                answer.set_result(code)

        def lost() -> None:
            if not answer.done():
                answer.set_exception(_Lost(begun=item.begun))

        *before, payload = parts
        item = Item(tuple(said.items()), payload, done, lost, name=name.encode(), before=tuple(before))
        self._sender.submit(item)
        self.schedule()
        try:
            return await answer
        except asyncio.CancelledError:
            self._sender.withdraw(item)
            raise

    async def ask(self, kind: int, said: Mapping[str, str], wait_ms: int, ack: str = "") -> Outbound:
        """The answer, its words left out. Raises _Lost."""
        if self.over.is_set():
            raise _Lost(begun=False)
        self._ref = (self._ref + 1) & 0x7FFFFFFF
        ref = self._ref | 0x80000000
        self._asks.append(self._flow(said))
        flow = self._flows[tuple(said.items())]
        self._asks.append(st.pack(kind, text=ack.encode(), flow=flow, ref=ref, value=wait_ms))
        self.schedule()
        answer: asyncio.Future[Outbound] = self.loop.create_future()
        self._asked[ref] = answer
        return await answer

    def _answer(self, ref: int, said: Outbound) -> None:
        if ref & 0x80000000:
            answer = self._asked.pop(ref, None)
            if answer is not None and not answer.done():
                answer.set_result(said)
        else:
            self._sender.answered(ref, said.code)

    def _flow(self, said: Mapping[str, str]) -> bytes:
        key = tuple(said.items())
        if key in self._flows:
            return b""
        if len(self._flows) >= self._most:
            self._flows.clear()
        number = self._flows[key] = self._most + len(self._flows)
        return st.pack_flow(number, said)


class AsyncChannel:
    """Calls of one task on its transport module, from one event loop.

    once: as Channel does: pushes are named, pops acknowledged, and of either one of a topic is under way at a time.
    Otherwise any number is (over plain HTTP one push of a topic at a time), and what a break leaves uncertain is the
    caller's to number.
    """

    def __init__(self, line: Line, *, once: bool = False) -> None:
        self._line = line
        self._names = Once() if once else None
        self._turns: dict[tuple[str, Key], asyncio.Lock] = {}
        self._orders: dict[Key, Order] = {}
        self._plain = Channel(line)
        self._open: _Line | None = None
        self._opening = asyncio.Lock()
        self._socket = line.local
        self._threads: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def push(self, topic: str, *parts: Buffer, to: Address, deadline: float, repeatable: bool = False) -> None:
        """As Channel.push; deadline by the loop's clock. Messages of a topic keep the order in which they were pushed,
        also when nobody waits for one before the next, on whatever way they go.

        One exception without `once`: a message that is refused, for a buffer is full, is pushed again before all that
        have not been sent by then, but those that were sent behind it may have been taken. Who must not have that and
        fills buffers uses `once`, waits for each, or numbers its messages.
        """
        views = [memoryview(part).cast("B") for part in parts] or [memoryview(b"")]
        push = partial(self._push, topic, views, to=to, deadline=deadline, repeatable=repeatable)
        key = (topic, to.node_id)
        if self._names is None:
            order = self._orders.get(key)
            if order is None:
                order = self._orders[key] = Order()
            number = order.begin()
            try:
                await push(turn=partial(order.turn, number))
            except TimeoutError as e:
                raise ComponentError(Code.TRANSPORT, f"push to node {to.node_id} failed: others wait") from e
            finally:
                order.end(number)
                if order.idle:
                    self._orders.pop(key, None)
            return
        async with self._turn("push", key):
            lane = self._names.lane(key)
            number, taken = lane.begin(), False
            try:
                await push(name=str(lane.name(number)), turn=_at_once)
                taken = True
            finally:
                lane.end(number, taken=taken)

    async def _push(
        self,
        topic: str,
        views: Sequence[memoryview],
        *,
        to: Address,
        deadline: float,
        repeatable: bool,
        name: str = "",
        turn: "_Turn",
    ) -> None:
        loop = asyncio.get_running_loop()
        joined: list[Buffer] = [b"".join(views)] if sum(map(len, views)) <= _JOIN else [*views]
        pause = 0.05
        while True:
            line = await self._connected()
            by_itself = line is None or sum(map(len, views)) > line.other.whole
            await turn(alone=by_itself, until=deadline)
            if line is None or by_itself:
                left = deadline - loop.time() + self._plain.now()
                await self._in_a_thread(self._plain.push, topic, *views, to=to, deadline=left, repeatable=repeatable)
                return
            try:
                async with asyncio.timeout_at(max(deadline, loop.time() + 1)):
                    code = await line.push(said(self._line, to, topic), joined, name)
                again, problem = code == BUFFER_FULL or (repeatable and code in TRANSIENT), f"code {code or 'missing'}"
            except _Lost as lost:
                code, again, problem = "", repeatable or not lost.begun, "the line broke"
            except TimeoutError:
                code, again, problem = "", False, "no answer in time"
            if code == SUCCESS:
                return
            if not again or loop.time() + pause >= deadline:
                raise ComponentError(Code.TRANSPORT, f"push to node {to.node_id} failed: {problem}")
            await turn(alone=True, until=deadline)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def pop(self, topic: str, *, source: Address, wait_ms: int, deadline: float) -> memoryview | None:
        """As Channel.pop. A caller that is cancelled loses the message that comes for it; with `once`, where messages
        are kept on disk, the next pop gets it.
        """
        loop = asyncio.get_running_loop()
        pause = 0.05
        while True:
            line = await self._connected()
            if line is None:
                left = deadline - loop.time() + self._plain.now()
                return await self._in_a_thread(self._plain.pop, topic, source=source, wait_ms=wait_ms, deadline=left)
            try:
                async with asyncio.timeout(wait_ms / 1000 + 15):
                    return _message("pop", await self._ask_pop(line, topic, source, wait_ms))
            except (_Lost, TimeoutError) as e:
                if isinstance(e, TimeoutError) and self._names is not None:
                    line.end()
                if loop.time() + pause >= deadline:
                    raise ComponentError(Code.TRANSPORT, f"transport module not reached: {type(e).__name__}") from e
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _ask_pop(self, line: _Line, topic: str, source: Address, wait_ms: int) -> Outbound:
        key, headers = (topic, source.node_id), said(self._line, source, topic)
        if self._names is None or not self._names.ack(key):
            return await line.ask(st.POP, headers, wait_ms)
        turn = self._turn("pop", key)
        await turn.acquire()
        asking = asyncio.create_task(line.ask(st.POP, headers, wait_ms, self._names.ack(key)))
        try:
            answer = await asyncio.shield(asking)
        except asyncio.CancelledError:
            # The gateway answers all the same. Until then nobody else may ask; what comes is given out again.
            asking.add_done_callback(lambda done: _let_go(turn, done))
            raise
        except BaseException:
            turn.release()
            raise
        self._names.answered(key, answer.named, message=bool(answer.payload))
        turn.release()
        return answer

    def _turn(self, operation: str, key: Key) -> asyncio.Lock:
        """One call of a topic at a time."""
        return self._turns.setdefault((operation, key), asyncio.Lock())

    async def peek(self, topic: str, *, source: Address) -> memoryview | None:
        """As Channel.peek."""
        line = await self._connected()
        if line is None:
            return await self._in_a_thread(self._plain.peek, topic, source=source)
        return _message("peek", await self._once(line, "peek", topic, source))

    async def release(self, topic: str, *, target: Address) -> None:
        """As Channel.release."""
        line = await self._connected()
        if line is None:
            await self._in_a_thread(self._plain.release, topic, target=target)
        else:
            _message("release", await self._once(line, "release", topic, target))

    async def send(self, topic: str, value: Any, *, to: Address, deadline: float, repeatable: bool = False) -> None:
        """Push a buffer, a NumPy array or an Arrow table (gateway.sdk.arrays)."""
        await self.push(topic, *pieces_of(value), to=to, deadline=deadline, repeatable=repeatable)

    async def recv(self, topic: str, *, source: Address, wait_ms: int, deadline: float) -> Any:
        """Pop an array or table that was sent with `send`; None when there is none in time."""
        message = await self.pop(topic, source=source, wait_ms=wait_ms, deadline=deadline)
        return None if message is None else value_of(message)

    async def close(self) -> None:
        """Close the line."""
        self._plain.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._open is not None:
            self._open.end()
            await self._open.over.wait()

    async def _in_a_thread(self, call: Callable[..., T], *args: Any, **more: Any) -> T:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="channel")
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args, **more))

    async def _once(self, line: _Line, operation: str, topic: str, address: Address) -> Outbound:
        try:
            async with asyncio.timeout(20):
                return await line.ask(ASKS[operation], said(self._line, address, topic), 0)
        except (_Lost, TimeoutError) as e:
            raise ComponentError(Code.TRANSPORT, f"transport module not reached: {type(e).__name__}") from e

    async def _connected(self) -> _Line | None:
        """The line; None where the gateway has no socket. Raises ComponentError(TRANSPORT) where it had one."""
        if self._open is not None and not self._open.over.is_set():
            return self._open
        async with self._opening:
            if self._open is not None and not self._open.over.is_set():
                return self._open
            if not self._socket:
                return None
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(self._line.connect_seconds):
                    _, line = await loop.create_unix_connection(_Line, self._socket)
                    await line.ready
            except OSError as e:  # TimeoutError is one
                if self._open is None:
                    self._socket = ""
                    return None
                raise ComponentError(Code.TRANSPORT, "transport module not reached") from e
            self._open = line
            return line


async def _at_once(*, alone: bool, until: float) -> None:
    """The turn of a push that has its topic for itself."""


def _let_go(turn: asyncio.Lock, ended: asyncio.Task[Outbound]) -> None:
    turn.release()
    if not ended.cancelled():
        ended.exception()  # nobody waits for it


def _message(operation: str, answer: Outbound) -> memoryview | None:
    if answer.code == TIMED_OUT:
        return None
    if answer.code != SUCCESS:
        raise ComponentError(Code.TRANSPORT, f"{operation} refused with code {answer.code or 'missing'}")
    return answer.payload or None
