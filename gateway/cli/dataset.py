"""`interconn dataset`: our catalogue, the partners' catalogues, and grants of use."""

from pathlib import Path
from typing import Any

from gateway.cli import audit
from gateway.cli.call import Call, Exit, UsageError, listed, partner_id, pick, until
from gateway.cli.parser import Group, pages
from gateway.cli.show import when
from specs.states import ApprovalState, AuditKind, AuthScope


def add(group: Group) -> None:
    new = group.command("add", adding, "put a CSV file into our catalogue; the file stays where it is")
    new.add_argument("path", type=Path, help="CSV file with a header line")
    new.add_argument("--name", help="as partners see it; by default the file's name")
    new.add_argument("--id-column", help="column that identifies a row, used to intersect")
    new.add_argument("--label-column", action="append", dest="labels", metavar="COLUMN", help="column to predict")
    new.add_argument("--description", help="words for partners")
    new.add_argument("--category", help="kind of data, in your own words")
    new.add_argument("--dataset-id", help="id to use instead of a new one")
    new.add_argument("--private", action="store_true", help="partners do not see it")
    pages(group.command("list", listing, "our catalogue"))
    remote = group.command("remote", listing_remote, "what a partner offers")
    remote.add_argument("node_id", metavar="partner", help="node id or name of the partner")
    apply = group.command("apply", applying, "ask a partner for the use of one of its datasets")
    apply.add_argument("node_id", metavar="partner", help="node id or name of the partner")
    apply.add_argument("dataset_id", help="dataset of that partner")
    apply.add_argument("--component", action="append", metavar="NAME", help="only for this component (repeatable)")
    apply.add_argument("--project", action="append", metavar="ID", help="only within this project (repeatable)")
    apply.add_argument("--days", type=int, help="for so many days")
    apply.add_argument("--times", type=int, help="for so many jobs")
    approve = group.command("approve", approving, "grant a partner's application")
    audit.which(approve, AuditKind.DATASET)
    approve.add_argument("--column", action="append", dest="columns", metavar="NAME", help="only these (repeatable)")
    approve.add_argument("--days", type=int, help="for so many days")
    approve.add_argument("--times", type=int, help="for so many jobs")
    audit.which(group.command("reject", rejecting, "decline a partner's application"), AuditKind.DATASET)
    record = group.command("record-grant", recording, "grant to a partner without a management layer")
    record.add_argument("node_id", help="node id of the partner")
    record.add_argument("dataset_id", help="dataset of ours")
    record.add_argument("--component", action="append", metavar="NAME", help="only for this component (repeatable)")
    record.add_argument("--project", action="append", metavar="ID", help="only within this project (repeatable)")
    record.add_argument("--column", action="append", dest="columns", metavar="NAME", help="only these (repeatable)")
    record.add_argument("--days", type=int, help="for so many days")
    record.add_argument("--times", type=int, help="for so many jobs")
    grants = group.command("grants", listing_grants, "what we have granted, and how often it was used")
    grants.add_argument("dataset_id", nargs="?", help="only this dataset")
    revoke = group.command("revoke", revoking, "take a grant back, and stop what runs under it")
    audit.which(revoke, AuditKind.DATASET)
    revoke.add_argument("--yes", action="store_true", help="do not ask")


def _limits(call: Call) -> dict[str, Any]:
    if call.times is not None and call.times <= 0:
        raise UsageError("--times must be positive")
    return {"time_limit": until(call.days), "times_limit": call.times}


def adding(call: Call) -> Exit:
    dataset = call.client().post(
        "datasets",
        name=call.name or call.path.stem,
        path=str(call.path.resolve()),
        dataset_id=call.dataset_id,
        id_column=call.id_column,
        label_columns=",".join(call.labels) if call.labels else None,
        public=not call.private,
        description=call.description,
        category=call.category,
    )
    call.out.value(
        dataset, lambda: call.out.line(f"{dataset['dataset_id']}  {dataset['name']}, {dataset['count']} rows")
    )
    return Exit.OK


