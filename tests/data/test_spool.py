"""The spool: what was said to be kept is found again, what was not is not; a full or damaged disk is said."""

import asyncio
import errno
import os
import resource
import shutil
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.data_plane.core import records
from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.delivery import Name
from gateway.data_plane.core.wire import Buffer
from gateway.data_plane.io.filed import Files
from gateway.data_plane.io.spool import FILE, HEAD, Found, Spool, Stored, _Job, _payload
from gateway.data_plane.keeping import on_disk_already
from gateway.errors import CallerError, Kind, Unavailable
from gateway.model import NodeId, SessionId
from tests.edges import rig
from tests.waiting import eventually

SEGMENT = 1 << 16


def spool(folder: Path, *, durable: bool = True) -> Spool:
    return Spool(folder / "s", durable=durable, segment_bytes=SEGMENT)


async def filled(folder: Path, count: int, *, size: int = 200) -> Spool:
    made = spool(folder)
    made.open()
    made.start()
    for n in range(count):
        made.append(1, b"m%d" % n, b"%d" % n * size, _ignored)
    await made.barrier()
    return made


def _ignored(error: OSError | None) -> None:
    assert error is None


def found(folder: Path) -> tuple[list[Found], Spool]:
    made = spool(folder)
    return [each for each in made.open() if not each.freed], made


async def test_what_was_kept_is_found_in_order(tmp_path: Path) -> None:
    made, heard = await filled(tmp_path, 900), list[int]()
    stored = [made.append(2, b"x", bytes(9), lambda e, n=n: heard.append(n)) for n in range(5)]
    await made.barrier()
    assert heard == [0, 1, 2, 3, 4]
    for each in stored[1:3]:
        each.free()
    await made.barrier()
    await asyncio.sleep(0)
    await made.barrier()
    left, again = found(tmp_path)
    assert [each.meta for each in left] == [*(b"m%d" % n for n in range(900)), b"x", b"x", b"x"]
    assert left[17].stored.read() == b"17" * 200
    assert len(list((tmp_path / "s").glob("*.seg"))) > 3
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "s").iterdir()} == {0o600}
    # Freed records still tell their metas, for the lanes; then nothing is left of them.
    again.start()
    for each in left:
        each.stored.free()
    again.append(1, b"new", b"", _ignored)
    await again.barrier()
    await asyncio.sleep(0.05)
    await again.barrier()
    assert len(list((tmp_path / "s").glob("*.seg"))) == 1
    await again.close()
    await made.close()
    assert [each.meta for each in found(tmp_path)[0]] == [b"new"]


async def test_segments_that_are_mostly_dead_are_emptied(tmp_path: Path) -> None:
    """One message that nobody reads does not pin everything that came after it, and is still there after a restart."""
    made = spool(tmp_path)
    made.open()
    made.start()
    first = made.append(1, b"first", b"kept", _ignored)
    for _ in range(40):
        batch = [made.append(1, b"m", bytes(3000), _ignored) for _ in range(40)]
        await made.barrier()
        for each in batch:
            each.free()
    async with asyncio.timeout(5):
        while made.size > 12 * SEGMENT:
            await asyncio.sleep(0.01)
            await made.barrier()
    assert first.read() == b"kept"
    await made.close()
    assert [(each.meta, bytes(each.stored.read())) for each in found(tmp_path)[0]] == [(b"first", b"kept")]


