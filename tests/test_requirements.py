"""The page of requirements is what the tests say, and a wrong mark is found."""

from pathlib import Path

import pytest

from tests import requirements


def test_the_page_in_docs_is_current(capsys):
    assert requirements.main(["--check"]) == 0, capsys.readouterr().err


def test_there_are_385_requirements():
    assert sum(len(part.requirements) for part in requirements.read_parts(requirements.ROOT)) == 385


def small_project(root: Path, test: str) -> Path:
    (root / "specs/clauses").mkdir(parents=True)
    (root / "specs/clauses/1-x.md").write_text("# Part x\n\n- M-001 First | thing.\n- M-002 Second.\n- M-003 Third.\n")
    (root / "tests/area").mkdir(parents=True)
    (root / "tests/area/test_a.py").write_text("import pytest\n" + test)
    (root / "docs").mkdir()
    return root


def test_marks_of_module_class_and_function_are_joined(tmp_path):
    root = small_project(
        tmp_path,
        'pytestmark = [pytest.mark.slow, pytest.mark.req("M-001")]\n'
        '@pytest.mark.req("M-002")\n'
        "class TestIt:\n"
        '    @pytest.mark.req("M-003")\n'
        "    async def test_one(self): ...\n"
        "def test_two(): ...\n",
    )
    assert requirements.main(["--write"], root) == 0
    page = (root / "docs/requirements.md").read_text()
    assert "**3 of 3 covered.**" in page
    assert "| M-001 | First \\| thing. | `area/test_a.py::TestIt::test_one`<br>`area/test_a.py::test_two` |" in page
    assert "| M-002 | Second. | `area/test_a.py::TestIt::test_one` |" in page
    assert "| M-003 | Third. | `area/test_a.py::TestIt::test_one` |" in page
    assert requirements.main(["--check"], root) == 0


def test_an_uncovered_requirement_is_shown_as_such(tmp_path):
    root = small_project(tmp_path, '@pytest.mark.req("M-002")\ndef test_one(): ...\n')
    assert requirements.main(["--write"], root) == 0
    page = (root / "docs/requirements.md").read_text()
    assert "**1 of 3 covered.**" in page
    assert "| M-003 | Third. | — |" in page


def test_a_page_that_is_out_of_date_fails_the_check(tmp_path, capsys):
    root = small_project(tmp_path, "def test_one(): ...\n")
    assert requirements.main(["--check"], root) == 1
    assert "out of date" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("test", "complaint"),
    [
        ('@pytest.mark.req("M-999")\ndef test_one(): ...\n', "tests/area/test_a.py:3: M-999 is not in specs/clauses"),
        ("X = 'M-001'\n@pytest.mark.req(X)\ndef test_one(): ...\n", "X is not a literal id"),
        ("@pytest.mark.req()\ndef test_one(): ...\n", "takes ids"),
        ('@pytest.mark.req("M-001")\ndef helper(): ...\n', "is not a test"),
    ],
)
def test_a_wrong_mark_is_an_error(tmp_path, capsys, test, complaint):
    root = small_project(tmp_path, test)
    assert requirements.main(["--write"], root) == 1
    assert complaint in capsys.readouterr().err
    assert not (root / "docs/requirements.md").exists()
