"""A store that forgets: for tests and trials, with the same contract as the SQL store (one test class judges both)."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gateway.errors import CallerError, Kind, Refused, Unavailable
from gateway.ports import Record, Tx
from gateway.store.codec import KEY, Row, comparisons, decode, encode, ordering, place

R = TypeVar("R", bound=Record)
T = TypeVar("T")

Tables = dict[type, dict[str, Row]]


class _MemoryTx:
    """Works on a copy; the store keeps the copy only when the work succeeds. Rows are never changed in place."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def _rows(self, kind: type) -> dict[str, Row]:
        return self.tables.setdefault(kind, {})

    def get(self, kind: type[R], key: str) -> R | None:
        row = self._rows(kind).get(key)
        return None if row is None else decode(kind, row)

    def insert(self, record: Record) -> None:
        rows, row = self._rows(type(record)), encode(record)
        if record.key() in rows:
            raise Refused(f"{type(record).__name__} {record.key()} exists", kind=Kind.CONFLICT, detail="")
        rows[record.key()] = row

    def replace(self, old: R, new: R) -> None:
        if old.key() != new.key():
            raise CallerError("replace must keep the key")
        rows = self._rows(type(old))
        if rows.get(old.key()) != encode(old):
            raise Refused(f"{type(old).__name__} {old.key()} has changed", kind=Kind.CONFLICT, detail="")
        rows[old.key()] = encode(new)

    def delete(self, record: Record) -> None:
        self._rows(type(record)).pop(record.key(), None)

    def _matching(self, kind: type, equals: dict[str, object]) -> list[Row]:
        wanted = comparisons(kind, equals)
        return [row for row in self._rows(kind).values() if all(row[name] == value for name, value in wanted.items())]

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
        name, descending = ordering(kind, order)

        def rank(row: Row) -> Any:
            return (row[name] is not None, row[name])

        rows = sorted(self._matching(kind, equals), key=lambda row: str(row[KEY]))
        rows.sort(key=rank, reverse=descending)
        behind = place(kind, order, after)
        if behind is not None:
            at, key = behind
            rows = [
                row
                for row in rows
                if (row[name], row[KEY]) != (at, key)
                and ((str(row[KEY]) > key) if row[name] == at else ((rank(row) < (True, at)) is descending))
            ]
        end = None if limit is None else offset + limit
        return [decode(kind, row) for row in rows[offset:end]]

    def count(self, kind: type[R], /, **equals: object) -> int:
        return len(self._matching(kind, equals))


class MemoryStore:
    """ports.Store without a disk. One transaction at a time."""

    def __init__(self) -> None:
        self._tables: Tables = {}
        self._turn = asyncio.Lock()
        self._closed = False

    async def run(self, work: Callable[[Tx], T]) -> T:
        async with self._turn:
            if self._closed:
                raise Unavailable("the store is closed", kind=Kind.STORE)
            tx = _MemoryTx({kind: dict(rows) for kind, rows in self._tables.items()})
            result = work(tx)
            self._tables = tx.tables
            return result

    async def close(self) -> None:
        self._closed = True
