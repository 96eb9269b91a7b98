"""Approvals: `interconn audit`, and what `dataset`, `project` and `job` share to decide on theirs."""

import argparse
from collections.abc import Mapping
from typing import Any

from gateway.cli.call import Call, Exit, pick
from gateway.cli.parser import Group
from gateway.cli.show import when
from specs.states import ApprovalState, AuditKind


def add(group: Group) -> None:
    listed = group.command("list", listing, "what partners ask of us and what we ask of them")
    listed.add_argument("--kind", choices=[kind.value for kind in AuditKind])
    listed.add_argument("--direction", choices=["IN", "OUT"], help="IN: a partner applied, OUT: we did")
    listed.add_argument("--status", choices=[state.value for state in ApprovalState])


def listing(call: Call) -> Exit:
    audits = call.client().get("audits", kind=call.kind, direction=call.direction, status=call.status)
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
    audits = call.client().get("audits", kind=kind.value, direction="IN", status=ApprovalState.APPLIED.value)
    return pick(audits, wanted, ("audit_id", "subject"), what=f"open {kind} application")


def decide(call: Call, audit: Mapping[str, Any], verb: str, **body: Any) -> Exit:
    """Approve or reject one application."""
    done = call.client().post("audits", audit["applicant"], audit["audit_id"], verb, **body)
    call.out.value(
        done, lambda: call.out.line(f"{audit['kind']} {audit['subject']}: {(done or {}).get('status', verb)}")
    )
    return Exit.OK
