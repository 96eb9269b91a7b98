"""Who a node is, between real gateways: a bare key on one side, clocks that differ, certificates taken back."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import lab
from gateway.admin_client import AdminClient
from gateway.app.serve import serve
from gateway.cli import main
from gateway.errors import WIRE, GatewayError, Kind
from specs.states import AuthType
from tests.integration import rig as rigs
from tests.integration.rig import Rig, Side
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = Path(tmp_path_factory.mktemp("identity")) / "lab"
    nodes = lab.up(directory, auth_types={"payment": AuthType.ED25519})
    try:
        sides = [Side(each, each.ca_file.parent, each.client(timeout_s=20.0)) for each in nodes.nodes]
        yield Rig(directory, sides[0], sides[1], {}, lab.sign(*nodes.nodes))
    finally:
        lab.down(directory)


def cli(side: Side, *words: str) -> int:
    return main([*words, "--json", "--config", str(side.folder / "node.toml")])


def talk(rig: Rig) -> None:
    for side, other in (rig.sides, rig.sides[::-1]):
        assert isinstance(side.client.get("partners", other.node_id, "datasets"), list)


def told(side: Side) -> bool:
    partners = side.client.get("keys")["partners"]
    return bool(partners) and all(each["told"] for each in partners)


def _clock(folder: Path, seconds: float) -> None:
    file = folder / "node.toml"
    lines = [each for each in file.read_text().splitlines() if not each.startswith("insecure_clock_offset")]
    lines.insert(lines.index("[node]") + 1, f"insecure_clock_offset = {seconds}")
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.req("M-012", "M-013")
def test_a_clock_ten_minutes_off_is_told_so(rig: Rig) -> None:
    thief = rigs.Partner(rig.payment, rig.bank.node_id, rig.bank.pki)
    seen, unseen = (thief.prepare("dataset.pub.list", {"contract_id": rig.contract_id}) for _ in range(2))
    assert json.loads(thief.send(*seen)[1])["code"] == 0
    lab.down(rig.directory)
    _clock(rig.bank.folder, 600.0)
    nodes = lab.up(rig.directory)
    payment, bank = nodes.node("payment").client(), nodes.node("bank").client()
    told = refused_get(bank, rig.payment.node_id)
    assert str(WIRE[Kind.STALE].code) in told
    assert re.search(r"the clocks differ: yours is (599|600) s ahead of ours, 300 s are allowed", told)
    assert re.search(r"yours is \d+ s behind ours", refused_get(payment, rig.bank.node_id))
    lab.down(rig.directory)
    _clock(rig.bank.folder, 0.0)
    nodes = lab.up(rig.directory)
    for side in rig.sides:
        side.client = nodes.node(side.node.name).client(timeout_s=20.0)
    talk(rig)
    # Two restarts later what was signed before them is still taken, once.
    assert json.loads(thief.send(*seen)[1])["code"] == WIRE[Kind.REPLAYED].code
    assert json.loads(thief.send(*unseen)[1])["code"] == 0
    assert json.loads(thief.send(*unseen)[1])["code"] == WIRE[Kind.REPLAYED].code


def refused_get(client: AdminClient, node_id: str) -> str:
    with pytest.raises(GatewayError) as caught:
        client.get("partners", node_id, "datasets")
    return str(caught.value)


def test_a_wrong_clock_outside_a_lab_is_refused(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "node"
    shutil.copytree(rig.bank.folder, folder, ignore=shutil.ignore_patterns("run", "*.db*"))
    _clock(folder, 600.0)
    before = os.umask(0o077)
    try:
        assert serve(folder / "node.toml") == 2
    finally:
        os.umask(before)
    assert "is for a lab" in capsys.readouterr().err


def test_a_tls_certificate_that_was_taken_back(rig: Rig, tmp_path: Path) -> None:
    crl = tmp_path / "bank.crl"
    assert cli(rig.bank, "key", "revoke", "--tls", "--yes") == 0
    assert cli(rig.bank, "key", "crl", "--out", str(crl)) == 0
    assert cli(rig.payment, "partner", "crl", "bank", str(crl)) == 0
    talk(rig)  # with the new one
    thief = rigs.Partner(rig.payment, rig.bank.node_id, rig.bank.pki)
    _, reply = thief.call("dataset.pub.list", {"contract_id": rig.contract_id})
    assert reply["code"] != 0
    assert any("revoked" in each.get("reason", "") for each in rig.payment.events(event="edge.refused"))


@pytest.mark.req("M-014", "M-037")
def test_a_bare_key_on_one_side(rig: Rig, tmp_path: Path) -> None:
    talk(rig)
    [contract] = rig.bank.client.get("partners")
    assert contract["auth_type"] == "ED25519"
    assert rig.payment.client.get("partners")[0]["auth_type"] == "CERT"
    before = rig.payment.client.get("keys")["key_id"]
    assert cli(rig.payment, "key", "rotate", "--yes") == 0
    wait_for(lambda: told(rig.payment), "the bank takes the new bare key")
    [after] = rig.bank.client.get("partners")
    assert after["fingerprint"] == rig.payment.client.get("keys")["key_id"] != before
    talk(rig)
    # It cannot name its CA: the partner is given it by hand.
    assert cli(rig.payment, "key", "rotate", "--ca", "--yes") == 0
    [new_ca] = list(rig.payment.pki.glob("ca-*.pem"))
    assert cli(rig.bank, "key", "allow", "payment", "--ca-file", str(new_ca)) == 0
    talk(rig)
    assert cli(rig.payment, "key", "rotate", "--ca", "--finish", "--yes") == 0
    talk(rig)
