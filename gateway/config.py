"""node.toml -> one frozen tree of dataclasses, read once by `app`.

Everything below `app` receives values, never this. An unknown key is an error; a relative path is relative to the file;
a key is named by a URI (`file:`), never written here; a dangerous switch starts with `insecure_` and is absent by
default.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from math import inf
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl, urlsplit

from gateway.errors import CallerError, Kind, ProtocolViolation
from gateway.model import DURABILITIES, Limits, ProxyAddress
from gateway.sdk.environment import MAX_THREADS
from specs.states import AuditKind, AuthType

FILE_BYTES = 1 << 20
LAB_STATE = "lab-state.json"
"""What a lab keeps of itself, in the folder that holds the nodes' folders."""
_APPROVED = frozenset({"contract", *(kind.value for kind in AuditKind)})
ENGINES = ("", "docker", "kubernetes")
PULLS = ("Always", "Never", "IfNotPresent")
AUTH_TYPES = tuple(each.value for each in AuthType)


class ConfigError(CallerError):
    """node.toml is wrong; the message names the key."""

    default_kind = Kind.MALFORMED


@dataclass(frozen=True, slots=True)
class NodeSection:
    node_id: str
    inst_id: str
    name: str
    institution: str
    address: str
    """Edge URL as partners reach it."""
    description: str = ""
    insecure_clock_offset: float = 0.0
    """Seconds by which this node's clock is wrong on purpose; only a lab accepts it."""


@dataclass(frozen=True, slots=True)
class EdgeSection:
    host: str = "127.0.0.1"
    port: int = 7304
    grpc: bool = True
    """gRPC on the same port, for whoever speaks HTTP/2 there."""
    grpc_port: int = 0
    """A port for gRPC alone; 0: none."""
    streams: bool = True
    """Ask partners for a stream and give it to those who ask (docs/transport.md); false: each message an HTTP call."""


@dataclass(frozen=True, slots=True)
class ProxySection:
    """A proxy that wants a password. The admin API can name proxies, but no files: only this file does."""

    url: str
    """http://host:port"""
    credentials: str
    """file: URI of `user:password` (Basic); only its owner may read the file."""


@dataclass(frozen=True, slots=True)
class NetworkSection:
    """The way out to partners for whom `partner way` says nothing else."""

    proxy: str = ""
    """http://host:port of an HTTP proxy that offers CONNECT; empty: directly."""
    proxies: tuple[ProxySection, ...] = ()


@dataclass(frozen=True, slots=True)
class PlatformSection:
    host: str = "127.0.0.1"
    port: int = 7305
    grpc: bool = True
    grpc_port: int = 0
    insecure_allow_remote: bool = False
    """Components talk to this listener in plain HTTP: binding it to more than loopback exposes their data."""


@dataclass(frozen=True, slots=True)
class AdminSection:
    host: str = "127.0.0.1"
    port: int = 7306
    token_file: Path = Path("admin.token")
    insecure_allow_remote: bool = False
    """The admin API is plain HTTP with a bearer token; put TLS in front before it leaves the machine."""


@dataclass(frozen=True, slots=True)
class KeysSection:
    """Key URIs; certificates are chains, leaf first."""

    ca: str = "file:pki/ca.pem"
    signing_key: str = "file:pki/signing.key"
    signing_chain: str = "file:pki/signing.pem"
    """Chain for CERT, else the public key."""
    signing_passphrase: str = ""
    """file: URI of the passphrase of an encrypted signing key."""
    auth_type: str = "CERT"
    """How we sign: CERT, ED25519, SHA256_ECDSA or SHA256_RSA; settled when the node is made."""
    ca_key: str = "file:pki/ca.key"
    """Needed only to make new signing keys; may be elsewhere until then."""
    overlap_h: float = 24.0
    """How long the key that a node/update replaces stays valid, ours and the partners'."""
    tls_key: str = "file:pki/tls.key"
    tls_chain: str = "file:pki/tls.pem"


@dataclass(frozen=True, slots=True)
class PathsSection:
    state: Path = Path("state.db")
    work: Path = Path("work")
    run: Path = Path("run")
    """Holds the Unix sockets; the path of a socket may have at most 107 bytes."""
    log: Path = Path("log/gateway.log")
    spool: Path = Path("spool")
    """Messages of sessions kept on disk, and those that memory has no room for ([limits] spool_bytes)."""


