"""Does a test fail when the rule is broken? One or more small breaks per requirement, and the tests that must notice.

Each mutant is one or more replacements of text in the product. `make mutants` applies every one in a copy of the tree
and runs the tests that name the requirement (those of tests/integration only where no other names it): where none
fails, the mutant survives and the requirement is asserted by name alone. It is no part of `make test`, which checks
only that every replacement still applies (tests/test_mutations.py).

    python -m tests.mutations                      all, two at a time
    python -m tests.mutations --only M-011 C-004   these requirements
    python -m tests.mutations --list               what there is
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests import requirements
from tests.mutants_control import CONTROL
from tests.mutants_management import MANAGEMENT

ROOT: Final = requirements.ROOT
MUTANTS: Final[Mapping[str, Sequence[Sequence[str]]]] = {**MANAGEMENT, **CONTROL}
"""By requirement: mutants, each a flat sequence file, old text, new text (and again for a break in several places)."""

_COPIED: Final = (
    "accel",
    "adapters",
    "bench",
    "conformance",
    "docs",
    "gateway",
    "specs",
    "tests",
    "pyproject.toml",
    "Makefile",
)
_LIMIT_S: Final = 300
_FAILED: Final = 1
"""pytest's exit status where a test failed; 2 to 5 mean that it could not run them, which proves nothing."""


class NotApplicable(Exception):
    """The old text is not in the file exactly once."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """name: the requirement, with a number where it has several."""

    name: str
    requirement: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """status: of pytest; words: the first failure, or why there is none."""

    mutant: Mutant
    status: int
    words: str
    seconds: float


def mutants() -> list[Mutant]:
    """The table, checked for shape."""
    found: list[Mutant] = []
    for requirement, rows in MUTANTS.items():
        for number, row in enumerate(rows, 1):
            if not row or len(row) % 3:
                raise NotApplicable(f"{requirement}: a mutant is file, old text, new text")
            edits = tuple(Edit(*row[at : at + 3]) for at in range(0, len(row), 3))
            found.append(Mutant(requirement if len(rows) == 1 else f"{requirement}.{number}", requirement, edits))
    return found


def mutated(root: Path, mutant: Mutant) -> dict[Path, str]:
    """The new text of each file. Raises NotApplicable."""
    texts: dict[Path, str] = {}
    for edit in mutant.edits:
        path = root / edit.file
        text = texts.get(path) or path.read_text(encoding="utf-8")
        if text.count(edit.old) != 1 or edit.old == edit.new:
            raise NotApplicable(f"{mutant.name}: {edit.file} holds {text.count(edit.old)} times: {edit.old!r}")
        texts[path] = text.replace(edit.old, edit.new)
    return texts


def judges(claims: Iterable[requirements.Claim], requirement: str) -> list[str]:
    """The tests that name a requirement: the quick ones, or those between processes where there are no others."""
    named = [each.test for each in claims if each.requirement == requirement]
    quick = [each for each in named if not each.startswith("tests/integration/")]
    return quick or named


@contextmanager
def _broken(root: Path, mutant: Mutant) -> Iterator[None]:
    new = mutated(root, mutant)
    old = {path: path.read_text(encoding="utf-8") for path in new}
    for path, text in new.items():
        path.write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        for path, text in old.items():
            path.write_text(text, encoding="utf-8")


def _run(root: Path, tests: Sequence[str]) -> tuple[int, str]:
    # Without the plugins that these tests do not need: loading them takes longer than the tests.
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "250"}
    plugins = ["-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-x", "--tb=short", *plugins, *tests]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, f"no end within {_LIMIT_S} s"
    found = re.search(r"^(?:FAILED|ERROR) (.+)$", done.stdout, re.MULTILINE)
    words = found[1] if found else (done.stdout + done.stderr)[-300:].replace("\n", " | ")
    return done.returncode, words


def _copy(to: Path) -> Path:
    """The tree, with compiled files that are checked by content: a mutant may keep a file's size and time."""
    to.mkdir()
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, to / name)
    compile_all = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash"]
    subprocess.run([*compile_all, "accel", "adapters", "gateway", "specs"], cwd=to, check=True)
    return to


def judge(chosen: Sequence[Mutant], *, jobs: int) -> Iterator[Verdict]:
    """Run the tests of each mutant, `jobs` at a time."""
    claims = requirements.read_claims(ROOT)
    copies: SimpleQueue[Path] = SimpleQueue()

    def one(mutant: Mutant) -> Verdict:
        started, root = time.monotonic(), copies.get()
        try:
            tests = judges(claims, mutant.requirement)
            if not tests:
                return Verdict(mutant, 0, "no test names it", 0.0)
            with _broken(root, mutant):
                status, words = _run(root, tests)
            return Verdict(mutant, status, words, time.monotonic() - started)
        finally:
            copies.put(root)

    with tempfile.TemporaryDirectory(prefix="interconn-mutants-") as folder:
        for number in range(jobs):
            copies.put(_copy(Path(folder) / str(number)))
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(one, chosen)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description="break the rules one by one")
    parser.add_argument("--only", nargs="+", default=(), metavar="ID", help="requirements, e.g. M-011")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default 2)")
    parser.add_argument("--list", action="store_true", help="show the table")
    parser.add_argument("--verbose", action="store_true", help="also the first failure of each that was noticed")
    asked = parser.parse_args(arguments)
    chosen = [each for each in mutants() if not asked.only or each.requirement in asked.only]
    if asked.list:
        for each in chosen:
            print(each.name, *(f"{edit.file}: {edit.old!r} -> {edit.new!r}" for edit in each.edits), sep="\n  ")
        return 0
    started, survivors = time.monotonic(), 0
    for verdict in judge(chosen, jobs=max(1, asked.jobs)):
        noticed = verdict.status == _FAILED
        survivors += not noticed
        if not noticed or asked.verbose:
            word = "noticed" if noticed else "SURVIVED" if verdict.status == 0 else f"UNCLEAR ({verdict.status})"
            print(f"{verdict.mutant.name} {word} {verdict.seconds:.1f} s: {verdict.words[:240]}", flush=True)
    ids = {each.requirement for each in chosen}
    print(
        f"{len(chosen)} mutants of {len(ids)} requirements, {survivors} not noticed, {time.monotonic() - started:.0f} s"
    )
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
