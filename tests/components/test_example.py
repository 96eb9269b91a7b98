"""The component that docs/components.md shows, run as its two parties by the transport of the tests."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.components.platform import Platform

ROOT = Path(__file__).resolve().parents[2]
ROWS = {"guest.0": "id,v\n1,a\n2,\n3,c\n", "host.0": "id,v\n1,\n2,x\n"}


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs" / "components.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page.partition("## Writing one")[2], re.DOTALL)


def start(folder: Path, platform: Platform, party: str, column: str = "v") -> "subprocess.Popen[str]":
    store = folder / party
    (store / "n" / "m").mkdir(parents=True)
    (store / "n" / "m" / "data_0").write_text(ROWS[party])
    variables = {
        "system.storage": store.as_uri(),
        "system.transport": platform.address,
        "system.callback": f"{platform.url}/v1/platform/schedule/task/callback",
        "config.self_role": party,
        "config.task_id": "task_7f",
        "config.session_id": "s-1001",
        "config.token": "tok-secret",
        "config.node_id.guest.0": "LX-A",
        "config.node_id.host.0": "LX-B",
        "runtime.component.name": "keep",
        "runtime.component.parameter.column": column,
        "runtime.component.input.train_data": '{"namespace": "n", "name": "m"}',
        "runtime.component.output.data0": '{"namespace": "o", "name": "kept"}',
        "runtime.component.output.report0": '{"namespace": "o", "name": "report"}',
    }
    return subprocess.Popen(
        [sys.executable, str(folder / "mine.py")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_example_of_the_docs_works(platform: Platform, tmp_path: Path) -> None:
    (program,), (description,) = blocks("python"), blocks("json")
    assert len(program.splitlines()) <= 42
    (tmp_path / "mine.py").write_text(program)
    (tmp_path / "mine.json").write_text(description)
    running = {party: start(tmp_path, platform, party) for party in ROWS}
    said = {party: process.communicate(timeout=30)[0].splitlines() for party, process in running.items()}
    assert [process.returncode for process in running.values()] == [0, 0], said
    kept = (tmp_path / "guest.0" / "o" / "kept" / "data_0").read_text()
    assert kept == "id,v\n1,a\n3,c\n"
    for party in ROWS:
        report = json.loads((tmp_path / party / "o" / "report" / "data_0").read_text())
        assert report == {"rows": {"guest.0": 2, "host.0": 1}}
    assert "2 rows here, 1 there" in said["guest.0"]
    assert sorted(report["status"] for report in platform.reports) == ["RUNNING"] * 2 + ["SUCCESS"] * 2


def test_its_errors_have_codes(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(blocks("python")[0])
    (tmp_path / "mine.json").write_text(blocks("json")[0])
    process = start(tmp_path, platform, "guest.0", column="colour")
    last = process.communicate(timeout=30)[0].splitlines()[-1]
    assert process.returncode == 1
    assert json.loads(last.removeprefix("@result "))["code"] == "4001"
    assert "column 'colour' is missing" in last
