"""A table as the lines it is written in, for components that look at one column and pass whole rows on.

No object per row: a million rows take the memory of their file. What a line looks like (CSV as `storage` writes it) and
where tables lie is `storage`'s. Loads NumPy, which is why the SDK loads this only when it is asked for.
"""

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from accel.kernels import Texts
from gateway.sdk.storage import MAX_COLUMNS

Places = NDArray[np.int64]
BLOCK_BYTES: Final = 1 << 20
_END, _COMMA = ord("\n"), ord(",")
_LONGEST_PADDED: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """columns: names; keys: of every row the text in one column, as UTF-8; metadata: as stored.

    Row i is data[starts[i]:ends[i]], its line end included.
    """

    columns: tuple[str, ...]
    keys: Texts = field(repr=False)
    data: bytes = field(repr=False)
    starts: Places = field(repr=False)
    ends: Places = field(repr=False)
    metadata: Mapping[str, Any]

    def take(self, rows: Places) -> Iterator[bytes]:
        """The lines of these rows in this order, in pieces."""
        starts, ends = self.starts[rows], self.ends[rows]
        for some in _blocks(ends - starts):
            yield spans(self.data, starts[some], ends[some]).data


def spans(data: bytes, starts: Places, ends: Places) -> Texts:
    """The texts data[starts[i]:ends[i]]."""
    content, lengths = np.frombuffer(data, np.uint8), ends - starts
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    moved = starts - offsets[:-1]
    pieces = [
        content[np.arange(offsets[some.start], offsets[some.stop]) + np.repeat(moved[some], lengths[some])].tobytes()
        for some in _blocks(lengths)
    ]
    return Texts(b"".join(pieces), offsets)


def _blocks(lengths: Places) -> Iterator[slice]:
    """The texts of these lengths cut into runs of about BLOCK_BYTES: indices of bytes take much more than the bytes."""
    numbers = np.cumsum(lengths) // BLOCK_BYTES
    for first, last in pairwise([*np.flatnonzero(np.diff(numbers, prepend=-1)).tolist(), len(lengths)]):
        yield slice(first, last)


def plain(data: bytes, column: str, metadata: Mapping[str, Any]) -> Lines | None:
    """The lines of a CSV file in which a line is a record and nothing is quoted.

    None for any other file, a wrong one, one without that column: whoever reads it field by field says what it is.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    if b'"' in data or b"\r" in data or data.startswith(b"\n") or not _is_text(data):
        return None
    data += b"" if data.endswith(b"\n") else b"\n"
    content = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(content == _END)
    columns = tuple(data[: ends[0]].decode().split(","))
    if column not in columns or len(set(columns)) < len(columns) or len(columns) > MAX_COLUMNS:
        return None
    at, last = columns.index(column), len(columns) - 1
    commas = np.flatnonzero(content == _COMMA)[last:]
    starts, ends = ends[:-1] + 1, ends[1:]
    whole = starts < ends
    starts, ends = starts[whole], ends[whole]
    if len(commas) != len(starts) * last or (ends - starts).max(initial=0) > csv.field_size_limit():
        return None
    cuts = commas.reshape(len(starts), last)
    if last and ((cuts[:, 0] < starts).any() or (cuts[:, -1] >= ends).any()):
        return None
    keys = spans(data, cuts[:, at - 1] + 1 if at else starts, cuts[:, at] if at < last else ends)
    return Lines(columns, keys, data, starts, ends + 1, metadata)


def collected(
    columns: Sequence[str], keys: Sequence[bytes], lines: Sequence[bytes], metadata: Mapping[str, Any]
) -> Lines:
    """From the rows of any table, one by one."""
    texts = Texts.of(lines)
    return Lines(tuple(columns), Texts.of(keys), texts.data, texts.offsets[:-1], texts.offsets[1:], metadata)


def _is_text(data: bytes) -> bool:
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def ascending(texts: Texts, rows: Places) -> Places:
    """These rows in ascending order of the bytes of their texts."""
    chosen = spans(texts.data, texts.offsets[:-1][rows], texts.offsets[1:][rows])
    lengths = np.diff(chosen.offsets)
    longest = int(lengths.max(initial=1))
    if longest > _LONGEST_PADDED:
        order = sorted(range(len(chosen)), key=chosen.__getitem__)
        return rows[order]
    padded = np.zeros((len(chosen), -(-longest // 8) * 8), np.uint8)
    padded[np.arange(padded.shape[1]) < lengths[:, np.newaxis]] = np.frombuffer(chosen.data, np.uint8)
    # A text that another one begins with comes before it.
    return rows[np.lexsort((lengths, *padded.view(">u8").T[::-1]))]
