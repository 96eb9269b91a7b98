"""A database as a file and back: one JSON object per line, the same for SQLite and PostgreSQL.

    {"format": "interconn-store", "version": 1, "revision": "0001", "at": <ms>}
    {"table": "contract", "row": {...}}            one per row, tables by name, rows by key
    {"end": <number of rows>, "sha256": "<of all lines before>"}

The file holds the state of one moment, taken while the gateway goes on working, and everything the database holds:
permits and audits too. It is written for its owner alone. Keys and configuration are files and are not in it.
"""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.errors import Kind, Refused, Unavailable
from gateway.store.engine import POSTGRESQL, SQLITE, engine, parse_url
from gateway.store.sql import change_schema

FORMAT: Final = "interconn-store"
VERSION: Final = 1
LINE_BYTES: Final = 64 << 20
_REVISIONS: Final = "alembic_version"
_BATCH: Final = 500
_BINARY: Final = "$base64"

Line = Mapping[str, Any]
T = TypeVar("T")


def revision(url: str) -> str | None:
    """The revision of a database's schema, None where it has none yet; raises Unavailable(STORE)."""
    return _read(url, lambda connection: MigrationContext.configure(connection).get_current_revision())


def newest() -> str:
    """The revision that this version of the software works with."""
    return str(_scripts().get_current_head())


_TRAIL: Final = "0003"
"""The revision that brought the audit trail."""


def rollback(url: str, *, to: str | None = None, drop_audit_trail: bool = False) -> str:
    """Take the schema one revision back, or to `to`; what only newer revisions know is lost. The revision reached.

    Raises Refused(CONFLICT) where there is nothing to go back to, or where the audit trail would be lost and
    `drop_audit_trail` is not set; Refused(NOT_FOUND) for an unknown revision.
    """
    now = revision(url)
    if now is None:
        raise Refused("the database has no schema yet", kind=Kind.CONFLICT)
    scripts = _scripts()
    older = [each.revision for each in scripts.iterate_revisions(now, "base")][1:]
    if not older:
        raise Refused(f"revision {now} is the first; to begin anew, take another database", kind=Kind.CONFLICT)
    if to is not None and to not in older:
        raise Refused(f"{to} is not older than {now}; these are: {', '.join(older)}", kind=Kind.NOT_FOUND)
    target = to or older[0]
    if _TRAIL in [now, *older[: older.index(target)]] and not drop_audit_trail:
        raise Refused(
            f"{target} has no audit trail, all of it would be lost: export it first, then say --drop-audit-trail",
            kind=Kind.CONFLICT,
        )
    change_schema(url, lambda config: command.downgrade(config, target))
    return target


def backup(url: str, file: Path, *, now_ms: int) -> int:
    """Write the database to a new file; the number of rows. The gateway may be at work meanwhile.

    Raises Refused(CONFLICT) where the file exists, Unavailable(STORAGE) where it cannot be written, (STORE) where the
    database cannot be read. The file is there as a whole or not at all.
    """
    if file.exists():
        raise Refused(f"{file} exists", kind=Kind.CONFLICT)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            rows = _read(url, lambda connection: _write(connection, out.write, now_ms))
            out.flush()
            os.fsync(out.fileno())
        os.link(part, file)
    except FileExistsError as e:
        raise Refused(f"{file} exists", kind=Kind.CONFLICT) from e
    except OSError as e:
        raise Unavailable(f"{file}: {e.strerror}", kind=Kind.STORAGE) from e
    finally:
        with suppress(OSError):
            part.unlink()
    return rows


def restore(url: str, file: Path) -> int:
    """Fill an empty database from a backup and bring it to the newest revision; the number of rows.

    The whole file is checked before the database is touched. Raises Refused(MALFORMED) where it is not a whole backup,
    Refused(CONFLICT) where the database holds anything or the backup is of a newer version.
    """
    header, count = _verified(file)
    wanted = header["revision"]
    scripts = _scripts()
    if wanted not in {each.revision for each in scripts.walk_revisions()}:
        raise Refused(f"the backup has revision {wanted}, which this version does not know", kind=Kind.CONFLICT)
    if _exists(url) and _read(url, _holds_rows):
        raise Refused("the database is not empty: restore into a new one", kind=Kind.CONFLICT)

    def shape(config: Config) -> None:
        command.downgrade(config, "base")
        command.upgrade(config, wanted)

    change_schema(url, shape)
    opened = engine(url)
    try:
        with opened.begin() as connection:
            _fill(connection, file)
    except SQLAlchemyError as e:
        raise Unavailable(f"the backup cannot be restored: {type(e).__name__}", kind=Kind.STORE) from e
    finally:
        opened.dispose()
    change_schema(url, lambda config: command.upgrade(config, "head"))
    return count


# --- the file ---------------------------------------------------------------------------------------------------------


def _line(value: Line) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _lines(file: Path) -> Iterator[tuple[bytes, Line]]:
    try:
        with file.open("rb") as read:
            while raw := read.readline(LINE_BYTES + 1):
                if len(raw) > LINE_BYTES:
                    raise Refused(f"{file} has a line of more than {LINE_BYTES} bytes", kind=Kind.MALFORMED)
                value = json.loads(raw)
                if not isinstance(value, dict):
                    raise Refused(f"{file} is not a backup", kind=Kind.MALFORMED)
                yield raw, value
    except OSError as e:
        raise Refused(f"{file}: {e.strerror}", kind=Kind.NOT_FOUND) from e
    except (ValueError, RecursionError) as e:
        raise Refused(f"{file} is not a backup", kind=Kind.MALFORMED) from e


