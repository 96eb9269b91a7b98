"""The data process: puts queues, sessions, listeners and the link together, serves until told to stop.

Owns the ports that partners and components see, so that a bulk transfer never delays the control process. It keeps
nothing on disk but `data.json` (its ports, written when it serves) and its spools; after a restart control tells it
everything else again.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from gateway.auth.revocation import RevocationLists, reread
from gateway.data_plane.channel import Channel, Policy
from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.ledger import SentBytes
from gateway.data_plane.core.session import Queues
from gateway.data_plane.io import door, hop, http_server, link
from gateway.data_plane.io.accept import HANDSHAKE_S, TlsListener
from gateway.data_plane.io.dial import Dialer
from gateway.data_plane.io.edge import Edge, roots_of
from gateway.data_plane.io.filed import Files
from gateway.data_plane.io.forward import ControlForward
from gateway.data_plane.io.front import Front
from gateway.data_plane.io.grpc_entry import GrpcEntry
from gateway.data_plane.io.handover import SOCKET, RoadsDoor
from gateway.data_plane.io.one_port import OnePort
from gateway.data_plane.io.park import Holder, Parked
from gateway.data_plane.io.partners import PartnerWays
from gateway.data_plane.io.pump import Room
from gateway.data_plane.io.relay import Relay, Relays
from gateway.data_plane.io.roads import Roads
from gateway.data_plane.io.rooms import Rooms
from gateway.data_plane.io.spool import Spool
from gateway.data_plane.io.standing import Standing
from gateway.data_plane.io.stream_local import TaskLines
from gateway.data_plane.io.stream_server import Streams
from gateway.data_plane.io.tls import SwappableContext, check_revoked
from gateway.data_plane.io.upgrade import Pipes
from gateway.data_plane.keeping import Spools
from gateway.errors import CallerError
from gateway.model import Limits, NodeId, ProxyAddress
from gateway.ports import Clock, Entropy, Journal, Network, PeerRoute
from specs.routes import OWN_PIPES

READY_FILE: Final = "data.json"
PLATFORM_SOCKET: Final = "platform.sock"
"""In the run folder: the platform listener once more, for processes of this user."""
DRAIN_S: Final = 5.0
CONTROL_WAIT_S: Final = 30.0
ROOM_MORE: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class DataSettings:
    """What the data process is told at its start. Port 0 means any free one; 7304 is the standard's (T-001).

    tls_chain: PEM, leaf first, then CA. run_dir: holds the sockets and data.json; only this user may enter.
    """

    node_id: NodeId
    inst_id: str
    edge_host: str
    tls_chain: Path
    tls_key: Path
    run_dir: Path
    edge_port: int = 7304
    edge_prefix: str = ""
    """Path of this node's address, under which its edge serves everything as well, e.g. /gateway."""
    platform_host: str = "127.0.0.1"
    platform_port: int = 0
    insecure_platform_nonloopback: bool = False
    """Components talk plain HTTP to the platform listener; anywhere but on loopback their data lie open."""
    one_port: bool = False
    """The platform listener has the edge's port, for this machine alone (io/one_port.py), and none of its own."""
    edge_grpc: bool = True
    """gRPC on the port of HTTP, where a caller speaks HTTP/2."""
    platform_grpc: bool = True
    edge_grpc_port: int | None = None
    """A port for gRPC alone, too."""
    platform_grpc_port: int | None = None
    limits: Limits = field(default_factory=Limits)
    strict: bool = False
    """Refuse channel calls without provider code, trace id or token (T-055), and let peek keep (T-022)."""
    peek_keeps: bool = False
    streams: bool = True
    """Give partners streams, and ask them for theirs; otherwise plain invoke alone."""
    push_retry_s: float = 20.0
    proxy: ProxyAddress | None = None
    """On the way to partners for whom nothing else is said."""
    proxy_credentials: Mapping[ProxyAddress, str] = field(default_factory=dict)
    """file: URIs of `user:password`."""
    gap_s: float = 5.0
    room_s: float = 2.0
    spool_dir: Path | None = None
    """Where messages go for which memory has no room, and those of sessions kept on disk. None: nowhere."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a data process really listens."""

    edge: int
    platform: int
    edge_grpc: int | None = None
    platform_grpc: int | None = None


