"""What both sides of the measurement share: the request as a partner signs it, written here once and in plain words.

Nothing of the gateway is used, so that neither the load nor the rival gains by a shortcut of ours.
"""

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ECDSA = ec.ECDSA(hashes.SHA256())


def covered(
    method: str, path: str, query: str, source: str, target: str, nonce: str, timestamp: str, body: bytes
) -> bytes:
    """The bytes that a signature covers (profile A-01); query: sorted and percent-encoded."""
    parts = (method, path, query, source, target, nonce, timestamp, hashlib.sha256(body).hexdigest())
    return "\n".join(parts).encode()


@dataclass
class Writer:
    """Writes whole HTTP/1.1 requests in the name of `source`."""

    source: str
    target: str
    pki: Path

    def __post_init__(self) -> None:
        key = load_pem_private_key((self.pki / "signing.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    def request(self, method: str, path: str, payload: Mapping[str, object]) -> bytes:
        query = urlencode(sorted(payload.items())) if method == "GET" else ""
        body = b"" if method == "GET" else json.dumps(payload).encode()
        nonce, timestamp = uuid.uuid4().hex, str(time.time_ns() // 1_000_000)
        text = covered(method, path, query, self.source, self.target, nonce, timestamp, body)
        head = {
            "host": "edge",
            "x-source-node-id": self.source,
            "x-target-node-id": self.target,
            "x-nonce": nonce,
            "x-trace-id": f"tr-{uuid.uuid4().hex}",
            "x-timestamp": timestamp,
            "x-auth-sign": base64.b64encode(self._key.sign(text, ECDSA)).decode(),
        }
        if method == "POST":
            head |= {"x-csrf-protection": "1", "content-type": "application/json", "content-length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        return f"{method} {path}{'?' + query if query else ''} HTTP/1.1\r\n{lines}\r\n".encode() + body
