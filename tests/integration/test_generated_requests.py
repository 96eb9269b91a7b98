"""Requests that schemathesis makes from our own OpenAPI document, against a real gateway: no HTTP 500, no INTERNAL.

Valid ones and broken ones, signed with a real partner's key so that they get past the door; half of them carry the real
contract's id. Bounded and always the same; INTERCONN_GENERATED=100 makes a longer run.
"""

import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateway.errors import WIRE, Kind
from specs.routes import ROUTES, Side
from tests.integration import rig as rigs

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra dev)")

EXAMPLES = int(os.environ.get("INTERCONN_GENERATED", "3"))
INTERNAL = {WIRE[Kind.INTERNAL].code}
URL_CHARS = 8000
HTTP = {200, 413, 429}
ENDS = {"node.contract.terminate", "node.contract.confirm"}
"""They would end the contract that all the others need."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rigs.Rig]:
    made = rigs.start(Path(tmp_path_factory.mktemp("generated")) / "lab", taps=False)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def document(lab: rigs.Rig) -> Any:
    """As the gateway itself serves it, without a token."""
    with urlopen(f"{lab.payment.node.admin_url}/openapi.json") as answer:
        return json.loads(answer.read())


def ask(lab: rigs.Rig, name: str, query: dict[str, Any], body: bytes) -> tuple[int, bytes]:
    route = ROUTES[name]
    if route.side is Side.PLATFORM:
        token = lab.payment.node.admin_token_file.read_text().strip()
        parts = urlsplit(lab.payment.node.platform_url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)
        try:
            target = route.path + (f"?{urlencode(query)}" if query else "")
            headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            connection.request(route.method, target, body=body or None, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()
    partner = rigs.Partner(lab.payment, lab.bank.node_id, lab.bank.pki)
    return partner.send(*partner.prepare(name, query, body=body))


NAMES = sorted(name for name in ROUTES if not name.startswith("chan."))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_our_own_fault(lab: rigs.Rig, document: Any, name: str) -> None:
    found = {
        each.ok().definition.raw["operationId"]: each.ok()
        for each in schemathesis.openapi.from_dict(document).get_all_operations()
    }
    operation = found[name]
    media = operation.definition.raw["responses"]["200"]["content"]["application/json"]["schema"]
    answers = Draft202012Validator({**media, "components": document["components"]})
    modes = [
        operation.as_strategy(generation_mode=mode)
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    ]
    checks = 0

    def check(case: Any, ours: bool) -> None:
        nonlocal checks
        query = {key: value for key, value in (case.query or {}).items() if not isinstance(value, (list, dict))}
        content = case.body if case.body.__class__.__name__ != "NotSet" else None
        for holder in (query, content):
            if ours and isinstance(holder, dict) and "contract_id" in holder and name not in ENDS:
                holder["contract_id"] = lab.contract_id
        try:
            if len(urlencode(query)) > URL_CHARS:
                return  # refused by the HTTP parser, before anything of ours
            raw = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
        except (UnicodeEncodeError, TypeError, ValueError):
            return  # it cannot be written down
        status, reply = ask(lab, name, query, raw if ROUTES[name].method == "POST" else b"")
        checks += 1
        assert status in HTTP, (status, reply[:500])
        value = json.loads(reply)
        assert value["code"] not in INTERNAL, (query, raw[:2000], value)
        if status == 200:
            answers.validate(value)

    for mode in modes:
        quiet = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        try:
            quiet(given(case=mode, ours=st.booleans())(check))()
        except Exception as e:
            # A route without a parameter has nothing that could be wrong.
            if type(e).__name__ not in {"Unsatisfiable", "SkipTest"}:
                raise
    assert checks or name == "node.health"
