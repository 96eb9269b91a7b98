"""Rows of big integers: modular powers, Paillier, Okamoto-Uchiyama."""

import secrets
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Final

import gmpy2
import numpy as np

from accel import registry
from accel.bench.contest import REFERENCE, backends, package
from accel.bench.measure import Contest, Contestant, Job, Row
from accel.bench.rivals import Rivals
from accel.entropy import OsRandom
from accel.kernels import HeSecretKey, SparseMatrix, Uints

RANDOM: Final = OsRandom()
COUNT: Final = 1000
COLUMNS: Final = 10
LEAKING: Final = ", cache-leaking tables"
_POWERS: Final = 16
_TEXTBOOK: Final = 64


def batch(values: Sequence[int], limbs: int) -> Uints:
    """A plain batch (accel.kernels)."""
    data = b"".join(int(v).to_bytes(8 * limbs, "little") for v in values)
    return np.frombuffer(data, np.uint64).reshape(len(values), limbs)


def plaintexts(count: int) -> Uints:
    """Random, below 2^40."""
    return np.random.default_rng(2).integers(0, 1 << 40, (count, 1)).astype(np.uint64)


def dense_signed(rows: int, columns: int, bits: int) -> SparseMatrix:
    """X^T of a dense X of (rows, columns), entries of so many bits with the sign."""
    rng, top = np.random.default_rng(1), 1 << (bits - 1)
    return SparseMatrix(
        columns, rows, np.arange(0, rows * columns + 1, rows), np.tile(np.arange(rows), columns),
        rng.integers(-top + 1, top, rows * columns),
    )  # fmt: skip


def modexp(quick: bool, rivals: Rivals) -> list[Row]:
    del rivals
    sizes = (1024, 2048, 3072, 4096, 6144, 8192)[: 4 if quick else 6]
    detail = "modulus and exponent of {} bits, batch of 16"
    return [
        Row("modexp", f"modexp {bits}, {kind} exponent", detail.format(bits), "1/s", partial(_modexp, bits, kind))
        for bits in sizes
        for kind in ("public", "secret")
    ]


