"""The two computations of ECDH-PSI that touch every id, isolated so that `accel` can replace them as a whole.

Contract of a mask kernel `(secret, points) -> bytes`: `secret` is 32 bytes, clamped by the kernel as RFC 7748 says;
`points` is n * 32 bytes of u-coordinates; the answer is n * 32 bytes in the same order, canonical little-endian; a
point of low order gives 32 zero bytes and does not stop the batch. Time must not depend on the secret.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

POINT_BYTES: Final = 32


def x25519_mask(secret: bytes, points: bytes) -> bytes:
    """Multiply every point by the clamped secret, one OpenSSL call each: used until `accel` has a batch kernel."""
    if len(secret) != POINT_BYTES or len(points) % POINT_BYTES:
        raise ValueError("a secret is 32 bytes, points are a multiple of 32 bytes")
    exchange = X25519PrivateKey.from_private_bytes(secret).exchange
    load = X25519PublicKey.from_public_bytes
    out = bytearray()
    for at in range(0, len(points), POINT_BYTES):
        try:
            out += exchange(load(points[at : at + POINT_BYTES]))
        except ValueError:
            # OpenSSL refuses an all-zero result, which is what a low-order point gives.
            out += bytes(POINT_BYTES)
    return bytes(out)


def hash_to_points(ids: Iterable[bytes]) -> bytes:
    """SHA-256 of each id, taken as a u-coordinate (the method open implementations call CURVE_25519).

    Every 32-byte text is a valid u-coordinate of the curve or of its twist, and X25519 is secure on both (RFC 7748
    section 7), so no retry is needed and the time does not depend on the id.
    """
    return b"".join(hashlib.sha256(one).digest() for one in ids)
