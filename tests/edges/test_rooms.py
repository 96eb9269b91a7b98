"""Memory that is used again: never while anybody sees it, and not kept for ever."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.data_plane.io.rooms import Rooms, _size_for


def test_a_block_is_used_again_only_when_nobody_sees_it() -> None:
    rooms = Rooms(1 << 20)
    first = rooms.take(100_000)
    block, part = id(first.obj), first[5:10]
    del first
    second = rooms.take(100_000)
    assert id(second.obj) != block
    del part
    assert block in {id(room.obj) for room in [rooms.take(100_001) for _ in range(2)]}


def test_what_is_kept_is_bounded_and_forgotten() -> None:
    rooms = Rooms(300_000)
    held = [rooms.take(100_000) for _ in range(5)]
    assert sum(len(line) for line in rooms._lines.values()) == 2
    del held
    rooms.tidy()
    assert rooms._lines
    rooms.tidy()
    assert not rooms._lines
    assert len(rooms.take(5 << 20)) == 5 << 20
    assert rooms._left == 300_000


@settings(max_examples=200)
@given(st.integers(1, 1 << 40))
def test_sizes(length: int) -> None:
    assert length <= _size_for(length) <= max(65536, length + length // 4 + 65536)
