"""/metrics, /healthz and /readyz: what is counted, in a form that can be parsed, and who may ask."""

import re
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from gateway.errors import Kind, Unavailable
from gateway.mgmt_plane.rest.admin_server import admin_app
from gateway.mgmt_plane.rest.health import Health
from gateway.model import Contract, Limits
from gateway.runtime.metrics import Counters, exposition, readiness
from gateway.runtime.observe import ObservedJournal
from specs.states import AuditKind
from tests.mgmt.conftest import a, b, c, world  # noqa: F401  # fixtures
from tests.mgmt.world import ListJournal, Node, World

TOKEN = "t" * 40
_DATASET = AuditKind.DATASET
_LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["n])*",?)*)\})? (-?[0-9.e+-]+|\+Inf)')


class DataProcess:
    up = True

    async def stats(self) -> Mapping[str, Any]:
        if not self.up:
            raise Unavailable("gone")
        return {
            "sessions": 2,
            "bytes_out": 10,
            "parked": {"B": 4},
            "relayed": {},
            "relayed_bytes": {"A B": 7},
            "refused": {"forbidden": 3},
            "unknown": 1,
        }

    sessions = 1

    async def figures(self, limit: int) -> Mapping[str, Any]:
        flow = {"messages_in": 3, "bytes_in": 30, "messages_out": 1, "bytes_out": 5, "read": 2, "waited_s": 1.5}
        level = {"depth": 1, "bytes_held": 256, "bytes_on_disk": 0, "oldest_s": 0.5, "readers": 2}
        return {
            "partners": [{"node_id": "B", **flow}],
            "sessions": [
                {"session_id": f's-{n}"\n', **flow, **level, "nodes": [{"node_id": "B", **flow}]}
                for n in range(min(limit, self.sessions))
            ],
        }


def parsed(text: str) -> dict[str, float]:
    """`name{labels}` -> value; every sample must stand under its TYPE."""
    found: dict[str, float] = {}
    family = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
        elif line.startswith("# TYPE "):
            assert line.split()[2] == family
            assert line.split()[3] in ("counter", "gauge", "histogram", "summary")
        else:
            match = _LINE.fullmatch(line)
            assert match, line
            assert match[1].startswith(family), line
            key = line.rpartition(" ")[0]
            assert key not in found
            found[key] = float(match[3])
    return found


@pytest.fixture
def data() -> DataProcess:
    return DataProcess()


@pytest.fixture
def counters(b: Node) -> Counters:  # noqa: F811
    made = Counters()
    b.journal.listeners.append(made.listen)
    return made


@pytest.fixture
async def base(b: Node, data: DataProcess, counters: Counters) -> AsyncIterator[str]:  # noqa: F811
    async def database() -> str:
        await b.run(lambda tx: tx.select(Contract, limit=1))
        return ""

    health = Health(
        ready=partial(readiness, writable=database, stats=data.stats),
        metrics=partial(
            exposition,
            counters=counters,
            store=b.store,
            trail=b.trail,
            stats=data.stats,
            figures=data.figures,
            clock=b.clock,
        ),
    )
    app = admin_app(health.routes(), token=TOKEN, limits=Limits(), journal=b.journal)
    server = TestServer(app)
    await server.start_server(access_log=None)
    yield f"http://{server.host}:{server.port}"
    await server.close()


