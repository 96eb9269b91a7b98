"""auth_type to sign and verify (A-01): SHA256_RSA, SHA256_ECDSA, ED25519 and CERT, whose key type selects one of them.

SHA256_RSA is RSA PKCS#1 v1.5 with SHA-256, SHA256_ECDSA is ECDSA on P-256 with SHA-256 and DER, ED25519 is RFC 8032
(ours, the standard's list is open); base64 on the wire.
Leaves to others: which bytes are signed (canonical), where keys live (keys), whose credential it is (the contract).
"""

import base64
import binascii
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from gateway.auth.chain import (
    MAX_PEM,
    PublicKey,
    certificates,
    certified_key,
    check_ca,
    check_leaf,
    fingerprint,
    usable_key,
)
from gateway.auth.revocation import NONE, Revocations
from gateway.errors import CallerError, Kind, Refused
from specs.states import AuthType

_PROBE: Final = b"interconn-signer-probe"
_MAX_SIGNATURE: Final = 2048
"""Characters of base64."""


class HeldKey(ABC):
    """A private key that only signs, for example one in a token."""

    @abstractmethod
    def sign_message(self, message: bytes) -> bytes:
        """As the key's type says above; ECDSA as DER."""


PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | HeldKey

_BARE: Final[Mapping[AuthType, type]] = {
    AuthType.SHA256_RSA: rsa.RSAPublicKey,
    AuthType.SHA256_ECDSA: ec.EllipticCurvePublicKey,
    AuthType.ED25519: ed25519.Ed25519PublicKey,
}
"""What a credential without a certificate must be."""


def _no(why: str) -> Refused:
    return Refused(why, kind=Kind.UNAUTHENTICATED)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a partner signs with. `ca` is the PEM of the CA that came with a CERT chain, else empty."""

    auth_type: AuthType
    key: PublicKey = field(repr=False)
    fingerprint: str
    """SHA-256 hex of the anchor: the CA's DER, or a lone certificate's; else the public key's DER."""
    ca: str = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)

    def check(self, *, node_id: str, now_ms: int, lists: Revocations = NONE) -> None:
        """That a CERT names `node_id`, is valid now and not revoked; a bare key has nothing to check."""
        if self.auth_type is not AuthType.CERT:
            return
        leaf, ca = self.chain
        check_leaf(leaf, ca, node_id=node_id, now_ms=now_ms, lists=lists)

    def verify(self, message: bytes, signature: str) -> None:
        """Raises Refused(UNAUTHENTICATED) unless `signature` (base64) is this key's over `message`."""
        if len(signature) > _MAX_SIGNATURE:
            raise _no("signature too long")
        try:
            raw = base64.b64decode(signature, validate=True)
        except (binascii.Error, ValueError) as e:
            raise _no("signature is not base64") from e
        try:
            if isinstance(self.key, rsa.RSAPublicKey):
                self.key.verify(raw, message, padding.PKCS1v15(), hashes.SHA256())
            elif isinstance(self.key, ed25519.Ed25519PublicKey):
                self.key.verify(raw, message)
            else:
                self.key.verify(raw, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as e:
            raise _no("signature does not verify") from e


def _certificate_credential(text: str) -> Credential:
    chain = certificates(text)
    if len(chain) != 2:
        raise _no("CERT must carry the leaf and, after it, the CA that issued it")
    leaf, ca = chain
    return Credential(
        AuthType.CERT,
        certified_key(leaf),
        fingerprint(ca),
        ca.public_bytes(Encoding.PEM).decode(),
        (leaf, ca),
    )


@lru_cache(maxsize=256)
def parse_credential(auth_type: str, text: str) -> Credential:
    """The credential of an apply or confirm; says nothing about time or node yet (`Credential.check` does).

    auth_type: one of specs.states.AuthType. text: PEM, at most 32 KiB. Raises Refused(UNAUTHENTICATED).
    """
    try:
        kind = AuthType(auth_type)
    except ValueError as e:
        raise _no("auth_type is not one we verify") from e
    if len(text) > MAX_PEM:
        raise _no("auth_credential too long")
    if kind is AuthType.CERT:
        return _certificate_credential(text)
    try:
        key = usable_key(load_pem_public_key(text.encode()))
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise _no("auth_credential is not a PEM public key") from e
    if not isinstance(key, _BARE[kind]):
        raise _no("auth_credential does not fit auth_type")
    return Credential(kind, key, key_digest(key), "", ())


def key_digest(key: PublicKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo DER, hex: the id of a key."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def pin_ca(pem: str, *, now_ms: int) -> tuple[str, str]:
    """A CA given by hand: (its PEM in normal form, its fingerprint). Raises Refused(UNAUTHENTICATED)."""
    found = certificates(pem)
    if len(found) != 1:
        raise _no("give exactly one CA certificate")
    check_ca(found[0], now_ms=now_ms)
    return found[0].public_bytes(Encoding.PEM).decode(), fingerprint(found[0])


@dataclass(frozen=True, slots=True)
class Signer:
    """Our own key with what partners verify it by. auth_type and credential travel in apply and confirm."""

    auth_type: AuthType
    credential: str
    fingerprint: str
    key: PrivateKey = field(repr=False)
    key_id: str = ""
    """SHA-256 of the public key (SubjectPublicKeyInfo DER), hex."""

    @property
    def current(self) -> "Signer":
        """A lone signer is a key ring of one (see keys.KeyRing)."""
        return self

    @property
    def greeting(self) -> "Signer":
        return self

    def of(self, _key_id: str) -> "Signer":
        return self

    def sign(self, message: bytes) -> str:
        """base64 of the signature over `message`."""
        if isinstance(self.key, HeldKey):
            raw = self.key.sign_message(message)
        elif isinstance(self.key, rsa.RSAPrivateKey):
            raw = self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(self.key, ed25519.Ed25519PrivateKey):
            raw = self.key.sign(message)
        else:
            raw = self.key.sign(message, ec.ECDSA(hashes.SHA256()))
        return base64.b64encode(raw).decode()


def make_signer(auth_type: AuthType, credential: str, key: PrivateKey) -> Signer:
    """A signer whose key is the one the credential shows; CallerError where they do not fit."""
    try:
        parsed = parse_credential(auth_type, credential)
    except Refused as e:
        raise CallerError(f"our own credential: {e}") from e
    made = Signer(auth_type, credential, parsed.fingerprint, key, key_digest(parsed.key))
    try:
        # What a partner will do with everything we sign; a key in a token can be compared in no other way.
        parsed.verify(_PROBE, made.sign(_PROBE))
    except Refused as e:
        raise CallerError("the signing key is not the one of the credential") from e
    return made
