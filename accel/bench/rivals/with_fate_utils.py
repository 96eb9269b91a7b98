"""fate_utils, the Rust library of FATE: textbook Paillier. Imported by serve.py only."""

from collections.abc import Callable, Mapping
from importlib import metadata

import numpy as np
from fate_utils import paillier


def load() -> tuple[str, Mapping[str, Callable[[], int]]]:
    """Label, and jobs that say how many units they did."""
    secret, public, coder = paillier.keygen(2048)
    count, rows, columns = 20, 50, 10
    top = 1 << 39
    rng = np.random.default_rng(1)
    plain = coder.encode_i64_vec(rng.integers(0, 2 * top, count))
    factors = coder.encode_i64_vec(rng.integers(0, 2 * top, rows))
    batch = public.encrypt_encoded(coder.encode_i64_vec(rng.integers(0, 2 * top, rows)), True)
    many = batch.cat([batch] * 19)
    entries = coder.encode_i64_vec(rng.integers(-top + 1, top, rows * columns))

    def encrypt() -> int:
        public.encrypt_encoded(plain, True)
        return count

    def decrypt() -> int:
        secret.decrypt_to_encoded(batch)
        return rows

    def add() -> int:
        many.add(public, many)
        return 20 * rows

    def scale() -> int:
        batch.mul(public, factors)
        return rows

    def product() -> int:
        batch.matmul(public, entries, [1, rows], [rows, columns])
        return rows * columns

    jobs = {"encrypt": encrypt, "decrypt": decrypt, "add": add, "scale": scale, "X^T v": product}
    return f"fate-utils {metadata.version('fate-utils')}", jobs
