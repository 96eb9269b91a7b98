"""Addresses, object names, S3 over a real socket, HDFS up to the call, Parquet, streams and killed writers."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.sdk.environment import Artifact
from gateway.sdk.places import Place, object_path, read_place
from gateway.sdk.result import Code, ComponentError
from gateway.sdk.storage import FileStore, Store, open_store
from tests.components.s3_server import PASSWORD, USER, Bucketed, s3_server

HERE = Artifact("job-1a-guest-0", "task_7f-data0")


@pytest.mark.req("A-034")
@pytest.mark.parametrize(
    ("address", "place"),
    [
        (
            "s3://10.9.0.4:9000?username=u&password=p&bucket=lake",
            Place("s3", "lake", "10.9.0.4", 9000, "u", "p"),
        ),
        ("s3://h:9?username=u&password=p", Place("s3", "storage", "h", 9, "u", "p")),
        ("s3://h:9?username=u&password=a%26b%3Dc%2B%3F%2F%40+d", Place("s3", "storage", "h", 9, "u", "a&b=c+?/@+d")),
        ("S3://u%40x:p%3A@h/?tls=true", Place("s3", "storage", "h", 9000, "u@x", "p:", tls=True)),
        ("s3://[::1]:9?username=&password=&bucket=lake", Place("s3", "lake", "::1", 9)),
        ("hdfs://h:8020?username=u&password=&dir=/lake", Place("hdfs", "/lake", "h", 8020, "u")),
        ("file:///opt/iopy/", Place("file", "/opt/iopy/")),
    ],
)
def test_addresses(address: str, place: Place) -> None:
    assert read_place(address) == place


@pytest.mark.parametrize(
    "address",
    [
        "/lake",
        "ftp://h",
        "file://host/lake",
        "file://lake",
        "file:///a/../b",
        "s3://h:nine",
        "s3://:9?bucket=lake",
        "s3://h:9/lake",
        "s3://h:9?bucket=Lake",
        "s3://h:9?bucket=lake&bucket=other",
        "s3://h:9?layout=round",
        "hdfs://h:9?dir=lake",
        "hdfs://h:9?dir=/lake/../etc",
    ],
)
def test_unusable_addresses(address: str) -> None:
    with pytest.raises(ComponentError, match=r"system\.storage") as caught:
        read_place(address)
    assert caught.value.code == Code.STORAGE


@pytest.mark.req("A-035", "A-038")
@pytest.mark.parametrize(
    ("address", "data", "metadata"),
    [
        ("s3://h:9?bucket=lake", "bank/cust/data_0", "bank/cust/metadata"),
        ("s3://h:9?bucket=lake&layout=dash", "bank-cust/data_0", "bank-cust/metadata"),
        ("hdfs://h:9?dir=/lake", "/lake/bank/cust/data_0", "/lake/bank/cust/metadata"),
        ("hdfs://h:9?dir=/lake/&layout=dash", "/lake/bank-cust/data_0", "/lake/bank-cust/metadata"),
        ("file:///lake/", "/lake/bank/cust/data_0", "/lake/bank/cust/metadata"),
        ("file:///lake?layout=dash", "/lake/bank-cust/data_0", "/lake/bank-cust/metadata"),
    ],
)
def test_object_paths(address: str, data: str, metadata: str) -> None:
    place = read_place(address)
    assert object_path(place, Artifact("bank", "cust"), "data_0") == data
    assert object_path(place, Artifact("bank", "cust"), "metadata") == metadata


@pytest.fixture
def lake() -> Iterator[Bucketed]:
    with s3_server() as server:
        yield server


def address_of(lake: Bucketed, password: str = PASSWORD, **more: str) -> str:
    query = {"username": USER, "password": password, **more}
    words = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
    return f"s3://127.0.0.1:{lake.port}?{words}"


@pytest.mark.req("A-034", "A-035", "A-036", "A-037")
def test_s3_tables(lake: Bucketed) -> None:
    first, second = open_store(address_of(lake, bucket="lake")), open_store(address_of(lake, bucket="lake"))
    rows = [["1", "ü\n"], ["2", ""]]
    assert first.write_table(HERE, ("id", "text"), iter(rows), extra={"alignment": "aa"}) == 2
    folder = f"lake/{HERE.namespace}/{HERE.name}"
    assert sorted(lake.objects) == [f"{folder}/data_0", f"{folder}/metadata"]
    assert lake.calls[-1] == f"PUT {folder}/metadata"
    table = second.read_table(HERE)
    assert (table.columns, table.rows, table.metadata["alignment"]) == (("id", "text"), rows, "aa")
    first.write_json(Artifact("n", "model"), {"weights": [0.5]})
    assert second.read_json(Artifact("n", "model")) == {"weights": [0.5]}
    # Another writer's table: partitions, and no metadata.
    for index in range(3):
        lake.objects[f"lake/n/m/data_{index}"] = f"id\n{index}\n".encode()
    assert [row[0] for row in second.read_table(Artifact("n", "m")).rows] == ["0", "1", "2"]


@pytest.mark.req("A-034")
def test_s3_without_a_bucket_uses_and_makes_storage(lake: Bucketed) -> None:
    open_store(address_of(lake)).write_json(HERE, 1)
    assert lake.buckets == {"storage"}


def test_s3_shows_nothing_of_an_output_that_failed(lake: Bucketed) -> None:
    store = open_store(address_of(lake))
    store.write_table(HERE, ("id",), [["old"]], extra={})

    def rows() -> Iterator[list[str]]:
        yield ["new"]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store.write_table(HERE, ("id",), rows(), extra={})
    assert store.read_table(HERE).rows == [["old"]]


def test_s3_sends_long_objects_in_parts(lake: Bucketed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sdk.s3.PART_BYTES", 5 << 20)
    store = open_store(address_of(lake))
    block = os.urandom(1 << 20)
    store.write_bytes(HERE, (block for _ in range(7)), file_type="bin")
    assert not lake.parts
    assert len([call for call in lake.calls if call.startswith("PUT") and call.endswith("data_0")]) == 2
    assert store.read_bytes(HERE, limit=8 << 20) == block * 7
    with pytest.raises(ComponentError, match="longer than"):
        store.read_bytes(HERE, limit=1 << 20)


@pytest.mark.req("A-039")
def test_s3_refusals_tell_no_secret(lake: Bucketed) -> None:
    for store, words in (
        (open_store(address_of(lake, password="wrong-pass")), "SignatureDoesNotMatch"),
        (open_store(address_of(lake)), "has no data"),
    ):
        lake.buckets.add("storage")
        with pytest.raises(ComponentError, match=words) as caught:
            store.read_bytes(HERE, limit=10) if words == "has no data" else store.write_json(HERE, 1)
        assert caught.value.code == Code.STORAGE
        text = repr(caught.value) + repr(caught.value.__cause__)
        assert not any(secret in text for secret in ("wrong-pass", PASSWORD, USER, str(lake.port)))


def test_s3_missing_metadata_and_data(lake: Bucketed) -> None:
    lake.buckets.add("storage")
    store = open_store(address_of(lake))
    assert store.read_metadata(HERE) == {}
    with pytest.raises(ComponentError, match="has no data"):
        store.read_table(HERE)


def test_hdfs_goes_through_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no cluster here: the calls are pyarrow's own, on a file system of pyarrow that is local."""
    fs = pytest.importorskip("pyarrow.fs")
    asked: list[Any] = []

    def local(host: str, port: int, user: str | None = None) -> Any:
        asked.append((host, port, user))
        return fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())

    monkeypatch.setattr(fs, "HadoopFileSystem", local)
    store = open_store("hdfs://cluster:8020?username=u&password=&dir=/lake")
    for rows in ([["1"], ["2"]], [["3"]]):
        store.write_table(HERE, ("id",), rows, extra={})
        assert store.read_table(HERE).rows == rows
    folder = tmp_path / "lake" / HERE.namespace / HERE.name
    assert sorted(path.name for path in folder.iterdir()) == ["data_0", "metadata"]
    (folder / "metadata").unlink()
    assert store.read_table(HERE).rows == [["3"]]
    assert asked == [("cluster", 8020, "u")]


