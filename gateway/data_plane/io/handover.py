"""Control's way out, both ends: the data process opens the socket to a node and hands it over (SCM_RIGHTS).

So there is one place that knows ways out, and control does its own TLS on the socket as ever. A connection on the Unix
socket carries one question, `node NUL address LF`, and one answer: byte 0 with the socket, or byte 1 and why not. It
lies in a folder that only this user may enter; that is the whole of its access control.
"""

import asyncio
import socket
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.data_plane.io.roads import CONNECT_S, Roads
from gateway.errors import GatewayError, Kind, Unavailable
from gateway.model import NodeId

SOCKET: Final = "roads.sock"
WAIT_S: Final = 5.0
"""For a data process that is being started."""
_ASK_BYTES: Final = 8 << 10
_ASK_S: Final = 5.0
_WORDS_BYTES: Final = 1 << 10
_PAUSE_S: Final = 0.05
_HERE, _NOT = b"\0", b"\1"


class RoadsDoor:
    """The data process's end."""

    def __init__(self, file: Path, roads: Roads) -> None:
        self._file = file
        self._roads = roads
        self._listening: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._file.unlink(missing_ok=True)
        listening = self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(self._file))
        listening.listen(128)
        listening.setblocking(False)
        self._begin(self._accept(listening))

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listening is not None:
            self._listening.close()
            self._file.unlink(missing_ok=True)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            asking, _ = await asyncio.get_running_loop().sock_accept(listening)
            self._begin(self._serve(asking))

    async def _serve(self, asking: socket.socket) -> None:
        with asking, suppress(OSError, TimeoutError, ValueError):
            node, address = await _question(asking)
            try:
                found = await self._roads.reach(NodeId(node), address)
            except GatewayError as error:
                await asyncio.get_running_loop().sock_sendall(asking, _NOT + str(error).encode()[:_WORDS_BYTES])
                return
            with found:
                # One byte into an empty buffer: it does not block.
                socket.send_fds(asking, [_HERE], [found.fileno()])


async def _question(asking: socket.socket) -> tuple[str, str]:
    """Raises ValueError for what control never sends."""
    got = b""
    async with asyncio.timeout(_ASK_S):
        while not got.endswith(b"\n"):
            piece = await asyncio.get_running_loop().sock_recv(asking, _ASK_BYTES)
            got += piece
            if not piece or len(got) > _ASK_BYTES:
                raise ValueError
    node, address = got[:-1].decode().split("\0")
    return node, address


class RoadsLink:
    """Control's end."""

    def __init__(self, run_dir: Path) -> None:
        self._file = str(run_dir / SOCKET)

    async def reach(self, node: NodeId, address: str) -> socket.socket:
        """A connected socket to a node; "": whoever is at the address. The caller closes it.

        Raises Unavailable(NO_ROUTE), also where the data process does not answer.
        """
        loop = asyncio.get_running_loop()
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with asking:
            asking.setblocking(False)
            try:
                async with asyncio.timeout(WAIT_S):
                    await self._knock(asking)
                async with asyncio.timeout(CONNECT_S + _ASK_S):
                    await loop.sock_sendall(asking, f"{node}\0{address}\n".encode())
                    return await _answer(asking)
            except (OSError, TimeoutError) as e:
                raise Unavailable("the data process does not answer", kind=Kind.NO_ROUTE) from e

    async def _knock(self, asking: socket.socket) -> None:
        while True:
            try:
                await asyncio.get_running_loop().sock_connect(asking, self._file)
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                await asyncio.sleep(_PAUSE_S)
            else:
                return


async def _answer(asking: socket.socket) -> socket.socket:
    await _readable(asking)
    said, handed, _, _ = socket.recv_fds(asking, 1 + _WORDS_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    if said == _HERE and len(handed) == 1:
        found = socket.socket(fileno=handed[0])
        found.setblocking(False)
        return found
    for descriptor in handed:
        socket.socket(fileno=descriptor).close()
    if said[:1] == _NOT:
        raise Unavailable(said[1:].decode("utf-8", "replace"), kind=Kind.NO_ROUTE)
    raise ConnectionResetError


async def _readable(asking: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(asking, wake)
    try:
        await ready
    finally:
        loop.remove_reader(asking)
