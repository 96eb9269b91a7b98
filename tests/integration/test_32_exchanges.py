"""Two gateways go through every exchange of the management layer, over TLS, each driven through the admin API.

What passed is read off the taps: the request as the calling gateway made it, the answer as the called one gave it.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specs.routes import BY_PATH, MANAGEMENT, Auth
from tests import postgres
from tests.integration import rig as rigs
from tests.integration.rig import Rig, Side
from tests.integration.tap import Exchange, Tap
from tests.waiting import wait_for

JOB_AUDITS = frozenset({"job.audit.apply", "job.audit.confirm", "job.audit.terminate"})
"""Came with v1.1.0."""
STEPS = [{"component": "psi"}]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A pair of its own: the last exchange of a tour ends the contract."""
    made = rigs.start(Path(tmp_path_factory.mktemp("all")) / "lab")
    try:
        yield made
    finally:
        made.close()


class Tour:
    """The bank applies for everything, payment decides; each then asks and ends what the standard lets it."""

    def __init__(self, rig: Rig, contract_id: str) -> None:
        self.rig = rig
        self.bank, self.payment = rig.bank, rig.payment
        self.contract_id = contract_id

    def ask(self, side: Side, route: str, **query: Any) -> dict[str, Any]:
        other = self.payment if side is self.bank else self.bank
        found: dict[str, Any] = side.client.post("partners", other.node_id, "ask", route=route, query=query)
        return found

    def approved(self, kind: str, audit_id: str) -> None:
        """Payment approves; the bank learns it from confirm, and could have asked."""
        self.rig.decide(self.payment, audit_id, "approve")
        assert self.rig.settled(self.bank, audit_id)["status"] == "APPROVED"
        if kind != "job":
            assert self.ask(self.bank, f"{kind}.audit.query", audit_id=audit_id) == {"status": "APPROVED"}

    def ended(self, kind: str, audit_id: str, *, by: Side) -> None:
        by.client.post("audits", self.bank.node_id, audit_id, "terminate")
        other = self.payment if by is self.bank else self.bank
        wait_for(lambda: self.rig._audit(other, audit_id)["status"] == "TERMINATED", f"{kind} {audit_id} ends")

    def node(self) -> None:
        about = self.ask(self.payment, "node.query")
        assert about["node_id"] == self.bank.node_id
        assert self.ask(self.bank, "node.health") == {"status": "ok"}
        assert self.bank.client.post("partners", self.contract_id, "query")["reported"] == "APPROVED"

    def node_update(self) -> None:
        """A new signing key of the bank's; the old one stays good for the overlap."""
        key_id = self.bank.client.post("keys", "rotate")["key_id"]

        def told() -> bool:
            known = self.bank.client.get("keys")["partners"]
            return all(each["told"] for each in known if each["contract_id"] == self.contract_id)

        wait_for(told, f"payment has acknowledged the key {key_id}")

    def dataset(self) -> tuple[str, str]:
        rows = [{"id": n, "x": n * 1.5} for n in range(8)]
        ours, theirs = self.rig.add_dataset(self.bank, rows), self.rig.add_dataset(self.payment, rows)
        assert theirs in {each["dataset_id"] for each in self.ask(self.bank, "dataset.pub.list")["records"]}
        detail = self.ask(self.bank, "dataset.pub.query", dataset_id=theirs)
        assert [each["name"] for each in detail["column_metas"]] == ["id", "x"]
        audit = self.bank.client.post("datasets", "apply", node_id=self.payment.node_id, dataset_id=theirs)
        self.approved("dataset", audit["audit_id"])
        self.ended("dataset", audit["audit_id"], by=self.payment)
        self.rig.grant(theirs)
        return ours, theirs

    def project(self, ours: str, theirs: str) -> str:
        made = self.bank.client.post(
            "projects",
            name="tour",
            type="PSI",
            datasets={self.bank.node_id: [ours], self.payment.node_id: [theirs]},
        )
        project_id = str(made["project_id"])
        audit = wait_for(lambda: self.rig._audit(self.payment, project_id), "project applied")
        self.approved("project", audit["audit_id"])
        assert project_id in {each["project_id"] for each in self.ask(self.payment, "project.list")["records"]}
        detail = self.ask(self.payment, "project.query", project_id=project_id)
        assert detail["datasets"] == {self.bank.node_id: [ours], self.payment.node_id: [theirs]}
        return project_id

    def component(self) -> None:
        records = self.ask(self.bank, "component.list", page_size=-1)["records"]
        psi = next(each for each in records if "psi" in each["code"])
        detail = self.ask(self.bank, "component.query", code=psi["code"], version=psi["version"])
        assert detail["name"] == "psi"

    def flow(self) -> None:
        component = {"name": "psi_1", "componentName": "psi", "provider": "interconn", "version": "1.0.0"}
        audit = self.bank.client.post(
            "audits",
            "apply",
            kind="flow",
            node_id=self.payment.node_id,
            subject="fl-tour",
            body={"name": "tour", "dag": {"version": "2.0", "components": [{**component, "input": [], "output": []}]}},
        )
        self.approved("flow", audit["audit_id"])
        self.ended("flow", audit["audit_id"], by=self.bank)

    def model(self, project_id: str) -> None:
        audit = self.bank.client.post(
            "audits",
            "apply",
            kind="model",
            node_id=self.payment.node_id,
            subject="md-tour",
            body={"apply_project_id": project_id},
        )
        self.approved("model", audit["audit_id"])
        self.ended("model", audit["audit_id"], by=self.payment)

    def job(self, project_id: str, data: tuple[str, str]) -> None:
        file = self.rig.job_file(project_id, data, STEPS)
        job_id = str(self.bank.client.post_json("jobs", body=file)["job_id"])
        audit = wait_for(lambda: self.rig._audit(self.payment, job_id), "the job's audit arrives")
        self.payment.client.post("jobs", job_id, "approve")
        assert self.rig.settled(self.bank, audit["audit_id"])["status"] == "APPROVED"
        self.ended("job", audit["audit_id"], by=self.payment)

    def finish(self, project_id: str) -> None:
        audit = self.rig._audit(self.bank, project_id)
        assert audit is not None
        self.ended("project", audit["audit_id"], by=self.bank)
        self.payment.client.post("partners", self.contract_id, "terminate")
        wait_for(lambda: self._status(self.bank) == "TERMINATED", "the contract ends")

    def _status(self, side: Side) -> str:
        return next(
            str(each["status"]) for each in side.client.get("partners") if each["contract_id"] == self.contract_id
        )

    def all(self, *, jobs: bool) -> None:
        self.node()
        self.node_update()
        data = self.dataset()
        project_id = self.project(*data)
        self.component()
        self.flow()
        self.model(project_id)
        if jobs:
            self.job(project_id, data)
        self.finish(project_id)


