"""One use of a grant is one (job, dataset), on both stores, under concurrent jobs, and against a plain model."""

import asyncio
import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.auth.tokens import token_digest
from gateway.errors import GatewayError, IllegalTransition, Kind
from gateway.mgmt_plane.core.acl import DatasetUse, permit_of
from gateway.mgmt_plane.core.uses import TRANSITIONS, UseEvent, step_use
from gateway.mgmt_plane.service.grants import Grants, left_of
from gateway.mgmt_plane.service.outgoing import Outgoing
from gateway.mgmt_plane.service.partners import Partners
from gateway.model import (
    Audit,
    AuditId,
    Contract,
    ContractId,
    Dataset,
    DatasetId,
    Direction,
    Grant,
    GrantUse,
    Identity,
    InstId,
    Job,
    JobId,
    Limits,
    NodeId,
    Permit,
    UseState,
)
from gateway.ports import Store, Tx
from gateway.store.memory import MemoryStore
from gateway.store.sql import SqlStore, migrate
from specs.states import ApprovalState, AuditKind
from tests import postgres
from tests.control.world import contract
from tests.mgmt.world import FakeClock

DATASET = DatasetId("ds")
USER, HOLDER = NodeId("A"), NodeId("B")
T = TypeVar("T")


@dataclass
class Counted:
    """Tokens that are the same in every run: which of several grants a job takes goes by the digests of the permits."""

    given: int = 0

    def token(self, size: int) -> bytes:
        self.given += 1
        return hashlib.shake_256(b"%d" % self.given).digest(size)


@dataclass
class Holder:
    """The holder's side of grants over any store; `restart` is a new process over the same store."""

    store: Store
    clock: FakeClock = field(default_factory=FakeClock)
    entropy: Counted = field(default_factory=Counted)
    made: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        identity = Identity(HOLDER, InstId("i"), "B", "B", "interconn", "0", "https://B")
        base: dict[str, Any] = {"identity": identity, "clock": self.clock, "entropy": self.entropy}
        outgoing = Outgoing(clock=self.clock, entropy=self.entropy)
        partners = Partners(**base, signer=None, limits=Limits(), outgoing=outgoing)
        self.grants = Grants(**base, partners=partners)

    async def furnish(self) -> None:
        columns = ({"name": "id", "data_type": "varchar"},)
        dataset = Dataset(
            DATASET, "n", InstId("i"), "", "", 1, "id", "", columns, public=True, location="/x", created=1
        )
        cooperation: Contract = contract(USER, own=HOLDER)

        def work(tx: Tx) -> None:
            tx.insert(dataset)
            tx.insert(cooperation)

        await self.store.run(work)
        self.contract_id = cooperation.contract_id

    async def grant(self, *, times: int | None, until: int | None = None) -> Permit:
        self.made += 1
        audit = Audit(
            applicant=USER,
            audit_id=AuditId(f"au-{self.made}"),
            kind=AuditKind.DATASET,
            direction=Direction.IN,
            peer_node_id=USER,
            contract_id=ContractId(self.contract_id),
            status=ApprovalState.APPROVED,
            subject=DATASET,
            body={},
            permit=None,
            created=self.made,
            updated=self.made,
        )

        def work(tx: Tx) -> Any:
            tx.insert(audit)
            return self.grants.issue(tx, audit, time_limit=until, times_limit=times)

        return permit_of(await self.store.run(work))

    def _asked(self, job: str) -> dict[str, Any]:
        uses = [DatasetUse(DATASET, frozenset({"interconn/psi/1.0.0"}))]
        return {"user": USER, "job_id": JobId(job), "project_id": "-", "uses": uses, "now": self.clock.ms}

    async def reserve(self, job: str, *permits: Permit, store: Store | None = None) -> Kind | None:
        return await _kind(
            (store or self.store).run(lambda tx: self.grants.authorise(tx, **self._asked(job), permits=permits))
        )

    async def open(self, job: str, store: Store | None = None) -> Kind | None:
        return await _kind((store or self.store).run(lambda tx: self.grants.open(tx, **self._asked(job))))

    async def end(self, job: str, store: Store | None = None) -> None:
        @dataclass
        class Ended:
            job_id: JobId

        ended: Job = Ended(JobId(job))  # type: ignore[assignment]  # nothing else of a job is looked at
        await (store or self.store).run(lambda tx: self.grants.job_ended(tx, ended, ended))

    async def revoke(self, permit: Permit) -> None:
        def work(tx: Tx) -> None:
            grant = tx.get(Grant, token_digest(permit.token))
            assert grant is not None
            self.grants.revoke(tx, grant.audit_key)

        await self.store.run(work)

    async def all(self) -> list[tuple[Grant, list[GrantUse]]]:
        return [(grant, list(uses)) for grant, uses in await self.store.run(self.grants.all)]


