"""The gRPC server behind a listener (grpc.aio): methods of part 4 on raw bytes, each answered by the listener's door.

Metadata are the headers, a message is the body, and what HTTP would answer is the reply's bytes; codes stand in them,
so the status is OK wherever a door spoke. TLS, proof and the bounds on a connection are done before it (io.grpc_entry);
who called is asked by the connection's name. A call is judged by its metadata before its message is read.
"""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from gateway.data_plane.core import frame as fr
from gateway.data_plane.core import wire
from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.wire import Buffer, Pieces
from gateway.data_plane.io import door
from gateway.data_plane.io.body import SLOWEST_BYTES_PER_S, STALL_S, too_large
from gateway.data_plane.io.grpc_entry import Caller
from gateway.errors import Kind, ProtocolViolation
from gateway.model import Limits
from specs import headers as h

STREAMS: Final = 1024
"""Calls at a time on one connection; a container may wait on many topics."""
CALLS: Final = 8192
"""Calls at a time in all."""
WINDOW: Final = 1 << 20
OVER: Final = 1 << 20
"""A message too long by so much is answered with a code; gRPC itself cuts off a longer one."""
LARGE: Final = 1 << 20
PACKED: Final = 16 << 20
"""Bytes that a compressed message may have once unpacked. gRPC would unpack up to the bound of any message, uncounted
and for any number of callers; so messages are unpacked here.
"""
_GZIP: Final = b"\x1f\x8b"
"""How gzip begins. No protobuf message begins so: wire type 7."""
_ONLY_GZIP: Final = 1 << 0 | 1 << 2
"""gRPC's bits of identity and gzip."""
_MOST_PER_BYTE: Final = 1032
"""What a byte of gzip may become."""
IDLE_MS: Final = 300_000
PING_MS: Final = 60_000

Who = Callable[[str], Caller | None]
_SERVICES: Final = {
    "PrivateTransferTransport": tuple(fr.OPERATIONS),
    "PrivateTransferProtocol": (door.INVOKE, door.TRANSPORT),
}
_PACKAGES: Final = ("org.ppc.ptp", "org.ppc.grpc_ptp")
"""The standard's, and Kuscia's name for the same."""


