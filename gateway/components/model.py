"""One party's part of a hetero_lr model as it is stored: weights of its own columns, and nothing of the partner's."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.errors import CallerError
from gateway.operators.lr.params import LrParams
from gateway.sdk.result import Code, ComponentError


@dataclass(frozen=True, slots=True)
class ModelPart:
    """features: names in the order of weights. intercept: 0.0 at the host. params: those of the training."""

    party: str
    features: tuple[str, ...]
    weights: tuple[float, ...] = field(repr=False)
    intercept: float = field(repr=False)
    params: LrParams

    def to_json(self) -> Mapping[str, Any]:
        return {
            "component": "hetero_lr",
            "version": "1.0.0",
            "party": self.party,
            "features": list(self.features),
            "weights": list(self.weights),
            "intercept": self.intercept,
            "params": asdict(self.params),
        }

    @classmethod
    def from_json(cls, value: object) -> "ModelPart":
        """Raises ComponentError(BAD_INPUT) unless the value is what `to_json` gives."""
        try:
            match value:
                case {
                    "component": "hetero_lr",
                    "party": str(party),
                    "features": list(features),
                    "weights": list(weights),
                    "intercept": float() | int() as intercept,
                    "params": dict(params),
                } if all(isinstance(name, str) for name in features) and len(features) == len(weights):
                    numbers = [float(weight) for weight in (*weights, intercept)]
                    if not all(map(math.isfinite, numbers)):
                        raise _no_model("its weights are not numbers")
                    return cls(party, tuple(features), tuple(numbers[:-1]), numbers[-1], LrParams.from_mapping(params))
        except CallerError as e:
            raise _no_model(str(e)) from e
        except (TypeError, ValueError, OverflowError):
            raise _no_model("its weights or parameters are not numbers") from None
        raise _no_model("it has another form")


def _no_model(why: str) -> ComponentError:
    return ComponentError(Code.BAD_INPUT, f"input model is no part of a hetero_lr model: {why}")
