"""Nothing of a payload or of a token gets into the journal, whichever way a message takes and whatever goes wrong."""

import asyncio
import base64
import time
from typing import Any

import aiohttp
import pytest

from gateway.data_plane.io import stream_local
from gateway.model import Limits, NodeId
from gateway.sdk.channel import Channel, Line
from gateway.sdk.environment import Address
from tests.edges import rig
from tests.edges.rig import Container, Node, pair

OK = "E0000000000"
A, B = NodeId("LX-A"), NodeId("LX-B")
PAYLOAD = b"Marked-Payload-51c9e0"
TOKENS = ("Marked-Token-own", "Marked-Token-wrong", "Marked-Token-partner")


def told(nodes: tuple[Node, ...], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> str:
    said = capfd.readouterr()
    return " ".join((*(str(each.journal.events) for each in nodes), said.out, said.err, caplog.text))


def silent(text: str) -> None:
    """No mark, in none of the forms in which bytes get into a text."""
    encoded = [base64.b64encode(bytes(pad) + PAYLOAD)[4:-4].decode() for pad in range(3)]
    for mark in ("Marked", PAYLOAD.hex(), *encoded):
        assert mark not in text


async def go_wrong(client: aiohttp.ClientSession, a: Node, b: Node, dialect: str) -> None:
    """Calls that are refused at every depth, marked ones all of them."""
    here = Container(client, a.platform, dialect)
    wrong, own = TOKENS[1], TOKENS[0]
    assert (await here.push(B, PAYLOAD, token=wrong)).code != OK
    assert (await here.push(NodeId("LX-NOBODY"), PAYLOAD, token=own)).code != OK
    assert (await here.push(B, PAYLOAD, token=own, session="nowhere")).code != OK
    assert (await here.push(B, PAYLOAD * 100, token=own)).code == "E0000000413"
    assert (await here.pop(token=wrong)).code != OK
    for broken in (b'{"topic":"t","payload":"' + PAYLOAD, PAYLOAD, b'{"payload":' + b"[" * 60 + PAYLOAD):
        assert (await here.call("push", rig.ns_headers(B, token=own), broken, dialect="json")).code != OK
    headers = rig.ew_headers(A, B, x_ptp_token=TOKENS[2])
    for more in ({"x-ptp-session-id": "nowhere"}, {"x-ptp-source-node-id": "LX-C"}, {"x-ptp-uri": f"/{wrong}/pop"}):
        got = await rig.invoke(client, b, a.files, {**headers, **more}, rig.inbound(PAYLOAD))
        assert got.code != OK
    assert (await rig.invoke(client, b, None, headers, rig.inbound(PAYLOAD))).code != OK
    assert (await rig.invoke(client, b, a.files, headers, b"\xff" + PAYLOAD)).code != OK


def of_a_task(at: Node, to: NodeId) -> None:
    """As our own components do, over the Unix socket."""
    local = str(at.folder / stream_local.SOCKET)
    line = Line(at.platform.removeprefix("http://"), rig.SID, "trace-1", TOKENS[0], local=local)
    channel = Channel(line)
    address = Address(to, "")
    channel.push("local", PAYLOAD, to=address, deadline=time.monotonic() + 5)
    channel.push("own", PAYLOAD, to=Address(at.node_id, ""), deadline=time.monotonic() + 5)
    found = channel.pop("own", source=Address(at.node_id, ""), wait_ms=5000, deadline=time.monotonic() + 5)
    assert bytes(found or b"") == PAYLOAD
    channel.close()


@pytest.mark.parametrize("streams", [True, False])
async def test_nothing_of_a_message_gets_into_a_log(
    client: aiohttp.ClientSession,
    streams: bool,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own: dict[str, Any] = {"token": TOKENS[0]}
    limits = Limits(channel_body_bytes=2000, channel_json_bytes=2000)
    async with pair(streams=streams, limits=limits, push_retry_s=0.1, session=False) as (a, b):
        for one in (a, b):
            one.process.channel.open_session(rig.rule(A, B, token=TOKENS[0]))
        for dialect in ("json", "proto", "raw", "grpc"):
            assert (await Container(client, a.platform, dialect).push(B, PAYLOAD, **own)).code == OK
            got = await Container(client, b.platform, dialect).pop(**own)
            assert got.payload == PAYLOAD
            await go_wrong(client, a, b, dialect if dialect != "raw" else "proto")
        monkeypatch.setattr(rig, "USUAL", "grpc")
        headers = rig.ew_headers(A, B, x_ptp_token=TOKENS[2])
        assert (await rig.invoke(client, b, a.files, headers, rig.inbound(PAYLOAD))).code == OK
        await asyncio.to_thread(of_a_task, a, B)
        await b.process.stop()
        assert (await Container(client, a.platform).push(B, PAYLOAD, **own)).code != OK
        assert len(a.events("chan.refused")) > 10
        assert len(b.events("chan.refused")) > 10
        silent(told((a, b), capfd, caplog))
