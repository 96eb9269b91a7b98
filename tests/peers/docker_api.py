"""The little of Docker's API that FATE-Flow calls; a "container" is a process with the environment it was given.

GET version; POST containers/create and containers/ID/start; GET containers/ID/json; DELETE containers/ID. The image is
the path of the program.
"""

import asyncio
import contextlib
import os
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web


@dataclass
class Container:
    """One process and what it was made of."""

    name: str
    image: str
    environment: dict[str, str]
    process: asyncio.subprocess.Process | None = None


@dataclass
class DockerApi:
    """Serves a TCP port of loopback until `stop`, which ends every process."""

    folder: Path
    port: int = 0
    containers: dict[str, Container] = field(default_factory=dict)

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._serve))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        for each in self.containers.values():
            self._kill(each)
        await self._runner.cleanup()

    @staticmethod
    def _kill(container: Container) -> None:
        if container.process is not None and container.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                container.process.kill()

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        path = re.sub(r"^/v[0-9.]+", "", request.path)
        if path == "/version":
            return web.json_response({"Version": "20.10.0", "ApiVersion": "1.41", "MinAPIVersion": "1.12"})
        if path == "/containers/create":
            asked: dict[str, Any] = await request.json()
            known = uuid.uuid4().hex
            environment = dict(each.partition("=")[::2] for each in asked.get("Env") or ())
            self.containers[known] = Container(request.query.get("name", known), asked["Image"], environment)
            return web.json_response({"Id": known, "Warnings": []}, status=201)
        found = re.fullmatch(r"/containers/([^/]+)(/start|/json)?", path)
        container = self._find(found[1]) if found else None
        if found is None or container is None:
            return web.json_response({"message": f"no such object: {path}"}, status=404)
        if found[2] == "/start":
            with (self.folder / f"{container.name}.log").open("wb") as log:
                container.process = await asyncio.create_subprocess_exec(
                    container.image, env={**os.environ, **container.environment}, stdout=log, stderr=log
                )
            return web.Response(status=204)
        if request.method == "DELETE":
            self._kill(container)
            return web.Response(status=204)
        return web.json_response(self._state(found[1], container))

    def _find(self, name: str) -> Container | None:
        return self.containers.get(name) or next((c for c in self.containers.values() if c.name == name), None)

    @staticmethod
    def _state(known: str, container: Container) -> dict[str, Any]:
        code = None if container.process is None else container.process.returncode
        state = {"Status": "running" if code is None else "exited", "Running": code is None, "ExitCode": code or 0}
        return {"Id": known, "Name": f"/{container.name}", "State": state, "Image": container.image, "Config": {}}
