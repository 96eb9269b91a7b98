"""What is taken back stops what runs under it, on both sides; what changed since the approval does not run."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import WIRE, Kind, PeerError, Refused, Unavailable
from gateway.mgmt_plane.core.acl import schema_digest
from gateway.mgmt_plane.service.jobs import register_component
from gateway.model import (
    Audit,
    AuditId,
    Component,
    ContractId,
    Dataset,
    Direction,
    Grant,
    GrantUse,
    Job,
    JobId,
    NodeId,
    Outcome,
    TraceId,
    UseState,
)
from gateway.ports import Tx
from specs.states import ApprovalState, AuditKind, JobState, TaskState
from tests.control.test_two_nodes import approved
from tests.control.world import FAST, Call, World, hang, job_file
from tests.waiting import eventually

REVOKED = WIRE[Kind.GRANT_REVOKED]


async def terminate(world: World, node: str, kind: AuditKind, subject: str) -> None:
    """What an admin of `node` does."""
    here = world[node]

    def work(tx: Tx) -> None:
        (audit,) = here.audits.find(tx, kind=kind, subject=subject)
        here.audits.terminate(tx, audit.key())

    await here.run(work)


async def grants(world: World, node: str = "B") -> list[tuple[Grant, list[GrantUse]]]:
    return [(grant, list(uses)) for grant, uses in await world[node].run(world[node].grants.all)]


async def running(world: World, **file: Any) -> str:
    """A job of A's whose psi hangs on both sides."""
    for node in "AB":
        world[node].launcher.scripts["psi"] = hang
    job_id = await approved(world, job_file(**file))

    async def both() -> bool:
        shares = [share for node in "AB" for share in await world[node].shares(job_id)]
        return [share.status for share in shares] == [TaskState.RUNNING] * 2

    await eventually(both)
    return job_id


def agree(world: World, kind: AuditKind, subject: str, *, body: Any = None) -> Any:
    """An approval of B's that A asked for, as both keep it."""

    async def work() -> None:
        for own, peer, direction in (("A", "B", Direction.OUT), ("B", "A", Direction.IN)):
            audit = Audit(
                applicant=NodeId("A"),
                audit_id=AuditId(f"au-{kind}-{subject}"),
                kind=kind,
                direction=direction,
                peer_node_id=NodeId(peer),
                contract_id=ContractId("c-A-B"),
                status=ApprovalState.APPROVED,
                subject=subject,
                body=body or {},
                permit=None,
                created=5,
                updated=5,
            )
            await world[own].run(lambda tx, a=audit: tx.insert(a))  # type: ignore[misc]

    return work()


async def stopped(world: World, job_id: str, words: str, *, by: str = "B") -> None:
    """The job is FAILED on both sides for that reason, its processes are gone, and B opens no data for it again."""
    for node in "AB":
        await world[node].until(job_id, JobState.FINISHED)

        def said(node: str = node) -> Any:
            return _reason_has(world, node, job_id, words)

        await eventually(said)
        job = await world[node].job(job_id)
        assert job.outcome is Outcome.FAILED, (node, job.reason)
        for share in await world[node].shares(job_id):
            assert share.status is TaskState.FAILED
    await eventually(lambda: all(run.killed for node in "AB" for run in world[node].launcher.runs))
    (share,) = await world[by].shares(job_id)
    assert share.result_code == str(REVOKED.code)
    assert REVOKED.text in share.message
    assert words in (await world["A"].jobs.show(job_id))["explanation"]


async def _reason_has(world: World, node: str, job_id: str, words: str) -> bool:
    reason = (await world[node].job(job_id)).reason
    return REVOKED.text in reason and str(REVOKED.code) in reason and words in reason


@pytest.mark.req("M-048")
@pytest.mark.parametrize("by", ["B", "A"])
async def test_a_grant_that_is_taken_back_stops_the_job(tmp_path: Path, by: str) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        job_id = await running(world)
        await terminate(world, by, AuditKind.DATASET, "ds-B")
        await stopped(world, job_id, "dataset ds-B", by=by)
        ((grant, (use,)),) = await grants(world)
        assert (grant.used, grant.reserved, use.state) == (1, 0, UseState.CONSUMED)
        # And the permit opens nothing any more.
        later = await approved(world, job_file())
        assert WIRE[Kind.GRANT_MISSING].text in (await world["A"].until(later, JobState.FINISHED)).reason


