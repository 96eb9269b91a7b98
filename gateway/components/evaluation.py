"""Component `evaluation`: figures of the scores at the party that holds the labels; talks to nobody."""

import sys

from gateway.sdk.component import Task, run
from gateway.sdk.result import Code, ComponentError
from specs.description import builtin_description


def body(task: Task) -> None:
    """Evaluate the column of scores against the column of labels."""
    import numpy as np  # noqa: PLC0415  # loaded once the task is known to be sound

    from gateway.components import encoding, metrics  # noqa: PLC0415

    table, parameters = task.table("scores"), task.parameters
    columns = []
    for name in (parameters["label"], parameters["score"]):
        at = table.column(name)
        numbers = encoding.as_numbers([row[at] for row in table.rows])
        if numbers is None:
            raise ComponentError(Code.BAD_INPUT, f"column {name!r} holds something that is no number")
        columns.append(numbers)
    labels, scores = columns
    try:
        if not np.isin(labels, (0, 1)).all():
            raise ComponentError(Code.BAD_INPUT, f"column {parameters['label']!r} holds something else than 0 and 1")
        figures = metrics.evaluate(
            labels.astype(np.int64),
            scores,
            threshold=parameters["threshold"],
            groups=parameters["groups"],
            curve_points=parameters["curve_points"],
        )
    except ValueError as e:
        raise ComponentError(Code.BAD_INPUT, str(e)) from e
    task.write_json("metric0", figures)
    short = {key: figures[key] for key in ("rows", "positives", "auc", "ks", "ks_threshold")}
    task.write_json("report0", {"component": "evaluation", "party": task.party, **short})
    task.output.log(f"AUC {figures['auc']:.4f}, KS {figures['ks']:.4f} over {figures['rows']} rows")


if __name__ == "__main__":
    sys.exit(run(builtin_description("evaluation"), body))
