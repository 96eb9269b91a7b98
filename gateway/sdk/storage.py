"""Artifacts of a task on `file://` storage: `<root>/<namespace>/<name>/data_<partition>` and `metadata` (part 3, 7).

Outputs are atomic: the data gets its name only when it is whole, and `metadata` appears last, so a reader that finds
metadata finds everything. S3 and HDFS are other classes with the same four methods, later.
"""

import csv
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import unquote, urlsplit

from gateway.sdk.environment import Artifact
from gateway.sdk.result import Code, ComponentError

MAX_METADATA_BYTES: Final = 4 << 20
MAX_JSON_BYTES: Final = 64 << 20
MAX_COLUMNS: Final = 100_000
MAX_PARTITIONS: Final = 100_000


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
            raise ComponentError(Code.BAD_INPUT, f"column {name!r} is missing") from None


class FileStore:
    """Artifacts below one folder."""

    def __init__(self, root: Path, *, now: Callable[[], float] = time.time) -> None:
        self._root = root
        self._now = now

    def read_metadata(self, artifact: Artifact) -> Mapping[str, Any]:
        """The metadata object, {} where another writer left none. Raises ComponentError(STORAGE)."""
        path = self._folder(artifact) / "metadata"
        try:
            text = _read_bounded(path, MAX_METADATA_BYTES)
        except FileNotFoundError:
            return {}
        value = _loads(text, f"metadata of {artifact.name}")
        if not isinstance(value, dict):
            raise ComponentError(Code.STORAGE, f"metadata of {artifact.name} is not a JSON object")
        return value

    def read_table(self, artifact: Artifact) -> Table:
        """All partitions of a CSV table; each partition begins with the same header line."""
        metadata = self.read_metadata(artifact)
        columns: tuple[str, ...] = ()
        rows: list[Sequence[str]] = []
        for index, path in enumerate(self._partitions(artifact, metadata)):
            with _reading(artifact), path.open(encoding="utf-8-sig", newline="") as file:
                header, part = _read_csv(file, artifact.name)
                if index and header != columns:
                    raise ComponentError(Code.BAD_INPUT, f"{artifact.name}: partitions have different columns")
                columns = header
                rows.extend(part)
        return Table(columns, rows, metadata)

    def read_json(self, artifact: Artifact) -> Any:
        """A JSON artifact (model, report): the object in its first partition."""
        path = self._partitions(artifact, self.read_metadata(artifact))[0]
        with _reading(artifact):
            return _loads(_read_bounded(path, MAX_JSON_BYTES), artifact.name)

    def write_table(
        self, artifact: Artifact, columns: Sequence[str], rows: Iterable[Sequence[object]], *, extra: Mapping[str, Any]
    ) -> int:
        """Write a CSV table of one partition; the number of its rows. extra: further keys of the metadata."""
        count = 0

        def counted() -> Iterator[Sequence[object]]:
            nonlocal count
            for row in rows:
                count += 1
                yield row

        with self._writing(artifact) as file:
            plain = csv.writer(file, lineterminator="\n")
            # A bare carriage return ends a record for most readers, but csv.writer quotes only what is in its own
            # line end.
            quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
            for row in chain([columns], counted()):
                returns = any(isinstance(value, str) and "\r" in value for value in row)
                (quoted if returns else plain).writerow(row)
        info = [{"name": name, "type": "string"} for name in columns]
        self._finish(artifact, {"column_info": info, "count": count, "file_type": "csv", "data_type": "dense", **extra})
        return count

    def write_json(self, artifact: Artifact, value: object) -> None:
        """Write a JSON artifact of one partition."""
        with self._writing(artifact) as file:
            json.dump(value, file, ensure_ascii=False, allow_nan=False, indent=1)
            file.write("\n")
        self._finish(artifact, {"column_info": [], "count": 1, "file_type": "json"})

    def _folder(self, artifact: Artifact) -> Path:
        # Both names carry ids that another node chose: they may name a folder here, not leave it.
        for part in (artifact.namespace, artifact.name):
            # isprintable: no control characters and no half surrogates, which have no encoding.
            if not part.isprintable() or part.startswith(".") or "/" in part or len(part.encode()) > 200:
                raise ComponentError(Code.STORAGE, "namespace and name must each be one plain folder name")
        return self._root / artifact.namespace / artifact.name

    def _partitions(self, artifact: Artifact, metadata: Mapping[str, Any]) -> list[Path]:
        """`metadata.partitions` of them, else all data_* there are (A-amb 8)."""
        folder = self._folder(artifact)
        count = metadata.get("partitions")
        if isinstance(count, int) and not isinstance(count, bool) and 0 < count <= MAX_PARTITIONS:
            return [folder / f"data_{index}" for index in range(count)]
        with _reading(artifact):
            names = [
                name
                for name in (path.name for path in folder.iterdir())
                if name.startswith("data_") and name[5:].isdecimal()
            ]
        if not names:
            raise ComponentError(Code.STORAGE, f"{artifact.name} has no data")
        return [folder / name for name in sorted(names, key=lambda name: int(name[5:]))]

    @contextmanager
    def _writing(self, artifact: Artifact) -> Iterator[TextIO]:
        """A file that becomes data_0 when the block ends well, and vanishes otherwise."""
        folder = self._folder(artifact)
        temporary = folder / f".data_0.{os.getpid()}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8", newline="") as file:
                yield file
                _settle(file)
            # Without metadata the old version is no longer complete, so nobody reads half of each.
            (folder / "metadata").unlink(missing_ok=True)
            temporary.replace(folder / "data_0")
        except OSError as e:
            raise ComponentError(Code.STORAGE, f"{artifact.name} cannot be written: {e.strerror}") from e
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _finish(self, artifact: Artifact, metadata: Mapping[str, Any]) -> None:
        folder = self._folder(artifact)
        temporary = folder / f".metadata.{os.getpid()}.tmp"
        whole = {"partitions": 1, "description": "", "create_time": self._now(), "expire_time": None, **metadata}
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(whole, file, ensure_ascii=False, allow_nan=False)
                _settle(file)
            temporary.replace(folder / "metadata")
        except OSError as e:
            raise ComponentError(Code.STORAGE, f"{artifact.name} cannot be written: {e.strerror}") from e


