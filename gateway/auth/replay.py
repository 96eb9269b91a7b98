"""Clock window and nonce memory (M-012, M-013), in memory and given `now`.

A timestamp older than the start of this process is refused, because the nonces that went with it are forgotten. What
that leaves open: a partner whose clock runs ahead of ours may have requests from before our restart repeated for as
long as its lead. Nonces that outlive a restart would close it.
"""

from collections import Counter, OrderedDict

from gateway.errors import Kind, Refused


class ReplayGuard:
    """Remembers nonces per signer for twice the window; full means refuse, never forget.

    window_ms: how far a timestamp may be off, either way. capacity: nonces altogether; one signer gets at most a
    quarter, so that no partner can lock the others out. not_before: earliest timestamp, ms.
    """

    def __init__(self, *, window_ms: int, capacity: int, not_before: int = 0) -> None:
        self._window = window_ms
        self._capacity = capacity
        self._share = max(1, capacity // 4)
        self._not_before = not_before
        self._seen: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._seen)

    def check_time(self, timestamp: int, *, now: int) -> None:
        """Raises Refused(STALE) where `timestamp` (ms) is outside the window or from before our start."""
        if abs(now - timestamp) > self._window:
            raise Refused("timestamp outside the window", kind=Kind.STALE, detail="")
        if timestamp < self._not_before:
            raise Refused("timestamp from before this gateway's start", kind=Kind.STALE, detail="")

    def _forget(self, now: int) -> None:
        while self._seen:
            (signer, nonce), until = next(iter(self._seen.items()))
            if until > now:
                return
            del self._seen[signer, nonce]
            self._count[signer] -= 1
            if not self._count[signer]:
                del self._count[signer]

    def knows(self, signer: str, nonce: str, *, now: int) -> bool:
        """Whether the nonce is remembered; remembers nothing itself."""
        self._forget(now)
        return (signer, nonce) in self._seen

    def remember(self, signer: str, nonce: str, *, now: int) -> None:
        """Call once the signature is verified. Raises Refused(REPLAYED), or Refused(TOO_MANY) when memory is full."""
        self._forget(now)
        if (signer, nonce) in self._seen:
            raise Refused("nonce seen before", kind=Kind.REPLAYED, detail="")
        if len(self._seen) >= self._capacity or self._count[signer] >= self._share:
            raise Refused("nonce memory is full", kind=Kind.TOO_MANY, detail="")
        self._seen[signer, nonce] = now + 2 * self._window
        self._count[signer] += 1
