"""The store in SQL (SQLAlchemy Core): embedded SQLite now; statements keep to what PostgreSQL knows too.

One worker thread owns the one connection, so transactions run one after the other and the event loop never waits for a
disk. SQLite runs in WAL mode with synchronous=FULL: what `run` returned from survives a power cut.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Select, Table, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from gateway.errors import CallerError, Kind, Refused, Unavailable
from gateway.ports import Record, Tx
from gateway.store.codec import KEY, comparisons, decode, encode, ordering
from gateway.store.tables import TABLES

R = TypeVar("R", bound=Record)
T = TypeVar("T")

_BUSY_MS = 10_000
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_BUSY_MS}", "foreign_keys=ON")


def _engine(url: str) -> Engine:
    # One connection, opened by one thread and disposed of by it too.
    engine = create_engine(url, pool_size=1, max_overflow=0)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _connected(raw: Any, _record: Any) -> None:
            raw.isolation_level = None  # we say BEGIN ourselves, below
            cursor = raw.cursor()
            for pragma in _PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begun(connection: Connection) -> None:
            # The write lock at once: a transaction that read can then always write.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _private_file(url: str) -> None:
    """Make the database file before SQLite does, readable by its owner alone: it holds permits."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return
    try:
        os.close(os.open(Path(parsed.database), os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as e:
        raise Unavailable(f"database {parsed.database}: {e.strerror}", kind=Kind.STORE) from e


def migrate(url: str) -> None:
    """Bring the database to the newest revision; call before SqlStore, with nothing else using the database.

    Raises Unavailable(STORE), also where the database was made by a newer version.
    """
    _private_file(url)
    config = Config()
    config.set_main_option("script_location", "gateway.store:migrations")
    engine = _engine(url)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (SQLAlchemyError, CommandError) as e:
        raise Unavailable(f"the database cannot be migrated: {e}", kind=Kind.STORE) from e
    finally:
        engine.dispose()


class _SqlTx:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _table(self, kind: type) -> Table:
        table = TABLES.get(kind)
        if table is None:
            raise CallerError(f"{kind.__name__} is not kept in the store")
        return table

    def _find(self, kind: type[R], key: str) -> R | None:
        table = self._table(kind)
        row = self._connection.execute(select(table).where(table.c[KEY] == key)).mappings().first()
        return None if row is None else decode(kind, dict(row))

    def get(self, kind: type[R], key: str) -> R | None:
        return self._find(kind, key)

    def insert(self, record: Record) -> None:
        kind = type(record)
        row = encode(record)
        if self._find(kind, record.key()) is not None:
            raise Refused(f"{kind.__name__} {record.key()} exists", kind=Kind.CONFLICT, detail="")
        self._connection.execute(self._table(kind).insert().values(row))

    def replace(self, old: R, new: R) -> None:
        if old.key() != new.key():
            raise CallerError("replace must keep the key")
        table = self._table(type(old))
        stored = self._find(type(old), old.key())
        if stored is None or encode(stored) != encode(old):
            raise Refused(f"{type(old).__name__} {old.key()} has changed", kind=Kind.CONFLICT, detail="")
        self._connection.execute(table.update().where(table.c[KEY] == old.key()).values(encode(new)))

    def delete(self, record: Record) -> None:
        table = self._table(type(record))
        self._connection.execute(table.delete().where(table.c[KEY] == record.key()))

    def _where(self, statement: Select[Any], kind: type, equals: dict[str, object]) -> Select[Any]:
        table = self._table(kind)
        for name, value in comparisons(kind, equals).items():
            statement = statement.where(table.c[name].is_(None) if value is None else table.c[name] == value)
        return statement

    def select(
        self, kind: type[R], /, *, order: str = "created", limit: int | None = None, offset: int = 0, **equals: object
    ) -> Sequence[R]:
        table = self._table(kind)
        name, descending = ordering(kind, order)
        by = table.c[name].desc().nulls_last() if descending else table.c[name].asc().nulls_first()
        statement = self._where(select(table), kind, equals).order_by(by, table.c[KEY])
        if limit is not None or offset:
            statement = statement.limit(-1 if limit is None else limit).offset(offset)
        return [decode(kind, dict(row)) for row in self._connection.execute(statement).mappings()]

    def count(self, kind: type[R], /, **equals: object) -> int:
        table = self._table(kind)
        statement = self._where(select(func.count()).select_from(table), kind, equals)
        return int(self._connection.execute(statement).scalar_one())


class SqlStore:
    """ports.Store over a database that `migrate` has prepared. url: an SQLAlchemy address, e.g. sqlite:////dir/node.db."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._closed = False

    def _transact(self, work: Callable[[Tx], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return work(_SqlTx(connection))
        except SQLAlchemyError as e:
            raise Unavailable(f"database: {type(e).__name__}", kind=Kind.STORE) from e

    async def run(self, work: Callable[[Tx], T]) -> T:
        """As ports.Store says. Cancelling the caller does not stop work that has begun: it ends as a whole."""
        if self._closed:
            raise Unavailable("the store is closed", kind=Kind.STORE)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown(wait=True)
