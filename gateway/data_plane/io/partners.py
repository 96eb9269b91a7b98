"""All partners of this node and the way to each; what is spoken with one is decided here, once per route.

Implements `channel.Partners`.
"""

import asyncio
import importlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from gateway.data_plane.io.dial import GRPCS, Dialer
from gateway.data_plane.io.http_client import HttpPartner
from gateway.data_plane.io.speaking import Speaking
from gateway.data_plane.io.stream_client import StreamPartner
from gateway.errors import Refused
from gateway.model import NodeId
from gateway.ports import PeerRoute


class PartnerWays:
    """All partners by node id. run_dir: for sockets of our own. streams: ask them for a stream each."""

    def __init__(self, dialer: Dialer, *, run_dir: Path, streams: bool = True) -> None:
        self._dialer = dialer
        self._run_dir = run_dir
        self._streams = streams
        self._partners: dict[NodeId, tuple[PeerRoute, Speaking]] = {}
        self._changing = asyncio.Lock()

    def find(self, node: NodeId) -> Speaking | None:
        known = self._partners.get(node)
        return known[1] if known else None

    def __len__(self) -> int:
        return len(self._partners)

    async def set_routes(self, routes: Sequence[PeerRoute]) -> Sequence[str]:
        """Replace all; an unchanged route keeps its connections. Returns the routes not usable, in words."""
        async with self._changing:
            return await self._set_routes(routes)

    async def _set_routes(self, routes: Sequence[PeerRoute]) -> Sequence[str]:
        old, new, problems = self._partners, dict[NodeId, tuple[PeerRoute, Speaking]](), list[str]()
        for route in routes:
            kept = old.get(route.node_id)
            if kept is not None and kept[0] == route:
                new[route.node_id] = kept
                continue
            try:
                new[route.node_id] = (route, await self._speak(route))
            except Refused as e:
                problems.append(f"{route.node_id}: {e}")
        self._partners = new
        for node, known in old.items():
            if new.get(node) is not known:
                await known[1].retire()
        return problems

    async def close(self) -> None:
        """Close every connection, calls under way included."""
        for _, partner in self._partners.values():
            await partner.close()
        self._partners = {}

    async def _speak(self, route: PeerRoute) -> Speaking:
        way = self._dialer.way(route)
        if urlsplit(route.address).scheme == GRPCS:
            # Loaded where a partner wants it, and beside the loop.
            module = await asyncio.to_thread(importlib.import_module, "gateway.data_plane.io.grpc_client")
            speaking: Speaking = module.GrpcPartner(way, run_dir=self._run_dir)
            return speaking
        http = HttpPartner(way)
        return StreamPartner(way, http) if self._streams else http
