"""A small transport module and scheduler on a real socket, for tests of the component side.

Queues are addressed by (session, topic). `answers` holds prepared answers that are given before anything else: each a
function of the request, which may also raise Drop to close the connection. Messages are read and written with the
generated protobuf classes, so the component's own codec is checked against an independent one.
"""

import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from specs.proto import ptp_pb2

OK = "E0000000000"


def soon() -> float:
    """A deadline that no test is to reach."""
    return time.monotonic() + 5


class Drop(Exception):
    """Close the connection without an answer."""


class CutOff(Exception):
    """Announce a longer answer than is sent (the argument, or a few bytes), then close the connection."""


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def operation(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass
class Platform:
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    answers: deque[Callable[[Request], tuple[int, bytes, str]]] = field(default_factory=deque)
    queues: dict[tuple[str, str], deque[bytes]] = field(default_factory=lambda: defaultdict(deque))
    changed: threading.Condition = field(default_factory=threading.Condition)
    old_layout: bool = False
    empty_code: str = OK

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def answer(self, code: str, payload: bytes = b"") -> tuple[int, bytes, str]:
        if self.old_layout:
            fields = ((0x0A, payload), (0x12, code.encode()))
            body = b"".join(bytes([tag, len(data)]) + data for tag, data in fields if data)
            return 200, body, "application/proto"
        message = ptp_pb2.TransportOutbound(payload=payload, code=code)
        return 200, message.SerializeToString(), "application/x-protobuf"

    def serve(self, request: Request) -> tuple[int, bytes, str]:
        with self.changed:
            self.requests.append(request)
            prepared = self.answers.popleft() if self.answers else None
        if prepared is not None:
            return prepared(request)
        if request.path.endswith("/task/callback"):
            self.reports.append(json.loads(request.body))
            return 200, b'{"code":0,"msg":"success","data":{}}', "application/json"
        session = request.headers["x-ptp-session-id"]
        if request.operation == "push":
            push = ptp_pb2.PushInbound.FromString(request.body)
            with self.changed:
                self.queues[session, push.topic].append(push.payload)
                self.changed.notify_all()
            return self.answer(OK)
        if request.operation == "release":
            release = ptp_pb2.ReleaseInbound.FromString(request.body)
            with self.changed:
                for key in [key for key in self.queues if key[0] == session and release.topic in {"", key[1]}]:
                    del self.queues[key]
            return self.answer(OK)
        pop = ptp_pb2.PopInbound.FromString(request.body)
        queue_key = (session, pop.topic)
        wait = pop.timeout / 1000 if request.operation == "pop" else 0
        with self.changed:
            self.changed.wait_for(lambda: self.queues.get(queue_key), timeout=wait)
            queue = self.queues.get(queue_key)
            return self.answer(OK, queue.popleft()) if queue else self.answer(self.empty_code)


@contextmanager
def running_platform(made: Platform | None = None) -> Iterator[Platform]:
    platform = made or Platform()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            try:
                status, data, content_type = platform.serve(request)
            except Drop:
                self.close_connection = True
                return
            except CutOff as e:
                self.close_connection = True
                self.wfile.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + (e.args[0] if e.args else b"short")
                )
                return
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    platform.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield platform
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
