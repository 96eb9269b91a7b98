"""Heads of HTTP/1.1 where a connection becomes a pipe: CONNECT to a proxy (RFC 9110 9.3.6), Upgrade at a partner (7.8).

Only what these two need: a request without a body, and the head of an answer, bounded before it is parsed.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.data_plane.core import http1
from gateway.errors import CallerError, Kind, ProtocolViolation

HEAD_BYTES: Final = 16 << 10
BYTES_PROTOCOL: Final = "interconn-bytes/1"
"""In Upgrade: after the 101 both sides send whatever they like (docs/transport.md, Networks)."""
_SWITCHING: Final = 101
_SAFE: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Head:
    """An answer's head. headers: names in lower case, of equal ones the last; rest: what came behind it."""

    status: int
    headers: Mapping[str, str]
    rest: bytes

    def switches_to(self, protocol: str) -> bool:
        """Whether the other side speaks `protocol` from here on."""
        return self.status == _SWITCHING and self.headers.get("upgrade", "").lower() == protocol


def authority(host: str, port: int) -> str:
    """host:port as it stands in a request (RFC 3986 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connect(host: str, port: int, *, credentials: bytes | None = None) -> bytes:
    """A request for a pipe to host:port. credentials: user:password of the proxy (Basic, RFC 7617).

    Raises CallerError for a host that cannot stand in a request.
    """
    target = _safe(authority(host, port))
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if credentials is not None:
        head += f"Proxy-Authorization: Basic {b64encode(credentials).decode()}\r\n"
    return f"{head}\r\n".encode()


def upgrade(target: str, host: str, *, protocol: str = BYTES_PROTOCOL) -> bytes:
    """A request that a partner's edge answers with 101 and then in another protocol. target: path and query."""
    return (
        f"GET {_safe(target)} HTTP/1.1\r\nHost: {_safe(host)}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
    ).encode()


def switching(protocol: str) -> bytes:
    """The answer to such a request, after which the other protocol is spoken."""
    return f"HTTP/1.1 {_SWITCHING} Switching Protocols\r\nupgrade: {protocol}\r\nconnection: upgrade\r\n\r\n".encode()


def _safe(text: str) -> str:
    if not _SAFE.fullmatch(text):
        raise CallerError("not a host or path of a request")
    return text


def read_head(data: bytes) -> Head | None:
    """The head that `data` begins with, None while it is not there as a whole.

    Raises ProtocolViolation(PEER_MALFORMED) for what is no head, or one of more than HEAD_BYTES.
    """
    end = data.find(http1.END, 0, HEAD_BYTES)
    if end < 0:
        if len(data) >= HEAD_BYTES:
            raise ProtocolViolation("the answer's head is too long", kind=Kind.PEER_MALFORMED, detail="")
        return None
    status, headers, _ = http1.answer_head(data[: end + 2])
    return Head(status, headers, data[end + len(http1.END) :])
