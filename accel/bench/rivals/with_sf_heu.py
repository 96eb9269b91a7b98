"""sf-heu of SecretFlow: Okamoto-Uchiyama, and Paillier with short exponents (ZPaillier). Imported by serve.py only."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import metadata
from typing import Any

import numpy as np
from heu import numpy as hnp
from heu import phe

COUNT, COLUMNS = 1000, 10


def load() -> tuple[str, Mapping[str, Callable[[], int]]]:
    """Label, and jobs that say how many units they did."""
    jobs: dict[str, Callable[[], int]] = {}
    for scheme, rows in (("ou", COUNT), ("paillier", COUNT // 5)):
        jobs[f"{scheme} encrypt"] = partial(_encrypt, scheme)
        jobs[f"{scheme} decrypt"] = partial(_decrypt, scheme)
        jobs[f"{scheme} add"] = partial(_add, scheme)
        jobs[f"{scheme} X^T v"] = partial(_product, scheme, rows)
    return f"sf-heu {metadata.version('sf-heu')}", jobs


@cache
def _kit(scheme: str) -> Any:
    return hnp.setup({"ou": phe.SchemaType.OU, "paillier": phe.SchemaType.ZPaillier}[scheme], 2048)


@cache
def _plain(scheme: str, count: int = COUNT) -> Any:
    return _kit(scheme).array(np.random.default_rng(2).integers(0, 1 << 40, count))


@cache
def _batch(scheme: str, count: int = COUNT) -> Any:
    return _kit(scheme).encryptor().encrypt(_plain(scheme, count))


@cache
def _matrix(scheme: str, rows: int) -> Any:
    top = 1 << 39
    return _kit(scheme).array(np.random.default_rng(1).integers(-top + 1, top, (COLUMNS, rows)))


def _encrypt(scheme: str) -> int:
    _kit(scheme).encryptor().encrypt(_plain(scheme))
    return COUNT


def _decrypt(scheme: str) -> int:
    _kit(scheme).decryptor().decrypt(_batch(scheme, 200))
    return 200


def _add(scheme: str) -> int:
    _kit(scheme).evaluator().add(_batch(scheme), _batch(scheme))
    return COUNT


def _product(scheme: str, rows: int) -> int:
    _kit(scheme).evaluator().matmul(_matrix(scheme, rows), _batch(scheme, rows))
    return rows * COLUMNS
