"""`interconn project`: rooms for cooperation."""

from collections.abc import Sequence

from gateway.cli import audit
from gateway.cli.call import Call, Exit, UsageError, listed
from gateway.cli.parser import Group, pages
from gateway.cli.show import when
from specs.states import AuditKind, ProjectType


def add(group: Group) -> None:
    pages(group.command("list", listing, "our projects and those that we joined"))
    new = group.command("new", creating, "open a project and ask the partners to join")
    new.add_argument("name")
    new.add_argument("--type", default=ProjectType.HETERO_FL.value, choices=[kind.value for kind in ProjectType])
    new.add_argument("--description")
    new.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="NODE=DATASET[,DATASET]",
        help="datasets that a node brings (repeatable; the own node included)",
    )
    audit.which(group.command("approve", approving, "join a project that a partner opened"), AuditKind.PROJECT)
    audit.which(group.command("reject", rejecting, "stay out of it"), AuditKind.PROJECT)


def _datasets(entries: Sequence[str]) -> dict[str, list[str]]:
    datasets: dict[str, list[str]] = {}
    for entry in entries:
        node, sign, ids = entry.partition("=")
        if not (node and sign and ids):
            raise UsageError(f"--data {entry}: write NODE=DATASET")
        datasets.setdefault(node, []).extend(part for part in ids.split(",") if part)
    return datasets


def listing(call: Call) -> Exit:
    projects = listed(call, "projects", lambda each: str(each["project_id"]))
    rows = [
        [
            project["project_id"],
            project["name"],
            project["type"],
            project["initiator"],
            len(project["nodes"]),
            when(project["created"]),
        ]
        for project in projects
    ]
    columns = ("project", "name", "type", "opened by", "nodes", "since")
    call.out.value(projects, lambda: call.out.table(columns, rows, empty="No projects yet."))
    return Exit.OK


def creating(call: Call) -> Exit:
    project = call.client().post(
        "projects", name=call.name, type=call.type, description=call.description, datasets=_datasets(call.data)
    )
    call.out.value(project, lambda: call.out.line(f"{project['project_id']}  {project['name']}"))
    return Exit.OK


def approving(call: Call) -> Exit:
    return audit.decide(call, audit.incoming(call, AuditKind.PROJECT, call.audit), "approve")


def rejecting(call: Call) -> Exit:
    return audit.decide(call, audit.incoming(call, AuditKind.PROJECT, call.audit), "reject")
