"""X25519 by OpenSSL, one call for each point."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from accel.kernels import POINT_BYTES, check_points


class OpensslX25519:
    """X25519 by the `cryptography` package; see accel.kernels.X25519 for the contract."""

    name = "reference"

    def __init__(self, *, threads: int = 1) -> None:
        del threads

    def __repr__(self) -> str:
        return "OpensslX25519()"

    def mask_points(self, secret: bytes, points: bytes) -> bytes:
        check_points(secret, points, shared=True)
        private = X25519PrivateKey.from_private_bytes(bytes(secret))
        return b"".join(_product(private, points[i : i + POINT_BYTES]) for i in range(0, len(points), POINT_BYTES))

    def exchange(self, secrets: bytes, points: bytes) -> bytes:
        check_points(secrets, points, shared=False)
        cuts = [slice(i, i + POINT_BYTES) for i in range(0, len(points), POINT_BYTES)]
        return b"".join(_product(X25519PrivateKey.from_private_bytes(bytes(secrets[cut])), points[cut]) for cut in cuts)


def _product(private: X25519PrivateKey, point: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(bytes(point)))
    except ValueError:
        # OpenSSL refuses an all-zero result, which is what a point of low order gives.
        return bytes(POINT_BYTES)
