"""The sending side of one stream: which bytes go next, and what every answer means. No I/O, no waiting.

Messages of one flow leave in the order in which they were given, one after another. Between flows turns are taken: a
turn is some small messages or one part of a large one, so that a bulk transfer doesn't hold up the others. What is on
its way unanswered stays within the receiver's window, large messages leave a share of it to small ones, and of one
message no more than RESEND bytes are on their way: that is what a break of the connection can cost.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from gateway.data_plane.core import stream as st
from gateway.errors import ProtocolViolation

RESEND: Final = 4 << 20
"""Bytes of a message in parts that may be on their way without the receiver having said that it has them."""
SHARE: Final = 4 << 20
"""Bytes of the window that large messages leave free."""
PART: Final = 1 << 20
"""Bytes of one part at the most: what TLS needs some 1 ms for."""
TURN: Final = 64 << 10
"""Bytes of small messages that a flow sends before the next flow's turn."""

Headers = tuple[tuple[str, str], ...]
Buffer = bytes | bytearray | memoryview


@dataclass(eq=False, slots=True)
class Item:
    """A message on its way. headers: its flow's. before: what stands before the payload, where the message is never
    sent in parts. done: told (code, words) by the receiver's answer.
    lost: told when no answer will come; what then is known, `begun` and `whole` say.

    transfer: name of the transfer in parts, the same when it is tried again. begun: a part of it may have arrived.
    whole: all of it may have.
    """

    headers: Headers = field(repr=False)
    payload: Buffer = field(repr=False)
    done: Callable[[str, str], None] = field(repr=False)
    lost: Callable[[], None] = field(default=lambda: None, repr=False)
    name: bytes = b""
    before: tuple[Buffer, ...] = field(default=(), repr=False)
    transfer: bytes = b""
    begun: bool = False
    whole: bool = False
    resumed: int = 0
    """How many streams it has been on before this one."""
    ref: int = -1
    sent: int = 0
    had: int = 0
    waits: bool = False
    """For a HAVE."""
    since: float = 0.0
    """Free for whoever watches over it, as is `mark`."""
    mark: int = 0

    @property
    def size(self) -> int:
        """Bytes of the message."""
        return len(self.payload) + (sum(map(len, self.before)) if self.before else 0)


