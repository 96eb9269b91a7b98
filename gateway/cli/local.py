"""Commands that need no running node: making one, serving it, the lab, the demo, and what this installation is."""

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.call import CONFIG_VARIABLE, Call, Exit, UsageError
from gateway.cli.parser import add_command, add_group
from gateway.errors import Kind, Refused

if TYPE_CHECKING:
    from gateway.cli.parser import Actions
    from gateway.lab import Lab

DISTRIBUTION: Final = "interconn"
STANDARD: Final = "InterOp v1.2.0"
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_USED: Final = (
    ("big integers", "gmpy2"),
    ("curves, signatures, certificates", "cryptography"),
    ("arrays", "numpy"),
    ("HTTP", "aiohttp"),
    ("event loop", "uvloop"),
    ("database", "sqlalchemy"),
)


def add(actions: "Actions") -> None:
    init = add_command(
        actions, "init", initialising, "make the folder of a new node: keys, certificates, settings", node=False
    )
    init.add_argument("--dir", required=True, dest="directory", type=Path, help="folder to make")
    init.add_argument("--node-id", required=True, help="id of the node, unique among all its partners")
    init.add_argument("--inst-id", help="id of the institution; by default the node id")
    init.add_argument("--name", required=True, help="name of the node, as partners see it")
    init.add_argument("--institution", help="name of the institution; by default the node's name")
    init.add_argument("--description", default="")
    init.add_argument("--address", help="edge URL as partners reach it; by default https://127.0.0.1:PORT")
    init.add_argument("--edge-host", default="127.0.0.1", help="interface of the edge listener")
    init.add_argument("--edge-port", type=int, default=7304)
    init.add_argument("--platform-port", type=int, default=7305)
    init.add_argument("--admin-port", type=int, default=7306)
    init.add_argument("--profile", default="strict-1.2")
    init.add_argument(
        "--auth-type",
        default="CERT",
        choices=("CERT", "ED25519", "SHA256_ECDSA", "SHA256_RSA"),
        help="sign with a certificate of the node's own CA (CERT), or with a bare key",
    )
    add_command(actions, "serve", serving, "run a node until SIGTERM", node=False).add_argument(
        "--config", type=Path, metavar="FILE", help=f"its node.toml (or {CONFIG_VARIABLE})"
    )
    lab = add_group(actions, "lab", "several nodes on this machine")
    up = lab.command("up", lab_up, "start N nodes on loopback and leave them running", node=False)
    up.add_argument("--parties", type=int, metavar="N", help="number of nodes (2)")
    up.add_argument("--profile", help="default profile of the nodes (strict-1.2)")
    up.add_argument("--approved", action="store_true", help="also sign all partnerships")
    for parser in (
        up,
        lab.command("down", lab_down, "stop them", node=False),
        lab.command("status", lab_status, "which of them run", node=False),
    ):
        parser.add_argument("--dir", required=True, dest="directory", type=Path, help="the lab's folder")
    demo = add_command(
        actions, "demo", demonstrating, "two institutions, one model: the whole path on real data", node=False
    )
    demo.add_argument("--out", dest="out_dir", type=Path, default=Path("build/demo"), help="folder of the report")
    demo.add_argument("--keep-lab", type=Path, metavar="DIR", help="make the lab there and keep its files")
    demo.add_argument("--tables", type=Path, metavar="DIR", help="only write the demo's bank.csv and payment.csv there")
    add_command(actions, "backends", backends, "what this installation computes with", node=False)
    add_command(actions, "version", version, "version of this software and of the standard", node=False)


def initialising(call: Call) -> Exit:
    from gateway.lab import NodeSettings, create_folder  # noqa: PLC0415  # loads the certificate code
    from gateway.model import InstId, NodeId  # noqa: PLC0415
    from specs.states import AuthType  # noqa: PLC0415

    inst_id = call.inst_id or call.node_id
    for option, text in (("--node-id", call.node_id), ("--inst-id", inst_id)):
        if not _ID.fullmatch(text):
            raise UsageError(f"{option}: 1 to 64 letters, digits, '.', '_' or '-'")
    for option in ("edge_port", "platform_port", "admin_port"):
        if not 0 < getattr(call, option) < 65_536:
            raise UsageError(f"--{option.replace('_', '-')}: 1 to 65535")
    create_folder(
        call.directory.absolute(),
        NodeSettings(
            node_id=NodeId(call.node_id),
            inst_id=InstId(inst_id),
            name=call.name,
            institution=call.institution or call.name,
            description=call.description,
            address=call.address or f"https://127.0.0.1:{call.edge_port}",
            edge_host=call.edge_host,
            edge_port=call.edge_port,
            platform_port=call.platform_port,
            admin_port=call.admin_port,
            profile=call.profile,
            auth_type=AuthType(call.auth_type),
        ),
    )
    config = call.directory / "node.toml"
    call.out.value(
        {"config": str(config)}, lambda: call.out.line(f"Made {config}; start it: interconn serve --config {config}")
    )
    return Exit.OK


