"""Partners behind an HTTP proxy: what a container's push and control's own call make of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from gateway.data_plane.io.handover import RoadsLink
from gateway.data_plane.io.roads import Roads
from gateway.errors import Kind, Unavailable
from gateway.model import DIRECT, NodeId, PartnerWay
from gateway.ports import Network
from tests.edges import rig
from tests.edges.rig import Container, Node, node
from tests.networks.proxy import ConnectProxy

A, B = NodeId("LX-A"), NodeId("LX-B")
OK = "E0000000000"
NO_ROUTE = "E0000000619"


def way(to: NodeId, **more: object) -> Network:
    plain = PartnerWay(to, proxy="", relay="", hold=False, held=False, created=0, updated=0)
    return Network(ways=[replace(plain, **more)])  # type: ignore[arg-type]


def acquaint(a: Node, b: Node) -> None:
    for one in (a, b):
        one.process.channel.open_session(rig.rule(a.node_id, b.node_id))


@asynccontextmanager
async def partners(**settings: object) -> AsyncIterator[tuple[Node, Node]]:
    """`settings`: of the first."""
    async with node(A, push_retry_s=0.0, **settings) as a, node(B) as b:
        await a.process.set_routes([b.route()])
        await b.process.set_routes([a.route()])
        acquaint(a, b)
        yield a, b


def secret_file(folder: Path, secret: bytes) -> str:
    file = folder / "proxy.secret"
    file.write_bytes(secret + b"\n")
    file.chmod(0o600)
    return file.as_uri()


async def test_every_connection_goes_through_the_proxy(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with ConnectProxy(secret=b"gw:pa ss:1").running() as proxy:
        credentials = {proxy.address: secret_file(tmp_path, proxy.secret)}
        async with partners(proxy=proxy.address, proxy_credentials=credentials) as (a, b):
            ours, theirs = Container(client, a.platform), Container(client, b.platform)
            assert (await ours.push(B, b"in the clear nowhere")).code == OK
            assert (await theirs.pop(A)).payload == b"in the clear nowhere"
            assert len(proxy.asked) == 1
            assert f"CONNECT 127.0.0.1:{b.ports.edge} HTTP/1.1" in proxy.asked[0]
            for word in (b"in the clear nowhere", b"x-ptp", b"chan/invoke", A.encode(), B.encode()):
                assert word not in bytes(proxy.carried)
            assert "pa ss" not in repr(a.journal.events)
            # A word of the admin counts for the next connection.
            a.process.set_network(way(B, proxy=DIRECT))
            found = await RoadsLink(a.folder).reach(B, b.edge)
            with found:
                assert found.getpeername() == ("127.0.0.1", b.ports.edge)
            a.process.set_network(way(B, proxy=proxy.url))
            found = await RoadsLink(a.folder).reach(NodeId(""), b.edge)
            with found:
                assert found.getpeername() == ("127.0.0.1", proxy.port)
            assert len(proxy.asked) == 2


@pytest.mark.parametrize(
    ("secret", "answer", "words"),
    [
        (b"gw:other", None, "407"),
        (b"", b"HTTP/1.1 403 Forbidden\r\n\r\n", "403"),
        (b"", b"HTTP/1.1 200 ok\r\n\r\nand more", "of its own"),
        (b"", b"SSH-2.0-OpenSSH\r\n\r\n", "HTTP"),
        (b"", b"x" * 20_000, "HTTP"),
        (b"", b"HTTP/1.1 200", "closed"),
    ],
)
async def test_a_proxy_that_does_not_serve(
    client: aiohttp.ClientSession, tmp_path: Path, secret: bytes, answer: bytes | None, words: str
) -> None:
    async with ConnectProxy(secret=secret, answer=answer).running() as proxy:
        credentials = {proxy.address: secret_file(tmp_path, b"gw:mine")}
        async with partners(proxy=proxy.address, proxy_credentials=credentials) as (a, b):
            got = await Container(client, a.platform).push(B, b"x")
            assert (got.code, got.payload) == (NO_ROUTE, None)
            with pytest.raises(Unavailable, match=words) as refused:
                await RoadsLink(a.folder).reach(B, b.edge)
            assert refused.value.kind is Kind.NO_ROUTE
            assert "mine" not in str(refused.value) + repr(a.journal.events) + got.message


async def test_a_password_that_is_everybodys_is_not_used(tmp_path: Path) -> None:
    async with ConnectProxy(secret=b"gw:pw").running() as proxy:
        uri = secret_file(tmp_path, b"gw:pw")
        (tmp_path / "proxy.secret").chmod(0o644)
        with pytest.raises(Unavailable, match="password") as refused:
            await Roads(proxy.address, {proxy.address: uri}).reach(B, "https://127.0.0.1:1")
        assert proxy.asked == []
        assert "pw" not in str(refused.value).replace("password", "")


async def test_a_proxy_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.data_plane.io.roads.CONNECT_S", 0.2)
    async with ConnectProxy(answer=b"").running() as proxy:
        with pytest.raises(Unavailable, match="in time") as refused:
            await Roads(proxy.address).reach(B, "https://127.0.0.1:1")
        assert refused.value.kind is Kind.NO_ROUTE


async def test_control_without_a_data_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.data_plane.io.handover.WAIT_S", 0.2)
    with pytest.raises(Unavailable, match="data process"):
        await RoadsLink(tmp_path).reach(B, "https://127.0.0.1:1")


async def test_control_asks_for_many_at_a_time() -> None:
    async with node(A) as a, node(B) as b:
        link = RoadsLink(a.folder)
        found = await asyncio.gather(*(link.reach(B, b.edge) for _ in range(64)))
        assert len({each.fileno() for each in found}) == 64
        for each in found:
            each.close()
        with pytest.raises(Unavailable):
            await link.reach(B, "https://127.0.0.1:1")
        with pytest.raises(Unavailable, match="no address"):
            await link.reach(B, "")
