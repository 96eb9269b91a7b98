"""The two public listeners over HTTP/1.1: edge (partners, TLS) and platform (our own side, loopback).

chan/* is served here by a `door`, all else goes to control.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.data_plane.core import frame as fr
from gateway.data_plane.core import heads, wire
from gateway.data_plane.core import stream as st
from gateway.data_plane.io import body as pace
from gateway.data_plane.io import door, forward, transports
from gateway.data_plane.io.filed import Files
from gateway.data_plane.io.standing import Standing
from gateway.data_plane.io.stream_server import Streams
from gateway.data_plane.io.upgrade import Pipes, Prove
from gateway.errors import GatewayError
from gateway.model import Limits
from gateway.ports import Journal

NO_PIPES: Final = Pipes({})


def _ours(record: logging.LogRecord) -> bool:
    """Whether what aiohttp wants to log is an error of ours. Of requests that are no HTTP it would quote the lines, and
    in them tokens.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def server(handler: Any, limits: Limits, *, cancel_with_client: bool) -> web.Server:
    """An HTTP/1.1 server around a handler, with our bounds. Bodies are never decompressed."""
    log = logging.Logger("interconn.http")  # noqa: LOG001  # the filter is this server's, not the whole process's
    log.addFilter(_ours)
    return web.Server(
        handler,
        logger=log,
        handler_cancellation=cancel_with_client,
        keepalive_timeout=75.0,
        access_log=None,
        auto_decompress=False,
        max_line_size=limits.header_bytes // 2,
        max_field_size=limits.header_bytes // 2,
        lingering_time=5.0,
    )


class _Listener:
    """The split between chan/* and the rest. Call it with a request."""

    side: str
    merge_slashes: bool

    def __init__(
        self,
        *,
        doors: door.Door,
        standing: Standing,
        control: forward.ControlForward,
        files: Files,
        journal: Journal,
        pipes: Pipes = NO_PIPES,
        prefix: str = "",
        streams: Streams | None = None,
    ) -> None:
        """prefix: of paths, under which everything is served, too: that of this node's own address."""
        self._pipes = pipes
        self._prefix = f"{prefix}/"
        self._door = doors
        self._standing = standing
        self._control = control
        self._files = files
        self._journal = journal
        self._streams = streams

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        prove = partial(self._standing.prove, transport)
        prove_apart = partial(self._standing.prove_apart, transport)
        after: list[Callable[[bool], None]] = []
        try:
            path = forward.safe_path(request.rel_url.raw_path, merge_slashes=self.merge_slashes)
            if path.startswith(self._prefix):
                path = "/" + path.removeprefix(self._prefix)
            if (pipe := self._pipes.asked(request.method, path, request.headers)) is not None:
                piped = await pipe.admit(prove_apart, request.rel_url.query)
                self._standing.set_apart(transport)
                try:
                    return await _hand_over(request, heads.BYTES_PROTOCOL, piped.serve)
                finally:
                    piped.end()
            if not path.startswith(fr.CHANNEL_PREFIX):
                return await self._control.handle(request, self.side, path, peer_cert=self._standing.leaf(transport))
            name = path.removeprefix(fr.CHANNEL_PREFIX)
            if self._streams is not None and self._streams.asked(request.method, name, request.headers):
                return await self._upgrade(request, self._streams, prove_apart)
            call = door.Call(
                method=request.method,
                name=name,
                headers=request.headers.items(),
                prove=prove,
                body=lambda limit: pace.body_of(request, self._files.budget, limit=limit, files=self._files),
                wait=request.rel_url.query.get("timeout"),
                after=after,
            )
            reply = await self._door.chan(call)
            response = await _write(request, reply)
            if after:
                await _taken(request, response.prepare(request))
                await _taken(request, response.write_eof())
                door.tell(after, written=request.transport is not None and not request.transport.is_closing())
        except GatewayError as error:
            self._journal.note("edge.refused", side=self.side, kind=error.kind.value, reason=str(error))
            return forward.refusal(error)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001  # the edge: nothing of it may reach the caller
            return forward.refusal(door.internal(self._journal, error))
        else:
            return response
        finally:
            door.tell(after, written=False)

    async def _upgrade(self, request: web.BaseRequest, streams: Streams, prove: Prove) -> web.StreamResponse:
        """Hand the connection over; returns when the stream has ended."""
        try:
            stream = streams.admit(prove)
        except GatewayError as error:
            self._journal.note("edge.refused", side=self.side, kind=error.kind.value, reason=str(error))
            status, content_type, body = fr.encode_error(fr.Codec.JSON, error)
            return web.Response(status=status, body=b"".join(body), headers={"content-type": content_type})

        async def serve(transport: asyncio.Transport) -> None:
            transport.set_protocol(stream)
            stream.connection_made(transport)
            self._standing.set_apart(transport)
            await stream.over.wait()

        try:
            return await _hand_over(request, st.PROTOCOL, serve)
        finally:
            stream.end()


class EdgeListener(_Listener):
    """Partners."""

    side = "edge"
    merge_slashes = False


class PlatformListener(_Listener):
    """Our own side; paths of control also with doubled slashes (C-008)."""

    side = "platform"
    merge_slashes = True


async def _hand_over(
    request: web.BaseRequest, protocol: str, serve: Callable[[asyncio.Transport], Awaitable[None]]
) -> web.StreamResponse:
    """Answer 101 and let `serve` have the connection until it has ended; aiohttp learns then that it is lost."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    former = transport.get_protocol()
    transport.write(heads.switching(protocol))
    try:
        await serve(transport)
    finally:
        transport.close()
        if isinstance(former, asyncio.Protocol):
            former.connection_lost(None)
    return web.StreamResponse(status=HTTPStatus.SWITCHING_PROTOCOLS)


async def _write(request: web.BaseRequest, reply: door.Reply) -> web.StreamResponse:
    """Answer; a large body goes out in slices, never joined."""
    headers = {"content-type": reply.content_type, "server": "interconn"}
    size = wire.size(reply.body)
    if size <= wire.JOIN_BELOW:
        return web.Response(status=reply.status, body=b"".join(reply.body), headers=headers)
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_length = size
    await response.prepare(request)
    for piece in wire.slices(reply.body):
        await _taken(request, response.write(piece))
    return response


async def _taken(request: web.BaseRequest, writing: Awaitable[object]) -> None:
    """Write to a reader, who may be slow, but not take nothing. Raises ConnectionResetError."""
    try:
        async with asyncio.timeout(pace.STALL_S):
            await writing
    except TimeoutError as e:
        if request.transport is not None:
            transports.abort(request.transport)
        raise ConnectionResetError("an answer's reader takes nothing") from e
