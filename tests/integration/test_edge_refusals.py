"""What a partner, or somebody who says so, must not get at the edge of a real gateway."""

import json
import ssl
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.errors import WIRE, Kind
from tests.integration.rig import Partner, Rig


@pytest.fixture
def partner(rig: Rig) -> Partner:
    """The bank, at payment's edge."""
    return Partner(rig.payment, rig.bank.node_id, rig.bank.pki)


def code(kind: Kind) -> int:
    return WIRE[kind].code


def listing(rig: Rig) -> Mapping[str, Any]:
    return {"contract_id": rig.contract_id}


def stored(rig: Rig) -> str:
    """Everything payment's admin can see, as one text: what a refused call must leave as it was."""
    return json.dumps([rig.payment.client.get(kind) for kind in ("partners", "datasets", "audits", "jobs")])


@pytest.mark.req("M-002", "M-003", "M-004", "M-016")
def test_a_right_request_passes(rig: Rig, partner: Partner) -> None:
    status, reply = partner.call("dataset.pub.list", listing(rig))
    assert (status, reply["code"]) == (200, 0)
    assert isinstance(reply["data"]["records"], list)
    method, target, headers, body = partner.prepare("dataset.pub.list", listing(rig))
    status, raw = partner.send(method, target, {name.upper(): value for name, value in headers.items()}, body)
    assert json.loads(raw)["code"] == 0


@pytest.mark.req("M-005", "M-009", "M-011", "M-013", "M-014", "M-076")
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("unsigned", Kind.UNAUTHENTICATED),
        ("wrong signature", Kind.UNAUTHENTICATED),
        ("garbage signature", Kind.UNAUTHENTICATED),
        ("other body", Kind.UNAUTHENTICATED),
        ("stale", Kind.STALE),
        ("from the future", Kind.STALE),
        ("misaddressed", Kind.MISADDRESSED),
        ("unknown node", Kind.UNAUTHENTICATED),
        ("no certificate", Kind.UNAUTHENTICATED),
    ],
)
def test_refusals_change_nothing_and_are_logged(rig: Rig, partner: Partner, what: str, expected: Kind) -> None:
    before = stored(rig)
    body = {"audit_id": f"au-{what}", "contract_id": rig.contract_id, "dataset_id": "ds-x"}
    trace = f"tr-refusal-{what.replace(' ', '-')}"
    headers: dict[str, str | None] = {"x-trace-id": trace}
    more: dict[str, Any] = {}
    if what == "unsigned":
        more["sign"] = False
    elif what == "wrong signature":
        more["sign"] = lambda text: partner._signature(text + b"x")
    elif what == "garbage signature":
        more["sign"] = lambda _: "AAAA"
    elif what == "stale":
        headers["x-timestamp"] = "1700000000000"
    elif what == "from the future":
        headers["x-timestamp"] = "2000000000000"
    elif what == "misaddressed":
        headers["x-target-node-id"] = "LX9999999999999"
    elif what == "unknown node":
        headers["x-source-node-id"] = "LX9999999999999"
    elif what == "no certificate":
        more["certificate"] = False
    if what == "other body":
        method, target, sent, _ = partner.prepare("dataset.audit.apply", body, headers=headers)
        status, raw = partner.send(method, target, sent, json.dumps({**body, "times_limit": 999}).encode())
        reply = json.loads(raw)
    else:
        status, reply = partner.call("dataset.audit.apply", body, headers=headers, **more)
    assert (status, reply["code"]) == (200, code(expected))
    assert reply["data"] == {}
    assert trace in reply["msg"]
    assert stored(rig) == before
    noted = rig.payment.events(trace_id=trace)
    assert [event["event"] for event in noted] == ["edge.refused"]
    assert noted[0]["code"] == code(expected)


@pytest.mark.req("M-012")
def test_a_replayed_request_is_refused(rig: Rig, partner: Partner) -> None:
    request = partner.prepare("dataset.pub.list", listing(rig))
    assert json.loads(partner.send(*request)[1])["code"] == 0
    assert json.loads(partner.send(*request)[1])["code"] == code(Kind.REPLAYED)


@pytest.mark.req("M-010", "M-035", "M-036")
def test_the_open_endpoints_need_no_signature_and_show_no_credential(rig: Rig, partner: Partner) -> None:
    _, reply = partner.call("node.query", {"node_id": rig.payment.node_id}, sign=False, certificate=False)
    assert reply["code"] == 0
    assert reply["data"].keys() == {
        "address",
        "description",
        "inst_id",
        "institution",
        "name",
        "node_id",
        "system",
        "system_version",
    }
    _, reply = partner.call("node.health", {}, sign=False, certificate=False)
    assert reply["data"] == {"status": "ok"}