@dataclass(frozen=True, slots=True)
class StoreSection:
    url: str = ""
    """Empty: SQLite in paths.state. Else postgresql://USER@HOST:PORT/DATABASE without a password, or file:PATH of a
    file that holds the address, password included, and that only its owner can read."""


@dataclass(frozen=True, slots=True)
class JobsSection:
    """Defaults of job_params.common; a job may ask for less, not for more."""

    poll_s: float = 2.0
    misses: int = 5
    """Consecutive polls without an answer after which a party counts as failed (B-14)."""
    silence_s: float = 60.0
    """A party that cannot be reached for so long counts as lost: its part has failed, or, where it schedules, ours."""
    task_timeout_s: float = 3600.0
    heartbeat_s: float = 1800.0
    """A component that prints nothing, shows no progress and calls nobody for so long is ended."""
    queue_s: float = 3600.0
    """A task waits for a free place on this node for so long."""
    job_timeout_s: float = 24 * 3600.0
    approval_s: float = 7 * 24 * 3600.0
    """A job that was not approved and started within this time ends."""
    require_job_audit: bool = True
    require_project: bool = True
    """A job may only name a project that both sides have joined; false for partners without the project group."""
    max_running: int = 4
    """Component processes at a time."""
    threads: int = 0
    """Threads that each of our components computes with, 1 to 64; 0: the cores, shared among those that run."""
    warm: bool = True
    """Keep an interpreter ready from which the tasks of our own components are forked (docs/operations.md)."""
    max_cpus: float = inf
    """Cores that the components running at a time may have asked for together (`resources`)."""
    max_memory_gib: float = inf


@dataclass(frozen=True, slots=True)
class ChannelSection:
    """durability: of messages in declared sessions and of jobs that do not say: memory, or spool, which survives.

    peek_keeps: peek leaves the message where it is (T-022). strict: it does, and calls without provider code, trace id
    or token are refused (T-055).
    """

    durability: str = "memory"
    peek_keeps: bool = False
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ContainersSection:
    """Images that are neither ours nor programs of this machine run on an engine: docker or kubernetes, each an extra
    of that name. Empty: nowhere, they are refused.
    """

    engine: str = ""
    address: str = ""
    """docker: of the engine, unix:// or tcp://; empty: as DOCKER_HOST says."""
    network: str = "host"
    """docker: a network on which [platform] is reached; on loopback only the machine's own."""
    namespace: str = "default"
    """kubernetes: of the Jobs."""
    claim: str = ""
    """kubernetes: a PersistentVolumeClaim that holds what lies below / here; empty: the folders of the node itself."""
    pull: str = "IfNotPresent"


@dataclass(frozen=True, slots=True)
class ProfileSection:
    default: str = "strict-1.2"
    insecure_unsigned: bool = False
    """Allow `set-profile PARTNER insecure_unsigned`: a partner that need not sign, whom TLS alone proves."""


@dataclass(frozen=True, slots=True)
class ExpirySection:
    """So many days before something ends it is told, once each: contracts, grants, keys and certificates."""

    warn_days: tuple[int, ...] = (30, 7, 1)


@dataclass(frozen=True, slots=True)
class TrailSection:
    """The audit trail is sealed with the node's key after so many entries, and when the oldest unsealed is so old."""

    seal_entries: int = 100
    seal_minutes: float = 10.0


@dataclass(frozen=True, slots=True)
class DeliverySection:
    """Calls to partners are repeated until they are answered; and the two sides compare what they have."""

    reconcile_s: float = 600.0
    """Between two comparisons of contracts and audits with each partner."""
    longest_pause_s: float = 60.0
    """Between two attempts to deliver a call; the first pause is half a second, each is twice the one before."""


@dataclass(frozen=True, slots=True)
class TracingSection:
    endpoint: str = ""
    """Where spans go: an OpenTelemetry collector's OTLP/HTTP address, .../v1/traces. Needs the extra `otel`."""


@dataclass(frozen=True, slots=True)
class ApprovalsSection:
    """four_eyes: kinds of which two users with the role admin must approve: contract, dataset, project, flow, job,
    model.
    """

    four_eyes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotifySection:
    """Where word of what waits for a decision goes. webhook: https URL, http on loopback; empty: nowhere."""

    webhook: str = ""
    secret_file: Path = Path("notify.secret")
    """At least 32 bytes that only its owner can read: the key of the signature of every notice."""
    attempts: int = 10


