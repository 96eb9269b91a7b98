"""Certificates of partners: parse, check a leaf against the one CA that is pinned for its node, find the node it names.

A certificate names its node by exactly one URI `urn:interconn:node:<node_id>` among its alternative names. A subject or
issuer name proves nothing here: two pinned CAs may share theirs.

What a certificate says, and whether one CA signed it, never changes and is remembered by its bytes. What may change is
asked every time: the hour, which CA is pinned for whom, whether a certificate has been revoked.
"""

import hashlib
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.auth.revocation import NONE, Revocations
from gateway.errors import Kind, Refused

URN: Final = "urn:interconn:node:"
MAX_PEM: Final = 32 << 10
"""Characters of a credential."""
MAX_CHAIN: Final = 4
MIN_RSA: Final = 2048
MAX_RSA: Final = 8192
"""Bits; a larger key only makes verifying slow."""
_REMEMBERED: Final = 1024
"""Certificates, of some kilobytes each; refusals are not remembered."""

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def _no(why: str) -> Refused:
    return Refused(why, kind=Kind.UNAUTHENTICATED)


def node_urn(node_id: str) -> str:
    return URN + node_id


def usable_key(key: object) -> PublicKey:
    """The key, if it is one we verify with: RSA of 2048 to 8192 bits, EC on P-256, or Ed25519."""
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA <= key.key_size <= MAX_RSA:
            raise _no(f"RSA key must have {MIN_RSA} to {MAX_RSA} bits")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise _no("EC key must be on P-256")
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise _no("key must be RSA, EC P-256 or Ed25519")


@lru_cache(maxsize=_REMEMBERED)
def certified_key(certificate: x509.Certificate) -> PublicKey:
    """The key that a certificate is about, if it can be read at all and is one we verify with."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as e:
        raise _no("the certificate's key cannot be read") from e
    return usable_key(key)


def certificates(pem: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, in order; 1 to MAX_CHAIN."""
    return list(_certificates(pem))


@lru_cache(maxsize=_REMEMBERED)
def _certificates(pem: str) -> tuple[x509.Certificate, ...]:
    if len(pem) > MAX_PEM:
        raise _no("certificate text too long")
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, TypeError) as e:
        raise _no("not a PEM certificate") from e
    if len(found) > MAX_CHAIN:
        raise _no(f"more than {MAX_CHAIN} certificates")
    return tuple(found)


@lru_cache(maxsize=_REMEMBERED)
def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, lower-case hex."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


@lru_cache(maxsize=_REMEMBERED)
def named_node(leaf: x509.Certificate) -> str:
    """The node a leaf names. Raises Refused(UNAUTHENTICATED) where it names none, or more than one."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as e:
        raise _no("certificate names no node") from e
    nodes = [uri.removeprefix(URN) for uri in uris if uri.startswith(URN)]
    if len(nodes) != 1:
        raise _no("certificate must name exactly one node")
    return nodes[0]


@lru_cache(maxsize=_REMEMBERED)
def _validity(certificate: x509.Certificate) -> tuple[float, float]:
    """First and last moment, ms."""
    return (
        certificate.not_valid_before_utc.timestamp() * 1000,
        certificate.not_valid_after_utc.timestamp() * 1000,
    )


def _within_validity(certificate: x509.Certificate, now_ms: int) -> None:
    first, last = _validity(certificate)
    if not first <= now_ms <= last:
        raise _no("certificate is not valid at this time")


@lru_cache(maxsize=_REMEMBERED)
def _may_issue(ca: x509.Certificate) -> None:
    """Raises where it may not."""
    try:
        is_ca = ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as e:
        raise _no("issuer is not a CA") from e
    if not is_ca:
        raise _no("issuer is not a CA")
    try:
        may_sign = ca.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True
    if not may_sign:
        raise _no("issuer may not sign certificates")
    certified_key(ca)


@lru_cache(maxsize=_REMEMBERED)
def _issued(leaf: x509.Certificate, ca: x509.Certificate) -> None:
    """Raises where `ca` did not sign `leaf`."""
    try:
        leaf.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as e:
        raise _no("certificate was not issued by the pinned CA") from e


def check_ca(ca: x509.Certificate, *, now_ms: int) -> None:
    """That `ca` may issue and is valid now."""
    _may_issue(ca)
    _within_validity(ca, now_ms)


def check_leaf(
    leaf: x509.Certificate, ca: x509.Certificate, *, node_id: str, now_ms: int, lists: Revocations = NONE
) -> None:
    """That `ca` itself issued `leaf` and has not revoked it, both are valid now, and the leaf names `node_id` alone."""
    check_ca(ca, now_ms=now_ms)
    _issued(leaf, ca)
    certified_key(leaf)
    _within_validity(leaf, now_ms)
    if named_node(leaf) != node_id:
        raise _no("certificate names another node")
    if lists.any:
        lists.check(leaf.serial_number, fingerprint(ca), now_ms=now_ms)


@lru_cache(maxsize=_REMEMBERED)
def _leaf(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as e:
        raise _no("client certificate cannot be read") from e


def check_client(der: bytes, tls_ca: str, *, node_id: str, now_ms: int, lists: Revocations = NONE) -> None:
    """The certificate a partner showed in TLS, against the CA pinned for it (PEM; two while it changes its CA)."""
    leaf = _leaf(der)
    if not tls_ca:
        raise _no("no CA is pinned for this node")
    why = _no("no CA is pinned for this node")
    for ca in certificates(tls_ca):
        try:
            check_leaf(leaf, ca, node_id=node_id, now_ms=now_ms, lists=lists)
        except Refused as e:
            why = e
        else:
            return
    raise why
