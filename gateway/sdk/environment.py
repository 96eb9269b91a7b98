"""The environment variables of a component (part 3 section 5): dotted names in, one frozen record out.

Says nothing about what parameters mean: that is `specs.description`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from gateway.operators.party import PartyName
from gateway.sdk.result import Code, ComponentError

MAX_VARIABLE_CHARS: Final = 128 * 1024
DEFAULT_CONTROL_PORT: Final = 10086
PARAMETER: Final = "runtime.component.parameter."
INPUT: Final = "runtime.component.input."
OUTPUT: Final = "runtime.component.output."
NODE_ID: Final = "config.node_id."
INST_ID: Final = "config.inst_id."
MAX_THREADS: Final = 64
"""As many as a kernel takes; accel.kernels has the same, but loads NumPy."""
OSX_HTTP: Final = "osx-http"

_PARTY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\.(?:0|[1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True)
class Artifact:
    """Where a table, model or report lies in the storage; both names are opaque (A-amb 10)."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Address:
    """A party as the transport module knows it."""

    node_id: str
    inst_id: str


@dataclass(frozen=True, slots=True)
class Environment:
    """Everything a component is told.

    party: own `<role>.<index>`; roles: all of them where one process serves several. parties: every party of the task,
    own included. callback: None where reporting is left to the exit code. transport: host:port, with or without scheme.
    channel: a Unix socket that does what `transport` does, only faster; "" where a gateway has none. threads: to
    compute with, 1 where a scheduler does not say. dialect: what is spoken with `transport`, "" for the standard.
    """

    component: str
    task_id: str
    session_id: str
    trace_id: str
    token: str = field(repr=False)
    party: PartyName
    roles: tuple[PartyName, ...]
    parties: Mapping[PartyName, Address]
    storage: str = field(repr=False)
    transport: str
    channel: str
    threads: int
    dialect: str
    callback: str | None
    control_port: int
    log_path: str
    parameters: Mapping[str, str]
    inputs: Mapping[str, Artifact]
    outputs: Mapping[str, Artifact]

    @property
    def role(self) -> str:
        return self.party.partition(".")[0]

    @property
    def peers(self) -> tuple[PartyName, ...]:
        """The other parties, in the order of their names."""
        return tuple(sorted(party for party in self.parties if party not in self.roles))


def read_environment(variables: Mapping[str, str]) -> Environment:
    """Record of the variables `system.*`, `config.*` and `runtime.*`; every other name is ignored.

    variables: `os.environ` or its like. Raises ComponentError(BAD_INPUT) naming the variable, never its value.
    """
    for name, value in variables.items():
        if name.startswith(("system.", "config.", "runtime.")) and len(value) > MAX_VARIABLE_CHARS:
            raise _bad(name, "too long")
    roles = tuple(_party("config.self_role", part) for part in _required(variables, "config.self_role").split(","))
    nodes = _by_party(variables, NODE_ID)
    insts = _by_party(variables, INST_ID)
    for role in roles:
        if role not in nodes:
            raise _bad(f"{NODE_ID}{role}", "missing")
    return Environment(
        component=_required(variables, "runtime.component.name"),
        task_id=_required(variables, "config.task_id"),
        session_id=_required(variables, "config.session_id"),
        trace_id=variables.get("config.trace_id", ""),
        token=variables.get("config.token", ""),
        party=roles[0],
        roles=roles,
        parties=MappingProxyType({party: Address(node, insts.get(party, "")) for party, node in nodes.items()}),
        storage=_required(variables, "system.storage"),
        transport=_required(variables, "system.transport"),
        channel=variables.get("interconn.channel", ""),
        threads=_threads(variables.get("interconn.threads", "").strip()),
        dialect=_dialect(variables.get("interconn.dialect", "").strip()),
        callback=variables.get("system.callback") or None,
        control_port=_port(variables),
        log_path=variables.get("config.log.path", ""),
        parameters=MappingProxyType(_suffixes(variables, PARAMETER)),
        inputs=MappingProxyType({k: _artifact(INPUT + k, v) for k, v in _suffixes(variables, INPUT).items()}),
        outputs=MappingProxyType({k: _artifact(OUTPUT + k, v) for k, v in _suffixes(variables, OUTPUT).items()}),
    )


def _dialect(text: str) -> str:
    if text not in {"", OSX_HTTP}:
        raise _bad("interconn.dialect", f"{OSX_HTTP}, or nothing for the standard")
    return text


def _threads(text: str) -> int:
    if not text:
        return 1
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and 1 <= int(text) <= MAX_THREADS):
        raise _bad("interconn.threads", f"must be 1 to {MAX_THREADS}")
    return int(text)


def _bad(name: str, problem: str) -> ComponentError:
    return ComponentError(Code.BAD_INPUT, f"environment variable {name[:160]}: {problem}")


def _required(variables: Mapping[str, str], name: str) -> str:
    value = variables.get(name, "").strip()
    if not value:
        raise _bad(name, "missing")
    return value


def _suffixes(variables: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in variables.items() if name.startswith(prefix)}


def _party(name: str, text: str) -> PartyName:
    if not _PARTY.fullmatch(text.strip()):
        raise _bad(name, "must be <role>.<index>")
    return PartyName(text.strip())


def _by_party(variables: Mapping[str, str], prefix: str) -> dict[PartyName, str]:
    found = {}
    for suffix, value in _suffixes(variables, prefix).items():
        # The value becomes a header of every message.
        if not value.isascii() or not value.isprintable() or len(value) > 256:
            raise _bad(prefix + suffix, "must be at most 256 printable ASCII characters")
        found[_party(prefix + suffix, suffix)] = value
    return found


def _port(variables: Mapping[str, str]) -> int:
    text = variables.get("system.control_port", "").strip() or str(DEFAULT_CONTROL_PORT)
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise _bad("system.control_port", "must be a port number")
    return int(text)


def _artifact(name: str, text: str) -> Artifact:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _bad(name, "must be a JSON object with namespace and name")
    for key in ("namespace", "name"):
        if not isinstance(value.get(key), str) or not value[key]:
            raise _bad(name, f"{key} is missing or not a text")
    return Artifact(value["namespace"], value["name"])