def since(tap: Tap, ms: int) -> list[Exchange]:
    """What passed a tap from this moment on, by the callers' clock."""
    return [each for each in tap.exchanges() if int(each.headers["x-timestamp"]) >= ms]


def passed(rig: Rig, ms: int = 0) -> dict[str, list[Exchange]]:
    """The management exchanges on the taps by route."""
    found: dict[str, list[Exchange]] = {}
    for exchange in [each for tap in rig.taps.values() for each in since(tap, ms)]:
        name = BY_PATH.get((exchange.method, exchange.path), "")
        if name in MANAGEMENT:
            found.setdefault(name, []).append(exchange)
    return found


def paired_by_invite(rig: Rig) -> str:
    """The contract_id of a new contract for which the bank applied with payment's invitation."""
    file = rig.payment.client.post("invites")["file"]
    applied = rig.bank.client.post("invites", "apply", file=file, fingerprint=rig.payment.node.fingerprint())
    contract_id = str(applied["contract_id"])
    rig.payment.client.post("partners", contract_id, "approve", fingerprint=rig.bank.node.fingerprint())
    wait_for(
        lambda: any(
            each["contract_id"] == contract_id and each["status"] == "APPROVED"
            for each in rig.bank.client.get("partners")
        ),
        "the contract is confirmed",
    )
    return contract_id


