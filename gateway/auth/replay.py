"""Clock window and nonce memory (M-012, M-013), given `now`. What of it outlives a restart is others' (ports.NonceLog).

Where nothing does, `not_before` refuses every timestamp from before the start, because the nonces that went with it are
forgotten; a partner whose clock runs ahead of ours could then still have requests repeated for as long as its lead.
"""

import hashlib
from collections import Counter
from typing import Final

from gateway.errors import Kind, Refused
from gateway.model import SeenNonce

_BUCKETS: Final = 64
"""Per window. A lookup asks twice as many sets; forgetting drops a whole one."""


def _hash(text: bytes, size: int) -> bytes:
    return hashlib.blake2b(text, digest_size=size).digest()


def _digest(signer: str, nonce: str) -> bytes:
    who = signer.encode()
    return _hash(len(who).to_bytes(4, "big") + who + nonce.encode(), 16)


class ReplayGuard:
    """Remembers nonces per signer for as long as their timestamp would be taken; full means refuse, never forget.

    window_ms: how far a timestamp may be off, either way. capacity: nonces altogether (some 100 bytes each); one signer
    gets at most a quarter, so that no partner can lock the others out. not_before: earliest timestamp, ms.
    """

    def __init__(self, *, window_ms: int, capacity: int, not_before: int = 0) -> None:
        self._window = window_ms
        self._width = max(1, window_ms // _BUCKETS)
        self._capacity = capacity
        self._share = max(1, capacity // 4)
        self._not_before = not_before
        self._buckets: dict[int, tuple[set[bytes], Counter[bytes]]] = {}
        self._count: Counter[bytes] = Counter()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def check_time(self, timestamp: int, *, now: int) -> None:
        """Raises Refused(STALE) where `timestamp` (ms) is outside the window or from before our start."""
        if abs(now - timestamp) > self._window:
            off, side = abs(now - timestamp) // 1000, "behind" if timestamp < now else "ahead of"
            allowed = f"{self._window // 1000} s are allowed (or the call was held up)"
            raise Refused(f"the clocks differ: yours is {off} s {side} ours, {allowed}", kind=Kind.STALE)
        if timestamp < self._not_before:
            raise Refused("timestamp from before this gateway's start", kind=Kind.STALE, detail="")

    def _forget(self, now: int) -> None:
        for number in [each for each in self._buckets if each * self._width <= now]:
            digests, signers = self._buckets.pop(number)
            self._size -= len(digests)
            self._count -= signers  # keeps only what is above zero

    def knows(self, signer: str, nonce: str, *, now: int) -> bool:
        """Whether the nonce is remembered; remembers nothing itself."""
        self._forget(now)
        return self._holds(_digest(signer, nonce))

    def _holds(self, digest: bytes) -> bool:
        return any(digest in digests for digests, _ in self._buckets.values())

    def remember(self, signer: str, nonce: str, *, now: int, timestamp: int | None = None) -> SeenNonce:
        """Call once the signature is verified. timestamp: the signed one, ms, within the window; else the latest.

        Raises Refused(REPLAYED), or Refused(TOO_MANY) when memory is full.
        """
        self._forget(now)
        digest, mark = _digest(signer, nonce), _hash(signer.encode(), 8)
        if self._holds(digest):
            raise Refused("nonce seen before", kind=Kind.REPLAYED, detail="")
        if self._size >= self._capacity or self._count[mark] >= self._share:
            raise Refused("nonce memory is full", kind=Kind.TOO_MANY, detail="")
        until = now + 2 * self._window if timestamp is None else timestamp + self._window + 1
        seen = SeenNonce(digest, mark, until)
        self._put(seen)
        return seen

    def recall(self, seen: SeenNonce, *, now: int) -> None:
        """Remember what an earlier process remembered; also beyond capacity, for it must not be forgotten."""
        if seen.until > now and not self._holds(seen.digest):
            self._put(seen)

    def _put(self, seen: SeenNonce) -> None:
        digests, signers = self._buckets.setdefault(-(-seen.until // self._width), (set(), Counter()))
        digests.add(seen.digest)
        signers[seen.signer] += 1
        self._count[seen.signer] += 1
        self._size += 1
