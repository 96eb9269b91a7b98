"""Stand-ins for the HTTP interfaces of a Docker engine and a Kubernetes cluster, as far as our launchers use them.

They start an "image" as a process of this machine: its name is looked up in `programs`, its environment is what the
call holds and PATH, nothing else. Requests are kept.
"""

import json
import os
import re
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Contained:
    name: str
    spec: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None

    @property
    def code(self) -> int | None:
        code = None if self.process is None else self.process.poll()
        return code if code is None or code >= 0 else 128 - code


@dataclass
class StandIn:
    url: str = ""
    programs: dict[str, str] = field(default_factory=dict)
    containers: dict[str, Contained] = field(default_factory=dict)
    made: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    refuse: int = 0

    def start(self, one: Contained, image: str, environment: dict[str, str]) -> None:
        one.process = subprocess.Popen(
            [self.programs[image]],
            env={"PATH": os.environ["PATH"], **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


class _Handler(BaseHTTPRequestHandler):
    state: StandIn

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, value: object = None) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, one: Contained, *, framed: bool) -> None:
        self.send_response(200)
        kind = "application/vnd.docker.multiplexed-stream" if framed else "text/plain"
        self.send_header("Content-Type", kind)
        self.end_headers()
        assert one.process is not None
        assert one.process.stdout is not None
        with suppress(OSError):  # whoever followed may be gone
            for line in one.process.stdout:
                self.wfile.write((struct.pack(">BxxxL", 1, len(line)) if framed else b"") + line)
                self.wfile.flush()

    def do(self) -> None:
        parts = urlsplit(self.path)
        text = self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.loads(text) if text else {}
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.state.calls.append(f"{self.command} {parts.path}")
        if self.state.refuse and "version" not in parts.path:
            self.answer(self.state.refuse, {"message": "no"})
        elif parts.path.startswith(("/apis/", "/api/")):
            self.kubernetes(parts.path, query, body)
        else:
            self.docker(re.sub(r"^/v[0-9.]+", "", parts.path), query, body)

    do_GET = do_POST = do_DELETE = do_PATCH = do  # noqa: N815

    def docker(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
        state = self.state
        name = path.split("/")[2] if path.count("/") > 1 else ""
        one = state.containers.get(name)
        if path == "/version":
            self.answer(200, {"ApiVersion": "1.44", "MinAPIVersion": "1.24", "Version": "25"})
        elif path == "/containers/create":
            if body["Image"] not in state.programs:
                return self.answer(404, {"message": "No such image"})
            if query["name"] in state.containers:
                return self.answer(409, {"message": "Conflict"})
            state.made.append(body)
            state.containers[query["name"]] = Contained(query["name"], body)
            self.answer(201, {"Id": query["name"], "Warnings": []})
        elif one is None:
            self.answer(404, {"message": "No such container"})
        elif path.endswith("/start"):
            state.start(one, one.spec["Image"], dict(each.split("=", 1) for each in one.spec.get("Env") or []))
            self.answer(204)
        elif path.endswith("/json"):
            status = "created" if one.process is None else "running" if one.code is None else "exited"
            config = {"Env": one.spec.get("Env") or [], "Tty": False, "Image": one.spec["Image"]}
            self.answer(
                200,
                {"Id": name, "Config": config, "State": {"Status": status, "ExitCode": one.code or 0}, "Image": "i"},
            )
        elif path.endswith("/logs"):
            self.stream(one, framed=True)
        elif path.endswith("/stop"):
            assert one.process is not None
            one.process.kill()
            one.process.wait()
            self.answer(204)
        elif self.command == "DELETE":
            del state.containers[name]
            self.answer(204)
        return None

    def kubernetes(self, path: str, query: dict[str, str], body: dict[str, Any]) -> None:
        state = self.state
        steps = path.split("/")
        named = steps[steps.index("namespaces") + 3 :] or [""]
        wanted = query.get("labelSelector", "").removeprefix("job-name=") or named[0]
        one = state.containers.get(wanted)
        if self.command == "POST":
            name = body["metadata"]["name"]
            state.made.append(body)
            one = state.containers[name] = Contained(name, body)
            container = body["spec"]["template"]["spec"]["containers"][0]
            variables = {each["name"]: each["value"] for each in container["env"] if "value" in each}
            state.start(one, container["image"], variables)
            self.answer(201, body)
        elif one is None:
            self.answer(200 if path.endswith("/pods") else 404, {"items": []})
        elif path.endswith("/pods"):
            ended = {"terminated": {"exitCode": one.code}} if one.code is not None else {"running": {}}
            status = {
                "name": "component",
                "image": "i",
                "imageID": "",
                "ready": True,
                "restartCount": 0,
                "state": ended,
            }
            pod = {"metadata": {"name": wanted}, "status": {"phase": "Running", "containerStatuses": [status]}}
            self.answer(200, {"items": [pod]})
        elif path.endswith("/log"):
            self.stream(one, framed=False)
        elif self.command == "PATCH":
            assert body == {"spec": {"activeDeadlineSeconds": 1}}
            assert one.process is not None
            one.process.kill()
            one.process.wait()
            self.answer(200, one.spec)
        elif self.command == "DELETE":
            del state.containers[wanted]
            self.answer(200, {})
        else:
            count = {} if one.code is None else {"succeeded": 1} if one.code == 0 else {"failed": 1}
            self.answer(200, {**one.spec, "status": count})


@contextmanager
def stand_in() -> Iterator[StandIn]:
    state = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        for one in state.containers.values():
            if one.process is not None:
                one.process.kill()
                one.process.wait()
