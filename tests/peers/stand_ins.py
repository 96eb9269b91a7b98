"""Partners that behave as FATE-Flow 2.x and Kuscia were seen to behave in the control layer, quirks included.

Each serves its own TLS listener (client certificate required) and can schedule a job itself. They run no components: a
task that was started is RUNNING for two polls, then SUCCESS. `heard` holds every request as it came.
"""

import asyncio
import itertools
import json
import re
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from aiohttp import web

from gateway.auth.pki import Pki
from specs.proto import ptp_pb2

S = "/v1/interconn/schedule/"
INVOKE = "/v1/interconn/chan/invoke"
POLLS = 2
KUBERNETES_ID = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""What can be the name of a Kubernetes object: an RFC 1123 label."""
Answer = dict[str, Any]


@dataclass
class Heard:
    """One request of the gateway."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class StandIn:
    """What both products share: a listener, a client, jobs and tasks in memory."""

    node_id: str
    folder: Path
    gateway_url: str
    gateway_ca: Path
    port: int = 0
    heard: list[Heard] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: list[dict[str, str]] = field(default_factory=list)
    """Headers of the messages that containers of the gateway have sent to containers here."""
    pending: set["asyncio.Task[None]"] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.pki = Pki.create(self.folder / "pki", self.node_id, hosts=["127.0.0.1"])
        self.runner: web.ServerRunner | None = None

    def _context(self, purpose: int) -> ssl.SSLContext:
        context = ssl.SSLContext(purpose)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.gateway_ca)
        context.load_cert_chain(self.pki.tls, self.pki.tls_key)
        return context

    async def start(self) -> None:
        self.runner = web.ServerRunner(web.Server(self._serve))
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self._context(ssl.PROTOCOL_TLS_SERVER))
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        if request.path == INVOKE:
            return self._container_hears(headers, raw)
        query = dict(request.query)
        call = Heard(request.method, request.path, query, headers, json.loads(raw) if raw else None)
        self.heard.append(call)
        return web.json_response(self.answer(call))  # HTTP 200 whatever happens

    def answer(self, call: Heard) -> Answer:
        raise NotImplementedError

    def session_of(self, task: Mapping[str, Any], task_id: str) -> str:
        """Channel id that a container of this product is given."""
        return f"session_{task['job_id']}"

    def _container_hears(self, headers: dict[str, str], raw: bytes) -> web.Response:
        """A container that sends back each message of its own channel; in another channel there is none."""
        self.said.append(headers)
        message = ptp_pb2.PushInbound.FromString(ptp_pb2.Inbound.FromString(raw).payload)
        task_id, parties, topic = message.topic.split(".", 1)[0], *message.topic.split(".", 1)[1].rsplit(".", 1)
        ours = self.session_of(self.tasks[task_id], task_id) == headers["x-ptp-session-id"]
        if ours:
            back = ".".join([task_id, "-".join(reversed(parties.split("-"))), topic])
            work = asyncio.ensure_future(self._container_says(headers, back, message.payload))
            self.pending.add(work)
            work.add_done_callback(self.pending.discard)
        code = "E0000000000" if ours else "E0000000503"
        return web.Response(body=ptp_pb2.Outbound(code=code).SerializeToString(), content_type="application/x-protobuf")

    async def _container_says(self, heard: Mapping[str, str], topic: str, payload: bytes) -> None:
        message = ptp_pb2.PushInbound(topic=topic, payload=payload).SerializeToString()
        headers = {
            "content-type": "application/x-protobuf", "x-ptp-version": "0", "x-ptp-uri": "/v1/interconn/chan/push",
            "x-ptp-tech-provider-code": "they", "x-ptp-trace-id": heard["x-ptp-trace-id"], "x-ptp-token": "any",
            "x-ptp-session-id": heard["x-ptp-session-id"], "x-ptp-source-node-id": self.node_id,
            "x-ptp-target-node-id": heard["x-ptp-source-node-id"],
        }  # fmt: skip
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                self.gateway_url + INVOKE,
                data=ptp_pb2.Inbound(payload=message).SerializeToString(),
                headers=headers,
                ssl=self._context(ssl.PROTOCOL_TLS_CLIENT),
            ) as reply,
        ):
            assert ptp_pb2.Outbound.FromString(await reply.read()).code == "E0000000000"

    def calls(self, route: str) -> list[Heard]:
        return [each for each in self.heard if each.path == S + route]

    def _headers(self) -> dict[str, str]:
        raise NotImplementedError

    async def call(
        self, method: str, route: str, body: Mapping[str, Any] | None = None, *, query: Mapping[str, str] | None = None
    ) -> Answer:
        """A call of this product to the gateway."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method,
                self.gateway_url + S + route,
                data=None if body is None else json.dumps(body),
                params=query,
                headers={"content-type": "application/json", **self._headers()},
                ssl=self._context(ssl.PROTOCOL_TLS_CLIENT),
            ) as reply,
        ):
            assert reply.status == 200
            return dict(await reply.json())

    def _progress(self, task: dict[str, Any]) -> str:
        task["polls"] += 1
        if task["status"] == "RUNNING" and task["polls"] > POLLS:
            task["status"] = "SUCCESS"
        return str(task["status"])

    async def until_final(self, poll: Callable[[], Awaitable[Answer]]) -> str:
        """Poll until the gateway's part of a task has ended."""
        for _ in range(200):
            answer = await poll()
            word = answer["data"]["status"]
            if word in ("SUCCESS", "FAILED"):
                return str(word)
            await asyncio.sleep(0.05)
        raise AssertionError("the gateway's task did not end")


