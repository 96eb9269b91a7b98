"""How a component ends: the result codes of our components and the error that carries one.

The texts of the codes stand in each component's self-description (`result`); a vendor's component may use its own.
"""

from enum import StrEnum, unique

from gateway.errors import GatewayError, Kind


@unique
class Code(StrEnum):
    """Result codes of the components of this package; the numbers are ours."""

    OK = "0"
    BAD_INPUT = "4001"
    DUPLICATE_IDS = "4002"
    EMPTY_INTERSECTION = "4003"
    PARTNER_SILENT = "4004"
    PARTNER_VIOLATION = "4005"
    PARTNER_GAVE_UP = "4006"
    TRANSPORT = "4007"
    STORAGE = "4008"
    DISAGREEMENT = "4009"
    INTERNAL = "5000"


class ComponentError(GatewayError):
    """A component cannot go on. `code` is a resultCode of its self-description; the message is for people.

    The message may be shown to the own side's operator; it names columns, parties and rows, never a value of the data.
    """

    default_kind = Kind.TASK_FAILED

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
