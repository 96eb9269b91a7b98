"""The memory that one call takes is what docs/kernels.md states, counted an element."""

import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from accel import registry
from accel.entropy import OsRandom
from accel.kernels import Texts

PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"
# What the call as such takes, whatever its batch.
SLACK = 64 << 10
COUNT = 8192
NUMBERS = 1024
SECRET = bytes(range(1, 33))
TAG = b"MEMORY-OF-A-BATCH-V01"

pytestmark = [
    pytest.mark.skipif(registry.x25519().name == "reference", reason="no native kernels"),
    pytest.mark.skipif(not PAGE.exists(), reason="docs/ is in the source tree only"),
]


def stated() -> dict[str, int]:
    """The page's table: what stands in its first column without the marks -> bytes an element."""
    section = PAGE.read_text().partition("\n## Memory\n")[2].partition("\n## ")[0]
    return {
        call.replace("`", ""): int(size) for call, size in re.findall(r"^\| (.*\S) \| (\d+) \|$", section, re.MULTILINE)
    }


def calls() -> dict[str, tuple[int, Callable[[], object]]]:
    """The same names -> elements of the batch, the call."""
    texts = Texts.of([b"%016d" % i for i in range(COUNT)])
    curve, x25519, group = registry.prime_curve("p256"), registry.x25519(), registry.group25519()
    digest, masks, rings = registry.digest("sha256"), registry.masks("aes128ctr"), registry.ring_matrices()
    coordinates = os.urandom(32 * COUNT)
    points = curve.base_points(SECRET * COUNT)
    packed = curve.encode(points, compressed=True)
    elements = group.to_ristretto(texts, TAG)
    words = np.ones(COUNT, np.uint32)
    tall, wide = np.ones((COUNT, 40), np.uint64), np.ones((40, 4), np.uint64)
    powers, modulus = registry.modular_power(), (1 << 2048) - 1
    numbers, exponent = np.ones((NUMBERS, 32), np.uint64), np.ones((1, 4), np.uint64)
    random = OsRandom()
    secret = registry.additive_he("paillier").generate(2048, random)
    plain = np.ones((NUMBERS, 1), np.uint64)
    encrypted = secret.public.encrypt(plain, random)
    return {
        "X25519.mask_points": (COUNT, lambda: x25519.mask_points(SECRET, coordinates)),
        "PrimeCurve.mask_points": (COUNT, lambda: curve.mask_points(SECRET, points)),
        "PrimeCurve.encode": (COUNT, lambda: curve.encode(points, compressed=True)),
        "PrimeCurve.decode": (COUNT, lambda: curve.decode(packed, compressed=True)),
        "PrimeCurve.from_hash": (COUNT, lambda: curve.from_hash(texts, TAG)),
        "Digest.digest": (COUNT, lambda: digest.digest(texts)),
        "Group25519.to_ristretto": (COUNT, lambda: group.to_ristretto(texts, TAG)),
        "Group25519.to_curve25519": (COUNT, lambda: group.to_curve25519(texts, TAG)),
        "Group25519.mask_elements": (COUNT, lambda: group.mask_elements(SECRET, elements)),
        "Masks.add in place": (COUNT, lambda: masks.add(SECRET[:16], SECRET[16:], words, bits=32, out=words)),
        "RingMatrices.product, 40 by 4 columns": (COUNT, lambda: rings.product(tall, wide)),
        "ModularPower.power, 2048 bits": (NUMBERS, lambda: powers.power(modulus, numbers, exponent)),
        "HePublicKey.encrypt, paillier of 2048 bits": (NUMBERS, lambda: secret.public.encrypt(plain, random)),
        "HePublicKey.add, paillier of 2048 bits": (NUMBERS, lambda: secret.public.add(encrypted, encrypted)),
        "HeSecretKey.decrypt, paillier of 2048 bits": (NUMBERS, lambda: secret.decrypt(encrypted)),
    }


def test_a_batch_takes_the_memory_that_the_page_states() -> None:
    named, table = calls(), stated()
    assert named.keys() == table.keys()
    over = {}
    for name, (count, call) in named.items():
        call()  # what is made once
        tracemalloc.start()
        try:
            result = call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        del result
        if peak > table[name] * count + SLACK:
            over[name] = peak / count
    assert over == {}
