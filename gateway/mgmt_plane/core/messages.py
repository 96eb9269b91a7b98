"""Bodies of the management layer: check them, give them the names of A-12, make those that we send.

`check(route, payload)` is the whole syntax of a request: JSON Schema from specs/schemas, which /openapi.json shows,
plus the aliases that the digest asks to accept. What a body means is the services'. Refusals name the member and the
rule, never a value.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, Final
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend

from gateway.errors import ProtocolViolation
from gateway.mgmt_plane.core.approval import decision
from gateway.mgmt_plane.core.jsontext import parse_object
from gateway.model import Audit, Component, Contract, Dataset, Identity, Limits, NodeId, Project
from specs.openapi import REQUESTS, request_schemas
from specs.states import AuditKind

SUBJECT: Final[Mapping[AuditKind, str]] = {
    AuditKind.DATASET: "dataset_id",
    AuditKind.PROJECT: "project_id",
    AuditKind.FLOW: "flow_id",
    AuditKind.JOB: "job_id",
    AuditKind.MODEL: "model_id",
}
"""The member of an apply body that names what is asked for."""

WITH_CONTRACT: Final = frozenset({AuditKind.DATASET, AuditKind.PROJECT})
"""Kinds whose apply body carries contract_id (A-20)."""

_STRING_PERMIT: Final = frozenset({AuditKind.JOB, AuditKind.MODEL})
"""Kinds whose confirm carries resource_permit as text (A-06)."""


# An integer is an int: 1.0 would not survive being stored, True is not a number.
_Validator: Final = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def strict(schema: Mapping[str, Any]) -> Any:
    """A validator of what comes from outside."""
    return _Validator(schema)


@cache
def _document() -> Mapping[str, Any]:
    folder = resources.files("specs").joinpath("schemas")
    files = {name: json.loads(folder.joinpath(name).read_text("utf-8")) for name in REQUESTS}
    routes, shared = request_schemas(files)
    return {name: _inlined(schema, shared) for name, schema in routes.items()}


def _inlined(schema: Any, shared: Mapping[str, Any]) -> Any:
    """The schema with what it refers to in place: looking a reference up at every check costs more than the check.

    Ours do not refer to themselves; one that did would end here, at the start.
    """
    if isinstance(schema, Mapping):
        name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
        if name and set(schema) == {"$ref"} and name in shared:
            return _inlined(shared[name], shared)
        return {key: _inlined(value, shared) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(each, shared) for each in schema]
    return schema


@cache
def _validator(route: str) -> Any:
    return strict(_document()[route])


def explain(error: ValidationError) -> str:
    """Where and which rule; the value itself stays here."""
    where = ".".join(str(part) for part in error.absolute_path)[:200]
    if error.validator == "required":
        present = error.instance if isinstance(error.instance, Mapping) else {}
        required: Any = error.validator_value
        missing = next(name for name in required if name not in present)
        return f"{where + '.' if where else ''}{missing} is missing"
    rules: Mapping[str, Callable[[Any], str]] = {
        "type": lambda value: f"must be {value if isinstance(value, str) else ' or '.join(value)}",
        "enum": lambda value: f"must be one of {', '.join(value)}",
        "maxLength": lambda value: f"is longer than {value}",
        "minLength": lambda _: "is empty",
        "maximum": lambda value: f"is larger than {value}",
        "minimum": lambda value: f"is smaller than {value}",
        "maxItems": lambda value: f"has more than {value} entries",
        "additionalProperties": lambda _: "has a member that is not known here",
    }
    rule = rules.get(str(error.validator), lambda _: "is not of the allowed form")(error.validator_value)
    return f"{where or 'body'} {rule}"


def _canonical_names(route: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """The names that the digest prefers: contract_id (A-05), config for a flow and conf for a job (A-12)."""
    renames = {"contract_Id": "contract_id", "contractId": "contract_id"}
    if route == "flow.audit.apply":
        renames["conf"] = "config"
    elif route == "job.audit.apply":
        renames["config"] = "conf"
    made = dict(payload)
    for other, name in renames.items():
        if other in made and name not in made:
            made[name] = made.pop(other)
    return made


def checked_routes() -> frozenset[str]:
    """The routes that `check` knows."""
    return frozenset(_document())


def check(route: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """The payload under canonical names if it is well formed; raises ProtocolViolation naming member and rule."""
    renamed = _canonical_names(route, payload)
    found = best_match(_validator(route).iter_errors(renamed))
    if found is not None:
        raise ProtocolViolation(explain(found))
    return renamed


# --- paging ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Page:
    """whole: everything was asked for (page_size=-1); `limit` is then the most that is given at once."""

    offset: int
    limit: int
    whole: bool = False


def page_of(payload: Mapping[str, Any], limits: Limits, *, whole: int | None = None) -> Page:
    """page_num from 1, default 1; page_size default 20, -1 for everything (M-018, M-019).

    whole: the most that everything may be; default Limits.list_records.
    """
    number, size = int(payload.get("page_num", "1")), int(payload.get("page_size", "20"))
    if number < 1:
        raise ProtocolViolation("page_num counts from 1")
    if size == -1:
        if number != 1:
            raise ProtocolViolation("page_size -1 has one page only")
        return Page(0, limits.list_records if whole is None else whole, whole=True)
    if not 1 <= size <= limits.page_size:
        raise ProtocolViolation(f"page_size must be -1 or 1 to {limits.page_size}")
    return Page((number - 1) * size, size)


def paged(records: Sequence[Mapping[str, Any]], total: int, page: Page) -> dict[str, Any]:
    """The answer of a list. Everything or an error: a list that is cut off silently would look complete (M-019)."""
    if page.whole and total > len(records):
        raise ProtocolViolation(f"page_size -1 gives at most {page.limit} records and there are {total}: ask for pages")
    return {"records": list(records), "total": total}


# --- node -----------------------------------------------------------------------------------------------------------


def node_body(identity: Identity) -> dict[str, Any]:
    """A node as it describes itself in node/query: eight members, no credential (M-035)."""
    return {each.name: getattr(identity, each.name) for each in fields(identity)}


def check_address(address: str, *, schemes: Sequence[str] = ("https",)) -> str:
    """A node's service address: https, host, perhaps port and path prefix. Returned without a final slash."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as e:
        raise ProtocolViolation("address is not a URL") from e
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise ProtocolViolation(f"address must be {' or '.join(schemes)}://host[:port][/prefix]")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ProtocolViolation("address must hold no user, query or fragment")
    if not address.isascii() or any(each <= " " or each == "\\" for each in address):
        raise ProtocolViolation("address holds characters that a URL does not have")
    return address.rstrip("/")


