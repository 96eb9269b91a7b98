"""Two connections joined: pace, ends, and what is left when nothing moves."""

import asyncio
import socket

import pytest

from gateway.data_plane.io.tube import Tube


def sockets() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for each in pair:
        each.setblocking(False)
    return pair


async def joined(tube: Tube, *, first: bytes = b"") -> tuple[socket.socket, socket.socket]:
    """The two far ends."""
    loop = asyncio.get_running_loop()
    near, far = sockets()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    transport.pause_reading()
    other_near, other_far = sockets()
    await tube.join(transport, other_near, first=first)
    return far, other_far


async def read_all(end: socket.socket) -> bytes:
    got = bytearray()
    while piece := await asyncio.get_running_loop().sock_recv(end, 1 << 20):
        got += piece
    return bytes(got)


async def test_a_slow_reader_slows_the_writer() -> None:
    loop = asyncio.get_running_loop()
    one, other = await joined(Tube(), first=b"first")
    piece, sent = bytes(range(256)) * 256, 0
    while sent < 64 << 20:
        try:
            async with asyncio.timeout(0.2):
                await loop.sock_sendall(one, piece)
        except TimeoutError:
            break
        sent += len(piece)
    assert sent < 16 << 20
    one.close()
    got = await read_all(other)
    assert got.startswith(b"first" + piece)
    assert len(got) >= 5 + sent
    other.close()


async def test_a_rate_holds_who_is_ahead_of_it() -> None:
    loop, tube = asyncio.get_running_loop(), Tube(bytes_per_s=10_000)
    one, other = await joined(tube)
    await loop.sock_sendall(one, bytes(400))
    assert await loop.sock_recv(other, 1000) == bytes(400)
    assert not tube._outer._held
    await loop.sock_sendall(one, bytes(1000))
    assert await loop.sock_recv(other, 1000) == bytes(1000)
    # For as long as 1400 bytes take, counted from the first; the other way is not stopped by it.
    assert tube._outer._held == {"fast"}
    assert not tube._inner._held
    assert tube._free - tube._last == pytest.approx(0.12, abs=0.02)
    await loop.sock_sendall(one, b"more")
    async with asyncio.timeout(5):
        assert await loop.sock_recv(other, 1000) == b"more"
    one.close()
    other.close()


async def test_what_was_said_last_arrives() -> None:
    tube = Tube()
    one, other = await joined(tube)
    await asyncio.get_running_loop().sock_sendall(other, b"x" * 500_000)
    other.close()
    assert await read_all(one) == b"x" * 500_000
    one.close()
    async with asyncio.timeout(5):
        await tube.over.wait()


@pytest.mark.parametrize("end", ["idle", "abort"])
async def test_both_ends_end(end: str) -> None:
    tube = Tube(idle_s=0.1 if end == "idle" else 60)
    one, other = await joined(tube)
    if end == "abort":
        tube.abort()
    async with asyncio.timeout(5):
        assert await read_all(one) == await read_all(other) == b""
        await tube.over.wait()
    one.close()
    other.close()


async def test_a_socket_that_is_none_any_more() -> None:
    loop = asyncio.get_running_loop()
    near, far = sockets()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    transport.pause_reading()
    gone, _ = sockets()
    gone.close()
    tube = Tube()
    with pytest.raises((OSError, ValueError)):
        await tube.join(transport, gone)
    async with asyncio.timeout(5):
        assert await read_all(far) == b""
        await tube.over.wait()
    far.close()
