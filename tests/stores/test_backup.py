"""Backup and restore within and between SQLite and PostgreSQL, and the schema forwards and back."""

import asyncio
import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from gateway.errors import Kind, Refused, Unavailable
from gateway.model import Audit, Dataset, GrantUse, JobId
from gateway.store.backup import backup, newest, restore, revision, rollback
from gateway.store.sql import SqlStore, migrate
from tests import postgres
from tests.stores.test_store import audit, dataset

Databases = Callable[[str], str]


@pytest.fixture
def new(tmp_path: Path, request: pytest.FixtureRequest) -> Databases:
    """Makes the address of a new database of a kind."""
    made = 0

    def make(kind: str) -> str:
        nonlocal made
        if kind == "postgresql":
            server: postgres.Server = request.getfixturevalue("postgres_server")
            return server.database()
        made += 1
        return f"sqlite:///{tmp_path / f'node{made}.db'}"

    return make


async def filled(url: str, rows: int = 3) -> None:
    migrate(url)
    store = SqlStore(url)
    await store.run(lambda tx: tx.insert(dataset()))
    for number in range(rows):
        await store.run(lambda tx, n=number: tx.insert(audit(f"a{n}", created=n)))  # type: ignore[misc]
    await store.close()


async def content(url: str) -> list[Any]:
    store = SqlStore(url)
    found = await store.run(lambda tx: [*tx.select(Audit), *tx.select(Dataset)])
    await store.close()
    return list(found)


@pytest.mark.parametrize("source", ["sqlite", "postgresql"])
@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
async def test_there_and_back(new: Databases, tmp_path: Path, source: str, target: str) -> None:
    one, two = new(source), new(target)
    await filled(one)
    file = tmp_path / "backup.jsonl"
    assert backup(one, file, now_ms=7) == 4
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert restore(two, file) == 4
    assert await content(two) == await content(one)
    assert len(await content(two)) == 4
    again = tmp_path / "again.jsonl"
    backup(two, again, now_ms=7)
    assert again.read_bytes() == file.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith(".")) == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_backup_while_the_node_writes_is_of_one_moment(new: Databases, tmp_path: Path, kind: str) -> None:
    url = new(kind)
    await filled(url, rows=0)
    store = SqlStore(url)
    written = 0
    enough = asyncio.Event()

    async def write() -> None:
        nonlocal written
        while not enough.is_set():

            def pair(tx: Any, n: int = written) -> None:
                tx.insert(GrantUse(f"g{n}", JobId("one"), n))
                tx.insert(GrantUse(f"g{n}", JobId("two"), n))

            await store.run(pair)
            written += 1

    writer = asyncio.create_task(write())
    for number in range(3):
        before = written
        file = tmp_path / f"{number}.jsonl"
        await asyncio.to_thread(backup, url, file, now_ms=0)
        found = [json.loads(line)["row"] for line in file.read_text().splitlines()[1:-1]]
        uses = [row for row in found if "grant" in row]
        ones = {row["grant"] for row in uses if row["job_id"] == "one"}
        twos = {row["grant"] for row in uses if row["job_id"] == "two"}
        assert ones == twos
        assert len(ones) >= before
    enough.set()
    await writer
    await store.close()


async def test_only_into_an_empty_database(new: Databases, tmp_path: Path) -> None:
    one, two = new("sqlite"), new("sqlite")
    await filled(one)
    await filled(two, rows=1)
    file = tmp_path / "backup.jsonl"
    backup(one, file, now_ms=0)
    before = await content(two)
    with pytest.raises(Refused) as caught:
        restore(two, file)
    assert caught.value.kind is Kind.CONFLICT
    assert await content(two) == before
    three = new("sqlite")
    migrate(three)  # a schema without rows is empty
    assert restore(three, file) == 4


async def test_a_backup_is_not_written_over_anything(new: Databases, tmp_path: Path) -> None:
    url = new("sqlite")
    file = tmp_path / "backup.jsonl"
    with pytest.raises(Unavailable) as missing:
        backup(url, file, now_ms=0)
    assert missing.value.kind is Kind.STORE
    assert not file.exists()
    await filled(url)
    file.write_text("mine")
    with pytest.raises(Refused) as caught:
        backup(url, file, now_ms=0)
    assert caught.value.kind is Kind.CONFLICT
    assert file.read_text() == "mine"
    with pytest.raises(Unavailable) as nowhere:
        backup(url, tmp_path / "no" / "folder", now_ms=0)
    assert nowhere.value.kind is Kind.STORAGE


