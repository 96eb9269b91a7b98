"""Everything that is not chan/*: handed to the control process over its Unix socket (data_plane.io.hop).

The data process owns the ports, the control process decides. A body is read to its end before one of the few
connections to control is taken, or a handful of slow senders would keep everybody else out. Answers are streamed; long
ones hold a connection for as long as their reader takes, so they may be few at a time and have an end.
Original headers go along except those of one hop and any that begin with `x-interconn-`: what we know of the caller
travels beside the headers, and nobody outside writes in our name.
"""

import asyncio
import json
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from aiohttp import web
from multidict import CIMultiDictProxy

from gateway.data_plane.core.budget import Budget
from gateway.data_plane.io import body
from gateway.data_plane.io.hop import Ask, Hop
from gateway.errors import GatewayError, Kind, ProtocolViolation, Unavailable

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
LONG_ANSWERS: Final = 64
"""Of the connections, so many may carry answers of more than one piece."""
LONG_S: Final = 120.0
"""Such an answer breaks off where its reader has not taken it within so long."""
HELD_BYTES: Final = 256 << 20
"""Bodies on their way, all together."""
_HEADERS: Final = {"content-type": "application/json", "server": "interconn"}
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
    """The way to the control process. socket: where it takes frames. limit: bytes of a request's body."""

    def __init__(self, socket: Path, *, limit: int) -> None:
        self._limit = limit
        self._budget = Budget(process_bytes=max(limit, HELD_BYTES), session_bytes=0)
        self._hop = Hop(socket, most=CONNECTIONS, open_s=CONNECT_S, silence_s=ANSWER_S)
        self._long = asyncio.Semaphore(LONG_ANSWERS)

    async def handle(
        self, request: web.BaseRequest, door: str, path: str, *, peer_cert: bytes | None
    ) -> web.StreamResponse:
        """Send the request on to a door of control and its answer back; path: from `safe_path`.

        Raises ProtocolViolation(TOO_LARGE, MALFORMED, NOT_OFFERED), Unavailable(OVERLOADED) when control does not
        answer or too many bodies are on their way.
        """
        if request.method not in _METHODS:
            raise ProtocolViolation(f"method {request.method[:16]}: not offered", kind=Kind.NOT_OFFERED)
        ask = Ask(
            door=door,
            method=request.method,
            path=path,
            query=request.rel_url.raw_query_string,
            address=request.remote or "",
            headers=_onward(request.headers),
            certificate=peer_cert,
        )
        if not request.body_exists:
            return await self._carry(request, ask)
        try:
            async with body.body_of(request, self._budget, limit=self._limit) as whole:
                return await self._carry(request, replace(ask, body=whole))
        except Unavailable as e:
            if e.kind is Kind.BUFFER_FULL:
                raise Unavailable("too many bodies for control", kind=Kind.OVERLOADED) from e
            raise

    async def _carry(self, request: web.BaseRequest, ask: Ask) -> web.StreamResponse:
        answer: web.StreamResponse | None = None
        try:
            async with self._hop.ask(ask) as answered:
                if answered.whole:
                    return web.Response(status=answered.status, body=answered.first, headers=_HEADERS)
                if self._long.locked():
                    raise Unavailable("too many long answers at a time", kind=Kind.OVERLOADED)
                async with self._long, asyncio.timeout(LONG_S):
                    answer = web.StreamResponse(status=answered.status, headers=_HEADERS)
                    await answer.prepare(request)
                    await answer.write(answered.first)
                    async for piece in answered.rest():
                        await answer.write(piece)
                    await answer.write_eof()
                    return answer
        except OSError as e:
            if answer is not None:
                # The head of an answer is out; a second one would be read as its body. The caller sees a broken end.
                raise ConnectionResetError("answer of control broken off") from e
            raise Unavailable("control cannot be reached", kind=Kind.OVERLOADED) from e

    async def close(self) -> None:
        self._hop.close()


@lru_cache(maxsize=1024)
def _own_or_one_hop(name: str) -> bool:
    lower = name.lower()
    return lower in _ONE_HOP or lower.replace("_", "-").startswith(_OWN_PREFIX)


def _onward(headers: CIMultiDictProxy[str]) -> list[str]:
    """Names and values in turn of the headers that go along."""
    named = {name.strip().lower() for value in headers.getall("connection", ()) for name in value.split(",")}
    kept: list[str] = []
    for name, value in headers.items():
        if not (_own_or_one_hop(name) or name.lower() in named):
            kept += (name, value)
    return kept


def refusal(error: GatewayError) -> web.Response:
    """A failure of this process in the form of management and control: {code, msg, data} (C-004)."""
    value = {"code": error.wire.code, "msg": error.public_text(), "data": {}}
    return web.Response(
        status=error.wire.http,
        body=json.dumps(value).encode(),
        headers={"content-type": "application/json", "server": "interconn"},
    )
