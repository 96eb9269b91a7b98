"""docs/admin.md, typed line by line by two administrators at two terminals."""

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway import lab

PAGE = Path(__file__).resolve().parents[2] / "docs" / "admin.md"
COMMAND = re.compile(r"(\w+)\$ (interconn .*)")
ASKED = re.compile(r"(.*\[y/N\]) (\w+)$")


@dataclass
class Typed:
    """One command of the page, what the page shows of its answer, and what its reader types."""

    line: int
    who: str
    words: list[str]
    shown: list[str] = field(default_factory=list)
    answers: str = ""


def commands(text: str) -> list[Typed]:
    found: list[Typed] = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and (match := COMMAND.fullmatch(line)):
            found.append(Typed(number, match[1], shlex.split(match[2])[1:]))
        elif inside:
            asked = ASKED.fullmatch(line)
            if asked is not None:
                found[-1].answers += asked[2] + "\n"
            found[-1].shown.append(asked[1] if asked else line)
    return found


def at_terminal(typed: Typed, config: Path, folder: Path) -> tuple[int, str]:
    """Exit code and screen of one command."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *typed.words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={
            **os.environ,
            "INTERCONN_CONFIG": str(config),
            "COLUMNS": "200",
            "PYTHONPATH": str(PAGE.parents[1]),
            "NO_COLOR": "1",
        },
        close_fds=True,
    )
    os.close(theirs)
    screen, answers, deadline = b"", typed.answers.encode(), time.monotonic() + 30
    with suppress(OSError):  # the other end of a closed terminal
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            read = os.read(ours, 65536)
            if not read:
                break
            screen += read
            if answers and screen.rstrip().endswith(b"[y/N]"):
                os.write(ours, answers)
                answers = b""
    code = process.wait(10)
    os.close(ours)
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.decode()).replace("\r\n", "\n")


def pattern(shown: str) -> re.Pattern[str]:
    """A line of the page as it may stand on the screen: blanks are as wide as they like, … is anything."""
    made, open_end = "", True
    for part in shown.split():
        if part == "…":
            made, open_end = made + r"[^\n]*?", True
        else:
            made, open_end = made + ("" if open_end else r"[^\S\n]+") + re.escape(part).replace("…", r"\S*"), False
    return re.compile(made)


def missing(typed: Typed, screen: str) -> str | None:
    """The first line of the page that does not come, in order, on the screen."""
    at = 0
    for shown in typed.shown:
        found = pattern(shown).search(screen, at)
        if found is None:
            return shown
        at = found.end()
    return None


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    directory = Path(tmp_path_factory.mktemp("admin")) / "lab"
    try:
        made = lab.up(directory, parties=2)
        lab.down(directory)
        # As the page says of payment.
        with (made.node("payment").ca_file.parent.parent / "node.toml").open("a") as config:
            config.write('\n[approvals]\nfour_eyes = ["project"]\n')
        yield lab.up(directory)
    finally:
        lab.down(directory)


def test_the_page_as_it_stands(nodes: lab.Lab, tmp_path: Path) -> None:
    (tmp_path / "accounts.csv").write_text("id,balance\na,1.5\nb,2\nc,3\n")
    page = commands(PAGE.read_text("utf-8"))
    assert len(page) > 10
    for typed in page:
        config = nodes.node(typed.who).ca_file.parent.parent / "node.toml"
        deadline = time.monotonic() + 10
        while True:
            code, screen = at_terminal(typed, config, tmp_path)
            gone = missing(typed, screen)
            # A list may be looked at before the partner's message has come; everything else is done once.
            if gone is None or not {"list", "show"} & set(typed.words) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert gone is None, f"docs/admin.md:{typed.line}: no line like {gone!r} in\n{screen}"
        assert code == 0, f"docs/admin.md:{typed.line}: ends with {code}\n{screen}"


def test_no_command_stands_outside_the_console_blocks() -> None:
    text = PAGE.read_text("utf-8")
    assert len(COMMAND.findall(text)) == len(commands(text))
