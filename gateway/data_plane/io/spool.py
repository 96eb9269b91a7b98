"""Records on disk, appended by one thread that syncs many at a time: what must not be lost, or has no room elsewhere.

A folder (mode 0700) of segment files (0600). A segment begins with a header (magic, version, a seed); a record is
`HEAD`, meta, payload. Its first member is a CRC-32 of the rest of the head, the meta and the payload's CRC, seeded with
that of the record before it: so what an interrupted or failed write has left behind is never taken for a record,
however it lies. Segments are allocated before they are written, so that a full disk is noticed before anything is
changed.

What records mean is the channel's (`gateway.data_plane.keeping`). They are freed one by one; segments are deleted
oldest first, after what still lives in them was appended anew. Nothing here parses a meta or looks into a payload.
"""

import asyncio
import contextlib
import errno
import mmap
import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from gateway.data_plane.core.wire import Buffer
from gateway.data_plane.keeping import Filed
from gateway.errors import CallerError, Kind, Unavailable

MAGIC: Final = b"interconn-spool\n"
VERSION: Final = 1
FILE: Final = struct.Struct("<16sIIQ")
"""magic, version, seed of the first record's checksum, number of the segment."""
HEAD: Final = struct.Struct("<IIBxxxIQQ")
"""checksum, checksum of the payload, kind, bytes of meta, bytes of payload, id."""
SEGMENT_BYTES: Final = 64 << 20
MAPPED_FROM: Final = 32 << 20
"""Payloads of so many bytes are not read into memory."""
BATCH_BYTES: Final = 32 << 20
BATCH: Final = 512
META_BYTES: Final = 16 << 20
FREED: Final = 0
"""Kind of a record whose meta is ids (8 bytes each) of records that are no more. Other kinds are the caller's."""
FREED_AT_A_TIME: Final = 100_000
GARBAGE: Final = 4
"""Compaction begins when the files are so many times what lives in them, and some segments more."""

AFTER_FAILURE_S: Final = 10.0
"""So long no segment is emptied or deleted after that has failed: a full disk does not keep the loop busy."""
STEP_S: Final = 0.0005
"""For so long, in one turn of the loop, work is done that may be much."""

Done = Callable[[OSError | None], None]


@dataclass(eq=False, slots=True)
class Stored:
    """A record on disk, a `keeping.Stored`. segment None: not written yet."""

    home: "Spool"
    ident: int
    size: int
    segment: "_Segment | None" = None
    offset: int = 0
    meta_size: int = 0
    crc: int = 0
    freed: bool = False

    def free(self) -> None:
        """The record is no more."""
        self.home.free(self)

    def loosen(self) -> None:
        """Do not keep the record for its own sake: it goes with its segment, without being freed."""
        self.home.drop(self)

    def read(self) -> Buffer:
        """The payload; holds the caller, run it in a thread. Raises Unavailable(STORAGE)."""
        return self.home.read(self)


@dataclass(eq=False, slots=True)
class _Segment:
    number: int
    path: Path
    fd: int
    size: int = FILE.size
    live: dict[int, Stored] = field(default_factory=dict)
    leaving: bool = False