async def test_the_reason_comes_after_the_failure_was_polled(tmp_path: Path) -> None:
    """The partner's message is held up: A first sees a task fail, and learns why when the message comes."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        job_id = await running(world)
        held = True

        def hold(call: Call) -> None:
            if held and call.route == "dataset.audit.terminate":
                raise Unavailable("held up")

        world.disturb = hold
        await terminate(world, "B", AuditKind.DATASET, "ds-B")
        assert "failed at B" in (await world["A"].until(job_id, JobState.FINISHED)).reason
        held = False
        await stopped(world, job_id, "dataset ds-B")


@pytest.mark.parametrize(("kind", "subject"), [(AuditKind.PROJECT, "proj-1"), (AuditKind.MODEL, "model-7")])
async def test_projects_and_models_that_end(tmp_path: Path, kind: AuditKind, subject: str) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        await agree(world, kind, subject)
        file: dict[str, Any] = {}
        if kind is AuditKind.MODEL:
            job_id = await running(world)
            (share,) = await world["A"].shares(job_id)
            for node in "AB":  # the model that this very task makes

                def about(tx: Tx, node: str = node) -> None:
                    (old,) = world[node].audits.find(tx, kind=kind, subject=subject)
                    tx.replace(old, replace(old, body={"task_id": share.task_id}))

                await world[node].run(about)
        else:
            job_id = await running(world, **file)
        await terminate(world, "B", kind, subject)
        await stopped(world, job_id, f"{kind.value} {subject}")


async def test_a_flow_that_ends(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        job_id = await running(world)
        flow = (await world["A"].job(job_id)).flow_id
        await agree(world, AuditKind.FLOW, flow, body={"dag": (await world["A"].job(job_id)).dag})
        await terminate(world, "A", AuditKind.FLOW, flow)
        await stopped(world, job_id, f"flow {flow}", by="A")


def silent(call: Call) -> None:
    raise Unavailable(call.route)


async def test_a_contract_that_ends(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        job_id = await running(world)
        # What carries the message is the management plane's own test; here both sides have it already.
        world.disturb = silent
        for node, peer in (("B", "A"), ("A", "B")):
            here = world[node]
            cooperation = await here.run(lambda tx, h=here, p=peer: h.partners.contract_with(tx, NodeId(p)))
            await here.run(lambda tx, h=here, c=cooperation: h.partners.terminate(tx, c.contract_id))
        for node, peer in (("B", "A"), ("A", "B")):
            job = await world[node].until(job_id, JobState.FINISHED)
            assert f"the contract with {peer}" in job.reason, job.reason
            assert job.outcome is Outcome.FAILED
        await eventually(lambda: all(run.killed for node in "AB" for run in world[node].launcher.runs))


async def test_a_contract_that_ends_under_a_job_that_waits(tmp_path: Path) -> None:
    """The end of the project's approval withdraws that of the job, which ends with the contract as well."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        await agree(world, AuditKind.PROJECT, "proj-1")
        job_id = (await world["A"].jobs.submit_file(job_file())).job_id
        here = world["A"]
        world.disturb = silent
        assert (await here.job(job_id)).status is JobState.PENDING
        cooperation = await here.run(lambda tx: here.partners.contract_with(tx, NodeId("B")))
        await here.run(lambda tx: here.partners.terminate(tx, cooperation.contract_id))
        audits = await here.run(lambda tx: tx.select(Audit, contract_id=cooperation.contract_id))
        assert {each.kind for each in audits} >= {AuditKind.PROJECT, AuditKind.JOB}
        assert {each.status for each in audits} == {ApprovalState.TERMINATED}
        assert (await here.job(job_id)).outcome is Outcome.FAILED


async def test_a_job_that_was_created_and_not_started(tmp_path: Path) -> None:
    """Queued: its reserved use is returned, and the scheduler hears the reason."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A", times_limit=1)
        taken = asyncio.Event()

        def before_start(call: Call) -> None:
            if call.route == "job.start" and not taken.is_set():
                taken.set()
                raise PeerError("not today", peer_code="403")

        world.disturb = before_start
        job_id = await approved(world, job_file())
        await asyncio.wait_for(taken.wait(), 5)
        await world["B"].until(job_id, JobState.FINISHED)
        ((grant, (use,)),) = await grants(world)
        assert (grant.used, grant.reserved, use.state) == (0, 0, UseState.RETURNED)
        assert not world["B"].launcher.runs
        world.disturb = lambda call: None
        # The use that came back is enough for another job, and no more than one.
        for outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
            later = await approved(world, job_file())
            assert (await world["A"].until(later, JobState.FINISHED)).outcome is outcome


async def test_a_grant_that_goes_between_admission_and_opening(tmp_path: Path) -> None:
    """The task was admitted; its transaction that opens the data comes after the one that took the grant back."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        node = world["B"]
        opened: list[str] = []
        prepare = node.runner._prepare

        def late(tx: Tx, share: Any, party: Any, code: str) -> Any:
            (audit,) = node.audits.find(tx, kind=AuditKind.DATASET, subject="ds-B")
            if audit.status is ApprovalState.APPROVED:
                node.audits.terminate(tx, audit.key())
            found = prepare(tx, share, party, code)
            opened.append(share.task_name)
            return found

        node.runner._prepare = late  # type: ignore[method-assign]
        job_id = await approved(world, job_file())
        at_a = await world["A"].until(job_id, JobState.FINISHED)
        assert at_a.outcome is Outcome.FAILED
        assert opened == []
        assert not (node.folders.job(JobId(job_id)) / "host-0" / "store" / "source").exists()


