"""X25519 batches on a CUDA device, constant in time; see accel/notes/x25519.md."""

import numpy as np

from accel.backends.cuda.device import Device, default
from accel.kernels import POINT_BYTES, check_points, check_threads


class CudaX25519:
    """See accel.kernels.X25519 for the contract."""

    name = "cuda"

    def __init__(self, *, threads: int = 1, device: Device | None = None) -> None:
        check_threads(threads)
        self._device = device or default()

    def __repr__(self) -> str:
        return "CudaX25519()"

    def mask_points(self, secret: bytes, points: bytes) -> bytes:
        check_points(secret, points, shared=True)
        return self._run(secret, 0, points)

    def exchange(self, secrets: bytes, points: bytes) -> bytes:
        check_points(secrets, points, shared=False)
        return self._run(secrets, POINT_BYTES, points)

    def _run(self, scalars: bytes, step: int, points: bytes) -> bytes:
        device, count = self._device, len(points) // POINT_BYTES
        secret, given, out = device.octets(scalars), device.octets(points), device.empty((len(points),), np.uint8)
        device.each("x25519", "x25519", count, out, secret, np.uint64(step), given, np.uint64(count))
        done = device.host(out).tobytes()
        device.wipe(secret)
        return done
