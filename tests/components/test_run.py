"""The frame around a component: reports, exit codes, records on stdout."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.operators.party import Progress
from gateway.sdk import component
from gateway.sdk.component import Output, Reporter, Task, run
from gateway.sdk.environment import read_environment
from gateway.sdk.result import Code, ComponentError
from specs.description import parse_description
from tests.components.platform import Drop, Platform, Request
from tests.components.test_description import MINIMAL

DESCRIPTION = parse_description(json.dumps(MINIMAL))


def variables(platform: Platform, folder: Path, **more: str) -> dict[str, str]:
    return {
        "system.storage": f"file://{folder}",
        "system.transport": platform.address,
        "system.callback": f"{platform.url}/v1/platform/schedule/task/callback",
        "config.self_role": "guest.0",
        "config.task_id": "task_7f",
        "config.session_id": "s-1001",
        "config.trace_id": "tr-7",
        "config.token": "tok-secret",
        "config.node_id.guest.0": "LX-A",
        "config.node_id.host.0": "LX-B",
        "config.log.path": "/app/logs",
        "runtime.component.name": "SetCross",
        "runtime.component.output.data0": '{"namespace":"n","name":"m"}',
        **more,
    }


def finish(task: Task) -> None:
    task.write_table("data0", ["id"], [["1"]])


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(component, "CALLBACK_ATTEMPTS", 3)
    monkeypatch.setattr(component.Reporter.__init__, "__kwdefaults__", {"sleep": lambda _seconds: None})


def started(
    platform: Platform,
    folder: Path,
    body: Callable[[Task], None],
    *,
    answer_queries: bool | None = None,
    **more: str,
) -> tuple[int, list[str]]:
    stdout = io.StringIO()
    given = variables(platform, folder, **more)
    code = run(DESCRIPTION, body, variables=given, stdout=stdout, answer_queries=answer_queries)
    return code, stdout.getvalue().splitlines()


def result_of(lines: list[str]) -> dict[str, str]:
    assert sum(line.startswith("@result ") for line in lines) == 1
    assert lines[-1].startswith("@result ")
    record: dict[str, str] = json.loads(lines[-1].removeprefix("@result "))
    return record


@pytest.mark.req("A-033")
def test_success_is_reported_once_and_after_the_outputs(platform: Platform, tmp_path: Path) -> None:
    order: list[str] = []

    def body(task: Task) -> None:
        assert task.parameters == {"key_column": "id"}
        assert task.partner() == "host.0"
        finish(task)
        order.append("written")

    def note(request: Request) -> tuple[int, bytes, str]:
        order.append(json.loads(request.body)["status"])
        assert request.headers["x-ptp-token"] == "tok-secret"
        return 200, b'{"code":0}', "application/json"

    platform.answers.extend([note, note])
    code, lines = started(platform, tmp_path, body)
    assert (code, order) == (0, ["RUNNING", "written", "SUCCESS"])
    assert result_of(lines) == {"code": "0", "message": "ok", "party": "guest.0"}
    assert [json.loads(request.body) for request in platform.requests] == [
        {"task_id": "task_7f", "status": status, "role": "guest.0"} for status in ("RUNNING", "SUCCESS")
    ]


def fail_clearly(_task: Task) -> None:
    raise ComponentError(Code.DUPLICATE_IDS, "rows 1 and 2")


def crash(_task: Task) -> None:
    raise RuntimeError("the token is tok-secret")


def forget_output(_task: Task) -> None:
    pass


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (fail_clearly, "4002", "component SetCross, party guest.0: rows 1 and 2"),
        (crash, "5000", "component SetCross, party guest.0: internal error"),
        (forget_output, "5000", "outputs not written: data0"),
        (lambda task: task.table("train_data"), "4001", "input train_data is not given"),
        (lambda task: task.write_json("nonsense", {}), "5000", "output nonsense is not described"),
    ],
)
def test_failure_is_reported_once(
    platform: Platform, tmp_path: Path, body: Callable[[Task], None], code: str, words: str
) -> None:
    exit_code, lines = started(platform, tmp_path, body)
    assert exit_code == 1
    assert [report["status"] for report in platform.reports] == ["RUNNING", "FAILED"]
    record = result_of(lines)
    assert record["code"] == code
    assert words in record["message"]


@pytest.mark.req("A-039")
def test_crash_leaves_a_trace_without_secrets(platform: Platform, tmp_path: Path) -> None:
    _, lines = started(platform, tmp_path, crash)
    assert any("RuntimeError: the token is ***" in line for line in lines)
    assert not any("tok-secret" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("runtime.component.name", "Other", "asked for Other"),
        ("config.self_role", "host.0", ""),
        ("runtime.component.parameter.key_column", "id", ""),
        ("system.storage", "s3://u:tok-pass@h/folder", "no path"),
    ],
)
def test_wrong_start(platform: Platform, tmp_path: Path, name: str, value: str, words: str) -> None:
    code, lines = started(platform, tmp_path, finish, **{name: value})
    assert (code == 0) is (not words)
    assert words in result_of(lines)["message"]
    assert not any("tok-pass" in line for line in lines)


def test_foreign_role_is_refused(platform: Platform, tmp_path: Path) -> None:
    code, lines = started(
        platform, tmp_path, finish, **{"config.self_role": "arbiter.0", "config.node_id.arbiter.0": "LX-C"}
    )
    assert code == 1
    assert "no role arbiter" in result_of(lines)["message"]


def test_without_environment_nobody_is_called() -> None:
    stdout = io.StringIO()
    assert run(DESCRIPTION, finish, variables={}, stdout=stdout) == 1
    assert result_of(stdout.getvalue().splitlines())["code"] == "4001"


def drop(_request: Request) -> tuple[int, bytes, str]:
    raise Drop


@pytest.mark.req("A-033")
def test_callback_is_retried_then_ignored(platform: Platform, tmp_path: Path) -> None:
    unavailable = (503, b"", "text/plain")
    # RUNNING: two attempts; SUCCESS: three.
    platform.answers.extend([drop, lambda _request: unavailable, lambda _request: unavailable, drop])
    code, lines = started(platform, tmp_path, finish)
    assert code == 0
    assert [report["status"] for report in platform.reports] == ["SUCCESS"]
    assert any("call-back RUNNING failed 2 times" in line for line in lines)
    platform.answers.extend([drop] * 5)
    code, lines = started(platform, tmp_path, finish)
    assert code == 0
    assert any("call-back SUCCESS failed 3 times" in line for line in lines)
    assert result_of(lines)["code"] == "0"


@pytest.mark.parametrize("address", ["", "ftp://h/x", "http://127.0.0.1:1/x", "http://"])
def test_unusable_callback_does_not_stop_the_work(platform: Platform, tmp_path: Path, address: str) -> None:
    assert started(platform, tmp_path, finish, **{"system.callback": address})[0] == 0


def test_callback_without_path_uses_the_standard_one(platform: Platform, tmp_path: Path) -> None:
    assert started(platform, tmp_path, finish, **{"system.callback": platform.url + "/"})[0] == 0
    assert {request.path for request in platform.requests} == {"/v1/platform/schedule/task/callback"}


def test_end_is_reported_exactly_once(platform: Platform, tmp_path: Path) -> None:
    reporter = Reporter(read_environment(variables(platform, tmp_path)), Output(io.StringIO()))
    reporter.finished(success=True)
    with pytest.raises(ComponentError):
        reporter.finished(success=False)
    assert [report["status"] for report in platform.reports] == ["SUCCESS"]


def test_partner_is_told_when_this_side_fails(platform: Platform, tmp_path: Path) -> None:
    def body(task: Task) -> None:
        with task.link():
            raise ComponentError(Code.DUPLICATE_IDS, "rows 1 and 2")

    started(platform, tmp_path, body)
    (frame,) = platform.queues["s-1001", "task_7f.guest.0-host.0.abort"]
    assert json.loads(frame[8:]) == {"code": "4002"}

    def answer(task: Task) -> None:
        with task.link():
            raise ComponentError(Code.PARTNER_GAVE_UP, "host.0 gave up")

    started(platform, tmp_path, answer)
    assert len(platform.queues["s-1001", "task_7f.guest.0-host.0.abort"]) == 1


def test_partner_must_be_one(platform: Platform, tmp_path: Path) -> None:
    _, lines = started(platform, tmp_path, lambda task: print(task.partner()), **{"config.node_id.host.1": "LX-C"})
    assert "exactly one partner, not 2" in result_of(lines)["message"]
    # A party whose role the component does not know takes no part in it.
    code, _ = started(
        platform, tmp_path, lambda task: (task.partner(), finish(task))[1], **{"config.node_id.arbiter.0": "LX-C"}
    )
    assert code == 0


def test_progress_is_thinned_out() -> None:
    now = [0.0]
    stream = io.StringIO()
    output = Output(stream, clock=lambda: now[0])
    for step in range(101):
        now[0] = step * 0.01
        output.progress(Progress("train", step, 100, "steps"))
    output.progress(Progress("next", 0, 1, "steps"))
    records = [json.loads(line.removeprefix("@progress ")) for line in stream.getvalue().splitlines()]
    assert [(record["phase"], record["done"]) for record in records] == [
        ("train", 0),
        ("train", 50),
        ("train", 100),
        ("next", 0),
    ]
    assert set(records[0]) == {"phase", "done", "total", "unit"}
    assert (records[1]["eta_s"], records[2]["eta_s"]) == (0.5, 0.0)


def test_progress_that_was_kept_back_comes_later_and_nothing_twice() -> None:
    now = [0.0]
    stream = io.StringIO()
    output = Output(stream, clock=lambda: now[0])
    output.count_bytes(lambda: 4096)
    for step in range(3):
        output.progress(Progress("train", step, 10, "steps"))
    output.tick()
    for now[0] in (1.0, 2.0, 3.0):
        output.tick()
    records = [json.loads(line.removeprefix("@progress ")) for line in stream.getvalue().splitlines()]
    assert [(record["done"], record["bytes"]) for record in records] == [(0, 4096), (2, 4096)]
    assert records[1]["eta_s"] == 4.0


def test_log_goes_nowhere_when_nobody_reads() -> None:
    stream = io.StringIO()
    stream.close()
    Output(stream).log("into the void")
