"""Containers of a Docker engine, through its own client (extra `docker`)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import docker
import docker.errors
import requests

from gateway.runtime.engines import EngineError, plain_image
from gateway.runtime.launch import Launch

STOP_S: Final = 2
CALL_S: Final = 60
LABEL: Final = "interconn.component"
_GIB: Final = 1 << 30


class DockerEngine:
    """One Docker engine."""

    def __init__(self, *, address: str = "", network: str = "host") -> None:
        """address: of the engine; "" as DOCKER_HOST says. network: "host" reaches a platform listener on loopback."""
        with _as_engine_error():
            self._client: Any = (
                docker.DockerClient(base_url=address, timeout=CALL_S) if address else docker.from_env(timeout=CALL_S)
            )
        self._network = network

    def start(self, name: str, launch: Launch) -> None:
        image = plain_image(launch.image)
        with _as_engine_error():
            container = self._client.containers.create(
                image,
                name=name,
                environment=dict(launch.environment),
                labels={LABEL: launch.environment.get("config.task_id", "")},
                network_mode=self._network,
                volumes=_mounts(launch),
                working_dir=str(launch.directory),
                init=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                **_limits(launch),
            )
            container.start()

    def lines(self, name: str) -> Iterator[bytes]:
        with _as_engine_error():
            found = self._client.containers.get(name)
            yield from found.logs(stream=True, follow=True, stdout=True, stderr=True)

    def code(self, name: str) -> int | None:
        with _as_engine_error():
            try:
                state = self._client.api.inspect_container(name)["State"]
            except docker.errors.NotFound:
                raise KeyError(name) from None
        return int(state["ExitCode"]) if state.get("Status") in {"exited", "dead"} else None

    def secret(self, name: str) -> str:
        with _as_engine_error():
            variables = self._client.api.inspect_container(name)["Config"].get("Env") or []
        return next((each.partition("=")[2] for each in variables if each.startswith("config.token=")), "")

    def stop(self, name: str) -> None:
        with _as_engine_error(missing_is_fine=True):
            self._client.containers.get(name).stop(timeout=STOP_S)

    def remove(self, name: str) -> None:
        with _as_engine_error(missing_is_fine=True):
            self._client.containers.get(name).remove(force=True, v=True)


def _mounts(launch: Launch) -> Mapping[str, Mapping[str, str]]:
    """The task's own folders, its log's folder too, where they are here (part 3 section 4)."""
    folders = {launch.directory, launch.log.parent, *launch.writes}
    return {str(folder): {"bind": str(folder), "mode": "rw"} for folder in folders}


def _limits(launch: Launch) -> Mapping[str, Any]:
    """Cpu in cores and memory in GiB; absent is no limit (A-028)."""
    found: dict[str, Any] = {}
    if launch.resources.cpu:
        found["nano_cpus"] = int(launch.resources.cpu * 10**9)
    if launch.resources.memory:
        found["mem_limit"] = int(launch.resources.memory * _GIB)
    return found


@contextmanager
def _as_engine_error(*, missing_is_fine: bool = False) -> Iterator[None]:
    try:
        yield
    except docker.errors.NotFound as e:
        if not missing_is_fine:
            raise EngineError("the Docker engine knows no such container or image") from e
    except docker.errors.APIError as e:
        raise EngineError(f"the Docker engine refused it (HTTP status {e.status_code})") from e
    except (docker.errors.DockerException, requests.RequestException, OSError) as e:
        raise EngineError(f"the Docker engine was not reached ({type(e).__name__})") from e
