"""What a partner of another make sees of us, and what its answers mean to our container."""

import json
import re

import aiohttp
import pytest
from aiohttp import web

from gateway.model import NodeId
from specs.proto import ptp_pb2
from tests.edges import rig
from tests.edges.rig import SID, Container, foreign, node

OK = "E0000000000"
A, F = NodeId("LX-A"), NodeId("LX-F")


def proto(code: str) -> web.StreamResponse:
    body = ptp_pb2.Outbound(code=code, message="ok").SerializeToString()
    return web.Response(body=body, headers={"content-type": "application/x-protobuf"})


@pytest.mark.req("T-029", "T-030", "T-033", "T-034", "T-035", "T-048")
async def test_what_is_on_the_wire(client: aiohttp.ClientSession) -> None:
    text = b' {"payload":"aGk=", "topic":"t"}'
    message = ptp_pb2.PushInbound(topic="t", payload=b"hi").SerializeToString()
    wrapped = ptp_pb2.Inbound(payload=message).SerializeToString()
    async with node(A) as a, foreign(a, F, lambda *_: proto(OK)) as (route, seen):
        await a.process.set_routes([route])
        a.process.channel.open_session(rig.rule(A, F))
        for dialect, body, version, content_type, sent in [
            ("json", text, "1", "application/json", text),
            ("proto", message, "1", "application/x-protobuf", message),
            ("json", text, "", "application/x-protobuf", wrapped),
            ("proto", message, "2", "application/x-protobuf", wrapped),
        ]:
            headers = rig.ns_headers(F, x_ptp_version=version)
            assert (await Container(client, a.platform, dialect).call("push", headers, body)).code == OK
            assert (seen[-1].method, seen[-1].path, seen[-1].body) == ("POST", "/prefix/v1/interconn/chan/invoke", sent)
            ours = dict(seen[-1].headers)
            assert re.fullmatch(r"[0-9a-f]{20}-[0-3]-[0-3]", ours.pop("x-interconn-message"))
            assert ours.pop("host").startswith("127.0.0.1")
            assert ours == {
                "accept": "*/*",
                "accept-encoding": "identity",
                "content-type": content_type,
                "content-length": str(len(sent)),
                "x-ptp-version": "1" if version == "1" else "0",
                "x-ptp-tech-provider-code": "test",
                "x-ptp-trace-id": "trace-1",
                "x-ptp-token": rig.PERMIT,
                "x-ptp-uri": "/v1/interconn/chan/push",
                "x-ptp-session-id": SID,
                "x-ptp-source-node-id": A,
                "x-ptp-source-inst-id": "inst-LX-A",
                "x-ptp-target-node-id": F,
                "x-ptp-target-inst-id": "JG-F",
            }
        assert a.process.channel.sent_bytes(SID) == {F: 8}


def plain(body: bytes, content_type: str, status: int = 200) -> web.StreamResponse:
    return web.Response(status=status, body=body, headers={"content-type": content_type})


@pytest.mark.req("T-042", "T-045", "T-050")
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda: plain(b'{"code":"E0000000000","msg":"ok","payload":""}', "application/json"), OK),
        (lambda: plain(b"\x12\x0bE0000000000\x1a\x02ok", "application/proto"), OK),
        (lambda: proto("E0000000400"), "E0000000400"),
        (lambda: plain(b'{"code":"","message":"PARTY_x:null","payload":""}', "application/json"), "E0000000616"),
        (lambda: plain(b'{"message":"ok"}', "application/json"), "E0000000616"),
        (lambda: plain(b'{"code":0}', "application/json"), "E0000000616"),
        (lambda: plain(b"", "application/x-protobuf"), "E0000000616"),
        (lambda: plain(b"<html>", "text/html"), "E0000000616"),
        (lambda: plain(b"<html>", "text/html", 502), "E0000000607"),
        (lambda: plain(bytes(2 << 20), "application/json"), "E0000000616"),
        (lambda: web.Response(status=302, headers={"location": "https://127.0.0.1:1/"}), "E0000000616"),
    ],
)
async def test_what_an_answer_means(client: aiohttp.ClientSession, answer, code: str) -> None:
    async with node(A) as a, foreign(a, F, lambda *_: answer()) as (route, seen):
        await a.process.set_routes([route])
        a.process.channel.open_session(rig.rule(A, F))
        assert (await Container(client, a.platform).push(F, b"hi")).code == code
        assert len(seen) == 1
        assert a.process.channel.sent_bytes(SID) == ({F: 2} if code == OK else {})


async def test_what_may_have_arrived_is_not_repeated(client: aiohttp.ClientSession) -> None:
    def hang_up(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with node(A) as a, foreign(a, F, hang_up) as (route, seen):
        await a.process.set_routes([route])
        a.process.channel.open_session(rig.rule(A, F))
        assert (await Container(client, a.platform).push(F, b"hi")).code == "E0000000607"
        assert len(seen) == 1


async def test_what_certainly_did_not_arrive_is_repeated(client: aiohttp.ClientSession) -> None:
    codes = iter(["E0000000503", "E0000000503", OK])
    async with node(A) as a, foreign(a, F, lambda *_: proto(next(codes))) as (route, seen):
        await a.process.set_routes([route])
        a.process.channel.open_session(rig.rule(A, F))
        assert (await Container(client, a.platform).push(F, b"hi")).code == OK
        assert len({s.body for s in seen}) == 1
        assert len(seen) == 3


@pytest.mark.parametrize("code", ["E0000000503", "E0000000700"])
async def test_repeating_has_an_end(client: aiohttp.ClientSession, code: str) -> None:
    async with (
        node(A, push_retry_s=0.2) as a,
        foreign(a, F, lambda *_: proto(code)) as (route, seen),
    ):
        await a.process.set_routes([route])
        a.process.channel.open_session(rig.rule(A, F))
        got = await Container(client, a.platform).push(F, b"hi")
        assert (got.code, json.dumps(got.message)) == (code, '"the partner refused"')
        assert len(seen) >= 2
