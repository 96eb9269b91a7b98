"""The catalogue of this node's own datasets, and what partners may see of it (1-management c.3).

Reading a table's header, types and length is here; opening its rows for a job is the control layer's.
"""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.errors import Kind, ProtocolViolation, Refused, Unavailable
from gateway.mgmt_plane.core.messages import Page, dataset_record
from gateway.mgmt_plane.service.grants import Grants
from gateway.model import Dataset, DatasetId, Identity, NodeId
from gateway.ports import Clock, Entropy, Tx
from specs.states import Distribution

_MAX_COLUMNS: Final = 4096
_MAX_NAME: Final = 256
_FEW: Final = 20
"""A whole-number column with at most so many values is taken for discrete."""
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
NUMBERS: Final = frozenset({"int", "double"})
"""data_types whose values can be told from others."""


@dataclass(slots=True)
class _Column:
    name: str
    whole: bool = True
    number: bool = True
    filled: bool = False
    values: set[str] = field(default_factory=set)

    def see(self, text: str) -> None:
        if not text:
            return
        self.filled = True
        self.whole = self.whole and _INTEGER.fullmatch(text) is not None
        if not self.whole and self.number:
            try:
                self.number = math.isfinite(float(text))
            except ValueError:
                self.number = False
        if len(self.values) <= _FEW:
            self.values.add(text)

    def meta(self) -> dict[str, str]:
        if not self.filled or not self.number:
            kind, spread = "varchar", Distribution.DISCRETE
        elif self.whole:
            kind, spread = "int", Distribution.CONTINUOUS if len(self.values) > _FEW else Distribution.DISCRETE
        else:
            kind, spread = "double", Distribution.CONTINUOUS
        return {"name": self.name, "data_type": kind, "distribution": spread.value}


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds: column_metas in column order (b.4) and its number of rows."""

    metas: tuple[Mapping[str, str], ...]
    count: int


def read_table(path: Path) -> Table:
    """Header, types and length of a CSV file; reads all of it, so call it off the event loop.

    Raises Refused(NOT_FOUND) where it cannot be opened, ProtocolViolation naming the line where it is not a table.
    """
    if not path.is_absolute():
        raise ProtocolViolation("path must be absolute")
    if not path.is_file():
        raise Refused(f"{path} is not a readable file", kind=Kind.NOT_FOUND)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _scan(csv.reader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as e:
        raise ProtocolViolation(f"{path.name} is not a CSV file in UTF-8") from e
    except OSError as e:
        raise Unavailable(f"{path}: {e.strerror}", kind=Kind.STORAGE) from e


def read_header(path: Path) -> list[str]:
    """The column names that a CSV file has now; [] where it cannot be read. Blocking."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file, strict=True), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def fits(kind: str, text: str) -> bool:
    """Whether a value may stand in a column of this data_type: what does not was not approved."""
    text = text.strip()
    if not text or kind not in NUMBERS:
        return True
    if kind == "int":
        return _INTEGER.fullmatch(text) is not None
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _scan(rows: Any) -> Table:
    header = next(rows, None) or []
    if not header or len(header) > _MAX_COLUMNS:
        raise ProtocolViolation(f"a table has 1 to {_MAX_COLUMNS} columns")
    if len(set(header)) != len(header) or not all(0 < len(each) <= _MAX_NAME for each in header):
        raise ProtocolViolation("column names must be given, unique and at most 256 characters")
    columns = [_Column(name) for name in header]
    count = 0
    for row in rows:
        if len(row) != len(columns):
            raise ProtocolViolation(f"line {rows.line_num} has {len(row)} fields, the header {len(columns)}")
        count += 1
        for column, text in zip(columns, row, strict=True):
            column.see(text.strip())
    return Table(tuple(column.meta() for column in columns), count)


class Datasets:
    """The catalogue. Works inside transactions that the callers open."""

    def __init__(self, *, identity: Identity, grants: Grants, clock: Clock, entropy: Entropy) -> None:
        self._identity = identity
        self._grants = grants
        self._clock = clock
        self._entropy = entropy

    def add(
        self,
        tx: Tx,
        table: Table,
        *,
        name: str,
        path: Path,
        dataset_id: str = "",
        id_column: str = "",
        label_columns: Sequence[str] = (),
        public: bool = True,
        description: str = "",
        category: str = "",
    ) -> Dataset:
        """Enter a table. Without an id it gets one that nobody can guess. id_column default: a column called `id`.

        Raises Refused(CONFLICT) where the id is taken, ProtocolViolation for a column that the table does not have.
        """
        known = [meta["name"] for meta in table.metas]
        joins = id_column or ("id" if "id" in known else "")
        for column in [*([joins] if joins else []), *label_columns]:
            if column not in known:
                raise ProtocolViolation(f"the table has no column {column}")
        dataset = Dataset(
            dataset_id=DatasetId(dataset_id or f"ds-{self._entropy.token(16).hex()}"),
            name=name,
            owner=self._identity.inst_id,
            category=category,
            description=description,
            count=table.count,
            join_columns=joins,
            label_columns=",".join(label_columns),
            column_metas=table.metas,
            public=public,
            location=str(path),
            created=self._clock.now_ms(),
        )
        tx.insert(dataset)
        return dataset

    def public(self, tx: Tx, page: Page) -> tuple[list[dict[str, Any]], int]:
        """The records of a page of public datasets, and how many there are (M-040)."""
        found = tx.select(Dataset, public=True, limit=page.limit, offset=page.offset)
        return [dataset_record(each) for each in found], tx.count(Dataset, public=True)

    def count_public(self, tx: Tx) -> int:
        return tx.count(Dataset, public=True)

    def public_after(self, tx: Tx, after: Dataset | None, *, most: int) -> tuple[list[dict[str, Any]], Dataset | None]:
        """The records of the public datasets behind `after`, and the last of them where there may be others."""
        found = tx.select(Dataset, public=True, limit=most, after=after)
        return [dataset_record(each) for each in found], found[-1] if len(found) == most else None

    def detail(self, tx: Tx, *, user: NodeId, dataset_id: str) -> dict[str, Any]:
        """What `user` may know of a dataset: public or granted; a hidden one looks unknown (M-043)."""
        dataset = tx.get(Dataset, dataset_id)
        if dataset is None or not (dataset.public or self._grants.may_see(tx, user=user, dataset_id=dataset_id)):
            raise Refused(f"dataset {dataset_id} is not open to {user}", kind=Kind.NOT_FOUND, detail="dataset_id")
        return dataset_record(dataset)
