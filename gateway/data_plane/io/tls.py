"""TLS of the data plane: contexts from pinned certificates, and what a finished handshake proves.

A partner is known by its node id in the leaf (SAN URI `urn:interconn:node:<node_id>`) under exactly the one CA that
its contract pins; names of hosts and of issuers prove nothing (two CAs may bear one name). TLS is 1.2 or later (T-002).
"""

import _ssl
import base64
import functools
import hashlib
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from gateway.auth import chain
from gateway.auth.revocation import Revocations
from gateway.errors import CallerError, Kind, Refused
from gateway.model import NodeId

TLS_HANDSHAKE: Final = b"\x16"
"""What a connection begins with on which TLS is spoken."""
_PEM_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_PEM_END: Final = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a TLS certificate says: the one node it names ("" when none or several), its end (ms, UTC), its number."""

    node_id: NodeId
    not_after_ms: int
    serial: int


def ca_ders(pem: str) -> tuple[bytes, ...]:
    """DER of a partner's pinned CA and, after it, of the one that it has just replaced.

    Raises Refused(CONTRACT_INVALID) when there are not one or two.
    """
    count = pem.count(_PEM_BEGIN)
    if count not in (1, 2) or pem.count(_PEM_END) != count:
        raise Refused("a partner's CA must be one certificate, or two while it changes", kind=Kind.CONTRACT_INVALID)
    return tuple(_ca_der(part) for part in pem.split(_PEM_BEGIN)[1:])


def _ca_der(part: str) -> bytes:
    inner = part.partition(_PEM_END)[0]
    try:
        der = base64.b64decode("".join(inner.split()), validate=True)
        x509.load_der_x509_certificate(der)
    except ValueError as e:
        raise Refused("a partner's CA cannot be read", kind=Kind.CONTRACT_INVALID) from e
    return der


def subject(der: bytes) -> str:
    """A certificate's subject name as verifiers compare it: letters' case and runs of spaces don't count."""
    return " ".join(x509.load_der_x509_certificate(der).subject.rfc4514_string().casefold().split())


@functools.lru_cache(maxsize=1024)
def read_leaf(der: bytes) -> Leaf:
    """Names and end of a certificate; a leaf that cannot be read names nobody."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        end = certificate.not_valid_after_utc.timestamp()
        return Leaf(NodeId(chain.named_node(certificate)), int(end * 1000), certificate.serial_number)
    except (ValueError, Refused):
        return Leaf(NodeId(""), 0, 0)


def verified_chain(ssl_object: Any) -> list[bytes]:
    """DER certificates from the peer's leaf to the trusted root that vouched for it; [] without a peer certificate."""
    if ssl_object.getpeercert(binary_form=True) is None:
        return []
    public = getattr(ssl_object, "get_verified_chain", None)
    if public is not None:  # from Python 3.13
        return list(public() or ())
    # Before 3.13 only the inner object tells; without it a root could only be guessed from names.
    found = ssl_object._sslobj.get_verified_chain()  # noqa: SLF001
    return [item.public_bytes(_ssl.ENCODING_DER) for item in found or ()]


def server_context(chain_file: Path, key_file: Path, roots: Iterable[bytes]) -> ssl.SSLContext:
    """For the edge: client certificates are optional, and verified against the pinned roots (DER) when shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain_file, key_file)
    context.verify_mode = ssl.CERT_OPTIONAL
    # A resumed session would carry the verification of an earlier set of roots.
    context.options |= ssl.OP_NO_TICKET
    # HTTP/2 is for gRPC, whose clients offer nothing else; who can speak HTTP/1.1 does.
    context.set_alpn_protocols(["http/1.1", "h2"])
    context.num_tickets = 0
    for root in roots:
        context.load_verify_locations(cadata=root)
    return context


class SwappableContext:
    """The edge's listening context, whose pinned roots can be replaced while it listens.

    A context can be taught a CA but never forget one, so each handshake is given the newest (also without SNI).
    Connections that stand are not touched: whoever serves them asks `edge` per request.
    """

    def __init__(self, chain_file: Path, key_file: Path) -> None:
        self._files = (chain_file, key_file)
        self._roots: tuple[bytes, ...] = ()
        self._current = server_context(*self._files, ())
        self.listening = server_context(*self._files, ())
        self.listening.sni_callback = self._swap

    def _swap(self, ssl_object: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        ssl_object.context = self._current

    def trust(self, roots: Iterable[bytes]) -> None:
        """Verify client certificates of later handshakes against exactly these roots (DER)."""
        self._roots = tuple(roots)
        self._current = server_context(*self._files, self._roots)

    def show(self, chain_file: Path, key_file: Path) -> None:
        """Show this certificate in later handshakes. Raises CallerError where the files do not hold one."""
        try:
            self._current = server_context(chain_file, key_file, self._roots)
        except (OSError, ssl.SSLError) as e:
            raise CallerError(f"{chain_file}: no certificate with its key") from e
        self._files = (chain_file, key_file)


def client_context(
    chain_file: Path,
    key_file: Path,
    *,
    roots: tuple[bytes, ...],
    node_id: NodeId,
    revoked: Callable[[list[bytes]], None] = lambda _verified: None,
) -> ssl.SSLContext:
    """For calls to one partner: our certificate is shown, and nothing is sent before the other end has proven itself.

    revoked: raises Refused for a verified chain with a certificate that its CA has taken back.

    Host names are not compared: the node id in the leaf is the identity, an address may change or be a proxy's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    for root in roots:
        context.load_verify_locations(cadata=root)
    context.load_cert_chain(chain_file, key_file)

    class PinnedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            verified = verified_chain(self)
            if not vouches(verified, roots=roots, node_id=node_id):
                raise ssl.SSLCertVerificationError("the certificate is not that of the partner")
            try:
                revoked(verified)
            except Refused as e:
                raise ssl.SSLCertVerificationError(str(e)) from e

    context.sslobject_class = PinnedObject
    return context


def check_revoked(verified: list[bytes], lists: Revocations, *, now_ms: int) -> None:
    """Raises Refused(UNAUTHENTICATED) where the CA at the end of a chain of two has taken the leaf back."""
    lists.check(read_leaf(verified[0]).serial, hashlib.sha256(verified[1]).hexdigest(), now_ms=now_ms)


def vouches(verified: list[bytes], *, roots: tuple[bytes, ...], node_id: NodeId) -> bool:
    """Whether a verified chain is a leaf for `node_id`, issued by one of `roots` (DER) itself."""
    return len(verified) == 2 and verified[1] in roots and bool(node_id) and read_leaf(verified[0]).node_id == node_id
