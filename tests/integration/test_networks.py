"""Three real gateways of which two cannot be reached: they park connections with the third, and it relays between them.

The bank is behind an HTTP proxy that wants a password, too. Both advertise an address at which nobody listens, so every
call to them must come over a connection that they have opened: first contact, confirm, messages of a job. The third
has a path in its address.
"""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway import cli, lab
from gateway.errors import Refused, Unavailable
from gateway.lab.node import CA, CONFIG, TOKEN, NodeSettings
from gateway.lab.processes import Process, spawn, stop
from gateway.model import InstId, NodeId
from tests.integration.crash import BODIES, DAG, RULES, config, platform, register
from tests.integration.rig import _Loop, free_port
from tests.networks.proxy import ConnectProxy
from tests.waiting import wait_for

NOWHERE = "https://127.0.0.1:1"
SECRET = b"bank-gw:Aa 1:x"


@dataclass(frozen=True)
class Three:
    bank: lab.LabNode
    payment: lab.LabNode
    hub: lab.LabNode
    proxy: ConnectProxy


def folder_of(node: lab.LabNode) -> Path:
    return node.ca_file.parent.parent


def make(directory: Path, name: str, number: int, *, reachable: bool, more: str = "") -> lab.LabNode:
    edge, platform_port, admin = free_port(), free_port(), free_port()
    address = f"https://127.0.0.1:{edge}/gw" if reachable else NOWHERE
    settings = NodeSettings(
        node_id=NodeId(f"LX000002000{number}01"),
        inst_id=InstId(f"JG02000000{number}"),
        name=name,
        institution=name,
        description=name,
        address=address,
        edge_host="127.0.0.1",
        edge_port=edge,
        platform_port=platform_port,
        admin_port=admin,
        jobs=RULES,
    )
    lab.create_folder(directory / name, settings)
    with (directory / name / CONFIG).open("a") as file:
        file.write(more)
    return lab.LabNode(
        node_id=settings.node_id,
        inst_id=settings.inst_id,
        name=name,
        pid=None,
        edge_url=address,
        platform_url=f"http://127.0.0.1:{platform_port}",
        admin_url=f"http://127.0.0.1:{admin}",
        ca_file=directory / name / CA,
        admin_token_file=directory / name / TOKEN,
    )


def serve(node: lab.LabNode) -> Process:
    file = folder_of(node) / CONFIG
    (folder_of(node) / "log").mkdir(exist_ok=True)
    return spawn([*lab.SERVE, str(file)], file, folder_of(node) / "log" / "serve.out")


def answers(node: lab.LabNode) -> bool:
    try:
        return bool(node.client(timeout_s=5).get("node")) and (folder_of(node) / "run" / "ready.json").exists()
    except (Unavailable, Refused):
        return False


def command(node: lab.LabNode, *words: str) -> None:
    assert cli.main([*words, "--config", str(folder_of(node) / CONFIG)]) == 0


@pytest.fixture(scope="module")
def three() -> Iterator[Three]:
    directory = Path(tempfile.mkdtemp(prefix="icn"))
    loop = _Loop()
    proxy = ConnectProxy(secret=SECRET)
    running = proxy.running()
    loop.run(running.__aenter__())
    network = f"""
[network]
proxy = "{proxy.url}"
proxies = [{{url = "{proxy.url}", credentials = "file:proxy.secret"}}]
"""
    nodes = (
        make(directory, "bank", 1, reachable=False, more=network),
        make(directory, "payment", 2, reachable=False),
        make(directory, "hub", 3, reachable=True),
    )
    secret = folder_of(nodes[0]) / "proxy.secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    processes = []
    try:
        processes += [serve(node) for node in nodes]
        for node in nodes:
            wait_for(lambda n=node: answers(n), f"{node.name} answers")
        yield Three(*nodes, proxy)
    finally:
        stop(processes, grace_s=10.0)
        loop.run(running.__aexit__(None, None, None))
        loop.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def paired(three: Three) -> Three:
    """Everybody with everybody, by the commands that admins would type."""
    bank, payment, hub = three.bank, three.payment, three.hub
    for node in (bank, payment):
        command(node, "partner", "way", hub.node_id, "--hold")
        command(hub, "partner", "way", node.node_id, "--held")
        lab.sign(node, hub)
    command(hub, "relay", "allow", payment.node_id, bank.node_id)
    for node, other in ((bank, payment), (payment, bank)):
        command(node, "partner", "way", other.node_id, "--relay", hub.node_id)
    lab.sign(bank, payment)
    return three


def test_calls_in_all_directions(paired: Three, capsys: pytest.CaptureFixture[str]) -> None:
    bank, payment, hub = paired.bank, paired.payment, paired.hub
    for node, other in ((hub, bank), (hub, payment), (bank, hub), (bank, payment), (payment, bank)):
        answer = node.client().post("partners", other.node_id, "ask", route="node.query", query={})
        assert answer["node_id"] == other.node_id
    ways = {way["node_id"]: way for way in hub.client().get("ways")}
    assert ways[bank.node_id]["held"]
    assert ways[bank.node_id]["parked"] > 0
    (pair,) = hub.client().get("relays")
    assert pair["carried"] > 0
    command(hub, "relay", "list")
    command(bank, "partner", "way", hub.node_id)
    shown = capsys.readouterr().out
    assert payment.node_id in shown
    assert "we keep connections open to it" in shown
    events = [entry["event"] for entry in hub.client().get("trail", first=1, last=1000)]
    assert events.count("way.set") == 2
    assert "relay.allowed" in events