class GrpcServer:
    """Serves a Unix socket from `start` to `stop`. who: the caller on a connection of this name."""

    def __init__(self, *, doors: door.Door, who: Who, socket: Path, limits: Limits, budget: Budget) -> None:
        self._door = doors
        self._who = who
        self._budget = budget
        self._most = min(limits.channel_body_bytes, limits.channel_grpc_bytes)
        self._server = grpc.aio.server(
            handlers=[_Methods({name: self._method(name) for name in (*fr.OPERATIONS, door.INVOKE, door.TRANSPORT)})],
            options=[
                ("grpc.max_receive_message_length", self._most + OVER),
                ("grpc.max_send_message_length", -1),
                ("grpc.per_message_decompression", 0),
                ("grpc.compression_enabled_algorithms_bitset", _ONLY_GZIP),
                ("grpc.max_metadata_size", limits.header_bytes),
                ("grpc.absolute_max_metadata_size", limits.header_bytes),
                ("grpc.max_concurrent_streams", STREAMS),
                ("grpc.http2.lookahead_bytes", WINDOW),
                ("grpc.max_connection_idle_ms", IDLE_MS),
                ("grpc.keepalive_time_ms", PING_MS),
                ("grpc.http2.min_ping_interval_without_data_ms", PING_MS // 6),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=CALLS,
        )
        self._server.add_insecure_port(f"unix:{socket}")

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Let calls under way end for so long."""
        await self._server.stop(grace_s)

    def _method(self, name: str) -> Any:
        # Of the two kinds only those that read a stream are asked before the message is there.
        if name == door.TRANSPORT:
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.stream_unary_rpc_method_handler(partial(self._call, name))

    async def _call(self, name: str, _messages: Any, context: Any) -> bytes:
        after: list[Callable[[bool], None]] = []
        caller = await self._caller(context)
        call = door.Call(
            method="POST",
            codec=fr.Codec.PROTO,
            name=name,
            headers=_headers(context),
            prove=caller.prove,
            body=lambda limit: self._body(context, limit),
            after=after,
        )
        pieces = (await self._door.chan(call)).body
        # The library's copy; what is read itself counts until it has left.
        size = wire.size(pieces)
        self._budget.lend(size)

        def ended(written: bool) -> None:
            self._budget.repay(size)
            door.tell(after, written=written)

        try:
            answer = await _joined(pieces)
        except BaseException:
            ended(False)
            raise
        # Whether the message has left is known when the call has ended.
        context.add_done_callback(lambda call: ended(not call.cancelled()))
        caller.owe(len(answer))
        return answer

    async def _stream(self, _messages: Any, context: Any) -> None:
        """Each message is an invoke of its own, answered in its turn (T-039)."""
        caller, headers = await self._caller(context), list(_headers(context))
        while (message := await context.read()) is not grpc.aio.EOF:
            if message.startswith(_GZIP):
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "compressed messages are taken in unary calls only")
            call = door.Call(
                method="POST",
                codec=fr.Codec.PROTO,
                name=door.INVOKE,
                headers=_own(headers, message),
                prove=caller.prove,
                body=partial(self._lent, message),
            )
            await context.write(await _joined((await self._door.chan(call)).body))

    async def _caller(self, context: Any) -> Caller:
        caller = self._who(context.peer())
        if caller is None:
            # Not led here by our own listener: another process of this user, perhaps.
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "not this way")
            raise ConnectionError
        return caller

    @contextlib.asynccontextmanager
    async def _body(self, context: Any, limit: int) -> AsyncIterator[Buffer]:
        """As io.body.body_of."""
        try:
            async with asyncio.timeout(STALL_S + min(limit, self._most) / SLOWEST_BYTES_PER_S):
                message = await context.read()
        except TimeoutError as e:
            raise ProtocolViolation("message: too slow") from e
        if message is grpc.aio.EOF:
            raise ProtocolViolation("message: missing")
        async with self._lent(message, limit) as lent:
            yield lent

    @contextlib.asynccontextmanager
    async def _lent(self, message: bytes, limit: int) -> AsyncIterator[Buffer]:
        limit = min(limit, self._most)
        if len(message) > limit:
            raise too_large(limit)
        packed = message.startswith(_GZIP)
        bound = min(limit, PACKED, len(message) * _MOST_PER_BYTE)
        room = len(message) + (bound if packed else 0)
        self._budget.borrow(room)
        try:
            yield await asyncio.to_thread(_unpacked, message, bound) if packed else message
        finally:
            self._budget.repay(room)


def _unpacked(message: bytes, bound: int) -> bytearray:
    """Raises ProtocolViolation(TOO_LARGE) where it would be more than `bound` bytes, (CODEC) where it is no gzip."""
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    whole, left = bytearray(), message
    try:
        while left and not unpacking.eof:
            whole += unpacking.decompress(left, LARGE)
            left = unpacking.unconsumed_tail
            if len(whole) > bound:
                raise too_large(bound)
    except zlib.error as e:
        raise ProtocolViolation("message: not gzip", kind=Kind.CODEC) from e
    if not unpacking.eof or unpacking.unused_data:
        raise ProtocolViolation("message: not gzip", kind=Kind.CODEC)
    return whole


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self._handlers = {
            f"/{package}.{service}/{name}": handlers[name]
            for package in _PACKAGES
            for service, names in _SERVICES.items()
            for name in names
        }

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


async def _joined(body: Pieces) -> bytes:
    """The library wants a message in one piece; a large one is joined beside the loop."""
    if wire.size(body) <= LARGE:
        return b"".join(body)
    return await asyncio.to_thread(b"".join, body)


def _headers(context: Any) -> Iterator[tuple[str, str]]:
    """Metadata as headers. Binary ones (-bin) mean nothing here; the body's type is not the caller's to choose."""
    yield "content-type", fr.PROTO_CONTENT
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str) and name != "content-type":
            yield name, value


def _own(headers: list[tuple[str, str]], message: bytes) -> Iterator[tuple[str, str]]:
    """The headers of one message of a stream: the stream's, and over them what Inbound.metadata says."""
    own: Mapping[str, str] = {}
    if (h.PTP_VERSION, h.PTP_VERSION_1) not in headers:
        own = fr.metadata_of(message)
        yield from own.items()
    yield from (each for each in headers if each[0] not in own)
