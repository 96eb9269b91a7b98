"""One test class for every store; both must pass all of it."""

import asyncio
import dataclasses
import os
import stat
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine

from gateway.errors import CallerError, Kind, Refused, Unavailable
from gateway.model import (
    Audit,
    AuditId,
    CallState,
    ContractId,
    Dataset,
    DatasetId,
    Direction,
    GrantUse,
    InstId,
    Job,
    JobId,
    NodeId,
    OutCall,
    Project,
    TaskId,
    TaskName,
    TaskView,
    TraceId,
    TrailEntry,
)
from gateway.ports import Store, Tx
from gateway.store.memory import MemoryStore
from gateway.store.sql import SqlStore, migrate
from gateway.store.statements import Statements
from gateway.store.tables import METADATA
from specs.states import ApprovalState, AuditKind, TaskState
from tests import postgres


def audit(name: str = "a1", created: int = 1, status: ApprovalState = ApprovalState.APPLIED) -> Audit:
    return Audit(
        applicant=NodeId("n1"),
        audit_id=AuditId(name),
        kind=AuditKind.JOB,
        direction=Direction.IN,
        peer_node_id=NodeId("n1"),
        contract_id=ContractId("c1"),
        status=status,
        subject="job-1",
        body={"z": 1, "a": [{"ü": None, "f": 1.5, "b": True}]},
        permit=None,
        created=created,
        updated=created,
    )


def dataset() -> Dataset:
    return Dataset(
        dataset_id=DatasetId("d"),
        name="n",
        owner=InstId("i"),
        category="",
        description="",
        count=3,
        join_columns="id",
        label_columns="",
        column_metas=({"name": "id"}, {"name": "x"}),
        public=False,
        location="/x",
        created=5,
    )