def test_hdfs_that_cannot_be_used_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = pytest.importorskip("pyarrow.fs")

    def broken(*_: object, **__: object) -> None:
        raise OSError("Unable to load libjvm")

    monkeypatch.setattr(fs, "HadoopFileSystem", broken)
    with pytest.raises(ComponentError, match=r"hdfs:// cannot be used") as caught:
        open_store("hdfs://cluster:8020?dir=/lake")
    assert caught.value.code == Code.STORAGE


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gateway.sdk.s3", None)
    with pytest.raises(ComponentError, match="extra 's3'"):
        open_store("s3://h:9")


@pytest.mark.parametrize("where", ["file", "s3"])
def test_parquet(where: str, tmp_path: Path, lake: Bucketed) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    store: Store = FileStore(tmp_path) if where == "file" else open_store(address_of(lake))
    rows = [[str(n), "ü\r\n" if n % 2 else ""] for n in range(20_000)]
    assert store.write_table(HERE, ("id", "text"), iter(rows), extra={}, file_type="parquet") == len(rows)
    table = store.read_table(HERE)
    assert (table.columns, table.rows, table.metadata["file_type"]) == (("id", "text"), rows, "parquet")
    with pytest.raises(ComponentError, match="1 values for 2 columns"):
        store.write_table(HERE, ("a", "b"), [["1"]], extra={}, file_type="parquet")
    # Typed columns of another writer.
    typed = pa.table({"n": [1, None], "x": [0.5, 2.0], "b": [True, False]})
    pq.write_table(typed, tmp_path / "typed")
    content = (tmp_path / "typed").read_bytes()
    store.write_bytes(Artifact("n", "typed"), [content], file_type="parquet")
    assert store.read_table(Artifact("n", "typed")).rows == [["1", "0.5", "true"], ["", "2.0", "false"]]
    store.write_bytes(Artifact("n", "broken"), [content[:-9]], file_type="parquet")
    with pytest.raises(ComponentError, match="not a readable Parquet file"):
        store.read_table(Artifact("n", "broken"))


def test_rows_are_streamed(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.write_table(HERE, ("id",), ([str(n)] for n in range(1000)), extra={})
    with (tmp_path / HERE.namespace / HERE.name / "data_0").open("a") as file:
        file.write("too,long\n")
    with store.rows(HERE) as found:
        assert [next(found.rows)[0] for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(ComponentError, match="record 1002"):
            list(found.rows)


def test_a_killed_task_leaves_no_half_file(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from gateway.sdk.storage import FileStore;"
        "from gateway.sdk.environment import Artifact\n"
        "def rows():\n"
        "    for n in range(100_000): yield [str(n)]\n"
        f"    os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "FileStore(Path(sys.argv[1])).write_table(Artifact('n', 'm'), ['id'], rows(), extra={})\n"
    )
    end = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=30)
    assert end.returncode == -signal.SIGKILL
    assert not [path.name for path in (tmp_path / "n" / "m").iterdir() if not path.name.startswith(".")]
    with pytest.raises(ComponentError, match="has no data"):
        FileStore(tmp_path).read_table(Artifact("n", "m"))
