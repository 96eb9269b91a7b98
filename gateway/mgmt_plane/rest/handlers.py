"""What partners may ask of the management layer: one short function per endpoint, all audits by one (1-management c).

The edge has proven the caller and checked the payload; state changes happen in the services.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gateway.errors import Kind, Refused
from gateway.mgmt_plane.core.messages import (
    component_code,
    component_detail,
    component_record,
    node_body,
    page_of,
    paged,
)
from gateway.mgmt_plane.rest.edge import Handler
from gateway.mgmt_plane.rest.streamed import BATCH, Records, Streamed, in_batches
from gateway.mgmt_plane.service.audits import Audits
from gateway.mgmt_plane.service.datasets import Datasets
from gateway.mgmt_plane.service.keys import Keys
from gateway.mgmt_plane.service.partners import Partners
from gateway.mgmt_plane.service.projects import Projects
from gateway.model import Component, Dataset, Identity, Limits
from gateway.ports import Caller, Store, Tx
from specs.routes import ROUTES
from specs.states import AuditKind

Payload = Mapping[str, Any]
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers work with."""

    identity: Identity
    store: Store
    limits: Limits
    partners: Partners
    audits: Audits
    datasets: Datasets
    projects: Projects
    keys: Keys | None = None
    """None: node/update is not offered (optional, M-037)."""


def management_handlers(services: Services) -> dict[str, Handler]:
    """The handlers of the management layer by name of specs.routes."""
    handlers: dict[str, Handler] = {
        name: partial(handler, services)
        for name, handler in {
            "node.contract.apply": contract_apply,
            "node.contract.confirm": contract_confirm,
            "node.contract.terminate": contract_terminate,
            "node.contract.query": contract_query,
            "node.query": node_query,
            "node.health": node_health,
            "dataset.pub.list": dataset_list,
            "dataset.pub.query": dataset_query,
            "project.list": project_list,
            "project.query": project_query,
            "component.list": component_list,
            "component.query": component_query,
        }.items()
    }
    if services.keys is not None:
        handlers["node.update"] = partial(node_update, services.store, services.keys)
    verbs = {"apply": audit_apply, "confirm": audit_confirm, "terminate": audit_terminate, "query": audit_query}
    for kind in AuditKind:
        for verb, audit_handler in verbs.items():
            name = f"{kind.value}.audit.{verb}"
            if name in ROUTES:  # there is no job.audit.query (M-067)
                handlers[name] = partial(audit_handler, services, kind)
    return handlers


# --- node -----------------------------------------------------------------------------------------------------------


async def contract_apply(services: Services, caller: Caller, body: Payload) -> Payload:
    contract = await services.store.run(lambda tx: services.partners.receive_apply(tx, caller, body))
    return {"contract_id": contract.contract_id}


async def contract_confirm(services: Services, caller: Caller, body: Payload) -> Payload:
    await services.store.run(lambda tx: services.partners.confirmed(tx, caller, body))
    return _NOTHING


async def node_update(store: Store, keys: Keys, caller: Caller, body: Payload) -> Payload:
    done = await store.run(lambda tx: keys.updated(tx, caller, body))
    if done.waits:
        raise Refused("the new trust anchor waits for the word of this node's administrator")
    return _NOTHING


async def contract_terminate(services: Services, caller: Caller, body: Payload) -> Payload:
    await services.store.run(lambda tx: services.partners.terminated(tx, caller, body))
    return _NOTHING


async def contract_query(services: Services, caller: Caller, query: Payload) -> Payload:
    contract = await services.store.run(lambda tx: services.partners.of_caller(tx, caller, query["contract_id"]))
    return {"status": contract.status.value}


async def node_query(services: Services, _caller: Caller, query: Payload) -> Payload:
    if query["node_id"] != services.identity.node_id:
        raise Refused("node/query for another node", kind=Kind.NODE_UNKNOWN, detail="")
    return node_body(services.identity)


async def node_health(_services: Services, _caller: Caller, _query: Payload) -> Payload:
    return {"status": "ok"}


