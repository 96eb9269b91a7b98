"""Hashing to a curve by trying: the strategies TRY_AND_REHASH and TRY_AND_INCREMENT of the open ECDH-PSI protocol.

Not constant in time, and it cannot be made so at a bearable price: whoever measures how long a batch takes, or how many
texts are left in each round, learns how many texts needed how many tries - not which ones, because a round works on all
that are left alike, by kernels whose time does not depend on their contents. In a batch of one that is a fact about the
text: about one bit. `PrimeCurve.from_hash` has no such leak and is to be preferred where both sides can choose.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from accel.kernels import DIGEST_BYTES, BadInput, Digest, Ints, PrimeCurve, Texts

MOST_TRIES: Final = 100
"""A text fails all of them with a probability of 2^-100."""

_Rows = NDArray[np.uint8]


def rehashed_points(curve: PrimeCurve, digest: Digest, texts: Texts) -> bytes:
    """The x is digest(text) modulo p, big-endian; while it has no point the digest is taken of the digest. 64 bytes a
    text, the even y. Raises BadInput if a text fails MOST_TRIES times.
    """

    def again(digests: _Rows, points: _Rows) -> _Rows:
        del points
        lengths = np.arange(len(digests) + 1, dtype=np.int64) * DIGEST_BYTES
        return _rows(digest.digest(Texts(digests.tobytes(), lengths)), DIGEST_BYTES)

    return _try(curve, digest, texts, again)


def incremented_points(curve: PrimeCurve, digest: Digest, texts: Texts) -> bytes:
    """The x is (digest(text) + i) modulo p for i = 0, 1, ... until x has a point; else as rehashed_points."""

    def again(digests: _Rows, points: _Rows) -> _Rows:
        del digests
        return _plus_one(points[:, :DIGEST_BYTES])

    return _try(curve, digest, texts, again)


def _try(curve: PrimeCurve, digest: Digest, texts: Texts, again: Callable[[_Rows, _Rows], _Rows]) -> bytes:
    out = np.empty((len(texts), 2 * DIGEST_BYTES), np.uint8)
    left: Ints = np.arange(len(texts))
    candidates = _rows(digest.digest(texts), DIGEST_BYTES)
    for _ in range(MOST_TRIES):
        if not len(left):
            return out.tobytes()
        data, found = curve.lift(candidates.tobytes())
        points = _rows(data, 2 * DIGEST_BYTES)
        out[left[found]] = points[found]
        missing = ~found
        left = left[missing]
        candidates = again(candidates[missing], points[missing])
    if len(left):
        raise BadInput(f"a text has no point after {MOST_TRIES} tries")
    return out.tobytes()


def _rows(data: bytes, size: int) -> _Rows:
    return np.frombuffer(data, np.uint8).reshape(-1, size)


def _plus_one(numbers: _Rows) -> _Rows:
    """Big-endian numbers below 2^256 - 1, one added to each."""
    # A byte takes the carry if all bytes behind it are 255.
    full = np.logical_and.accumulate(numbers[:, ::-1] == 255, axis=1)
    carry = np.ones(numbers.shape, np.uint8)
    carry[:, 1:] = full[:, :-1]
    return (numbers[:, ::-1] + carry)[:, ::-1]
