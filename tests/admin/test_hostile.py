"""Odd text in every body member, path and query of the admin API: refused or kept as it is, never a failure."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from gateway.mgmt_plane.core.admin_messages import schemas
from gateway.mgmt_plane.rest import admin_users
from gateway.model import Limits
from specs.admin import OUTSIDE, ROUTES
from tests.admin.world import Listener, listening, texts_of
from tests.mgmt.world import World

ODD = [
    "'; DROP TABLE contract; --",
    "<script>alert(1)</script>",
    "\ud800",
    "a\x00b",
    "../../etc/passwd",
    "%s%n{0}${x}",
    "\u202e\x1b[2J\n",
    "x" * 5000,
]
HERE = sorted(name for name in ROUTES if not name.startswith("job.") and name not in OUTSIDE)
"""Those whose services the world has; the jobs' are asked by tests/integration/test_generated_admin.py."""
CODES = {400, 403, 404, 409, 413, 429, 502}


def placed(path: tuple[str, ...], text: str, given: dict[str, Any]) -> dict[str, Any]:
    made = json.loads(json.dumps(given))
    at = made
    for part in path[:-1]:
        at = at.setdefault(part, {})
    at[path[-1]] = text
    return dict(made)


def plain(schema: Any) -> dict[str, Any]:
    """The required members of a body, well formed."""
    examples = {"file": {}, "datasets": {}, "kind": "flow", "role": "auditor", "password": "x" * 12}
    return {name: examples.get(name, "x1") for name in schema.get("required", ())}


@pytest.mark.parametrize("name", HERE)
async def test_odd_text_everywhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_users, "matches", lambda _text, _encoded: False)
    monkeypatch.setattr(admin_users, "hashed", lambda _text, *, salt: f"{salt!r}")
    node = World().node("A")
    route, body = ROUTES[name], schemas()["bodies"].get(name, {})
    async with listening(node) as listener:
        for text in ODD:
            where = "?first=1&last=2" if name == "trail.entries" else ""
            parts = quote(text.encode("utf-8", "surrogatepass")[:3500], safe="")
            path = route.path
            for part in [each for each in path.split("/") if each.startswith("{")]:
                path = path.replace(part, parts)
            base = plain(body)
            if path != route.path:
                await refused_well(listener, route.method, path + where, base)
            for member in texts_of(body):
                await refused_well(listener, route.method, route.path + where, placed(member, text, base))
            for key in schemas()["queries"].get(name, {}).get("properties", {}):
                await refused_well(listener, route.method, f"{route.path}?{key}={parts}", None)
    errors = [each for each in node.journal.events if each.get("kind") == "internal"]
    assert errors == []


async def refused_well(listener: Listener, method: str, path: str, body: Any) -> None:
    raw = None if body is None or method == "GET" else json.dumps(body).encode()
    status, answer = await listener.ask("machine", method, path, raw=raw)
    assert status == 200 or status in CODES, (method, path[:200], str(body)[:200], answer)
    if status != 200:
        assert answer["code"] not in (0, 100)
        assert "\x1b" not in answer["msg"]


@pytest.mark.parametrize("name", ["user.add", "partner.apply", "dataset.add", "user.login", "audit.apply"])
async def test_ten_megabytes(name: str) -> None:
    node = World().node("A")
    async with listening(node) as listener:
        for member in texts_of(schemas()["bodies"][name]):
            body = placed(member, "x" * (10 << 20), plain(schemas()["bodies"][name]))
            status, answer = await listener.name("machine", name, body)
            assert (status, answer["code"]) == (413, 413)
        deep = b"[" * 100 + b"]" * 100
        for raw in (b'{"name":' + deep + b"}", b'{"name":1,"name":2}', b'{"name":NaN}', b'{"name":1e999}', b"\xff"):
            status, answer = await listener.ask("machine", "POST", ROUTES[name].path, raw=raw)
            assert (status, answer["code"]) == (400, 400)
    assert Limits().body_bytes < 10 << 20