# --- what was approved is what runs -----------------------------------------------------------------------------------


async def outcome(world: World, *steps: Any) -> tuple[str, str]:
    """Outcome of a new job at A and everything it says."""
    job_id = await approved(world, job_file(*steps))
    job = await world["A"].until(job_id, JobState.FINISHED)
    here = await world["B"].shares(job_id)
    return job.outcome.value, job.reason + " ".join(f"{share.result_code} {share.message}" for share in here)


async def test_a_file_whose_columns_changed(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A", times_limit=1)
        file = world["B"].folders.work / "catalogue.csv"
        before = file.read_text()
        file.write_text(before.replace("id,age,secret", "id,income,secret"))
        how, words = await outcome(world)
        assert how == "failed"
        assert str(WIRE[Kind.NOT_AS_APPROVED].code) in words or WIRE[Kind.NOT_AS_APPROVED].text in words
        ((grant, _),) = await grants(world)
        assert (grant.used, grant.reserved) == (0, 0)
        file.write_text(before)
        assert (await outcome(world))[0] == "succeeded"


@pytest.mark.parametrize("when", ["header", "type"])
async def test_a_file_that_changes_after_the_job_was_created(tmp_path: Path, when: str) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        node = world["B"]

        def typed(tx: Tx) -> None:
            old = tx.get(Dataset, "ds-B")
            assert old is not None
            metas = [{**each, "data_type": "int"} if each["name"] == "age" else each for each in old.column_metas]
            tx.replace(old, replace(old, column_metas=tuple(metas)))

        await node.run(typed)
        await world.grant("B", "A")
        file = node.folders.work / "catalogue.csv"

        def change(call: Call) -> None:
            if call.route == "task.start":
                text = file.read_text()
                old, new = ("id,age", "id,income") if when == "header" else ("2,40", "2,forty")
                file.write_text(text.replace(old, new))

        world.disturb = change
        how, words = await outcome(world)
        assert how == "failed"
        assert str(WIRE[Kind.NOT_AS_APPROVED].code) in words
        assert ("other columns" if when == "header" else "age") in words
        assert not node.launcher.runs


async def test_a_catalogue_entry_that_changed(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        ((grant, _),) = await grants(world)
        node = world["B"]
        dataset = await node.run(lambda tx: tx.get(Dataset, "ds-B"))
        assert dataset is not None
        assert grant.schema_digest == schema_digest(dataset)

        def other_id(tx: Tx) -> None:
            tx.replace(dataset, replace(dataset, join_columns="age"))

        await node.run(other_id)
        how, words = await outcome(world)
        assert how == "failed"
        assert WIRE[Kind.NOT_AS_APPROVED].text in words


async def test_a_component_whose_code_changed(tmp_path: Path) -> None:
    """The grant names psi: it stands for the version and the code that were registered then."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A", auth_scope={"COMPONENT": ["psi"]})
        ((grant, _),) = await grants(world)
        node = world["B"]
        psi = await node.run(lambda tx: tx.get(Component, "interconn/psi/1.0.0"))
        assert psi is not None
        assert grant.components == {psi.key(): psi.code_digest}
        assert len(psi.code_digest) == 64
        assert (await outcome(world))[0] == "succeeded"
        # Another version of the same name is another component.
        newer = dict(psi.description, version="2.0.0")

        def register(tx: Tx) -> None:
            register_component(tx, info=newer, image=psi.image, code=psi.code_digest, now=1)

        await node.run(register)
        await world["A"].run(register)
        job_id = await approved(world, job_file({"component": "psi", "version": "2.0.0"}))
        reason = (await world["A"].until(job_id, JobState.FINISHED)).reason
        assert "interconn/psi/2.0.0" in reason
        assert WIRE[Kind.GRANT_MISSING].text in reason

        # Registered code and running code differ.
        def other_code(tx: Tx) -> None:
            tx.replace(psi, replace(psi, code_digest="0" * 64))

        await node.run(other_code)
        how, words = await outcome(world, {"component": "psi", "version": "1.0.0"})
        assert how == "failed"
        assert WIRE[Kind.NOT_AS_APPROVED].text in words


async def test_code_that_changes_without_being_registered(tmp_path: Path) -> None:
    """A grant for any component: still, what is started for a partner is what was registered."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        node = world["B"]
        psi = await node.run(lambda tx: tx.get(Component, "interconn/psi/1.0.0"))
        assert psi is not None

        def other_code(tx: Tx) -> None:
            tx.replace(psi, replace(psi, code_digest="0" * 64))

        await node.run(other_code)
        how, words = await outcome(world)
        assert how == "failed"
        assert str(WIRE[Kind.NOT_AS_APPROVED].code) in words
        assert not node.launcher.runs


async def test_a_retry_within_a_job_is_free(tmp_path: Path) -> None:
    """The data are opened for every task that reads them; the job is counted once."""
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A", times_limit=1)
        job_id = await approved(world, job_file({"component": "psi"}, {"component": "psi", "name": "psi_2"}))
        job = await world["A"].until(job_id, JobState.FINISHED)
        ((grant, (use,)),) = await grants(world)
        assert (grant.used, grant.reserved, use.state) == (1, 0, UseState.CONSUMED), job.reason


# --- the project and the flow that a job names ------------------------------------------------------------------------

STRICT = replace(FAST, require_project=True)


async def test_a_project_that_was_never_joined(tmp_path: Path) -> None:
    """Refused by the initiator's own node, and by the other one where the initiator's does not ask."""
    async with World(tmp_path, "A", "B", rules={"A": STRICT}).running() as world:
        with pytest.raises(Refused) as caught:
            await world["A"].jobs.submit_file(job_file())
        assert caught.value.kind is Kind.GRANT_MISSING
        assert "proj-1" in str(caught.value)
        assert await world["A"].jobs.all() == []
    async with World(tmp_path / "2", "A", "B", rules={"B": STRICT}).running() as world:
        job = await world["B"].jobs.validate({**job_file(), "parties": {"guest": "B", "host": "A"}})
        body = {"job_id": "job-1", "flow_id": "f", "name": "n", "dag": job["dag"], "conf": job["conf"]}
        body["conf"] = {**job["conf"], "initiator": {"role": "guest", "node_id": "A"}}
        for project, refusal in (("proj-1", WIRE[Kind.GRANT_MISSING].code), ("-", None)):
            asked = Call("A", "B", "job.audit.apply", {**body, "audit_id": f"au-{project}", "project_id": project}, "")
            if refusal is None:
                await world.carry(asked, TraceId("t"))
            else:
                with pytest.raises(PeerError) as error:
                    await world.carry(asked, TraceId("t"))
                assert error.value.peer_code == str(refusal)


async def test_a_flow_that_was_approved_with_another_dag(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        file = job_file()
        made = await world["A"].jobs.validate(file)
        await agree(world, AuditKind.FLOW, "flow-1", body={"dag": made["dag"]})
        dag, config = dict(made["dag"]), made["conf"]
        asked = {"config": config, "flow_id": "flow-1", "project_id": "", "name": "x"}
        await world["A"].jobs.submit(dag=dag, **asked)
        with pytest.raises(Refused) as caught:
            await world["A"].jobs.submit(dag={**dag, "version": "other"}, **asked)
        assert caught.value.kind is Kind.NOT_AS_APPROVED
        await terminate(world, "A", AuditKind.FLOW, "flow-1")
        with pytest.raises(Refused) as caught:
            await world["A"].jobs.submit(dag=dag, **asked)
        assert caught.value.kind is Kind.GRANT_MISSING


async def test_a_job_that_was_changed_in_the_store_is_not_run(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await world.grant("B", "A")
        node = world["B"]

        def change(call: Call) -> None:
            if call.route == "task.start":
                job = next(iter(node.store._tables[Job].values()))
                assert "demo" in str(job["name"])
                job["config"] = str(job["config"]).replace("{", '{"more":1,', 1)

        world.disturb = change
        how, words = await outcome(world)
        assert how == "failed"
        assert str(WIRE[Kind.NOT_AS_APPROVED].code) in words
        assert not node.launcher.runs
