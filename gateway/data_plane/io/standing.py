"""TLS connections that stand, partners' to us and ours to them: how many of them a partner has, and until when.

A handshake proves for its moment, but a connection may live for days: a stream, one that is parked or relayed, one that
is used again and again. Every LOOK_S the certificate shown on each is looked at again; where it has expired, or its CA
has taken it back, the connection is cut, whatever is under way on it. Whether it is still a partner's is asked per
request (io.edge) and, where nobody asks any more, by who keeps the pipes (io.park, io.relay).
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.data_plane.io import transports
from gateway.data_plane.io.edge import Edge
from gateway.data_plane.io.tls import Leaf
from gateway.errors import Kind, Unavailable
from gateway.model import NodeId
from gateway.ports import Journal

LOOK_S: Final = 2.0
AT_A_TIME: Final = 256
"""Connections that are looked at in one turn of the loop, which takes well under a millisecond."""
OURS: Final = "out"


@dataclass(slots=True)
class _Stand:
    side: str
    node: NodeId | None = None
    """Whose places it counts in."""
    counts: bool = True


class Standing:
    """All of a data process. most: connections that one partner may have at the edge, pipes and streams besides."""

    def __init__(self, edge: Edge, *, most: int, journal: Journal) -> None:
        self._edge = edge
        self._most = most
        self._journal = journal
        self._all: dict[asyncio.Transport, _Stand] = {}
        self._held: dict[NodeId, set[asyncio.Transport]] = {}
        self._seen: dict[NodeId, tuple[Leaf, bytes]] = {}

    def certificates(self) -> Mapping[NodeId, Mapping[str, str | int]]:
        """Of each partner the TLS certificate that it has shown last, `fingerprint` (SHA-256, hex) and `ends` (ms)."""
        return {
            node: {"fingerprint": hashlib.sha256(der).hexdigest(), "ends": leaf.not_after_ms}
            for node, (leaf, der) in self._seen.items()
            if node in self._edge.roots
        }

    def add(self, transport: asyncio.Transport, *, side: str = OURS) -> None:
        """Look after a connection. Nobody stands behind one without TLS."""
        if _ssl_object(transport) is not None:
            self._all.setdefault(transport, _Stand(side))

    def leave(self, transport: asyncio.Transport) -> None:
        """It has ended. One that nobody says so of is noticed at the next look."""
        self._uncount(transport)
        self._all.pop(transport, None)

    def prove(self, transport: asyncio.Transport | None) -> NodeId:
        """The partner at the other end of a connection to our edge, which counts from then on.

        Raises Refused(UNAUTHENTICATED), Unavailable(TOO_MANY) where the partner has too many others.
        """
        node = self.prove_apart(transport)
        stand = None if transport is None else self._all.get(transport)
        if transport is not None and stand is not None and stand.counts and stand.node != node:
            if not self._has_place(node):
                raise Unavailable("too many connections of this partner", kind=Kind.TOO_MANY)
            self._uncount(transport)
            stand.node = node
            self._held.setdefault(node, set()).add(transport)
        return node

    def prove_apart(self, transport: asyncio.Transport | None) -> NodeId:
        """As prove, of a connection that is to be a stream or a pipe: it needs no place among those that count."""
        return self._edge.prove(_ssl_object(transport))

    def leaf(self, transport: asyncio.Transport | None) -> bytes | None:
        """As Edge.leaf."""
        return self._edge.leaf(_ssl_object(transport))

    def set_apart(self, transport: asyncio.Transport | None) -> None:
        """It is a stream or a pipe now: there are bounds of their own for these, so it counts no more."""
        if transport is not None and transport in self._all:
            self._all[transport].counts = False
            self._uncount(transport)

    async def watch(self) -> None:
        """Look, always."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Cut what has lapsed, and say so; remember what partners show."""
        cut: Counter[tuple[str, NodeId | None, str, str]] = Counter()
        seen: dict[NodeId, tuple[Leaf, bytes]] = {}
        standing = list(self._all.items())
        for at in range(0, len(standing), AT_A_TIME):
            for transport, stand in standing[at : at + AT_A_TIME]:
                if transport.is_closing():
                    self.leave(transport)
                    continue
                ssl_object = _ssl_object(transport)
                partner = self._edge.partner(ssl_object)
                if partner is not None and partner[0].not_after_ms >= _end(seen.get(partner[0].node_id)):
                    seen[partner[0].node_id] = partner
                if (error := self._edge.lapsed(ssl_object)) is not None:
                    self.leave(transport)
                    transports.abort(transport)
                    node = None if partner is None else partner[0].node_id
                    cut[stand.side, node, error.kind.value, str(error)] += 1
            await asyncio.sleep(0)
        self._seen |= seen
        for (side, node, kind, reason), connections in cut.items():
            self._journal.note("tls.lapsed", side=side, peer=node, kind=kind, reason=reason, connections=connections)

    def _has_place(self, node: NodeId) -> bool:
        held = self._held.get(node, set())
        if len(held) >= self._most:
            # What aiohttp reads is seldom said to have ended.
            for ended in [transport for transport in held if transport.is_closing()]:
                self.leave(ended)
        return len(held) < self._most

    def _uncount(self, transport: asyncio.Transport) -> None:
        stand = self._all.get(transport)
        if stand is not None and stand.node is not None:
            self._held[stand.node].discard(transport)
            if not self._held[stand.node]:
                del self._held[stand.node]
            stand.node = None


def _end(seen: tuple[Leaf, bytes] | None) -> int:
    """Of a partner that renews, old connections show the old certificate and new ones another, which ends later."""
    return 0 if seen is None else seen[0].not_after_ms


def _ssl_object(transport: asyncio.Transport | None) -> Any | None:
    return None if transport is None else transport.get_extra_info("ssl_object")
