"""Bytes between two partners that cannot connect to each other: the relay in the middle, and how one is used.

A relay takes a connection of the one and finds one to the other. TLS runs from end to end inside it, so what it sees is
who speaks with whom, when and how much; it can neither read nor change nor speak in their names. It does so for pairs
that its own admin has allowed, while it has contracts with both, and does not pass on to a second relay.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from gateway.data_plane.io.dial import Dialer, Way
from gateway.data_plane.io.roads import Roads
from gateway.data_plane.io.tube import Tube
from gateway.data_plane.io.upgrade import Prove, ask
from gateway.errors import Kind, Refused, Unavailable
from gateway.model import NodeId, RelayPair
from gateway.ports import Journal, PeerRoute
from specs.routes import OWN_PIPES

OF_PAIR: Final = 256
"""Connections of one pair at a time."""


class Relay:
    """Relays for others. A `Pipe`. find: the way to a partner with a contract that holds."""

    def __init__(self, roads: Roads, *, find: Callable[[NodeId], PeerRoute | None], journal: Journal) -> None:
        self._roads = roads
        self._find = find
        self._journal = journal
        self._pairs: Mapping[str, RelayPair] = {}
        self._open: dict[str, set[_Relayed]] = {}
        self._carried: Counter[str] = Counter()

    def set_pairs(self, pairs: Sequence[RelayPair]) -> None:
        """Relay for exactly these; what stands between others is cut, also where a pair's rate changed."""
        old, self._pairs = self._pairs, {pair.key(): pair for pair in pairs}
        for key, standing in list(self._open.items()):
            if self._pairs.get(key) != old.get(key):
                for each in list(standing):
                    each.end()
        for key in set(self._carried) - set(self._pairs):
            del self._carried[key]

    def keep(self, nodes: set[NodeId]) -> None:
        """Cut what stands between anybody else: their contracts have ended."""
        for standing in list(self._open.values()):
            for each in list(standing):
                if not {each.pair.first, each.pair.second} <= nodes:
                    each.end()

    async def admit(self, prove: Prove, query: Mapping[str, str]) -> "_Relayed":
        """As upgrade.Pipe says. query: node."""
        node, to = prove(), NodeId(query.get("node", ""))
        first, second = sorted((node, to))
        pair = self._pairs.get(RelayPair(first, second, 0, 0).key())
        route = self._find(to)
        if pair is None or route is None:
            # Whether `to` is a partner of ours is nobody's business.
            raise Refused(f"{node} is not relayed to {to[:128]!r}", kind=Kind.FORBIDDEN, detail="not relayed there")
        if len(self._open.get(pair.key(), ())) >= OF_PAIR:
            raise Unavailable(f"{pair.key()}: too many relayed connections", kind=Kind.TOO_MANY)
        relayed = _Relayed(self, pair)
        self.begun(relayed)
        try:
            relayed.raw = await self._roads.reach(to, route.address, relayed=True)
        except BaseException:
            self.gone(relayed)
            raise
        if relayed.ended:  # meanwhile
            relayed.end()
            raise Refused(f"{pair.key()} is not relayed any more", kind=Kind.FORBIDDEN, detail="not relayed there")
        self._journal.note("relay.opened", peer=node, to=to)
        return relayed

    def levels(self) -> Mapping[str, int]:
        """Connections by pair."""
        return {key: len(standing) for key, standing in self._open.items()}

    def carried(self) -> Mapping[str, int]:
        """Bytes by pair, both ways together."""
        return dict(self._carried)

    def close(self) -> None:
        self.keep(set())

    def begun(self, one: "_Relayed") -> None:
        self._open.setdefault(one.pair.key(), set()).add(one)

    def gone(self, one: "_Relayed") -> None:
        standing = self._open.get(one.pair.key(), set())
        standing.discard(one)
        if not standing:
            self._open.pop(one.pair.key(), None)

    def count(self, key: str, size: int) -> None:
        if key in self._pairs:
            self._carried[key] += size


class _Relayed:
    """One connection that is passed on."""

    def __init__(self, relay: Relay, pair: RelayPair) -> None:
        self.pair = pair
        self.raw: socket.socket | None = None
        self.ended = False
        self._relay = relay
        self._tube: Tube | None = None

    async def serve(self, transport: asyncio.Transport) -> None:
        """As upgrade.Piped says."""
        key, raw = self.pair.key(), self.raw
        self.raw = None
        transport.pause_reading()
        if raw is None:
            return
        self._tube = Tube(
            bytes_per_s=self.pair.bytes_per_s, counted=lambda size: self._relay.count(key, size), only_tls=True
        )
        await self._tube.join(transport, raw)
        await self._tube.over.wait()

    def end(self) -> None:
        """As upgrade.Piped says; also when the pair is relayed no more."""
        self.ended = True
        raw, self.raw = self.raw, None
        if raw is not None:
            raw.close()
        if self._tube is not None:
            self._tube.abort()
        self._relay.gone(self)


class Relays:
    """The way through a relay that is our partner. find: as of Relay."""

    def __init__(self, dialer: Dialer, *, find: Callable[[NodeId], PeerRoute | None]) -> None:
        self._dialer = dialer
        self._find = find
        self._ways: dict[NodeId, Way] = {}

    async def through(self, relay: NodeId, node: NodeId) -> socket.socket:
        """A socket to a node through a relay. Raises Unavailable(NO_ROUTE), Refused(UNAUTHENTICATED)."""
        route = self._find(relay)
        if route is None:
            raise Unavailable(f"{relay}, through which {node} is reached, is no partner", kind=Kind.NO_ROUTE)
        way = self._ways.get(relay)
        if way is None or way.route != route:
            way = self._ways[relay] = self._dialer.way(route)
        transport, first = await ask(way, f"{OWN_PIPES['relay']}?node={quote(node, safe='')}")
        return await Tube().as_socket(transport, first=first)
