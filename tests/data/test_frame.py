"""Headers and bodies to records and back: tables of the four dialects' recorded shapes."""

import base64
import json
from typing import Any

import pytest

from gateway.data_plane.core import frame as fr
from gateway.data_plane.core.frame import Codec, Mode, Operation
from gateway.errors import CallerError, GatewayError, Kind, PeerError, ProtocolViolation, Refused
from gateway.model import Limits, NodeId, TraceId
from specs.proto import ptp_pb2

LIMITS = Limits()
# The worked example of 4-transport 11.
PUSH_PROTO = bytes.fromhex("0a02743112026869")
INBOUND = bytes.fromhex("12080a02743112026869")
OK_HEX = b"E0000000000".hex()
NEW_LAYOUT = f"120268691a0b{OK_HEX}22026f6b"
OLD_LAYOUT = f"0a026869120b{OK_HEX}1a026f6b"
NS = {
    "x-ptp-tech-provider-code": "demo",
    "x-ptp-trace-id": "tr-7",
    "x-ptp-token": "tok",
    "x-ptp-session-id": "s-1001",
    "x-ptp-target-node-id": "LX-B",
}
JSON = {**NS, "content-type": "application/json;charset=UTF-8"}
PROTO = {**NS, "content-type": "application/x-protobuf"}
RAW = {**NS, "x-ptp-topic": "alice-bob"}


def envelope(headers: dict[str, str], **more: str) -> fr.Envelope:
    return fr.read_envelope({**headers, **{k.replace("_", "-"): v for k, v in more.items()}}, LIMITS)


def decode(operation: Operation, headers: dict[str, str], body: bytes, **more: Any) -> fr.Frame:
    return fr.decode(operation, envelope(headers), body, limits=LIMITS, **more)


def joined(answer: tuple[str, fr.Pieces]) -> tuple[str, bytes]:
    return answer[0], b"".join(answer[1])


def forward(headers: dict[str, str], body: bytes) -> fr.Invoke:
    frame = decode(Operation.PUSH, headers, body)
    outgoing = fr.Outgoing(
        frame,
        body,
        source_node=NodeId("LX-A"),
        source_inst="JG-A",
        target_inst="JG-B",
        trace_id=frame.envelope.trace_id or TraceId("made"),
        token=frame.envelope.token,
        provider="interconn",
    )
    return fr.invoke(outgoing)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, b'{"topic":"t1","payload":"aGk="}'),
        (JSON, b'{"payload":"aGk","topic":"t1","msgCode":"x","metadata":{"a":"b"}}'),
        (PROTO, PUSH_PROTO),
        ({**PROTO, "content-type": "application/protobuf"}, PUSH_PROTO),
        ({**NS, "x-ptp-topic": "t1"}, b"hi"),
        ({**NS, "x-ptp-topic": "t1", "content-type": "application/octet-stream"}, b"hi"),
    ],
)
@pytest.mark.req("T-051")
def test_push_in_every_codec(headers: dict[str, str], body: bytes) -> None:
    frame = decode(Operation.PUSH, headers, body)
    assert (frame.topic, bytes(frame.payload), frame.envelope.session_id) == ("t1", b"hi", "s-1001")


@pytest.mark.req("T-016")
def test_absent_and_empty_topic_are_one() -> None:
    absent = decode(Operation.PUSH, JSON, b'{"payload":""}')
    empty = decode(Operation.PUSH, JSON, b'{"topic":"","payload":""}')
    null = decode(Operation.PUSH, JSON, b'{"topic":null,"payload":""}')
    proto = decode(Operation.PUSH, PROTO, b"\x12\x01a")
    assert [f.topic for f in (absent, empty, null, proto)] == [""] * 4


def test_header_topic_overrides_the_body() -> None:
    assert decode(Operation.PUSH, {**PROTO, "x-ptp-topic": "t2"}, PUSH_PROTO).topic == "t2"


@pytest.mark.parametrize(
    ("headers", "body", "query", "wait_ms"),
    [
        (JSON, b"{}", None, 120_000),
        (JSON, b"", None, 120_000),
        (JSON, b'{"timeout":1500}', None, 1500),
        (JSON, b'{"timeout":"1500"}', None, 1500),
        (JSON, b'{"timeout":0}', None, 0),
        (JSON, b'{"timeout":36000000}', None, 300_000),
        (PROTO, b"", None, 120_000),
        (PROTO, b"\x10\xdc\x0b", None, 1500),
        ({**PROTO, "x-ptp-timeout": "70"}, b"\x10\xdc\x0b", None, 70),
        ({**PROTO, "x-ptp-timeout": "0"}, b"\x10\xdc\x0b", None, 1500),
        (RAW, b"", "1", 1000),
        (RAW, b"", None, 120_000),
    ],
)
@pytest.mark.req("T-020")
def test_how_long_a_pop_waits(headers: dict[str, str], body: bytes, query: str | None, wait_ms: int) -> None:
    assert decode(Operation.POP, headers, body, query_timeout=query).wait_ms == wait_ms


