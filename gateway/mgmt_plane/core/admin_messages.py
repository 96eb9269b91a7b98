"""Bodies and queries of the admin API, checked against specs/schemas/admin.json: what /v1/admin/openapi.json shows.

What a value means is the handlers'. Refusals name the member and the rule, never a value.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jsonschema.exceptions import best_match

from gateway.errors import ProtocolViolation
from gateway.mgmt_plane.core.messages import explain, strict
from specs.openapi import ADMIN


@cache
def schemas() -> Mapping[str, Any]:
    """The file: {bodies, queries, answers: route name -> schema, $defs}."""
    text = resources.files("specs").joinpath("schemas").joinpath(ADMIN).read_text("utf-8")
    loaded: Mapping[str, Any] = json.loads(text)
    return loaded


@cache
def _validator(part: str, name: str) -> Any:
    return strict({**schemas()[part].get(name, {"type": "object"}), "$defs": schemas()["$defs"]})


def check_admin(name: str, *, query: Mapping[str, str], body: Mapping[str, Any]) -> None:
    """name: of specs.admin.ROUTES. Raises ProtocolViolation naming member and rule."""
    for part, value in (("queries", query), ("bodies", body)):
        found = best_match(_validator(part, name).iter_errors(value))
        if found is not None:
            raise ProtocolViolation(explain(found))
