"""Calls of a component on FATE's OSx over HTTP: the dialect "osx-http" (part 4 sections 9.1 and 9.5, T-044, T-045).

JSON both ways. A push for another node is lost without `x-ptp-uri`, behind an answer without a code. What a pop answers
is base64 of the message where it came while the pop waited, and base64 of that where it lay there already. The bytes
alone do not tell which, so what is base64 to the letter is decoded again: messages of `gateway.sdk.drive`, arrays and
tables begin with bytes that base64 does not have. A message that is itself a text in base64 may come out decoded.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Final

from gateway.sdk.codec import CodecError, Outbound

CONTENT_TYPE: Final = "application/json"
PART_BYTES: Final = 1 << 20
"""As FATE's own client: a message goes to the other node in one gRPC call, which has a bound of 4 MiB."""


def request(operation: str, topic: str, parts: Sequence[memoryview], wait_ms: int) -> bytes:
    """The body of a call."""
    value: dict[str, object] = {"topic": topic}
    if operation == "push":
        value["payload"] = base64.b64encode(b"".join(parts)).decode("ascii")
    elif wait_ms:
        value["timeout"] = wait_ms
    return json.dumps(value).encode()


def read(operation: str, data: bytes | bytearray | memoryview) -> Outbound:
    """An answer; its text is `msg`, or `message` where OSx redirects or fails. Raises CodecError."""
    try:
        value = json.loads(bytes(data))
    except (ValueError, RecursionError) as e:
        raise CodecError("not JSON") from e
    if not isinstance(value, dict):
        raise CodecError("not an object")
    code, text, payload = value.get("code"), value.get("msg", value.get("message")), value.get("payload")
    return Outbound(
        code if isinstance(code, str) else "",
        text if isinstance(text, str) else "",
        memoryview(_payload(payload, twice=operation == "pop") if isinstance(payload, str) else b""),
    )


def _payload(text: str, *, twice: bool) -> bytes:
    try:
        once = base64.b64decode(text, validate=True)
    except ValueError as e:
        raise CodecError("payload is not base64") from e
    if twice and once:
        try:
            again = base64.b64decode(once, validate=True)
        except binascii.Error:
            return once
        if base64.b64encode(again) == once:
            return again
    return once
