"""Nonces that outlive a restart (M-012): the file, and an edge that starts again."""

import asyncio
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from gateway.auth.replay import ReplayGuard
from gateway.errors import WIRE, GatewayError, Kind, Unavailable
from gateway.runtime.nonces import _SIZE, NonceFile
from tests.mgmt.world import FakeClock, World, decoded

LIST = "dataset.pub.list"
LIFE = 600_000


def code(kind: Kind) -> int:
    return WIRE[kind].code


def opened(folder: Path, clock: FakeClock) -> NonceFile:
    return NonceFile(folder, life_ms=LIFE, clock=clock)


async def filled(folder: Path, clock: FakeClock, count: int) -> NonceFile:
    guard, log = ReplayGuard(window_ms=LIFE // 2, capacity=100_000), opened(folder, clock)
    seen = [guard.remember("a", f"n{number}", now=clock.ms, timestamp=clock.ms) for number in range(count)]
    await asyncio.gather(*(log.keep(number % 2, each) for number, each in enumerate(seen)))
    return log


@pytest.mark.req("M-012", "M-013")
async def test_a_replay_across_a_restart_is_refused_and_nothing_else(world: World, tmp_path: Path) -> None:
    a, b = world.node("A"), world.node("B")
    contract = await world.partners(a, b)
    log = opened(tmp_path / "n", world.clock)
    world.clock.ms += 1
    b.edge = b.new_edge(nonces=log)
    asked = {"contract_id": contract.contract_id}
    old, waiting = (a.request(b, LIST, asked) for _ in range(2))
    assert decoded(await b.edge.handle(old))["code"] == 0
    await log.close()

    world.clock.ms += 60_000
    log = opened(tmp_path / "n", world.clock)
    assert log.complete_since == 0
    b.edge = b.new_edge(nonces=log)
    assert decoded(await b.edge.handle(old))["code"] == code(Kind.REPLAYED)
    # What was signed before the restart and never served is served: there is no floor any more.
    assert decoded(await b.edge.handle(waiting))["code"] == 0
    world.clock.ms += 300_000
    assert decoded(await b.edge.handle(waiting))["code"] == code(Kind.STALE)
    await log.close()


@pytest.mark.req("M-012")
async def test_a_repeated_apply_is_refused_after_a_restart(world: World, tmp_path: Path) -> None:
    a, b = world.node("A"), world.node("B")
    log = opened(tmp_path / "n", world.clock)
    b.edge = b.new_edge(nonces=log)
    apply = a.request(b, "node.contract.apply", a.partners.apply_body(expired_time=None, description=""), cert=None)
    assert decoded(await b.edge.handle(apply))["code"] == 0
    await log.close()
    log = opened(tmp_path / "n", world.clock)
    b.edge = b.new_edge(nonces=log)
    assert decoded(await b.edge.handle(apply))["code"] == code(Kind.REPLAYED)
    await log.close()


async def test_the_first_start_has_a_floor(tmp_path: Path) -> None:
    clock = FakeClock()
    log = opened(tmp_path / "n", clock)
    assert log.complete_since == clock.ms
    assert list(log.recall()) == []
    await log.close()
    assert {path.name for path in (tmp_path / "n").iterdir()} == {"nonces.new"}
    assert (tmp_path / "n" / "nonces.new").stat().st_mode & 0o077 == 0


@pytest.mark.req("M-012")
async def test_without_the_disk_nothing_is_served(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = world.node("A"), world.node("B")
    contract = await world.partners(a, b)
    log = opened(tmp_path / "n", world.clock)
    world.clock.ms += 1
    b.edge = b.new_edge(nonces=log)
    asked = {"contract_id": contract.contract_id}

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        answers = await asyncio.gather(*(a.send(b, LIST, asked) for _ in range(5)))
    assert {each["code"] for each in answers} == {code(Kind.STORE)}
    assert (await a.send(b, LIST, asked))["code"] == 0
    await log.close()
    # The records of the failed writes were overwritten, not left in between.
    log = opened(tmp_path / "n", world.clock)
    assert len(list(log.recall())) >= 1
    await log.close()


@pytest.mark.req("M-012")
async def test_of_many_copies_at_the_same_time_one_is_served(world: World, tmp_path: Path) -> None:
    """Among calls of the same partner that are all served; and so it stays after a crash in the middle of it."""
    a, b = world.node("A"), world.node("B")
    contract = await world.partners(a, b)
    log = opened(tmp_path / "n", world.clock)
    world.clock.ms += 1
    b.edge = b.new_edge(nonces=log)
    asked = {"contract_id": contract.contract_id}
    copied = [a.request(b, LIST, asked) for _ in range(5)]
    others = [a.request(b, LIST, asked) for _ in range(40)]
    calls = [each for group in zip(*[iter(others)] * 8, strict=True) for each in (*group, *copied)]
    answers = [decoded(each)["code"] for each in await asyncio.gather(*(b.edge.handle(each) for each in calls))]
    assert Counter(answers) == {0: 45, code(Kind.REPLAYED): 20}
    shutil.copytree(tmp_path / "n", tmp_path / "after")
    after = opened(tmp_path / "after", world.clock)
    assert len(list(after.recall())) == 45
    b.edge = b.new_edge(nonces=after)
    again = await asyncio.gather(*(b.edge.handle(each) for each in (*copied, *others)))
    assert {decoded(each)["code"] for each in again} == {code(Kind.REPLAYED)}
    for each in (log, after):
        await each.close()


async def test_a_turn_that_fails_is_tried_again_and_touches_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    guard, log = ReplayGuard(window_ms=LIFE // 2, capacity=1000), opened(tmp_path / "n", clock)
    await log.keep(0, guard.remember("a", "first", now=clock.ms))
    clock.ms += LIFE + 1

    def none_left(*_: object, **__: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(log, "_open", none_left)
        for number in range(2):
            with pytest.raises(Unavailable):
                await log.keep(0, guard.remember("a", f"lost {number}", now=clock.ms))
    strangers = [(tmp_path / f"stranger {number}").open("w+b") for number in range(8)]
    await log.keep(0, guard.remember("a", "last", now=clock.ms))
    assert [each.seek(0, os.SEEK_END) for each in strangers] == [0] * 8
    for each in strangers:
        each.close()
    await log.close()
    again = opened(tmp_path / "n", clock)
    assert len(list(again.recall())) == 1
    await again.close()


async def test_torn_and_damaged_records_cost_only_themselves(tmp_path: Path) -> None:
    clock = FakeClock()
    await (await filled(tmp_path, clock, 100)).close()
    file = tmp_path / "nonces.new"
    content = bytearray(file.read_bytes())
    assert len(content) == 100 * _SIZE
    content[10 * _SIZE + 3] ^= 1
    file.write_bytes(content[:-7])
    log = opened(tmp_path, clock)
    found = list(log.recall())
    assert len(found) == 98
    assert [guard for guard, _ in found[:4]] == [0, 1, 0, 1]
    assert file.stat().st_size == 98 * _SIZE
    await log.close()


async def test_the_files_are_bounded(tmp_path: Path) -> None:
    clock = FakeClock()
    guard, log = ReplayGuard(window_ms=LIFE // 2, capacity=100_000), opened(tmp_path, clock)
    for number in range(40):
        clock.ms += LIFE // 4
        await log.keep(0, guard.remember("a", f"n{number}", now=clock.ms))
    alive = {seen.digest for _, seen in log.recall()}
    assert len(alive) == 4
    assert sum(path.stat().st_size for path in tmp_path.glob("nonces.*")) <= 11 * _SIZE
    await log.close()


async def test_a_caller_that_goes_away_takes_nobody_with_it(tmp_path: Path) -> None:
    clock = FakeClock()
    guard, log = ReplayGuard(window_ms=LIFE // 2, capacity=1000), opened(tmp_path, clock)
    tasks = [asyncio.create_task(log.keep(0, guard.remember("a", f"n{n}", now=clock.ms))) for n in range(10)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [None] * 9
    await log.close()


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("a file")
    with pytest.raises(Unavailable):
        opened(tmp_path / "n", FakeClock())


def test_what_was_recalled_counts() -> None:
    first = ReplayGuard(window_ms=100, capacity=4)
    seen = [first.remember(who, "n", now=1000, timestamp=1000) for who in "abc"]
    again = ReplayGuard(window_ms=100, capacity=2)
    for each in (*seen, *seen):
        again.recall(each, now=1000)
    assert len(again) == 3
    for who in "abc":
        with pytest.raises(GatewayError) as refused:
            again.remember(who, "n", now=1100, timestamp=1000)
        assert refused.value.kind is Kind.REPLAYED
    again.recall(seen[0], now=1101)
    again.remember("a", "n", now=1201, timestamp=1200)
