"""Our own signing key: bare keys, encrypted files, a token."""

import importlib
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.auth.keys import load_key, load_signer, read_passphrase
from gateway.auth.pkcs11 import parse
from gateway.auth.pki import Pki, new_key, public_pem, renew_bare, renew_signing
from gateway.auth.schemes import make_signer, parse_credential
from gateway.errors import CallerError, Kind, Refused
from specs.states import AuthType

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BARE = [each for each in AuthType if each is not AuthType.CERT]
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
PIN = "2468-not-a-real-pin"


@pytest.mark.parametrize("auth_type", BARE)
def test_a_node_that_signs_with_a_bare_key(tmp_path: Path, auth_type: AuthType) -> None:
    made = Pki.create(tmp_path / "pki", "A", auth_type=auth_type, now=NOW)
    for public, key in (
        (made.signing, made.signing_key),
        renew_bare(auth_type=auth_type, directory=tmp_path / "pki"),
    ):
        signer = load_signer(auth_type=auth_type, key_uri=key.as_uri(), credential=public.read_text())
        parse_credential(auth_type.value, signer.credential).verify(b"x", signer.sign(b"x"))
        assert signer.fingerprint == signer.key_id
        assert key.stat().st_mode & 0o777 == 0o600
    assert made.tls.read_text().count("BEGIN CERTIFICATE") == 2


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    made = Pki.create(tmp_path / "pki", "A", now=NOW)
    key = load_pem_private_key(made.signing_key.read_bytes(), None)
    made.signing_key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass phrase"))
    )
    secret = tmp_path / "passphrase"
    secret.write_text("pass phrase\n")
    secret.chmod(0o600)
    text = made.signing.read_text()
    good = load_signer(
        auth_type=AuthType.CERT,
        key_uri=made.signing_key.as_uri(),
        credential=text,
        passphrase=read_passphrase(secret.as_uri()),
    )
    assert good.credential == text
    for wrong, words in ((None, "signing_passphrase"), (b"another", "cannot be read with its passphrase")):
        with pytest.raises(CallerError, match=words) as refused:
            load_key(made.signing_key.as_uri(), passphrase=wrong)
        assert "another" not in str(refused.value)
    # A key that follows is encrypted in the same way.
    for _, file in (
        renew_bare(auth_type=AuthType.ED25519, directory=tmp_path / "pki", passphrase=b"pass phrase"),
        renew_signing(
            ca=made.ca, ca_key=made.ca_key, directory=made.ca.parent, node_id="A", now=NOW, passphrase=b"pass phrase"
        ),
    ):
        assert b"ENCRYPTED" in file.read_bytes()
        load_key(file.as_uri(), passphrase=b"pass phrase")
    secret.chmod(0o644)
    with pytest.raises(CallerError, match="owner alone"):
        read_passphrase(secret.as_uri())


def test_what_a_pkcs11_uri_may_say() -> None:
    found = parse("pkcs11:token=my%20token;object=sign;id=%01%02?module-path=/lib/x.so&pin-source=file:/run/pin")
    assert (found.token, found.label, found.id, str(found.module), found.pin_source) == (
        "my token",
        "sign",
        b"\x01\x02",
        "/lib/x.so",
        "file:/run/pin",
    )
    for wrong in (
        "pkcs11:",
        "pkcs11:token=t;object=o",
        "pkcs11:token=t?module-path=/x",
        "pkcs11:token=t;object=o?module-path=/x&pin-value=1234",
        "pkcs11:token=t;token=u;object=o?module-path=/x",
        "pkcs11:token=%ff;object=o?module-path=/x",
    ):
        with pytest.raises(CallerError) as refused:
            parse(wrong)
        assert "1234" not in str(refused.value)


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def absent(name: str, package: str | None = None) -> Any:
        if name == "pkcs11":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(Refused, match=r"interconn\[pkcs11\]") as refused:
        load_key("pkcs11:token=t;object=o?module-path=/x.so")
    assert refused.value.kind is Kind.NOT_OFFERED


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], str]:
    """Puts a PEM key into a software token: (label, file) -> URI."""
    module = next((each for each in MODULES if Path(each).exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM (softhsm2) is not installed")
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    (tmp_path / "tokens").mkdir()
    settings = tmp_path / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
    pin = tmp_path / "pin"
    pin.write_text(PIN + "\n")
    pin.chmod(0o600)
    name = tmp_path.name

    def run(*words: str) -> None:
        subprocess.run(["softhsm2-util", *words, "--pin", PIN], check=True, capture_output=True)

    run("--init-token", "--free", "--label", name, "--so-pin", "1234567890")

    def put(label: str, file: Path) -> str:
        run("--import", str(file), "--token", name, "--label", label, "--id", label.encode().hex())
        return f"pkcs11:token={name};object={label}?module-path={module}&pin-source={pin.as_uri()}"

    return put


def test_a_key_in_a_token_signs(tmp_path: Path, token: Callable[[str, Path], str]) -> None:
    """One test, since a module reads its settings once per process."""
    pki = Pki.create(tmp_path / "pki", "A", now=NOW)
    uri = token("sign", pki.signing_key)
    signer = load_signer(auth_type=AuthType.CERT, key_uri=uri, credential=pki.signing.read_text())
    parse_credential("CERT", signer.credential).verify(b"message", signer.sign(b"message"))
    assert PIN not in repr(signer)
    other = Pki.create(tmp_path / "other", "A", now=NOW)
    with pytest.raises(CallerError, match="not the one of the credential"):
        load_signer(auth_type=AuthType.CERT, key_uri=uri, credential=other.signing.read_text())
    for auth_type in (AuthType.SHA256_RSA, AuthType.ED25519):
        key = new_key(auth_type)
        file = tmp_path / f"{auth_type.value}.pem"
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        held = make_signer(auth_type, public_pem(key).decode(), load_key(token(auth_type.value, file)))
        parse_credential(auth_type.value, held.credential).verify(b"message", held.sign(b"message"))
    for broken in (uri.replace("object=sign", "object=none"), uri.replace("/libsofthsm2.so", "/none.so")):
        with pytest.raises(CallerError) as refused:
            load_key(broken)
        assert PIN not in str(refused.value)
