"""x-ptp headers and bodies <-> frozen records: the four north-south operations and invoke (4-transport 3-6, 13).

Which dialect a request speaks is decided here, by headers only (T-036, T-056), and so is the form of its answer
(T-007, T-amb 1). No I/O, no waiting, no permission: who may do it is `gateway.data_plane.channel`'s question.
gRPC brings the same headers as metadata and the same bodies, so it will use the same functions.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, unique
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.data_plane.core import wire
from gateway.data_plane.core.wire import Buffer, Pieces
from gateway.errors import GatewayError, Kind, PeerError, ProtocolViolation, Refused
from gateway.model import Limits, NodeId, SessionId, TraceId
from specs import headers as h
from specs.codes import Transport

TOPIC_CHARS: Final = 1024
SESSION_CHARS: Final = 256
NOTHING_YET: Final = "0"
JSON_CONTENT: Final = "application/json"
PROTO_CONTENT: Final = "application/x-protobuf"
RAW_CONTENT: Final = "application/proto"
PUSH_PATH: Final = "/v1/interconn/chan/push"
GRPC_SERVICE: Final = "/org.ppc.ptp.PrivateTransferTransport/"
GRPC_PUSH: Final = GRPC_SERVICE + "push"
CHANNEL_PREFIX: Final = "/v1/interconn/chan/"
ENCAPSULATION_VERSION: Final = "0"
"""Any value but `1` selects encapsulation (T-035); the header itself is required (T-029)."""
_JSON_MARKS: Final = 4096
"""Commas, brackets and braces in a channel body: it has three members, its payload contains none of these."""
_METADATA: Final = 64

_CODE: Final = re.compile(r"E\d{10}")
CODE_IN: Final = re.compile(rb"E\d{10}")
_PROTO_NAMES: Final = frozenset({PROTO_CONTENT, "application/protobuf"})
_INBOUND_NAMES: Final = _PROTO_NAMES | {RAW_CONTENT, "application/octet-stream", ""}


@unique
class Operation(StrEnum):
    """The four operations on queues (4-transport 4); the value is the last part of the path."""

    PUSH = "push"
    POP = "pop"
    PEEK = "peek"
    RELEASE = "release"


OPERATIONS: Final[Mapping[str, Operation]] = {operation.value: operation for operation in Operation}


@unique
class Codec(Enum):
    """How a body is written: std-json, std-proto, or raw (opaque body, old answer layout) of section 13."""

    JSON = "json"
    PROTO = "proto"
    RAW = "raw"


@unique
class Mode(Enum):
    """What the body of an invoke is (6.2 and 13)."""

    PASS_THROUGH = "pass-through"  # noqa: S105  # a mode's name
    ENCAPSULATION = "encapsulation"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Envelope:
    """The headers of one call, checked for length and character set; "" where one is absent (T-011, T-055)."""

    content_type: str
    version: str
    provider: str
    trace_id: TraceId
    token: str = field(repr=False)
    uri: str
    session_id: SessionId
    source_node: NodeId
    target_node: NodeId
    source_inst: str
    target_inst: str
    topic: str
    timeout_ms: int | None
    """x-ptp-timeout of mesh; overrides the body's."""
    message: str = ""
    """x-interconn-message: which message of its sender this is; "" where the sender does not number them."""
    ack: str = ""
    """x-interconn-ack of a pop: the message that the reader has, NOTHING_YET, or "" where it does not say."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded operation.

    topic: "" is a queue of its own, the same as an absent topic (T-016); for RELEASE it means every topic.
    payload: of PUSH; a view into the body where the codec allows it. wait_ms: of POP, within Limits.
    """

    operation: Operation
    codec: Codec
    envelope: Envelope
    topic: str
    payload: Buffer = field(default=b"", repr=False)
    wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a partner's module answered; success is exactly Transport.OK (T-050).

    named: the message's name as the partner gave it back; "" where it does not know names.
    """

    code: str
    message: str
    payload: Buffer = field(default=b"", repr=False)
    named: str = ""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A container's push on its way to a partner; `invoke` makes the standard's call of it.

    body: the container's, as received. message: as Envelope.message.
    """

    frame: Frame
    body: Buffer = field(repr=False)
    source_node: NodeId
    source_inst: str
    target_inst: str
    trace_id: TraceId
    token: str = field(repr=False)
    provider: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Invoke:
    """An invoke call: headers and the body in pieces."""

    headers: Mapping[str, str] = field(repr=False)
    body: Pieces = field(repr=False)

    @property
    def size(self) -> int:
        return wire.size(self.body)


