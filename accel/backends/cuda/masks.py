"""AES-128-CTR over arrays on a CUDA device; see accel/notes/masks.md."""

from typing import Final

import numpy as np

from accel.backends.cuda.device import Device, default
from accel.backends.reference.masks import MaskContract, Stream
from accel.kernels import Words, check_threads

_OPERATIONS: Final = ("set", "add", "sub", "xor")
_BLOCKS_A_THREAD: Final = 4


class CudaMasks(MaskContract):
    """See accel.kernels.Masks for the contract. The array goes to the device and back."""

    def __init__(self, *, threads: int = 1, device: Device | None = None) -> None:
        super().__init__("aes128ctr", "cuda")
        check_threads(threads)
        self._device = device or default()

    def _run(self, operation: str, stream: Stream, values: Words, out: Words) -> None:
        device, size = self._device, values.nbytes
        key, rounds = device.octets(stream.key), device.empty((11, 8))
        device.each("aes", "aes_round_keys", 1, rounds, key)
        array = device.array(values)
        blocks = (stream.start + size + 15) // 16 - stream.start // 16 if size else 0
        high, low = (np.uint64(int.from_bytes(stream.nonce[i : i + 8], "big")) for i in (0, 8))
        device.each(
            "aes", "aes_ctr", -(-blocks // _BLOCKS_A_THREAD), array, array, np.uint64(size), np.uint32(stream.size),
            np.uint32(_OPERATIONS.index(operation)), np.uint64(stream.start), rounds, high, low,
        )  # fmt: skip
        out[...] = device.host(array)
        device.wipe(key, rounds)
