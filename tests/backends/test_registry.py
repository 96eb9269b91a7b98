"""How a backend is chosen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from accel import registry, selftest
from accel.backends.reference import NumpyRing128, OkamotoUchiyama
from accel.kernels import Uints
from accel.probe import Machine, probe
from accel.registry import BACKENDS, Backend, BackendRefused, choose

MACHINE = Machine("x86_64", frozenset({"avx2"}), frozenset({"gmpy2"}))


class WrongRing(NumpyRing128):
    name = "wrong"

    def add(self, a: Uints, b: Uints) -> Uints:
        return a


class WrongOu(OkamotoUchiyama):
    def from_factors(self, p: int, q: int, base: int) -> Any:
        return super().from_factors(p, q, base + 2)


def backends(*more: Backend) -> Mapping[str, tuple[Backend, ...]]:
    return {"ring128": (*BACKENDS["ring128"], *more)}


FAST = Backend("fast", 10, lambda _: None, NumpyRing128)
PICKY = Backend(
    "picky", 20, lambda m: None if "avx512ifma" in m.cpu_flags else "the CPU has no avx512ifma", NumpyRing128
)
WRONG = Backend("wrong", 30, lambda _: None, WrongRing)


def test_the_fastest_that_accepts_is_taken_and_every_reason_told() -> None:
    backend, choice = choose("ring128", machine=MACHINE, backends=backends(FAST, PICKY))
    assert backend is FAST
    assert choice.backend == "fast"
    assert choice.reasons["picky"] == "the CPU has no avx512ifma"
    assert choice.reasons["reference"] == "fast is preferred"


def test_a_backend_with_a_wrong_answer_is_not_taken() -> None:
    backend, choice = choose("ring128", machine=MACHINE, backends=backends(WRONG))
    assert backend is not None
    assert backend.name == "reference"
    assert choice.reasons["wrong"] == "wrong answer in its self-test: add"
    with pytest.raises(selftest.WrongAnswer):
        selftest.check_ou(WrongOu)


def test_a_forced_backend_that_refuses_is_an_error() -> None:
    for name in ("picky", "wrong", "nonesuch"):
        backend, choice = choose("ring128", name, machine=MACHINE, backends=backends(FAST, PICKY, WRONG))
        assert backend is None
        assert name in choice.reasons
    with pytest.raises(BackendRefused, match="no such backend"):
        registry.additive_he("ou", "nonesuch")
    with pytest.raises(BackendRefused, match="no kernel"):
        registry.additive_he("rot13")


def test_what_is_chosen_here() -> None:
    assert [c.kernel for c in registry.describe()] == list(BACKENDS)
    assert all(c.backend == "reference" for c in registry.describe("reference"))
    names = probe().modules
    if "accel._native" in names:
        assert registry.ring128("portable").name == "portable"
        assert all(c.backend == "portable" for c in registry.describe("portable"))
        assert all(c.backend != "reference" for c in registry.describe())
    assert registry.ring128("reference").name == "reference"
    assert registry.additive_he("paillier").scheme == "paillier"


def test_without_gmpy2_the_reason_is_told() -> None:
    _, choice = choose("he.ou", machine=Machine("x86_64", frozenset(), frozenset()))
    assert choice.backend is None
    assert choice.reasons["reference"] == "gmpy2 is not installed"


def test_why_a_native_backend_refuses() -> None:
    flags = frozenset({"avx512f", "avx512dq", "avx512vl", "avx512bw", "bmi2"})
    modules = frozenset({"gmpy2", "accel._native"})
    for machine, ifma, portable in (
        (Machine("x86_64", flags, modules), "the CPU has no avx512ifma", None),
        (Machine("aarch64", frozenset(), modules), "made for x86-64, not for aarch64", None),
        (
            Machine("x86_64", flags | {"avx512ifma"}, frozenset({"gmpy2"})),
            "the native kernels are not built here",
            "the native kernels are not built here",
        ),
    ):
        refusals = {backend.name: backend.refuses(machine) for backend in BACKENDS["he.ou"]}
        assert refusals == {"avx512ifma": ifma, "portable": portable, "reference": None}


def test_the_probe_reads_flags_of_both_architectures(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512ifma\n")
    assert probe(info).cpu_flags == {"fpu", "avx2", "avx512ifma"}
    info.write_text("Features\t: fp asimd\n")
    assert probe(info).cpu_flags == {"fp", "asimd"}
    assert probe(tmp_path / "none").cpu_flags == frozenset()
    assert "gmpy2" in probe().modules
