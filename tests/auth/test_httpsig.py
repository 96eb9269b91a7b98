"""RFC 9421: the RFC's own test vector, and what our form of it must refuse."""

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from gateway.auth.canonical import Signed
from gateway.auth.httpsig import COVERED, sign, signature_base, verify
from gateway.auth.schemes import PrivateKey, Signer, make_signer, parse_credential
from gateway.errors import ProtocolViolation, Refused
from specs.states import AuthType

REQUEST = Signed(
    method="POST",
    path="/v1/interconn/node/update",
    query=(),
    source="A",
    target="B",
    nonce="n",
    timestamp="1772323200000",
    body=b'{"a":1}',
)


def test_rfc_9421_b_2_6() -> None:
    private = load_der_private_key(
        base64.b64decode("MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF"), None
    )
    public = load_der_public_key(base64.b64decode("MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="))
    assert isinstance(private, ed25519.Ed25519PrivateKey)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    names = ("date", "@method", "@path", "@authority", "content-type", "content-length")
    values = ("Tue, 20 Apr 2021 02:07:55 GMT", "POST", "/foo", "example.com", "application/json", "18")
    inner = " ".join(f'"{name}"' for name in names)
    params = f'({inner});created=1618884473;keyid="test-key-ed25519"'
    base = signature_base(list(zip(names, values, strict=True)), params)
    assert base.splitlines()[0] == b'"date": Tue, 20 Apr 2021 02:07:55 GMT'
    expected = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    assert make_signer(AuthType.ED25519, pem, private).sign(base) == expected
    credential = parse_credential("ED25519", pem)
    credential.verify(base, expected)
    with pytest.raises(Refused):
        credential.verify(base + b" ", expected)


def signer(kind: AuthType) -> Signer:
    keys: dict[AuthType, PrivateKey] = {
        AuthType.ED25519: ed25519.Ed25519PrivateKey.generate(),
        AuthType.SHA256_ECDSA: ec.generate_private_key(ec.SECP256R1()),
        AuthType.SHA256_RSA: rsa.generate_private_key(65537, 2048),
    }
    key = keys[kind]
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return make_signer(kind, pem, key)


@pytest.mark.parametrize("kind", [AuthType.ED25519, AuthType.SHA256_ECDSA, AuthType.SHA256_RSA])
@pytest.mark.req("M-014")
def test_sign_and_verify(kind: AuthType) -> None:
    own = signer(kind)
    credential = parse_credential(own.auth_type, own.credential)
    headers = sign(REQUEST, raw_query="a=1", signer=own)
    verify(REQUEST, headers, raw_query="a=1", credential=credential)
    if kind is AuthType.SHA256_ECDSA:
        assert len(base64.b64decode(headers["signature"].split(":")[1])) == 64
    changed = [replace(REQUEST, **{name: "x"}) for name in ("method", "path", "source", "target", "nonce", "timestamp")]
    for other in (*changed, replace(REQUEST, body=b"{}")):
        with pytest.raises(Refused):
            verify(other, headers, raw_query="a=1", credential=credential)
    with pytest.raises(Refused):
        verify(REQUEST, headers, raw_query="a=2", credential=credential)


def test_what_is_not_of_the_agreed_form() -> None:
    own = signer(AuthType.SHA256_ECDSA)
    credential = parse_credential(own.auth_type, own.credential)
    good = sign(REQUEST, raw_query="", signer=own)
    verify(REQUEST, good, raw_query="", credential=credential)
    given = good["signature-input"]
    for change in (
        {"signature-input": given.replace(' "x-nonce"', "")},
        {"signature-input": given.replace('"x-nonce"', '"x-target-node-id"')},
        {"signature-input": given.replace('"x-nonce"', '"x-nonce" "date"')},
        {"signature-input": given.replace("interconn=", "other=")},
        {"signature-input": given + "\n"},
        {"signature-input": given + ";created=1"},
        {"signature-input": f"{given}, {given}"},
        {"signature-input": ""},
        {"signature": ""},
        {"signature": "interconn=:AAAA:"},
        {"signature": "interconn=:====:"},
        {"signature": good["signature"].replace("interconn=", "other=")},
        {"content-digest": "sha-256=:AAAA:"},
        {"content-digest": ""},
    ):
        with pytest.raises(Refused):
            verify(REQUEST, {**good, **change}, raw_query="", credential=credential)
    assert len(COVERED) == len(set(COVERED))
    with pytest.raises(ProtocolViolation):
        signature_base([("x-nonce", "a\nb")], "()")
