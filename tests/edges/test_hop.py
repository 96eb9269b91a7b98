"""Frames from data to control: bounded, in their own connection, used again, and never half an answer for a whole."""

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.data_plane.io.hop import HEAD_BYTES, PIECE, Ask, Hop, HopServer, Reply
from gateway.errors import Kind, ProtocolViolation


def ask(body: bytes = b"", **more: str) -> Ask:
    headers = ["x-a", "\udce9 é", "x-a", "", *more.values()]
    return Ask("edge", "POST", "/p%20q", "a=1", "10.0.0.1", headers, b"\x30\x00", body)


async def test_what_goes_in_comes_out_and_the_connection_is_used_again(tmp_path: Path) -> None:
    seen: list[Ask] = []

    async def answer(got: Ask) -> Reply:
        seen.append(got)
        return Reply(207, bytes(got.body))

    server = HopServer(tmp_path / "s", answer, body_bytes=3 * PIECE)
    await server.start()
    hop = Hop(tmp_path / "s", most=4, open_s=1, silence_s=2)
    for body in (b"", b"x", bytes(range(256)) * 3000):
        async with hop.ask(ask(body)) as answered:
            rest = [piece async for piece in answered.rest()]
            assert (answered.status, b"".join([answered.first, *rest])) == (207, body)
    assert seen[0] == ask()
    assert len(server._lines) == 1
    with pytest.raises(OSError):  # which one depends on what the kernel had taken
        async with hop.ask(ask(bytes(3 * PIECE + 1))):
            pass
    assert len(seen) == 3
    for value, kind in (("x" * HEAD_BYTES, Kind.TOO_LARGE), ("a\0b", Kind.MALFORMED)):
        with pytest.raises(ProtocolViolation) as caught:
            async with hop.ask(ask(name="x-b", value=value)):
                pass
        assert caught.value.kind is kind
    hop.close()
    await server.stop(0.1)


async def test_an_answer_in_pieces_waits_for_who_reads_it(tmp_path: Path) -> None:
    made = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(100):
            made += 1
            yield bytes(PIECE)

    async def answer(got: Ask) -> Reply:
        return Reply(200, b"{", pieces()) if got.body else Reply(200, b"{}")

    server = HopServer(tmp_path / "s", answer, body_bytes=100)
    await server.start()
    hop = Hop(tmp_path / "s", most=2, open_s=0.05, silence_s=2)
    async with hop.ask(ask(b"many")) as slow:
        async with hop.ask(ask()) as other:
            assert other.first == b"{}"
            with pytest.raises(TimeoutError):
                async with hop.ask(ask()):
                    pass
        assert made < 20
        assert sum([len(piece) async for piece in slow.rest()]) == 100 * PIECE
    # Who leaves in the middle gives the place back, not the connection.
    async with hop.ask(ask(b"many")):
        pass
    async with hop.ask(ask()) as one, hop.ask(ask()) as two:
        assert (one.first, two.first) == (b"{}", b"{}")
    hop.close()
    await server.stop(0.1)


@pytest.mark.parametrize("sizes", [(HEAD_BYTES + 1, 0, 0), (9, 1 << 20, 0), (9, 0, 101), (3, 0, 0)])
async def test_what_our_data_process_never_sends_ends_the_connection(
    tmp_path: Path, sizes: tuple[int, int, int]
) -> None:
    asked: list[Ask] = []

    async def answer(got: Ask) -> Reply:
        asked.append(got)
        return Reply(200, b"")

    server = HopServer(tmp_path / "s", answer, body_bytes=100)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(struct.pack("!III", *sizes) + b"a\0b")
    async with asyncio.timeout(3):
        assert await reader.read() == b""
    writer.close()
    assert asked == []
    await server.stop(0.1)
