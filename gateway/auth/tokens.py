"""Permit tokens and the header that presents them, x-mprac-token-set (A-16, M-017).

A set is tuples joined by `,`; a tuple is `URN/level/token`, split from the right because a URN may hold `/`. What we
issue holds neither. Only the digest of a token is kept by its holder.
"""

import base64
import hashlib
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from gateway.errors import CallerError, ProtocolViolation
from gateway.model import Permit

_MAX_LEVEL_DIGITS: Final = 9
_MIN_TOKEN_BYTES: Final = 16


def issue_token(random: bytes) -> str:
    """A token of `random` (at least 16 bytes) in characters that need no escaping anywhere."""
    if len(random) < _MIN_TOKEN_BYTES:
        raise CallerError("a token needs at least 16 random bytes")
    return base64.urlsafe_b64encode(random).rstrip(b"=").decode()


def token_digest(token: str) -> str:
    """SHA-256 of the token's UTF-8, hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def dataset_urn(node_id: str, dataset_id: str) -> str:
    """Our name for a dataset of a node: neither `,` nor `/` can stand in it."""
    return f"urn:interconn:dataset:{quote(node_id, safe='')}:{quote(dataset_id, safe='')}"


def _permit(text: str) -> Permit:
    parts = text.strip().rsplit("/", 2)
    if len(parts) != 3 or not all(parts):
        raise ProtocolViolation("x-mprac-token-set: a tuple is URN/level/token")
    urn, level, token = parts
    if not (level.isascii() and level.isdigit() and len(level) <= _MAX_LEVEL_DIGITS):
        raise ProtocolViolation("x-mprac-token-set: level is not a number")
    return Permit(urn, int(level), token)


def parse_token_set(text: str, *, limit: int) -> list[Permit]:
    """The permits of the header; absent and empty are the same. Raises ProtocolViolation."""
    if not text.strip():
        return []
    parts = text.split(",", limit)
    if len(parts) > limit:
        raise ProtocolViolation(f"x-mprac-token-set: more than {limit} tuples")
    return [_permit(each) for each in parts]


def format_token_set(permits: Iterable[Permit]) -> str:
    """The header's value. Raises CallerError where a permit cannot be written."""
    tuples = []
    for each in permits:
        if not (each.urn and each.token) or set(",/") & set(each.token) or "," in each.urn:
            raise CallerError("a permit that x-mprac-token-set cannot carry")
        tuples.append(f"{each.urn}/{each.level}/{each.token}")
    return ",".join(tuples)
