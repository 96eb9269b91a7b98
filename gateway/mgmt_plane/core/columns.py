"""Whether the columns that a job's parameters name can exist, told before anything runs.

Two keys of ours in a self-description say how parameters and tables hang together; readers that do not know them keep
them (A-005). An inputParam with `x-interconn-column-of: <input>` names a column of that input, or a list of them; an
outputData item with `x-interconn-columns-of: <input>` has no columns but that input's, and ones called
`<column>=<level>`. Where a component says neither, nothing is known and nothing is refused: the component itself finds
out. Whose tables are known is the caller's: a node knows its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from gateway.mgmt_plane.core.dag import DagError, Lookup, Plan, Problem
from gateway.model import DatasetId, Party, TaskName
from specs.description import Description, ParameterError

COLUMN_OF: Final = "x-interconn-column-of"
COLUMNS_OF: Final = "x-interconn-columns-of"
SHOWN: Final = 12
"""Columns named in one message; a table may have thousands."""

Columns = Callable[[DatasetId], Sequence[str] | None]
"""Columns of a dataset, None where they are not known."""


def column_problems(plan: Plan, lookup: Lookup, columns: Columns, *, parties: Iterable[Party]) -> list[Problem]:
    """Parameters of these parties that name a column which their table cannot have; [] if none is known to."""
    found: list[Problem] = []
    for party in parties:
        made: dict[tuple[TaskName, str], Sequence[str]] = {}
        for name in plan.order:
            description = lookup(plan.nodes[name].component)
            if description is None or party not in plan.parties_of(name, lookup):
                continue
            try:
                bound = plan.bind(name, description)
            except DagError:
                continue  # core.dag.problems tells
            tables = {port: made[edge.producer, edge.output] for port, edge in bound.inputs.items()
                      if (edge.producer, edge.output) in made}  # fmt: skip
            dataset = plan.dataset_of(party, name)
            if dataset is not None and bound.source_port is not None:
                known = columns(dataset)
                if known is not None:
                    tables[bound.source_port] = known
            where = f"config.task_params.{party.role}.{party.index}.{name}"
            for parameter, column, table in _missing(plan, party, name, description, tables):
                own = dataset if table is tables.get(bound.source_port or "") else None
                found.append(Problem(where, _words(parameter, column, table, own)))
            for port, key in bound.outputs.items():
                source = str(description.output_data[port].extra.get(COLUMNS_OF))
                if source in tables:
                    made[name, key] = tables[source]
    return found


def _missing(
    plan: Plan, party: Party, name: TaskName, description: Description, tables: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, Sequence[str]]]:
    """(parameter, column that is not there, columns that are)."""
    try:
        values = description.decode_parameters(description.resolve_parameters(plan.params(party, name)))
    except ParameterError:
        return  # core.dag.problems tells
    for parameter in description.input_params.values():
        table = tables.get(str(parameter.extra.get(COLUMN_OF)))
        value = values[parameter.name]
        if table is None or value is None:
            continue
        for column in value if isinstance(value, list) else [value]:
            # "" stands for no column.
            if isinstance(column, str) and column and not _possible(column, table):
                yield parameter.name, column, table


def _possible(column: str, table: Sequence[str]) -> bool:
    return column in table or any(column.startswith(f"{each}=") for each in table)


def _words(parameter: str, column: str, table: Sequence[str], dataset: DatasetId | None) -> str:
    whose = f"dataset {dataset}" if dataset is not None else "the table that comes in"
    shown = ", ".join(table[:SHOWN]) + (f" and {len(table) - SHOWN} more" if len(table) > SHOWN else "")
    return f"parameter {parameter}: {whose} has no column {column[:64]!r}; it has: {shown}"
