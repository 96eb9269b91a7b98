"""A component of ours beside OSx and one beside a gateway of ours: messages both ways, mutual TLS between the two."""

import asyncio
import base64
import http.client
import json
import time
from dataclasses import dataclass

import pytest
from aiohttp import web

from gateway.model import NodeId
from gateway.sdk.channel import Channel, Line
from gateway.sdk.drive import Link, Patience
from gateway.sdk.environment import OSX_HTTP, Address
from specs.proto import ptp_pb2
from tests.components.osx import Osx
from tests.components.platform import OK, Request, running_platform
from tests.edges import rig
from tests.edges.rig import Files, Node, foreign, node

B, F = NodeId("LX-B"), NodeId("LX-F")


@dataclass
class Forward:
    """OSx's way to a partner over HTTP: the message as JSON within JSON, the container's headers, a certificate."""

    to: Node
    files: Files

    def take(self, request: Request, topic: str, payload: bytes) -> None:
        inner = json.dumps({"topic": topic, "payload": base64.b64encode(payload).decode()}).encode()
        body = json.dumps({"payload": base64.b64encode(inner).decode()})
        sent = {name: value for name, value in request.headers.items() if name.startswith("x-ptp-")}
        sent |= {"content-type": "application/json;charset=UTF-8", "x-ptp-topic": topic}
        tls = rig.partner_tls(self.files)
        connection = http.client.HTTPSConnection("127.0.0.1", self.to.ports.edge, context=tls, timeout=10)
        connection.request("POST", "/v1/interconn/chan/invoke", body, sent)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        assert answer["code"] == OK, answer


@pytest.mark.req("T-044", "T-030", "T-056")
async def test_components_beside_osx_and_beside_a_gateway_of_ours() -> None:
    module = Osx(node_id=F)

    def came(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        push = ptp_pb2.PushInbound.FromString(ptp_pb2.Inbound.FromString(body).payload)
        headers = {name.lower(): value for name, value in request.headers.items()}
        module.take(Request(request.path, headers, body), push.topic, push.payload)
        answer = ptp_pb2.Outbound(code=OK, message="ok").SerializeToString()
        return web.Response(body=answer, headers={"content-type": "application/x-protobuf"})

    async with node(B) as b, foreign(b, F, came) as (route, _):
        await b.process.set_routes([route])
        b.process.channel.open_session(rig.rule(B, F))
        module.others[B] = Forward(b, Files(b.folder / "foreign.pem", b.folder / "foreign.key"))
        with running_platform(module):
            there = Line(module.address, rig.SID, "tr-1", "permit", dialect=OSX_HTTP, source_node=F)
            here = Line(b.platform.removeprefix("http://"), rig.SID, "tr-1", rig.TOKEN)
            parties = {"guest.0": Address(F, ""), "host.0": Address(B, "")}
            patience = Patience(total=20, message=20)

            def talk(line: Line, own: str, other: str) -> list[bytes]:
                channel = Channel(line, clock=time.monotonic)
                link = Link(channel, task_id="task_1", own=own, parties=parties, part_bytes=1 << 20)  # type: ignore[arg-type]
                got = []
                for n, size in enumerate((0, 1, 3_000_000)):
                    link.give(other, f"{n}", own.encode() * size, patience=patience)  # type: ignore[arg-type]
                    got.append(bytes(link.take(other, f"{n}", patience=patience)))  # type: ignore[arg-type]
                channel.close()
                return got

            beside_osx, beside_us = await asyncio.gather(
                asyncio.to_thread(talk, there, "guest.0", "host.0"), asyncio.to_thread(talk, here, "host.0", "guest.0")
            )
        for got, name in ((beside_osx, b"host.0"), (beside_us, b"guest.0")):
            assert got == [b"", name, name * 3_000_000]
        assert module.lost == 0
