"""Notices of what waits for a decision, sent to a real HTTP server."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.errors import GatewayError, Kind, Refused
from gateway.mgmt_plane.rest.admin_notices import NoticeAdmin
from gateway.mgmt_plane.service.decisions import Decisions
from gateway.mgmt_plane.service.notices import Notices
from gateway.mgmt_plane.service.users import Principal
from gateway.model import Audit, Notice
from gateway.runtime.metrics import _levels
from gateway.runtime.notifier import SIGNATURE, Notifier, check_webhook
from specs.admin import Role
from tests.mgmt.world import Node, World
from tests.waiting import eventually

SECRET = b"s" * 32


@dataclass
class Hook:
    """What came, and what is answered: the next of `answers`, then 204."""

    url: str = ""
    came: list[dict[str, Any]] = field(default_factory=list)
    answers: list[web.Response] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        raw = await request.read()
        parts = dict(each.split("=", 1) for each in request.headers[SIGNATURE].split(","))
        wanted = hmac.new(SECRET, parts["t"].encode() + b"." + raw, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(wanted, parts["v1"])
        self.came.append({"path": request.path, **json.loads(raw)})
        return self.answers.pop(0) if self.answers else web.Response(status=204)


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    made = Hook()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.handle)
    server = TestServer(app)
    await server.start_server(access_log=None)
    made.url = f"http://127.0.0.1:{server.port}/hook"
    yield made
    await server.close()


def notifier(node: Node, url: str, *, attempts: int = 3) -> Notifier:
    made = Notifier(
        url=url,
        secret=SECRET,
        node_id=node.id,
        store=node.store,
        journal=node.journal,
        clock=node.clock,
        entropy=node.entropy,
        attempts=attempts,
    )
    node.notices = Notices(clock=node.clock, entropy=node.entropy, wake=made.wake)  # type: ignore[attr-defined]
    node.notices.attend(node.partners, node.audits)  # type: ignore[attr-defined]
    return made


async def left(node: Node) -> int:
    return await node.run(lambda tx: tx.count(Notice))


async def nothing_left(node: Node) -> bool:
    return not await left(node)


async def test_an_application_is_told_signed_and_without_content(world: World, hook: Hook) -> None:
    a, b = world.node("A"), world.node("B")
    sender = notifier(b, hook.url)
    sender.start()
    await world.partners(a, b)
    await b.add_dataset("ds-secret-name")
    await a.admin_call(
        "POST", "/v1/admin/datasets/apply", {"node_id": "B", "dataset_id": "ds-secret-name", "times_limit": 77}
    )
    await a.flush()
    await eventually(lambda: len(hook.came) == 2 or bool(hook.came and hook.came[-1]["kind"] == "dataset"))
    told = hook.came[-1]
    audit = await b.only_audit()
    assert told == {
        "path": "/hook",
        "event": "approval.pending",
        "notice_id": told["notice_id"],
        "node_id": "B",
        "kind": "dataset",
        "id": audit.key(),
        "partner": (await b.contract(a)).peer_name,
        "partner_node_id": "A",
        "since": audit.created,
        "look": "interconn pending",
    }
    assert "ds-secret-name" not in json.dumps(told)
    await eventually(lambda: bool(b.journal.of("notify.sent")))
    await sender.stop()
    assert await left(b) == 0


async def test_the_first_of_two_words_is_told(world: World, hook: Hook) -> None:
    a, b = world.node("A"), world.node("B")
    await world.partners(a, b)
    sender = notifier(b, hook.url)
    sender.start()
    decisions = Decisions(
        clock=b.clock,
        four_eyes=frozenset({"dataset"}),
        on_first=b.notices.first_word,  # type: ignore[attr-defined]
    )
    await b.add_dataset("ds")
    await a.admin_call("POST", "/v1/admin/datasets/apply", {"node_id": "B", "dataset_id": "ds"})
    await a.flush()
    audit = await b.only_audit()

    def do(tx: Any, _terms: Any) -> Audit:
        return b.audits.decide(tx, audit.key(), approve=True)

    ada = Principal("ada", Role.ADMIN, "")
    await decisions.decide(
        b.store, ada, find=lambda tx: b.audits.get(tx, "A", audit.audit_id), approve=True, terms={}, do=do
    )
    await eventually(lambda: {each["event"] for each in hook.came} == {"approval.pending", "approval.second"})
    await sender.stop()


async def test_trouble_is_met_with_patience_and_an_end(world: World, hook: Hook) -> None:
    """A redirect is not followed; after the last attempt the journal says so, and it is left to the admin."""
    a, b = world.node("A"), world.node("B")
    hook.answers = [
        web.Response(status=307, headers={"Location": hook.url.replace("/hook", "/elsewhere")}),
        web.Response(status=500),
        web.Response(status=503),
    ]
    sender = notifier(b, hook.url)
    sender.start()
    await a.admin_call(
        "POST",
        "/v1/admin/partners/apply",
        {"address": b.identity.address, "node_id": "B", "fingerprint": b.pki.fingerprint},
    )
    for number in range(1, 4):
        await eventually(lambda wanted=number: len(hook.came) == wanted)
        await asyncio.sleep(0.02)
        b.clock.ms += 60_000
        sender.wake()
    await eventually(lambda: bool(b.journal.of("notify.dead")))
    assert {each["path"] for each in hook.came} == {"/hook"}
    assert len({each["notice_id"] for each in hook.came}) == 1
    assert b.journal.of("notify.dead")[0]["reason"] == "HTTP 503"
    admin = NoticeAdmin(store=b.store, clock=b.clock, wake=sender.wake)
    [given_up] = await admin.list({}, {"state": "DEAD"}, {})
    assert (given_up["attempts"], given_up["error"], given_up["partner_node_id"]) == (3, "HTTP 503", "A")
    now = b.clock.now_ms()
    assert "interconn_notices_dead 1\n" in await b.run(partial(_levels, now=now))
    # Nobody tries it again by itself; the admin's word does, at once and from the beginning.
    sender.wake()
    await asyncio.sleep(0.02)
    assert len(hook.came) == 3
    hook.answers = [web.Response(status=500)]
    again = await admin.retry({"notice_id": given_up["notice_id"]}, {}, {})
    assert (again["state"], again["attempts"]) == ("DUE", 0)
    await eventually(lambda: len(hook.came) == 4)
    with pytest.raises(Refused) as refused:
        await admin.retry({"notice_id": given_up["notice_id"]}, {}, {})
    assert refused.value.kind is Kind.CONFLICT
    b.clock.ms += 60_000
    sender.wake()
    await eventually(lambda: bool(b.journal.of("notify.sent")))
    assert await admin.list({}, {}, {}) == []
    with pytest.raises(Refused) as refused:
        await admin.retry({"notice_id": given_up["notice_id"]}, {}, {})
    assert refused.value.kind is Kind.NOT_FOUND
    with pytest.raises(Refused, match="no webhook"):
        await NoticeAdmin(store=b.store, clock=b.clock, wake=None).retry({"notice_id": "x"}, {}, {})
    await sender.stop()
    assert await left(b) == 0
    assert SECRET.decode() not in json.dumps(b.journal.events)


async def test_what_was_decided_meanwhile_and_what_waited_for_a_start(world: World, hook: Hook) -> None:
    a, b = world.node("A"), world.node("B")
    sender = notifier(b, hook.url)  # not started: the node was down
    made = await a.admin_call(
        "POST",
        "/v1/admin/partners/apply",
        {"address": b.identity.address, "node_id": "B", "fingerprint": b.pki.fingerprint},
    )
    again = await a.admin_call(
        "POST",
        "/v1/admin/partners/apply",
        {"address": b.identity.address, "node_id": "B", "fingerprint": b.pki.fingerprint},
    )
    assert await left(b) == 2
    await b.admin_call("POST", f"/v1/admin/partners/{made['contract_id']}/reject")
    sender.start()
    await eventually(lambda: bool(hook.came))
    await eventually(lambda: bool(b.journal.of("notify.sent")))
    assert [each["id"] for each in hook.came] == [again["contract_id"]]
    await sender.stop()
    assert await left(b) == 0


@pytest.mark.parametrize("turns", range(4))
async def test_it_ends_also_where_news_come_in_that_moment(world: World, hook: Hook, turns: int) -> None:
    sender = notifier(world.node("B"), hook.url)
    sender.start()
    await eventually(lambda: bool(sender._news._waiters))
    sender._news.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    stopped, _ = await asyncio.wait({asyncio.create_task(sender.stop())}, timeout=2)
    assert stopped


async def test_what_was_given_up_goes_with_its_decision(world: World, hook: Hook) -> None:
    a, b = world.node("A"), world.node("B")
    hook.answers = [web.Response(status=500)]
    sender = notifier(b, hook.url, attempts=1)
    sender.start()
    made = await a.admin_call(
        "POST",
        "/v1/admin/partners/apply",
        {"address": b.identity.address, "node_id": "B", "fingerprint": b.pki.fingerprint},
    )
    await eventually(lambda: bool(b.journal.of("notify.dead")))
    assert await left(b) == 1
    await b.admin_call("POST", f"/v1/admin/partners/{made['contract_id']}/reject")
    admin = NoticeAdmin(store=b.store, clock=b.clock, wake=sender.wake)
    [notice] = await admin.list({}, {}, {})
    with pytest.raises(Refused) as refused:
        await admin.retry({"notice_id": notice["notice_id"]}, {}, {})
    assert refused.value.kind is Kind.NOT_FOUND
    sender.wake()
    await eventually(lambda: nothing_left(b))
    await sender.stop()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x",
        "http://10.0.0.1/x",
        "ftp://127.0.0.1/x",
        "https://user:word@example.com/",
        "https://",
        "file:///etc/passwd",
        "https://[::1",
        "https://example.com:99999/",
        "http://127.0.0.1.example.com/",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(GatewayError):
        check_webhook(url)


def test_addresses_that_are_good(world: World) -> None:
    for url in ("https://hooks.example/x?y=1", "http://127.0.0.1:9/x", "http://[::1]:9/", "http://localhost/"):
        assert check_webhook(url) == url
    node = world.node("A")
    with pytest.raises(GatewayError, match="32 bytes"):
        Notifier(
            url="https://x.example/",
            secret=b"short",
            node_id=node.id,
            store=node.store,
            journal=node.journal,
            clock=node.clock,
            entropy=node.entropy,
        )
