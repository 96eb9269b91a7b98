"""Identifiers and the frozen records that the planes keep; no behaviour beyond what a record knows of itself.

Times are milliseconds since the epoch (UTC) unless the name says otherwise. A record that the store keeps has `key()`.
JSON members hold plain dicts and lists exactly as they stand on the wire, so that unknown members survive (C-006).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any, Final, NewType, Self
from urllib.parse import urlsplit

from gateway.errors import ProtocolViolation
from specs.admin import Role
from specs.states import ApprovalState, AuditKind, JobState, TaskState

NodeId = NewType("NodeId", str)
InstId = NewType("InstId", str)
ContractId = NewType("ContractId", str)
AuditId = NewType("AuditId", str)
DatasetId = NewType("DatasetId", str)
ProjectId = NewType("ProjectId", str)
JobId = NewType("JobId", str)
TaskId = NewType("TaskId", str)
TaskName = NewType("TaskName", str)
SessionId = NewType("SessionId", str)
TraceId = NewType("TraceId", str)

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is, as it tells its partners (1-management b.2)."""

    node_id: NodeId
    inst_id: InstId
    name: str
    institution: str
    system: str
    system_version: str
    address: str
    description: str = ""


@unique
class Direction(StrEnum):
    """Whether we applied (OUT) or the partner did (IN)."""

    OUT = "OUT"
    IN = "IN"


@dataclass(frozen=True, slots=True)
class Contract:
    """The cooperation of this node with one partner (b.3); `peer` members describe the partner."""

    contract_id: ContractId
    direction: Direction
    status: ApprovalState
    peer_node_id: NodeId
    peer_inst_id: InstId
    peer_name: str
    peer_institution: str
    peer_system: str
    peer_system_version: str
    peer_address: str
    auth_type: str
    auth_credential: str
    """PEM: certificate chain (leaf first) for CERT, public key otherwise; empty until the partner has sent it."""
    tls_ca: str
    """PEM of the one CA whose certificates are accepted for this partner; empty until known."""
    fingerprint: str
    """SHA-256 of the credential's trust anchor (CERT: the CA's DER; else the public key's DER), lower-case hex."""
    proven: bool
    """The partner signed apply or confirm with the key it carried."""
    expired_time: int | None
    profile: str
    description: str
    created: int
    updated: int
    our_key: str = ""
    """Id of the signing key of ours that the partner has acknowledged; empty: the one that node.toml names."""
    old_auth_type: str = ""
    old_auth_credential: str = ""
    """What the partner signed with before its last node/update; accepted until `old_until`."""
    old_tls_ca: str = ""
    old_until: int = 0
    ca_offered: str = ""
    """Fingerprint of a new trust anchor that the partner wants to sign under; waits for our admin."""
    ca_allowed: str = ""
    """Fingerprint of the new trust anchor that our admin allows."""
    peer_transport: str = ""
    """Address of its transport module, where that is another than `peer_address`."""

    def key(self) -> str:
        return self.contract_id


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A signing key of this node that came after the one of node.toml; the private key is where `key_uri` says."""

    key_id: str
    """SHA-256 of the public key (SubjectPublicKeyInfo DER), hex."""
    auth_type: str
    credential: str
    key_uri: str
    emergency: bool
    """The keys before it are compromised: partners must drop them at once."""
    created: int

    def key(self) -> str:
        return self.key_id


@dataclass(frozen=True, slots=True)
class Crl:
    """The newest revocation list of a partner's CA, given by our admin."""

    ca: str
    """SHA-256 of the CA's DER, hex."""
    node_id: NodeId
    """The partner with whom it came."""
    pem: str
    revoked: int
    """Certificates on it."""
    this_update: int
    next_update: int
    """From then on every certificate of this CA is refused."""
    created: int

    def key(self) -> str:
        return self.ca


@dataclass(frozen=True, slots=True)
class PeerTls:
    """The TLS certificate that a partner has shown last on a connection with our data plane."""

    node_id: NodeId
    fingerprint: str
    """SHA-256 of its DER, hex."""
    ends: int

    def key(self) -> str:
        return self.node_id


DURABILITIES: Final = ("memory", "spool")
"""Of a session's messages: lost with the process that holds them, or on disk before a push is answered."""


