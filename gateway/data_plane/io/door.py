"""chan/* of the two listeners, whatever brought the call: who may ask, what is done, and every error as a code.

Nothing of a call is believed before `edge` or the session's rule says who asks; bodies are read after that. Errors
become codes here, at one place per listener, and only here is an unknown exception caught.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from gateway.data_plane.channel import Channel
from gateway.data_plane.core import frame as fr
from gateway.data_plane.core import long_json
from gateway.data_plane.core.frame import Envelope, Operation
from gateway.data_plane.core.stream import PROTOCOL
from gateway.data_plane.core.wire import Buffer, Pieces
from gateway.data_plane.io.rooms import Rooms
from gateway.errors import CallerError, GatewayError, Kind, ProtocolViolation, Refused
from gateway.model import Limits, NodeId
from gateway.ports import Journal
from specs.codes import Transport
from specs.routes import CHANNEL

INVOKE: Final = CHANNEL["chan.invoke"].path.removeprefix(fr.CHANNEL_PREFIX)
TRANSPORT: Final = CHANNEL["chan.transport"].path.removeprefix(fr.CHANNEL_PREFIX)
SUCCESS: Final = "ok"
LONG_JSON: Final = 64 << 10
"""Bodies of more bytes are not parsed as a whole (docs/adr/0001); what asks for a message may not have more at all."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of chan/<name>.

    headers: as they came, names in any case. wait: the query's `timeout`. prove: the partner at the other end, raises
    Refused(UNAUTHENTICATED). body: reads at most so many bytes, and holds them in the budget inside its block.
    """

    method: str
    name: str
    headers: Iterable[tuple[str, str]] = field(repr=False)
    prove: Callable[[], NodeId] = field(repr=False)
    body: Callable[[int], AbstractAsyncContextManager[Buffer]] = field(repr=False)
    wait: str | None = None
    codec: fr.Codec | None = None
    """How it is answered, where what brought it leaves no choice."""
    after: list[Callable[[bool], None]] | None = field(default=None, repr=False)
    """Given by a front that can tell: what it then calls once the reply was written (True) or could not be (False)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Its answer, the body in pieces: of 128 MiB there should be no second copy."""

    status: int
    content_type: str
    body: Pieces = field(repr=False)


class Door:
    """What both listeners share."""

    def __init__(self, *, channel: Channel, rooms: Rooms, limits: Limits, journal: Journal) -> None:
        self._channel = channel
        self._rooms = rooms
        self._turn = asyncio.Lock()
        self._limits = limits
        self._journal = journal

    async def chan(self, call: Call) -> Reply:
        """Serve a call to its end. Raises ConnectionError and TimeoutError of the connection only."""
        codec = call.codec or fr.Codec.JSON
        envelope: Envelope | None = None
        try:
            headers = _single(call.headers)
            codec = call.codec or fr.answer_codec(headers, invoke=call.name == INVOKE)
            if call.method != "POST" and call.name != TRANSPORT:
                return Reply(405, *fr.encode_answer(codec, Transport.ILLEGAL, "POST expected"))
            envelope = fr.read_envelope(headers, self._limits)
            return Reply(200, *await self._serve(call, envelope, codec))
        except GatewayError as error:
            self._channel.refused(envelope, call.name[:32], error)
            return Reply(*fr.encode_error(codec, error))
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001  # the edge: nothing of it may reach the caller
            return Reply(*fr.encode_error(codec, internal(self._journal, error)))

    async def _serve(self, call: Call, envelope: Envelope, codec: fr.Codec) -> tuple[str, Pieces]:
        raise NotImplementedError

    def _bound(self, codec: fr.Codec) -> int:
        """Bytes that a body may have."""
        return self._limits.channel_json_bytes if codec is fr.Codec.JSON else self._limits.channel_body_bytes

    async def _read_long(self, envelope: Envelope, body: Buffer, *, inbound: bool) -> tuple[str, Buffer] | None:
        """Topic and payload of a push in JSON that is too long to be parsed as a whole; None for any other."""
        if envelope.content_type != fr.JSON_CONTENT or len(body) <= LONG_JSON:
            return None
        read = long_json.read_inbound if inbound else long_json.read_push
        return await self._in_turns(read(body, self._rooms.take))

    async def _in_turns(self, steps: long_json.Steps[T]) -> T:
        """Do the work one step in a turn of the loop, whoever else has such work."""
        while True:
            async with self._turn:
                try:
                    next(steps)
                except StopIteration as done:
                    result: T = done.value
                    return result
            await asyncio.sleep(0)


class EdgeDoor(Door):
    """Partners. Of chan/* only invoke here: reads and release are our own side's (T-054), streams `stream_server`'s."""

    async def _serve(self, call: Call, envelope: Envelope, codec: fr.Codec) -> tuple[str, Pieces]:
        if call.name == TRANSPORT:
            raise Refused(f"a stream begins with GET and Upgrade: {PROTOCOL}", kind=Kind.NOT_OFFERED)
        if call.name in fr.OPERATIONS:
            raise Refused(f"{call.name} is not offered to partners", kind=Kind.NOT_OFFERED)
        if call.name != INVOKE:
            raise Refused("no such channel operation", kind=Kind.NOT_FOUND)
        self._channel.admit_partner(envelope, call.prove())
        mode = fr.invoke_mode(envelope)
        async with call.body(self._bound(codec)) as body:
            parsed = None
            if mode is not fr.Mode.RAW:
                parsed = await self._read_long(envelope, body, inbound=mode is fr.Mode.ENCAPSULATION)
            await self._channel.accept(fr.decode_invoke(envelope, body, limits=self._limits, parsed=parsed))
        return fr.encode_answer(codec, Transport.OK, SUCCESS, named=envelope.message)


class PlatformDoor(Door):
    """Our own side: the four operations."""

    async def _serve(self, call: Call, envelope: Envelope, codec: fr.Codec) -> tuple[str, Pieces]:
        operation = fr.OPERATIONS.get(call.name)
        if operation is None:
            kind = Kind.NOT_OFFERED if call.name in {INVOKE, TRANSPORT} else Kind.NOT_FOUND
            raise Refused("no such channel operation here", kind=kind)
        self._channel.admit_container(envelope, operation)
        async with call.body(self._bound(codec) if operation is Operation.PUSH else LONG_JSON) as body:
            parsed = await self._read_long(envelope, body, inbound=False)
            frame = fr.decode(operation, envelope, body, limits=self._limits, query_timeout=call.wait, parsed=parsed)
            if operation is Operation.PUSH:
                await self._channel.push(frame, body)
                return fr.encode_answer(codec, Transport.OK, SUCCESS, named=envelope.message)
        if operation is Operation.RELEASE:
            self._channel.release(frame)
            return fr.encode_answer(codec, Transport.OK, SUCCESS)
        popped = await (self._channel.pop(frame) if operation is Operation.POP else self._channel.peek(frame))
        if popped is None:
            return fr.encode_answer(codec, Transport.OK, SUCCESS)
        try:
            payload, encoded = popped.payload, None
            if codec is fr.Codec.JSON and len(payload) > LONG_JSON:
                encoded = await self._in_turns(long_json.encode(payload))
            answer = fr.encode_answer(codec, Transport.OK, SUCCESS, payload, encoded=encoded, named=popped.named)
        except BaseException:
            popped.settle(False)
            raise
        if call.after is None:
            popped.settle(True)
        else:
            call.after.append(popped.settle)
        return answer


def tell(after: list[Callable[[bool], None]], *, written: bool) -> None:
    """Say, once, whether the reply of a call was written (`Call.after`)."""
    while after:
        after.pop()(written)


def internal(journal: Journal, error: Exception) -> GatewayError:
    """Record an exception that nobody expected, and what the caller is told in its place."""
    journal.note("edge.internal", error=type(error).__name__, where=_where(error))
    return CallerError("internal error")


def _single(headers: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Headers with lower-case names. A doubled x-ptp header means something else to every reader: refused."""
    found: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in found and lower.startswith("x-ptp-"):
            raise ProtocolViolation(f"{lower[:64]}: given twice")
        found[lower] = value
    return found


def _where(error: Exception) -> str:
    """File and line of the deepest frame, for the log: no values, unlike a traceback's text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
