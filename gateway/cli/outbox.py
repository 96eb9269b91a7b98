"""`interconn outbox`: calls to partners that wait or were given up, and the comparison with the partners."""

from gateway.cli.call import Call, Exit, listed
from gateway.cli.parser import Group, pages
from gateway.cli.show import when


def add(group: Group) -> None:
    listing = group.command("list", calls, "calls to partners, newest first; without --state those not done")
    listing.add_argument("--state", choices=["DUE", "PARKED", "DEAD", "DONE"])
    pages(listing)
    group.command("retry", retry, "perform a parked or dead call again, now").add_argument("call_id", metavar="CALL")
    group.command("compare", compare, "ask all partners how they see what we have with them, and repair differences")


def calls(call: Call) -> Exit:
    found = listed(call, "outbox", lambda each: str(each["call_id"]), state=call.state)
    if call.state is None:
        found = [each for each in found if each["state"] != "DONE"]
    rows = [
        (
            each["call_id"],
            each["peer_node_id"],
            each["route"],
            each["subject"],
            each["state"],
            each["attempts"],
            when(each["due"]) if each["state"] == "DUE" else "",
            each["error"],
        )
        for each in found
    ]
    columns = ("call", "partner", "route", "about", "state", "tries", "next", "why")
    call.out.value(found, lambda: call.out.table(columns, rows, empty="Nothing waits."))
    return Exit.OK


def retry(call: Call) -> Exit:
    made = call.client().post("outbox", call.call_id, "retry")
    call.out.value(made, lambda: call.out.line(f"{made['route']} to {made['peer_node_id']} is performed again."))
    return Exit.OK


def compare(call: Call) -> Exit:
    counts = dict(call.client().post("reconcile"))

    def human() -> None:
        call.out.line(f"Compared {counts.pop('compared')} approvals with {counts.pop('partners')} partners.")
        for repair, count in sorted(counts.items()):
            call.out.line(f"{repair}: {count}")

    call.out.value(dict(counts), human)
    return Exit.OK
