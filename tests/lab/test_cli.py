"""The command line against a stand-in of the admin API: what it asks, what it prints, how it exits."""

import io
import json
import subprocess
import sys

import pytest

from gateway import cli
from gateway.cli import show
from tests.lab.admin_server import TOKEN, Failure, Raw, stand_in

PRINT = "ab12" * 16
CONTRACT = {
    "contract_id": "c0ffee01",
    "direction": "IN",
    "status": "APPLIED",
    "peer_node_id": "NODE2",
    "peer_inst_id": "INST2",
    "peer_name": "payment",
    "fingerprint": PRINT,
    "profile": "strict-1.2",
    "expired_time": None,
    "proven": True,
}
AUDIT = {
    "applicant": "NODE2",
    "audit_id": "a-1",
    "kind": "dataset",
    "direction": "IN",
    "peer_node_id": "NODE2",
    "status": "APPLIED",
    "subject": "ds-1",
    "created": 1_795_000_000_000,
}
JOB = {
    "job_id": "job-1",
    "name": "loans",
    "status": "FINISHED",
    "outcome": "succeeded",
    "initiator": "NODE1",
    "created": 1_795_000_000_000,
    "dag": {"components": [{"name": "psi_1", "componentName": "psi", "provider": "interconn", "version": "1.0.0"}]},
    "config": {
        "role": {"guest": ["NODE1"]},
        "task_params": {
            "common": {"psi_1": {"result_to": ["guest"]}},
            "guest": {"0": {"psi_1": {"dataset_id": "ds-9"}}},
        },
    },
}
JOB["dag"]["components"][0] |= {"input": [], "output": [{"key": "data0", "type": "dataset"}]}
VIEW = {
    "job": JOB,
    "tasks": [
        {
            "task_id": "task_1",
            "task_name": "psi_1",
            "component": "interconn/psi/1.0.0",
            "status": "SUCCESS",
            "parties": [{"node_id": "NODE1", "role": "guest", "status": "SUCCESS"}],
            "shares": [{"role": "guest", "index": 0, "status": "SUCCESS", "result_code": "0", "message": "ok"}],
        }
    ],
    "explanation": "ended well",
}


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A stand-in, and the node.toml that leads to it."""
    with stand_in({("GET", "/partners"): []}) as server:
        (tmp_path / "admin.token").write_text(TOKEN + "\n")
        port = server.url.rpartition(":")[2]
        (tmp_path / "node.toml").write_text(
            '[node]\nnode_id="NODE1"\ninst_id="I"\nname="bank"\ninstitution="B"\naddress="https://x"\n'
            f"[admin]\nport={port}\n"
        )
        monkeypatch.setenv("INTERCONN_CONFIG", str(tmp_path / "node.toml"))
        yield server


@pytest.fixture
def terminal(monkeypatch):
    """Pretend to be a terminal on which a person types `answers`."""

    class Typed(io.StringIO):
        def isatty(self):
            return True

    def pretend(answers):
        monkeypatch.setattr(sys, "stdin", Typed(answers))
        monkeypatch.setattr(sys, "stdout", screen := Typed())
        return screen

    return pretend


def test_without_arguments_it_tells_what_there_is(capsys):
    assert cli.main([]) == 0
    told = capsys.readouterr().out
    for word in ("interconn demo", "lab up", "serve", "partner", "Exit codes"):
        assert word in told


@pytest.mark.parametrize("group", ["partner", "dataset", "audit", "project", "job", "lab"])
def test_a_noun_alone_prints_its_help(group, capsys):
    assert cli.main([group]) == 2
    assert "commands" in capsys.readouterr().out


def test_every_command_has_help(capsys):
    for group, actions in cli.parser()._subparsers._group_actions[0].choices.items():
        inner = actions._subparsers
        for words in [[group]] if inner is None else [[group, verb] for verb in inner._group_actions[0].choices]:
            with pytest.raises(SystemExit) as caught:
                cli.main([*words, "--help"])
            assert caught.value.code == 0
    assert "usage: interconn" in capsys.readouterr().out


def test_tables_for_people_json_for_scripts(node, capsys):
    node.answers["GET", "/partners"] = [CONTRACT]
    assert cli.main(["partner", "list"]) == 0
    told = capsys.readouterr().out
    assert "payment" in told
    assert "they applied" in told
    assert cli.main(["partner", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [CONTRACT]


def test_the_node_is_chosen_by_option_before_the_environment(node, tmp_path, capsys, monkeypatch):
    node.answers["GET", "/partners"] = []
    monkeypatch.setenv("INTERCONN_CONFIG", "/nowhere/node.toml")
    assert cli.main(["partner", "list", "--config", str(tmp_path / "node.toml")]) == 0
    assert "No contracts yet." in capsys.readouterr().out
    assert cli.main(["partner", "list"]) == 2
    assert "cannot read /nowhere/node.toml" in capsys.readouterr().err


def test_the_node_is_chosen_from_a_lab(node, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("INTERCONN_CONFIG")
    described = {
        "node_id": "NODE1",
        "inst_id": "I",
        "name": "bank",
        "pid": None,
        "edge_url": "https://x",
        "platform_url": "http://x",
        "grpc_edge": None,
        "grpc_platform": None,
        "admin_url": node.url,
        "ca_file": "x",
        "admin_token_file": str(tmp_path / "admin.token"),
    }
    (tmp_path / "lab.json").write_text(json.dumps({"nodes": [described]}))
    node.answers["GET", "/partners"] = []
    assert cli.main(["partner", "list", "--lab", str(tmp_path), "--as", "bank"]) == 0
    assert cli.main(["partner", "list", "--lab", str(tmp_path), "--as", "shop"]) == 1
    assert "it has bank" in capsys.readouterr().err
    for wrong in (["--lab", str(tmp_path)], ["--as", "bank"], [], ["--lab", "x", "--config", "y", "--as", "bank"]):
        assert cli.main(["partner", "list", *wrong]) == 2


def test_exit_codes_tell_refusal_from_silence(node, tmp_path, capsys):
    node.answers["GET", "/partners"] = Failure(403, 403, "not allowed")
    assert cli.main(["partner", "list"]) == 1
    assert capsys.readouterr().err == "interconn: not allowed (code 403)\n"
    config = tmp_path / "node.toml"
    config.write_text(config.read_text().rpartition("port=")[0] + "port=1\n")
    assert cli.main(["partner", "list"]) == 3
    assert "no gateway answers" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        cli.main(["partner", "fly"])
    assert caught.value.code == 2


def test_a_table_too_wide_for_the_terminal_becomes_records(node, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    long = "ct-" + "0123456789abcdef" * 2
    node.answers["GET", "/partners"] = [{**CONTRACT, "contract_id": long}]
    screen = terminal("")
    assert cli.main(["partner", "list"]) == 0
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert f"contract     {long}" in lines
    monkeypatch.setenv("COLUMNS", "200")
    screen = terminal("")
    assert cli.main(["partner", "list"]) == 0
    assert "contract     ct" not in screen.getvalue()


def test_words_of_a_partner_cannot_drive_the_terminal(node, capsys):
    node.answers["GET", "/partners"] = [{**CONTRACT, "peer_name": "\x1b[2J[bold]evil[/bold]\r"}]
    assert cli.main(["partner", "list"]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\r" not in told
    assert "[bold]evil[/bold]" in told
    node.answers["GET", "/partners"] = [
        {**CONTRACT, "peer_name": "x\nfingerprint  0000 0000", "expired_time": 2**53 - 1, "description": "a\nb"}
    ]
    for command in (["partner", "list"], ["partner", "show", CONTRACT["contract_id"]]):
        assert cli.main(command) == 0
        told = capsys.readouterr().out
        assert "in the far future" in told
        assert not any(line.startswith("fingerprint  0000") for line in told.splitlines())
    assert show.clean("a\x00b\u202ec\n") == "a\ufffdb\ufffdc\n"


class TestApproval:
    def test_the_fingerprint_is_shown_before_a_person_agrees(self, node, terminal):
        node.answers["GET", "/partners"] = [CONTRACT]
        node.answers["POST", "/partners/c0ffee01/approve"] = {**CONTRACT, "status": "APPROVED"}
        screen = terminal("y\n")
        assert cli.main(["partner", "approve", "payment"]) == 0
        told = screen.getvalue()
        assert told.index(" ".join(["ab12"] * 16)) < told.index("[y/N]")
        assert node.bodies("/partners/c0ffee01/approve") == [{"fingerprint": PRINT}]

    @pytest.mark.parametrize("answer", ["\n", "n\n", "", "maybe\n"])
    def test_without_a_clear_yes_nothing_is_sent(self, node, terminal, answer):
        node.answers["GET", "/partners"] = [CONTRACT]
        terminal(answer)
        assert cli.main(["partner", "approve", "payment"]) == 1
        assert node.bodies("/partners/c0ffee01/approve") == []

    def test_without_a_terminal_it_must_be_given(self, node, capsys):
        node.answers["GET", "/partners"] = [CONTRACT]
        node.answers["POST", "/partners/c0ffee01/approve"] = {**CONTRACT, "status": "APPROVED"}
        assert cli.main(["partner", "approve", "c0ffee"]) == 2
        assert "--fingerprint" in capsys.readouterr().err
        assert node.bodies("/partners/c0ffee01/approve") == []
        other = ":".join(["CD"] * 32)
        assert cli.main(["partner", "approve", "c0ffee", "--fingerprint", other]) == 0
        assert cli.main(["partner", "approve", "c0ffee", "--yes"]) == 0
        assert node.bodies("/partners/c0ffee01/approve") == [{"fingerprint": "cd" * 32}, {"fingerprint": PRINT}]

    def test_a_fingerprint_that_is_none_is_a_usage_error(self, node):
        with pytest.raises(SystemExit) as caught:
            cli.main(["partner", "approve", "c0ffee", "--fingerprint", "abcd"])
        assert caught.value.code == 2

    def test_a_name_that_means_several_is_refused(self, node, capsys):
        node.answers["GET", "/partners"] = [CONTRACT, {**CONTRACT, "contract_id": "c0ffee02"}]
        assert cli.main(["partner", "reject", "payment"]) == 1
        assert "c0ffee01, c0ffee02" in capsys.readouterr().err

    def test_only_open_proposals_are_decided(self, node, capsys):
        node.answers["GET", "/partners"] = [{**CONTRACT, "status": "APPROVED"}]
        assert cli.main(["partner", "approve", "payment", "--yes"]) == 1
        assert "no APPLIED contract" in capsys.readouterr().err


SEEN = {"node": {"node_id": "NODE2", "name": "payment"}, "fingerprint": PRINT, "ca_pem": "PEM"}


class TestApply:
    def test_with_a_fingerprint_it_is_passed_on(self, node):
        node.answers["POST", "/partners/apply"] = CONTRACT
        words = ["partner", "apply", "https://p:1", "--node-id", "NODE2", "--fingerprint", PRINT]
        assert cli.main(words) == 0
        body = {"address": "https://p:1", "node_id": "NODE2", "fingerprint": PRINT}
        assert node.bodies("/partners/apply") == [body]
        assert node.bodies("/partners/probe") == []

    def test_without_one_it_is_probed_shown_and_asked(self, node, terminal):
        node.answers |= {("POST", "/partners/probe"): SEEN, ("POST", "/partners/apply"): CONTRACT}
        screen = terminal("yes\n")
        assert cli.main(["partner", "apply", "https://p:1"]) == 0
        assert " ".join(["ab12"] * 16) in screen.getvalue()
        assert node.bodies("/partners/apply")[0]["fingerprint"] == PRINT
        terminal("no\n")
        assert cli.main(["partner", "apply", "https://p:1"]) == 1
        assert len(node.bodies("/partners/apply")) == 1

    def test_an_open_application_is_not_repeated(self, node, capsys):
        node.answers["GET", "/partners"] = [{**CONTRACT, "direction": "OUT"}]
        words = ["partner", "apply", "https://p:1", "--node-id", "NODE2", "--fingerprint", PRINT]
        assert cli.main(words) == 1
        assert f"partner terminate {CONTRACT['contract_id']}" in capsys.readouterr().err
        assert node.bodies("/partners/apply") == []

    def test_probe_can_keep_the_ca(self, node, tmp_path, capsys):
        node.answers["POST", "/partners/probe"] = SEEN
        assert cli.main(["partner", "probe", "https://p:1", "--save-ca", str(tmp_path / "ca.pem")]) == 0
        assert (tmp_path / "ca.pem").read_text() == "PEM"
        assert "Compare the fingerprint" in capsys.readouterr().out

    @pytest.mark.parametrize("days", ["0", "-3"])
    def test_a_validity_that_is_over_is_a_usage_error(self, node, days):
        words = ["partner", "apply", "https://p:1", "--node-id", "N", "--fingerprint", PRINT, "--days", days]
        assert cli.main(words) == 2
        assert node.asked == []


class TestDataset:
    def test_add_sends_an_absolute_path(self, node, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        node.answers["POST", "/datasets"] = {"dataset_id": "ds-1", "name": "loans", "count": 3}
        words = ["dataset", "add", "loans.csv", "--id-column", "id", "--label-column", "bad", "--private"]
        assert cli.main(words) == 0
        assert node.bodies("/datasets") == [
            {
                "name": "loans",
                "path": str(tmp_path / "loans.csv"),
                "id_column": "id",
                "label_columns": "bad",
                "public": False,
            }
        ]

    def test_apply_and_approve_carry_their_limits(self, node):
        node.answers["POST", "/datasets/apply"] = AUDIT
        node.answers["GET", "/audits"] = [AUDIT]
        node.answers["POST", "/audits/NODE2/a-1/approve"] = {**AUDIT, "status": "APPROVED"}
        assert cli.main(["dataset", "apply", "NODE2", "ds-1", "--component", "psi", "--times", "3"]) == 0
        assert node.bodies("/datasets/apply") == [
            {"node_id": "NODE2", "dataset_id": "ds-1", "auth_scope": {"COMPONENT": ["psi"]}, "times_limit": 3}
        ]
        assert cli.main(["dataset", "approve", "ds-1", "--column", "a", "--column", "b"]) == 0
        asked = {"kind": "dataset", "direction": "IN", "status": "APPLIED", "limit": "1000"}
        assert node.asked[-2] == ("GET", "/audits", asked)
        assert node.bodies("/audits/NODE2/a-1/approve") == [{"columns": ["a", "b"]}]

    def test_a_partner_may_be_named(self, node):
        node.answers["GET", "/partners"] = [CONTRACT, {**CONTRACT, "contract_id": "ct-old"}]
        node.answers |= {("GET", "/partners/NODE2/datasets"): [], ("POST", "/datasets/apply"): AUDIT}
        assert cli.main(["dataset", "remote", "payment"]) == 0
        assert cli.main(["dataset", "apply", "payment", "ds-1"]) == 0
        assert node.bodies("/datasets/apply") == [{"node_id": "NODE2", "dataset_id": "ds-1"}]

    def test_an_application_that_is_not_there(self, node, capsys):
        node.answers["GET", "/audits"] = []
        assert cli.main(["dataset", "reject", "ds-1"]) == 1
        assert "no open dataset application 'ds-1'" in capsys.readouterr().err


def test_ways_and_relays_are_of_partners_by_name(node, capsys):
    way = {"proxy": "", "relay": "NODE2", "hold": False, "held": False, "parked": 0}
    node.answers["GET", "/partners"] = [CONTRACT]
    node.answers["GET", "/ways"] = [{"node_id": "NODE2", **way, "relay": "NODE3"}]
    node.answers["POST", "/partners/NODE9/way"] = {"node_id": "NODE9", **way}
    node.answers["POST", "/relays"] = {"first": "NODE2", "second": "NODE9"}
    assert cli.main(["partner", "way", "payment"]) == 0
    assert capsys.readouterr().out == "NODE2: through NODE3\n"
    assert cli.main(["partner", "way", "NODE9", "--relay", "payment"]) == 0
    assert node.bodies("/partners/NODE9/way")[0]["relay"] == "NODE2"
    assert cli.main(["relay", "allow", "payment", "NODE9"]) == 0
    assert node.bodies("/relays")[0]["nodes"] == ["NODE2", "NODE9"]
    for few in ("0", "-1"):
        assert cli.main(["channel", "top", "--limit", few]) == 2


def test_a_project_names_what_each_brings(node):
    node.answers["POST", "/projects"] = {"project_id": "p-1", "name": "x"}
    assert cli.main(["project", "new", "x", "--data", "N1=a,b", "--data", "N2=c"]) == 0
    assert node.bodies("/projects")[0]["datasets"] == {"N1": ["a", "b"], "N2": ["c"]}
    assert cli.main(["project", "new", "x", "--data", "N1"]) == 2


class TestJob:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "job.toml"
        path.write_text('name = "loans"\n[parties]\nguest = "N1"\n')
        return path

    def test_new_writes_a_file_once(self, tmp_path, capsys):
        out = tmp_path / "job.toml"
        assert cli.main(["job", "new", "--out", str(out)]) == 0
        assert "[parties]" in out.read_text()
        assert cli.main(["job", "new", "--out", str(out)]) == 1
        capsys.readouterr()
        assert cli.main(["job", "new"]) == 0
        assert capsys.readouterr().out == out.read_text()

    def test_submit_sends_the_tree_and_a_dry_run_only_asks(self, node, file, capsys):
        good = {"ok": True, "problems": [], "dag": JOB["dag"], "conf": JOB["config"]}
        node.answers |= {("POST", "/jobs"): JOB, ("POST", "/jobs/validate"): good}
        assert cli.main(["job", "submit", str(file), "--dry-run"]) == 0
        assert node.bodies("/jobs") == []
        assert "ds-9" in capsys.readouterr().out
        assert cli.main(["job", "submit", str(file)]) == 0
        assert node.bodies("/jobs") == [{"name": "loans", "parties": {"guest": "N1"}}]
        assert capsys.readouterr().out == "job-1\n"

    def test_problems_are_shown_and_fail(self, node, file, capsys):
        problem = {"where": "step[0].component", "message": "unknown"}
        answer = {"ok": False, "problems": [problem], "dag": None, "conf": None}
        node.answers["POST", "/jobs/validate"] = answer
        assert cli.main(["job", "validate", str(file)]) == 1
        assert "step[0].component: unknown" in capsys.readouterr().out

    @pytest.mark.parametrize("text", ["name = ", '"just a text"', "\xff\xfe"])
    def test_a_file_that_is_no_job_file_is_a_usage_error(self, node, tmp_path, text):
        bad = tmp_path / "bad.toml"
        bad.write_bytes(text.encode("latin-1"))
        assert cli.main(["job", "submit", str(bad)]) == 2
        assert cli.main(["job", "submit", str(tmp_path / "none.toml")]) == 2
        assert node.asked == []

    def test_json_job_files_are_read_too(self, node, tmp_path):
        path = tmp_path / "job.json"
        path.write_text('{"name": "x"}')
        node.answers["POST", "/jobs"] = JOB
        assert cli.main(["job", "submit", str(path)]) == 0
        path.write_text("[1]")
        assert cli.main(["job", "submit", str(path)]) == 2

    def test_status_shows_each_side(self, node, capsys):
        node.answers["GET", "/jobs/job-1"] = VIEW
        assert cli.main(["job", "status", "job-1"]) == 0
        told = capsys.readouterr().out
        for words in ("succeeded", "psi_1", "guest SUCCESS", "ended well"):
            assert words in told

    @pytest.mark.parametrize(("outcome", "code"), [("succeeded", 0), ("failed", 1), ("stopped", 1)])
    def test_watch_follows_to_the_end_and_tells_by_its_exit_code(self, node, capsys, monkeypatch, outcome, code):
        monkeypatch.setattr("gateway.cli.job.WATCH_S", 0)
        views = iter([{**VIEW, "job": {**JOB, "status": "RUNNING"}}, {**VIEW, "job": {**JOB, "outcome": outcome}}])
        node.answers["GET", "/jobs/job-1"] = lambda _: next(views)
        assert cli.main(["job", "status", "job-1", "--watch"]) == code
        assert "RUNNING: psi_1 SUCCESS" in capsys.readouterr().out

    def test_a_person_sees_the_job_before_approving(self, node, terminal):
        node.answers |= {("GET", "/jobs/job-1"): VIEW, ("POST", "/jobs/job-1/approve"): JOB}
        screen = terminal("y\n")
        assert cli.main(["job", "approve", "job-1"]) == 0
        for words in ("loans", "NODE1", "ds-9", 'psi_1 (all): result_to=["guest"]'):
            assert words in screen.getvalue()
        terminal("n\n")
        assert cli.main(["job", "approve", "job-1"]) == 1
        assert len(node.bodies("/jobs/job-1/approve")) == 1

    def test_outputs_are_downloaded_under_safe_names(self, node, tmp_path):
        output = {"task_name": "../psi", "key": "data0", "type": "dataset", "role": "guest", "index": 0}
        output |= {"namespace": "ns", "name": "n m", "bytes": 5, "rows": 1}
        node.answers |= {
            ("GET", "/jobs/job-1/outputs"): [output],
            ("GET", "/jobs/job-1/outputs/ns/n%20m"): Raw(200, b"id\n1\n"),
        }
        folder = tmp_path / "results"
        assert cli.main(["job", "outputs", "job-1", "--download", str(folder)]) == 0
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"___psi.data0.guest.0.csv": b"id\n1\n"}

    def test_logs_and_stop(self, node, capsys):
        lines = [
            {"task_name": "psi_1", "role": "guest", "index": 0, "status": "SUCCESS", "lines": 1, "text": "hello\n"}
        ]
        node.answers |= {("GET", "/jobs/job-1/logs"): lines, ("POST", "/jobs/job-1/stop"): JOB}
        assert cli.main(["job", "logs", "job-1", "--task", "psi_1", "--start", "0"]) == 0
        assert "hello" in capsys.readouterr().out
        assert node.asked[-1][2] == {"task_name": "psi_1", "start": "0"}
        node.answers["GET", "/jobs/job-1"] = {"job": {**JOB, "status": "RUNNING", "outcome": "open"}}
        assert cli.main(["job", "stop", "job-1"]) == 0
        assert node.bodies("/jobs/job-1/stop") == [{}]
        assert capsys.readouterr().out == "job-1: stopping\n"
        node.answers["GET", "/jobs/job-1"] = {"job": JOB}
        assert cli.main(["job", "stop", "job-1"]) == 0
        assert "has ended already: FINISHED, succeeded" in capsys.readouterr().out

    def test_what_happened_only_elsewhere_stays_open(self, node, capsys):
        party = {"node_id": "NODE2", "role": "host", "status": None}
        task = {**VIEW["tasks"][0], "task_name": "there", "status": "PENDING", "parties": [party], "shares": []}
        node.answers["GET", "/jobs/job-1"] = {**VIEW, "tasks": [task]}
        assert cli.main(["job", "status", "job-1"]) == 0
        told = capsys.readouterr().out
        assert "None" not in told
        assert "PENDING" not in told


class TestLocal:
    def test_init_makes_a_private_folder_once(self, tmp_path, capsys):
        folder = tmp_path / "node"
        words = ["init", "--dir", str(folder), "--node-id", "N1", "--name", 'A "b" \\ c', "--edge-port", "9000"]
        assert cli.main(words) == 0
        from gateway import config

        made = config.load(folder / "node.toml")
        assert (made.node.node_id, made.node.name, made.node.address) == ("N1", 'A "b" \\ c', "https://127.0.0.1:9000")
        token = folder / "admin.token"
        assert token.stat().st_mode & 0o777 == 0o600
        assert len(token.read_text().strip()) >= 43
        assert token.read_text() not in capsys.readouterr().out
        assert (folder / "pki/ca.pem").exists()
        assert cli.main(words) == 1
        assert "not empty" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "wrong", [["--node-id", "a b"], ["--inst-id", "../x"], ["--edge-port", "0"], ["--admin-port", "70000"]]
    )
    def test_init_refuses_what_cannot_be(self, tmp_path, wrong):
        words = ["init", "--dir", str(tmp_path / "n"), "--node-id", "N1", "--name", "n", *wrong]
        assert cli.main(words) == 2
        assert not (tmp_path / "n").exists()

    def test_version_and_backends(self, capsys):
        assert cli.main(["version", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["standard"] == "InterOp v1.2.0"
        assert cli.main(["backends", "--json"]) == 0
        assert {kernel["kernel"] for kernel in json.loads(capsys.readouterr().out)["kernels"]} >= {"ring128"}

    def test_serve_needs_a_configuration(self, monkeypatch):
        monkeypatch.delenv("INTERCONN_CONFIG", raising=False)
        assert cli.main(["serve"]) == 2

    def test_python_dash_m_gateway_is_the_same_command(self):
        done = subprocess.run([sys.executable, "-m", "gateway", "version"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("interconn ")
