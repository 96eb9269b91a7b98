"""Digests of batches on one native core, and the expansion that hashing to a curve begins with."""

import numpy as np
from numpy.typing import NDArray

from accel import _native
from accel.kernels import DIGEST_BYTES, Texts, check_tag, check_texts, check_threads


def expand(algorithm: str, texts: Texts, tag: bytes, length: int, *, threads: int) -> NDArray[np.uint8]:
    """expand_message_xmd of RFC 9380 section 5.3.1, `length` bytes a text."""
    check_texts(texts)
    check_tag(tag)
    out = np.empty(length * len(texts), np.uint8)
    _native.expand(algorithm, out, length, tag, texts.data, np.ascontiguousarray(texts.offsets), threads)
    return out


class NativeDigest:
    """See accel.kernels.Digest for the contract."""

    def __init__(self, core: str, algorithm: str, *, threads: int = 1) -> None:
        self.name = core
        self.algorithm = algorithm
        self._threads = check_threads(threads)

    def __repr__(self) -> str:
        return f"NativeDigest({self.algorithm}, {self.name})"

    def digest(self, texts: Texts) -> bytes:
        check_texts(texts)
        out = bytearray(DIGEST_BYTES * len(texts))
        offsets = np.ascontiguousarray(texts.offsets)
        _native.digest(self.name, self.algorithm, out, texts.data, offsets, self._threads)
        return bytes(out)
