"""Lab: N real gateways on loopback, each its own process, folder, database, ports and CA.

`DIR/lab.json` tells anyone where the nodes are; `DIR/lab-state.json` is this module's own memory (process start times,
the private folder of the Unix sockets). A lab that was stopped keeps its folders and starts again as it was.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import ssl
import stat
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway import config as node_config
from gateway.admin_client import AdminClient
from gateway.errors import Kind, Refused, Unavailable
from gateway.lab.node import CA, CONFIG, TOKEN, NodeSettings, Scalar, create_folder, render
from gateway.lab.ports import PortClaims
from gateway.lab.processes import STOP_S, Process, alive, spawn, stop
from gateway.model import InstId, NodeId
from gateway.runtime.shim import end_left
from specs.states import ApprovalState, AuthType

NAMES: Final = ("bank", "payment", "telecom")
MOST_PARTIES: Final = 16
READY_S: Final = 60.0
AGREE_S: Final = 30.0
ATTEMPTS: Final = 5
SOCKET_PATH_BYTES: Final = 100
"""Of 107 that the kernel allows (unix(7)); a little is left for what a gateway puts behind a name."""
SERVE: Final = (sys.executable, "-m", "gateway", "serve", "--config")
_LAB, _STATE, _LOCK, _OUTPUT = "lab.json", node_config.LAB_STATE, "lab.lock", "log/serve.out"
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class LabNode:
    """One gateway of a lab, as lab.json describes it. `pid` is None while the lab is stopped."""

    node_id: NodeId
    inst_id: InstId
    name: str
    pid: int | None
    edge_url: str
    platform_url: str
    admin_url: str
    ca_file: Path
    admin_token_file: Path

    def client(self, *, timeout_s: float = 60.0) -> AdminClient:
        """Raises Refused(NOT_FOUND) where the token file is gone."""
        try:
            token = self.admin_token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Refused(f"cannot read {self.admin_token_file}: {error.strerror}", kind=Kind.NOT_FOUND) from error
        return AdminClient(self.admin_url, token, timeout_s=timeout_s)

    def fingerprint(self) -> str:
        """SHA-256 of the CA certificate's DER, lower-case hex."""
        pem = self.ca_file.read_text(encoding="ascii")
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {
            "node_id": self.node_id,
            "inst_id": self.inst_id,
            "name": self.name,
            "pid": self.pid,
            "edge_url": self.edge_url,
            "platform_url": self.platform_url,
            "grpc_edge": None,
            "grpc_platform": None,
            "admin_url": self.admin_url,
            "ca_file": str(self.ca_file),
            "admin_token_file": str(self.admin_token_file),
        }


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab and its nodes in the order of their names."""

    directory: Path
    nodes: tuple[LabNode, ...]

    def node(self, name: str) -> LabNode:
        """By name or node_id; raises Refused(NOT_FOUND) naming those that exist."""
        for node in self.nodes:
            if name in {node.name, node.node_id}:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise Refused(f"no node {name!r} in {self.directory}: it has {known}", kind=Kind.NOT_FOUND)


@dataclass(slots=True)
class _State:
    """lab-state.json."""

    names: list[str]
    profile: str
    run_root: str | None
    """Private folder of the Unix sockets where DIR is too deep for them."""
    served: bool = False
    """All nodes have served once: from then on their addresses are known to others and ports stay."""
    processes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """name -> pid, start time."""

    def running(self, directory: Path) -> dict[str, Process]:
        return {
            name: Process(pid, started, directory / name / CONFIG) for name, (pid, started) in self.processes.items()
        }


def read(directory: Path) -> Lab:
    """The lab that lab.json describes, running or not; raises Refused(NOT_FOUND) or (MALFORMED)."""
    directory = directory.resolve()
    try:
        nodes = json.loads((directory / _LAB).read_text(encoding="utf-8"))["nodes"]
        return Lab(
            directory,
            tuple(
                LabNode(
                    node_id=node["node_id"],
                    inst_id=node["inst_id"],
                    name=node["name"],
                    pid=node["pid"],
                    edge_url=node["edge_url"],
                    platform_url=node["platform_url"],
                    admin_url=node["admin_url"],
                    ca_file=Path(node["ca_file"]),
                    admin_token_file=Path(node["admin_token_file"]),
                )
                for node in nodes
            ),
        )
    except OSError as error:
        raise Refused(f"no lab in {directory}: {_LAB}: {error.strerror}", kind=Kind.NOT_FOUND) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{directory / _LAB} cannot be read", kind=Kind.MALFORMED) from error


def up(
    directory: Path,
    *,
    parties: int | None = None,
    profile: str | None = None,
    approved: bool = False,
    jobs: Mapping[str, Scalar] | None = None,
    auth_types: Mapping[str, AuthType] | None = None,
    command: Sequence[str] = SERVE,
) -> Lab:
    """Start the lab of `directory`, making it first where there is none (2 parties unless told), and wait for it.

    jobs: overrides of [jobs] in a new lab's node.toml. auth_types: name -> how a node signs (CERT). command:
    what serves a node; its node.toml is appended.
    Returns when every node answers at its admin and edge listeners and, with `approved`, all partnerships are signed.
    When it cannot, nothing of the lab is left running. Raises Refused where the lab runs already or differs from what
    is asked, Unavailable where a gateway does not start.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory), PortClaims() as ports:
        state = _load(directory)
        if state is None:
            state = _create(
                directory, parties or 2, profile or "strict-1.2", jobs or {}, ports, auth_types=auth_types or {}
            )
        else:
            _same(state, directory, parties, profile)
        _run_root(state)
        try:
            _start_all(state, directory, command, ports)
            lab = _describe(state, directory)
            for node in lab.nodes:
                _wait_answers(node)
            if approved:
                approve(lab)
            state.served = True
            _save(state, directory)
            _write_json(directory / _LAB, {"nodes": [node.to_json() for node in lab.nodes]})
        except BaseException:
            _stop(state, directory)
            raise
    return lab


