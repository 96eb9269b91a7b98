"""Everything that is not chan/*: handed to the control process over its Unix socket.

The data process owns the ports, the control process decides. A body is read to its end before one of the few
connections to control is taken, or a handful of slow senders would keep everybody else out; answers are streamed.
Original headers go along except those of one hop and
any that begin with `x-interconn-`: these only this process writes, and control believes them.
"""

import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.wire import Buffer
from gateway.data_plane.io import body
from gateway.errors import GatewayError, Kind, ProtocolViolation, Unavailable

PEER_CERT: Final = "x-interconn-peer-cert"
PEER_ADDRESS: Final = "x-interconn-peer-address"
_OWN_PREFIX: Final = "x-interconn-"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})
_ONE_HOP: Final = frozenset(
    {
        "connection",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
ANSWER_S: Final = 60.0
CONNECT_S: Final = 10.0
"""Waiting for one of the connections to control, too."""
CONNECTIONS: Final = 256
HELD_BYTES: Final = 256 << 20
"""Bodies on their way, all together."""
_PIECE: Final = 256 << 10
_SLASHES: Final = re.compile("/{2,}")


def safe_path(raw: str, *, merge_slashes: bool = False) -> str:
    """The raw path, if it names the same thing however it is decoded; else ProtocolViolation(NOT_FOUND).

    A `..`, also an encoded one, could climb from the partners' side of the control socket to our own side's.
    merge_slashes: as the call-back path needs (C-008).
    """
    path = _SLASHES.sub("/", raw) if merge_slashes else raw
    plain = unquote(path)
    if (
        not path.startswith("/")
        or "%2f" in path.lower()
        or "%5c" in path.lower()
        or "\\" in plain
        or "%" in plain
        or not plain.isprintable()
        or any(segment in {".", ".."} for segment in plain.split("/"))
    ):
        raise ProtocolViolation("no such path", kind=Kind.NOT_FOUND)
    return path


class ControlForward:
    """The way to the control process. limit: bytes of a request's body."""

    def __init__(self, socket: Path, *, limit: int) -> None:
        self._socket = socket
        self._limit = limit
        self._budget = Budget(process_bytes=max(limit, HELD_BYTES), session_bytes=0)
        self._session: aiohttp.ClientSession | None = None

    async def handle(
        self, request: web.BaseRequest, prefix: str, path: str, *, peer_cert: bytes | None
    ) -> web.StreamResponse:
        """Send the request on as `prefix` + `path` and its answer back; path: from `safe_path`.

        Raises ProtocolViolation(TOO_LARGE, MALFORMED, NOT_OFFERED), Unavailable(OVERLOADED) when control does not
        answer or too many bodies are on their way.
        """
        if request.method not in _METHODS:
            raise ProtocolViolation(f"method {request.method[:16]}: not offered", kind=Kind.NOT_OFFERED)
        query = request.rel_url.raw_query_string
        url = URL(f"http://control{prefix}{path}{'?' + query if query else ''}", encoded=True)
        headers = _onward(request.headers)
        headers[PEER_ADDRESS] = request.remote or ""
        if peer_cert is not None:
            headers[PEER_CERT] = base64.b64encode(peer_cert).decode()
        if not request.body_exists:
            return await self._carry(request, url, headers, None)
        try:
            async with body.body_of(request, self._budget, limit=self._limit) as whole:
                return await self._carry(request, url, headers, whole)
        except Unavailable as e:
            if e.kind is Kind.BUFFER_FULL:
                raise Unavailable("too many bodies for control", kind=Kind.OVERLOADED) from e
            raise

    async def _carry(
        self, request: web.BaseRequest, url: URL, headers: "CIMultiDict[str]", whole: Buffer | None
    ) -> web.StreamResponse:
        answer: web.StreamResponse | None = None
        try:
            session = self._session or self._open()
            data = None if whole is None else _pieces(whole)
            async with session.request(
                request.method, url, data=data, headers=headers, allow_redirects=False
            ) as response:
                back = _onward(response.headers)
                back["server"] = "interconn"
                answer = web.StreamResponse(status=response.status, headers=back)
                await answer.prepare(request)
                async for piece in response.content.iter_any():
                    await answer.write(piece)
                await answer.write_eof()
                return answer
        except (aiohttp.ClientError, OSError) as e:
            if answer is not None:
                # The head of an answer is out; a second one would be read as its body. The caller sees a broken end.
                raise ConnectionResetError("answer of control broken off") from e
            raise Unavailable("control cannot be reached", kind=Kind.OVERLOADED) from e

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._socket), limit=CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_connect=5.0, sock_read=ANSWER_S),
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
            auto_decompress=False,
            trust_env=False,
        )
        return self._session


async def _pieces(whole: Buffer) -> AsyncIterator[Buffer]:
    view = memoryview(whole)
    for at in range(0, len(view), _PIECE):
        yield view[at : at + _PIECE]


def _onward(headers: "CIMultiDict[str] | aiohttp.typedefs.LooseHeaders") -> "CIMultiDict[str]":
    source = CIMultiDict(headers)
    named = {name.strip().lower() for value in source.getall("connection", []) for name in value.split(",")}
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in source.items():
        lower = name.lower()
        if lower in _ONE_HOP or lower in named or lower.replace("_", "-").startswith(_OWN_PREFIX):
            continue
        kept.add(name, value)
    return kept


def refusal(error: GatewayError) -> web.Response:
    """A failure of this process in the form of management and control: {code, msg, data} (C-004)."""
    value = {"code": error.wire.code, "msg": error.public_text(), "data": {}}
    return web.Response(
        status=error.wire.http,
        body=json.dumps(value).encode(),
        headers={"content-type": "application/json", "server": "interconn"},
    )