@dataclass(frozen=True, slots=True)
class DeclaredSession:
    """A session, or all whose ids begin so, for these partners and for containers here that no job of ours runs."""

    session_id: str
    prefix: bool
    """session_id is the beginning of ids."""
    nodes: tuple[NodeId, ...]
    expires: int | None
    """From then on nobody may use it, ms."""
    created: int

    def key(self) -> str:
        return self.session_id

    def covers(self, session: str) -> bool:
        """Whether it is about this session."""
        return session.startswith(self.session_id) if self.prefix else session == self.session_id

    def ended(self, now: int) -> bool:
        return self.expires is not None and now >= self.expires


@dataclass(frozen=True, slots=True)
class LogConsent:
    """A partner may see the redacted log of this node's tasks in one job."""

    node_id: NodeId
    job_id: JobId
    """"" for every job with the partner."""
    created: int

    def key(self) -> str:
        return f"{self.node_id}/{self.job_id}"


@dataclass(frozen=True, slots=True)
class OwnTls:
    """A TLS certificate of this node that came after the one of node.toml, and the CA that issued it."""

    leaf: str
    """SHA-256 of the certificate's DER, hex."""
    ca: str
    chain_uri: str
    key_uri: str
    ca_uri: str
    ca_key_uri: str
    emergency: bool
    """What was before it is compromised."""
    created: int = 0
    told: int = 0
    """Since when a partner knows its CA; 0: none does, or there was nothing to tell."""
    serving: int = 0
    """Since when our listener shows it; 0: not yet."""

    def key(self) -> str:
        return self.leaf


@dataclass(frozen=True, slots=True)
class ExpiryNotice:
    """The nearest warning that was given of something that ends."""

    subject: str
    """kind/id/end."""
    threshold: int
    """Days before the end."""
    created: int

    def key(self) -> str:
        return self.subject


@dataclass(frozen=True, slots=True)
class RevokedCert:
    """A certificate of this node that does not count any more: goes into our own revocation list."""

    ca: str
    """SHA-256 of the issuing CA's DER, hex."""
    serial: str
    """Hex."""
    created: int

    def key(self) -> str:
        return f"{self.ca}/{self.serial}"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset of this node's own catalogue (b.4); `location` never leaves the node."""

    dataset_id: DatasetId
    name: str
    owner: InstId
    category: str
    description: str
    count: int
    join_columns: str
    label_columns: str
    column_metas: tuple[Json, ...]
    public: bool
    location: str
    created: int

    def key(self) -> str:
        return self.dataset_id


@dataclass(frozen=True, slots=True)
class Audit:
    """One approval of one resource with one partner (b.5, b.6); key is (applicant, audit_id) as A-21 says."""

    applicant: NodeId
    audit_id: AuditId
    kind: AuditKind
    direction: Direction
    peer_node_id: NodeId
    contract_id: ContractId
    status: ApprovalState
    subject: str
    """dataset_id, project_id, flow_id, job_id or model_id."""
    body: Json
    """The apply body as sent."""
    permit: Json | None
    """resource_permit: given by us (IN) or to us (OUT)."""
    created: int
    updated: int

    def key(self) -> str:
        return f"{self.applicant}/{self.audit_id}"


@dataclass(frozen=True, slots=True)
class Grant:
    """What this node, as holder, allows a partner to do with a dataset; made when a dataset audit is approved."""

    token_digest: str
    """SHA-256 of the permit's token, hex: the token itself is not kept."""
    audit_key: str
    dataset_id: DatasetId
    holder: NodeId
    user: NodeId
    scope: Json
    """auth_scope: NODE, PROJECT, COMPONENT -> list of ids; absent key = no restriction of that kind."""
    columns: tuple[str, ...]
    """Columns that may be used; empty = all. Kept locally, the wire has no field for it."""
    time_limit: int | None
    times_limit: int | None
    used: int
    """Jobs that have opened the data."""
    revoked: bool
    created: int
    reserved: int = 0
    """Jobs that have been created and have not opened the data yet; they count against times_limit, too."""
    schema_digest: str = ""
    """Of the dataset's columns, types and id column as they were approved; empty: given before this was kept."""
    components: Json = field(default_factory=dict)
    """What COMPONENT of the scope stood for when it was approved: key of the Component -> digest of its code."""

    def key(self) -> str:
        return self.token_digest


