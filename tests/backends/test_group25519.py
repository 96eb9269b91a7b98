"""Hashing to curve25519 and edwards25519, and ristretto255, over every backend: the RFCs' vectors and the reference."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import specs
from accel import registry
from accel.backends.reference import IntegerGroup25519
from accel.kernels import BadInput, Group25519, Texts
from accel.probe import probe
from accel.registry import BACKENDS

VECTORS = json.loads((Path(specs.__file__).parent / "vectors" / "curves.json").read_text(encoding="utf-8"))
RISTRETTO = VECTORS["ristretto255"]
ORDER = 2**252 + 27742317777372353535851937790883648493
KERNELS = [
    pytest.param(backend.make, id=backend.name)
    for backend in BACKENDS["group25519"]
    if backend.refuses(probe()) is None
]


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Group25519:
    made: Group25519 = request.param()
    return made


@pytest.mark.parametrize("suite", [name for name in VECTORS["hash_to_curve"] if "25519" in name])
def test_the_rfcs_hash_to_curve(kernel: Group25519, suite: str) -> None:
    vectors, uniform = VECTORS["hash_to_curve"][suite], suite.endswith("RO_")
    texts, tag = Texts.of([case["msg"].encode() for case in vectors["cases"]]), vectors["tag"].encode()
    if suite.startswith("curve25519"):
        wanted = b"".join(bytes.fromhex(case["x"])[::-1] for case in vectors["cases"])
        assert kernel.to_curve25519(texts, tag, uniform=uniform) == wanted
    else:
        numbers = [int(case["y"], 16) | int(case["x"], 16) % 2 << 255 for case in vectors["cases"]]
        wanted = b"".join(number.to_bytes(32, "little") for number in numbers)
        assert kernel.to_edwards25519(texts, tag, uniform=uniform) == wanted


def test_the_rfcs_ristretto_encodings(kernel: Group25519) -> None:
    good = bytes.fromhex("".join(RISTRETTO["multiples"]))
    kernel.check(good)
    generator = bytes.fromhex(RISTRETTO["multiples"][1])
    factors = b"".join(i.to_bytes(32, "little") for i in range(16))
    assert kernel.exchange_elements(factors, generator * 16) == good
    assert kernel.mask_elements((1).to_bytes(32, "little"), good) == good
    for k in (0, ORDER, ORDER + 1, ORDER - 1, 2**256 - 1, 2**255):
        product = kernel.mask_elements(k.to_bytes(32, "little"), generator)
        assert product == IntegerGroup25519().mask_elements((k % ORDER).to_bytes(32, "little"), generator)
    assert kernel.mask_elements(ORDER.to_bytes(32, "little"), generator) == bytes(32)
    for text in RISTRETTO["invalid"]:
        for place in (0, 7, 9):
            batch = generator * place + bytes.fromhex(text) + generator
            with pytest.raises(BadInput):
                kernel.check(batch)
        with pytest.raises(BadInput):
            kernel.mask_elements(bytes(32), batch)


def test_the_rfcs_ristretto_derivations(kernel: Group25519) -> None:
    rows = RISTRETTO["sha512_of"]
    uniform = b"".join(hashlib.sha512(row["text"].encode()).digest() for row in rows)
    assert kernel.derive(uniform).hex() == "".join(row["element"] for row in rows)
    same = RISTRETTO["same"]
    assert kernel.derive(bytes.fromhex("".join(same["uniform"]))).hex() == same["element"] * 4


@pytest.mark.parametrize("make", [native for native in KERNELS if native.id != "reference"])
def test_every_digit_at_every_place(make: Callable[[], Group25519]) -> None:
    kernel = make()
    place = bytes.fromhex(RISTRETTO["multiples"][1])
    small = b"".join(d.to_bytes(32, "little") for d in range(16))
    for i in range(64):
        whole = b"".join((d << 4 * i).to_bytes(32, "little") for d in range(16))
        got = kernel.exchange_elements(whole, bytes.fromhex(RISTRETTO["multiples"][1]) * 16)
        assert got == kernel.exchange_elements(small, place * 16)
        place = kernel.mask_elements((16).to_bytes(32, "little"), place)
    values = [*(int(f"{d:x}" * 64, 16) for d in range(16)), ORDER * 15 + 8, ORDER * 15 - 8]
    factors = b"".join(k.to_bytes(32, "little") for k in values)
    wanted = IntegerGroup25519().exchange_elements(factors, place * len(values))
    assert kernel.exchange_elements(factors, place * len(values)) == wanted


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 17])
def test_sizes_around_the_lanes_as_the_reference(kernel: Group25519, count: int) -> None:
    reference = IntegerGroup25519()
    texts = Texts.of([os.urandom(i) for i in range(count)])
    for uniform in (True, False):
        assert kernel.to_curve25519(texts, b"t", uniform=uniform) == reference.to_curve25519(
            texts, b"t", uniform=uniform
        )
        assert kernel.to_edwards25519(texts, b"t", uniform=uniform) == reference.to_edwards25519(
            texts, b"t", uniform=uniform
        )
    elements = kernel.to_ristretto(texts, b"t")
    assert elements == reference.to_ristretto(texts, b"t")
    kernel.check(elements)
    secrets = os.urandom(32 * count)
    products = kernel.exchange_elements(secrets, elements)
    assert products == reference.exchange_elements(secrets, elements)
    masked = kernel.mask_elements(secrets[:32].ljust(32), elements)
    assert masked[:32] == products[:32]


@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.binary(max_size=150), max_size=40), tag=st.binary(min_size=1, max_size=255))
def test_any_texts_alike_on_the_native_backends(texts: list[bytes], tag: bytes) -> None:
    """The reference, which takes too long for this, is compared at the sizes above."""
    batch, secrets = Texts.of(texts), b"".join(hashlib.sha256(text).digest() for text in texts)
    results = set()
    for kernel in (param.values[0]() for param in KERNELS if param.id != "reference"):
        elements = kernel.to_ristretto(batch, tag)
        products = kernel.exchange_elements(secrets, elements), kernel.mask_elements(tag[:1] * 32, elements)
        points = kernel.to_curve25519(batch, tag), kernel.to_edwards25519(batch, tag, uniform=False)
        results.add((elements, *products, *points))
    assert len(results) <= 1


@pytest.mark.parametrize("kernel", [param for param in KERNELS if param.id != "reference"], indirect=True)
@pytest.mark.parametrize("count", [15, 16, 17, 128, 145])
def test_a_batch_as_its_pieces(kernel: Group25519, count: int) -> None:
    """Elements share inverses; neutral ones, whose share is zero, leave their neighbours alone."""
    texts = [os.urandom(9) for _ in range(count)]
    elements = bytearray(kernel.to_ristretto(Texts.of(texts), b"t"))
    for place in (0, count // 2, count - 1):
        elements[32 * place : 32 * place + 32] = bytes(32)
    secrets = os.urandom(32 * count)
    cuts = [slice(32 * i, min(32 * i + 416, 32 * count)) for i in range(0, count, 13)]
    products = kernel.exchange_elements(secrets, bytes(elements))
    assert products == b"".join(kernel.exchange_elements(secrets[cut], bytes(elements[cut])) for cut in cuts)
    assert products[-32:] == bytes(32)
    parts = [texts[i : i + 13] for i in range(0, count, 13)]
    assert kernel.to_curve25519(Texts.of(texts), b"t") == b"".join(
        kernel.to_curve25519(Texts.of(part), b"t") for part in parts
    )


def test_edge_scalars_as_the_reference(kernel: Group25519) -> None:
    """Halved modulo the order and cut into signed digits: around its multiples, and with every digit at an end."""
    element = kernel.to_ristretto(Texts.of([b"e"]), b"t")
    scalars = [k * ORDER + i for k in (0, 1, 15) for i in (-2, -1, 0, 1, 2) if k or i >= 0]
    scalars += [2**252 - 1, 2**252, 2**252 + 2**125, 2**255 - 1, *(int(digit * 64, 16) for digit in "178f")]
    secrets = b"".join(k.to_bytes(32, "little") for k in scalars)
    reference = IntegerGroup25519().exchange_elements(
        b"".join((k % ORDER).to_bytes(32, "little") for k in scalars), element * len(scalars)
    )
    assert kernel.exchange_elements(secrets, element * len(scalars)) == reference


def test_points_of_curve25519_serve_x25519(kernel: Group25519) -> None:
    u = kernel.to_curve25519(Texts.of([b"a", b"b"]), b"tag")
    x25519, secret = registry.x25519(), os.urandom(32)
    # in the subgroup of prime order: a multiple of the order plus 8 acts like 8
    masked = x25519.mask_points(secret, u)
    assert masked[:32] != masked[32:] != bytes(32)


def test_wrong_lengths_are_refused(kernel: Group25519) -> None:
    generator = bytes.fromhex(RISTRETTO["multiples"][1])
    for call in (
        lambda: kernel.derive(bytes(63)),
        lambda: kernel.check(bytes(31)),
        lambda: kernel.mask_elements(bytes(31), generator),
        lambda: kernel.mask_elements(bytes(64), generator * 2),
        lambda: kernel.exchange_elements(bytes(32), generator * 2),
        lambda: kernel.mask_elements(bytes(32), generator[:-1]),
        lambda: kernel.to_curve25519(Texts.of([b"a"]), b""),
        lambda: kernel.to_ristretto(Texts.of([b"a"]), b"t" * 256),
    ):
        with pytest.raises(BadInput):
            call()
