"""An invitation: one signed file with all that a partner needs to apply to a node, and to pin its CA before it does.

    {"format": "interconn-invite", "version": 1, "invite": {...}, "signature": base64}

The shape is specs/schemas/invite.json. Signed, with the node's signing key, is SIGNED_AS followed by `invite` as
compact JSON with sorted names; members that a later version adds are covered too. The signature says that the file is
whole and whose it claims to be, not that the claim is true: anybody can make a consistent file in anybody's name. The
two people who compare the fingerprint over another channel decide that. Nothing in it is secret.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from gateway.auth.schemes import Signer, parse_credential, pin_ca
from gateway.auth.words import in_words
from gateway.errors import CallerError, Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core.messages import check_address
from gateway.model import Identity, NodeId
from specs.states import AuthType

FORMAT: Final = "interconn-invite"
VERSION: Final = 1
SIGNED_AS: Final = b"interconn-invite 1\n"
"""In front of what is signed, so that this signature can stand for nothing else."""
MAX_BYTES: Final = 64 << 10
DAY_MS: Final = 86_400_000
DEFAULT_DAYS: Final = 14
MAX_DAYS: Final = 366
SUITES: Final = tuple(each.value for each in (AuthType.SHA256_RSA, AuthType.SHA256_ECDSA, AuthType.CERT))
"""Values of auth_type that this node verifies."""


@dataclass(frozen=True, slots=True)
class Invite:
    """What a verified invitation says. words: the beginning of the fingerprint, see auth.words."""

    node_id: NodeId
    inst_id: str
    name: str
    institution: str
    address: str
    ca_pem: str
    fingerprint: str
    words: tuple[str, ...]
    suites: tuple[str, ...]
    created: int
    expires: int


def _canonical(invite: Mapping[str, Any]) -> bytes:
    text = json.dumps(invite, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return SIGNED_AS + text.encode()


def make(identity: Identity, signer: Signer, *, now: int, days: int = DEFAULT_DAYS) -> dict[str, Any]:
    """The file's content as a tree, good for `days` from `now` (ms). Raises ProtocolViolation for other days."""
    if not 1 <= days <= MAX_DAYS:
        raise ProtocolViolation(f"an invitation is good for 1 to {MAX_DAYS} days")
    credential = parse_credential(signer.auth_type.value, signer.credential)
    if credential.auth_type is not AuthType.CERT:
        raise CallerError("an invitation needs a signing certificate")
    invite = {
        "node_id": identity.node_id,
        "inst_id": identity.inst_id,
        "name": identity.name,
        "institution": identity.institution,
        "endpoints": {"edge": identity.address},
        "ca": credential.ca,
        "auth_type": signer.auth_type.value,
        "signing_chain": signer.credential,
        "suites": list(SUITES),
        "created": now,
        "expires": now + days * DAY_MS,
        "fingerprint": {"sha256": credential.fingerprint, "words": " ".join(in_words(credential.fingerprint))},
    }
    return {"format": FORMAT, "version": VERSION, "invite": invite, "signature": signer.sign(_canonical(invite))}


def verify(file: Mapping[str, Any], *, now: int, skew_ms: int) -> Invite:
    """What the file says, once all of it is consistent and signed by the node that it names.

    skew_ms: by how much its maker's clock may be ahead of ours. Checked, in this order: shape and version; the signing
    certificate was issued by the CA, which may issue, both are valid now, and it names this node and no other; the
    signature; the fingerprint in both forms is that of the CA; the dates; the address. Raises ProtocolViolation where
    the file is malformed, Refused(NOT_OFFERED) for another version, Refused(UNAUTHENTICATED) for all else.
    """
    if file.get("format") == FORMAT and file.get("version") != VERSION:
        raise Refused("the invitation is of a version that this gateway does not read", kind=Kind.NOT_OFFERED)
    _check_shape(file)
    invite: Mapping[str, Any] = file["invite"]
    node_id = NodeId(invite["node_id"])
    ca_pem, fingerprint = pin_ca(invite["ca"], now_ms=now)
    credential = parse_credential(invite["auth_type"], invite["signing_chain"])
    if credential.fingerprint != fingerprint:
        raise _no("its signing certificate is not under its CA")
    credential.check(node_id=node_id, now_ms=now)
    credential.verify(_canonical(invite), file["signature"])
    words = in_words(fingerprint)
    if invite["fingerprint"]["sha256"] != fingerprint or invite["fingerprint"]["words"] != " ".join(words):
        raise _no("the fingerprint that it states is not that of its CA")
    created, expires = int(invite["created"]), int(invite["expires"])
    if created > now + skew_ms or expires - created > MAX_DAYS * DAY_MS:
        raise _no("its dates are impossible")
    if expires <= now:
        raise _no("it has expired: ask for a new one")
    return Invite(
        node_id=node_id,
        inst_id=invite["inst_id"],
        name=_printable(invite["name"]),
        institution=_printable(invite.get("institution", "")),
        address=check_address(invite["endpoints"]["edge"]),
        ca_pem=ca_pem,
        fingerprint=fingerprint,
        words=words,
        suites=_texts(invite["suites"]),
        created=created,
        expires=expires,
    )


def _no(why: str) -> Refused:
    return Refused(f"the invitation is refused: {why}", kind=Kind.UNAUTHENTICATED)


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


def _texts(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(_printable(each) for each in values)


@cache
def _validator() -> Draft202012Validator:
    text = resources.files("specs").joinpath("schemas", "invite.json").read_text("utf-8")
    return Draft202012Validator(json.loads(text))


def _check_shape(file: Mapping[str, Any]) -> None:
    found = best_match(_validator().iter_errors(file))
    if found is not None:
        where = ".".join(str(part) for part in found.absolute_path)[:200]
        raise ProtocolViolation(f"this is not an invitation: {where or 'file'} breaks the rule {found.validator!r}")