@given(cut=st.integers(0, 3000), junk=st.binary(max_size=40))
@settings(max_examples=60, deadline=None)
def test_a_torn_end_costs_only_what_was_torn(tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("torn")
    asyncio.run(_close_after(folder, 12))
    (file,) = (folder / "s").glob("*.seg")
    size = FILE.size + sum(HEAD.size + len(b"m%d" % n) + len(b"%d" % n * 200) for n in range(12))
    os.truncate(file, max(FILE.size, size - cut))
    with file.open("ab") as appended:
        appended.write(junk)
    left, _ = found(folder)
    assert [each.meta for each in left] == [b"m%d" % n for n in range(len(left))]
    assert all(each.stored.read() == each.meta[1:] * 200 for each in left)
    assert bool(cut) == (len(left) < 12) or cut == 0
    # Cut once, the file is whole for the next start.
    more, last = found(folder)
    assert (len(more), last.damage.cut) == (len(left), 0)
    shutil.rmtree(folder)


async def _close_after(folder: Path, count: int) -> None:
    made = await filled(folder, count)
    await made.close()


@given(at=st.floats(0, 1), flip=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_damage_is_said_and_never_read_as_a_message(
    tmp_path_factory: pytest.TempPathFactory, at: float, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    asyncio.run(_close_after(folder, 400))
    files = sorted((folder / "s").glob("*.seg"))
    assert len(files) > 2
    whole = bytearray(files[0].read_bytes())
    place = min(len(whole) - 1, int(at * len(whole)))
    whole[place] ^= flip
    files[0].write_bytes(whole)
    try:
        left, again = found(folder)
    except CallerError:
        assert 16 <= place < FILE.size
        return
    metas = [each.meta for each in left]
    assert metas == sorted(metas, key=lambda meta: int(meta[1:]))
    assert all(each.stored.read() == each.meta[1:] * 200 for each in left)
    if len(metas) < 400:
        assert again.damage.lost >= 1
    else:
        # The number of the segment or a pad byte: nothing that anybody reads.
        assert len(metas) == 400
    shutil.rmtree(folder)


def test_another_version_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    (tmp_path / "s" / "000000000001.seg").write_bytes(FILE.pack(b"interconn-spool\n", 2, 0, 1))
    with pytest.raises(CallerError):
        spool(tmp_path).open()
    (tmp_path / "s").chmod(0o755)
    with pytest.raises(CallerError):
        spool(tmp_path).open()


async def test_a_full_disk_keeps_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """What was kept before stays; what fails fails in order, with all that was appended before that was heard of."""
    made = await filled(tmp_path, 10)
    heard: list[tuple[int, int | None]] = []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SEGMENT // 2, before[1]))
    try:
        for n in range(3):
            made.append(1, b"big", bytes(SEGMENT), lambda e, n=n: heard.append((n, e.errno if e else None)))
        with pytest.raises(OSError, match=r"."):
            await made.barrier()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [n for n, _ in heard] == [0, 1, 2]
    assert heard[0][1] in {errno.EFBIG, errno.ENOSPC}
    assert all(code is not None or n > 0 for n, code in heard)
    made.append(1, b"after", b"", _ignored)
    await made.barrier()
    await made.close()
    assert [each.meta for each in found(tmp_path)[0]] == [*(b"m%d" % n for n in range(10)), b"after"]


@pytest.mark.parametrize("after", [[], [b"g0"]])
async def test_what_a_failed_write_left_is_never_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: list[bytes]
) -> None:
    """Nor where a record of equal size is written over the first of a failed batch: the second of it stays dead."""
    made = await filled(tmp_path, 1)
    synced = os.fdatasync

    def fails(fd: int) -> None:
        monkeypatch.setattr(os, "fdatasync", synced)
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fdatasync", fails)
    failed: list[bool] = []
    with made._wanted:
        # One batch: the thread finds them together.
        for n in range(3):
            made._jobs.append(made_job(made, b"f%d" % n, failed))
        made._wanted.notify()
    with pytest.raises(OSError, match=r"."):
        await made.barrier()
    assert failed == [True] * 3
    for meta in after:
        made.append(1, meta, b"xx", _ignored)
        await made.barrier()
    await made.close()
    assert [each.meta for each in found(tmp_path)[0]] == [b"m0", *after]


async def test_a_new_segment_is_there_before_anything_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name too is on disk: a file synced in a folder that is not may be gone after a power cut."""
    made, synced, told = await filled(tmp_path, 0), list[str](), list[list[str]]()
    real = {name: getattr(os, name) for name in ("fsync", "fdatasync")}

    def note(name: str, fd: int) -> None:
        real[name](fd)
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))

    for name in real:
        monkeypatch.setattr(os, name, partial(note, name))
    made.append(1, b"m", b"x", lambda _error: told.append(list(synced)))
    await made.barrier()
    await made.close()
    (file,) = (tmp_path / "s").glob("*.seg")
    assert told[0][:3] == [str(file), str(file.parent), str(file)]


def made_job(made: Spool, meta: bytes, failed: list[bool]) -> _Job:
    """A job as append makes it."""
    stored = Stored(made, made._next_ident, 2)
    made._next_ident += 1
    return _Job(1, stored.ident, meta, b"xx", stored, lambda e: failed.append(e is not None), made._round, sync=True)


async def test_what_a_cut_end_and_a_damaged_header_named_is_not_named_again(tmp_path: Path) -> None:
    made = await filled(tmp_path, 900)
    await made.close()
    file = max((tmp_path / "s").glob("*.seg"))
    with file.open("r+b") as changed:
        changed.write(FILE.pack(b"interconn-spool\n", 1, 7, 1))
        changed.seek(FILE.size)
        changed.write(b"x" * 40 * 300)
    left, again = found(tmp_path)
    again.start()
    stored = again.append(1, b"new", b"", _ignored)
    await again.barrier()
    await again.close()
    assert len(left) < 900 < stored.ident
    assert [each.meta for each in found(tmp_path)[0]][-1] == b"new"


async def test_a_fault_of_any_kind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no failure of the disk ends neither the thread nor the wait of who has appended."""
    made, synced = await filled(tmp_path, 1), os.fdatasync

    def fails(fd: int) -> None:
        monkeypatch.setattr(os, "fdatasync", synced)
        raise MemoryError

    monkeypatch.setattr(os, "fdatasync", fails)
    async with asyncio.timeout(5):
        with pytest.raises(OSError, match="MemoryError"):
            await made.barrier()
        made.append(1, b"after", b"", _ignored)
        await made.barrier()
    await made.close()
    assert [each.meta for each in found(tmp_path)[0]] == [b"m0", b"after"]


async def test_a_segment_that_cannot_be_deleted_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, tries = await filled(tmp_path, 900), list[Path]()
    left, unlink = list(made._segments[0].live.values()), Path.unlink

    def fails(path: Path, missing_ok: bool = False) -> None:
        tries.append(path)
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(Path, "unlink", fails)
    monkeypatch.setattr("gateway.data_plane.io.spool.AFTER_FAILURE_S", 0.2)
    for each in left:
        each.free()
    async with asyncio.timeout(5):
        await eventually(lambda: bool(tries))
        for _ in range(20):
            made._tidy()
            await asyncio.sleep(0)
        assert len(tries) == 1
        monkeypatch.setattr(Path, "unlink", unlink)
        while tries[0].exists():
            await asyncio.sleep(0.05)
            made._tidy()
    await made.close()


async def test_what_outlives_a_segment_is_carried_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop turns between the records, and the segment goes after the last of them."""
    monkeypatch.setattr("gateway.data_plane.io.spool.STEP_S", 0.0)
    made, turns = await filled(tmp_path, 900), 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def carry() -> Iterator[tuple[int, bytes]]:
        for n in range(50):
            given.append(turns)
            assert first.exists()
            yield records.LANES, b"lane %d" % n

    turning, given = asyncio.create_task(turn()), list[int]()
    oldest = made._segments[0]
    first, made.carry = oldest.path, carry
    for each in list(oldest.live.values()):
        each.free()
    await eventually(lambda: not first.exists())
    turning.cancel()
    assert len(given) == 50
    assert sum(later > earlier for earlier, later in pairwise(given)) == 49
    await made.close()
    lanes = [each.meta for each in found(tmp_path)[0] if each.kind == records.LANES]
    assert lanes == [b"lane %d" % n for n in range(50)]


async def test_a_segment_stays_where_what_outlives_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that is heard of before the last of it was given."""
    monkeypatch.setattr("gateway.data_plane.io.spool.STEP_S", 0.0)
    monkeypatch.setattr("gateway.data_plane.io.spool.AFTER_FAILURE_S", 0.1)
    made, carried, pwrite = await filled(tmp_path, 900), list[int](), os.pwrite

    def fails(fd: int, data: Buffer, at: int) -> int:
        if b"lane" in bytes(data):
            monkeypatch.setattr(os, "pwrite", pwrite)
            raise OSError(errno.ENOSPC, "full")
        return pwrite(fd, data, at)

    def carry() -> Iterator[tuple[int, bytes]]:
        for n in range(200):
            carried.append(n)
            yield records.LANES, b"lane %d" % n

    oldest = made._segments[0]
    first, made.carry = oldest.path, carry
    monkeypatch.setattr(os, "pwrite", fails)
    for each in list(oldest.live.values()):
        each.free()
    await eventually(lambda: len(carried) >= 200)
    await made.barrier()
    assert first.exists()
    await eventually(lambda: not oldest.leaving)
    made._tidy()
    await eventually(lambda: not first.exists())
    assert len(carried) == 400
    await made.close()


async def test_a_record_that_is_moved_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its old file may be closed by then: it is read where it lies now, and not taken for damaged."""
    made = await filled(tmp_path, 1)
    old, new = [made.append(1, b"m", b"payload", _ignored) for _ in range(2)]
    await made.barrier()
    read, reads = _payload, list[int]()

    def moved(fd: int, offset: int, size: int) -> Buffer:
        reads.append(offset)
        if len(reads) > 1:
            return read(fd, offset, size)
        old.segment, old.offset = new.segment, new.offset
        raise OSError(errno.EBADF, "closed")

    monkeypatch.setattr("gateway.data_plane.io.spool._payload", moved)
    assert old.read() == b"payload"
    assert reads[1:] == [new.offset]
    await made.close()


async def test_a_damaged_payload_is_not_given_out(tmp_path: Path) -> None:
    made = spool(tmp_path)
    made.open()
    made.start()
    stored = made.append(1, b"m", b"payload", _ignored)
    await made.barrier()
    (file,) = (tmp_path / "s").glob("*.seg")
    with file.open("r+b") as changed:
        changed.seek(stored.offset)
        changed.write(b"P")
    with pytest.raises(Unavailable) as caught:
        stored.read()
    assert caught.value.kind is Kind.STORAGE
    await made.close()


async def test_the_overflow_is_emptied_by_a_start(tmp_path: Path) -> None:
    made = spool(tmp_path, durable=False)
    made.open()
    made.start()
    stored = made.append(1, b"", b"x" * 100, _ignored)
    await made.barrier()
    assert stored.read() == b"x" * 100
    made._loop = None
    await made.close()
    again = spool(tmp_path, durable=False)
    assert again.open() == []
    assert list((tmp_path / "s").iterdir()) == []


async def test_a_large_payload_is_a_view_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.data_plane.io.spool.MAPPED_FROM", 10_000)
    made = await filled(tmp_path, 0)
    stored = [made.append(1, b"m", bytes([n]) * 15_000, _ignored) for n in range(30)]
    await made.barrier()
    views = [each.read() for each in stored]
    assert all(on_disk_already(view) for view in views)
    for each in stored[1:]:
        each.free()
    await eventually(lambda: made.size < 6 * SEGMENT)  # the one that is left was moved
    assert [bytes(view) for view in views] == [bytes([n]) * 15_000 for n in range(30)]
    assert bytes(stored[0].read()) == bytes(15_000)
    await made.close()


async def test_a_body_on_disk(tmp_path: Path) -> None:
    budget, journal = Budget(process_bytes=0, session_bytes=0, disk_bytes=1 << 20), rig.ListJournal()
    files = Files(tmp_path, budget, journal, least=1000)
    assert files.make(999) is None
    assert Files(None, budget, journal).make(1 << 40) is None
    file = files.make(1 << 19)
    assert file is not None
    await asyncio.gather(file.write(b"end", 1000), file.write(bytes(1000), 0))
    view = file.whole(1003)
    assert (bytes(view[-4:]), on_disk_already(view[5:]), budget.on_disk) == (b"\0end", True, 1003)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(Unavailable) as refused:
            await file.write(bytes(10), 1 << 17)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.kind is Kind.BUFFER_FULL
    assert [event["spool"] for event in journal.events] == ["bodies"]
    with pytest.raises(Unavailable):
        await file.write(bytes(1 << 20), 0)
    file.repay()
    await file.write(b"too late", 0)
    assert (budget.on_disk, bytes(view[:2]), list(tmp_path.iterdir())) == (0, b"\0\0", [])


S, A = SessionId("s"), NodeId("LX-A")
MADE = [
    records.Arrived(S, "t", A, ""),
    records.Arrived(S, "t\u00e9", A, "0123456789-1-0"),
    records.Lanes(S, [("t", A, str(Name("a" * 8, 3, 3)))]),
    records.Leaving(S, "t", A, "0123456789-1-0", "json", "application/json", "1", "p", "tr", "i", "", "", ""),
]


@pytest.mark.parametrize("record", MADE)
def test_a_record_reads_as_written(record: records.Arrived | records.Lanes | records.Leaving) -> None:
    assert records.read(*records.write(record)) == record


@given(st.integers(0, 4), st.binary(max_size=80) | st.sampled_from([records.write(each)[1] for each in MADE]))
def test_metas_are_read_or_none(kind: int, meta: bytes) -> None:
    record = records.read(kind, meta)
    assert record is None or records.read(*records.write(record)) == record