def down(directory: Path) -> list[str]:
    """Stop the lab's gateways; the names of those that had to be killed. Repeating it changes nothing."""
    directory = directory.resolve()
    if not (directory / _STATE).exists():
        raise Refused(f"no lab in {directory}", kind=Kind.NOT_FOUND)
    with _locked(directory):
        state = _load(directory)
        return _stop(state, directory) if state else []


def running(directory: Path) -> frozenset[str]:
    """Names of the nodes whose process lives."""
    directory = directory.resolve()
    state = _load(directory)
    return (
        frozenset(name for name, process in state.running(directory).items() if alive(process))
        if state
        else frozenset()
    )


def approve(lab: Lab) -> None:
    """Sign a partnership between every two nodes, comparing what is presented with each node's ca_file."""
    for number, one in enumerate(lab.nodes):
        for other in lab.nodes[number + 1 :]:
            sign(one, other)


def sign(applicant: LabNode, receiver: LabNode) -> str:
    """Probe, compare, apply, compare, approve, and wait until both sides hold it; the contract_id.

    Nothing is done where the two have an approved contract. Raises Refused(UNAUTHENTICATED) where a fingerprint is not
    that of the node's ca_file, Unavailable where the confirmation does not arrive.
    """
    ours, theirs = applicant.client(), receiver.client()
    if known := _contract(ours, receiver.node_id, ApprovalState.APPROVED):
        return str(known["contract_id"])
    seen = ours.post("partners", "probe", address=receiver.edge_url, node_id=receiver.node_id)
    _compare(receiver, seen["fingerprint"])
    ours.post("partners", "apply", address=receiver.edge_url, node_id=receiver.node_id, fingerprint=seen["fingerprint"])
    waiting = _await_contract(theirs, applicant.node_id, ApprovalState.APPLIED, receiver)
    _compare(applicant, waiting["fingerprint"])
    theirs.post("partners", waiting["contract_id"], "approve", fingerprint=waiting["fingerprint"])
    return str(_await_contract(ours, receiver.node_id, ApprovalState.APPROVED, applicant)["contract_id"])


def _compare(node: LabNode, fingerprint: str) -> None:
    if fingerprint != node.fingerprint():
        raise Refused(f"{node.name} presents {fingerprint}, not its CA", kind=Kind.UNAUTHENTICATED)


def _contract(client: AdminClient, peer: NodeId, status: ApprovalState) -> Mapping[str, Any] | None:
    for contract in client.get("partners"):
        if contract["peer_node_id"] == peer and contract["status"] == status:
            found: Mapping[str, Any] = contract
            return found
    return None


def _await_contract(client: AdminClient, peer: NodeId, status: ApprovalState, at: LabNode) -> Mapping[str, Any]:
    deadline = time.monotonic() + AGREE_S
    while time.monotonic() < deadline:
        if contract := _contract(client, peer, status):
            return contract
        time.sleep(_POLL_S)
    raise Unavailable(f"the contract with {peer} does not become {status} at {at.name} within {AGREE_S:.0f} s")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another lab command works in {directory}", kind=Kind.CONFLICT) from None
        yield


