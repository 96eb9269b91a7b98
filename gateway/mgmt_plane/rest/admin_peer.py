"""Admin routes that put the rest of the management layer's calls to a partner into an admin's hands.

`ask` is every reading endpoint of part 1; `apply` asks for the approval of a flow or a model, which no other command
needs; `reconcile` repairs an approval whose confirm was lost.
"""

from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.rest.admin import show_audit
from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.rest.client import SignedClient
from gateway.mgmt_plane.rest.handlers import Services
from gateway.mgmt_plane.service.outgoing import new_trace
from gateway.model import Direction, NodeId
from gateway.ports import Entropy
from specs.admin import BASE
from specs.routes import MANAGEMENT
from specs.states import AuditKind

READING: Final = frozenset(name for name, route in MANAGEMENT.items() if route.method == "GET")
_NAMES_NO_CONTRACT: Final = frozenset({"node.query", "node.health", *(n for n in READING if n.endswith("audit.query"))})
_APPLIED_HERE: Final = {each.value: each for each in (AuditKind.FLOW, AuditKind.MODEL)}
_TEXT: Final = 4096

Params = Mapping[str, str]
Body = Mapping[str, Any]


class PeerAdmin:
    """The handlers; `routes` lists them."""

    def __init__(self, *, services: Services, client: SignedClient, entropy: Entropy) -> None:
        self._services = services
        self._client = client
        self._entropy = entropy

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("POST", BASE + "/partners/{node_id}/ask", self.ask),
            AdminRoute("POST", BASE + "/audits/apply", self.apply),
            AdminRoute("POST", BASE + "/audits/{applicant}/{audit_id}/reconcile", self.reconcile),
        ]

    async def ask(self, params: Params, _query: Params, body: Body) -> Any:
        """{route, (query: {name: text})} -> the partner's `data`. route: a name of specs.routes that only reads.

        contract_id is filled in where the endpoint has one, node_id of node/query too.
        """
        route, query = body.get("route"), body.get("query", {})
        if not isinstance(route, str) or route not in READING:
            raise ProtocolViolation(f"route must be one of {', '.join(sorted(READING))}")
        if not isinstance(query, Mapping) or not all(
            isinstance(value, str | int) and not isinstance(value, bool) and len(str(value)) <= _TEXT
            for value in query.values()
        ):
            raise ProtocolViolation("query must map names to short texts or whole numbers")
        node_id = NodeId(params["node_id"])
        contract = await self._services.store.run(lambda tx: self._services.partners.contract_with(tx, node_id))
        asked = dict(query)
        if route not in _NAMES_NO_CONTRACT:
            asked.setdefault("contract_id", contract.contract_id)
        elif route == "node.query":
            asked.setdefault("node_id", node_id)
        return (await self._client.call(contract, route, asked, trace_id=new_trace(self._entropy))).data

    async def apply(self, _params: Params, _query: Params, body: Body) -> Any:
        """{kind: flow | model, node_id, subject, (body)} -> audit. body: what else the apply carries (c.6, c.8)."""
        kind = _APPLIED_HERE.get(str(body.get("kind")))
        if kind is None:
            raise ProtocolViolation("kind must be flow or model; the others have their own commands")
        node_id, subject, more = body.get("node_id"), body.get("subject"), body.get("body", {})
        if not isinstance(node_id, str) or not isinstance(subject, str) or not isinstance(more, Mapping):
            raise ProtocolViolation("node_id and subject must be text, body an object")
        trace_id = new_trace(self._entropy)
        audit = await self._services.store.run(
            lambda tx: self._services.audits.apply(
                tx,
                kind=kind,
                contract=self._services.partners.contract_with(tx, NodeId(node_id)),
                subject=subject,
                body=more,
                trace_id=trace_id,
            )
        )
        return show_audit(audit)

    async def reconcile(self, params: Params, _query: Params, _body: Body) -> Any:
        """Ask the partner for the state of an application of ours and take it over where the standard lets us."""
        found = await self._services.store.run(
            lambda tx: self._services.audits.get(tx, params["applicant"], params["audit_id"])
        )
        route = f"{found.kind.value}.audit.query"
        if found.direction is not Direction.OUT or route not in READING:
            raise Refused("this is not something that the partner can be asked for", kind=Kind.ILLEGAL_TRANSITION)
        contract = await self._services.store.run(
            lambda tx: self._services.partners.contract_with(tx, found.peer_node_id)
        )
        reply = await self._client.call(
            contract, route, {"audit_id": found.audit_id}, trace_id=new_trace(self._entropy)
        )
        status = str(reply.data.get("status", ""))[:32]
        audit = await self._services.store.run(lambda tx: self._services.audits.reported(tx, found.key(), status))
        return {**show_audit(audit), "reported": status}
