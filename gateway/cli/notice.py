"""`interconn notice`: word to the webhook that was not taken yet, and what was given up once more."""

from gateway.cli.call import Call, Exit, listed
from gateway.cli.parser import Group, pages
from gateway.cli.show import when


def add(group: Group) -> None:
    listing = group.command("list", notices, "notices that wait to be sent or were given up, newest first")
    listing.add_argument("--state", choices=["DUE", "DEAD"])
    pages(listing)
    retrying = group.command("retry", retry, "send one that was given up again, now")
    retrying.add_argument("notice_id", metavar="NOTICE")


def notices(call: Call) -> Exit:
    found = listed(call, "notices", lambda each: str(each["notice_id"]), state=call.state)
    rows = [
        (
            each["notice_id"],
            each["kind"],
            each["id"],
            each["partner"] or each["partner_node_id"],
            each["state"],
            each["attempts"],
            when(each["due"]) if each["state"] == "DUE" else "",
            each["error"],
        )
        for each in found
    ]
    columns = ("notice", "kind", "about", "partner", "state", "tries", "next", "why")
    call.out.value(found, lambda: call.out.table(columns, rows, empty="Nothing waits to be told."))
    return Exit.OK


def retry(call: Call) -> Exit:
    made = call.client().post("notices", call.notice_id, "retry")
    call.out.value(made, lambda: call.out.line(f"The notice of {made['kind']} {made['id']} is sent again."))
    return Exit.OK
