"""The trail that two nodes write while they deal with each other."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError

from gateway.errors import CallerError, Kind, Refused
from gateway.mgmt_plane.core.acl import DatasetUse
from gateway.mgmt_plane.core.trail import SEAL, json_line, verify
from gateway.mgmt_plane.service.trail import (
    PAGE,
    Actor,
    Failure,
    Failures,
    Trail,
    TrailedStore,
    acting,
    record,
)
from gateway.model import Contract, Dataset, Grant, GrantUse, JobId, Permit, TrailEntry
from gateway.ports import Tx
from gateway.runtime.trail import TrailTender
from gateway.store.sql import SqlStore, migrate
from specs.states import ApprovalState
from tests.mgmt.conftest import a, b, c, contract_id, world  # noqa: F401  # fixtures
from tests.mgmt.world import ListJournal, Node, World
from tests.waiting import eventually

ADMIN = Actor("admin", "0123456789ab")


async def trail_of(node: Node) -> list[TrailEntry]:
    return list(await node.run(lambda tx: tx.select(TrailEntry, order="seq")))


def told(entries: list[TrailEntry], event: str) -> list[TrailEntry]:
    return [each for each in entries if each.event == event]


async def exported(node: Node, **times: Any) -> list[bytes]:
    header = await node.trail.heading(**times)
    entries: list[TrailEntry] = []
    while len(entries) < header.last - header.first + 1:
        entries += await node.trail.entries(first=header.first + len(entries), last=header.last)
    return [json_line(each).encode() for each in (header, *entries)]


async def test_pairing_and_a_grant_as_both_sides_tell_it(world: World, a: Node, b: Node) -> None:  # noqa: F811
    with acting(ADMIN):
        await world.partners(a, b)
        dataset = await b.add_dataset("d1")
        audit = await world.grant(a, b, dataset.dataset_id, times_limit=1)
    entries = await trail_of(b)
    assert [each.seq for each in entries] == list(range(1, len(entries) + 1))
    applied, approved = told(entries, "contract.applied")[0], told(entries, "contract.approved")[0]
    assert (applied.actor, applied.who) == ("partner", "A")
    assert applied.facts["fingerprint"] == a.pki.fingerprint
    assert (approved.actor, approved.who, approved.subject) == ("admin", ADMIN.who, applied.subject)
    asked, granted = told(entries, "audit.applied")[0], told(entries, "audit.approved")[0]
    assert (asked.actor, asked.who, asked.facts["about"]) == ("partner", "A", "d1")
    assert granted.facts["times_limit"] == 1
    made = told(entries, "grant.made")[0]
    assert (made.facts["user"], made.facts["dataset_id"], made.actor) == ("A", "d1", "admin")
    # One matter has one trace id on both sides: that of the call that carried it.
    confirmed = told(await trail_of(a), "audit.approved")[0]
    assert confirmed.trace_id == granted.trace_id != ""
    assert (confirmed.actor, confirmed.who) == ("partner", "B")
    # No secret.
    text = json.dumps([asdict(each) for node in (a, b) for each in await trail_of(node)])
    assert audit.permit is not None
    assert audit.permit["token"] not in text
    assert "PRIVATE" not in text
    assert "/secret/place" not in text
    for node in (a, b):
        assert verify(await exported(node), trusted=frozenset({node.pki.fingerprint})).problems == ()


async def test_use_refusal_and_end_of_a_grant(world: World, a: Node, b: Node) -> None:  # noqa: F811
    await world.partners(a, b)
    await b.add_dataset("d1")
    audit = await world.grant(a, b, "d1", times_limit=1)
    assert audit.permit is not None
    shown = [Permit("urn", 1, audit.permit["token"])]

    def use(job: str) -> Callable[[Tx], None]:
        return lambda tx: b.grants.authorise(
            tx,
            user=a.id,
            job_id=JobId(job),
            project_id="p",
            uses=[DatasetUse("d1", frozenset())],
            permits=shown,
            now=world.clock.ms,
        )

    await b.run(use("job-1"))
    await b.run(use("job-1"))  # a retry is no other use
    with pytest.raises(Refused):
        await b.run(use("job-2"))
    await b.trail.tend()
    await b.admin_call("POST", f"/v1/admin/audits/A/{audit.audit_id}/terminate")
    entries = await trail_of(b)
    used = told(entries, "grant.reserved")
    assert [each.facts["job_id"] for each in used] == ["job-1"]
    assert used[0].facts["dataset_id"] == "d1"
    refused = told(entries, "access.refused")
    assert [each.facts["kind"] for each in refused] == [Kind.GRANT_EXHAUSTED.value]
    assert told(entries, "audit.terminated")
    assert told(entries, "grant.revoked")[0].subject == used[0].subject


async def test_rejection_and_key_change_are_told(world: World, a: Node, b: Node) -> None:  # noqa: F811
    await world.apply(a, b)
    waiting = await b.contract(a)
    await b.admin_call("POST", f"/v1/admin/partners/{waiting.contract_id}/reject")
    assert told(await trail_of(b), "contract.rejected")
    await world.partners(a, b)

    def rotate(tx: Tx) -> None:
        old = tx.select(Contract, status=ApprovalState.APPROVED)[0]
        tx.replace(old, replace(old, auth_credential="NEW KEY", fingerprint="f" * 64, peer_address="https://new:1"))

    await b.run(rotate)
    changed = told(await trail_of(b), "key.changed")[0]
    assert changed.facts["fingerprint"] == "f" * 64
    assert changed.facts["fingerprint_before"] == a.pki.fingerprint
    assert "NEW KEY" not in json.dumps(dict(changed.facts))
    assert told(await trail_of(b), "contract.changed")[0].facts["peer_address"] == "https://new:1"


async def test_a_refused_transaction_leaves_no_entry(a: Node) -> None:  # noqa: F811
    await a.add_dataset("d1")
    before = await trail_of(a)

    def work(tx: Tx) -> None:
        tx.delete(tx.select(Dataset)[0])
        raise Refused("no", kind=Kind.CONFLICT)

    with pytest.raises(Refused):
        await a.run(work)
    assert await trail_of(a) == before
    with pytest.raises(CallerError):
        await a.run(lambda tx: tx.delete(before[0]))
    with pytest.raises(CallerError):
        await a.run(lambda tx: tx.replace(before[0], before[0]))
    with pytest.raises(CallerError):
        await a.run(lambda tx: tx.insert(replace(before[0], seq=99)))


async def test_failed_authentication_is_told_and_bounded(world: World, a: Node, b: Node, c: Node) -> None:  # noqa: F811
    await world.partners(a, b)
    for _ in range(5):
        answer = await c.send(b, "dataset.pub.list", {"contract_id": "x"})
        assert answer["code"] == 401
    wrong = await a.send(b, "project.list", {"contract_id": "x"}, signer=c.signer)
    assert wrong["code"] == 401
    stale = await a.send(b, "project.list", {"contract_id": "x"}, headers={"x-timestamp": "1000000000000"})
    assert stale["code"] == 420
    await b.trail.tend()
    failed = told(await trail_of(b), "auth.failed")
    by = {(each.who, each.subject, each.facts["kind"]): each.facts["count"] for each in failed}
    assert by == {
        ("C", "edge:dataset.pub.list", "unauthenticated"): 5,
        ("A", "edge:project.list", "unauthenticated"): 1,
        ("A", "edge:project.list", "stale"): 1,
    }
    assert {each.actor for each in failed} == {"claimed"}
    assert failed[0].trace_id


def test_strangers_cannot_fill_the_disk() -> None:
    failures = Failures(per_minute=10)
    for number in range(1000):
        failures.add(Failure("auth.failed", "claimed", f"n{number}", "edge", "stale", "x"), now=60_000)
    taken = failures.take(now=61_000)
    assert len(taken) == 10
    assert failures.take(now=62_000) == []
    (act, actor), *rest = failures.take(now=120_000)
    assert (act.event, act.facts["count"], actor.kind, rest) == ("auth.failed_more", 990, "claimed", [])
    failures.add(Failure("auth.failed", "claimed", "n", "edge", "stale", "x"), now=121_000)
    assert len(failures.take(now=121_000, last=True)) == 1


async def test_seals_come_by_number_by_time_and_at_the_end(world: World, a: Node) -> None:  # noqa: F811
    for number in range(205):
        await a.add_dataset(f"d{number}")
    entries = await trail_of(a)
    assert [each.seq for each in told(entries, SEAL)] == [101, 202]
    world.clock.ms += 300_000
    await a.trail.tend()
    assert len(told(await trail_of(a), SEAL)) == 2
    world.clock.ms += 400_000
    await a.trail.tend()
    await a.trail.tend()
    assert len(told(await trail_of(a), SEAL)) == 3  # and no second one over nothing
    await a.trail.close()
    end = (await trail_of(a))[-2:]
    assert [each.event for each in end] == ["node.stopped", SEAL]
    assert (await a.trail.state())["unsealed"] == 0
    assert verify(await exported(a), trusted=frozenset({a.pki.fingerprint})).problems == ()


async def test_an_export_of_a_time(world: World, a: Node) -> None:  # noqa: F811
    start = world.clock.ms
    for number in range(10):
        await a.add_dataset(f"d{number}")  # each a millisecond later
    times = {"since": start + 3, "until": start + 5}
    lines = await exported(a, **times)
    assert [json.loads(line)["subject"] for line in lines[1:]] == ["dataset:d3", "dataset:d4", "dataset:d5"]
    assert verify(lines).problems == ()
    nothing = await exported(a, since=start + 1_000_000)
    assert len(nothing) == 1
    assert verify(nothing).problems == ()
    assert (await a.trail.entries(first=1, last=10**15))[-1].seq <= PAGE


async def test_acts_that_no_record_shows(a: Node) -> None:  # noqa: F811
    with acting(ADMIN):
        await a.run(lambda tx: record(tx, "invite.made", "invite:1", uses=1))
        await a.trail.tell("config.changed", "", config_sha256="x")
    await a.run(lambda tx: tx.count(Grant))  # reading is no act
    entries = await trail_of(a)
    assert [(each.event, each.who) for each in entries] == [("invite.made", ADMIN.who), ("config.changed", ADMIN.who)]


async def test_who_acts_is_not_mixed_up_between_requests(a: Node) -> None:  # noqa: F811
    async def one(who: str) -> None:
        with acting(Actor("admin", who)):
            await asyncio.sleep(0)
            await a.run(lambda tx: record(tx, "x", who))

    await asyncio.gather(*(one(f"t{number}") for number in range(20)))
    assert all(each.who == each.subject for each in await trail_of(a))


async def test_a_task_started_by_a_request_acts_for_the_node(a: Node) -> None:  # noqa: F811
    with acting(ADMIN):
        later = asyncio.create_task(a.run(lambda tx: record(tx, "later", "")))
        await a.run(lambda tx: record(tx, "now", ""))
    await later
    assert {each.event: (each.actor, each.who) for each in await trail_of(a)} == {
        "now": ("admin", ADMIN.who),
        "later": ("node", "A"),
    }


async def test_a_start_tells_what_changed(a: Node) -> None:  # noqa: F811
    await a.trail.started(config_sha256="1", version="1")
    await a.trail.started(config_sha256="1", version="1")
    await a.trail.started(config_sha256="2", version="1")
    assert [each.facts["changed"] for each in await trail_of(a)] == [[], [], ["config_sha256"]]


async def test_the_database_itself_takes_no_change(tmp_path: Path, a: Node) -> None:  # noqa: F811
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    store = SqlStore(url)
    trail = Trail(store, identity=a.identity, signer=lambda: a.signer, clock=a.clock)
    asked = 0

    async def stats() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"refused": {"forbidden": 2 if asked < 3 else 5}}

    trailed = TrailedStore(store, trail, a.clock)
    tender = TrailTender(trail, ListJournal(), stats=stats, every_s=0.01, channel_every_s=0.01)
    tender.start()
    await eventually(lambda: asked > 3)
    await asyncio.gather(*(trailed.run(lambda tx, n=n: tx.insert(GrantUse(f"g{n}", JobId("j"), 1))) for n in range(30)))  # type: ignore[misc]
    await tender.stop()
    found = list(await store.run(lambda tx: tx.select(TrailEntry, order="seq")))
    assert [each.seq for each in found] == list(range(1, 35))
    assert [dict(each.facts) for each in told(found, "channel.refused")] == [{"forbidden": 2}, {"forbidden": 3}]
    header = await trail.heading()
    lines = [json_line(each).encode() for each in (header, *await trail.entries(first=1, last=header.last))]
    assert verify(lines, trusted=frozenset({a.pki.fingerprint})).problems == ()
    await store.close()
    engine = create_engine(url)
    for statement in ("UPDATE trail SET who = 'x' WHERE seq = 3", "DELETE FROM trail WHERE seq = 3"):
        with pytest.raises(IntegrityError, match="append-only"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    engine.dispose()