@pytest.mark.parametrize(
    ("operation", "headers", "body"),
    [
        (Operation.PUSH, JSON, b"{}"),
        (Operation.PUSH, JSON, b'{"payload":null}'),
        (Operation.PUSH, JSON, b'{"payload":7}'),
        (Operation.PUSH, JSON, b'{"payload":"a"}'),
        (Operation.PUSH, JSON, b'{"payload":"a b="}'),
        (Operation.PUSH, JSON, b'{"topic":7,"payload":""}'),
        (Operation.PUSH, JSON, b'{"topic":"\\ud800","payload":""}'),
        (Operation.PUSH, JSON, b"[1]"),
        (Operation.PUSH, JSON, b""),
        (Operation.PUSH, JSON, b"\xff\xfe"),
        (Operation.PUSH, JSON, b"[" * 4000),
        (Operation.PUSH, JSON, b'{"payload":"","x":[' + b"0," * 5000 + b"0]}"),
        (Operation.PUSH, JSON, b'{"payload":"","x":' + b"9" * 5000 + b"}"),
        (Operation.PUSH, JSON, json.dumps({"topic": "t" * 1025, "payload": ""}).encode()),
        (Operation.PUSH, PROTO, b"not protobuf"),
        (Operation.PUSH, PROTO, b"\x0a\x02\xff\xfe"),
        (Operation.POP, JSON, b'{"timeout":-1}'),
        (Operation.POP, JSON, b'{"timeout":true}'),
        (Operation.POP, JSON, b'{"timeout":"1e3"}'),
        (Operation.POP, PROTO, ptp_pb2.PopInbound(timeout=-1).SerializeToString()),
        (Operation.PUSH, {**NS, "content-type": "text/plain"}, b"hi"),
        (Operation.PUSH, NS, b"hi"),
    ],
)
def test_bodies_that_are_refused(operation: Operation, headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        decode(operation, headers, body)
    assert caught.value.kind in {Kind.MALFORMED, Kind.CODEC}


@pytest.mark.parametrize(
    "bad",
    [
        {"x-ptp-session-id": "s" * 257},
        {"x-ptp-session-id": "s\x7f"},
        {"x-ptp-target-node-id": "é"},
        {"x-ptp-topic": "t" * 1025},
        {"x-ptp-topic": "a\tb"},
        {"x-ptp-token": "t" * 5000},
    ],
)
def test_headers_that_are_refused(bad: dict[str, str]) -> None:
    with pytest.raises(ProtocolViolation):
        envelope({**JSON, **bad})


def test_a_token_is_not_shown() -> None:
    assert "tok" not in repr(envelope({**JSON, "x-ptp-token": "tok"})).replace("token", "")


@pytest.mark.req("T-043")
def test_provider_in_both_spellings() -> None:
    bare = {k: v for k, v in JSON.items() if k != "x-ptp-tech-provider-code"}
    assert envelope({**bare, "x-ptp-tecn-provider-code": "SecretFlow"}).provider == "SecretFlow"
    assert envelope(JSON).provider == "demo"


@pytest.mark.req("T-031")
@pytest.mark.parametrize(
    "uri",
    [
        "https://ptp.cn/v1/interconn/chan/push",
        "/v1/interconn/chan/push",
        "http://x:7304/v1/interconn/chan/push?a=b",
        "grpcs://fedai.org/org.ppc.ptp.PrivateTransferTransport/push",
        "/org.ppc.ptp.PrivateTransferTransport/push",
    ],
)
def test_uri_with_and_without_host(uri: str) -> None:
    assert fr.invoke_mode(envelope(PROTO, x_ptp_uri=uri)) is Mode.ENCAPSULATION


@pytest.mark.req("T-032", "T-054")
@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("/v1/interconn/chan/pop", Kind.NOT_OFFERED),
        ("https://ptp.cn/v1/interconn/chan/peek", Kind.NOT_OFFERED),
        ("/org.ppc.ptp.PrivateTransferTransport/release", Kind.NOT_OFFERED),
        ("/v1/interconn/chan/invoke", Kind.NOT_FOUND),
        ("/v1/interconn/net/weave", Kind.NOT_FOUND),
        ("/v1/interconn/chan/push/", Kind.NOT_FOUND),
        ("//v1/interconn/chan/push", Kind.NOT_FOUND),
        ("push", Kind.NOT_FOUND),
    ],
)
@pytest.mark.parametrize("version", ["", "1"])
def test_uris_that_are_refused(uri: str, kind: Kind, version: str) -> None:
    with pytest.raises(Refused) as caught:
        fr.invoke_mode(envelope(PROTO, x_ptp_uri=uri, x_ptp_version=version))
    assert caught.value.kind is kind


