"""FATE's OSx as a transport module, as it was seen over HTTP.

JSON, a peek that takes, a pop that encodes twice what lay there, and a message that is lost behind an answer of 200
when the container did not say `x-ptp-uri`.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from tests.components.platform import OK, Platform, Request, running_platform

TIMED_OUT = "E0000000601"


class Module(Protocol):
    """What takes messages for a node."""

    def take(self, request: Request, topic: str, payload: bytes) -> None: ...


@dataclass
class Osx(Platform):
    """One node's module. others: node id -> the module there. lost: messages that nobody will ever see."""

    node_id: str = ""
    others: dict[str, "Module"] = field(default_factory=dict)
    lost: int = 0
    as_queued: int = 0
    as_it_came: int = 0

    def serve(self, request: Request) -> tuple[int, bytes, str]:
        if "/chan/" not in request.path or self.answers:
            return super().serve(request)
        with self.changed:
            self.requests.append(request)
        try:
            value = json.loads(request.body)
        except ValueError:
            return self._said("E0000000500", "java.lang.NullPointerException: null")
        session = request.headers.get("x-ptp-session-id")
        if not session:
            return self._said("E0000000400", "sessionId is null", word="message")
        if request.operation == "push":
            return self._push(request, value)
        key = (session, value["topic"])
        if request.operation == "release":
            self.queues.pop(key, None)
            return self._said(OK)
        with self.changed:
            queued = bool(self.queues.get(key))
            wait = value.get("timeout", 3_600_000) / 1000 if request.operation == "pop" else 0
            self.changed.wait_for(lambda: self.queues.get(key), timeout=wait)
            if not self.queues.get(key):
                return self._said(TIMED_OUT, "CONSUME_MSG_TIMEOUT")
            payload = base64.b64encode(self.queues[key].popleft())
            twice = queued and request.operation == "pop"
            self.as_queued, self.as_it_came = self.as_queued + twice, self.as_it_came + (not twice)
        return self._said(OK, "success", payload=base64.b64encode(payload) if twice else payload)

    def _push(self, request: Request, value: dict[str, str]) -> tuple[int, bytes, str]:
        if not value.get("topic"):
            return self._said("E0000000400", "topic is null", word="message")
        target = request.headers["x-ptp-target-node-id"]
        module: Module | None = self if target == self.node_id else self.others.get(target)
        if module is None:
            return self._said("E0000000602", f"PARTY_{target}: route not found", word="message")
        if module is not self and request.headers.get("x-ptp-uri") != "/v1/interconn/chan/push":
            self.lost += 1
            body = {"payload": "", "code": "", "message": f"PARTY_{target}:null"}
            return 200, json.dumps(body).encode(), "application/json"
        assert module is self or request.headers.get("x-ptp-source-node-id") == self.node_id
        module.take(request, value["topic"], base64.b64decode(value["payload"], validate=True))
        return self._said(OK, "success")

    def take(self, request: Request, topic: str, payload: bytes) -> None:
        """Queue a message that came from a container here or from another module."""
        with self.changed:
            self.queues[request.headers["x-ptp-session-id"], topic].append(payload)
            self.changed.notify_all()

    @staticmethod
    def _said(code: str, text: str = "", *, word: str = "msg", payload: bytes = b"") -> tuple[int, bytes, str]:
        body = {"code": code, word: text, **({"payload": payload.decode()} if payload else {})}
        return 200, json.dumps(body).encode(), "application/json"


@contextmanager
def two_modules(one: str, other: str) -> Iterator[tuple[Osx, Osx]]:
    """Of two nodes that know each other."""
    a, b = Osx(node_id=one), Osx(node_id=other)
    a.others[other], b.others[one] = b, a
    with ExitStack() as stack:
        for each in (a, b):
            stack.enter_context(running_platform(each))
        yield a, b
