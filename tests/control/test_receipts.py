"""Receipts that two gateways sign by themselves, whatever happens to their calls, and with whom they never do."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import WIRE, Kind, PeerError, Unavailable
from gateway.mgmt_plane.core.job import JobEvent
from gateway.mgmt_plane.core.receipt import judge
from gateway.mgmt_plane.rest.extensions import announcing, extension_handlers
from gateway.mgmt_plane.service.receipt_exchange import ROUTE, ReceiptExchange
from gateway.mgmt_plane.service.receipts import Receipts
from gateway.model import CallState, Contract, JobId, NodeId, OutCall, Outcome, Receipt, TraceId
from gateway.ports import PeerReply, Tx
from specs.routes import EXTENSIONS
from specs.states import JobState
from tests.control.world import Call, Node, World, approved, fail, job_file
from tests.trail.test_verify import signer
from tests.waiting import eventually


def exchange(node: Node) -> ReceiptExchange:
    receipts = Receipts(book=node.book, partners=node.partners, signer=lambda: signer(node.name), clock=node.clock)
    return ReceiptExchange(receipts=receipts, book=node.book, outgoing=node.outgoing)


async def wire(world: World, *, system: str = "interconn") -> None:
    """Give both nodes the extension, as the composition root does. system: what their contracts say of the other."""
    for node in world.nodes.values():
        both = exchange(node)
        handlers = announcing(node.handlers, node.book.identity)
        node.handlers = {**handlers, **extension_handlers(both, node.store)}

        def ended(tx: Tx, call: OutCall, answer: PeerReply | PeerError | None, both: ReceiptExchange = both) -> None:
            both.call_ended(tx, call, answer)

        node.outbox._on_result = ended

        def pin(tx: Tx) -> None:
            for old in tx.select(Contract):
                tx.replace(old, replace(old, peer_system=system, fingerprint=signer(old.peer_node_id).fingerprint))

        await node.run(pin)


async def kept(node: Node, job_id: str) -> Receipt | None:
    found: Receipt | None = await node.run(lambda tx: tx.get(Receipt, job_id))
    return found


def signers(receipt: Receipt | None) -> list[str]:
    if receipt is None:
        return []
    assert not any(each.problem for each in judge(receipt.receipt, receipt.signatures))
    return sorted(each["node_id"] for each in receipt.signatures)


async def complete(world: World, job_id: str) -> None:
    async def both() -> bool:
        return all([signers(await kept(world[name], job_id)) == ["A", "B"] for name in "AB"])

    await eventually(both)


@pytest.mark.parametrize("script", [None, fail])
async def test_both_sides_hold_both_signatures(tmp_path: Path, script: Callable[..., Any] | None) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await wire(world)
        await world.grant("B", "A")
        if script is not None:
            world["A"].launcher.scripts["psi"] = script
        job_id = await approved(world, job_file())
        await complete(world, job_id)
        here, there = await kept(world["A"], job_id), await kept(world["B"], job_id)
        assert here is not None
        assert there is not None
        assert here.receipt == there.receipt
        assert here.receipt["outcome"] == (Outcome.FAILED if script else Outcome.SUCCEEDED)
        assert len(world.routes(ROUTE)) == 1
        shown = await world["B"].run(lambda tx: exchange(world["B"])._receipts.issue(tx, JobId(job_id)))
        assert [each["node_id"] for each in shown["signatures"]] == ["A", "B"]


async def test_lost_answers_and_repeats_change_nothing(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await wire(world)
        await world.grant("B", "A")
        lost = {"job.stop": 1, ROUTE: 2}
        given: list[Mapping[str, Any]] = []
        receive = world["B"].handlers[ROUTE]
        stop = world["B"].handlers["job.stop"]

        def losing(name: str, handler: Any) -> Any:
            async def handle(caller: Any, body: Mapping[str, Any]) -> Mapping[str, Any]:
                data: Mapping[str, Any] = await handler(caller, body)
                if name == ROUTE:
                    given.append(data)
                if lost[name]:
                    lost[name] -= 1
                    raise Unavailable("the answer is lost", kind=Kind.TOO_MANY)
                return data

            return handle

        world["B"].handlers = {
            **world["B"].handlers,
            ROUTE: losing(ROUTE, receive),
            "job.stop": losing("job.stop", stop),
        }
        job_id = await approved(world, job_file())
        await complete(world, job_id)
        assert len(given) == 3
        assert given[0] == given[1] == given[2]


async def test_who_gave_the_job_up_signs_once_it_knows_better(tmp_path: Path) -> None:
    """B was cut off at the end and believes the job has failed; then it hears that all went well."""
    async with World(tmp_path, "A", "B").running() as world:
        await wire(world)
        await world.grant("B", "A")
        cut, asked = True, 0

        def disturb(call: Call) -> None:
            nonlocal asked
            if cut and call.route == "job.stop":
                raise Unavailable("the link is down")
            if call.route == "job.status_all" and not cut:
                asked += 1
                if asked <= 2:
                    raise Unavailable("the link is down again")

        world.disturb = disturb
        job_id = await approved(world, job_file())
        await world["A"].until(job_id, JobState.FINISHED)

        def give_up(tx: Tx) -> None:
            job = world["B"].book.get(tx, job_id)
            world["B"].book.advance(tx, job, JobEvent.FAIL, outcome=Outcome.FAILED, reason="silent", unsure=True)

        await world["B"].run(give_up)
        cut = False
        await complete(world, job_id)
        assert (await world["B"].job(job_id)).outcome is Outcome.SUCCEEDED


async def test_partners_of_another_kind_are_sent_nothing_of_ours(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await wire(world, system="another")
        await world.grant("B", "A")
        job_id = await approved(world, job_file())
        for name in "AB":
            await world[name].until(job_id, JobState.FINISHED)
        await eventually(lambda: world.routes("job.stop"))
        assert [c.body for c in world.routes("job.stop")] == [{"job_id": job_id}]
        assert await world.carry(Call("A", "B", "job.stop", {"job_id": job_id}, ""), TraceId("t")) == {}
        await asyncio.sleep(0.05)
        assert world.routes(ROUTE) == []
        assert await kept(world["A"], job_id) is None


@pytest.mark.parametrize("known", [None, [], "job-receipt/1", ["job-receipt/2"], {"job-receipt/1": 1}])
async def test_who_does_not_announce_it_is_not_asked(tmp_path: Path, known: Any) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await wire(world)
        await world.grant("B", "A")
        stop = world["B"].handlers["job.stop"]

        async def other(caller: Any, body: Mapping[str, Any]) -> Mapping[str, Any]:
            return {**await stop(caller, body), EXTENSIONS: known}

        world["B"].handlers = {**world["B"].handlers, "job.stop": other}
        job_id = await approved(world, job_file())

        async def told() -> bool:
            calls = await world["A"].run(lambda tx: tx.select(OutCall, subject=f"job:{job_id}"))
            return any(each.route == "job.stop" and each.state is CallState.DONE for each in calls)

        await eventually(told)
        assert await kept(world["A"], job_id) is None
        assert world.routes(ROUTE) == []


@pytest.mark.parametrize("fault", ["other", "forged", "none", "refuses"])
async def test_a_bad_signature_is_not_kept(tmp_path: Path, fault: str) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        await wire(world)
        await world.grant("B", "A")
        receive = world["B"].handlers[ROUTE]

        async def bad(caller: Any, body: Mapping[str, Any]) -> Mapping[str, Any]:
            good = (await receive(caller, body))["signature"]
            if fault == "refuses":
                raise Unavailable("no", kind=Kind.CONFLICT)
            return {
                "other": {"signature": body["signatures"][0]},
                "forged": {"signature": {**good, "at": good["at"] + 1}},
                "none": {"signature": ["x"]},
            }[fault]

        world["B"].handlers = {**world["B"].handlers, ROUTE: bad}
        job_id = await approved(world, job_file())

        async def noticed() -> bool:
            found = await kept(world["A"], job_id)
            return found is not None and "B did not sign" in found.problem

        await eventually(noticed)
        assert signers(await kept(world["A"], job_id)) == ["A"]
        assert (await world["A"].job(job_id)).outcome is Outcome.SUCCEEDED


async def test_what_a_participant_does_not_sign(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "C").running() as world:
        await wire(world)
        await world.grant("B", "A")
        job_id = await approved(world, job_file())
        await complete(world, job_id)
        body = world.routes(ROUTE)[0].body
        both = [*body["signatures"], *body["signatures"]]
        for source, offered, kind in (
            ("A", {}, Kind.MALFORMED),
            ("A", {**body, "signatures": []}, Kind.MALFORMED),
            ("A", {**body, "signatures": both}, Kind.MALFORMED),
            ("C", body, Kind.MALFORMED),
            ("A", {**body, "receipt": {**body["receipt"], "job_id": "job-x"}}, Kind.NOT_FOUND),
            ("A", {**body, "receipt": {**body["receipt"], "outcome": "failed"}}, Kind.CONFLICT),
            ("A", {**body, "receipt": {**body["receipt"], "tasks": {"x": "y"}}}, Kind.CONFLICT),
            ("A", {**body, "receipt": {**body["receipt"], "project_id": "x" * (600 << 10)}}, Kind.TOO_LARGE),
        ):
            with pytest.raises(PeerError) as error:
                await world.carry(Call(source, "B", ROUTE, offered, ""), TraceId("t"))
            assert error.value.peer_code == str(WIRE[kind].code), (source, str(offered)[:200])
        # The other way round: B took part only, and A is the one who schedules.
        turned = {**body, "signatures": [{**body["signatures"][0], "node_id": "B"}]}
        with pytest.raises(PeerError):
            await world.carry(Call("B", "A", ROUTE, turned, ""), TraceId("t"))
        again = await world.carry(Call("A", "B", ROUTE, body, ""), TraceId("t"))
        assert again["signature"]["node_id"] == NodeId("B")
        assert signers(await kept(world["B"], job_id)) == ["A", "B"]