@unique
class UseState(StrEnum):
    """Of one use of a grant (core.uses)."""

    RESERVED = "RESERVED"
    """The job has been created."""
    CONSUMED = "CONSUMED"
    """The job has opened the data."""
    RETURNED = "RETURNED"
    """The job ended without it; counts no more."""


@dataclass(frozen=True, slots=True)
class GrantUse:
    """One use of a grant: one (job, dataset), however often it is retried."""

    grant: str
    job_id: JobId
    created: int
    state: UseState = UseState.RESERVED
    opened: int | None = None
    """When the data were first opened for the job."""

    def key(self) -> str:
        return f"{self.grant}/{self.job_id}"


@dataclass(frozen=True, slots=True)
class Project:
    """A room for cooperation (b.7), ours or one we were asked to join."""

    project_id: ProjectId
    name: str
    type: str
    description: str
    initiator: NodeId
    nodes: tuple[NodeId, ...]
    datasets: Json
    """node id -> list of dataset ids."""
    created: int

    def key(self) -> str:
        return self.project_id


@dataclass(frozen=True, slots=True)
class Component:
    """A registered component: key is (componentName, provider, version) (A-011)."""

    name: str
    provider: str
    version: str
    description: Json
    """The self-description as given, unknown keys kept."""
    image: str
    """imageUrl; `builtin:<module>` for ours, which the process launcher runs."""
    enabled: bool
    created: int
    code_digest: str = ""
    """SHA-256 of the code that the image stands for (service.code), hex; empty: registered before this was kept."""

    def key(self) -> str:
        return f"{self.provider}/{self.name}/{self.version}"


@unique
class Outcome(StrEnum):
    """How a FINISHED job ended; the wire has no word for it (2-control d.1)."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Job:
    """A job as this node sees it (2-control b.1)."""

    job_id: JobId
    flow_id: str
    project_id: str
    name: str
    dag: Json
    config: Json
    status: JobState
    outcome: Outcome
    reason: str
    """In words: why it waits or how it ended."""
    initiator: NodeId
    scheduler: NodeId
    scheduling: bool
    """This node drives the job."""
    trace_id: TraceId
    permits: Json
    """Tokens this node holds for the job: dataset_id -> resource_permit (user side)."""
    created: int
    started: int | None
    finished: int | None
    heard: int
    """When the scheduler (or, at the scheduler, any participant) was last heard of."""
    unsure: bool = False
    """FINISHED here, and the scheduler has not said yet how."""

    def key(self) -> str:
        return self.job_id


@dataclass(frozen=True, slots=True)
class Share:
    """One party's share of one task at this node: (task, role, index) (2-control b.2)."""

    task_id: TaskId
    job_id: JobId
    task_name: TaskName
    role: str
    index: int
    component: str
    """Key of the Component."""
    status: TaskState
    token_digest: str
    """SHA-256 of the task's secret for the platform listener, hex; empty before the start."""
    pid: int | None
    exit_code: int | None
    result_code: str
    message: str
    progress: Json
    created: int
    started: int | None
    finished: int | None

    def key(self) -> str:
        return f"{self.task_id}/{self.role}.{self.index}"


@dataclass(frozen=True, slots=True)
class TaskView:
    """The scheduler's view of one node's part of a task in one role (B-11: one poll per node and role)."""

    task_id: TaskId
    job_id: JobId
    task_name: TaskName
    node_id: NodeId
    role: str
    status: TaskState
    misses: int
    """Consecutive polls without an answer."""
    updated: int
    stopped: bool = False
    """Ended by a stop with task_name: its failure does not end the job (B-43)."""
    code: str = ""
    """Result code that the node gave for a FAILED part."""

    def key(self) -> str:
        return f"{self.task_id}/{self.node_id}/{self.role}"


@unique
class CallState(StrEnum):
    """Of an outgoing call in the outbox."""

    DUE = "DUE"
    DONE = "DONE"
    DEAD = "DEAD"
    PARKED = "PARKED"
    """Answered, but what follows from the answer fails here; it waits for the admin."""


