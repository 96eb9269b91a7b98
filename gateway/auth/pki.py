"""A small CA for one node: its own root, a signing certificate and a TLS certificate, as files of their owner alone.

Names: each leaf carries the URI urn:interconn:node:<node_id>; the TLS leaf also the host names it answers under.
"""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.auth.chain import fingerprint, node_urn
from gateway.auth.schemes import key_digest
from gateway.errors import CallerError
from specs.states import AuthType

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_CA_LIFE: Final = timedelta(days=3650)
_LEAF_LIFE: Final = timedelta(days=398)
_SKEW: Final = timedelta(hours=1)
"""Partners' clocks may be behind ours."""
_RSA_BITS: Final = 3072
_MAX_COMMON_NAME: Final = 64
_NAMED_ID: Final = 40
"""Characters of a node's id in the name of a CA that follows another, so that what tells them apart fits too."""


@dataclass(frozen=True, slots=True)
class Pki:
    """The files of one node, all mode 0600. `signing` and `tls` hold the leaf, then the CA."""

    ca: Path
    ca_key: Path
    signing: Path
    signing_key: Path
    tls: Path
    tls_key: Path
    fingerprint: str
    """SHA-256 hex of the CA's DER."""

    @classmethod
    def create(
        cls,
        directory: Path,
        node_id: str,
        hosts: Sequence[str] = (),
        *,
        now: datetime | None = None,
        auth_type: AuthType = AuthType.CERT,
    ) -> "Pki":
        """Make everything under `directory`; refuses to overwrite. hosts: names and addresses besides loopback's.

        auth_type: for a bare key `signing` holds the public key instead of a chain.
        """
        started = (now or datetime.now(UTC)).replace(microsecond=0)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _ca(node_id, ca_key, started)
        names = [x509.UniformResourceIdentifier(node_urn(node_id))]
        made = cls._at(directory, fingerprint(ca))
        _write(made.ca, _pem(ca))
        _write(made.ca_key, _key_pem(ca_key))
        leaves: list[tuple[Path, Path, Sequence[x509.GeneralName], Sequence[x509.ObjectIdentifier]]] = [
            (
                made.tls,
                made.tls_key,
                [*names, *_hosts(hosts)],
                (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
            )
        ]
        if auth_type is AuthType.CERT:
            leaves.append((made.signing, made.signing_key, names, ()))
        else:
            private = new_key(auth_type)
            _write(made.signing, public_pem(private))
            _write(made.signing_key, _key_pem(private))
        for path, key_path, alternative, usages in leaves:
            key = ec.generate_private_key(ec.SECP256R1())
            leaf = issue(ca, ca_key, key.public_key(), alternative, usages=usages, now=started)
            _write(path, _pem(leaf) + _pem(ca))
            _write(key_path, _key_pem(key))
        return made

    @classmethod
    def load(cls, directory: Path) -> "Pki":
        """What `create` made."""
        made = cls._at(directory, "")
        missing = [path.name for path in made.files() if not path.is_file()]
        if missing:
            raise CallerError(f"{directory}: {', '.join(missing)} missing")
        return replace(made, fingerprint=fingerprint(x509.load_pem_x509_certificate(made.ca.read_bytes())))

    @classmethod
    def _at(cls, directory: Path, mark: str) -> "Pki":
        return cls(
            ca=directory / "ca.pem",
            ca_key=directory / "ca.key",
            signing=directory / "signing.pem",
            signing_key=directory / "signing.key",
            tls=directory / "tls.pem",
            tls_key=directory / "tls.key",
            fingerprint=mark,
        )

    def files(self) -> tuple[Path, ...]:
        return (self.ca, self.ca_key, self.signing, self.signing_key, self.tls, self.tls_key)


def load_issuer(ca: Path, ca_key: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Our CA and its key. Raises CallerError where they are not there or do not belong together."""
    try:
        issuer = x509.load_pem_x509_certificate(ca.read_bytes())
        issuer_key = load_pem_private_key(ca_key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as e:
        raise CallerError(f"the CA in {ca.parent} cannot be used: {type(e).__name__}") from e
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey) or issuer_key.public_key() != issuer.public_key():
        raise CallerError(f"{ca_key} is not the EC key of {ca}")
    return issuer, issuer_key


def new_key(auth_type: AuthType) -> Private:
    """A private key for this kind of signature; for CERT an EC one."""
    if auth_type is AuthType.SHA256_RSA:
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    if auth_type is AuthType.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: Private) -> bytes:
    """What a partner verifies a bare key's signatures with."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def renew_bare(*, auth_type: AuthType, directory: Path, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """A new bare signing key: (public key, key), new files in `directory` named by the key's id."""
    key = new_key(auth_type)
    mark = key_digest(key.public_key())[:16]
    public_file, key_file = directory / f"signing-{mark}.pem", directory / f"signing-{mark}.key"
    _write(key_file, _key_pem(key, passphrase))
    _write(public_file, public_pem(key))
    return public_file, key_file


def renew_signing(
    *, ca: Path, ca_key: Path, directory: Path, node_id: str, now: datetime, passphrase: bytes | None = None
) -> tuple[Path, Path]:
    """A new signing key under the CA of these files: (chain, key), new files in `directory` named by the key's id.

    passphrase: the key's file is encrypted with it.
    """
    issuer, issuer_key = load_issuer(ca, ca_key)
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.UniformResourceIdentifier(node_urn(node_id))]
    leaf = issue(issuer, issuer_key, key.public_key(), names, usages=(), now=now.replace(microsecond=0))
    mark = fingerprint(leaf)[:16]
    chain_file, key_file = directory / f"signing-{mark}.pem", directory / f"signing-{mark}.key"
    _write(key_file, _key_pem(key, passphrase))
    _write(chain_file, _pem(leaf) + _pem(issuer))
    return chain_file, key_file


def renew_tls(
    *, ca: Path, ca_key: Path, directory: Path, node_id: str, hosts: Sequence[str], now: datetime
) -> tuple[Path, Path]:
    """A new TLS certificate under the CA of these files: (chain, key), new files in `directory`."""
    issuer, issuer_key = load_issuer(ca, ca_key)
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.UniformResourceIdentifier(node_urn(node_id)), *_hosts(hosts)]
    usages = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    leaf = issue(issuer, issuer_key, key.public_key(), names, usages=usages, now=now.replace(microsecond=0))
    mark = fingerprint(leaf)[:16]
    chain_file, key_file = directory / f"tls-{mark}.pem", directory / f"tls-{mark}.key"
    _write(key_file, _key_pem(key))
    _write(chain_file, _pem(leaf) + _pem(issuer))
    return chain_file, key_file


def renew_ca(*, directory: Path, node_id: str, now: datetime) -> tuple[Path, Path]:
    """A new CA: (certificate, key), new files in `directory`.

    Its name is a new one too: while partners know both, a verifier that looks for a CA by name must not take the other.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    mark = key_digest(key.public_key())[:16]
    ca = _ca(f"{node_id[:_NAMED_ID]} {mark[:8]}", key, now.replace(microsecond=0))
    file, key_file = directory / f"ca-{mark}.pem", directory / f"ca-{mark}.key"
    _write(key_file, _key_pem(key))
    _write(file, _pem(ca))
    return file, key_file


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_MAX_COMMON_NAME])])


def _usage(*, sign: bool, issue_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issue_certificates,
        crl_sign=issue_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _ca(node_id: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = _name(f"interconn CA {node_id}")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=False, issue_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def issue(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePublicKey,
    names: Sequence[x509.GeneralName],
    *,
    usages: Sequence[x509.ObjectIdentifier],
    now: datetime,
) -> x509.Certificate:
    """A leaf under `ca` with alternative names `names`; usages: extended key usages, none for signing."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name("interconn node"))
        .issuer_name(ca.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=True, issue_certificates=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def _hosts(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(("localhost", "127.0.0.1", *hosts)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: Private, passphrase: bytes | None = None) -> bytes:
    how = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


def _write(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError as e:
        raise CallerError(f"{path} exists") from e
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
