"""The client of the admin API: what it sends, and what it makes of every kind of answer."""

import subprocess
import sys

import pytest

from gateway.admin_client import AdminClient
from gateway.errors import CallerError, Kind, ProtocolViolation, Refused, Unavailable
from tests.lab.admin_server import TOKEN, Failure, Raw, stand_in


def test_path_parts_are_quoted_and_empty_members_left_out():
    with stand_in({("GET", "/partners/a%2Fb/datasets"): [], ("POST", "/x"): {"ok": True}}) as server:
        client = AdminClient(server.url, TOKEN)
        assert client.get("partners", "a/b", "datasets", limit=5, status=None) == []
        assert client.post("x", name="n", empty=None) == {"ok": True}
    assert server.asked == [
        ("GET", "/partners/a%2Fb/datasets", {"limit": "5"}),
        ("POST", "/x", {"name": "n"}),
    ]


def test_an_error_of_the_api_keeps_its_kind_and_text():
    failure = Failure(409, 409, "conflicts: job exists")
    with stand_in({("POST", "/jobs"): failure}) as server, pytest.raises(Refused, match=failure.msg) as caught:
        AdminClient(server.url, TOKEN).post("jobs")
    assert caught.value.kind is Kind.CONFLICT


def test_a_wrong_token_is_refused():
    with stand_in({}) as server, pytest.raises(Refused) as caught:
        AdminClient(server.url, "wrong").get("node")
    assert caught.value.kind is Kind.UNAUTHENTICATED
    assert "wrong" not in repr(AdminClient(server.url, "wrong"))


@pytest.mark.parametrize("answer", [Raw(200, b"<html>"), Raw(502, b"<html>"), Raw(400, b"{}"), Raw(400, b"[1]")])
def test_an_answer_that_is_not_of_the_api_is_malformed(answer):
    with stand_in({("GET", "/node"): answer}) as server, pytest.raises(ProtocolViolation) as caught:
        AdminClient(server.url, TOKEN).get("node")
    assert caught.value.kind is Kind.PEER_MALFORMED


def test_nobody_there_is_unavailable():
    with pytest.raises(Unavailable, match="no gateway answers at http"):
        AdminClient("http://127.0.0.1:1", TOKEN).get("node")


def test_a_wrong_url_is_the_callers_fault():
    with pytest.raises(CallerError):
        AdminClient("ftp://x", TOKEN)


def test_download_is_complete_or_leaves_nothing(tmp_path):
    with stand_in(
        {("GET", "/good"): Raw(200, b"x" * 70_000), ("GET", "/bad"): Failure(404, 404, "not found")}
    ) as server:
        client = AdminClient(server.url, TOKEN)
        assert client.download("good", to=tmp_path / "good") == 70_000
        with pytest.raises(Refused):
            client.download("bad", to=tmp_path / "bad")
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_the_command_line_starts_without_the_heavy_packages():
    code = (
        "import gateway.cli, sys; print([m for m in ('aiohttp', 'sqlalchemy', 'numpy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
