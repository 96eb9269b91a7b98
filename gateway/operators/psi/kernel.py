"""How an id becomes a point. The masking of points is a kernel that the party is given (accel.kernels.X25519)."""

import hashlib
from collections.abc import Iterable
from typing import Final

POINT_BYTES: Final = 32


def hash_to_points(ids: Iterable[bytes]) -> bytes:
    """SHA-256 of each id, taken as a u-coordinate (the method open implementations call CURVE_25519).

    Every 32-byte text is a valid u-coordinate of the curve or of its twist, and X25519 is secure on both (RFC 7748
    section 7), so no retry is needed and the time does not depend on the id.
    """
    return b"".join(hashlib.sha256(one).digest() for one in ids)
