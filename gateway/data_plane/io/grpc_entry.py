"""Where callers of gRPC come in: an HTTP/2 connection of a listener, led to the gRPC server behind it.

The listener has accepted the connection and, at the edge, done TLS; whoever shows no partner's certificate there is
told so and gets no further. The gRPC server listens on a Unix socket of its own in `run_dir`; each connection is led
there by a pump under a name that only it has, by which the server asks who called. The server, and with it the library,
is started by the first caller, so a node that nobody calls by gRPC does without.
"""

import asyncio
import importlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from gateway.data_plane.core import http2
from gateway.data_plane.core.budget import Budget
from gateway.data_plane.io.door import Door, internal
from gateway.data_plane.io.pump import STALL_S, Half, Room
from gateway.data_plane.io.standing import Standing
from gateway.errors import WIRE, Kind, Refused, Unavailable
from gateway.model import Limits, NodeId
from gateway.ports import Clock, Journal

CONNECTIONS: Final = 1024
"""Per listener."""


class _Server(Protocol):
    async def start(self) -> None: ...

    async def stop(self, grace_s: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who called. prove: the partner, raises Refused(UNAUTHENTICATED). owe: so many bytes of an answer were made."""

    prove: Callable[[], NodeId]
    owe: Callable[[int], None]


class _Debt:
    """Answers that were made for a caller and have not left: one that takes none of them for STALL_S is given up."""

    def __init__(self, outer: Half) -> None:
        self._outer = outer
        self._left = 0
        self._moved = 0.0
        self._watching: asyncio.TimerHandle | None = None

    def owe(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        if not self._left:
            self._moved = loop.time()
        self._left += size
        if self._watching is None:
            self._watching = loop.call_later(STALL_S, self._look)

    def paid(self, size: int) -> None:
        """So many bytes have left for the caller, whatever else was among them."""
        self._left = max(0, self._left - size)
        self._moved = asyncio.get_running_loop().time()

    def _look(self) -> None:
        self._watching = None
        if not self._left or self._outer.lost:
            return
        loop = asyncio.get_running_loop()
        late = loop.time() - self._moved
        if late >= STALL_S:
            self._outer.abort()
        else:
            self._watching = loop.call_later(STALL_S - late, self._look)


class GrpcEntry:
    """The gRPC side of one listener. proven: callers must show a partner's certificate before a word is exchanged."""

    def __init__(
        self,
        *,
        side: str,
        doors: Door,
        standing: Standing,
        proven: bool,
        run_dir: Path,
        limits: Limits,
        budget: Budget,
        room: Room,
        clock: Clock,
        journal: Journal,
    ) -> None:
        self._side = side
        self._door = doors
        self._standing = standing
        self._proven = proven
        self._socket = run_dir / f"grpc-{side}.sock"
        self._limits = limits
        self._budget = budget
        self._room = room
        self._clock = clock
        self._journal = journal
        self._callers: dict[str, Caller] = {}
        self._joining: set[asyncio.Task[None]] = set()
        self._halves: set[Half] = set()
        self._starting = asyncio.Lock()
        self._server: _Server | None = None
        self._closed = False

    def __call__(self) -> asyncio.Protocol:
        """A protocol for a connection whose caller speaks HTTP/2, from the preface on."""
        # The library refuses a call whose headers are too large; a caller that goes far beyond is not listened to.
        watch = http2.Watch(header_bytes=4 * self._limits.header_bytes, now=self._clock.monotonic())
        outer = Half(
            begun=lambda half: self._begin(half, watch),
            eye=lambda data: self._inward(watch, outer, data),
            ended=lambda: self._left(outer),
        )
        return outer

    def _begin(self, outer: Half, watch: http2.Watch) -> None:
        if self._closed or len(self._halves) >= CONNECTIONS:
            outer.turn_away(_busy())
            return
        try:
            if self._proven and outer.transport is not None:
                self._standing.add(outer.transport, side=self._side)
                self._standing.prove(outer.transport)
        except Unavailable:
            outer.turn_away(_busy())
            return
        except Refused as e:
            self._journal.note("edge.refused", side=self._side, kind=e.kind.value, reason=str(e))
            outer.turn_away(http2.Refusal(e.wire.grpc, e.public_text()))
            return
        self._halves.add(outer)
        task = asyncio.get_running_loop().create_task(self._join(outer, watch))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    @property
    def connections(self) -> int:
        return len(self._halves)

    async def stop(self, grace_s: float) -> None:
        """Take nobody any more, let calls under way end for so long, close."""
        self._closed = True
        if self._server is not None:
            await self._server.stop(grace_s)
        for task in self._joining:
            task.cancel()
        for half in list(self._halves):
            half.close()
        self._socket.unlink(missing_ok=True)

    async def _join(self, outer: Half, watch: http2.Watch) -> None:
        try:
            await self._start()
            inner = await self._lead(outer, watch)
        except Exception as e:  # noqa: BLE001  # the edge: a library that does not start leaves no caller waiting
            internal(self._journal, e)
            outer.turn_away(_busy())
        else:
            outer.join(inner)

    async def _lead(self, outer: Half, watch: http2.Watch) -> Half:
        """A connection to the server, under a name by which it knows who calls."""
        loop = asyncio.get_running_loop()
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        raw.setblocking(False)
        raw.bind("")  # a name that the system makes, and nobody else has meanwhile
        name = raw.getsockname()[1:].decode()
        debt = _Debt(outer)
        self._callers[f"unix-abstract:{name}"] = Caller(partial(self._standing.prove, outer.transport), debt.owe)
        try:
            await loop.sock_connect(raw, str(self._socket))
            _, inner = await loop.create_unix_connection(
                lambda: Half(eye=lambda data: self._outward(watch, debt, outer, data), ended=partial(self._gone, name)),
                sock=raw,
            )
        except BaseException:
            raw.close()
            self._gone(name)
            raise
        return inner

    async def _start(self) -> None:
        async with self._starting:
            if self._server is not None:
                return
            module = await asyncio.to_thread(importlib.import_module, "gateway.data_plane.io.grpc_server")
            self._socket.unlink(missing_ok=True)
            server: _Server = module.GrpcServer(
                doors=self._door,
                who=self._callers.get,
                socket=self._socket,
                limits=self._limits,
                budget=self._budget,
            )
            await server.start()
            self._server = server

    def _inward(self, watch: http2.Watch, outer: Half, data: bytes) -> None:
        before = watch.held
        try:
            watch.inward(data, now=self._clock.monotonic())
        finally:
            self._count(outer, watch.held - before)

    def _outward(self, watch: http2.Watch, debt: _Debt, outer: Half, data: bytes) -> None:
        debt.paid(len(data))
        before = watch.held
        try:
            watch.outward(data)
        finally:
            self._count(outer, watch.held - before)

    def _count(self, outer: Half, difference: int) -> None:
        if difference and outer in self._halves:
            self._room.change(outer, difference)

    def _left(self, outer: Half) -> None:
        self._halves.discard(outer)
        if outer.transport is not None:
            self._standing.leave(outer.transport)
        self._room.leave(outer)

    def _gone(self, name: str) -> None:
        self._callers.pop(f"unix-abstract:{name}", None)


def _busy() -> http2.Refusal:
    busy = WIRE[Kind.OVERLOADED]
    return http2.Refusal(busy.grpc, busy.text)
