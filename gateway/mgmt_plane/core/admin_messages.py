"""Bodies and queries of the admin API, checked against specs/schemas/admin.json: what /v1/admin/openapi.json shows.

What a value means is the handlers'. Refusals name the member and the rule, never a value.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from functools import cache
from importlib import resources
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from jsonschema.exceptions import best_match

from gateway.errors import ProtocolViolation
from gateway.mgmt_plane.core.messages import explain, strict
from gateway.model import Audit, Contract, Job, OutCall, Project, TrailEntry
from specs.openapi import ADMIN

CONTRACT_HIDDEN: Final = frozenset({"auth_credential", "tls_ca", "old_auth_credential", "old_tls_ca"})
"""Members of a contract that no answer shows."""
CALL_HIDDEN: Final = frozenset({"body"})
_TYPES: Final[Mapping[type, str]] = {str: "string", int: "integer", bool: "boolean"}


@cache
def schemas() -> Mapping[str, Any]:
    """The file: {bodies, queries, answers: route name -> schema, $defs}."""
    text = resources.files("specs").joinpath("schemas").joinpath(ADMIN).read_text("utf-8")
    loaded: Mapping[str, Any] = json.loads(text)
    return loaded


@cache
def _validator(part: str, name: str) -> Any:
    return strict({**schemas()[part].get(name, {"type": "object"}), "$defs": schemas()["$defs"]})


def _rule(hint: Any) -> dict[str, Any]:
    if get_origin(hint) in (UnionType, Union):
        rest = [each for each in get_args(hint) if each is not type(None)]
        rule = _rule(rest[0])
        return {**rule, "type": [rule["type"], "null"]}
    while hasattr(hint, "__supertype__"):  # NewType
        hint = hint.__supertype__
    origin = get_origin(hint)
    if origin is tuple:
        return {"type": "array", "items": _rule(get_args(hint)[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object"}
    if issubclass(hint, StrEnum):
        return {"type": "string", "enum": [each.value for each in hint]}
    return {"type": _TYPES[hint]}


def _record(kind: type, *, hidden: frozenset[str]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind) if each.name not in hidden]
    return {"type": "object", "required": names, "properties": {name: _rule(hints[name]) for name in names}}


@cache
def record_schemas() -> Mapping[str, Any]:
    """Schemas of the records that answers show, by the names that admin.json uses; without what they hide."""
    shown: dict[str, tuple[type, frozenset[str]]] = {
        "contract": (Contract, CONTRACT_HIDDEN),
        "audit": (Audit, frozenset()),
        "job": (Job, frozenset()),
        "project": (Project, frozenset()),
        "call": (OutCall, CALL_HIDDEN),
        "entry": (TrailEntry, frozenset()),
    }
    return {name: _record(kind, hidden=hidden) for name, (kind, hidden) in shown.items()}


def check_admin(name: str, *, query: Mapping[str, str], body: Mapping[str, Any]) -> None:
    """name: of specs.admin.ROUTES. Raises ProtocolViolation naming member and rule."""
    for part, value in (("queries", query), ("bodies", body)):
        found = best_match(_validator(part, name).iter_errors(value))
        if found is not None:
            raise ProtocolViolation(explain(found))
