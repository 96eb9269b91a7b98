"""`interconn partner way` and `interconn relay`: networks in which partners are not simply at their address."""

import argparse
from collections.abc import Mapping
from typing import Any

from gateway.admin_client import AdminClient
from gateway.cli.call import Call, Exit, partner_id
from gateway.cli.parser import Group


def add(group: Group) -> None:
    way = group.command("way", setting, "say how a partner is reached; without options, show it")
    way.add_argument("partner", help="node id or name; with a node id there need not be a contract yet")
    way.add_argument("--proxy", metavar="URL", help="an HTTP proxy, none: directly, default: as node.toml says")
    way.add_argument("--relay", metavar="NODE", help="another partner through which it is reached; none: no relay")
    flag = argparse.BooleanOptionalAction
    way.add_argument("--hold", action=flag, help="keep connections open to it, over which it calls us")
    way.add_argument("--held", action=flag, help="reach it over the connections that it keeps open to us, only")
    way.add_argument("--address", metavar="URL", help="it is there from now on")


def add_relay(group: Group) -> None:
    group.command("list", relays, "pairs of partners between whom this node passes bytes on")
    allow = group.command("allow", allowing, "pass bytes on between two partners, which it cannot read")
    _pair(allow)
    allow.add_argument("--bytes-per-second", type=int, default=0, metavar="N", help="at most (as fast as it goes)")
    _pair(group.command("remove", removing, "stop that, also on connections that stand"))


def _pair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("one", help="node id or name")
    parser.add_argument("other", help="node id or name")


def _nodes(call: Call, client: AdminClient) -> list[str]:
    return [partner_id(client, each) for each in (call.one, call.other)]


def setting(call: Call) -> Exit:
    client = call.client()
    node_id = partner_id(client, call.partner)
    said = {
        "proxy": "" if call.proxy == "default" else call.proxy,
        "relay": "" if call.relay == "none" else call.relay and partner_id(client, call.relay),
        "hold": call.hold,
        "held": call.held,
        "address": call.address,
    }
    if any(value is not None for value in said.values()):
        way = client.post("partners", node_id, "way", **said)
    else:
        known = [each for each in client.get("ways") if each["node_id"] == node_id]
        way = known[0] if known else {"node_id": node_id}
    call.out.value(way, lambda: call.out.line(f"{node_id}: {_words(way)}"))
    return Exit.OK


def _words(way: Mapping[str, Any]) -> str:
    proxy = {"": "", "none": "directly, whatever node.toml says"}.get(way.get("proxy", ""), f"proxy {way.get('proxy')}")
    said = [
        proxy,
        f"through {way['relay']}" if way.get("relay") else "",
        f"we keep connections open to it ({way['parked']} wait now)" if way.get("hold") else "",
        f"it keeps connections open to us ({way['parked']} wait now)" if way.get("held") else "",
    ]
    return ", ".join(filter(None, said)) or "as node.toml says"


def relays(call: Call) -> Exit:
    found = call.client().get("relays")
    rows = [(each["first"], each["second"], each["bytes_per_s"] or "", each["open"], each["carried"]) for each in found]
    columns = ("one", "other", "bytes/s", "open", "carried")
    call.out.value(found, lambda: call.out.table(columns, rows, empty="This node relays for nobody."))
    return Exit.OK


def allowing(call: Call) -> Exit:
    client = call.client()
    made = client.post("relays", nodes=_nodes(call, client), bytes_per_s=call.bytes_per_second)
    call.out.value(made, lambda: call.out.line(f"{made['first']} and {made['second']} may connect through this node."))
    return Exit.OK


def removing(call: Call) -> Exit:
    client = call.client()
    gone = client.post("relays", "remove", nodes=_nodes(call, client))
    call.out.value(gone, lambda: call.out.line(f"{gone['first']} and {gone['second']} are not relayed any more."))
    return Exit.OK