@pytest.mark.req("M-001", "M-006", "M-008", "M-009", "M-052", "M-055", "M-061")
def test_all_exchanges(pair: Rig) -> None:
    Tour(pair, pair.contract_id).all(jobs=True)
    seen = passed(pair)
    assert set(seen) == set(MANAGEMENT)
    assert len(MANAGEMENT) == 32
    for name, exchanges in seen.items():
        route = MANAGEMENT[name]
        for each in exchanges:
            assert each.status == 200, name
            assert each.reply.startswith(b'{"code":0,'), (name, each.reply)
            assert {"x-source-node-id", "x-target-node-id", "x-nonce", "x-trace-id", "x-timestamp"} <= set(each.headers)
            if route.method == "POST":
                assert each.headers["x-csrf-protection"], name
            if route.auth in (Auth.SIGNED, Auth.APPLICANT):
                assert each.headers["x-auth-sign"], name
            if route.auth is Auth.SIGNED:
                assert each.client_certificate, name


def test_all_exchanges_of_two_databases(tmp_path: Path, postgres_server: postgres.Server) -> None:
    """The bank keeps its state in SQLite, payment in PostgreSQL."""
    made = rigs.start(tmp_path / "lab", payment_store=postgres_server.database())
    try:
        Tour(made, made.contract_id).all(jobs=True)
        seen = passed(made)
        assert set(seen) == set(MANAGEMENT)
        assert {json.loads(each.reply)["code"] for exchanges in seen.values() for each in exchanges} == {0}
        assert (made.bank.folder / "state.db").exists()
        assert not (made.payment.folder / "state.db").exists()
    finally:
        made.close()


def test_all_exchanges_with_a_partner_of_v1_0(pair: Rig) -> None:
    """Payment speaks v1.0 to the bank, which understands it: 29 exchanges, since job audits came with v1.1.0.

    Goes after the other: that contract has ended. Apply and confirm pass before the profiles are set.
    """
    start = time.time_ns() // 1_000_000
    contract_id = paired_by_invite(pair)
    pair.payment.client.post("partners", pair.bank.node_id, "profile", profile="legacy-1.0")
    assert pair.bank.client.post("partners", pair.payment.node_id, "doctor")["fits"] == "legacy-1.0"
    pair.bank.client.post("partners", pair.payment.node_id, "profile", profile="lenient")
    spoken = time.time_ns() // 1_000_000
    tour = Tour(pair, contract_id)
    assert tour.ask(pair.payment, "component.list")["total"] > 0
    tour.all(jobs=False)
    assert set(passed(pair, start)) == set(MANAGEMENT) - JOB_AUDITS
    assert len(set(MANAGEMENT) - JOB_AUDITS) == 29
    to_bank, to_payment = since(pair.taps["bank"], spoken), since(pair.taps["payment"], spoken)
    confirms = [json.loads(each.body) for each in to_bank if each.path.endswith("/confirm")]
    permits = [each["resource_permit"] for each in confirms if "resource_permit" in each]
    assert permits
    assert all(each["resourse_node_id"] == pair.payment.node_id for each in permits)
    assert not any("resource_node_id" in each for each in permits)
    lists = [each for each in to_bank if each.path.endswith("/component/list")]
    assert lists
    assert all("contractId=" in each.target and "contract_id=" not in each.target for each in lists)
    # A reply in v1.0's words goes to a proven partner alone; node/health proves nothing.
    codes = {each.path.rpartition("/interconn/")[2]: json.loads(each.reply)["code"] for each in to_payment}
    assert codes.pop("node/health") == 0
    assert set(codes.values()) == {200}
    assert {json.loads(each.reply)["code"] for each in to_bank} == {0}
