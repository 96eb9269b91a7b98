"""Messages that come in parts: where each part belongs, and what is kept when the stream breaks in the middle.

One `Parts` per partner: it outlives the streams, so that a transfer goes on where it was interrupted. What a partner
may leave unfinished here is bounded in number, bytes and time. No I/O; memory is made by what the caller gives, time
comes in. Nothing here says who may send: the caller has asked before it begins a transfer.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.frame import Envelope
from gateway.errors import GatewayError, Kind, ProtocolViolation, Unavailable

TRANSFERS: Final = 64
"""Unfinished ones of one partner, the interrupted ones included."""
KEPT_S: Final = 120.0
"""How long an interrupted one is kept."""
ENDED: Final = 256
"""Transfers that came to their end and are remembered, for a sender that did not hear of it."""


class Carrier(Protocol):
    """A stream that brings a message in parts."""

    def settle(self, ref: int, error: GatewayError | None) -> None:
        """Answer: the message was taken, or why not."""
        ...

    def have(self, ref: int, offset: int) -> None:
        """Say how much has come; more may follow."""
        ...

    def give_up(self, ref: int, part: "Part", error: GatewayError) -> None:
        """The message is refused; what may still come of it is thrown away."""
        ...


class File(Protocol):
    """Room on disk for one message."""

    async def write(self, piece: memoryview, at: int) -> None:
        """Put a piece in its place. Raises Unavailable(BUFFER_FULL)."""
        ...

    def whole(self, length: int) -> memoryview:
        """All of it, once it is written."""
        ...

    def repay(self) -> None:
        """It is counted elsewhere, or dropped."""
        ...


@dataclass(eq=False, slots=True)
class Part:
    """A message of which `held` bytes have come. owner: the stream that carries it now and the reference it has there;
    None while it is interrupted. file: where it is too large for memory; `place` is then made when it is whole.
    """

    transfer: bytes
    envelope: Envelope
    total: int
    place: memoryview = field(repr=False)
    owner: tuple[Carrier, int] | None
    file: File | None = None
    loan: int = 0
    """Of memory."""
    held: int = 0
    coming: int = 0
    """Bytes for which memory was made and that have not come whole."""
    written: int = 0
    told: int = 0
    """What the sender knows to be here."""
    since: float = 0.0
    """When it was interrupted."""

    @property
    def complete(self) -> bool:
        return self.held == self.total


class Parts:
    """The transfers of one partner. budget: lends their bytes as they come. make: memory of a given size. file: room
    on disk for a message of this size, None where it belongs in memory.

    kept_bytes: how much of interrupted transfers is kept.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        make: Callable[[int], memoryview],
        kept_bytes: int,
        file: Callable[[int], File | None] = lambda _size: None,
    ) -> None:
        self._budget = budget
        self._make = make
        self._file = file
        self._kept_bytes = kept_bytes
        self._open: OrderedDict[bytes, Part] = OrderedDict()
        self._ended: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def begin(
        self, transfer: bytes, envelope: Envelope, *, total: int, owner: tuple[Carrier, int], resume: bool
    ) -> Part | None:
        """The transfer to be carried on; None when it came to its end before.

        Not `resume`: it begins anew, whatever is here under its name. Raises ProtocolViolation for a name that means
        another message, Unavailable(BUFFER_FULL) for too many transfers.
        """
        if len(transfer) != 16:
            raise ProtocolViolation("stream: name of a transfer")
        known = self._open.get(transfer)
        if resume:
            if transfer in self._ended:
                return None
            if known is not None:
                if known.total != total or not _same(known.envelope, envelope):
                    raise ProtocolViolation("stream: another message under the name of this transfer")
                known.owner, known.envelope, known.told = owner, envelope, known.held
                return known
        if known is not None:
            if known.complete:
                raise ProtocolViolation("stream: the transfer is at its end and cannot begin anew")
            self.drop(known)
        if len(self._open) >= TRANSFERS:
            self._drop_interrupted()
        if len(self._open) >= TRANSFERS:
            raise Unavailable("too many transfers in parts", kind=Kind.BUFFER_FULL)
        self._ended.pop(transfer, None)
        file = self._file(total)
        place = memoryview(b"") if file is not None else self._make(total)
        part = self._open[transfer] = Part(transfer, envelope, total, place, owner, file)
        return part

    def __contains__(self, part: Part) -> bool:
        return self._open.get(part.transfer) is part

    def room(self, part: Part, offset: int, size: int) -> memoryview:
        """Where the next `size` bytes of a message belong. Raises ProtocolViolation, Unavailable(BUFFER_FULL)."""
        if offset != part.held or not 0 < size <= part.total - offset:
            raise ProtocolViolation("stream: part out of place")
        if part.file is not None:
            if size > part.coming:
                self._budget.borrow(size - part.coming)
                part.loan += size - part.coming
                part.coming = size
            return self._make(size)
        if offset + size > part.loan:
            self._budget.borrow(offset + size - part.loan)
            part.loan = offset + size
        return part.place[offset : offset + size]

    def came(self, part: Part, size: int) -> None:
        """The bytes are in their place, or are to be written to their file: then `wrote` follows."""
        part.held += size
        over, part.coming = max(part.coming - size, 0), 0
        part.loan -= over
        self._budget.repay(over)

    def wrote(self, part: Part, size: int) -> None:
        """So many bytes more are in their file."""
        part.written += size
        if part in self:
            self._budget.repay(size)
            part.loan -= size

    def hand_over(self, part: Part) -> None:
        """All has come and goes where it is counted anew; the transfer stays open until its `end`."""
        self._repay(part)

    def end(self, part: Part, *, taken: bool) -> None:
        """The message was taken, or refused for good."""
        self.drop(part)
        if taken:
            self._ended[part.transfer] = None
            while len(self._ended) > ENDED:
                self._ended.popitem(last=False)

    def interrupt(self, part: Part, *, now: float) -> None:
        """Its stream has broken."""
        part.owner, part.since = None, now
        if part.complete or self._open.get(part.transfer) is not part:
            return
        self._open.move_to_end(part.transfer)
        kept = [other for other in self._open.values() if other.owner is None and not other.complete]
        over = sum(other.held for other in kept) - self._kept_bytes
        for other in kept:
            if over <= 0:
                break
            over -= other.held
            self.drop(other)

    def expire(self, *, now: float) -> None:
        """Drop what was interrupted too long ago."""
        for part in [p for p in self._open.values() if p.owner is None and not p.complete and now - p.since > KEPT_S]:
            self.drop(part)

    def drop(self, part: Part) -> None:
        """Forget a transfer and give its bytes back."""
        if self._open.get(part.transfer) is part:
            del self._open[part.transfer]
            self._repay(part)

    def _repay(self, part: Part) -> None:
        self._budget.repay(part.loan)
        part.loan = 0
        if part.file is not None:
            part.file.repay()

    def _drop_interrupted(self) -> None:
        for part in self._open.values():
            if part.owner is None and not part.complete:
                self.drop(part)
                return


def _same(one: Envelope, other: Envelope) -> bool:
    """Whether two envelopes can be of one message; tokens and what is said about other messages may change."""
    return (one.session_id, one.topic, one.source_node) == (other.session_id, other.topic, other.source_node)