def listing(call: Call) -> Exit:
    datasets = listed(call, "datasets", lambda each: str(each["dataset_id"]))
    rows = [
        [
            dataset["dataset_id"],
            dataset["name"],
            dataset["count"],
            len(dataset["column_metas"]),
            dataset.get("join_columns"),
            dataset.get("label_columns"),
            dataset["public"],
        ]
        for dataset in datasets
    ]
    columns = ("dataset", "name", "rows", "columns", "id", "label", "public")
    call.out.value(datasets, lambda: call.out.table(columns, rows, empty="The catalogue is empty."))
    return Exit.OK


def listing_remote(call: Call) -> Exit:
    client = call.client()
    datasets = client.get("partners", partner_id(client, call.node_id), "datasets")
    rows = [
        [
            dataset.get("dataset_id"),
            dataset.get("name"),
            dataset.get("count"),
            dataset.get("join_columns"),
            dataset.get("label_columns"),
            dataset.get("description"),
        ]
        for dataset in datasets
    ]
    columns = ("dataset", "name", "rows", "id", "label", "description")
    call.out.value(datasets, lambda: call.out.table(columns, rows, empty="The partner offers nothing to us."))
    return Exit.OK


def _scope(call: Call) -> dict[str, list[str]] | None:
    scope = {AuthScope.COMPONENT.value: call.component, AuthScope.PROJECT.value: call.project}
    return {name: ids for name, ids in scope.items() if ids} or None


def applying(call: Call) -> Exit:
    client = call.client()
    asked = client.post(
        "datasets",
        "apply",
        node_id=partner_id(client, call.node_id),
        dataset_id=call.dataset_id,
        auth_scope=_scope(call),
        **_limits(call),
    )
    call.out.value(asked, lambda: call.out.line(f"asked as {asked['audit_id']}: {asked['status']}"))
    return Exit.OK


def approving(call: Call) -> Exit:
    found = audit.incoming(call, AuditKind.DATASET, call.audit)
    return audit.decide(call, found, "approve", columns=call.columns, **_limits(call))


def rejecting(call: Call) -> Exit:
    return audit.decide(call, audit.incoming(call, AuditKind.DATASET, call.audit), "reject")


def recording(call: Call) -> Exit:
    made = call.client().post(
        "grants",
        "record",
        node_id=call.node_id,
        dataset_id=call.dataset_id,
        auth_scope=_scope(call),
        columns=call.columns,
        **_limits(call),
    )
    call.out.value(made, lambda: call.out.line(f"{made['subject']} granted to {made['peer_node_id']}"))
    return Exit.OK


def listing_grants(call: Call) -> Exit:
    found = call.client().get("grants", dataset_id=call.dataset_id)
    rows = [
        [
            grant["dataset_id"],
            grant["user"],
            grant["state"],
            grant["used"],
            grant["reserved"],
            "any" if grant["left"] is None else grant["left"],
            when(grant["time_limit"]) if grant["time_limit"] else "",
            ", ".join(grant["columns"]) or "all",
            ", ".join(grant["components"]) or ", ".join(grant["scope"].get(AuthScope.COMPONENT.value, ["any"])),
        ]
        for grant in found
    ]
    columns = ("dataset", "partner", "state", "used", "reserved", "left", "until", "columns", "components")
    call.out.value(found, lambda: call.out.table(columns, rows, empty="Nothing is granted."))
    return Exit.OK


def revoking(call: Call) -> Exit:
    granted = call.client().get(
        "audits", kind=AuditKind.DATASET.value, direction="IN", status=ApprovalState.APPROVED.value
    )
    found = pick(granted, call.audit, ("audit_id", "subject"), what="dataset grant")
    if not call.agree(f"Take {found['subject']} back from {found['peer_node_id']}?", otherwise="--yes"):
        call.out.line("Nothing was changed.")
        return Exit.FAILED
    return audit.decide(call, found, "terminate")
