"""May this use of a dataset happen under this grant? Pure checks; counting uses and finding grants is service.grants'.

A scope names NODE, PROJECT and COMPONENT ids; a key that is absent restricts nothing, an empty list allows nobody.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from gateway.auth.tokens import dataset_urn, format_token_set, parse_token_set
from gateway.errors import CallerError, Kind, ProtocolViolation, Refused
from gateway.model import DatasetId, Grant, Json, NodeId, Permit
from specs.states import AuthScope

__all__ = [
    "LEVEL_DATASET",
    "DatasetUse",
    "check_grant",
    "check_scope_shape",
    "parse_token_set",
    "permit_of",
    "token_set",
]

LEVEL_DATASET: Final = 2
"""resource_level of a dataset (A-17)."""

PERMIT_MEMBERS: Final = {
    "token": str,
    "resource_level": int,
    "resource_type": str,
    "resource_id": str,
    "resource_node_id": str,
    "resource_inst_id": str,
    "request_node_id": str,
    "request_inst_id": str,
}
"""The mandatory members of a resource_permit (b.6)."""


@dataclass(frozen=True, slots=True)
class DatasetUse:
    """What a job does with one dataset: the names of all components that read it or anything derived from it."""

    dataset_id: DatasetId
    components: frozenset[str]


def check_scope_shape(scope: Json) -> None:
    """auth_scope knows three keys (M-044)."""
    unknown = set(scope) - {each.value for each in AuthScope}
    if unknown:
        raise ProtocolViolation("auth_scope: keys are NODE, PROJECT and COMPONENT")


def _allows(scope: Json, key: AuthScope, wanted: Collection[str]) -> bool:
    return key.value not in scope or set(wanted) <= set(scope[key.value])


def check_grant(grant: Grant, use: DatasetUse, *, user: NodeId, project_id: str, now: int, counted: bool) -> None:
    """Raises Refused(GRANT_MISSING, GRANT_EXPIRED or GRANT_EXHAUSTED) unless the grant covers the use.

    now: ms. counted: this job has been counted against times_limit before.
    """
    if grant.revoked or grant.user != user or grant.dataset_id != use.dataset_id:
        raise Refused("the grant is not for this use", kind=Kind.GRANT_MISSING, detail=use.dataset_id)
    for key, wanted in (
        (AuthScope.NODE, {str(user)}),
        (AuthScope.PROJECT, {project_id}),
        (AuthScope.COMPONENT, use.components),
    ):
        if not _allows(grant.scope, key, wanted):
            raise Refused(
                f"outside the grant's {key.value} scope",
                kind=Kind.GRANT_MISSING,
                detail=f"{use.dataset_id}: outside the granted {key.value} scope",
            )
    # absolute milliseconds; the grant ends with that millisecond.
    if grant.time_limit is not None and now > grant.time_limit:
        raise Refused("the grant has expired", kind=Kind.GRANT_EXPIRED, detail=use.dataset_id)
    if not counted and grant.times_limit is not None and grant.used >= grant.times_limit:
        raise Refused("the grant is used up", kind=Kind.GRANT_EXHAUSTED, detail=use.dataset_id)


def permit_of(permit: Json) -> Permit:
    """A stored resource_permit as the tuple of x-mprac-token-set."""
    token, level = permit.get("token"), permit.get("resource_level", LEVEL_DATASET)
    if not isinstance(token, str) or not isinstance(level, int):
        raise CallerError("a stored permit has no token or level")
    urn = dataset_urn(str(permit.get("resource_node_id", "")), str(permit.get("resource_id", "")))
    return Permit(urn, level, token)


def token_set(permits: Collection[Json]) -> str:
    """x-mprac-token-set that presents these resource_permits."""
    return format_token_set(permit_of(each) for each in permits)


def check_permit(permit: Json, *, resource_id: str, holder: NodeId, user: NodeId) -> None:
    """A resource_permit that a partner gave us: eight members, about what was asked, between these two (M-046)."""
    for name, kind in PERMIT_MEMBERS.items():
        value = permit.get(name)
        if not isinstance(value, kind) or isinstance(value, bool) or value == "":
            raise ProtocolViolation(f"resource_permit.{name} is missing or not of its type")
    if not 0 <= permit["resource_level"] < 10**9:
        raise ProtocolViolation("resource_permit.resource_level is out of range")
    if set(",/") & set(permit["token"]) or not permit["token"].isascii() or not permit["token"].isprintable():
        raise ProtocolViolation("resource_permit.token must be printable ASCII without , and /")
    for name, wanted in (("resource_id", resource_id), ("resource_node_id", holder), ("request_node_id", user)):
        if permit[name] != wanted:
            raise ProtocolViolation(f"resource_permit.{name} is not that of the application")
