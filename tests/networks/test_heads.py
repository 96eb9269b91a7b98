"""Heads of CONNECT and Upgrade: what we write, and what we take for an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.data_plane.core import heads
from gateway.errors import CallerError, Kind, ProtocolViolation


def test_what_we_write() -> None:
    assert heads.connect("::1", 443) == b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n"
    assert heads.connect("b.example", 7304, credentials=b"gw:pw:1") == (
        b"CONNECT b.example:7304 HTTP/1.1\r\nHost: b.example:7304\r\nProxy-Authorization: Basic Z3c6cHc6MQ==\r\n\r\n"
    )
    assert heads.upgrade("/p/v1/x?node=B", "b.example") == (
        b"GET /p/v1/x?node=B HTTP/1.1\r\nHost: b.example\r\nConnection: Upgrade\r\nUpgrade: interconn-bytes/1\r\n\r\n"
    )
    for bad in ("a b", "a\r\nx: y", "", "ä"):
        with pytest.raises(CallerError):
            heads.upgrade(f"/{bad} ", bad)


def test_an_answer_comes_in_pieces() -> None:
    whole = b"HTTP/1.1 200 Connection established\r\nVia: a\r\nX-Y:  b \r\n\r\nrest"
    for at in range(len(whole) - 4):
        assert heads.read_head(whole[:at]) is None
    head = heads.read_head(whole)
    assert head == heads.Head(200, {"via": "a", "x-y": "b"}, b"rest")
    assert heads.read_head(b"HTTP/1.0 407\r\n\r\n") == heads.Head(407, {}, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 999 x\r\n\r\n",
        b"HTTP/1.1 200 ok\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 ok\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 ok\r\na: b\0c\r\n\r\n",
        b"HTTP/1.1 200 ok\r\n" + b"a: b\r\n" * 3000 + b"\r\n",
        b"x" * heads.HEAD_BYTES,
    ],
)
def test_what_is_no_head(data: bytes) -> None:
    with pytest.raises(ProtocolViolation) as refused:
        heads.read_head(data)
    assert refused.value.kind is Kind.PEER_MALFORMED


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 200 ok\r\n" + tail)))
def test_anything_is_judged(data: bytes) -> None:
    try:
        head = heads.read_head(data)
    except ProtocolViolation:
        return
    if head is None:
        assert b"\r\n\r\n" not in data
    else:
        assert data.endswith(head.rest)
        assert 100 <= head.status <= 599
