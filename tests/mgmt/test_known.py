"""What the edge remembers of its partners never outlives the word of a contract."""

import asyncio
from dataclasses import replace

import pytest

from gateway.mgmt_plane.service.known import KnownPartners
from gateway.model import Contract
from gateway.ports import Tx
from specs.states import ApprovalState
from tests.mgmt.world import Node, World

LIST = "dataset.pub.list"


@pytest.fixture
def reads(b: Node, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Node ids for which B looked into its store."""
    asked: list[str] = []
    real = b.partners.verifiers

    def verifiers(tx: Tx, node_id: str) -> object:
        asked.append(node_id)
        return real(tx, node_id)  # type: ignore[arg-type]

    monkeypatch.setattr(b.partners, "verifiers", verifiers)
    return asked


async def test_a_partner_is_looked_up_once(a: Node, b: Node, contract_id: str, reads: list[str]) -> None:
    for _ in range(3):
        assert (await a.send(b, LIST, {"contract_id": contract_id}))["code"] == 0
    assert reads == ["A"]


@pytest.mark.req("M-034")
async def test_a_revocation_counts_from_the_next_call(a: Node, b: Node, contract_id: str) -> None:
    asked = {"contract_id": contract_id}
    assert (await a.send(b, LIST, asked))["code"] == 0
    await b.run(lambda tx: b.partners.terminate(tx, contract_id))
    assert (await a.send(b, LIST, asked))["code"] != 0


@pytest.mark.req("M-034")
async def test_an_end_that_comes_by_itself_counts_too(world: World, a: Node, b: Node, contract_id: str) -> None:
    asked = {"contract_id": contract_id}
    contract = await b.contract(a)
    await b.run(lambda tx: tx.replace(contract, replace(contract, expired_time=world.clock.ms + 1000)))
    assert (await a.send(b, LIST, asked))["code"] == 0
    world.clock.ms += 1000
    assert (await a.send(b, LIST, asked))["code"] != 0


async def test_a_new_key_counts_from_the_next_call(a: Node, b: Node, contract_id: str) -> None:
    """The old credential is gone from the memory with the write that replaces it."""
    asked = {"contract_id": contract_id}
    assert (await a.send(b, LIST, asked))["code"] == 0
    contract, other = await b.contract(a), (await a.contract(b)).auth_credential
    await b.run(lambda tx: tx.replace(contract, replace(contract, auth_credential=other)))
    assert (await a.send(b, LIST, asked))["code"] != 0


async def test_what_was_read_before_a_write_is_not_kept_after_it(a: Node, b: Node, contract_id: str) -> None:
    known = KnownPartners(b.partners, b.store)
    b.store.on_write(Contract, known.forget)
    reading = asyncio.create_task(known.verifiers(a.id, b.clock.now_ms()))
    ending = asyncio.create_task(b.run(lambda tx: b.partners.terminate(tx, contract_id)))
    assert [each.status for each in await reading] == [ApprovalState.APPROVED]
    await ending
    assert ApprovalState.APPROVED not in [each.status for each in await known.verifiers(a.id, b.clock.now_ms())]


async def test_strangers_are_not_remembered(a: Node, c: Node, b: Node, contract_id: str, reads: list[str]) -> None:
    for _ in range(3):
        assert (await c.send(b, LIST, {"contract_id": contract_id}))["code"] != 0
    assert reads == ["C"] * 3