def _modexp(bits: int, kind: str) -> Contest:
    n = secrets.randbits(bits) | 1 | 1 << (bits - 1)
    e = secrets.randbits(bits) | 1 << (bits - 1)
    bases = [secrets.randbelow(n) for _ in range(_POWERS)]
    x, exponents = batch(bases, bits // 64), batch([e], bits // 64)

    def ours(name: str) -> Job:
        kernel, secret = registry.modular_power(name), kind == "secret"
        return Job(name, _POWERS, lambda: kernel.power(n, x, exponents, secret=secret))

    def theirs(name: str) -> Job:
        power = getattr(gmpy2, name)
        return Job(package("gmpy2", name), 4, lambda: [power(v, e, n) for v in bases[:4]])

    names = ("powmod",) if kind == "public" else ("powmod", "powmod_sec")
    return Contest([ours(name) for name in backends("modpow")], [theirs(name) for name in names])


@cache
def _key(scheme: str, backend: str) -> HeSecretKey:
    return registry.additive_he(scheme, backend).generate(2048, RANDOM)


def _leaking_key(scheme: str, backend: str) -> HeSecretKey:
    """Not kept: its tables are large and serve one row."""
    return registry.additive_he(scheme, backend, cache_leaking_tables=True).generate(2048, RANDOM)


@cache
def _encrypted(scheme: str, backend: str, count: int = COUNT) -> Any:
    return _key(scheme, backend).public.encrypt(plaintexts(count), RANDOM)


def _encrypt(scheme: str, backend: str, *, leaking: bool = False, count: int = COUNT) -> Job:
    key, numbers = (_leaking_key if leaking else _key)(scheme, backend).public, plaintexts(count)
    return Job(backend + (LEAKING if leaking else ""), count, lambda: key.encrypt(numbers, RANDOM))


def _encryptions(scheme: str) -> list[Job]:
    """By each backend, with and without the tables that leak; `reference` has none."""
    return [
        _encrypt(scheme, name, leaking=leaking)
        for name in backends(f"he.{scheme}")
        for leaking in ((False,) if name == REFERENCE else (False, True))
    ]


def _encrypt_by_owner(count: int, scheme: str, backend: str) -> Job:
    secret, numbers = _key(scheme, backend), plaintexts(count)
    return Job(backend, count, lambda: secret.encrypt(numbers, RANDOM))


def _decrypt(scheme: str, backend: str) -> Job:
    secret, some = _key(scheme, backend), _encrypted(scheme, backend, 200)
    return Job(backend, 200, lambda: secret.decrypt(some))


def _add(scheme: str, backend: str) -> Job:
    key, some = _key(scheme, backend).public, _encrypted(scheme, backend)
    return Job(backend, COUNT, lambda: key.add(some, some))


def _scale(scheme: str, backend: str) -> Job:
    key, some, factors = _key(scheme, backend).public, _encrypted(scheme, backend), plaintexts(COUNT)
    return Job(backend, COUNT, lambda: key.scale(some, factors))


def _products(scheme: str, rows: int) -> list[Job]:
    """A long one by the preferred backend only: the others would take minutes."""
    return [_product(scheme, rows, name) for name in backends(f"he.{scheme}")[: None if rows == COUNT else 1]]


def _each(job: Callable[[str, str], Job], scheme: str) -> list[Job]:
    return [job(scheme, name) for name in backends(f"he.{scheme}")]


def _many(quick: bool) -> int:
    return 20_000 if quick else 100_000


def _product(scheme: str, rows: int, backend: str) -> Job:
    key, matrix = _key(scheme, backend).public, dense_signed(rows, COLUMNS, 40)
    vector = key.join([_encrypted(scheme, backend)] * (rows // COUNT))
    return Job(backend, rows * COLUMNS, lambda: key.matvec(matrix, vector))


def paillier(quick: bool, rivals: Rivals) -> list[Row]:
    def against(phe: str, fate: str, heu: str) -> list[Contestant]:
        return [
            *(rivals.jobs("phe", phe, kind="textbook") if phe else ()),
            *(rivals.jobs("fate-utils", fate, kind="textbook") if fate else ()),
            *(rivals.jobs("sf-heu", f"paillier {heu}", kind="ZPaillier") if heu else ()),
        ]

    def encrypting() -> Contest:
        return Contest(_encryptions("paillier"), against("encrypt", "encrypt", "encrypt"))

    def encrypting_own() -> Contest:
        return Contest(_each(partial(_encrypt_by_owner, COUNT), "paillier"), against("encrypt", "encrypt", "encrypt"))

    def textbook(job: Callable[[str, str], Job]) -> Contest:
        return Contest(_each(job, "paillier-textbook"), against("encrypt", "encrypt", ""))

    def simple(job: Callable[[str, str], Job], name: str, heu: str) -> Contest:
        return Contest(_each(job, "paillier"), against(name, name, heu))

    def product(rows: int) -> Contest:
        return Contest(_products("paillier", rows), against("dot", "X^T v", "X^T v"))

    key, full = "n of 2048 bits, r of 448 bits (DJN)", "n of 2048 bits, r^n with r of 2048 bits"
    own = "by who has p and q, 40-bit plaintext"
    rows: list[tuple[str, str, str, Callable[[], Contest]]] = [
        ("paillier encrypt", f"{key}, 40-bit plaintext", "1/s", encrypting),
        ("paillier encrypt, own key", f"{key}, {own}", "1/s", encrypting_own),
        ("paillier encrypt, textbook", f"{full}, 40-bit plaintext", "1/s",
         partial(textbook, partial(_encrypt, count=_TEXTBOOK))),
        ("paillier encrypt, textbook, own key", f"{full}, {own}", "1/s",
         partial(textbook, partial(_encrypt_by_owner, _TEXTBOOK))),
        ("paillier decrypt", f"{key}, CRT", "1/s", partial(simple, _decrypt, "decrypt", "decrypt")),
        ("paillier add", key, "1/s", partial(simple, _add, "add", "add")),
        ("paillier scale", f"{key}, 40-bit factor", "1/s", partial(simple, _scale, "scale", "")),
        *(
            (f"paillier X^T v {n}x10", f"{key}, 40-bit signed entries", "entries/s", partial(product, n))
            for n in (COUNT, _many(quick))
        ),
    ]  # fmt: skip
    return [Row("paillier", *row) for row in rows]


def okamoto_uchiyama(quick: bool, rivals: Rivals) -> list[Row]:
    def contest(ours: Callable[[], list[Job]], name: str) -> Contest:
        theirs = rivals.jobs("sf-heu", f"ou {name}", kind="OU")
        return Contest(ours(), theirs)

    key = "n of 2048 bits, r of 256 bits"
    jobs: list[tuple[str, str, str, str, Callable[[], list[Job]]]] = [
        ("encrypt", f"{key}, 40-bit plaintext", "1/s", "encrypt", partial(_encryptions, "ou")),
        ("decrypt", key, "1/s", "decrypt", partial(_each, _decrypt, "ou")),
        ("add", key, "1/s", "add", partial(_each, _add, "ou")),
        *(
            (f"X^T v {n}x10", f"{key}, 40-bit signed entries", "entries/s", "X^T v", partial(_products, "ou", n))
            for n in (COUNT, _many(quick))
        ),
    ]
    return [
        Row("okamoto-uchiyama", f"ou {name}", detail, unit, partial(contest, ours, theirs))
        for name, detail, unit, theirs, ours in jobs
    ]
