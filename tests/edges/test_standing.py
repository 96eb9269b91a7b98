"""Connections that stand: how many a partner has, whatever reads them, and what ends them when a certificate does."""

import asyncio
import contextlib
import datetime as dt
import hashlib
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from gateway.auth import revocation
from gateway.data_plane.core import heads
from gateway.data_plane.core import stream as st
from gateway.data_plane.io import park, standing
from gateway.data_plane.io.tls import read_leaf
from gateway.model import Limits, NodeId
from gateway.runtime.system import SystemClock
from specs.routes import OWN_PIPES
from tests.edges import rig
from tests.edges.rig import Container, Node, ew_headers, inbound, invoke, pair, partner_tls
from tests.edges.test_authorisation import Later
from tests.edges.test_grpc import partner_channel
from tests.networks import test_park, test_relay
from tests.waiting import eventually

OK, TOO_MANY = "E0000000000", "E0000000503"
A, B, R = NodeId("LX-A"), NodeId("LX-B"), NodeId("LX-R")
PLAIN = "Content-Length: {size}\r\n\r\n"
ODD = "Content-Length: {size}\r\nUpgrade: no\r\n\r\n"
"""A form that is left to aiohttp."""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "LOOK_S", 0.02)


class Kept:
    """A partner's connection by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def invoke(self, form: str) -> str:
        """The code of an answer."""
        body = inbound(b"x")
        headers = {"host": "b", "content-type": "application/x-protobuf", **ew_headers(A, B)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {rig.CHAN}invoke HTTP/1.1\r\n{lines}{form.format(size=len(body))}"
        self.writer.write(head.encode() + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).lower().decode()
        size = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
        status = int(answer.split()[1])
        return rig.read(status, "application/x-protobuf", await self.reader.readexactly(size)).code


@contextlib.asynccontextmanager
async def kept(a: Node, b: Node, *, version: ssl.TLSVersion | None = None) -> AsyncIterator[Kept]:
    context = partner_tls(a.files, version=version)
    reader, writer = await asyncio.open_connection("127.0.0.1", b.ports.edge, ssl=context)
    try:
        yield Kept(reader, writer)
    finally:
        writer.close()


async def test_a_partners_connections_count_whatever_reads_them() -> None:
    async with pair(limits=replace(Limits(), partner_connections=2)) as (a, b):
        async with kept(a, b) as odd, kept(a, b) as plain, kept(a, b) as more:
            assert await odd.invoke(ODD) == OK
            assert await plain.invoke(PLAIN) == OK
            for form in (PLAIN, ODD):
                assert await more.invoke(form) == TOO_MANY
            # What was let in goes on, also in another form.
            assert await plain.invoke(ODD) == OK
            assert await odd.invoke(PLAIN) == OK
            got = await rig.grpc_call(
                b.edge.partition("//")[2],
                rig.PROTOCOL + "invoke",
                ew_headers(A, B),
                inbound(b"x"),
                ca=b.ca.pem,
                files=a.files,
            )
            assert got.message == "busy, try again later"
        await eventually(lambda: not b.process._standing._held)
        async with kept(a, b) as again:
            assert await again.invoke(ODD) == OK


async def test_streams_and_pipes_have_bounds_of_their_own(client: aiohttp.ClientSession) -> None:
    async with pair(limits=replace(Limits(), partner_connections=1)) as (a, b):
        here = Container(client, a.platform)
        for size in (1, 300_000):
            assert (await here.push(B, bytes(size))).code == OK
        assert b.process.stats()["streams"] == 2
        async with kept(a, b) as one:
            assert await one.invoke(PLAIN) == OK


async def test_a_stream_needs_no_place_among_connections(client: aiohttp.ClientSession) -> None:
    async with pair(limits=replace(Limits(), partner_connections=1)) as (a, b), kept(a, b) as one:
        assert await one.invoke(PLAIN) == OK
        assert (await Container(client, a.platform).push(B, b"x")).code == OK
        assert b.process.stats()["streams"] == 1


async def test_a_parked_connection_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async with test_park.outbound_only() as (a, b), kept(a, b) as one:
        monkeypatch.setattr(b.process._standing, "_most", 1)
        assert await one.invoke(PLAIN) == OK
        test_park.hold(a, b)
        await eventually(lambda: test_park.parked(b, A) == park.SEATS)
        assert {node: len(held) for node, held in b.process._standing._held.items()} == {A: 1}


@pytest.mark.parametrize(
    ("path", "protocol"), [(f"{rig.CHAN}transport", st.PROTOCOL), (OWN_PIPES["park"], heads.BYTES_PROTOCOL)]
)
async def test_a_connection_that_becomes_one_gives_its_place_back(path: str, protocol: str) -> None:
    async with pair() as (a, b), kept(a, b) as one:
        assert await one.invoke(PLAIN) == OK
        assert list(b.process._standing._held) == [A]
        one.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: b\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\r\n".encode()
        )
        assert (await one.reader.readuntil(b"\r\n")).split()[1] == b"101"
        await eventually(lambda: not b.process._standing._held)


async def test_connections_that_have_ended_count_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before anybody has looked: a partner may open one for each call."""
    monkeypatch.setattr("gateway.data_plane.io.front.SWEEP_S", 60.0)
    monkeypatch.setattr(standing, "LOOK_S", 60.0)
    async with pair(limits=replace(Limits(), partner_connections=2)) as (a, b):
        for _ in range(6):
            async with kept(a, b) as one:
                assert await one.invoke(ODD) == OK
            gone = next(iter(b.process._standing._held[A]))
            await eventually(gone.is_closing)


