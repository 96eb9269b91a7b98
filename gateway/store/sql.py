"""The store in SQL (SQLAlchemy Core): the same statements on SQLite and PostgreSQL; gateway.store.engine opens either.

One worker thread owns the one connection, so transactions run one after the other and the event loop never waits for a
disk. Those that wait at the same moment share one commit, each within a savepoint of its own, and nobody is answered
before it. SQLite runs in WAL mode with synchronous=FULL: what `run` returned from survives a power cut. On PostgreSQL a
transaction is SERIALIZABLE; where another writer made the shared one fail, each is run again by itself.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.errors import CallerError, Kind, Refused, Unavailable
from gateway.ports import Record, Tx
from gateway.store.codec import KEY, decode_row, encode, place
from gateway.store.engine import POSTGRESQL, again, engine, fault, lost, make_private, touch
from gateway.store.statements import Runner, Statements, old_key

R = TypeVar("R", bound=Record)
T = TypeVar("T")

GROUP: Final = 64
"""Transactions of different callers that share one commit at most."""
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
    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._statements = runner.statements
        self.wrote = False

    def _row(self, kind: type, key: str) -> tuple[Any, ...] | None:
        found = self._runner.rows(self._statements.find(kind), {KEY: key})
        return found[0] if found else None

    def get(self, kind: type[R], key: str) -> R | None:
        row = self._row(kind, key)
        return None if row is None else decode_row(kind, row)

    def insert(self, record: Record) -> None:
        kind = type(record)
        row = encode(record)
        if self._row(kind, record.key()) is not None:
            raise Refused(f"{kind.__name__} {record.key()} exists", kind=Kind.CONFLICT, detail="")
        self.wrote = True
        self._runner.change(self._statements.insert(kind), row)

    def replace(self, old: R, new: R) -> None:
        if old.key() != new.key():
            raise CallerError("replace must keep the key")
        kind = type(old)
        stored, expected = self._row(kind, old.key()), encode(old)
        # Text that an earlier version wrote may differ in form alone.
        if stored is None or (
            tuple(stored) != tuple(expected.values()) and encode(decode_row(kind, stored)) != expected
        ):
            raise Refused(f"{kind.__name__} {old.key()} has changed", kind=Kind.CONFLICT, detail="")
        self.wrote = True
        self._runner.change(self._statements.update(kind), {**encode(new), **old_key(old.key())})

    def delete(self, record: Record) -> None:
        self.wrote = True
        self._runner.change(self._statements.delete(type(record)), old_key(record.key()))

    def select(
        self,
        kind: type[R],
        /,
        *,
        order: str = "created",
        limit: int | None = None,
        offset: int = 0,
        after: R | None = None,
        **equals: object,
    ) -> Sequence[R]:
        statement, values = self._statements.select(
            kind, order=order, limit=limit, offset=offset, equals=equals, after=place(kind, order, after)
        )
        return [decode_row(kind, row) for row in self._runner.rows(statement, values)]

    def count(self, kind: type[R], /, **equals: object) -> int:
        return int(self._runner.rows(*self._statements.count(kind, equals))[0][0])

    def each(self, wishes: Sequence["_Wish"]) -> None:
        """Do every wish within a savepoint of its own: what one raises undoes that one alone."""
        for wish in wishes:
            self._runner.say("SAVEPOINT wish")
            try:
                wish.result = wish.work(self)
            except SQLAlchemyError:
                raise
            except Exception as e:  # noqa: BLE001  # the caller's to see
                self._runner.say("ROLLBACK TO SAVEPOINT wish")
                wish.error = e
            self._runner.say("RELEASE SAVEPOINT wish")


@dataclass(slots=True)
class _Wish:
    """A transaction that somebody waits for, and what became of it."""

    work: Callable[[Tx], Any]
    answer: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class SqlStore:
    """ports.Store over a database that `migrate` has prepared.

    url: sqlite:////dir/node.db or postgresql://user@host/database. `work` of `run` may be run more than once; what it
    read and wrote in a run that failed has not happened.
    """

    def __init__(self, url: str) -> None:
        self._engine = engine(url)
        self._statements = Statements(self._engine.dialect)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._waiting: deque[_Wish] = deque()
        self._asked = False
        """The thread is at work, or about to be."""
        self._ended: asyncio.Future[None] | None = None
        """Set when nobody waits any more; `close` waits for it."""
        self._closed = False
        self._fault = ""
        """Why the last transaction failed; "" once one has written."""

    # --- on the thread ----------------------------------------------------------------------------------------------

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """One commit for those that wait; nobody is answered before it."""
        group: list[_Wish] = []
        while self._waiting and len(group) < GROUP:
            wish = self._waiting.popleft()
            if not wish.answer.cancelled():
                group.append(wish)
        try:
            self._fulfil(group)
        except Exception as e:  # noqa: BLE001  # whoever waits must hear of it
            for wish in group:
                wish.error = e
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it everybody who waited
            loop.call_soon_threadsafe(self._tell, group)

    def _fulfil(self, group: Sequence["_Wish"]) -> None:
        if len(group) > 1:
            try:
                self._once(lambda tx: tx.each(group))
            except SQLAlchemyError:
                pass  # nothing of it is kept: each finds out for itself
            else:
                return
        for wish in group:
            wish.result, wish.error = None, None
            try:
                wish.result = self._transact(wish.work)
            except Exception as e:  # noqa: BLE001  # the caller's to see
                wish.error = e

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

    def _once(self, work: Callable[[_SqlTx], T]) -> T:
        """One run. Where the server is lost while it commits nobody knows how it ended: that is not run again."""
        with self._engine.connect() as connection:
            transaction = connection.begin()
            try:
                tx = _SqlTx(Runner(self._statements, connection))
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

    # --- on the loop ------------------------------------------------------------------------------------------------

    async def run(self, work: Callable[[Tx], T]) -> T:
        """As ports.Store says. Cancelling the caller does not stop work that has begun: it ends as a whole."""
        if self._closed:
            raise Unavailable("the store is closed", kind=Kind.STORE)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Wish(work, answer))
        if not self._asked:
            self._asked = True
            loop.call_soon(self._ask, loop)
        return await answer

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """One turn later, so that what became ready in the same turn goes along."""
        self._thread.submit(self._serve, loop)

    def _tell(self, wishes: Sequence[_Wish]) -> None:
        for wish in wishes:
            if wish.answer.done():
                continue
            if wish.error is None:
                wish.answer.set_result(wish.result)
            else:
                wish.answer.set_exception(wish.error)
        if self._waiting:
            self._thread.submit(self._serve, asyncio.get_running_loop())
        else:
            self._asked = False
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(None)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._asked:
            self._ended = asyncio.get_running_loop().create_future()
            await self._ended
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown(wait=True)
