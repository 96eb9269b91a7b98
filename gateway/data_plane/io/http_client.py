"""Calls to partners' `chan/invoke` over HTTPS: one connection pool per partner, its CA pinned, our certificate shown.

Implements `channel.Partner` and `channel.Partners`. One attempt per call; whether to try again is `channel`'s decision,
so every failure says whether the message can have arrived. Proxies on the way out come later.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from gateway.data_plane.core import frame as fr
from gateway.data_plane.core.wire import Buffer
from gateway.data_plane.io import tls
from gateway.errors import Kind, ProtocolViolation, Refused, Unavailable
from gateway.model import NodeId
from gateway.ports import PeerRoute
from specs.routes import CHANNEL

CONNECTIONS: Final = 64
KEEP_S: Final = 15.0
"""Idle connections are closed before a usual server (75 s) does it: a request on a dying one may be lost."""
CONNECT_S: Final = 10.0
ANSWER_S: Final = 30.0
SLOWEST_BYTES_PER_S: Final = 256 << 10
ANSWER_BYTES: Final = 1 << 20
JOIN_BELOW: Final = 64 << 10
PIECE: Final = 256 << 10


class HttpPartner:
    """The way to one partner."""

    def __init__(
        self,
        route: PeerRoute,
        *,
        chain_file: Path,
        key_file: Path,
        revoked: Callable[[list[bytes]], None] = lambda _verified: None,
    ) -> None:
        """Raises Refused(CONTRACT_INVALID): no https address or no usable CA."""
        parts = urlsplit(route.address)
        if parts.scheme != "https" or not parts.hostname:
            raise Refused(f"{route.node_id}: the address is not https", kind=Kind.CONTRACT_INVALID)
        self.route = route
        self._url = URL(route.address.rstrip("/") + CHANNEL["chan.invoke"].path)
        roots = tls.ca_ders(route.tls_ca)
        self._context = tls.client_context(chain_file, key_file, roots=roots, node_id=route.node_id, revoked=revoked)
        self._session: aiohttp.ClientSession | None = None
        self._in_flight = 0
        self._retired = False

    @property
    def inst_id(self) -> str:
        return self.route.inst_id

    async def deliver(self, outgoing: fr.Outgoing) -> fr.Answer:
        """See channel.Partner."""
        self._in_flight += 1
        try:
            async with asyncio.timeout(ANSWER_S + CONNECT_S + outgoing.size / SLOWEST_BYTES_PER_S):
                return await self._post(outgoing)
        except aiohttp.ClientSSLError as e:
            raise Refused("the partner's TLS identity is not the pinned one", kind=Kind.UNAUTHENTICATED) from e
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientProxyConnectionError) as e:
            raise Unavailable(f"{self.route.node_id}: no connection", kind=Kind.NO_ROUTE) from e
        except TimeoutError as e:
            raise Unavailable(f"{self.route.node_id}: no answer in time", kind=Kind.PEER_TIMEOUT) from e
        except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as e:
            raise Unavailable(f"{self.route.node_id}: {type(e).__name__}", kind=Kind.PEER_UNREACHABLE) from e
        finally:
            self._in_flight -= 1
            if self._retired and not self._in_flight:
                await self._close()

    async def retire(self) -> None:
        """Close as soon as the calls under way have ended."""
        self._retired = True
        if not self._in_flight:
            await self._close()

    async def _post(self, outgoing: fr.Outgoing) -> fr.Answer:
        if self._session is None:
            self._session = self._open()
        size = outgoing.size
        body = b"".join(outgoing.body) if size <= JOIN_BELOW else _pieces(outgoing.body)
        headers = {**outgoing.headers, "content-length": str(size), "accept-encoding": "identity"}
        async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            answer = await response.content.read(ANSWER_BYTES)
            while len(answer) < ANSWER_BYTES and (more := await response.content.read(ANSWER_BYTES)):
                answer += more
            if len(answer) >= ANSWER_BYTES:
                raise ProtocolViolation("the partner's answer is too long", kind=Kind.PEER_MALFORMED, detail="")
            if response.status in {502, 503, 504} and not fr.CODE_IN.search(answer):
                # Something in front of the partner speaks; whether it has handed the message on is not known.
                raise Unavailable(f"{self.route.node_id}: HTTP {response.status}", kind=Kind.PEER_UNREACHABLE)
            return fr.read_answer(response.headers.get("content-type", ""), answer)

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self._context, limit=CONNECTIONS, keepalive_timeout=KEEP_S)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S),
            skip_auto_headers=("user-agent",),
            auto_decompress=False,
            trust_env=False,
        )

    async def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _pieces(body: tuple[Buffer, ...]) -> AsyncIterator[Buffer]:
    """A large body in slices that the connection takes one by one, so that it is never joined."""
    for part in body:
        view = memoryview(part)
        for at in range(0, len(view), PIECE):
            yield view[at : at + PIECE]


class HttpPartners:
    """All partners by node id. revoked: as tls.client_context's."""

    def __init__(
        self, *, chain_file: Path, key_file: Path, revoked: Callable[[list[bytes]], None] = lambda _verified: None
    ) -> None:
        self._files = (chain_file, key_file)
        self._revoked = revoked
        self._partners: dict[NodeId, HttpPartner] = {}

    def find(self, node: NodeId) -> HttpPartner | None:
        return self._partners.get(node)

    def __len__(self) -> int:
        return len(self._partners)

    async def set_routes(self, routes: Sequence[PeerRoute]) -> Sequence[str]:
        """Replace all; an unchanged route keeps its connections. Returns the routes not usable, in words."""
        old, new, problems = self._partners, dict[NodeId, HttpPartner](), list[str]()
        for route in routes:
            kept = old.get(route.node_id)
            if kept is not None and kept.route == route:
                new[route.node_id] = kept
                continue
            try:
                named = (route.our_chain, route.our_key)
                chain_file, key_file = (
                    Path(own) if own else file for own, file in zip(named, self._files, strict=True)
                )
                new[route.node_id] = HttpPartner(route, chain_file=chain_file, key_file=key_file, revoked=self._revoked)
            except Refused as e:
                problems.append(f"{route.node_id}: {e}")
        self._partners = new
        for node, partner in old.items():
            if new.get(node) is not partner:
                await partner.retire()
        return problems

    async def close(self) -> None:
        """Close every connection, calls under way included."""
        for partner in self._partners.values():
            await partner._close()  # noqa: SLF001  # the pool owns its partners
        self._partners = {}