async def test_places_are_given_back_whatever_happens() -> None:
    """Connections of every kind that come, call, are broken off, handed over and cut, in any order."""
    chance = random.Random(7)
    async with pair(limits=replace(Limits(), partner_connections=6)) as (a, b):

        async def grpc_call() -> None:
            async with partner_channel(a, b) as channel:
                with contextlib.suppress(grpc.RpcError):
                    headers = tuple(ew_headers(A, B).items())
                    await channel.unary_unary(rig.PROTOCOL + "invoke")(inbound(b"x"), metadata=headers)

        async def calls_of_one() -> None:
            with contextlib.suppress(OSError):
                async with kept(a, b) as connection:
                    for _ in range(chance.randrange(4)):
                        assert await connection.invoke(chance.choice((PLAIN, ODD))) in {OK, TOO_MANY}
                    if chance.random() < 0.3:
                        connection.writer.write(b"POST /v1/interconn/chan/invoke HTTP/1.1\r\n")
                    if chance.random() < 0.3:
                        connection.writer.transport.abort()

        calls = [asyncio.create_task(grpc_call()) for _ in range(4)]
        for _ in range(50):
            calls.append(asyncio.create_task(calls_of_one()))
            await asyncio.sleep(chance.random() / 200)
            if chance.random() < 0.3:
                chance.choice(calls[4:]).cancel()
        await asyncio.wait(calls, timeout=20)
        assert all(call.cancelled() or call.result() is None for call in calls)
        await eventually(lambda: b.process._standing._held == {})
        await eventually(lambda: [s for s in b.process._standing._all.values() if s.side == "edge"] == [])
        await eventually(lambda: b.process._fronts[0]._addresses == {})


def lapsed(at: Node) -> set[tuple[Any, ...]]:
    """What was cut: (side, whose, reason)."""
    assert all(event["kind"] == "unauthenticated" for event in at.events("tls.lapsed"))
    return {(event["side"], event["peer"], event["reason"]) for event in at.events("tls.lapsed")}


EXPIRED = "the certificate has expired"


@pytest.mark.parametrize("form", [PLAIN, ODD], ids=["own", "aiohttp"])
async def test_an_expired_certificate_ends_a_kept_connection(form: str) -> None:
    async with pair() as (a, b), kept(a, b) as one, kept(a, b) as silent:
        assert await one.invoke(form) == OK
        b.process._edge._clock = Later()
        for each in (one, silent):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await asyncio.wait_for(each.reader.readexactly(1), 5)
        await eventually(lambda: lapsed(b) == {("edge", A, EXPIRED)})
        await eventually(lambda: b.process._fronts[0].connections == 0)


async def test_nobody_is_named_whom_the_certificate_does_not_prove(tmp_path: Path) -> None:
    """A partner's CA may write any name into a certificate."""
    async with pair() as (a, b):
        files = rig.issue(tmp_path, a.ca, rig.urn(R))
        _, writer = await asyncio.open_connection("127.0.0.1", b.ports.edge, ssl=partner_tls(files))
        b.process._edge._clock = Later()
        await eventually(lambda: lapsed(b) == {("edge", None, EXPIRED)})
        writer.close()


