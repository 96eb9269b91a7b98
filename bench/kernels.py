"""The kernels of accel/ against their rivals: `python -m bench.kernels [--quick] [--only TEXT] [--json FILE]`, and
`--heu PYTHON` for the rows of sf-heu. Beside the JSON goes one drawing for each family.

One thread. Contestants of a row take turns (A/B/A/B ...), so that a busy machine slows all of them alike; the ratio of
a row is the median over the rounds of (ours / rival), both of the same round. A rival that is not installed is left out
and named. Rates mean nothing on another machine; ratios mean little on another class of CPU.
"""

import argparse
import hashlib
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import gmpy2
import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from accel import registry
from accel.entropy import OsRandom
from accel.kernels import SparseMatrix, Texts
from accel.probe import probe
from bench.plots import write_plots

RANDOM = OsRandom()
Run = Callable[[], object]


@dataclass(frozen=True)
class Contestant:
    """`run` does `work` units; a rival's name starts with its package."""

    name: str
    work: int
    run: Run


@dataclass(frozen=True)
class Row:
    kernel: str
    detail: str
    unit: str
    rival: Contestant
    ours: tuple[Contestant, ...]


@dataclass(frozen=True)
class Result:
    kernel: str
    detail: str
    unit: str
    rival: str
    rival_rate: float
    backend: str
    rate: float
    rate_spread: tuple[float, float]
    ratio: float
    ratio_spread: tuple[float, float]


def rate(contestant: Contestant, seconds: float) -> float:
    done, begun = 0, time.perf_counter()
    while True:
        contestant.run()
        done += contestant.work
        spent = time.perf_counter() - begun
        if spent >= seconds:
            return done / spent


def measure(row: Row, rounds: int, seconds: float) -> list[Result]:
    for contestant in (row.rival, *row.ours):
        contestant.run()  # tables and constants are made once for a key
    rival, ours = [], {c.name: [] for c in row.ours}
    for _ in range(rounds):
        rival.append(rate(row.rival, seconds))
        for contestant in row.ours:
            ours[contestant.name].append(rate(contestant, seconds))
    results = []
    for name, rates in ours.items():
        ratios = [a / b for a, b in zip(rates, rival, strict=True)]
        results.append(
            Result(
                row.kernel, row.detail, row.unit, row.rival.name, statistics.median(rival), name,
                statistics.median(rates), (min(rates), max(rates)),
                statistics.median(ratios), (min(ratios), max(ratios)),
            )
        )  # fmt: skip
    return results


def native_backends(kernel: str) -> list[str]:
    return [b.name for b in registry.BACKENDS[kernel] if b.name != "reference" and b.refuses(probe()) is None]


def plain(values: Sequence[int], limbs: int) -> np.ndarray:
    data = b"".join(int(v).to_bytes(8 * limbs, "little") for v in values)
    return np.frombuffer(data, np.uint64).reshape(len(values), limbs)