def read_envelope(headers: Mapping[str, str], limits: Limits) -> Envelope:
    """Headers (names lower case) -> Envelope. Raises ProtocolViolation(MALFORMED) naming the header."""

    def value(name: str, bound: int) -> str:
        text = headers.get(name, "")
        if len(text) > bound:
            raise ProtocolViolation(f"{name}: more than {bound} characters")
        if text and not (text.isascii() and text.isprintable()):
            raise ProtocolViolation(f"{name}: only printable ASCII is allowed")
        return text

    topic = headers.get(h.PTP_TOPIC, "")
    _check_topic(topic)
    timeout = value(h.PTP_TIMEOUT, 20)
    chars = limits.id_chars
    return Envelope(
        content_type=media_type(headers.get("content-type", "")),
        version=value(h.PTP_VERSION, chars),
        provider=value(h.PTP_PROVIDER, chars) or value(h.PTP_PROVIDER_MISSPELT, chars),
        trace_id=TraceId(value(h.PTP_TRACE, chars)),
        token=value(h.PTP_TOKEN, limits.text_chars),
        uri=value(h.PTP_URI, limits.text_chars),
        session_id=SessionId(value(h.PTP_SESSION, SESSION_CHARS)),
        source_node=NodeId(value(h.PTP_SOURCE_NODE, chars)),
        target_node=NodeId(value(h.PTP_TARGET_NODE, chars)),
        source_inst=value(h.PTP_SOURCE_INST, chars),
        target_inst=value(h.PTP_TARGET_INST, chars),
        topic=topic,
        timeout_ms=int(timeout) if timeout.isdecimal() and int(timeout) > 0 else None,
        message=value(h.MESSAGE, chars),
        ack=value(h.ACK, chars),
    )


def media_type(content_type: str) -> str:
    """`application/json; charset=UTF-8` -> `application/json`."""
    return content_type.partition(";")[0].strip().lower()


def require(envelope: Envelope, operation: Operation, *, strict: bool) -> None:
    """The headers without which an operation has no meaning (T-009, T-010); strict also wants those of T-055."""
    wanted: dict[str, str] = {h.PTP_SESSION: envelope.session_id}
    if operation is Operation.PUSH or strict:
        wanted[h.PTP_TARGET_NODE] = envelope.target_node
    if strict:
        wanted |= {h.PTP_PROVIDER: envelope.provider, h.PTP_TRACE: envelope.trace_id, h.PTP_TOKEN: envelope.token}
    for name, text in wanted.items():
        if not text:
            raise ProtocolViolation(f"{name}: missing")


def codec_of(envelope: Envelope) -> Codec:
    """Section 13: a declared JSON or protobuf body, else raw where the topic stands in the headers (T-008)."""
    if envelope.content_type == JSON_CONTENT:
        return Codec.JSON
    if envelope.content_type in _PROTO_NAMES:
        return Codec.PROTO
    if envelope.topic:
        return Codec.RAW
    raise ProtocolViolation("content-type: application/json or application/x-protobuf expected")


def answer_codec(headers: Mapping[str, str], *, invoke: bool = False) -> Codec:
    """How to answer a request, also one that could not be read: its own codec where it named one, else JSON."""
    kind = media_type(headers.get("content-type", ""))
    topic = bool(headers.get(h.PTP_TOPIC))
    if invoke and headers.get(h.PTP_VERSION) != h.PTP_VERSION_1:
        if not headers.get(h.PTP_URI):
            return Codec.RAW if topic else Codec.JSON
        return Codec.PROTO if kind in _INBOUND_NAMES else Codec.JSON
    if kind in _PROTO_NAMES:
        return Codec.PROTO
    return Codec.RAW if topic and kind != JSON_CONTENT else Codec.JSON


def decode(
    operation: Operation,
    envelope: Envelope,
    body: Buffer,
    *,
    limits: Limits,
    query_timeout: str | None = None,
    parsed: tuple[str, Buffer] | None = None,
) -> Frame:
    """A north-south request -> Frame. query_timeout: seconds in the query of a raw pop (T-040).

    parsed: topic and payload of a JSON push that `long_json` has read.

    Raises ProtocolViolation(MALFORMED, CODEC).
    """
    codec = codec_of(envelope)
    topic = ""
    payload: Buffer = b""
    timeout: int | None = None
    if parsed is not None:
        topic, payload = parsed
    elif codec is Codec.JSON:
        topic, payload, timeout = _from_json(operation, body)
    elif codec is Codec.PROTO:
        topic, payload, timeout = _from_proto(operation, body)
    elif operation is Operation.PUSH:
        payload = body
    elif operation is Operation.POP and query_timeout is not None:
        timeout = _milliseconds(query_timeout, "timeout") * 1000
    if operation is Operation.POP:
        wait_ms = next((v for v in (envelope.timeout_ms, timeout) if v is not None), limits.pop_default_ms)
        wait_ms = min(wait_ms, limits.pop_max_ms)
    else:
        wait_ms = 0
    return Frame(operation, codec, envelope, envelope.topic or _checked(topic), payload, wait_ms)


