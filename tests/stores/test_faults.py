"""A store whose disk is full, that may only be read, or whose server goes away and comes back."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import Kind, Refused, Unavailable
from gateway.model import Audit
from gateway.ports import Tx
from gateway.store.sql import SqlStore, migrate
from tests import postgres
from tests.stores.test_store import audit


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    made = SqlStore(url)
    yield made
    await made.close()


async def pragma(store: SqlStore, text: str) -> int:
    """On the store's one connection, outside a transaction."""

    def work() -> int:
        with store._engine.connect() as connection:
            cursor = connection.connection.cursor()
            row = cursor.execute(f"PRAGMA {text}").fetchone()
            cursor.close()
            return int(row[0]) if row else 0

    return await asyncio.get_running_loop().run_in_executor(store._thread, work)


async def test_a_full_disk_refuses_whole_transactions_and_says_so(store: SqlStore) -> None:
    await store.run(lambda tx: tx.insert(audit("kept")))
    pages = await pragma(store, "page_count")
    await pragma(store, f"max_page_count={pages + 2}")

    def much(tx: Tx) -> None:
        for number in range(200):
            tx.insert(dataclasses.replace(audit(f"lost{number}"), body={"x": "y" * 5000}))

    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await store.run(much)
        assert caught.value.kind is Kind.STORE
        assert str(caught.value) == "database: the disk is full"
    # What was written before can be read; nothing of the rest is there.
    assert [each.audit_id for each in await store.run(lambda tx: tx.select(Audit))] == ["kept"]
    assert await store.writable() == ""  # a small write still fits: the store is not full for everything
    with pytest.raises(Unavailable):
        await store.run(much)
    await pragma(store, "max_page_count=100000")
    await store.run(much)
    assert await store.run(lambda tx: tx.count(Audit)) == 201
    assert await store.writable() == ""


async def test_a_database_that_may_only_be_read(store: SqlStore) -> None:
    await store.run(lambda tx: tx.insert(audit("kept")))
    assert await store.writable() == ""
    await pragma(store, "query_only=ON")
    with pytest.raises(Unavailable) as caught:
        await store.run(lambda tx: tx.insert(audit("lost")))
    assert str(caught.value) == "database: the database is read-only"
    assert await store.writable() == "the database is read-only"
    await pragma(store, "query_only=OFF")
    assert await store.writable() == ""  # found out without a request that writes
    await store.run(lambda tx: tx.insert(audit("lost")))


async def test_a_refusal_is_no_fault(store: SqlStore) -> None:
    await store.run(lambda tx: tx.insert(audit("kept")))
    with pytest.raises(Refused):
        await store.run(lambda tx: tx.insert(audit("kept")))
    assert await store.writable() == ""


@pytest.fixture
async def server_store(postgres_server: postgres.Server) -> AsyncIterator[tuple[SqlStore, postgres.Server]]:
    url = postgres_server.database()
    migrate(url)
    made = SqlStore(url)
    yield made, postgres_server
    await made.close()


async def test_a_lost_connection_costs_nothing(
    server_store: tuple[SqlStore, postgres.Server],
) -> None:
    store, server = server_store
    runs = []

    def work(tx: Tx) -> None:
        runs.append(1)
        tx.insert(audit(f"a{len(runs)}"))
        if len(runs) < 3:
            server.admin(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'interconn' AND pid <> pg_backend_pid()"
            )
            tx.count(Audit)

    await store.run(work)
    assert len(runs) == 3
    assert [each.audit_id for each in await store.run(lambda tx: tx.select(Audit))] == ["a3"]


async def test_a_connection_lost_during_the_commit_is_not_run_again(
    server_store: tuple[SqlStore, postgres.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows how such a transaction ended."""
    store, server = server_store
    runs = []
    dialect = store._engine.dialect
    commit = dialect.do_commit

    def cut(connection: object) -> None:
        server.admin(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'interconn' AND pid <> pg_backend_pid()"
        )
        commit(connection)  # type: ignore[arg-type]

    def work(tx: Tx) -> None:
        runs.append(1)
        tx.insert(audit(f"a{len(runs)}"))

    with monkeypatch.context() as patch:
        patch.setattr(dialect, "do_commit", cut)
        with pytest.raises(Unavailable) as caught:
            await store.run(work)
    assert caught.value.kind is Kind.STORE
    assert len(runs) == 1
    assert await store.writable() == ""
    await store.run(work)


async def test_a_server_that_crashes_and_comes_back(
    server_store: tuple[SqlStore, postgres.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, server = server_store
    monkeypatch.setattr("gateway.store.engine.LOST_ATTEMPTS", 4)
    await store.run(lambda tx: tx.insert(audit("before")))
    server.crash()
    try:
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await store.run(lambda tx: tx.insert(audit("lost")))
        assert "cannot be reached" in str(caught.value)
        assert time.monotonic() - began < 30
        assert await store.writable() == "the server cannot be reached"
        waiting = asyncio.ensure_future(store.run(lambda tx: tx.insert(audit("patient"))))
        await asyncio.sleep(0.2)
    finally:
        server.start()  # not in a thread: it ends with the thread that started it
    with contextlib.suppress(Unavailable):  # where the machine is slow its patience may have ended
        await waiting
    assert await store.writable() == ""
    await store.run(lambda tx: tx.insert(audit("after")))
    found = {each.audit_id for each in await store.run(lambda tx: tx.select(Audit))}
    assert {"before", "after"} <= found <= {"before", "after", "patient"}
