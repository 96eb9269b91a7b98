"""Makes the files of new keys and certificates of this node, next to those it has. What counts, others decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from gateway.auth.chain import certificates, fingerprint
from gateway.auth.keys import load_signer
from gateway.auth.pki import renew_bare, renew_ca, renew_signing, renew_tls
from gateway.auth.schemes import Signer
from gateway.mgmt_plane.rest.admin_tls import MadeTls
from gateway.model import OwnTls
from specs.states import AuthType


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """Where this node's keys are. hosts: names and addresses that its TLS certificate answers under.

    ca, ca_key: those that count now.
    """

    directory: Path
    node_id: str
    hosts: tuple[str, ...]
    ca: Path
    ca_key: Path


def make_signing(
    files: OwnFiles, *, now: datetime, auth_type: AuthType = AuthType.CERT, passphrase: bytes | None = None
) -> tuple[Signer, str]:
    """A new signing key, for CERT under our CA, and its URI. passphrase: its file is encrypted with it."""
    if auth_type is AuthType.CERT:
        shown, key = renew_signing(
            ca=files.ca,
            ca_key=files.ca_key,
            directory=files.directory,
            node_id=files.node_id,
            now=now,
            passphrase=passphrase,
        )
    else:
        shown, key = renew_bare(auth_type=auth_type, directory=files.directory, passphrase=passphrase)
    uri, credential = key.resolve().as_uri(), shown.read_text(encoding="ascii")
    return load_signer(auth_type=auth_type, key_uri=uri, credential=credential, passphrase=passphrase), uri


def make_tls(
    files: OwnFiles, *, before: Sequence[Path], new_ca: bool, emergency: bool, signing: bool, now: datetime
) -> MadeTls:
    """A new TLS certificate. before: the chains that it follows. new_ca: under a new CA; signing: a signing key too."""
    followed = [each.read_text(encoding="ascii") for each in before]
    if new_ca:
        ca, ca_key = renew_ca(directory=files.directory, node_id=files.node_id, now=now)
        files = OwnFiles(files.directory, files.node_id, files.hosts, ca, ca_key)
    chain, key = renew_tls(
        ca=files.ca,
        ca_key=files.ca_key,
        directory=files.directory,
        node_id=files.node_id,
        hosts=files.hosts,
        now=now,
    )
    made = OwnTls(
        leaf=fingerprint(certificates(chain.read_text(encoding="ascii"))[0]),
        ca=fingerprint(x509.load_pem_x509_certificate(files.ca.read_bytes())),
        chain_uri=chain.resolve().as_uri(),
        key_uri=key.resolve().as_uri(),
        ca_uri=files.ca.resolve().as_uri(),
        ca_key_uri=files.ca_key.resolve().as_uri(),
        emergency=emergency,
    )
    return MadeTls(made, followed, make_signing(files, now=now) if new_ca and signing else None)
