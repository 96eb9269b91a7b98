"""Every parser of outside bytes that has no test of this kind of its own: a result, or one of our errors.

| what comes in | where any bytes are tried |
|---|---|
| HTTP/1 requests and answers | tests/data/test_http1.py |
| HTTP/2 frames, metadata of gRPC messages | tests/edges/test_http2.py |
| heads of proxies and of upgraded connections (park, relay) | tests/networks/test_heads.py |
| protobuf of part 4 | tests/data/test_wire.py |
| JSON of part 4 in pieces | tests/data/test_long_json.py |
| records of the spool | tests/data/test_spool.py |
| frames of streams and of the tasks' socket | tests/machines/test_stream.py |
| names of messages | tests/data/test_delivery.py |
| arrays and tables of the SDK | tests/components/test_arrays.py |
| audit trails | tests/trail/test_verify.py |
| bodies of management and control, of the admin API | tests/integration/test_generated_requests, test_generated_admin |
| everything below | here |
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.auth.chain import certificates
from gateway.auth.revocation import take
from gateway.auth.schemes import parse_credential
from gateway.auth.tokens import parse_token_set
from gateway.auth.words import from_words
from gateway.data_plane.core import frame as fr
from gateway.data_plane.core import stream as st
from gateway.errors import GatewayError, ProtocolViolation
from gateway.mgmt_plane.core import invite
from gateway.mgmt_plane.core.dag import parse_plan
from gateway.mgmt_plane.core.jsontext import parse_object
from gateway.mgmt_plane.core.messages import check, check_address, checked_routes, read_permit
from gateway.mgmt_plane.core.receipt import check_receipt
from gateway.model import Limits
from gateway.sdk.codec import CodecError, read_outbound
from specs.proto import ptp_pb2
from tests.edges import rig

LIMITS = Limits()
TEXT = some.text(max_size=60) | some.text("abc/:,.-_=%{}[]\"'\\ 019\x00\n", max_size=60)
LEAF = some.none() | some.booleans() | some.integers() | some.floats() | TEXT
JSON = some.recursive(
    LEAF, lambda inner: some.lists(inner, max_size=4) | some.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


def changed(whole: bytes) -> some.SearchStrategy[bytes]:
    """Any bytes, or the whole with a piece of it replaced."""

    def change(told: tuple[int, int, bytes]) -> bytes:
        at, size, piece = told
        return whole[:at] + piece + whole[at + size :]

    places = some.integers(0, len(whole))
    pieces = some.binary(max_size=20)
    return some.binary(max_size=300) | some.tuples(places, some.integers(0, 20), pieces).map(change)


@dataclass(frozen=True, slots=True)
class Parser:
    """good: what it reads; any: what it is tried with."""

    read: Callable[[bytes], Any]
    good: bytes
    errors: type[Exception] = GatewayError


def envelope(**more: str) -> fr.Envelope:
    headers = rig.ew_headers("LX-A", "LX-B") | {name.replace("_", "-"): value for name, value in more.items()}
    return fr.read_envelope(headers, LIMITS)


def headers_of(data: bytes) -> Mapping[str, str]:
    """Header values out of bytes, a line each, under the names of part 4."""
    names = [*rig.ew_headers("LX-A", "LX-B"), "x-ptp-topic", "x-ptp-timeout", "x-interconn-message", "content-type"]
    return dict(zip(names, data.decode("latin-1").split("\n"), strict=False))


def frame(kind: int, body: bytes) -> st.Frame:
    return st.Frame(size=len(body), kind=kind, text=body[:40], flow=0, ref=0, value=st.VERSION, body=memoryview(body))


def of_json(read: Callable[[Any], Any]) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return None
        return read(value)

    return parse


def of_text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda data: read(data.decode("latin-1"))


def answered(content_type: str) -> Callable[[bytes], Any]:
    return lambda data: fr.read_answer(content_type, data)


def invited(value: Any) -> Any:
    return invite.verify(value, now=0, skew_ms=0) if isinstance(value, dict) else None


PUSH_JSON = b'{"topic":"t","payload":"aGVsbG8=","metadata":{}}'
PUSH = ptp_pb2.PushInbound(topic="t", payload=b"hello", metadata={"a": "b"}).SerializeToString()
ANSWER = ptp_pb2.TransportOutbound(code="E0000000000", message="ok", payload=b"x").SerializeToString()
JSON_TYPE, PROTO_TYPE = {"content_type": "application/json"}, {"content_type": "application/x-protobuf"}
HEADERS = "\n".join(rig.ew_headers("LX-A", "LX-B").values()).encode()


def pushed(**more: str) -> Callable[[bytes], Any]:
    return lambda data: fr.decode(fr.Operation.PUSH, envelope(**more), data, limits=LIMITS)


def invoked(**more: str) -> Callable[[bytes], Any]:
    return lambda data: fr.decode_invoke(envelope(**more), data, limits=LIMITS)


PARSERS = {
    "headers of part 4": Parser(lambda data: fr.read_envelope(headers_of(data), LIMITS), HEADERS),
    "push, JSON": Parser(pushed(**JSON_TYPE), PUSH_JSON),
    "push, protobuf": Parser(pushed(**PROTO_TYPE), PUSH),
    "invoke, JSON": Parser(invoked(**JSON_TYPE), b'{"payload":"eyJ0b3BpYyI6InQiLCJwYXlsb2FkIjoiYUE9PSJ9"}'),
    "invoke, protobuf": Parser(invoked(**PROTO_TYPE), rig.inbound(b"hello")),
    "invoke, pass-through": Parser(invoked(x_ptp_version="1", **PROTO_TYPE), PUSH),
    "uri of an invoke": Parser(of_text(fr.operation_of_uri), b"https://h/v1/interconn/chan/push"),
    "answer, protobuf": Parser(answered("application/x-protobuf"), ANSWER),
    "answer, JSON": Parser(answered("application/json"), b'{"code":"E0000000000","payload":"aA=="}'),
    "answer, old layout": Parser(answered("application/proto"), b"\n\x02hi\x12\x0bE0000000000\x1a\x02ok"),
    "HELLO": Parser(lambda data: st.read_hello(frame(st.HELLO, data)), st.pack_hello(st.Hello())[20:]),
    "FLOW": Parser(st.read_flow, b"x-ptp-session-id: s\nx-ptp-topic: t"),
    "ACK": Parser(lambda data: st.read_acks(frame(st.ACK, data)), bytes(8)),
    "name in a frame": Parser(lambda data: st.name_of(frame(st.MESSAGE, data)), b"0123456789abcdef-1-0"),
    "answer at a task": Parser(read_outbound, ANSWER, CodecError),
    "JSON of control and management": Parser(
        lambda data: parse_object(data, LIMITS), b'{"a":[1,2.5,null,{"b":"\\u00e4"}]}'
    ),
    "permits in a header": Parser(of_text(lambda text: parse_token_set(text, limit=64)), b"urn:a/1/t,urn:b/2/u"),
    "permit in a body": Parser(of_text(read_permit), b'{"token":"t"}'),
    "address of a partner": Parser(of_text(check_address), b"https://[::1]:7304/path"),
    "words of a fingerprint": Parser(of_text(from_words), b"able baker", ValueError),
    "certificates": Parser(of_text(certificates), rig.authority().pem.encode()),
    "credential": Parser(of_text(lambda text: parse_credential("cert", text)), rig.authority().pem.encode()),
    "revocation list": Parser(
        lambda data: take(data, {}, now_ms=0), b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
    ),
    "receipt": Parser(of_json(check_receipt), b'{"receipt":{"job_id":"j"},"signatures":[{"node_id":"n"}]}'),
    "invitation": Parser(of_json(invited), b"{}"),
}


@pytest.mark.parametrize("name", PARSERS)
def test_any_bytes_are_read_or_refused(name: str) -> None:
    parser = PARSERS[name]

    @given(changed(parser.good))
    def tried(data: bytes) -> None:
        with suppress(parser.errors):
            parser.read(data)

    tried()


@given(JSON, JSON)
def test_any_json_is_a_plan_or_refused(dag: object, config: object) -> None:
    with_conf: Any = {"components": dag} if isinstance(dag, dict) else dag
    for one in (dag, with_conf):
        with suppress(ProtocolViolation):
            parse_plan(one, config, LIMITS)


@given(some.sampled_from(sorted(checked_routes())), some.dictionaries(TEXT, JSON, max_size=4))
def test_any_members_are_those_of_a_route_or_refused(route: str, payload: dict[str, Any]) -> None:
    with suppress(ProtocolViolation):
        check(route, payload)
