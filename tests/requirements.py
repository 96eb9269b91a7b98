"""Which requirements of the standard's digest are asserted, and by which test: writes docs/requirements.md.

The tests are read, not imported (a syntax tree per file), so the page can be made where a test's dependencies are
missing. A test names what it asserts with `@pytest.mark.req("M-021", ...)` on a function or a class, or for the whole
module with `pytestmark`. An id that specs/clauses does not know is an error, as is one that is not a literal.

    python -m tests.requirements --write     make the page
    python -m tests.requirements --check     exit 1 where the page is not what the tests say
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = Path("docs/requirements.md")
_CLAUSE: Final = re.compile(r"^- ([A-Z]-\d{3}) (.+)$")
_TEXT_CHARS: Final = 110


class BadMark(Exception):
    """A mark that names an unknown requirement or cannot be read without running the test."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of specs/clauses."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Part:
    """One file of specs/clauses."""

    title: str
    requirements: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """A test says that it asserts a requirement. `test` is `tests/area/test_x.py::name` or `...::Class::name`."""

    requirement: str
    test: str
    where: str


def read_parts(root: Path) -> list[Part]:
    """The chapters of specs/clauses in order of their file names; a repeated id raises BadMark."""
    parts: list[Part] = []
    seen: set[str] = set()
    for path in sorted((root / "specs/clauses").glob("*.md")):
        lines = path.read_text(encoding="utf-8").splitlines()
        title = next(line.removeprefix("# ") for line in lines if line.startswith("# "))
        found = [Requirement(*match.groups()) for line in lines if (match := _CLAUSE.match(line))]
        for requirement in found:
            if requirement.id in seen:
                raise BadMark(f"{path.name}: {requirement.id} stands twice")
            seen.add(requirement.id)
        parts.append(Part(title, tuple(found)))
    return parts


def _ids(mark: ast.expr, where: str) -> list[str]:
    """Ids of one `pytest.mark.req(...)`; nothing for any other expression."""
    if isinstance(mark, ast.List | ast.Tuple):
        return [found for element in mark.elts for found in _ids(element, where)]
    if not isinstance(mark, ast.Call) or ast.unparse(mark.func) != "pytest.mark.req":
        return []
    ids: list[str] = []
    for argument in mark.args:
        if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
            raise BadMark(f"{where}: {ast.unparse(argument)} is not a literal id")
        ids.append(argument.value)
    if not ids or mark.keywords:
        raise BadMark(f"{where}: req() takes ids and nothing else")
    return ids


def _claims(
    body: Sequence[ast.stmt], file: str, prefix: tuple[str, ...], inherited: tuple[str, ...]
) -> Iterator[Claim]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        where = f"{file}:{node.lineno}"
        own = tuple(found for mark in node.decorator_list for found in _ids(mark, where))
        if isinstance(node, ast.ClassDef):
            if node.name.startswith("Test"):
                marks = tuple(
                    found
                    for statement in node.body
                    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark"
                    for found in _ids(statement.value, where)
                )
                yield from _claims(node.body, file, (*prefix, node.name), inherited + own + marks)
        elif node.name.startswith("test"):
            for requirement in dict.fromkeys(inherited + own):
                yield Claim(requirement, "::".join((file, *prefix, node.name)), where)
        elif own:
            raise BadMark(f"{where}: {node.name} is marked but is not a test")


def read_claims(root: Path) -> list[Claim]:
    """Every claim of every tests/**/test_*.py, in order of files and lines."""
    claims: list[Claim] = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        file = path.relative_to(root).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=file)
        module = tuple(
            found
            for statement in tree.body
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark"
            for found in _ids(statement.value, file)
        )
        claims.extend(_claims(tree.body, file, (), module))
    return claims


def _shorten(text: str) -> str:
    plain = text.replace("|", "\\|")
    return plain if len(plain) <= _TEXT_CHARS else plain[: _TEXT_CHARS - 1].rsplit(" ", 1)[0] + " …"


def render(parts: Sequence[Part], claims: Sequence[Claim]) -> str:
    """The page. Raises BadMark where a claim names an id that no part has."""
    known = {requirement.id for part in parts for requirement in part.requirements}
    tests: dict[str, list[str]] = {}
    for claim in claims:
        if claim.requirement not in known:
            raise BadMark(f"{claim.where}: {claim.requirement} is not in specs/clauses")
        tests.setdefault(claim.requirement, []).append(claim.test.removeprefix("tests/"))
    lines = [
        "# Requirements and the tests that assert them",
        "",
        "Made from `specs/clauses` and the marks of the tests by `make docs`; do not edit. A requirement counts as",
        "covered when at least one test names it; tests stand relative to `tests/`.",
        "",
        f"**{len(tests)} of {len(known)} covered.**",
        "",
        "| part | requirements | covered |",
        "|---|---:|---:|",
        *(f"| {part.title} | {len(part.requirements)} | {_covered(part, tests)} |" for part in parts),
    ]
    for part in parts:
        lines += ["", f"## {part.title}", "", "| id | requirement | asserted by |", "|---|---|---|"]
        for requirement in part.requirements:
            named = "<br>".join(f"`{test}`" for test in tests.get(requirement.id, ())) or "—"
            lines.append(f"| {requirement.id} | {_shorten(requirement.text)} | {named} |")
    return "\n".join(lines) + "\n"


def _covered(part: Part, tests: Mapping[str, object]) -> int:
    return sum(requirement.id in tests for requirement in part.requirements)


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.requirements", description="docs/requirements.md")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="make the page")
    action.add_argument("--check", action="store_true", help="fail where the page is out of date")
    chosen = parser.parse_args(arguments)
    try:
        page = render(read_parts(root), read_claims(root))
    except BadMark as error:
        print(error, file=sys.stderr)
        return 1
    path = root / PAGE
    if chosen.write:
        path.write_text(page, encoding="utf-8")
        return 0
    if not path.exists() or path.read_text(encoding="utf-8") != page:
        print(f"{PAGE} is out of date: run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
