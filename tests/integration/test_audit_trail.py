"""The audit trail of a real gateway, exported and judged with the commands of an auditor, and what monitoring sees."""

import http.client
import json
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway import cli
from specs.routes import ROUTES
from tests.integration.rig import Partner, Rig, Side
from tests.waiting import wait_for


def interconn(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(list(arguments))
    return code, capsys.readouterr().out


def ask(side: Side, path: str, *, token: bool = True) -> tuple[int, str]:
    parts = urlsplit(side.client.url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    secret = (side.folder / "admin.token").read_text().strip()
    connection.request("GET", path, headers={"Authorization": f"Bearer {secret}"} if token else {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def entries(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()[1:]]


def test_an_auditor_exports_and_verifies(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = rig.add_dataset(rig.payment, [{"id": 1, "x": 2}])
    audit = rig.grant(dataset)
    stranger = Partner(rig.payment, rig.bank.node_id, rig.payment.pki)
    assert stranger.call("project.list", {"contract_id": "x"}, certificate=False)[1]["code"] == 401

    config, ca = str(rig.payment.folder / "node.toml"), str(rig.payment.pki / "ca.pem")
    file = tmp_path / "trail.jsonl"

    def export() -> list[dict[str, Any]] | None:
        file.unlink(missing_ok=True)
        assert interconn(capsys, "audit", "export", "--config", config, "--out", str(file))[0] == 0
        found = entries(file)
        return found if any(each["event"] == "auth.failed" for each in found) else None

    found = wait_for(export, "the failed authentication is written")
    assert file.stat().st_size > 0
    assert found[0]["event"] == "node.started"
    assert set(found[0]["facts"]) >= {"config_sha256", "version"}
    told = {(each["event"], each["actor"], each["facts"].get("about", "")) for each in found}
    assert ("contract.approved", "admin", "") in told
    assert ("audit.applied", "partner", dataset) in told
    assert ("audit.approved", "admin", dataset) in told
    assert any(each["event"] == "grant.made" and each["facts"]["dataset_id"] == dataset for each in found)
    assert audit["audit_id"] in file.read_text()
    assert 'token"' not in file.read_text()

    code, text = interconn(capsys, "audit", "verify", str(file), "--ca", ca)
    assert code == 0
    assert "complete and unchanged" in text
    code, text = interconn(capsys, "audit", "verify", str(file), "--fingerprint", rig.payment.node.fingerprint())
    assert code == 0
    code, text = interconn(capsys, "audit", "verify", str(file))
    assert code == 0
    assert "Compare it" in text
    code, text = interconn(capsys, "audit", "verify", str(file), "--ca", str(rig.bank.pki / "ca.pem"))
    assert code == 1
    assert text.startswith("line 1: ")

    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:4], *lines[5:]]))
    code, text = interconn(capsys, "audit", "verify", str(file), "--ca", ca, "--json")
    assert code == 1
    verdict = json.loads(text)
    assert not verdict["ok"]
    assert verdict["problems"][0]["line"] == 5
    assert "missing" in verdict["problems"][0]["text"]
    assert interconn(capsys, "audit", "export", "--config", config, "--out", str(file))[0] == 1  # it exists


def test_csv_on_standard_output_and_times(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, ca = str(rig.bank.folder / "node.toml"), str(rig.bank.pki / "ca.pem")
    code, text = interconn(capsys, "audit", "export", "--config", config, "--format", "csv", "--since", "2020-01-01")
    assert code == 0
    assert text.startswith("seq,at,time,event,")
    file = tmp_path / "trail.csv"
    file.write_text(text)
    assert interconn(capsys, "audit", "verify", str(file), "--ca", ca)[0] == 0
    file.write_text(text.replace("contract.approved", "contract.rejected", 1))
    code, text = interconn(capsys, "audit", "verify", str(file), "--ca", ca)
    assert code == 1
    assert "was changed" in text
    code, text = interconn(capsys, "audit", "export", "--config", config, "--until", "2020-01-01T00:00+01:00")
    assert code == 0
    assert text.count("\n") == 1


def test_monitoring(rig: Rig) -> None:
    assert ask(rig.bank, "/healthz", token=False)[0] == 200
    assert json.loads(ask(rig.bank, "/readyz", token=False)[1])["status"] == "ok"
    assert ask(rig.bank, "/metrics", token=False)[0] == 401
    status, text = ask(rig.bank, "/metrics")
    assert status == 200
    assert 'interconn_requests_total{door="edge",route="node.contract.confirm",code="0"} 1' in text
    assert 'interconn_approvals{kind="contract",direction="OUT",state="APPROVED"} 1' in text
    assert "interconn_data_process_up 1" in text


def test_both_parties_sign_the_receipt_of_a_job(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": f"customer-{number}", "x": number} for number in range(10)]
    mine, theirs = rig.add_dataset(rig.bank, rows), rig.add_dataset(rig.payment, rows)
    rig.grant(theirs)
    step = {"name": "psi_1", "component": "psi"}
    job_id = rig.submit(rig.job_file(rig.project(mine, theirs), (mine, theirs), [step]))
    rig.ended(job_id)
    bank, payment = (str(side.folder / "node.toml") for side in rig.sides)
    ours, both = tmp_path / "ours.json", tmp_path / "both.json"

    def receipt(config: str, *more: str) -> int:
        return interconn(capsys, "job", "receipt", job_id, "--config", config, *more)[0]

    anchors = [item for side in rig.sides for item in ("--ca", str(side.pki / "ca.pem"))]

    def verified(config: str) -> bool:
        both.unlink(missing_ok=True)
        assert receipt(config, "--out", str(both)) == 0
        code, text = interconn(capsys, "job", "verify-receipt", str(both), *anchors)
        return code == 0 and "succeeded" in text

    # The gateways have done it by themselves; both hold the same.
    for config in (bank, payment):
        wait_for(partial(verified, config), "both have signed")
    carried = [each for each in rig.exchanges() if each.path == ROUTES["interconn.job.receipt"].path]
    assert job_id in {json.loads(each.body)["receipt"]["job_id"] for each in carried}

    # As with a partner that has no such extension: by hand.
    alone = json.loads(both.read_text())
    alone["signatures"] = [each for each in alone["signatures"] if each["node_id"] == rig.bank.node_id]
    ours.write_text(json.dumps(alone))
    both.unlink()
    assert receipt(payment, "--countersign", str(ours), "--out", str(both)) == 0
    code, text = interconn(capsys, "job", "verify-receipt", str(both), *anchors)
    assert code == 0, text
    code, text = interconn(capsys, "job", "verify-receipt", str(ours), *anchors)
    assert code == 1
    assert f"Without a good signature of {rig.payment.node_id}" in text
    stated = json.loads(both.read_text())["receipt"]
    assert stated["tasks"].keys() == {"psi_1"}
    assert stated["datasets"] == {rig.bank.node_id: [mine], rig.payment.node_id: [theirs]}

    for name, value in (("outcome", "failed"), ("finished", 1), ("datasets", {}), ("digest", "0" * 64)):
        forged = json.loads(ours.read_text())
        forged["receipt"][name] = value
        ours.with_name("forged.json").write_text(json.dumps(forged))
        assert receipt(payment, "--countersign", str(ours.with_name("forged.json"))) == 1
        assert interconn(capsys, "job", "verify-receipt", str(ours.with_name("forged.json")), *anchors)[0] == 1
    # A statement that is true under a signature that is not, and one that is no receipt at all.
    forged = json.loads(ours.read_text())
    forged["receipt"]["finished"] += 1
    ours.with_name("forged.json").write_text(json.dumps(forged))
    assert receipt(payment, "--countersign", str(ours.with_name("forged.json"))) == 1
    ours.with_name("forged.json").write_text("[]")
    assert interconn(capsys, "job", "verify-receipt", str(ours.with_name("forged.json")))[0] == 1
    told = tmp_path / "trail.jsonl"
    assert interconn(capsys, "audit", "export", "--config", payment, "--out", str(told))[0] == 0
    events = {each["event"]: each["subject"] for each in entries(told) if job_id in each["subject"]}
    assert {"job.created", "job.finished", "receipt.countersigned"} <= set(events)
    assert any(each["event"] == "grant.used" and each["facts"]["job_id"] == job_id for each in entries(told))
