"""Native threads: the same results whatever their number, also in a child after a fork, and a cap."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from accel import registry
from accel.entropy import OsRandom
from accel.kernels import MAX_THREADS, BadInput, SparseMatrix, Texts
from accel.probe import probe

pytestmark = pytest.mark.skipif("accel._native" not in probe().modules, reason="the native kernels are not built here")
TEXTS = Texts.of([bytes([i % 256]) * (i % 90) for i in range(3000)])
POINTS = os.urandom(32 * 700)
SECRET = os.urandom(32)


def curve_points(threads: int) -> bytes:
    curve = registry.prime_curve("sm2", threads=threads)
    points = curve.from_hash(Texts(TEXTS.data[: TEXTS.offsets[600]], TEXTS.offsets[:601]), b"tag")
    masked = curve.mask_points(SECRET, points)
    return masked + curve.decode(curve.encode(masked, compressed=True), compressed=True) + curve.base_points(POINTS)


def elements(threads: int) -> bytes:
    group = registry.group25519(threads=threads)
    return group.mask_elements(SECRET, group.to_ristretto(TEXTS, b"tag")) + group.to_curve25519(TEXTS, b"tag")


def powers(threads: int) -> bytes:
    kernel, modulus = registry.modular_power(threads=threads), (1 << 521) - 1
    rows = np.frombuffer(POINTS, np.uint64).reshape(-1, 8)[:300].copy()
    return kernel.power(modulus, rows, rows[:, :2].copy()).tobytes() + kernel.multiply(modulus, rows, rows).tobytes()


def masked(threads: int) -> bytes:
    rng, results = np.random.default_rng(1), b""
    for cipher in ("aes128ctr", "chacha20"):
        kernel = registry.masks(cipher, threads=threads)
        key, nonce = bytes(range(kernel.key_bytes)), b"\xff" * kernel.nonce_bytes  # the counter runs over
        for bits, count, dtype in ((32, 800_001, np.uint32), (64, 400_003, np.uint64)):
            values = rng.integers(0, 1 << bits, count, dtype)
            results += kernel.add(key, nonce, values, bits=bits, first=3).tobytes()
            results += kernel.sub(key, nonce, values, bits=bits, first=8, out=values).tobytes()
    return results


def ring_products(threads: int) -> bytes:
    rng, results = np.random.default_rng(2), b""
    kernel, reference = registry.ring_matrices(threads=threads), registry.ring_matrices("reference")
    for n, k, m, words in ((20_000, 7, 1, 1), (9_001, 40, 3, 1), (3_000, 50, 9, 1), (9_001, 5, 2, 2), (40, 6, 700, 1)):
        a, right, below = (
            rng.integers(0, 1 << 64, shape if words == 1 else (*shape, 2), np.uint64)
            for shape in ((n, k), (k, m), (n, m))
        )
        for b, transposed in ((right, False), (below, True)):
            product = kernel.product(a, b, transposed=transposed)
            onto = product.copy()
            kernel.product(a, b, transposed=transposed, onto=onto)
            assert np.array_equal(product, reference.product(a, b, transposed=transposed))
            results += product.tobytes() + onto.tobytes()
    return results


def sparse_products(threads: int) -> bytes:
    rng, rows = np.random.default_rng(3), 30
    lengths = rng.integers(0, 4000, rows)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    cols = np.concatenate([np.arange(length) for length in lengths])
    matrix = SparseMatrix(rows, 4000, starts, cols, rng.integers(-(1 << 39), 1 << 39, len(cols)))
    return registry.ring128(threads=threads).matvec(matrix, rng.integers(0, 1 << 64, (4000, 2), np.uint64)).tobytes()


WORK: dict[str, Callable[[int], bytes]] = {
    "x25519": lambda n: registry.x25519(threads=n).mask_points(SECRET, POINTS),
    "x25519 each": lambda n: registry.x25519(threads=n).exchange(POINTS[::-1], POINTS),
    "prime curve": curve_points,
    "group25519": elements,
    "sha256": lambda n: registry.digest("sha256", threads=n).digest(TEXTS),
    "sm3": lambda n: registry.digest("sm3", threads=n).digest(TEXTS),
    "modpow": powers,
    "masks": masked,
    "ring products": ring_products,
    "sparse ring products": sparse_products,
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
def test_any_number_of_threads_gives_the_same(work: Callable[[int], bytes]) -> None:
    wanted = work(1)
    for threads in (2, 3, MAX_THREADS):
        assert work(threads) == wanted


def test_ciphertexts_do_not_depend_on_the_threads() -> None:
    p, q = 2**89 - 1, 2**107 - 1
    entry = registry.BACKENDS["he.paillier"][0 if registry.additive_he("paillier").name == "avx512ifma" else 1]
    plain = np.arange(600, dtype=np.uint64).reshape(-1, 1)
    matrix = SparseMatrix(2, 600, np.array([0, 600, 1200]), np.tile(np.arange(600), 2), np.arange(-600, 600))
    results: list[Any] = []
    for threads in (1, 3):
        secret = entry.make(insecure_min_bits=100, threads=threads).from_factors(p, q, 3)
        batch = secret.public.encrypt(plain, OsRandom())
        sums = secret.public.add_plain(secret.public.matvec(matrix, batch), np.full((2, 1), 1 << 30, np.uint64))
        results.append((secret.decrypt(batch).tolist(), secret.decrypt(sums).tolist()))
    assert results[0] == results[1]
    assert [row[0] for row in results[0][0]] == list(range(600))


def test_a_child_after_a_fork_may_use_threads_at_once() -> None:
    kernel = registry.x25519(threads=3)
    wanted = kernel.mask_points(SECRET, POINTS)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"same" if kernel.mask_points(SECRET, POINTS) == wanted else b"other")
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"same"
    assert kernel.mask_points(SECRET, POINTS) == wanted


@pytest.mark.parametrize("threads", [0, -1, MAX_THREADS + 1])
def test_no_threads_and_too_many_are_refused(threads: int) -> None:
    for kernel in (registry.x25519, registry.group25519, registry.modular_power):
        with pytest.raises(BadInput):
            kernel(threads=threads)
    with pytest.raises(BadInput):
        registry.prime_curve("p256", threads=threads)
    with pytest.raises(BadInput):
        registry.digest("sm3", threads=threads)
    for backend in ("reference", None):
        with pytest.raises(BadInput):
            registry.additive_he("paillier", backend, threads=threads)
        with pytest.raises(BadInput):
            registry.masks("chacha20", backend, threads=threads)


SMALL_STACK = """
import ctypes
libc, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(128)
libc.pthread_attr_init(attributes)
libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(64 << 10))
assert libc.pthread_setattr_default_np(attributes) == 0
from accel import registry
scalars = bytes(range(1, 33)) * 1024
for backend in {backends}:
    curve = registry.prime_curve("p256", backend, threads=2)
    curve.exchange(scalars, curve.base_points(scalars))
"""


def test_threads_do_not_depend_on_the_stack_that_the_c_library_gives() -> None:
    """musl gives 128 KiB; glibc lets one say so."""
    if not hasattr(ctypes.CDLL(None), "pthread_setattr_default_np"):
        pytest.skip("this C library does not let one choose a stack's size")
    backends = [choice for choice in ("avx512ifma", "portable") if registry.choose("curve.p256", choice)[0]]
    program = SMALL_STACK.replace("{backends}", repr(backends))
    subprocess.run([sys.executable, "-c", program], check=True)
