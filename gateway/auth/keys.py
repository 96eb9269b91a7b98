"""Where private keys live: a key is named by a URI, never given as a value.

`file:/path` is PEM, encrypted where a passphrase is configured; `pkcs11:` is a key in a token (auth.pkcs11).
"""

import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.auth import pkcs11
from gateway.auth.schemes import PrivateKey, Signer, make_signer
from gateway.errors import CallerError, Kind, Refused
from specs.states import AuthType

_MAX_KEY_BYTES = 64 << 10


def path_of(uri: str) -> Path:
    """The absolute path of a `file:` URI."""
    parsed = urlsplit(uri)
    if parsed.scheme != "file":
        raise Refused(f"key scheme {parsed.scheme or '(none)'} is not offered", kind=Kind.NOT_OFFERED)
    path = Path(unquote(parsed.path))
    if parsed.netloc not in ("", "localhost") or not path.is_absolute() or parsed.query or parsed.fragment:
        raise CallerError("a key URI is file:/absolute/path")
    return path


def read_secret(path: Path) -> bytes:
    """The content of a secret's file, if it is a plain file that nobody but its owner can read or write."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        raise CallerError(f"{path}: {e.strerror}") from e
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CallerError(f"{path} is not a plain file")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise CallerError(f"{path} must be readable by its owner alone (chmod 600)")
        if status.st_size > _MAX_KEY_BYTES:
            raise CallerError(f"{path} is too large for a key")
        return os.read(descriptor, _MAX_KEY_BYTES)
    finally:
        os.close(descriptor)


def read_passphrase(uri: str) -> bytes | None:
    """The passphrase in the file that `uri` names, without the line's end; None for ""."""
    return read_secret(path_of(uri)).rstrip(b"\r\n") if uri else None


def load_key(uri: str, *, passphrase: bytes | None = None) -> PrivateKey:
    """The private key that `uri` names. passphrase: that of an encrypted file; a file without one is taken as well.

    Raises CallerError where it cannot be used, Refused(NOT_OFFERED) for a scheme that is not offered here.
    """
    if uri.startswith(pkcs11.SCHEME):
        return pkcs11.open_key(uri, lambda source: (read_passphrase(source) or b"").decode("utf-8", "replace"))
    path = path_of(uri)
    raw = read_secret(path)
    encrypted = b"ENCRYPTED" in raw
    if encrypted and passphrase is None:
        raise CallerError(f"{path} is encrypted: name the file of its passphrase (keys.signing_passphrase)")
    try:
        key = load_pem_private_key(raw, password=passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        # Its text may quote the file.
        words = "cannot be read with its passphrase" if encrypted else "is not a PEM private key"
        raise CallerError(f"{path} {words}") from e
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise CallerError(f"{path}: the key must be RSA, EC or Ed25519")
    return key


class KeyRing:
    """Our signing keys: the one of the configuration and those that followed it. Safe to read from any thread."""

    def __init__(self, base: Signer) -> None:
        self._base = base
        self._all = {base.key_id: base}
        self._current = base
        self._anchor = ""
        self._void: frozenset[str] = frozenset()

    @property
    def current(self) -> Signer:
        """The newest: what a new partner is told, and partners of old as soon as they have acknowledged it."""
        return self._current

    def all(self) -> list[Signer]:
        """Every key that is here, the configuration's first."""
        return list(self._all.values())

    def anchor(self, ca: str) -> None:
        """Our listener shows a certificate of the CA with this fingerprint."""
        self._anchor = ca

    @property
    def greeting(self) -> Signer:
        """What whoever does not know us yet is told: the newest under the CA that our listener shows, if any is."""
        fit = (each for each in reversed(self.all()) if each.fingerprint == self._anchor)
        return next((each for each in fit if each.key_id not in self._void), self._current)

    def add(self, signer: Signer, *, emergency: bool = False) -> None:
        """`signer` is the newest from now on; emergency: those before it are compromised."""
        if emergency:
            self._void = frozenset(self._all)
        self._all[signer.key_id] = signer
        self._current = signer

    def id_of(self, key_id: str) -> str:
        """The id itself; "" is the configuration's key."""
        return key_id or self._base.key_id

    def of(self, key_id: str) -> Signer:
        """The key of this id; "" is the configuration's. Raises CallerError where it is not here."""
        found = self._all.get(key_id) if key_id else self._base
        if found is None:
            raise CallerError(f"the signing key {key_id[:16]} is not here")
        return found


def load_signer(*, auth_type: AuthType, key_uri: str, credential: str, passphrase: bytes | None = None) -> Signer:
    """Our signer. credential: PEM text (CERT: leaf, then CA; else the public key)."""
    return make_signer(auth_type, credential, load_key(key_uri, passphrase=passphrase))
