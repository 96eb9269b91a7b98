"""One port for everything: TLS is the edge, plain text from this machine the platform listener, and nothing else."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest

from gateway.config import ConfigError, load
from gateway.data_plane.io import accept, one_port
from gateway.data_plane.io.process import DataSettings
from gateway.model import NodeId
from tests.edges import rig
from tests.edges.rig import Container, node, pair

OK = "E0000000000"
A, B = NodeId("LX-A"), NodeId("LX-B")
OWN = "127.73.4.1"
"""An address of loopback on which nobody else has the standard's port."""


@pytest.mark.req("T-001")
@pytest.mark.parametrize("given", [{}, {"edge_port": 0}], ids=["default", "configured"])
async def test_plain_http_on_the_standards_port_or_another(client: aiohttp.ClientSession, given: dict) -> None:
    default = DataSettings.__dataclass_fields__["edge_port"].default
    async with node(A, edge_host=OWN, one_port=True, **{"edge_port": default, **given}) as a:
        assert a.ports.edge == a.ports.platform
        assert (a.ports.platform == 7304) is not given
        a.process.channel.open_session(rig.rule(A))
        container = Container(client, f"http://{OWN}:{a.ports.platform}")
        assert (await container.push(A, b"plain")).code == OK
        assert (await container.pop()).payload == b"plain"
        reader, writer = await asyncio.open_connection(OWN, a.ports.platform)
        writer.write(
            b"POST /v1/interconn/chan/pop HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize("dialect", ["json", "proto", "raw", "grpc"])
async def test_both_sides_of_two_partners_on_one_port_each(client: aiohttp.ClientSession, dialect: str) -> None:
    async with pair(one_port=True) as (a, b):
        here, there = Container(client, a.platform, dialect), Container(client, b.platform, dialect)
        body = bytes(range(256)) * 400
        assert (await here.push(B, body)).code == OK
        assert (await there.pop(A)).payload == body
        # What is a partner's is served to partners alone, and the other way round.
        got = await rig.post(client, f"{a.platform}{rig.CHAN}invoke", rig.ew_headers(B, A), b"", "proto")
        assert got.code == "E0000000614"
        tls = rig.partner_tls(b.files)
        got = await rig.post(client, f"{a.edge}{rig.CHAN}pop", rig.ns_headers(""), b"{}", "json", ssl=tls)
        assert got.code == "E0000000614"


async def test_plain_text_from_elsewhere_is_closed_unanswered(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(A, one_port=True) as a:
        monkeypatch.setattr(one_port, "HERE", frozenset())
        with pytest.raises(aiohttp.ClientError):
            await Container(client, a.platform).pop(wait_ms=0)
        with pytest.raises(aiohttp.ClientError):
            await Container(client, a.platform).pop(wait_ms=0)
        assert a.events("edge.plaintext") == [{"event": "edge.plaintext", "address": "127.0.0.1", "refused": 1}]
        async with client.get(f"{a.edge}/v1/interconn/x", ssl=rig.partner_tls(None)) as answer:
            assert answer.status == 200


async def test_who_says_nothing_gives_way(client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "OF_AN_ADDRESS", 5)
    async with node(A, one_port=True) as a:
        a.process.channel.open_session(rig.rule(A))
        silent = [await asyncio.open_connection("127.0.0.1", a.ports.edge) for _ in range(8)]
        assert (await Container(client, a.platform).push(A, b"x")).code == OK
        closed = [await asyncio.wait_for(reader.read(1), 5) for reader, _ in silent[:3]]
        assert closed == [b""] * 3
        for _, writer in silent:
            writer.close()
        # Neither a handshake that fails nor one that is never begun leaves anything behind.
        _, writer = await asyncio.open_connection("127.0.0.1", a.ports.edge)
        writer.write(b"\x16nonsense")
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.open_connection("127.0.0.1", a.ports.edge, ssl=ssl.create_default_context())
        assert (await Container(client, a.platform).pop()).payload == b"x"
        writer.close()


NODE = """
[node]
node_id = "n"
inst_id = "i"
name = "n"
institution = "i"
address = "{address}"
[edge]
host = "{host}"
[platform]
port = 7304
{more}
"""


def config(folder: Path, address: str, host: str = "0.0.0.0", more: str = ""):
    file = folder / "node.toml"
    file.write_text(NODE.format(address=address, host=host, more=more))
    return load(file)


def test_only_where_nothing_stands_in_front(tmp_path: Path) -> None:
    assert config(tmp_path, "https://gw.example:7304").one_port
    assert config(tmp_path, "https://gw.example:7304/", "127.0.0.1").one_port
    # Two addresses of this machine: two listeners with the same number.
    assert not config(tmp_path, "https://gw.example", "192.0.2.7").one_port
    for address in ("https://gw.example", "https://gw.example:7304/gateway"):
        with pytest.raises(ConfigError, match="in front"):
            config(tmp_path, address)
    with pytest.raises(ConfigError, match="insecure_allow_remote"):
        config(tmp_path, "https://gw.example:7304", more='host = "0.0.0.0"\ninsecure_allow_remote = true')
