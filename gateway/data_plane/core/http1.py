"""Heads of HTTP/1.1, pure: the one strict form of request that chan/* is served from directly, and heads of answers.

`read_request` takes a head only where every parser of HTTP reads the same into it: one Content-Length, no other
framing, no name twice, no line that may be read in two ways. Whatever is outside of that is not refused here but is
OTHER, and belongs to a complete implementation of HTTP. So there is no second opinion on where a request ends.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import Final

from gateway.data_plane.core.wire import Buffer
from gateway.errors import Kind, ProtocolViolation

HEADERS: Final = 100
"""Lines of headers that a head may have."""
END: Final = b"\r\n\r\n"
ANSWER_HEAD_BYTES: Final = 32 << 10
LINE_BYTES: Final = 4096
INTERIM: Final = 8
"""Answers of 1xx before the real one."""
FINAL: Final = 200
SWITCHING: Final = 101
NO_BODY: Final = frozenset({204, 304})
HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_REQUEST: Final = re.compile(
    rb"POST /v1/interconn/chan/([a-z]{1,16})(?:\?timeout=([0-9]{1,9}))? HTTP/1\.1\r\n((?:[^\r\n]+\r\n)+)\r\n"
)
_LINE: Final = re.compile(rb"(?m)^([0-9A-Za-z!#$%&'*+.^_`|~-]+):[ \t]*((?:[!-~](?:[ \t!-~]*[!-~])?)?)[ \t]*\r\n")
_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
_ANSWER_LINE: Final = re.compile(rb"([0-9A-Za-z!#$%&'*+.^_`|~-]+):([^\r\n\0]*)")
_ONCE: Final = frozenset({"content-length", "transfer-encoding", "content-type", "connection"})
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n\0]*)?\r\n")
_ELSEWHERE: Final = frozenset({"transfer-encoding", "upgrade", "expect", "trailer", "http2-settings"})
"""Headers that change what follows the head; a request with one of them is OTHER."""


@unique
class Other(Enum):
    """A head that is not read here."""

    OTHER = "other"


OTHER: Final = Other.OTHER


@dataclass(frozen=True, slots=True)
class Request:
    """A POST of chan/<name>. headers: names in lower case. length: bytes of the body. keep: the connection goes on."""

    name: str
    wait: str | None
    headers: Mapping[str, str] = field(repr=False)
    length: int
    keep: bool


def read_request(head: bytes) -> Request | Other:
    """A whole head, its empty line included -> the request, or OTHER.

    The caller bounds the head's size and searches its end (`END`).
    """
    start = _REQUEST.fullmatch(head)
    if start is None:
        return OTHER
    name, wait, lines = start.groups()
    headers = _fields(lines)
    if headers is None or not _ELSEWHERE.isdisjoint(headers) or "host" not in headers:
        return OTHER
    length = headers.get("content-length", "")
    connection = headers.get("connection", "keep-alive").lower()
    if _LENGTH.fullmatch(length) is None or connection not in {"keep-alive", "close"}:
        return OTHER
    return Request(
        name=name.decode(),
        wait=None if wait is None else wait.decode(),
        headers=headers,
        length=int(length),
        keep=connection == "keep-alive",
    )


def _fields(lines: bytes) -> dict[str, str] | None:
    """Lines of headers -> names in lower case and values; None where a line is not plain or a name comes twice."""
    pairs = _LINE.findall(lines)
    found = {name.decode().lower(): value.decode() for name, value in pairs}
    # findall skips what does not match, so the lines are counted on their own.
    return found if len(pairs) == len(found) == lines.count(b"\n") <= HEADERS else None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. keep: the connection may be used again."""

    status: int
    content_type: str
    body: bytes = field(repr=False)
    keep: bool


@unique
class _Part(Enum):
    HEAD = 1
    BODY = 2
    SIZE = 3
    CHUNK = 4
    CHUNK_END = 5
    TRAILER = 6
    TO_THE_END = 7
    DONE = 8


@dataclass(frozen=True, slots=True)
class _Head:
    status: int
    content_type: str
    keep: bool