class DataProcess:
    """The parts of one data process in one event loop. `start`, then `stop`; not reusable."""

    def __init__(self, settings: DataSettings, *, journal: Journal, clock: Clock, entropy: Entropy) -> None:
        """Raises CallerError for settings that are not safe."""
        _check(settings)
        limits = settings.limits
        self._settings = settings
        self._journal = journal
        self._lists = RevocationLists()
        self._edge = Edge(clock, self._lists)
        self._standing = Standing(self._edge, most=limits.partner_connections, journal=journal)
        self._tls = SwappableContext(settings.tls_chain, settings.tls_key)
        self._routes: dict[NodeId, PeerRoute] = {}
        self._network = Network()
        self._roads = Roads(settings.proxy, settings.proxy_credentials)
        self._dialer = Dialer(
            self._roads,
            settings.tls_chain,
            settings.tls_key,
            revoked=lambda verified: check_revoked(verified, self._lists, now_ms=clock.now_ms()),
            opened=self._standing.add,
        )
        self._partners = PartnerWays(self._dialer, run_dir=settings.run_dir, streams=settings.streams)
        budget = Budget(
            process_bytes=limits.process_bytes,
            session_bytes=limits.session_bytes,
            partner_bytes=limits.partner_bytes,
            disk_bytes=limits.spool_bytes,
            disk_session_bytes=limits.spool_session_bytes,
        )
        where = settings.spool_dir
        kept = None if where is None else Spool(where / "kept", durable=True)
        overflow = None if where is None else Spool(where / "overflow", durable=False)
        self._spools = [spool for spool in (kept, overflow) if spool is not None]
        keeps = settings.peek_keeps or settings.strict
        self.channel = Channel(
            node_id=settings.node_id,
            inst_id=settings.inst_id,
            queues=Queues(budget, session_topics=limits.session_topics, peek_keeps=keeps),
            budget=budget,
            sent=SentBytes(),
            partners=self._partners,
            limits=limits,
            policy=Policy(
                strict=settings.strict,
                push_retry_s=settings.push_retry_s,
                gap_s=settings.gap_s,
                room_s=settings.room_s,
            ),
            clock=clock,
            entropy=entropy,
            journal=journal,
            spools=Spools(kept, overflow),
        )
        self._rooms = Rooms(limits.process_bytes // 8)
        # The folder is made, and closed to others, by the spool that it belongs to.
        files = Files(None if where is None else where / "overflow", budget, journal)
        self._streams = Streams(
            channel=self.channel, files=files, rooms=self._rooms, limits=limits, clock=clock, journal=journal
        )
        self._tasks = TaskLines(channel=self.channel, budget=budget, rooms=self._rooms, limits=limits, journal=journal)
        # One each: whatever partners and strangers do, our own side's calls come through.
        socket_file = settings.run_dir / hop.SOCKET
        self._control = [ControlForward(socket_file, limit=limits.body_bytes) for _ in range(2)]
        asked: Mapping[str, Any] = {"channel": self.channel, "rooms": self._rooms, "limits": limits, "journal": journal}
        shared: Mapping[str, Any] = {"standing": self._standing, "journal": journal}
        self._edge_door, self._platform_door = door.EdgeDoor(**asked), door.PlatformDoor(**asked)
        self._parked = Parked(journal)
        self._relay = Relay(self._roads, find=self._routes.get, journal=journal)
        self._roads.attach(parked=self._parked.take, relay=Relays(self._dialer, find=self._routes.get).through)
        self._holder = Holder(self._dialer, serve=self._serve_inside, journal=journal, entropy=entropy)
        self._edge_listener = http_server.EdgeListener(
            doors=self._edge_door,
            control=self._control[0],
            prefix=settings.edge_prefix,
            pipes=Pipes({OWN_PIPES["park"]: self._parked, OWN_PIPES["relay"]: self._relay}),
            streams=self._streams if settings.streams else None,
            files=files,
            **shared,
        )
        self._platform_listener = http_server.PlatformListener(
            doors=self._platform_door, control=self._control[1], files=files, **shared
        )
        self._shared: Mapping[str, Any] = {**shared, "files": files, "limits": limits, "rooms": self._rooms}
        room = 2 * limits.channel_grpc_bytes + ROOM_MORE
        more: Mapping[str, Any] = {
            **shared,
            "budget": budget,
            "run_dir": settings.run_dir,
            "limits": limits,
            "clock": clock,
        }
        self._edge_grpc = GrpcEntry(side="edge", doors=self._edge_door, proven=True, room=Room(room), **more)
        self._platform_grpc = GrpcEntry(
            side="platform", doors=self._platform_door, proven=False, room=Room(room), **more
        )
        self._link_door = link.LinkDoor(
            set_routes=self.set_routes,
            set_network=self.set_network,
            show=self.show,
            keep_sessions=self.channel.keep_sessions,
            open_session=self.channel.open_session,
            close_session=self.channel.close_session,
            sent_bytes=self.channel.sent_bytes,
            stats=self.stats,
            figures=lambda limit: self.channel.figures(limit=limit),
        )
        self._roads_door = RoadsDoor(settings.run_dir / SOCKET, self._roads)
        self._runner: web.ServerRunner | None = None
        self._listening: list[asyncio.Server | TlsListener] = []
        self._fronts: list[Front] = []
        self._always: list[asyncio.Task[None]] = []

    async def start(self) -> Ports:
        """Learn everything from disk and control, then listen; data.json is there when this returns.

        Raises Unavailable when control doesn't answer, OSError when a port is taken, CallerError for a spool that
        another version has written.
        """
        settings = self._settings
        await self._open_spools()
        routes, rules, shown, network = await link.pull_snapshot(settings.run_dir, wait_s=CONTROL_WAIT_S)
        self.show(*shown)
        self.set_network(network)
        await self.set_routes(routes)
        self.channel.keep_sessions(rules)
        limits = settings.limits
        data_socket = settings.run_dir / link.DATA_SOCKET
        data_socket.unlink(missing_ok=True)
        self._runner = web.ServerRunner(web.Server(self._link_door), handle_signals=False, shutdown_timeout=DRAIN_S)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(data_socket)).start()
        await self._roads_door.start()
        edge = Front(
            doors=self._edge_door,
            rest=http_server.server(self._edge_listener, limits, cancel_with_client=False),
            side="edge",
            cancel_with_client=False,
            address_connections=limits.address_connections,
            http2=self._edge_grpc if settings.edge_grpc else None,
            **self._shared,
        )
        platform = Front(
            doors=self._platform_door,
            rest=http_server.server(self._platform_listener, limits, cancel_with_client=True),
            side="platform",
            cancel_with_client=True,
            address_connections=limits.connections,
            http2=self._platform_grpc if settings.platform_grpc else None,
            **self._shared,
        )
        self._fronts = [edge, platform]
        if settings.one_port:
            edge_port = platform_port = self._listen_once(edge, platform)
        else:
            edge_port = await self._listen_tcp(edge, settings.edge_host, settings.edge_port, self._tls.listening)
            platform_port = await self._listen_tcp(platform, settings.platform_host, settings.platform_port, None)
        await self._listen_unix(platform, settings.run_dir / PLATFORM_SOCKET)
        await self._tasks.start(settings.run_dir)
        ports = Ports(
            edge_port,
            platform_port,
            await self._listen_grpc(self._edge_grpc, settings.edge_host, settings.edge_grpc_port, self._tls.listening),
            await self._listen_grpc(self._platform_grpc, settings.platform_host, settings.platform_grpc_port, None),
        )
        self.set_network(self._network)  # what calls us over connections that we hold is served from now on
        self._always = [asyncio.create_task(work) for work in (self._tidy(), self._standing.watch())]
        ready = {"pid": os.getpid(), "edge_port": ports.edge, "platform_port": ports.platform}
        _write(settings.run_dir / READY_FILE, json.dumps(ready))
        self._journal.note("data.ready", edge_port=ports.edge, platform_port=ports.platform)
        return ports

    async def stop(self) -> None:
        """Stop accepting, answer who waits, let calls under way end within DRAIN_S seconds, close."""
        (self._settings.run_dir / READY_FILE).unlink(missing_ok=True)
        for task in self._always:
            task.cancel()
        self.channel.stop()
        for listening in self._listening:
            listening.close()
        await self._tasks.stop()
        self._parked.close()
        self._relay.close()
        await self._streams.stop(DRAIN_S)
        entries = (self._edge_grpc, self._platform_grpc)
        await asyncio.gather(
            *(front.stop(DRAIN_S) for front in self._fronts), *(entry.stop(DRAIN_S) for entry in entries)
        )
        await self._holder.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._listening, self._fronts, self._runner = [], [], None
        await self._roads_door.stop()
        await self.channel.end()
        for spool in self._spools:
            await spool.close()
        await self._partners.close()
        for control in self._control:
            await control.close()
        self._journal.note("data.stopped")

    async def set_routes(self, routes: Sequence[PeerRoute]) -> Sequence[str]:
        """Know exactly these partners from now on: their CAs at the edge, their addresses on the way out."""
        self._lists.replace(reread(pem, ca) for route in routes for ca, pem in route.crls.items())
        roots, problems = roots_of(routes, pinned=self._edge.roots)
        self._tls.trust(der for ders in roots.values() for der in ders)
        self._edge.set_roots(roots)
        usable = [r for r in routes if r.node_id in roots and r.node_id != self._settings.node_id]
        self._routes.clear()
        self._routes.update((route.node_id, route) for route in usable)
        self._parked.keep(self._routes)
        self._relay.keep(set(self._routes))
        problems = [*problems, *await self._partners.set_routes(usable)]
        for problem in problems:
            self._journal.note("route.unusable", reason=problem)
        return problems

    def set_network(self, network: Network) -> None:
        """Reach partners in these ways from now on; connections that stand go on."""
        self._network = network
        self._roads.set_ways(network.ways)
        self._relay.set_pairs(network.relays)
        if self._fronts:
            self._holder.hold(network.holding)

    def show(self, chain: str, key: str) -> None:
        """Show this certificate of ours (PEM files) in later handshakes. Raises CallerError where it cannot be used."""
        if chain and key:
            self._tls.show(Path(chain), Path(key))

    def stats(self) -> Mapping[str, Any]:
        """Counters and levels."""
        return {
            **self.channel.stats(),
            "partners": len(self._partners),
            "streams": len(self._streams),
            "grpc_connections": self._edge_grpc.connections + self._platform_grpc.connections,
            "task_lines": len(self._tasks),
            "refused": self.channel.traffic.refused,
            "parked": {**self._parked.levels(), **self._holder.levels()},
            "relayed": self._relay.levels(),
            "relayed_bytes": self._relay.carried(),
            "partner_tls": self._standing.certificates(),
        }

    async def _open_spools(self) -> None:
        for spool in self._spools:
            found = await asyncio.to_thread(spool.open)
            spool.start()
            self.channel.recall(found)
            if spool.damage.cut or spool.damage.lost:
                self._journal.note("spool.damaged", bytes_cut=spool.damage.cut, records_lost=spool.damage.lost)

    async def _serve_inside(self, raw: socket.socket) -> None:
        """Answer a connection that a partner has taken as if it had come to the edge."""
        await asyncio.get_running_loop().connect_accepted_socket(
            self._fronts[0], sock=raw, ssl=self._tls.listening, ssl_handshake_timeout=HANDSHAKE_S
        )

    def _listen_once(self, edge: Front, platform: Front) -> int:
        """Both listeners on the edge's port."""
        listening = _listening_socket(self._settings.edge_host, self._settings.edge_port)
        self._listening.append(OnePort(listening, edge, self._tls.listening, platform=platform, journal=self._journal))
        bound: int = listening.getsockname()[1]
        return bound

    async def _listen_unix(self, front: Front, file: Path) -> None:
        file.unlink(missing_ok=True)
        self._listening.append(await asyncio.get_running_loop().create_unix_server(front, str(file), backlog=512))

    async def _listen_grpc(
        self, entry: GrpcEntry, host: str, port: int | None, context: ssl.SSLContext | None
    ) -> int | None:
        """A port on which nothing but HTTP/2 is spoken, None where none is asked for."""
        return None if port is None else await self._listen_tcp(entry, host, port, context)

    async def _listen_tcp(
        self, made: Callable[[], asyncio.BaseProtocol], host: str, port: int, context: ssl.SSLContext | None
    ) -> int:
        listening = _listening_socket(host, port)
        try:
            if context is not None:
                self._listening.append(TlsListener(listening, made, context))
            else:
                self._listening.append(await asyncio.get_running_loop().create_server(made, sock=listening))
        except BaseException:
            listening.close()
            raise
        bound: int = listening.getsockname()[1]
        return bound

    async def _tidy(self) -> None:
        every = min(60.0, max(0.5, self._settings.limits.session_idle_s / 10))
        while True:
            await asyncio.sleep(every)
            self.channel.expire()
            self._rooms.tidy()
            self._streams.expire()


