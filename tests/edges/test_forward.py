"""What is not chan/* goes to control, cleaned; what control never sees is refused before."""

import asyncio
import gzip
from dataclasses import replace

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from yarl import URL

from gateway.data_plane.io import body, forward, hop
from gateway.data_plane.io.forward import safe_path
from gateway.errors import Kind, ProtocolViolation
from gateway.model import Limits
from tests.edges import rig
from tests.edges.rig import node, pair
from tests.waiting import eventually


@pytest.mark.req("C-008")
async def test_requests_reach_control_as_they_came(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        tls = rig.partner_tls(a.files)
        url = URL(f"{b.edge}/v1/interconn/node/query?b=%C3%A9%2F&a=1", encoded=True)
        async with client.post(url, data=b"body", headers={"x-auth-sign": "s", "x-nonce": "n"}, ssl=tls) as response:
            assert (await response.json())["data"] == {"bytes": 4}
        seen = b.control.seen[-1]
        assert (seen.method, seen.path, seen.body) == ("POST", "/edge/v1/interconn/node/query?b=%C3%A9%2F&a=1", b"body")
        assert (seen.headers["x-auth-sign"], seen.headers["x-nonce"]) == ("s", "n")
        assert seen.address == "127.0.0.1"
        leaf = x509.load_pem_x509_certificates(a.files.chain.read_bytes())[0].public_bytes(serialization.Encoding.DER)
        assert seen.certificate == leaf
        for path in ("/healthz", "//v1/platform/schedule/task/callback"):
            async with client.get(URL(b.platform + path, encoded=True)) as response:
                assert response.status == 200
        callback = "/platform/v1/platform/schedule/task/callback"
        assert [s.path for s in b.control.seen[-2:]] == ["/platform/healthz", callback]
        assert b.control.seen[-1].certificate is None
        async with client.get(f"{b.edge}/healthz", ssl=rig.partner_tls(None)) as response:
            assert response.headers["server"] == "interconn"
        assert b.control.seen[-1].path == "/edge/healthz"


async def test_nobody_outside_writes_our_headers(client: aiohttp.ClientSession) -> None:
    async with pair() as (_, b):
        forged = {
            "X-Interconn-Peer-Cert": "AAAA",
            "x_interconn_peer_cert": "AAAA",
            "x-interconn-anything": "1",
            "x-interconn-peer-address": "10.0.0.1",
            "connection": "keep-alive, x-auth-sign",
            "x-auth-sign": "dropped, since it was named for one hop",
            "te": "trailers",
            "x_node_id": "kept",
        }
        url = f"{b.edge}/v1/interconn/node/query"
        async with client.get(url, headers=forged, ssl=rig.partner_tls(None)) as response:
            assert response.status == 200
        headers = b.control.seen[-1].headers
        assert not [name for name in headers if "interconn" in name]
        assert (b.control.seen[-1].certificate, b.control.seen[-1].address) == (None, "127.0.0.1")
        assert "te" not in headers
        assert "x-auth-sign" not in headers
        assert headers["x_node_id"] == "kept"


async def test_a_certificate_that_no_longer_counts_is_not_shown(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        tls = rig.partner_tls(a.files)
        for routes, shown in [([a.route()], True), ([], False)]:
            await b.process.set_routes(routes)
            async with client.get(f"{b.edge}/v1/interconn/node/query", ssl=tls) as response:
                assert response.status == 200
            assert (b.control.seen[-1].certificate is not None) is shown


@pytest.mark.parametrize(
    "path",
    [
        "/../platform/v1/platform/schedule/job/stop_all",
        "/v1/../../platform/x",
        "/%2e%2e/platform/x",
        "/.%2E/platform/x",
        "/v1/%252e%252e/x",
        "/v1%2f..%2fplatform",
        "/v1/..%5cplatform",
        "/v1/\\..\\x",
        "/./link/routes",
        "/v1/%00",
        "/v1/%0d%0ax",
        "*",
        "v1",
        "",
    ],
)
async def test_no_path_climbs(path: str) -> None:
    """From the partners' side of the control socket to our own side's, or to the link."""
    with pytest.raises(ProtocolViolation) as caught:
        safe_path(path)
    assert caught.value.kind is Kind.NOT_FOUND


async def test_no_path_climbs_on_the_wire() -> None:
    async with pair() as (_, b):
        for path in ("/../platform/x", "/%2e%2e/link/routes", "/a/../../platform/x"):
            reader, writer = await asyncio.open_connection("127.0.0.1", b.ports.edge, ssl=rig.partner_tls(None))
            writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            assert b'"code": 404' in answer
        assert b.control.seen == []


async def test_bodies_to_control_are_bounded(client: aiohttp.ClientSession) -> None:
    limits = replace(Limits(), body_bytes=200_000)

    async def endless():
        for _ in range(50):
            yield bytes(10_000)

    async with node("LX-A", limits=limits) as a:
        url = f"{a.platform}/v1/platform/schedule/job/create_all"
        async with client.post(url, data=bytes(200_000)) as response:
            assert (await response.json())["data"] == {"bytes": 200_000}
        for data in (bytes(200_001), endless()):
            async with client.post(url, data=data) as response:
                assert response.status == 413
                assert (await response.json())["code"] == 413
        assert len(a.control.seen) == 1


async def test_answers_come_back_whole(client: aiohttp.ClientSession) -> None:
    async with node("LX-A") as a:
        big = bytes(3 << 20)
        a.control.answer = lambda _: hop.Reply(404, big)
        async with client.get(f"{a.platform}/v1/platform/schedule/task/get_log") as response:
            assert (response.status, await response.read()) == (404, big)
            assert (response.headers["content-type"], response.headers["server"]) == ("application/json", "interconn")


async def test_control_is_away(client: aiohttp.ClientSession) -> None:
    async with node("LX-A") as a:
        await a.control.stop()
        async with client.post(f"{a.platform}/v1/platform/schedule/job/create_all", data=b"{}") as response:
            value = await response.json()
        assert (response.status, value["code"], value["data"]) == (200, 101, {})


async def test_odd_methods_are_not_carried(client: aiohttp.ClientSession) -> None:
    async with node("LX-A") as a:
        for method in ("OPTIONS", "PATCH", "TRACE"):
            async with client.request(method, f"{a.platform}/healthz") as response:
                assert (await response.json())["code"] == 424
        assert a.control.seen == []


async def test_slow_senders_keep_nobody_out(client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger that sends bodies drop by drop takes none of the connections to control."""
    monkeypatch.setattr(forward, "CONNECTIONS", 4)
    async with node("LX-A") as a:
        head = b"POST /v1/interconn/node/contract/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
        tls = rig.partner_tls(None)
        slow = [await asyncio.open_connection("127.0.0.1", a.ports.edge, ssl=tls) for _ in range(6)]
        for _, writer in slow:
            writer.write(head)
        await asyncio.sleep(0.1)
        async with asyncio.timeout(3), client.post(f"{a.edge}/v1/interconn/x", data=b"{}", ssl=tls) as response:
            assert (response.status, len(a.control.seen)) == (200, 1)
        for _, writer in slow:
            writer.close()


async def test_slow_readers_keep_nobody_out(client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for a long answer and does not read it holds one of few places, for a while."""
    monkeypatch.setattr(forward, "LONG_ANSWERS", 2)
    monkeypatch.setattr(forward, "LONG_S", 1.0)
    async with node("LX-A") as a:
        long = bytes(48 << 20)
        a.control.answer = lambda ask: hop.Reply(200, long if ask.path == "/v1/long" else b"{}")
        slow = [await asyncio.open_connection("127.0.0.1", a.ports.platform, limit=1) for _ in range(2)]
        for _, writer in slow:
            writer.write(b"GET /v1/long HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: len(a.control.seen) == 2)
        await asyncio.sleep(0.2)
        async with client.get(f"{a.platform}/v1/long") as response:
            assert (await response.json())["code"] == 101
        async with client.get(f"{a.platform}/v1/short") as response:
            assert await response.read() == b"{}"
        await asyncio.sleep(1.2)
        async with client.get(f"{a.platform}/v1/long") as response:
            assert await response.read() == long
        for _, writer in slow:
            writer.close()


async def test_a_body_has_a_slowest_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "STALL_S", 0.2)
    async with node("LX-A") as a:
        reader, writer = await asyncio.open_connection("127.0.0.1", a.ports.platform)
        writer.write(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")

        async def drip() -> None:
            while True:
                writer.write(b" ")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(5):
            assert b'"code": 400' in await reader.readuntil(b"}")
        dripping.cancel()
        writer.close()
        assert a.control.seen == []


async def test_compressed_bodies_are_not_taken(client: aiohttp.ClientSession) -> None:
    """What is signed is what came."""
    async with node("LX-A") as a:
        url, packed = f"{a.edge}/v1/interconn/x", gzip.compress(b"{}")
        async with client.post(
            url, data=packed, headers={"content-encoding": "gzip"}, ssl=rig.partner_tls(None)
        ) as response:
            assert (await response.json())["code"] == 400
        assert a.control.seen == []
