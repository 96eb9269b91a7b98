"""Masks over every backend: the standards' vectors, OpenSSL on sizes around the lanes, offsets, aliasing, refusals."""

import itertools
import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.kernels import BadInput, Masks
from accel.probe import probe
from accel.registry import BACKENDS

KERNELS = [
    pytest.param(backend.make, id=f"{kernel}-{backend.name}")
    for kernel in ("mask.aes128ctr", "mask.chacha20")
    for backend in BACKENDS[kernel]
    if backend.refuses(probe()) is None
]
MADE = [parameter.values[0]() for parameter in KERNELS]
# Blocks of 16 and 64 bytes, eight and sixteen lanes of them, eight registers of four blocks.
SIZES = [0, 1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 127, 128, 129, 255, 256, 257, 300]


@pytest.fixture(params=KERNELS)
def masks(request: pytest.FixtureRequest) -> Masks:
    made: Masks = request.param()
    return made


def stream(masks: Masks, key: bytes, nonce: bytes, size: int, block: int = 0) -> bytes:
    if masks.cipher == "aes128ctr":
        counter = (int.from_bytes(nonce, "big") + block) % 2**128
        return Cipher(algorithms.AES(key), modes.CTR(counter.to_bytes(16, "big"))).encryptor().update(bytes(size))
    cipher = Cipher(algorithms.ChaCha20(key, block.to_bytes(4, "little") + nonce), mode=None)
    return cipher.encryptor().update(bytes(size))


def keys(masks: Masks) -> tuple[bytes, bytes]:
    return os.urandom(masks.key_bytes), os.urandom(masks.nonce_bytes)


def empty(count: int, bits: int) -> np.ndarray:
    return np.empty((count, 2) if bits == 128 else count, np.uint32 if bits == 32 else np.uint64)


def array(data: bytes, bits: int) -> np.ndarray:
    flat = np.frombuffer(data, np.uint32 if bits == 32 else np.uint64).copy()
    return flat.reshape(-1, 2) if bits == 128 else flat


def integers(values: np.ndarray, bits: int) -> list[int]:
    data, size = values.tobytes(), bits // 8
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


def test_the_standards_vectors(masks: Masks) -> None:
    if masks.cipher == "aes128ctr":  # SP 800-38A F.5.1
        key, nonce = "2b7e151628aed2a6abf7158809cf4f3c", "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
        text = (
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
            "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
        )
        wanted = (
            "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
            "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
        )
        first = 0
    else:  # RFC 8439 section 2.4.2, its counter starts with 1
        key, nonce = bytes(range(32)).hex(), "000000000000004a00000000"
        text = (
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen "
            b"would be it."
        )[:112].hex()
        wanted = (
            "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b357"
            "1639d624e65152ab8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736"
            "5af90bbf74a35be6b40b8eedf2785e42"
        )
        first = 16
    values = array(bytes.fromhex(text), 32)
    got = masks.xor(bytes.fromhex(key), bytes.fromhex(nonce), values, bits=32, first=first)
    assert got.tobytes().hex() == wanted


@pytest.mark.parametrize("bits", [32, 64, 128])
def test_every_size_and_operation(masks: Masks, bits: int) -> None:
    size, modulus = bits // 8, 1 << bits
    key, nonce = keys(masks)
    whole = stream(masks, key, nonce, size * 310)
    for count in SIZES:
        for first in (0, 1, 7):
            data = os.urandom(size * count) if count % 2 else b"\xff" * (size * count)
            values = array(data, bits)
            key_stream = array(whole[size * first : size * (first + count)], bits)
            pairs = list(zip(integers(values, bits), integers(key_stream, bits), strict=True))
            got = masks.expand(key, nonce, empty(count, bits), bits=bits, first=first)
            assert got.tobytes() == key_stream.tobytes()
            got = masks.add(key, nonce, values, bits=bits, first=first)
            assert integers(got, bits) == [(a + b) % modulus for a, b in pairs]
            got = masks.sub(key, nonce, values, bits=bits, first=first)
            assert integers(got, bits) == [(a - b) % modulus for a, b in pairs]
            got = masks.xor(key, nonce, values, bits=bits, first=first)
            assert integers(got, bits) == [a ^ b for a, b in pairs]
            assert values.tobytes() == data
            apart = empty(count, bits)
            assert masks.add(key, nonce, values, bits=bits, first=first, out=apart) is apart
            assert masks.add(key, nonce, values, bits=bits, first=first, out=values) is values
            assert values.tobytes() == apart.tobytes()
            masks.sub(key, nonce, values, bits=bits, first=first, out=values)
            assert values.tobytes() == data


