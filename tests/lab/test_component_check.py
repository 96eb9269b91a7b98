"""`interconn component check`: what is wrong in a vendor's file, and in which line of it."""

import json
from pathlib import Path

import pytest

from gateway import cli
from tests.components.test_description import MINIMAL

FILE = {"name": "they", "version": "9", "metadata": {"image": "i"}, "components_description": {"SetCross": MINIMAL}}


@pytest.mark.parametrize("value", [MINIMAL, FILE])
def test_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], value: object) -> None:
    (tmp_path / "a.json").write_text(json.dumps(value, indent=1))
    assert cli.main(["component", "check", str(tmp_path / "a.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"componentName": "SetCross", "provider": "demo", "version": "0.1"}]


@pytest.mark.req("A-002", "A-012")
@pytest.mark.parametrize("value", [MINIMAL, FILE])
def test_the_line_is_that_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], value: object) -> None:
    text = json.dumps(value, indent=1).replace("regular:", "nonsense:")
    (tmp_path / "a.json").write_text(text)
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "nonsense:" in each)
    assert cli.main(["component", "check", str(tmp_path / "a.json")]) == 1
    assert f"inputParam[0].validator, line {line}:" in " ".join(capsys.readouterr().err.split())


def test_no_file_and_no_description(tmp_path: Path) -> None:
    assert cli.main(["component", "check", str(tmp_path / "none.json")]) == 2
    (tmp_path / "a.json").write_text("[]")
    assert cli.main(["component", "check", str(tmp_path / "a.json")]) == 1
