"""OpenAPI 3.1 of every endpoint, put together from specs.routes and the JSON Schemas beside this file.

Pure: the caller reads the files of specs/schemas and passes them in. What a route requires, allows and answers is said
in those files once; the gateway's edge checks requests against the very same ones.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from specs import admin, headers
from specs.routes import ROUTES, Auth, Route, Side

Json = Mapping[str, Any]

REQUESTS: Final = ("management.json", "control.json")
"""Files whose `routes` are request schemas."""
ANSWERS: Final = "answers.json"
EXAMPLES: Final = "examples.json"
FILES: Final = (*REQUESTS, ANSWERS, EXAMPLES)
ADMIN: Final = "admin.json"
"""Bodies, queries and answers of our own admin API, by the names of specs.admin."""

_PARTS: Final = {
    "1": "Management (part 1)",
    "2": "Control (part 2)",
    "4": "Transport (part 4)",
    "interconn": "Extensions of interconn",
}
_AUTH: Final[Mapping[Auth, str]] = {
    Auth.SIGNED: "Signed by a partner whose contract is approved.",
    Auth.APPLICANT: "Signed by the partner of the contract, which may still wait for approval or have ended.",
    Auth.CARRIED: "The signature may be missing; where present it is checked with the key that the body carries.",
    Auth.OPEN: "No signature.",
    Auth.LOCAL: "Only from the node's own side, at the platform listener.",
}
_WAYS: Final[Mapping[Auth, tuple[tuple[str, ...], ...]]] = {
    Auth.SIGNED: (("signature", "certificate"),),
    Auth.APPLICANT: (("signature",),),
    Auth.CARRIED: (("signature",), ()),
}
_HEADERS: Final = (
    (headers.SOURCE_NODE, "Node id of the sender.", True),
    (headers.TARGET_NODE, "Node id of the receiver.", True),
    (headers.NONCE, "Fresh in every call.", True),
    (headers.TIMESTAMP, "Milliseconds since 1970, 13 digits.", True),
    (headers.AUTH_SIGN, "Base64 of the signature over method, path, query, nodes, nonce, time and body.", False),
    (headers.TRACE, "Id that follows one action through all nodes.", False),
    (headers.CSRF, "On POST.", False),
    (headers.MPRAC_TOKEN_SET, "Permits that the call relies on.", False),
)
_CHANNEL_HEADERS: Final = (
    (headers.PTP_VERSION, True),
    (headers.PTP_PROVIDER, True),
    (headers.PTP_TRACE, True),
    (headers.PTP_TOKEN, True),
    (headers.PTP_SESSION, True),
    (headers.PTP_SOURCE_NODE, True),
    (headers.PTP_TARGET_NODE, True),
    (headers.PTP_SOURCE_INST, False),
    (headers.PTP_TARGET_INST, False),
    (headers.PTP_TOPIC, False),
)
_REF: Final = re.compile(r"^#/\$defs/")


def request_schemas(files: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, Json]]:
    """(schema by route, shared definitions) of all request files. files: content of each of FILES by name."""
    routes: dict[str, Json] = {}
    shared: dict[str, Json] = {}
    for name in REQUESTS:
        routes |= files[name]["routes"]
        for key, schema in files[name]["$defs"].items():
            if shared.setdefault(key, schema) != schema:
                raise ValueError(f"two definitions of {key}")
    return routes, shared


def build(files: Mapping[str, Json], *, version: str, servers: Mapping[Side, str]) -> dict[str, Any]:
    """The document. version: this software's. servers: where each listener is reached."""
    routes, shared = request_schemas(files)
    answers, answer_shared = files[ANSWERS]["routes"], files[ANSWERS]["$defs"]
    examples = files[EXAMPLES]["routes"]
    schemas: dict[str, Any] = {name: _moved(schema) for name, schema in shared.items()}
    schemas |= {f"answer.{name}": _moved(schema, "answer.") for name, schema in answer_shared.items()}
    schemas["answer"] = {
        "type": "object",
        "required": ["code", "msg", "data"],
        "properties": {
            "code": {"type": "integer", "description": "0: done. Else why not; HTTP is 200 all the same."},
            "msg": {"type": "string"},
            "data": {"type": "object"},
        },
    }
    paths: dict[str, Any] = {}
    for name, route in ROUTES.items():
        schema = _moved(routes.get(name, {"type": "object"}))
        answer = _moved(answers.get(name, {"type": "object"}), "answer.")
        operation = _operation(name, route, schema, answer, examples.get(name))
        operation["servers"] = [{"url": servers[route.side]}] if route.side in servers else []
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "interconn",
            "version": version,
            "summary": "Interconnection of privacy computing, InterOp v1.2.0",
            "description": "What partners call at the edge listener and what the node's own side calls at the platform"
            " listener. Unknown members and headers are ignored.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag} for tag in _PARTS.values()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "signature": {"type": "apiKey", "in": "header", "name": headers.AUTH_SIGN},
                "certificate": {"type": "mutualTLS"},
                "task": {"type": "apiKey", "in": "header", "name": headers.PTP_TOKEN},
                "platform": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def build_admin(files: Mapping[str, Json], *, version: str, server: str, records: Mapping[str, Json]) -> dict[str, Any]:
    """The document of our own admin API, from specs.admin and the file ADMIN. records: schemas of what we keep."""
    said = files[ADMIN]
    paths: dict[str, Any] = {}
    for name, entry in admin.ROUTES.items():
        operation = _admin_operation(name, entry, {part: said[part].get(name) for part in _ADMIN_PARTS})
        paths.setdefault(entry.path, {})[entry.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "interconn admin",
            "version": version,
            "summary": "What administrators, operators and auditors of a node may do",
            "description": "HTTP 200 holds the value itself; every other status an error with a code of the one table."
            " Unknown members are ignored.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server}],
        "tags": [{"name": tag} for tag in dict.fromkeys(name.partition(".")[0] for name in admin.ROUTES)],
        "paths": paths,
        "components": {
            "schemas": {name: _moved(schema) for name, schema in {**said["$defs"], **records}.items()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


_ADMIN_PARTS: Final = ("bodies", "queries", "answers")
_ADMIN_ERRORS: Final = {
    "400": "Malformed",
    "401": "Token missing or wrong",
    "403": "Not for this role, or refused by a rule",
    "404": "Unknown",
    "409": "Not possible as things stand, or somebody was faster",
    "413": "Body too large",
    "429": "Too many attempts, or too many of them",
    "502": "The partner did not answer, or refused",
    "503": "Busy, or the database does not answer",
}


def _admin_operation(name: str, entry: admin.AdminEntry, said: Mapping[str, Json | None]) -> dict[str, Any]:
    query: Any = said["queries"] or {}
    required = query.get("required", ())
    parameters = [
        {**_parameter(part, "path", True), "schema": {"type": "string", "minLength": 1, "maxLength": 4096}}
        for part in re.findall(r"{(\w+)}", entry.path)
    ] + [
        {**_parameter(key, "query", key in required), "schema": schema}
        for key, schema in query.get("properties", {}).items()
    ]
    who = ", ".join(sorted(entry.roles)) or "anybody, without a token"
    done: dict[str, Any] = {"description": "Done"}
    if said["answers"] is not None:
        done["content"] = {"application/json": {"schema": _moved(said["answers"])}}
    failed = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}}}
    made: dict[str, Any] = {
        "operationId": name,
        "tags": [name.partition(".")[0]],
        "summary": entry.words,
        "description": f"For {who}." + (f" On the command line: interconn {entry.command}." if entry.command else ""),
        "security": [{"token": []}] if entry.roles else [],
        "parameters": parameters,
        "responses": {"200": done}
        | {status: {"description": words, **failed} for status, words in _ADMIN_ERRORS.items()},
    }
    if entry.method == "POST":
        schema = _moved(said["bodies"] or {"type": "object"})
        made["requestBody"] = {"required": "required" in schema, "content": {"application/json": {"schema": schema}}}
    return made