# --- dataset --------------------------------------------------------------------------------------------------------


async def dataset_list(services: Services, caller: Caller, query: Payload) -> Payload | Streamed:
    page = page_of(query, services.limits, whole=services.limits.streamed_records)
    most = max(BATCH, services.limits.page_size)

    def work(tx: Tx) -> Payload | None:
        """None: what was asked for is streamed."""
        services.partners.valid_of_caller(tx, caller, query["contract_id"])
        if page.whole and BATCH < services.datasets.count_public(tx) <= page.limit:
            return None
        return paged(*services.datasets.public(tx, replace(page, limit=min(page.limit, most))), page)

    def more(tx: Tx, after: Dataset | None) -> tuple[Records, Dataset | None]:
        services.partners.valid_of_caller(tx, caller, query["contract_id"])
        return services.datasets.public_after(tx, after, most=BATCH)

    whole = await services.store.run(work)
    return Streamed(in_batches(services.store, more, most=page.limit)) if whole is None else whole


async def dataset_query(services: Services, caller: Caller, query: Payload) -> Payload:
    def work(tx: Tx) -> Payload:
        services.partners.valid_of_caller(tx, caller, query["contract_id"])
        return services.datasets.detail(tx, user=caller.node_id, dataset_id=query["dataset_id"])

    return await services.store.run(work)


# --- audits ---------------------------------------------------------------------------------------------------------


async def audit_apply(services: Services, kind: AuditKind, caller: Caller, body: Payload) -> Payload:
    await services.store.run(lambda tx: services.audits.receive_apply(tx, caller, kind, body))
    return _NOTHING


async def audit_confirm(services: Services, kind: AuditKind, caller: Caller, body: Payload) -> Payload:
    await services.store.run(lambda tx: services.audits.confirmed(tx, caller, kind, body))
    return _NOTHING


async def audit_terminate(services: Services, kind: AuditKind, caller: Caller, body: Payload) -> Payload:
    await services.store.run(lambda tx: services.audits.terminated(tx, caller, kind, body))
    return _NOTHING


async def audit_query(services: Services, kind: AuditKind, caller: Caller, query: Payload) -> Payload:
    audit = await services.store.run(lambda tx: services.audits.of_caller(tx, caller, kind, query["audit_id"]))
    return {"status": audit.status.value}


# --- project --------------------------------------------------------------------------------------------------------


async def project_list(services: Services, caller: Caller, query: Payload) -> Payload:
    page = page_of(query, services.limits)

    def work(tx: Tx) -> Payload:
        services.partners.valid_of_caller(tx, caller, query["contract_id"])
        return paged(*services.projects.list_for(tx, node_id=caller.node_id, page=page), page)

    return await services.store.run(work)


async def project_query(services: Services, caller: Caller, query: Payload) -> Payload:
    def work(tx: Tx) -> Payload:
        services.partners.valid_of_caller(tx, caller, query["contract_id"])
        return services.projects.detail_for(tx, node_id=caller.node_id, project_id=query["project_id"])

    return await services.store.run(work)


# --- component ------------------------------------------------------------------------------------------------------


async def component_list(services: Services, caller: Caller, query: Payload) -> Payload:
    page = page_of(query, services.limits)

    def work(tx: Tx) -> Payload:
        services.partners.valid_of_caller(tx, caller, query["contract_id"])
        records = [component_record(each) for each in tx.select(Component)]
        found = [
            each
            for each in records
            if all(query.get(name) in (None, "", each[name]) for name in ("category", "developer"))
        ]
        return paged(found[page.offset : page.offset + page.limit], len(found), page)

    return await services.store.run(work)


async def component_query(services: Services, caller: Caller, query: Payload) -> Payload:
    def work(tx: Tx) -> Payload:
        services.partners.valid_of_caller(tx, caller, query["contract_id"])
        for each in tx.select(Component, version=query["version"]):
            if component_code(each) == query["code"]:
                return component_detail(each, engine=services.identity.system)
        raise Refused("no such component", kind=Kind.COMPONENT_UNKNOWN, detail="")

    return await services.store.run(work)