@dataclass(frozen=True, slots=True)
class Config:
    folder: Path
    node: NodeSection
    edge: EdgeSection = field(default_factory=EdgeSection)
    network: NetworkSection = field(default_factory=NetworkSection)
    platform: PlatformSection = field(default_factory=PlatformSection)
    admin: AdminSection = field(default_factory=AdminSection)
    keys: KeysSection = field(default_factory=KeysSection)
    paths: PathsSection = field(default_factory=PathsSection)
    store: StoreSection = field(default_factory=StoreSection)
    jobs: JobsSection = field(default_factory=JobsSection)
    channel: ChannelSection = field(default_factory=ChannelSection)
    containers: ContainersSection = field(default_factory=ContainersSection)
    profile: ProfileSection = field(default_factory=ProfileSection)
    expiry: ExpirySection = field(default_factory=ExpirySection)
    trail: TrailSection = field(default_factory=TrailSection)
    tracing: TracingSection = field(default_factory=TracingSection)
    approvals: ApprovalsSection = field(default_factory=ApprovalsSection)
    notify: NotifySection = field(default_factory=NotifySection)
    delivery: DeliverySection = field(default_factory=DeliverySection)
    limits: Limits = field(default_factory=Limits)

    @property
    def one_port(self) -> bool:
        """Whether edge and platform listener are to share a port, because they cannot both have it."""
        same = self.edge.host in {"0.0.0.0", "::", self.platform.host}  # noqa: S104  # compared, not bound
        return same and self.edge.port == self.platform.port

    def path(self, relative: Path) -> Path:
        """A path of the file, absolute."""
        return relative if relative.is_absolute() else self.folder / relative

    def store_file(self) -> Path | None:
        """The file that holds the database's address, None where [store] url is the address itself."""
        parts = urlsplit(self.store.url)
        return self.path(Path(parts.path)) if parts.scheme == "file" else None

    def key_uri(self, uri: str) -> str:
        """A key URI with an absolute path; what is no `file:` stays as it is."""
        return self.key_file(uri).as_uri() if urlsplit(uri).scheme == "file" else uri

    def key_file(self, uri: str) -> Path:
        """The file that a key URI names; only `file:` has one."""
        parts = urlsplit(uri)
        if parts.scheme != "file" or parts.netloc:
            raise ConfigError(f"[keys] {uri!r}: only file: URIs are supported")
        return self.path(Path(parts.path))