async def test_it_ends_grpc(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b), partner_channel(a, b) as channel:
        headers = tuple(ew_headers(A, B).items())
        assert await channel.unary_unary(rig.PROTOCOL + "invoke")(inbound(b"x"), metadata=headers)
        b.process._edge._clock = Later()
        await eventually(lambda: b.process.stats()["grpc_connections"] == 0)
        assert lapsed(b) == {("edge", A, EXPIRED)}


@pytest.mark.parametrize("end", ["in", "out"])
async def test_it_ends_streams(client: aiohttp.ClientSession, end: str) -> None:
    """Also where it is the end that has opened them which looks at the clock."""
    async with pair(push_retry_s=0.0) as (a, b):
        here = Container(client, a.platform)
        assert (await here.push(B, b"x")).code == OK
        (b if end == "in" else a).process._edge._clock = Later()
        await eventually(lambda: b.process.stats()["streams"] == 0)
        if end == "in":
            assert lapsed(b) == {("edge", A, EXPIRED)}
        else:
            assert lapsed(a) == {("out", B, EXPIRED)}
            a.process._edge._clock = SystemClock()
            assert (await here.push(B, b"y")).code == OK


async def test_a_revoked_certificate_ends_them_too(client: aiohttp.ClientSession) -> None:
    async with pair(push_retry_s=0.0) as (a, b):
        assert (await Container(client, a.platform).push(B, b"x")).code == OK
        async with kept(a, b) as one:
            assert await one.invoke(PLAIN) == OK
            await b.process.set_routes([replace(a.route(), crls=revoking(a))])
            await eventually(lambda: b.process._fronts[0].connections == 0)
            assert b.process.stats()["streams"] == 0
            assert ("edge", A, "the certificate is revoked") in lapsed(b)


@pytest.mark.parametrize("calls", ["in", "out", "control"])
async def test_what_partners_show_is_remembered(client: aiohttp.ClientSession, calls: str) -> None:
    """Whichever of the two has opened the connection, and whatever it is for; also when it has ended."""
    async with pair(session=False, push_retry_s=0.0) as (a, b):
        b.process.channel.open_session(rig.rule(A, B))

        def seen() -> Any:
            return b.process.stats()["partner_tls"].get(A)

        assert seen() is None
        if calls == "out":
            await Container(client, b.platform).push(A, b"x")
        elif calls == "in":
            await invoke(client, b, a.files, ew_headers(A, B), inbound(b"x"))
        else:
            await client.get(f"{b.edge}/v1/interconn/node/health", ssl=partner_tls(a.files))
        await eventually(lambda: seen() is not None)
        der = ssl.PEM_cert_to_DER_cert(a.files.chain.read_text().partition(a.ca.pem)[0])
        assert seen() == {"fingerprint": hashlib.sha256(der).hexdigest(), "ends": read_leaf(der).not_after_ms}
        await b.process.set_routes([])
        assert seen() is None


def revoking(node: Node) -> Mapping[str, str]:
    """A list of this node's CA that names its TLS certificate."""
    now = dt.datetime.now(dt.UTC)
    serial = read_leaf(ssl.PEM_cert_to_DER_cert(node.files.chain.read_text().partition(node.ca.pem)[0])).serial
    pem = revocation.make(node.ca.certificate, node.ca.key, {serial: now}, now=now, until=now + dt.timedelta(days=1))
    return {hashlib.sha256(node.ca.der).hexdigest(): pem}


@pytest.mark.parametrize("end", ["holder", "other"])
async def test_parked_connections_end_at_both_ends(end: str) -> None:
    async with test_park.outbound_only() as (a, b):
        test_park.hold(a, b)
        await eventually(lambda: test_park.parked(b, A) == park.SEATS)
        before = b.process._parked._waiting[A][0]
        (a if end == "holder" else b).process._edge._clock = Later()
        await eventually(lambda: before not in b.process._parked._all)
        if end == "holder":
            await eventually(lambda: ("out", B, EXPIRED) in lapsed(a))
        else:
            await eventually(lambda: ("edge", A, EXPIRED) in lapsed(b))


async def test_a_relay_ends_what_it_carries(client: aiohttp.ClientSession) -> None:
    async with test_relay.three(test_relay.pair()) as (a, _, r):
        assert (await Container(client, a.platform).push(B, b"x")).code == OK
        assert r.process.stats()["relayed"]
        r.process._edge._clock = Later()
        await eventually(lambda: not r.process.stats()["relayed"])
        assert ("edge", A, EXPIRED) in lapsed(r)
