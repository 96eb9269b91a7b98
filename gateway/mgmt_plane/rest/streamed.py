"""An answer too long to be held whole: its records are read batch by batch while they are sent.

The number of records comes last and is counted as they go out, so the two agree whatever is entered or taken away
meanwhile (M-019). What fails after the beginning breaks the answer off: a part never looks like the whole.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import Kind, ProtocolViolation
from gateway.mgmt_plane.core.jsontext import encode_object
from gateway.ports import Store, Tx

BATCH: Final = 500
"""Records held at once, and read in one transaction."""

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Streamed:
    """`data` of an answer {"records", "total"}, given in batches."""

    batches: AsyncIterator[Records]


async def in_batches(
    store: Store, read: Callable[[Tx, Any], tuple[Records, Any]], *, most: int
) -> AsyncIterator[Records]:
    """read(tx, after) -> (records, what the next ones come after, None at the end), each in a transaction of its own.

    Raises ProtocolViolation(TOO_LARGE) where there came to be more than `most`, and whatever `read` raises.
    """
    after, given = None, 0
    while True:
        records, after = await store.run(lambda tx, at=after: read(tx, at))  # type: ignore[misc]
        given += len(records)
        if given > most:
            raise ProtocolViolation(f"more than {most} records", kind=Kind.TOO_LARGE)
        if records:
            yield records
        if after is None:
            return


async def body(code: int, data: Streamed, shown: Callable[[Records], Records]) -> AsyncIterator[bytes]:
    """The whole answer as JSON text in pieces. shown: records as the caller's profile spells them."""
    yield b'{"code":%d,"msg":"success","data":{"records":[' % code
    total = 0
    async for records in data.batches:
        text = encode_object({"": list(shown(records))})
        yield (b"," if total else b"") + text[text.index(b"[") + 1 : -2]
        total += len(records)
    yield b'],"total":%d}}' % total
