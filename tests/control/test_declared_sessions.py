"""What an admin may declare for sessions without a job, and what becomes of it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError, Kind
from gateway.mgmt_plane.core.expiry import Deadline
from gateway.mgmt_plane.service.deadlines import collect
from gateway.mgmt_plane.service.sessions import MOST, DeclaredSessions
from gateway.model import Contract, DeclaredSession, Job, NodeId, Outcome, SessionId
from gateway.ports import ANY_TOKEN, Tx
from gateway.runtime.declared import DeclaredTeller
from gateway.store.memory import MemoryStore
from specs.states import JobState
from tests.control.world import FakeDataPlane, World, hang, job_file

B, C = NodeId("B"), NodeId("C")


class Desk:
    """A node's declarations, as its admin works with them."""

    def __init__(self, world: World, name: str = "A") -> None:
        self.world, self.node = world, world[name]
        self.sessions = DeclaredSessions(partners=self.node.partners, book=self.node.book, clock=self.node.clock)
        self.data_plane = FakeDataPlane()
        self.teller = DeclaredTeller(
            store=self.node.store, sessions=self.sessions, data_plane=self.data_plane, journal=self.node.journal
        )

    async def declare(self, text: str, *nodes: NodeId, prefix: bool = False, expires: int | None = None) -> Any:
        made = await self.node.run(
            lambda tx: self.sessions.declare(tx, text, prefix=prefix, nodes=nodes, expires=expires)
        )
        await self.teller.tell()
        return made

    async def close(self, text: str) -> Any:
        closed = await self.node.run(lambda tx: self.sessions.close(tx, text))
        await self.teller.tell()
        return closed

    async def names(self) -> list[str]:
        return [each.session_id for each in await self.node.run(self.sessions.all)]

    async def refused(self, text: str, *nodes: NodeId, **more: Any) -> Kind:
        before = await self.node.run(self.sessions.all)
        with pytest.raises(GatewayError) as caught:
            await self.declare(text, *nodes, **more)
        assert await self.node.run(self.sessions.all) == before
        return caught.value.kind


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with World(tmp_path, "A", "B", "C").running() as world:
        yield Desk(world)


async def test_the_data_process_hears_of_declarations(desk: Desk) -> None:
    await desk.declare("session_", B, C, prefix=True)
    await desk.declare("spu-17", B, expires=2**50)
    rules = desk.data_plane.rules
    assert (rules[SessionId("session_")].nodes, rules[SessionId("session_")].prefix) == (("A", "B", "C"), True)
    assert (rules[SessionId("spu-17")].nodes, rules[SessionId("spu-17")].until) == (("A", "B"), 2**50)
    assert all(ANY_TOKEN in rule.tokens and not rule.outgoing for rule in rules.values())
    assert {rule.session_id for rule in await desk.teller.rules()} == {"session_", "spu-17"}
    await desk.close("spu-17")
    assert (set(rules), desk.data_plane.closed) == ({"session_"}, ["spu-17"])
    with pytest.raises(GatewayError) as caught:
        await desk.close("spu-17")
    assert caught.value.kind is Kind.NOT_FOUND


async def test_a_repeated_declaration_changes_nodes_and_end(desk: Desk) -> None:
    first = await desk.declare("s", B)
    assert await desk.declare("s", B) == first
    told = len(desk.data_plane.history)
    changed = await desk.declare("s", B, C, expires=2**50)
    assert (changed.nodes, changed.expires, changed.created) == ((B, C), 2**50, first.created)
    assert len(desk.data_plane.history) == told + 1
    assert await desk.names() == ["s"]


async def test_its_end_is_warned_of() -> None:
    store = MemoryStore()
    ends = DeclaredSession("s", prefix=True, nodes=(B, C), expires=5, created=1)
    await store.run(lambda tx: [tx.insert(ends), tx.insert(replace(ends, session_id="t", expires=None))])
    assert await store.run(lambda tx: collect(tx, now=1)) == [Deadline("session", "s", "B, C", 5)]


