"""Rows of masks and of matrices over rings, and what a second thread brings."""

import os
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from accel import registry
from accel.bench.contest import backends, openssl, package, two_threads
from accel.bench.measure import Contest, Contestant, Job, Row
from accel.bench.numbers import RANDOM, batch, dense_signed, plaintexts
from accel.bench.rivals import Rivals

_MASKED_BYTES: Final = 4_000_000
_WORDS: Final[dict[int, tuple[Any, tuple[int, ...]]]] = {
    32: (np.uint32, (1_000_000,)),
    64: (np.uint64, (500_000,)),
    128: (np.uint64, (250_000, 2)),
}


def masks(quick: bool, rivals: Rivals) -> list[Row]:
    def contest(cipher: str, bits: int) -> Contest:
        dtype, shape = _WORDS[bits]
        values, out = np.ones(shape, dtype), np.empty(shape, dtype)
        key, nonce = os.urandom(16 if cipher == "aes128ctr" else 32), os.urandom(16)

        def ours(name: str) -> Job:
            kernel = registry.masks(cipher, name)
            start = nonce[: kernel.nonce_bytes]
            return Job(name, _MASKED_BYTES, lambda: kernel.add(key, start, values, bits=bits, out=out))

        theirs: list[Contestant] = [_cipher_alone(cipher, key, nonce)]
        evp = "aes-128-ctr" if cipher == "aes128ctr" else "chacha20"
        theirs += openssl(rivals, quick, f"{evp}, 16 KiB blocks", "-evp", evp, "-bytes", "16384")
        if (cipher, bits) == ("aes128ctr", 32):
            theirs += rivals.jobs("flwr", "mask", kind="pseudo_rand_gen, add, mod")
        return Contest([ours(name) for name in backends(f"mask.{cipher}")], theirs)

    detail = "the stream added to 4 MB; the rivals of OpenSSL make the stream alone"
    return [
        Row("masks", f"mask {cipher}, uint{bits}", detail, "B/s", partial(contest, cipher, bits))
        for cipher in ("aes128ctr", "chacha20")
        for bits in _WORDS
    ]


def _cipher_alone(cipher: str, key: bytes, nonce: bytes) -> Job:
    aes = cipher == "aes128ctr"
    stream = (
        Cipher(algorithms.AES(key), modes.CTR(nonce)) if aes else Cipher(algorithms.ChaCha20(key, nonce), mode=None)
    ).encryptor()
    zeros, room = bytes(_MASKED_BYTES), bytearray(_MASKED_BYTES + 16)
    what = package("cryptography", f"{'AES-128-CTR' if aes else 'ChaCha20'} update_into")
    return Job(what, _MASKED_BYTES, lambda: stream.update_into(zeros, room))


def rings(quick: bool, rivals: Rivals) -> list[Row]:
    del rivals
    rows = 200_000 if quick else 1_000_000

    def ring64(transposed: bool) -> Contest:
        rng = np.random.default_rng(3)
        a = rng.integers(0, 1 << 64, (rows, 40), np.uint64)
        right = rng.integers(0, 1 << 64, (rows if transposed else 40, 1), np.uint64)

        def ours(name: str) -> Job:
            kernel = registry.ring_matrices(name)
            return Job(name, a.size, lambda: kernel.product(a, right, transposed=transposed))

        # The wall: whoever multiplies the matrix must read it once.
        reading = Job(package("numpy", "a.sum(), which only reads the matrix"), a.size, a.sum)
        product = Job(package("numpy", "a @ b"), a.size, lambda: (a.T if transposed else a) @ right)
        return Contest([ours(name) for name in backends("ringmatrices")], [product, reading])

    def ring128() -> Contest:
        few = rows // 10
        matrix = dense_signed(few, 40, 20)
        vector = np.frombuffer(os.urandom(16 * few), np.uint64).reshape(few, 2)

        def ours(name: str) -> Job:
            kernel = registry.ring128(name)
            return Job(name, few * 40, lambda: kernel.matvec(matrix, vector))

        reference = registry.ring128("reference")
        rival = Job(package("numpy", "(backend reference)"), few * 40, lambda: reference.matvec(matrix, vector))
        return Contest([ours(name) for name in backends("ring128")], [rival])

    detail = f"{rows:,} x 40 dense, modulo 2^64"
    return [
        Row("rings", "ring64 X w", f"{detail}, by a vector of 40", "entries/s", partial(ring64, False)),
        Row("rings", "ring64 X^T d", f"{detail}, by a vector of {rows:,}", "entries/s", partial(ring64, True)),
        Row("rings", "ring128 X^T v", f"{rows // 10:,} x 40, 20-bit entries, modulo 2^128", "entries/s", ring128),
    ]


