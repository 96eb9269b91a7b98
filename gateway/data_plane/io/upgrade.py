"""Connections between gateways that become pipes for bytes: both ends of `Upgrade: interconn-bytes/1`.

A partner asks for one at our edge, under a path of `specs.routes`, and `Pipes` says what becomes of it: a connection
that it parks with us (`park`), or one to a third node (`relay`). `ask` is how we ask a partner.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from gateway.data_plane.core import heads
from gateway.data_plane.io import transports
from gateway.data_plane.io.dial import Way
from gateway.errors import GatewayError, Kind, ProtocolViolation, Refused, Unavailable
from gateway.model import NodeId

ASK_S: Final = 10.0
_WORDS: Final = 200

Prove = Callable[[], NodeId]
"""Who is at the other end, asked anew each time; raises Refused(UNAUTHENTICATED)."""


class Piped(Protocol):
    """What becomes of a connection after the answer 101."""

    async def serve(self, transport: asyncio.Transport) -> None:
        """Until the connection has ended; sets the transport's protocol before anything is awaited."""
        ...

    def end(self) -> None:
        """It has ended, or will not even begin, since the asking connection has gone."""
        ...


class Pipe(Protocol):
    """One kind of pipe."""

    async def admit(self, prove: Prove, query: Mapping[str, str]) -> Piped:
        """Raises GatewayError where there will be none."""
        ...


class Pipes:
    """All kinds of pipes that our edge offers, by path."""

    def __init__(self, kinds: Mapping[str, Pipe]) -> None:
        self._kinds = kinds

    def asked(self, method: str, path: str, headers: Mapping[str, str]) -> Pipe | None:
        """The kind that a request means. headers: names as they are looked up, in any case.

        Raises Refused(NOT_OFFERED) for a request to such a path that asks for no pipe.
        """
        kind = self._kinds.get(path)
        if kind is not None and (method != "GET" or headers.get("upgrade", "").lower() != heads.BYTES_PROTOCOL):
            raise Refused(f"a pipe begins with GET and Upgrade: {heads.BYTES_PROTOCOL}", kind=Kind.NOT_OFFERED)
        return kind


async def ask(way: Way, target: str) -> tuple[asyncio.Transport, bytes]:
    """A connection to a partner that is a pipe now and does not read, and what came in with the answer.

    target: path and query behind the partner's address. Raises as Way.open does, Unavailable(NO_ROUTE) where the
    partner refuses.
    """
    address, node = urlsplit(way.route.address), way.route.node_id
    request = heads.upgrade(address.path.rstrip("/") + target, address.netloc)
    transport, asking = await way.open(_Asking)
    try:
        transport.write(request)
        async with asyncio.timeout(ASK_S):
            return transport, _switched(node, await asking.head)
    except (OSError, TimeoutError, ProtocolViolation) as e:
        transports.abort(transport)
        raise Unavailable(f"{node} opens no pipe", kind=Kind.NO_ROUTE) from e
    except BaseException:
        transports.abort(transport)
        raise


def _switched(node: NodeId, head: heads.Head) -> bytes:
    """What came behind the head."""
    if not head.switches_to(heads.BYTES_PROTOCOL):
        raise Unavailable(f"{node} opens no pipe: {_words(head)}", kind=Kind.NO_ROUTE)
    return head.rest


def _words(head: heads.Head) -> str:
    """Our own kind says why (`forward.refusal`)."""
    try:
        said = str(json.loads(head.rest)["msg"])[:_WORDS]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"HTTP {head.status}"
    return said if said.isprintable() else f"HTTP {head.status}"


class _Asking(asyncio.Protocol):
    """Reads the answer's head and nothing more."""

    def __init__(self) -> None:
        self.head: asyncio.Future[heads.Head] = asyncio.get_running_loop().create_future()
        self._got = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self.head.done():
            return
        try:
            head = heads.read_head(self._got)
        except GatewayError as e:
            self.head.set_exception(e)
        else:
            if head is not None:
                self.head.set_result(head)
        if self.head.done() and self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.head.done():
            self.head.set_exception(error or ConnectionResetError())