def modexp(quick: bool) -> Iterator[Row]:
    for bits in (1024, 2048, 3072, 4096, 6144)[: 4 if quick else 5]:
        n = secrets.randbits(bits) | 1 | 1 << (bits - 1)
        e = secrets.randbits(bits) | 1 << (bits - 1)
        bases = [secrets.randbelow(n) for _ in range(16)]
        x, powers = plain(bases, bits // 64), plain([e], bits // 64)
        ours = []
        for name in native_backends("modpow"):
            kernel = registry.modular_power(name)
            for secret in (False, True):
                label = f"{name}, {'secret' if secret else 'public'} exponent"
                ours.append(
                    Contestant(label, 16, lambda k=kernel, s=secret, n=n, x=x, p=powers: k.power(n, x, p, secret=s))
                )
        rival = Contestant(
            f"gmpy2 {metadata.version('gmpy2')}", 4, lambda n=n, e=e, b=bases[:4]: [gmpy2.powmod(v, e, n) for v in b]
        )
        yield Row("modexp", f"{bits}-bit modulus and exponent", "1/s", rival, tuple(ours))


def sparse(rows: int, cols: int, bits: int) -> SparseMatrix:
    """Dense, signed, `bits` bits with the sign; transposed, as X^T of a gradient."""
    rng = np.random.default_rng(1)
    top = 1 << (bits - 1)
    return SparseMatrix(
        cols, rows, np.arange(0, rows * cols + 1, rows), np.tile(np.arange(rows), cols),
        rng.integers(-top + 1, top, rows * cols),
    )  # fmt: skip


def additive(quick: bool) -> Iterator[Row]:
    try:
        from phe import paillier as phe  # noqa: PLC0415  # a test oracle, never shipped
    except ImportError:
        print("phe is not installed: the homomorphic rows are left out", file=sys.stderr)
        return
    name = f"phe {metadata.version('phe')}"
    public, private = phe.generate_paillier_keypair(n_length=2048)
    one = public.encrypt(1234567890123)
    few = [one] * 10
    factor = 987654321987
    rivals = {
        "encrypt": Contestant(name, 10, lambda: [public.encrypt(7) for _ in few]),
        "decrypt": Contestant(name, 10, lambda: [private.decrypt(c) for c in few]),
        "add": Contestant(name, 1000, lambda: [one + one for _ in range(1000)]),
        "scale": Contestant(name, 50, lambda: [one * factor for _ in range(50)]),
    }
    count = 1000
    big = 20_000 if quick else 100_000
    numbers = np.random.default_rng(2).integers(0, 1 << 40, (count, 1)).astype(np.uint64)
    for scheme, title in (("paillier", "Paillier-2048, DJN 448-bit r"), ("ou", "Okamoto-Uchiyama-2048, 256-bit r")):
        ours: dict[str, list[Contestant]] = {}
        for backend in native_backends(f"he.{scheme}"):
            kernels = {"": registry.additive_he(scheme, backend)}
            entry = next(b for b in registry.BACKENDS[f"he.{scheme}"] if b.name == backend)
            kernels[", cache-leaking tables"] = entry.make(cache_leaking_tables=True)
            sizes = (1000, big) if backend == "avx512ifma" else (1000,)
            for label, he in kernels.items():
                secret = he.generate(2048, RANDOM)
                key = secret.public
                batch = key.encrypt(numbers, RANDOM)
                jobs: dict[str, tuple[int, Run]] = {
                    "encrypt": (count, lambda key=key: key.encrypt(numbers, RANDOM)),
                }
                if not label:
                    few_of_ours = key.split(batch, [200, 800])[0]
                    jobs |= {
                        "decrypt": (
                            200,
                            lambda secret=secret, part=few_of_ours: secret.decrypt(part),
                        ),
                        "add": (count, lambda key=key, batch=batch: key.add(batch, batch)),
                        "scale": (count, lambda key=key, batch=batch: key.scale(batch, numbers)),
                    }
                    for rows in sizes:
                        matrix = sparse(rows, 10, 40)
                        vector = key.join([batch] * (rows // count))
                        jobs[f"X^T v {rows}x10"] = (
                            rows * 10,
                            lambda key=key, matrix=matrix, vector=vector: key.matvec(matrix, vector),
                        )
                for job, (work, run) in jobs.items():
                    ours.setdefault(job, []).append(Contestant(backend + label, work, run))
        for job, contestants in ours.items():
            # phe has no product with a matrix: one multiplication by a plaintext is the work of one entry.
            rival = rivals["scale" if job.startswith("X^T") else job]
            detail = {"scale": "40-bit factor, ", "encrypt": "40-bit plaintext, "}.get(
                job, "40-bit signed, " if "X^T" in job else ""
            )
            note = "rival: textbook Paillier-2048" if scheme == "paillier" else "rival: Paillier-2048"
            yield Row(
                f"{scheme} {job}",
                f"{detail}{title}; {note}",
                "entries/s" if "X^T" in job else "1/s",
                rival,
                tuple(contestants),
            )


def heu_rows(python: str, scheme: str) -> Iterator[Row]:
    """sf-heu of another environment, job by job over a pipe."""
    script = str(Path(__file__).with_name("heu_rival.py"))
    process = subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None  # both are pipes
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("ready "):
                break
        else:
            print("sf-heu does not start: its rows are left out", file=sys.stderr)
            return

        def ask(job: str) -> None:
            process.stdin.write(job + "\n")
            process.stdin.flush()
            if process.stdout.readline() != "done\n":
                raise RuntimeError("sf-heu ended")

        numbers = (np.arange(1000, dtype=np.uint64) << 20).reshape(-1, 1)
        secret = registry.additive_he(scheme).generate(2048, RANDOM)
        key, matrix = secret.public, sparse(1000, 10, 40)
        batch = key.encrypt(numbers, RANDOM)
        theirs = f"sf-heu {line.split()[1]} {'OU' if scheme == 'ou' else 'ZPaillier'}-2048"
        for job, work, run in (
            ("encrypt", 1000, lambda: key.encrypt(numbers, RANDOM)),
            ("decrypt", 1000, lambda: secret.decrypt(batch)),
            ("add", 1000, lambda: key.add(batch, batch)),
            ("X^T v 1000x10", 10_000, lambda: key.matvec(matrix, batch)),
        ):
            rival = Contestant(theirs, work, lambda j=f"{scheme} {job}": ask(j))
            yield Row(
                f"{scheme} {job}", "2048-bit key, 40 bits", "entries/s" if "X^T" in job else "1/s", rival,
                (Contestant(registry.additive_he(scheme).name, work, run),),
            )  # fmt: skip
    finally:
        process.stdin.close()
        process.wait()


def curve(quick: bool) -> Iterator[Row]:
    del quick
    secret, points = os.urandom(32), os.urandom(32 * 256)
    private = X25519PrivateKey.from_private_bytes(secret)
    loaded = [X25519PublicKey.from_public_bytes(points[32 * i : 32 * i + 32]) for i in range(64)]
    rival = Contestant(
        f"cryptography {metadata.version('cryptography')} (OpenSSL)", 64, lambda: [private.exchange(p) for p in loaded]
    )
    ours = []
    for name in native_backends("x25519"):
        kernel = registry.x25519(name)
        ours.append(Contestant(name, 256, lambda k=kernel: k.mask_points(secret, points)))
    yield Row("x25519", "one scalar for all, constant time", "1/s", rival, tuple(ours))


def curve_rows(quick: bool) -> Iterator[Row]:
    """P-256 and SM2 against OpenSSL's P-256: it has no batch of SM2 products to offer."""
    count = 512
    private = ec.generate_private_key(ec.SECP256R1())
    keys = [ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(32)]
    openssl = f"cryptography {metadata.version('cryptography')} (OpenSSL"
    rival = Contestant(f"{openssl} P-256 ECDH)", 32, lambda: [private.exchange(ec.ECDH(), key) for key in keys])
    making = Contestant(
        f"{openssl} P-256 key generation)", 32, lambda: [ec.generate_private_key(ec.SECP256R1()) for _ in range(32)]
    )
    secret, secrets_of = os.urandom(32), os.urandom(32 * count)
    texts = Texts.of([b"%016d" % i for i in range(count)])
    for name in ("p256", "sm2"):
        jobs: dict[str, list[Contestant]] = {}
        for backend in native_backends(f"curve.{name}"):
            kernel = registry.prime_curve(name, backend)
            points = kernel.base_points(secrets_of)
            packed = kernel.encode(points, compressed=True)
            for job, run in {
                "one scalar for all": lambda k=kernel, p=points: k.mask_points(secret, p),
                "one scalar each": lambda k=kernel, p=points: k.exchange(secrets_of, p),
                "compressed in and out, one scalar": lambda k=kernel, p=packed: k.encode(
                    k.mask_points(secret, k.decode(p, compressed=True)), compressed=True
                ),
                "of the generator": lambda k=kernel: k.base_points(secrets_of),
                "hash to curve (SSWU, uniform)": lambda k=kernel: k.from_hash(texts, b"bench"),
            }.items():
                jobs.setdefault(job, []).append(Contestant(backend, count, run))
        for job, ours in jobs.items():
            yield Row(
                f"{name} products" if "hash" not in job else f"{name} hashing",
                f"{job}, constant time", "1/s", making if "generator" in job else rival, tuple(ours),
            )  # fmt: skip
    del quick


def group_rows(quick: bool) -> Iterator[Row]:
    del quick
    count = 512
    private = X25519PrivateKey.generate()
    keys = [X25519PrivateKey.generate().public_key() for _ in range(64)]
    rival = Contestant(
        f"cryptography {metadata.version('cryptography')} (OpenSSL X25519)",
        64,
        lambda: [private.exchange(k) for k in keys],
    )
    secret, texts = os.urandom(32), Texts.of([b"%016d" % i for i in range(count)])
    jobs: dict[str, list[Contestant]] = {}
    for name in native_backends("group25519"):
        kernel = registry.group25519(name)
        elements = kernel.to_ristretto(texts, b"bench")
        for job, run in {
            "ristretto255 products": lambda k=kernel, e=elements: k.mask_elements(secret, e),
            "ristretto255 hashing": lambda k=kernel: k.to_ristretto(texts, b"bench"),
            "curve25519 hashing (ELL2, uniform)": lambda k=kernel: k.to_curve25519(texts, b"bench"),
        }.items():
            jobs.setdefault(job, []).append(Contestant(name, count, run))
    for job, ours in jobs.items():
        yield Row(job, "constant time", "1/s", rival, tuple(ours))


def digests(quick: bool) -> Iterator[Row]:
    del quick
    count = 10_000
    items = [b"%016d" % i for i in range(count)]
    texts = Texts.of(items)

    def sm3() -> None:
        for item in items[:1000]:
            one = hashes.Hash(hashes.SM3())
            one.update(item)
            one.finalize()

    openssl = f"cryptography {metadata.version('cryptography')} (OpenSSL)"
    rivals = {
        "sha256": Contestant("python hashlib (OpenSSL)", count, lambda: [hashlib.sha256(t).digest() for t in items]),
        "sm3": Contestant(openssl, 1000, sm3),
    }
    for algorithm, rival in rivals.items():
        ours = []
        for name in native_backends(f"hash.{algorithm}"):
            kernel = registry.digest(algorithm, name)
            ours.append(Contestant(name, count, lambda k=kernel: k.digest(texts)))
        yield Row(algorithm, "ids of 16 bytes", "1/s", rival, tuple(ours))


def threads(quick: bool) -> Iterator[Row]:
    """Two native threads against one of the same kernel; worth reading only where two cores are idle."""
    del quick
    count = 8192
    secret, points = os.urandom(32), os.urandom(32 * count)
    one, two = registry.x25519(), registry.x25519(threads=2)
    yield Row(
        "two threads: x25519", f"batch of {count}", "1/s",
        Contestant("the same, one thread", count, lambda: one.mask_points(secret, points)),
        (Contestant(two.name, count, lambda: two.mask_points(secret, points)),),
    )  # fmt: skip
    single, double = registry.prime_curve("sm2"), registry.prime_curve("sm2", threads=2)
    on_curve = single.base_points(points)
    yield Row(
        "two threads: sm2", f"batch of {count}", "1/s",
        Contestant("the same, one thread", count, lambda: single.mask_points(secret, on_curve)),
        (Contestant(double.name, count, lambda: double.mask_points(secret, on_curve)),),
    )  # fmt: skip
    n = secrets.randbits(2048) | 1 | 1 << 2047
    bases, exponent = plain([secrets.randbelow(n) for _ in range(256)], 32), plain([n >> 1], 32)
    alone, pair = registry.modular_power(), registry.modular_power(threads=2)
    yield Row(
        "two threads: modexp", "2048 bits, secret exponent, batch of 256", "1/s",
        Contestant("the same, one thread", 256, lambda: alone.power(n, bases, exponent)),
        (Contestant(pair.name, 256, lambda: pair.power(n, bases, exponent)),),
    )  # fmt: skip
    he, he2 = (registry.additive_he("paillier", threads=n) for n in (1, 2))
    plain_numbers = np.arange(1024, dtype=np.uint64).reshape(-1, 1)
    primes = he.generate(2048, RANDOM).factors()
    keys = [kernel.from_factors(*primes, 3) for kernel in (he, he2)]
    batches = [key.public.encrypt(plain_numbers, RANDOM) for key in keys]
    matrix = sparse(1024, 40, 40)
    left, right = batches
    for title, work, first, second in (
        ("paillier encrypt", 1024, lambda: keys[0].public.encrypt(plain_numbers, RANDOM),
         lambda: keys[1].public.encrypt(plain_numbers, RANDOM)),
        ("paillier decrypt", 1024, lambda: keys[0].decrypt(left), lambda: keys[1].decrypt(right)),
        ("paillier X^T v", 40_960, lambda: keys[0].public.matvec(matrix, left),
         lambda: keys[1].public.matvec(matrix, right)),
    ):  # fmt: skip
        yield Row(
            f"two threads: {title}", "Paillier-2048, batch of 1024, 40-bit entries", "1/s",
            Contestant("the same, one thread", work, first), (Contestant(he2.name, work, second),),
        )  # fmt: skip
    lone, both = registry.masks(), registry.masks(threads=2)
    words, key, nonce = np.zeros(4_000_000, np.uint32), os.urandom(16), os.urandom(16)
    yield Row(
        "two threads: mask aes128ctr", "16 MB of uint32 in place", "B/s",
        Contestant("the same, one thread", words.nbytes, lambda: lone.add(key, nonce, words, bits=32, out=words)),
        (Contestant(both.name, words.nbytes, lambda: both.add(key, nonce, words, bits=32, out=words)),),
    )  # fmt: skip
    narrow, broad = registry.ring_matrices(), registry.ring_matrices(threads=2)
    dense = np.ones((200_000, 40), np.uint64)
    column = np.ones((200_000, 1), np.uint64)
    yield Row(
        "two threads: ring64 X^T d", "200000x40 dense", "entries/s",
        Contestant("the same, one thread", dense.size, lambda: narrow.product(dense, column, transposed=True)),
        (Contestant(broad.name, dense.size, lambda: broad.product(dense, column, transposed=True)),),
    )  # fmt: skip


def ring(quick: bool) -> Iterator[Row]:
    rows = 20_000 if quick else 100_000
    matrix = sparse(rows, 40, 20)
    vector = np.frombuffer(os.urandom(16 * rows), np.uint64).reshape(rows, 2)
    reference = registry.ring128("reference")
    kernels = {name: registry.ring128(name) for name in native_backends("ring128")[:1]}
    ours = [Contestant(name, rows * 40, lambda k=kernels[name]: k.matvec(matrix, vector)) for name in kernels]
    rival = Contestant(
        f"numpy {metadata.version('numpy')} (backend reference)", rows * 40, lambda: reference.matvec(matrix, vector)
    )
    yield Row("ring128 X^T v", f"{rows}x40, 20-bit entries, Z_2^128", "entries/s", rival, tuple(ours))


def masks(quick: bool) -> Iterator[Row]:
    del quick
    key, long, nonce = os.urandom(16), os.urandom(32), os.urandom(16)
    package = f"cryptography {metadata.version('cryptography')} (OpenSSL)"
    zeros, room = bytes(4_000_000), bytearray(4_000_016)
    for cipher, title in (("aes128ctr", "AES-128-CTR"), ("chacha20", "ChaCha20")):
        if cipher == "aes128ctr":
            stream = Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()
        else:
            stream = Cipher(algorithms.ChaCha20(long, nonce), mode=None).encryptor()
        rival = Contestant(f"{package}, the cipher alone", 4_000_000, lambda s=stream: s.update_into(zeros, room))
        for bits, dtype, shape in (
            (32, np.uint32, 1_000_000),
            (64, np.uint64, 500_000),
            (128, np.uint64, (250_000, 2)),
        ):
            values, out = np.ones(shape, dtype), np.empty(shape, dtype)
            ours = []
            for name in native_backends(f"mask.{cipher}"):
                kernel = registry.masks(cipher, name)
                secret = key if cipher == "aes128ctr" else long
                ours.append(
                    Contestant(
                        name, values.nbytes,
                        lambda k=kernel, s=secret, v=values, o=out, b=bits: k.add(
                            s, nonce[: k.nonce_bytes], v, bits=b, out=o
                        ),
                    )
                )  # fmt: skip
            yield Row(f"mask {cipher}", f"{title} added to 4 MB of uint{bits}", "B/s", rival, tuple(ours))


def ring_products(quick: bool) -> Iterator[Row]:
    rows = 200_000 if quick else 1_000_000
    rng = np.random.default_rng(3)
    a = rng.integers(0, 2**64, (rows, 40), np.uint64)
    w, d = rng.integers(0, 2**64, (40, 1), np.uint64), rng.integers(0, 2**64, (rows, 1), np.uint64)
    package = f"numpy {metadata.version('numpy')}"
    kernels = {name: registry.ring_matrices(name) for name in native_backends("ringmatrices")}
    for title, right, transposed in (("X w", w, False), ("X^T d", d, True)):
        rival = Contestant(package, rows * 40, lambda t=transposed, r=right: (a.T if t else a) @ r)
        ours = [
            Contestant(name, rows * 40, lambda k=kernel, r=right, t=transposed: k.product(a, r, transposed=t))
            for name, kernel in kernels.items()
        ]
        yield Row(f"ring64 {title}", f"{rows}x40 dense, Z_2^64", "entries/s", rival, tuple(ours))


def textbook(quick: bool) -> Iterator[Row]:
    """phe's own scheme, like for like."""
    del quick
    try:
        from phe import paillier as phe  # noqa: PLC0415  # a test oracle, never shipped
    except ImportError:
        return
    public, _ = phe.generate_paillier_keypair(n_length=2048)
    numbers = np.random.default_rng(2).integers(0, 1 << 40, (64, 1)).astype(np.uint64)
    ours = []
    for name in native_backends("he.paillier-textbook"):
        key = registry.additive_he("paillier-textbook", name).generate(2048, RANDOM).public
        ours.append(Contestant(name, 64, lambda k=key: k.encrypt(numbers, RANDOM)))
    rival = Contestant(f"phe {metadata.version('phe')}", 10, lambda: [public.encrypt(7) for _ in range(10)])
    yield Row("paillier-textbook encrypt", "40-bit plaintext, 2048-bit key, r^n both", "1/s", rival, tuple(ours))


FAMILIES = (
    modexp, additive, textbook, curve, curve_rows, group_rows, digests, threads, ring, masks, ring_products,
)  # fmt: skip


def machine() -> dict[str, Any]:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "avx512ifma": "avx512ifma" in probe().cpu_flags,
        "python": platform.python_version(),
        "load_average_before": os.getloadavg()[0],
    }


def table(results: Sequence[Result]) -> str:
    lines = ["| kernel | what | backend | rate | rival | its rate | ratio (min-max) |", "|---|---|---|---|---|---|---|"]
    for r in results:
        low, high = r.ratio_spread
        lines.append(
            f"| {r.kernel} | {r.detail} | {r.backend} | {r.rate:,.0f} {r.unit} | {r.rival} | {r.rival_rate:,.0f} "
            f"| **{r.ratio:.1f}** ({low:.1f}-{high:.1f}) |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, smaller matrices")
    parser.add_argument("--only", default="", help="rows whose kernel contains this text")
    parser.add_argument("--heu", default="", metavar="PYTHON", help="of an environment that has sf-heu: its rows too")
    parser.add_argument("--json", type=Path, default=Path("build/bench/kernels.json"))
    options = parser.parse_args()
    rounds, seconds = (3, 0.15) if options.quick else (5, 0.25)
    facts, results = machine(), []
    families: dict[str, Callable[[bool], Iterator[Row]]] = {family.__name__: family for family in FAMILIES}
    if options.heu:
        families |= {f"heu_{scheme}": lambda _, s=scheme: heu_rows(options.heu, s) for scheme in ("ou", "paillier")}
    shown: dict[str, list[Result]] = {}
    print(json.dumps(facts))
    for title, family in families.items():
        for row in family(options.quick):
            if options.only in row.kernel:
                part = measure(row, rounds, seconds)
                results += part
                shown.setdefault(title, []).extend(part)
                for r in part:
                    print(
                        f"{r.kernel:24} {r.backend:36} {r.rate:14,.0f} {r.unit:9} {r.ratio:8.2f}x {r.rival}", flush=True
                    )
    facts["load_average_after"] = os.getloadavg()[0]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": facts, "results": [asdict(r) for r in results]}, indent=1))
    write_plots(options.json.parent, shown)
    print("\n" + table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
