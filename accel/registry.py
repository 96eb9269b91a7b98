"""The only place where a backend is chosen.

For every kernel there is a list of backends. The one of highest priority that neither refuses nor fails its known
answers is taken, or exactly the one named by the caller: if that one refuses it is an error, never a silent fallback.
The name comes as an argument, `forced` (None: no name); who reads the environment (`INTERCONN_ACCEL`) is the caller.
A kernel cuts each batch over `threads` native threads at most (1 to 64, BadInput otherwise), which live for the call
only.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from accel import selftest
from accel.kernels import (
    X25519,
    AdditiveHE,
    BadInput,
    Digest,
    Group25519,
    Masks,
    ModularPower,
    PrimeCurve,
    Ring128,
    RingMatrices,
    check_threads,
)
from accel.probe import Machine, probe


class BackendRefused(RuntimeError):
    """No backend may serve the kernel, or the one that was asked for may not; the text says why."""


@dataclass(frozen=True, slots=True)
class Backend:
    """refuses: None, or the reason in words. make: the kernel; the factory of a scheme takes insecure_min_bits.
    A backend of negative priority is taken only where it is asked for by name.
    """

    name: str
    priority: int
    refuses: Callable[[Machine], str | None]
    make: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was decided for one kernel. backend is None where nothing may serve it; reasons holds one line a backend."""

    kernel: str
    backend: str | None
    reasons: Mapping[str, str]


def _needs_gmpy2(machine: Machine) -> str | None:
    return None if "gmpy2" in machine.modules else "gmpy2 is not installed"


_IFMA_FLAGS: Final = ("avx512f", "avx512dq", "avx512vl", "avx512bw", "avx512ifma", "bmi2")


def _needs_native(machine: Machine) -> str | None:
    if "accel._native" not in machine.modules:
        return "the native kernels are not built here"
    try:
        importlib.import_module("accel._native")
    except ImportError as error:  # built for another architecture or C library
        return f"the native kernels do not load: {error}"
    return _needs_gmpy2(machine)


def _needs_flags(*flags: str) -> Callable[[Machine], str | None]:
    def refuses(machine: Machine) -> str | None:
        if machine.architecture not in ("x86_64", "AMD64"):
            return f"made for x86-64, not for {machine.architecture}"
        missing = [flag for flag in flags if flag not in machine.cpu_flags]
        return f"the CPU has no {', '.join(missing)}" if missing else _needs_native(machine)

    return refuses


_needs_ifma: Final = _needs_flags(*_IFMA_FLAGS)


def _native(name: str, core: str, **fixed: str) -> Callable[..., Any]:
    def make(**options: int) -> Any:
        from accel.backends import native  # noqa: PLC0415  # there may be no such extension

        return getattr(native, name)(core, **fixed, **options)

    return make


def _reference(name: str, **fixed: str) -> Callable[..., Any]:
    def make(**options: int) -> Any:
        from accel.backends import reference  # noqa: PLC0415  # gmpy2 loads only where it is used

        return getattr(reference, name)(**fixed, **options)

    return make


def _needs_cuda(machine: Machine) -> str | None:
    if "cupy" not in machine.modules:
        return "cupy is not installed (the extra `cuda`)"
    from accel.backends import cuda  # noqa: PLC0415  # CuPy is slow to load

    return cuda.refusal() or _needs_gmpy2(machine)


def _cuda(name: str) -> Backend:
    """Until somebody has run and measured it on a device, it must not replace what is known."""

    def make(**options: int) -> Any:
        from accel.backends import cuda  # noqa: PLC0415  # there may be no CuPy

        return getattr(cuda, name)(**options)

    return Backend("cuda", -10, _needs_cuda, make)


def _backends(native: str, reference: str, **fixed: str) -> tuple[Backend, ...]:
    return (
        Backend("avx512ifma", 20, _needs_ifma, _native(native, "avx512ifma", **fixed)),
        Backend("portable", 10, _needs_native, _native(native, "portable", **fixed)),
        Backend("reference", 0, _needs_gmpy2, _reference(reference, **fixed)),
    )


def _digests(algorithm: str) -> tuple[Backend, ...]:
    all_cpus = _backends("NativeDigest", "HashlibDigest", algorithm=algorithm)
    if algorithm != "sha256":
        return all_cpus
    rounds = _native("NativeDigest", "shani", algorithm=algorithm)
    return (*all_cpus, Backend("shani", 15, _needs_flags("sha_ni"), rounds))


