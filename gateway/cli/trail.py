"""The audit trail on the command line: `interconn audit export` and `verify`, which needs no gateway."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO

from gateway.cli.call import Call, Exit, fingerprint
from gateway.cli.parser import Group
from gateway.cli.show import grouped, when
from gateway.errors import Kind, ProtocolViolation, Refused

_PAGE: Final = 500
_CA_BYTES: Final = 64 << 10


def add(group: Group) -> None:
    exported = group.command("export", export, "write the audit trail, or a time of it, into one signed file")
    exported.add_argument("--format", choices=["jsonl", "csv"], default="jsonl", help="default: jsonl")
    exported.add_argument("--since", type=_time, metavar="TIME", help="e.g. 2026-11-21 or 2026-11-21T08:00+01:00")
    exported.add_argument("--until", type=_time, metavar="TIME", help="inclusive; local time without an offset")
    exported.add_argument("--out", dest="out_file", type=Path, metavar="FILE", help="a new file, else standard output")
    verified = group.command(
        "verify", verify, "say whether an exported file is exactly what the node wrote, offline", node=False
    )
    verified.add_argument("file", type=Path, help="from `interconn audit export`")
    anchor_options(verified)


def anchor_options(verified: argparse.ArgumentParser) -> None:
    """Whose signatures count."""
    verified.add_argument(
        "--ca", type=Path, action="append", metavar="FILE", help="a node's CA (pki/ca.pem); may be repeated"
    )
    verified.add_argument(
        "--fingerprint", type=fingerprint, action="append", metavar="HEX", help="of a node's CA, instead of --ca"
    )


def _time(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise argparse.ArgumentTypeError(f"not a time: {text}") from error


def export(call: Call) -> Exit:
    """Heading first, then page by page."""
    from gateway.mgmt_plane.core import trail  # noqa: PLC0415  # cryptography is slow to import
    from gateway.model import TrailEntry  # noqa: PLC0415

    client = call.client()
    header = _made(trail.Header, client.post("trail", "export", since=call.since, until=call.until))
    written: Callable[[Any], str] = trail.csv_line if call.format == "csv" else trail.json_line
    with _target(call.out_file) as out:
        if call.format == "csv":
            out.write(trail.csv_columns())
        out.write(written(header))
        following = header.first
        while following <= header.last:
            page = client.get("trail", first=following, last=min(header.last, following + _PAGE - 1))
            if not page:
                raise ProtocolViolation(f"the node has no entry {following}", kind=Kind.PEER_MALFORMED)
            for each in page:
                out.write(written(_made(TrailEntry, each)))
            following += len(page)
    return Exit.OK


def _made(kind: Callable[..., Any], value: Mapping[str, Any]) -> Any:
    try:
        return kind(**value)
    except TypeError as error:
        raise ProtocolViolation("the node's answer cannot be read", kind=Kind.PEER_MALFORMED) from error


@contextmanager
def _target(file: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is complete or not there at all."""
    if file is None:
        yield sys.stdout
        return
    if file.exists():
        raise Refused(f"{file} exists", kind=Kind.CONFLICT)
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            yield out
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)


def anchors(call: Call) -> frozenset[str]:
    """The fingerprints that `anchor_options` name."""
    from gateway.auth.chain import certificates, fingerprint  # noqa: PLC0415  # as above

    found = set(call.fingerprint or ())
    for file in call.ca or ():
        text = file.read_bytes()[:_CA_BYTES].decode("ascii", "replace")
        # A chain ends in its CA, so a node's signing.pem serves as well.
        found.add(fingerprint(certificates(text)[-1]))
    return frozenset(found)


def verify(call: Call) -> Exit:
    """Every problem on a line of its own, with the number of the line of the file."""
    from gateway.mgmt_plane.core.trail import read_lines  # noqa: PLC0415  # as above
    from gateway.mgmt_plane.core.trail import verify as judge  # noqa: PLC0415

    trusted = anchors(call)
    with call.file.open("rb") as stream:
        verdict = judge(read_lines(stream), trusted=trusted)
    header = verdict.header
    value = {
        "ok": not verdict.problems,
        "node_id": header and header.node_id,
        "first": header and header.first,
        "last": header and header.last,
        "head": header and header.head,
        "exported": header and header.exported,
        "fingerprint": verdict.fingerprint,
        "anchored": bool(trusted),
        "entries": verdict.entries,
        "seals": verdict.seals,
        "problems": [{"line": each.line, "text": each.text} for each in verdict.problems],
    }

    def human() -> None:
        for each in verdict.problems:
            call.out.line(f"line {each.line}: {each.text}")
        if verdict.problems or header is None:
            call.out.line(f"{call.file} is not what the node exported.")
            return
        call.out.line(f"Entries {header.first} to {header.last} of {header.node_id}: complete and unchanged.")
        call.out.members(
            [("exported", when(header.exported)), ("head", header.head), ("seals", verdict.seals)],
        )
        if not trusted:
            call.out.line("Signed under the CA below, which came with the file. Compare it, or give --ca:")
            call.out.line(grouped(verdict.fingerprint))

    call.out.value(value, human)
    return Exit.FAILED if verdict.problems else Exit.OK
