"""Certificates of partners: parse, check a leaf against the one CA that is pinned for its node, find the node it names.

A certificate names its node by exactly one URI `urn:interconn:node:<node_id>` among its alternative names. A subject or
issuer name proves nothing here: two pinned CAs may share theirs.
"""

import hashlib
from datetime import UTC, datetime
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


def certified_key(certificate: x509.Certificate) -> PublicKey:
    """The key that a certificate is about, if it can be read at all and is one we verify with."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as e:
        raise _no("the certificate's key cannot be read") from e
    return usable_key(key)


def certificates(pem: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, in order; 1 to MAX_CHAIN."""
    if len(pem) > MAX_PEM:
        raise _no("certificate text too long")
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, TypeError) as e:
        raise _no("not a PEM certificate") from e
    if len(found) > MAX_CHAIN:
        raise _no(f"more than {MAX_CHAIN} certificates")
    return found


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, lower-case hex."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


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


def _within_validity(certificate: x509.Certificate, now_ms: int) -> None:
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise _no("certificate is not valid at this time")


def check_ca(ca: x509.Certificate, *, now_ms: int) -> None:
    """That `ca` may issue and is valid now."""
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
    _within_validity(ca, now_ms)


def check_leaf(
    leaf: x509.Certificate, ca: x509.Certificate, *, node_id: str, now_ms: int, lists: Revocations = NONE
) -> None:
    """That `ca` itself issued `leaf` and has not revoked it, both are valid now, and the leaf names `node_id` alone."""
    check_ca(ca, now_ms=now_ms)
    try:
        leaf.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as e:
        raise _no("certificate was not issued by the pinned CA") from e
    certified_key(leaf)
    _within_validity(leaf, now_ms)
    if named_node(leaf) != node_id:
        raise _no("certificate names another node")
    lists.check(leaf.serial_number, fingerprint(ca), now_ms=now_ms)


def check_client(der: bytes, tls_ca: str, *, node_id: str, now_ms: int, lists: Revocations = NONE) -> None:
    """The certificate a partner showed in TLS, against the CA pinned for it (PEM; two while it changes its CA)."""
    try:
        leaf = x509.load_der_x509_certificate(der)
    except ValueError as e:
        raise _no("client certificate cannot be read") from e
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
