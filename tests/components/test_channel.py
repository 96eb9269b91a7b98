"""The line to the transport module: messages, headers, retries."""

import base64
import json
import socket
import threading
import time
from typing import NoReturn

import pytest

from gateway.sdk import codec
from gateway.sdk.channel import Channel, Line, split_address
from gateway.sdk.environment import Address
from gateway.sdk.result import Code, ComponentError
from specs.proto import ptp_pb2
from tests.components.platform import OK, CutOff, Drop, Platform, Request, soon

HOST = Address("LX-B", "JG-B")


def channel_to(platform: Platform, *, scheme: str = "") -> Channel:
    return Channel(Line(scheme + platform.address, "s-1001", "tr-7", "tok"), sleep=lambda _seconds: None)


@pytest.mark.req("A-040")
@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("h:30304", (False, "h", 30304)),
        ("http://h:1", (False, "h", 1)),
        ("HTTPS://h:1", (True, "h", 1)),
        ("h", (False, "h", 7304)),
        ("[::1]:5", (False, "::1", 5)),
    ],
)
def test_addresses(address: str, parts: tuple[bool, str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["grpc://h:1", "", ":1", "h:x", "http://"])
def test_unusable_addresses(address: str) -> None:
    with pytest.raises(ComponentError, match=r"system\.transport"):
        split_address(address)


@pytest.mark.req("A-040", "A-041")
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_push_pop_and_headers(platform: Platform, scheme: str) -> None:
    channel = channel_to(platform, scheme=scheme)
    for size in (1, 255, 65536, 3_000_000):
        payload = bytes(size - 1) + b"x"
        channel.push("t1", memoryview(payload)[:1], payload[1:], to=HOST, deadline=soon())
        assert channel.pop("t1", source=HOST, wait_ms=1000, deadline=soon()) == payload
    assert channel.pop("t1", source=HOST, wait_ms=1, deadline=soon()) is None
    assert channel.peek("t1", source=HOST) is None
    channel.push("t1", b"left", to=HOST, deadline=soon())
    channel.release("t1", target=HOST)
    assert channel.peek("t1", source=HOST) is None
    channel.close()
    assert {request.operation for request in platform.requests} == {"push", "pop", "peek", "release"}
    for request in platform.requests:
        assert request.path == f"/v1/interconn/chan/{request.operation}"
        sent = {name: value for name, value in request.headers.items() if name.startswith("x-ptp")}
        assert sent == {
            "x-ptp-tech-provider-code": "interconn",
            "x-ptp-trace-id": "tr-7",
            "x-ptp-token": "tok",
            "x-ptp-session-id": "s-1001",
            "x-ptp-target-node-id": "LX-B",
            "x-ptp-target-inst-id": "JG-B",
        }
        assert request.headers["content-type"] == "application/x-protobuf"


def test_requests_are_the_messages_of_the_standard() -> None:
    assert codec.push_head("t1", 2) + b"hi" == bytes.fromhex("0a0274311202") + b"hi"
    assert ptp_pb2.PopInbound.FromString(codec.pop_request("t1", 120_000)) == ptp_pb2.PopInbound(
        topic="t1", timeout=120_000
    )
    assert ptp_pb2.PeekInbound.FromString(codec.peek_request("ü" * 200)).topic == "ü" * 200
    assert ptp_pb2.PushInbound.FromString(codec.push_head("", 300) + bytes(300)).payload == bytes(300)


@pytest.mark.req("T-042")
@pytest.mark.parametrize(
    "answer",
    [
        "120268691a0b45" + "30" * 10 + "22026f6b",
        "0a026869120b45" + "30" * 10 + "1a026f6b",
    ],
)
def test_both_layouts_of_the_answer(answer: str) -> None:
    outbound = codec.read_outbound(bytes.fromhex(answer))
    assert (outbound.code, outbound.message, outbound.payload) == (OK, "ok", b"hi")


@pytest.mark.req("T-042")
def test_layouts_with_metadata_and_without_payload() -> None:
    new = ptp_pb2.TransportOutbound(metadata={"a": "b"}, code=OK)
    assert codec.read_outbound(new.SerializeToString()).code == OK
    # In the new layout field 2 is free payload, even if it looks like a code.
    tricky = ptp_pb2.TransportOutbound(payload=b"E0000000500", code=OK).SerializeToString()
    assert codec.read_outbound(tricky).payload == b"E0000000500"
    assert codec.read_outbound(bytes.fromhex("120b45" + "30" * 10)).code == OK


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05ab", b"\x0f", b"\xff" * 20, b"\x09abc"])
def test_broken_answers(data: bytes) -> None:
    with pytest.raises(codec.CodecError):
        codec.read_outbound(data)


@pytest.mark.req("T-042", "T-019")
def test_old_layout_over_the_wire(platform: Platform) -> None:
    platform.old_layout = True
    channel = channel_to(platform)
    channel.push("t", b"hi", to=HOST, deadline=soon())
    assert channel.pop("t", source=HOST, wait_ms=100, deadline=soon()) == b"hi"
    platform.empty_code = "E0000000601"
    assert channel.pop("t", source=HOST, wait_ms=1, deadline=soon()) is None
    channel.close()


@pytest.mark.req("T-019")
def test_timeout_code_means_no_message(platform: Platform) -> None:
    platform.empty_code = "E0000000601"
    channel = channel_to(platform)
    assert channel.pop("t", source=HOST, wait_ms=1, deadline=soon()) is None
    channel.close()


@pytest.mark.req("T-050")
@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (200, ptp_pb2.TransportOutbound(code="E0000000404").SerializeToString(), "application/x-protobuf"),
        (200, ptp_pb2.TransportOutbound(code="0").SerializeToString(), "application/x-protobuf"),
        (200, ptp_pb2.TransportOutbound(code="E00000000000").SerializeToString(), "application/x-protobuf"),
        (200, b"", "application/x-protobuf"),
        (200, b"\x0a\x7f", "application/x-protobuf"),
        (200, json.dumps({"code": "", "payload": base64.b64encode(b"x").decode()}).encode(), "application/json"),
        (200, json.dumps({"code": 0}).encode(), "application/json"),
        (403, json.dumps({"code": "E0000000403", "message": "no"}).encode(), "application/json"),
        (502, b"<html>", "text/html"),
    ],
)
def test_everything_else_is_failure(platform: Platform, status: int, body: bytes, content_type: str) -> None:
    channel = channel_to(platform)
    calls = (
        lambda: channel.push("t", b"x", to=HOST, deadline=soon()),
        lambda: channel.pop("t", source=HOST, wait_ms=1, deadline=soon()),
        lambda: channel.peek("t", source=HOST),
        lambda: channel.release("t", target=HOST),
    )
    for call in calls:
        platform.answers.append(lambda _request: (status, body, content_type))
        with pytest.raises(ComponentError) as caught:
            call()
        assert caught.value.code == Code.TRANSPORT
    channel.close()


