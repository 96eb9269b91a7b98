"""Dense ring products on a CUDA device; the rest is numpy's. See accel/notes/cuda.md."""

from typing import Final

import numpy as np

from accel.backends.cuda.device import Device, default
from accel.backends.reference import NumpyRingMatrices
from accel.kernels import Uints, check_threads

_TILE: Final = 16
_BLOCKS: Final = 512
"""Fewer tiles than that leave a device idle: then the inner places are cut into parts, too."""
_SHORTEST: Final = 4 * _TILE


class CudaRingMatrices(NumpyRingMatrices):
    """See accel.kernels.RingMatrices for the contract. The operands go to the device and the product comes back."""

    def __init__(self, *, threads: int = 1, device: Device | None = None) -> None:
        super().__init__()
        check_threads(threads)
        self.name = "cuda"
        self._device = device or default()

    def _multiply(self, a: Uints, b: Uints, transposed: bool, out: Uints) -> None:
        if not (a.size and b.size):
            return
        device, ring = self._device, f"ring{64 * (a.ndim - 1)}"
        inner, (rows, cols) = b.shape[0], out.shape[:2]
        tiles = -(-rows // _TILE) * -(-cols // _TILE)
        parts = max(1, min(_BLOCKS // tiles, inner // _SHORTEST))
        cut = -(-inner // parts)
        left, right, onto = device.array(a), device.array(b), device.array(out)
        sums = device.empty((parts, *out.shape))
        shape = [np.uint64(v) for v in (rows, inner, cols, cut)]
        device.launch(
            "rings",
            f"{ring}_tiles",
            (tiles, 1, parts),
            (_TILE, _TILE),
            (sums, left, right, *shape, np.uint32(transposed)),
        )
        elements = rows * cols
        device.each("rings", f"{ring}_parts", elements, onto, sums, np.uint64(parts), np.uint64(elements))
        out[...] = device.host(onto)