@dataclass(frozen=True, slots=True)
class OutCall:
    """A call to a partner, written in the same transaction as the state that makes it due."""

    call_id: str
    contract_id: ContractId
    peer_node_id: NodeId
    route: str
    """Name in specs.routes."""
    body: Json
    subject: str
    """What it is about, e.g. `audit:<key>`, for the operator's eyes and for cancelling."""
    trace_id: TraceId
    state: CallState
    attempts: int
    due: int
    error: str
    created: int

    def key(self) -> str:
        return self.call_id


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """One line of the audit trail; made by core.trail alone, never changed, never deleted."""

    seq: int
    """1, 2, 3 ... without a gap."""
    at: int
    event: str
    """What happened: dotted words, e.g. contract.approved."""
    actor: str
    """What kind of somebody did it: admin, partner, platform, node (this gateway by itself), claimed (not proven)."""
    who: str
    """Which: id of the admin's token, node id."""
    subject: str
    """To what: kind and id, e.g. contract:ct-..."""
    trace_id: str
    facts: Json
    """Texts, whole numbers, booleans and lists or objects of these."""
    prev: str
    """Hash of the entry before, 64 zeros for the first."""
    hash: str
    """SHA-256 hex over `prev` and everything above."""

    def key(self) -> str:
        return f"{self.seq:016d}"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may use the admin API; the name is never given to anybody else, not even after `closed`."""

    name: str
    role: Role
    password: str = field(repr=False)
    """Argon2id in PHC form; empty: no password, tokens only."""
    closed: bool
    created: int
    updated: int

    def key(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token of a user for the admin API. The token itself is random and not kept."""

    digest: str = field(repr=False)
    """SHA-256 of the token, hex."""
    token_id: str
    """By which lists and the audit trail name it."""
    user: str
    session: bool
    """Made by a password, for a short time."""
    label: str
    expires: int
    created: int

    def key(self) -> str:
        return self.digest


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decided on a partner's application. Kept from the first word on; under four eyes it is final with the second.

    kind: contract, or the kind of an audit. subject: key of the contract or audit.
    """

    kind: str
    subject: str
    approve: bool
    by: str
    second: str
    """Who agreed to what `by` had approved; empty where one was enough or nobody has yet."""
    terms: Json
    """What the approval restricts or adds, as it was asked for."""
    final: bool
    created: int
    updated: int

    def key(self) -> str:
        return f"{self.kind}:{self.subject}"


@dataclass(frozen=True, slots=True)
class Notice:
    """Word of something that waits for a decision here, to be sent to the webhook; gone once it was taken or decided.

    state: DUE, or DEAD once it was given up. error: why it was not taken last, in our words.
    """

    notice_id: str
    kind: str
    subject: str
    peer_node_id: NodeId
    peer_name: str
    second: bool
    """One admin has agreed already."""
    attempts: int
    due: int
    created: int
    state: CallState = CallState.DUE
    error: str = ""

    def key(self) -> str:
        return self.notice_id


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receipt of a job that has ended, as it was offered to the partners, with the signatures known here."""

    job_id: JobId
    receipt: Json
    """The statement (core.receipt)."""
    signatures: tuple[Json, ...]
    problem: str
    """Why a partner's signature is missing, as far as that is known."""
    created: int
    updated: int

    def key(self) -> str:
        return self.job_id


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """Where an HTTP proxy on the way out is."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Of http://host[:port]. Raises ProtocolViolation."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as e:
            raise ProtocolViolation("proxy is not a URL") from e
        if parts.username is not None or parts.password is not None:
            raise ProtocolViolation("proxy must hold no user or password: they stand in a file of their own")
        if (
            (parts.scheme != "http" or not parts.hostname or port == 0)
            or (parts.path not in ("", "/") or parts.query or parts.fragment)
            or any(not "!" <= each <= "~" for each in url)
        ):
            raise ProtocolViolation("proxy must be http://host[:port]")
        return cls(parts.hostname, port or 80)


@dataclass(frozen=True, slots=True)
class PartnerWay:
    """How a partner is reached, where that is not simply at its address; also before there is a contract with it."""

    node_id: NodeId
    proxy: str
    """http://host:port of an HTTP proxy; DIRECT: none; "": the one of node.toml, if any."""
    relay: str
    """Node id of the partner through which it is reached, or ""."""
    hold: bool
    """It cannot reach us: connections to it are kept open, over which it calls us."""
    held: bool
    """It cannot be reached: it keeps connections to us open, and only these are used."""
    created: int
    updated: int

    def key(self) -> str:
        return self.node_id


