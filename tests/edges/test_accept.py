"""Connections whose TLS handshake never ends, on both loops: they keep nobody out and do not stay."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.data_plane.io import accept, tls
from gateway.data_plane.io.accept import TlsListener
from tests.edges import rig
from tests.edges.test_front import Loop, Pump, both_loops, run
from tests.waiting import eventually


@contextlib.asynccontextmanager
async def listener() -> AsyncIterator[tuple[TlsListener, int]]:
    with rig.folder() as folder:
        files = rig.issue(folder, rig.authority(), rig.urn("LX-A"))
        listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        listening.setblocking(False)
        made = TlsListener(listening, Pump, tls.server_context(files.chain, files.key, []))
        try:
            yield made, listening.getsockname()[1]
        finally:
            made.close()


async def served(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=rig.partner_tls(None))
    writer.write(b"hello end")
    try:
        return await reader.read() == b"hello end"
    finally:
        writer.close()


@both_loops
@pytest.mark.parametrize("bound", ["HANDSHAKES", "OF_AN_ADDRESS"])
def test_who_waits_gives_way(loop: Loop, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, bound, 5)

    async def main() -> None:
        async with listener() as (made, port):
            waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(12)]
            await eventually(lambda: made.handshakes == 5)
            for _ in range(3):
                assert await served(port)
            await eventually(lambda: made.handshakes <= 5)
            # The eldest were closed.
            waiting[0].settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert waiting[0].recv(1) == b""
            for one in waiting:
                one.close()
            await eventually(lambda: made.handshakes == 0)
            assert not made._addresses

    run(loop, main())


@both_loops
def test_handshakes_that_fail(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with listener() as (made, port):
            for junk in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(junk)
                writer.write_eof()
                with contextlib.suppress(ConnectionResetError):
                    await reader.read()
                writer.close()
            await eventually(lambda: made.handshakes == 0)
            assert await served(port)
            monkeypatch.setattr(accept, "HANDSHAKE_S", 0.1)
            silent = socket.create_connection(("127.0.0.1", port))
            await eventually(lambda: made.handshakes == 1)
            await eventually(lambda: made.handshakes == 0)
            silent.close()

    run(loop, main())
