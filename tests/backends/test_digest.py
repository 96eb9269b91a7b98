"""SHA-256 and SM3 over every backend, as OpenSSL has them."""

import os
import random

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.kernels import BadInput, Digest, Texts
from accel.probe import probe
from accel.registry import BACKENDS

ALGORITHMS = {"sha256": hashes.SHA256(), "sm3": hashes.SM3()}
KERNELS = [
    pytest.param(backend.make, id=f"{algorithm}-{backend.name}")
    for algorithm in ALGORITHMS
    for backend in BACKENDS[f"hash.{algorithm}"]
    if backend.refuses(probe()) is None
]


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Digest:
    made: Digest = request.param()
    return made


def openssl(algorithm: str, texts: list[bytes]) -> bytes:
    out = []
    for text in texts:
        one = hashes.Hash(ALGORITHMS[algorithm])
        one.update(text)
        out.append(one.finalize())
    return b"".join(out)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 33, 100])
def test_every_length_around_a_block(kernel: Digest, count: int) -> None:
    lengths = [0, 1, 16, 55, 56, 57, 63, 64, 65, 118, 119, 120, 127, 128, 129, 300]
    texts = [os.urandom(random.choice(lengths)) for _ in range(count)]
    assert kernel.digest(Texts.of(texts)) == openssl(kernel.algorithm, texts)


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.binary(max_size=200), max_size=40))
def test_any_texts(texts: list[bytes]) -> None:
    for param in KERNELS:
        kernel = param.values[0]()
        assert kernel.digest(Texts.of(texts)) == openssl(kernel.algorithm, texts)


def test_a_long_text_beside_short_ones(kernel: Digest) -> None:
    texts = [b"", os.urandom(100_000), b"abc", os.urandom(64)]
    assert kernel.digest(Texts.of(texts)) == openssl(kernel.algorithm, texts)


def test_offsets_that_lie_are_refused() -> None:
    data = b"abcdef"
    for offsets in ([0, 7], [1, 6], [0, 4, 2, 6], [0, 5], []):
        with pytest.raises(BadInput):
            Texts(data, np.array(offsets, np.int64))
    with pytest.raises(BadInput):
        Texts(data, np.array([0, 6], np.int32))
    with pytest.raises(BadInput):
        Texts(data, np.array([[0, 6]], np.int64))
