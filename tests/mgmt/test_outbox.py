"""The outbox: order per partner, retries, ends. Time is the test's."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import GatewayError, Kind, PeerError, ProtocolViolation, Refused, Unavailable
from gateway.model import CallState, Contract, OutCall, TraceId
from gateway.ports import PeerReply, Tx
from gateway.runtime.outbox import (
    HERE_ATTEMPTS,
    KEEP_DONE_MS,
    LONGEST_LIFE_MS,
    LONGEST_PAUSE_MS,
    Outbox,
    is_trouble,
    pause_ms,
)
from tests.mgmt.world import Node, World
from tests.waiting import eventually


class Scripted:
    """A PeerClient that answers as told; by default {}."""

    def __init__(self) -> None:
        self.script: list[GatewayError | None] = []
        self.calls: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(
        self, contract: Contract, route: str, payload: Mapping[str, Any], *, trace_id: TraceId, token_set: str = ""
    ) -> PeerReply:
        self.calls.append((contract.peer_node_id, payload["n"]))
        await self.gate.wait()
        error = self.script.pop(0) if self.script else None
        if error is not None:
            raise error
        return PeerReply({"n": payload["n"]})


@pytest.fixture
async def outbox(world: World, a: Node, b: Node, c: Node) -> tuple[Outbox, Scripted, list[tuple[str, str]]]:
    await world.partners(a, b)
    await world.partners(a, c)
    ended: list[tuple[str, str]] = []
    client = Scripted()

    def on_result(_tx: Tx, call: OutCall, answer: PeerReply | PeerError | None) -> None:
        ended.append((call.body["n"], f"{call.state} {answer.data['n'] if isinstance(answer, PeerReply) else None}"))

    box = Outbox(store=a.store, client=client, journal=a.journal, clock=a.clock, entropy=a.entropy, on_result=on_result)
    a.outgoing.on_put(box.wake)
    return box, client, ended


async def put(a: Node, node: Node, name: str) -> None:
    contract = await a.contract(node)
    await a.run(lambda tx: a.outgoing.put(tx, contract=contract, route="job.start", body={"n": name}, subject="s"))


async def state(a: Node, name: str) -> OutCall:
    calls = await a.run(lambda tx: tx.select(OutCall))
    return next(each for each in calls if each.body.get("n") == name)


async def test_what_is_written_is_performed(a: Node, b: Node, outbox: Any) -> None:
    box, _client, ended = outbox
    await put(a, b, "before")
    box.start()
    await eventually(lambda: len(ended) == 1)
    await put(a, b, "after")  # wakes it: nothing here waits for a timer
    await eventually(lambda: len(ended) == 2)
    await box.stop()
    assert ended == [("before", "DONE before"), ("after", "DONE after")]
    assert (await state(a, "after")).attempts == 1


async def test_order_is_kept_per_partner_and_partners_do_not_wait_for_each_other(
    a: Node, b: Node, c: Node, outbox: Any
) -> None:
    box, client, ended = outbox
    for name in ("1", "2", "3"):
        await put(a, b, name)
    await put(a, c, "c")
    client.script = [Unavailable("down"), None]
    box.start()
    await eventually(lambda: ("c", "DONE c") in ended)
    # 2 and 3 wait behind 1, which is tried again later.
    assert [name for node, name in client.calls if node == "B"] == ["1"]
    assert (await state(a, "1")).state is CallState.DUE
    a.clock.ms += 1000
    box.wake()
    await eventually(lambda: len(ended) == 4)
    await box.stop()
    assert [name for node, name in client.calls if node == "B"] == ["1", "1", "2", "3"]


async def test_one_call_at_a_time_per_partner(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    client.gate.clear()
    await put(a, b, "1")
    await put(a, b, "2")
    box.start()
    await eventually(lambda: len(client.calls) == 1)
    box.wake()
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(client.calls) == 1
    client.gate.set()
    await eventually(lambda: len(ended) == 2)
    await box.stop()


async def test_refusals(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    client.script = [PeerError("B answered 404: no", peer_code="404")]
    await put(a, b, "1")
    await put(a, b, "2")
    box.start()
    await eventually(lambda: len(ended) == 2)
    await box.stop()
    assert ended == [("1", "DEAD None"), ("2", "DONE 2")]
    dead = await state(a, "1")
    assert (dead.state, dead.attempts, dead.error) == (CallState.DEAD, 1, "B answered 404: no")
    (event,) = a.journal.of("outbox.dead")
    assert {"peer": "B", "route": "job.start", "reason": "B answered 404: no"}.items() <= event.items()


async def test_trouble_at_the_partner_is_tried_again_for_a_while(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    client.script = [PeerError("busy", peer_code="101")] * 3 + [ProtocolViolation("html", kind=Kind.PEER_MALFORMED)]
    await put(a, b, "1")
    for _ in range(5):
        await box._perform(await state(a, "1"))
    assert ended == [("1", "DONE 1")]
    client.script = [PeerError("busy", peer_code="101")] * 8
    await put(a, b, "2")
    for _ in range(8):
        await box._perform(await state(a, "2"))
    assert ended[1:] == [("2", "DEAD None")]


async def test_a_partner_without_room_is_waited_for_a_day(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    client.script = [PeerError("full", peer_code="201"), PeerError("busy", peer_code="429")] * 10
    await put(a, b, "1")
    for _ in range(21):
        await box._perform(await state(a, "1"))
    assert ended == [("1", "DONE 1")]
    await put(a, b, "2")
    a.clock.ms += 86_400_000
    client.script = [PeerError("full", peer_code="201")] * 8
    for _ in range(8):
        await box._perform(await state(a, "2"))
    assert ended[1:] == [("2", "DEAD None")]


async def test_a_call_nobody_answers_dies_after_a_week(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    client.script = [Unavailable("down")] * 2
    await put(a, b, "1")
    a.clock.ms += LONGEST_LIFE_MS - 1
    await box._perform(await state(a, "1"))
    assert (await state(a, "1")).state is CallState.DUE
    a.clock.ms += 1
    await box._perform(await state(a, "1"))
    assert ended == [("1", "DEAD None")]


async def test_what_was_ended_meanwhile_stays_ended(a: Node, b: Node, outbox: Any) -> None:
    box, _client, ended = outbox
    await put(a, b, "1")
    call = await state(a, "1")
    contract = await a.contract(b)
    await a.run(lambda tx: a.partners.terminate(tx, contract.contract_id))
    await box._perform(call)
    assert (await state(a, "1")).state is CallState.DEAD
    assert ended == []
    assert a.journal.of("outbox.error") == []


async def test_what_fails_here_is_parked_after_a_few_times_and_waits_for_the_admin(
    a: Node, b: Node, outbox: Any
) -> None:
    box, client, ended = outbox
    heard = box._on_result

    def broken(_tx: Tx, _call: OutCall, _reply: PeerReply | None) -> None:
        raise RuntimeError("secret")

    box._on_result = broken
    await put(a, b, "1")
    for left in range(HERE_ATTEMPTS - 1, -1, -1):
        call = await state(a, "1")
        assert call.state is CallState.DUE
        await box._perform(call)
        assert (await state(a, "1")).due > a.clock.ms  # no loop that is never idle
        assert len(a.journal.of("outbox.error")) == HERE_ATTEMPTS - max(left, 1)
    parked = await state(a, "1")
    assert (parked.state, parked.attempts) == (CallState.PARKED, HERE_ATTEMPTS)
    (event,) = a.journal.of("outbox.parked")
    assert {"peer": "B", "route": "job.start", "call_id": parked.call_id}.items() <= event.items()
    assert "RuntimeError at broken:" in event["reason"]
    assert "secret" not in str(a.journal.events)

    # What comes after it is not held up, and the admin sees it and has it performed again.
    box._on_result = heard
    a.clock.ms += LONGEST_PAUSE_MS
    await put(a, b, "2")
    box.start()
    await eventually(lambda: len(ended) == 1)
    (shown,) = await a.admin_call("GET", "/v1/admin/outbox", state="PARKED")
    assert shown["error"] == parked.error
    again = await a.admin_call("POST", f"/v1/admin/outbox/{parked.call_id}/retry")
    assert (again["state"], again["attempts"]) == ("DUE", 0)
    await eventually(lambda: len(ended) == 2)
    await box.stop()
    assert ended == [("2", "DONE 2"), ("1", "DONE 1")]
    assert len(client.calls) == HERE_ATTEMPTS + 2


async def test_only_what_is_over_can_be_retried(a: Node, b: Node, outbox: Any) -> None:
    box, client, _ended = outbox
    await put(a, b, "1")
    call = await state(a, "1")
    with pytest.raises(Refused) as refused:
        await a.admin_call("POST", f"/v1/admin/outbox/{call.call_id}/retry")
    assert refused.value.kind is Kind.CONFLICT
    with pytest.raises(Refused) as refused:
        await a.admin_call("POST", "/v1/admin/outbox/nothing/retry")
    assert refused.value.kind is Kind.NOT_FOUND
    client.script = [PeerError("no", peer_code="404")]
    await box._perform(call)
    dead = await state(a, "1")
    assert dead.state is CallState.DEAD
    await a.run(lambda tx: tx.replace(dead, replace(dead, route="job.audit.apply")))
    with pytest.raises(Refused) as refused:  # the application counts as refused already
        await a.admin_call("POST", f"/v1/admin/outbox/{call.call_id}/retry")
    assert refused.value.kind is Kind.CONFLICT


async def test_a_sick_database_parks_nothing(a: Node, b: Node, outbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    box, _client, ended = outbox
    await put(a, b, "1")
    call = await state(a, "1")

    async def full(_work: object) -> object:
        raise Unavailable("database: OperationalError", kind=Kind.STORE)

    with monkeypatch.context() as patch:
        patch.setattr(a.store, "run", full)
        for _ in range(3 * HERE_ATTEMPTS):
            await box._perform(call)
    assert await state(a, "1") == call
    await box._perform(call)
    assert ended == [("1", "DONE 1")]


async def test_subjects_do_not_wait_for_each_other_but_all_wait_for_a_contract(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    contract = await a.contract(b)

    def named(name: str, subject: str) -> Callable[[Tx], OutCall]:
        return lambda tx: a.outgoing.put(tx, contract=contract, route="job.start", body={"n": name}, subject=subject)

    for name, subject in (("1", "audit:x"), ("2", "audit:x"), ("3", "audit:y"), ("4", "contract:c"), ("5", "audit:z")):
        await a.run(named(name, subject))
    busy = PeerError("busy", peer_code="101")
    client.script = [busy, None, busy]
    box.start()
    await eventually(lambda: len(client.calls) == 3)
    await eventually(lambda: not box._busy)
    # 1 was put off, so 2 waits; 3 was done, 4 put off, 5 waits for it.
    assert [name for _, name in client.calls] == ["1", "3", "4"]
    a.clock.ms += 1000
    box.wake()
    await eventually(lambda: len(ended) == 5)
    await box.stop()
    assert [name for name, _ in ended] == ["3", "1", "2", "4", "5"]


async def test_a_partner_that_is_down_for_an_hour_gets_everything_in_order_once_it_is_back(
    world: World, a: Node, b: Node, outbox: Any
) -> None:
    box, client, ended = outbox
    names = [f"{subject}{number}" for number in range(5) for subject in "xyz"]
    contract = await a.contract(b)
    for name in names:
        await a.run(
            lambda tx, name=name: a.outgoing.put(
                tx, contract=contract, route="job.start", body={"n": name}, subject=name[0]
            )
        )
    begin = a.clock.ms
    client.script = [Unavailable("down")] * 10_000
    box.start()
    await eventually(lambda: len(client.calls) == 1)
    while a.clock.ms < begin + 3_600_000:
        a.clock.ms += 1_000
        box.wake()
        for _ in range(6):
            await asyncio.sleep(0)
        await eventually(lambda: not box._busy)
    # One try a minute and less of all that waits, not of each call.
    assert 60 <= len(client.calls) <= 200
    client.script.clear()
    a.clock.ms += LONGEST_PAUSE_MS
    client.calls.clear()
    box.wake()
    await eventually(lambda: len(ended) == len(names))
    await box.stop()
    for subject in "xyz":
        assert [name for _, name in client.calls if name[0] == subject] == [n for n in names if n[0] == subject]
    assert len(client.calls) == len(names)


async def test_calls_that_are_long_over_are_forgotten(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    client.script = [None, PeerError("no", peer_code="404")]
    for name in ("done", "dead"):
        await put(a, b, name)
    box.start()
    await eventually(lambda: len(ended) == 2)
    for name, new in (("parked", CallState.PARKED), ("due", CallState.DUE)):
        await put(a, b, name)
        call = await state(a, name)
        await a.run(lambda tx, c=call, n=new: tx.replace(c, replace(c, state=n, due=c.due + 10**12)))
    a.clock.ms += KEEP_DONE_MS
    await box._prune()
    assert len(await a.run(lambda tx: tx.select(OutCall))) >= 4
    a.clock.ms += 3_600_001
    await box._prune()
    await box.stop()
    left = [each.body.get("n") for each in await a.run(lambda tx: tx.select(OutCall))]
    assert sorted(str(each) for each in left) == ["due", "parked"]


async def test_stop_leaves_a_call_under_way_due(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    client.gate.clear()
    await put(a, b, "1")
    box.start()
    await eventually(lambda: len(client.calls) == 1)
    await box.stop()
    assert (await state(a, "1")).state is CallState.DUE
    box.wake()
    client.gate.set()
    box.start()
    await eventually(lambda: len(ended) == 1)
    await box.stop()


@pytest.mark.req("M-072")
def test_codes_and_pauses() -> None:
    assert [each for each in ("101", "201", "302", "420", "429", "100") if not is_trouble(each)] == []
    assert [
        each for each in ("0", "200", "1", "400", "404", "5001", "E0000000503", "", "-1", "١٠١") if is_trouble(each)
    ] == []
    assert [pause_ms(n, b"\0") for n in (1, 2, 3)] == [500, 1000, 2000]
    assert pause_ms(1, b"\xff") > 250
    assert pause_ms(100, b"\0") == LONGEST_PAUSE_MS


async def test_calls_written_in_one_millisecond_keep_their_order(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    names = [str(number) for number in range(30)]
    for name in names:
        await put(a, b, name)
        a.clock.ms -= 1  # a clock that goes back
    a.clock.ms += 1000
    box.start()
    await eventually(lambda: len(ended) == 30)
    await box.stop()
    assert [name for _, name in client.calls] == names
