"""`interconn channel top`: rates from two looks, and a picture that fits its terminal and believes no id."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from gateway.cli import channel
from gateway.cli.channel import Picture, Rates, compare

FLOW = {"messages_out": 0, "bytes_out": 0, "messages_in": 0, "bytes_in": 0, "read": 0, "waited_s": 0.0}


def session(name: str, *, node: str = "LX-B", **more: Any) -> dict[str, Any]:
    levels = {"durability": "memory", "depth": 0, "bytes_held": 0, "bytes_on_disk": 0, "oldest_s": None, "readers": 0}
    made = {"session_id": name, **levels, **FLOW, **more}
    return {**made, "nodes": [{"node_id": node, **{key: made[key] for key in FLOW}}]}


def figures(at: int, *sessions: dict[str, Any], in_all: int | None = None, **partner: int) -> dict[str, Any]:
    return {
        "at": at,
        "node_id": "LX-A",
        "bytes_held": 100,
        "bytes_bound": 1 << 30,
        "bytes_on_disk": 0,
        "readers": 1,
        "sessions_in_all": len(sessions) if in_all is None else in_all,
        "sessions": list(sessions),
        "partners": [{"node_id": "LX-B", **FLOW, **partner}],
    }


def test_rates_and_order() -> None:
    before = figures(1000, session("a", bytes_in=100), session("b", bytes_out=10), bytes_in=100, messages_out=1)
    now = figures(
        3000,
        session("a", bytes_in=300, messages_in=4),
        session("b", bytes_out=4010),
        session("held", bytes_held=9),
        session("new", bytes_out=20),
        bytes_in=300,
        bytes_out=4030,
        messages_out=3,
    )
    look = compare(before, now)
    assert look.seconds == 2
    assert [each["session_id"] for _, each in look.sessions] == ["b", "a", "new", "held"]
    assert [rates for rates, _ in look.sessions] == [
        Rates(bytes_out=2000.0),
        Rates(bytes_in=100.0, messages_in=2.0),
        Rates(bytes_out=10.0),
        Rates(),
    ]
    assert look.total == Rates(bytes_in=100.0, bytes_out=2015.0, messages_out=1.0)
    value = json.loads(json.dumps(look.value(1)))
    assert [each["session_id"] for each in value["sessions"]] == ["b"]
    assert value["sessions"][0]["per_s"]["bytes_out"] == 2000
    assert value["per_s"]["messages_out"] == 1


def test_what_was_left_out_before_or_began_anew_moves_nothing() -> None:
    before = figures(1000, session("a"), in_all=500, bytes_in=9000)
    look = compare(before, figures(2000, session("b", bytes_in=10**9), in_all=500, bytes_in=5))
    assert look.sessions[0][0] == look.total == Rates()


@pytest.mark.parametrize("width", [40, 80, 100, 160, 240])
@pytest.mark.parametrize("height", [None, 10, 24, 60])
def test_the_picture_fits(width: int, height: int | None) -> None:
    hostile = "\x1b[2Jsession\n[bold]x[/bold]" + "y" * 250
    sessions = [
        session(
            f"session_{n:040}" if n else hostile,
            bytes_in=(1 + n) << 40,
            depth=10**6,
            bytes_held=1 << 40,
            bytes_on_disk=1 << 50,
            oldest_s=4000.5 * n,
            readers=4096,
            read=5,
            waited_s=700.0,
        )
        for n in range(100)
    ]
    picture = Picture("our\x1b node", {"LX-B": "partner [red]\x07" + "z" * 90})
    picture.see(compare(figures(1000), figures(2000, *sessions, bytes_in=1 << 50)))
    picture.lost = "no gateway"
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True).print(picture.draw(1000, width=width, height=height))
    lines = out.getvalue().splitlines()
    assert "\x1b[2J" not in out.getvalue()
    assert "\x07" not in out.getvalue()
    if height is not None and height >= 24 and width >= 80:
        assert len(lines) <= height
    if height is not None:
        assert "more sessions" in out.getvalue()


def test_small_words() -> None:
    assert channel.curve([0, 1, 2, 4], 4) == "▁▃▅█"
    assert [channel.bar(share, 4) for share in (0, 0.001, 0.5, 1, 9)] == ["░░░░", "█░░░", "██░░", "████", "████"]
    assert channel.shortened("session_202611220001", 10) == "sess…20001"
    ages = [channel.age(each) for each in (None, 0.0, 0.25, 3.0, 600.0, 90_000.0)]
    assert ages == ["", "<1 ms", "250 ms", "3 s", "10 min", "25 h"]