@dataclass(slots=True)
class _Job:
    kind: int
    ident: int
    meta: bytes
    payload: Buffer
    stored: Stored | None
    done: Done
    round: int
    sync: bool
    copy_of: Stored | None = None
    unlink: _Segment | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A record that was there when the spool was opened; freed: it says what was, its payload is no more."""

    kind: int
    ident: int
    meta: bytes = field(repr=False)
    stored: Stored
    freed: bool = False


@dataclass(slots=True)
class Damage:
    """What opening came upon. cut: bytes behind the last whole record of the newest file; lost: records elsewhere."""

    cut: int = 0
    lost: int = 0


class Spool:
    """One folder. `open`, then appends from the loop's thread; `close` in the end.

    durable: records are synced before `done` hears of them and are found again by the next `open`; else the folder is
    emptied by it. carry: asked, before a segment is deleted, for the records (kind, meta) that must outlive it. Each is
    appended in the turn of the loop in which it is given, and the loop turns between them.
    """

    def __init__(self, folder: Path, *, durable: bool, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._durable = durable
        self._segment_bytes = segment_bytes
        self._segments: deque[_Segment] = deque()
        self._jobs: deque[_Job] = deque()
        self._wanted = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next_ident = 1
        self._round = 0
        self._broken_round = -1
        self._chain = 0
        self._freed: list[int] = []
        self._compacting = False
        # Held while a record's place is read or changed: readers are threads.
        self._place = threading.Lock()
        self._live_bytes = 0
        # The thread's: whether the newest segment is of this run (a found one is never appended to), and its size.
        self._thread_owns = False
        self._capacity = 0
        self.damage = Damage()
        self.carry: Callable[[], Iterable[tuple[int, bytes]]] = lambda: ()

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in list(self._segments))

    # -- opening

    def open(self) -> Sequence[Found]:
        """Read what is there, in the order of ids, each id once. Holds the caller; run it before serving.

        A record stays until it is freed; loosen those that `carry` gives again.

        Raises CallerError for a folder that others may enter or a file of another version, OSError.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._folder.stat().st_mode & 0o077:
            raise CallerError(f"{self._folder}: must be a folder of mode 0700")
        files = sorted(self._folder.glob(f"{'[0-9]' * 12}.seg"))
        if not self._durable:
            for file in files:
                file.unlink()
            files = []
        found: dict[int, Found] = {}
        freed: set[int] = set()
        for file in files:
            newest = file == files[-1]
            for record in self._read_segment(file, newest=newest):
                self._next_ident = max(self._next_ident, record.ident + 1)
                if record.kind == FREED:
                    freed.update(ident for (ident,) in struct.iter_unpack("<Q", record.meta[: len(record.meta) & ~7]))
                else:
                    found[record.ident] = record
        self._next_ident = max(self._next_ident, max(freed, default=0) + 1)
        # A reader may acknowledge a record that was cut off: no new one, which it has not read, gets that id.
        self._next_ident += self.damage.cut // HEAD.size
        kept = [replace(record, freed=ident in freed) for ident, record in sorted(found.items())]
        for record in kept:
            if not record.freed:
                self._add(record.stored)
        return kept

    def _read_segment(self, file: Path, *, newest: bool) -> Iterator[Found]:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        size = os.fstat(fd).st_size
        head = os.pread(fd, FILE.size, 0)
        if len(head) < FILE.size or head[:16] != MAGIC:
            # Torn while it was made: no record can be in it. Elsewhere all that was in it is lost.
            self.damage.cut += size if newest else 0
            self.damage.lost += 0 if newest else 1
            os.close(fd)
            if newest:
                file.unlink()
            return
        _, version, chain, _ = FILE.unpack(head)
        if version != VERSION:
            os.close(fd)
            raise CallerError(f"{file}: written by another version of the gateway ({version})")
        # By its name, which no damage to the header changes: a next segment of a number that exists cannot be made.
        segment = _Segment(int(file.stem), file, fd)
        self._segments.append(segment)
        at = FILE.size
        while at + HEAD.size <= size:
            raw = os.pread(fd, HEAD.size, at)
            check, payload_crc, kind, meta_size, payload_size, ident = HEAD.unpack(raw)
            end = at + HEAD.size + meta_size + payload_size
            if raw == bytes(HEAD.size):
                break
            meta = b""
            good = meta_size <= META_BYTES and end <= size
            whole = good and payload_size <= self._segment_bytes + size
            if whole:
                meta = os.pread(fd, meta_size, at + HEAD.size)
                good = zlib.crc32(raw[4:] + meta, chain) == check
                good = good and self._crc_of(fd, end - payload_size, payload_size) == payload_crc
            if not good:
                if newest:
                    break
                self.damage.lost += 1
                if not whole or not ident:
                    break
                # The lengths look right: what follows may still be whole.
                chain, at = check, end
                continue
            stored = Stored(self, ident, payload_size, segment, end - payload_size, meta_size, payload_crc)
            yield Found(kind, ident, meta, stored)
            chain, at = check, end
        if newest:
            self.damage.cut += _bytes_left(fd, at, size)
            os.ftruncate(fd, at)
            os.fsync(fd)
        segment.size = at

    def _crc_of(self, fd: int, at: int, size: int) -> int:
        crc = 0
        while size:
            piece = os.pread(fd, min(size, 1 << 20), at)
            if not piece:
                return -1
            crc = zlib.crc32(piece, crc)
            at += len(piece)
            size -= len(piece)
        return crc

    def start(self) -> None:
        """Start the writing thread; call it in the loop that will append."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=f"spool-{self._folder.name}", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Write what was appended, then end."""
        while self._freed:
            self._flush_freed()
        with self._wanted:
            self._stopping = True
            self._wanted.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            # What the thread has said last is still to be heard.
            await asyncio.sleep(0)
        for segment in self._segments:
            os.close(segment.fd)
        if not self._durable:
            for segment in self._segments:
                segment.path.unlink(missing_ok=True)
        self._segments.clear()

    # -- appending, in the loop's thread

    def append(self, kind: int, meta: bytes, payload: Buffer, done: Done) -> Stored:
        """Append a record; `done` is called in the loop, in the order of appends, with what went wrong or None.

        After a failure everything appended before it was heard of fails too: nothing overtakes.
        """
        stored = Stored(self, self._next_ident, len(payload))
        self._next_ident += 1
        self._submit(_Job(kind, stored.ident, meta, payload, stored, done, self._round, self._durable))
        return stored

    def free(self, stored: Stored) -> None:
        """The record is no more."""
        if stored.freed:
            return
        stored.freed = True
        self.drop(stored)
        if self._durable:
            self._forget([stored.ident])
        self._tidy()

    async def barrier(self) -> None:
        """Return when everything appended so far is on disk. Raises OSError where it could not be."""
        waiting: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()

        def heard(error: OSError | None) -> None:
            if not waiting.done():
                waiting.set_result(error)

        self._submit(_Job(FREED, 0, b"", b"", None, heard, self._round, self._durable))
        error = await waiting
        if error is not None:
            raise error

    def read(self, stored: Stored) -> Buffer:
        """The payload, a view of the file where it is large; holds the caller, run it in a thread.

        Raises Unavailable(STORAGE).
        """
        place = self._place_of(stored)
        while True:
            segment, offset = place
            if segment is None:
                raise Unavailable("the record is not written yet", kind=Kind.STORAGE)
            failure: OSError | None = None
            try:
                data = _payload(segment.fd, offset, stored.size)
                if len(data) == stored.size and zlib.crc32(data) == stored.crc:
                    return data
            except OSError as e:
                failure = e
            # It may have been moved meanwhile, and its old file closed.
            before, place = place, self._place_of(stored)
            if place == before:
                what = "a record of the spool is damaged" if failure is None else "the spool cannot be read"
                raise Unavailable(what, kind=Kind.STORAGE) from failure

    def _place_of(self, stored: Stored) -> "tuple[_Segment | None, int]":
        with self._place:
            return stored.segment, stored.offset

    def _add(self, stored: Stored) -> None:
        if stored.segment is not None:
            stored.segment.live[stored.ident] = stored
            self._live_bytes += stored.size + stored.meta_size + HEAD.size

    def drop(self, stored: Stored) -> None:
        """Count a record as dead where it lies."""
        if stored.segment is not None and stored.segment.live.pop(stored.ident, None) is not None:
            self._live_bytes -= stored.size + stored.meta_size + HEAD.size

    def _forget(self, idents: Sequence[int]) -> None:
        """Write soon, many at once, that these records are no more."""
        if not self._freed and self._loop is not None:
            self._loop.call_soon(self._flush_freed)
        self._freed += idents

    def _flush_freed(self) -> None:
        idents, self._freed = self._freed[:FREED_AT_A_TIME], self._freed[FREED_AT_A_TIME:]
        if not idents:
            return
        if self._freed and self._loop is not None:
            self._loop.call_soon(self._flush_freed)

        def heard(error: OSError | None) -> None:
            # Forgotten, they would come back with a restart.
            if error is not None and not self._stopping and self._loop is not None:
                self._loop.call_later(1.0, self._forget, idents)

        meta = struct.pack(f"<{len(idents)}Q", *idents)
        self._submit(_Job(FREED, 0, meta, b"", None, heard, self._round, sync=False))

    def _submit(self, job: _Job) -> None:
        with self._wanted:
            if self._stopping:
                error = OSError("the spool is closed")
            else:
                self._jobs.append(job)
                self._wanted.notify()
                return
        job.done(error)

    def _heard(self, jobs: Sequence[_Job], error: OSError | None) -> None:
        """A batch has ended: say so, in order."""
        if error is not None:
            self._round += 1
        for job in jobs:
            stored = job.stored
            if stored is not None and error is None:
                if not stored.freed:
                    self._add(stored)
            elif stored is not None:
                stored.segment, stored.freed = None, True
            job.done(error)
        self._tidy()

    def _tidy(self) -> None:
        """Delete the oldest segment when nothing lives in it; empty it first where the files have grown too much."""
        if self._compacting or len(self._segments) < 2:
            return
        oldest = self._segments[0]
        if oldest.leaving:
            return
        if not oldest.live:
            self._leave(oldest)
            return
        if len(self._segments) * self._segment_bytes > GARBAGE * self._live_bytes + 4 * self._segment_bytes:
            self._compacting = True
            self._move(oldest)

    def _leave(self, segment: _Segment) -> None:
        """Delete a segment, after what `carry` gives was written.

        `carry` knows of records that are appended and not heard of yet. So nothing that it gives may be written where
        one of these could not be: all of it belongs to the round in which the last failure had been heard of.
        """
        segment.leaving, failed, now = True, None, self._round

        def stays() -> None:
            segment.leaving = False

        def carried(error: OSError | None) -> None:
            nonlocal failed
            failed = failed or error

        def steps() -> Iterator[None]:
            for kind, meta in self.carry():
                # Superseded by the next one; then nothing points to it and its segment goes in turn.
                self._submit(_Job(kind, self._next_ident, meta, b"", None, carried, now, sync=False))
                self._next_ident += 1
                yield
            if failed is None:
                self._submit(_Job(FREED, 0, b"", b"", None, gone, now, self._durable, unlink=segment))
            else:
                gone(failed)

        def begin(error: OSError | None) -> None:
            if error is None and now == self._round:
                self._in_turns(steps())
            else:
                gone(error or OSError("records before these could not be written"))

        def gone(error: OSError | None) -> None:
            if error is None:
                self._segments.remove(segment)
                os.close(segment.fd)
                self._tidy()
            elif self._loop is not None:
                self._loop.call_later(AFTER_FAILURE_S, stays)

        # When this is heard of, so is everything before it.
        self._submit(_Job(FREED, 0, b"", b"", None, begin, now, sync=False))

    def _in_turns(self, steps: Iterator[None]) -> None:
        """Do work that may be much, as many steps in a turn of the loop as leave time for others."""
        until = time.monotonic() + STEP_S
        for _ in steps:
            if self._loop is not None and time.monotonic() >= until:
                self._loop.call_soon(self._in_turns, steps)
                return

    def _move(self, segment: _Segment) -> None:
        """Append anew what lives in a segment."""
        living = list(segment.live.values())
        left, failed = len(living), False

        def ended() -> None:
            self._compacting = False

        def moved(old: Stored, new: Stored, error: OSError | None) -> None:
            nonlocal left, failed
            left -= 1
            failed = failed or error is not None
            if error is None:
                self.drop(new)
                if old.freed:
                    # Its end was written before its copy: once more, behind it.
                    self._forget([old.ident])
                else:
                    self.drop(old)
                    with self._place:
                        old.segment, old.offset, old.meta_size = new.segment, new.offset, new.meta_size
                    self._add(old)
            if not left and failed and self._loop is not None:
                self._loop.call_later(AFTER_FAILURE_S, ended)
            elif not left:
                ended()

        def steps() -> Iterator[None]:
            for old in living:
                new = Stored(self, old.ident, old.size)
                done = partial(moved, old, new)
                self._submit(_Job(0, old.ident, b"", b"", new, done, self._round, self._durable, copy_of=old))
                yield

        self._in_turns(steps())

    # -- writing, in the thread

    def _run(self) -> None:
        while True:
            with self._wanted:
                while not self._jobs and not self._stopping:
                    self._wanted.wait()
                if not self._jobs:
                    return
                batch, size = [self._jobs.popleft()], 0
                while self._jobs and len(batch) < BATCH and size < BATCH_BYTES:
                    job = self._jobs.popleft()
                    size += len(job.payload) + len(job.meta)
                    batch.append(job)
            good, error = self._write(batch)
            self._say(batch[:good], None)
            if error is not None:
                self._say(batch[good:], error)

    def _say(self, jobs: Sequence[_Job], error: OSError | None) -> None:
        if jobs and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._heard, jobs, error)

    def _write(self, batch: Sequence[_Job]) -> tuple[int, OSError | None]:
        """Write a batch; returns how many records of it are on disk, and what stopped the rest."""
        safe = 0
        segment = self._segments[-1] if self._segments and self._thread_owns else None
        start = (segment.size, self._chain) if segment is not None else (0, 0)
        try:
            self._refuse_after_failure(batch)
            for number, job in enumerate(batch):
                pieces, size = self._pieces(job)
                if not size:
                    continue
                if segment is None or segment.size + size > self._capacity:
                    if segment is not None:
                        os.ftruncate(segment.fd, segment.size)
                        self._sync(segment)
                        safe, start = number, (segment.size, self._chain)
                    segment = self._new_segment(size)
                    start = (segment.size, self._chain)
                self._put(segment, job, pieces)
            if segment is not None and any(job.sync for job in batch):
                self._sync(segment)
            for job in batch:
                if job.unlink is not None:
                    job.unlink.path.unlink(missing_ok=True)
        except Exception as e:  # noqa: BLE001  # whoever appended waits to be told; a dead thread would tell nobody
            if segment is not None and self._segments and segment is self._segments[-1]:
                segment.size, self._chain = start
                with contextlib.suppress(OSError):
                    os.pwrite(segment.fd, bytes(HEAD.size), segment.size)
            self._broken_round = max(job.round for job in batch)
            return safe, e if isinstance(e, OSError) else OSError(errno.EIO, f"{type(e).__name__}: {e}")
        return len(batch), None

    def _refuse_after_failure(self, batch: Sequence[_Job]) -> None:
        """What was appended before a failure was heard of fails with it."""
        if any(job.round <= self._broken_round for job in batch):
            raise OSError("records before these could not be written")

    def _pieces(self, job: _Job) -> tuple[list[Buffer], int]:
        old = job.copy_of
        kind, meta, payload = job.kind, job.meta, job.payload
        if old is not None:
            if old.segment is None:
                return [], 0
            at = old.offset - old.meta_size - HEAD.size
            raw = os.pread(old.segment.fd, HEAD.size + old.meta_size, at)
            payload = _payload(old.segment.fd, old.offset, old.size)
            if len(raw) != HEAD.size + old.meta_size or len(payload) != old.size:
                raise OSError(errno.EIO, "a record is cut off")
            kind, meta = raw[8], raw[HEAD.size :]
        elif kind == FREED and not meta:
            return [], 0
        # A copy keeps the checksum that it was written with, so that damage does not become whole by being moved.
        crc = zlib.crc32(payload) if old is None else old.crc
        head = HEAD.pack(0, crc, kind, len(meta), len(payload), job.ident)
        if job.stored is not None:
            job.stored.crc, job.stored.meta_size = crc, len(meta)
        return [head, meta, payload], HEAD.size + len(meta) + len(payload)

    def _put(self, segment: _Segment, job: _Job, pieces: list[Buffer]) -> None:
        head, meta, payload = pieces
        chain = zlib.crc32(bytes(head[4:]) + bytes(meta), self._chain)
        first = struct.pack("<I", chain) + bytes(head[4:]) + bytes(meta)
        at = segment.size
        for piece in (first, payload):
            view = memoryview(piece)
            while view:
                count = os.pwrite(segment.fd, view, at)
                view = view[count:]
                at += count
        if job.stored is not None:
            job.stored.segment, job.stored.offset = segment, segment.size + len(first)
        segment.size, self._chain = at, chain

    def _new_segment(self, size: int) -> _Segment:
        number = self._segments[-1].number + 1 if self._segments else 1
        path = self._folder / f"{number:012d}.seg"
        capacity = max(self._segment_bytes, FILE.size + size)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, capacity)
            seed = int.from_bytes(os.urandom(4), "little")
            os.pwrite(fd, FILE.pack(MAGIC, VERSION, seed, number), 0)
            if self._durable:
                os.fsync(fd)
                folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except BaseException:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        segment = _Segment(number, path, fd)
        self._segments.append(segment)
        self._thread_owns, self._capacity, self._chain = True, capacity, seed
        return segment

    def _sync(self, segment: _Segment) -> None:
        if self._durable:
            os.fdatasync(segment.fd)


def _payload(fd: int, offset: int, size: int) -> Buffer:
    """Bytes of a file, fewer where it ends before. Raises OSError."""
    if size < MAPPED_FROM:
        return os.pread(fd, size, offset)
    if os.fstat(fd).st_size < offset + size:
        return b""
    # A mapping begins with a page. It outlives the name of the file and what is cut off behind it.
    before = offset % mmap.ALLOCATIONGRANULARITY
    block = Filed(fd, size + before, offset=offset - before, access=mmap.ACCESS_READ)
    return memoryview(block)[before:]


def _bytes_left(fd: int, at: int, size: int) -> int:
    """Bytes from `at` that are not zero padding; counts up to the last that is not zero."""
    last = 0
    for start in range(at, size, 1 << 20):
        piece = os.pread(fd, min(1 << 20, size - start), start).rstrip(b"\0")
        if piece:
            last = start + len(piece) - at
    return last
