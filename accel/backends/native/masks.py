"""Masks in C; see accel/notes/masks.md."""

from typing import Final

from accel import _native
from accel.backends.reference.masks import MaskContract, Stream
from accel.kernels import Words, check_threads

_CIPHERS: Final = ("aes128ctr", "chacha20")
_OPERATIONS: Final = ("set", "add", "sub", "xor")


class NativeMasks(MaskContract):
    """See accel.kernels.Masks for the contract."""

    def __init__(self, core: str, cipher: str, *, threads: int = 1) -> None:
        super().__init__(cipher, core)
        self._threads = check_threads(threads)

    def _run(self, operation: str, stream: Stream, values: Words, out: Words) -> None:
        _native.mask(
            self.name, _CIPHERS.index(self.cipher), _OPERATIONS.index(operation), stream.size, stream.key, stream.nonce,
            stream.start, out, values, self._threads,
        )  # fmt: skip
