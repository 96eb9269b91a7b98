"""Nonces that outlive the process: an append-only file with group commit (M-012 across a restart; ADR 0005).

Requests that are under way at the same time share one write and one fdatasync, made by a thread of its own; the event
loop never waits for the disk, and no request is acted upon before its nonce is on it. Records have 41 bytes: 16 digest,
8 signer, 8 until (ms), 1 guard, 8 check. There are two files: when the younger is as old as a nonce can live,
everything in the elder has expired and it is replaced; so their size is bounded by what the guard admits.
"""

import asyncio
import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from gateway.errors import Kind, Unavailable
from gateway.model import SeenNonce
from gateway.ports import Clock

_RECORD: Final = struct.Struct("<16s8sqB")
_CHECK: Final = 8
_SIZE: Final = _RECORD.size + _CHECK
_READ: Final = 8192 * _SIZE


def _sealed(body: bytes) -> bytes:
    return body + hashlib.blake2b(body, digest_size=_CHECK).digest()


def _packed(guard: int, seen: SeenNonce) -> bytes:
    return _sealed(_RECORD.pack(seen.digest, seen.signer, seen.until, guard))


class NonceFile:
    """ports.NonceLog over two files in a folder that this process alone writes. life_ms: how long a nonce counts.

    Raises Unavailable(STORE) where the files cannot be used.
    """

    def __init__(self, folder: Path, *, life_ms: int, clock: Clock) -> None:
        self._young, self._old = folder / "nonces.new", folder / "nonces.old"
        self._life = life_ms
        self._clock = clock
        self._pending: list[bytes] = []
        self._batch: asyncio.Future[None] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nonces")
        now = clock.now_ms()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._complete_since = 0 if self._young.exists() else now
            self._tidy()
            self._file = self._open()
            self._length = os.fstat(self._file).st_size
            self._since = now
        except OSError as e:
            raise Unavailable(f"nonces in {folder}: {e.strerror}", kind=Kind.STORE) from e

    @property
    def complete_since(self) -> int:
        """Every nonce taken since then is known (ms): 0 unless there was no file yet."""
        return self._complete_since

    def _open(self) -> int:
        return os.open(self._young, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def _tidy(self) -> None:
        """One file of what still counts, whole records only: nobody was answered for the torn one of a crash."""
        part = self._young.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as file:
            for guard, seen in self.recall():
                file.write(_packed(guard, seen))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._young)
        self._old.unlink(missing_ok=True)
        self._sync_folder()

    def recall(self) -> Iterator[tuple[int, SeenNonce]]:
        """(guard, nonce) of everything that has not expired; damaged records are passed over."""
        now = self._clock.now_ms()
        for path in (self._old, self._young):
            try:
                with path.open("rb") as file:
                    while piece := file.read(_READ):
                        yield from _records(piece, now)
            except FileNotFoundError:
                continue
            except OSError as e:
                raise Unavailable(f"{path}: {e.strerror}", kind=Kind.STORE) from e

    async def keep(self, guard: int, seen: SeenNonce) -> None:
        """Return when `seen` is on the disk. Raises Unavailable(STORE); the caller must then refuse."""
        self._pending.append(_packed(guard, seen))
        loop = asyncio.get_running_loop()
        if self._batch is None:
            self._batch = loop.create_future()
        if self._flushing is None or self._flushing.done():
            self._flushing = loop.create_task(self._flush(), name="nonces")
        # A caller that goes away must not take the batch of the others with it.
        await asyncio.shield(self._batch)

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            content, batch = b"".join(self._pending), self._batch
            self._pending, self._batch = [], None
            try:
                await loop.run_in_executor(self._thread, self._write, content)
            except OSError as e:
                error = Unavailable(f"nonces: {e.strerror}", kind=Kind.STORE)
                if batch is not None and not batch.done():
                    batch.set_exception(error)
                    batch.exception()  # also where nobody waits any more
            else:
                if batch is not None and not batch.done():
                    batch.set_result(None)

    def _write(self, content: bytes) -> None:
        """On the thread. After a failure the next write begins where the last good one ended."""
        if self._clock.now_ms() - self._since > self._life:
            self._turn()
        view = memoryview(content)
        at = self._length
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written
        os.fdatasync(self._file)
        self._length = at

    def _turn(self) -> None:
        """Begin a new file; the one before it is kept until the next turn.

        Where it cannot be opened, the next write tries again. The descriptor is closed last: its number might by then
        be another file's, into which the next write would go.
        """
        with contextlib.suppress(FileNotFoundError):  # moved by a turn that failed
            self._young.replace(self._old)
        made = self._open()
        os.close(self._file)
        self._file = made
        self._length = 0
        self._since = self._clock.now_ms()
        self._sync_folder()

    def _sync_folder(self) -> None:
        folder = os.open(self._young.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    async def close(self) -> None:
        """Write what is pending and close."""
        if self._flushing is not None:
            await self._flushing
        self._thread.shutdown(wait=True)
        os.close(self._file)


def _records(piece: bytes, now: int) -> Iterator[tuple[int, SeenNonce]]:
    for at in range(0, len(piece) - _SIZE + 1, _SIZE):
        record = piece[at : at + _SIZE]
        body = record[: _RECORD.size]
        if _sealed(body) != record:
            continue
        digest, signer, until, guard = _RECORD.unpack(body)
        if until > now:
            yield guard, SeenNonce(digest, signer, until)
