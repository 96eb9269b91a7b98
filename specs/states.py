"""Legal state words per entity (1-management d, e; 2-control d, e)."""

from enum import StrEnum, unique


@unique
class ApprovalState(StrEnum):
    """Contract and every audit (e.1)."""

    APPLIED = "APPLIED"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    TERMINATED = "TERMINATED"


@unique
class AuditKind(StrEnum):
    """What an audit is about: implied by the path of its endpoints (b.5)."""

    DATASET = "dataset"
    PROJECT = "project"
    FLOW = "flow"
    JOB = "job"
    MODEL = "model"


@unique
class JobState(StrEnum):
    """2-control d.1. FINISHED and REJECTED are final; there is no FAILED job."""

    PENDING = "PENDING"
    READY = "READY"
    REJECTED = "REJECTED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"


@unique
class TaskState(StrEnum):
    """2-control d.2. SUCCESS and FAILED are final."""

    PENDING = "PENDING"
    READY = "READY"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


@unique
class AuthType(StrEnum):
    """1-management e.2; an open list, these are what we verify."""

    SHA256_RSA = "SHA256_RSA"
    SHA256_ECDSA = "SHA256_ECDSA"
    ED25519 = "ED25519"  # ours: RFC 8032
    CERT = "CERT"


@unique
class AuthScope(StrEnum):
    """Keys of auth_scope (e.4)."""

    NODE = "NODE"
    PROJECT = "PROJECT"
    COMPONENT = "COMPONENT"


@unique
class ProjectType(StrEnum):
    """e.3"""

    HETERO_FL = "HETERO_FL"
    MPC = "MPC"
    HOMO_FL = "HOMO_FL"
    PSI = "PSI"
    ANONYM_FL = "ANONYM_FL"


@unique
class Distribution(StrEnum):
    """Of a column (e.5)."""

    DISCRETE = "DISCRETE"
    CONTINUOUS = "CONTINUOUS"


@unique
class SyncType(StrEnum):
    """How the scheduler learns of task states (2-control e)."""

    POLL = "poll"
    CALLBACK = "callback"


@unique
class LogLevel(StrEnum):
    """2-control e."""

    INFO = "info"
    DEBUG = "debug"
    ERROR = "error"


ROLES = ("guest", "host", "arbiter")