def invoke_mode(envelope: Envelope) -> Mode:
    """East-west dispatch by headers (section 13, T-036, T-056), then the operation of x-ptp-uri by path (T-031).

    Raises Refused(NOT_OFFERED) for reads and release (T-054), Refused(NOT_FOUND) for anything else (T-032).
    """
    if envelope.version == h.PTP_VERSION_1 or envelope.uri:
        operation = operation_of_uri(envelope.uri)
        if operation is not Operation.PUSH:
            raise Refused("only push may be invoked by a partner", kind=Kind.NOT_OFFERED)
        return Mode.PASS_THROUGH if envelope.version == h.PTP_VERSION_1 else Mode.ENCAPSULATION
    if envelope.topic:
        return Mode.RAW
    raise ProtocolViolation(f"{h.PTP_URI} or {h.PTP_TOPIC}: missing")


def operation_of_uri(uri: str) -> Operation:
    """`[scheme://host]/v1/interconn/chan/<op>` or `[..]/org.ppc.ptp.PrivateTransferTransport/<op>` -> operation."""
    if not uri:
        raise ProtocolViolation(f"{h.PTP_URI}: missing")
    try:
        path = urlsplit(uri).path
    except ValueError as e:
        raise ProtocolViolation(f"{h.PTP_URI}: not a URI") from e
    for prefix in (CHANNEL_PREFIX, GRPC_SERVICE):
        name = path.removeprefix(prefix)
        if name != path and name in OPERATIONS:
            return OPERATIONS[name]
    raise Refused(f"{h.PTP_URI}: no such resource", kind=Kind.NOT_FOUND)


def decode_invoke(
    envelope: Envelope, body: Buffer, *, limits: Limits, parsed: tuple[str, Buffer] | None = None
) -> Frame:
    """A partner's invoke -> Frame of a push. parsed: as for `decode`. Raises as `invoke_mode` and `decode`."""
    mode = invoke_mode(envelope)
    if mode is Mode.PASS_THROUGH:
        return decode(Operation.PUSH, envelope, body, limits=limits, parsed=parsed)
    if mode is Mode.RAW:
        return Frame(Operation.PUSH, Codec.RAW, envelope, envelope.topic, body)
    if parsed is not None:
        return Frame(Operation.PUSH, Codec.JSON, envelope, envelope.topic or _checked(parsed[0]), parsed[1])
    if envelope.content_type == JSON_CONTENT:
        inner: Buffer = _bytes_member(_json_object(body), "payload")
        # `{` would open a group of field 15, so no PushInbound starts with it: OSx and mesh put JSON in JSON (9.5).
        read = _from_json if bytes(inner[:1]) == b"{" else _from_proto
        codec = Codec.JSON
    elif envelope.content_type in _INBOUND_NAMES:
        inner = wire.delimited(wire.members(body), 2)
        read, codec = _from_proto, Codec.PROTO
    else:
        raise ProtocolViolation("content-type: application/json or application/x-protobuf expected")
    topic, payload, _ = read(Operation.PUSH, inner)
    return Frame(Operation.PUSH, codec, envelope, envelope.topic or _checked(topic), payload)


def east_west(outgoing: Outgoing, *, uri: str = PUSH_PATH) -> dict[str, str]:
    """The headers of a push to a partner, whatever carries it (T-029, T-030): all but those of its body and name."""
    envelope = outgoing.frame.envelope
    return {
        h.PTP_PROVIDER: envelope.provider or outgoing.provider,
        h.PTP_TRACE: outgoing.trace_id,
        h.PTP_TOKEN: outgoing.token,
        h.PTP_URI: uri,
        h.PTP_SESSION: envelope.session_id,
        h.PTP_SOURCE_NODE: outgoing.source_node,
        h.PTP_SOURCE_INST: outgoing.source_inst,
        h.PTP_TARGET_NODE: envelope.target_node,
        h.PTP_TARGET_INST: outgoing.target_inst or envelope.target_inst,
    }


def passes_through(frame: Frame) -> bool:
    """Whether a push goes on as it came: `x-ptp-version: 1` of the container selects that (T-034)."""
    return frame.envelope.version == h.PTP_VERSION_1 and frame.codec is not Codec.RAW


