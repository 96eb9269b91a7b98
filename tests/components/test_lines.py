"""Tables as lines: what is passed on is what would be written row by row, whatever the file looks like."""

import csv
import io
import random
from pathlib import Path

import numpy as np
import pytest

from accel.kernels import Texts
from gateway.sdk import lines
from gateway.sdk.environment import Artifact
from gateway.sdk.lines import Lines, ascending, plain
from gateway.sdk.result import Code, ComponentError
from gateway.sdk.storage import FileStore

HERE, THERE, LIKE = Artifact("n", "in"), Artifact("n", "out"), Artifact("n", "like")


def put(folder: Path, content: bytes, name: str = "data_0") -> FileStore:
    place = folder / HERE.namespace / HERE.name
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(content)
    return FileStore(folder, now=lambda: 1.0)


def keys_of(table: Lines) -> list[bytes]:
    return [table.keys[row] for row in range(len(table.keys))]


def file_of(folder: Path, at: Artifact, name: str) -> bytes:
    return (folder / at.namespace / at.name / name).read_bytes()


PLAIN = (
    b"a,id,c\n1,x,2\n,,\n\xc3\xa9,y y, z\n",
    b"\xef\xbb\xbfid\nx\n\n\ny",
    b"id,b\n",
    b"id,b\n\n\n",
    b"b,id\n1,last\n",
    b"id,nul\n\x00,\x0b\x0c\n",
)
NOT_PLAIN = (b'id,b\n"x,1",2\n', b"id,b\r\nx,1\r\n", b'id,b\n"a\rb",\n', b'id\n""\nx\n', b'id,b\n"two\nlines",1\n')


@pytest.mark.parametrize("content", PLAIN + NOT_PLAIN)
def test_lines_are_those_that_would_be_written_row_by_row(tmp_path: Path, content: bytes) -> None:
    store = put(tmp_path, content)
    assert (plain(content, "id", {}) is not None) is (content in PLAIN)
    table, found = store.read_table(HERE), store.read_lines(HERE, "id")
    assert found.columns == table.columns
    assert keys_of(found) == [row[table.column("id")].encode() for row in table.rows]
    order = list(range(len(table.rows)))[::-1] * 2
    assert store.write_lines(THERE, found, np.array(order, np.int64), extra={"alignment": "t"}) == len(order)
    store.write_table(LIKE, table.columns, [table.rows[row] for row in order], extra={"alignment": "t"})
    for name in ("data_0", "metadata"):
        assert file_of(tmp_path, THERE, name) == file_of(tmp_path, LIKE, name)


def test_many_lines_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 64)
    source = random.Random(3)
    rows = [[str(number), "x" * source.choice([0, 1, 5, 200])] for number in range(300)]
    store = FileStore(tmp_path)
    store.write_table(HERE, ["id", "b"], rows, extra={})
    order = source.sample(range(300), 250)
    found = store.read_lines(HERE, "b")
    assert len(list(found.take(np.array(order)))) > 50
    store.write_lines(THERE, found, np.array(order), extra={})
    assert store.read_table(THERE).rows == [rows[row] for row in order]
    assert list(found.take(np.empty(0, np.int64))) == []


def test_several_partitions(tmp_path: Path) -> None:
    put(tmp_path, b"id,b\n1,2\n")
    store = put(tmp_path, b"id,b\n3,4\n", "data_1")
    found = store.read_lines(HERE, "b")
    assert keys_of(found) == [b"2", b"4"]
    assert b"".join(found.take(np.array([1, 0]))) == b"3,4\n1,2\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no header line"),
        (b"\n1\n", "fields instead of 0"),
        (b"a,b\n1,2\n", "column 'id' is missing"),
        (b"id,id\n1,2\n", "two of the same name"),
        (b"id,b\n1,2\n3\n", "record 3: 1 fields instead of 2"),
        (b"id,b\n1\n2,3,4\n", "record 2: 1 fields instead of 2"),
        (b"id,b\n1,2\n\n1,2,3\n", "record 3: 3 fields instead of 2"),
        (b"id,b\n\xff,2\n", "is not UTF-8 text"),
        (b"id,b\n" + b"x" * ((1 << 20) + 1) + b",2\n", "field larger than field limit"),
    ],
)
def test_what_is_wrong_is_said_as_for_any_table(tmp_path: Path, content: bytes, words: str) -> None:
    store = put(tmp_path, content)
    for read in (lambda: store.read_lines(HERE, "id"), lambda: store.read_table(HERE).column("id")):
        with pytest.raises(ComponentError, match=words) as caught:
            read()
        assert caught.value.code == Code.BAD_INPUT


def test_rows_with_a_carriage_return_are_quoted_whole_and_others_are_not(tmp_path: Path) -> None:
    rows: list[list[object]] = [["a", "b"], ["c\rd", 1], ['"', "x,y"], [2.5, None]]
    store = FileStore(tmp_path)
    store.write_table(HERE, ["id", "b"], iter(rows), extra={})
    assert file_of(tmp_path, HERE, "data_0") == b'id,b\na,b\n"c\rd","1"\n"""","x,y"\n2.5,\n'
    assert [row[0] for row in csv.reader(io.StringIO('"c\rd","1"\n', newline=""))] == ["c\rd"]


@pytest.mark.parametrize("longest", [1, 7, 8, 17, 64, 65, 200])
def test_ascending(longest: int) -> None:
    source = random.Random(longest)
    texts = {bytes(source.choices(b"\0a\x80\xff", k=source.randint(0, longest))) for _ in range(200)} | {b"a" * longest}
    mixed = sorted(texts, key=lambda _: source.random())
    rows = np.array(source.sample(range(len(mixed)), len(mixed) // 2), np.int64)
    assert [mixed[row] for row in ascending(Texts.of(mixed), rows)] == sorted(mixed[row] for row in rows)
    assert len(ascending(Texts.of(mixed), rows[:0])) == 0
