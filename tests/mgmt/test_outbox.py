"""The outbox: order per partner, retries, ends. Time is the test's."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gateway.errors import GatewayError, Kind, PeerError, ProtocolViolation, Unavailable
from gateway.model import CallState, Contract, OutCall, TraceId
from gateway.ports import PeerReply, Tx
from gateway.runtime.outbox import LONGEST_LIFE_MS, LONGEST_PAUSE_MS, Outbox, is_trouble, pause_ms
from tests.mgmt.world import Node, World


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

    def on_result(_tx: Tx, call: OutCall, reply: PeerReply | None) -> None:
        ended.append((call.body["n"], f"{call.state} {None if reply is None else reply.data['n']}"))

    box = Outbox(store=a.store, client=client, journal=a.journal, clock=a.clock, entropy=a.entropy, on_result=on_result)
    a.outgoing.on_put(box.wake)
    return box, client, ended


async def put(a: Node, node: Node, name: str) -> None:
    contract = await a.contract(node)
    await a.run(lambda tx: a.outgoing.put(tx, contract=contract, route="job.start", body={"n": name}, subject="s"))


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not done():  # noqa: ASYNC110  # what is waited for is a list of the test
            await asyncio.sleep(0)


async def state(a: Node, name: str) -> OutCall:
    calls = await a.run(lambda tx: tx.select(OutCall))
    return next(each for each in calls if each.body.get("n") == name)


async def test_what_is_written_is_performed(a: Node, b: Node, outbox: Any) -> None:
    box, _client, ended = outbox
    await put(a, b, "before")
    box.start()
    await until(lambda: len(ended) == 1)
    await put(a, b, "after")  # wakes it: nothing here waits for a timer
    await until(lambda: len(ended) == 2)
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
    await until(lambda: ("c", "DONE c") in ended)
    # 2 and 3 wait behind 1, which is tried again later.
    assert [name for node, name in client.calls if node == "B"] == ["1"]
    assert (await state(a, "1")).state is CallState.DUE
    a.clock.ms += 1000
    box.wake()
    await until(lambda: len(ended) == 4)
    await box.stop()
    assert [name for node, name in client.calls if node == "B"] == ["1", "1", "2", "3"]


async def test_one_call_at_a_time_per_partner(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    client.gate.clear()
    await put(a, b, "1")
    await put(a, b, "2")
    box.start()
    await until(lambda: len(client.calls) == 1)
    box.wake()
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(client.calls) == 1
    client.gate.set()
    await until(lambda: len(ended) == 2)
    await box.stop()


async def test_refusals(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    client.script = [PeerError("B answered 404: no", peer_code="404")]
    await put(a, b, "1")
    await put(a, b, "2")
    box.start()
    await until(lambda: len(ended) == 2)
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


async def test_a_hook_that_fails_leaves_the_call_due(
    a: Node, b: Node, outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, _client, _ended = outbox

    async def no_sleep(_seconds: float) -> None:
        return

    def broken(_tx: Tx, _call: OutCall, _reply: PeerReply | None) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("gateway.runtime.outbox.asyncio.sleep", no_sleep)
    box._on_result = broken
    await put(a, b, "1")
    await box._perform(await state(a, "1"))
    assert (await state(a, "1")).state is CallState.DUE
    (event,) = a.journal.of("outbox.error")
    assert event["error"] == "RuntimeError"
    assert "secret" not in str(event)


async def test_stop_leaves_a_call_under_way_due(a: Node, b: Node, outbox: Any) -> None:
    box, client, ended = outbox
    client.gate.clear()
    await put(a, b, "1")
    box.start()
    await until(lambda: len(client.calls) == 1)
    await box.stop()
    assert (await state(a, "1")).state is CallState.DUE
    box.wake()
    client.gate.set()
    box.start()
    await until(lambda: len(ended) == 1)
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
    await until(lambda: len(ended) == 30)
    await box.stop()
    assert [name for _, name in client.calls] == names