@pytest.mark.req("M-038", "M-073", "C-032", "C-037", "C-051", "C-067")
@pytest.mark.parametrize(
    ("route", "payload", "expected"),
    [
        ("node.contract.query", {"contract_id": "ct-00000000000000000000000000000000"}, Kind.CONTRACT_UNKNOWN),
        ("dataset.pub.list", {"contract_id": "ct-00000000000000000000000000000000"}, Kind.CONTRACT_UNKNOWN),
        ("dataset.audit.query", {"audit_id": "au-unknown"}, Kind.NOT_FOUND),
        ("dataset.audit.confirm", {"audit_id": "au-unknown", "status": "APPROVED"}, Kind.NOT_FOUND),
        ("job.start", {"job_id": "job-unknown"}, Kind.NOT_FOUND),
        ("job.status_all", {"job_id": "job-unknown"}, Kind.NOT_FOUND),
        ("task.poll", {"task_id": "task_unknown", "role": "host"}, Kind.NOT_FOUND),
        ("task.start", {"task_id": "task_unknown", "job_id": "job-unknown", "task_name": "psi_1"}, Kind.NOT_FOUND),
    ],
)
def test_unknown_things(rig: Rig, partner: Partner, route: str, payload: dict[str, Any], expected: Kind) -> None:
    before = stored(rig)
    status, reply = partner.call(route, payload)
    assert (status, reply["code"]) == (200, code(expected)), reply
    assert stored(rig) == before


def test_an_unknown_dataset(rig: Rig, partner: Partner) -> None:
    _, reply = partner.call("dataset.pub.query", {"contract_id": rig.contract_id, "dataset_id": "ds-unknown"})
    assert reply["code"] == code(Kind.NOT_FOUND)


def test_an_unknown_path(rig: Rig, partner: Partner) -> None:
    for path in ("/v1/interconn/nothing", "/v1/admin/jobs", "/v1/platform/schedule/job/create_all", "/link/snapshot"):
        status, raw = partner.send("POST", path, {}, b"{}")
        assert status == 404
        assert json.loads(raw)["code"] == code(Kind.NOT_FOUND)


@pytest.mark.req("T-054")
def test_the_own_sides_channel_is_not_at_the_edge(rig: Rig, partner: Partner) -> None:
    headers = {
        "x-ptp-session-id": "s",
        "x-ptp-source-node-id": partner.source,
        "x-ptp-target-node-id": partner.to.node_id,
    }
    for operation in ("push", "pop", "peek", "release"):
        status, raw = partner.send(
            "POST", f"/v1/interconn/chan/{operation}", {**headers, "content-type": "application/json"}, b"{}"
        )
        reply = json.loads(raw)
        assert status == 404 or reply["code"] != "E0000000000"


def test_oversize_bodies_are_refused_before_they_are_read(rig: Rig, partner: Partner) -> None:
    padding = "x" * (5 << 20)
    status, reply = partner.call("dataset.audit.apply", {"audit_id": "a", "padding": padding})
    assert (status, reply["code"]) == (413, code(Kind.TOO_LARGE))


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"audit_id": 1e999}',
        b'{"a":1,"a":2}',
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b'{"a": NaN}',
        b"\xff\xfe",
    ],
)
def test_malformed_json(rig: Rig, partner: Partner, body: bytes) -> None:
    status, reply = partner.call("dataset.audit.apply", {}, body=body)
    assert (status, reply["code"]) == (200, code(Kind.MALFORMED))


@pytest.mark.req("M-022")
@pytest.mark.parametrize(
    "member",
    [
        "address",
        "auth_credential",
        "auth_type",
        "inst_id",
        "institution",
        "name",
        "node_id",
        "system",
        "system_version",
    ],
)
def test_apply_without_a_mandatory_member(rig: Rig, partner: Partner, member: str) -> None:
    body = {
        "address": "https://127.0.0.1:1",
        "auth_credential": (rig.bank.pki / "signing.pem").read_text(),
        "auth_type": "CERT",
        "inst_id": "JG",
        "institution": "i",
        "name": "n",
        "node_id": rig.bank.node_id,
        "system": "s",
        "system_version": "1",
    }
    before = stored(rig)
    del body[member]
    _, reply = partner.call("node.contract.apply", body, sign=False, certificate=False)
    assert reply["code"] == code(Kind.MALFORMED)
    assert member in reply["msg"]
    assert stored(rig) == before


def test_apply_signed_with_another_key_than_it_carries(rig: Rig, partner: Partner) -> None:
    body = {
        "address": "https://127.0.0.1:1",
        "auth_credential": (rig.payment.pki / "signing.pem").read_text(),
        "auth_type": "CERT",
        "inst_id": "JG",
        "institution": "i",
        "name": "n",
        "node_id": rig.bank.node_id,
        "system": "s",
        "system_version": "1",
    }
    _, reply = partner.call("node.contract.apply", body, certificate=False)
    assert reply["code"] == code(Kind.UNAUTHENTICATED)


@pytest.mark.req("T-002")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(rig: Rig, partner: Partner) -> None:
    import socket

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", partner.edge_port()), timeout=10) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw)
