"""Opening a database: SQLite in a file, or PostgreSQL through psycopg (the extra `postgres`).

What differs between the two is here and nowhere else: how a connection is set up, how a transaction begins, which
errors mean "run it again". Statements and tables are the same for both.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from gateway.errors import CallerError, Kind, Unavailable

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
_BUSY_MS: Final = 10_000
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_BUSY_MS}", "foreign_keys=ON")
_CONNECT_S: Final = 10
_AGAIN: Final = frozenset({"40001", "40P01", "23505"})
"""SQLSTATEs of what another transaction caused: serialisation failure, deadlock, and a key that somebody else inserted
after we looked for it. Run again, the last one becomes the CONFLICT that it is."""


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


def again(error: Exception) -> bool:
    """Whether a failed transaction may succeed when it is run again as it was."""
    raised = error.orig if isinstance(error, DBAPIError) else error
    return getattr(raised, "sqlstate", None) in _AGAIN


def make_private(url: str) -> None:
    """Make SQLite's file before SQLite does, readable by its owner alone: it holds permits."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != SQLITE or not parsed.database or parsed.database == ":memory:":
        return
    try:
        os.close(os.open(Path(parsed.database), os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as e:
        raise Unavailable(f"database {parsed.database}: {e.strerror}", kind=Kind.STORE) from e
