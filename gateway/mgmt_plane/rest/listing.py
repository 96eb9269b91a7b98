"""A page of a list of the admin API: `limit` records behind the one whose key is `after`, walked by an index.

The answer stays a plain array; one that has `limit` records may have a next page. Nothing is skipped or given twice
while records are entered, since a page begins behind a record and not at a number.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.ports import Record, Tx

R = TypeVar("R", bound=Record)

MOST: Final = 1000
"""Records of an answer at most, and where no limit is given."""


def listed(tx: Tx, kind: type[R], query: Mapping[str, str], /, *, order: str = "created", **equals: Any) -> Sequence[R]:
    """query: `limit` and `after`, both optional.

    Raises ProtocolViolation for a limit outside 1 to MOST, Refused(NOT_FOUND) for an unknown `after`.
    """
    text, key = query.get("limit") or str(MOST), query.get("after", "")
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MOST)) else 0
    if not 1 <= limit <= MOST:
        raise ProtocolViolation(f"limit must be 1 to {MOST}")
    after = tx.get(kind, key) if key else None
    if key and after is None:
        raise Refused("no such record to go on after", kind=Kind.NOT_FOUND, detail="after")
    return tx.select(kind, order=order, limit=limit, after=after, **equals)
