"""The two public listeners over HTTP/1.1: edge (partners, TLS) and platform (our own side, loopback).

chan/* is served here, all else goes to control. Nothing of a request is believed before `edge` or the session's rule
says who asks; bodies are read after that. Errors become codes at one place per listener (`_Door`), and only there
is an unknown exception caught.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from gateway.data_plane.channel import Channel
from gateway.data_plane.core import frame as fr
from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.frame import Envelope, Operation
from gateway.data_plane.io import forward
from gateway.data_plane.io.body import body_of
from gateway.data_plane.io.edge import Edge
from gateway.errors import CallerError, GatewayError, Kind, ProtocolViolation, Refused
from gateway.model import Limits
from gateway.ports import Journal
from specs.codes import Transport
from specs.routes import CHANNEL

INVOKE: Final = CHANNEL["chan.invoke"].path.removeprefix(fr.CHANNEL_PREFIX)
TRANSPORT: Final = CHANNEL["chan.transport"].path.removeprefix(fr.CHANNEL_PREFIX)
SUCCESS: Final = "ok"


def server(handler: Any, limits: Limits, *, cancel_with_client: bool) -> web.Server:
    """An HTTP/1.1 server around a handler, with our bounds. Bodies are never decompressed."""
    return web.Server(
        handler,
        handler_cancellation=cancel_with_client,
        keepalive_timeout=75.0,
        access_log=None,
        auto_decompress=False,
        max_line_size=limits.header_bytes // 2,
        max_field_size=limits.header_bytes // 2,
        lingering_time=5.0,
    )


class _Door:
    """What both listeners share: errors to answers, and the split between chan/* and the rest."""

    prefix: str
    merge_slashes: bool

    def __init__(
        self, *, channel: Channel, control: forward.ControlForward, budget: Budget, limits: Limits, journal: Journal
    ) -> None:
        self._channel = channel
        self._control = control
        self._budget = budget
        self._limits = limits
        self._journal = journal

    def _bound(self, codec: fr.Codec) -> int:
        """Bytes that a body may have."""
        return self._limits.channel_json_bytes if codec is fr.Codec.JSON else self._limits.channel_body_bytes

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            path = forward.safe_path(request.rel_url.raw_path, merge_slashes=self.merge_slashes)
            if path.startswith(fr.CHANNEL_PREFIX):
                return await self._chan(request, path.removeprefix(fr.CHANNEL_PREFIX))
            return await self._control.handle(request, self.prefix[1:], path, peer_cert=self._peer_cert(request))
        except GatewayError as error:
            self._journal.note("edge.refused", side=self.prefix, kind=error.kind.value, reason=str(error))
            return forward.refusal(error)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001  # the edge: nothing of it may reach the caller
            return forward.refusal(self._internal(error))

    async def _chan(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        codec = fr.Codec.JSON
        envelope: Envelope | None = None
        try:
            headers = _single(request)
            codec = fr.answer_codec(headers, invoke=name == INVOKE)
            if request.method != "POST":
                return _answer(405, *fr.encode_answer(codec, Transport.ILLEGAL, "POST expected"))
            envelope = fr.read_envelope(headers, self._limits)
            return _answer(200, *await self._serve(request, name, envelope, codec))
        except GatewayError as error:
            self._channel.refused(envelope, name[:32], error)
            return _answer(*fr.encode_error(codec, error))
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001  # as above
            return _answer(*fr.encode_error(codec, self._internal(error)))

    async def _serve(
        self, request: web.BaseRequest, name: str, envelope: Envelope, codec: fr.Codec
    ) -> tuple[str, bytes]:
        raise NotImplementedError

    def _peer_cert(self, request: web.BaseRequest) -> bytes | None:
        raise NotImplementedError

    def _internal(self, error: Exception) -> GatewayError:
        self._journal.note("edge.internal", side=self.prefix, error=type(error).__name__, where=_where(error))
        return CallerError("internal error")


class EdgeDoor(_Door):
    """Partners. Of chan/* only invoke; reading and releasing are our own side's (T-054), streams come later."""

    prefix = "/edge"
    merge_slashes = False

    def __init__(self, *, edge: Edge, **shared: Any) -> None:
        super().__init__(**shared)
        self._edge = edge

    async def _serve(
        self, request: web.BaseRequest, name: str, envelope: Envelope, codec: fr.Codec
    ) -> tuple[str, bytes]:
        if name in fr.OPERATIONS or name == TRANSPORT:
            raise Refused(f"{name} is not offered to partners", kind=Kind.NOT_OFFERED)
        if name != INVOKE:
            raise Refused("no such channel operation", kind=Kind.NOT_FOUND)
        proven = self._edge.prove(_ssl_object(request))
        self._channel.admit_partner(envelope, proven)
        async with body_of(request, self._budget, limit=self._bound(codec)) as body:
            self._channel.accept(fr.decode_invoke(envelope, body, limits=self._limits))
        return fr.encode_answer(codec, Transport.OK, SUCCESS)

    def _peer_cert(self, request: web.BaseRequest) -> bytes | None:
        return self._edge.leaf(_ssl_object(request))


class PlatformDoor(_Door):
    """Our own side: the four operations, and its paths of control (also with doubled slashes, C-008)."""

    prefix = "/platform"
    merge_slashes = True

    async def _serve(
        self, request: web.BaseRequest, name: str, envelope: Envelope, codec: fr.Codec
    ) -> tuple[str, bytes]:
        operation = fr.OPERATIONS.get(name)
        if operation is None:
            kind = Kind.NOT_OFFERED if name in {INVOKE, TRANSPORT} else Kind.NOT_FOUND
            raise Refused("no such channel operation here", kind=kind)
        self._channel.admit_container(envelope, operation)
        async with body_of(request, self._budget, limit=self._bound(codec)) as body:
            frame = fr.decode(
                operation, envelope, body, limits=self._limits, query_timeout=request.rel_url.query.get("timeout")
            )
            if operation is Operation.PUSH:
                await self._channel.push(frame, body)
                return fr.encode_answer(codec, Transport.OK, SUCCESS)
        if operation is Operation.RELEASE:
            self._channel.release(frame)
            return fr.encode_answer(codec, Transport.OK, SUCCESS)
        payload = await self._channel.pop(frame) if operation is Operation.POP else self._channel.peek(frame)
        return fr.encode_answer(codec, Transport.OK, SUCCESS, payload)

    def _peer_cert(self, request: web.BaseRequest) -> bytes | None:  # noqa: ARG002  # plain HTTP shows none
        return None


def _answer(status: int, content_type: str, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, headers={"content-type": content_type, "server": "interconn"})


def _ssl_object(request: web.BaseRequest) -> Any | None:
    transport = request.transport
    return None if transport is None else transport.get_extra_info("ssl_object")


def _single(request: web.BaseRequest) -> Mapping[str, str]:
    """Headers with lower-case names. A doubled x-ptp header means something else to every reader: refused."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        if lower in found and lower.startswith("x-ptp-"):
            raise ProtocolViolation(f"{lower[:64]}: given twice")
        found[lower] = value
    return found


def _where(error: Exception) -> str:
    """File and line of the deepest frame, for the log: no values, unlike a traceback's text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
