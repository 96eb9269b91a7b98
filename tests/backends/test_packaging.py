"""How the kernels reach a user: what is packaged, what takes the sources, what an installation loads and says."""

import ast
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from accel import __main__ as command
from accel import registry
from accel.probe import Machine, probe
from accel.registry import Answers
from gateway import cli
from gateway.app import serve

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "accel" / "csrc"
BARE = Machine("x86_64", frozenset(), frozenset({"gmpy2"}))
STRICT = ("-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-pthread")
native = pytest.mark.skipif("accel._native" not in probe().modules, reason="the native kernels are not built here")


def syntax(compiler: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    return subprocess.run([compiler, *STRICT, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("compiler", "sources"),
    [("clang", "*.c"), ("musl-gcc", "*_portable.c"), ("musl-gcc", "threads.c"), ("aarch64-linux-gnu-gcc", "*.c")],
)
def test_other_compilers_take_the_sources_without_a_warning(compiler: str, sources: str) -> None:
    """Without those that include Python.h: a foreign machine's is not here. `make check-aarch64` takes all and runs."""
    files = [path for path in CSRC.glob(sources) if path.name != "module.c" and not path.name.startswith("bind_")]
    done = syntax(compiler, *files)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "machine", [["-U__SIZEOF_INT128__"], ["-U__BYTE_ORDER__", "-D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__"]]
)
@pytest.mark.parametrize("source", ["module.c", "bind_curves.c", "bind_masks.c"])
def test_a_machine_that_would_compute_wrongly_is_refused_in_words(machine: list[str], source: str) -> None:
    done = syntax("gcc", *machine, CSRC / source)
    assert done.returncode != 0
    assert "want a 128-bit integer type and a little-endian machine" in done.stderr


def test_setup_names_every_source_and_header() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    lists = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.List)
    }
    assert sorted(lists["SOURCES"]) == sorted(path.name for path in CSRC.glob("*.c"))
    assert sorted(lists["HEADERS"]) == sorted(path.name for path in CSRC.glob("*.h"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What setuptools would pack: lib/ for the wheel, SOURCES.txt for the sdist."""
    try:
        if int(version("setuptools").partition(".")[0]) < 77:
            pytest.skip("setuptools is older than pyproject.toml asks for")
    except ModuleNotFoundError:
        pytest.skip("there is no setuptools")
    folder = tmp_path_factory.mktemp("built")
    words = ["egg_info", "--egg-base", str(folder), "build_py", "--build-lib", str(folder / "lib")]
    subprocess.run([sys.executable, "setup.py", "-q", *words], cwd=ROOT, check=True, capture_output=True)
    return folder


def test_the_wheel_has_what_is_needed_and_nothing_else(built: Path) -> None:
    files = {str(path.relative_to(built / "lib")) for path in (built / "lib").rglob("*") if path.is_file()}
    assert {name.partition("/")[0] for name in files} == {"accel", "adapters", "conformance", "gateway", "specs"}
    assert {f"accel/cuda/{path.name}" for path in (ROOT / "accel" / "cuda").glob("*.cuh")} <= files
    packages = ("accel", "adapters", "conformance", "gateway", "specs")
    assert {"accel/_native.pyi", *(f"{package}/py.typed" for package in packages)} <= files
    # The headers that the .cuh files include, and no other part of the kernels' sources.
    shared = {"accel/csrc/aes_slices.h", "accel/csrc/f25519_portable.h", "accel/csrc/x25519_ladder.h"}
    assert {name for name in files if name.startswith("accel/csrc/")} == shared
    assert {name for name in files if name.endswith((".c", ".so", ".pyc"))} == set()
    for path in (ROOT / "accel" / "cuda").glob("*.cuh"):
        included = [line.split('"')[1] for line in path.read_text().splitlines() if line.startswith('#include "')]
        assert {Path(name).name for name in included} <= {Path(name).name for name in files}


def test_the_sdist_can_be_compiled(built: Path) -> None:
    files = (built / "interconn.egg-info" / "SOURCES.txt").read_text(encoding="utf-8").split("\n")
    assert {f"accel/csrc/{path.name}" for path in CSRC.iterdir() if path.suffix in (".c", ".h")} <= set(files)
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md"} <= set(files)
    assert not [name for name in files if name.startswith(("tests/", "bench/", "docs/"))]


def test_the_documented_examples_run_and_load_nothing_of_the_gateway() -> None:
    program = [sys.executable, str(ROOT / "tests" / "examples.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    first, loaded = done.stdout.splitlines()
    assert first == "3 examples run"
    others = {"gateway", "adapters", "specs", "conformance", "aiohttp", "alembic", "asyncio", "grpc", "jsonschema"}
    assert others.isdisjoint(loaded.split())
    assert {"google", "rich", "sqlalchemy", "uvloop", "cupy"}.isdisjoint(loaded.split())
    assert {"accel", "numpy", "gmpy2"} <= set(loaded.split())


@native
def test_the_self_test_asks_every_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--native"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [tuple(line.split()[:2]) for line in lines[:-1]]
    assert told == [(kernel, backend.name) for kernel, backends in registry.BACKENDS.items() for backend in backends]
    assert all(line.split()[2] == "right" for line in lines[:-1] if line.split()[1] in ("portable", "reference"))
    assert " right, 0 wrong" in lines[-1]


def test_the_self_test_fails_on_a_wrong_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [Answers("x25519", "portable", None, "wrong answer in its self-test: exchange")]
    monkeypatch.setattr(registry, "known_answers", lambda: iter(wrong))
    assert command.main([]) == 1
    assert "0 right, 1 wrong" in capsys.readouterr().out


def test_an_installation_without_native_kernels_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    note = registry.without_native(BARE)
    assert note is not None
    assert note.startswith("the native kernels are not built here; every kernel runs on `reference`")
    answers = list(registry.known_answers(BARE))
    assert {row.backend for row in answers if row.refusal is None} == {"reference"}
    assert all(row.wrong is None for row in answers)
    monkeypatch.setattr(registry, "without_native", lambda: note)
    assert command.main([]) == 0
    assert command.main(["--native"]) == 1
    assert f"Note: {note}" in capsys.readouterr().out
    assert cli.main(["backends"]) == 0
    assert "--no-cache-dir" in capsys.readouterr().out


def test_a_node_without_native_kernels_says_so_at_its_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Stands:
        def __init__(self, *_: object) -> None: ...

        async def run(self, *_: object) -> int:
            return 0

    assert cli.main(["init", "--dir", str(tmp_path / "n"), "--node-id", "N1", "--name", "n"]) == 0
    monkeypatch.setattr(serve, "Supervisor", Stands)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    for machine, told in ((BARE, True), (Machine("x86_64", frozenset(), frozenset({"accel._native"})), False)):
        monkeypatch.setattr(serve, "probe", lambda machine=machine: machine)
        assert cli.main(["serve", "--config", str(tmp_path / "n" / "node.toml")]) == 0
        assert ("no native kernels here" in capsys.readouterr().err) is told


def test_native_kernels_of_another_machine_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accel._native", None)  # the import fails as that of a foreign file does
    machine = Machine("x86_64", frozenset(), frozenset({"gmpy2", "accel._native"}))
    backend, choice = registry.choose("x25519", machine=machine)
    assert backend is not None
    assert backend.name == "reference"
    assert choice.reasons["portable"].startswith("the native kernels do not load: ")


def test_the_version_is_told_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[Any] = []
    for words in (["--version"], ["version"]):
        assert cli.main(words) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert told[0].startswith(f"interconn {version('interconn')} ")
