"""Artifacts of a task: tables, JSON and bytes at `system.storage` (part 3, 7).

`Store` knows the formats, an `Objects` the place: files below a folder here, S3 in `gateway.sdk.s3`, HDFS in
`gateway.sdk.hdfs`. Everything streams. Outputs are atomic: the data get their name only when they are whole, and
`metadata` appears last, so a reader that finds metadata finds everything.
"""

import csv
import io
import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, Protocol

from gateway.sdk.environment import Artifact
from gateway.sdk.places import METADATA, Place, data_name, object_path, read_place
from gateway.sdk.result import Code, ComponentError

if TYPE_CHECKING:
    from gateway.sdk.lines import Lines, Places

MAX_METADATA_BYTES: Final = 4 << 20
MAX_JSON_BYTES: Final = 64 << 20
MAX_COLUMNS: Final = 100_000
SHOWN_COLUMNS: Final = 12
"""Of a table, in a message to the own operator."""
MAX_PARTITIONS: Final = 100_000
_FIELDS_AT_ONCE: Final = 2048
CSV, PARQUET, JSON = "csv", "parquet", "json"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts. columns: distinct names; rows: each as long as columns; metadata: as stored."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    metadata: Mapping[str, Any]

    def column(self, name: str) -> int:
        """Position of a column. Raises ComponentError(BAD_INPUT) naming it when there is none."""
        try:
            return self.columns.index(name)
        except ValueError:
            shown = ", ".join(self.columns[:SHOWN_COLUMNS]) + (", ..." if len(self.columns) > SHOWN_COLUMNS else "")
            raise ComponentError(Code.BAD_INPUT, f"column {name!r} is missing; there are: {shown}") from None


@dataclass(frozen=True, slots=True)
class Rows:
    """A table whose rows come one by one, once."""

    columns: tuple[str, ...]
    rows: Iterator[Sequence[str]]
    metadata: Mapping[str, Any]