async def test_what_is_refused(desk: Desk) -> None:
    await desk.declare("session_", B, prefix=True)
    await desk.declare("spu-17", B)
    for text in ("session_4711", "sess"):
        assert await desk.refused(text, C, prefix=text == "sess") is Kind.CONFLICT
    assert await desk.refused("spu", C, prefix=True) is Kind.CONFLICT
    assert await desk.refused("spu-17", C, prefix=True) is Kind.CONFLICT
    assert await desk.declare("spu", C)  # another id, nobody's beginning
    for text in ("", " x", "x\n", "schlüssel", "x" * 257):
        assert await desk.refused(text, B) is Kind.MALFORMED
    assert await desk.refused("t") is Kind.MALFORMED
    assert await desk.refused("t", B, B) is Kind.MALFORMED
    assert await desk.refused("t", B, expires=1) is Kind.MALFORMED
    assert await desk.refused("t", NodeId("stranger")) is Kind.NODE_UNKNOWN


async def test_a_partner_without_a_known_ca(desk: Desk) -> None:
    def bare(tx: Tx) -> None:
        for each in tx.select(Contract, peer_node_id=C):
            tx.replace(each, replace(each, tls_ca=""))

    await desk.node.run(bare)
    assert await desk.refused("t", C) is Kind.CONTRACT_INVALID


async def test_there_are_not_endlessly_many(desk: Desk) -> None:
    def fill(tx: Tx) -> None:
        for n in range(MOST):
            tx.insert(DeclaredSession(f"old-{n}", prefix=False, nodes=(B,), expires=None, created=n))

    await desk.node.run(fill)
    assert await desk.refused("one-more", B) is Kind.TOO_MANY
    await desk.close("old-0")
    await desk.declare("one-more", B)


async def test_what_has_ended_is_in_nobodys_way(desk: Desk) -> None:
    await desk.node.run(lambda tx: tx.insert(DeclaredSession("s", prefix=True, nodes=(C,), expires=5, created=1)))
    await desk.teller.tell()
    assert desk.data_plane.rules == {}
    await desk.declare("s-1", B)
    assert await desk.names() == ["s-1"]


async def test_a_contract_that_ends_takes_its_partner_out(desk: Desk) -> None:
    await desk.declare("both", B, C)
    await desk.declare("only", C)

    def end(tx: Tx) -> None:
        desk.node.partners.terminate(tx, desk.node.partners.contract_with(tx, C).contract_id)

    await desk.node.run(end)
    await desk.teller.tell()
    assert await desk.names() == ["both"]
    assert desk.data_plane.rules[SessionId("both")].nodes == ("A", "B")
    assert desk.data_plane.closed == ["only"]


async def test_a_data_process_that_is_away_hears_of_it_later(desk: Desk) -> None:
    desk.data_plane.down = True
    await desk.declare("s", B)
    assert desk.node.journal.events[-1]["event"] == "sessions.untold"
    desk.data_plane.down = False
    await desk.teller.tell()
    assert set(desk.data_plane.rules) == {"s"}


async def test_jobs_and_declarations_keep_apart(desk: Desk) -> None:
    """A partner that chooses a job's id must not get into a session that was declared for another one."""
    world = desk.world
    await world.grant("B", "A")
    world["A"].launcher.scripts["psi"] = hang
    job = await desk.node.jobs.submit_file(job_file())
    assert await desk.refused(f"session_{job.job_id}", C) is Kind.CONFLICT
    assert await desk.refused("session_", C, prefix=True) is Kind.CONFLICT
    await desk.node.schedule.stop(job.job_id)
    await desk.node.until(job.job_id, JobState.FINISHED)
    await desk.declare("session_", C, prefix=True)
    with pytest.raises(GatewayError) as caught:
        await desk.node.jobs.submit_file(job_file())
    assert caught.value.kind is Kind.CONFLICT
    await desk.close("session_")
    await desk.node.jobs.submit_file(job_file())


async def test_a_partners_job_over_a_declared_session_is_refused(desk: Desk) -> None:
    world = desk.world
    theirs = Desk(world, "B")
    await world.grant("B", "A")
    await theirs.declare("session_", C, prefix=True)
    job = await desk.node.jobs.submit_file(job_file())
    end = await desk.node.until(job.job_id, JobState.FINISHED, JobState.REJECTED)
    assert end.outcome is not Outcome.SUCCEEDED
    assert await theirs.node.run(lambda tx: tx.get(Job, job.job_id)) is None
    assert set(theirs.data_plane.rules) == {"session_"}
