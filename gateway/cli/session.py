"""`interconn session`: sessions of the transport layer that no job of ours runs, for partners that are named."""

from gateway.cli.call import Call, Exit, partner_id, until
from gateway.cli.parser import Group
from gateway.cli.show import when


def add(group: Group) -> None:
    declare = group.command(
        "declare", declaring, "let containers of another product here use a session with these partners"
    )
    declare.add_argument("session", help="its id, or with --prefix how ids begin")
    declare.add_argument("partners", nargs="+", metavar="PARTNER", help="node id or name")
    declare.add_argument(
        "--prefix",
        action="store_true",
        help="every session whose id begins so (session_ for FATE-Flow); each lets in those whom a container names",
    )
    declare.add_argument("--days", type=int, help="for so many days (until it is closed)")
    group.command("list", listing, "the sessions that were declared")
    group.command("close", closing, "end a declared session; what waits in it is dropped").add_argument("session")


def declaring(call: Call) -> Exit:
    client = call.client()
    made = client.post(
        "sessions",
        session_id=call.session,
        prefix=call.prefix,
        nodes=[partner_id(client, each) for each in call.partners],
        expired_time=until(call.days),
    )
    end = f" until {when(made['expired_time'])}" if made["expired_time"] else ""
    what = f"Sessions {made['session_id']}..." if made["prefix"] else f"Session {made['session_id']}"
    words = f"{what}: containers here and {', '.join(made['nodes'])}{end}"
    call.out.value(made, lambda: call.out.line(words))
    return Exit.OK


def listing(call: Call) -> Exit:
    found = call.client().get("sessions")
    rows = [
        (
            each["session_id"] + ("..." if each["prefix"] else ""),
            ", ".join(each["nodes"]),
            when(each["created"]),
            "ended" if each["ended"] else when(each["expired_time"]),
        )
        for each in found
    ]
    columns = ("session", "partners", "since", "until")
    call.out.value(found, lambda: call.out.table(columns, rows, empty="No session was declared."))
    return Exit.OK


def closing(call: Call) -> Exit:
    closed = call.client().post("sessions", "close", session_id=call.session)
    call.out.value(closed, lambda: call.out.line(f"{closed['session_id']} is closed."))
    return Exit.OK
