"""Builds what a release consists of and installs it as its users would: `make check-wheel`.

Needs the package index and some minutes, so it is not one of the tests. The wheel is that of this machine: the tag it
gets says which C library it was built on. Wheels for others come from cibuildwheel in its containers (CONTRIBUTING.md);
here its settings are only read.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
TOOLS: Final = ("build", "auditwheel", "abi3audit", "cibuildwheel")
# An install that finds no compiler, and that nobody's PYTHONPATH helps.
BARE: Final = {"PATH": "/nonexistent", "HOME": os.environ.get("HOME", "/")}


def run(*command: str | Path, fails: bool = False, **environment: str) -> None:
    """fails: the command is expected to."""
    sys.stderr.write(f"+ {' '.join(map(str, command))}\n")
    inherited = environment if "PATH" in environment else {**os.environ, **environment}
    code = subprocess.run(command, cwd="/", env=inherited, check=False).returncode
    if (code != 0) is not fails:
        sys.exit(f"exit code {code}")


def virtual(python: str, folder: Path, *packages: str | Path, **environment: str) -> Path:
    """A new virtual environment with these packages; its folder of programs."""
    run(python, "-m", "venv", folder)
    programs = folder / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages, **environment)
    return programs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.wheels", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "wheels")
    parser.add_argument("--python", action="append", default=[], help="install there too; may be repeated")
    given = parser.parse_args()
    out = given.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    tools = virtual(sys.executable, out / "tools", *TOOLS)
    for architecture in ("x86_64", "aarch64"):
        run(tools / "cibuildwheel", "--print-build-identifiers", "--platform", "linux", "--archs", architecture, ROOT)
    run(tools / "python", "-m", "build", "--outdir", out, ROOT, INTERCONN_NATIVE="required")
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    run(tools / "auditwheel", "show", wheel)
    run(tools / "abi3audit", "--strict", wheel)
    for number, python in enumerate((sys.executable, *given.python)):
        programs = virtual(python, out / f"installed{number}", wheel, **BARE)
        run(programs / "interconn", "--version", **BARE)
        run(programs / "interconn", "backends", "--json", **BARE)
        run(programs / "python", "-m", "accel", "--native", **BARE)
        run(programs / "python", ROOT / "tests" / "examples.py", **BARE)
    programs = virtual(sys.executable, out / "without", sdist, CC="/bin/false")
    run(programs / "python", "-m", "accel", **BARE)
    run(programs / "python", "-m", "accel", "--native", fails=True, **BARE)
    run(programs / "interconn", "backends", **BARE)


if __name__ == "__main__":
    main()