def invoke(outgoing: Outgoing, *, uri: str = PUSH_PATH, protobuf_only: bool = False) -> Invoke:
    """The invoke call that carries a container's push to the partner (T-029, T-030).

    `x-ptp-version: 1` of the container selects pass-through, the body byte for byte (T-034); else the push is wrapped
    as Inbound{payload = PushInbound} (T-033, T-035). A raw push is always wrapped: strangers would not know its topic.
    protobuf_only: on gRPC, which has no place for a Content-Type nor for other letters than ASCII, a push in JSON or
    with such a topic is wrapped too.
    """
    frame, body, envelope = outgoing.frame, outgoing.body, outgoing.frame.envelope
    fits = frame.codec is not Codec.RAW
    if protobuf_only:
        fits = frame.codec is Codec.PROTO and envelope.topic.isascii()
    through = envelope.version == h.PTP_VERSION_1 and fits
    headers = {
        "content-type": _content_type(frame.codec) if through else PROTO_CONTENT,
        h.PTP_VERSION: h.PTP_VERSION_1 if through else ENCAPSULATION_VERSION,
        **east_west(outgoing, uri=uri),
    }
    if outgoing.message:
        headers[h.MESSAGE] = outgoing.message
    if through:
        if envelope.topic:
            headers[h.PTP_TOPIC] = envelope.topic
        return Invoke(headers, (body,))
    if frame.codec is Codec.PROTO and not envelope.topic:
        pieces: Pieces = (body,)
    else:
        pieces = (*wire.member(1, frame.topic.encode()), *wire.member(2, frame.payload))
    return Invoke(headers, (wire.head(2, wire.size(pieces)), *pieces))


def metadata_of(body: Buffer) -> Mapping[str, str]:
    """What Inbound.metadata says of its own message in a stream, where one call carries many: x-ptp- headers and ours.

    x-ptp-version is the stream's alone: it says what the messages are. Raises ProtocolViolation(MALFORMED, CODEC).
    """
    found: dict[str, str] = {}
    for count, entry in enumerate(value for number, value in wire.walk(body) if number == 1):
        if count >= _METADATA:
            raise ProtocolViolation(f"metadata: more than {_METADATA} entries")
        if isinstance(entry, int):
            continue
        pair = wire.members(entry)
        name = wire.text(pair, 1, "metadata").lower()
        if name == h.MESSAGE or (name.startswith("x-ptp-") and name != h.PTP_VERSION):
            found[name] = wire.text(pair, 2, "metadata")
    return found


def encode_answer(
    codec: Codec,
    code: str,
    message: str,
    payload: Buffer | None = None,
    *,
    named: str = "",
    encoded: Pieces | None = None,
) -> tuple[str, Pieces]:
    """(Content-Type, body in pieces) of an answer to a container or, without payload, to a partner.

    JSON carries the payload as `content` and as `payload` (T-amb 1), and neither when there is none (T-018).
    Protobuf is the new layout, raw the old one (9.3). named: the message's name, given back as metadata to one who
    gave it; the old layout has no place for it. encoded: the payload's base64, where `long_json` has made it.
    """
    if codec is Codec.JSON:
        value: dict[str, Any] = {"code": code, "message": message}
        if named:
            value["metadata"] = {h.MESSAGE: named}
        text = json.dumps(value, separators=(",", ":")).encode()
        if payload is None:
            return JSON_CONTENT, (text,)
        if encoded is None:
            encoded = (base64.b64encode(payload),)
        return JSON_CONTENT, (text[:-1], b',"content":"', *encoded, b'","payload":"', *encoded, b'"}')
    first = 2 if codec is Codec.PROTO else 1
    pieces = (
        *(wire.member(1, b"".join(_entry(named))) if named and codec is Codec.PROTO else ()),
        *wire.member(first, payload or b""),
        _outcome(first + 1, code, message),
    )
    return _content_type(codec), pieces


def _entry(named: str) -> Pieces:
    return (*wire.member(1, h.MESSAGE.encode()), *wire.member(2, named.encode()))


@lru_cache(maxsize=256)
def _outcome(number: int, code: str, message: str) -> bytes:
    """The members code and message; nearly all answers have the same."""
    return b"".join((*wire.member(number, code.encode()), *wire.member(number + 1, message.encode())))


def encode_error(codec: Codec, error: GatewayError) -> tuple[int, str, Pieces]:
    """(HTTP status, Content-Type, body in pieces) of a failure; the code of a partner's refusal is handed on."""
    return error.wire.http, *encode_answer(codec, code_of(error), error.public_text())


