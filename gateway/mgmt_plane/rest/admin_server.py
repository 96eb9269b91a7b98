"""The admin listener: JSON over HTTP for our own people, behind a bearer token and its user's role.

Routes come from others; who may use one says specs.admin, and what that does not name nobody may use. Success is
HTTP 200 with the value itself; an error is HTTP 400, 401, 403, 404, 409, 413, 429, 502 or 503 with
{"code": <code of the error table>, "msg": text}. Answers carry the full text of an error: the reader is on our side.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import web

from gateway.errors import WIRE, CallerError, GatewayError, Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core.admin_messages import check_admin
from gateway.mgmt_plane.core.jsontext import encode_object, parse_object
from gateway.mgmt_plane.rest.documentation import OPEN_PATHS
from gateway.mgmt_plane.service.trail import Actor, acting
from gateway.mgmt_plane.service.users import TOKEN_ID, Principal, digest_of
from gateway.model import Limits
from gateway.ports import Journal
from specs.admin import BY_PLACE, OPEN, ROUTES, Role

_TOKEN_CHARS: Final = 512
_QUERY_CHARS: Final = 4096
_PRINCIPAL: Final = web.RequestKey("principal", Principal)


class Guard(Protocol):
    """What the door asks about tokens that are not the token file's, and about too many wrong ones."""

    async def known(self, digest: str) -> Principal | None: ...

    def failed(self, address: str) -> None:
        """Count a refused attempt; raises Refused(TOO_MANY) where there were too many of that address."""
        ...


class _Nobody:
    """A listener without users."""

    async def known(self, _digest: str) -> Principal | None:
        return None

    def failed(self, _address: str) -> None:
        pass


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """A handler's answer that is a file, offered under `filename`."""

    path: Path
    filename: str


AdminHandler = Callable[[Mapping[str, str], Mapping[str, str], Mapping[str, Any]], Awaitable[Any]]
"""(parts of the path, query, body) -> JSON-able value or FileAnswer."""
PersonalHandler = Callable[[Principal, Mapping[str, str], Mapping[str, str], Mapping[str, Any]], Awaitable[Any]]
"""The same of a route that must know who calls."""


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
    roles: frozenset[Role] | None = None
    """None: as specs.admin says of this method and path."""

    @property
    def name(self) -> str:
        """In specs.admin.ROUTES; "" where it is not there."""
        return BY_PLACE.get((self.method, self.path), "")

    def allowed(self) -> frozenset[Role]:
        if self.roles is not None:
            return self.roles
        return ROUTES[self.name].roles if self.name else frozenset()

    @property
    def open(self) -> bool:
        """Needs no token."""
        return self.name in OPEN

    async def serve(
        self,
        _principal: Principal | None,
        params: Mapping[str, str],
        query: Mapping[str, str],
        body: Mapping[str, Any],
    ) -> Any:
        return await self.handler(params, query, body)


@dataclass(frozen=True, slots=True)
class PersonalRoute(AdminRoute):
    """A route whose handler is told who calls."""

    handler: PersonalHandler = field(repr=False)  # type: ignore[assignment]  # the two are never called alike

    async def serve(
        self,
        principal: Principal | None,
        params: Mapping[str, str],
        query: Mapping[str, str],
        body: Mapping[str, Any],
    ) -> Any:
        if principal is None:
            raise CallerError(f"{self.path} needs somebody to serve")
        return await self.handler(principal, params, query, body)


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
    Kind.TOO_MANY: 429,
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
    return _json({"code": code, "msg": _printable(text, 4096)}, _STATUS.get(error.kind, 400))


def read_token(token: str) -> str:
    """The bearer token of a token file; at least 32 characters."""
    text = token.strip()
    if len(text) < 32 or not text.isascii() or not text.isprintable():
        raise Refused("the admin token must have at least 32 printable characters", kind=Kind.MALFORMED)
    return text


