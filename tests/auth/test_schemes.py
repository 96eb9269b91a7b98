"""Signatures, credentials, chains, keys and the small CA."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from gateway.auth.chain import check_client, named_node, node_urn
from gateway.auth.keys import load_key, load_signer
from gateway.auth.pki import Pki, issue
from gateway.auth.schemes import PrivateKey, Signer, make_signer, parse_credential, pin_ca
from gateway.errors import CallerError, GatewayError, Kind, Refused
from specs.states import AuthType

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)


def public_pem(key: PrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("pki") / "a", "A", ["gate.example", "10.0.0.1"], now=NOW)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("pki") / "b", "B", now=NOW)


def cert_signer(pki: Pki) -> Signer:
    return load_signer(auth_type=AuthType.CERT, key_uri=pki.signing_key.as_uri(), credential=pki.signing.read_text())


def signers(pki: Pki, rsa_key: rsa.RSAPrivateKey) -> list[Signer]:
    ec_key, ed_key = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    return [
        make_signer(AuthType.SHA256_RSA, public_pem(rsa_key), rsa_key),
        make_signer(AuthType.SHA256_ECDSA, public_pem(ec_key), ec_key),
        make_signer(AuthType.ED25519, public_pem(ed_key), ed_key),
        cert_signer(pki),
    ]


def refusal(kind: Kind = Kind.UNAUTHENTICATED) -> pytest.RaisesExc[GatewayError]:
    return pytest.RaisesExc(GatewayError, check=lambda e: e.kind is kind)


@pytest.mark.req("M-014")
def test_sign_and_verify(pki: Pki, rsa_key: rsa.RSAPrivateKey) -> None:
    for signer in signers(pki, rsa_key):
        credential = parse_credential(signer.auth_type, signer.credential)
        signature = signer.sign(b"message")
        credential.verify(b"message", signature)
        for message, wrong in (
            (b"other", signature),
            (b"message", "!" + signature),
            (b"message", ""),
            (b"message", "AAAA"),
            (b"message", signature + "\n"),
            (b"message", "A" * 4000),
        ):
            with refusal():
                credential.verify(message, wrong)
        assert credential.fingerprint == signer.fingerprint


def test_one_key_does_not_verify_anothers(pki: Pki, other: Pki, rsa_key: rsa.RSAPrivateKey) -> None:
    signature = cert_signer(pki).sign(b"m")
    foreign = cert_signer(other)
    with refusal():
        parse_credential("CERT", foreign.credential).verify(b"m", signature)
    with refusal():
        parse_credential("SHA256_RSA", public_pem(rsa_key)).verify(b"m", signature)


def test_credentials_that_are_refused(pki: Pki, other: Pki, rsa_key: rsa.RSAPrivateKey) -> None:
    small = rsa.generate_private_key(65537, 1024)
    p384 = ec.generate_private_key(ec.SECP384R1())
    leaf = pki.signing.read_text().split("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    for auth_type, text in (
        ("SHA256_RSA", public_pem(small)),
        ("SHA256_ECDSA", public_pem(p384)),
        ("SHA256_ECDSA", public_pem(ed25519.Ed25519PrivateKey.generate())),
        ("SHA256_ECDSA", public_pem(rsa_key)),
        ("SHA256_RSA", public_pem(ec.generate_private_key(ec.SECP256R1()))),
        ("SHA256_RSA", "no key"),
        ("SHA256_RSA", "x" * 40_000),
        ("CERT", "no certificate"),
        ("CERT", "x" * 40_000),
        ("CERT", leaf),
        ("CERT", pki.signing.read_text() * 3),
        ("NONE", public_pem(rsa_key)),
    ):
        with refusal():
            parse_credential(auth_type, text)


def test_a_ca_names_no_other_node(pki: Pki, other: Pki) -> None:
    credential = parse_credential("CERT", pki.signing.read_text())
    credential.check(node_id="A", now_ms=MS)
    assert credential.fingerprint == pki.fingerprint
    for node, when in (("B", MS), ("A", MS + 400 * 86_400_000), ("A", MS - 7_200_000)):
        with refusal():
            credential.check(node_id=node, now_ms=when)
    mixed = leaf_pem(pki) + other.ca.read_text()
    with refusal():
        parse_credential("CERT", mixed).check(node_id="A", now_ms=MS)


def leaf_pem(pki: Pki) -> str:
    return x509.load_pem_x509_certificates(pki.signing.read_bytes())[0].public_bytes(Encoding.PEM).decode()


def tls_leaf(pki: Pki) -> bytes:
    return x509.load_pem_x509_certificates(pki.tls.read_bytes())[0].public_bytes(Encoding.DER)


def test_client_certificates(pki: Pki, other: Pki) -> None:
    ca = pki.ca.read_text()
    check_client(tls_leaf(pki), ca, node_id="A", now_ms=MS)
    for der, anchor, node in (
        (tls_leaf(pki), ca, "B"),
        (tls_leaf(other), ca, "B"),
        (tls_leaf(pki), other.ca.read_text(), "A"),
        (tls_leaf(pki), "", "A"),
        (b"nonsense", ca, "A"),
    ):
        with refusal():
            check_client(der, anchor, node_id=node, now_ms=MS)


def make_leaf(pki: Pki, names: list[x509.GeneralName]) -> x509.Certificate:
    ca_key = load_key(pki.ca_key.as_uri())
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate(pki.ca.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    return issue(ca, ca_key, key.public_key(), names, usages=(), now=NOW)


def test_a_leaf_names_exactly_one_node(pki: Pki) -> None:
    def uri(node: str) -> x509.GeneralName:
        return x509.UniformResourceIdentifier(node_urn(node))

    assert named_node(make_leaf(pki, [uri("A"), x509.UniformResourceIdentifier("https://a.example")])) == "A"
    for names in ([uri("A"), uri("B")], [x509.DNSName("A")]):
        with refusal():
            named_node(make_leaf(pki, names))


def test_a_leaf_cannot_issue(pki: Pki) -> None:
    """A leaf used as the CA of another leaf is refused although the signature holds."""
    key = load_key(pki.tls_key.as_uri())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    middle = x509.load_pem_x509_certificates(pki.tls.read_bytes())[0]
    names = [x509.UniformResourceIdentifier(node_urn("A"))]
    leaf = issue(middle, key, ec.generate_private_key(ec.SECP256R1()).public_key(), names, usages=(), now=NOW)
    text = leaf.public_bytes(Encoding.PEM).decode() + middle.public_bytes(Encoding.PEM).decode()
    with refusal():
        parse_credential("CERT", text).check(node_id="A", now_ms=MS)


def test_only_a_ca_issues(pki: Pki) -> None:
    """A certificate without key usages, which does not say that it is a CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "no CA")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    no_ca = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    for each in (builder, no_ca):
        pem = each.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        with refusal():
            pin_ca(pem, now_ms=MS + 1)


