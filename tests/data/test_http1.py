"""Heads and answers of HTTP/1.1: what is read is what a complete parser reads, nothing that could be two things."""

import asyncio
from collections.abc import Sequence

import pytest
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.data_plane.core import http1
from gateway.errors import Kind, ProtocolViolation

START = b"POST /v1/interconn/chan/push HTTP/1.1"
PLAIN = (b"Host: a", b"Content-Length: 5", b"Content-Type: application/x-protobuf", b"x-ptp-topic: t")


def head(*lines: bytes, start: bytes = START) -> bytes:
    return b"\r\n".join((start, *lines, b"", b""))


def test_a_plain_request() -> None:
    start = b"POST /v1/interconn/chan/pop?timeout=30 HTTP/1.1"
    assert http1.read_request(head(*PLAIN, b"X-Ptp-Token:  a b \t", b"x-empty:", start=start)) == http1.Request(
        name="pop",
        wait="30",
        headers={
            "host": "a",
            "content-length": "5",
            "content-type": "application/x-protobuf",
            "x-ptp-topic": "t",
            "x-ptp-token": "a b",
            "x-empty": "",
        },
        length=5,
        keep=True,
    )
    closing = http1.read_request(head(*PLAIN, b"Connection: Close"))
    assert isinstance(closing, http1.Request)
    assert not closing.keep


ODD_STARTS = [
    b"GET /v1/interconn/chan/push HTTP/1.1",
    b"POST /v1/interconn/chan/push HTTP/1.0",
    b"POST /v1/interconn/chan/push HTTP/2.0",
    b"POST  /v1/interconn/chan/push HTTP/1.1",
    b"POST /v1/interconn/chan//push HTTP/1.1",
    b"POST /v1/interconn/chan/%70ush HTTP/1.1",
    b"POST /v1/interconn/chan/push? HTTP/1.1",
    b"POST /v1/interconn/chan/pop?timeout=1&timeout=2 HTTP/1.1",
    b"POST /v1/interconn/chan/pop?timeout=-1 HTTP/1.1",
    b"POST http://a/v1/interconn/chan/push HTTP/1.1",
    b"POST /v1/interconn/chan/push#x HTTP/1.1",
    b"post /v1/interconn/chan/push HTTP/1.1",
    b"\r\nPOST /v1/interconn/chan/push HTTP/1.1",
    b" POST /v1/interconn/chan/push HTTP/1.1",
    b"PRI * HTTP/2.0",
]
ODD_LINES = [
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: identity",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"X: a\nTransfer-Encoding: chunked",
    b"X: a\rTransfer-Encoding: chunked",
    b"Content-Length: 5",
    b"content-length: 6",
    b"Content-Length : 6",
    b" Content-Length: 6",
    b"\tfolded",
    b"Expect: 100-continue",
    b"Upgrade: h2c",
    b"Connection: upgrade",
    b"Connection: keep-alive, close",
    b"Trailer: x",
    b"HTTP2-Settings: AA",
    b"Host: b",
    b"no colon",
    b"bad name: x",
    b": x",
    b"X\x00: y",
    b"X: a\x00b",
    b"X: \xc3\xa9",
    b"X: a\x7f",
    b"X-Ptp-Topic: again",
]


@pytest.mark.parametrize("start", ODD_STARTS)
def test_other_first_lines(start: bytes) -> None:
    assert http1.read_request(head(*PLAIN, start=start)) is http1.OTHER


@pytest.mark.parametrize("line", ODD_LINES)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_other_headers(line: bytes, at: int) -> None:
    assert http1.read_request(head(*PLAIN[:at], line, *PLAIN[at:])) is http1.OTHER


@pytest.mark.parametrize("length", [b"", b"+5", b"05", b"-1", b"5,5", b"0x5", b"5 5", b"5.0", b"9" * 19, b"\xd9\xa5"])
def test_lengths_that_are_not_clear(length: bytes) -> None:
    assert http1.read_request(head(b"Host: a", b"Content-Length: " + length)) is http1.OTHER


def test_requests_that_lack_something_or_have_too_much() -> None:
    assert http1.read_request(head(b"Host: a")) is http1.OTHER
    assert http1.read_request(head(b"Content-Length: 5")) is http1.OTHER
    assert http1.read_request(head(*PLAIN, *(b"x-%d: 1" % n for n in range(100)))) is http1.OTHER
    assert http1.read_request(head(*PLAIN) + b"x") is http1.OTHER
    assert http1.read_request(b"\r\n\r\n") is http1.OTHER


class Sink:
    """What aiohttp's parser wants of a protocol."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reading_paused = False

    def pause_reading(self, *_: object) -> None: ...

    def resume_reading(self, **_: object) -> None: ...


def as_aiohttp_reads(data: bytes) -> list[tuple[str, str, list[tuple[str, str]], bytes]]:
    """(method, path, headers, body) of every whole request in `data`."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(Sink(loop), loop, 1 << 16, auto_decompress=False)  # type: ignore[arg-type]
        messages, upgraded, rest = parser.feed_data(data)
        assert not upgraded
        assert not rest
        found = []
        for message, payload in messages:
            assert payload.is_eof()
            body = b"".join(getattr(payload, "_buffer", ()))
            headers = [(name.lower(), value) for name, value in message.headers.items()]
            found.append((message.method, message.path, headers, body))
        return found
    finally:
        loop.close()


