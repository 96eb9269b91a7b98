"""Connections that whoever cannot be reached keeps open, and over which it is reached: both ends.

The holder opens a few connections to its partner's edge, proves itself there by its certificate as ever, and parks
them: `PING` from it, `PONG` back, so that a connection that some box on the way has forgotten is noticed. When the
partner needs a connection to the holder it takes one: `TAKE`, answered by `TAKEN`, and from there on it is as if it had
dialled: its TLS begins, and our edge listener answers it. The holder parks another at once. So nothing else changes:
who calls is proven by the TLS inside, not by the connection that carries it.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, cast

from gateway.data_plane.io import transports
from gateway.data_plane.io.dial import Dialer
from gateway.data_plane.io.tube import Tube
from gateway.data_plane.io.upgrade import Prove, ask
from gateway.errors import GatewayError, Kind, Unavailable
from gateway.model import NodeId
from gateway.ports import Entropy, Journal, PeerRoute
from specs.routes import OWN_PIPES

PING_S: Final = 15.0
SILENT_S: Final = 40.0
"""A parked connection on which nothing comes for so long is given up."""
SEATS: Final = 4
"""Connections that a holder keeps parked with one partner."""
MOST: Final = 16
"""Parked connections of one partner that are kept here."""
SERVED: Final = 256
"""Taken ones of one partner that are served at a time."""
TAKE_S: Final = 3.0
PAUSE_FIRST_S: Final = 0.2
PAUSE_LAST_S: Final = 10.0
"""A partner whose admin has just approved us is waited for no longer than so."""
PING, PONG, TAKE, TAKEN = b"\1", b"\2", b"\3", b"\4"


class Parked:
    """Connections that partners have parked here. A `Pipe`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: dict[NodeId, deque[_Waiting]] = {}
        self._wanted: dict[NodeId, deque[asyncio.Future[None]]] = {}
        self._all: set[_Waiting] = set()

    async def admit(self, prove: Prove, query: Mapping[str, str]) -> "_Waiting":
        """As upgrade.Pipe says."""
        del query
        node = prove()
        if len(self._waiting.get(node, ())) >= MOST:
            raise Unavailable("enough connections of this partner are parked", kind=Kind.TOO_MANY)
        return _Waiting(self, node, prove)

    async def take(self, node: NodeId, *, wait: bool) -> socket.socket | None:
        """A connection to a partner; None where none is parked and `wait` is off. Waits until cancelled."""
        while True:
            while waiting := self._waiting.get(node):
                # The newest: the likeliest to be alive.
                found = await waiting.pop().take()
                if found is not None:
                    return found
            if not wait:
                return None
            wanted = asyncio.get_running_loop().create_future()
            line = self._wanted.setdefault(node, deque())
            line.append(wanted)
            try:
                await wanted
            finally:
                with suppress(ValueError):
                    line.remove(wanted)

    def keep(self, nodes: Iterable[NodeId]) -> None:
        """Close those of everybody else, also those that were taken."""
        kept = set(nodes)
        for each in list(self._all):
            if each.node not in kept:
                each.end()

    def levels(self) -> Mapping[NodeId, int]:
        """Waiting connections by node."""
        return {node: len(waiting) for node, waiting in self._waiting.items() if waiting}

    def close(self) -> None:
        self.keep(())

    def begun(self, one: "_Waiting") -> None:
        self._all.add(one)
        self._waiting.setdefault(one.node, deque()).append(one)
        for wanted in self._wanted.get(one.node, ()):
            if not wanted.done():  # all: the first may be about to give up
                wanted.set_result(None)

    def gone(self, one: "_Waiting") -> None:
        self._all.discard(one)
        waiting = self._waiting.get(one.node, deque())
        with suppress(ValueError):
            waiting.remove(one)


class _Waiting(asyncio.Protocol):
    """One parked connection at the end where it waits."""

    def __init__(self, parked: Parked, node: NodeId, prove: Prove) -> None:
        self.node = node
        self._parked = parked
        self._prove = prove
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._over = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._taken: asyncio.Future[bytes] | None = None
        self._tube: Tube | None = None

    async def serve(self, transport: asyncio.Transport) -> None:
        """As upgrade.Piped says."""
        self._transport = transport
        transport.set_protocol(self)
        self._parked.begun(self)
        try:
            while not self._over.is_set() and self._loop.time() < self._heard + SILENT_S:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._heard + SILENT_S - self._loop.time()):
                        await self._over.wait()
            if self._tube is not None:
                await self._tube.over.wait()
        finally:
            self.end()
            self._parked.gone(self)

    async def take(self) -> socket.socket | None:
        """This connection as a socket; None where it has gone or its partner may not be called any more."""
        transport = self._transport
        try:
            if transport is None or transport.is_closing() or self._prove() != self.node:
                raise ConnectionResetError
            self._taken = self._loop.create_future()
            transport.write(TAKE)
            async with asyncio.timeout(TAKE_S):
                first = await self._taken
            self._tube = Tube()
            return await self._tube.as_socket(transport, first=first)
        except (GatewayError, OSError, TimeoutError):
            self.end()
            return None
        finally:
            self._over.set()

    def data_received(self, data: bytes) -> None:
        transport = cast("asyncio.Transport", self._transport)
        self._heard = self._loop.time()
        rest = data.lstrip(PING)
        if self._taken is None and not rest:
            transport.write(PONG)
        elif self._taken is not None and rest[:1] == TAKEN and not self._taken.done():
            transport.pause_reading()
            self._taken.set_result(rest[1:])
        elif rest:
            transports.abort(transport)

    def pause_writing(self) -> None:
        # It asks and asks, and does not read what we say to it.
        cast("asyncio.Transport", self._transport).abort()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._taken is not None and not self._taken.done():
            self._taken.set_exception(ConnectionResetError())
        self._over.set()

    def end(self) -> None:
        """As upgrade.Piped says; also when its partner is none any more."""
        if self._tube is not None:
            self._tube.abort()
        elif self._transport is not None:
            transports.abort(self._transport)


