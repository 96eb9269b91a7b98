"""Environment variables and storage of a component."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from accel import kernels
from gateway.sdk.component import Output
from gateway.sdk.environment import MAX_THREADS, Artifact, read_environment
from gateway.sdk.places import read_place, storage_secrets
from gateway.sdk.result import Code, ComponentError
from gateway.sdk.storage import FileStore, open_store

VARIABLES = {
    "system.storage": "file:///lake",
    "system.transport": "10.9.0.5:7304",
    "system.callback": "http://10.9.0.6:9380/v1/platform/schedule/task/callback",
    "config.self_role": "guest.0",
    "config.task_id": "task_7f",
    "config.session_id": "s-1001",
    "config.trace_id": "",
    "config.token": "tok-secret",
    "config.node_id.guest.0": "LX-A",
    "config.node_id.host.0": "LX-B",
    "config.node_id.host.1": "LX-C",
    "config.inst_id.guest.0": "JG-A",
    "config.inst_id.host.0": "JG-B",
    "config.log.path": "/app/logs",
    "runtime.component.name": "SetCross",
    "runtime.component.parameter.key_column": "007",
    "runtime.component.input.train_data": '{"namespace":"bank","name":"cust","extra":1}',
    "runtime.component.output.data0": '{"namespace":"job-1a-guest-0","name":"task_7f-data0"}',
    "PATH": "/bin",
}


@pytest.mark.req("A-018", "A-032")
def test_reads_every_variable() -> None:
    environment = read_environment(VARIABLES)
    assert environment.component == "SetCross"
    assert (environment.task_id, environment.session_id, environment.trace_id) == ("task_7f", "s-1001", "")
    assert (environment.party, environment.role) == ("guest.0", "guest")
    assert environment.peers == ("host.0", "host.1")
    assert (environment.parties["host.0"].node_id, environment.parties["host.0"].inst_id) == ("LX-B", "JG-B")
    assert environment.parties["host.1"].inst_id == ""
    assert environment.parameters == {"key_column": "007"}
    assert environment.inputs == {"train_data": Artifact("bank", "cust")}
    assert environment.outputs == {"data0": Artifact("job-1a-guest-0", "task_7f-data0")}
    assert environment.control_port == 10086
    assert environment.log_path == "/app/logs"
    assert environment.threads == 1
    assert read_environment({**VARIABLES, "interconn.threads": " 64 "}).threads == MAX_THREADS == kernels.MAX_THREADS
    assert "tok-secret" not in repr(environment)


@pytest.mark.parametrize("wrong", ["0", "65", "-1", "two", "1.5", "٣", "010"])
def test_a_number_of_threads_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ComponentError, match=r"interconn\.threads") as caught:
        read_environment({**VARIABLES, "interconn.threads": wrong})
    assert caught.value.code == Code.BAD_INPUT


def test_several_roles_in_one_process() -> None:
    both = read_environment({**VARIABLES, "config.self_role": " guest.0 , host.1 "})
    assert both.roles == ("guest.0", "host.1")
    assert both.peers == ("host.0",)


@pytest.mark.parametrize(
    "name",
    [
        "system.storage",
        "system.transport",
        "config.self_role",
        "config.task_id",
        "config.session_id",
        "runtime.component.name",
    ],
)
def test_missing_variable_is_named(name: str) -> None:
    with pytest.raises(ComponentError, match=name.replace(".", r"\.")) as caught:
        read_environment({key: value for key, value in VARIABLES.items() if key != name})
    assert caught.value.code == Code.BAD_INPUT


@pytest.mark.req("A-018")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("runtime.component.input.train_data", "{'namespace': 'a', 'name': 'b'}"),
        ("runtime.component.input.train_data", '{"namespace": "a"}'),
        ("runtime.component.output.data0", '{"namespace": "a", "name": 7}'),
        ("runtime.component.output.data0", "[" * 100_000),
        ("config.self_role", "guest"),
        ("config.self_role", "host.7"),
        ("config.node_id.guest", "LX-A"),
        ("config.node_id.host.0", "LX-B\r\nx-evil: 1"),
        ("system.control_port", "70000"),
        ("runtime.component.parameter.key_column", "x" * 140_000),
    ],
)
def test_unusable_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ComponentError) as caught:
        read_environment({**VARIABLES, name: value})
    assert caught.value.code == Code.BAD_INPUT
    assert name in str(caught.value) or value == "host.7"


@pytest.mark.req("A-043")
def test_dotted_names_reach_a_process() -> None:
    program = (
        "import os, json; from gateway.sdk.environment import read_environment as r;"
        "e = r(os.environ); print(json.dumps([e.party, e.parameters['key_column'], e.inputs['train_data'].name]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **VARIABLES}, capture_output=True, check=True, timeout=20
    )
    assert json.loads(answer.stdout) == ["guest.0", "007", "cust"]


def test_sdk_loads_nothing_heavy() -> None:
    program = (
        "import sys, gateway.sdk.component;"
        "heavy = {'aiohttp', 'sqlalchemy', 'numpy', 'google.protobuf', 'cryptography', 'asyncio', 'jsonschema',"
        "         'minio', 'urllib3', 'requests', 'pyarrow', 'http.server', 'accel'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=20)
    assert answer.stdout.strip() == "[]"


# --- storage ----------------------------------------------------------------------------------------------------------

HERE = Artifact("job-1-guest-0", "task_7-data0")


@pytest.mark.req("A-036", "A-037")
def test_table_is_readable_by_a_second_component(tmp_path: Path) -> None:
    first, second = open_store(f"file://{tmp_path}"), open_store(f"file://{tmp_path}/")
    rows = [["1", 'a "quoted", text'], ["2", "ü\n"], ["3", ""], ["4\r5", "x\r\ny"]]
    assert first.write_table(HERE, ("id", "text"), rows, extra={"alignment": "aa"}) == 4
    folder = tmp_path / "job-1-guest-0" / "task_7-data0"
    assert sorted(path.name for path in folder.iterdir()) == ["data_0", "metadata"]
    metadata = json.loads((folder / "metadata").read_text())
    assert (metadata["partitions"], metadata["count"], metadata["alignment"]) == (1, 4, "aa")
    assert [column["name"] for column in metadata["column_info"]] == ["id", "text"]
    table = second.read_table(HERE)
    assert (table.columns, table.rows, table.metadata) == (("id", "text"), rows, metadata)
    first.write_table(HERE, ("a\rb",), [["1\r2"], ["3"]], extra={})
    again = second.read_table(HERE)
    assert (again.columns, again.rows) == (("a\rb",), [["1\r2"], ["3"]])
    first.write_json(Artifact("n", "m"), {"weights": [0.5]})
    assert second.read_json(Artifact("n", "m")) == {"weights": [0.5]}


@pytest.mark.req("A-036")
def test_partitions_with_and_without_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "n" / "m"
    folder.mkdir(parents=True)
    for index in range(12):
        (folder / f"data_{index}").write_text(f"id\n{index}\n")
    (folder / "data_x").write_text("not a partition")
    store = FileStore(tmp_path)
    assert [row[0] for row in store.read_table(Artifact("n", "m")).rows] == [str(index) for index in range(12)]
    (folder / "metadata").write_text('{"partitions": 2, "unknown": {"kept": true}}')
    table = store.read_table(Artifact("n", "m"))
    assert [row[0] for row in table.rows] == ["0", "1"]
    assert table.metadata["unknown"] == {"kept": True}


def test_interrupted_output_leaves_no_half_file(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write_table(HERE, ("id",), [["old"]], extra={})

    def rows() -> object:
        yield ["new"]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store.write_table(HERE, ("id",), rows(), extra={})  # type: ignore[arg-type]
    assert store.read_table(HERE).rows == [["old"]]
    assert sorted(path.name for path in (tmp_path / HERE.namespace / HERE.name).iterdir()) == ["data_0", "metadata"]


@pytest.mark.parametrize(
    "artifact",
    [
        Artifact("..", "x"),
        Artifact("a", "../b"),
        Artifact("a/b", "c"),
        Artifact("a", "b\x00"),
        Artifact(".x", "y"),
        Artifact("a", "x" * 300),
        Artifact("a", "b\n@result {}"),
        Artifact("\ud800", "b"),
    ],
)
def test_artifact_names_do_not_leave_the_folder(tmp_path: Path, artifact: Artifact) -> None:
    store = FileStore(tmp_path / "lake")
    for call in (store.read_table, store.read_json, lambda a: store.write_json(a, {})):
        with pytest.raises(ComponentError) as caught:
            call(artifact)
        assert caught.value.code == Code.STORAGE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "header"),
        (b"a,a\n1,2\n", "same name"),
        (b"a,b\n1\n", "1 fields instead of 2"),
        (b"a\n\xff\n", "UTF-8"),
        (b'a\n"x', "end of data"),
        (b"a\n" + b"x" * (2 << 20), "field"),
    ],
)
def test_bad_tables_are_refused_by_name(tmp_path: Path, content: bytes, problem: str) -> None:
    folder = tmp_path / "n" / "m"
    folder.mkdir(parents=True)
    (folder / "data_0").write_bytes(content)
    with pytest.raises(ComponentError, match=problem) as caught:
        FileStore(tmp_path).read_table(Artifact("n", "m"))
    assert caught.value.code == Code.BAD_INPUT


def test_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="m cannot be read") as caught:
        FileStore(tmp_path).read_table(Artifact("n", "m"))
    assert caught.value.code == Code.STORAGE


@pytest.mark.req("A-039")
def test_storage_password_is_never_told() -> None:
    address = "s3://10.9.0.4:9000?username=u&password=p%40ss%3Dword&bucket=lake"
    for wrong in (address + "&bucket=other", address + "&tls=perhaps", address.replace("s3", "ftp")):
        with pytest.raises(ComponentError, match=r"system\.storage") as caught:
            open_store(wrong)
        assert "p%40ss" not in str(caught.value)
    assert "p@ss" not in repr(read_place(address))
    assert set(storage_secrets(address)) == {"p%40ss%3Dword", "p@ss=word"}


@pytest.mark.req("A-039")
def test_secrets_are_masked_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(sys.stdout, ["tok-secret", "tok", ""])
    output.log("token tok-secret and tok\nsecond line")
    output.record("result", {"message": "tok-secret"})
    text = capsys.readouterr().out
    assert "tok-secret" not in text
    assert "tok" not in text.replace("token", "")
    assert text.splitlines()[1:] == ["second line", '@result {"message": "***"}']
    awkward = Output(sys.stdout, ["message", 'quo"te', "pä55"])
    awkward.record("result", {"message": 'quo"te and pä55'})
    assert capsys.readouterr().out == '@result {"message": "*** and ***"}\n'
