"""Public parameters of the vertical logistic regression; both parties must hold the same."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from gateway.errors import CallerError, Kind

SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "iterations": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 30},
        "inverse_penalty": {"type": "number", "minimum": 1e-6, "maximum": 1e3, "default": 0.02},
        "feature_bits": {"type": "integer", "minimum": 8, "maximum": 20, "default": 16},
        "value_bits": {"type": "integer", "minimum": 20, "maximum": 26, "default": 24},
        "scheme": {"type": "string", "enum": ["ou", "paillier", "paillier-textbook"], "default": "ou"},
        "key_bits": {"type": "integer", "minimum": 2048, "maximum": 4096, "default": 2048},
    },
}
"""JSON schema of the parameters as they stand in a job's configuration."""


@dataclass(frozen=True, slots=True)
class LrParams:
    """All parameters are public.

    iterations: gradient steps. inverse_penalty: C in 0.5*||w||^2 + C * sum(log-loss), as in scikit-learn.
    feature_bits: fractional bits of a feature. value_bits: fractional bits of weights, predictions and residuals.
    scheme, key_bits: homomorphic encryption. A key below 2048 bits can be had by calling this constructor only (tests).
    """

    iterations: int = 30
    inverse_penalty: float = 0.02
    feature_bits: int = 16
    value_bits: int = 24
    scheme: str = "ou"
    key_bits: int = 2048

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "LrParams":
        """From a job's configuration; numbers may come as strings. Raises CallerError naming the bad field."""
        unknown = sorted(set(values) - set(SCHEMA["properties"]))
        if unknown:
            raise CallerError(
                f"unknown parameter {unknown[0]}", kind=Kind.BAD_DAG, detail=f"unknown parameter {unknown[0]}"
            )
        return cls(**{name: _read(name, value) for name, value in values.items()})

    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON of all fields; the parties compare it before anything else happens."""
        text = json.dumps({f.name: asdict(self)[f.name] for f in fields(self)}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()


def _bad(name: str, rule: str) -> CallerError:
    return CallerError(f"parameter {name} {rule}", kind=Kind.BAD_DAG, detail=f"parameter {name} {rule}")


def _read(name: str, value: Any) -> Any:
    rule = SCHEMA["properties"][name]
    if rule["type"] == "string":
        if value not in rule["enum"]:
            raise _bad(name, f"must be one of {', '.join(rule['enum'])}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _bad(name, "must be a number")
    try:
        number = int(value) if rule["type"] == "integer" and not isinstance(value, float) else float(value)
    except ValueError:
        raise _bad(name, "must be a number") from None
    if not math.isfinite(number):
        raise _bad(name, "must be a finite number")
    if rule["type"] == "integer":
        if number != int(number):
            raise _bad(name, "must be a whole number")
        number = int(number)
    if not rule["minimum"] <= number <= rule["maximum"]:
        raise _bad(name, f"must lie between {rule['minimum']} and {rule['maximum']}")
    return number