DIRECT: Final = "none"
"""PartnerWay.proxy of a partner that is reached without the proxy of node.toml."""


@dataclass(frozen=True, slots=True)
class RelayPair:
    """Two partners between whom this node passes bytes on. first < second."""

    first: NodeId
    second: NodeId
    bytes_per_s: int
    """Both directions together; 0: as fast as it goes."""
    created: int

    def key(self) -> str:
        return f"{self.first} {self.second}"


@dataclass(frozen=True, slots=True)
class Party:
    """One entry of config.role: `role.index` at a node. Not a `party` object of an operator."""

    role: str
    index: int
    node_id: NodeId

    @property
    def name(self) -> str:
        return f"{self.role}.{self.index}"


@dataclass(frozen=True, slots=True)
class Permit:
    """One tuple of x-mprac-token-set: URN / level / token (M-017)."""

    urn: str
    level: int
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SeenNonce:
    """A nonce as it is remembered. digest: 16 bytes of signer and nonce; signer: 8 bytes of its digest; until: ms."""

    digest: bytes
    signer: bytes
    until: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound on what comes from outside. Bytes, seconds and counts as named."""

    body_bytes: int = 4 << 20
    """Management and control bodies."""
    channel_body_bytes: int = (1 << 30) + (1 << 16)
    """A payload of 1 GiB with what stands around it."""
    channel_json_bytes: int = 128 << 20
    channel_grpc_bytes: int = 128 << 20
    """Of a body that comes by gRPC, whose library holds it in memory as a whole."""
    json_depth: int = 32
    json_members: int = 200_000
    header_bytes: int = 32 << 10
    connections: int = 4096
    """Of one listener at a time; fewer where the process may not open so many files."""
    address_connections: int = 1024
    """Of them, of one source address at the edge."""
    partner_connections: int = 256
    """Of them, over which one partner may call the channel."""
    partner_messages_per_s: int = 0
    """Messages of one partner that the channel takes; 0: as many as come."""
    partner_bytes_per_s: int = 0
    """Payload bytes of them; 0: as many as come."""
    id_chars: int = 128
    text_chars: int = 4096
    clock_window_ms: int = 300_000
    nonces: int = 2_000_000
    """Some 100 bytes each; a quarter of them carries 1,600 signed requests a second of one partner."""
    page_size: int = 1000
    list_records: int = 5000
    """Of a list that is asked for as a whole (page_size=-1) and made as a whole."""
    streamed_records: int = 200_000
    """Of the list of datasets asked for as a whole, which is streamed."""
    permits_per_request: int = 64
    dag_components: int = 256
    dag_edges: int = 4096
    parties: int = 64
    request_s: float = 10.0
    """One attempt of a management or control call."""
    request_attempts: int = 3
    session_bytes: int = 256 << 20
    process_bytes: int = 1 << 30
    partner_bytes: int = 512 << 20
    """Of messages that one partner sent and nobody has read, in memory."""
    spool_bytes: int = 8 << 30
    """Of messages on disk: those that memory has no room for, and those of sessions kept on disk."""
    spool_session_bytes: int = 4 << 30
    session_topics: int = 4096
    session_idle_s: float = 600.0
    pop_default_ms: int = 120_000
    pop_max_ms: int = 300_000
    unsigned_per_minute: int = 120
    """Node query, contract apply and confirm together, per source address."""
    open_contracts: int = 1000
    """Contracts that wait for an admin (APPLIED, IN)."""
    open_audits: int = 1000
    """Audits of one partner that wait for an admin (APPLIED, IN)."""
    audits_per_kind: int = 10_000
    """Applications of one partner for one kind (dataset, project, flow, job, model), decided ones included."""
    ended_contracts: int = 1000
    """Contracts that strangers applied for and that came to nothing; the oldest is forgotten for a new one."""
    open_jobs: int = 100
    """Jobs of one partner that this node schedules for it and that have not ended."""
    edge_addresses: int = 10_000
    """Source addresses whose unsigned calls are counted at a time."""