def open_store(address: str) -> FileStore:
    """Store of a `system.storage` address. Raises ComponentError(STORAGE); the address, which may hold a password,
    stays out of the message.
    """
    scheme, separator, _ = address.partition("://")
    if not separator or scheme.lower() != "file":
        raise ComponentError(Code.STORAGE, "system.storage: this component reads and writes file:// only")
    parts = urlsplit(address)
    path = Path(unquote(parts.path))
    if parts.netloc not in {"", "localhost"} or not path.is_absolute() or "\x00" in str(path):
        raise ComponentError(Code.STORAGE, "system.storage: file:// needs an absolute path and no host")
    return FileStore(path)


def storage_secrets(address: str) -> tuple[str, ...]:
    """Texts of a storage address that must not reach a log: the password, as written and percent-decoded (A-amb 16)."""
    query = address.partition("?")[2]
    written = [part.partition("=")[2] for part in query.split("&") if part.partition("=")[0].lower() == "password"]
    userinfo = address.partition("://")[2].partition("/")[0].rpartition("@")[0].partition(":")[2]
    return tuple({text for raw in (*written, userinfo) for text in (raw, unquote(raw)) if text})


def _settle(file: TextIO) -> None:
    """On disk before it gets its name."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _reading(artifact: Artifact) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise ComponentError(Code.STORAGE, f"{artifact.name} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise ComponentError(Code.BAD_INPUT, f"{artifact.name} is not UTF-8 text") from e


def _read_bounded(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ComponentError(Code.STORAGE, f"{path.name} of {path.parent.name} is longer than {limit} bytes")
    return data


def _loads(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ComponentError(Code.BAD_INPUT, f"{what} is not JSON") from None


def _read_csv(file: TextIO, what: str) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows of one CSV file; ragged rows, repeated column names and over-long fields are refused."""
    reader = csv.reader(file, strict=True)
    try:
        columns = tuple(next(reader))
        rows = [row for row in reader if row]
    except StopIteration:
        raise ComponentError(Code.BAD_INPUT, f"{what} has no header line") from None
    except csv.Error as e:
        raise ComponentError(Code.BAD_INPUT, f"{what}, line {reader.line_num}: {e}") from None
    if len(columns) > MAX_COLUMNS or len(set(columns)) != len(columns):
        raise ComponentError(Code.BAD_INPUT, f"{what} has too many columns or two of the same name")
    width = len(columns)
    for number, row in enumerate(rows, 2):
        if len(row) != width:
            raise ComponentError(Code.BAD_INPUT, f"{what}, record {number}: {len(row)} fields instead of {width}")
    return columns, rows
