"""Calls to a partner's `invoke` over gRPC, for partners whose transport module has a grpcs:// address.

TLS and its proof are those of every way out: a connection is opened by `dial.Way` first, and the library speaks through
it from a Unix socket that takes one connection and is gone. So a call that finds no partner has certainly sent nothing,
and a line that breaks is known to have broken.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import grpc
import grpc.aio

from gateway.data_plane.core import frame as fr
from gateway.data_plane.io import transports
from gateway.data_plane.io.dial import Way
from gateway.data_plane.io.http_client import ANSWER_BYTES
from gateway.data_plane.io.pump import Half
from gateway.data_plane.io.roads import CONNECT_S
from gateway.data_plane.io.speaking import ANSWER_S, SLOWEST_BYTES_PER_S, Speaking
from gateway.errors import Kind, Unavailable
from specs.codes import Transport

INVOKE: Final = "/org.ppc.ptp.PrivateTransferProtocol/invoke"
IDLE_MS: Final = 60_000
"""A line without calls is closed."""
LOCAL_S: Final = 5.0
USUAL_BYTES: Final = 4 << 20
"""What a gRPC server takes where nobody has told it more."""
LARGE: Final = 1 << 20

_SAYS: Final[Mapping[grpc.StatusCode, Transport]] = {
    grpc.StatusCode.UNIMPLEMENTED: Transport.VERSION,
    grpc.StatusCode.UNAUTHENTICATED: Transport.BAD_SIGNATURE,
    grpc.StatusCode.PERMISSION_DENIED: Transport.FORBIDDEN,
}
"""Statuses by which a partner's library, or something in front of it, refuses a call before its module sees it."""
_numbers = itertools.count()


class _Line:
    """One connection to the partner, and the library's channel that speaks through it."""

    def __init__(self, way: Way, socket: Path) -> None:
        self._way = way
        self._socket = socket
        self._outer = Half()
        self._inner: Half | None = None
        self._channel: Any = None
        self.call: Any = None

    @property
    def lost(self) -> bool:
        return self._outer.lost or (self._inner is not None and self._inner.lost)

    @property
    def sent(self) -> int:
        """Bytes that left for the partner."""
        return self._outer.sent

    async def open(self) -> None:
        """Raises as Way.open."""
        node = self._way.route.node_id
        transport, _ = await self._way.open(lambda: self._outer)
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            transports.abort(transport)
            raise Unavailable(f"{node}: speaks no HTTP/2 there", kind=Kind.NO_ROUTE)
        inner: asyncio.Future[Half] = asyncio.get_running_loop().create_future()

        def begun(half: Half) -> None:
            if inner.done():
                half.close()
            else:
                inner.set_result(half)

        try:
            listening = await asyncio.get_running_loop().create_unix_server(
                lambda: Half(begun=begun), str(self._socket), backlog=1
            )
        except OSError as e:  # our own side: no file left, perhaps
            await self.close()
            raise Unavailable(f"{node}: no socket for gRPC", kind=Kind.NO_ROUTE) from e
        try:
            self._channel = grpc.aio.insecure_channel(
                f"unix:{self._socket}",
                options=[
                    ("grpc.default_authority", urlsplit(self._way.route.address).netloc),
                    ("grpc.max_receive_message_length", ANSWER_BYTES),
                    ("grpc.max_send_message_length", -1),
                    ("grpc.client_idle_timeout_ms", IDLE_MS),
                    ("grpc.use_local_subchannel_pool", 1),
                    ("grpc.enable_retries", 0),
                ],
            )
            self._channel.get_state(try_to_connect=True)
            async with asyncio.timeout(LOCAL_S):
                self._inner = await inner
            self._outer.join(self._inner)
        except TimeoutError as e:
            await self.close()
            raise Unavailable(f"{node}: gRPC did not start", kind=Kind.NO_ROUTE) from e
        except BaseException:
            await self.close()
            raise
        finally:
            listening.close()
            self._socket.unlink(missing_ok=True)
        self.call = self._channel.unary_unary(INVOKE)

    async def close(self) -> None:
        self._outer.close()
        if self._channel is not None:
            with contextlib.suppress(Exception):
                await self._channel.close()


class GrpcPartner(Speaking):
    """What is spoken with one partner: gRPC. run_dir: holds the sockets between us and the library."""

    def __init__(self, way: Way, *, run_dir: Path) -> None:
        super().__init__(way)
        self._run_dir = run_dir
        self._uri = f"grpcs://{urlsplit(way.route.address).netloc}{fr.GRPC_PUSH}"
        self._line: _Line | None = None
        self._opening: asyncio.Task[_Line] | None = None

    async def _deliver(self, outgoing: fr.Outgoing) -> fr.Answer:
        call = fr.invoke(outgoing, uri=self._uri, protobuf_only=True)
        return await self._invoke(await self._open(), call)

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    async def _open(self) -> _Line:
        """The line; whoever needs a new one waits for the same attempt, and shares its failure."""
        if self._line is not None and not self._line.lost:
            return self._line
        if self._opening is None:
            self._opening = asyncio.create_task(self._begin())
            self._opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            _leave()
            raise Unavailable(f"{self._way.route.node_id}: closed", kind=Kind.NO_ROUTE) from None

    async def _begin(self) -> _Line:
        lost, self._line = self._line, None
        if lost is not None:
            await lost.close()
        line = _Line(self._way, self._run_dir / f"grpc-out-{next(_numbers)}.sock")
        await line.open()
        self._line = line
        return line

    def _opened(self, opening: "asyncio.Task[_Line]") -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # told to those who wait, if any still do

    async def _invoke(self, line: _Line, call: fr.Invoke) -> fr.Answer:
        size, before = call.size, line.sent
        body = b"".join(call.body) if size <= LARGE else await asyncio.to_thread(b"".join, call.body)
        metadata = tuple((name, value) for name, value in call.headers.items() if name != "content-type")
        patience = ANSWER_S + CONNECT_S + size / SLOWEST_BYTES_PER_S
        try:
            answer = cast("bytes", await line.call(body, metadata=metadata, timeout=patience))
        except grpc.aio.AioRpcError as e:
            said = e.code()
            if said in _SAYS:
                return fr.Answer(_SAYS[said], "")
            if said is grpc.StatusCode.RESOURCE_EXHAUSTED and size >= USUAL_BYTES:
                return fr.Answer(Transport.TOO_LARGE, "")
            raise self._failure(said, nothing_left=line.lost and line.sent == before) from e
        except asyncio.CancelledError:
            # The library cancels its calls when the channel is closed under them.
            _leave()
            raise self._failure(grpc.StatusCode.UNAVAILABLE, nothing_left=False) from None
        return fr.read_answer(fr.PROTO_CONTENT, answer)

    def _failure(self, said: grpc.StatusCode, *, nothing_left: bool) -> Unavailable:
        node = self._way.route.node_id
        if said is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unavailable(f"{node}: no answer in time", kind=Kind.PEER_TIMEOUT)
        if nothing_left:
            return Unavailable(f"{node}: the connection had ended", kind=Kind.NO_ROUTE)
        return Unavailable(f"{node}: gRPC {said.name}", kind=Kind.PEER_UNREACHABLE)


def _leave() -> None:
    """Raises CancelledError where it is our own caller who has left."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