async def ask(url: str, *, token: bool = False) -> tuple[int, str, str]:
    headers = {"Authorization": f"Bearer {TOKEN}"} if token else {}
    async with ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_counts_and_levels(world: World, a: Node, b: Node, c: Node, base: str) -> None:  # noqa: F811
    await world.partners(a, b)
    await b.add_dataset("d1")
    await world.grant(a, b, "d1")
    await c.send(b, "project.list", {"contract_id": "x"})
    await a.send(b, "project.list", {"contract_id": "x"})
    b.journal.note("edge.refused", route="../../x", code=12345, ms=1)
    b.journal.note("call.out", route="node.query", code='made up"\n', ms=1)
    a.up = False
    audit = (await b.run(lambda tx: b.audits.find(tx, kind=_DATASET, subject="d1")))[0]
    await b.admin_call("POST", f"/v1/admin/audits/{audit.key()}/terminate")
    world.clock.ms += 5_000
    status, kind, text = await ask(f"{base}/metrics", token=True)
    assert status == 200
    assert kind.startswith("text/plain; version=0.0.4")
    found = parsed(text)
    assert found['interconn_requests_total{door="edge",route="dataset.audit.apply",code="0"}'] == 1
    assert found['interconn_requests_total{door="edge",route="project.list",code="401"}'] == 1
    assert found['interconn_requests_total{door="edge",route="project.list",code="430"}'] == 1
    assert found['interconn_requests_total{door="edge",route="unknown",code="other"}'] == 1
    assert found['interconn_calls_total{route="node.query",code="other"}'] == 1
    assert found['interconn_signature_failures_total{kind="unauthenticated"}'] == 1
    assert found['interconn_approvals{kind="contract",direction="IN",state="APPROVED"}'] == 1
    assert found['interconn_approvals{kind="dataset",direction="IN",state="TERMINATED"}'] == 1
    assert found["interconn_outbox_due"] == 1
    assert found["interconn_outbox_oldest_seconds"] == 5
    assert found['interconn_request_seconds_count{route="project.list"}'] == 2
    assert found['interconn_request_seconds_bucket{route="project.list",le="+Inf"}'] == 2
    assert found["interconn_trail_entries"] > 3
    assert found["interconn_data_process_up"] == 1
    assert found["interconn_channel_bytes_out_total"] == 10
    assert found['interconn_channel_refused_total{kind="forbidden"}'] == 3
    assert found['interconn_parked{peer="B"}'] == 4
    assert found['interconn_relayed_bytes_total{pair="A B"}'] == 7
    assert "interconn_channel_unknown" not in text


async def test_what_passes_is_told_of_a_bounded_number_of_sessions(base: str, data: DataProcess) -> None:
    found = parsed((await ask(f"{base}/metrics", token=True))[2])
    assert found['interconn_partner_bytes_total{partner="B",direction="in"}'] == 30
    assert found['interconn_partner_messages_total{partner="B",direction="out"}'] == 1
    assert found['interconn_partner_wait_seconds_sum{partner="B"}'] == 1.5
    session = 's-0\\"\\n'
    assert found[f'interconn_session_bytes_total{{session="{session}",partner="B",direction="out"}}'] == 5
    assert found[f'interconn_session_wait_seconds_count{{session="{session}",partner="B"}}'] == 2
    levels = {"depth": 1, "bytes_held": 256, "bytes_on_disk": 0, "readers": 2, "oldest_seconds": 0.5}
    assert {name: found[f'interconn_session_{name}{{session="{session}"}}'] for name in levels} == levels
    data.sessions = 10_000
    found = parsed((await ask(f"{base}/metrics", token=True))[2])
    assert len([name for name in found if name.startswith("interconn_session_")]) < 300
    assert found['interconn_session_depth{session="(others)"}'] == 80


async def test_health_needs_no_token_and_metrics_do(b: Node, base: str, data: DataProcess) -> None:  # noqa: F811
    assert (await ask(f"{base}/healthz"))[0] == 200
    assert (await ask(f"{base}/readyz"))[0] == 200
    assert (await ask(f"{base}/metrics"))[0] == 401
    for path in ("/healthz/", "//healthz", "/healthz/../metrics", "/%2e/metrics"):
        assert (await ask(f"{base}{path}"))[0] == 401
    data.up = False
    status, kind, text = await ask(f"{base}/readyz")
    assert (status, kind) == (503, "application/json")
    assert '"data_process": "does not answer"' in text
    assert parsed((await ask(f"{base}/metrics", token=True))[2])["interconn_data_process_up"] == 0
    await b.store.close()
    status, _, text = await ask(f"{base}/readyz")
    assert status == 503
    assert '"database": "not available"' in text
    assert (await ask(f"{base}/metrics", token=True))[0] == 503
    assert (await ask(f"{base}/healthz"))[0] == 200


def test_the_journal_is_the_same_with_listeners() -> None:
    inner, heard = ListJournal(), []
    journal = ObservedJournal(inner)
    journal.listen(lambda event, ids: heard.append((event, dict(ids))))
    journal.note("edge.call", route="x", code=0)
    assert heard == [("edge.call", {"route": "x", "code": 0})]
    assert journal.recent(limit=1) == [{"event": "edge.call", "route": "x", "code": 0}]
    assert {each.value for each in Kind} >= {"unauthenticated", "stale", "replayed"}
