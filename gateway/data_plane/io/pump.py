"""Two connections joined, whole and in both directions: what one side sends goes out on the other as it is.

So TLS and its proof stay ours (io.tls, io.edge) where somebody else's code speaks the protocol inside. A side that is
slow to take holds back the other; when one ends the other is closed behind its last byte.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from gateway.data_plane.core import http2
from gateway.data_plane.io import transports
from gateway.errors import ProtocolViolation

STALL_S: Final = 30.0
"""For so long connections wait for room, see Room."""
FAREWELL_S: Final = 0.5
"""Between a last word and the end: closing at once, with bytes unread, may take the word back."""

EARLY: Final = 1 << 20
"""Bytes that may come before the other side is there; no more are read meanwhile."""

Eye = Callable[[bytes], None]
"""Looks at bytes on their way; raises ProtocolViolation to end both connections."""


class Half(asyncio.Protocol):
    """One side. `join` two of them; until then nothing is read. begun, ended: called when it is there, and gone."""

    def __init__(
        self,
        *,
        begun: Callable[["Half"], None] = lambda _half: None,
        eye: Eye = lambda _data: None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._begun = begun
        self._eye = eye
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._other: Half | None = None
        self._refusal: http2.Refusal | None = None
        self._early = b""
        self._held = {"alone"}
        """Why nothing is read from this side."""
        self.lost = False
        self.sent = 0
        """Bytes that were handed to this side's connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.pause_reading()
        self._begun(self)

    @property
    def transport(self) -> asyncio.Transport | None:
        """None before it is there."""
        return self._transport

    def join(self, other: "Half") -> None:
        """Let bytes pass, from here on."""
        for one, another in ((self, other), (other, self)):
            one.meet(another)
        if self.lost or other.lost:
            self.close()
            other.close()
            return
        for one in (self, other):
            one.begin()

    def begin(self) -> None:
        """Go on with what came too early."""
        early, self._early = self._early, b""
        if early:
            self.data_received(early)
        self.release("alone")

    def meet(self, other: "Half | None") -> None:
        """Know the other side, or none any more."""
        self._other = other

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            self.send(self._refusal.answer(data))
            return
        other = self._other
        if other is None or other.lost:
            self._early += data
            if len(self._early) > EARLY and self._transport is not None:
                transports.abort(self._transport)
            return
        try:
            self._eye(data)
        except ProtocolViolation as e:
            self.refuse(str(e))
            return
        other.send(data)

    def send(self, data: bytes) -> None:
        """Write to this side's connection."""
        if self._transport is not None and not self.lost:
            self.sent += len(data)
            self._transport.write(data)

    def hold(self, why: str) -> None:
        """Read nothing from this side until it is released for the same reason."""
        if not self._held and self._transport is not None and not self.lost:
            self._transport.pause_reading()
        self._held.add(why)

    def release(self, why: str) -> None:
        if why not in self._held:
            return
        self._held.discard(why)
        if not self._held and self._transport is not None and not self.lost and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.hold("full")

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other.release("full")

    def eof_received(self) -> None:
        """The transport closes itself."""

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = True
        self._ended()
        if self._other is not None:
            self._other.close()

    def refuse(self, words: str) -> None:
        """End an HTTP/2 caller on this side, and the other side with it."""
        other, self._other = self._other, None
        if other is not None:
            other.meet(None)
            other.close()
        self.send(http2.goaway(words))
        self._end()

    def turn_away(self, refusal: http2.Refusal) -> None:
        """Tell an HTTP/2 caller that was not joined to anything why it is not let in."""
        self._refusal = refusal
        early, self._early = self._early, b""
        self.send(refusal.answer(early))
        self._end()

    def _end(self) -> None:
        transport = self._transport
        if transport is None or self.lost or transport.is_closing():
            return
        # What still comes is read and dropped.
        self._held.clear()
        transport.resume_reading()
        asyncio.get_running_loop().call_later(FAREWELL_S, transport.abort)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            transports.abort(self._transport)

    def close(self) -> None:
        """Close behind what was sent."""
        if self._transport is not None:
            self._transport.close()


class Room:
    """How many bytes may be under way inside of somebody else's code, over all connections.

    Over it whoever brings more waits. Where that does not help for STALL_S, the one that holds most has to go: it may
    be one that began much and goes on with nothing.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: dict[Half, int] = {}
        self._waiting: set[Half] = set()
        self._late: asyncio.TimerHandle | None = None
        self.used = 0

    def change(self, half: Half, difference: int) -> None:
        """Count `difference` bytes more of this side's connection, which waits where there is no room."""
        self._held[half] = self._held.get(half, 0) + difference
        self.used += difference
        if self.used > self._size and difference > 0:
            half.hold("room")
            self._waiting.add(half)
            if self._late is None:
                self._late = asyncio.get_running_loop().call_later(STALL_S, self._make)
        self._let_go()

    def leave(self, half: Half) -> None:
        """This side is gone, and what it held with it."""
        self._waiting.discard(half)
        self.used -= self._held.pop(half, 0)
        self._let_go()

    def _make(self) -> None:
        self._late = None
        if self._waiting:
            self._late = asyncio.get_running_loop().call_later(STALL_S, self._make)
            max(self._held, key=self._held.__getitem__).refuse("no room for these messages")

    def _let_go(self) -> None:
        if self.used > self._size:
            return
        waiting, self._waiting = self._waiting, set()
        for half in waiting:
            half.release("room")
        if self._late is not None:
            self._late.cancel()
            self._late = None
