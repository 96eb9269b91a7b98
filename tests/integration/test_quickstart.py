"""docs/quickstart.md, word by word: its commands on a real lab, typed at a terminal by somebody who says yes."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import cli, lab

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
COMMAND_S = 60
EDIT = re.compile(r"^\| `([^`]+)` \| `([^`]+)`", re.MULTILINE)


def commands(text: str) -> list[str]:
    """The indented lines of a page, those that continue joined."""
    joined = text.replace("\\\n", " ")
    return [" ".join(line.split()) for line in re.findall(r"^    (\S.*)$", joined, re.MULTILINE)]


class Newcomer:
    """Types commands in a folder and reads ids off the screen. `known`: word of the page -> what it stands for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, str] = {}

    def filled(self, text: str) -> str:
        for word in sorted(self.known, key=len, reverse=True):
            text = text.replace(word, self.known[word])
        return text

    def type(self, command: str) -> str:
        """What the terminal shows; the command must end well."""
        program, *words = shlex.split(self.filled(command))
        assert program == "interconn"
        master, slave = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "dumb"}
        run = subprocess.Popen(
            [sys.executable, "-m", "gateway", *words],
            cwd=self.folder,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        os.write(master, b"y\n")
        shown = b""
        try:
            while chunk := os.read(master, 65_536):
                shown += chunk
        except OSError:  # how a terminal ends on Linux
            pass
        finally:
            os.close(master)
            code = run.wait(COMMAND_S)
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r", "")
        assert code == 0, f"{command}\n{text}"
        return text

    def learn(self, word: str, pattern: str, shown: str) -> None:
        found = re.search(pattern, shown)
        assert found, f"no {word} in:\n{shown}"
        self.known[word] = found[1]


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    yield Newcomer(tmp_path)
    if (tmp_path / "build/lab").exists():
        lab.down(tmp_path / "build/lab")


def test_the_page_leads_a_newcomer_to_a_result(newcomer: Newcomer) -> None:
    steps = commands(PAGE.partition("## Exit codes")[0])
    assert steps[0] == "export PATH=$PWD/.venv/bin:$PATH"
    job_file = newcomer.folder / "job.toml"
    shown: dict[str, str] = {}
    for step in steps[1:]:
        if step.startswith("interconn job validate"):
            text = job_file.read_text()
            for old, new in EDIT.findall(PAGE):
                assert old in text, old
                text = text.replace(old, newcomer.filled(new))
            # The row and the sentence that are words, not a replacement.
            first = 'guest = { label = "creditability", positive = "bad" }'
            short = 'params = { id = "id", iterations = 2 }'
            assert first in PAGE
            assert short in PAGE
            text = text.replace('guest = { label = "creditability" }', first, 1)
            encode, word, train = text.partition('component = "hetero_lr"\n')
            job_file.write_text(encode + word + train.replace('params = { id = "id" }', short, 1))
        told = shown[step] = newcomer.type(step)
        if "lab up" in step:
            newcomer.learn("BANK_ID", r"node +bank\nnode id +(\S+)", told)
            newcomer.learn("PAYMENT_ID", r"node +payment\nnode id +(\S+)", told)
        elif "lab status" in step:
            newcomer.learn("EDGE_PORT", r"node +payment\n(?:.+\n)*edge +https://127\.0\.0\.1:(\d+)", told)
        elif "dataset add" in step:
            newcomer.learn("BANK_DATASET" if "--as bank" in step else "PAYMENT_DATASET", r"(ds-\w+)", told)
        elif "project new" in step:
            newcomer.learn("PROJECT_ID", r"(pj-\w+)", told)
        elif step.startswith("interconn job submit") and "--dry-run" not in step:
            newcomer.learn("JOB_ID", r"(job-\w+)", told)

    def of(words: str) -> str:
        return next(told for step, told in shown.items() if step.startswith(f"interconn {words}"))

    assert "Approve a partner with this fingerprint?" in of("partner approve")
    assert newcomer.known["PAYMENT_DATASET"] in of("dataset remote")
    for words in ('result_to=["guest"]', newcomer.known["PROJECT_ID"], newcomer.known["PAYMENT_DATASET"]):
        assert words in of("job approve")
    assert "succeeded" in of("job status")
    assert "800 of 900 rows are common" in of("job logs")
    metric = json.loads((newcomer.folder / "build/results/evaluation_1.metric0.guest.0.json").read_text())
    assert 0.5 < metric["auc"] < 1


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_every_command_of_a_page_exists(page: str) -> None:
    steps = [step for step in commands((ROOT / page).read_text(encoding="utf-8")) if step.startswith("interconn ")]
    assert steps
    for step in steps:
        cli.parser().parse_args(shlex.split(step, comments=True)[1:])
