"""Passwords of the admin API: Argon2id (RFC 9106) in PHC form.

Hashing takes a fifth of a second and 64 MiB on purpose; whoever calls bounds how many run at a time.
"""

import unicodedata
from typing import Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from gateway.errors import ProtocolViolation

SHORTEST: Final = 12
LONGEST: Final = 1024
_MEMORY_KIB: Final = 64 << 10
_PASSES: Final = 3
_LANES: Final = 1
"""More would be computed by OpenSSL's own threads, where two derivations at a time wait for each other for ever."""
_BYTES: Final = 32
SALT_BYTES: Final = 16


def check_password(text: object) -> str:
    """A password that may be set, or tried, in the one form that is hashed; raises ProtocolViolation.

    The same characters may be typed in two ways (accents): both are taken (NFC).
    """
    if not isinstance(text, str) or not SHORTEST <= len(text) <= LONGEST:
        raise ProtocolViolation(f"a password has {SHORTEST} to {LONGEST} characters")
    return unicodedata.normalize("NFC", text)


def hashed(password: str, *, salt: bytes) -> str:
    """PHC text of a checked password. salt: SALT_BYTES fresh random bytes."""
    made = Argon2id(salt=salt, length=_BYTES, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY_KIB)
    return made.derive_phc_encoded(password.encode())


def matches(password: str, encoded: str) -> bool:
    """Whether a checked password is the one of `encoded`; takes as long for a wrong one."""
    try:
        Argon2id.verify_phc_encoded(password.encode(), encoded)
    except InvalidKey:
        return False
    return True
