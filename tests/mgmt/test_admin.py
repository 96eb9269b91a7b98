"""The admin listener over real HTTP, and reading tables."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from gateway.errors import GatewayError, Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.rest.admin_server import AdminRoute, FileAnswer, admin_app
from gateway.mgmt_plane.service.datasets import read_table
from gateway.model import Limits
from specs.admin import Role
from tests.mgmt.world import Node, World

TOKEN = "t" * 40
ADMIN = frozenset({Role.ADMIN})


class Browser:
    def __init__(self, session: ClientSession, base: str) -> None:
        self.session = session
        self.base = base

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = f"Bearer {TOKEN}",
        raw: bytes | None = None,
    ) -> tuple[int, Any]:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        headers = {} if token is None else {"Authorization": token}
        async with self.session.request(method, self.base + path, data=data, headers=headers) as answer:
            text = await answer.read()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text


@pytest.fixture
async def browser(a: Node, tmp_path: Path) -> AsyncIterator[Browser]:
    (tmp_path / "out.csv").write_text("id\n1\n")

    async def file(params: Any, _query: Any, _body: Any) -> FileAnswer:
        return FileAnswer(tmp_path / "out.csv", f'{params["name"]}"; x')

    async def broken(_params: Any, _query: Any, _body: Any) -> None:
        raise ValueError("secret")

    more = [AdminRoute("GET", "/files/{name}", file, ADMIN), AdminRoute("GET", "/broken", broken, ADMIN)]
    app = admin_app([*a.admin.routes(), *more], token=TOKEN, limits=Limits(body_bytes=20_000), journal=a.journal)
    server = TestServer(app)
    await server.start_server(access_log=None)
    async with ClientSession() as session:
        yield Browser(session, f"http://{server.host}:{server.port}")
    await server.close()


async def test_the_token_opens_the_door(browser: Browser, a: Node) -> None:
    assert (await browser.ask("GET", "/v1/admin/node"))[0] == 200
    assert (await browser.ask("GET", "/v1/admin/node", token=f"bearer {TOKEN}"))[0] == 200
    for token in (None, "", TOKEN, "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ü"):
        for path in ("/v1/admin/node", "/nothing"):
            status, answer = await browser.ask("GET", path, token=token)
            assert (status, answer["code"]) == (401, 401)
    assert TOKEN not in json.dumps(a.journal.events)
    for short in ("", "x" * 31, "x" * 31 + "\u00fc"):
        with pytest.raises(Refused):
            admin_app([], token=short, limits=Limits(), journal=a.journal)


async def test_node_and_errors(browser: Browser, a: Node) -> None:
    _, node = await browser.ask("GET", "/v1/admin/node")
    assert node["node_id"] == "A"
    assert node["fingerprint"] == a.pki.fingerprint
    assert node["listeners"] == {"edge": a.identity.address}
    for method, path, body, status in (
        ("GET", "/v1/admin/nothing", None, 404),
        ("PUT", "/v1/admin/node", None, 405),
        ("POST", "/v1/admin/partners/ct-x/approve", {}, 404),
        ("POST", "/v1/admin/audits/A/x/approve", {}, 404),
        ("POST", "/v1/admin/datasets", {"name": 1}, 400),
        ("POST", "/v1/admin/datasets/apply", {"node_id": "B", "dataset_id": "x"}, 404),
        ("POST", "/v1/admin/partners/apply", {"address": "x"}, 400),
        ("POST", "/v1/admin/partners/probe", {"address": "http://x"}, 400),
        ("POST", "/v1/admin/partners/probe", {"address": "https://nobody.example"}, 502),
        ("GET", "/v1/admin/events?limit=x", None, 400),
        ("POST", "/v1/admin/projects", {"name": "x", "type": "PSI", "datasets": []}, 400),
    ):
        got, answer = await browser.ask(method, path, body)
        assert got == status, path
        assert answer["code"] not in (0, 200)
        assert answer["msg"]
    assert (await browser.ask("POST", "/v1/admin/datasets", raw=b"{"))[0] == 400
    assert (await browser.ask("POST", "/v1/admin/datasets", raw=b"x" * 30_000))[0] == 413
    status, answer = await browser.ask("GET", "/broken")
    assert (status, answer["msg"]) == (500, "internal error")
    assert "secret" not in json.dumps(a.journal.events)


async def test_files(browser: Browser) -> None:
    async with browser.session.get(
        f"{browser.base}/files/scores.csv", headers={"Authorization": f"Bearer {TOKEN}"}
    ) as answer:
        assert await answer.text() == "id\n1\n"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="scores.csvx"'


async def test_a_partnership_seen_by_admins(world: World, a: Node, b: Node, browser: Browser) -> None:
    _, probe = await browser.ask("POST", "/v1/admin/partners/probe", {"address": b.identity.address})
    assert (probe["node"]["node_id"], probe["fingerprint"]) == ("B", b.pki.fingerprint)
    status, made = await browser.ask(
        "POST",
        "/v1/admin/partners/apply",
        {"address": b.identity.address, "node_id": "B", "fingerprint": probe["fingerprint"], "description": "hello"},
    )
    assert status == 200
    await b.admin_call("POST", f"/v1/admin/partners/{made['contract_id']}/approve")
    await b.flush()
    _, partners = await browser.ask("GET", "/v1/admin/partners")
    assert [(each["peer_node_id"], each["status"], each["proven"]) for each in partners] == [("B", "APPROVED", True)]
    assert "BEGIN CERTIFICATE" not in json.dumps(partners)
    for number in range(130):
        await b.add_dataset(f"ds-{number:03d}")
    _, listed = await browser.ask("GET", "/v1/admin/partners/B/datasets")
    assert len(listed) == 130
    _, audit = await browser.ask("POST", "/v1/admin/datasets/apply", {"node_id": "B", "dataset_id": "ds-001"})
    await a.flush()
    await b.admin_call("POST", f"/v1/admin/audits/A/{audit['audit_id']}/approve")
    await b.flush()
    for query, number in (("", 1), ("?kind=dataset&direction=OUT&status=APPROVED", 1), ("?kind=job", 0)):
        assert len((await browser.ask("GET", f"/v1/admin/audits{query}"))[1]) == number
    _, outbox = await browser.ask("GET", "/v1/admin/outbox?state=DONE")
    assert [each["route"] for each in outbox] == ["dataset.audit.apply"]
    _, events = await browser.ask("GET", "/v1/admin/events?limit=5&route=dataset.pub.list")
    assert [each["event"] for each in events] == ["call.out"] * 2
    status, ended = await browser.ask("POST", f"/v1/admin/partners/{made['contract_id']}/terminate")
    assert (status, ended["status"]) == (200, "TERMINATED")
    assert (await browser.ask("GET", "/v1/admin/partners/B/datasets"))[0] == 409


CSV = "id,y,x,word,empty\nc1,0,1.5,aa,\nc2,1,2e3,bb,\n"


async def test_entering_a_dataset(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "loan.csv"
    path.write_text("\ufeff" + CSV)
    body = {"name": "loans", "path": str(path), "dataset_id": "ds", "label_columns": ["y"]}
    status, made = await browser.ask("POST", "/v1/admin/datasets", body)
    assert status == 200
    assert (made["count"], made["join_columns"], made["label_columns"], made["owner"]) == (2, "id", "y", "JGA")
    assert [(each["name"], each["data_type"], each["distribution"]) for each in made["column_metas"]] == [
        ("id", "varchar", "DISCRETE"),
        ("y", "int", "DISCRETE"),
        ("x", "double", "CONTINUOUS"),
        ("word", "varchar", "DISCRETE"),
        ("empty", "varchar", "DISCRETE"),
    ]
    assert (await browser.ask("POST", "/v1/admin/datasets", body))[0] == 409
    for changes, wanted in (
        ({"id_column": "nothing"}, 400),
        ({"label_columns": ["nothing"]}, 400),
        ({"path": "loan.csv"}, 400),
        ({"path": str(tmp_path / "none.csv")}, 404),
        ({"path": str(tmp_path)}, 404),
        ({"dataset_id": "a/b"}, 400),
        ({"public": "yes"}, 400),
    ):
        assert (await browser.ask("POST", "/v1/admin/datasets", {**body, "dataset_id": "ds2", **changes}))[0] == wanted
    status, made = await browser.ask("POST", "/v1/admin/datasets", {"name": "x", "path": str(path), "public": False})
    assert len(made["dataset_id"]) == len("ds-") + 32
    assert len((await browser.ask("GET", "/v1/admin/datasets"))[1]) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "columns"),
        (b"a,a\n1,2\n", "unique"),
        (b"a,\n1,2\n", "given"),
        (b"a,b\n1,2\n1\n", "line 3 has 1 fields"),
        (b"a\n\xff\n", "UTF-8"),
        (b'a\n"x"y\n', "CSV"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text)
    with pytest.raises(ProtocolViolation, match=words):
        read_table(path)


@pytest.mark.req("M-042")
def test_types_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"{number},{number % 20},{number % 20}.0,nan,{'x' if number == 29 else number}" for number in range(30)]
    path.write_text("many,few,real,nan,late\n" + "\n".join(rows) + "\n")
    table = read_table(path)
    assert table.count == 30
    assert [(meta["data_type"], meta["distribution"]) for meta in table.metas] == [
        ("int", "CONTINUOUS"),
        ("int", "DISCRETE"),
        ("double", "CONTINUOUS"),
        ("varchar", "DISCRETE"),
        ("varchar", "DISCRETE"),
    ]


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(GatewayError) as caught:
        read_table(tmp_path / "none")
    assert caught.value.kind is Kind.NOT_FOUND
