"""The door for our own side: an EdgeRequest of the platform listener -> its handler -> {code, msg, data}.

Who may call what is the handlers' business (`rest.platform`); here are the bounds, the form and the journal. GET
parameters are read from the query and, as some peers send them, from a JSON body (B-10).
"""

import traceback
from collections.abc import Mapping
from typing import Any

from gateway.errors import GatewayError, Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core.jsontext import encode_object, parse_object
from gateway.mgmt_plane.core.messages import check
from gateway.mgmt_plane.rest.platform import PlatformHandler
from gateway.mgmt_plane.service.trail import Actor, acting
from gateway.model import Limits
from gateway.ports import EdgeReply, EdgeRequest, Journal
from specs.codes import OK
from specs.routes import BY_PATH, ROUTES, Side


class PlatformDoor:
    """Serves the platform listener but for the channel; never raises. handlers: by name of specs.routes."""

    def __init__(self, *, handlers: Mapping[str, PlatformHandler], limits: Limits, journal: Journal) -> None:
        self._handlers = dict(handlers)
        self._limits = limits
        self._journal = journal

    async def handle(self, request: EdgeRequest) -> EdgeReply:
        """Serve one request."""
        route = BY_PATH.get((request.method.upper(), request.path), "")
        try:
            data = await self._serve(request, route)
            reply = EdgeReply(200, encode_object({"code": OK, "msg": "success", "data": dict(data)}))
        except GatewayError as e:
            return self._refuse(route, e)
        except Exception as e:  # noqa: BLE001  # the one door of this listener
            frame = traceback.extract_tb(e.__traceback__)[-1]
            self._journal.note(
                "platform.error", route=route, error=type(e).__name__, where=f"{frame.name}:{frame.lineno}"
            )
            return self._refuse(route, GatewayError(type(e).__name__))
        self._journal.note("platform.call", route=route, code=OK)
        return reply

    async def _serve(self, request: EdgeRequest, route: str) -> Mapping[str, Any]:
        if len(request.body) > self._limits.body_bytes:
            raise ProtocolViolation(f"body has more than {self._limits.body_bytes} bytes", kind=Kind.TOO_LARGE)
        handler = self._handlers.get(route)
        if handler is None or ROUTES[route].side is not Side.PLATFORM:
            raise Refused("no such endpoint", kind=Kind.NOT_FOUND, detail="")
        payload: Mapping[str, Any] = parse_object(request.body, self._limits) if request.body.strip() else {}
        if request.method == "GET":
            payload = {**payload, **request.query}
        with acting(Actor("platform", request.peer_address)):
            return await handler(request, check(route, payload))

    def _refuse(self, route: str, error: GatewayError) -> EdgeReply:
        wire = error.wire
        self._journal.note(
            "platform.refused", route=route, code=wire.code, kind=error.kind.value, reason=str(error)[:300]
        )
        status = wire.http if route else 404
        return EdgeReply(status, encode_object({"code": wire.code, "msg": error.public_text()[:500], "data": {}}))
