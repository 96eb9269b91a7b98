"""What outlives a segment of the spool: how far lanes have come, whatever breaks while that is written anew."""

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest

from gateway.data_plane.core import records
from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.delivery import Inbox, Name, Verdict
from gateway.data_plane.core.session import Queues
from gateway.data_plane.core.wire import Buffer
from gateway.data_plane.io.spool import Spool, _Job
from gateway.data_plane.keeping import Keeper, Spools
from gateway.model import NodeId, SessionId
from gateway.runtime.system import SystemClock
from tests.edges.rig import ListJournal
from tests.waiting import eventually

SEGMENT = 1 << 16
SESSION, SOURCE = SessionId("s"), NodeId("LX-B")


def keeper(spool: Spool) -> Keeper:
    budget = Budget(process_bytes=1 << 20, session_bytes=1 << 20, disk_bytes=1 << 30)
    return Keeper(
        Spools(durable=spool),
        Queues(budget, session_topics=1000, peek_keeps=False),
        budget,
        Inbox(),
        SystemClock(),
        ListJournal(),
        lambda: [SESSION],
    )


def lanes(inbox: Inbox) -> dict[str, int]:
    return {topic: name.sequence for topic, _, name in inbox.state(SESSION)}


async def take(at: Keeper, topic: str, number: int) -> None:
    """A message that a partner sends, and that is read at once."""
    name = Name("00000001", number, 0)
    assert at.inbox.judge(SESSION, topic, SOURCE, name, now=0.0) is Verdict.TAKE
    kept = at.keep(SESSION, topic, SOURCE, bytes(200), name=name, settled=lambda _: True, queued=lambda: None)
    at.inbox.took(SESSION, topic, SOURCE, name)
    await kept
    message = at.queues.pop(SESSION, topic, source=SOURCE, now=0.0)
    assert message is not None
    at.queues.done(message)


async def test_a_crash_in_the_middle_forgets_no_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two steps the disk says how far every lane has come, also of those that go on meanwhile."""
    monkeypatch.setattr("gateway.data_plane.io.spool.STEP_S", 0.0)
    monkeypatch.setattr("gateway.data_plane.keeping.LANES_AT_A_TIME", 10)
    made = Spool(tmp_path / "s", durable=True, segment_bytes=SEGMENT)
    made.open()
    made.start()
    at, crashes = keeper(made), list[tuple[Path, dict[str, int]]]()
    acked, carry = dict[str, int](), made.carry

    def crash() -> None:
        image = tmp_path / f"crash-{len(crashes)}"
        shutil.copytree(tmp_path / "s", image)
        crashes.append((image, dict(acked)))

    def watched() -> Iterator[tuple[int, bytes]]:
        for number, record in enumerate(carry()):
            if number % 3 == 0:
                crash()
            yield record

    made.carry = watched
    for number in count():
        for topic in range(100):
            # Some say nothing any more; what they said lies in segments that have gone.
            if number == 0 or topic % 2:
                await take(at, str(topic), number)
                acked[str(topic)] = number
        if len(crashes) >= 12:
            break
    crash()
    await made.close()
    for image, known in crashes:
        again = Spool(image, durable=True, segment_bytes=SEGMENT)
        recalled = keeper(again)
        recalled.recall(again.open())
        found = lanes(recalled.inbox)
        assert {topic for topic, number in known.items() if found.get(topic, -1) < number} == set()
        await again.close()


async def test_it_tells_of_nothing_that_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a write has failed, those behind it fail as well, and that is heard of later."""
    monkeypatch.setattr("gateway.data_plane.io.spool.AFTER_FAILURE_S", 0.05)
    made = Spool(tmp_path / "s", durable=True, segment_bytes=SEGMENT)
    made.open()
    made.start()
    pwrite, refuse, refused = os.pwrite, made._refuse_after_failure, threading.Event()
    filling = [made.append(1, b"m", bytes(200), lambda _: None) for _ in range(400)]
    await made.barrier()
    oldest, heard = made._segments[0], dict[bytes, OSError | None]()
    oldest.leaving = True
    for each in filling:
        each.free()
    await made.barrier()

    def fails(fd: int, data: Buffer, at: int) -> int:
        if b"first" not in bytes(data):
            return pwrite(fd, data, at)
        loop.call_soon_threadsafe(append, b"second")
        appended.wait(5)
        raise OSError(errno.EIO, "broken")

    def append(meta: bytes) -> None:
        def done(error: OSError | None) -> None:
            heard[meta] = error
            if meta == b"first":
                oldest.leaving = False
                assert refused.wait(5)

        made.append(1, meta, b"", done)
        appended.set()

    def refuses(batch: Sequence[_Job]) -> None:
        try:
            refuse(batch)
        finally:
            if any(job.meta == b"second" for job in batch):
                refused.set()

    def carry() -> Iterator[tuple[int, bytes]]:
        yield records.LANES, b"second is gone" if b"second" in heard else b"second is there"

    monkeypatch.setattr(os, "pwrite", fails)
    monkeypatch.setattr(made, "_refuse_after_failure", refuses)
    made.carry, loop, appended = carry, asyncio.get_running_loop(), threading.Event()
    append(b"first")
    appended.clear()

    def left() -> bool:
        made._tidy()
        return not oldest.path.exists()

    await eventually(left)
    await made.close()
    assert all(isinstance(heard[meta], OSError) for meta in (b"first", b"second"))
    again = Spool(tmp_path / "s", durable=True, segment_bytes=SEGMENT)
    metas = {each.meta for each in again.open() if each.kind == records.LANES}
    assert metas == {b"second is gone"}
    await again.close()