def _moved(schema: Any, prefix: str = "") -> Any:
    """A schema whose references point into components."""
    if isinstance(schema, Mapping):
        return {
            key: _REF.sub(f"#/components/schemas/{prefix}", value) if key == "$ref" else _moved(value, prefix)
            for key, value in schema.items()
        }
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [_moved(each, prefix) for each in schema]
    return schema


def _security(name: str, route: Route) -> list[dict[str, list[str]]]:
    if name.startswith("chan."):
        return [{"task": []}] if route.side is Side.PLATFORM else [{"certificate": []}]
    if route.side is Side.PLATFORM:
        return [{"task": []}] if name == "platform.task.callback" else [{"platform": []}]
    return [{each: [] for each in ways} for ways in _WAYS.get(route.auth, ())]


def _parameters(name: str, route: Route, schema: Json, example: Json | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if name.startswith("chan."):
        found += [_parameter(header, "header", required) for header, required in _CHANNEL_HEADERS]
    elif route.side is Side.EDGE:
        found += [
            {**_parameter(header, "header", required and route.auth is not Auth.OPEN), "description": words}
            for header, words, required in _HEADERS
            if header != headers.AUTH_SIGN  # the security scheme says it
        ]
    if route.method == "GET":
        required = schema.get("required", ())
        for key, value in schema.get("properties", {}).items():
            entry = {"name": key, "in": "query", "required": key in required, "schema": value}
            if example is not None and key in example:
                entry["example"] = example[key]
            found.append(entry)
    return found


def _parameter(name: str, place: str, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": {"type": "string"}}


def _operation(name: str, route: Route, schema: Json, answer: Json, example: Json | None) -> dict[str, Any]:
    part, _, number = route.clause.partition(":")
    words = _AUTH[route.auth] if not name.startswith("chan.") else "A message of a session, as bytes."
    made: dict[str, Any] = {
        "operationId": name,
        "tags": [_PARTS[part]],
        "summary": name.replace(".", " "),
        "description": f"Part {part}, {number}. {words}" if part.isdigit() else f"Not of the standard. {words}",
        "security": _security(name, route),
        "parameters": _parameters(name, route, schema, example),
        "responses": _responses(name, answer),
    }
    if name.startswith("chan."):
        made["requestBody"] = {"content": {"application/octet-stream": {}}}
    elif route.method == "POST":
        media: dict[str, Any] = {"schema": schema}
        if example is not None:
            media["example"] = example
        made["requestBody"] = {"required": True, "content": {"application/json": media}}
    return made


def _responses(name: str, answer: Json) -> dict[str, Any]:
    if name.startswith("chan."):
        return {"200": {"description": "Payload, or an error code", "content": {"application/octet-stream": {}}}}
    envelope = {"$ref": "#/components/schemas/answer"}
    done = {"properties": {"code": {"const": 0}, "data": answer}}
    failed = {"properties": {"code": {"not": {"const": 0}}}}
    return {
        "200": {
            "description": "Done where code is 0, refused where it is not",
            "content": {"application/json": {"schema": {"allOf": [envelope, {"anyOf": [done, failed]}]}}},
        },
        **{
            status: {"description": words, "content": {"application/json": {"schema": envelope}}}
            for status, words in (("413", "Body or head too large"), ("429", "Too many unsigned calls"))
        },
    }
