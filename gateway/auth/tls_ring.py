"""Our TLS certificates: those of the configuration and those that followed them, and which is shown to whom.

A listener shows one certificate to everybody, for it does not know yet who calls. A call shows a partner the newest one
under the CA that the partner has pinned for us, so that our CA can change with one partner after another.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a certificate (leaf, then CA) and of its key. ca: SHA-256 of the CA's DER, hex."""

    ca: str
    chain: Path
    key: Path


class TlsRing:
    """Replaced as a whole when something changes; safe to read from any thread."""

    def __init__(self, base: TlsFiles) -> None:
        self._base = base
        self._newest = {base.ca: base}
        self._shown = base

    @property
    def base(self) -> TlsFiles:
        """Those of the configuration."""
        return self._base

    @property
    def shown(self) -> TlsFiles:
        """What our listener shows."""
        return self._shown

    def of(self, ca: str) -> TlsFiles:
        """What a partner is shown that knows us by this CA; for one of which there is none, what the listener shows."""
        return self._newest.get(ca, self._shown)

    def replace(self, followed: list[TlsFiles], *, shown: TlsFiles | None) -> None:
        """What followed the configuration's, oldest first, and which of them the listener shows (None: the first)."""
        self._newest = {each.ca: each for each in (self._base, *followed)}
        self._shown = shown or self._base
