"""Component `feature_encode`: numbers from columns of text, fitted on the training rows; local to each party."""

import sys
from collections.abc import Iterator, Mapping, Sequence

from gateway.components.rows import alignment
from gateway.sdk.component import Task, run
from gateway.sdk.result import Code, ComponentError
from gateway.sdk.storage import Table
from specs.description import builtin_description


def _names(task: Task, parameter: str, known: Sequence[str]) -> list[str]:
    """A parameter that lists columns of the input."""
    value = task.parameters[parameter]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ComponentError(Code.BAD_INPUT, f"parameter {parameter} must be a list of column names")
    for name in value:
        if name not in known:
            raise ComponentError(Code.BAD_INPUT, f"parameter {parameter}: column {name!r} is missing")
    return value


def _columns(table: Table, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    return {name: [row[at] for row in table.rows] for name in names for at in [table.column(name)]}


def body(task: Task) -> None:
    """Fit on train, apply to both; id and label are carried along, the label as 0 or 1."""
    from gateway.components import encoding  # noqa: PLC0415  # NumPy, once the task is known to be sound

    train, test = task.table("train"), task.table("test")
    id_name, label = task.parameters["id"], task.parameters["label"]
    kept = [id_name, label] if label else [id_name]
    unused = {*kept, *_names(task, "drop", train.columns)}
    names = [name for name in train.columns if name not in unused]
    categorical = _names(task, "categorical", names)
    for name in kept:
        train.column(name)
    try:
        fitted = encoding.fit(_columns(train, names), categorical=categorical, max_levels=task.parameters["max_levels"])
        encoded = {name: fitted.apply(_columns(table, names)) for name, table in (("train", train), ("test", test))}
    except encoding.EncodingError as e:
        raise ComponentError(Code.BAD_INPUT, str(e)) from e
    for name, table in (("train", train), ("test", test)):
        carried = [[row[table.column(id_name)] for row in table.rows]]
        if label:
            zeros_ones = encoding.encode_label(
                [row[table.column(label)] for row in table.rows], task.parameters["positive"]
            )
            if name == "train" and len(set(zeros_ones.tolist())) < 2:
                raise ComponentError(
                    Code.BAD_INPUT,
                    f"label column {label!r}: the training rows do not hold both the positive value and others",
                )
            carried.append([str(value) for value in zeros_ones.tolist()])

        def rows(carried: Sequence[Sequence[str]] = carried, name: str = name) -> Iterator[Sequence[object]]:
            for at, features in enumerate(encoded[name].tolist()):
                yield [*(column[at] for column in carried), *map(repr, features)]

        task.write_table(name, [*kept, *fitted.features], rows(), alignment=alignment(table.metadata))
    task.write_json("model0", {"component": "feature_encode", "columns": fitted.to_json()})
    counts = {"columns": len(names), "features": len(fitted.features)}
    task.write_json("report0", {"component": "feature_encode", "party": task.party, **counts})
    task.output.log(f"{counts['columns']} columns became {counts['features']} features")


if __name__ == "__main__":
    sys.exit(run(builtin_description("feature_encode"), body))