@settings(max_examples=40, deadline=None)
@given(
    which=st.integers(0, len(MADE) - 1),
    bits=st.sampled_from([32, 64, 128]),
    cuts=st.lists(st.integers(0, 700), max_size=5),
)
def test_pieces_make_the_whole(which: int, bits: int, cuts: list[int]) -> None:
    masks, total = MADE[which], 700
    key, nonce = keys(masks)
    values = array(os.urandom(total * bits // 8), bits)
    wanted = masks.add(key, nonce, values, bits=bits)
    edges = sorted({0, total, *cuts})
    pieces = [masks.add(key, nonce, values[a:b], bits=bits, first=a) for a, b in itertools.pairwise(edges)]
    assert np.concatenate(pieces).tobytes() == wanted.tobytes()


def test_far_into_the_stream_and_over_the_counters_words(masks: Masks) -> None:
    key, nonce = keys(masks)
    if masks.cipher == "aes128ctr":
        for start in (bytes(8) + b"\xff" * 8, b"\xff" * 16, bytes(8) + b"\xff" * 7 + b"\xe3"):
            got = masks.expand(key, start, empty(700, 32), bits=32)
            assert got.tobytes() == stream(masks, key, start, 2800)
        block = 2**33 + 5
        got = masks.expand(key, nonce, empty(40, 128), bits=128, first=block)
        assert got.tobytes() == stream(masks, key, nonce, 640, block)
        return
    last = 2**32 - 3
    got = masks.expand(key, nonce, empty(48, 32), bits=32, first=16 * last)
    assert got.tobytes() == stream(masks, key, nonce, 192, last)
    with pytest.raises(BadInput):
        masks.expand(key, nonce, empty(49, 32), bits=32, first=16 * last)


def test_shapes_and_strides(masks: Masks) -> None:
    key, nonce = keys(masks)
    grid = np.arange(60, dtype=np.uint64).reshape(6, 10)
    flat = masks.add(key, nonce, grid.ravel(), bits=64)
    assert np.array_equal(masks.add(key, nonce, grid, bits=64), flat.reshape(6, 10))
    assert np.array_equal(
        masks.add(key, nonce, grid[:, ::2], bits=64), masks.add(key, nonce, grid[:, ::2].copy(), bits=64)
    )
    assert np.array_equal(masks.add(key, nonce, grid.reshape(6, 5, 2), bits=128).shape, (6, 5, 2))


def test_in_place_by_two_views_of_the_same_memory(masks: Masks) -> None:
    key, nonce, x = bytes(masks.key_bytes), bytes(masks.nonce_bytes), np.arange(16, dtype=np.uint32).reshape(4, 4)
    wanted = masks.add(key, nonce, x[1:], bits=32)
    masks.add(key, nonce, x[1:], bits=32, out=x[1:])
    assert x[1:].tolist() == wanted.tolist()
    assert x[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(BadInput, match="overlaps"):
        masks.add(key, nonce, x.T, bits=32, out=x)


def test_refusals(masks: Masks) -> None:
    key, nonce = keys(masks)
    x, y = np.zeros(8, np.uint32), np.zeros(8, np.uint64)
    readonly = np.zeros(8, np.uint32)
    readonly.flags.writeable = False
    tries = [
        lambda: masks.add(key[:-1], nonce, x, bits=32),
        lambda: masks.add(key, nonce + b"\0", x, bits=32),
        lambda: masks.add(key, nonce, x, bits=64),
        lambda: masks.add(key, nonce, y, bits=32),
        lambda: masks.add(key, nonce, y, bits=128),
        lambda: masks.add(key, nonce, y, bits=16),
        lambda: masks.add(key, nonce, x.astype(np.float32), bits=32),
        lambda: masks.add(key, nonce, x, bits=32, first=-1),
        lambda: masks.add(key, nonce, x, bits=32, first=1 << 62),
        lambda: masks.add(key, nonce, x, bits=32, out=np.zeros(7, np.uint32)),
        lambda: masks.add(key, nonce, x, bits=32, out=np.zeros(8, np.uint64)),
        lambda: masks.add(key, nonce, x, bits=32, out=np.zeros(16, np.uint32)[::2]),
        lambda: masks.add(key, nonce, x[:4], bits=32, out=x[2:6]),
        lambda: masks.add(key, nonce, x, bits=32, out=readonly),
    ]
    for number, attempt in enumerate(tries):
        with pytest.raises(BadInput):  # noqa: PT012  # the second statement tells which case
            attempt()
            pytest.fail(f"case {number} was accepted")
    assert not x.any()
    assert key.hex() not in repr(masks)
    with pytest.raises(BadInput):
        type(MADE[-1])("rot13")


def test_the_binding_checks_for_itself() -> None:
    native = pytest.importorskip("accel._native")
    good = ("portable", 0, 1, 4, bytes(16), bytes(16), 0, bytearray(16), bytes(16), 1)
    native.mask(*good)
    for place, value in (
        (0, "nonesuch"), (1, 2), (2, 4), (3, 5), (4, bytes(15)), (5, bytes(12)), (6, 2), (6, 1 << 63),
        (7, bytearray(15)), (8, bytes(20)),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            native.mask(*good[:place], value, *good[place + 1 :])
    with pytest.raises(ValueError):
        native.mask("portable", 1, 1, 4, bytes(32), bytes(12), 64 << 32, bytearray(16), bytes(16), 1)
