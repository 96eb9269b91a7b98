"""The pipeline of the edge: what it refuses, in which order, and that nothing changes when it does."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import WIRE, GatewayError, Kind
from gateway.mgmt_plane.rest.edge import RateLimit
from gateway.model import Audit, Contract, Limits
from gateway.ports import Caller
from specs import headers as names
from specs.routes import BY_PATH, MANAGEMENT, ROUTES, Auth
from tests.mgmt.world import NOW, Node, World, decoded, pki, tampered

LIST = "dataset.pub.list"


def code(kind: Kind) -> int:
    return WIRE[kind].code


@pytest.fixture
def asked(contract_id: str) -> dict[str, str]:
    return {"contract_id": contract_id}


@pytest.mark.req("M-003", "M-004", "M-005")
async def test_good_and_bad_answers_have_the_envelope(a: Node, b: Node, asked: dict[str, str]) -> None:
    good = await a.send(b, LIST, asked)
    assert (good["code"], good["http"]) == (0, 200)
    bad = await a.send(b, LIST, {})
    assert (bad["code"], bad["http"], bad["data"]) == (400, 200, {})
    assert "trace tr-test" in bad["msg"]
    flow = {"audit_id": "au-1", "flow_id": "fl", "name": "f", "dag": {}}
    nothing = await a.send(b, "flow.audit.apply", flow)
    assert (nothing["code"], nothing["data"]) == (0, {})


PATHS = """
POST node/contract/apply      POST node/contract/confirm    POST node/contract/terminate  POST node/update
GET node/contract/query       GET node/query                GET node/health
GET dataset/pub/list          GET dataset/pub/query         POST dataset/audit/apply      POST dataset/audit/confirm
POST dataset/audit/terminate  GET dataset/audit/query
POST project/audit/apply      POST project/audit/confirm    POST project/audit/terminate  GET project/audit/query
GET project/list              GET project/query
GET component/list            GET component/query
POST flow/audit/apply         POST flow/audit/confirm       POST flow/audit/terminate     GET flow/audit/query
POST job/audit/apply          POST job/audit/confirm        POST job/audit/terminate
POST model/audit/apply        POST model/audit/confirm      POST model/audit/terminate    GET model/audit/query
"""
"""As c.1 of the digest lists them."""


@pytest.mark.req("M-001", "M-067")
async def test_paths(a: Node, b: Node, asked: dict[str, str]) -> None:
    words = PATHS.split()
    wanted = {(method, f"/v1/interconn/{path}") for method, path in zip(words[::2], words[1::2], strict=True)}
    assert len(wanted) == 32
    assert {(route.method, route.path) for route in MANAGEMENT.values()} == wanted
    assert ("GET", "/v1/interconn/job/audit/query") not in BY_PATH
    for method, path in wanted:
        answer = await a.send(b, LIST, asked, after=tampered(method=method, path=path))
        assert (answer["http"], answer["code"] != code(Kind.NOT_OFFERED)) == (200, True)


@pytest.mark.req("M-067")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/interconn/job/audit/query"),
        ("GET", "/v1/interconn/nothing"),
        ("GET", "/v1/interconn/dataset/audit/apply"),
        ("POST", "/v1/platform/schedule/job/create_all"),
        ("POST", "/v1/interconn/chan/push"),
        ("POST", "/v1/interconn/chan/invoke"),
    ],
)
async def test_unknown_paths(a: Node, b: Node, asked: dict[str, str], method: str, path: str) -> None:
    answer = await a.send(b, LIST, asked, after=tampered(method=method, path=path))
    assert (answer["http"], answer["code"]) == (404, code(Kind.NOT_FOUND))


async def test_what_has_no_handler_is_not_offered(a: Node, b: Node, asked: dict[str, str]) -> None:
    for route in ("job.start", "job.stop"):
        answer = await a.send(b, route, {"job_id": "job-x"})
        assert (answer["http"], answer["code"]) == (200, code(Kind.NOT_OFFERED))


@pytest.mark.req("M-009")
async def test_unsigned(a: Node, b: Node, asked: dict[str, str]) -> None:
    signed = [name for name, route in ROUTES.items() if route.auth in (Auth.SIGNED, Auth.APPLICANT)]
    assert set(MANAGEMENT) - set(signed) == {
        "node.query",
        "node.health",
        "node.contract.apply",
        "node.contract.confirm",
    }
    assert len(signed) > 30
    for route in signed:
        for headers in ({}, {names.AUTH_SIGN: ""}):
            answer = await a.send(b, route, asked, sign=False, headers=headers)
            assert answer["code"] == code(Kind.UNAUTHENTICATED)


@pytest.mark.req("M-014")
async def test_wrongly_signed(a: Node, b: Node, c: Node, asked: dict[str, str]) -> None:
    body = {"audit_id": "au-1"}
    for changes in (
        {"after": tampered(body=b'{"audit_id": "au-2"}')},
        {"after": tampered(raw_query="x=1")},
        {"after": tampered(path="/v1/interconn/project/audit/terminate")},
        {"after": lambda r: replace(r, headers={**r.headers, names.NONCE: "other"})},
        {"after": lambda r: replace(r, headers={**r.headers, names.TIMESTAMP: str(NOW + 21)})},
        {"signer": c.signer},
        {"headers": {names.AUTH_SIGN: "AAAA"}},
        {"headers": {names.AUTH_SIGN: "not base64"}},
    ):
        answer = await a.send(b, "dataset.audit.terminate", body, **changes)
        assert answer["code"] == code(Kind.UNAUTHENTICATED), changes
    # The same, untouched, comes through to the handler, which does not know the audit.
    assert (await a.send(b, "dataset.audit.terminate", body))["code"] == code(Kind.NOT_FOUND)
    assert (await a.send(b, LIST, asked, after=tampered(raw_query=f"contract_id={asked['contract_id']}&page_size=-1")))[
        "code"
    ] == code(Kind.UNAUTHENTICATED)


@pytest.mark.req("M-012")
async def test_replayed(world: World, a: Node, b: Node, asked: dict[str, str]) -> None:
    request = a.request(b, LIST, asked)
    assert decoded(await b.edge.handle(request))["code"] == 0
    for later in (0, 1000, b.limits.clock_window_ms - 1000):
        world.clock.ms = int(request.headers[names.TIMESTAMP]) + later
        assert decoded(await b.edge.handle(request))["code"] == code(Kind.REPLAYED)
    world.clock.ms += b.limits.clock_window_ms
    assert decoded(await b.edge.handle(request))["code"] == code(Kind.STALE)


@pytest.mark.req("M-012")
async def test_nobody_burns_anothers_nonce(a: Node, b: Node, c: Node, asked: dict[str, str]) -> None:
    headers = {names.NONCE: "chosen"}
    assert (await a.send(b, LIST, asked, headers=headers, signer=c.signer))["code"] == code(Kind.UNAUTHENTICATED)
    assert (await a.send(b, LIST, asked, headers=headers))["code"] == 0
    assert (await a.send(b, LIST, asked, headers=headers))["code"] == code(Kind.REPLAYED)


async def test_a_restart_does_not_make_old_requests_new(world: World, a: Node, b: Node, asked: dict[str, str]) -> None:
    request = a.request(b, LIST, asked)
    assert decoded(await b.edge.handle(request))["code"] == 0
    world.clock.ms += 1
    b.edge = b.new_edge()
    assert decoded(await b.edge.handle(request))["code"] == code(Kind.STALE)
    assert (await a.send(b, LIST, asked))["code"] == 0


@pytest.mark.req("M-013", "M-007")
async def test_stale_and_odd_timestamps(world: World, a: Node, b: Node, asked: dict[str, str]) -> None:
    window = b.limits.clock_window_ms
    world.clock.ms += 2 * window
    now = world.clock.ms
    for timestamp, wanted in (
        (now - window, 0),
        (now + window, 0),
        (now - window - 1, code(Kind.STALE)),
        (now + window + 1, code(Kind.STALE)),
        (now // 1000, code(Kind.MALFORMED)),
        ("x" * 13, code(Kind.MALFORMED)),
        ("١" * 13, code(Kind.MALFORMED)),
        (f"{now}0", code(Kind.MALFORMED)),
        ("-" + str(now)[1:], code(Kind.MALFORMED)),
    ):
        answer = await a.send(b, LIST, asked, headers={names.TIMESTAMP: str(timestamp)})
        assert answer["code"] == wanted, timestamp


@pytest.mark.req("M-013")
async def test_seconds_only_where_the_profile_says_so(world: World, a: Node, b: Node, asked: dict[str, str]) -> None:
    old = await b.contract(a)
    await b.run(lambda tx: tx.replace(old, replace(old, profile="lenient")))
    seconds = {names.TIMESTAMP: str(world.clock.ms // 1000)}
    assert (await a.send(b, LIST, asked, headers=seconds))["code"] == 0
    late = {names.TIMESTAMP: str((world.clock.ms - b.limits.clock_window_ms) // 1000 - 2)}
    assert (await a.send(b, LIST, asked, headers=late))["code"] == code(Kind.STALE)


@pytest.mark.req("M-011")
async def test_misaddressed(a: Node, b: Node, asked: dict[str, str]) -> None:
    for target in ("C", "a", "b"):
        for route in (LIST, "node.contract.apply", "node.query"):
            answer = await a.send(b, route, asked, headers={names.TARGET_NODE: target})
            assert answer["code"] == code(Kind.MISADDRESSED)


@pytest.mark.parametrize("header", [names.SOURCE_NODE, names.TARGET_NODE, names.NONCE, names.TIMESTAMP])
async def test_missing_headers(a: Node, b: Node, asked: dict[str, str], header: str) -> None:
    for value in (None, " "):
        answer = await a.send(b, LIST, asked, headers={header: value})
        assert answer["code"] == code(Kind.MALFORMED)
        assert header in answer["msg"]


@pytest.mark.parametrize("value", ["x" * 129, "a\tb", "ü", "\udcff"])
async def test_odd_header_values(a: Node, b: Node, asked: dict[str, str], value: str) -> None:
    for header in (names.SOURCE_NODE, names.NONCE, names.TRACE):
        answer = await a.send(b, LIST, asked, sign=False, headers={header: value})
        assert answer["code"] == code(Kind.MALFORMED)


async def test_aliases_of_headers(a: Node, b: Node, asked: dict[str, str]) -> None:
    def renamed(request: Any) -> Any:
        headers = dict(request.headers)
        headers["x-node-id"] = headers.pop(names.SOURCE_NODE)
        headers["x_timestamp"] = headers.pop(names.TIMESTAMP)
        return replace(request, headers=headers)

    assert (await a.send(b, LIST, asked, after=renamed))["code"] == 0
    # The standard's name wins.
    both = await a.send(b, LIST, asked, headers={"x-node-id": "C"})
    assert both["code"] == 0


async def test_strict_also_wants_csrf_and_trace(world: World) -> None:
    a, b = world.node("A"), world.node("B", strict=True)
    await world.partners(a, b)
    for header in (names.CSRF, names.TRACE):
        answer = await a.send(b, "dataset.audit.terminate", {"audit_id": "x"}, headers={header: None})
        assert answer["code"] == code(Kind.MALFORMED)
        assert header in answer["msg"]
    assert (await a.send(b, "dataset.audit.terminate", {"audit_id": "x"}))["code"] == code(Kind.NOT_FOUND)


async def test_client_certificates(a: Node, b: Node, c: Node, asked: dict[str, str]) -> None:
    """A right signature without the right certificate is not enough."""
    another_a = pki.__wrapped__("A")
    for cert in (None, c.pki, another_a):
        answer = await a.send(b, LIST, asked, cert=cert)
        assert answer["code"] == code(Kind.UNAUTHENTICATED)
        assert (await a.send(b, "node.contract.query", asked, cert=cert))["code"] == code(Kind.UNAUTHENTICATED)
    assert (await a.send(b, LIST, asked))["code"] == 0


async def test_strangers_cannot_tell_partners_from_others(
    world: World, a: Node, b: Node, c: Node, asked: dict[str, str]
) -> None:
    await world.apply(world.node("D"), b)
    answers = set()
    for source in ("A", "D", "nobody"):
        answer = await c.send(b, LIST, asked, headers={names.SOURCE_NODE: source})
        answers.add((answer["code"], answer["msg"], answer["http"]))
    assert len(answers) == 1


async def test_a_third_partner_uses_its_own_contract_only(
    world: World, a: Node, b: Node, c: Node, asked: dict[str, str]
) -> None:
    own = await world.partners(c, b)
    assert (await c.send(b, LIST, {"contract_id": own.contract_id}))["code"] == 0
    assert (await c.send(b, LIST, asked))["code"] == code(Kind.CONTRACT_UNKNOWN)
    assert (await c.send(b, LIST, {"contract_id": "ct-unknown"}))["code"] == code(Kind.CONTRACT_UNKNOWN)
    assert (await c.send(b, LIST, asked, headers={names.SOURCE_NODE: "A"}))["code"] == code(Kind.UNAUTHENTICATED)


async def test_an_applicant_is_not_a_partner_yet(world: World, a: Node, b: Node) -> None:
    contract = await world.apply(a, b)
    answer = await a.send(b, LIST, {"contract_id": contract.contract_id}, cert=None)
    assert answer["code"] == code(Kind.CONTRACT_INVALID)


@pytest.mark.req("M-034")
async def test_a_contract_that_ended_opens_no_signed_route(
    world: World, a: Node, b: Node, asked: dict[str, str]
) -> None:
    """Also where the body names no contract, and although the signature is right."""
    body = {"audit_id": "x"}
    assert (await a.send(b, "dataset.audit.terminate", body))["code"] == code(Kind.NOT_FOUND)
    await b.run(lambda tx: b.partners.terminate(tx, asked["contract_id"]))
    for cert in (None, True):
        answer = await a.send(b, "dataset.audit.terminate", body, cert=cert)
        assert answer["code"] == code(Kind.CONTRACT_INVALID)


async def test_oversize(world: World) -> None:
    a, b = world.node("A"), world.node("B", limits=Limits(body_bytes=20_000))
    await world.partners(a, b)
    answer = await a.send(b, "dataset.audit.terminate", {"audit_id": "x" * 20_000})
    assert (answer["http"], answer["code"]) == (413, code(Kind.TOO_LARGE))
    big = a.request(b, "node.health", {})
    big = replace(big, headers={**big.headers, "x-more": "x" * b.limits.header_bytes})
    assert decoded(await b.edge.handle(big))["code"] == code(Kind.TOO_LARGE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"audit_id": "x"} x',
        b"\xff\xfe",
        b'\xef\xbb\xbf{"audit_id": "x"}',
        b'{"audit_id": "x", "audit_id": "x"}',
        b'{"audit_id": "x", "o": {"k": 1, "k": 2}}',
        b'{"audit_id": "x", "n": NaN}',
        b'{"audit_id": "x", "n": -Infinity}',
        b'{"audit_id": "x", "n": 1e999}',
        b'{"audit_id": "x", "n": 9223372036854775808}',
        b'{"audit_id": "x", "n": ' + b"9" * 5000 + b"}",
        b'{"audit_id": "x", "n": "\\ud800"}',
        b'{"audit_id": "x", "n": "\\u0000"}',
        b'{"audit_id": "x", "\\u0000": 1}',
        b'{"audit_id": "x", "n": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"audit_id": ' + b"[" * 100_000,
        b'{"audit_id": "x", "n": [' + b"1," * 200_001 + b"1]}",
        b'{"audit_id": 1}',
        b'{"audit_id": ""}',
        b'{"audit_id": null}',
        b'{"audit_id": "a/b"}',
        b'{"audit_id": ".."}',
        b'{"audit_id": "a\\n"}',
        b'{"audit_id": "' + b"x" * 129 + b'"}',
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
async def test_bodies_that_are_refused(a: Node, b: Node, asked: dict[str, str], body: bytes) -> None:
    answer = await a.send(b, "dataset.audit.terminate", {}, body=body)
    assert (answer["http"], answer["code"]) == (200, code(Kind.MALFORMED))


@pytest.mark.req("M-015", "M-002")
async def test_bodies_that_are_fine(a: Node, b: Node, asked: dict[str, str]) -> None:
    for body in (
        b'{"audit_id": "x", "unknown": [1, 2.5, {"\\u00fc": "\\ud83d\\ude00"}]}',
        b'{"audit_id": "x", "text": "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[,,,{\\"\\\\"}',
    ):
        answer = await a.send(b, "dataset.audit.terminate", {}, body=body)
        assert answer["code"] == code(Kind.NOT_FOUND)
    for kind, wanted in (
        ("application/json; charset=utf-8", Kind.NOT_FOUND),
        ("text/plain", Kind.MALFORMED),
        ("application/x-www-form-urlencoded", Kind.MALFORMED),
    ):
        answer = await a.send(b, "dataset.audit.terminate", {"audit_id": "x"}, headers={"content-type": kind})
        assert answer["code"] == code(wanted)


@pytest.mark.parametrize("raw", ["a=1&a=2", "a=%ff", "a=%00", "&".join(f"p{i}=1" for i in range(65))])
async def test_odd_queries(a: Node, b: Node, asked: dict[str, str], raw: str) -> None:
    answer = await a.send(b, LIST, asked, after=tampered(raw_query=raw))
    assert answer["code"] == code(Kind.MALFORMED)


@pytest.mark.req("M-010", "M-035", "M-036")
async def test_open_routes_need_nothing(a: Node, b: Node) -> None:
    everything = [names.SOURCE_NODE, names.TARGET_NODE, names.NONCE, names.TRACE, names.TIMESTAMP, names.CSRF]
    bare: dict[str, str | None] = dict.fromkeys(everything)
    for headers in (bare, {}):
        answer = await a.send(b, "node.query", {"node_id": "B"}, sign=False, cert=None, headers=headers)
        assert answer["code"] == 0
        assert answer["data"] == {
            "node_id": "B",
            "inst_id": "JGB",
            "name": "node B",
            "institution": "Institution B",
            "system": "interconn",
            "system_version": "0.1",
            "address": "https://b.example:7304",
            "description": "",
        }
        health = await a.send(b, "node.health", {}, sign=False, cert=None, headers=headers)
        assert health["data"] == {"status": "ok"}
    assert (await a.send(b, "node.query", {"node_id": "C"}, sign=False))["code"] == code(Kind.NODE_UNKNOWN)
    assert (await a.send(b, "node.query", {}, sign=False))["code"] == code(Kind.MALFORMED)


async def test_unsigned_routes_are_rationed_per_address(world: World) -> None:
    a, b = world.node("A"), world.node("B", limits=Limits(unsigned_per_minute=3))
    for wanted in (0, 0, 0, 429, 429):
        answer = await a.send(b, "node.health", {}, sign=False)
        assert (answer["code"], answer["http"]) == (wanted, 429 if wanted else 200)
    elsewhere = await a.send(b, "node.health", {}, sign=False, after=tampered(peer_address="10.0.0.8"))
    assert elsewhere["code"] == 0
    world.clock.ms += 60_000
    assert (await a.send(b, "node.health", {}, sign=False))["code"] == 0


def test_the_ration_book_is_bounded() -> None:
    limit = RateLimit(per_minute=1, addresses=2)
    for address in ("a", "b", "c"):
        limit.count(address, now=0)
    assert len(limit._seen) == 2
    with pytest.raises(GatewayError):
        limit.count("c", now=59)


async def test_a_signed_apply_is_not_replayed(a: Node, b: Node) -> None:
    body = a.partners.apply_body(expired_time=None, description="")
    request = a.request(b, "node.contract.apply", body, cert=None)
    assert decoded(await b.edge.handle(request))["code"] == 0
    assert decoded(await b.edge.handle(request))["code"] == code(Kind.REPLAYED)
    assert await b.run(lambda tx: tx.count(Contract)) == 1


@pytest.mark.req("M-076")
def test_no_error_has_code_0_or_200() -> None:
    assert not {wire.code for wire in WIRE.values()} & {0, 104, 200}


async def test_unexpected_errors_tell_nothing(world: World) -> None:
    async def broken(_caller: Caller, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        raise ValueError(f"secret {payload}")

    a, b = world.node("A"), world.node("B", handlers={"job.start": broken})
    await world.partners(a, b)
    answer = await a.send(b, "job.start", {"job_id": "job-1", "word": "payload"})
    assert (answer["http"], answer["code"], answer["data"]) == (200, code(Kind.INTERNAL), {})
    assert answer["msg"] == "internal error (trace tr-test)"
    (event,) = b.journal.of("edge.error")
    assert event["error"] == "ValueError"
    assert event["trace_id"] == "tr-test"
    assert "secret" not in json.dumps(b.journal.events)


async def test_handlers_get_the_proven_caller(world: World) -> None:
    seen: list[tuple[Caller, Mapping[str, Any]]] = []

    async def handler(caller: Caller, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        seen.append((caller, payload))
        return {"ok": 1}

    a = world.node("A")
    b = world.node("B", handlers={"job.start": handler, "job.status_all": handler})
    contract = await world.partners(a, b)
    answer = await a.send(b, "job.start", {"job_id": "j"}, headers={names.MPRAC_TOKEN_SET: "urn/2/t"})
    assert answer["data"] == {"ok": 1}
    caller, payload = seen[0]
    assert (caller.node_id, caller.trace_id, caller.token_set) == ("A", "tr-test", "urn/2/t")
    assert caller.contract is not None
    assert caller.contract.contract_id == contract.contract_id
    assert caller.proven
    assert payload == {"job_id": "j"}
    assert "urn/2/t" not in repr(caller)
    # status_all is a POST with its parameter in the query (2-control 3.7); our client sends it in both places.
    reply = await a.client.call(contract, "job.status_all", {"job_id": "j2"}, trace_id=caller.trace_id)
    assert reply.data == {"ok": 1}
    assert seen[1][1] == {"job_id": "j2"}


async def test_calls_are_journalled(a: Node, b: Node, asked: dict[str, str]) -> None:
    b.journal.events.clear()
    await a.send(b, LIST, asked)
    await a.send(b, LIST, {}, headers={names.TRACE: "tr-2"})
    (good,), (bad,) = b.journal.of("edge.call"), b.journal.of("edge.refused")
    assert {"peer": "A", "route": LIST, "code": 0, "trace_id": "tr-test"}.items() <= good.items()
    assert {"peer": "A", "route": LIST, "code": 400, "trace_id": "tr-2", "kind": "malformed"}.items() <= bad.items()
    assert {"ms", "bytes"} <= set(good)
    text = json.dumps([good, bad])
    assert asked["contract_id"] not in text


async def test_a_refusal_changes_nothing(a: Node, b: Node, asked: dict[str, str]) -> None:
    await b.add_dataset("ds")
    body = {**asked, "audit_id": "au-1", "dataset_id": "ds"}
    for changes in (
        {"sign": False},
        {"headers": {names.TARGET_NODE: "C"}},
        {"headers": {names.TIMESTAMP: "1"}},
        {"cert": None},
        {"after": tampered(body=b"{}")},
    ):
        assert (await a.send(b, "dataset.audit.apply", body, **changes))["code"] != 0
    assert await b.run(lambda tx: tx.count(Audit)) == 0


@pytest.mark.req("M-006", "M-007", "M-008", "M-009", "M-002")
async def test_headers_of_our_calls(world: World, a: Node, b: Node, asked: dict[str, str]) -> None:
    await b.add_dataset("ds")
    await world.grant(a, b, "ds")
    await a.admin_call("GET", "/v1/admin/partners/B/datasets")
    calls = [*a.client.calls, *b.client.calls]
    assert {"node.query", "node.contract.apply", "node.contract.confirm", LIST, "dataset.audit.apply"} <= {
        name for name, _ in calls
    }
    for name, headers in calls:
        assert headers[names.SOURCE_NODE] in ("A", "B")
        assert {headers[names.SOURCE_NODE], headers[names.TARGET_NODE]} == {"A", "B"}
        assert headers[names.NONCE]
        assert headers[names.TRACE]
        assert headers[names.TIMESTAMP].isdigit()
        assert len(headers[names.TIMESTAMP]) == 13
        if ROUTES[name].method == "POST":
            assert headers[names.CSRF]
            assert headers["content-type"] == "application/json"
        if ROUTES[name].auth in (Auth.SIGNED, Auth.APPLICANT):
            assert headers[names.AUTH_SIGN]
    assert len({headers[names.NONCE] for _, headers in calls}) == len(calls)
