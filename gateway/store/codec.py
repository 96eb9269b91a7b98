"""Records of gateway.model to rows of plain values and back, by type hints alone.

A row maps member names to str, int, bool or None, plus `record_key`. Enums are kept as their words, tuples and JSON
members as compact JSON text whose member order is kept (C-006). Both stores use this module, so both hand out fresh
copies and neither can be changed through a record somebody still holds.
"""

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final, TypeVar

from gateway.errors import CallerError
from gateway.ports import Record

KEY: Final = "record_key"
Row = dict[str, str | int | bool | None]
R = TypeVar("R", bound=Record)

_INT64: Final = range(-(1 << 63), 1 << 63)


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """How one member of a record is kept. base: str, int, bool, an enum of words, or None for JSON text."""

    name: str
    base: type | None
    optional: bool
    sequence: bool
    """A tuple in memory, a list in JSON."""


def _member(name: str, hint: Any) -> Member:
    optional = False
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        rest = [each for each in typing.get_args(hint) if each is not type(None)]
        if len(rest) != 1:
            raise CallerError(f"member {name}: a record cannot hold {hint}")
        hint, optional = rest[0], True
    while hasattr(hint, "__supertype__"):  # NewType
        hint = hint.__supertype__
    origin = typing.get_origin(hint)
    if origin is tuple:
        return Member(name, None, optional, sequence=True)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Member(name, None, optional, sequence=False)
    if isinstance(hint, type) and (hint in (str, int, bool) or issubclass(hint, enum.StrEnum)):
        return Member(name, hint, optional, sequence=False)
    raise CallerError(f"member {name}: a record cannot hold {hint}")


@cache
def members(kind: type) -> Mapping[str, Member]:
    """The members of a record class, in order."""
    hints = typing.get_type_hints(kind)
    return {each.name: _member(each.name, hints[each.name]) for each in dataclasses.fields(kind)}


_JSON: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _text(value: object) -> str:
    try:
        return _JSON.encode(value)
    except (TypeError, ValueError) as e:
        raise CallerError("a JSON member holds something that is not JSON") from e


def encode_value(member: Member, value: Any) -> str | int | bool | None:
    """One member as it is kept and compared."""
    if value is None:
        if not member.optional:
            raise CallerError(f"member {member.name} must not be None")
        return None
    if member.base is None:
        return _text(value)
    if member.base is bool:
        return bool(value)
    if member.base is int:
        if isinstance(value, bool) or not isinstance(value, int) or value not in _INT64:
            raise CallerError(f"member {member.name} is not an integer of 64 bits")
        return value
    if not isinstance(value, str):
        raise CallerError(f"member {member.name} is not text")
    return str(value)


def encode(record: Record) -> Row:
    """The row of a record."""
    row: Row = {KEY: record.key()}
    for name, member in members(type(record)).items():
        row[name] = encode_value(member, getattr(record, name))
    return row


def _decode_value(member: Member, value: Any) -> Any:
    if value is None:
        return None
    if member.base is None:
        loaded = json.loads(value)
        return tuple(loaded) if member.sequence else loaded
    return member.base(value)


def decode(kind: type[R], row: Mapping[str, Any]) -> R:
    """The record of a row."""
    return kind(**{name: _decode_value(member, row[name]) for name, member in members(kind).items()})


@cache
def _decoders(kind: type) -> tuple[tuple[int, Callable[[Any], Any]], ...]:
    """(place, how) of the members that a driver does not hand out as they are: all but texts and numbers."""
    places = enumerate(members(kind).values())
    return tuple((place, partial(_decode_value, each)) for place, each in places if each.base not in (str, int))


def decode_row(kind: type[R], row: Sequence[Any]) -> R:
    """The record of a row whose columns are the key and the members in order."""
    values = list(row[1:])
    for place, make in _decoders(kind):
        values[place] = make(values[place])
    return kind(*values)


def comparisons(kind: type, equals: Mapping[str, object]) -> Row:
    """Values to compare with, encoded; an unknown member is our own mistake."""
    known = members(kind)
    unknown = set(equals) - set(known)
    if unknown:
        raise CallerError(f"{kind.__name__} has no member {', '.join(sorted(unknown))}")
    return {name: None if value is None else encode_value(known[name], value) for name, value in equals.items()}


def place(kind: type, order: str, record: Record | None) -> tuple[str | int | bool | None, str] | None:
    """(value of the member ordered by, key) of a record in an order; None for no record."""
    if record is None:
        return None
    name, _ = ordering(kind, order)
    if name == KEY:
        return record.key(), record.key()
    if members(kind)[name].optional:
        raise CallerError(f"nothing comes after a {kind.__name__} by {name}, which may be None")
    return encode_value(members(kind)[name], getattr(record, name)), record.key()


def ordering(kind: type, order: str) -> tuple[str, bool]:
    """Member to order by and whether it descends; a record without `created` is ordered by its key."""
    name, descending = order.removeprefix("-"), order.startswith("-")
    if name not in members(kind):
        if name != "created":
            raise CallerError(f"{kind.__name__} has no member {name}")
        name = KEY
    return name, descending