class StoreContract:
    @pytest.fixture
    async def store(self, tmp_path: Path) -> Store:
        raise NotImplementedError

    async def test_a_list_goes_on_behind_a_record(self, store: Store) -> None:
        def fill(tx: Tx) -> None:
            for n in range(7):
                tx.insert(replace(dataset(), dataset_id=DatasetId(f"d{n}"), created=1 + n // 3, public=n != 4))

        await store.run(fill)
        for order in ("created", "-created", "dataset_id", "-dataset_id"):
            for equals in ({}, {"public": True}):
                whole = await store.run(lambda tx, o=order, e=equals: tx.select(Dataset, order=o, **e))
                found: list[Dataset] = []
                while True:
                    at = found[-1] if found else None
                    part = await store.run(
                        lambda tx, o=order, e=equals, a=at: tx.select(Dataset, order=o, limit=2, after=a, **e)
                    )
                    if not part:
                        break
                    found += part
                assert found == list(whole)

    async def test_what_was_put_in_comes_out_equal(self, store: Store) -> None:
        record = audit()
        await store.run(lambda tx: tx.insert(record))
        await store.run(lambda tx: tx.insert(dataset()))
        found = await store.run(lambda tx: tx.get(Audit, record.key()))
        assert found == record
        assert found is not None
        assert isinstance(found.status, ApprovalState)
        assert list(found.body) == ["z", "a"]  # order on the wire is kept
        assert await store.run(lambda tx: tx.get(Dataset, "d")) == dataset()
        assert await store.run(lambda tx: tx.get(Audit, "no")) is None

    async def test_records_handed_out_are_copies(self, store: Store) -> None:
        body: dict[str, object] = {"list": [1]}
        record = dataclasses.replace(audit(), body=body)
        await store.run(lambda tx: tx.insert(record))
        body["list"] = "changed"
        found = await store.run(lambda tx: tx.get(Audit, record.key()))
        assert found is not None
        assert found.body == {"list": [1]}
        found.body["list"].append(2)
        again = await store.run(lambda tx: tx.get(Audit, record.key()))
        assert again is not None
        assert again.body == {"list": [1]}

    async def test_insert_twice_is_a_conflict(self, store: Store) -> None:
        await store.run(lambda tx: tx.insert(audit()))
        with pytest.raises(Refused) as caught:
            await store.run(lambda tx: tx.insert(audit(created=2)))
        assert caught.value.kind is Kind.CONFLICT
        assert await store.run(lambda tx: tx.get(Audit, "n1/a1")) == audit()

    async def test_replace_only_if_unchanged(self, store: Store) -> None:
        old = audit()
        new = dataclasses.replace(old, status=ApprovalState.APPROVED, permit={"token": "t"})
        await store.run(lambda tx: tx.insert(old))
        await store.run(lambda tx: tx.replace(old, new))
        assert await store.run(lambda tx: tx.get(Audit, old.key())) == new
        with pytest.raises(Refused) as caught:
            await store.run(lambda tx: tx.replace(old, dataclasses.replace(old, status=ApprovalState.REJECTED)))
        assert caught.value.kind is Kind.CONFLICT
        assert await store.run(lambda tx: tx.get(Audit, old.key())) == new
        with pytest.raises(Refused):
            await store.run(lambda tx: tx.replace(audit("gone"), audit("gone", created=2)))
        with pytest.raises(CallerError):
            await store.run(lambda tx: tx.replace(new, audit("other")))

    async def test_an_error_rolls_back_everything(self, store: Store) -> None:
        await store.run(lambda tx: tx.insert(audit("kept")))

        def work(tx: Tx) -> None:
            tx.insert(audit("a1"))
            tx.delete(audit("kept"))
            raise Refused("no")

        with pytest.raises(Refused):
            await store.run(work)
        assert [each.audit_id for each in await store.run(lambda tx: tx.select(Audit))] == ["kept"]

    async def test_delete(self, store: Store) -> None:
        await store.run(lambda tx: tx.insert(audit()))
        await store.run(lambda tx: tx.delete(audit()))
        await store.run(lambda tx: tx.delete(audit()))
        assert await store.run(lambda tx: tx.count(Audit)) == 0

    async def test_select(self, store: Store) -> None:
        def fill(tx: Tx) -> None:
            tx.insert(audit("b", created=2))
            tx.insert(audit("a", created=2, status=ApprovalState.APPROVED))
            tx.insert(audit("c", created=1))

        await store.run(fill)

        async def names(**what: object) -> list[str]:
            return [each.audit_id for each in await store.run(lambda tx: tx.select(Audit, **what))]  # type: ignore[arg-type]

        assert await names() == ["c", "a", "b"]
        assert await names(order="-created") == ["a", "b", "c"]
        assert await names(order="-audit_id") == ["c", "b", "a"]
        assert await names(status=ApprovalState.APPLIED) == ["c", "b"]
        assert await names(kind=AuditKind.JOB, subject="job-1", limit=2) == ["c", "a"]
        assert await names(limit=2, offset=2) == ["b"]
        assert await names(offset=1) == ["a", "b"]
        assert await names(limit=0) == []
        assert await names(permit=None, audit_id="a") == ["a"]
        assert await store.run(lambda tx: tx.count(Audit, status=ApprovalState.APPLIED)) == 2
        for wrong in ({"nothing": 1}, {"order": "nothing"}):
            with pytest.raises(CallerError):
                await names(**wrong)

    async def test_booleans_and_records_without_created(self, store: Store) -> None:
        await store.run(lambda tx: tx.insert(dataset()))
        assert await store.run(lambda tx: tx.count(Dataset, public=False)) == 1
        assert await store.run(lambda tx: tx.count(Dataset, public=True)) == 0
        for node in ("n2", "n1"):
            view = TaskView(
                TaskId("t"), JobId("j"), TaskName("x"), NodeId(node), "host", TaskState.READY, misses=0, updated=1
            )
            await store.run(lambda tx, view=view: tx.insert(view))  # type: ignore[misc]
        assert [each.node_id for each in await store.run(lambda tx: tx.select(TaskView, job_id="j"))] == ["n1", "n2"]

    async def test_null_order(self, store: Store) -> None:
        for number, state in enumerate((CallState.DUE, CallState.DONE)):
            call = OutCall(
                f"c{number}",
                ContractId("c"),
                NodeId("n"),
                "job.start",
                {},
                "s",
                TraceId("t"),
                state,
                attempts=0,
                due=number,
                error="",
                created=number,
            )
            await store.run(lambda tx, call=call: tx.insert(call))  # type: ignore[misc]
        due = await store.run(lambda tx: tx.select(OutCall, state=CallState.DUE, order="due"))
        assert [each.call_id for each in due] == ["c0"]

    async def test_writers_are_serialised(self, store: Store) -> None:
        await store.run(lambda tx: tx.insert(audit(created=0)))

        def add(tx: Tx) -> None:
            old = tx.get(Audit, "n1/a1")
            assert old is not None
            tx.replace(old, dataclasses.replace(old, updated=old.updated + 1))

        await asyncio.gather(*(store.run(add) for _ in range(50)))
        found = await store.run(lambda tx: tx.get(Audit, "n1/a1"))
        assert found is not None
        assert found.updated == 50

    async def test_what_cannot_be_kept_is_our_own_mistake(self, store: Store) -> None:
        for wrong in (
            dataclasses.replace(audit(), created=1 << 63),
            dataclasses.replace(audit(), body={"x": float("nan")}),
            dataclasses.replace(audit(), body={"x": b"bytes"}),
            dataclasses.replace(audit(), subject=None),  # type: ignore[arg-type]
        ):
            with pytest.raises(CallerError):
                await store.run(lambda tx, wrong=wrong: tx.insert(wrong))  # type: ignore[misc]
        assert await store.run(lambda tx: tx.count(Audit)) == 0

    async def test_closed(self, store: Store) -> None:
        await store.close()
        await store.close()
        with pytest.raises(Unavailable) as caught:
            await store.run(lambda tx: tx.count(Audit))
        assert caught.value.kind is Kind.STORE


class TestMemoryStore(StoreContract):
    @pytest.fixture
    async def store(self) -> Store:  # type: ignore[override]
        return MemoryStore()


class TestSqlStore(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:  # type: ignore[override]
        url = f"sqlite:///{tmp_path / 'node.db'}"
        migrate(url)
        store = SqlStore(url)
        yield store
        await store.close()


class TestPostgresStore(StoreContract):
    @pytest.fixture
    async def store(self, postgres_server: postgres.Server) -> AsyncIterator[Store]:  # type: ignore[override]
        url = postgres_server.database()
        migrate(url)
        store = SqlStore(url)
        yield store
        await store.close()


async def test_a_shared_commit_undoes_only_what_was_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    store = SqlStore(url)

    def add(tx: Tx, name: str) -> str:
        tx.insert(audit(name))
        if name == "a3":
            raise Refused("not this one")
        return name

    works = [store.run(partial(add, name=f"a{n}")) for n in range(6)]
    # The sixth asks for a key that the first has just taken, in the same commit.
    ended = await asyncio.gather(*works, store.run(partial(add, name="a0")), return_exceptions=True)
    assert [each for each in ended if isinstance(each, str)] == ["a0", "a1", "a2", "a4", "a5"]
    assert [each.kind for each in ended if isinstance(each, Refused)][1] is Kind.CONFLICT
    found = await store.run(lambda tx: tx.select(Audit))
    assert [each.audit_id for each in found] == ["a0", "a1", "a2", "a4", "a5"]
    await store.close()


async def test_nobody_is_answered_before_the_commit(tmp_path: Path) -> None:
    """Another connection, which sees only what is committed, finds it when `run` returns."""
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    store, other = SqlStore(url), create_engine(url)

    async def one(name: str) -> int:
        await store.run(lambda tx: tx.insert(audit(name)))
        with other.connect() as connection:
            return len(connection.exec_driver_sql("SELECT 1 FROM audit WHERE audit_id = ?", (name,)).all())

    assert await asyncio.gather(*(one(f"a{n}") for n in range(100))) == [1] * 100
    other.dispose()
    await store.close()


async def test_a_failing_shared_transaction_is_run_again_one_by_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    store = SqlStore(url)

    def broken(tx: Tx) -> None:
        tx._runner.say("not SQL")  # type: ignore[attr-defined]

    good = [store.run(lambda tx, n=n: tx.insert(audit(f"a{n}"))) for n in range(3)]  # type: ignore[misc]
    ended = await asyncio.gather(*good, store.run(broken), return_exceptions=True)
    assert ended[:3] == [None] * 3
    assert isinstance(ended[3], Unavailable)
    assert await store.run(lambda tx: tx.count(Audit)) == 3
    await store.close()


async def test_close_waits_for_those_who_asked(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    store = SqlStore(url)
    asked = [asyncio.create_task(store.run(lambda tx, n=n: tx.insert(audit(f"a{n}")))) for n in range(80)]  # type: ignore[misc]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*asked) == [None] * 80
    with pytest.raises(Unavailable):
        await store.run(lambda tx: tx.count(Audit))


async def test_two_writers_on_postgres_lose_nothing(postgres_server: postgres.Server) -> None:
    url = postgres_server.database()
    migrate(url)
    stores = [SqlStore(url) for _ in range(3)]
    await stores[0].run(lambda tx: tx.insert(audit(created=0)))
    runs = 0

    def add(tx: Tx) -> None:
        nonlocal runs
        runs += 1
        old = tx.get(Audit, "n1/a1")
        assert old is not None
        tx.replace(old, dataclasses.replace(old, updated=old.updated + 1))

    ended = await asyncio.gather(*(store.run(add) for store in stores for _ in range(30)), return_exceptions=True)
    # An increment either happened or was reported as given up after its attempts; none is lost or applied twice.
    done = sum(each is None for each in ended)
    assert all(each is None or (isinstance(each, Unavailable) and each.kind is Kind.STORE) for each in ended)
    found = await stores[1].run(lambda tx: tx.get(Audit, "n1/a1"))
    assert found is not None
    assert found.updated == done
    assert done >= 30
    assert runs >= done
    for store in stores:
        await store.close()


async def test_a_key_that_another_writer_inserted_is_a_conflict(postgres_server: postgres.Server) -> None:
    url = postgres_server.database()
    migrate(url)
    one, two = SqlStore(url), SqlStore(url)
    looked, inserted = threading.Event(), threading.Event()
    runs = 0

    def late(tx: Tx) -> None:
        nonlocal runs
        runs += 1
        assert tx.count(Audit) == runs - 1  # the first run does not see the other's row, the second does
        looked.set()
        inserted.wait(10)
        tx.insert(audit(created=1))

    waiting = asyncio.create_task(one.run(late))
    await asyncio.to_thread(looked.wait, 10)
    await two.run(lambda tx: tx.insert(audit(created=2)))
    inserted.set()
    with pytest.raises(Refused) as caught:
        await waiting
    assert caught.value.kind is Kind.CONFLICT
    assert runs == 2
    found = await two.run(lambda tx: tx.get(Audit, "n1/a1"))
    assert found is not None
    assert found.created == 2
    await one.close()
    await two.close()


async def test_postgres_sorts_by_code_point(postgres_server: postgres.Server) -> None:
    """Pages are the same on both, whatever language the database was made for."""
    url = postgres_server.database()
    migrate(url)
    store = SqlStore(url)
    for name in ("b", "A", "a", "B", "é", "_", "-x", "z"):
        await store.run(lambda tx, name=name: tx.insert(audit(name)))  # type: ignore[misc]
    found = [each.audit_id for each in await store.run(lambda tx: tx.select(Audit, order="audit_id"))]
    assert found == sorted(found)
    await store.close()
    question = "SELECT DISTINCT collation_name FROM information_schema.columns WHERE data_type = 'text'"
    with create_engine(url.replace("postgresql:", "postgresql+psycopg:")).connect() as connection:
        where = " AND table_schema = 'public'"
        assert connection.exec_driver_sql(question + where).scalars().all() == ["C"]


async def test_a_restarted_connection_is_replaced(postgres_server: postgres.Server) -> None:
    url = postgres_server.database()
    migrate(url)
    store = SqlStore(url)
    await store.run(lambda tx: tx.insert(audit()))
    postgres_server.admin(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{url.rpartition('/')[2]}'"
    )
    assert await store.run(lambda tx: tx.count(Audit)) == 1
    await store.close()


async def test_a_postgres_that_refuses_shows_no_password(postgres_server: postgres.Server) -> None:
    url = postgres_server.url("no_such_database")
    with pytest.raises(Unavailable) as caught:
        migrate(url)
    assert caught.value.kind is Kind.STORE
    assert postgres_server.password not in str(caught.value)
    wrong = url.replace(postgres_server.password, "wrong-password-of-mine")
    with pytest.raises(Unavailable) as caught:
        migrate(wrong)
    assert "wrong-password-of-mine" not in str(caught.value)
    assert postgres_server.password not in repr(SqlStore(url))


def test_addresses_that_are_none() -> None:
    for url in ("", "mysql://root:pw@host/db", "nonsense://x", "postgresql://h:port/db", "/just/a/path"):
        with pytest.raises(CallerError) as caught:
            migrate(url)
        assert "pw" not in str(caught.value)


async def test_sql_survives_reopening_and_migrating_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    first = SqlStore(url)
    await first.run(lambda tx: tx.insert(GrantUse("g", JobId("j"), 1)))
    await first.close()
    migrate(url)
    second = SqlStore(url)
    assert await second.run(lambda tx: tx.count(GrantUse, grant="g")) == 1
    await second.close()


def test_the_database_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    old = os.umask(0)
    try:
        migrate(f"sqlite:///{path}")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_revisions_make_exactly_the_tables_on_postgres(postgres_server: postgres.Server) -> None:
    url = postgres_server.database()
    migrate(url)
    migrate(url)
    with create_engine(url.replace("postgresql:", "postgresql+psycopg:")).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_the_revisions_make_exactly_the_tables(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    with create_engine(url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_the_list_of_datasets_walks_an_index(tmp_path: Path, postgres_server: postgres.Server) -> None:
    """A page deep in a long list sorts nothing; checked by the plan, not by a clock."""
    sqlite, postgresql = f"sqlite:///{tmp_path / 'node.db'}", postgres_server.database()
    listing = "SELECT * FROM dataset WHERE public = {} ORDER BY created ASC, record_key ASC LIMIT 20 OFFSET 80000"
    for url, explain, true in ((sqlite, "EXPLAIN QUERY PLAN ", "1"), (postgresql, "EXPLAIN ", "true")):
        migrate(url)
        with create_engine(url.replace("postgresql:", "postgresql+psycopg:")).connect() as connection:
            if url == postgresql:
                connection.exec_driver_sql("SET enable_seqscan = off; SET enable_bitmapscan = off")  # it is empty
            rows = connection.exec_driver_sql(explain + listing.format(true)).all()
        plan = " ".join(str(row) for row in rows)
        assert "ix_dataset_public_created_record_key" in plan
        assert "B-TREE" not in plan
        assert "Sort" not in plan


LISTS: tuple[tuple[type[Any], str, dict[str, object]], ...] = (
    (Dataset, "created", {}),
    (Dataset, "created", {"public": True}),
    (Project, "created", {}),
    (Project, "created", {"initiator": "n1"}),
    (Audit, "created", {}),
    (Job, "-created", {}),
    (Job, "-created", {"flow_id": "f"}),
    (OutCall, "created", {"state": CallState.DUE}),
    (OutCall, "-created", {}),
    (TrailEntry, "-created", {}),
    (TrailEntry, "-seq", {"event": "trail.sealed"}),
)
"""Lists that can grow, as the services ask for them."""
COUNTS: tuple[tuple[type[Any], dict[str, object]], ...] = (
    (Dataset, {"public": True}),
    (Audit, {"peer_node_id": "n1", "direction": Direction.IN, "status": ApprovalState.APPLIED}),
    (Audit, {"peer_node_id": "n1", "direction": Direction.IN, "kind": AuditKind.JOB}),
    (Audit, {"kind": AuditKind.JOB, "direction": Direction.IN, "status": ApprovalState.APPLIED}),
    (OutCall, {"state": CallState.DUE}),
)


def _plans(connection: Connection, explain: str) -> list[str]:
    """How the database would do each of the statements that the store makes of LISTS and COUNTS."""
    statements = Statements(connection.dialect)
    shapes = [
        *(statements.select(kind, order=order, limit=20, offset=8000, equals=equals) for kind, order, equals in LISTS),
        *(
            statements.select(kind, order=order, limit=20, offset=0, equals=equals, after=(7, "k"))
            for kind, order, equals in LISTS
            if order.endswith("created") and kind is not TrailEntry
        ),
        *(statements.count(kind, equals) for kind, equals in COUNTS),
    ]
    cursor = connection.connection.cursor()
    plans = []
    for statement, values in shapes:
        cursor.execute(explain + statement.text, statement.values(values))
        plans.append(" ".join(str(row) for row in cursor.fetchall()))
    return plans


def test_every_list_walks_an_index(tmp_path: Path) -> None:
    """No list that can grow is read as a whole or sorted as a whole; what is counted at each call is, by an index."""
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    with create_engine(url).connect() as connection:
        for plan in _plans(connection, "EXPLAIN QUERY PLAN "):
            assert "USING INDEX" in plan or "USING COVERING INDEX" in plan or "USING PRIMARY KEY" in plan, plan
            # Newest first: within one millisecond by key, which sorts the few of that millisecond.
            assert "USE TEMP B-TREE FOR ORDER BY" not in plan, plan


def test_every_list_walks_an_index_on_postgres(postgres_server: postgres.Server) -> None:
    url = postgres_server.database()
    migrate(url)
    with create_engine(url.replace("postgresql:", "postgresql+psycopg:")).connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off; SET enable_bitmapscan = off")  # it is empty
        for plan in _plans(connection, "EXPLAIN "):
            assert "Index" in plan, plan
            assert "Sort" not in plan or "Incremental Sort" in plan, plan


async def test_sql_pragmas(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    store = SqlStore(url)

    def read(tx: object) -> list[object]:
        cursor = tx._runner._cursor  # type: ignore[attr-defined]
        return [
            cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "foreign_keys")
        ]

    assert await store.run(read) == ["wal", 2, 1]
    await store.close()


async def test_a_broken_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(b"this is not a database at all" * 100)
    with pytest.raises(Unavailable) as caught:
        migrate(f"sqlite:///{path}")
    assert caught.value.kind is Kind.STORE
    store = SqlStore(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(Unavailable):
        await store.run(lambda tx: tx.count(Audit))
    await store.close()


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(Unavailable):
        migrate(url)
