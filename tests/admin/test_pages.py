"""Lists of the admin API come in pages that go on behind a record."""

import pytest

from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.rest.listing import listed
from gateway.model import Dataset, DatasetId, InstId
from gateway.ports import Tx
from gateway.store.memory import MemoryStore


def dataset(number: int) -> Dataset:
    return Dataset(
        dataset_id=DatasetId(f"d{number}"),
        name="n",
        owner=InstId("i"),
        category="",
        description="",
        count=1,
        join_columns="",
        label_columns="",
        column_metas=(),
        public=True,
        location="/x",
        created=number // 2,
    )


async def test_pages_go_on_behind_a_record_and_are_bounded() -> None:
    store = MemoryStore()
    await store.run(lambda tx: [tx.insert(dataset(n)) for n in range(1001)])

    async def page(**query: str) -> list[str]:
        def work(tx: Tx) -> list[str]:
            return [each.dataset_id for each in listed(tx, Dataset, query)]

        return await store.run(work)

    first = await page()
    assert len(first) == 1000
    assert await page(after=first[-1]) == ["d1000"]
    assert await page(after="d1000") == []
    assert await page(limit="2", after="d2") == ["d3", "d4"]
    for wrong in ("0", "1001", "-1", "x", "٣"):
        with pytest.raises(ProtocolViolation):
            await page(limit=wrong)
    with pytest.raises(Refused) as caught:
        await page(after="unknown")
    assert caught.value.kind is Kind.NOT_FOUND