async def test_a_damaged_backup_is_refused_and_nothing_is_made(new: Databases, tmp_path: Path) -> None:
    one = new("sqlite")
    await filled(one)
    file = tmp_path / "backup.jsonl"
    backup(one, file, now_ms=0)
    lines = file.read_bytes().splitlines(keepends=True)
    damaged = {
        "cut off": lines[:-1],
        "a line dropped": [*lines[:2], *lines[3:]],
        "a line twice": [*lines[:2], lines[1], *lines[2:]],
        "lines swapped": [lines[0], lines[2], lines[1], *lines[3:]],
        "edited": [lines[0], lines[1].replace(b"n1", b"n2"), *lines[2:]],
        "goes on": [*lines, lines[1]],
        "no header": lines[1:],
        "empty": [],
        "not JSON": [b"\xff\xfe\n"],
        "no object": [b"[]\n"],
        "another format": [lines[0].replace(b"interconn-store", b"something-else"), *lines[1:]],
    }
    for name, parts in damaged.items():
        bad = tmp_path / "bad.jsonl"
        bad.write_bytes(b"".join(parts))
        target = tmp_path / "target.db"
        with pytest.raises(Refused) as caught:
            restore(f"sqlite:///{target}", bad)
        assert caught.value.kind is Kind.MALFORMED, name
        assert not target.exists(), name
    with pytest.raises(Refused):
        restore(f"sqlite:///{tmp_path / 'target.db'}", tmp_path / "missing")


async def test_rows_that_do_not_fit_are_refused(new: Databases, tmp_path: Path) -> None:
    """A whole file with a right sum, made by somebody else."""
    for row, version, kind in (
        ({"table": "no_such", "row": {}}, newest(), Kind.MALFORMED),
        ({"table": "audit", "row": {"record_key": "x"}}, newest(), Kind.MALFORMED),
        ({"table": "audit", "row": []}, newest(), Kind.MALFORMED),
        ({"table": "audit", "row": {}}, "9999", Kind.CONFLICT),
    ):
        head = {"format": "interconn-store", "version": 1, "revision": version, "at": 0}
        text = "".join(json.dumps(line) + "\n" for line in (head, row))
        end = {"end": 1, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        file = tmp_path / "made.jsonl"
        file.write_text(text + json.dumps(end) + "\n")
        url = new("sqlite")
        with pytest.raises(Refused) as caught:
            restore(url, file)
        assert caught.value.kind is kind
        if revision(url) if Path(url.removeprefix("sqlite:///")).exists() else None:
            assert await content(url) == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_back_and_forward_keeps_what_both_know(new: Databases, kind: str, tmp_path: Path) -> None:
    url = new(kind)
    with pytest.raises((Refused, Unavailable)):
        rollback(url)
    await filled(url)
    before = await content(url)
    assert revision(url) == newest()
    reached = rollback(url)
    assert revision(url) == reached != newest()
    file = tmp_path / "old.jsonl"
    assert backup(url, file, now_ms=0) >= 4  # a backup of an older schema
    migrate(url)
    assert revision(url) == newest()
    assert await content(url) == before
    other = new("sqlite")
    restore(other, file)
    assert revision(other) == newest()
    assert await content(other) == before
    with pytest.raises(Refused) as refused:  # all of the audit trail would be lost
        rollback(url, to="0001")
    assert refused.value.kind is Kind.CONFLICT
    assert revision(url) == newest()
    assert rollback(url, to="0003") == "0003"
    with pytest.raises(Refused):
        rollback(url)
    assert rollback(url, to="0001", drop_audit_trail=True) == "0001"
    for wrong in (None, "0001", "base", "9999"):
        with pytest.raises(Refused):
            rollback(url, to=wrong)
    assert revision(url) == "0001"
    migrate(url)
    assert await content(url) == before


async def test_odd_texts_survive(tmp_path: Path) -> None:
    one, two = (f"sqlite:///{tmp_path / name}" for name in ("one.db", "two.db"))
    for url in (one,):
        migrate(url)
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO grant_use VALUES ('k', 'ü\"\\\\', 'j', 1, 'RESERVED', NULL)")
        engine.dispose()
    file = tmp_path / "backup.jsonl"
    backup(one, file, now_ms=0)
    restore(two, file)
    assert [each.grant for each in await _uses(two)] == ['ü"\\\\']


async def _uses(url: str) -> list[GrantUse]:
    store = SqlStore(url)
    found = list(await store.run(lambda tx: tx.select(GrantUse)))
    await store.close()
    return found
