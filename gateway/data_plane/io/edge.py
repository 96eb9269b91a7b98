"""Who is at the other end of an edge connection: TLS identity -> proven NodeId, asked anew for every request.

No route, no certificate, another CA, an expired leaf: refused. Missing configuration means refuse.
"""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.auth.revocation import NONE, Revocations
from gateway.data_plane.io import tls
from gateway.errors import Kind, Refused
from gateway.model import NodeId
from gateway.ports import Clock, PeerRoute


@dataclass(frozen=True, slots=True)
class _Shown:
    chain: list[bytes]
    leaf: tls.Leaf


class Edge:
    """Knows the pinned CA of each partner with an approved contract; two while a partner changes its CA.

    lists: the partners' revocation lists.
    """

    def __init__(self, clock: Clock, lists: Revocations = NONE) -> None:
        self._clock = clock
        self._lists = lists
        self._roots: Mapping[NodeId, tuple[bytes, ...]] = {}
        self._shown: weakref.WeakKeyDictionary[Any, _Shown] = weakref.WeakKeyDictionary()

    def set_roots(self, roots: Mapping[NodeId, tuple[bytes, ...]]) -> None:
        """Replace the pinned CAs (DER). Connections that stand lose what they could prove before."""
        self._roots = roots

    @property
    def roots(self) -> Mapping[NodeId, tuple[bytes, ...]]:
        return self._roots

    def prove(self, ssl_object: Any | None) -> NodeId:
        """The partner at the other end. Raises Refused(UNAUTHENTICATED)."""
        shown = self._look(ssl_object)
        if shown is None:
            raise Refused("a client certificate is required", kind=Kind.UNAUTHENTICATED)
        node = shown.leaf.node_id
        if not tls.vouches(shown.chain, roots=self._roots.get(node, ()), node_id=node):
            raise Refused("the client certificate is no partner's", kind=Kind.UNAUTHENTICATED)
        self._check(shown)
        return node

    def lapsed(self, ssl_object: Any | None) -> Refused | None:
        """Why the certificate that a connection has shown, of either direction, counts no more, whoever's it is.

        None where it still does, or none was shown.
        """
        shown = self._look(ssl_object)
        if shown is None:
            return None
        try:
            self._check(shown)
        except Refused as e:
            return e
        return None

    def partner(self, ssl_object: Any | None) -> tuple[tls.Leaf, bytes] | None:
        """The certificate (and its DER) of the partner at the other end, of either direction; None for anybody else."""
        shown = self._look(ssl_object)
        if shown is None:
            return None
        node = shown.leaf.node_id
        known = tls.vouches(shown.chain, roots=self._roots.get(node, ()), node_id=node)
        return (shown.leaf, shown.chain[0]) if known else None

    def leaf(self, ssl_object: Any | None) -> bytes | None:
        """DER of a client certificate that a pinned CA vouches for now; whom it may speak for is control's to say."""
        shown = self._look(ssl_object)
        if shown is None or not any(shown.chain[-1] in roots for roots in self._roots.values()):
            return None
        return shown.chain[0]

    def _check(self, shown: _Shown) -> None:
        """Raises Refused(UNAUTHENTICATED) for a certificate that has expired or was revoked."""
        now = self._clock.now_ms()
        if shown.leaf.not_after_ms <= now:
            raise Refused("the certificate has expired", kind=Kind.UNAUTHENTICATED)
        if len(shown.chain) == 2:  # nobody's leaf otherwise
            tls.check_revoked(shown.chain, self._lists, now_ms=now)

    def _look(self, ssl_object: Any | None) -> _Shown | None:
        if ssl_object is None:
            return None
        shown = self._shown.get(ssl_object)
        if shown is None:
            chain = tls.verified_chain(ssl_object)
            if not chain:
                return None
            shown = self._shown[ssl_object] = _Shown(chain, tls.read_leaf(chain[0]))
        return shown


def roots_of(
    routes: Sequence[PeerRoute], *, pinned: Mapping[NodeId, tuple[bytes, ...]]
) -> tuple[Mapping[NodeId, tuple[bytes, ...]], Sequence[str]]:
    """(node id -> DER of its CAs, what is wrong with the others in words); a route without a usable CA proves nobody.

    pinned: what was pinned before. A verifier looks for a root by its subject name and takes the first it finds, so a
    CA that bears the name of another partner's CA would shut that partner out: the one pinned earlier stays.
    """
    problems: list[str] = []
    found: list[tuple[NodeId, bytes]] = []
    for route in routes:
        try:
            found += ((route.node_id, der) for der in tls.ca_ders(route.tls_ca))
        except Refused as e:
            problems.append(f"{route.node_id}: {e}")
    found.sort(key=lambda item: item[1] not in pinned.get(item[0], ()))
    roots: dict[NodeId, tuple[bytes, ...]] = {}
    owners: dict[str, bytes] = {}
    for node, der in found:
        if owners.setdefault(tls.subject(der), der) == der:
            roots[node] = (*roots.get(node, ()), der)
        else:
            problems.append(f"{node}: its CA bears the name of another CA")
    return roots, problems
