"""The portable kernels on another architecture, emulated: `make check-aarch64`. Some minutes, so not one of the tests.

Compiles the extension for aarch64, gets a Python, NumPy, gmpy2 and cryptography of that architecture, and runs under
qemu-user what every backend has to know (`python -m accel`), then the tests of the native kernels; --quick stops after
the former. Everything lands in one folder, nothing is installed. Needs Debian (its package index serves the foreign
Python) with the packages gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
COMPILER: Final = "aarch64-linux-gnu-gcc"
EMULATOR: Final = "qemu-aarch64"
NEEDED: Final = (COMPILER, EMULATOR, "apt-get", "dpkg-deb")
FLAGS: Final = ("-std=c11", "-O2", "-pthread", "-fno-strict-aliasing", "-fvisibility=hidden", "-Wall", "-Wextra")
MODULES: Final = ("numpy", "gmpy2", "cryptography", "pytest", "pytest-asyncio", "hypothesis")


def run(command: Sequence[str | Path], *, folder: Path = ROOT, **environment: str) -> None:
    sys.stderr.write(f"+ {' '.join(map(str, command))}\n")
    code = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, check=False).returncode
    if code:
        sys.exit(f"exit code {code}")


def foreign_python(out: Path) -> Path:
    """A tree with a Python of Debian's for aarch64 and its headers; returns the interpreter. Kept if it is there."""
    tree = out / "root"
    if not list(tree.glob("usr/bin/python3.*")):
        for folder in ("lists/partial", "cache/archives/partial"):
            (out / "apt" / folder).mkdir(parents=True, exist_ok=True)
        (out / "apt" / "status").touch()
        settings = out / "apt" / "apt.conf"
        settings.write_text(
            'APT::Architecture "arm64";\nAPT::Architectures { "arm64"; };\n'
            f'Dir::State::lists "{out}/apt/lists";\nDir::State::status "{out}/apt/status";\n'
            f'Dir::Cache "{out}/apt/cache";\nAPT::Sandbox::User "";\nDebug::NoLocking "true";\n'
        )
        run(["apt-get", "--quiet", "update"], APT_CONFIG=str(settings))
        wanted = ("python3", "libpython3-dev", "libstdc++6")
        options = ("--quiet", "--yes", "--no-install-recommends", "--download-only")
        run(["apt-get", *options, "install", *wanted], APT_CONFIG=str(settings))
        for package in (out / "apt" / "cache" / "archives").glob("*.deb"):
            run(["dpkg-deb", "--extract", package, tree])
    return min(path for path in tree.glob("usr/bin/python3.*") if path.suffix[1:].isdigit())


def foreign_modules(out: Path, version: str) -> Path:
    """The wheels that the kernels and their tests import."""
    site = out / "site"
    if not site.is_dir():
        platforms = [f"--platform=manylinux_{tag}_aarch64" for tag in ("2_28", "2_17")]
        abis = ["--abi=cp" + version.replace(".", ""), "--abi=abi3", "--abi=none"]
        only = ["--only-binary=:all:", f"--python-version={version}", "--implementation=cp"]
        pinned = ["--constraint", ROOT / "constraints.txt"]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", site]
        run([*pip, *platforms, "--platform=manylinux2014_aarch64", *abis, *only, *pinned, *MODULES])
    return site


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.aarch64", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "aarch64")
    parser.add_argument("--quick", action="store_true", help="the known answers only")
    given = parser.parse_args()
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        sys.exit(
            f"not run, {', '.join(missing)} missing: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
        )
    out = given.out.absolute()
    python = foreign_python(out)
    version = python.name.removeprefix("python")
    site, code = foreign_modules(out, version), out / "code"
    shutil.rmtree(code, ignore_errors=True)
    left_out = shutil.ignore_patterns("*.so", "__pycache__", "integration", "test_cuda.py", "test_packaging.py")
    for folder in ("accel", "specs", "tests"):
        shutil.copytree(ROOT / folder, code / folder, ignore=left_out)
    shutil.copy(ROOT / "pyproject.toml", code)
    headers = out / "root" / "usr" / "include"
    includes = [f"-isystem{headers}", f"-isystem{headers / python.name}", "-DPy_LIMITED_API=0x030B0000"]
    sources = sorted((ROOT / "accel" / "csrc").glob("*.c"))
    built = ["-shared", "-fPIC", "-o", code / "accel" / "_native.abi3.so"]
    run([COMPILER, *FLAGS, "-Werror", *includes, *sources, *built])
    emulated = [EMULATOR, "-L", out / "root", python]
    modules = {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    run([*emulated, "-m", "accel", "--native"], folder=code, **modules)
    if not given.quick:
        chosen = ["-k", "not reference and not stack"]  # the latter starts a process
        run([*emulated, "-m", "pytest", "-p", "no:cacheprovider", "tests/backends", *chosen], folder=code, **modules)


if __name__ == "__main__":
    main()
