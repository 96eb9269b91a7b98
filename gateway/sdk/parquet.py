"""Tables as Parquet (extra `parquet`): every column text, read and written in blocks of rows."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from gateway.sdk.result import Code, ComponentError

BLOCK_ROWS: Final = 16_384
MAX_COLUMNS: Final = 100_000


def write(file: BinaryIO, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; values as `str` makes them. Raises ComponentError(BAD_INPUT) for a row of another length."""
    schema = pa.schema([(name, pa.string()) for name in columns])
    with pq.ParquetWriter(file, schema) as writer:
        block: list[Sequence[object]] = []
        for row in rows:
            if len(row) != len(columns):
                raise ComponentError(Code.BAD_INPUT, f"a row of {len(row)} values for {len(columns)} columns")
            block.append(row)
            if len(block) == BLOCK_ROWS:
                writer.write_table(_block(schema, block))
                block.clear()
        if block:
            writer.write_table(_block(schema, block))


def _block(schema: Any, rows: Sequence[Sequence[object]]) -> Any:
    columns = [
        [value if isinstance(value, str) else str(value) for value in column] for column in zip(*rows, strict=True)
    ]
    return pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=schema)


def read(file: BinaryIO, what: str) -> Iterator[Sequence[str]]:
    """Column names, then rows of texts: none is "", true and false are words, numbers are decimal.

    Raises ComponentError(BAD_INPUT) for what is no Parquet file or has columns that are not plain values.
    """
    with tempfile.TemporaryFile() as spool:
        # Parquet is read from its end, which a stream cannot offer.
        while not file.seekable() and (piece := file.read(1 << 20)):
            spool.write(piece)
        try:
            source = pq.ParquetFile(file if file.seekable() else spool)
            names = source.schema_arrow.names
            if len(names) > MAX_COLUMNS or len(set(names)) != len(names):
                raise ComponentError(Code.BAD_INPUT, f"{what} has too many columns or two of the same name")
            if any(pa.types.is_nested(field.type) for field in source.schema_arrow):
                raise ComponentError(Code.BAD_INPUT, f"{what} has a column that is a list or an object")
            yield names
            for batch in source.iter_batches(batch_size=BLOCK_ROWS):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield [_text(value) for value in row]
        except (pa.ArrowException, UnicodeDecodeError) as e:
            raise ComponentError(Code.BAD_INPUT, f"{what} is not a readable Parquet file") from e


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case bytes():
            return value.decode()
        case _:
            return str(value)