def run_data_process(settings: DataSettings, *, journal: Journal, clock: Clock, entropy: Entropy) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Uses uvloop where it is installed."""
    # gRPC would print a line for each wrong header that anybody sends; it reads this when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    open_files()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(settings, journal=journal, clock=clock, entropy=entropy))


async def _serve(settings: DataSettings, *, journal: Journal, clock: Clock, entropy: Entropy) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    process = DataProcess(settings, journal=journal, clock=clock, entropy=entropy)
    starting = asyncio.create_task(process.start())
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if stopped.is_set() and not starting.done():
            starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        await stopping
    finally:
        stopping.cancel()
        await process.stop()
    return 0


def open_files() -> None:
    """Let this process open as many files as it may.

    Every connection is one, and the usual bound (1,024) is there for programs that poll with select.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop where it is installed, else None: asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415  # not on every platform; the choice is made here and nowhere else
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _check(settings: DataSettings) -> None:
    run_dir = settings.run_dir
    if not run_dir.is_dir() or run_dir.stat().st_mode & 0o077:
        raise CallerError(f"{run_dir}: must be a folder of mode 0700")
    host = settings.platform_host
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not settings.insecure_platform_nonloopback:
        raise CallerError(f"platform listener on {host}: plain HTTP is for loopback only")


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=512)
    listening.setblocking(False)
    return listening


def _write(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
