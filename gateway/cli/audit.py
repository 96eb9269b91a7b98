"""Approvals: `interconn audit`, and what `dataset`, `project` and `job` share to decide on theirs."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.cli.call import Call, Exit, UsageError, audit_key, listed, partner_id, pick, until
from gateway.cli.job import read_job_file
from gateway.cli.parser import Group, pages
from gateway.cli.show import when
from specs.states import ApprovalState, AuditKind


def add(group: Group) -> None:
    shown = group.command("list", listing, "what partners ask of us and what we ask of them")
    shown.add_argument("--kind", choices=[kind.value for kind in AuditKind])
    shown.add_argument("--direction", choices=["IN", "OUT"], help="IN: a partner applied, OUT: we did")
    shown.add_argument("--status", choices=[state.value for state in ApprovalState])
    pages(shown)
    approve = group.command("approve", approving, "say yes to what a partner asks, of whatever kind")
    _any(approve)
    approve.add_argument("--column", action="append", dest="columns", metavar="NAME", help="of a dataset, only these")
    approve.add_argument("--days", type=int, help="of a dataset, for so many days")
    approve.add_argument("--times", type=int, help="of a dataset, for so many jobs")
    _any(group.command("reject", rejecting, "say no to what a partner asks, of whatever kind"))
    ended = group.command("terminate", terminating, "take an approval back, or withdraw what we asked for")
    _any(ended)
    ended.add_argument("--yes", action="store_true", help="do not ask")
    _any(group.command("reconcile", reconciling, "ask the partner how it sees what we asked for"))
    asked = group.command("apply", applying, "ask a partner to approve a flow or a model")
    asked.add_argument("kind", choices=[AuditKind.FLOW.value, AuditKind.MODEL.value])
    asked.add_argument("partner", help="node id or name")
    asked.add_argument("subject", help="id of the flow or the model")
    asked.add_argument("--body", type=Path, metavar="FILE", help="what else the application says, a JSON object")


def _any(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("audit", help="audit id, or id of what is asked for, or its beginning")


def listing(call: Call) -> Exit:
    audits = listed(call, "audits", audit_key, kind=call.kind, direction=call.direction, status=call.status)
    show(call, audits)
    return Exit.OK


def show(call: Call, audits: list[Mapping[str, Any]]) -> None:
    """A table of audits."""
    rows = [
        [
            audit["audit_id"],
            audit["kind"],
            "we applied" if audit["direction"] == "OUT" else "they applied",
            audit["peer_node_id"],
            audit["subject"],
            audit["status"],
            when(audit["created"]),
        ]
        for audit in audits
    ]
    columns = ("audit", "kind", "direction", "partner", "about", "state", "since")
    call.out.value(audits, lambda: call.out.table(columns, rows, empty="Nothing to decide and nothing asked."))


def which(parser: argparse.ArgumentParser, kind: AuditKind) -> None:
    """The argument that names an approval."""
    parser.add_argument("audit", help=f"audit id or {kind} id, or its beginning")


def incoming(call: Call, kind: AuditKind, wanted: str) -> Mapping[str, Any]:
    """The partner's open application that `wanted` means."""
    audits = call.client().every(
        "audits", after=audit_key, kind=kind.value, direction="IN", status=ApprovalState.APPLIED.value
    )
    return pick(audits, wanted, ("audit_id", "subject"), what=f"open {kind} application")


def decide(call: Call, audit: Mapping[str, Any], verb: str, **body: Any) -> Exit:
    """Approve or reject one application."""
    done = call.client().post("audits", audit["applicant"], audit["audit_id"], verb, **body)
    words = f"{audit['kind']} {audit['subject']}: {(done or {}).get('status', verb)}{still(done)}"
    call.out.value(done, lambda: call.out.line(words))
    return Exit.OK


def still(done: Mapping[str, Any] | None) -> str:
    """Words for a decision that one admin alone cannot make; "" for any other."""
    decision = (done or {}).get("decision")
    if not decision or decision["final"]:
        return ""
    return f"; {decision['by']} agreed, another admin must"


def _open(call: Call, **equals: str) -> Mapping[str, Any]:
    found = call.client().every("audits", after=audit_key, **equals)
    return pick(found, call.audit, ("audit_id", "subject"), what="application")


def approving(call: Call) -> Exit:
    found = _open(call, direction="IN", status=ApprovalState.APPLIED.value)
    if call.times is not None and call.times <= 0:
        raise UsageError("--times must be positive")
    return decide(call, found, "approve", columns=call.columns, time_limit=until(call.days), times_limit=call.times)


def rejecting(call: Call) -> Exit:
    return decide(call, _open(call, direction="IN", status=ApprovalState.APPLIED.value), "reject")


def terminating(call: Call) -> Exit:
    found = _open(call)
    if not call.agree(f"End {found['kind']} {found['subject']} with {found['peer_node_id']}?", otherwise="--yes"):
        call.out.line("Nothing was changed.")
        return Exit.FAILED
    return decide(call, found, "terminate")


def reconciling(call: Call) -> Exit:
    return decide(call, _open(call, direction="OUT"), "reconcile")


def applying(call: Call) -> Exit:
    client = call.client()
    more = {} if call.body is None else read_job_file(call.body)
    asked = client.post(
        "audits",
        "apply",
        kind=call.kind,
        node_id=partner_id(client, call.partner),
        subject=call.subject,
        body=more,
    )
    call.out.value(asked, lambda: call.out.line(f"asked as {asked['audit_id']}: {asked['status']}"))
    return Exit.OK
