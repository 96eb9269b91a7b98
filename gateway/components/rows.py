"""Which rows go where: the common train/test split, and the tag that shows whether two tables still belong together.

The split is defined by hashes alone, so any vendor can repeat it in any language:

    key(i) = SHA-256("interconn.split.1" || 0x00 || SHA-256(seed as UTF-8) || i as 8 bytes, little-endian)
    test = the k rows with the smallest keys, k = floor(rows * fraction + 1/2), at least 1 and at most rows - 1

Both parts keep the order of the input.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

_DOMAIN: Final = b"interconn.split.1\x00"


def choose_test_rows(count: int, fraction: float, seed: str) -> list[int]:
    """Ascending indices of the test rows among `count` rows. Raises ValueError below two rows."""
    if count < 2:
        raise ValueError(f"{count} rows cannot be split in two")
    size = min(max(math.floor(count * fraction + 0.5), 1), count - 1)
    start = hashlib.sha256(_DOMAIN + hashlib.sha256(seed.encode()).digest())

    def key(row: int) -> bytes:
        hasher = start.copy()
        hasher.update(row.to_bytes(8, "little"))
        return hasher.digest()

    return sorted(sorted(range(count), key=key)[:size])


def alignment(metadata: Mapping[str, Any]) -> str:
    """Tag of a table's rows: equal at two parties when their rows describe the same individuals in the same order.

    Begun by `psi` from what both parties saw; "" for a table that never went through one.
    """
    tag = metadata.get("alignment", "")
    return tag if isinstance(tag, str) and len(tag) <= 64 else ""


def derived_alignment(tag: str, *steps: object) -> str:
    """Tag of rows chosen from others: depends on their tag and on everything that decided the choice."""
    text = "\x00".join([tag, *(str(step) for step in steps)])
    return hashlib.sha256(text.encode()).hexdigest()
