"""NumPy arrays and Arrow tables as messages, without a copy of their data on either side.

An array is a NPY header (the file format's, so any NumPy reads it) and its memory; a table or record batch is an Arrow
IPC stream, its buffers as they lie. Both libraries are loaded when they are first needed. What is read comes from a
partner: sizes are compared before memory is looked at, objects and pickles are never made, tables are validated whole.
"""

import ast
import io
import struct
from typing import TYPE_CHECKING, Any, Final

from gateway.sdk.result import Code, ComponentError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Payload = bytes | bytearray | memoryview

NPY: Final = b"\x93NUMPY"
ARROW: Final = b"\xff\xff\xff\xff"
HEADER_BYTES: Final = 4 << 10
DIMENSIONS: Final = 32
KINDS: Final = "biufcSUmM"
"""Of NumPy's dtypes: numbers, fixed texts and times."""


def pieces_of(value: "Payload | np.ndarray[Any, Any] | pa.Table | pa.RecordBatch") -> list[Payload]:
    """The bytes of a message, in pieces that share the memory of `value`; a buffer is its own bytes.

    Raises ComponentError(BAD_INPUT) for what is none of these. An array with gaps in its memory is copied.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return [value]
    module = type(value).__module__.partition(".")[0]
    if module == "numpy":
        return _of_array(value)
    if module == "pyarrow":
        return _of_table(value)
    raise ComponentError(Code.BAD_INPUT, f"a {type(value).__name__} cannot be sent: buffer, array or table expected")


def value_of(message: memoryview) -> "np.ndarray[Any, Any] | pa.Table":
    """The array or table of a message, on the message's memory. Raises ComponentError(PARTNER_VIOLATION)."""
    if bytes(message[: len(NPY)]) == NPY:
        return _array(message)
    if bytes(message[: len(ARROW)]) == ARROW:
        return _table(message)
    raise _wrong("neither an array nor a table")


def _wrong(problem: str) -> ComponentError:
    return ComponentError(Code.PARTNER_VIOLATION, f"message with an array: {problem}")


def _of_array(array: Any) -> list[Payload]:
    import numpy as np  # noqa: PLC0415  # heavy, and not every component needs it

    array = np.asanyarray(array)
    if array.dtype.kind not in KINDS or not array.dtype.itemsize or isinstance(array, np.ma.MaskedArray):
        raise ComponentError(Code.BAD_INPUT, f"arrays of {array.dtype} cannot be sent")
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    flat = (array.T if fortran else np.ascontiguousarray(array)).reshape(-1)
    head = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": fortran, "shape": array.shape}
    np.lib.format.write_array_header_1_0(head, about)
    return [head.getvalue(), flat.view(np.uint8).data]


def _array(message: memoryview) -> Any:
    import numpy as np  # noqa: PLC0415

    try:
        old = message[6] == 1
        size, at = (*struct.unpack_from("<H" if old else "<I", message, 8), 10 if old else 12)
        if message[6] not in {1, 2} or size > min(HEADER_BYTES, len(message) - at):
            raise _wrong("version or length of its header")
        about = ast.literal_eval(str(message[at : at + size], "ascii"))
        name, fortran, shape = about["descr"], about["fortran_order"], about["shape"]
        if not isinstance(name, str) or not isinstance(shape, tuple) or len(shape) > DIMENSIONS:
            raise _wrong("header")
        dtype = np.dtype(name)
    except (ValueError, TypeError, KeyError, IndexError, struct.error, SyntaxError, RecursionError, MemoryError) as e:
        raise _wrong("header") from e
    if dtype.kind not in KINDS or not dtype.itemsize or any(type(n) is not int or n < 0 for n in shape):
        raise _wrong("type or shape")
    rest = message[at + size :]
    items = 1
    for length in shape:
        items *= length
    if items * dtype.itemsize != len(rest):
        raise _wrong("length")
    try:
        return np.frombuffer(rest, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    except ValueError as e:
        raise _wrong("shape") from e


class _Pieces(io.RawIOBase):
    """A file that keeps what is written as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[Payload] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, piece: Any) -> int:
        size = len(piece)
        self.pieces.append(memoryview(piece))
        self._at += size
        return size


def _of_table(table: Any) -> list[Payload]:
    import pyarrow as pa  # noqa: PLC0415

    if not isinstance(table, pa.Table | pa.RecordBatch):
        raise ComponentError(Code.BAD_INPUT, f"a pyarrow {type(table).__name__} cannot be sent")
    kept = _Pieces()
    with pa.ipc.new_stream(pa.PythonFile(kept, mode="w"), table.schema) as writer:
        writer.write(table)
    return kept.pieces


def _table(message: memoryview) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    try:
        with pa.ipc.open_stream(pa.py_buffer(message)) as reader:
            table = reader.read_all()
        # Offsets of a partner could point anywhere.
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as e:
        raise _wrong("not an Arrow stream") from e
    return table
