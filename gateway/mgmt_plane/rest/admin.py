"""Admin routes of the management layer: node, partners, datasets, audits, projects, outbox, events.

No answer holds a credential, a permit's token or the content of a dataset.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from gateway.auth.schemes import pin_ca
from gateway.errors import GatewayError, Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core.acl import check_scope_shape
from gateway.mgmt_plane.core.admin_messages import CALL_HIDDEN, CONTRACT_HIDDEN
from gateway.mgmt_plane.core.messages import check, dataset_record, node_body
from gateway.mgmt_plane.core.profile import PROFILES, UNSIGNED, apply_body_for, profile
from gateway.mgmt_plane.rest.admin_server import AdminHandler, AdminRoute, PersonalRoute
from gateway.mgmt_plane.rest.client import FirstContact, SignedClient
from gateway.mgmt_plane.rest.handlers import Services
from gateway.mgmt_plane.rest.listing import listed
from gateway.mgmt_plane.service.datasets import read_table
from gateway.mgmt_plane.service.decisions import CONTRACT, Decisions, show_decision
from gateway.mgmt_plane.service.notices import pending
from gateway.mgmt_plane.service.outgoing import new_trace
from gateway.mgmt_plane.service.partners import Pinned
from gateway.mgmt_plane.service.users import Principal
from gateway.model import Audit, Contract, ContractId, Dataset, Decision, Json, NodeId, OutCall, Project
from gateway.ports import Clock, Entropy, Journal, Tx
from specs.admin import BASE
from specs.states import AuditKind

_PAGES: Final = 1000
"""Pages of a partner's list that we ask for at most."""
_EVENTS: Final = 10_000

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AdminContext:
    """What the admin routes need besides the services. listeners: name -> address, shown as it is.

    four_eyes: kinds of which two admins must approve; decisions: who does.
    """

    services: Services
    client: SignedClient
    clock: Clock
    entropy: Entropy
    journal: Journal
    fingerprint: Callable[[], str]
    listeners: Mapping[str, Any]
    decisions: Decisions
    four_eyes: frozenset[str] = frozenset()


def _text(body: Mapping[str, Any], name: str, *, required: bool = True, longest: int = 4096) -> str:
    value = body.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value) or len(value) > longest:
        raise ProtocolViolation(f"{name} must be text of at most {longest} characters")
    return value


