"""Components as Jobs of a Kubernetes cluster, through its own client (extra `kubernetes`)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from gateway.runtime.engines import EngineError, plain_image
from gateway.runtime.launch import Launch

MODELS: Final[Any] = client
"""The request models. Some versions of the client have types, which differ."""
CONFIG: Final[Any] = config
CALL_S: Final = 30
KEEP_S: Final = 3600
"""A Job that nobody could remove goes by itself so long after its end."""
GRACE_S: Final = 2
START_S: Final = 0.5
"""Between two looks at whether the pod runs yet."""
_GONE: Final = 404


class KubernetesEngine:
    """Jobs of one namespace. Work folders are mounted at the path they have here: from `claim`, else from the node."""

    def __init__(self, *, namespace: str, claim: str = "", pull: str = "IfNotPresent", api: Any = None) -> None:
        """pull: Always, Never or IfNotPresent. api: an ApiClient, None for the pod's or the user's own."""
        if api is None:
            try:
                CONFIG.load_config()
            except (ConfigException, OSError) as e:
                raise EngineError("no configuration of a Kubernetes cluster was found") from e
        self._namespace = namespace
        self._claim = claim
        self._pull = pull
        self._jobs: Any = client.BatchV1Api(api)
        self._pods: Any = client.CoreV1Api(api)

    def start(self, name: str, launch: Launch) -> None:
        job = job_of(name, launch, claim=self._claim, pull=self._pull)
        with _as_engine_error():
            self._jobs.create_namespaced_job(self._namespace, job, _request_timeout=CALL_S)

    def lines(self, name: str) -> Iterator[bytes]:
        with _as_engine_error():
            while True:
                pod = self._pod(name)
                if pod is not None and pod.status.phase != "Pending":
                    break
                if self.code(name) is not None:
                    return
                time.sleep(START_S)
            answer = self._pods.read_namespaced_pod_log(
                pod.metadata.name, self._namespace, follow=True, _preload_content=False
            )
            try:
                yield from answer.stream(1 << 14)
            finally:
                answer.release_conn()

    def code(self, name: str) -> int | None:
        with _as_engine_error():
            try:
                status = self._jobs.read_namespaced_job_status(name, self._namespace, _request_timeout=CALL_S).status
            except ApiException as e:
                if e.status == _GONE:
                    raise KeyError(name) from None
                raise
            if not (status.succeeded or status.failed):
                return None
            pod = self._pod(name)
        for container in (pod.status.container_statuses or []) if pod is not None else []:
            ended = container.state.terminated
            if ended is not None:
                return int(ended.exit_code)
        # The pod is gone: past its deadline, or evicted.
        return 0 if status.succeeded else 1

    def secret(self, name: str) -> str:
        with _as_engine_error():
            job = self._jobs.read_namespaced_job(name, self._namespace, _request_timeout=CALL_S)
        variables = job.spec.template.spec.containers[0].env or []
        return next((str(each.value) for each in variables if each.name == "config.token"), "")

    def _pod(self, name: str) -> Any:
        found = self._pods.list_namespaced_pod(
            self._namespace, label_selector=f"job-name={name}", _request_timeout=CALL_S
        )
        return found.items[0] if found.items else None

    def stop(self, name: str) -> None:
        """A Job is stopped by a deadline that has passed: deleted, it would take its exit code along."""
        with _as_engine_error(missing_is_fine=True):
            self._jobs.patch_namespaced_job(
                name, self._namespace, {"spec": {"activeDeadlineSeconds": 1}}, _request_timeout=CALL_S
            )

    def remove(self, name: str) -> None:
        with _as_engine_error(missing_is_fine=True):
            self._jobs.delete_namespaced_job(
                name, self._namespace, propagation_policy="Background", _request_timeout=CALL_S
            )


def job_of(name: str, launch: Launch, *, claim: str, pull: str) -> Any:
    """The Job object of a launch (part 3 section 4): one pod, never restarted, requests equal to limits."""
    folders = sorted({str(launch.directory), str(launch.log.parent), *(str(each) for each in launch.writes)})
    resources = _resources(launch)
    variables = [MODELS.V1EnvVar(name=key, value=value) for key, value in launch.environment.items()]
    host_ip = MODELS.V1EnvVarSource(field_ref=MODELS.V1ObjectFieldSelector(field_path="status.hostIP"))
    container = MODELS.V1Container(
        name="component",
        image=plain_image(launch.image),
        image_pull_policy=pull,
        env=[*variables, MODELS.V1EnvVar(name="MY_HOST_IP", value_from=host_ip)],
        resources=MODELS.V1ResourceRequirements(limits=resources, requests=resources),
        working_dir=str(launch.directory),
        volume_mounts=[
            MODELS.V1VolumeMount(name="work" if claim else f"work-{number}", mount_path=folder, **_below(claim, folder))
            for number, folder in enumerate(folders)
        ],
        security_context=MODELS.V1SecurityContext(allow_privilege_escalation=False),
    )
    pod = MODELS.V1PodSpec(
        containers=[container],
        restart_policy="Never",
        automount_service_account_token=False,
        enable_service_links=False,
        termination_grace_period_seconds=GRACE_S,
        volumes=_volumes(claim, folders),
    )
    labels = {"app.kubernetes.io/managed-by": "interconn"}
    return MODELS.V1Job(
        metadata=MODELS.V1ObjectMeta(name=name, labels=labels),
        spec=MODELS.V1JobSpec(
            backoff_limit=0,
            active_deadline_seconds=max(1, int(launch.timeout_s)),
            ttl_seconds_after_finished=KEEP_S,
            template=MODELS.V1PodTemplateSpec(metadata=MODELS.V1ObjectMeta(labels=labels), spec=pod),
        ),
    )


def _below(claim: str, folder: str) -> dict[str, str]:
    """In a claim, which is one volume for all, a folder is known by its path here without the first slash."""
    return {"sub_path": folder.lstrip("/")} if claim else {}


def _volumes(claim: str, folders: list[str]) -> list[Any]:
    if claim:
        source = MODELS.V1PersistentVolumeClaimVolumeSource(claim_name=claim)
        return [MODELS.V1Volume(name="work", persistent_volume_claim=source)]
    return [
        MODELS.V1Volume(name=f"work-{number}", host_path=MODELS.V1HostPathVolumeSource(path=folder, type="Directory"))
        for number, folder in enumerate(folders)
    ]


def _resources(launch: Launch) -> dict[str, str]:
    """Cpu as a plain number, memory as `<n>Gi`; absent is no limit (A-028)."""
    found = {}
    if launch.resources.cpu:
        found["cpu"] = f"{launch.resources.cpu:g}"
    if launch.resources.memory:
        found["memory"] = f"{launch.resources.memory:g}Gi"
    return found


@contextmanager
def _as_engine_error(*, missing_is_fine: bool = False) -> Iterator[None]:
    try:
        yield
    except ApiException as e:
        if not (missing_is_fine and e.status == _GONE):
            raise EngineError(f"the Kubernetes cluster refused it (HTTP status {e.status})") from e
    except (urllib3.exceptions.HTTPError, OSError) as e:
        raise EngineError(f"the Kubernetes cluster was not reached ({type(e).__name__})") from e
