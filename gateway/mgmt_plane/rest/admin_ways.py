"""Admin routes of how partners are reached, and of whom this node relays for."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from gateway.errors import Unavailable
from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.service.ways import Wanted, Ways
from gateway.model import NodeId
from gateway.ports import Journal, Store
from specs.admin import BASE

Answer = dict[str, Any]
Params = Mapping[str, str]
Body = Mapping[str, Any]
Stats = Callable[[], Awaitable[Mapping[str, Any]]]


class WayAdmin:
    """The handlers; `routes` lists them. What bodies may hold, specs/schemas says.

    stats: of the data process. tell: it what is new, so that an answer says what is done.
    """

    def __init__(
        self, *, ways: Ways, store: Store, stats: Stats, tell: Callable[[], Awaitable[None]], journal: Journal
    ) -> None:
        self._tell = tell
        self._ways = ways
        self._store = store
        self._stats = stats
        self._journal = journal

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("GET", f"{BASE}/ways", self.show),
            AdminRoute("POST", f"{BASE}/partners/{{node_id}}/way", self.set),
            AdminRoute("GET", f"{BASE}/relays", self.relays),
            AdminRoute("POST", f"{BASE}/relays", self.allow),
            AdminRoute("POST", f"{BASE}/relays/remove", self.forbid),
        ]

    async def show(self, _params: Params, _query: Params, _body: Body) -> list[Answer]:
        """Ways that an admin has set; parked: connections that wait now, ours to it or its to us."""
        parked = await self._levels("parked")
        return [{**asdict(way), "parked": parked.get(way.node_id, 0)} for way in await self._store.run(self._ways.all)]

    async def _levels(self, name: str) -> Mapping[str, int]:
        try:
            found: Mapping[str, int] = (await self._stats()).get(name, {})
        except Unavailable:
            return {}
        return found

    async def set(self, params: Params, _query: Params, body: Body) -> Answer:
        """{(proxy), (relay), (hold), (held), (address)} -> way; what is not named stays as it is."""
        node_id = NodeId(params["node_id"])
        wanted = Wanted(**{name: body.get(name) for name in ("proxy", "relay", "hold", "held")})
        address = body.get("address")

        def work(tx: Any) -> Answer:
            if address is not None:
                self._ways.move(tx, node_id, address)
            return asdict(self._ways.set(tx, node_id, wanted))

        way = await self._store.run(work)
        await self._tell()
        self._journal.note("partner.way", peer=node_id, **{name: way[name] for name in ("relay", "hold", "held")})
        return {**way, "parked": (await self._levels("parked")).get(node_id, 0)}

    async def relays(self, _params: Params, _query: Params, _body: Body) -> list[Answer]:
        """Pairs that are relayed for; open, carried: connections now, and bytes since the data process started."""
        open_, carried = await self._levels("relayed"), await self._levels("relayed_bytes")
        return [
            {**asdict(pair), "open": open_.get(pair.key(), 0), "carried": carried.get(pair.key(), 0)}
            for pair in await self._store.run(self._ways.pairs)
        ]

    async def allow(self, _params: Params, _query: Params, body: Body) -> Answer:
        """{nodes: [one, other], (bytes_per_s)} -> pair."""
        one, other = map(NodeId, body["nodes"])
        made = await self._store.run(
            lambda tx: self._ways.allow(tx, one, other, bytes_per_s=body.get("bytes_per_s") or 0)
        )
        await self._tell()
        return asdict(made)

    async def forbid(self, _params: Params, _query: Params, body: Body) -> Answer:
        """{nodes: [one, other]} -> the pair that is not relayed any more."""
        one, other = map(NodeId, body["nodes"])
        gone = await self._store.run(lambda tx: self._ways.forbid(tx, one, other))
        await self._tell()
        return asdict(gone)
