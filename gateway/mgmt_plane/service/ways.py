"""How partners are reached where that is not simply at their address, and for whom this node relays.

An admin says so; the data process does it (data_plane.io.roads). A way may be set before there is a contract, since the
first contact needs it too, and outlives contracts. Works inside transactions that the callers open.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core.messages import check_address
from gateway.mgmt_plane.service.partners import Partners
from gateway.model import DIRECT, Contract, Direction, NodeId, PartnerWay, ProxyAddress, RelayPair
from gateway.ports import Clock, Network, Tx
from specs.states import ApprovalState

MOST: Final = 1000
"""Ways, and pairs that are relayed for."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an admin says of a way; None: as it is."""

    proxy: str | None = None
    relay: str | None = None
    hold: bool | None = None
    held: bool | None = None


class Ways:
    """All ways and relayed pairs of this node."""

    def __init__(self, *, partners: Partners, clock: Clock) -> None:
        self._partners = partners
        self._clock = clock

    def set(self, tx: Tx, node_id: NodeId, wanted: Wanted) -> PartnerWay:
        """Change how a node is reached. Raises ProtocolViolation for what cannot be meant together."""
        now = self._clock.now_ms()
        old = tx.get(PartnerWay, node_id)
        base = old or PartnerWay(node_id, proxy="", relay="", hold=False, held=False, created=now, updated=now)
        new = replace(base, **{name: value for name in _NAMES if (value := getattr(wanted, name)) is not None})
        self._check(new)
        if new == base:
            return base
        new = replace(new, updated=now)
        if old is None:
            if tx.count(PartnerWay) >= MOST:
                raise Refused(f"there are {MOST} ways already", kind=Kind.TOO_MANY)
            tx.insert(new)
        elif replace(new, created=0, updated=0) == PartnerWay(node_id, "", "", False, False, 0, 0):
            tx.delete(old)
        else:
            tx.replace(old, new)
        self._partners.routes_changed()
        return new

    def _check(self, way: PartnerWay) -> None:
        own = self._partners.identity.node_id
        if way.node_id == own:
            raise ProtocolViolation("that is this node itself")
        if way.relay in (own, way.node_id):
            raise ProtocolViolation("a relay is a third node")
        if way.proxy and way.proxy != DIRECT:
            ProxyAddress.of(way.proxy)
        if (way.held or way.relay) and (way.proxy not in ("", DIRECT) or (way.held and way.relay)):
            raise ProtocolViolation("one of proxy, relay and held, not two of them: take the other back first")
        if way.held and way.hold:
            raise ProtocolViolation("either side may keep connections open to the other, not both")

    def move(self, tx: Tx, node_id: NodeId, address: str) -> Sequence[Contract]:
        """The partner is at another address from now on. Raises Refused(NODE_UNKNOWN), ProtocolViolation."""
        return self._partners.set_address(tx, node_id, check_address(address))

    def get(self, tx: Tx, node_id: NodeId) -> PartnerWay:
        """The way to a node, also where nothing was said of it."""
        return tx.get(PartnerWay, node_id) or PartnerWay(node_id, "", "", False, False, 0, 0)

    def all(self, tx: Tx) -> Sequence[PartnerWay]:
        return tx.select(PartnerWay)

    # --- relays -----------------------------------------------------------------------------------------------------

    def allow(self, tx: Tx, one: NodeId, other: NodeId, *, bytes_per_s: int) -> RelayPair:
        """Pass bytes between two partners, in whichever direction they connect.

        Raises Refused(NODE_UNKNOWN, CONTRACT_INVALID) where one is no partner.
        """
        if one == other:
            raise ProtocolViolation("a relay is between two nodes")
        for each in (one, other):
            self._partners.contract_with(tx, each)
        first, second = sorted((one, other))
        made = RelayPair(first, second, bytes_per_s, self._clock.now_ms())
        old = tx.get(RelayPair, made.key())
        if old is None:
            if tx.count(RelayPair) >= MOST:
                raise Refused(f"there are {MOST} relayed pairs already", kind=Kind.TOO_MANY)
            tx.insert(made)
        elif old.bytes_per_s == bytes_per_s:
            return old
        else:
            made = replace(made, created=old.created)
            tx.replace(old, made)
        self._partners.routes_changed()
        return made

    def forbid(self, tx: Tx, one: NodeId, other: NodeId) -> RelayPair:
        """End relaying between two nodes, connections that stand included. Raises Refused(NOT_FOUND)."""
        first, second = sorted((one, other))
        found = tx.get(RelayPair, RelayPair(first, second, 0, 0).key())
        if found is None:
            raise Refused("this pair is not relayed", kind=Kind.NOT_FOUND)
        tx.delete(found)
        self._partners.routes_changed()
        return found

    def pairs(self, tx: Tx) -> Sequence[RelayPair]:
        return tx.select(RelayPair)

    # --- for the data process ---------------------------------------------------------------------------------------

    def network(self, tx: Tx) -> Network:
        """What the data process must know. Whoever we hold to must be able to confirm, too: APPLIED counts as well."""
        ways = self.all(tx)
        held_to = {way.node_id for way in ways if way.hold}
        holding = {route.node_id: route for route in self._partners.routes(tx) if route.node_id in held_to}
        for node_id in sorted(held_to - set(holding)):
            waiting = tx.select(Contract, peer_node_id=node_id, status=ApprovalState.APPLIED, order="-updated")
            for contract in waiting:
                if contract.direction is Direction.OUT and contract.tls_ca:
                    holding.setdefault(node_id, self._partners.route_of(contract, self._partners.lists(tx)))
        return Network(ways=ways, holding=list(holding.values()), relays=self.pairs(tx))


_NAMES: Final = ("proxy", "relay", "hold", "held")