def of_a_lab(folder: Path) -> bool:
    """Whether a lab made this node's folder; only there may a node be wrong on purpose."""
    try:
        with (folder.parent / LAB_STATE).open("rb") as file:
            names = json.loads(file.read(FILE_BYTES))["names"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(names, list) and folder.name in names


def load(file: Path) -> Config:
    """Read and check `file`; raises ConfigError naming section and key."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    if len(raw) > FILE_BYTES:
        raise ConfigError(f"{file} is larger than {FILE_BYTES} bytes")
    try:
        tree = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    config: Config = _build(Config, {**tree, "folder": str(file.resolve().parent)}, "")
    _check(config)
    return config


def _build(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"unknown key {where}{unknown[0]}")
    built = {}
    for name, item in known.items():
        if name in values:
            built[name] = _value(hints[name], values[name], f"{where}{name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"missing key {where}{name}")
    return kind(**built)


def _value(hint: Any, value: Any, where: str) -> Any:
    if hasattr(hint, "__dataclass_fields__"):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table")
        return _build(hint, value, f"{where}.")
    if get_origin(hint) is UnionType:
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list")
        return tuple(_value(get_args(hint)[0], each, where) for each in value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} must be of type {hint.__name__}, not {type(value).__name__}")
    return value


def _check(config: Config) -> None:
    for name, listener in (("edge", config.edge), ("platform", config.platform), ("admin", config.admin)):
        if not 0 < listener.port < 65536:
            raise ConfigError(f"{name}.port must be 1..65535")
    for name, shared in (("edge", config.edge), ("platform", config.platform)):
        if not 0 <= shared.grpc_port < 65536:
            raise ConfigError(f"{name}.grpc_port must be 1..65535, or 0 for none")
    for name, section in (("platform", config.platform), ("admin", config.admin)):
        if section.host not in {"127.0.0.1", "::1", "localhost"} and not section.insecure_allow_remote:
            raise ConfigError(f"{name}.host {section.host} is not loopback and {name}.insecure_allow_remote is not set")
    _check_one_port(config)
    _check_network(config)
    _check_store(config.store.url)
    if config.tracing.endpoint and not config.tracing.endpoint.startswith(("http://", "https://")):
        raise ConfigError("tracing.endpoint must be an http(s) URL")
    unknown = sorted(set(config.approvals.four_eyes) - _APPROVED)
    if unknown:
        raise ConfigError(f"approvals.four_eyes {unknown[0]!r}: one of {', '.join(sorted(_APPROVED))}")
    if not 1 <= config.notify.attempts <= 100:
        raise ConfigError("notify.attempts must be 1 to 100")
    for name, bounds in (("jobs", config.jobs), ("trail", config.trail), ("delivery", config.delivery)):
        for item in fields(bounds):
            value = getattr(bounds, item.name)
            if not isinstance(value, bool) and value <= 0 and item.name != "threads":
                raise ConfigError(f"{name}.{item.name} must be positive")
    if not 0 <= config.jobs.threads <= MAX_THREADS:
        raise ConfigError(f"jobs.threads must be 1 to {MAX_THREADS}, or 0 for a share of the cores")
    if config.limits.partner_messages_per_s < 0 or config.limits.partner_bytes_per_s < 0:
        raise ConfigError("limits.partner_messages_per_s and limits.partner_bytes_per_s must not be negative")
    if not all(0 < each <= 3650 for each in config.expiry.warn_days) or len(config.expiry.warn_days) > 16:
        raise ConfigError("expiry.warn_days must be at most 16 numbers of 1 to 3650 days")
    if config.keys.auth_type not in AUTH_TYPES:
        raise ConfigError(f"keys.auth_type must be one of {', '.join(AUTH_TYPES)}")
    if config.containers.engine not in ENGINES:
        raise ConfigError("containers.engine must be docker, kubernetes or empty")
    if config.channel.durability not in DURABILITIES:
        raise ConfigError(f"channel.durability must be one of {', '.join(DURABILITIES)}")
    if config.containers.pull not in PULLS:
        raise ConfigError(f"containers.pull must be one of {', '.join(PULLS)}")
    if not 0 <= config.keys.overlap_h <= 24 * 365:
        raise ConfigError("keys.overlap_h must be 0 to 8760")
    if not config.node.address.startswith(("https://", "http://")):
        raise ConfigError("node.address must be an http(s) URL")


def _check_one_port(config: Config) -> None:
    """On a shared port plain text from this machine is our own side's, so nobody else's may seem to come from here."""
    if not config.one_port:
        return
    if config.platform.insecure_allow_remote:
        raise ConfigError("platform.insecure_allow_remote needs a platform.port of its own, not edge.port")
    address = urlsplit(config.node.address)
    if (address.port or 443) != config.edge.port or address.path.strip("/"):
        raise ConfigError(
            "platform.port is edge.port, but node.address is another port or has a path: what stands in front of the "
            "edge would make strangers look local; give platform.port another number"
        )


def _check_network(config: Config) -> None:
    for url in (config.network.proxy, *(each.url for each in config.network.proxies)):
        try:
            if url:
                ProxyAddress.of(url)
        except ProtocolViolation as error:
            raise ConfigError(f"[network] {error}") from error
    for each in config.network.proxies:
        config.key_file(each.credentials)


def _check_store(url: str) -> None:
    if not url:
        return
    try:
        parts = urlsplit(url)
        secret = parts.password is not None or any(name == "password" for name, _ in parse_qsl(parts.query))
    except ValueError as error:
        raise ConfigError("store.url is not a URL") from error
    if secret:
        raise ConfigError("store.url must not hold a password: write the address to a file and name that, file:PATH")
    if parts.scheme == "file" and (parts.netloc or not parts.path):
        raise ConfigError("store.url file: takes a path, relative to this file or absolute")
    if parts.scheme not in {"file", "sqlite", "postgresql"}:
        raise ConfigError("store.url must begin with postgresql:, sqlite: or file:")
