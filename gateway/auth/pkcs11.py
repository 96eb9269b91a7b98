"""A signing key that never leaves its token (PKCS #11), named as RFC 7512 does.

`pkcs11:token=LABEL;object=LABEL?module-path=/path/to/module.so&pin-source=file:/path`. Needs the extra
`interconn[pkcs11]`. RSA, EC P-256 and Ed25519. The token is asked for every signature, by one thread at a time.
"""

import hashlib
import importlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from gateway.auth.schemes import HeldKey
from gateway.errors import CallerError, Kind, Refused

SCHEME: Final = "pkcs11:"
_PATH: Final = frozenset({"token", "object", "id", "type", "serial", "manufacturer", "model"})
_QUERY: Final = frozenset({"module-path", "pin-source"})


@dataclass(frozen=True, slots=True)
class TokenUri:
    """What a pkcs11: URI says; "" for what it leaves out."""

    token: str
    label: str
    id: bytes
    module: Path
    pin_source: str


def parse(uri: str) -> TokenUri:
    """Raises CallerError for what is no usable pkcs11: URI."""
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    found: dict[str, bytes] = {}
    for part, separator, known in ((path, ";", _PATH), (query, "&", _QUERY)):
        for item in filter(None, part.split(separator)):
            name, equals, value = item.partition("=")
            if not equals or name not in known or name in found:
                raise CallerError(f"a pkcs11: URI cannot hold {name!r} there")
            found[name] = unquote_to_bytes(value)
    try:
        text = {name: value.decode() for name, value in found.items() if name != "id"}
    except UnicodeDecodeError as e:
        raise CallerError("a pkcs11: URI is UTF-8") from e
    if not text.get("token") or not (text.get("object") or found.get("id")) or not text.get("module-path"):
        raise CallerError("a pkcs11: URI needs token, object or id, and module-path")
    return TokenUri(
        token=text["token"],
        label=text.get("object", ""),
        id=found.get("id", b""),
        module=Path(text["module-path"]),
        pin_source=text.get("pin-source", ""),
    )


class TokenKey(HeldKey):
    """A private key in a token; the session stays open for as long as the process lives."""

    def __init__(self, pkcs11: Any, key: Any) -> None:
        self._pkcs11 = pkcs11
        self._key = key
        self._lock = threading.Lock()
        self._how = self._way()

    def __repr__(self) -> str:
        return "TokenKey()"

    def _way(self) -> Callable[[bytes], bytes]:
        kind, how = self._key.key_type, self._pkcs11.Mechanism
        if kind == self._pkcs11.KeyType.RSA:
            return lambda message: bytes(self._key.sign(message, mechanism=how.SHA256_RSA_PKCS))
        if kind == self._pkcs11.KeyType.EC:
            return lambda message: _der(bytes(self._key.sign(hashlib.sha256(message).digest(), mechanism=how.ECDSA)))
        if kind == self._pkcs11.KeyType.EC_EDWARDS:
            return lambda message: bytes(self._key.sign(message, mechanism=how.EDDSA))
        raise CallerError("the key in the token must be RSA, EC P-256 or Ed25519")

    def sign_message(self, message: bytes) -> bytes:
        """As HeldKey."""
        try:
            with self._lock:
                return self._how(message)
        except self._pkcs11.exceptions.PKCS11Error as e:
            raise Refused(f"the token does not sign: {type(e).__name__}", kind=Kind.INTERNAL) from e


def _der(raw: bytes) -> bytes:
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def open_key(uri: str, read_pin: Callable[[str], str]) -> TokenKey:
    """The key that `uri` names. read_pin: pin-source -> PIN.

    Raises Refused(NOT_OFFERED) without the extra, CallerError where module, token or key is not there.
    """
    named = parse(uri)
    try:
        pkcs11: Any = importlib.import_module("pkcs11")
    except ImportError as e:
        raise Refused(
            "a pkcs11: key needs the package python-pkcs11: pip install 'interconn[pkcs11]'", kind=Kind.NOT_OFFERED
        ) from e
    pin = read_pin(named.pin_source) if named.pin_source else None
    try:
        token = pkcs11.lib(str(named.module)).get_token(token_label=named.token)
        try:
            session = token.open(user_pin=pin)
        except pkcs11.exceptions.UserAlreadyLoggedIn:  # logging in is once per token and process
            session = token.open()
        asked = {"object_class": pkcs11.ObjectClass.PRIVATE_KEY}
        if named.label:
            asked["label"] = named.label
        if named.id:
            asked["id"] = named.id
        return TokenKey(pkcs11, session.get_key(**asked))
    except (pkcs11.exceptions.PKCS11Error, RuntimeError, OSError) as e:
        # The text of some modules quotes what they were given.
        raise CallerError(f"the key in token {named.token!r} cannot be used: {type(e).__name__}") from e
