"""Digests one by one, and expand_message_xmd of RFC 9380 section 5.3.1."""

import hashlib
from typing import Final

from cryptography.hazmat.primitives import hashes

from accel.kernels import BadInput, Texts, check_tag, check_texts

BLOCK_BYTES: Final = {"sha256": 64, "sm3": 64, "sha512": 128}


def digest(algorithm: str, text: bytes) -> bytes:
    """One text; the algorithm is one of BLOCK_BYTES."""
    if algorithm == "sm3":
        # hashlib has it only where its OpenSSL does
        sm3 = hashes.Hash(hashes.SM3())
        sm3.update(text)
        return sm3.finalize()
    return hashlib.new(algorithm, text).digest()


def expand(algorithm: str, text: bytes, tag: bytes, length: int) -> bytes:
    """`length` bytes, at most 255 digests."""
    ending = tag + bytes([len(tag)])
    start = bytes(BLOCK_BYTES[algorithm]) + text + length.to_bytes(2, "big") + b"\0" + ending
    first = digest(algorithm, start)
    out, last = b"", bytes(len(first))
    number = 0
    while len(out) < length:
        number += 1
        mixed = bytes(a ^ b for a, b in zip(first, last, strict=True))
        last = digest(algorithm, mixed + bytes([number]) + ending)
        out += last
    return out[:length]


def expand_all(algorithm: str, texts: Texts, tag: bytes, length: int) -> list[bytes]:
    """The expansion of every text, after the checks of accel.kernels."""
    if algorithm not in BLOCK_BYTES:
        raise BadInput("a digest that is not known here")
    check_texts(texts)
    check_tag(tag)
    return [expand(algorithm, texts[i], tag, length) for i in range(len(texts))]


class HashlibDigest:
    """See accel.kernels.Digest for the contract."""

    name = "reference"

    def __init__(self, algorithm: str, *, threads: int = 1) -> None:
        del threads
        self.algorithm = algorithm

    def __repr__(self) -> str:
        return f"HashlibDigest({self.algorithm})"

    def digest(self, texts: Texts) -> bytes:
        check_texts(texts)
        return b"".join(digest(self.algorithm, texts[i]) for i in range(len(texts)))
