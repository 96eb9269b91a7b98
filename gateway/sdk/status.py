"""The optional door of a component: its scheduler asks for the state of the task (part 3, 6.1).

One caller at a time, small questions, flat answers. Nothing else can be learnt or done here.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

from gateway.errors import WIRE, Kind
from gateway.sdk.environment import Environment

QUERY_PATH: Final = "/v1/platform/algorithm/task/query"
MAX_QUESTION_BYTES: Final = 64 << 10
CALLER_SECONDS: Final = 5.0
_WRONG: Final = WIRE[Kind.MALFORMED].code
_UNKNOWN: Final = WIRE[Kind.NOT_FOUND].code


class Status:
    """State of the task as the component knows it: RUNNING, then SUCCESS or FAILED."""

    def __init__(self, environment: Environment) -> None:
        self._task_id = environment.task_id
        self._role = environment.role
        self._state = "RUNNING"

    def finish(self, *, success: bool) -> None:
        self._state = "SUCCESS" if success else "FAILED"

    def answer(self, question: bytes) -> dict[str, Any]:
        """Answer to the body of a query; `code` is 0 only for this task (A-030, A-031)."""
        try:
            value = json.loads(question)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not isinstance(value.get("task_id"), str):
            return {"code": _WRONG, "status": "", "role": self._role}
        if value["task_id"] != self._task_id:
            return {"code": _UNKNOWN, "status": "", "role": self._role}
        return {"code": 0, "status": self._state, "role": self._role}


class _Handler(BaseHTTPRequestHandler):
    timeout = CALLER_SECONDS
    status: Status

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if self.path.split("?")[0] != QUERY_PATH:
            self._answer(HTTPStatus.NOT_FOUND, {"code": _UNKNOWN, "status": "", "role": ""})
        elif not (length.isascii() and length.isdigit() and len(length) < 9 and int(length) <= MAX_QUESTION_BYTES):
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"code": _WRONG, "status": "", "role": ""})
        else:
            self._answer(HTTPStatus.OK, self.status.answer(self.rfile.read(int(length))))

    def _answer(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name of the class above
        """Say nothing: stdout is the task's log."""


class _Server(HTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that breaks off is no event of the task."""


@contextmanager
def serving(status: Status, port: int, *, host: str = "") -> Iterator[int]:
    """Answer queries on `port` (0: any) of every address while the block runs; the port. Raises OSError."""
    server = _Server((host, port), type("Handler", (_Handler,), {"status": status}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