def test_pin_ca(pki: Pki) -> None:
    pem, mark = pin_ca(pki.ca.read_text(), now_ms=MS)
    assert (pem, mark) == (pki.ca.read_text(), pki.fingerprint)
    for text in (leaf_pem(pki), pki.signing.read_text(), "nothing"):
        with refusal():
            pin_ca(text, now_ms=MS)


def test_pki_files(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = Pki.create(tmp_path / "pki", "node-" + "x" * 90, ["gate.example", "10.0.0.1"])
    finally:
        os.umask(old)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in made.files())
    assert Pki.load(tmp_path / "pki") == made
    names = x509.load_pem_x509_certificates(made.tls.read_bytes())[0].extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert {"localhost", "gate.example"} <= set(names.value.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "10.0.0.1"} <= {str(each) for each in names.value.get_values_for_type(x509.IPAddress)}
    with pytest.raises(CallerError):
        Pki.create(tmp_path / "pki", "A")
    made.tls_key.unlink()
    with pytest.raises(CallerError, match=r"tls\.key"):
        Pki.load(tmp_path / "pki")


def test_certificates_live_long_enough(pki: Pki) -> None:
    leaf, ca = x509.load_pem_x509_certificates(pki.tls.read_bytes())
    assert ca.not_valid_after_utc > leaf.not_valid_after_utc > NOW + timedelta(days=365)
    assert leaf.not_valid_before_utc < NOW


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660])
def test_keys_that_others_can_reach_are_refused(tmp_path: Path, pki: Pki, mode: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(pki.signing_key.read_bytes())
    path.chmod(mode)
    with pytest.raises(CallerError, match="owner alone"):
        load_key(path.as_uri())
    path.chmod(0o600)
    load_key(path.as_uri())


def test_key_uris(tmp_path: Path, pki: Pki) -> None:
    for uri, kind in (
        ("pkcs11:token=x", Kind.INTERNAL),
        ("kms:x", Kind.NOT_OFFERED),
        ("plain/path", Kind.NOT_OFFERED),
        ("file:rel", Kind.INTERNAL),
    ):
        with refusal(kind):
            load_key(uri)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for path in (tmp_path, fifo, tmp_path / "none"):
        with pytest.raises(CallerError):
            load_key(path.as_uri())
    wrong = tmp_path / "wrong"
    wrong.write_text("secret words")
    wrong.chmod(0o600)
    with pytest.raises(CallerError) as caught:
        load_key(wrong.as_uri())
    assert "secret words" not in str(caught.value)
    wrong.write_bytes(
        x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    with pytest.raises(CallerError):
        load_key(wrong.as_uri())


def test_signer_must_fit_its_credential(pki: Pki, other: Pki) -> None:
    with pytest.raises(CallerError):
        load_signer(auth_type=AuthType.CERT, key_uri=other.signing_key.as_uri(), credential=pki.signing.read_text())


def test_secrets_do_not_show(pki: Pki) -> None:
    assert "key=" not in repr(cert_signer(pki)).replace("_key=", "")
    with pytest.raises(Refused) as caught:
        parse_credential("CERT", "hidden text")
    assert "hidden" not in caught.value.public_text()


def test_a_certificate_whose_key_is_no_point_of_the_curve_is_refused(tmp_path: Path) -> None:
    """One byte of the key changed: the certificate still parses, its key does not."""
    pki = Pki.create(tmp_path, "LX1", [])
    leaf, ca = x509.load_pem_x509_certificates(pki.signing.read_bytes())
    der = bytearray(leaf.public_bytes(Encoding.DER))
    point = leaf.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    at = bytes(der).index(point) + 1
    for flip in range(1, 256):
        der[at] ^= flip
        try:
            x509.load_der_x509_certificate(bytes(der)).public_key()
        except ValueError:
            break
        der[at] ^= flip
    broken = x509.load_der_x509_certificate(bytes(der))
    text = (broken.public_bytes(Encoding.PEM) + ca.public_bytes(Encoding.PEM)).decode()
    with pytest.raises(Refused) as refused:
        parse_credential("CERT", text)
    assert refused.value.kind is Kind.UNAUTHENTICATED
