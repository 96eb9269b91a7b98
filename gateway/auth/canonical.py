r"""The exact bytes that a signature covers: profile A-01 of 1-management (h), which the standard leaves open.

    METHOD \n PATH \n QUERY \n SOURCE \n TARGET \n NONCE \n TIMESTAMP \n hex(sha256(body))

QUERY is sorted by key, then value, and percent-encoded (RFC 3986 unreserved characters stay). PATH is the standard's
path, without the prefix that an address may carry. No part may hold a line break, so no two requests share their bytes.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlencode

from gateway.errors import ProtocolViolation

_FORBIDDEN: Final = frozenset("\r\n\x00")


@dataclass(frozen=True, slots=True)
class Signed:
    """What is signed. query: decoded pairs in any order; timestamp: as it stands in the header."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    source: str
    target: str
    nonce: str
    timestamp: str
    body: bytes = field(repr=False)


def encode_query(pairs: Iterable[tuple[str, str]]) -> str:
    """Sorted and percent-encoded; also what our client puts on the wire."""
    return urlencode(sorted(pairs), quote_via=quote, safe="")


def key_proof(*, source: str, target: str, contract_id: str, credential: str) -> bytes:
    """What a new key signs in node/update to prove that its private half is `source`'s (ADR 0004)."""
    parts = ("interconn-key-proof", source, target, contract_id, hashlib.sha256(credential.encode()).hexdigest())
    if any(_FORBIDDEN & set(part) for part in parts):
        raise ProtocolViolation("line break in a signed part")
    return "\n".join(parts).encode()


def canonical(request: Signed) -> bytes:
    """The bytes to sign. Raises ProtocolViolation where a part holds a line break."""
    parts = (
        request.method.upper(),
        request.path,
        encode_query(request.query),
        request.source,
        request.target,
        request.nonce,
        request.timestamp,
        hashlib.sha256(request.body).hexdigest(),
    )
    if any(_FORBIDDEN & set(part) for part in parts):
        raise ProtocolViolation("line break in a signed part")
    return "\n".join(parts).encode()