def apply_body(
    identity: Identity, *, auth_type: str, credential: str, expired_time: int | None, description: str
) -> dict[str, Any]:
    """contract/apply: it describes the sender (M-024)."""
    body = {**node_body(identity), "auth_type": auth_type, "auth_credential": credential}
    if description:
        body["description"] = description
    if expired_time is not None:
        body["expired_time"] = expired_time
    return body


def confirm_body(contract: Contract, *, auth_type: str, credential: str) -> dict[str, Any]:
    """contract/confirm of a decided contract (M-026, M-027)."""
    body: dict[str, Any] = {"contract_id": contract.contract_id, "status": contract.status.value}
    if contract.status.value == "APPROVED":
        body |= {"auth_type": auth_type, "auth_credential": credential, "expired_time": contract.expired_time}
    return body


# --- dataset --------------------------------------------------------------------------------------------------------


def dataset_record(dataset: Dataset) -> dict[str, Any]:
    """A dataset as partners see it, in the list and in detail (b.4; both columns in both, A-15). Never `location`."""
    return {
        "dataset_id": dataset.dataset_id,
        "name": dataset.name,
        "owner": dataset.owner,
        "category": dataset.category,
        "description": dataset.description,
        "count": dataset.count,
        "join_columns": dataset.join_columns,
        "label_columns": dataset.label_columns,
        "column_metas": [dict(each) for each in dataset.column_metas],
    }


# --- audits ---------------------------------------------------------------------------------------------------------


def audit_confirm_body(audit: Audit) -> dict[str, Any]:
    """A confirm of a decided audit, the permit as text or object as A-06 says."""
    decision(audit.status.value)
    body: dict[str, Any] = {"audit_id": audit.audit_id, "status": audit.status.value}
    if audit.permit is not None:
        permit = dict(audit.permit)
        body["resource_permit"] = json.dumps(permit) if audit.kind in _STRING_PERMIT else permit
    return body


def read_permit(value: object) -> tuple[dict[str, Any] | None, bool]:
    """resource_permit of a confirm: (the permit or None, whether it was a bare token) (A-06).

    Text is JSON of the object, or else the token itself.
    """
    if value is None or value == "":
        return None, False
    if isinstance(value, Mapping):
        return dict(value), False
    text = str(value)
    if text.lstrip().startswith("{"):
        return dict(parse_object(text.encode(), Limits())), False
    return {"token": text}, True


# --- project, component ---------------------------------------------------------------------------------------------


def project_record(project: Project) -> dict[str, Any]:
    record: dict[str, Any] = {
        "project_id": project.project_id,
        "name": project.name,
        "description": project.description,
    }
    if project.type:
        record["type"] = project.type
    return record


def project_detail(project: Project, nodes: Mapping[NodeId, Mapping[str, Any]]) -> dict[str, Any]:
    """nodes: what is known of each participant (M-054)."""
    return {
        **project_record(project),
        "nodes": [dict(nodes[each]) for each in project.nodes if each in nodes],
        "datasets": dict(project.datasets),
    }


def peer_node(contract: Contract) -> dict[str, Any]:
    """A partner as node/query would describe it."""
    return {
        "node_id": contract.peer_node_id,
        "inst_id": contract.peer_inst_id,
        "name": contract.peer_name,
        "institution": contract.peer_institution,
        "system": contract.peer_system,
        "system_version": contract.peer_system_version,
        "address": contract.peer_address,
    }


def component_code(component: Component) -> str:
    """Two providers may use one name, so the code holds both: (code, version) is unique (M-059)."""
    return f"{component.provider}.{component.name}"


def component_record(component: Component) -> dict[str, Any]:
    return {
        "code": component_code(component),
        "version": component.version,
        "category": str(component.description.get("category", "")),
        "developer": component.provider,
    }


def component_detail(component: Component, *, engine: str) -> dict[str, Any]:
    """The inputs and outputs as A-13 says: InputParam and InputData, OutputData of part 2."""
    about = component.description
    return {
        **component_record(component),
        "name": component.name,
        "description": str(about.get("description", "")),
        "engine": engine,
        "inputs": [*about.get("inputParam", ()), *about.get("inputData", ())],
        "outputs": list(about.get("outputData", ())),
        "status": "ENABLED" if component.enabled else "DISABLED",
    }