class Sender:
    """What is to be sent on one stream and what of it is unanswered. code_ok: the code that an ACK stands for."""

    def __init__(self, *, code_ok: str) -> None:
        self._ok = code_ok
        self._hello: st.Hello | None = None
        self._lines: dict[Headers, deque[Item]] = {}
        self._turns: deque[Headers] = deque()
        self._flows: OrderedDict[Headers, int] = OrderedDict()
        self._unanswered: dict[int, Item] = {}
        self._used = 0
        self._next = 0

    def begin(self, hello: st.Hello) -> None:
        """The receiver has said what it takes; nothing is sent before."""
        self._hello = replace(hello, flows=min(hello.flows, 1 << 16), chunk=min(hello.chunk, PART))

    @property
    def idle(self) -> bool:
        return not self._lines and not self._unanswered

    def waiting(self) -> Sequence[Item]:
        """The messages that wait for their answer, the oldest first."""
        return list(self._unanswered.values())

    def submit(self, item: Item) -> None:
        """Put a message at the end of its flow."""
        item.ref, item.sent, item.had, item.since = -1, 0, 0, 0.0
        item.waits = False
        line = self._lines.get(item.headers)
        if line is None:
            line = self._lines[item.headers] = deque()
            self._turns.append(item.headers)
        line.append(item)

    def withdraw(self, item: Item) -> None:
        """Nobody waits for the answer any more. What has not begun does not begin."""
        item.done, item.lost = _ignored, _unheard
        line = self._lines.get(item.headers)
        if line and not item.begun and item in line:
            line.remove(item)
            if not line:
                self._close_line(item.headers)

    def pieces(self, most: int) -> list[Buffer]:
        """What to write next: some `most` bytes, one frame more at the most; [] when nothing may be sent now."""
        out: list[Buffer] = []
        if self._hello is None:
            return out
        size = passed = 0
        while size < most and passed < len(self._turns):
            headers = self._turns[0]
            line = self._lines[headers]
            wrote = self._turn(self._hello, headers, line, out)
            if not line:
                self._close_line(headers)
            elif line[0].waits:
                self._turns.popleft()
            else:
                self._turns.rotate(-1)
                passed += 1
            if wrote:
                passed = 0
            size += wrote
        return out

    def answered(self, ref: int, code: str = "", words: str = "") -> None:
        """ACK (code "") or NACK. Raises ProtocolViolation for a reference that is not open."""
        item = self._unanswered.pop(ref, None)
        if item is None:
            raise ProtocolViolation("stream: answer to no message")
        self._used -= item.sent - item.had + st.UNIT
        line = self._lines.get(item.headers)
        if line and line[0] is item:
            # Refused before all of it was sent, or all of it had come before: the rest stays here.
            line.popleft()
            if item.waits:
                self._turns.append(item.headers)
            if not line:
                self._close_line(item.headers)
        item.done(code or self._ok, words)

    def have(self, ref: int, offset: int) -> None:
        """The receiver has `offset` bytes of a message in parts. Raises ProtocolViolation."""
        item = self._unanswered.get(ref)
        if item is None:
            return  # answered meanwhile
        resuming = item.waits and not item.sent
        if offset > (len(item.payload) if resuming else item.sent) or offset < item.had:
            raise ProtocolViolation("stream: HAVE out of range")
        if resuming:
            item.sent = item.had = offset
        else:
            self._used -= offset - item.had
            item.had = offset
        line = self._lines.get(item.headers)
        if item.waits and line and line[0] is item:
            item.waits = False
            if item.sent == len(item.payload):
                line.popleft()
                if not line:
                    del self._lines[item.headers]
                    return
            self._turns.append(item.headers)

    def left(self) -> Sequence[Item]:
        """Every message without an answer, in the order of each flow: for the end of the stream."""
        waiting = [item for line in self._lines.values() for item in line if item.ref not in self._unanswered]
        return [*self._unanswered.values(), *waiting]

    def _close_line(self, headers: Headers) -> None:
        del self._lines[headers]
        if headers in self._turns:
            self._turns.remove(headers)

    def _turn(self, hello: st.Hello, headers: Headers, line: deque[Item], out: list[Buffer]) -> int:
        """One turn of a flow; the bytes written."""
        if line[0].size > hello.whole:
            return self._part(hello, line, out)
        wrote = 0
        while line and wrote < TURN:
            item = line[0]
            size = item.size
            if size > hello.whole or not self._fits(hello, size):
                break
            line.popleft()
            number = self._number(hello, headers, out)
            self._take_ref(item)
            self._used += size
            item.sent = size
            item.whole = True
            out.append(st.pack(st.MESSAGE, size=size, text=item.name, flow=number, ref=item.ref))
            out += (*item.before, item.payload)
            wrote += size + st.UNIT
        return wrote

    def _part(self, hello: st.Hello, line: deque[Item], out: list[Buffer]) -> int:
        """The next part of a large message; the last one makes room for the next message of the flow."""
        item = line[0]
        total = len(item.payload)
        if item.ref not in self._unanswered:
            if not self._fits(hello, hello.chunk + SHARE):
                return 0
            number = self._number(hello, item.headers, out)
            self._take_ref(item)
            kind = st.RESUME if item.resumed else st.BEGIN
            out += (
                st.pack(kind, size=st.TRANSFER, text=item.name, flow=number, ref=item.ref, value=total),
                item.transfer,
            )
            if item.resumed:
                item.waits = True  # for what the receiver has
                return st.UNIT
        size = min(hello.chunk, total - item.sent)
        if item.sent - item.had + size > RESEND:
            item.waits = True
            return 0
        alone = self._used <= st.UNIT * len(self._unanswered)
        if self._used + size + SHARE > hello.window and not alone:
            return 0
        out.append(st.pack(st.CHUNK, size=size, ref=item.ref, value=item.sent))
        out.append(memoryview(item.payload)[item.sent : item.sent + size])
        item.sent += size
        self._used += size
        if item.sent == total:
            item.whole = True
            line.popleft()
        return size

    def _fits(self, hello: st.Hello, size: int) -> bool:
        """Whether a message of `size` bytes may follow now; one alone always may."""
        if len(self._unanswered) >= hello.messages:
            return False
        return not self._unanswered or self._used + size + st.UNIT <= hello.window

    def _take_ref(self, item: Item) -> None:
        while self._next in self._unanswered:
            self._next = (self._next + 1) & 0xFFFFFFFF
        item.ref, self._next = self._next, (self._next + 1) & 0xFFFFFFFF
        item.begun = True
        self._unanswered[item.ref] = item
        self._used += st.UNIT

    def _number(self, hello: st.Hello, headers: Headers, out: list[Buffer]) -> int:
        """The number of a flow, made known first where it is new."""
        number = self._flows.get(headers)
        if number is not None:
            self._flows.move_to_end(headers)
            return number
        number = len(self._flows) if len(self._flows) < hello.flows else self._flows.popitem(last=False)[1]
        self._flows[headers] = number
        out.append(st.pack_flow(number, dict(headers)))
        return number


def _ignored(_code: str, _words: str) -> None:
    """For an answer that nobody waits for."""


def _unheard() -> None:
    """For a loss that nobody waits for."""
