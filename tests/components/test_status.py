"""The query that a scheduler may put to a component."""

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from gateway.sdk import environment
from gateway.sdk.component import Task
from gateway.sdk.environment import read_environment
from gateway.sdk.status import MAX_QUESTION_BYTES, QUERY_PATH, Status, serving
from tests.components.platform import Platform
from tests.components.test_run import finish, started, variables


def ask(port: int, question: bytes, path: str = QUERY_PATH) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", question, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.req("A-030", "A-031")
def test_answers_are_flat_and_about_this_task_only(platform: Platform, tmp_path: Path) -> None:
    status = Status(read_environment(variables(platform, tmp_path)))
    with serving(status, 0, host="127.0.0.1") as port:
        assert ask(port, b'{"task_id": "task_7f"}') == {"code": 0, "status": "RUNNING", "role": "guest"}
        for end, word in ((True, "SUCCESS"), (False, "FAILED")):
            status.finish(success=end)
            assert ask(port, b'{"task_id": "task_7f"}')["status"] == word
        for question in (b'{"task_id": "other"}', b'{"task_id": 7}', b"[]", b"nonsense", b"[" * 9999, b""):
            answer = ask(port, question)
            assert answer["code"] != 0, question
            assert answer["status"] == ""
        with pytest.raises(urllib.error.HTTPError, match="413"):
            ask(port, b" " * (MAX_QUESTION_BYTES + 1))
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(port, b"{}", "/v1/platform/schedule/task/callback")


@pytest.mark.req("A-030")
def test_a_component_answers_where_a_port_is_given(platform: Platform, tmp_path: Path) -> None:
    port, seen = free_port(), []

    def body(task: Task) -> None:
        seen.append(ask(port, b'{"task_id": "task_7f"}'))
        finish(task)

    code, _ = started(platform, tmp_path, body, **{"system.control_port": str(port)})
    assert (code, seen) == (0, [{"code": 0, "status": "RUNNING", "role": "guest"}])
    with socket.create_server(("", port)):
        code, lines = started(platform, tmp_path, finish, **{"system.control_port": str(port)})
    assert code == 0
    assert any("no query is answered" in line for line in lines)


@pytest.mark.req("A-032")
def test_the_default_port(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_environment(variables(platform, tmp_path)).control_port == 10086
    port = free_port()
    monkeypatch.setattr(environment, "DEFAULT_CONTROL_PORT", port)

    def body(task: Task) -> None:
        assert ask(port, b'{"task_id": "task_7f"}')["code"] == 0
        finish(task)

    assert started(platform, tmp_path, body, answer_queries=True)[0] == 0
    refused: list[bool] = []

    def unasked(task: Task) -> None:
        with pytest.raises(OSError):
            ask(port, b"{}")
        refused.append(True)
        finish(task)

    assert started(platform, tmp_path, unasked)[0] == 0
    assert refused