def test_full_buffer_is_waited_for(platform: Platform) -> None:
    channel = channel_to(platform)
    platform.answers.extend([lambda _request: platform.answer("E0000000700")] * 3)
    channel.push("t", b"hi", to=HOST, deadline=soon())
    assert [request.operation for request in platform.requests] == ["push"] * 4
    platform.answers.append(lambda _request: platform.answer("E0000000700"))
    with pytest.raises(ComponentError, match="E0000000700"):
        channel.push("t", b"hi", to=HOST, deadline=time.monotonic())
    channel.close()


def drop(_request: Request) -> tuple[int, bytes, str]:
    raise Drop


def cut_off(_request: Request) -> tuple[int, bytes, str]:
    raise CutOff


def cut_off_at_once(_request: Request) -> tuple[int, bytes, str]:
    raise CutOff(b"")


def test_ambiguous_push_is_repeated_only_where_that_is_safe(platform: Platform) -> None:
    channel = channel_to(platform)
    platform.answers.append(drop)
    with pytest.raises(ComponentError, match="RemoteDisconnected"):
        channel.push("t", b"hi", to=HOST, deadline=soon())
    platform.answers.extend([drop, lambda _request: platform.answer("E0000000607")])
    channel.push("t", b"hi", to=HOST, deadline=soon(), repeatable=True)
    assert len(platform.requests) == 4
    channel.close()


def test_pop_survives_a_broken_connection(platform: Platform) -> None:
    channel = channel_to(platform)
    channel.push("t", b"hi", to=HOST, deadline=soon())
    platform.answers.append(drop)
    assert channel.pop("t", source=HOST, wait_ms=100, deadline=soon()) == b"hi"
    # An answer that ends too early is no answer.
    channel.push("t", b"ho", to=HOST, deadline=soon())
    platform.answers.append(cut_off)
    assert channel.pop("t", source=HOST, wait_ms=100, deadline=soon()) == b"ho"
    channel.push("t", b"hu", to=HOST, deadline=soon())
    platform.answers.append(cut_off_at_once)
    assert channel.pop("t", source=HOST, wait_ms=100, deadline=soon()) == b"hu"
    channel.close()


def test_push_does_not_wait_for_an_answer_far_beyond_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """An abort has three seconds, also when the module takes the bytes and says nothing."""
    waits: list[float] = []

    def hang(_channel: Channel, *_arguments: object, wait: float, **_more: object) -> NoReturn:
        waits.append(wait)
        raise TimeoutError

    monkeypatch.setattr(Channel, "_call", hang)
    channel = Channel(Line("h:1", "s", "", ""), clock=lambda: 100.0)
    for deadline in (103.0, 90.0, 1000.0):
        with pytest.raises(ComponentError, match="TimeoutError"):
            channel.push("t", b"x", to=HOST, deadline=deadline)
    assert waits == [4.0, 1.0, 60.0]


def test_push_waits_for_a_module_that_is_not_up_yet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ComponentError, match="connection refused"):
        Channel(Line(f"127.0.0.1:{port}", "s", "", "")).push("t", b"x", to=HOST, deadline=time.monotonic() + 0.1)


def test_secrets_stay_out_of_reprs_and_errors() -> None:
    line = Line("h:1", "s", "tr", "tok-secret")
    assert "tok-secret" not in repr(line)
    with pytest.raises(ComponentError) as caught:
        Channel(Line("h:1", "s", "tr", "tok-secret\r\n"))
    assert "tok-secret" not in str(caught.value)


def test_one_connection_per_thread(platform: Platform) -> None:
    channel = channel_to(platform)
    got: list[object] = []

    def reader() -> None:
        got.append(channel.pop("t", source=HOST, wait_ms=5000, deadline=soon()))
        channel.close()

    thread = threading.Thread(target=reader)
    thread.start()
    channel.push("t", b"hi", to=HOST, deadline=soon())
    thread.join(10)
    channel.close()
    assert got == [b"hi"]