def _masks(cipher: str) -> tuple[Backend, ...]:
    """`avx512ifma` is the name of the whole generation of CPUs, so that one forced name does for all kernels."""
    wide = _needs_flags(*_IFMA_FLAGS, "vaes", "aes")
    masks = (
        Backend("avx512ifma", 20, wide, _native("NativeMasks", "avx512ifma", cipher=cipher)),
        Backend("avx2", 15, _needs_flags("avx2", "aes"), _native("NativeMasks", "avx2", cipher=cipher)),
        Backend("portable", 10, _needs_native, _native("NativeMasks", "portable", cipher=cipher)),
        Backend("reference", 0, _needs_gmpy2, _reference("OpensslMasks", cipher=cipher)),
    )
    return (*masks, _cuda("CudaMasks")) if cipher == "aes128ctr" else masks


BACKENDS: Final[Mapping[str, tuple[Backend, ...]]] = {
    "ring128": _backends("NativeRing128", "NumpyRing128"),
    "he.ou": _backends("OkamotoUchiyama", "OkamotoUchiyama"),
    "he.paillier": _backends("Paillier", "Paillier"),
    "he.paillier-textbook": _backends("TextbookPaillier", "TextbookPaillier"),
    "modpow": (*_backends("NativePower", "GmpPower"), _cuda("CudaPower")),
    "x25519": (*_backends("NativeX25519", "OpensslX25519"), _cuda("CudaX25519")),
    "curve.p256": _backends("NativeCurve", "IntegerCurve", curve="p256"),
    "curve.sm2": _backends("NativeCurve", "IntegerCurve", curve="sm2"),
    "group25519": _backends("NativeGroup25519", "IntegerGroup25519"),
    "hash.sha256": _digests("sha256"),
    "hash.sm3": _digests("sm3"),
    "mask.aes128ctr": _masks("aes128ctr"),
    "mask.chacha20": _masks("chacha20"),
    "ringmatrices": (*_backends("NativeRingMatrices", "NumpyRingMatrices"), _cuda("CudaRingMatrices")),
}
"""Every kernel and its backends."""

_CHECKS: Final[Mapping[str, Callable[[Callable[..., Any]], None]]] = {
    "ring128": selftest.check_ring128,
    "he.ou": selftest.check_ou,
    "he.paillier": selftest.check_paillier,
    "he.paillier-textbook": selftest.check_paillier_textbook,
    "modpow": selftest.check_power,
    "x25519": selftest.check_x25519,
    "curve.p256": selftest.check_p256,
    "curve.sm2": selftest.check_sm2,
    "group25519": selftest.check_group25519,
    "hash.sha256": selftest.check_sha256,
    "hash.sm3": selftest.check_sm3,
    "mask.aes128ctr": selftest.check_aes128ctr,
    "mask.chacha20": selftest.check_chacha20,
    "ringmatrices": selftest.check_ring_matrices,
}

SCHEMES: Final = tuple(name.removeprefix("he.") for name in BACKENDS if name.startswith("he."))


@dataclass(frozen=True, slots=True)
class Answers:
    """How one backend did in its self-test. refusal: why it was not asked; wrong: what it got wrong, or None."""

    kernel: str
    backend: str
    refusal: str | None
    wrong: str | None


def known_answers(machine: Machine | None = None) -> Iterator[Answers]:
    """Asks every backend of every kernel that accepts the machine, those also that nobody would choose."""
    machine = machine or probe()
    for kernel, backends in BACKENDS.items():
        for backend in backends:
            refusal = backend.refuses(machine)
            wrong = None if refusal else _self_test(kernel, backend)
            yield Answers(kernel, backend.name, refusal, wrong)


def without_native(machine: Machine | None = None) -> str | None:
    """A note for a human if this installation has no native kernels, and what to do about it; else None."""
    refusal = _needs_native(machine or probe())
    if refusal is None:
        return None
    return (
        f"{refusal}; every kernel runs on `reference`, which is slow and not constant in time. Get a C compiler and "
        "the headers of Python (Debian: gcc python3-dev) and install again as before, with pip's options "
        "--force-reinstall --no-deps --no-cache-dir"
    )


