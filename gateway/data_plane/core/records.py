"""What the channel writes to its spool: kinds of records and their metas, as JSON <-> frozen records.

Written and read by this node alone, but a disk is not to be trusted blindly: what cannot be read is None.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from gateway.data_plane.core.delivery import Name, read_name
from gateway.errors import ProtocolViolation
from gateway.model import NodeId, SessionId

ARRIVED: Final = 1
LANES: Final = 2
LEAVING: Final = 3


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message in a queue of ours; its payload is the record's. name: "" where the sender gave none."""

    session: SessionId
    topic: str
    source: NodeId
    name: str


@dataclass(frozen=True, slots=True)
class Lanes:
    """How far the lanes of a session have come: (topic, source, last name taken)."""

    session: SessionId
    lanes: Sequence[tuple[str, NodeId, str]]


@dataclass(frozen=True, slots=True)
class Leaving:
    """A container's push that was answered and is still to be delivered; the record's payload is its body.

    name: under which it goes, whatever happens. codec: of the body, as frame.Codec. The rest is what the container's
    call said, as frame.Envelope has it.
    """

    session: SessionId
    topic: str
    target: NodeId
    name: str
    codec: str
    content_type: str
    version: str
    provider: str
    trace_id: str
    target_inst: str
    alias: str
    """What the target calls the session, "" where it calls it as we do."""
    header_topic: str
    token: str = field(repr=False)
    """Only of a session without tasks, whose containers' own token is forwarded; else the rule's is shown."""


def write(record: Arrived | Lanes | Leaving) -> tuple[int, bytes]:
    """(kind, meta)."""
    kind = {Arrived: ARRIVED, Lanes: LANES, Leaving: LEAVING}[type(record)]
    value = {each.name: getattr(record, each.name) for each in fields(record)}
    return kind, json.dumps(value, separators=(",", ":")).encode()


def read(kind: int, meta: bytes) -> Arrived | Lanes | Leaving | None:
    """None for what is none of these."""
    made: Any = {ARRIVED: Arrived, LANES: Lanes, LEAVING: Leaving}.get(kind)
    try:
        value = json.loads(meta)
        if made is Lanes:
            lanes = [(_text(t), NodeId(_text(n)), _named(name)) for t, n, name in value["lanes"]]
            return Lanes(SessionId(_text(value["session"])), lanes)
        if made is None:
            return None
        record: Arrived | Leaving = made(**{_text(k): _text(v) for k, v in value.items()})
        if record.name:
            _named(record.name)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError, ProtocolViolation):
        return None
    return record


def lanes_of(session: SessionId, lanes: Iterable[tuple[str, NodeId, Name]], *, at_a_time: int) -> Iterable[Lanes]:
    """The lanes of a session in records of so many."""
    part: list[tuple[str, NodeId, str]] = []
    for topic, source, name in lanes:
        part.append((topic, source, str(name)))
        if len(part) == at_a_time:
            yield Lanes(session, part)
            part = []
    if part:
        yield Lanes(session, part)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _named(value: object) -> str:
    if read_name(_text(value)) is None:
        raise ValueError
    return _text(value)
