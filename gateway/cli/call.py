"""One call of the command line: the arguments, which node is meant, how to ask a person, and the exit codes."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from gateway.admin_client import PAGE, AdminClient
from gateway.cli.show import Output, error
from gateway.errors import CallerError, Kind, Refused

CONFIG_VARIABLE: Final = "INTERCONN_CONFIG"
TOKEN_VARIABLE: Final = "INTERCONN_TOKEN_FILE"  # noqa: S105  # a variable's name
FINGERPRINT_DIGITS: Final = 64
DAY_MS: Final = 86_400_000


class Exit(IntEnum):
    """What a script can tell from the exit code; 130 is Ctrl-C."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class UsageError(CallerError):
    """The command line does not say enough, or too much."""

    default_kind = Kind.MALFORMED


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of one command and where its output goes."""

    arguments: argparse.Namespace
    out: Output

    def __getattr__(self, name: str) -> Any:
        """An argument by its name; None where the command was not given it."""
        return getattr(self.arguments, name, None)

    def client(self) -> AdminClient:
        """The admin API of the chosen node; raises UsageError where none is chosen."""
        file = self.token_file or os.environ.get(TOKEN_VARIABLE)
        return client_of(self.config, self.lab, self.node, token_file=None if file is None else Path(file))

    def anonymous(self) -> AdminClient:
        """The same API without a token: for the one call that gets one."""
        return client_of(self.config, self.lab, self.node, token_file=Path(os.devnull))

    def agree(self, question: str, *, otherwise: str) -> bool:
        """Ask a person, unless --yes. Without a terminal that is a UsageError that names the option `otherwise`."""
        if self.yes:
            return True
        if self.out.as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError(f"nobody to ask here: give {otherwise}")
        sys.stdout.write(f"{question} [y/N] ")
        sys.stdout.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _token(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise Refused(f"cannot read {file}: {reason}", kind=Kind.NOT_FOUND) from error


def client_of(
    config: Path | None, lab_directory: Path | None, node: str | None, *, token_file: Path | None = None
) -> AdminClient:
    """--lab DIR --as NODE, else --config FILE, else the file that INTERCONN_CONFIG names.

    token_file: whose token is shown; by default the node's own token file.
    """
    if lab_directory is not None:
        if config is not None:
            raise UsageError("give either --config or --lab, not both")
        if node is None:
            raise UsageError("--lab needs --as, for example: --lab build/lab --as bank")
        from gateway import lab  # noqa: PLC0415  # only where a lab is meant

        found = lab.read(lab_directory).node(node)
        return found.client() if token_file is None else AdminClient(found.admin_url, _token(token_file))
    if node is not None:
        raise UsageError("--as needs --lab")
    if config is None and os.environ.get(CONFIG_VARIABLE):
        config = Path(os.environ[CONFIG_VARIABLE])
    if config is None:
        raise UsageError(f"which node? --config node.toml, {CONFIG_VARIABLE}, or --lab DIR --as NAME")
    from gateway import config as node_config  # noqa: PLC0415  # only where a file is read

    read = node_config.load(config)
    token = _token(token_file or read.path(read.admin.token_file))
    return AdminClient(f"http://{read.admin.host}:{read.admin.port}", token)


def fingerprint(text: str) -> str:
    """Option type: 64 hex digits, in any letter case, with or without blanks, colons and dashes."""
    digits = re.sub(r"[\s:\-]", "", text).lower()
    if len(digits) != FINGERPRINT_DIGITS or set(digits) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("a fingerprint has 64 hexadecimal digits")
    return digits


def until(days: int | None) -> int | None:
    """So many days from now, in milliseconds since the epoch; raises UsageError unless positive."""
    if days is None:
        return None
    if days <= 0:
        raise UsageError("--days must be positive")
    return int(time.time() * 1000) + days * DAY_MS


def audit_key(audit: Mapping[str, Any]) -> str:
    """What a list of audits goes on after."""
    return f"{audit['applicant']}/{audit['audit_id']}"


def listed(call: Call, what: str, after: Callable[[Any], str], **query: str | None) -> list[Any]:
    """A list: its first PAGE records, or with --all every one."""
    if call.all:
        return call.client().every(what, after=after, **query)
    found: list[Any] = call.client().get(what, **query)
    if len(found) >= PAGE:
        error(f"only the first {PAGE:,}: --all shows every one")
    return found


def pick(records: Sequence[Mapping[str, Any]], wanted: str, members: Sequence[str], *, what: str) -> Mapping[str, Any]:
    """The one record of which a member equals `wanted`, else the one of which a member starts with it.

    Raises Refused(NOT_FOUND), or Refused(CONFLICT) where several match equally well.
    """
    exact = [record for record in records if wanted in {str(record.get(member)) for member in members}]
    found = exact or [
        record for record in records if any(str(record.get(member) or "").startswith(wanted) for member in members)
    ]
    if not found:
        raise Refused(f"no {what} {wanted!r}", kind=Kind.NOT_FOUND)
    if len(found) > 1:
        ids = ", ".join(str(record.get(members[0])) for record in found)
        raise Refused(f"{wanted!r} means several: {ids}; give the id of one", kind=Kind.CONFLICT)
    return found[0]


def partner_id(client: AdminClient, wanted: str) -> str:
    """Node id of the partner that `wanted` names, by id or by name; `wanted` itself where it is no partner's name."""
    named = {c["peer_node_id"] for c in client.get("partners") if c["peer_name"] == wanted}
    if len(named) > 1:
        raise Refused(f"{wanted!r} means several nodes: {', '.join(sorted(named))}", kind=Kind.CONFLICT)
    return str(named.pop()) if named else wanted
