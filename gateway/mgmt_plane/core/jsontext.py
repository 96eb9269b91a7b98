"""JSON from outside, bounded before it is parsed; nothing that two readers could understand differently.

Refused: more than `json_members` separators, deeper than `json_depth`, duplicate member names, NaN and Infinity,
numbers beyond 64 bits or a double, lone surrogates and U+0000, text that is not UTF-8.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from gateway.errors import ProtocolViolation
from gateway.model import Limits

_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_OPEN, _CLOSE = b"[{", b"]}"
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_INT_CHARS: Final = 20
_FLOAT_CHARS: Final = 400
_INT64: Final = range(-(1 << 63), 1 << 63)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_UNWRITABLE: Final = re.compile("[\x00\ud800-\udfff]")


def _bound(text: bytes, limits: Limits) -> None:
    bare = _STRINGS.sub(b'""', text)
    if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > limits.json_members:
        raise ProtocolViolation(f"JSON has more than {limits.json_members} members")
    depth = 0
    for bracket in bare.translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in _OPEN else -1
        if depth > limits.json_depth:
            raise ProtocolViolation(f"JSON is nested deeper than {limits.json_depth}")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ProtocolViolation("JSON has a duplicate member name")
    if any(_UNWRITABLE.search(name) for name in made):
        raise ProtocolViolation("JSON text holds U+0000 or a lone surrogate")
    return made


def _no_constant(_: str) -> NoReturn:
    raise ProtocolViolation("JSON has NaN or Infinity")


def _integer(text: str) -> int:
    if len(text) > _INT_CHARS or int(text) not in _INT64:
        raise ProtocolViolation("JSON has an integer beyond 64 bits")
    return int(text)


def _number(text: str) -> float:
    value = float(text) if len(text) <= _FLOAT_CHARS else math.inf
    if not math.isfinite(value):
        raise ProtocolViolation("JSON has a number beyond a double")
    return value


def _check_texts(root: Any) -> None:
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if _UNWRITABLE.search(value):
                raise ProtocolViolation("JSON text holds U+0000 or a lone surrogate")
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def parse_object(body: bytes, limits: Limits) -> Mapping[str, Any]:
    """The JSON object of a body whose size has been checked. Raises ProtocolViolation(MALFORMED)."""
    _bound(body, limits)
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_members,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except (ValueError, RecursionError) as e:
        raise ProtocolViolation("body is not JSON") from e
    if not isinstance(value, dict):
        raise ProtocolViolation("body is not a JSON object")
    if b"\\u" in body:  # written raw, neither passes UTF-8 decoding and JSON's grammar
        _check_texts(value)
    return value


def encode_object(value: Mapping[str, Any]) -> bytes:
    """Compact UTF-8; raises ValueError on NaN, which none of our values is."""
    return _ENCODER.encode(value).encode()