_FATE_FIELDS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    # route -> required, optional; anything else is refused
    "job/create": (frozenset({"job_id", "dag", "config"}), frozenset({"flow_id", "old_job_id"})),
    "job/start": (frozenset({"job_id"}), frozenset()),
    "job/stop": (frozenset({"job_id"}), frozenset({"task_name"})),
    "job/stop_all": (frozenset({"job_id"}), frozenset({"task_name"})),
    "job/status_all": (frozenset({"job_id"}), frozenset()),
    "task/start": (frozenset({"job_id", "task_id", "task_name"}), frozenset()),
    "task/poll": (frozenset({"task_id", "role"}), frozenset()),
    "task/callback": (frozenset({"task_id", "role", "status"}), frozenset()),
}


@dataclass
class Containers:
    """Where FATE-Flow starts its tasks and what its settings.py tells them. docker: port of Docker's API."""

    docker: int
    image: str
    storage: str
    transport: str

    async def run(self, name: str, environment: Mapping[str, object]) -> None:
        # As the client library writes it: Python's words for values, a bare name for None.
        lines = [key if value is None else f"{key}={value}" for key, value in environment.items()]
        base = f"http://127.0.0.1:{self.docker}/v1.41/containers"
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            asked = {"Image": self.image, "Env": lines, "HostConfig": {"NetworkMode": "host"}}
            async with session.post(f"{base}/create", params={"name": name}, json=asked) as made:
                known = (await made.json())["Id"]
            async with session.post(f"{base}/{known}/start"):
                pass


