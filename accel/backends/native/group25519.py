"""Hashing to curve25519 and edwards25519, and ristretto255, on one native core."""

import numpy as np

from accel import _native
from accel.backends.native.hashing import expand
from accel.kernels import POINT_BYTES, BadInput, Texts, check_bytes, check_threads

_FIELD_BYTES = 48
_WIDE_BYTES = 64


class NativeGroup25519:
    """See accel.kernels.Group25519 for the contract."""

    def __init__(self, core: str, *, threads: int = 1) -> None:
        self.name = core
        self._threads = check_threads(threads)

    def __repr__(self) -> str:
        return f"NativeGroup25519({self.name})"

    def to_curve25519(self, texts: Texts, tag: bytes, *, uniform: bool = True) -> bytes:
        return self._hash(texts, tag, uniform=uniform, edwards=False)

    def to_edwards25519(self, texts: Texts, tag: bytes, *, uniform: bool = True) -> bytes:
        return self._hash(texts, tag, uniform=uniform, edwards=True)

    def to_ristretto(self, texts: Texts, tag: bytes) -> bytes:
        return self.derive(expand("sha512", texts, tag, _WIDE_BYTES, threads=self._threads).tobytes())

    def derive(self, uniform: bytes) -> bytes:
        check_bytes(uniform)
        if len(uniform) % _WIDE_BYTES:
            raise BadInput("an element is derived from 64 bytes")
        out = bytearray(len(uniform) // 2)
        _native.ristretto_derive(self.name, out, uniform, self._threads)
        return bytes(out)

    def check(self, elements: bytes) -> None:
        check_bytes(elements)
        if len(elements) % POINT_BYTES:
            raise BadInput("an element is 32 bytes")
        if not _native.ristretto_valid(self.name, elements, self._threads):
            raise BadInput("not the encoding of an element")

    def mask_elements(self, secret: bytes, elements: bytes) -> bytes:
        check_bytes(secret)
        if len(secret) != POINT_BYTES:
            raise BadInput("a scalar is 32 bytes")
        return self._multiply(secret, elements, each=False)

    def exchange_elements(self, secrets: bytes, elements: bytes) -> bytes:
        check_bytes(secrets, elements)
        if len(secrets) != len(elements):
            raise BadInput("a scalar and an element are 32 bytes each")
        return self._multiply(secrets, elements, each=True)

    def _multiply(self, scalars: bytes, elements: bytes, *, each: bool) -> bytes:
        # Before the work, because the contract says so; a decoding costs a tenth of a multiplication.
        self.check(elements)
        out = bytearray(len(elements))
        _native.ristretto_multiply(self.name, out, scalars, elements, each, self._threads)
        return bytes(out)

    def _hash(self, texts: Texts, tag: bytes, *, uniform: bool, edwards: bool) -> bytes:
        each = 2 if uniform else 1
        wide = expand("sha512", texts, tag, each * _FIELD_BYTES, threads=self._threads).reshape(-1, _FIELD_BYTES)
        out = bytearray(POINT_BYTES * len(texts))
        elements = np.pad(wide, ((0, 0), (_WIDE_BYTES - _FIELD_BYTES, 0)))
        _native.group25519_hash(self.name, out, elements, edwards, self._threads)
        return bytes(out)