class Holder:
    """Keeps connections parked with partners. serve: answers on a connection that one of them has taken."""

    def __init__(
        self, dialer: Dialer, *, serve: Callable[[socket.socket], Awaitable[None]], journal: Journal, entropy: Entropy
    ) -> None:
        self._dialer = dialer
        self._serve = serve
        self._journal = journal
        self._entropy = entropy
        self._held: dict[NodeId, _Held] = {}

    def hold(self, routes: Sequence[PeerRoute]) -> None:
        """Hold to exactly these partners. Where a route changed, connections that were taken go on."""
        wanted = {route.node_id: route for route in routes}
        for node in [node for node in self._held if node not in wanted]:
            self._held.pop(node).close()
        for node, route in wanted.items():
            held = self._held.get(node)
            if held is None:
                held = self._held[node] = _Held(self)
            if held.route != route:
                held.begin(route)

    def levels(self) -> Mapping[NodeId, int]:
        """Connections that wait at their partner, by node."""
        return {node: len(held.parked) for node, held in self._held.items()}

    async def close(self) -> None:
        tasks = [task for held in self._held.values() for task in held.tasks]
        self.hold(())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def seat(self, route: PeerRoute, held: "_Held") -> None:
        """Keep one connection parked, always."""
        pause, told = PAUSE_FIRST_S, False
        while True:
            await held.places.acquire()
            try:
                way = self._dialer.way(route)
                taken, first = await self._park(*await ask(way, OWN_PIPES["park"]), held)
                pause, told = PAUSE_FIRST_S, False
                held.begin_serving(self._served(taken, first, held))
                continue
            except (GatewayError, OSError, TimeoutError) as error:
                held.places.release()
                if not told:
                    told = True
                    self._journal.note("park.lost", peer=route.node_id, reason=str(error))
            except BaseException:
                held.places.release()
                raise
            share = int.from_bytes(self._entropy.token(2)) / 0xFFFF
            await asyncio.sleep(pause * (1 + share) / 2)
            pause = min(2 * pause, PAUSE_LAST_S)

    async def _park(self, transport: asyncio.Transport, rest: bytes, held: "_Held") -> tuple[asyncio.Transport, bytes]:
        """Wait until the partner takes the connection, which does not read then; and what came behind."""
        parked = _Parking(transport)
        transport.set_protocol(parked)
        if rest:
            parked.data_received(rest)
        if not parked.taken.done():
            transport.resume_reading()
        held.parked.add(parked)
        try:
            while not parked.taken.done():
                if not transport.is_closing():
                    transport.write(PING)
                await asyncio.wait({parked.taken}, timeout=PING_S)
                if not parked.taken.done() and parked.silent_s > SILENT_S:
                    transports.abort(transport)  # which ends `taken`
            return transport, parked.taken.result()
        except BaseException:
            transports.abort(transport)
            raise
        finally:
            held.parked.discard(parked)

    async def _served(self, transport: asyncio.Transport, first: bytes, held: "_Held") -> None:
        tube = Tube()
        held.tubes.add(tube)
        try:
            transport.write(TAKEN)
            with suppress(OSError, TimeoutError):
                inside = await tube.as_socket(transport, first=first)
                with suppress(OSError, TimeoutError):  # a handshake that fails is its caller's matter
                    await self._serve(inside)
                await tube.over.wait()
        finally:
            tube.abort()
            held.tubes.discard(tube)
            held.places.release()


class _Held:
    """What is held to one partner."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self.route: PeerRoute | None = None
        self.parked: set[_Parking] = set()
        self.tubes: set[Tube] = set()
        self.places = asyncio.Semaphore(SERVED + SEATS)
        self._seats: set[asyncio.Task[None]] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        return [*self._seats, *self._serving]

    def begin(self, route: PeerRoute) -> None:
        for task in self._seats:
            task.cancel()
        self.route = route
        self._seats = {asyncio.create_task(self._holder.seat(route, self)) for _ in range(SEATS)}

    def begin_serving(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()


class _Parking(asyncio.Protocol):
    """One parked connection at the end that holds it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self.taken: asyncio.Future[bytes] = self._loop.create_future()
        # Whoever waited for it may have left by the time the connection ends.
        self.taken.add_done_callback(lambda taken: taken.cancelled() or taken.exception())

    @property
    def silent_s(self) -> float:
        return self._loop.time() - self._heard

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        rest = data.lstrip(PONG)
        if not rest or self.taken.done():
            return
        if rest[:1] != TAKE:
            transports.abort(self._transport)
            return
        self._transport.pause_reading()
        self.taken.set_result(rest[1:])

    def connection_lost(self, error: Exception | None) -> None:
        if not self.taken.done():
            self.taken.set_exception(error or ConnectionResetError("the partner closed a parked connection"))
