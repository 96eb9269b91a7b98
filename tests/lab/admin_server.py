"""A stand-in for a gateway's admin API: a table of answers, and a record of what was asked."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKEN = "t0ken"

Answer = Any | Callable[[Mapping[str, Any]], Any]


@dataclass
class Failure:
    status: int
    code: int
    msg: str


@dataclass
class Raw:
    status: int
    body: bytes


@dataclass
class StandIn:
    url: str
    answers: dict[tuple[str, str], Answer]
    asked: list[tuple[str, str, Any]] = field(default_factory=list)

    def bodies(self, path: str) -> list[Any]:
        return [body for _, asked, body in self.asked if asked == path]


@contextmanager
def stand_in(answers: dict[tuple[str, str], Answer]) -> Iterator[StandIn]:
    """Serve `(method, path below /v1/admin)` -> JSON value, function of query or body, Failure or Raw."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.removeprefix("/v1/admin")
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(raw) if raw else dict(parse_qsl(parts.query))
            server.asked.append((self.command, path, body))
            answer = server.answers.get((self.command, path), Failure(404, 404, f"not found: {path}"))
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                answer = Failure(401, 401, "signature or credential refused")
            if callable(answer):
                answer = answer(body)
            status = 200
            if isinstance(answer, Failure):
                status, answer = answer.status, {"code": answer.code, "msg": answer.msg}
            if isinstance(answer, Raw):
                status, data = answer.status, answer.body
            else:
                data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _serve  # noqa: N815  # the base class's names

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = StandIn(f"http://127.0.0.1:{http.server_port}", answers)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
