"""A partner sees of our tasks' log what an admin consented to: when, at which level, in which phase; never the text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError, Kind, PeerError, Refused
from gateway.mgmt_plane.core.log_tail import LINES, read_answer, redacted
from gateway.mgmt_plane.service.log_tails import ROUTE, LogTails
from gateway.model import Contract, NodeId, Outcome, TraceId
from gateway.ports import Caller
from gateway.runtime.launch import WHY
from tests.control.test_two_nodes import agreed
from tests.control.world import FakeRun, Link, Node, World, approved, job_file

SECRET = "customer-4711 owes 3000"


def tails(world: World, node: Node) -> LogTails:
    made = LogTails(
        store=node.store, book=node.book, partners=node.partners, peers=Link(world, node.name), logs=node.runner,
        words=frozenset(WHY),
    )  # fmt: skip
    node.handlers = {**node.handlers, ROUTE: made.answer}
    return made


async def chatty(run: FakeRun) -> int:
    """Writes what must not leave the node into everything that it can write to."""
    run.launch.log.parent.mkdir(parents=True, exist_ok=True)
    run.launch.log.write_text(
        f"2026-11-22T06:48:30.304Z INFO {SECRET}\n"
        f"2026-11-22T06:48:31.000Z ERROR ended: {SECRET}\n"
        "2026-11-22T06:48:32.000Z ERROR ERROR ended: late\n"
        f"{SECRET} INFO x\n"
    )
    run.report("progress", {"phase": SECRET, "done": 4711, "total": 3000})
    run.report("result", {"code": "4711-X", "message": SECRET})
    return 1


async def ended(world: World) -> str:
    await world.grant("B", "A")
    world["B"].launcher.scripts["psi"] = chatty
    job_id = await approved(world, job_file())
    await agreed(world, job_id, Outcome.FAILED, "A", "B")
    return job_id


async def test_nothing_is_shown_without_a_consent_and_never_a_text(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "C").running() as world:
        asks, shows = tails(world, world["A"]), tails(world, world["B"])
        job_id = await ended(world)
        with pytest.raises(PeerError) as refused:
            await asks.ask(job_id, NodeId("B"), None)
        assert SECRET not in str(refused.value)

        await shows.consent(NodeId("A"), job_id, allow=True)
        (shown,) = await asks.ask(job_id, NodeId("B"), "psi_1")
        lines = shown.pop("lines")
        assert [line["level"] for line in lines] == ["INFO", "ERROR", "ERROR"]
        assert [line["message"] for line in lines] == ["", "", "ERROR ended: late"]
        assert shown.pop("started")
        assert shown.pop("finished")
        assert shown == {
            "task_name": "psi_1", "role": "host", "index": 0, "status": "FAILED", "phase": "", "result_code": "",
            "message": "",
        }  # fmt: skip
        assert "4711" not in json.dumps([lines, shown])
        assert await asks.ask(job_id, NodeId("B"), "no_such_task") == []

        # For this job and this partner alone, and not any more once it is taken back.
        other = Caller(NodeId("C"), None, TraceId("t"))
        with pytest.raises(Refused):
            await shows.answer(other, {"job_id": job_id})
        assert await shows.consent(NodeId("A"), job_id, allow=False) == []
        with pytest.raises(PeerError):
            await asks.ask(job_id, NodeId("B"), None)


async def test_who_may_be_shown_what(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B", "C").running() as world:
        shows = tails(world, world["B"])
        job_id = await ended(world)
        a, c = (Caller(NodeId(each), None, TraceId("t")) for each in "AC")
        await shows.consent(NodeId("A"), "", allow=True)
        await shows.consent(NodeId("C"), "", allow=True)
        assert (await shows.answer(a, {"job_id": job_id}))["tasks"]

        async def refused(caller: Caller, body: Mapping[str, Any]) -> str:
            with pytest.raises(GatewayError) as error:
                await shows.answer(caller, body)
            return f"{error.value.kind} {error.value}"

        # A job that C has no part in and one that nobody knows look alike.
        assert await refused(c, {"job_id": job_id}) == await refused(c, {"job_id": "job-unknown"})
        assert str(Kind.MALFORMED) in await refused(a, {"job_id": 7})
        for node, job, words in (("X", "", "X"), ("C", job_id, "take part"), ("C", "job-unknown", "unknown")):
            with pytest.raises(Refused, match=words):
                await shows.consent(NodeId(node), job, allow=True)
        # With the contract the consent goes.
        contract = (await world["B"].run(lambda tx: list(tx.select(Contract, peer_node_id="A"))))[0]
        await world["B"].run(lambda tx: shows._on_closed(tx, contract))
        assert [each.node_id for each in await shows.consents()] == ["C"]


async def test_strangers_are_not_asked(tmp_path: Path) -> None:
    async with World(tmp_path, "A", "B").running() as world:
        asks = tails(world, world["A"])
        job_id = await ended(world)
        world["A"].book.identity = world["A"].book.identity.__class__(
            *(getattr(world["A"].book.identity, name) for name in ("node_id", "inst_id", "name", "institution")),
            "other system", "0", "https://A",
        )  # fmt: skip
        with pytest.raises(Refused, match="shows no logs"):
            await asks.ask(job_id, NodeId("B"), None)
        assert not world.routes(ROUTE)
        with pytest.raises(Refused, match="does not take part"):
            await asks.ask(job_id, NodeId("Z"), None)


def test_what_a_partner_answers_is_bounded() -> None:
    line = {"at": "x" * 9999, "level": "\x1b[31m", "message": 7}
    share = {"task_name": ["x"], "index": "many", "lines": [line] * 9999, "more": 1}
    (kept,) = read_answer({"tasks": [share, 7]}, 64)
    assert (kept["task_name"], kept["index"], len(kept["lines"])) == ("", None, LINES)
    assert kept["lines"][0] == {"at": "x" * 256, "level": "[31m", "message": ""}
    assert read_answer({"tasks": "no"}, 64) == []
    assert len(read_answer({"tasks": [share] * 99}, 64)) == 64


def test_only_the_newest_lines() -> None:
    lines = [f"2026-11-22T06:48:30Z INFO {n}\n" for n in range(LINES + 3)]
    assert len(redacted(lines, words=())) == LINES
