"""What a caller hands over by mistake: every kernel of every backend answers with BadInput, not with an accident."""

import copy
import pickle
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

from accel import fixedpoint, kernels, linear, registry
from accel.entropy import OsRandom
from accel.kernels import BadInput, HeSecretKey, Texts
from accel.probe import probe
from accel.registry import BACKENDS

RANDOM: Final = OsRandom()
ONE: Final = np.array([[2]], np.uint64)
HALVES: Final = np.zeros(4, np.uint32)
MATRIX: Final = np.zeros((2, 2), np.uint64)
NUMBERS: Final = [[1, 2], [3, 4]]
"""A list, where an array is wanted."""
TEXT: Any = "a text of characters, not of bytes"
FRACTION: Any = 1.5

Call = Callable[[Any], object]

CURVE: Final[tuple[Call, ...]] = (
    lambda k: k.mask_points(TEXT, b""),
    lambda k: k.mask_points(bytes(32), TEXT),
    lambda k: k.mask_points(None, b""),
    lambda k: k.exchange(TEXT, TEXT),
    lambda k: k.base_points(TEXT),
    lambda k: k.decode(TEXT, compressed=True),
    lambda k: k.lift(TEXT),
    lambda k: k.from_hash([b"a"], b"tag"),
    lambda k: k.from_hash(Texts.of([b"a"]), TEXT),
)
DIGEST: Final[tuple[Call, ...]] = (lambda k: k.digest([b"a"]), lambda k: k.digest(b"a"))
MASKS: Final[tuple[Call, ...]] = (
    lambda k: k.add("k" * k.key_bytes, bytes(k.nonce_bytes), HALVES, bits=32),
    lambda k: k.add(bytes(k.key_bytes), "n" * k.nonce_bytes, HALVES, bits=32),
    lambda k: k.sub(bytes(k.key_bytes), bytes(k.nonce_bytes), [1, 2], bits=32),
    lambda k: k.xor(bytes(k.key_bytes), bytes(k.nonce_bytes), HALVES, bits=32, out=[0] * 4),
    lambda k: k.expand(bytes(k.key_bytes), bytes(k.nonce_bytes), HALVES.copy(), bits=32, first=FRACTION),
)
CALLS: Final[dict[str, tuple[Call, ...]]] = {
    "x25519": (
        lambda k: k.mask_points("s" * 32, bytes(32)),
        lambda k: k.mask_points(bytes(32), [0] * 32),
        lambda k: k.exchange(np.zeros(4, np.uint64), np.zeros(4, np.uint64)),
    ),
    "curve.p256": CURVE,
    "curve.sm2": CURVE,
    "group25519": (
        lambda k: k.to_curve25519([b"a"], b"tag"),
        lambda k: k.to_ristretto(Texts.of([b"a"]), TEXT),
        lambda k: k.derive([0] * 64),
        lambda k: k.check("e" * 32),
        lambda k: k.mask_elements("s" * 32, bytes(32)),
        lambda k: k.exchange_elements("s" * 32, "e" * 32),
    ),
    "hash.sha256": DIGEST,
    "hash.sm3": DIGEST,
    "mask.aes128ctr": MASKS,
    "mask.chacha20": MASKS,
    "modpow": (
        lambda k: k.power(7.0, ONE, ONE),
        lambda k: k.power("7", ONE, ONE),
        lambda k: k.power(7, NUMBERS, ONE),
        lambda k: k.power(7, ONE, NUMBERS),
        lambda k: k.multiply(7, ONE, NUMBERS),
        lambda k: k.ring(FRACTION),
        lambda k: k.ring(7).load(NUMBERS),
        lambda k: k.ring(7).multiply(ONE, ONE),
        lambda k: k.ring(7).square(k.ring(7).load(ONE), FRACTION),
        lambda k: k.ring(7).products(k.ring(7).load(ONE), [0], [0, 1]),
        lambda k: k.ring(7).matvec(MATRIX, k.ring(7).load(ONE)),
    ),
    "ringmatrices": (
        lambda k: k.product(NUMBERS, MATRIX),
        lambda k: k.product(MATRIX, MATRIX, onto=NUMBERS),
        lambda k: k.share(NUMBERS, RANDOM),
        lambda k: k.truncate(MATRIX, FRACTION, first=True),
    ),
    "ring128": (
        lambda k: k.add(NUMBERS, MATRIX),
        lambda k: k.mul(MATRIX, np.zeros((3, 2), np.uint64)),
        lambda k: k.scale(MATRIX, FRACTION),
        lambda k: k.matvec(MATRIX, MATRIX),
        lambda k: k.matvec(linear.dense(np.ones((1, 2), np.int64)), NUMBERS),
        lambda k: k.truncate(MATRIX, FRACTION, first=True),
        lambda k: k.from_ints([FRACTION]),
        lambda k: k.random(-1, RANDOM),
    ),
}
SCHEMES: Final[tuple[Callable[[Any, Any, Any], object], ...]] = (
    lambda he, s, c: he.generate("2048", RANDOM),
    lambda he, s, c: he.generate(2048.0, RANDOM),
    lambda he, s, c: he.load_secret(s.export(b"passphrase", RANDOM, cost_log2=14), TEXT),
    lambda he, s, c: s.export(TEXT, RANDOM, cost_log2=14),
    lambda he, s, c: he.load_secret(TEXT, b"passphrase"),
    lambda he, s, c: he.load_public(TEXT),
    lambda he, s, c: s.public.load("c" * s.public.ciphertext_bytes, 1),
    lambda he, s, c: fixedpoint.load(s.public, TEXT),
    lambda he, s, c: s.decrypt(b"bytes"),
    lambda he, s, c: s.encrypt(NUMBERS, RANDOM),
    lambda he, s, c: s.public.encrypt(NUMBERS, RANDOM),
    lambda he, s, c: s.public.encrypt(np.array([[1.5]]), RANDOM),
    lambda he, s, c: s.public.add(c, ONE),
    lambda he, s, c: s.public.scale(c, 3),
    lambda he, s, c: s.public.shift(c, FRACTION),
    lambda he, s, c: s.public.matvec(MATRIX, c),
    lambda he, s, c: s.public.sums(c, [0], [0, 1]),
    lambda he, s, c: s.public.rerandomise(c, RANDOM, noise_bits=FRACTION),
)


