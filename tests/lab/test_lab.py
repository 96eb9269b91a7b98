"""The lab's own work: folders, ports, processes. A small stand-in serves instead of the gateway."""

import json
import os
import socket
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gateway import lab
from gateway.errors import Kind, Refused, Unavailable
from gateway.lab import lab as lab_module
from gateway.lab import ports, processes

STAND_IN = (sys.executable, "-m", "tests.lab.stand_in_node")


@pytest.fixture
def place(tmp_path):
    """A folder for a lab, which is stopped in the end whatever happens."""
    directory = tmp_path / "lab"
    yield directory
    if (directory / "lab-state.json").exists():
        lab.down(directory)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_up_writes_lab_json_and_leaves_separate_processes(place):
    made = lab.up(place, parties=3, command=STAND_IN)
    written = json.loads((place / "lab.json").read_text())
    assert list(written) == ["nodes"]
    members = (
        "node_id inst_id name pid edge_url platform_url grpc_edge grpc_platform admin_url ca_file admin_token_file"
    )
    assert [list(node) for node in written["nodes"]] == 3 * [members.split()]
    assert [node["name"] for node in written["nodes"]] == ["bank", "payment", "telecom"]
    assert written["nodes"][0]["node_id"] == "LX0000020000011"
    assert written["nodes"][0]["inst_id"] == "JG0200000100000000"
    for member in ("node_id", "inst_id", "pid", "edge_url", "platform_url", "admin_url", "ca_file"):
        assert len({node[member] for node in written["nodes"]}) == 3, member
    assert all(node["grpc_edge"] is None and node["grpc_platform"] is None for node in written["nodes"])
    low, high = ports.ephemeral_range()
    for node in made.nodes:
        assert node.client().get("node") == {"node_id": node.node_id}
        for url in (node.edge_url, node.platform_url, node.admin_url):
            assert listening(port_of(url))
            assert not low <= port_of(url) <= high
    assert lab.read(place) == made
    assert lab.running(place) == {"bank", "payment", "telecom"}
    assert stat.S_IMODE(made.nodes[0].admin_token_file.stat().st_mode) == 0o600


def test_down_stops_all_and_may_be_repeated(place):
    made = lab.up(place, command=STAND_IN)
    assert lab.down(place) == []
    assert lab.running(place) == frozenset()
    assert not any(listening(port_of(node.admin_url)) for node in made.nodes)
    assert [node.pid for node in lab.read(place).nodes] == [None, None]
    assert lab.down(place) == []


def test_down_copes_with_a_process_that_is_gone(place):
    made = lab.up(place, command=STAND_IN)
    os.kill(made.nodes[0].pid, 9)
    os.waitpid(made.nodes[0].pid, 0)
    assert lab.running(place) == {"payment"}
    assert lab.down(place) == []
    assert lab.running(place) == frozenset()


def test_a_running_lab_is_not_started_again_and_a_stopped_one_comes_back_the_same(place):
    first = lab.up(place, command=STAND_IN)
    with pytest.raises(Refused, match="is running") as caught:
        lab.up(place, command=STAND_IN)
    assert caught.value.kind is Kind.CONFLICT
    assert lab.running(place) == {"bank", "payment"}
    lab.down(place)
    again = lab.up(place, command=STAND_IN)
    assert [node.edge_url for node in again.nodes] == [node.edge_url for node in first.nodes]
    assert [node.fingerprint() for node in again.nodes] == [node.fingerprint() for node in first.nodes]
    assert [node.pid for node in again.nodes] != [node.pid for node in first.nodes]
    lab.down(place)
    with pytest.raises(Refused, match="has 2 parties"):
        lab.up(place, parties=3, command=STAND_IN)


def test_two_labs_at_once_share_nothing(tmp_path):
    places = [tmp_path / "one", tmp_path / "two"]
    code = (
        f"import sys; from pathlib import Path; from gateway import lab; lab.up(Path(sys.argv[1]), command={STAND_IN})"
    )
    try:
        starters = [subprocess.Popen([sys.executable, "-c", code, str(place)]) for place in places]
        assert [starter.wait() for starter in starters] == [0, 0]
        nodes = [node for place in places for node in lab.read(place).nodes]
        urls = [url for node in nodes for url in (node.edge_url, node.platform_url, node.admin_url)]
        assert len(set(urls)) == 12
        assert [node.client().get("node")["node_id"] for node in nodes] == [node.node_id for node in nodes]
    finally:
        for place in places:
            lab.down(place)


