"""A task's line to its gateway over a Unix socket: the frames of docs/transport.md, one call at a time.

Standard library only. What a failure means and what is tried again is `gateway.sdk.channel`'s.
"""

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.data_plane.core import stream as st
from gateway.data_plane.io.rooms import Rooms
from gateway.errors import ProtocolViolation
from gateway.sdk.codec import Outbound

SUCCESS: Final = "E0000000000"
ASKS: Final = {"pop": st.POP, "peek": st.PEEK, "release": st.RELEASE}
KINDS: Final = (st.HELLO, st.MESSAGE, st.NOTHING, st.ACK, st.NACK, st.PONG)
LIMITS: Final = st.Hello(whole=(1 << 32) - 1, total=1 << 40)
"""What is taken here: whatever was asked for."""
ROOM_BYTES: Final = 32 << 20
"""Memory of messages that were read and let go, kept for the next ones."""
_JOIN: Final = 64 << 10

Payload = bytes | bytearray | memoryview


class LocalLine:
    """One connection. Raises OSError where the other end fails, after which it is of no use any more."""

    def __init__(self, path: str, *, seconds: float) -> None:
        """Connect. Raises OSError (FileNotFoundError, ConnectionRefusedError where nobody listens)."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._got: list[st.Frame] = []
        self._inbox = st.Inbox(st.bounds(LIMITS, KINDS), deliver=self._got.append, room=self._room)
        self._rooms = Rooms(ROOM_BYTES)
        self._flows: dict[tuple[tuple[str, str], ...], int] = {}
        self._ref = 0
        try:
            self._socket.settimeout(seconds)
            self._socket.connect(path)
            self._socket.sendall(st.pack_hello(LIMITS))
            self._limits = st.read_hello(self._next(time.monotonic() + seconds))
        except ProtocolViolation as e:
            self.close()
            raise ConnectionAbortedError(str(e)) from e
        except BaseException:
            self.close()
            raise

    def push(self, headers: Mapping[str, str], parts: Sequence[Payload], *, name: str = "", wait: float) -> Outbound:
        """Queue the concatenation of `parts` (flat bytes, not more than `most`); waits at most `wait` seconds."""
        size = sum(len(part) for part in parts)
        return self._call(st.MESSAGE, headers, parts, size=size, text=name.encode(), wait=wait)

    @property
    def most(self) -> int:
        """Bytes that a message may have here."""
        return self._limits.whole

    def ask(
        self, operation: str, headers: Mapping[str, str], *, ack: str = "", wait_ms: int = 0, wait: float
    ) -> Outbound:
        """pop, peek or release. ack: as of x-interconn-ack."""
        return self._call(ASKS[operation], headers, (), text=ack.encode(), value=wait_ms, wait=wait)

    def close(self) -> None:
        self._socket.close()

    def _call(
        self,
        kind: int,
        headers: Mapping[str, str],
        parts: Sequence[Payload],
        *,
        size: int = 0,
        text: bytes = b"",
        value: int = 0,
        wait: float,
    ) -> Outbound:
        self._ref = (self._ref + 1) & 0xFFFFFFFF
        head, flow = self._flow(headers)
        head += st.pack(kind, size=size, text=text, flow=flow, ref=self._ref, value=value)
        until = time.monotonic() + wait
        self._socket.settimeout(wait)
        self._send([head, *parts])
        try:
            return self._answer(self._next(until))
        except ProtocolViolation as e:
            raise ConnectionAbortedError(str(e)) from e

    def _answer(self, frame: st.Frame) -> Outbound:
        nothing = memoryview(b"")
        ref = st.read_acks(frame)[0] if frame.kind == st.ACK else frame.ref
        if ref != self._ref:
            raise ProtocolViolation("answer to another call")
        if frame.kind == st.NACK:
            return Outbound(frame.text.decode("latin-1"), bytes(frame.body).decode("utf-8", "replace"), nothing)
        if frame.kind != st.MESSAGE:
            return Outbound(SUCCESS, "", nothing)
        return Outbound(SUCCESS, "", memoryview(frame.body), st.name_of(frame))

    def _flow(self, headers: Mapping[str, str]) -> tuple[bytes, int]:
        """What makes the headers known, b"" where they are, and their number."""
        key = tuple(headers.items())
        number = self._flows.get(key)
        if number is not None:
            return b"", number
        if len(self._flows) >= self._limits.flows:
            self._flows.clear()
        number = self._flows[key] = len(self._flows)
        return st.pack_flow(number, headers), number

    def _send(self, parts: list[Payload]) -> None:
        if sum(len(part) for part in parts) <= _JOIN:
            self._socket.sendall(b"".join(parts))
            return
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        while views:
            sent = self._socket.sendmsg(views[:64])
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if sent:
                views[0] = views[0][sent:]

    def _room(self, frame: st.Frame) -> memoryview:
        return self._rooms.take(frame.size)

    def _next(self, until: float) -> st.Frame:
        """The next frame. Raises OSError, ProtocolViolation."""
        while not self._got:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            size = self._socket.recv_into(self._inbox.buffer())
            if not size:
                raise ConnectionResetError("the gateway closed the line")
            self._inbox.took(size)
        return self._got.pop(0)
