"""Masks by the ciphers of OpenSSL and numpy, one pass for the stream and one for the sum."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from accel.kernels import MASK_BITS, BadInput, Words, check_bytes, is_array

_LONGEST: Final = {"aes128ctr": 1 << 62, "chacha20": 64 << 32}
"""Bytes of a stream."""


@dataclass(frozen=True, slots=True, repr=False)
class Stream:
    """Where a key stream begins: key, nonce, and the byte to start from, which is a multiple of an element's size."""

    key: bytes
    nonce: bytes
    start: int
    size: int


class MaskContract:
    """What every backend checks before any work; `_run` is its own."""

    def __init__(self, cipher: str, name: str) -> None:
        if cipher not in _LONGEST:
            raise BadInput("masks come from aes128ctr or chacha20")
        self.cipher = cipher
        self.name = name
        self.key_bytes, self.nonce_bytes = (16, 16) if cipher == "aes128ctr" else (32, 12)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.cipher}, {self.name})"

    def expand(self, key: bytes, nonce: bytes, out: Words, *, bits: int, first: int = 0) -> Words:
        return self._checked("set", (key, nonce, bits, first), out, out)

    def add(
        self, key: bytes, nonce: bytes, values: Words, *, bits: int, first: int = 0, out: Words | None = None
    ) -> Words:
        return self._checked("add", (key, nonce, bits, first), values, out)

    def sub(
        self, key: bytes, nonce: bytes, values: Words, *, bits: int, first: int = 0, out: Words | None = None
    ) -> Words:
        return self._checked("sub", (key, nonce, bits, first), values, out)

    def xor(
        self, key: bytes, nonce: bytes, values: Words, *, bits: int, first: int = 0, out: Words | None = None
    ) -> Words:
        return self._checked("xor", (key, nonce, bits, first), values, out)

    def _checked(
        self, operation: str, stream: tuple[bytes, bytes, int, int], values: Words, out: Words | None
    ) -> Words:
        key, nonce, bits, first = stream
        check_bytes(key, nonce)
        if len(key) != self.key_bytes or len(nonce) != self.nonce_bytes:
            raise BadInput(f"{self.cipher} takes {self.key_bytes} bytes of key and {self.nonce_bytes} of nonce")
        if bits not in MASK_BITS or not is_array(values, np.uint32 if bits == 32 else np.uint64):
            raise BadInput("elements of 32 bits are uint32, of 64 and 128 bits uint64")
        if bits == 128 and (values.ndim < 1 or values.shape[-1] != 2):
            raise BadInput("elements of 128 bits have a last axis of two words")
        size = bits // 8
        if not isinstance(first, int) or first < 0 or first * size + values.nbytes > _LONGEST[self.cipher]:
            raise BadInput("outside the cipher's stream")
        if out is None:
            out = np.empty(values.shape, values.dtype)
        elif not is_array(out, values.dtype.type) or out.shape != values.shape or not out.flags.c_contiguous:
            raise BadInput("out is a C-contiguous array of the shape and dtype of the values")
        elif not out.flags.writeable:
            raise BadInput("out may not be written")
        elif np.may_share_memory(out, values) and not _in_place(values, out):
            raise BadInput("out overlaps the values")
        self._run(operation, Stream(key, nonce, first * size, size), np.ascontiguousarray(values), out)
        return out

    def _run(self, operation: str, stream: Stream, values: Words, out: Words) -> None:
        """Out = values operation stream."""
        raise NotImplementedError


def _in_place(values: Words, out: Words) -> bool:
    """Whether two contiguous arrays of one shape are the same memory, perhaps as two views of it."""
    return values.flags.c_contiguous and values.ctypes.data == out.ctypes.data


class OpensslMasks(MaskContract):
    """See accel.kernels.Masks for the contract."""

    def __init__(self, cipher: str, *, threads: int = 1) -> None:
        del threads
        super().__init__(cipher, "reference")

    def _run(self, operation: str, stream: Stream, values: Words, out: Words) -> None:
        data = self._bytes(stream, values.nbytes)
        if operation == "set":
            out[...] = np.frombuffer(data, values.dtype.newbyteorder("<")).reshape(values.shape)
            return
        mask = np.frombuffer(data, values.dtype.newbyteorder("<")).astype(values.dtype).reshape(values.shape)
        if operation == "xor":
            np.bitwise_xor(values, mask, out=out)
        elif stream.size < 16:
            (np.add if operation == "add" else np.subtract)(values, mask, out=out)
        elif operation == "add":
            low = values[..., 0] + mask[..., 0]
            out[..., 1] = values[..., 1] + mask[..., 1] + (low < mask[..., 0])
            out[..., 0] = low
        else:
            borrow = values[..., 0] < mask[..., 0]
            out[..., 1] = values[..., 1] - mask[..., 1] - borrow
            out[..., 0] = values[..., 0] - mask[..., 0]

    def _bytes(self, stream: Stream, count: int) -> bytes:
        block = 16 if self.cipher == "aes128ctr" else 64
        number, skip = divmod(stream.start, block)
        cipher: Cipher[Any]
        if self.cipher == "aes128ctr":
            counter = (int.from_bytes(stream.nonce, "big") + number) % (1 << 128)
            cipher = Cipher(algorithms.AES(stream.key), modes.CTR(counter.to_bytes(16, "big")))
        elif not count:
            return b""  # the counter may stand at 2^32
        else:
            cipher = Cipher(algorithms.ChaCha20(stream.key, number.to_bytes(4, "little") + stream.nonce), mode=None)
        return cipher.encryptor().update(bytes(skip + count))[skip:]