async def _kind(work: Coroutine[Any, Any, Any]) -> Kind | None:
    try:
        await work
    except GatewayError as error:
        return error.kind
    return None


def consistent(grant: Grant, uses: list[GrantUse]) -> None:
    """The counts on the grant are those of its uses."""
    states = [each.state for each in uses]
    assert grant.used == states.count(UseState.CONSUMED)
    assert grant.reserved == states.count(UseState.RESERVED)
    assert grant.times_limit is None or grant.used + grant.reserved <= grant.times_limit
    assert all((each.opened is not None) == (each.state is UseState.CONSUMED) for each in uses)


def test_the_whole_table() -> None:
    for state in (None, *UseState):
        for event in UseEvent:
            if (state, event) in TRANSITIONS:
                assert step_use(state, event) is TRANSITIONS[state, event]
            else:
                with pytest.raises(IllegalTransition):
                    step_use(state, event)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'node.db'}"
    server: postgres.Server = request.getfixturevalue("postgres_server")
    return server.database()


@pytest.mark.req("M-049")
async def test_jobs_at_the_same_time_never_share_the_last_use(url: str) -> None:
    """Two connections, as two processes would have them, and every job twice."""
    migrate(url)
    stores = [SqlStore(url), SqlStore(url)]
    try:
        holder = Holder(stores[0])
        await holder.furnish()
        permit = await holder.grant(times=5)
        jobs = [f"job-{n}" for n in range(10)]
        found = await asyncio.gather(*(holder.reserve(job, permit, store=each) for job in jobs for each in stores))
        first, second = found[::2], found[1::2]
        won = [job for job, a, b in zip(jobs, first, second, strict=True) if a is None and b is None]
        assert set(found) == {None, Kind.GRANT_EXHAUSTED}
        assert len(won) == 5
        ((grant, uses),) = await holder.all()
        consistent(grant, uses)
        assert (grant.used, grant.reserved, left_of(grant)) == (0, 5, 0)
        # Three open, each at both connections at once; two end without it, and their places are free again.
        opened = await asyncio.gather(*(holder.open(job, each) for job in won[:3] for each in stores))
        assert set(opened) == {None}
        await asyncio.gather(*(holder.end(job, each) for job in won for each in stores))
        ((grant, uses),) = await holder.all()
        consistent(grant, uses)
        assert (grant.used, grant.reserved, left_of(grant)) == (3, 0, 2)
        lost = [job for job in jobs if job not in won]
        again = await asyncio.gather(
            *(holder.reserve(job, permit, store=stores[n % 2]) for n, job in enumerate(lost[:4]))
        )
        assert sorted(map(str, again)) == sorted([str(Kind.GRANT_EXHAUSTED)] * 2 + ["None"] * 2)
        # What was returned cannot be opened any more.
        assert await holder.open(won[4]) is Kind.GRANT_MISSING
    finally:
        for store in stores:
            await store.close()


@pytest.mark.req("M-048")
async def test_a_revocation_and_an_opening_at_the_same_time(url: str) -> None:
    """One of the two is first: either the data were not opened, or the job stands among those to stop."""
    migrate(url)
    stores = [SqlStore(url), SqlStore(url)]
    try:
        holder = Holder(stores[0])
        await holder.furnish()
        for n in range(6):
            permit = await holder.grant(times=1)
            assert await holder.reserve(f"job-{n}", permit) is None
            grant = await holder.store.run(lambda tx, p=permit: tx.get(Grant, token_digest(p.token)))  # type: ignore[misc]
            assert grant is not None

            def take_back(tx: Tx, key: str = grant.audit_key) -> list[tuple[JobId, UseState]]:
                held = holder.grants.jobs_under(tx, key)
                holder.grants.revoke(tx, key)
                return [(each.job_id, each.state) for each in tx.select(GrantUse) if each.job_id in held]

            opened, stopped = await asyncio.gather(holder.open(f"job-{n}", stores[1]), stores[0].run(take_back))
            assert [job for job, _ in stopped] == [f"job-{n}"]
            assert (opened is None) == (stopped[0][1] is UseState.CONSUMED)
            assert opened in (None, Kind.GRANT_REVOKED)
    finally:
        for store in stores:
            await store.close()


