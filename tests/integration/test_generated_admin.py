"""Requests that schemathesis makes from the admin API's own document, against a real gateway: no HTTP 500, no INTERNAL.

Also that what is answered is what the document says. Bounded and always the same; INTERCONN_GENERATED=100 makes a
longer run.
"""

import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import urlopen

import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from gateway.errors import WIRE, Kind
from specs.admin import ROUTES
from tests.integration import rig as rigs

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra dev)")

EXAMPLES = int(os.environ.get("INTERCONN_GENERATED", "1"))
STATUS = {200, 400, 401, 403, 404, 409, 413, 429, 502, 503}
KEPT = {"user.logout", "key.rotate", "key.revoke"}
"""Asked once: each makes a key or ends a session."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rigs.Rig]:
    made = rigs.start(Path(tmp_path_factory.mktemp("generated-admin")) / "lab", taps=False)
    try:
        yield made
    finally:
        made.close()


def ask(lab: rigs.Rig, method: str, target: str, body: bytes) -> tuple[int, str, bytes]:
    token = lab.payment.node.admin_token_file.read_text().strip()
    parts = urlsplit(lab.payment.node.admin_url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    try:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request(method, target, body=body or None, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.headers.get_content_type(), reply.read()
    finally:
        connection.close()


def test_nothing_is_our_own_fault_and_answers_are_as_described(lab: rigs.Rig) -> None:
    lab.payment.client.post("users", name="gen", role="auditor")
    with urlopen(f"{lab.payment.node.admin_url}/v1/admin/openapi.json") as answer:
        document = json.loads(answer.read())
    with urlopen(f"{lab.payment.node.admin_url}/v1/admin/docs") as answer:
        assert b"user.token" in answer.read()
    operations = {
        each.ok().definition.raw["operationId"]: each.ok()
        for each in schemathesis.openapi.from_dict(document).get_all_operations()
    }
    assert set(operations) == set(ROUTES)
    # What is really there, so that not everything is unknown.
    known = {"contract_id": lab.contract_id, "node_id": lab.bank.node_id, "name": "gen"}
    good = 0
    for name, operation in operations.items():
        good += generated(lab, name, operation, document, known)
    assert good > len(ROUTES) // 3


def generated(lab: rigs.Rig, name: str, operation: Any, document: Any, known: dict[str, str]) -> int:
    good = 0
    responses = operation.definition.raw["responses"]

    def check(case: Any) -> None:
        nonlocal good
        parameters = case.path_parameters or {}
        keep = name.endswith(("profile", "ask", "doctor", "datasets", "query", "token", "password"))
        path = ROUTES[name].path
        for part, value in parameters.items():
            text = known.get(part, str(value)) if keep else str(value)
            path = path.replace(f"{{{part}}}", quote(text.encode("utf-8", "replace")[:1000], safe="") or "x")
        query = {key: value for key, value in (case.query or {}).items() if not isinstance(value, (list, dict))}
        content = case.body if case.body.__class__.__name__ != "NotSet" else None
        if isinstance(content, dict) and "address" in content:
            content = {**content, "address": "https://127.0.0.1:1"}
        try:
            target = path + (f"?{urlencode(query)}" if query else "")
            raw = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
        except (UnicodeEncodeError, TypeError, ValueError):
            return  # it cannot be written down
        if len(target) > 8000:
            return  # refused by the HTTP parser, before anything of ours
        status, kind, reply = ask(lab, ROUTES[name].method, target, raw if ROUTES[name].method == "POST" else b"")
        assert status in STATUS, (name, target[:300], raw[:1000], status, reply[:500])
        if kind != "application/json":
            return
        value = json.loads(reply)
        media = responses[str(status)].get("content", {}).get("application/json")
        if media is not None:
            Draft202012Validator({**media["schema"], "components": document["components"]}).validate(value)
        if status == 200:
            good += 1
        elif isinstance(value, dict) and "code" in value:
            assert value["code"] != WIRE[Kind.INTERNAL].code, (name, target, raw[:1000], value)

    for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
        quiet = settings(
            max_examples=1 if name in KEPT else EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        try:
            quiet(given(case=operation.as_strategy(generation_mode=mode))(check))()
        except Exception as e:
            # A route without a parameter has nothing that could be wrong.
            if type(e).__name__ not in {"Unsatisfiable", "SkipTest"}:
                raise
    return good
