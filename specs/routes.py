"""Every endpoint of parts 1, 2 and 4 (and the container's of part 3) with the digest's number, verb and path."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final


@unique
class Side(Enum):
    """Who may call: a partner at the edge, or our own side at the platform listener."""

    EDGE = "edge"
    PLATFORM = "platform"


@unique
class Auth(Enum):
    """What a caller must prove.

    SIGNED: x-auth-sign of an approved partner. APPLICANT: x-auth-sign, also from one whose contract is only APPLIED.
    CARRIED: not needed; where present, verified with the key that the body carries (contract apply and confirm).
    OPEN: nothing. LOCAL: platform listener.
    """

    SIGNED = "signed"
    APPLICANT = "applicant"
    CARRIED = "carried"
    OPEN = "open"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. `clause` is `<part>:<number in the standard>`."""

    clause: str
    method: str
    path: str
    auth: Auth
    side: Side = Side.EDGE


_M = "/v1/interconn"
_S = "/v1/interconn/schedule"
_P = "/v1/platform/schedule"
_C = "/v1/interconn/chan"

MANAGEMENT: Final[Mapping[str, Route]] = {
    "node.contract.apply": Route("1:3.1", "POST", f"{_M}/node/contract/apply", Auth.CARRIED),
    "node.contract.confirm": Route("1:3.2", "POST", f"{_M}/node/contract/confirm", Auth.CARRIED),
    "node.contract.terminate": Route("1:3.3", "POST", f"{_M}/node/contract/terminate", Auth.APPLICANT),
    "node.update": Route("1:3.4", "POST", f"{_M}/node/update", Auth.SIGNED),
    "node.contract.query": Route("1:3.5", "GET", f"{_M}/node/contract/query", Auth.APPLICANT),
    "node.query": Route("1:3.6", "GET", f"{_M}/node/query", Auth.OPEN),
    "node.health": Route("1:3.7", "GET", f"{_M}/node/health", Auth.OPEN),
    "dataset.pub.list": Route("1:4.1", "GET", f"{_M}/dataset/pub/list", Auth.SIGNED),
    "dataset.pub.query": Route("1:4.2", "GET", f"{_M}/dataset/pub/query", Auth.SIGNED),
    "project.list": Route("1:5.5", "GET", f"{_M}/project/list", Auth.SIGNED),
    "project.query": Route("1:5.6", "GET", f"{_M}/project/query", Auth.SIGNED),
    "component.list": Route("1:6.1", "GET", f"{_M}/component/list", Auth.SIGNED),
    "component.query": Route("1:6.2", "GET", f"{_M}/component/query", Auth.SIGNED),
    **{
        f"{kind}.audit.{verb}": Route(f"1:{chapter}.{number}", method, f"{_M}/{kind}/audit/{verb}", Auth.SIGNED)
        for kind, chapter, first in (
            ("dataset", 4, 3),
            ("project", 5, 1),
            ("flow", 7, 1),
            ("job", 8, 1),
            ("model", 9, 1),
        )
        for number, (verb, method) in enumerate(
            (("apply", "POST"), ("confirm", "POST"), ("terminate", "POST"), ("query", "GET")), first
        )
        if (kind, verb) != ("job", "query")  # there is none (M-067)
    },
}

CONTROL: Final[Mapping[str, Route]] = {
    "job.create_all": Route("2:3.1", "POST", f"{_S}/job/create_all", Auth.SIGNED),
    "job.create": Route("2:3.2", "POST", f"{_S}/job/create", Auth.SIGNED),
    "job.start": Route("2:3.3", "POST", f"{_S}/job/start", Auth.SIGNED),
    "task.start": Route("2:3.4", "POST", f"{_S}/task/start", Auth.SIGNED),
    "job.stop_all": Route("2:3.5", "POST", f"{_S}/job/stop_all", Auth.SIGNED),
    "job.stop": Route("2:3.6", "POST", f"{_S}/job/stop", Auth.SIGNED),
    "job.status_all": Route("2:3.7", "POST", f"{_S}/job/status_all", Auth.SIGNED),
    "task.poll": Route("2:3.8", "POST", f"{_S}/task/poll", Auth.SIGNED),
    "task.callback": Route("2:3.9", "POST", f"{_S}/task/callback", Auth.SIGNED),
}

