"""The bytes that are signed, literally."""

import hashlib

import pytest

from gateway.auth.canonical import Signed, canonical, encode_query
from gateway.errors import ProtocolViolation


def request(**changes: object) -> Signed:
    values: dict[str, object] = {
        "method": "GET",
        "path": "/v1/interconn/dataset/pub/list",
        "query": (("page_size", "20"), ("contract_id", "ct 1/ü&~")),
        "source": "A",
        "target": "B",
        "nonce": "n",
        "timestamp": "1772323200000",
        "body": b"",
    }
    return Signed(**{**values, **changes})  # type: ignore[arg-type]


def test_literal_bytes() -> None:
    assert canonical(request()) == (
        b"GET\n/v1/interconn/dataset/pub/list\ncontract_id=ct%201%2F%C3%BC%26~&page_size=20\nA\nB\nn\n1772323200000\n"
        b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    posted = canonical(request(method="post", query=(), body=b"{}"))
    assert posted.startswith(b"POST\n")
    assert posted.endswith(b"\n\nA\nB\nn\n1772323200000\n" + hashlib.sha256(b"{}").hexdigest().encode())


def test_order_of_query_does_not_matter() -> None:
    assert encode_query([("b", "1"), ("a", "2"), ("a", "1")]) == "a=1&a=2&b=1"


@pytest.mark.parametrize("part", ["path", "source", "target", "nonce", "timestamp"])
def test_no_part_can_reach_into_the_next(part: str) -> None:
    with pytest.raises(ProtocolViolation):
        canonical(request(**{part: "a\nb"}))


@pytest.mark.parametrize("part", ["method", "path", "query", "source", "target", "nonce", "timestamp", "body"])
def test_every_part_is_covered(part: str) -> None:
    other = {"query": (("a", "b"),), "body": b"x"}.get(part, "other")
    assert canonical(request()) != canonical(request(**{part: other}))
