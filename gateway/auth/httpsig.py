"""RFC 9421 HTTP message signatures: the second way to sign a request, for partners with whom it was agreed.

Covered are method, path, query, the digest of the body (RFC 9530) and the four headers that A-01 covers as well, these
and no others. The path is the standard's, without the prefix that an address may carry. The signature has
the label `interconn`; ECDSA is r and s of 32 bytes each (section 3.3.4), unlike in A-01. Time and nonce are judged by
x-timestamp and x-nonce, so `created` is information only.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from gateway.auth.canonical import Signed
from gateway.auth.schemes import Credential, Signer
from gateway.errors import Kind, ProtocolViolation, Refused
from specs import headers as names

COVERED: Final = (
    "@method",
    "@path",
    "@query",
    "content-digest",
    names.SOURCE_NODE,
    names.TARGET_NODE,
    names.NONCE,
    names.TIMESTAMP,
)
LABEL: Final = "interconn"
_NAMES: Final = r'"[a-z@-]+"(?: "[a-z@-]+"){0,15}'
_PARAMETER: Final = r';[a-z]+=(?:\d{1,15}|"[!#-\[\]-~]{0,200}")'
_INPUT: Final = re.compile(rf"{LABEL}=(?P<params>\((?P<names>{_NAMES})\)(?:{_PARAMETER}){{0,6}})")
_SIGNATURE: Final = re.compile(rf"{LABEL}=:(?P<value>[A-Za-z0-9+/=]{{1,2048}}):")
_P256_BYTES: Final = 32


def signature_base(components: Sequence[tuple[str, str]], params: str) -> bytes:
    """Section 2.5. components: (name, value) in the order of `params`, the inner list with its parameters."""
    if any(set("\r\n\x00") & set(part) for pair in components for part in pair):
        raise ProtocolViolation("line break in a signed part")
    lines = [f'"{name}": {value}' for name, value in components]
    return "\n".join([*lines, f'"@signature-params": {params}']).encode()


def content_digest(body: bytes) -> str:
    """RFC 9530."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def _values(signed: Signed, raw_query: str) -> Mapping[str, str]:
    return {
        "@method": signed.method.upper(),
        "@path": signed.path,
        "@query": f"?{raw_query}",
        "content-digest": content_digest(signed.body),
        names.SOURCE_NODE: signed.source,
        names.TARGET_NODE: signed.target,
        names.NONCE: signed.nonce,
        names.TIMESTAMP: signed.timestamp,
    }


def sign(signed: Signed, *, raw_query: str, signer: Signer) -> dict[str, str]:
    """The three headers to send along. raw_query: as it is put on the wire."""
    values = _values(signed, raw_query)
    covered = " ".join(f'"{name}"' for name in COVERED)
    params = f'({covered});created={int(signed.timestamp) // 1000};keyid="{signer.key_id}"'
    base = signature_base([(name, values[name]) for name in COVERED], params)
    raw = base64.b64decode(signer.sign(base))
    if isinstance(signer.key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(raw)
        raw = r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")
    return {
        "content-digest": values["content-digest"],
        "signature-input": f"{LABEL}={params}",
        "signature": f"{LABEL}=:{base64.b64encode(raw).decode()}:",
    }


def verify(signed: Signed, headers: Mapping[str, str], *, raw_query: str, credential: Credential) -> None:
    """Raises Refused(UNAUTHENTICATED). headers: lower-case names; raw_query: as it was received."""
    given = _INPUT.fullmatch(headers.get("signature-input", ""))
    value = _SIGNATURE.fullmatch(headers.get("signature", ""))
    if given is None or value is None:
        raise Refused("no HTTP message signature of the agreed form", kind=Kind.UNAUTHENTICATED)
    covered = [name.strip('"') for name in given["names"].split(" ")]
    if sorted(covered) != sorted(COVERED):
        raise Refused("the signature does not cover what was agreed", kind=Kind.UNAUTHENTICATED)
    values = _values(signed, raw_query)
    digest = headers.get("content-digest", "")
    if not hmac.compare_digest(digest.encode(), values["content-digest"].encode()):
        raise Refused("content-digest is not that of the body", kind=Kind.UNAUTHENTICATED)
    base = signature_base([(name, values[name]) for name in covered], given["params"])
    credential.verify(base, _der(value["value"], credential))


def _der(text: str, credential: Credential) -> str:
    if not isinstance(credential.key, ec.EllipticCurvePublicKey):
        return text
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as e:
        raise Refused("signature is not base64", kind=Kind.UNAUTHENTICATED) from e
    if len(raw) != 2 * _P256_BYTES:
        raise Refused("signature has not 64 bytes", kind=Kind.UNAUTHENTICATED)
    r, s = int.from_bytes(raw[:_P256_BYTES], "big"), int.from_bytes(raw[_P256_BYTES:], "big")
    return base64.b64encode(encode_dss_signature(r, s)).decode()
