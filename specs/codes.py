"""Status codes that the standard fixes: 0 of management and control, and the strings of transport (4-transport 7)."""

from enum import StrEnum, unique
from typing import Final

OK: Final = 0


@unique
class Transport(StrEnum):
    """String codes of the channel endpoints; success is exactly the first (T-050)."""

    OK = "E0000000000"
    ILLEGAL = "E0000000400"
    FORBIDDEN = "E0000000403"
    NOT_FOUND = "E0000000404"
    TOO_LARGE = "E0000000413"
    SYSTEM = "E0000000500"
    UNREACHABLE = "E0000000503"
    UNKNOWN = "E0000000520"
    INCOMPATIBLE = "E0000000600"
    TIMEOUT = "E0000000601"
    NO_INSTANCE = "E0000000602"
    BAD_CERTIFICATE = "E0000000603"
    AUTHORISATION_EXPIRED = "E0000000604"
    NETWORKING_EXPIRED = "E0000000605"
    NETWORK_DISABLED = "E0000000606"
    NETWORK_DOWN = "E0000000607"
    RELEASED = "E0000000608"
    NOT_LICENSED = "E0000000614"
    BAD_SIGNATURE = "E0000000615"
    CODEC = "E0000000616"
    VERSION = "E0000000617"
    NOT_NETWORKED = "E0000000618"
    BAD_ADDRESS = "E0000000619"
    BUFFER_FULL = "E0000000700"