def backends(prefix: str = "") -> list[Any]:
    found = [(kernel, backend) for kernel, of in BACKENDS.items() for backend in of if kernel.startswith(prefix)]
    return [pytest.param(k, b, id=f"{k}-{b.name}") for k, b in found if b.refuses(probe()) is None]


@pytest.mark.parametrize(("kernel", "backend"), [p for p in backends() if not str(p.values[0]).startswith("he.")])
def test_a_wrong_type_is_bad_input(kernel: str, backend: registry.Backend) -> None:
    made = backend.make()
    for i, call in enumerate(CALLS[kernel]):
        with pytest.raises(BadInput):
            pytest.fail(f"call {i} returned {call(made)!r}")


@pytest.mark.parametrize(("kernel", "backend"), backends("he."))
def test_a_wrong_type_is_bad_input_to_a_scheme(kernel: str, backend: registry.Backend) -> None:
    he = backend.make(insecure_min_bits=512)
    secret: HeSecretKey = he.generate(512, RANDOM)
    batch = secret.public.encrypt(ONE, RANDOM)
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="export only"):
            leave(secret)
    for i, call in enumerate(SCHEMES):
        with pytest.raises(BadInput):
            pytest.fail(f"call {i} returned {call(he, secret, batch)!r}")
    # a partner's key of a modulus without a bit, else in the right form
    head = secret.public.to_bytes()[:2]
    with pytest.raises(BadInput):
        he.load_public(memoryview(head + bytes(2)))


@pytest.mark.parametrize(
    "values", [["1.5"], [[1.0], [1.0, 2.0]], np.array([1j]), np.array([None]), 1.5, [[1.0]], [float("nan")]]
)
def test_only_real_numbers_are_encrypted(values: Any) -> None:
    he = BACKENDS["he.paillier"][-1].make(insecure_min_bits=512)
    key = he.generate(512, RANDOM).public
    with pytest.raises(BadInput):
        fixedpoint.encrypt(key, values, exponent=-24, random=RANDOM)
    for exponent in (FRACTION, -24.0, 1001):
        with pytest.raises(BadInput):
            fixedpoint.encrypt(key, np.array([1.5]), exponent=exponent, random=RANDOM)
    numbers: Any = fixedpoint.encrypt(key, np.array([1.5]), exponent=-24, random=RANDOM)
    for product in (numbers.product, numbers.times_matrix):
        with pytest.raises(BadInput, match="quantise"):
            product(np.ones((1, 1)))


def test_batches_are_made_of_bytes_and_arrays() -> None:
    for make in (lambda: Texts.of([TEXT]), lambda: Texts(TEXT, np.array([0, 1])), lambda: Texts(b"a", TEXT)):
        with pytest.raises(BadInput):
            make()
    whole, lists = np.zeros(1, np.int64), TEXT
    with pytest.raises(BadInput):
        kernels.SparseMatrix(1, 1, lists, whole, whole)
    for values in (NUMBERS, np.ones((1, 1))):
        with pytest.raises(BadInput):
            linear.dense(values)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, 65, "2", 2.0, None])
def test_threads_are_a_whole_number(threads: Any) -> None:
    with pytest.raises(BadInput):
        registry.digest("sha256", threads=threads)


def test_tables_that_leak_are_asked_for_by_name() -> None:
    for scheme in ("ou", "paillier"):
        for backend in ("reference", None):
            assert registry.additive_he(scheme, backend, cache_leaking_tables=True).scheme == scheme
    with pytest.raises(BadInput, match="no tables"):
        registry.additive_he("paillier-textbook", cache_leaking_tables=True)


def test_an_unknown_kernel_is_told_which_there_are() -> None:
    with pytest.raises(registry.BackendRefused, match=r"he\.elgamal; there are .*he\.paillier"):
        registry.additive_he("elgamal")


def test_the_sum_of_encrypted_numbers() -> None:
    secret = BACKENDS["he.paillier"][-1].make(insecure_min_bits=512).generate(512, RANDOM)
    for values in ([], [1.5], [1.5, -2.25, 4.0]):
        numbers = fixedpoint.encrypt(secret.public, np.array(values), exponent=-24, random=RANDOM)
        assert fixedpoint.decrypt(secret, numbers.sum().masked(RANDOM)).tolist() == [sum(values)]
    groups = np.array([0, 2, 0])
    sums = numbers.group_sums(groups, groups.max() + 1)  # a whole number of numpy
    assert fixedpoint.decrypt(secret, sums.masked(RANDOM)).tolist() == [5.5, 0.0, -2.25]
    for count in (FRACTION, "3", -1):
        with pytest.raises(BadInput):
            numbers.group_sums(groups, count)
