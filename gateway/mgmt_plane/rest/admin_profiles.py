"""Admin routes of partners that are not as v1.2.0 says: set a profile, find the one that fits, record by hand."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.auth.schemes import pin_ca
from gateway.errors import GatewayError, PeerError, ProtocolViolation, Unavailable
from gateway.mgmt_plane.core.acl import check_scope_shape
from gateway.mgmt_plane.core.doctor import ASKED, ROUTES, Outcome, Seen, diagnose
from gateway.mgmt_plane.core.profile import PROFILES, has_seconds
from gateway.mgmt_plane.rest.admin import show_audit, show_contract
from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.rest.client import SignedClient
from gateway.mgmt_plane.rest.handlers import Services
from gateway.mgmt_plane.service.outgoing import new_trace
from gateway.mgmt_plane.service.partners import Described
from gateway.model import Contract, NodeId
from gateway.ports import Clock, Entropy, Journal
from specs.admin import BASE

Params = Mapping[str, str]
Body = Mapping[str, Any]
_LONGEST = 256


def _text(body: Body, name: str, *, required: bool = True, longest: int = _LONGEST) -> str:
    value = body.get(name, "")
    if not isinstance(value, str) or len(value) > longest or not value.isprintable() or (required and not value):
        raise ProtocolViolation(f"{name} must be printable text of at most {longest} characters")
    return value


def _number(body: Body, name: str) -> int | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ProtocolViolation(f"{name} must be a positive whole number")
    return value


class ProfileAdmin:
    """The handlers; `routes` lists them."""

    def __init__(
        self, *, services: Services, client: SignedClient, clock: Clock, entropy: Entropy, journal: Journal
    ) -> None:
        self._services = services
        self._client = client
        self._clock = clock
        self._entropy = entropy
        self._journal = journal

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("GET", BASE + "/profiles", self.profiles),
            AdminRoute("POST", BASE + "/partners/record", self.record),
            AdminRoute("POST", BASE + "/partners/{node_id}/profile", self.set_profile),
            AdminRoute("POST", BASE + "/partners/{node_id}/doctor", self.doctor),
            AdminRoute("POST", BASE + "/grants/record", self.record_grant),
        ]

    async def profiles(self, _params: Params, _query: Params, _body: Body) -> Any:
        """Names of the profiles there are."""
        return sorted(PROFILES)

    async def set_profile(self, params: Params, _query: Params, body: Body) -> Any:
        """{profile} -> [contract]: those with this node that are open."""
        node_id, name = NodeId(params["node_id"]), _text(body, "profile")
        changed = await self._services.store.run(lambda tx: self._services.partners.set_profile(tx, node_id, name))
        self._journal.note("partner.profile", peer=node_id, profile=name)
        return [show_contract(each) for each in changed]

    async def record(self, _params: Params, _query: Params, body: Body) -> Any:
        """A contract from what it says.

        {node_id, profile, (inst_id), (name), (institution), (address), (transport_address), (ca_pem), (expired_time)}
        """
        ca_pem = body.get("ca_pem", "")
        if not isinstance(ca_pem, str) or len(ca_pem) > 32 << 10:
            raise ProtocolViolation("ca_pem must be PEM text")
        tls_ca, fingerprint = pin_ca(ca_pem, now_ms=self._clock.now_ms()) if ca_pem else ("", "")
        described = Described(
            node_id=NodeId(_text(body, "node_id", longest=128)),
            inst_id=_text(body, "inst_id", required=False, longest=128),
            name=_text(body, "name", required=False),
            institution=_text(body, "institution", required=False),
            address=_text(body, "address", required=False, longest=2048),
            transport=_text(body, "transport_address", required=False, longest=2048),
            profile=_text(body, "profile"),
            tls_ca=tls_ca,
            fingerprint=fingerprint,
            expired_time=_number(body, "expired_time"),
        )
        made = await self._services.store.run(lambda tx: self._services.partners.record(tx, described))
        self._journal.note("contract.recorded", contract_id=made.contract_id, peer=made.peer_node_id)
        return show_contract(made)

    async def record_grant(self, _params: Params, _query: Params, body: Body) -> Any:
        """{node_id, dataset_id, (auth_scope), (columns), (time_limit), (times_limit)} -> audit."""
        scope, columns = body.get("auth_scope", {}), body.get("columns", [])
        if not isinstance(scope, Mapping):
            raise ProtocolViolation("auth_scope must be an object")
        check_scope_shape(scope)
        if not isinstance(columns, list) or not all(isinstance(each, str) for each in columns):
            raise ProtocolViolation("columns must be a list of texts")
        node_id, dataset_id = NodeId(_text(body, "node_id", longest=128)), _text(body, "dataset_id", longest=128)
        time_limit, times_limit = _number(body, "time_limit"), _number(body, "times_limit")
        made = await self._services.store.run(
            lambda tx: self._services.audits.record_grant(
                tx,
                user=node_id,
                dataset_id=dataset_id,
                scope=scope,
                columns=columns,
                time_limit=time_limit,
                times_limit=times_limit,
            )
        )
        self._journal.note("grant.recorded", audit_id=made.audit_id, peer=node_id)
        return show_audit(made)

    async def doctor(self, params: Params, _query: Params, _body: Body) -> Any:
        """-> {fits, words, seen}: asks the partner a few reading endpoints in several dialects; changes nothing."""
        node_id = NodeId(params["node_id"])
        contract = await self._services.store.run(lambda tx: self._services.partners.contract_with(tx, node_id))
        seen: dict[tuple[str, str], Seen] = {}
        for name in ASKED:
            for route in ROUTES:
                seen[name, route] = await self._look(replace(contract, profile=name), route)
                if seen[name, route].outcome is Outcome.SILENT:
                    found = diagnose({("strict-1.2", "node.query"): Seen(Outcome.SILENT)}, now=contract.profile)
                    return {"fits": "", "words": list(found.words), "seen": []}
        found = diagnose(seen, now=contract.profile)
        return {
            "fits": found.fits,
            "words": list(found.words),
            "seen": [
                {"profile": name, "route": route, "outcome": each.outcome.value, "code": each.code}
                for (name, route), each in seen.items()
            ],
        }

    async def _look(self, contract: Contract, route: str) -> Seen:
        query: dict[str, Any] = {}
        if route == "node.query":
            query = {"node_id": contract.peer_node_id}
        elif route != "node.health":
            query = {"contract_id": contract.contract_id, "page_size": 1}
        try:
            reply = await self._client.call(contract, route, query, trace_id=new_trace(self._entropy))
        except PeerError as e:
            return Seen(Outcome.REFUSED, e.peer_code)
        except Unavailable:
            return Seen(Outcome.SILENT)
        except GatewayError:
            return Seen(Outcome.UNREADABLE)
        return Seen(Outcome.OK, seconds=has_seconds(reply.data))
