"""The admin listener: JSON over HTTP for our own people, behind a bearer token. Routes come from others.

Success is HTTP 200 with the value itself; an error is HTTP 400, 401, 403, 404, 409, 413, 502 or 503 with
{"code": <code of the error table>, "msg": text}. Answers carry the full text of an error: the reader is on our side.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from gateway.errors import WIRE, GatewayError, Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core.jsontext import encode_object, parse_object
from gateway.mgmt_plane.rest.documentation import OPEN_PATHS
from gateway.mgmt_plane.service.trail import Actor, acting
from gateway.model import Limits
from gateway.ports import Journal

TOKEN_ID: Final = 12
"""Hex digits of a token's SHA-256 by which the audit trail names it."""


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """A handler's answer that is a file, offered under `filename`."""

    path: Path
    filename: str


AdminHandler = Callable[[Mapping[str, str], Mapping[str, str], Mapping[str, Any]], Awaitable[Any]]
"""(parts of the path, query, body) -> JSON-able value or FileAnswer."""


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """A handler's answer that is not JSON, or JSON under another status than 200."""

    text: str
    content_type: str
    status: int = 200


@dataclass(frozen=True, slots=True)
class AdminRoute:
    """path: aiohttp template, e.g. /v1/admin/partners/{contract_id}/approve."""

    method: str
    path: str
    handler: AdminHandler = field(repr=False)
    open: bool = False
    """Needs no token; only for a path without parts, and for what anybody may know."""


_STATUS: Final[Mapping[Kind, int]] = {
    Kind.UNAUTHENTICATED: 403,
    Kind.FORBIDDEN: 403,
    Kind.GRANT_MISSING: 403,
    Kind.GRANT_EXPIRED: 403,
    Kind.GRANT_EXHAUSTED: 403,
    Kind.GRANT_REVOKED: 403,
    Kind.NOT_AS_APPROVED: 409,
    Kind.NOT_FOUND: 404,
    Kind.CONTRACT_UNKNOWN: 404,
    Kind.NODE_UNKNOWN: 404,
    Kind.COMPONENT_UNKNOWN: 404,
    Kind.CONFLICT: 409,
    Kind.ILLEGAL_TRANSITION: 409,
    Kind.CONTRACT_INVALID: 409,
    Kind.TOO_LARGE: 413,
    Kind.INTERNAL: 500,
    Kind.PEER_UNREACHABLE: 502,
    Kind.PEER_REFUSED: 502,
    Kind.PEER_MALFORMED: 502,
    Kind.PEER_TIMEOUT: 502,
    Kind.STORE: 503,
    Kind.STORAGE: 503,
    Kind.OVERLOADED: 503,
}
"""Every other kind is 400: the request, as it is, cannot be served."""


def _json(value: Any, status: int = 200) -> web.Response:
    body = encode_object({"": value})[len('{"":') : -1]
    return web.Response(body=body, status=status, content_type="application/json")


def _error(error: GatewayError) -> web.Response:
    code = WIRE[error.kind].code
    internal = error.kind is Kind.INTERNAL
    text = error.public_text() if internal else str(error) or error.public_text()
    return _json({"code": code, "msg": text}, _STATUS.get(error.kind, 400))


def read_token(token: str) -> str:
    """The bearer token of a token file; at least 32 characters."""
    text = token.strip()
    if len(text) < 32 or not text.isascii() or not text.isprintable():
        raise Refused("the admin token must have at least 32 printable characters", kind=Kind.MALFORMED)
    return text


def admin_app(routes: Sequence[AdminRoute], *, token: str, limits: Limits, journal: Journal) -> web.Application:
    """An aiohttp application that serves `routes`. token: the bearer token."""
    expected = hashlib.sha256(read_token(token).encode()).digest()
    admin = Actor("admin", expected.hex()[:TOKEN_ID])
    open_paths = frozenset((route.method, route.path) for route in routes if route.open)

    def admitted(request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        digest = hashlib.sha256(given.strip().encode(errors="surrogateescape")).digest()
        return hmac.compare_digest(digest, expected) and scheme.lower() == "bearer"

    @web.middleware
    async def door(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        try:
            if (request.method, request.path) in open_paths or request.path in OPEN_PATHS:
                return await handler(request)
            if not admitted(request):
                journal.note("admin.refused", path=request.path[:200], address=request.remote)
                return _json({"code": WIRE[Kind.UNAUTHENTICATED].code, "msg": "bearer token missing or wrong"}, 401)
            with acting(admin):
                return await handler(request)
        except GatewayError as e:
            journal.note("admin.error", path=request.path[:200], kind=e.kind.value, reason=str(e)[:300])
            return _error(e)
        except web.HTTPRequestEntityTooLarge:
            return _error(ProtocolViolation("body too large", kind=Kind.TOO_LARGE))
        except web.HTTPException as e:
            kind = Kind.NOT_FOUND if e.status in (404, 405) else Kind.MALFORMED
            return _json({"code": WIRE[kind].code, "msg": e.reason}, e.status)
        except Exception as e:  # noqa: BLE001  # the one door of this listener
            journal.note("admin.error", path=request.path[:200], kind=Kind.INTERNAL.value, reason=type(e).__name__)
            return _error(GatewayError(type(e).__name__))

    app = web.Application(middlewares=[door], client_max_size=limits.body_bytes)
    for route in routes:
        app.router.add_route(route.method, route.path, _bound(route.handler, limits))
    return app


def _bound(handler: AdminHandler, limits: Limits) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = parse_object(raw, limits) if raw else {}
        answer = await handler(dict(request.match_info), dict(request.query), body)
        if isinstance(answer, FileAnswer):
            name = "".join(each for each in answer.filename if each.isalnum() or each in "._-") or "file"
            return web.FileResponse(
                answer.path,
                headers={"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"},
            )
        if isinstance(answer, TextAnswer):
            # The whole header: aiohttp would refuse parameters in content_type.
            headers = {"Content-Type": answer.content_type}
            return web.Response(body=answer.text.encode(), status=answer.status, headers=headers)
        return _json(answer)

    return serve
