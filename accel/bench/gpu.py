"""The CUDA kernels against the fastest CPU backend of the same machine: `interconn bench gpu`.

A call of a kernel is timed whole, with the copies to the device and back. The two take turns, so that a busy machine
slows both alike; each must give the other's result before it is timed. Other products are the rivals of
accel.bench.run.
"""

import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from accel import registry
from accel.bench.measure import timed
from accel.kernels import SparseMatrix

GPU: Final = "cuda"


@dataclass(frozen=True, slots=True)
class Job:
    """run(kernel, count) does `count` units of work with a kernel of the registry's name; its result is compared."""

    kernel: str
    detail: str
    unit: str
    count: int
    run: Callable[[Any, int], object]


@dataclass(frozen=True, slots=True)
class Result:
    """Units a second, medians over the rounds; ratio: the median over the rounds of theirs / ours of one round."""

    kernel: str
    detail: str
    unit: str
    backend: str
    rate: float
    cpu_backend: str
    cpu_rate: float
    ratio: float


class Disagreement(Exception):
    """The device computed something else than the CPU."""


def missing() -> str | None:
    """Why nothing can be measured here, or None."""
    for kernel in dict.fromkeys(job.kernel for job in jobs(1)):
        backend, choice = registry.choose(kernel, GPU)
        if backend is None:
            return f"there is no GPU to measure: {choice.reasons[GPU]}"
    return None


def jobs(batch: int) -> Iterator[Job]:
    """What is measured; inputs are random but the same for both sides."""
    rng = np.random.default_rng(1)

    def words(*shape: int) -> NDArray[np.uint64]:
        return rng.integers(0, 1 << 64, shape, np.uint64)

    for bits, exponent_bits in ((2048, 2048), (4096, 448)):
        limbs = bits // 64
        modulus = int.from_bytes(words(limbs).tobytes(), "little") | 1 | 1 << (bits - 1)
        bases, exponents = words(batch, limbs), words(1, exponent_bits // 64)
        bases[:, -1] >>= np.uint64(1)

        def power(kernel: Any, count: int, n: int = modulus, x: Any = bases, e: Any = exponents) -> object:
            return kernel.power(n, x[:count], e)

        detail = f"{bits}-bit modulus, secret {exponent_bits}-bit exponent"
        yield Job("modpow", detail, "1/s", batch, power)

    values = rng.integers(1 - (1 << 40), 1 << 40, 10 * batch)

    def matvec(kernel: Any, count: int, n: int = modulus, x: Any = bases) -> object:
        ring = kernel.ring(n)
        cols, starts = np.tile(np.arange(count), 10), np.arange(0, 10 * count + 1, count)
        return ring.dump(ring.matvec(SparseMatrix(10, count, starts, cols, values[: 10 * count]), ring.load(x[:count])))

    yield Job("modpow", "multi-exponentiation, 10 rows, 40 bits, 4096-bit modulus", "columns/s", batch, matvec)
    secret, points = os.urandom(32), words(batch, 4).tobytes()

    def masked(kernel: Any, count: int) -> object:
        return kernel.mask_points(secret, points[: 32 * count])

    yield Job("x25519", "one scalar for all", "1/s", batch, masked)
    key, nonce, array = os.urandom(16), os.urandom(16), words(64 * batch).view(np.uint32)
    yield Job(
        "mask.aes128ctr", "added to uint32", "elements/s", len(array),
        lambda k, count: k.add(key, nonce, array[:count], bits=32),
    )  # fmt: skip
    for name, shape in (("2^64", ()), ("2^128", (2,))):
        a, w, d = words(8 * batch, 40, *shape), words(40, 1, *shape), words(8 * batch, 1, *shape)

        def product(kernel: Any, count: int, a: Any = a, w: Any = w) -> object:
            return kernel.product(a[:count], w)

        def transposed(kernel: Any, count: int, a: Any = a, d: Any = d) -> object:
            return kernel.product(a[:count], d[:count], transposed=True)

        yield Job("ringmatrices", f"rows of 40 modulo {name}, by a vector", "rows/s", len(a), product)
        yield Job("ringmatrices", f"rows of 40 modulo {name}, transposed", "rows/s", len(a), transposed)


def measured(what: Iterator[Job], gpu: str, *, rounds: int, threads: int) -> Iterator[Result]:
    """Raises BackendRefused where `gpu` cannot serve, DeviceFailed, and Disagreement before any time is reported."""
    for job in what:
        (ours, _), (theirs, choice) = (registry.choose(job.kernel, name) for name in (gpu, None))
        if ours is None or theirs is None:
            raise registry.BackendRefused(f"{job.kernel}: {choice.reasons}")
        kernel, rival = ours.make(), theirs.make(threads=threads)
        few = max(1, job.count // 16)  # the CPU's rate does not grow with the batch
        if _octets(job.run(kernel, few)) != _octets(job.run(rival, few)):
            raise Disagreement(f"{job.kernel}, {job.detail}: {gpu} and {theirs.name} disagree")
        job.run(kernel, job.count)
        rates = [(_rate(job, kernel, job.count), _rate(job, rival, few)) for _ in range(rounds)]
        yield Result(
            job.kernel, job.detail, job.unit, ours.name, statistics.median(r[0] for r in rates), theirs.name,
            statistics.median(r[1] for r in rates), statistics.median(a / b for a, b in rates),
        )  # fmt: skip


def _octets(result: Any) -> bytes:
    return result if isinstance(result, bytes) else bytes(result.tobytes())


def _rate(job: Job, kernel: Any, count: int) -> float:
    def work() -> int:
        job.run(kernel, count)
        return count

    return timed(work, 0)
