"""Rows of curves and digests."""

import hashlib
import os
from collections.abc import Callable
from functools import cache, partial
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from accel import registry
from accel.bench.contest import backends, openssl, package
from accel.bench.measure import Contest, Contestant, Job, Row
from accel.bench.rivals import Rivals
from accel.kernels import Group25519, PrimeCurve, Texts

COUNT: Final = 512
TAG: Final = b"accel-bench"
_FEW: Final = 64


def x25519(quick: bool, rivals: Rivals) -> list[Row]:
    def contest(each: bool) -> Contest:
        points, secrets = os.urandom(32 * COUNT), os.urandom(32 * (COUNT if each else 1))

        def ours(name: str) -> Job:
            kernel = registry.x25519(name)
            return Job(name, COUNT, lambda: (kernel.exchange if each else kernel.mask_points)(secrets, points))

        command = openssl(rivals, quick, "ecdhx25519", "ecdhx25519")
        return Contest([ours(name) for name in backends("x25519")], [_openssl_x25519(), *command])

    detail = f"constant time, batch of {COUNT}"
    return [
        Row("curves", "x25519, one scalar", f"one scalar for all, {detail}", "1/s", partial(contest, False)),
        Row("curves", "x25519, one scalar each", detail, "1/s", partial(contest, True)),
    ]


@cache
def _openssl_x25519() -> Job:
    private = X25519PrivateKey.generate()
    points = [X25519PublicKey.from_public_bytes(os.urandom(32)) for _ in range(_FEW)]
    return Job(package("cryptography", "X25519"), _FEW, lambda: [private.exchange(point) for point in points])


def prime_curves(quick: bool, rivals: Rivals) -> list[Row]:
    """P-256 and SM2 against OpenSSL's P-256: it has no batch and no fast SM2 to offer."""

    def products() -> list[Contestant]:
        return [_openssl_p256(), *openssl(rivals, quick, "ecdhp256", "ecdhp256")]

    jobs: tuple[tuple[str, str, Callable[[PrimeCurve], Callable[[], object]], Callable[[], list[Contestant]]], ...] = (
        ("one scalar", "one scalar for all", _masked, products),
        ("one scalar each", "", _exchanged, products),
        ("of the generator", "", _generated, lambda: [_key_generation()]),
        ("compressed, one scalar", "33 bytes a point in and out", _compressed, lambda: [
            *products(), *rivals.jobs("openmined-psi", "process", kind="answering a request"),
        ]),
        ("ids, one scalar", "hashed (SSWU, uniform), multiplied, compressed", _ids_masked, lambda: [
            *rivals.jobs("openmined-psi", "create", kind="making a request"),
        ]),
        ("hash to curve", "SSWU, uniform; the rival: one product", _hashed, lambda: [_openssl_p256()]),
    )  # fmt: skip

    def contest(
        curve: str, job: Callable[[PrimeCurve], Callable[[], object]], theirs: Callable[[], list[Contestant]]
    ) -> Contest:
        names = backends(f"curve.{curve}")
        return Contest([Job(name, COUNT, job(registry.prime_curve(curve, name))) for name in names], theirs())

    return [
        Row(
            "curves", f"{curve}, {name}", f"{detail}, constant time, batch of {COUNT}".removeprefix(", "), "1/s",
            partial(contest, curve, job, theirs),
        )
        for curve in ("p256", "sm2")
        for name, detail, job, theirs in jobs
    ]  # fmt: skip


@cache
def _openssl_p256() -> Job:
    private = ec.generate_private_key(ec.SECP256R1())
    keys = [ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(_FEW)]
    what = package("cryptography", "P-256 ECDH")
    return Job(what, _FEW, lambda: [private.exchange(ec.ECDH(), key) for key in keys])


def _key_generation() -> Job:
    what = package("cryptography", "P-256 key generation")
    return Job(what, _FEW, lambda: [ec.generate_private_key(ec.SECP256R1()) for _ in range(_FEW)])


def _ids() -> Texts:
    return Texts.of([b"%016d" % i for i in range(COUNT)])


def _masked(kernel: PrimeCurve) -> Callable[[], object]:
    return partial(kernel.mask_points, os.urandom(32), kernel.base_points(os.urandom(32 * COUNT)))


def _exchanged(kernel: PrimeCurve) -> Callable[[], object]:
    return partial(kernel.exchange, os.urandom(32 * COUNT), kernel.base_points(os.urandom(32 * COUNT)))


def _generated(kernel: PrimeCurve) -> Callable[[], object]:
    return partial(kernel.base_points, os.urandom(32 * COUNT))


def _compressed(kernel: PrimeCurve) -> Callable[[], object]:
    secret = os.urandom(32)
    packed = kernel.encode(kernel.base_points(os.urandom(32 * COUNT)), compressed=True)
    return lambda: kernel.encode(kernel.mask_points(secret, kernel.decode(packed, compressed=True)), compressed=True)


def _hashed(kernel: PrimeCurve) -> Callable[[], object]:
    return partial(kernel.from_hash, _ids(), TAG)


def _ids_masked(kernel: PrimeCurve) -> Callable[[], object]:
    secret, ids = os.urandom(32), _ids()
    return lambda: kernel.encode(kernel.mask_points(secret, kernel.from_hash(ids, TAG)), compressed=True)


def groups(quick: bool, rivals: Rivals) -> list[Row]:
    del quick, rivals
    secret, ids = os.urandom(32), _ids()
    jobs: dict[str, Callable[[Group25519], Callable[[], object]]] = {
        "ristretto255, one scalar": lambda k: partial(k.mask_elements, secret, k.to_ristretto(ids, TAG)),
        "ristretto255, hash to group": lambda k: partial(k.to_ristretto, ids, TAG),
        "curve25519, hash to curve": lambda k: partial(k.to_curve25519, ids, TAG),
    }

    def contest(job: Callable[[Group25519], Callable[[], object]]) -> Contest:
        ours = [Job(name, COUNT, job(registry.group25519(name))) for name in backends("group25519")]
        return Contest(ours, [_openssl_x25519()])

    detail = f"constant time, batch of {COUNT}; the rival: one X25519 product"
    return [Row("curves", name, detail, "1/s", partial(contest, job)) for name, job in jobs.items()]


def digests(quick: bool, rivals: Rivals) -> list[Row]:
    del quick, rivals
    count = 10_000
    items = [b"%016d" % i for i in range(count)]
    texts = Texts.of(items)

    def sm3() -> None:
        for item in items[:1000]:
            one = hashes.Hash(hashes.SM3())
            one.update(item)
            one.finalize()

    def contest(algorithm: str) -> Contest:
        rival = (
            Job("hashlib (OpenSSL)", count, lambda: [hashlib.sha256(item).digest() for item in items])
            if algorithm == "sha256"
            else Job(package("cryptography"), 1000, sm3)
        )
        kernels = {name: registry.digest(algorithm, name) for name in backends(f"hash.{algorithm}")}
        return Contest([Job(name, count, partial(k.digest, texts)) for name, k in kernels.items()], [rival])

    detail = f"ids of 16 bytes, batch of {count:,}"
    return [Row("digests", name, detail, "1/s", partial(contest, name)) for name in ("sha256", "sm3")]