def threads(quick: bool, rivals: Rivals) -> list[Row]:
    """Two native threads against one of the same kernel; worth reading only where two cores are idle."""
    del rivals
    count, rows = 8192, 100_000 if quick else 500_000
    few, many = (1024, 1024) if quick else (2048, 16_384)
    jobs: tuple[tuple[str, str, str, int, Callable[[], Callable[[int], Callable[[], object]]]], ...] = (
        ("modexp 2048", "secret exponent, batch of 256", "1/s", 256, _modexp_with),
        ("paillier encrypt", f"n of 2048 bits, batch of {many}", "1/s", many, partial(_paillier_with, "encrypt", many)),
        ("paillier decrypt", f"n of 2048 bits, batch of {few}", "1/s", few, partial(_paillier_with, "decrypt", few)),
        ("paillier X^T v", f"n of 2048 bits, {many} x 40, 40-bit entries", "entries/s", many * 40,
         partial(_paillier_with, "product", many)),
        ("x25519", f"one scalar, batch of {count}", "1/s", count, partial(_x25519_with, count)),
        ("p256", f"one scalar, batch of {count}", "1/s", count, partial(_curve_with, "p256", count)),
        ("sm2", f"one scalar, batch of {count}", "1/s", count, partial(_curve_with, "sm2", count)),
        ("mask aes128ctr", "16 MB of uint32 in place", "B/s", 16_000_000, _mask_with),
        ("ring64 X w", f"{rows:,} x 40 dense", "entries/s", rows * 40, partial(_ring_with, rows, False)),
        ("ring64 X^T d", f"{rows:,} x 40 dense", "entries/s", rows * 40, partial(_ring_with, rows, True)),
    )  # fmt: skip

    def contest(units: int, prepare: Callable[[], Callable[[int], Callable[[], object]]]) -> Contest:
        return Contest(*two_threads(units, prepare()))

    return [
        Row("threads", f"two threads: {name}", detail, unit, partial(contest, units, prepare), one_core=False)
        for name, detail, unit, units, prepare in jobs
    ]


def _modexp_with() -> Callable[[int], Callable[[], object]]:
    n = secrets.randbits(2048) | 1 | 1 << 2047
    bases, exponent = batch([secrets.randbelow(n) for _ in range(256)], 32), batch([n >> 1], 32)
    return lambda count: partial(registry.modular_power(threads=count).power, n, bases, exponent)


def _paillier_with(job: str, rows: int) -> Callable[[int], Callable[[], object]]:
    primes, numbers = registry.additive_he("paillier").generate(2048, RANDOM).factors(), plaintexts(rows)
    matrix = dense_signed(rows, 40, 40)

    def prepare(count: int) -> Callable[[], object]:
        secret = registry.additive_he("paillier", threads=count).from_factors(*primes, 3)
        encrypted = secret.public.encrypt(numbers, RANDOM)
        jobs: dict[str, Callable[[], object]] = {
            "encrypt": partial(secret.public.encrypt, numbers, RANDOM),
            "decrypt": partial(secret.decrypt, encrypted),
            "product": partial(secret.public.matvec, matrix, encrypted),
        }
        return jobs[job]

    return prepare


def _x25519_with(count: int) -> Callable[[int], Callable[[], object]]:
    secret, points = os.urandom(32), os.urandom(32 * count)
    return lambda many: partial(registry.x25519(threads=many).mask_points, secret, points)


def _curve_with(curve: str, count: int) -> Callable[[int], Callable[[], object]]:
    secret, points = os.urandom(32), registry.prime_curve(curve).base_points(os.urandom(32 * count))
    return lambda many: partial(registry.prime_curve(curve, threads=many).mask_points, secret, points)


def _mask_with() -> Callable[[int], Callable[[], object]]:
    words, key, nonce = np.zeros(4_000_000, np.uint32), os.urandom(16), os.urandom(16)
    return lambda count: partial(registry.masks(threads=count).add, key, nonce, words, bits=32, out=words)


def _ring_with(rows: int, transposed: bool) -> Callable[[int], Callable[[], object]]:
    rng = np.random.default_rng(4)
    a = rng.integers(0, 1 << 64, (rows, 40), np.uint64)
    right = rng.integers(0, 1 << 64, (rows if transposed else 40, 1), np.uint64)
    return lambda count: partial(registry.ring_matrices(threads=count).product, a, right, transposed=transposed)
