"""X25519 over every backend: RFC 7748's iteration, Wycheproof, OpenSSL on random and on all edge points."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

import specs
from accel.kernels import X25519, BadInput
from accel.probe import probe
from accel.registry import BACKENDS

KERNELS = [
    pytest.param(backend.make, id=backend.name) for backend in BACKENDS["x25519"] if backend.refuses(probe()) is None
]
P = 2**255 - 19
# The coordinates of small order on the curve and its twist, and each plus p where it fits 255 bits.
LOW_ORDER = [
    0, 1, P - 1, P, P + 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]  # fmt: skip
EDGES = [
    0,
    1,
    2,
    9,
    18,
    19,
    P - 2,
    P - 1,
    P,
    P + 1,
    P + 18,
    2**255 - 1,
    2**256 - 1,
    2**255 + 9,
    2**204,
    2**208 - 1,
    2**51,
]


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> X25519:
    made: X25519 = request.param()
    return made


def openssl(secret: bytes, point: bytes) -> bytes:
    try:
        return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(point))
    except ValueError:
        return bytes(32)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 15, 16, 17, 255, 256, 257, 272, 300])
def test_random_points_as_openssl(kernel: X25519, count: int) -> None:
    secret, points, secrets = os.urandom(32), os.urandom(32 * count), os.urandom(32 * count)
    cuts = [slice(32 * i, 32 * i + 32) for i in range(count)]
    assert kernel.mask_points(secret, points) == b"".join(openssl(secret, points[cut]) for cut in cuts)
    assert kernel.exchange(secrets, points) == b"".join(openssl(secrets[cut], points[cut]) for cut in cuts)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(0, 40), threads=st.integers(1, 3), seed=st.binary(min_size=32, max_size=32))
def test_any_size(size: int, threads: int, seed: bytes) -> None:
    """Points and scalars that the example repeats: bytes that hypothesis chose, and SHA-512 of them."""
    stream = seed + b"".join(hashlib.sha512(seed + bytes([i])).digest() for i in range(size))
    secrets, points = stream[: 32 * size], stream[32 * size : 64 * size]
    cuts = [slice(32 * i, 32 * i + 32) for i in range(size)]
    for param in KERNELS:
        kernel: X25519 = param.values[0](threads=threads)
        assert kernel.exchange(secrets, points) == b"".join(openssl(secrets[cut], points[cut]) for cut in cuts)
        assert kernel.mask_points(seed, points) == b"".join(openssl(seed, points[cut]) for cut in cuts)


def test_edge_points_and_scalars_as_openssl(kernel: X25519) -> None:
    points = [value.to_bytes(32, "little") for value in EDGES + LOW_ORDER]
    for secret in (bytes(32), b"\xff" * 32, b"\x08" + bytes(31), os.urandom(32)):
        assert kernel.mask_points(secret, b"".join(points)) == b"".join(openssl(secret, point) for point in points)


def test_long_runs_of_bits_as_openssl(kernel: X25519) -> None:
    """Points and scalars whose digits of 52 or 51 bits are all zeros or all ones, or one of them is."""
    values = [2**i - 1 for i in range(1, 256, 5)] + [P - 2**i for i in range(0, 255, 5)]
    values += [(2**255 - 1) ^ ((2**width - 1) << width * i) for width in (51, 52) for i in range(5)]
    values += [sum(2 ** (width * i) for i in range(5)) for width in (51, 52)]
    points = [(value % 2**256).to_bytes(32, "little") for value in values]
    secrets = points[::-1]
    wanted = b"".join(openssl(secret, point) for secret, point in zip(secrets, points, strict=True))
    assert kernel.exchange(b"".join(secrets), b"".join(points)) == wanted


def test_points_of_low_order_give_zeros_and_leave_their_neighbours_alone(kernel: X25519) -> None:
    secret = os.urandom(32)
    good = os.urandom(32)
    product = openssl(secret, good)
    for value in LOW_ORDER:
        for place in (0, 3, 8, 30):
            points = [good] * 31
            points[place] = value.to_bytes(32, "little")
            wanted = [product] * 31
            wanted[place] = bytes(32)
            assert kernel.mask_points(secret, b"".join(points)) == b"".join(wanted)


def test_the_iteration_of_the_rfc(kernel: X25519) -> None:
    k = u = bytes([9]) + bytes(31)
    for _ in range(1000):
        k, u = kernel.mask_points(k, u), k
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_wycheproof(kernel: X25519) -> None:
    """The RFC's vectors are among them, points of the twist and of low order, and shared secrets at the edges."""
    text = (Path(specs.__file__).parent / "vectors" / "curves.json").read_text(encoding="utf-8")
    cases = [[bytes.fromhex(value) for value in row[1:]] for row in json.loads(text)["x25519"]]
    products = kernel.exchange(b"".join(case[0] for case in cases), b"".join(case[1] for case in cases))
    for i, case in enumerate(cases):
        assert products[32 * i : 32 * i + 32] == case[2], i


def test_masking_commutes(kernel: X25519) -> None:
    a, b, points = os.urandom(32), os.urandom(32), os.urandom(320)
    assert kernel.mask_points(a, kernel.mask_points(b, points)) == kernel.mask_points(b, kernel.mask_points(a, points))


def test_wrong_lengths_are_refused(kernel: X25519) -> None:
    for secret, points in ((bytes(31), bytes(32)), (bytes(32), bytes(33)), (b"", bytes(32))):
        with pytest.raises(BadInput):
            kernel.mask_points(secret, points)
        with pytest.raises(BadInput):
            kernel.exchange(secret, points + bytes(64))
