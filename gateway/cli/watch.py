"""`interconn pending` and `events`: how things stand at a node."""

import json
from typing import TYPE_CHECKING

from gateway.cli.call import Call, Exit, UsageError
from gateway.cli.parser import add_command
from gateway.cli.show import when

if TYPE_CHECKING:
    from gateway.cli.parser import Actions


def add(actions: "Actions") -> None:
    add_command(actions, "pending", waiting, "what waits for a decision here, and who has agreed", node=True)
    events = add_command(actions, "events", happening, "the newest events of the log", node=True)
    events.add_argument("where", nargs="*", metavar="NAME=VALUE", help="only those, for example event=edge.refused")
    events.add_argument("--limit", type=int, metavar="N", help="so many (200)")


def waiting(call: Call) -> Exit:
    found = call.client().get("pending")
    rows = [
        [
            each["kind"],
            each["id"],
            each["about"],
            each["partner"] or each["partner_node_id"],
            when(each["since"]),
            f"{each['decision']['by']} agreed, one more" if each["decision"] else f"{each['approvals_needed']} needed",
        ]
        for each in found
    ]
    columns = ("kind", "id", "about", "partner", "since", "decision")
    call.out.value(found, lambda: call.out.table(columns, rows, empty="Nothing waits for a decision."))
    return Exit.OK


def happening(call: Call) -> Exit:
    if any("=" not in each for each in call.where):
        raise UsageError("write NAME=VALUE")
    wanted = dict(each.split("=", 1) for each in call.where)
    found = call.client().get("events", **{**wanted, "limit": call.limit})

    def human() -> None:
        for event in found:
            more = {name: value for name, value in event.items() if name not in ("at", "event")}
            call.out.line(f"{when(event['at'])}  {event['event']}  {json.dumps(more, ensure_ascii=False)}")
        if not found:
            call.out.line("No such event since the start.")

    call.out.value(found, human)
    return Exit.OK