def _number(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ProtocolViolation(f"{name} must be a positive whole number")
    return value


def _texts(body: Mapping[str, Any], name: str) -> list[str]:
    value = body.get(name, [])
    if isinstance(value, str):
        return [each.strip() for each in value.split(",") if each.strip()]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ProtocolViolation(f"{name} must be a list of texts")
    return value


def show_contract(contract: Contract) -> Answer:
    """A contract without the bodies of its credentials."""
    return {name: value for name, value in asdict(contract).items() if name not in CONTRACT_HIDDEN}


def show_audit(audit: Audit) -> Answer:
    """An audit without its permit's token."""
    shown = asdict(replace(audit, permit=None))
    if audit.permit is not None:
        shown["permit"] = {name: value for name, value in audit.permit.items() if name != "token"}
    return shown


def show_call(call: OutCall) -> Answer:
    """A call of the outbox without its body."""
    return {name: value for name, value in asdict(replace(call, body={})).items() if name not in CALL_HIDDEN}


def _open_decisions(tx: Tx) -> dict[str, Decision]:
    """First words that wait for a second."""
    return {each.key(): each for each in tx.select(Decision, final=False)}


class Admin:
    """The handlers; `routes` lists them."""

    def __init__(self, context: AdminContext) -> None:
        self._context = context
        self._services = context.services
        self._store = context.services.store
        self._partners = context.services.partners
        self._audits = context.services.audits

    def routes(self) -> list[AdminRoute]:
        table: tuple[tuple[str, str, AdminHandler], ...] = (
            ("GET", "/node", self.node),
            ("GET", "/partners", self.partners),
            ("POST", "/partners/probe", self.probe),
            ("POST", "/partners/apply", self.apply),
            ("POST", "/partners/{contract_id}/terminate", self.terminate_partner),
            ("POST", "/partners/{contract_id}/query", self.query_partner),
            ("GET", "/partners/{node_id}/datasets", self.partner_datasets),
            ("GET", "/datasets", self.datasets),
            ("POST", "/datasets", self.add_dataset),
            ("POST", "/datasets/apply", self.apply_dataset),
            ("GET", "/audits", self.audits),
            ("POST", "/audits/{applicant}/{audit_id}/terminate", self.terminate_audit),
            ("GET", "/projects", self.projects),
            ("POST", "/projects", self.add_project),
            ("GET", "/outbox", self.outbox),
            ("GET", "/events", self.events),
            ("GET", "/pending", self.pending),
        )
        return [
            *(AdminRoute(method, BASE + path, handler) for method, path, handler in table),
            PersonalRoute("POST", BASE + "/partners/{contract_id}/approve", self.approve_partner),
            PersonalRoute("POST", BASE + "/partners/{contract_id}/reject", self.reject_partner),
            PersonalRoute("POST", BASE + "/audits/{applicant}/{audit_id}/approve", self.approve_audit),
            PersonalRoute("POST", BASE + "/audits/{applicant}/{audit_id}/reject", self.reject_audit),
        ]

    def _noted(self, event: str, **ids: str) -> None:
        self._context.journal.note(event, **ids)

    # --- node -------------------------------------------------------------------------------------------------------

    async def node(self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]) -> Answer:
        return {
            **node_body(self._services.identity),
            "fingerprint": self._context.fingerprint(),
            "listeners": dict(self._context.listeners),
        }

    # --- partners ---------------------------------------------------------------------------------------------------

    async def partners(
        self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> list[Answer]:
        def work(tx: Tx) -> list[Answer]:
            said = _open_decisions(tx)
            return [
                {**show_contract(each), "decision": show_decision(said.get(f"{CONTRACT}:{each.key()}"))}
                for each in tx.select(Contract)
            ]

        return await self._store.run(work)

    async def probe(self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        found = await self._contact(body)
        return {
            "node_id": found.node_id,
            "node": found.node,
            "fingerprint": found.fingerprint,
            "ca_pem": found.ca_pem,
        }

    async def _contact(self, body: Mapping[str, Any]) -> FirstContact:
        node_id = _text(body, "node_id", required=False, longest=128) or None
        return await self._context.client.first_contact(_text(body, "address"), node_id=node_id)

    async def apply(self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        """Apply for a contract with the node whose CA has the fingerprint that was compared out of band (ADR 0003)."""
        client, identity = self._context.client, self._services.identity
        wanted = _text(body, "fingerprint", longest=128).lower().replace(":", "")
        node_id = _text(body, "node_id", longest=128)
        expired_time, description = _number(body, "expired_time"), _text(body, "description", required=False)
        if node_id == identity.node_id:
            raise ProtocolViolation("that is this node itself")
        dialect = _text(body, "profile", required=False, longest=64)
        if dialect and (dialect not in PROFILES or not PROFILES[dialect].managed or dialect == UNSIGNED):
            raise ProtocolViolation(f"{dialect} is no profile to apply in")
        given = _text(body, "ca_pem", required=False, longest=32 << 10)
        if given:
            tls_ca, mark = pin_ca(given, now_ms=self._context.clock.now_ms())
        else:
            found = await self._contact(body)
            tls_ca, mark = found.ca_pem, found.fingerprint
        if mark != wanted:
            raise Refused(f"the server's CA has fingerprint {mark}, not the one given", kind=Kind.UNAUTHENTICATED)
        pinned = Pinned(tls_ca, mark)
        trace_id = new_trace(self._context.entropy)
        contact = self._partners.applicant(
            node={"node_id": node_id}, address=_text(body, "address"), pinned=pinned, description=description
        )
        if dialect:
            contact = replace(contact, profile=dialect)
        sent = self._partners.apply_body(expired_time=expired_time, description=description)
        about = await client.call(contact, "node.query", {"node_id": node_id}, trace_id=trace_id)
        node = {name: "".join(filter(str.isprintable, str(value)))[:256] for name, value in about.data.items()}
        if node.get("node_id") != node_id:
            raise Refused("the server says that it is another node", kind=Kind.PEER_MALFORMED)
        spoken = contact.profile
        contact = self._partners.applicant(
            node=node, address=contact.peer_address, pinned=pinned, description=description
        )
        contact = replace(contact, profile=spoken)
        sent = dict(apply_body_for(profile(spoken), sent, receiver=node))
        reply = await client.call(contact, "node.contract.apply", sent, trace_id=trace_id)
        try:
            contract_id = check("node.contract.query", reply.data)["contract_id"]
        except ProtocolViolation as e:
            raise ProtocolViolation("the answer to apply has no usable contract_id", kind=Kind.PEER_MALFORMED) from e
        made = replace(contact, contract_id=ContractId(contract_id), expired_time=expired_time)
        contract = await self._store.run(lambda tx: self._partners.applied(tx, made))
        self._noted("contract.state", contract_id=contract.contract_id, peer=node_id, status=contract.status.value)
        return show_contract(contract)

    async def approve_partner(
        self, by: Principal, params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]
    ) -> Answer:
        return await self._decide_partner(by, params, body, approve=True)

    async def reject_partner(
        self, by: Principal, params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]
    ) -> Answer:
        return await self._decide_partner(by, params, body, approve=False)

    async def _decide_partner(
        self, by: Principal, params: Mapping[str, str], body: Mapping[str, Any], *, approve: bool
    ) -> Answer:
        contract_id = params["contract_id"]
        terms = {
            "expired_time": _number(body, "expired_time"),
            "fingerprint": _text(body, "fingerprint", required=False, longest=128) or None,
            "ca_pem": _text(body, "ca_pem", required=False, longest=32 << 10) or None,
            "address": _text(body, "address", required=False, longest=2048) or None,
            "inst_id": _text(body, "inst_id", required=False, longest=128) or None,
        }

        def do(tx: Tx, counts: Json) -> Contract:
            return self._partners.decide(
                tx,
                contract_id,
                approve=approve,
                expired_time=counts.get("expired_time"),
                fingerprint=counts.get("fingerprint"),
                ca_pem=counts.get("ca_pem"),
                address=counts.get("address", ""),
                inst_id=counts.get("inst_id", ""),
            )

        done = await self._context.decisions.decide(
            self._store,
            by,
            find=lambda tx: self._partners.get(tx, contract_id),
            approve=approve,
            terms=terms if approve else {},
            do=do,
        )
        if done is None:
            waiting = await self._store.run(lambda tx: self._partners.get(tx, contract_id))
            return {**show_contract(waiting), **await self._said(f"{CONTRACT}:{contract_id}")}
        return {**self._changed(done), **await self._said(f"{CONTRACT}:{contract_id}")}

    async def _said(self, key: str) -> Answer:
        return {"decision": show_decision(await self._store.run(lambda tx: tx.get(Decision, key)))}

    def _changed(self, contract: Contract) -> Answer:
        self._noted(
            "contract.state",
            contract_id=contract.contract_id,
            peer=contract.peer_node_id,
            status=contract.status.value,
        )
        return show_contract(contract)

    async def terminate_partner(
        self, params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> Answer:
        return self._changed(await self._store.run(lambda tx: self._partners.terminate(tx, params["contract_id"])))

    async def query_partner(
        self, params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> Answer:
        """Ask the partner for the state of a contract whose confirm never came (M-039)."""
        contract = await self._store.run(lambda tx: self._partners.get(tx, params["contract_id"]))
        reply = await self._context.client.call(
            contract,
            "node.contract.query",
            {"contract_id": contract.contract_id},
            trace_id=new_trace(self._context.entropy),
        )
        status = str(reply.data.get("status", ""))[:32]
        contract = await self._store.run(lambda tx: self._partners.reported(tx, contract.contract_id, status))
        return {**self._changed(contract), "reported": status}

    async def _contract_with(self, node_id: NodeId) -> Contract:
        return await self._store.run(lambda tx: self._partners.contract_with(tx, node_id))

    async def partner_datasets(
        self, params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> list[Any]:
        """All pages of a partner's public list."""
        contract = await self._contract_with(NodeId(params["node_id"]))
        trace_id = new_trace(self._context.entropy)
        records: list[Any] = []
        for number in range(1, _PAGES + 1):
            reply = await self._context.client.call(
                contract,
                "dataset.pub.list",
                {"contract_id": contract.contract_id, "page_num": number, "page_size": 100},
                trace_id=trace_id,
            )
            page, total = reply.data.get("records"), reply.data.get("total")
            if not isinstance(page, list) or not isinstance(total, int):
                raise ProtocolViolation("the partner's list has no records or total", kind=Kind.PEER_MALFORMED)
            records.extend(page)
            if not page or len(records) >= total:
                break
        return records

    # --- datasets ---------------------------------------------------------------------------------------------------

    async def datasets(
        self, _params: Mapping[str, str], query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> list[Answer]:
        found = await self._store.run(lambda tx: listed(tx, Dataset, query))
        return [{**dataset_record(each), "public": each.public, "location": each.location} for each in found]

    async def add_dataset(
        self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]
    ) -> Answer:
        path, name = Path(_text(body, "path")), _text(body, "name", longest=256)
        dataset_id = _text(body, "dataset_id", required=False, longest=128)
        if any(each.isspace() or each in "/,\\" or not each.isprintable() for each in dataset_id):
            raise ProtocolViolation("dataset_id must hold no space, / , or \\")
        public = body.get("public", True)
        if not isinstance(public, bool):
            raise ProtocolViolation("public must be true or false")
        labels = _texts(body, "label_columns")
        id_column = _text(body, "id_column", required=False)
        description = _text(body, "description", required=False)
        category = _text(body, "category", required=False)
        table = await asyncio.to_thread(read_table, path)
        dataset = await self._store.run(
            lambda tx: self._services.datasets.add(
                tx,
                table,
                name=name,
                path=path,
                dataset_id=dataset_id,
                id_column=id_column,
                label_columns=labels,
                public=public,
                description=description,
                category=category,
            )
        )
        return {**dataset_record(dataset), "public": dataset.public, "location": dataset.location}

    async def apply_dataset(
        self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]
    ) -> Answer:
        node_id, dataset_id = NodeId(_text(body, "node_id", longest=128)), _text(body, "dataset_id", longest=128)
        asked: dict[str, Any] = {}
        scope = body.get("auth_scope")
        if scope is not None:
            if not isinstance(scope, Mapping):
                raise ProtocolViolation("auth_scope must be an object")
            check_scope_shape(scope)
            asked["auth_scope"] = scope
        for name in ("time_limit", "times_limit"):
            value = _number(body, name)
            if value is not None:
                asked[name] = value
        trace_id = new_trace(self._context.entropy)
        audit = await self._store.run(
            lambda tx: self._audits.apply(
                tx,
                kind=AuditKind.DATASET,
                contract=self._partners.contract_with(tx, node_id),
                subject=dataset_id,
                body=asked,
                trace_id=trace_id,
            )
        )
        return self._decided(audit)

    # --- audits -----------------------------------------------------------------------------------------------------

    def _decided(self, audit: Audit) -> Answer:
        job = {"job_id": audit.subject} if audit.kind is AuditKind.JOB else {}
        self._noted(
            "audit.state",
            audit_id=audit.audit_id,
            peer=audit.peer_node_id,
            kind=audit.kind.value,
            status=audit.status.value,
            **job,
        )
        return show_audit(audit)

    async def audits(
        self, _params: Mapping[str, str], query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> list[Answer]:
        equals: dict[str, Any] = {
            name: query[name] for name in ("kind", "direction", "status", "subject") if query.get(name)
        }

        def work(tx: Tx) -> list[Answer]:
            said = _open_decisions(tx)
            return [
                {**show_audit(each), "decision": show_decision(said.get(f"{each.kind}:{each.key()}"))}
                for each in listed(tx, Audit, query, **equals)
            ]

        return await self._store.run(work)

    async def pending(
        self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> list[Answer]:
        """What waits for an admin of this node, oldest first."""
        return await self._store.run(lambda tx: pending(tx, self._context.four_eyes))

    @staticmethod
    def _key(params: Mapping[str, str]) -> str:
        return f"{params['applicant']}/{params['audit_id']}"

    async def approve_audit(
        self, by: Principal, params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]
    ) -> Answer:
        terms = {
            "columns": _texts(body, "columns"),
            "time_limit": _number(body, "time_limit"),
            "times_limit": _number(body, "times_limit"),
        }
        return await self._decide_audit(by, self._key(params), terms, approve=True)

    async def reject_audit(
        self, by: Principal, params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> Answer:
        return await self._decide_audit(by, self._key(params), {}, approve=False)

    async def _decide_audit(self, by: Principal, key: str, terms: Json, *, approve: bool) -> Answer:
        def do(tx: Tx, counts: Json) -> Audit:
            return self._audits.decide(
                tx,
                key,
                approve=approve,
                columns=counts.get("columns", ()),
                time_limit=counts.get("time_limit"),
                times_limit=counts.get("times_limit"),
            )

        def find(tx: Tx) -> Audit:
            return self._audits.get(tx, *key.split("/", 1))

        done = await self._context.decisions.decide(self._store, by, find=find, approve=approve, terms=terms, do=do)
        audit: Audit = await self._store.run(find) if done is None else done
        said = await self._said(f"{audit.kind}:{key}")
        return {**(show_audit(audit) if done is None else self._decided(audit)), **said}

    async def terminate_audit(
        self, params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> Answer:
        return self._decided(await self._store.run(lambda tx: self._audits.terminate(tx, self._key(params))))

    # --- projects ---------------------------------------------------------------------------------------------------

    async def projects(
        self, _params: Mapping[str, str], query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> list[Answer]:
        return [asdict(each) for each in await self._store.run(lambda tx: listed(tx, Project, query))]

    async def add_project(
        self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]
    ) -> Answer:
        datasets = body.get("datasets", {})
        if not isinstance(datasets, Mapping) or not all(
            isinstance(ids, list) and all(isinstance(each, str) for each in ids) for ids in datasets.values()
        ):
            raise ProtocolViolation("datasets must map node ids to lists of dataset ids")
        name, kind = _text(body, "name", longest=256), _text(body, "type")
        description = _text(body, "description", required=False)
        wanted = {NodeId(node): list(ids) for node, ids in datasets.items()}
        known = await self._known(wanted)
        project: Project = await self._store.run(
            lambda tx: self._services.projects.create(
                tx, name=name, kind=kind, description=description, datasets=wanted, known=known
            )
        )
        self._noted("project.created", project_id=project.project_id)
        return asdict(project)

    async def _known(self, datasets: Mapping[NodeId, Sequence[str]]) -> dict[str, Mapping[str, Any]]:
        """What partners say of the datasets that a project names; without an answer, their ids must do."""
        known: dict[str, Mapping[str, Any]] = {}
        for node, ids in datasets.items():
            if node == self._services.identity.node_id:
                continue
            contract = await self._contract_with(node)
            for dataset_id in ids:
                try:
                    reply = await self._context.client.call(
                        contract,
                        "dataset.pub.query",
                        {"contract_id": contract.contract_id, "dataset_id": dataset_id},
                        trace_id=new_trace(self._context.entropy),
                    )
                except GatewayError:
                    continue
                known[dataset_id] = reply.data
        return known

    # --- what happens -----------------------------------------------------------------------------------------------

    async def outbox(
        self, _params: Mapping[str, str], query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> list[Answer]:
        equals: dict[str, Any] = {"state": query["state"]} if query.get("state") else {}
        calls = await self._store.run(lambda tx: listed(tx, OutCall, query, order="-created", **equals))
        return [show_call(each) for each in calls]

    async def events(
        self, _params: Mapping[str, str], query: Mapping[str, str], _body: Mapping[str, Any]
    ) -> list[Mapping[str, Any]]:
        text = query.get("limit", "200")
        if not (text.isascii() and text.isdigit() and len(text) <= 5):
            raise ProtocolViolation("limit must be a number")
        equals = {name: value for name, value in query.items() if name != "limit"}
        return list(self._context.journal.recent(limit=min(int(text), _EVENTS), **equals))