@pytest.mark.req("T-036", "T-056")
def test_invoke_is_told_apart_by_headers() -> None:
    uri = {"x-ptp-uri": "https://ptp.cn/v1/interconn/chan/push"}
    through = {**uri, "x-ptp-version": "1"}
    # A PushInbound without topic parses as an Inbound whose payload would be the message.
    topicless = ptp_pb2.PushInbound(payload=b"\x12\x02no").SerializeToString()
    # A bare PushRequest of yacl: its key would become the payload of an Inbound.
    raw = b"\x0a\x03key\x12\x05value"
    for headers, body, topic, payload in [
        ({**PROTO, **through}, PUSH_PROTO, "t1", b"hi"),
        ({**JSON, **through}, b'{"topic":"t1","payload":"aGk="}', "t1", b"hi"),
        ({**PROTO, **through}, topicless, "", b"\x12\x02no"),
        ({**PROTO, **uri}, INBOUND, "t1", b"hi"),
        ({**PROTO, **uri, "x-ptp-version": "2"}, INBOUND, "t1", b"hi"),
        ({**NS, **uri}, INBOUND, "t1", b"hi"),
        ({**JSON, **uri}, json.dumps({"payload": base64.b64encode(PUSH_PROTO).decode()}).encode(), "t1", b"hi"),
        (
            {**JSON, **uri, "x-ptp-topic": "t1"},
            json.dumps(
                {"payload": base64.b64encode(b'{"topic":"t1","payload":"aGk=","msgCode":"1","msgFlag":"N"}').decode()}
            ).encode(),
            "t1",
            b"hi",
        ),
        (RAW, raw, "alice-bob", raw),
    ]:
        frame = fr.decode_invoke(envelope(headers), body, limits=LIMITS)
        assert (frame.topic, bytes(frame.payload)) == (topic, payload)
    with pytest.raises(ProtocolViolation):
        fr.decode_invoke(envelope(NS), INBOUND, limits=LIMITS)


@pytest.mark.req("T-033")
def test_an_inbound_may_carry_metadata() -> None:
    body = ptp_pb2.Inbound(metadata={"x-ptp-topic": "no"}, payload=PUSH_PROTO).SerializeToString()
    frame = fr.decode_invoke(envelope(PROTO, x_ptp_uri=fr.PUSH_PATH), body, limits=LIMITS)
    assert (frame.topic, bytes(frame.payload)) == ("t1", b"hi")


@pytest.mark.req("T-029", "T-030", "T-047", "T-048")
@pytest.mark.parametrize("version", ["", "1"])
def test_outgoing_headers_are_complete(version: str) -> None:
    sent = forward({**PROTO, "x-ptp-version": version}, PUSH_PROTO).headers
    assert sent == {
        "content-type": "application/x-protobuf",
        "x-ptp-version": version or "0",
        "x-ptp-tech-provider-code": "demo",
        "x-ptp-trace-id": "tr-7",
        "x-ptp-token": "tok",
        "x-ptp-uri": "/v1/interconn/chan/push",
        "x-ptp-session-id": "s-1001",
        "x-ptp-source-node-id": "LX-A",
        "x-ptp-source-inst-id": "JG-A",
        "x-ptp-target-node-id": "LX-B",
        "x-ptp-target-inst-id": "JG-B",
    }


@pytest.mark.req("T-034")
def test_pass_through_sends_the_same_bytes() -> None:
    text = b' {"payload":"aGk=", "topic":"t1"}'
    sent = forward({**JSON, "x-ptp-version": "1"}, text)
    assert b"".join(sent.body) == text
    assert sent.headers["content-type"] == "application/json"
    sent = forward({**PROTO, "x-ptp-version": "1"}, PUSH_PROTO)
    assert b"".join(sent.body) == PUSH_PROTO


@pytest.mark.req("T-033", "T-035")
@pytest.mark.parametrize("version", ["", "0", "2", "v1"])
def test_otherwise_the_push_is_wrapped(version: str) -> None:
    for headers, body in [
        (JSON, b'{"topic":"t1","payload":"aGk="}'),
        (PROTO, PUSH_PROTO),
        ({**PROTO, "x-ptp-topic": "t1"}, b"\x12\x02hi"),
        ({**NS, "x-ptp-topic": "t1"}, b"hi"),
    ]:
        sent = forward({**headers, "x-ptp-version": version}, body)
        assert b"".join(sent.body) == INBOUND
        assert sent.size == len(INBOUND)
        assert sent.headers["content-type"] == "application/x-protobuf"


