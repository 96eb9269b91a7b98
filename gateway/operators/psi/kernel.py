"""How an id becomes a point, and which of many points are equal. Masking is a kernel that the party is given
(accel.kernels.X25519), and so is the digest.

An id's point is its SHA-256, taken as a u-coordinate (the method open implementations call CURVE_25519). Every 32-byte
text is a valid u-coordinate of the curve or of its twist, and X25519 is secure on both (RFC 7748 section 7), so no
retry is needed and the time does not depend on the id.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from accel.kernels import Texts
from gateway.errors import Kind, Refused

POINT_BYTES: Final = 32
MAX_IDS: Final = 1 << 26
Indices = NDArray[np.int64]

_SPACE: Final = np.isin(np.arange(256), list(b" \t\n\r\x0b\x0c"))
"""What bytes.strip removes."""


def equal_points(points: bytes) -> tuple[Indices, Indices]:
    """Places of equal points (before, after): all neighbours, once the points are in ascending order of their bytes.

    Of a point that is there k times there are k - 1 pairs, each of two occurrences that follow each other.
    """
    words = np.frombuffer(points, ">u8").reshape(-1, POINT_BYTES // 8)
    first = words[:, 0].astype(np.uint64)
    order = np.argsort(first)
    same = np.flatnonzero(first[order[1:]] == first[order[:-1]])
    if (np.diff(same) == 1).any() or (words[order[same]] != words[order[same + 1]]).any():
        # Three alike, or two of which only the first eight bytes are: rare, or somebody made them so.
        order = np.lexsort(words.T[::-1])
        same = np.flatnonzero((words[order[1:]] == words[order[:-1]]).all(axis=1))
    one, other = order[same], order[same + 1]
    return np.minimum(one, other), np.maximum(one, other)


def normalised(ids: Texts, *, max_ids: int = MAX_IDS) -> Texts:
    """Ids without white space around them. Raises Refused (MALFORMED) for an empty id, none at all, or too many."""
    if not 1 <= len(ids) <= max_ids:
        raise Refused(f"{len(ids)} ids, allowed are 1 to {max_ids}", kind=Kind.MALFORMED)
    content, starts, ends = np.frombuffer(ids.data, np.uint8), ids.offsets[:-1], ids.offsets[1:]
    some = starts < ends
    if (_SPACE[content[starts[some]]] | _SPACE[content[ends[some] - 1]]).any():
        ids = Texts.of([ids[row].strip() for row in range(len(ids))])
        some = np.diff(ids.offsets) > 0
    if not some.all():
        raise Refused(f"row {int(some.argmin()) + 1} has an empty id", kind=Kind.MALFORMED)
    return ids


def require_distinct(digests: bytes) -> None:
    """Raise Refused (CONFLICT) for two rows with one id; it names the rows, never the id."""
    before, after = equal_points(digests)
    if len(after):
        at = int(after.argmin())
        words = f"rows {int(before[at]) + 1} and {int(after[at]) + 1} have the same id"
        raise Refused(words, kind=Kind.CONFLICT)
