"""From an encoded table to what the regression takes: names and matrix of the features, and the labels."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.components.encoding import as_numbers
from gateway.sdk.component import Task
from gateway.sdk.result import Code, ComponentError
from gateway.sdk.storage import Table


@dataclass(frozen=True, slots=True)
class Features:
    """names: columns of matrix, float64 of shape (rows, columns). labels: 0 or 1, None where there is no label."""

    names: tuple[str, ...]
    matrix: NDArray[np.float64] = field(repr=False)
    labels: NDArray[np.float64] | None = field(repr=False)


def read_features(task: Task, table: Table) -> Features:
    """Every column but id and label is a feature. Raises ComponentError(BAD_INPUT) naming the column.

    The label is the guest's: a host that names one is refused rather than quietly ignored.
    """
    id_name, label = task.parameters["id"], task.parameters["label"]
    if label and task.role != "guest":
        raise ComponentError(Code.BAD_INPUT, f"parameter label: {task.role} holds no label")
    if not table.rows:
        raise ComponentError(Code.BAD_INPUT, "the table has no rows")
    names = tuple(name for name in table.columns if name not in {id_name, label})
    matrix = np.empty((len(table.rows), len(names)))
    for at, name in enumerate(names):
        matrix[:, at] = _numbers(table, name)
    labels = _numbers(table, label) if label else None
    if labels is not None and not np.isin(labels, (0, 1)).all():
        raise ComponentError(Code.BAD_INPUT, f"column {label!r} holds something else than 0 and 1")
    return Features(names, matrix, labels)


def _numbers(table: Table, name: str) -> NDArray[np.float64]:
    at = table.column(name)
    numbers = as_numbers([row[at] for row in table.rows])
    if numbers is None:
        raise ComponentError(Code.BAD_INPUT, f"column {name!r} is not numeric: encode it first")
    return numbers