def code_of(error: GatewayError) -> str:
    """The transport code of a failure; that of a partner's refusal where it has one."""
    if isinstance(error, PeerError) and is_code(error.peer_code) and error.peer_code != Transport.OK:
        return error.peer_code
    return error.wire.transport


def is_code(text: str) -> bool:
    """Whether a partner's code has the standard's form (7); OSx also has short ones, which say nothing to others."""
    return _CODE.fullmatch(text) is not None


def read_answer(content_type: str, body: Buffer) -> Answer:
    """A partner's answer in any of the layouts on real wires (T-042, T-045); code "" where none was found.

    Raises ProtocolViolation(PEER_MALFORMED).
    """
    try:
        if media_type(content_type) == JSON_CONTENT:
            value = _json_object(body)
            code, text, said = value.get("code"), value.get("message", value.get("msg")), value.get("metadata")
            named = said.get(h.MESSAGE) if isinstance(said, dict) else ""
            return Answer(_str(code), _str(text), named=_str(named))
        found = wire.members(body)
        # Number 3 first: in the new layout number 2 is free payload and may look like anything (9.3).
        first = 2 if CODE_IN.fullmatch(wire.delimited(found, 3)) else 1
        code, text = wire.text(found, first + 1, "code"), wire.text(found, first + 2, "message")
        return Answer(code, text, wire.delimited(found, first), _named(found) if first == 2 else "")
    except ProtocolViolation as e:
        raise ProtocolViolation("the partner's answer cannot be read", kind=Kind.PEER_MALFORMED, detail="") from e


def _named(found: Mapping[int, memoryview | int]) -> str:
    """The name in an answer's metadata: we put it there alone, so the last entry of the map is enough."""
    try:
        entry = wire.members(wire.delimited(found, 1))
        return wire.text(entry, 2, "metadata") if wire.delimited(entry, 1) == h.MESSAGE.encode() else ""
    except ProtocolViolation:
        return ""


def _str(value: object) -> str:
    return value if isinstance(value, str) else ""


def _content_type(codec: Codec) -> str:
    if codec is Codec.PROTO:
        return PROTO_CONTENT
    return JSON_CONTENT if codec is Codec.JSON else RAW_CONTENT


def _from_proto(operation: Operation, body: Buffer) -> tuple[str, Buffer, int | None]:
    found = wire.members(body)
    topic = wire.text(found, 1, "topic")
    if operation is Operation.PUSH:
        return topic, wire.delimited(found, 2), None
    timeout = wire.int32(found, 2)
    if timeout < 0:
        raise ProtocolViolation("timeout: negative")
    # proto3 cannot tell 0 from absent, so 0 is the default wait.
    return topic, b"", timeout or None


def _from_json(operation: Operation, body: Buffer) -> tuple[str, Buffer, int | None]:
    value = _json_object(body) if len(body) or operation is Operation.PUSH else {}
    topic = value.get("topic")
    if topic is not None and not isinstance(topic, str):
        raise ProtocolViolation("topic: must be a string")
    if operation is Operation.PUSH:
        return topic or "", _bytes_member(value, "payload"), None
    timeout = value.get("timeout")
    return topic or "", b"", None if timeout is None else _milliseconds(timeout, "timeout")


def _json_object(body: Buffer) -> Mapping[str, Any]:
    data = bytes(body)
    if data.count(b",") + data.count(b"[") + data.count(b"{") > _JSON_MARKS:
        raise ProtocolViolation("JSON body has too many members")
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as e:
        raise ProtocolViolation("body is not JSON") from e
    if not isinstance(value, dict):
        raise ProtocolViolation("JSON body must be an object")
    return value


def _bytes_member(value: Mapping[str, Any], name: str) -> bytes:
    """A base64 member, standard or URL-safe alphabet, with or without padding (T-amb 4); "" is an empty payload."""
    text = value.get(name)
    if not isinstance(text, str):
        raise ProtocolViolation(f"{name}: must be a base64 string")
    if "-" in text or "_" in text:
        text = text.replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as e:
        raise ProtocolViolation(f"{name}: not base64") from e


def _milliseconds(value: object, name: str) -> int:
    """An integer or its decimal text (T-amb 3), not negative."""
    if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ProtocolViolation(f"{name}: must be a non-negative integer")
    return value


def _checked(topic: str) -> str:
    _check_topic(topic)
    return topic


def _check_topic(topic: str) -> None:
    if len(topic) > TOPIC_CHARS:
        raise ProtocolViolation(f"topic: more than {TOPIC_CHARS} characters")
    # A lone surrogate is legal JSON and no text; a control character would reach headers and logs.
    if not topic.isprintable():
        raise ProtocolViolation("topic: only printable characters are allowed")