async def test_minus_one_is_any_number() -> None:
    holder = Holder(MemoryStore())
    await holder.furnish()
    permit = await holder.grant(times=-1)
    for n in range(5):
        assert await holder.reserve(f"job-{n}", permit) is None
    ((grant, _),) = await holder.all()
    assert (grant.times_limit, left_of(grant)) == (None, None)


@dataclass
class Plain:
    """What the model knows of one grant."""

    permit: Permit
    times: int | None
    until: int | None
    revoked: bool = False
    held: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)

    def holds(self, now: int) -> bool:
        return not self.revoked and (self.until is None or now <= self.until)

    def free(self, now: int) -> bool:
        return self.holds(now) and (self.times is None or len(self.held | self.opened) < self.times)


class Accounting(RuleBasedStateMachine):
    """Random grants, jobs, openings, retries, stops, restarts, revocations and expiries."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.holder = Holder(MemoryStore())
        self.do(self.holder.furnish())
        self.plain: list[Plain] = []
        self.jobs: dict[str, Plain] = {}
        self.ended: set[str] = set()
        self.count = 0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @property
    def now(self) -> int:
        return self.holder.clock.ms

    @precondition(lambda self: len(self.plain) < 3)
    @rule(times=st.one_of(st.none(), st.integers(1, 3)), life=st.one_of(st.none(), st.integers(1, 500)))
    def grant(self, times: int | None, life: int | None) -> None:
        until = None if life is None else self.now + life
        self.plain.append(Plain(self.do(self.holder.grant(times=times, until=until)), times, until))

    @rule()
    def reserve(self) -> None:
        self.count += 1
        job = f"job-{self.count}"
        why = self.do(self.holder.reserve(job, *(each.permit for each in self.plain)))
        assert (why is None) == any(each.free(self.now) for each in self.plain), why
        if why is None:
            self.jobs[job] = self._chosen(job)
            assert self.jobs[job].free(self.now)
            self.jobs[job].held.add(job)

    def _chosen(self, job: str) -> Plain:
        grants = [grant for grant, uses in self.do(self.holder.all()) if any(use.job_id == job for use in uses)]
        assert len(grants) == 1
        return next(each for each in self.plain if token_digest(each.permit.token) == grants[0].token_digest)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """job/create again: no other use, and refused where its grant holds no more."""
        job = data.draw(st.sampled_from(sorted(set(self.jobs))))
        plain = self.jobs[job]
        if job in self.ended:
            return
        why = self.do(self.holder.reserve(job, plain.permit))
        assert (why is None) == plain.holds(self.now)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def open(self, data: st.DataObject) -> None:
        """Also more than once, and after the end."""
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        plain = self.jobs[job]
        why = self.do(self.holder.open(job))
        allowed = plain.holds(self.now) and job in plain.held | plain.opened
        assert (why is None) == allowed, why
        if allowed:
            plain.held.discard(job)
            plain.opened.add(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        self.do(self.holder.end(job))
        self.ended.add(job)
        self.jobs[job].held.discard(job)

    @rule()
    def restart(self) -> None:
        self.holder.restart()

    @precondition(lambda self: self.plain)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        plain = data.draw(st.sampled_from(self.plain))
        self.do(self.holder.revoke(plain.permit))
        plain.revoked = True

    @rule(ms=st.integers(1, 300))
    def time_passes(self, ms: int) -> None:
        self.holder.clock.ms += ms

    @invariant()
    def nothing_is_lost_or_counted_twice(self) -> None:
        found = {grant.token_digest: (grant, uses) for grant, uses in self.do(self.holder.all())}
        assert len(found) == len(self.plain)
        for plain in self.plain:
            grant, uses = found[token_digest(plain.permit.token)]
            consistent(grant, uses)
            assert {use.job_id for use in uses if use.state is UseState.CONSUMED} == plain.opened
            assert {use.job_id for use in uses if use.state is UseState.RESERVED} == plain.held
            assert plain.times is None or len(plain.opened) <= plain.times

    def teardown(self) -> None:
        self.loop.close()


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestAccounting = pytest.mark.req("M-049")(TestAccounting)
