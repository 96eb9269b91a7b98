"""The store in SQL (SQLAlchemy Core): the same statements on SQLite and PostgreSQL; gateway.store.engine opens either.

One worker thread owns the one connection, so transactions run one after the other and the event loop never waits for a
disk. SQLite runs in WAL mode with synchronous=FULL: what `run` returned from survives a power cut. On PostgreSQL a
transaction is SERIALIZABLE and is run again where another writer made it fail.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Select, Table, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.errors import CallerError, Kind, Refused, Unavailable
from gateway.ports import Record, Tx
from gateway.store.codec import KEY, comparisons, decode, encode, ordering
from gateway.store.engine import POSTGRESQL, again, engine, fault, lost, make_private, touch
from gateway.store.tables import TABLES

R = TypeVar("R", bound=Record)
T = TypeVar("T")

_MIGRATION_LOCK: Final = 0x696E_7465_7263_6F6E
"""Advisory lock of PostgreSQL under which revisions run: two processes starting at once take turns."""


def migrate(url: str) -> None:
    """Bring the database to the newest revision; call before SqlStore, with nothing else using the database.

    Raises Unavailable(STORE), also where the database was made by a newer version.
    """
    change_schema(url, lambda config: command.upgrade(config, "head"))


def change_schema(url: str, change: Callable[[Config], None]) -> None:
    """Run an alembic command in one transaction. Raises as `migrate` does."""
    make_private(url)
    config = Config()
    config.set_main_option("script_location", "gateway.store:migrations")
    opened = engine(url)
    try:
        with opened.begin() as connection:
            config.attributes["connection"] = connection
            if opened.dialect.name == POSTGRESQL:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            change(config)
            if opened.dialect.name == POSTGRESQL:
                _order_by_bytes(connection)
    except (SQLAlchemyError, CommandError) as e:
        raise Unavailable(f"the database cannot be migrated: {_words(e)}", kind=Kind.STORE) from e
    finally:
        opened.dispose()


def _words(error: Exception) -> str:
    """What went wrong without the statement: its values are nobody's business."""
    return str(getattr(error, "orig", None) or error)


def _order_by_bytes(connection: Connection) -> None:
    """Text columns sort by code point, as in SQLite, whatever the database's own language: pages are the same."""
    columns = connection.execute(
        text(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
            " ORDER BY table_name, ordinal_position"
        )
    ).all()
    quote = connection.dialect.identifier_preparer.quote
    changes: dict[str, list[str]] = {}
    for table, column in columns:
        changes.setdefault(table, []).append(f'ALTER COLUMN {quote(column)} TYPE text COLLATE "C"')
    for table, parts in changes.items():
        connection.exec_driver_sql(f"ALTER TABLE {quote(table)} {', '.join(parts)}")


class _SqlTx:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.wrote = False

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
        self.wrote = True
        self._connection.execute(self._table(kind).insert().values(row))

    def replace(self, old: R, new: R) -> None:
        if old.key() != new.key():
            raise CallerError("replace must keep the key")
        table = self._table(type(old))
        stored = self._find(type(old), old.key())
        if stored is None or encode(stored) != encode(old):
            raise Refused(f"{type(old).__name__} {old.key()} has changed", kind=Kind.CONFLICT, detail="")
        self.wrote = True
        self._connection.execute(table.update().where(table.c[KEY] == old.key()).values(encode(new)))

    def delete(self, record: Record) -> None:
        table = self._table(type(record))
        self.wrote = True
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
        by = table.c[name].desc() if descending else table.c[name].asc()
        if table.c[name].nullable:  # elsewhere the words would only keep PostgreSQL from using an index
            by = by.nulls_last() if descending else by.nulls_first()
        statement = self._where(select(table), kind, equals).order_by(by, table.c[KEY])
        if limit is not None:
            statement = statement.limit(limit)
        if offset:
            statement = statement.offset(offset)
        return [decode(kind, dict(row)) for row in self._connection.execute(statement).mappings()]

    def count(self, kind: type[R], /, **equals: object) -> int:
        table = self._table(kind)
        statement = self._where(select(func.count()).select_from(table), kind, equals)
        return int(self._connection.execute(statement).scalar_one())


class SqlStore:
    """ports.Store over a database that `migrate` has prepared.

    url: sqlite:////dir/node.db or postgresql://user@host/database. `work` of `run` may be run more than once; what it
    read and wrote in a run that failed has not happened.
    """

    def __init__(self, url: str) -> None:
        self._engine = engine(url)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._closed = False
        self._fault = ""
        """Why the last transaction failed; "" once one has written."""

    def _transact(self, work: Callable[[Tx], T]) -> T:
        attempt = 1
        while True:
            try:
                return self._once(work)
            except SQLAlchemyError as e:
                pause_s = again(e, attempt)
                if pause_s is None:
                    self._fault = fault(e)
                    raise Unavailable(f"database: {self._fault}", kind=Kind.STORE) from e
            time.sleep(pause_s)
            attempt += 1

    def _once(self, work: Callable[[Tx], T]) -> T:
        """One run. Where the server is lost while it commits nobody knows how it ended: that is not run again."""
        with self._engine.connect() as connection:
            transaction = connection.begin()
            try:
                tx = _SqlTx(connection)
                result = work(tx)
            except BaseException:
                # Where SQLite has rolled back by itself (disk full), or the server is gone, there is nothing to do.
                with contextlib.suppress(SQLAlchemyError):
                    transaction.rollback()
                raise
            try:
                transaction.commit()
            except SQLAlchemyError as e:
                with contextlib.suppress(SQLAlchemyError):
                    transaction.rollback()
                if lost(e):
                    self._fault = fault(e)
                    raise Unavailable("the database was lost during a commit", kind=Kind.STORE) from e
                raise
            if tx.wrote:
                self._fault = ""
            return result

    async def writable(self) -> str:
        """Why the store cannot be written, in words for anybody, or ""; it writes only after a failure."""
        try:
            await self.run(lambda _: None)
        except Unavailable:
            return self._fault or "not available"
        if not self._fault:
            return ""
        with contextlib.suppress(Unavailable):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._probe)
        return self._fault

    def _probe(self) -> None:
        """Write something that changes nothing, as far as to the disk."""
        try:
            with self._engine.begin() as connection:
                touch(connection)
        except SQLAlchemyError as e:
            self._fault = fault(e)
        else:
            self._fault = ""

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
