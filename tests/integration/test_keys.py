"""Keys replaced between two real gateways while they talk, also across a crash."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import lab
from gateway.cli import main
from gateway.errors import WIRE, Kind
from tests.integration import rig as rigs
from tests.integration.rig import Partner, Rig, Side
from tests.waiting import wait_for


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = rigs.start(tmp_path / "lab", taps=False)
    try:
        yield made
    finally:
        made.close()


def told(side: Side) -> bool:
    partners = side.client.get("keys")["partners"]
    return bool(partners) and all(each["told"] for each in partners)


def cli(side: Side, *words: str) -> int:
    return main([*words, "--json", "--config", str(side.folder / "node.toml")])


@pytest.mark.req("M-037")
def test_both_sides_rotate_in_mid_conversation(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": f"k{number}", "x": number} for number in range(5)]
    for side in rig.sides:
        rig.add_dataset(side, rows)
    stop, failures, calls = threading.Event(), [], []

    def talk(side: Side, other: Side) -> None:
        client = side.node.client(timeout_s=20.0)
        while not stop.is_set():
            try:
                calls.append(len(client.get("partners", other.node_id, "datasets")))
            except Exception as error:  # noqa: BLE001  # every failure counts
                failures.append(repr(error))

    talkers = [threading.Thread(target=talk, args=pair) for pair in (rig.sides, rig.sides[::-1])]
    for each in talkers:
        each.start()
    try:
        first = [side.client.get("keys")["key_id"] for side in rig.sides]
        for _ in range(2):
            for side in rig.sides:
                assert cli(side, "key", "rotate", "--yes") == 0
            for side in rig.sides:
                wait_for(lambda s=side: told(s), f"{side.node.name}'s key is acknowledged")
    finally:
        stop.set()
        for each in talkers:
            each.join(30)
    assert failures == []
    assert len(calls) > 10
    assert set(calls) == {1}
    capsys.readouterr()
    assert cli(rig.bank, "key", "show") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["key_id"] not in first
    assert len(shown["keys"]) == 2
    contracts = {each["contract_id"] for side in rig.sides for each in side.client.get("partners")}
    assert contracts == {rig.contract_id}


@pytest.mark.req("M-012", "M-037")
def test_a_revoked_key_is_void_at_once_and_the_new_one_survives_a_crash(rig: Rig) -> None:
    thief = Partner(rig.payment, rig.bank.node_id, rig.bank.pki)
    listing = {"contract_id": rig.contract_id}
    assert thief.call("dataset.pub.list", listing)[1]["code"] == 0
    assert cli(rig.bank, "key", "revoke", "--yes") == 0
    wait_for(lambda: told(rig.bank), "the new key is acknowledged")
    assert thief.call("dataset.pub.list", listing)[1]["code"] == WIRE[Kind.UNAUTHENTICATED].code
    current = rig.bank.client.get("keys")["key_id"]
    other = Partner(rig.bank, rig.payment.node_id, rig.payment.pki)
    captured, waiting = (other.prepare("dataset.pub.list", listing) for _ in range(2))
    assert json.loads(other.send(*captured)[1])["code"] == 0
    for side in rig.sides:
        rig.kill(side)
    lab.down(rig.directory)
    nodes = lab.up(rig.directory)
    # Nonces survive as well (M-012), and what was signed before the crash but not served still is.
    assert json.loads(other.send(*captured)[1])["code"] == WIRE[Kind.REPLAYED].code
    assert json.loads(other.send(*waiting)[1])["code"] == 0
    bank = nodes.node("bank").client(timeout_s=20.0)
    assert bank.get("keys")["key_id"] == current
    assert bank.get("partners", rig.payment.node_id, "datasets") == []
    assert thief.call("dataset.pub.list", listing)[1]["code"] == WIRE[Kind.UNAUTHENTICATED].code


@pytest.mark.req("M-014")
def test_rfc_9421_between_two_gateways(rig: Rig) -> None:
    dataset_id = rig.add_dataset(rig.payment, [{"id": "k", "x": 1}])
    for side, other in (rig.sides, rig.sides[::-1]):
        side.client.post("partners", other.node_id, "profile", profile="strict-1.2-rfc9421")
    assert len(rig.bank.client.get("partners", rig.payment.node_id, "datasets")) == 1
    asked = rig.bank.client.post(
        "datasets", "apply", node_id=rig.payment.node_id, dataset_id=dataset_id, auth_scope={"COMPONENT": ["psi"]}
    )
    rig.decide(rig.payment, asked["audit_id"], "reject")
    assert rig.settled(rig.bank, asked["audit_id"])["status"] == "REJECTED"
    # The other form is not taken any more.
    partner = Partner(rig.payment, rig.bank.node_id, rig.bank.pki)
    reply = partner.call("dataset.pub.list", {"contract_id": rig.contract_id})[1]
    assert reply["code"] == WIRE[Kind.UNAUTHENTICATED].code