def test_a_port_taken_by_somebody_else_is_exchanged(place, monkeypatch):
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        taken, first = foreign.getsockname()[1], []
        take = ports.PortClaims.take

        def unlucky(claims):
            first.append(taken)
            return taken if len(first) == 1 else take(claims)

        monkeypatch.setattr(ports.PortClaims, "take", unlucky)
        made = lab.up(place, command=STAND_IN)
    assert all(node.client().get("node")["node_id"] == node.node_id for node in made.nodes)
    assert taken not in {port_of(node.edge_url) for node in made.nodes}


def test_claims_of_two_labs_do_not_meet_before_anybody_listens():
    numbers = iter([20_001, 20_001, 20_002])
    with ports.PortClaims(lambda _: next(numbers)) as one, ports.PortClaims(lambda _: next(numbers)) as two:
        assert one.take() == 20_001
        assert two.take() == 20_002


def test_candidates_lie_outside_the_kernels_range():
    assert not set(ports.candidates((32_768, 60_999))) & set(range(32_768, 61_000))
    assert ports.candidates((1, 65_535))  # all of them, where the kernel's range leaves nothing


def test_a_gateway_that_does_not_start_is_told_with_its_words_and_nothing_is_left(place):
    with pytest.raises(Unavailable, match="something is wrong"):
        lab.up(place, command=(*STAND_IN, "--broken"))
    assert lab.running(place) == frozenset()
    assert not (place / "lab.json").exists()
    lab.up(place, command=STAND_IN)  # and the same folder serves once it is repaired


def test_a_process_that_ignores_sigterm_is_killed(place):
    made = lab.up(place, command=(*STAND_IN, "--stubborn"))
    assert sorted(lab_module._stop(lab_module._load(place), place, grace_s=0.2)) == ["bank", "payment"]
    assert lab.running(place) == frozenset()
    assert not any(listening(port_of(node.admin_url)) for node in made.nodes)


def test_what_a_dead_gateway_left_behind_goes_too(place, monkeypatch):
    monkeypatch.setattr(processes, "LEFTOVER_S", 0.1)
    made = lab.up(place, command=(*STAND_IN, "--child"))
    for node in made.nodes:
        os.kill(node.pid, 9)
        os.waitpid(node.pid, 0)
    left = [entry for node in made.nodes for entry in members(node.pid)]
    assert len(left) == 2
    lab.down(place)
    assert [entry for node in made.nodes for entry in members(node.pid)] == []


def members(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(words[3]) == session and words[0] != "Z":
                found.append(int(entry.name))
    return found


def test_a_foreign_process_with_a_remembered_pid_is_left_alone(place):
    lab.up(place, command=STAND_IN)
    lab.down(place)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        file = place / "lab-state.json"
        state = json.loads(file.read_text())
        started = processes._stat(stranger.pid)[processes._STARTED]
        state["processes"] = {"bank": [stranger.pid, 1], "payment": [stranger.pid, int(started)]}
        file.write_text(json.dumps(state))
        assert lab.running(place) == frozenset()
        assert lab.down(place) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_deep_folder_gets_short_private_sockets_which_go_with_the_lab(tmp_path):
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    lab.up(deep, command=STAND_IN)
    root = Path(json.loads((deep / "lab-state.json").read_text())["run_root"])
    try:
        run = Path(tomllib.loads((deep / "bank/node.toml").read_text())["paths"]["run"])
        assert run.parent == root
        assert (run / "ready.json").exists()
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        assert len(str(run / "control.sock")) < 107
    finally:
        lab.down(deep)
    assert not root.exists()
    lab.up(deep, command=STAND_IN)
    lab.down(deep)


@pytest.mark.parametrize("parties", [0, 1, 17])
def test_a_lab_has_two_to_sixteen_parties(place, parties):
    with pytest.raises(Refused):
        lab.up(place, parties=parties or -1, command=STAND_IN)
    assert not (place / "lab-state.json").exists()


def test_a_folder_with_other_things_in_it_is_not_taken(place):
    (place / "bank").mkdir(parents=True)
    (place / "bank/letters.txt").write_text("mine")
    with pytest.raises(Refused, match="not of a lab"):
        lab.up(place, command=STAND_IN)
    assert (place / "bank/letters.txt").read_text() == "mine"


def test_where_no_lab_is(tmp_path):
    with pytest.raises(Refused) as caught:
        lab.down(tmp_path)
    assert caught.value.kind is Kind.NOT_FOUND
    with pytest.raises(Refused) as caught:
        lab.read(tmp_path)
    assert caught.value.kind is Kind.NOT_FOUND
    (tmp_path / "lab.json").write_text('{"nodes": [{}]}')
    with pytest.raises(Refused) as caught:
        lab.read(tmp_path)
    assert caught.value.kind is Kind.MALFORMED
