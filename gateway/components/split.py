"""Component `split`: the same rows into train and test at every party, from a common seed; talks to nobody."""

import sys

from gateway.components.rows import alignment, choose_test_rows, derived_alignment
from gateway.sdk.component import Task, run
from gateway.sdk.result import Code, ComponentError
from specs.description import builtin_description


def body(task: Task) -> None:
    """Split by row count and seed alone; see rows.py for the rule."""
    table = task.table("data0")
    fraction, seed = task.parameters["test_fraction"], task.parameters["seed"]
    if len(table.rows) < 2:
        raise ComponentError(Code.BAD_INPUT, f"input data0 has {len(table.rows)} rows, too few to split")
    chosen = choose_test_rows(len(table.rows), fraction, seed)
    test = set(chosen)
    tag = alignment(table.metadata)
    counts = {}
    for name, rows in (("train", [row for row in range(len(table.rows)) if row not in test]), ("test", chosen)):
        derived = derived_alignment(tag, "split", seed, fraction, name)
        counts[name] = task.write_table(name, table.columns, (table.rows[row] for row in rows), alignment=derived)
    task.write_json("report0", {"component": "split", "party": task.party, "rows": counts})
    task.output.log(f"{counts['train']} rows to train, {counts['test']} to test")


if __name__ == "__main__":
    sys.exit(run(builtin_description("split"), body))
