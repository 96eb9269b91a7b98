"""Private set intersection by double Diffie-Hellman masking over Curve25519.

Functionality. Both parties put in a set of ids. Both learn which of their ids the other also has, in one common order,
and the size of the other's set; nothing else, but that masking keeps a point on its curve (the curve or its twist), so
that the number of either kind shows. Adversary: semi-honest. (A partner that lies about its set learns the
intersection with the set it made up; ids that can be guessed can be tested one by one by whoever takes part: count
limits and grants are the answer to that, not this protocol.)

Method: Meadows 1986; Huberman, Franklin and Hogg 1999, in the form that open implementations call ECDH-PSI with
CURVE_25519: u = SHA-256(id), X25519(a, u) goes to the partner, which returns
X25519(b, X25519(a, u)) in the order it got.
Under the decisional Diffie-Hellman assumption in both curves and with SHA-256 as a random oracle, masked ids look like
random points of the curve that their hash lies on.

Both rounds carry whole 32-byte points. The open protocol cuts the second round to 12 bytes, which saves a third of the
traffic; whole points let the same checks (canonical, not zero, no repeats) hold for both rounds and leave no collision
for a partner to look for. The cut form belongs to the dialect that needs it.

Traffic is paced by answers: at most WINDOW batches of own ids are under way, and the next leaves when the dual-masked
form of an earlier one has come back, so that bounded queues at both sides suffice for sets of any size.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from accel.kernels import Texts
from gateway.errors import CallerError, ProtocolViolation
from gateway.operators.party import Awaited, Effect, Finish, PartyName, Progress, Send, require_turn
from gateway.operators.psi.kernel import MAX_IDS, POINT_BYTES, equal_points, normalised, require_distinct
from gateway.operators.psi.wire import (
    HELLO,
    POINTS,
    Batch,
    BatchKind,
    decode_batch,
    decode_hello,
    encode_batch,
    encode_hello,
    has_zero,
)

BATCH_IDS: Final = 8192
"""Ids in every batch but the last: 256 KiB, fixed by the protocol so that a partner cannot choose odd cuts."""
WINDOW: Final = 4

MaskPoints = Callable[[bytes, bytes], bytes]
"""(secret, points) -> masked points: `mask_points` of accel.kernels.X25519, with its contract."""
DigestTexts = Callable[[Texts], bytes]
"""texts -> SHA-256 of each: `digest` of accel.kernels.Digest."""
RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class PsiResult:
    """rows: int64 indices of the own rows in the intersection, in the order common to both parties.

    partner_count: size of the partner's set. alignment: SHA-256 over the common points in that order; equal at both
    parties, and a check for later steps that their rows still belong together.
    """

    rows: NDArray[np.int64] = field(repr=False)
    partner_count: int
    alignment: bytes = field(repr=False)


class EcdhPsi:
    """One party; the protocol is the same for both roles. Its state is the set of questions still open, see awaits."""

    def __init__(
        self,
        *,
        partner: PartyName,
        ids: Texts,
        mask_points: MaskPoints,
        digest: DigestTexts,
        random: RandomBytes,
        max_ids: int = MAX_IDS,
    ) -> None:
        """ids: own ids in row order. random: the operating system's random bytes; secret and order are drawn from it.

        Raises Refused before anything is sent: MALFORMED for an empty id, none at all or too many, CONFLICT for two
        rows with one id (white space around an id is not part of it).
        """
        self._partner = partner
        digests = digest(normalised(ids, max_ids=max_ids))
        require_distinct(digests)
        self._points = np.frombuffer(digests, np.uint8).reshape(-1, POINT_BYTES)
        self._mask = mask_points
        self._max_ids = max_ids
        self._secret = random(POINT_BYTES)
        # A random order of sending, so that the partner learns nothing from ours; ties of 64-bit keys don't matter.
        keys = np.frombuffer(random(8 * len(ids)), np.uint64)
        self._order: NDArray[np.int64] = np.argsort(keys, kind="stable").astype(np.int64)
        self._started = False
        self._partner_count: int | None = None
        self._sent_batches = 0
        self._own_dual: list[bytes] = []
        self._partner_dual: list[bytes] = []
        """Points masked by both: of each answer, of each of the partner's batches."""
        self._finished = False

    def start(self) -> Sequence[Effect]:
        """Say how many ids there are and send the first batches, masked."""
        if self._started:
            raise CallerError("started twice")
        self._started = True
        own = len(self._order)
        effects: list[Effect] = [Send(self._partner, HELLO, encode_hello(own)), Progress("psi", 0, own, "ids")]
        for _ in range(WINDOW):
            effects += self._next_batch()
        return effects

    def awaits(self) -> Sequence[Awaited]:
        """First the partner's hello, then its batches of either kind until both sides are through."""
        if not self._started or self._finished:
            return ()
        return (Awaited(self._partner, HELLO if self._partner_count is None else POINTS),)

    def receive(self, sender: PartyName, topic: str, payload: memoryview) -> Sequence[Effect]:
        """Take one message. Raises ProtocolViolation for a bad one."""
        require_turn(self.awaits(), sender, topic)
        if topic == HELLO:
            self._partner_count = decode_hello(payload, max_count=self._max_ids)
            return ()
        batch = decode_batch(payload)
        return self._masked(batch) if batch.kind is BatchKind.MASKED else self._dual(batch)

    def _masked(self, batch: Batch) -> Sequence[Effect]:
        """Round 1, theirs: mask the partner's points once more and give them back in the order they came."""
        self._require_size(batch, len(self._partner_dual), self._partner_count or 0)
        twice = self._mask(self._secret, batch.points)
        if has_zero(twice):
            raise ProtocolViolation("batch with a point of low order")
        if len(equal_points(twice)[0]):  # of two batches: at the end
            raise ProtocolViolation("the partner sent a point twice")
        self._partner_dual.append(twice)
        answer = Send(self._partner, POINTS, encode_batch(Batch(BatchKind.DUAL, batch.index, twice)))
        return [answer, *self._finish_if_done()]

    def _dual(self, batch: Batch) -> Sequence[Effect]:
        """Round 2: own points come back, masked by both; each answer lets the next own batch go."""
        own = len(self._order)
        if len(self._own_dual) >= self._sent_batches:
            raise ProtocolViolation("answer to a batch that was not sent")
        self._require_size(batch, len(self._own_dual), own)
        self._own_dual.append(batch.points)
        done = Progress("psi", min(len(self._own_dual) * BATCH_IDS, own), own, "ids")
        return [*self._next_batch(), done, *self._finish_if_done()]

    def _require_size(self, batch: Batch, expected_index: int, count: int) -> None:
        """Batches come in order, all whole but the last."""
        left = count - expected_index * BATCH_IDS
        if batch.index != expected_index or len(batch.points) != POINT_BYTES * min(BATCH_IDS, left):
            raise ProtocolViolation(f"batch {batch.index} of {batch.kind.name.lower()} points is not the one expected")

    def _next_batch(self) -> Sequence[Effect]:
        rows = self._order[self._sent_batches * BATCH_IDS : (self._sent_batches + 1) * BATCH_IDS]
        if not len(rows):
            return ()
        masked = self._mask(self._secret, self._points[rows].tobytes())
        batch = Batch(BatchKind.MASKED, self._sent_batches, masked)
        self._sent_batches += 1
        return (Send(self._partner, POINTS, encode_batch(batch)),)

    def _finish_if_done(self) -> Sequence[Effect]:
        own, theirs = len(self._order), self._partner_count or 0
        if len(self._own_dual) * BATCH_IDS < own or len(self._partner_dual) * BATCH_IDS < theirs:
            return ()
        points = b"".join((*self._own_dual, *self._partner_dual))
        before, after = equal_points(points)
        if (after < own).any():
            raise ProtocolViolation("the partner answered two points with the same")
        if (before >= own).any():
            raise ProtocolViolation("the partner sent a point twice")
        common = np.frombuffer(points, np.uint8).reshape(-1, POINT_BYTES)[before]
        self._finished = True
        self._secret = b""
        return (Finish(PsiResult(self._order[before], theirs, hashlib.sha256(common.tobytes()).digest())),)