def serving(call: Call) -> Exit:
    config = call.config or (Path(found) if (found := os.environ.get(CONFIG_VARIABLE)) else None)
    if config is None:
        raise UsageError(f"which node? --config node.toml or {CONFIG_VARIABLE}")
    from gateway.app.serve import serve  # noqa: PLC0415  # only for this command

    return Exit.OK if serve(config) == 0 else Exit.FAILED


def lab_up(call: Call) -> Exit:
    from gateway import lab  # noqa: PLC0415

    made = lab.up(call.directory, parties=call.parties, profile=call.profile, approved=call.approved)
    _print_lab(call, made, frozenset(node.name for node in made.nodes))
    return Exit.OK


def lab_down(call: Call) -> Exit:
    from gateway import lab  # noqa: PLC0415

    killed = lab.down(call.directory)
    words = f"Stopped; had to be killed: {', '.join(killed)}" if killed else "Stopped."
    call.out.value({"killed": killed}, lambda: call.out.line(words))
    return Exit.OK


def lab_status(call: Call) -> Exit:
    from gateway import lab  # noqa: PLC0415

    found, running = lab.read(call.directory), lab.running(call.directory)
    _print_lab(call, found, running)
    return Exit.OK if len(running) == len(found.nodes) else Exit.FAILED


def _print_lab(call: Call, found: "Lab", running: frozenset[str]) -> None:
    rows = [
        [
            node.name,
            node.node_id,
            node.pid,
            "running" if node.name in running else "stopped",
            node.edge_url,
            node.admin_url,
        ]
        for node in found.nodes
    ]
    value = {"nodes": [{**node.to_json(), "running": node.name in running} for node in found.nodes]}
    columns = ("node", "node id", "process", "state", "edge", "admin")
    call.out.value(value, lambda: call.out.table(columns, rows, empty="No nodes."))


def demonstrating(call: Call) -> Exit:
    if call.tables is not None:
        return _write_tables(call, call.tables)
    try:
        import sklearn  # noqa: F401, PLC0415  # asked for first: the run would only fail at its end
    except ImportError:
        raise Refused("the demo needs scikit-learn: pip install 'interconn[demo]'", kind=Kind.NOT_FOUND) from None
    from rich.console import Console  # noqa: PLC0415

    from gateway.demo.run import run  # noqa: PLC0415

    facts = run(call.out_dir, Console(stderr=call.out.as_json), keep_lab=call.keep_lab)
    call.out.value(facts.to_json(), lambda: None)
    return Exit.FAILED if facts.problems() else Exit.OK


def _write_tables(call: Call, folder: Path) -> Exit:
    from gateway.demo import data  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    made = data.write_tables(folder, data.split(data.read_source()))
    call.out.value(
        {"files": [str(file) for file in made]}, lambda: call.out.line(f"wrote {' and '.join(map(str, made))}")
    )
    return Exit.OK


def backends(call: Call) -> Exit:
    from accel import registry  # noqa: PLC0415  # runs the self-tests of the kernels

    forced = os.environ.get("INTERCONN_ACCEL") or None
    choices = registry.describe(forced)
    used = [{"for": purpose, "package": name, "version": _version(name)} for purpose, name in _USED]
    value = {
        "kernels": [{"kernel": c.kernel, "backend": c.backend, "reasons": dict(c.reasons)} for c in choices],
        "packages": used,
        "note": registry.without_native(),
    }
    call.out.value(value, lambda: _print_backends(call, value))
    return Exit.OK if all(choice.backend for choice in choices) else Exit.FAILED


def _print_backends(call: Call, value: Mapping[str, Any]) -> None:
    rows = [
        [kernel["kernel"], name, "chosen" if name == kernel["backend"] else "", reason]
        for kernel in value["kernels"]
        for name, reason in kernel["reasons"].items()
    ]
    call.out.table(("kernel", "backend", "", "why"), rows, empty="There are no kernels.")
    call.out.table(("for", "package", "version"), [list(entry.values()) for entry in value["packages"]], empty="")
    if value["note"]:
        call.out.line(f"Note: {value['note']}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def version(call: Call) -> Exit:
    value = {
        "interconn": _version(DISTRIBUTION),
        "standard": STANDARD,
        "python": platform.python_version(),
        "platform": sys.platform,
    }
    call.out.value(
        value, lambda: call.out.line(f"interconn {value['interconn']} ({STANDARD}), Python {value['python']}")
    )
    return Exit.OK
