"""X25519 batches on one native core, constant in time; see accel/notes/x25519.md."""

from accel import _native
from accel.kernels import POINT_BYTES, check_points, check_threads


class NativeX25519:
    """See accel.kernels.X25519 for the contract."""

    __slots__ = ("_threads", "name")

    def __init__(self, core: str, *, threads: int = 1) -> None:
        self.name = core
        self._threads = check_threads(threads)

    def __repr__(self) -> str:
        return f"NativeX25519({self.name})"

    def mask_points(self, secret: bytes, points: bytes) -> bytes:
        check_points(secret, points, shared=True)
        return self._run(secret, points)

    def exchange(self, secrets: bytes, points: bytes) -> bytes:
        check_points(secrets, points, shared=False)
        return self._run(secrets, points)

    def _run(self, scalars: bytes, points: bytes) -> bytes:
        # Lengths of 32 bytes mean one scalar for all, which one point cannot tell from one each.
        out = bytearray(len(points) // POINT_BYTES * POINT_BYTES)
        _native.x25519(self.name, out, scalars, points, self._threads)
        return bytes(out)
