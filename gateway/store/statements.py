"""The statements of the store: SQLAlchemy Core writes each shape once, the driver runs the text from then on.

Writing a statement and going through SQLAlchemy's execution costs twenty times what SQLite needs to run it, and there
are some thirty shapes in all. Values are always parameters; a shape is a record class, a verb and the names compared.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Select, Table, bindparam, func, or_, select
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError

from gateway.errors import CallerError
from gateway.ports import Record
from gateway.store.codec import KEY, Row, comparisons, members, ordering
from gateway.store.tables import TABLES

_SHAPES: Final = 1024
_LIMIT, _OFFSET, _OLD, _AT, _BEHIND = "limit_", "offset_", "old_", "at_", "behind_"


def table_of(kind: type) -> Table:
    table = TABLES.get(kind)
    if table is None:
        raise CallerError(f"{kind.__name__} is not kept in the store")
    return table


class _Statement:
    """The text of a statement for one dialect, and the order of its parameters."""

    def __init__(self, built: Any, dialect: Dialect) -> None:
        compiled = built.compile(dialect=dialect)
        self.text = str(compiled)
        self._order: Sequence[str] | None = compiled.positiontup if compiled.positional else None
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        """What the dialect adds by itself, e.g. SQLite's OFFSET 0."""

    def values(self, named: Mapping[str, Any]) -> Any:
        every = {**named, **self._fixed} if self._fixed else named
        return every if self._order is None else [every[name] for name in self._order]


class Statements:
    """The shapes of one dialect. `run` is handed a cursor's execute."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.driver_error: type[Exception] = dialect.loaded_dbapi.Error
        self._shape = lru_cache(maxsize=_SHAPES)(self._make)

    def _make(self, make: Callable[..., Any], *shape: Any) -> _Statement:
        return _Statement(make(*shape), self._dialect)

    def find(self, kind: type) -> _Statement:
        return self._shape(_find, kind)

    def insert(self, kind: type) -> _Statement:
        return self._shape(_insert, kind)

    def update(self, kind: type) -> _Statement:
        return self._shape(_update, kind)

    def delete(self, kind: type) -> _Statement:
        return self._shape(_delete, kind)

    def select(
        self,
        kind: type,
        *,
        order: str,
        limit: int | None,
        offset: int,
        equals: Mapping[str, object],
        after: tuple[str | int | bool | None, str] | None = None,
    ) -> tuple[_Statement, Row]:
        """after: the place (gateway.store.codec.place) behind which the list begins."""
        compared, values = _compared(kind, equals)
        statement = self._shape(_list, kind, compared, order, (limit is not None, offset > 0, after is not None))
        at, key = after or (None, None)
        return statement, {**values, _LIMIT: limit, _OFFSET: offset, _AT: at, _BEHIND: key}

    def count(self, kind: type, equals: Mapping[str, object]) -> tuple[_Statement, Row]:
        compared, values = _compared(kind, equals)
        return self._shape(_count, kind, compared), values


def _compared(kind: type, equals: Mapping[str, object]) -> tuple[tuple[tuple[str, bool], ...], Row]:
    """(member and whether it is compared with None, the values)."""
    found = comparisons(kind, equals)
    return tuple((name, value is None) for name, value in found.items()), found


def _where(statement: Select[Any], table: Table, compared: Sequence[tuple[str, bool]]) -> Select[Any]:
    for name, nothing in compared:
        column = table.c[name]
        statement = statement.where(column.is_(None) if nothing else column == bindparam(name, type_=column.type))
    return statement


def _find(kind: type[Record]) -> Any:
    table = table_of(kind)
    return select(table).where(table.c[KEY] == bindparam(KEY))


def _insert(kind: type[Record]) -> Any:
    table = table_of(kind)
    return table.insert().values({name: bindparam(name, type_=table.c[name].type) for name in (KEY, *members(kind))})


def _update(kind: type[Record]) -> Any:
    table = table_of(kind)
    values = {name: bindparam(name, type_=table.c[name].type) for name in members(kind)}
    return table.update().where(table.c[KEY] == bindparam(_OLD)).values(values)


def _delete(kind: type[Record]) -> Any:
    table = table_of(kind)
    return table.delete().where(table.c[KEY] == bindparam(_OLD))


def _list(
    kind: type[Record],
    compared: Sequence[tuple[str, bool]],
    order: str,
    parts: tuple[bool, bool, bool],
) -> Any:
    """parts: whether it has a limit, skips some, begins behind a record."""
    limited, skipping, behind = parts
    table = table_of(kind)
    name, descending = ordering(kind, order)
    by = table.c[name].desc() if descending else table.c[name].asc()
    if table.c[name].nullable:  # elsewhere the words would only keep PostgreSQL from using an index
        by = by.nulls_last() if descending else by.nulls_first()
    statement = _where(select(table), table, compared).order_by(by, table.c[KEY])
    if behind:
        column, key = table.c[name], table.c[KEY]
        at, last = bindparam(_AT, type_=column.type), bindparam(_BEHIND, type_=key.type)
        # The first half alone names a stretch of the index; together with an `or` it would not be seen.
        ahead, past = (column <= at, column < at) if descending else (column >= at, column > at)
        statement = statement.where(ahead).where(or_(past, key > last))
    if limited:
        statement = statement.limit(bindparam(_LIMIT))
    return statement.offset(bindparam(_OFFSET)) if skipping else statement


def _count(kind: type[Record], compared: Sequence[tuple[str, bool]]) -> Any:
    table = table_of(kind)
    return _where(select(func.count()).select_from(table), table, compared)


class Runner:
    """Runs statements on the driver's connection that `connection`, a transaction that has begun, holds.

    Raises what SQLAlchemy would: the driver's error wrapped, without values.
    """

    def __init__(self, statements: Statements, connection: Connection) -> None:
        self.statements = statements
        self._connection = connection
        self._cursor = connection.connection.cursor()

    def rows(self, statement: _Statement, named: Mapping[str, Any]) -> Sequence[Any]:
        self.change(statement, named)
        return self._cursor.fetchall()

    def change(self, statement: _Statement, named: Mapping[str, Any]) -> None:
        try:
            self._cursor.execute(statement.text, statement.values(named))
        except self.statements.driver_error as e:
            raise self._wrapped(e) from e

    def say(self, text: str) -> None:
        """A statement without values, e.g. SAVEPOINT."""
        try:
            self._cursor.execute(text)
        except self.statements.driver_error as e:
            raise self._wrapped(e) from e

    def _wrapped(self, error: Exception) -> DBAPIError:
        dialect = self._connection.dialect
        raw: Any = self._connection.connection.driver_connection
        gone = dialect.is_disconnect(error, raw, None)  # type: ignore[arg-type]
        if gone:
            self._connection.invalidate(error)
        made = DBAPIError.instance(
            None, None, error, self.statements.driver_error, connection_invalidated=gone, dialect=dialect
        )
        if not isinstance(made, DBAPIError):
            raise CallerError("a driver's error that SQLAlchemy does not know")
        return made


def old_key(key: str) -> Row:
    """The parameter of update and delete that names the record."""
    return {_OLD: key}