def test_a_raw_push_is_wrapped_even_under_version_1() -> None:
    sent = forward({**RAW, "x-ptp-version": "1"}, b"hi")
    inner = ptp_pb2.Inbound.FromString(b"".join(sent.body)).payload
    assert ptp_pb2.PushInbound.FromString(inner) == ptp_pb2.PushInbound(topic="alice-bob", payload=b"hi")
    assert sent.headers["x-ptp-version"] == "0"


@pytest.mark.req("T-006", "T-007")
def test_answers_in_each_codec() -> None:
    kind, body = joined(fr.encode_answer(Codec.PROTO, "E0000000000", "ok", b"hi"))
    assert (kind, body.hex()) == ("application/x-protobuf", NEW_LAYOUT)
    assert ptp_pb2.TransportOutbound.FromString(body) == ptp_pb2.TransportOutbound(
        payload=b"hi", code="E0000000000", message="ok"
    )
    kind, body = joined(fr.encode_answer(Codec.RAW, "E0000000000", "ok", b"hi"))
    assert (kind, body.hex()) == ("application/proto", OLD_LAYOUT)
    kind, body = joined(fr.encode_answer(Codec.JSON, "E0000000000", "ok", b"hi"))
    assert kind == "application/json"
    assert json.loads(body) == {"code": "E0000000000", "message": "ok", "content": "aGk=", "payload": "aGk="}
    assert json.loads(joined(fr.encode_answer(Codec.JSON, "E0000000000", "ok"))[1]) == {
        "code": "E0000000000",
        "message": "ok",
    }
    assert json.loads(joined(fr.encode_answer(Codec.JSON, "E0000000000", "ok", b""))[1])["content"] == ""


@pytest.mark.req("T-042", "T-045")
def test_partners_answers_are_read_in_each_layout() -> None:
    new = bytes.fromhex(NEW_LAYOUT)
    old = bytes.fromhex(OLD_LAYOUT)
    for kind, body, payload in [
        ("application/x-protobuf", new, b"hi"),
        ("application/proto", old, b"hi"),
        ("", old, b"hi"),
        ("application/json", b'{"code":"E0000000000","message":"ok"}', b""),
        ("application/json;charset=UTF-8", b'{"code":"E0000000000","msg":"ok","payload":""}', b""),
    ]:
        answer = fr.read_answer(kind, body)
        assert (answer.code, answer.message, bytes(answer.payload)) == ("E0000000000", "ok", payload)


@pytest.mark.req("T-050")
def test_an_answer_without_code_has_none() -> None:
    assert fr.read_answer("application/json", b'{"payload":"","code":"","message":"PARTY_x:null"}').code == ""
    assert fr.read_answer("application/json", b"{}").code == ""
    assert fr.read_answer("application/x-protobuf", b"").code == ""
    for body in (b"<html>", b"\xff"):
        with pytest.raises(ProtocolViolation) as caught:
            fr.read_answer("text/html", body)
        assert caught.value.kind is Kind.PEER_MALFORMED


def test_errors_keep_their_secrets() -> None:
    _, body = joined(fr.encode_error(Codec.JSON, CallerError("key at /etc/x"))[1:])
    assert json.loads(body) == {"code": "E0000000500", "message": "internal error"}
    for peer_code, code in [("E0000000700", "E0000000700"), ("130", "E0000000403"), ("E0000000000", "E0000000403")]:
        error: GatewayError = PeerError("x", peer_code=peer_code)
        assert json.loads(joined(fr.encode_error(Codec.JSON, error)[1:])[1])["code"] == code


@pytest.mark.req("T-007")
@pytest.mark.parametrize(
    ("headers", "invoke", "codec"),
    [
        (JSON, False, Codec.JSON),
        (PROTO, False, Codec.PROTO),
        (RAW, False, Codec.RAW),
        (NS, False, Codec.JSON),
        ({**JSON, "x-ptp-topic": "t"}, False, Codec.JSON),
        ({**PROTO, "x-ptp-uri": "/x"}, True, Codec.PROTO),
        ({**NS, "x-ptp-uri": "/x"}, True, Codec.PROTO),
        ({**JSON, "x-ptp-uri": "/x"}, True, Codec.JSON),
        (RAW, True, Codec.RAW),
        ({**PROTO, "x-ptp-topic": "t"}, True, Codec.RAW),
        ({**JSON, "x-ptp-version": "1"}, True, Codec.JSON),
    ],
)
def test_the_answers_codec_is_the_requests(headers: dict[str, str], invoke: bool, codec: Codec) -> None:
    assert fr.answer_codec(headers, invoke=invoke) is codec