@dataclass
class FateFlow(StandIn):
    """FATE-Flow 2.x with its BFIA adapter. With `containers` it runs its side of a task too."""

    containers: Containers | None = None
    refuses: dict[str, Answer | None] = field(default_factory=dict)
    """Route -> what it answers instead; None: as where its code raised."""
    environments: list[dict[str, object]] = field(default_factory=list)
    """Of the containers that were started."""

    async def start(self) -> None:
        await super().start()
        self._inside = web.ServerRunner(web.Server(self._platform))
        await self._inside.setup()
        await web.TCPSite(self._inside, "127.0.0.1", 0).start()

    async def stop(self) -> None:
        await self._inside.cleanup()
        await super().stop()

    async def _platform(self, request: web.BaseRequest) -> web.Response:
        """The call-back of its own containers: plain HTTP, and no member that it does not know."""
        body = await request.json()
        if request.path != "/v1/platform/schedule/task/callback" or set(body) != {"task_id", "status", "role"}:
            return web.json_response({"code": 5001, "message": "Invalid request.", "data": {"json": {}}})
        self.tasks[body["task_id"]]["status"] = body["status"]
        return web.json_response({"code": 0, "msg": "success"})

    async def _start(self, job: Mapping[str, Any], task_id: str, name: str) -> None:
        """Every role of ours in this task, as a container."""
        assert self.containers is not None
        for role, nodes in job["config"]["role"].items():
            for index, node in enumerate(nodes):
                if node == self.node_id:
                    environment = self._environment(job, task_id, name, role=role, index=str(index))
                    self.environments.append(environment)
                    await self.containers.run(f"{role}-{node}-{task_id}-0", environment)

    def _environment(
        self, job: Mapping[str, Any], task_id: str, name: str, *, role: str, index: str
    ) -> dict[str, object]:
        """What its parser hands to a container, as recorded."""
        assert self.containers is not None
        (component,) = [each for each in job["dag"]["components"] if each["name"] == name]
        params = job["config"]["task_params"]
        own = params.get(role, {}).get(index, {}).get(name, {})
        values = {**params.get("common", {}).get(name, {}), **own}
        namespace, table = values.pop("dataset_id").split("#")
        session = f"session_{job['job_id']}"
        parties = {f"{r}.{i}": node for r, nodes in job["config"]["role"].items() for i, node in enumerate(nodes)}
        outputs = {
            # Its names for the two are swapped.
            each["key"]: {"name": task_id, "namespace": f"{role}-{self.node_id}-{each['type']}-{each['key']}"}
            for each in component["output"]
        }
        return {
            "runtime.component.name": component["componentName"],
            **{f"runtime.component.parameter.{key}": value for key, value in values.items()},
            "runtime.component.input.train_data": json.dumps({"name": table, "namespace": namespace}),
            **{f"runtime.component.output.{key}": json.dumps(value) for key, value in outputs.items()},
            "config.task_id": task_id,
            "config.trace_id": None,
            "config.session_id": session,
            "config.token": session,
            **{f"config.inst_id.{party}": node for party, node in parties.items()},
            **{f"config.node_id.{party}": node for party, node in parties.items()},
            "config.log.path": "/data/projects/fate/fate_flow/logs",
            "config.self_role": f"{role}.{index}",
            "system.storage": self.containers.storage,
            "system.transport": self.containers.transport,
            "system.callback": f"http://127.0.0.1:{self._inside.addresses[0][1]}/v1/platform/schedule/task/callback",
        }

    def _progress(self, task: dict[str, Any]) -> str:
        return str(task["status"]) if self.containers else super()._progress(task)

    def _headers(self) -> dict[str, str]:
        return {
            "x_auth_sign": "",
            "x_node_id": self.node_id,
            "x_nonce": str(uuid.uuid4()),
            "x_trace_id": "",
            "x_timestamp": str(time.time_ns() // 1_000_000),
        }

    def answer(self, call: Heard) -> Answer:
        route = call.path.removeprefix(S)
        method = "GET" if route == "job/status_all" else "POST"
        if route not in _FATE_FIELDS or call.method != method:
            return {
                "code": 6000,
                "message": "NotFound('404 Not Found')",
            }
        body = call.body if isinstance(call.body, dict) else {}  # the query counts for nothing
        required, optional = _FATE_FIELDS[route]
        if missing := required - set(body):
            wrong = {name: ["Missing data for required field."] for name in missing}
            return {"code": 5001, "message": "Invalid request.", "data": {"json": wrong}}
        if unknown := set(body) - required - optional:
            return {
                "code": 5001,
                "message": "Invalid request.",
                "data": {"json": {name: ["Unknown field."] for name in unknown}},
            }
        if route == "task/callback" and "x-node-id" not in call.headers:
            return {"code": 5001, "message": "Invalid request.", "data": {"headers": {"x_node_id": ["Missing data."]}}}
        if route in self.refuses:
            raised = {"code": 6000, "message": f"RuntimeError('Traceback (most recent call last):{400 * 'x'}')"}
            return self.refuses[route] or raised
        try:
            data = self._do(route, body)
        except RuntimeError as error:
            return {"code": 6000, "message": repr(error)}
        return {"code": 0, "msg": "success", **({} if data is None else {"data": data})}

    def _do(self, route: str, body: dict[str, Any]) -> Any:
        if route == "job/create":
            for place in ("initiator", "role", "job_params", "task_params", "version"):
                if place not in body["config"]:
                    raise RuntimeError(f"1 validation error for ConfSpec {place} field required")
            if "common" not in body["config"]["job_params"] or "version" not in body["dag"]:
                raise RuntimeError("1 validation error for DagSchemaSpec")
            for node in body["dag"]["components"]:
                if not {"name", "componentName", "provider", "version"} <= set(node):
                    raise RuntimeError("1 validation error for DagComponentSpec")
            self.jobs.setdefault(body["job_id"], {**body, "status": "READY"})
        elif route == "job/start":
            if body["job_id"] in self.jobs:  # an unknown one is no error
                self.jobs[body["job_id"]]["status"] = "RUNNING"
        elif route == "task/start":
            if body["job_id"] not in self.jobs:
                raise RuntimeError(f"No found job {body['job_id']}")
            self.tasks[body["task_id"]] = {**body, "status": "RUNNING", "polls": 0}
            if self.containers:
                start = self._start(self.jobs[body["job_id"]], body["task_id"], body["task_name"])
                self._starting = asyncio.get_running_loop().create_task(start)
        elif route == "task/poll":
            if body["task_id"] not in self.tasks:
                raise RuntimeError(f"No found task: {body['task_id']} node id {self.node_id}")
            return {"status": self._progress(self.tasks[body["task_id"]])}
        elif route == "job/stop":
            for task in self.tasks.values():
                if body.get("task_name") in (None, task["task_name"]) and task["status"] == "RUNNING":
                    task["status"] = "FAILED"
            if "task_name" not in body and body["job_id"] in self.jobs:
                self.jobs[body["job_id"]]["status"] = "FINISHED"
        elif route == "job/status_all":
            if body["job_id"] not in self.jobs:
                return {}
            named = {each["task_name"]: each["status"] for each in self.tasks.values()}
            return {"job_status": self.jobs[body["job_id"]]["status"], "status": named}
        return None

    async def _own_status(self, task_id: str) -> Answer:
        return {"data": self.tasks[task_id]}

    async def schedule(self, job: Mapping[str, Any]) -> Answer:
        """Drive a job of ours as its scheduler does; the answer that ended it, or the last one."""
        job_id = job["job_id"]
        self.jobs[job_id] = {**job, "status": "READY"}
        for route, body in (("job/create", dict(job)), ("job/start", {"job_id": job_id})):
            answer = await self.call("POST", route, body)
            if answer["code"] != 0:
                return answer
        for name in [each["name"] for each in job["dag"]["components"]]:
            task_id = str(uuid.uuid4())
            self.tasks[task_id] = {"task_name": name, "status": "RUNNING", "polls": 0}
            answer = await self.call("POST", "task/start", {"task_id": task_id, "task_name": name, "job_id": job_id})
            if answer["code"] != 0:
                break
            if self.containers:
                await self._start(self.jobs[job_id], task_id, name)
            poll = {"task_id": task_id, "role": ""}
            theirs = await self.until_final(lambda p=poll: self.call("POST", "task/poll", p))
            if self.containers:
                await self.until_final(lambda i=task_id: self._own_status(i))
            else:
                self.tasks[task_id]["status"] = theirs
            # After every task that has ended, the successful ones too.
            await self.call("POST", "job/stop", {"job_id": job_id, "task_name": name})
        self.jobs[job_id]["status"] = "FINISHED"
        return await self.call("POST", "job/stop", {"job_id": job_id})


class Kuscia(StandIn):
    """Kuscia's BFIA interconnection: success is 200, and nothing else is."""

    def _headers(self) -> dict[str, str]:
        return {"X-Node-Id": self.node_id, "X-Timestamp": str(int(time.time()))}

    def answer(self, call: Heard) -> Answer:
        route = call.path.removeprefix(S)
        if not call.headers.get("x-node-id"):
            return {"code": 400, "message": "header X-Node-Id can't be empty"}
        if len(call.headers.get("x-timestamp", "")) != 10:
            return {"code": 400, "message": "timestamp out of range"}
        body = call.query if call.method == "GET" else call.body or {}
        done = getattr(self, "_" + route.replace("/", "_"), None)
        if done is None or (call.method == "GET") is not (route == "job/status_all"):
            return {"code": 404, "msg": "404 page not found", "data": None}
        for name in ("job_id", "task_id"):
            if name in body and not KUBERNETES_ID.fullmatch(body[name]):
                return {"code": 400, "message": f"{name} is no name of an object"}
        return dict(done(body))

    @staticmethod
    def _ok(data: Any = None) -> Answer:
        return {"code": 200, "msg": "", "data": data}

    def _known(self, body: Mapping[str, Any]) -> bool:
        return body.get("job_id") in self.jobs

    _NONE: ClassVar[Answer] = {"code": 400, "msg": "job does not exist", "data": None}

    def _job_create(self, body: Mapping[str, Any]) -> Answer:
        if self._known(body):
            return {"code": 400, "msg": "job already exists", "data": None}
        for node in body["dag"]["components"]:
            if not node.get("code") or not node.get("module_name"):
                return {"code": 400, "message": "parameter code can't be empty"}
        params = body["config"].get("task_params", {})
        blocks = [*params.get("common", {}).values()]
        blocks += itertools.chain(*(i.values() for r, b in params.items() if r != "common" for i in b.values()))
        if any(value is None or isinstance(value, list) for block in blocks for value in block.values()):
            return {"code": 400, "message": "unsupported parameter type"}
        self.jobs[body["job_id"]] = dict(body)
        return self._ok({"status": "PENDING"})

    def _job_start(self, body: Mapping[str, Any]) -> Answer:
        return self._ok() if self._known(body) else self._NONE

    def session_of(self, task: Mapping[str, Any], task_id: str) -> str:
        return f"session_{task_id}"

    def _task_start(self, body: Mapping[str, Any]) -> Answer:
        if not self._known(body):
            return self._NONE
        self.tasks.setdefault(body["task_id"], {**body, "status": "RUNNING", "polls": 0})
        return self._ok()

    def _task_poll(self, body: Mapping[str, Any]) -> Answer:
        if not body.get("role"):
            return {"code": 400, "message": "parameter role can't be empty"}
        if body["task_id"] not in self.tasks:
            return {"code": 400, "msg": "task does not exist", "data": None}
        return self._ok({"status": self._progress(self.tasks[body["task_id"]])})

    def _job_stop(self, body: Mapping[str, Any]) -> Answer:
        for task in self.tasks.values():  # whatever task_name says: the whole job
            if task["job_id"] == body["job_id"] and task["status"] == "RUNNING":
                task["status"] = "FAILED"
        return self._ok()

    def _job_status_all(self, body: Mapping[str, Any]) -> Answer:
        if not self._known(body):
            return self._NONE
        own = {name: task["status"] for name, task in self.tasks.items() if task["job_id"] == body["job_id"]}
        return self._ok({"status": own})

    async def schedule(self, job: Mapping[str, Any], *, roles: list[str]) -> Answer:
        """Drive a job: nobody is told of its end, participants ask for it. roles: those of the gateway."""
        job_id = job["job_id"]
        self.jobs[job_id] = dict(job)
        for route, body in (("job/create", dict(job)), ("job/start", {"job_id": job_id})):
            answer = await self.call("POST", route, body)
            if answer["code"] != 200:
                return answer
        for name in [each["name"] for each in job["dag"]["components"]]:
            task_id = f"{job_id}-{uuid.uuid4().hex[:12]}"
            self.tasks[task_id] = {"job_id": job_id, "task_name": name, "status": "RUNNING", "polls": 0}
            body = {"task_id": task_id, "task_name": name, "job_id": job_id}
            answer = await self.call("POST", "task/start", body)
            if answer["code"] != 200:
                return answer
            words = []
            for role in roles:
                poll = {"task_id": task_id, "role": role}
                words.append(await self.until_final(lambda p=poll: self.call("POST", "task/poll", p)))
            self.tasks[task_id]["status"] = "FAILED" if "FAILED" in words else "SUCCESS"
        return await self.call("GET", "job/status_all", query={"job_id": job_id})
