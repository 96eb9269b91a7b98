"""Hostile JSON on every route of the management layer, from a partner with a good signature: a code, and no change."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import WIRE, Kind
from gateway.model import Limits
from specs.routes import MANAGEMENT
from tests.mgmt.test_growth import kept
from tests.mgmt.world import Node, World

EXAMPLES: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "specs" / "schemas" / "examples.json").read_text(encoding="utf-8")
)["routes"]
POSTS = sorted(name for name, route in MANAGEMENT.items() if route.method == "POST")
GETS = sorted(name for name, route in MANAGEMENT.items() if route.method == "GET")


def example(route: str) -> dict[str, Any]:
    return dict(EXAMPLES.get(route, {}))


def nested(levels: int, *, closed: bool = True) -> Callable[[str], bytes]:
    return lambda route: _with(route, b"[" * levels + (b"]" * levels if closed else b""))


def _with(route: str, value: bytes) -> bytes:
    """The example with one member more, written as given."""
    text = json.dumps(example(route)).encode()[:-1]
    return text + (b", " if example(route) else b"") + b'"more": ' + value + b"}"


BODIES: dict[str, tuple[Kind, Callable[[str], bytes]]] = {
    "100 levels": (Kind.MALFORMED, nested(100)),
    "100 levels of objects": (Kind.MALFORMED, lambda route: _with(route, b'{"x":' * 100 + b"1" + b"}" * 100)),
    "100,000 levels, open": (Kind.MALFORMED, nested(100_000, closed=False)),
    "a string of 10 MiB": (Kind.TOO_LARGE, lambda route: _with(route, b'"' + b"x" * (10 << 20) + b'"')),
    "a million members": (Kind.MALFORMED, lambda route: _with(route, b"[" + b"1," * 1_000_000 + b"1]")),
    "a member twice": (Kind.MALFORMED, lambda route: _with(_EMPTY, b'1, "more": 2')),
    "a member twice, spelled differently": (Kind.MALFORMED, lambda route: _with(_EMPTY, b'1, "mor\\u0065": 2')),
    "NaN": (Kind.MALFORMED, lambda route: _with(route, b"NaN")),
    "-Infinity": (Kind.MALFORMED, lambda route: _with(route, b"[-Infinity]")),
    "1e999": (Kind.MALFORMED, lambda route: _with(route, b"1e999")),
    "2^63": (Kind.MALFORMED, lambda route: _with(route, str(1 << 63).encode())),
    "an integer of 5,000 digits": (Kind.MALFORMED, lambda route: _with(route, b"9" * 5000)),
    "a lone surrogate": (Kind.MALFORMED, lambda route: _with(route, b'"\\ud800"')),
    "a lone surrogate as name": (Kind.MALFORMED, lambda route: _with(route, b'{"\\udfff": 1}')),
    "U+0000": (Kind.MALFORMED, lambda route: _with(route, b'"a\\u0000b"')),
    "not UTF-8": (Kind.MALFORMED, lambda route: _with(route, b'"\xff\xfe"')),
    "UTF-16": (Kind.MALFORMED, lambda route: json.dumps(example(route)).encode("utf-16")),
    "a BOM": (Kind.MALFORMED, lambda route: b"\xef\xbb\xbf" + json.dumps(example(route)).encode()),
    "a list": (Kind.MALFORMED, lambda route: b"[]"),
    "a text": (Kind.MALFORMED, lambda route: b'"x"'),
    "null": (Kind.MALFORMED, lambda route: b"null"),
    "two values": (Kind.MALFORMED, lambda route: b"{}{}"),
    "a comment": (Kind.MALFORMED, lambda route: b"{} // x"),
    "half": (Kind.MALFORMED, lambda route: json.dumps({"x": "y" * 100}).encode()[:50]),
}
_EMPTY = "node.health"
EVIL = (
    "'; DROP TABLE contract; --",
    '" OR 1=1 --',
    "<script>alert(1)</script>",
    "{{7*7}}${7*7}%n%s",
    "../../../../etc/passwd",
    "\u202egnp.exe",
    "a" * 100_000,
    "\U0010ffff",
    "",
)


@pytest.fixture
async def partners(world: World) -> tuple[Node, Node, str]:
    """A, B with no bound on how often A may call; their contract."""
    a = world.node("A")
    b = world.node("B", limits=Limits(unsigned_per_minute=100_000, request_attempts=1))
    contract = await world.partners(a, b)
    await b.add_dataset("ds")
    return a, b, contract.contract_id


@pytest.mark.parametrize("route", POSTS)
async def test_bodies(partners: tuple[Node, Node, str], route: str) -> None:
    a, b, _ = partners
    before = await kept(b)
    for name, (kind, body) in BODIES.items():
        answer = await a.send(b, route, {}, body=body(route))
        allowed = {WIRE[kind].code}
        if route in ("node.contract.query", "node.contract.terminate", "node.contract.confirm"):
            # Whose key verifies is read from the body: who cannot be found out is not told what is wrong with it.
            allowed |= {WIRE[Kind.UNAUTHENTICATED].code}
        assert answer["code"] in allowed, (name, answer)
        assert len(json.dumps(answer)) < 1000
    assert await kept(b) == before
    assert b.journal.of("edge.error") == []


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every text in a JSON value."""
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, inner in pairs:
        if isinstance(inner, str):
            yield value, key
        yield from places(inner)


@pytest.mark.parametrize("route", POSTS)
async def test_sql_and_html_in_every_text(partners: tuple[Node, Node, str], route: str) -> None:
    """Refused, or kept as the text that it is; never an internal error, and nothing else is touched."""
    a, b, contract_id = partners
    count = len(list(places(example(route))))
    others = [each for each in await kept(b) if getattr(each, "contract_id", "") == contract_id]
    for number in range(count):
        for evil in EVIL:
            body = json.loads(json.dumps(example(route)))
            if "contract_id" in body and route != "node.contract.terminate":
                body["contract_id"] = contract_id
            container, key = list(places(body))[number]
            container[key] = evil
            answer = await a.send(b, route, body)
            assert answer["code"] in {0, *(wire.code for wire in WIRE.values())} - {WIRE[Kind.INTERNAL].code}
            if len(evil) > 1000:
                assert evil[:1000] not in json.dumps(answer)
            assert "<script>" not in json.dumps(answer)
    assert b.journal.of("edge.error") == []
    left = await kept(b)
    assert [each for each in others if each not in left] == []


@pytest.mark.parametrize("route", GETS)
async def test_hostile_queries(partners: tuple[Node, Node, str], route: str) -> None:
    a, b, contract_id = partners
    before = await kept(b)
    asked = {**example(route), **({"contract_id": contract_id} if "contract_id" in example(route) else {})}
    for name in [*asked, "page_num", "page_size", "unknown"]:
        for evil in (*EVIL, "-1", "0", str(1 << 63), "9" * 400, "1e9", "NaN", "٣"):
            answer = await a.send(b, route, {**asked, name: evil})
            assert answer["code"] in {0, *(wire.code for wire in WIRE.values())} - {WIRE[Kind.INTERNAL].code}
            assert "<script>" not in json.dumps(answer)
    assert await kept(b) == before
    assert b.journal.of("edge.error") == []


def test_every_route_is_tried() -> None:
    assert len(POSTS) + len(GETS) == len(MANAGEMENT) == 32
    assert [name for name in POSTS if not example(name)] == []
