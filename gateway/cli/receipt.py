"""Receipts of finished jobs: `interconn job receipt`, and `job verify-receipt`, which needs no gateway."""

import json
from pathlib import Path
from typing import Any, Final

from gateway.cli.call import Call, Exit, UsageError
from gateway.cli.parser import Group
from gateway.cli.show import grouped, when
from gateway.cli.trail import anchor_options, anchors
from gateway.errors import Kind, Refused

FILE_BYTES: Final = 4 << 20


def add(group: Group) -> None:
    receipt = group.command(
        "receipt", issue, "show a finished job's receipt with all signatures known here, or countersign a partner's"
    )
    receipt.add_argument("job", help="job id")
    receipt.add_argument(
        "--countersign", type=Path, metavar="FILE", help="a partner's receipt; refused where it is not what happened"
    )
    receipt.add_argument("--out", dest="out_file", type=Path, metavar="FILE", help="a new file, else standard output")
    verified = group.command("verify-receipt", verify, "say who signed a receipt, offline", node=False)
    verified.add_argument("file", type=Path, help="from `interconn job receipt`")
    anchor_options(verified)


def _read(file: Path) -> Any:
    with file.open("rb") as opened:
        raw = opened.read(FILE_BYTES + 1)
    if len(raw) > FILE_BYTES:
        raise UsageError(f"{file} is too large for a receipt")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is no receipt") from error


def issue(call: Call) -> Exit:
    client = call.client()
    if call.countersign is None:
        made = client.post("jobs", call.job, "receipt")
    else:
        made = client.post_json("jobs", call.job, "receipt", body=_read(call.countersign))
    text = json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if call.out_file is None:
        call.out.stream.write(text)
        return Exit.OK
    if call.out_file.exists():
        raise Refused(f"{call.out_file} exists", kind=Kind.CONFLICT)
    call.out_file.write_text(text, encoding="utf-8")
    return Exit.OK


def verify(call: Call) -> Exit:
    """Exit code 0 where every participant's signature is there and holds."""
    from gateway.mgmt_plane.core.receipt import check_receipt, judge  # noqa: PLC0415  # cryptography is slow to import

    trusted = anchors(call)
    stated, signatures = check_receipt(_read(call.file))
    found = judge(stated, signatures, trusted=trusted)
    good = {each.node_id for each in found if not each.problem}
    missing = sorted(set(stated["participants"]) - good)
    ok = not missing and not any(each.problem for each in found)
    shown = [
        {"node_id": each.node_id, "fingerprint": each.fingerprint, "at": each.at, "problem": each.problem}
        for each in found
    ]
    value = {"ok": ok, "anchored": bool(trusted), "receipt": stated, "signatures": shown, "missing": missing}

    def human() -> None:
        call.out.members(
            [
                ("job", stated["job_id"]),
                ("outcome", stated["outcome"]),
                ("finished", when(stated["finished"])),
                ("digest", stated["digest"]),
                ("datasets", stated["datasets"]),
            ]
        )
        for each in found:
            call.out.line(f"{each.node_id}: {each.problem or f'signed {when(each.at)}'}")
            if not each.problem and not trusted:
                call.out.line(f"  under the CA {grouped(each.fingerprint)}: compare it, or give --ca")
        if missing:
            call.out.line(f"Without a good signature of {', '.join(missing)}.")

    call.out.value(value, human)
    return Exit.OK if ok else Exit.FAILED