mutated = st.builds(
    lambda base, at, gone, new: base[: at % len(base)] + new + base[at % len(base) + gone :],
    st.just(head(*PLAIN)),
    st.integers(0, 1000),
    st.integers(0, 3),
    st.one_of(
        st.binary(max_size=3), st.sampled_from([b"\r\n", b"\n", b":", b" ", b"\t", b"\r", b",", b"\0", b"?timeout=1"])
    ),
)
composed = st.lists(st.sampled_from([*PLAIN, *ODD_LINES, b"Connection: close", b"te: x", b"a:b"]), max_size=8).map(
    lambda lines: head(b"Host: a", *lines)
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(mutated, composed))
def test_what_is_read_is_what_aiohttp_reads(data: bytes) -> None:
    """The oracle of the door behind: one request, the same headers, and its body ends at the same byte."""
    request = http1.read_request(data)
    if request is http1.OTHER:
        return
    assert isinstance(request, http1.Request)
    body = b"b" * min(request.length, 5000)
    again = b"" if not request.keep or request.length > 5000 else head(*PLAIN) + b"12345"
    if request.length > 5000:
        return
    found = as_aiohttp_reads(data + body + again)
    query = "" if request.wait is None else f"?timeout={request.wait}"
    assert found[0] == ("POST", f"/v1/interconn/chan/{request.name}{query}", list(request.headers.items()), body)
    assert [taken[3] for taken in found[1:]] == ([b"12345"] if again else [])


# -- answers


def read(pieces: Sequence[bytes], *, limit: int = 100, ended: bool = False) -> http1.Answer | None:
    reader = http1.AnswerReader(limit)
    answer = None
    for piece in pieces:
        answer = reader.feed(piece)
    return reader.end() if ended else answer


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;ext=1\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n"
)


@pytest.mark.parametrize("whole", [LENGTH, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_answers_in_any_pieces(whole: bytes, step: int) -> None:
    pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
    assert read(pieces) == http1.Answer(200, "a/b", b"hello", keep=True)
    assert read(pieces[:-1]) is None
    assert read(pieces[:-1], ended=True) is None


def test_answers_up_to_the_end_of_the_connection() -> None:
    assert read([b"HTTP/1.0 502 Bad\r\n\r\n", b"<html>"]) is None
    assert read([b"HTTP/1.0 502 Bad\r\n\r\n", b"<html>"], ended=True) == http1.Answer(502, "", b"<html>", keep=False)
    kept = b"HTTP/1.%d 200 OK\r\nconnection: %s\r\ncontent-length: 0\r\n\r\n"
    for version, connection, keep in [(1, b"", True), (1, b"close", False), (0, b"", False), (0, b"Keep-Alive", True)]:
        assert read([kept % (version, connection)]) == http1.Answer(200, "", b"", keep)
    assert read([b"HTTP/1.1 204\r\n\r\n"]) == http1.Answer(204, "", b"", keep=True)


@pytest.mark.parametrize(
    "data",
    [
        LENGTH + b"x",
        LENGTH.replace(b"5", b"101"),
        LENGTH.replace(b"5", b"+5"),
        LENGTH.replace(b"5", b"5, 5"),
        LENGTH.replace(b"\r\n\r\n", b"\r\ncontent-length: 5\r\n\r\n"),
        LENGTH.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n"),
        LENGTH.replace(b"a/b\r\n", b"a/b\r\n folded\r\n"),
        LENGTH.replace(b"content-length:", b"content-length :"),
        CHUNKED.replace(b"chunked", b"gzip, chunked"),
        CHUNKED.replace(b"3\r\nllo", b"2\r\nllo"),
        CHUNKED.replace(b"3\r\n", b"+3\r\n"),
        CHUNKED.replace(b"3\r\n", b"65\r\n") + bytes(200),
        CHUNKED.replace(b"3\r\n", b"\r\n"),
        CHUNKED.replace(b"Trailer: x\r\n", b"x\r\n" * 200),
        CHUNKED.replace(b"3\r\n", b"3" + b" " * 5000),
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        b"HTTP/2 200 OK\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 40_000,
    ],
)
def test_answers_that_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        read([data])
    assert caught.value.kind is Kind.PEER_MALFORMED


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=12).map(lambda junk: CHUNKED[:80] + junk + CHUNKED[80:])))
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    kind, answer = Kind.PEER_MALFORMED, None
    try:
        answer = read([data])
    except ProtocolViolation as e:
        kind = e.kind
    assert kind is Kind.PEER_MALFORMED
    assert answer is None or len(answer.body) <= 100
