"""Calls to a partner's `chan/invoke` over HTTP/1.1: one pool of connections, opened by a `dial.Way`.

Implements `channel.Partner`. One attempt per call; whether to try again is `channel`'s decision, so every failure says
whether the message can have arrived.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from gateway.data_plane.core import frame as fr
from gateway.data_plane.core.wire import Buffer
from gateway.data_plane.io.dial import Way
from gateway.data_plane.io.roads import CONNECT_S
from gateway.errors import Kind, ProtocolViolation, Unavailable
from specs.routes import CHANNEL

CONNECTIONS: Final = 64
KEEP_S: Final = 15.0
"""Idle connections are closed before a usual server (75 s) does it: a request on a dying one may be lost."""
ANSWER_S: Final = 30.0
SLOWEST_BYTES_PER_S: Final = 256 << 10
ANSWER_BYTES: Final = 1 << 20
JOIN_BELOW: Final = 64 << 10
PIECE: Final = 256 << 10


class _Connector(aiohttp.BaseConnector):
    """Connections of aiohttp that a `Way` opens; a failure leaves as the way's own error."""

    def __init__(self, way: Way) -> None:
        super().__init__(limit=CONNECTIONS, keepalive_timeout=KEEP_S)
        self._way = way

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp calls it so
    ) -> ResponseHandler:
        del req, traces, timeout
        return (await self._way.open(self._factory))[1]


class HttpPartner:
    """What is spoken with one partner: HTTP/1.1."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._url = URL(way.route.address.rstrip("/") + CHANNEL["chan.invoke"].path)
        self._session: aiohttp.ClientSession | None = None
        self._in_flight = 0
        self._retired = False

    @property
    def inst_id(self) -> str:
        return self._way.route.inst_id

    async def deliver(self, outgoing: fr.Outgoing) -> fr.Answer:
        """See channel.Partner."""
        self._in_flight += 1
        try:
            call = fr.invoke(outgoing)
            async with asyncio.timeout(ANSWER_S + CONNECT_S + call.size / SLOWEST_BYTES_PER_S):
                return await self._post(call)
        except TimeoutError as e:
            raise Unavailable(f"{self._way.route.node_id}: no answer in time", kind=Kind.PEER_TIMEOUT) from e
        except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as e:
            raise Unavailable(f"{self._way.route.node_id}: {type(e).__name__}", kind=Kind.PEER_UNREACHABLE) from e
        finally:
            self._in_flight -= 1
            if self._retired and not self._in_flight:
                await self.close()

    async def retire(self) -> None:
        """Close as soon as the calls under way have ended."""
        self._retired = True
        if not self._in_flight:
            await self.close()

    async def _post(self, call: fr.Invoke) -> fr.Answer:
        if self._session is None:
            self._session = self._open()
        size = call.size
        body = b"".join(call.body) if size <= JOIN_BELOW else _pieces(call.body)
        headers = {**call.headers, "content-length": str(size), "accept-encoding": "identity"}
        async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            answer = await response.content.read(ANSWER_BYTES)
            while len(answer) < ANSWER_BYTES and (more := await response.content.read(ANSWER_BYTES)):
                answer += more
            if len(answer) >= ANSWER_BYTES:
                raise ProtocolViolation("the partner's answer is too long", kind=Kind.PEER_MALFORMED, detail="")
            if response.status in {502, 503, 504} and not fr.CODE_IN.search(answer):
                # Something in front of the partner speaks; whether it has handed the message on is not known.
                raise Unavailable(f"{self._way.route.node_id}: HTTP {response.status}", kind=Kind.PEER_UNREACHABLE)
            return fr.read_answer(response.headers.get("content-type", ""), answer)

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=_Connector(self._way),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=ANSWER_S),
            skip_auto_headers=("user-agent",),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection, calls under way included."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _pieces(body: tuple[Buffer, ...]) -> AsyncIterator[Buffer]:
    """A large body in slices that the connection takes one by one, so that it is never joined."""
    for part in body:
        view = memoryview(part)
        for at in range(0, len(view), PIECE):
            yield view[at : at + PIECE]