def _verified(file: Path) -> tuple[Line, int]:
    """The header and the number of rows of a file that is whole and unchanged."""
    digest = hashlib.sha256()
    header: Line | None = None
    count, ended = 0, False
    for raw, value in _lines(file):
        if ended:
            raise Refused(f"{file} goes on after its end", kind=Kind.MALFORMED)
        if header is None:
            if value.get("format") != FORMAT or value.get("version") != VERSION:
                raise Refused(f"{file} is not a backup of this format", kind=Kind.MALFORMED)
            header = value
        elif "end" in value:
            if value["end"] != count or value.get("sha256") != digest.hexdigest():
                raise Refused(f"{file} has been changed since it was written", kind=Kind.MALFORMED)
            ended = True
        else:
            count += 1
        digest.update(raw)
    if header is None or not ended:
        raise Refused(f"{file} is not whole", kind=Kind.MALFORMED)
    return header, count


# --- the database -----------------------------------------------------------------------------------------------------


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", "gateway.store:migrations")
    return ScriptDirectory.from_config(config)


def _exists(url: str) -> bool:
    parsed = parse_url(url)
    return parsed.get_backend_name() != SQLITE or (bool(parsed.database) and Path(str(parsed.database)).exists())


def _read(url: str, work: Callable[[Connection], T]) -> T:
    """Run `work` on the state of one moment, without holding up a writer."""
    if not _exists(url):
        raise Unavailable("there is no database yet", kind=Kind.STORE)
    opened = engine(url)
    try:
        with opened.connect() as connection:
            # It changes the connection itself.
            if opened.dialect.name == POSTGRESQL:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            else:
                connection.execution_options(interconn_snapshot=True)
            with connection.begin():
                return work(connection)
    except SQLAlchemyError as e:
        raise Unavailable(f"the database cannot be read: {type(e).__name__}", kind=Kind.STORE) from e
    finally:
        opened.dispose()


def _tables(connection: Connection) -> list[Table]:
    """The tables as they are, which need not be those of this version."""
    found = MetaData()
    found.reflect(connection)
    return [table for name, table in sorted(found.tables.items()) if name != _REVISIONS]


def _holds_rows(connection: Connection) -> bool:
    return any(connection.execute(select(table).limit(1)).first() is not None for table in _tables(connection))


def _write(connection: Connection, write: Callable[[bytes], object], now_ms: int) -> int:
    digest = hashlib.sha256()

    def put(value: Line) -> None:
        raw = _line(value)
        digest.update(raw)
        write(raw)

    at = MigrationContext.configure(connection).get_current_revision()
    if at is None:
        raise Unavailable("the database has no schema yet", kind=Kind.STORE)
    put({"format": FORMAT, "version": VERSION, "revision": at, "at": now_ms})
    count = 0
    for table in _tables(connection):
        statement = select(table).order_by(*table.primary_key.columns)
        for row in connection.execution_options(yield_per=_BATCH).execute(statement).mappings():
            put({"table": table.name, "row": {name: _plain(value) for name, value in row.items()}})
            count += 1
    put({"end": count, "sha256": digest.hexdigest()})
    return count


def _plain(value: Any) -> Any:
    return {_BINARY: base64.b64encode(value).decode()} if isinstance(value, (bytes, memoryview)) else value


def _value(value: Any) -> Any:
    return base64.b64decode(value[_BINARY]) if isinstance(value, dict) else value


def _fill(connection: Connection, file: Path) -> None:
    tables = {table.name: table for table in _tables(connection)}
    waiting: list[dict[str, Any]] = []
    current = ""

    def flush() -> None:
        if waiting:
            connection.execute(insert(tables[current]), waiting)
            waiting.clear()

    for _, value in _lines(file):
        if "row" not in value:
            continue
        name, row = value.get("table"), value["row"]
        known = tables.get(str(name))
        if known is None or not isinstance(row, dict) or set(row) != set(known.columns.keys()):
            raise Refused(f"{file} does not fit its revision", kind=Kind.MALFORMED)
        if name != current or len(waiting) == _BATCH:
            flush()
            current = str(name)
        waiting.append({key: _value(each) for key, each in row.items()})
    flush()
    if connection.dialect.name == POSTGRESQL:
        _advance_sequences(connection, tables.values())


def _advance_sequences(connection: Connection, tables: Any) -> None:
    """A counter of PostgreSQL does not see the numbers that were put in by hand."""
    for table in tables:
        for column in table.primary_key.columns:
            asked = {"table": f'"{table.name}"', "column": column.name}
            sequence = connection.execute(text("SELECT pg_get_serial_sequence(:table, :column)"), asked).scalar()
            if sequence is not None:
                highest = connection.execute(select(func.max(column))).scalar()
                if highest is not None:
                    connection.execute(text("SELECT setval(:name, :value)"), {"name": sequence, "value": highest})