def test_a_job_through_the_relay(paired: Three, tmp_path: Path) -> None:
    bank, payment, hub = paired.bank, paired.payment, paired.hub
    for node in (bank, payment):
        register(node, tmp_path, BODIES)
    roles = {"guest": [bank.node_id], "host": [payment.node_id], "arbiter": []}
    job_id = str(platform(bank, "job/create_all", {"dag": DAG, "config": config(bank, roles)})["job_id"])

    def ended(node: lab.LabNode) -> str:
        view = next((job for job in node.client().get("jobs") if job["job_id"] == job_id), None)
        return str(view["outcome"]) if view is not None and view["status"] == "FINISHED" else ""

    for node in (bank, payment):
        assert wait_for(lambda n=node: ended(n), f"the job ends at {node.name}") == "succeeded"
    (pair,) = hub.client().get("relays")
    assert pair["open"] > 0
    # What left the bank went through the proxy, which saw neither words nor names; and nobody wrote its password down.
    carried = bytes(paired.proxy.carried)
    assert {line.split()[1] for line in paired.proxy.asked} == {urlsplit(hub.edge_url).netloc}
    for word in (job_id, bank.node_id, payment.node_id, hub.node_id, "x-ptp", "/v1/interconn"):
        assert word.encode() not in carried
    for node in (bank, payment, hub):
        logs = "".join(file.read_text(errors="replace") for file in (folder_of(node) / "log").glob("*"))
        assert SECRET.decode() not in logs
        assert "Traceback" not in logs


def test_processes_that_start_anew_find_their_ways(paired: Three) -> None:
    bank, payment, hub = paired.bank, paired.payment, paired.hub
    for node in (bank, hub):
        os.kill(json.loads((folder_of(node) / "run" / "data.json").read_text())["pid"], signal.SIGKILL)
    for node, other in ((hub, bank), (bank, payment)):
        wait_for(lambda n=node, o=other: reaches(n, o), f"{node.name} reaches {other.name} again")


def test_a_partner_moves(paired: Three) -> None:
    bank, payment, hub = paired.bank, paired.payment, paired.hub
    new = hub.edge_url.removesuffix("/gw").replace("127.0.0.1", "localhost")
    command(bank, "partner", "way", hub.node_id, "--address", new)
    # What the bank keeps open to it, and what goes through it, moves along.
    for node, other in ((bank, hub), (hub, bank), (bank, payment), (payment, bank)):
        wait_for(lambda n=node, o=other: reaches(n, o), f"{node.name} reaches {other.name}")
    assert any(urlsplit(new).netloc in head for head in paired.proxy.asked)


def reaches(node: lab.LabNode, other: lab.LabNode) -> bool:
    try:
        node.client().post("partners", other.node_id, "ask", route="project.list", query={})
    except (Refused, Unavailable):
        return False
    return True


def said_of(node: lab.LabNode) -> list[dict[str, object]]:
    """Ways without what changes by itself."""
    return [{name: value for name, value in way.items() if name != "parked"} for way in node.client().get("ways")]


def test_what_an_admin_cannot_mean(paired: Three) -> None:
    bank, payment, hub = paired.bank, paired.payment, paired.hub
    before = said_of(bank)
    for said in (
        {"proxy": "socks5://127.0.0.1:1"},
        {"proxy": "http://user:pw@127.0.0.1:1"},
        {"relay": bank.node_id},
        {"relay": payment.node_id},
        {"held": True},
        {"hold": True, "held": True, "relay": ""},
        {"hold": "yes"},
        {"address": "http://plain.example"},
    ):
        with pytest.raises(Refused):
            bank.client().post("partners", payment.node_id, "way", **said)
    for nodes in ([bank.node_id] * 2, [bank.node_id], [bank.node_id, "LX-nobody"]):
        with pytest.raises(Refused):
            hub.client().post("relays", nodes=nodes)
    with pytest.raises(Refused):
        hub.client().post("relays", "remove", nodes=[bank.node_id, "LX-nobody"])
    assert said_of(bank) == before
    # Who probes through a proxy or a relay that does not serve is told so.
    bank.client().post("partners", "LX-nobody", "way", relay=hub.node_id)
    with pytest.raises((Refused, Unavailable), match="not relayed there"):
        bank.client().post("partners", "probe", address="https://nobody.example", node_id="LX-nobody")
    bank.client().post("partners", "LX-nobody", "way", relay="")
    assert said_of(bank) == before


def test_the_relay_says_no_more(paired: Three) -> None:
    bank, payment, hub = paired.bank, paired.payment, paired.hub
    command(hub, "relay", "remove", bank.node_id, payment.node_id)
    assert hub.client().get("relays") == []
    wait_for(lambda: not reaches(bank, payment), "the relay cuts and refuses")
    command(hub, "relay", "allow", bank.node_id, payment.node_id, "--bytes-per-second", "10000000")
    wait_for(lambda: reaches(bank, payment), "it relays again")