def _load(directory: Path) -> _State | None:
    try:
        known = json.loads((directory / _STATE).read_text(encoding="utf-8"))
        return _State(
            names=known["names"],
            profile=known["profile"],
            run_root=known["run_root"],
            served=known["served"],
            processes={name: (int(pid), int(started)) for name, (pid, started) in known["processes"].items()},
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{directory / _STATE} cannot be read", kind=Kind.MALFORMED) from error


def _save(state: _State, directory: Path) -> None:
    _write_json(
        directory / _STATE,
        {
            "names": state.names,
            "profile": state.profile,
            "run_root": state.run_root,
            "served": state.served,
            "processes": state.processes,
        },
    )


def _write_json(file: Path, value: object) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def name_of(number: int) -> str:
    """bank, payment, telecom, party4, party5 ... for number 0, 1, 2 ..."""
    return NAMES[number] if number < len(NAMES) else f"party{number + 1}"


def _create(
    directory: Path,
    parties: int,
    profile: str,
    jobs: Mapping[str, Scalar],
    ports: PortClaims,
    *,
    auth_types: Mapping[str, AuthType],
) -> _State:
    if not 2 <= parties <= MOST_PARTIES:
        raise Refused(f"a lab has 2 to {MOST_PARTIES} parties, not {parties}", kind=Kind.MALFORMED)
    names = [name_of(number) for number in range(parties)]
    for name in names:
        if (directory / name).exists():
            raise Refused(f"{directory / name} exists but is not of a lab", kind=Kind.CONFLICT)
    longest = max(names, key=len)
    deep = len(os.fsencode(directory / longest / "run" / "control.sock")) > SOCKET_PATH_BYTES
    state = _State(names, profile, tempfile.mkdtemp(prefix="interconn-", dir=_short_temp()) if deep else None)
    for number, name in enumerate(names):
        edge = ports.take()
        settings = NodeSettings(
            node_id=NodeId(f"LX0000020000{number + 1:02d}1"),
            inst_id=InstId(f"JG02{number + 1:06d}00000000"),
            name=name,
            institution=f"Example {name.capitalize()}",
            description=f"{name} of a lab on loopback",
            address=f"https://127.0.0.1:{edge}",
            edge_host="127.0.0.1",
            edge_port=edge,
            platform_port=ports.take(),
            admin_port=ports.take(),
            run=f"{state.run_root}/{name}" if state.run_root else "run",
            profile=profile,
            auth_type=auth_types.get(name, AuthType.CERT),
            jobs=jobs,
        )
        create_folder(directory / name, settings)
    _save(state, directory)
    return state


def _short_temp() -> str:
    temporary = tempfile.gettempdir()
    return temporary if len(temporary) < SOCKET_PATH_BYTES // 2 else "/tmp"  # noqa: S108  # mkdtemp makes it private


def _same(state: _State, directory: Path, parties: int | None, profile: str | None) -> None:
    for name, process in state.running(directory).items():
        if alive(process):
            raise Refused(
                f"the lab in {directory} is running ({name} is process {process.pid}); "
                f"`interconn lab down --dir {directory}` stops it",
                kind=Kind.CONFLICT,
            )
    if parties not in {None, len(state.names)}:
        raise Refused(f"the lab in {directory} has {len(state.names)} parties", kind=Kind.CONFLICT)
    if profile not in {None, state.profile}:
        raise Refused(f"the lab in {directory} has profile {state.profile}", kind=Kind.CONFLICT)


def _run_root(state: _State) -> None:
    """Make the private folder of the sockets again where `down` has removed it."""
    if state.run_root is None:
        return
    root = Path(state.run_root)
    root.mkdir(mode=0o700, exist_ok=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise Refused(f"{root} is not a private folder of ours", kind=Kind.CONFLICT)


def _start_all(state: _State, directory: Path, command: Sequence[str], ports: PortClaims) -> None:
    waiting = list(state.names)
    for attempt in range(1, ATTEMPTS + 1):
        for name in waiting:
            _start(state, directory, name, command)
        failed = [name for name in waiting if not _wait_ready(state, directory, name)]
        if not failed:
            return
        for name in failed:
            words = _output(directory, name)
            if "address already in use" not in words.lower() or state.served or attempt == ATTEMPTS:
                raise Unavailable(f"the gateway of {name} does not start:\n{words}")
            _move(directory, name, ports)
        waiting = failed


def _start(state: _State, directory: Path, name: str, command: Sequence[str]) -> None:
    folder = directory / name
    config = node_config.load(folder / CONFIG)
    run = config.path(config.paths.run)
    run.mkdir(mode=0o700, exist_ok=True)
    (run / "ready.json").unlink(missing_ok=True)
    (folder / _OUTPUT).unlink(missing_ok=True)
    process = spawn([*command, str(folder / CONFIG)], folder / CONFIG, folder / _OUTPUT)
    state.processes[name] = (process.pid, process.started)
    _save(state, directory)


def _wait_ready(state: _State, directory: Path, name: str) -> bool:
    """False where the process ended; raises Unavailable where it lives and does not get ready."""
    config = node_config.load(directory / name / CONFIG)
    ready = config.path(config.paths.run) / "ready.json"
    process = state.running(directory)[name]
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if not alive(process):
            return False
        if ready.exists():
            return True
        time.sleep(_POLL_S)
    raise Unavailable(f"the gateway of {name} is not ready after {READY_S:.0f} s:\n{_output(directory, name)}")


def _output(directory: Path, name: str) -> str:
    try:
        return (directory / name / _OUTPUT).read_text(encoding="utf-8", errors="replace")[-2000:].strip()
    except OSError:
        return "(no output)"


def _move(directory: Path, name: str, ports: PortClaims) -> None:
    """Give a node of a lab that never served other ports: somebody outside took one of them."""
    file = directory / name / CONFIG
    old = node_config.load(file)
    edge = ports.take()
    settings = NodeSettings(
        node_id=NodeId(old.node.node_id),
        inst_id=InstId(old.node.inst_id),
        name=old.node.name,
        institution=old.node.institution,
        description=old.node.description,
        address=f"https://127.0.0.1:{edge}",
        edge_host=old.edge.host,
        edge_port=edge,
        platform_port=ports.take(),
        admin_port=ports.take(),
        run=str(old.paths.run),
        profile=old.profile.default,
        jobs=_jobs(file),
    )
    part = file.with_name(f".{file.name}.part")
    part.write_text(render(settings), encoding="utf-8")
    part.replace(file)


def _jobs(file: Path) -> Mapping[str, Scalar]:
    """[jobs] as written, without the defaults."""
    written: Mapping[str, Scalar] = tomllib.loads(file.read_text(encoding="utf-8")).get("jobs", {})
    return written


def _describe(state: _State, directory: Path) -> Lab:
    nodes = []
    for name in state.names:
        config = node_config.load(directory / name / CONFIG)
        nodes.append(
            LabNode(
                node_id=NodeId(config.node.node_id),
                inst_id=InstId(config.node.inst_id),
                name=name,
                pid=state.processes[name][0],
                edge_url=config.node.address,
                platform_url=f"http://{config.platform.host}:{config.platform.port}",
                admin_url=f"http://{config.admin.host}:{config.admin.port}",
                ca_file=directory / name / CA,
                admin_token_file=directory / name / TOKEN,
            )
        )
    return Lab(directory, tuple(nodes))


def _wait_answers(node: LabNode) -> None:
    """Until the admin API knows its node and the edge shows a certificate of the node's CA; raises Unavailable."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            answer = node.client(timeout_s=5).get("node")
            if answer["node_id"] != node.node_id:
                raise Refused(f"{node.admin_url} is {answer['node_id']}, not {node.name}", kind=Kind.MISADDRESSED)
            _handshake(node)
        except (Unavailable, OSError) as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"{node.name} does not answer: {error}") from error
            time.sleep(_POLL_S)
        else:
            return


def _handshake(node: LabNode) -> None:
    edge = urlsplit(node.edge_url)
    context = ssl.create_default_context(cafile=node.ca_file)
    with (
        socket.create_connection((edge.hostname or "", edge.port or 443), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=edge.hostname),
    ):
        pass


def _stop(state: _State, directory: Path, *, grace_s: float = STOP_S) -> list[str]:
    processes = state.running(directory)
    killed = {process.pid for process in stop(list(processes.values()), grace_s=grace_s)}
    for name in state.names:
        # A gateway that was killed before has left them to the next one, which will not come.
        end_left(directory / name / "work")
    state.processes = {}
    _save(state, directory)
    if state.run_root:
        shutil.rmtree(state.run_root, ignore_errors=True)
    if (directory / _LAB).exists():
        lab = read(directory)
        _write_json(directory / _LAB, {"nodes": [replace(node, pid=None).to_json() for node in lab.nodes]})
    return [name for name, process in processes.items() if process.pid in killed]