class AnswerReader:
    """Reads one answer, from anybody: with a length, in chunks, or up to the end of the connection.

    Where two readings are possible the answer is refused: nothing of it may be taken for the next call's.
    """

    def __init__(self, limit: int) -> None:
        """limit: bytes of the body."""
        self._limit = limit
        self._buffer = bytearray()
        self._body = bytearray()
        self._part = _Part.HEAD
        self._left = 0
        self._lines = 0
        self._head = _Head(0, "", keep=False)

    @property
    def begun(self) -> bool:
        """Whether any byte has come."""
        return self._part is not _Part.HEAD or bool(self._buffer)

    def feed(self, data: Buffer) -> Answer | None:
        """The answer once it is whole. Raises ProtocolViolation(PEER_MALFORMED)."""
        self._buffer += data
        while self._step():
            pass
        if self._part is not _Part.DONE:
            return None
        if self._buffer:
            raise _malformed("more than was asked for")
        return self._whole(keep=self._head.keep)

    def end(self) -> Answer | None:
        """The connection has ended: the answer if that was its end, else None."""
        return self._whole(keep=False) if self._part is _Part.TO_THE_END else None

    def _whole(self, *, keep: bool) -> Answer:
        return Answer(self._head.status, self._head.content_type, bytes(self._body), keep)

    def _step(self) -> bool:
        """One part of the answer; False when the bytes at hand do not reach to its end."""
        part = self._part
        if part is _Part.HEAD:
            return self._read_head()
        if part in {_Part.BODY, _Part.CHUNK}:
            taken = min(self._left, len(self._buffer))
            self._take(taken)
            self._left -= taken
            if self._left:
                return False
            self._part = _Part.DONE if part is _Part.BODY else _Part.CHUNK_END
            return part is _Part.CHUNK
        if part is _Part.TO_THE_END:
            self._take(len(self._buffer))
            return False
        return part is not _Part.DONE and self._read_line(part)

    def _take(self, size: int) -> None:
        if len(self._body) + size > self._limit:
            raise _malformed("too long")
        self._body += self._buffer[:size]
        del self._buffer[:size]

    def _read_head(self) -> bool:
        at = self._buffer.find(END)
        if at < 0:
            if len(self._buffer) > ANSWER_HEAD_BYTES:
                raise _malformed("head too long")
            return False
        head = bytes(self._buffer[: at + 2])
        del self._buffer[: at + len(END)]
        status, fields, latest = answer_head(head)
        if status < FINAL:
            self._lines += 1
            if status == SWITCHING or self._lines > INTERIM:
                raise _malformed("answers to what was not asked")
            return True
        connection = {token.strip() for token in fields.get("connection", "").lower().split(",")}
        keep = "close" not in connection and (latest or "keep-alive" in connection)
        self._head = _Head(status, fields.get("content-type", ""), keep)
        self._frame(fields.get("transfer-encoding"), fields.get("content-length"))
        return self._part is not _Part.DONE

    def _frame(self, coding: str | None, length: str | None) -> None:
        """Where the body ends (RFC 9112 6.3)."""
        self._lines = 0
        if self._head.status in NO_BODY:
            self._part = _Part.DONE
        elif coding is not None:
            if length is not None or coding.strip().lower() != "chunked":
                raise _malformed("its length is not clear")
            self._part = _Part.SIZE
        elif length is not None:
            if _LENGTH.fullmatch(length) is None:
                raise _malformed("its length is not clear")
            self._left = int(length)
            if self._left > self._limit:
                raise _malformed("too long")
            self._part = _Part.BODY if self._left else _Part.DONE
        else:
            self._part = _Part.TO_THE_END

    def _read_line(self, part: _Part) -> bool:
        at = self._buffer.find(b"\r\n")
        if at < 0:
            if len(self._buffer) > LINE_BYTES:
                raise _malformed("line too long")
            return False
        line = bytes(self._buffer[:at])
        del self._buffer[: at + 2]
        if part is _Part.CHUNK_END:
            if line:
                raise _malformed("a chunk is longer than it says")
            self._part = _Part.SIZE
        elif part is _Part.SIZE:
            size = _CHUNK.fullmatch(line)
            if size is None:
                raise _malformed("a chunk without its length")
            self._left = int(size[1], 16)
            self._part = _Part.CHUNK if self._left else _Part.TRAILER
        elif line:
            self._lines += 1
            if self._lines > HEADERS:
                raise _malformed("too many trailers")
        else:
            self._part = _Part.DONE
        return self._part is not _Part.DONE


def answer_head(head: bytes) -> tuple[int, dict[str, str], bool]:
    """Status, headers (names in lower case) and whether it is HTTP/1.1, of a head without its empty line.

    Raises ProtocolViolation(PEER_MALFORMED).
    """
    start = _STATUS.match(head)
    if start is None:
        raise _malformed("not an answer of HTTP/1")
    return int(start[2]), _answer_fields(head[start.end() :]), start[1] == b"1"


def _answer_fields(lines: bytes) -> dict[str, str]:
    """As `_fields`, of an answer: any text as a value, and headers that say nothing of the framing may repeat."""
    found: dict[str, str] = {}
    for line in lines.split(b"\r\n")[:-1]:
        parts = _ANSWER_LINE.fullmatch(line)
        if parts is None:
            raise _malformed("a header line is broken")
        name, value = parts[1].decode().lower(), parts[2].decode("latin-1").strip(" \t")
        if name in _ONCE and name in found:
            raise _malformed("a header came twice")
        found[name] = value
    return found


def _malformed(what: str) -> ProtocolViolation:
    return ProtocolViolation(f"the partner's answer: {what}", kind=Kind.PEER_MALFORMED, detail="")
