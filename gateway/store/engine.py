"""Opening a database: SQLite in a file, or PostgreSQL through psycopg (the extra `postgres`).

What differs between the two is here and nowhere else: how a connection is set up, how a transaction begins, which
errors mean "run it again". Statements and tables are the same for both.
"""

import os
import random
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from gateway.errors import CallerError, Kind, Unavailable

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
_BUSY_MS: Final = 10_000
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_BUSY_MS}", "foreign_keys=ON")
_CONNECT_S: Final = 10
_AGAIN: Final = frozenset({"40001", "40P01", "23505"})
"""SQLSTATEs of what another transaction caused: serialisation failure, deadlock, and a key that somebody else inserted
after we looked for it. Run again, the last one becomes the CONFLICT that it is."""
_GONE: Final = frozenset({"57P01", "57P02", "57P03", "08000", "08003", "08006", "08001", "08004"})
"""The server stops, crashes, is starting, or the connection broke."""
PUSHED_ATTEMPTS: Final = 10
"""Runs of a transaction that others keep pushing aside; only PostgreSQL with a second writer knows such."""
_PUSHED_PAUSE_S: Final = 0.002
LOST_ATTEMPTS: Final = 6
"""Attempts to reach a server that is restarted: a second and a half in all. Beyond, requests are refused meanwhile."""
_LOST_PAUSE_S: Final = 0.025
_LONGEST_PAUSE_S: Final = 0.8
_SQLITE_WORDS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_NOTADB: "the database is damaged",
    sqlite3.SQLITE_BUSY: "another program holds the database",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened",
}
_SERVER_WORDS: Final = {"53100": "the disk is full", "25006": "the database is read-only"}


def parse_url(url: str) -> URL:
    """A database address with its driver: `sqlite:///FILE` or `postgresql://USER@HOST/DB`.

    Raises CallerError(MALFORMED); its text never shows the address, which may hold a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise CallerError("the database's address cannot be read", kind=Kind.MALFORMED) from None
    backend = parsed.get_backend_name()
    if backend == SQLITE:
        return parsed
    if backend in (POSTGRESQL, "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise CallerError("the database must be sqlite: or postgresql:", kind=Kind.MALFORMED)


def engine(url: str) -> Engine:
    """An engine with one connection, opened by one thread and disposed of by it too.

    A transaction begins IMMEDIATE on SQLite, SERIALIZABLE on PostgreSQL: neither sees another's half-done work.
    Raises Unavailable(STORE) where the driver is not installed.
    """
    parsed = parse_url(url)
    return _sqlite(parsed) if parsed.get_backend_name() == SQLITE else _postgresql(parsed)


def _sqlite(url: URL) -> Engine:
    made = create_engine(url, pool_size=1, max_overflow=0)

    @event.listens_for(made, "connect")
    def _connected(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # we say BEGIN ourselves, below
        cursor = raw.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(made, "begin")
    def _begun(connection: Connection) -> None:
        if connection.get_execution_options().get("interconn_snapshot"):
            connection.exec_driver_sql("BEGIN")  # reads only: in WAL mode it holds nobody up
        else:
            # The write lock at once: a transaction that read can then always write.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return made


def _postgresql(url: URL) -> Engine:
    arguments: Mapping[str, Any] = {
        "connect_timeout": _CONNECT_S,
        "application_name": "interconn",
        # What `run` returned from survives a power cut, also where the server's default is laxer.
        "options": "-c synchronous_commit=on -c client_encoding=UTF8",
    }
    try:
        # pre_ping: a server that was restarted costs a new connection, not a failed transaction.
        return create_engine(
            url,
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            isolation_level="SERIALIZABLE",
            connect_args=dict(arguments),
        )
    except ModuleNotFoundError as e:
        words = "PostgreSQL needs the extra `postgres`: pip install 'interconn[postgres]'"
        raise Unavailable(words, kind=Kind.STORE) from e


def again(error: Exception, attempt: int) -> float | None:
    """Seconds until a transaction that failed `attempt` times may be run again as it was; None where that is no use.

    Not a failure during a commit that lost the server: see gateway.store.sql.
    """
    pushed = isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _AGAIN
    if pushed and attempt < PUSHED_ATTEMPTS:
        # At random, or two writers meet again.
        return random.uniform(0.0, min(_PUSHED_PAUSE_S * (1 << attempt), _LONGEST_PAUSE_S))  # noqa: S311  # no secret
    if lost(error) and attempt < LOST_ATTEMPTS:
        return min(_LOST_PAUSE_S * (1 << attempt), _LONGEST_PAUSE_S)
    return None


def lost(error: Exception) -> bool:
    """Whether there is no server behind the connection any more, or none to be had just now (PostgreSQL)."""
    if not isinstance(error, DBAPIError) or type(error.orig).__module__.startswith("sqlite3"):
        return False
    state = getattr(error.orig, "sqlstate", None)
    return (
        bool(error.connection_invalidated) or (state is None and isinstance(error, OperationalError)) or state in _GONE
    )


def fault(error: Exception) -> str:
    """What is wrong with the database, in words without particulars."""
    cause = getattr(error, "orig", None)
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code in _SQLITE_WORDS:
        return _SQLITE_WORDS[code]
    state = getattr(cause, "sqlstate", None)
    if state in _SERVER_WORDS:
        return _SERVER_WORDS[state]
    return "the server cannot be reached" if lost(error) else f"{type(error).__name__}"


def touch(connection: Connection) -> None:
    """A write that changes nothing anybody reads, to see whether one can be made; inside a transaction."""
    if connection.dialect.name == SQLITE:
        connection.exec_driver_sql(f"PRAGMA user_version = {random.getrandbits(30)}")  # no secret
    else:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE interconn_touch (x int) ON COMMIT DROP")


def make_private(url: str) -> None:
    """Make SQLite's file before SQLite does, readable by its owner alone: it holds permits."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != SQLITE or not parsed.database or parsed.database == ":memory:":
        return
    try:
        os.close(os.open(Path(parsed.database), os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as e:
        raise Unavailable(f"database {parsed.database}: {e.strerror}", kind=Kind.STORE) from e
