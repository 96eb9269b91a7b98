"""Client of a gateway's admin API: HTTP with a bearer token, one connection per call, standard library only.

The command line, the lab and the demo reach a gateway through this and nothing else. The API's errors become `Refused`
with the kind that the code names; no answer becomes `Unavailable`. Imports fast on purpose: every command pays for it.
"""

import http.client
import json
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from gateway.errors import WIRE, CallerError, Kind, ProtocolViolation, Refused, Unavailable
from specs.admin import BASE

ANSWER_BYTES: Final = 64 << 20
CHUNK_BYTES: Final = 1 << 20
PAGE: Final = 1000
"""Records that a list gives at once, unless asked for fewer."""
_KIND_OF_CODE: Final = {wire.code: kind for kind, wire in WIRE.items()}


class AdminClient:
    """Calls of one node's admin API. `url` is `http(s)://host:port`; `timeout_s` bounds every wait for the node."""

    def __init__(self, url: str, token: str, *, timeout_s: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise CallerError(f"not an admin URL: {url}", kind=Kind.MALFORMED)
        self.url = url
        self._https = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._base = parts.path.rstrip("/") + BASE
        self._token = token
        self._timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"AdminClient({self.url!r})"

    def get(self, *path: str, **query: str | int | None) -> Any:
        """JSON of `GET /v1/admin/<path>`; members of `query` that are None are left out."""
        return self._json("GET", path, query=query)

    def every(self, *path: str, after: Callable[[Any], str], **query: str | int | None) -> list[Any]:
        """All records of a list that comes in pages. after: a record -> what the next page goes on after."""
        found: list[Any] = []
        while True:
            page = self.get(*path, limit=PAGE, after=after(found[-1]) if found else None, **query)
            found += page
            if len(page) < PAGE:
                return found

    def post(self, *path: str, **body: Any) -> Any:
        """JSON of `POST /v1/admin/<path>`; members of `body` that are None are left out."""
        return self._json("POST", path, body={name: value for name, value in body.items() if value is not None})

    def post_json(self, *path: str, body: Mapping[str, Any]) -> Any:
        """The same with a ready-made body, sent as it is."""
        return self._json("POST", path, body=body)

    def download(self, *path: str, to: Path) -> int:
        """Write the file that `GET /v1/admin/<path>` answers to `to` (complete or not at all); its size in bytes."""
        part = to.with_name(f".{to.name}.{os.getpid()}.part")
        with closing(self._connection()) as connection:
            answer = self._send(connection, "GET", path)
            if answer.status != http.HTTPStatus.OK:
                self._raise(answer.status, self._read(answer))
            try:
                size = 0
                with part.open("wb") as file:
                    while chunk := answer.read(CHUNK_BYTES):
                        size += file.write(chunk)
                part.replace(to)
            except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
                raise Unavailable(f"{self.url} broke off the download") from error
            finally:
                part.unlink(missing_ok=True)
        return size

    def _json(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        with closing(self._connection()) as connection:
            answer = self._send(connection, method, path, query=query, body=body)
            raw = self._read(answer)
        if answer.status != http.HTTPStatus.OK:
            self._raise(answer.status, raw)
        try:
            return json.loads(raw)
        except ValueError as error:
            raise ProtocolViolation(f"{self.url} did not answer in JSON", kind=Kind.PEER_MALFORMED) from error

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=self._timeout_s)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> http.client.HTTPResponse:
        target = "/".join((self._base, *(quote(part, safe="") for part in path)))
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        if asked:
            target += "?" + urlencode(asked)
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, target, body=data, headers=headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise Unavailable(f"no gateway answers at {self.url} ({reason})") from error

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            raw = answer.read(ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self.url} broke off its answer") from error
        if len(raw) > ANSWER_BYTES:
            raise ProtocolViolation(f"{self.url} answered more than {ANSWER_BYTES} bytes", kind=Kind.PEER_MALFORMED)
        return raw

    def _raise(self, status: int, raw: bytes) -> None:
        try:
            answer = json.loads(raw)
            code, text = int(answer["code"]), str(answer["msg"])
        except (ValueError, KeyError, TypeError):
            raise ProtocolViolation(
                f"{self.url} answered HTTP {status} without a code", kind=Kind.PEER_MALFORMED
            ) from None
        raise Refused(text, kind=_KIND_OF_CODE.get(code, Kind.INTERNAL))
