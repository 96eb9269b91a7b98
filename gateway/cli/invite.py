"""`interconn invite`, and `interconn partner apply --invite`: pairing with one file and one comparison."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.cli.call import Call, Exit, UsageError, until
from gateway.cli.parser import Group
from gateway.cli.show import grouped, when
from gateway.errors import Kind, ProtocolViolation

MAX_BYTES = 64 << 10
"""As the gateway says (mgmt_plane.core.invite)."""


def add(group: Group) -> None:
    create = group.command("create", creating, "write the file with which a partner applies to this node")
    create.add_argument(
        "--out", dest="out_file", type=Path, metavar="FILE", help="where to; by default to standard output"
    )
    create.add_argument("--days", type=int, help="how long it is good (14)")


def creating(call: Call) -> Exit:
    made = call.client().post("invites", days=call.days)
    text = json.dumps(made["file"], indent=1, ensure_ascii=False) + "\n"
    if call.out_file is None and not call.out.as_json:
        call.out.line(text.rstrip())
        return Exit.OK
    if call.out_file is not None:
        with call.out_file.open("x", encoding="utf-8") as file:
            file.write(text)
    call.out.value(made, lambda: _told(call, made))
    return Exit.OK


def _told(call: Call, made: Mapping[str, Any]) -> None:
    call.out.line(f"Made {call.out_file}, good until {when(made['expires'])}. Send it to your partner.")
    call.out.line("When they call you back to compare, this is your fingerprint:")
    print_fingerprint(call, made)


def print_fingerprint(call: Call, value: Mapping[str, Any]) -> None:
    """The first twelve bytes as words, in rows of four, and all of it in groups of four digits."""
    words = value["words"]
    for at in range(0, len(words), 4):
        call.out.line("    " + " ".join(words[at : at + 4]))
    digits = grouped(value["fingerprint"]).split()
    for at in range(0, len(digits), 8):
        call.out.line("    " + " ".join(digits[at : at + 8]))


def read(path: Path) -> Mapping[str, Any]:
    """The invitation of a file, bounded and parsed but not verified; raises ProtocolViolation."""
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ProtocolViolation(f"{path} is too large for an invitation", kind=Kind.TOO_LARGE)
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ProtocolViolation(f"{path} is not an invitation") from error
    if not isinstance(value, dict):
        raise ProtocolViolation(f"{path} is not an invitation")
    return value


def accept(call: Call) -> Mapping[str, Any] | None:
    """Apply with the invitation of --invite, after a person has compared the fingerprint; None where they say no."""
    if call.address is not None or call.node_id is not None or call.ca_file is not None:
        raise UsageError("an invitation holds address, node id and CA: leave them out")
    client, file = call.client(), read(call.invite)
    seen = client.post("invites", "check", file=file)
    if call.fingerprint is None:
        if not call.out.as_json:
            _print(call, seen)
        if not call.agree("Does the partner read the same to you?", otherwise="--fingerprint HEX or --yes"):
            return None
    contract: Mapping[str, Any] = client.post(
        "invites",
        "apply",
        file=file,
        fingerprint=call.fingerprint or seen["fingerprint"],
        expired_time=until(call.days),
        description=call.description,
    )
    return contract


def _print(call: Call, seen: Mapping[str, Any]) -> None:
    call.out.members(
        [
            ("invited by", seen["name"]),
            ("institution", seen["institution"]),
            ("node", seen["node_id"]),
            ("institution id", seen["inst_id"]),
            ("address", seen["address"]),
            ("good until", when(seen["expires"])),
            ("signatures", seen["suites"]),
        ]
    )
    call.out.line("Call the partner at a number that you know already. Its fingerprint must be:")
    print_fingerprint(call, seen)
