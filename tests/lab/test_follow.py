"""Following the logs of a job: every line once, whatever comes between two looks."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import cli
from gateway.cli.follow import follow
from tests.lab.admin_server import TOKEN, stand_in


class Logs:
    """Logs of three shares; a look gives at most two lines."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, str, int], list[str]] = {}

    def fetch(self, *, task_name: str | None, start: int | None, length: int | None) -> Sequence[Mapping[str, Any]]:
        most = 2 if length is None else length
        return [
            {
                "task_name": name,
                "role": role,
                "index": index,
                "lines": len(lines),
                "text": "".join(f"{line}\n" for line in lines[start or 0 :][:most]),
            }
            for (name, role, index), lines in self.texts.items()
            if task_name in (None, name)
        ]


def followed(logs: Logs, rounds: Sequence[Mapping[tuple[str, str, int], Sequence[str]]], **more: Any) -> list[str]:
    """What is shown while each round's lines come."""
    left = list(rounds)
    shown: list[str] = []

    def ended() -> bool:
        for key, lines in left.pop(0).items():
            logs.texts.setdefault(key, []).extend(lines)
        return not left

    follow(
        logs.fetch,
        task=None,
        ended=ended,
        show=lambda whose, line: shown.append(f"{whose}: {line}"),
        sleep=lambda _seconds: None,
        **more,
    )
    return shown


def test_every_line_is_shown_once_and_with_its_share() -> None:
    guest, host, other = ("psi", "guest", 0), ("psi", "host", 1), ("lr", "guest", 0)
    rounds = [{}, {guest: ["a", "b", "c"]}, {guest: [], host: ["x\x0by"]}, {guest: ["d"], other: ["", "z"]}]
    assert followed(Logs(), rounds) == [
        "psi guest.0: a",
        "psi guest.0: b",
        "psi guest.0: c",
        "psi host.1: x\x0by",
        "psi guest.0: d",
        "lr guest.0: ",
        "lr guest.0: z",
    ]


def test_lines_that_cannot_be_had_end_the_look_and_not_the_following() -> None:
    class Silent(Logs):
        def fetch(self, **which: Any) -> Sequence[Mapping[str, Any]]:
            return [{**share, "text": ""} for share in super().fetch(**which)]

    assert followed(Silent(), [{("psi", "guest", 0): ["a"]}, {}]) == []


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    share = {"task_name": "psi_1", "role": "guest", "index": 0, "status": "SUCCESS", "lines": 2, "text": "one\ntwo\n"}
    with stand_in({("GET", "/jobs/job-1/logs"): [share]}) as server:
        (tmp_path / "admin.token").write_text(TOKEN)
        port = server.url.rpartition(":")[2]
        node = '[node]\nnode_id="A"\ninst_id="I"\nname="n"\ninstitution="i"\naddress="https://a:1"\n'
        (tmp_path / "node.toml").write_text(f"{node}[admin]\nport={port}\n")
        monkeypatch.setenv("INTERCONN_CONFIG", str(tmp_path / "node.toml"))
        server.answers["GET", "/jobs/job-1"] = {"job": {"status": "FINISHED"}}
        assert cli.main(["job", "logs", "job-1", "--follow", "--level", "error"]) == 0
        assert capsys.readouterr().out.splitlines() == ["psi_1 guest.0  one", "psi_1 guest.0  two"]
        asked = [query for _, path, query in server.asked if path.endswith("/logs")]
        assert all(query["level"] == "error" for query in asked)
        assert cli.main(["job", "logs", "job-1", "--follow", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [share]
        assert cli.main(["job", "logs", "job-1", "--follow", "--start", "3"]) == 2
