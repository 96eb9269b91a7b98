"""TLS of the edge: versions, and CAs that come and go while it listens."""

import asyncio
import contextlib
import ssl

import aiohttp
import pytest

from gateway.model import NodeId
from tests.edges import rig
from tests.edges.rig import Container, ew_headers, inbound, invoke, issue, pair, urn

OK = "E0000000000"
A, B = NodeId("LX-A"), NodeId("LX-B")


@pytest.mark.req("T-002")
async def test_versions_below_1_2_are_refused(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            tls = rig.partner_tls(a.files, version=version)
            async with client.post(f"{b.edge}{rig.CHAN}push", ssl=tls) as response:
                assert response.status == 200
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            tls = rig.partner_tls(None, version=ssl.TLSVersion.TLSv1_1)
        tls.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", b.ports.edge, ssl=tls)
        # The reason is the version: the same client gets through to a server that allows it.
        ours = b.process._tls.listening
        with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            handshake(tls, ours)
        ours.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            ours.minimum_version = ssl.TLSVersion.TLSv1_1
        b.process._tls._current = ours
        assert handshake(tls, ours) == "TLSv1.1"


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> str | None:
    """The version that two contexts agree on, in memory; raises the server's error."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here, there = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        with contextlib.suppress(ssl.SSLWantReadError):
            here.do_handshake()
        with contextlib.suppress(ssl.SSLWantReadError):
            there.do_handshake()
    return here.version()


async def test_plain_http_gets_nothing_from_the_edge(client: aiohttp.ClientSession) -> None:
    async with pair() as (_, b):
        with pytest.raises(aiohttp.ClientError):
            await client.post(f"http://127.0.0.1:{b.ports.edge}{rig.CHAN}push")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_revoked_ca_loses_all_connections(client: aiohttp.ClientSession, version: ssl.TLSVersion) -> None:
    async with pair() as (a, b):
        tls = rig.partner_tls(a.files, version=version)
        url, body = f"{b.edge}{rig.CHAN}invoke", inbound(b"x")
        assert (await rig.post(client, url, ew_headers(A, B), body, "proto", ssl=tls)).code == OK
        await b.process.set_routes([])
        # The connection that stands is kept by the client; it proves nothing any more.
        assert (await rig.post(client, url, ew_headers(A, B), body, "proto", ssl=tls)).code == "E0000000615"
        async with aiohttp.ClientSession() as fresh:
            with pytest.raises(aiohttp.ClientError):
                await rig.post(fresh, url, ew_headers(A, B), body, "proto", ssl=tls)
        await b.process.set_routes([a.route()])
        async with aiohttp.ClientSession() as fresh:
            assert (await rig.post(fresh, url, ew_headers(A, B), body, "proto", ssl=tls)).code == OK


async def test_a_partner_that_changes_its_ca(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        renewed = rig.authority()
        files = issue(a.folder, renewed, urn(A), name="renewed")
        await b.process.set_routes([a.route(tls_ca=renewed.pem)])
        assert (await invoke(client, b, files, ew_headers(A, B), inbound(b"x"))).code == OK
        async with aiohttp.ClientSession() as fresh:
            with pytest.raises(aiohttp.ClientError):
                await invoke(fresh, b, a.files, ew_headers(A, B), inbound(b"x"))


async def test_a_resumed_session_is_not_offered() -> None:
    """A ticket would carry the verification of CAs that may be gone by then."""
    async with pair() as (a, b):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            tls = rig.partner_tls(a.files, version=version)
            reader, writer = await asyncio.open_connection("127.0.0.1", b.ports.edge, ssl=tls)
            writer.write(b"POST /v1/interconn/chan/push HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            session = writer.get_extra_info("ssl_object").session
            assert session is None or not session.has_ticket
            writer.close()


async def test_an_address_change_keeps_the_session(client: aiohttp.ClientSession) -> None:
    async with pair(push_retry_s=5) as (a, b):
        push = Container(client, a.platform)
        assert (await push.push(B, b"1")).code == OK
        await a.process.set_routes([b.route(address=f"https://localhost:{b.ports.edge}/")])
        assert (await push.push(B, b"2")).code == OK
        assert a.process.channel.sent_bytes(rig.SID) == {B: 2}
