"""What somebody may try who is no partner, or a partner that means ill; each was possible once."""

from typing import Any

import pytest

from gateway.auth.keys import load_signer
from gateway.auth.schemes import Signer
from gateway.data_plane.io.edge import roots_of
from gateway.errors import WIRE, Kind
from gateway.model import Limits
from specs import headers as names
from specs.states import ApprovalState, AuthType
from tests.mgmt.test_audits import authorise, held, use
from tests.mgmt.world import Node, World, credential_text, pki


def impostor(node_id: str) -> Signer:
    """Keys that somebody made who calls itself `node_id`."""
    made = pki.__wrapped__(node_id)
    return load_signer(
        auth_type=AuthType.CERT,
        key_uri=made.signing_key.as_uri(),
        credential=credential_text(made, AuthType.CERT),
    )


async def applied_as(victim: Node, at: Node, keys: Signer) -> str:
    """An application in the name of `victim`, with other keys; the contract's id."""
    body: dict[str, Any] = {
        "node_id": victim.id,
        "inst_id": "JGX",
        "name": "x",
        "institution": "x",
        "system": "x",
        "system_version": "1",
        "address": "https://x.example",
        "auth_type": keys.auth_type.value,
        "auth_credential": keys.credential,
    }
    answer = await victim.send(at, "node.contract.apply", body, signer=keys, cert=None)
    assert answer["code"] == 0
    return str(answer["data"]["contract_id"])


async def test_an_applicant_in_a_partners_name_uses_up_nothing_of_the_partners(world: World) -> None:
    """Neither a nonce of it nor its part of the memory."""
    a, b = world.node("A"), world.node("B", limits=Limits(nonces=100, request_attempts=1, unsigned_per_minute=1000))
    ours = {"contract_id": (await world.partners(a, b)).contract_id}
    keys = impostor("A")
    theirs = {"contract_id": await applied_as(a, b, keys)}
    answers = [
        (await a.send(b, "node.contract.query", theirs, signer=keys, cert=None, headers={names.NONCE: f"n{i}"}))["code"]
        for i in range(50)
    ]
    assert answers[0] == 0
    assert answers[-1] == WIRE[Kind.TOO_MANY].code
    for i in range(5):
        assert (await a.send(b, "dataset.pub.list", ours, headers={names.NONCE: f"n{i}"}))["code"] == 0


async def test_signed_calls_of_applicants_are_counted_like_unsigned_ones(world: World) -> None:
    a, b = world.node("A"), world.node("B", limits=Limits(unsigned_per_minute=5, request_attempts=1))
    contract = await world.apply(a, b)
    answers = [
        (await a.send(b, "node.contract.query", {"contract_id": contract.contract_id}, cert=None))["code"]
        for _ in range(7)
    ]
    assert answers[0] == 0
    assert answers[-1] == WIRE[Kind.TOO_MANY].code


async def test_a_call_of_an_applicant_is_not_taken_again_once_it_is_a_partner(world: World, a: Node, b: Node) -> None:
    contract = await world.apply(a, b)
    seen = a.request(b, "node.contract.query", {"contract_id": contract.contract_id})
    assert (await b.edge.handle(seen)).status == 200
    await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/approve")
    again = await b.edge.handle(seen)
    assert f'"code":{WIRE[Kind.REPLAYED].code}'.encode() in again.body


async def test_a_new_contract_brings_no_grant_of_an_expired_one_back(world: World, a: Node, b: Node) -> None:
    await b.add_dataset("ds", public=False)
    contract = await world.apply(a, b)
    end = world.clock.ms + 10_000
    await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/approve", {"expired_time": end})
    await b.flush()
    await world.grant(a, b, "ds")
    permits = await held(a, "ds")
    assert await authorise(b, permits, [use("psi")], job="job-1") is None
    world.clock.ms = end
    contract = await world.partners(a, b)
    assert await authorise(b, permits, [use("psi")], job="job-2") is Kind.GRANT_EXPIRED
    asked = {"contract_id": contract.contract_id, "dataset_id": "ds"}
    assert (await a.send(b, "dataset.pub.query", asked))["code"] == WIRE[Kind.NOT_FOUND].code


async def test_what_was_granted_can_be_ended_after_the_contract_has_expired(world: World, a: Node, b: Node) -> None:
    await b.add_dataset("ds")
    contract = await world.apply(a, b)
    end = world.clock.ms + 10_000
    await b.admin_call("POST", f"/v1/admin/partners/{contract.contract_id}/approve", {"expired_time": end})
    await b.flush()
    audit = await world.grant(a, b, "ds")
    world.clock.ms = end
    ended = await b.admin_call("POST", f"/v1/admin/audits/A/{audit.audit_id}/terminate")
    assert ended["status"] == ApprovalState.TERMINATED


async def test_a_project_that_was_refused_or_has_ended_opens_no_data(world: World, a: Node, b: Node) -> None:
    """A grant for one project is for the time in which both take part in it."""
    await world.partners(a, b)
    await b.add_dataset("ds")
    shown = await a.admin_call(
        "POST", "/v1/admin/projects", {"name": "p", "type": "MPC", "datasets": {"A": [], "B": ["ds"]}}
    )
    project = shown["project_id"]
    await a.flush()
    audit = next(each for each in await b.admin_call("GET", "/v1/admin/audits") if each["kind"] == "project")
    await world.grant(a, b, "ds", auth_scope={"PROJECT": [project]})
    permits = await held(a, "ds")
    where = f"/v1/admin/audits/A/{audit['audit_id']}"
    assert await authorise(b, permits, [use("psi")], project=project, job="job-1") is Kind.GRANT_MISSING
    await b.admin_call("POST", f"{where}/approve")
    assert await authorise(b, permits, [use("psi")], project=project, job="job-2") is None
    await b.admin_call("POST", f"{where}/terminate")
    assert await authorise(b, permits, [use("psi")], project=project, job="job-3") is Kind.GRANT_MISSING


async def test_a_newcomer_shuts_no_partner_out_by_the_name_of_its_ca(
    world: World, a: Node, b: Node, c: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not after a restart, when the data process has forgotten whom it pinned first."""
    await world.partners(a, b)
    await world.partners(c, b)
    monkeypatch.setattr("gateway.data_plane.io.tls.subject", lambda _: "CN=the same")
    roots, problems = roots_of(await b.run(b.partners.routes), pinned={})
    assert set(roots) == {a.id}
    assert len(problems) == 1
