"""All secure operators by (name, version), filled by naming each: no discovery, no side effect of an import.

Deliberately absent: how a party is fed and driven (the components' business) and which kernels it gets
(accel.registry's choice, made by the component).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.operators.lr import predict as lr_predict
from gateway.operators.lr import train as lr_train
from gateway.operators.lr.params import SCHEMA as LR_PARAMS
from gateway.operators.party import Party
from gateway.operators.psi import EcdhPsi

GUEST: Final = "guest"
HOST: Final = "host"


@dataclass(frozen=True, slots=True)
class OperatorSpec:
    """make_party: the party's class for each role; arguments as that class says. params_schema: a JSON schema.
    clause: the paragraph of the standard, or the paper, that it implements.
    """

    roles: tuple[str, ...]
    params_schema: Mapping[str, Any]
    make_party: Mapping[str, Callable[..., Party]]
    clause: str


_CAESAR: Final = "Chen et al., CAESAR, KDD 2021"

OPERATORS: Final[Mapping[tuple[str, str], OperatorSpec]] = {
    ("hetero_lr", "1.0.0"): OperatorSpec(
        roles=(GUEST, HOST),
        params_schema=LR_PARAMS,
        make_party={GUEST: lr_train.Guest, HOST: lr_train.Host},
        clause=_CAESAR,
    ),
    ("hetero_lr_predict", "1.0.0"): OperatorSpec(
        roles=(GUEST, HOST),
        params_schema=LR_PARAMS,
        make_party={GUEST: lr_predict.Guest, HOST: lr_predict.Host},
        clause="none: partial sums under the guest's key; gateway.operators.lr.predict",
    ),
    ("psi", "1.0.0"): OperatorSpec(
        roles=(GUEST, HOST),
        params_schema={"type": "object", "additionalProperties": False, "properties": {}},
        make_party={GUEST: EcdhPsi, HOST: EcdhPsi},
        clause="Huberman, Franklin and Hogg, Enhancing privacy and trust in electronic communities, EC 1999",
    ),
}
