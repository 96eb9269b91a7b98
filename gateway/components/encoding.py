"""Columns of text to columns of numbers: standardised or one-hot, fitted on the training rows.

Pure functions over NumPy arrays, shared by the component and by the plaintext model it is compared with.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

CLIP: Final = 32.0
"""Standardised values beyond this many deviations are cut; the secure training bounds the size of a feature."""


class EncodingError(ValueError):
    """A column that cannot be encoded; the message names it."""


@dataclass(frozen=True, slots=True)
class Numeric:
    """x -> (x - mean) / scale, cut at CLIP; scale is the population deviation of the training rows, or 1
    for a constant column.
    """

    name: str
    mean: float
    scale: float

    @property
    def features(self) -> tuple[str, ...]:
        return (self.name,)

    def apply(self, values: Sequence[str]) -> NDArray[np.float64]:
        """Shape (rows, 1). Raises EncodingError for a value that is no finite number."""
        numbers = as_numbers(values)
        if numbers is None:
            raise EncodingError(f"column {self.name!r} is numeric in the training rows but not in these")
        return np.clip((numbers - self.mean) / self.scale, -CLIP, CLIP).reshape(-1, 1)


@dataclass(frozen=True, slots=True)
class OneHot:
    """One 0/1 feature for each level of the training rows, in ascending order; an unseen level gives zeros."""

    name: str
    levels: tuple[str, ...]

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(f"{self.name}={level}" for level in self.levels)

    def apply(self, values: Sequence[str]) -> NDArray[np.float64]:
        """Shape (rows, levels)."""
        texts, levels = np.asarray(values, dtype=np.str_), np.asarray(self.levels, dtype=np.str_)
        return np.asarray(texts[:, np.newaxis] == levels[np.newaxis, :], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Encoding:
    """The fitted encoding of some columns."""

    columns: tuple[Numeric | OneHot, ...]

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(feature for column in self.columns for feature in column.features)

    def apply(self, table: Mapping[str, Sequence[str]]) -> NDArray[np.float64]:
        """Features of the rows of a table, shape (rows, len(features)). Raises EncodingError."""
        for column in self.columns:
            if column.name not in table:
                raise EncodingError(f"column {column.name!r} is missing")
        rows = len(next(iter(table.values()), ()))
        blocks = [column.apply(table[column.name]) for column in self.columns]
        return np.hstack(blocks) if blocks else np.empty((rows, 0))

    def to_json(self) -> list[dict[str, Any]]:
        """The form in which it is stored."""
        return [
            {"name": column.name, "kind": "numeric", "mean": column.mean, "scale": column.scale}
            if isinstance(column, Numeric)
            else {"name": column.name, "kind": "one-hot", "levels": list(column.levels)}
            for column in self.columns
        ]


def as_numbers(values: Sequence[str]) -> NDArray[np.float64] | None:
    """Shape (rows,); None when some value is no finite number."""
    try:
        numbers = np.asarray(values, dtype=np.str_).astype(np.float64)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def fit(table: Mapping[str, Sequence[str]], *, categorical: Collection[str] = (), max_levels: int = 1000) -> Encoding:
    """Encoding of all columns of the training rows, in their order.

    A column is numeric when all its values are finite numbers, unless `categorical` names it. Raises EncodingError for
    no rows or a column with more than `max_levels` distinct texts (an id, probably).
    """
    columns: list[Numeric | OneHot] = []
    for name, values in table.items():
        if not len(values):
            raise EncodingError("no training rows")
        numbers = None if name in categorical else as_numbers(values)
        if numbers is not None:
            # A constant column has a deviation of rounding errors; it becomes zeros, not noise.
            constant = numbers.min() == numbers.max()
            mean, scale = (numbers[0], 1.0) if constant else (numbers.mean(), numbers.std())
            columns.append(Numeric(name, float(mean), float(scale)))
            continue
        levels = tuple(sorted(set(values)))
        if len(levels) > max_levels:
            raise EncodingError(f"column {name!r} has {len(levels)} distinct texts, allowed are {max_levels}: drop it?")
        columns.append(OneHot(name, levels))
    return Encoding(tuple(columns))


def encode_label(values: Sequence[str], positive: str) -> NDArray[np.int64]:
    """1 where the value is `positive`, else 0; shape (rows,)."""
    return np.asarray([value == positive for value in values], dtype=np.int64)
