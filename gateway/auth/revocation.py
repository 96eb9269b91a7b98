"""Revocation lists (RFC 5280, 5): take one that a partner's CA signed, ask it about a certificate, write our own.

A list counts for the CA that signed it and for no other. Once one was given it must stay fresh: after its nextUpdate
every certificate of that CA is refused until a newer list comes, for whoever keeps a list back would otherwise keep a
stolen key in use. Leaves to others: where lists are kept (mgmt_plane.service.crls), which CA is whose (the contract).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.errors import Kind, ProtocolViolation, Refused

MAX_BYTES: Final = 256 << 10
"""Of a list as given: some 6,000 certificates of one partner."""
SKEW_MS: Final = 3_600_000
"""A list may be so much younger than our clock says it can be: their clock may be ahead."""
_PEM: Final = b"-----BEGIN X509 CRL-----"


class Revocations(Protocol):
    """Where a verifier asks whether a certificate still counts."""

    @property
    def any(self) -> bool:
        """Whether there is a list at all; where not, nobody need compute a fingerprint."""
        ...

    def check(self, serial: int, ca: str, *, now_ms: int) -> None:
        """ca: SHA-256 of the issuer's DER, hex. Raises Refused(UNAUTHENTICATED) for a revoked one."""
        ...


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What a CA says of its certificates. ca: SHA-256 of its DER, hex. Times: ms."""

    ca: str
    pem: str = field(repr=False)
    this_update: int
    next_update: int
    serials: frozenset[int] = field(repr=False)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _parse(raw: bytes) -> x509.CertificateRevocationList:
    if len(raw) > MAX_BYTES:
        raise ProtocolViolation(f"a revocation list has at most {MAX_BYTES} bytes", kind=Kind.TOO_LARGE)
    try:
        if raw.lstrip().startswith(_PEM):
            return x509.load_pem_x509_crl(raw)
        return x509.load_der_x509_crl(raw)
    except (ValueError, TypeError) as e:
        raise ProtocolViolation("not a revocation list (PEM or DER)") from e


def _list(parsed: x509.CertificateRevocationList, ca: str) -> RevocationList:
    """Raises ProtocolViolation for what a plain, complete list of one CA does not hold."""
    try:
        end = parsed.next_update_utc
        critical = [each.oid.dotted_string for each in parsed.extensions if each.critical]
        # An entry with a critical member may belong to another issuer (an indirect list) or mean something else.
        entries = [(each.serial_number, any(more.critical for more in each.extensions)) for each in parsed]
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as e:
        raise ProtocolViolation("the revocation list cannot be read") from e
    if end is None:
        raise ProtocolViolation("the revocation list says not when the next one comes (nextUpdate)")
    if critical or any(odd for _, odd in entries):
        raise ProtocolViolation("only plain, complete revocation lists are taken")
    return RevocationList(
        ca=ca,
        pem=parsed.public_bytes(Encoding.PEM).decode(),
        this_update=_ms(parsed.last_update_utc),
        next_update=_ms(end),
        serials=frozenset(serial for serial, _ in entries),
    )


def take(raw: bytes, cas: Mapping[str, x509.Certificate], *, now_ms: int) -> RevocationList:
    """A list as given (PEM or DER), if one of `cas` (by fingerprint) signed it and it is fresh.

    Raises ProtocolViolation where it is none, Refused(UNAUTHENTICATED) where no CA of these vouches for it or its time
    has passed.
    """
    parsed = _parse(raw)
    for mark, ca in cas.items():
        if parsed.issuer == ca.subject and _signed(parsed, ca):
            found = _list(parsed, mark)
            if found.this_update > now_ms + SKEW_MS:
                raise Refused("the revocation list is from the future", kind=Kind.UNAUTHENTICATED)
            if found.next_update <= now_ms:
                raise Refused("the revocation list has run out (nextUpdate)", kind=Kind.UNAUTHENTICATED)
            return found
    raise Refused("the revocation list was not signed by the partner's CA", kind=Kind.UNAUTHENTICATED)


def _signed(parsed: x509.CertificateRevocationList, ca: x509.Certificate) -> bool:
    try:
        if not ca.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
            return False
    except x509.ExtensionNotFound:
        pass  # a CA without the extension may sign what it likes
    except (x509.DuplicateExtension, ValueError):
        return False
    try:
        return bool(parsed.is_signature_valid(ca.public_key()))  # type: ignore[arg-type]  # refuses other keys itself
    except (InvalidSignature, TypeError, ValueError, UnsupportedAlgorithm):
        return False


@lru_cache(maxsize=256)
def reread(pem: str, ca: str) -> RevocationList:
    """A list that `take` took before, from where it was kept; its signature is not checked again."""
    return _list(_parse(pem.encode()), ca)


class RevocationLists:
    """The lists that count now, by CA. Safe to read from any thread; replaced as a whole."""

    def __init__(self, lists: Iterable[RevocationList] = ()) -> None:
        self._lists: Mapping[str, RevocationList] = {}
        self.generation = 0
        """Grows whenever another answer is possible: what was concluded before may be wrong now."""
        self.replace(lists)

    def replace(self, lists: Iterable[RevocationList]) -> None:
        """Exactly these from now on."""
        new = {each.ca: each for each in lists}
        if new != self._lists:
            self._lists = new
            self.generation += 1

    @property
    def any(self) -> bool:
        return bool(self._lists)

    def check(self, serial: int, ca: str, *, now_ms: int) -> None:
        """As Revocations.check; a CA of which there is no list revokes nothing."""
        found = self._lists.get(ca)
        if found is None:
            return
        if serial in found.serials:
            raise Refused("the certificate is revoked", kind=Kind.UNAUTHENTICATED)
        if now_ms >= found.next_update:
            raise Refused("the revocation list of this CA has run out: get a new one", kind=Kind.UNAUTHENTICATED)


NONE: Final = RevocationLists()
"""Nothing is revoked."""


def make(
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    revoked: Mapping[int, datetime],
    *,
    now: datetime,
    until: datetime,
) -> str:
    """Our own list as PEM. revoked: serial -> since when. Its number (RFC 5280, 5.2.3) is the time, so it grows."""
    started = now.replace(microsecond=0)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(started)
        .next_update(until.replace(microsecond=0))
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for serial, since in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(entry.revocation_date(since.astimezone(UTC)).build())
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
