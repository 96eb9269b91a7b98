"""`interconn invite create` and `partner apply --invite` against a stand-in of the admin API."""

import json

import pytest

from gateway import cli
from gateway.auth.words import in_words
from tests.lab.admin_server import Failure
from tests.lab.test_cli import CONTRACT, PRINT, node, terminal

__all__ = ["node", "terminal"]  # fixtures

FILE = {"format": "interconn-invite", "version": 1, "invite": {"node_id": "NODE2"}, "signature": "AAAA"}
WORDS = list(in_words(PRINT))
MADE = {"file": FILE, "fingerprint": PRINT, "words": WORDS, "expires": 1_800_000_000_000}
SEEN = {
    "node_id": "NODE2",
    "inst_id": "I",
    "name": "payment",
    "institution": "P",
    "address": "https://p:1",
    "fingerprint": PRINT,
    "words": WORDS,
    "suites": ["CERT"],
    "created": 1,
    "expires": 1_800_000_000_000,
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "payment.invite"
    path.write_text(json.dumps(FILE))
    return str(path)


def test_create_writes_the_file_and_shows_what_to_read_out(node, tmp_path, capsys):
    node.answers["POST", "/invites"] = MADE
    out = tmp_path / "made.invite"
    assert cli.main(["invite", "create", "--out", str(out), "--days", "3"]) == 0
    assert json.loads(out.read_text()) == FILE
    assert node.bodies("/invites") == [{"days": 3}]
    told = capsys.readouterr().out
    assert " ".join(WORDS[:4]) in told
    assert "ab12 ab12" in told


def test_create_overwrites_nothing(node, tmp_path):
    node.answers["POST", "/invites"] = MADE
    out = tmp_path / "made.invite"
    out.write_text("mine")
    assert cli.main(["invite", "create", "--out", str(out)]) == 1
    assert out.read_text() == "mine"


def test_create_without_a_file_prints_it(node, capsys):
    node.answers["POST", "/invites"] = MADE
    assert cli.main(["invite", "create"]) == 0
    assert json.loads(capsys.readouterr().out) == FILE


def test_apply_shows_the_fingerprint_and_asks(node, terminal, file):
    node.answers |= {("POST", "/invites/check"): SEEN, ("POST", "/invites/apply"): CONTRACT}
    screen = terminal("n\n")
    assert cli.main(["partner", "apply", "--invite", file]) == 1
    assert " ".join(WORDS[4:8]) in screen.getvalue()
    assert "ab12 ab12" in screen.getvalue()
    assert node.bodies("/invites/apply") == []
    terminal("y\n")
    assert cli.main(["partner", "apply", "--invite", file]) == 0
    assert node.bodies("/invites/apply") == [{"file": FILE, "fingerprint": PRINT}]


def test_apply_without_a_terminal_needs_the_fingerprint(node, file, capsys):
    node.answers |= {("POST", "/invites/check"): SEEN, ("POST", "/invites/apply"): CONTRACT}
    assert cli.main(["partner", "apply", "--invite", file]) == 2
    assert "--fingerprint" in capsys.readouterr().err
    assert cli.main(["partner", "apply", "--invite", file, "--fingerprint", PRINT]) == 0


def test_what_the_gateway_refuses_is_not_applied_with(node, file, capsys):
    node.answers["POST", "/invites/check"] = Failure(401, 401, "the invitation is refused: it has expired")
    assert cli.main(["partner", "apply", "--invite", file, "--yes"]) == 1
    assert "expired" in capsys.readouterr().err
    assert node.bodies("/invites/apply") == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 60_000, b" " * 70_000])
def test_a_file_that_is_no_invitation(node, tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert cli.main(["partner", "apply", "--invite", str(path)]) == 1
    assert node.asked == []


def test_an_invitation_leaves_nothing_to_say(node, file):
    assert cli.main(["partner", "apply", "https://p:1", "--invite", file]) == 2
    assert cli.main(["partner", "apply"]) == 2
    assert node.asked == []


APPROVED = CONTRACT | {"status": "APPROVED"}


def test_a_profile_is_set_by_the_partners_name(node, capsys):
    node.answers |= {("GET", "/partners"): [APPROVED], ("POST", "/partners/NODE2/profile"): [APPROVED]}
    assert cli.main(["partner", "set-profile", "payment", "legacy-1.0"]) == 0
    assert node.bodies("/partners/NODE2/profile") == [{"profile": "legacy-1.0"}]
    assert "NODE2: legacy-1.0" in capsys.readouterr().out


@pytest.mark.parametrize(("fits", "code"), [("legacy-1.0", 0), ("", 1)])
def test_the_doctor_speaks_in_sentences(node, capsys, fits, code):
    node.answers |= {
        ("GET", "/partners"): [APPROVED],
        ("POST", "/partners/NODE2/doctor"): {"fits": fits, "words": ["One.", "Two."], "seen": []},
    }
    assert cli.main(["partner", "doctor", "NODE2"]) == code
    assert capsys.readouterr().out == "One.\nTwo.\n"


def test_a_partner_is_asked(node, capsys):
    node.answers["POST", "/partners/NODE2/ask"] = {"status": "ok"}
    assert cli.main(["partner", "ask", "NODE2", "node.health", "a=b=c"]) == 0
    assert node.bodies("/partners/NODE2/ask") == [{"route": "node.health", "query": {"a": "b=c"}}]
    assert json.loads(capsys.readouterr().out) == {"status": "ok"}


def test_what_is_recorded_by_hand(node, capsys):
    node.answers |= {
        ("POST", "/partners/record"): APPROVED,
        ("POST", "/grants/record"): {"subject": "ds-1", "peer_node_id": "K"},
    }
    assert cli.main(["partner", "record", "K", "--profile", "kuscia"]) == 0
    assert cli.main(["dataset", "record-grant", "K", "ds-1", "--component", "psi", "--times", "2"]) == 0
    assert node.bodies("/partners/record") == [{"node_id": "K", "profile": "kuscia"}]
    assert node.bodies("/grants/record") == [
        {"node_id": "K", "dataset_id": "ds-1", "auth_scope": {"COMPONENT": ["psi"]}, "times_limit": 2}
    ]


def test_a_grant_is_revoked(node, terminal, capsys):
    granted = {"audit_id": "au-1", "subject": "ds-1", "applicant": "NODE2", "peer_node_id": "NODE2", "kind": "dataset"}
    node.answers |= {
        ("GET", "/audits"): [granted],
        ("POST", "/audits/NODE2/au-1/terminate"): {**granted, "status": "TERMINATED"},
    }
    assert cli.main(["dataset", "revoke", "ds-1"]) == 2
    assert node.bodies("/audits/NODE2/au-1/terminate") == []
    assert cli.main(["dataset", "revoke", "ds-1", "--yes"]) == 0
    assert node.bodies("/audits/NODE2/au-1/terminate") == [{}]
    assert "ds-1: TERMINATED" in capsys.readouterr().out
