"""The control process's Unix sockets: what the data process forwards to it, and the snapshot that it pulls.

`frames.sock` takes partners' and our own side's requests, each for its door, with the data process's word on who
called (data_plane.io.hop); `control.sock` answers `GET /link/snapshot` over HTTP. Only the data process can reach them
(the folder is 0700).
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from gateway.data_plane.io.hop import SOCKET, Ask, HopServer, Reply
from gateway.data_plane.io.link import CONTROL_SOCKET
from gateway.errors import WIRE, Kind
from gateway.model import Limits
from gateway.ports import EdgeReply, EdgeRequest

Answer = Callable[[EdgeRequest], Awaitable[EdgeReply]]
Snapshot = Callable[[], Awaitable[Mapping[str, Any]]]


class ControlServer:
    """Serves both sockets in `run_dir` until `stop`. `edge` and `platform` never raise."""

    def __init__(self, run_dir: Path, *, edge: Answer, platform: Answer, snapshot: Snapshot, limits: Limits) -> None:
        self._socket = run_dir / CONTROL_SOCKET
        self._doors = {"edge": edge, "platform": platform}
        self._snapshot = snapshot
        self._runner: web.ServerRunner | None = None
        self._frames = HopServer(run_dir / SOCKET, self._forwarded, body_bytes=limits.body_bytes)

    async def start(self) -> None:
        await self._frames.start()
        self._socket.unlink(missing_ok=True)
        self._runner = web.ServerRunner(
            web.Server(self._link, access_log=None), handle_signals=False, shutdown_timeout=5.0
        )
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._socket)).start()

    async def stop(self) -> None:
        await self._frames.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        self._socket.unlink(missing_ok=True)

    async def _link(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET" and request.path == "/link/snapshot":
            return web.json_response(await self._snapshot())
        return web.Response(status=404)

    async def _forwarded(self, ask: Ask) -> Reply:
        door = self._doors.get(ask.door)
        if door is None:
            wire = WIRE[Kind.NOT_FOUND]
            return Reply(wire.http, json.dumps({"code": wire.code, "msg": wire.text, "data": {}}).encode())
        reply = await door(edge_request(ask))
        return Reply(reply.status, reply.body, reply.more)


def edge_request(ask: Ask) -> EdgeRequest:
    """A forwarded request as the doors read it. A parameter or header that is there twice counts as its last."""
    names, values = ask.headers[::2], ask.headers[1::2]
    return EdgeRequest(
        method=ask.method,
        path=unquote(ask.path) if "%" in ask.path else ask.path,
        query=dict(parse_qsl(ask.query, keep_blank_values=True)) if ask.query else {},
        raw_query=ask.query,
        headers={name.lower(): value for name, value in zip(names, values, strict=True)},
        body=bytes(ask.body),
        peer_cert=ask.certificate,
        peer_address=ask.address,
    )