PLATFORM: Final[Mapping[str, Route]] = {
    "platform.task.callback": Route("2:4.1", "POST", f"{_P}/task/callback", Auth.LOCAL, Side.PLATFORM),
    "platform.job.create_all": Route("2:5.1", "POST", f"{_P}/job/create_all", Auth.LOCAL, Side.PLATFORM),
    "platform.job.stop_all": Route("2:5.2", "POST", f"{_P}/job/stop_all", Auth.LOCAL, Side.PLATFORM),
    "platform.job.status_all": Route("2:5.3", "GET", f"{_P}/job/status_all", Auth.LOCAL, Side.PLATFORM),
    "platform.task.get_log_line": Route("2:5.4", "GET", f"{_P}/task/get_log_line", Auth.LOCAL, Side.PLATFORM),
    "platform.task.get_log": Route("2:5.5", "GET", f"{_P}/task/get_log", Auth.LOCAL, Side.PLATFORM),
    "platform.job.query_job_list": Route("2:5.6", "GET", f"{_P}/job/query_job_list", Auth.LOCAL, Side.PLATFORM),
    "platform.job.stop_task": Route("2:5.7", "POST", f"{_P}/job/stop_task", Auth.LOCAL, Side.PLATFORM),
    "platform.component.register": Route("2:5.8", "POST", f"{_P}/component/register", Auth.LOCAL, Side.PLATFORM),
}

CHANNEL: Final[Mapping[str, Route]] = {
    "chan.push": Route("4:4.1", "POST", f"{_C}/push", Auth.LOCAL, Side.PLATFORM),
    "chan.pop": Route("4:4.2", "POST", f"{_C}/pop", Auth.LOCAL, Side.PLATFORM),
    "chan.peek": Route("4:4.3", "POST", f"{_C}/peek", Auth.LOCAL, Side.PLATFORM),
    "chan.release": Route("4:4.4", "POST", f"{_C}/release", Auth.LOCAL, Side.PLATFORM),
    "chan.invoke": Route("4:5", "POST", f"{_C}/invoke", Auth.OPEN),  # authenticated by mTLS in the data plane
    "chan.transport": Route("4:5", "POST", f"{_C}/transport", Auth.OPEN),
}

LEGACY: Final[Mapping[str, Route]] = {
    "job.audit_confirm": Route("2:v1.0", "POST", f"{_S}/job/audit_confirm", Auth.SIGNED),  # v1.0.0 only (B-30)
    "job.status_all": Route("2:3.7", "GET", f"{_S}/job/status_all", Auth.SIGNED),  # before v1.2.0 (B-08, C-065)
}
"""Of older versions of the standard, served beside the present ones."""


OWN: Final[Mapping[str, Route]] = {
    "interconn.job.receipt": Route("interconn:1", "POST", "/v1/interconn-ext/job/receipt", Auth.SIGNED),
    "interconn.job.log": Route("interconn:2", "POST", "/v1/interconn-ext/job/log", Auth.SIGNED),
}
"""Not of the standard: only for partners that have announced it, see EXTENSIONS."""
OWN_PIPES: Final[Mapping[str, str]] = {
    "park": "/v1/interconn-ext/park",
    "relay": "/v1/interconn-ext/relay",
}
"""Paths at the edge under which a connection becomes a pipe (docs/transport.md, Networks); the data plane's alone."""
EXTENSIONS: Final = "x-interconn-extensions"
"""Member of the data of our answer to job/stop: names of what OWN is good for."""
JOB_RECEIPT: Final = "job-receipt/1"
JOB_LOG: Final = "job-log/1"

ROUTES: Final[Mapping[str, Route]] = {**LEGACY, **MANAGEMENT, **CONTROL, **PLATFORM, **CHANNEL, **OWN}
BY_PATH: Final[Mapping[tuple[str, str], str]] = {
    (route.method, route.path): name for table in (ROUTES, LEGACY) for name, route in table.items()
}
