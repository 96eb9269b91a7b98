"""Arrays and tables as messages."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from gateway.sdk.arrays import pieces_of, value_of
from gateway.sdk.result import Code, ComponentError


def message(value: object) -> memoryview:
    return memoryview(b"".join(bytes(piece) for piece in pieces_of(value)))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype="<i8").reshape(2, 3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(20)[::3],
        np.zeros((0, 5)),
        np.float32(7),
        np.array(3 + 4j),
        np.array(["guest", "host"]),
        np.array([b"a", b"bc"]),
        np.array(["2026-11-22"], dtype="M8[D]"),
        np.array([True, False]),
    ],
)
def test_an_array_comes_back_as_it_was(array) -> None:
    got = value_of(message(array))
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


def test_the_data_are_not_copied() -> None:
    array = np.arange(1000.0)
    assert np.shares_memory(np.frombuffer(pieces_of(array)[1]), array)
    sent = message(array)
    assert np.shares_memory(value_of(sent), np.frombuffer(sent, dtype=np.uint8))
    buffer = bytearray(b"abc")
    assert pieces_of(buffer)[0] is buffer


@pytest.mark.parametrize(
    "value", [object(), [1, 2], np.array([object()]), np.zeros(2, dtype="i4,i4"), np.ma.array([1]), 5]
)
def test_what_cannot_be_sent_is_refused(value) -> None:
    with pytest.raises(ComponentError) as refused:
        pieces_of(value)
    assert refused.value.code == Code.BAD_INPUT


def test_a_table_comes_back_as_it_was() -> None:
    pa = pytest.importorskip("pyarrow")
    column = pa.array(range(100_000))
    table = pa.table({"n": column, "t": pa.array(["x", None] * 50_000)})
    pieces = pieces_of(table)
    assert column.buffers()[1].address in {
        np.frombuffer(piece, dtype=np.uint8).ctypes.data for piece in pieces if len(piece)
    }
    assert value_of(message(table)).equals(table)
    assert value_of(message(table.to_batches()[0])).equals(table)
    with pytest.raises(ComponentError):
        pieces_of(column)


def npy(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff{}",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
        b"\x93NUMPY\x03\x00\x02\x00\x00\x00{}",
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }\n", bytes(15)),
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }\n"),
        npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", bytes(8)),
        npy(b"{'descr': '<U0', 'fortran_order': False, 'shape': (9,), }\n"),
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (1,)*1, }\n", bytes(8)),
        npy(b"__import__('os').system('true')\n"),
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (0, 99999999999999999999), }\n"),
        b"\xff\xff\xff\xff\x10\x00\x00\x00" + bytes(100),
    ],
)
def test_a_partners_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(ComponentError) as refused:
        value_of(memoryview(data))
    assert refused.value.code == Code.PARTNER_VIOLATION


@settings(max_examples=150, deadline=None)
@given(some.integers(0, 300), some.binary(min_size=1, max_size=4), some.booleans())
def test_a_message_that_was_changed_is_an_array_or_refused(at: int, change: bytes, table: bool) -> None:
    pa = pytest.importorskip("pyarrow")
    sent = bytearray(message(pa.table({"a": ["x", "yy", None]}) if table else np.arange(10.0)))
    sent[at : at + len(change)] = change
    try:
        value_of(memoryview(sent))
    except ComponentError as e:
        assert e.code == Code.PARTNER_VIOLATION  # noqa: PT017  # either is right
