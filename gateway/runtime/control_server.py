"""The control process's Unix socket: what the data process forwards to it, and the snapshot that it pulls.

`/edge/...` and `/platform/...` are partners' and our own side's requests with the path prefix that the data process
put there; `x-interconn-peer-cert` and `x-interconn-peer-address` are its word on who called, and only it can reach
this socket (the folder is 0700).
"""

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.data_plane.io.forward import PEER_ADDRESS, PEER_CERT
from gateway.errors import WIRE, Kind
from gateway.model import Limits
from gateway.ports import EdgeReply, EdgeRequest

Answer = Callable[[EdgeRequest], Awaitable[EdgeReply]]
Snapshot = Callable[[], Awaitable[Mapping[str, Any]]]


class ControlServer:
    """Serves one Unix socket until `stop`. `edge` and `platform` never raise."""

    def __init__(self, socket: Path, *, edge: Answer, platform: Answer, snapshot: Snapshot, limits: Limits) -> None:
        self._socket = socket
        self._doors = {"edge": edge, "platform": platform}
        self._snapshot = snapshot
        self._limits = limits
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._runner = web.ServerRunner(
            web.Server(
                self._answer,
                max_line_size=self._limits.header_bytes,
                max_field_size=self._limits.header_bytes,
                auto_decompress=False,  # what is signed is what came
                access_log=None,
            ),
            handle_signals=False,
            shutdown_timeout=5.0,
        )
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._socket)).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._socket.unlink(missing_ok=True)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        _, door, rest = request.path.split("/", 2) if request.path.count("/") > 1 else ("", "", "")
        if door == "link" and rest == "snapshot" and request.method == "GET":
            return web.json_response(await self._snapshot())
        if door not in self._doors:
            return web.Response(status=404)
        body = await self._read(request)
        if body is None:
            return _refuse(Kind.TOO_LARGE)
        try:
            reply = await self._doors[door](_edge_request(request, f"/{rest}", body))
        except binascii.Error:
            return _refuse(Kind.MALFORMED)
        return web.Response(status=reply.status, body=reply.body, headers={"content-type": "application/json"})

    async def _read(self, request: web.BaseRequest) -> bytes | None:
        """The body, or None when it is larger than allowed (the data process bounds it as well)."""
        parts = bytearray()
        async for piece in request.content.iter_any():
            parts += piece
            if len(parts) > self._limits.body_bytes:
                return None
        return bytes(parts)


def _edge_request(request: web.BaseRequest, path: str, body: bytes) -> EdgeRequest:
    headers = {name.lower(): value for name, value in request.headers.items()}
    certificate = headers.pop(PEER_CERT, "")
    return EdgeRequest(
        method=request.method,
        path=path,
        query=dict(request.rel_url.query),
        raw_query=request.rel_url.raw_query_string,
        headers=headers,
        body=body,
        peer_cert=base64.b64decode(certificate, validate=True) if certificate else None,
        peer_address=headers.pop(PEER_ADDRESS, ""),
    )


def _refuse(kind: Kind) -> web.Response:
    wire = WIRE[kind]
    value = {"code": wire.code, "msg": wire.text, "data": {}}
    return web.Response(status=wire.http, body=json.dumps(value).encode(), headers={"content-type": "application/json"})