def admin_app(
    routes: Sequence[AdminRoute], *, token: str, limits: Limits, journal: Journal, guard: Guard | None = None
) -> web.Application:
    """An application that serves `routes`. token: of the token file, always an admin. guard: knows the users."""
    expected = digest_of(read_token(token))
    machine = Principal(expected[:TOKEN_ID], Role.ADMIN, expected, named=False)
    asked = guard or _Nobody()
    open_paths = frozenset((route.method, route.path) for route in routes if route.open)

    async def admitted(request: web.Request) -> Principal | None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(given) <= _TOKEN_CHARS:
            return None
        digest = digest_of(given.strip())
        if hmac.compare_digest(digest, expected):
            return machine
        return await asked.known(digest)

    def refused(request: web.Request) -> web.Response:
        place: dict[str, Any] = {"path": request.path[:200], "address": request.remote}
        try:
            asked.failed(request.remote or "")
        except Refused as e:
            journal.note("admin.refused", **place, kind=e.kind.value)
            return _error(e)
        journal.note("admin.refused", **place)
        return _json({"code": WIRE[Kind.UNAUTHENTICATED].code, "msg": "bearer token missing or wrong"}, 401)

    @web.middleware
    async def door(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        try:
            if (request.method, request.path) in open_paths or request.path in OPEN_PATHS:
                return await handler(request)
            principal = await admitted(request)
            if principal is None:
                return refused(request)
            request[_PRINCIPAL] = principal
            with acting(Actor("admin", principal.name)):
                return await handler(request)
        except GatewayError as e:
            journal.note("admin.error", **_place(request), kind=e.kind.value, reason=_printable(str(e)))
            return _error(e)
        except web.HTTPRequestEntityTooLarge:
            return _error(ProtocolViolation("body too large", kind=Kind.TOO_LARGE))
        except web.HTTPException as e:
            kind = Kind.NOT_FOUND if e.status in (404, 405) else Kind.MALFORMED
            return _json({"code": WIRE[kind].code, "msg": e.reason}, e.status)
        except Exception as e:  # noqa: BLE001  # the one door of this listener
            journal.note("admin.error", **_place(request), kind=Kind.INTERNAL.value, reason=type(e).__name__)
            return _error(GatewayError(type(e).__name__))

    app = web.Application(middlewares=[door], client_max_size=limits.body_bytes)
    for route in routes:
        app.router.add_route(route.method, route.path, _bound(route, limits, journal))
    return app


def _place(request: web.Request) -> Mapping[str, str]:
    return {"path": _printable(request.path)}


def _printable(text: str, longest: int = 300) -> str:
    """What somebody sent may stand in it, and the reader may sit at a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text[:longest])


def _check_texts(place: str, texts: Mapping[str, str]) -> None:
    """What stands in a path or a query may be as odd as what stands in a body, and is bounded like it."""
    for name, text in texts.items():
        if len(text) > _QUERY_CHARS or not (name + text).isprintable():
            raise ProtocolViolation(f"{place} must be printable text of at most {_QUERY_CHARS} characters")


def _check_role(route: AdminRoute, request: web.Request, journal: Journal) -> Principal | None:
    principal: Principal | None = request.get(_PRINCIPAL)
    if route.open:
        return principal
    if principal is None or principal.role not in route.allowed():
        who = {} if principal is None else {"user": principal.name}
        journal.note("admin.refused", path=route.path, address=request.remote, kind=Kind.FORBIDDEN.value, **who)
        role = "nobody" if principal is None else principal.role.value
        needed = ", ".join(sorted(route.allowed())) or "nobody"
        raise Refused(f"this is for {needed}, not for {role}")
    return principal


def _bound(
    route: AdminRoute, limits: Limits, journal: Journal
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        principal = _check_role(route, request, journal)
        raw = await request.read()
        body = parse_object(raw, limits) if raw else {}
        params, query = dict(request.match_info), dict(request.query)
        _check_texts("path", params)
        _check_texts("query", query)
        if route.name:
            check_admin(route.name, query=query, body=body)
        answer = await route.serve(principal, params, query, body)
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
