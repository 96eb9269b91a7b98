"""The folder of one gateway, as `interconn init` and the lab make it: node.toml, keys, certificates, admin token.

Leaves the meaning of node.toml to gateway/config.py and the certificates to gateway/auth/pki.py.
"""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.auth.pki import Pki
from gateway.errors import Kind, Refused
from gateway.model import InstId, NodeId
from specs.states import AuthType

TOKEN_BYTES: Final = 32
CONFIG: Final = "node.toml"
TOKEN: Final = "admin.token"  # noqa: S105  # a file's name
PKI: Final = "pki"
CA: Final = f"{PKI}/ca.pem"

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What distinguishes one node. `address` is the edge URL as partners reach it; `jobs` overrides [jobs]."""

    node_id: NodeId
    inst_id: InstId
    name: str
    institution: str
    description: str
    address: str
    edge_host: str
    edge_port: int
    platform_port: int
    admin_port: int
    run: str = "run"
    profile: str = "strict-1.2"
    auth_type: AuthType = AuthType.CERT
    jobs: Mapping[str, Scalar] = field(default_factory=dict)


def render(settings: NodeSettings) -> str:
    """The text of node.toml."""
    sections: dict[str, Mapping[str, Scalar]] = {
        "node": {
            "node_id": settings.node_id,
            "inst_id": settings.inst_id,
            "name": settings.name,
            "institution": settings.institution,
            "description": settings.description,
            "address": settings.address,
        },
        "edge": {"host": settings.edge_host, "port": settings.edge_port},
        "platform": {"host": "127.0.0.1", "port": settings.platform_port},
        "admin": {"host": "127.0.0.1", "port": settings.admin_port, "token_file": TOKEN},
        "paths": {"run": settings.run},
        "keys": {} if settings.auth_type is AuthType.CERT else {"auth_type": settings.auth_type.value},
        "jobs": settings.jobs,
        "profile": {"default": settings.profile},
    }
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())
        for name, values in sections.items()
        if values
    )


def _toml(value: Scalar) -> str:
    """A JSON string is a TOML basic string but for DEL, which JSON leaves as it is."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def create_folder(folder: Path, settings: NodeSettings) -> None:
    """Make `folder` with node.toml, pki/ and the admin token; all or nothing, and never over something existing.

    Secrets are readable by their owner alone. Raises Refused(CONFLICT) where the folder holds anything.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Refused(f"{folder} exists and is not empty", kind=Kind.CONFLICT)
    made = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    made.mkdir(mode=0o700, parents=True)
    try:
        host = urlsplit(settings.address).hostname
        Pki.create(made / PKI, settings.node_id, [host] if host else [], auth_type=settings.auth_type)
        write_private(made / TOKEN, secrets.token_urlsafe(TOKEN_BYTES) + "\n")
        (made / CONFIG).write_text(render(settings), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_private(file: Path, text: str) -> None:
    """Write a new file that only its owner may read."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
        opened.write(text)