def choose(
    kernel: str,
    forced: str | None = None,
    *,
    machine: Machine | None = None,
    backends: Mapping[str, tuple[Backend, ...]] = BACKENDS,
    explain: bool = False,
) -> tuple[Backend | None, Choice]:
    """The backend for a kernel and why; None where nothing may serve it. A candidate gives its known answers first.
    explain: also looks whether those could serve that are taken by name only, which may wake up a device.
    """
    if kernel not in backends:
        raise BackendRefused(f"there is no kernel {kernel}; there are {', '.join(backends)}")
    machine = machine or probe()
    reasons: dict[str, str] = {}
    chosen: Backend | None = None
    for backend in sorted(backends[kernel], key=lambda b: -b.priority):
        if forced is not None and backend.name != forced:
            reasons[backend.name] = f"not asked for ({forced} is forced)"
        elif forced is None and backend.priority < 0:
            refusal = backend.refuses(machine) if explain else None
            reasons[backend.name] = refusal or "is taken only where it is asked for by name"
        elif chosen is not None:
            reasons[backend.name] = f"{chosen.name} is preferred"
        else:
            refusal = backend.refuses(machine) or _self_test(kernel, backend)
            reasons[backend.name] = refusal or ("forced" if forced else "preferred of those that accept this machine")
            chosen = chosen if refusal else backend
    if forced is not None and forced not in reasons:
        reasons[forced] = "there is no such backend for this kernel"
    return chosen, Choice(kernel, chosen.name if chosen else None, reasons)


def describe(forced: str | None = None) -> list[Choice]:
    """One choice for every kernel, for a human."""
    return [choose(kernel, forced, explain=True)[1] for kernel in BACKENDS]


def ring128(forced: str | None = None, *, threads: int = 1) -> Ring128:
    """Arithmetic of Z_{2^128}. Raises BackendRefused."""
    return cast("Ring128", _make("ring128", forced, threads))


def additive_he(
    scheme: str, forced: str | None = None, *, threads: int = 1, cache_leaking_tables: bool = False
) -> AdditiveHE:
    """The scheme "ou", "paillier" (DJN, short exponents) or "paillier-textbook" (r^n), on the backend named by `forced`
    or the fastest. accel.kernels.AdditiveHE says what it can do, accel.fixedpoint encrypts floats with it.
    cache_leaking_tables: secret digits are looked up by address, which is about twice as fast; only where nobody
    else's programs share the machine's caches. Raises BackendRefused; BadInput if the scheme has no tables.
    """
    if not cache_leaking_tables:
        return cast("AdditiveHE", _make(f"he.{scheme}", forced, threads))
    if scheme == "paillier-textbook":
        raise BadInput("paillier-textbook raises a new number each time and has no tables")
    return cast("AdditiveHE", _make(f"he.{scheme}", forced, threads, cache_leaking_tables=True))


def modular_power(forced: str | None = None, *, threads: int = 1) -> ModularPower:
    """Batches of powers modulo an odd number. Raises BackendRefused."""
    return cast("ModularPower", _make("modpow", forced, threads))


def x25519(forced: str | None = None, *, threads: int = 1) -> X25519:
    """Batches of Diffie-Hellman on Curve25519. Raises BackendRefused."""
    return cast("X25519", _make("x25519", forced, threads))


def prime_curve(curve: str, forced: str | None = None, *, threads: int = 1) -> PrimeCurve:
    """The curve "p256" or "sm2". Raises BackendRefused."""
    return cast("PrimeCurve", _make(f"curve.{curve}", forced, threads))


def group25519(forced: str | None = None, *, threads: int = 1) -> Group25519:
    """Hashing to curve25519, edwards25519 and ristretto255. Raises BackendRefused."""
    return cast("Group25519", _make("group25519", forced, threads))


def digest(algorithm: str, forced: str | None = None, *, threads: int = 1) -> Digest:
    """The digest "sha256" or "sm3" of many texts. Raises BackendRefused."""
    return cast("Digest", _make(f"hash.{algorithm}", forced, threads))


def masks(cipher: str = "aes128ctr", forced: str | None = None, *, threads: int = 1) -> Masks:
    """The stream of "aes128ctr" or "chacha20" over arrays. Raises BackendRefused."""
    return cast("Masks", _make(f"mask.{cipher}", forced, threads))


def ring_matrices(forced: str | None = None, *, threads: int = 1) -> RingMatrices:
    """Dense matrices over Z_{2^64} and Z_{2^128}. Raises BackendRefused."""
    return cast("RingMatrices", _make("ringmatrices", forced, threads))


def _make(kernel: str, forced: str | None, threads: int, **options: bool) -> Any:
    """Threads and options: the reference backends take them and do not use them."""
    check_threads(threads)
    backend, choice = choose(kernel, forced)
    if backend is None:
        raise BackendRefused(f"{kernel}: " + "; ".join(f"{name}: {why}" for name, why in choice.reasons.items()))
    return backend.make(threads=threads, **options)


def _self_test(kernel: str, backend: Backend) -> str | None:
    try:
        _CHECKS[kernel](backend.make)
    except selftest.WrongAnswer as wrong:
        return f"wrong answer in its self-test: {wrong}"
    return None
