"""component/list and component/query."""

import pytest

from gateway.errors import WIRE, Kind
from gateway.model import Component
from tests.mgmt.world import Node


async def add(node: Node, name: str, provider: str, version: str = "1.0.0", category: str = "") -> None:
    component = Component(
        name=name,
        provider=provider,
        version=version,
        description={
            "componentName": name,
            "category": category,
            "description": "does things",
            "inputParam": [{"name": "p"}],
            "inputData": [{"name": "train"}],
            "outputData": [{"name": "data0"}],
        },
        image="builtin:x",
        enabled=name != "off",
        created=node.clock.ms,
    )
    await node.run(lambda tx: tx.insert(component))
    node.clock.ms += 1


@pytest.mark.req("M-056", "M-057", "M-059")
async def test_list(a: Node, b: Node, contract_id: str) -> None:
    await add(b, "psi", "interconn", category="INTERSECTION")
    await add(b, "psi", "other")
    await add(b, "psi", "interconn", version="2.0.0")

    async def codes(**query: str) -> list[tuple[str, str]]:
        answer = await a.send(b, "component.list", query)
        assert answer["code"] == 0
        records = answer["data"]["records"]
        assert answer["data"]["total"] == len(records)
        return [(each["code"], each["version"]) for each in records]

    everything = [("interconn.psi", "1.0.0"), ("other.psi", "1.0.0"), ("interconn.psi", "2.0.0")]
    for name in ("contract_id", "contract_Id", "contractId"):
        assert await codes(**{name: contract_id}) == everything
    assert await codes(contract_id=contract_id, developer="other") == everything[1:2]
    assert await codes(contract_id=contract_id, category="INTERSECTION") == everything[:1]
    assert await codes(contract_id=contract_id, category="none") == []
    assert (await a.send(b, "component.list", {}))["code"] == WIRE[Kind.MALFORMED].code
    assert (await a.send(b, "component.list", {"contract_id": "x"}))["code"] == WIRE[Kind.CONTRACT_UNKNOWN].code


@pytest.mark.req("M-018", "M-019", "M-020")
async def test_pages(a: Node, b: Node, contract_id: str) -> None:
    for number in range(25):
        await add(b, f"c{number:02d}", "interconn")

    async def page(**more: object) -> tuple[list[str], int]:
        data = (await a.send(b, "component.list", {"contract_id": contract_id, **more}))["data"]
        return [each["code"] for each in data["records"]], data["total"]

    codes = [f"interconn.c{number:02d}" for number in range(25)]
    assert await page() == (codes[:20], 25)
    assert await page(page_num=2) == (codes[20:], 25)
    assert await page(page_num=3) == ([], 25)
    assert await page(page_size=-1) == (codes, 25)


@pytest.mark.req("M-058")
async def test_query(a: Node, b: Node, contract_id: str) -> None:
    await add(b, "psi", "interconn")
    await add(b, "off", "interconn")
    query = {"contract_id": contract_id, "code": "interconn.psi", "version": "1.0.0"}
    detail = (await a.send(b, "component.query", query))["data"]
    assert (detail["name"], detail["engine"], detail["status"]) == ("psi", "interconn", "ENABLED")
    assert detail["inputs"] == [{"name": "p"}, {"name": "train"}]
    assert detail["outputs"] == [{"name": "data0"}]
    off = (await a.send(b, "component.query", {**query, "code": "interconn.off"}))["data"]
    assert off["status"] == "DISABLED"
    unknown = await a.send(b, "component.query", {**query, "version": "9"})
    assert unknown["code"] == WIRE[Kind.COMPONENT_UNKNOWN].code
    for member in query:
        lacking = {name: value for name, value in query.items() if name != member}
        assert (await a.send(b, "component.query", lacking))["code"] == WIRE[Kind.MALFORMED].code