class Objects(Protocol):
    """Where objects lie. Paths are those of `places.object_path`; what goes wrong is an OSError with a strerror."""

    def reading(self, path: str) -> AbstractContextManager[BinaryIO]:
        """An object's bytes, in order; FileNotFoundError where there is none."""
        ...

    def writing(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A file that becomes the object when the block ends well, and vanishes otherwise."""
        ...

    def remove(self, path: str) -> None:
        """Remove an object; none is fine."""
        ...

    def names(self, folder: str) -> list[str]:
        """Last parts of the names of the objects whose path is `folder`/<name>."""
        ...


class Files:
    """Objects that are files of this machine."""

    def reading(self, path: str) -> AbstractContextManager[BinaryIO]:
        return Path(path).open("rb")

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        final = Path(path)
        temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                # On disk before it gets its name.
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(final)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        return [path.name for path in Path(folder).iterdir()]


class Store:
    """Artifacts of one storage address."""

    def __init__(self, place: Place, objects: Objects, *, now: Callable[[], float] = time.time) -> None:
        self._place = place
        self._objects = objects
        self._now = now

    def read_metadata(self, artifact: Artifact) -> Mapping[str, Any]:
        """The metadata object, {} where another writer left none. Raises ComponentError(STORAGE)."""
        try:
            text = self._bounded(artifact, METADATA, MAX_METADATA_BYTES)
        except FileNotFoundError:
            return {}
        value = _loads(text, f"metadata of {artifact.name}")
        if not isinstance(value, dict):
            raise ComponentError(Code.STORAGE, f"metadata of {artifact.name} is not a JSON object")
        return value

    @contextmanager
    def rows(self, artifact: Artifact) -> Iterator["Rows"]:
        """A CSV or Parquet table, row by row, never all of it in memory; each partition has the same columns."""
        metadata = self.read_metadata(artifact)
        parts = self._partitions(artifact, metadata)
        parquet = metadata.get("file_type") == PARQUET
        columns, first = self._open(artifact, parts[0], parquet=parquet)

        def all_rows() -> Generator[Sequence[Sequence[str]], None, None]:
            yield from first
            for part in parts[1:]:
                header, more = self._open(artifact, part, parquet=parquet)
                if header != columns:
                    raise ComponentError(Code.BAD_INPUT, f"{artifact.name}: partitions have different columns")
                yield from more

        rows = all_rows()
        try:
            yield Rows(columns, chain.from_iterable(rows), metadata)
        finally:
            rows.close()
            first.close()

    def read_table(self, artifact: Artifact) -> Table:
        """All of a table at once."""
        with self.rows(artifact) as found:
            return Table(found.columns, list(found.rows), found.metadata)

    def read_lines(self, artifact: Artifact, column: str) -> "Lines":
        """All of a table at once as lines, and one column. Raises ComponentError(BAD_INPUT) where there is none."""
        # Apart, for it loads NumPy.
        from gateway.sdk import lines  # noqa: PLC0415

        metadata = self.read_metadata(artifact)
        parts = self._partitions(artifact, metadata)
        if len(parts) == 1 and metadata.get("file_type") != PARQUET:
            with _reading(artifact), self._objects.reading(self._path(artifact, parts[0])) as file:
                found = lines.plain(file.read(), column, metadata)
            if found is not None:
                return found
        table = self.read_table(artifact)
        at = table.column(column)
        written = [line.encode() for some in _csv_lines(table.rows, len(table.columns)) for line in some]
        return lines.collected(table.columns, [row[at].encode() for row in table.rows], written, metadata)

    def read_json(self, artifact: Artifact) -> Any:
        """A JSON artifact (model, report): the object in its first partition."""
        return _loads(self.read_bytes(artifact, limit=MAX_JSON_BYTES), artifact.name)

    def read_bytes(self, artifact: Artifact, *, limit: int) -> bytes:
        """The first partition as it is, at most `limit` bytes; ComponentError(STORAGE) where it is longer."""
        part = self._partitions(artifact, self.read_metadata(artifact))[0]
        with _reading(artifact):
            return self._bounded(artifact, part, limit)

    def write_table(
        self,
        artifact: Artifact,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        extra: Mapping[str, Any],
        file_type: str = CSV,
    ) -> int:
        """Write a table of one partition; the number of its rows. extra: further keys of the metadata.

        file_type: `csv`, or `parquet` with the extra of that name; every column holds text.
        """
        count = 0

        def counted() -> Iterator[Sequence[object]]:
            nonlocal count
            for row in rows:
                count += 1
                yield row

        with self._writing(artifact) as file:
            if file_type == PARQUET:
                # Apart, for it needs the extra `parquet`.
                from gateway.sdk import parquet  # noqa: PLC0415

                parquet.write(file, columns, counted())
            else:
                _write_csv(file, columns, counted())
        self._finish_table(artifact, columns, count, file_type, extra)
        return count

    def write_lines(self, artifact: Artifact, table: "Lines", rows: "Places", *, extra: Mapping[str, Any]) -> int:
        """Write these rows of a table that was read as lines, in their order, as `write_table` would."""
        with self._writing(artifact) as file:
            _write_csv(file, table.columns, ())
            for piece in table.take(rows):
                file.write(piece)
        self._finish_table(artifact, table.columns, len(rows), CSV, extra)
        return len(rows)

    def _finish_table(
        self, artifact: Artifact, columns: Sequence[str], count: int, file_type: str, extra: Mapping[str, Any]
    ) -> None:
        info = [{"name": name, "type": "string"} for name in columns]
        known = {"column_info": info, "count": count, "file_type": file_type, "data_type": "dense"}
        self._finish(artifact, {**known, **extra})

    def write_json(self, artifact: Artifact, value: object) -> None:
        """Write a JSON artifact of one partition."""
        with self._writing(artifact) as file:
            for piece in json.JSONEncoder(ensure_ascii=False, allow_nan=False, indent=1).iterencode(value):
                file.write(piece.encode())
            file.write(b"\n")
        self._finish(artifact, {"column_info": [], "count": 1, "file_type": JSON})

    def write_bytes(self, artifact: Artifact, pieces: Iterable[bytes], *, file_type: str) -> None:
        """Write what is neither a table nor JSON, a model in a format of its own for example."""
        with self._writing(artifact) as file:
            for piece in pieces:
                file.write(piece)
        self._finish(artifact, {"column_info": [], "count": 1, "file_type": file_type})

    def _path(self, artifact: Artifact, item: str) -> str:
        return object_path(self._place, artifact, item)

    def _bounded(self, artifact: Artifact, item: str, limit: int) -> bytes:
        try:
            with self._objects.reading(self._path(artifact, item)) as file:
                data = _up_to(file, limit)
        except FileNotFoundError:
            raise
        except OSError as e:
            raise ComponentError(Code.STORAGE, f"{artifact.name} cannot be read: {_words(e)}") from e
        if len(data) > limit:
            raise ComponentError(Code.STORAGE, f"{item} of {artifact.name} is longer than {limit} bytes")
        return data

    def _open(
        self, artifact: Artifact, item: str, *, parquet: bool
    ) -> tuple[tuple[str, ...], Generator[Sequence[Any], None, None]]:
        """Columns of one partition, and its rows, many at a time; the object is open until these end."""
        lines = self._lines(artifact, item, parquet=parquet)
        return tuple(next(lines)), lines

    def _lines(self, artifact: Artifact, item: str, *, parquet: bool) -> Generator[Sequence[Any], None, None]:
        with _reading(artifact), self._objects.reading(self._path(artifact, item)) as file:
            if parquet:
                from gateway.sdk import parquet as reader  # noqa: PLC0415

                rows = iter(reader.read(file, artifact.name))
                columns = next(rows)
                yield columns
                while some := list(islice(rows, rows_at_once(len(columns)))):
                    yield some
            else:
                text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
                yield from _read_csv(text, artifact.name)

    def _partitions(self, artifact: Artifact, metadata: Mapping[str, Any]) -> list[str]:
        """`metadata.partitions` of them, else all data_* there are (A-amb 8)."""
        count = metadata.get("partitions")
        if isinstance(count, int) and not isinstance(count, bool) and 0 < count <= MAX_PARTITIONS:
            return [data_name(index) for index in range(count)]
        with _reading(artifact):
            folder = self._path(artifact, METADATA).rpartition("/")[0]
            names = [name for name in self._objects.names(folder) if name.startswith("data_") and name[5:].isdecimal()]
        if not names:
            raise ComponentError(Code.STORAGE, f"{artifact.name} has no data")
        return sorted(names, key=lambda name: int(name[5:]))

    @contextmanager
    def _writing(self, artifact: Artifact) -> Iterator[BinaryIO]:
        try:
            with self._objects.writing(self._path(artifact, data_name(0))) as file:
                yield file
                # Without metadata the old version is no longer complete, so nobody reads half of each.
                self._objects.remove(self._path(artifact, METADATA))
        except OSError as e:
            raise ComponentError(Code.STORAGE, f"{artifact.name} cannot be written: {_words(e)}") from e

    def _finish(self, artifact: Artifact, metadata: Mapping[str, Any]) -> None:
        whole = {"partitions": 1, "description": "", "create_time": self._now(), "expire_time": None, **metadata}
        try:
            with self._objects.writing(self._path(artifact, METADATA)) as file:
                file.write(json.dumps(whole, ensure_ascii=False, allow_nan=False).encode())
        except OSError as e:
            raise ComponentError(Code.STORAGE, f"{artifact.name} cannot be written: {_words(e)}") from e


class FileStore(Store):
    """Artifacts below one folder of this machine."""

    def __init__(self, root: Path, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(Place("file", str(root)), Files(), now=now)


def open_store(address: str) -> Store:
    """Store of a `system.storage` address. Raises ComponentError(STORAGE); the address, which may hold a password,
    stays out of the message.
    """
    place = read_place(address)
    if place.scheme == "file":
        return Store(place, Files())
    # Each needs an extra; a component that reads files need not have them.
    try:
        if place.scheme == "s3":
            from gateway.sdk.s3 import Buckets  # noqa: PLC0415

            return Store(place, Buckets(place))
        from gateway.sdk.hdfs import Hdfs  # noqa: PLC0415

        return Store(place, Hdfs(place))
    except ImportError as e:
        raise ComponentError(
            Code.STORAGE, f"system.storage: {place.scheme}:// needs the extra {place.scheme!r} of this package"
        ) from e
    except OSError as e:
        raise ComponentError(Code.STORAGE, f"system.storage: {place.scheme}:// cannot be used: {_words(e)}") from e


def _words(error: OSError) -> str:
    """Without the path, which is long, and with something to say where a library gave no words."""
    return error.strerror or type(error).__name__


def _up_to(file: BinaryIO, limit: int) -> bytes:
    """At most limit + 1 bytes, also of a file that gives them in small pieces."""
    data = bytearray()
    while len(data) <= limit and (piece := file.read(min(1 << 20, limit + 1 - len(data)))):
        data += piece
    return bytes(data)


def _write_csv(file: BinaryIO, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    file.writelines("".join(lines).encode() for lines in _csv_lines(chain([columns], rows), len(columns)))


def _csv_lines(rows: Iterable[Sequence[object]], width: int) -> Iterator[list[str]]:
    """The records of the rows, many at a time."""
    left = iter(rows)
    while some := list(islice(left, rows_at_once(width))):
        lines = _records(some, csv.QUOTE_MINIMAL)
        # A bare carriage return ends a record for most readers, but csv.writer quotes only what is in its own line end.
        for at, line in enumerate(lines if "\r" in "".join(lines) else ()):
            if "\r" in line:
                lines[at : at + 1] = _records([some[at]], csv.QUOTE_ALL)
        yield lines


def _records(rows: Sequence[Sequence[object]], quoting: Literal[0, 1]) -> list[str]:
    lines: list[str] = []
    # The writer wants something with `write`, and calls it once a row.
    csv.writer(SimpleNamespace(write=lines.append), lineterminator="\n", quoting=quoting).writerows(rows)
    return lines


def rows_at_once(width: int) -> int:
    """How many rows are handled together: enough to do it fast, too few for the memory to notice."""
    return max(1, _FIELDS_AT_ONCE // max(1, width))


@contextmanager
def _reading(artifact: Artifact) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise ComponentError(Code.STORAGE, f"{artifact.name} cannot be read: {_words(e)}") from e
    except UnicodeDecodeError as e:
        raise ComponentError(Code.BAD_INPUT, f"{artifact.name} is not UTF-8 text") from e


def _loads(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ComponentError(Code.BAD_INPUT, f"{what} is not JSON") from None


def _read_csv(file: Iterable[str], what: str) -> Iterator[Sequence[Any]]:
    """Header of one CSV file, then its rows, many at a time; ragged rows, repeated column names and over-long fields
    are refused.
    """
    reader = csv.reader(file, strict=True)
    try:
        columns = next(reader)
        if len(columns) > MAX_COLUMNS or len(set(columns)) != len(columns):
            raise ComponentError(Code.BAD_INPUT, f"{what} has too many columns or two of the same name")
        yield columns
        number = 1
        while some := list(islice(reader, rows_at_once(len(columns)))):
            if set(map(len, some)) != {len(columns)}:
                some = [row for row in some if row]
                good = next((at for at, row in enumerate(some) if len(row) != len(columns)), len(some))
                if good < len(some):
                    yield some[:good]
                    words = f"{len(some[good])} fields instead of {len(columns)}"
                    raise ComponentError(Code.BAD_INPUT, f"{what}, record {number + good + 1}: {words}")
            number += len(some)
            yield some
    except StopIteration:
        raise ComponentError(Code.BAD_INPUT, f"{what} has no header line") from None
    except csv.Error as e:
        raise ComponentError(Code.BAD_INPUT, f"{what}, line {reader.line_num}: {e}") from None
