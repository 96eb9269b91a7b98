"""`interconn node`: who this node is, and what of it ends soon."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.cli.call import Call, Exit
from gateway.cli.parser import add_command
from gateway.cli.show import grouped

if TYPE_CHECKING:
    from gateway.cli.parser import Actions


def add(actions: "Actions") -> None:
    add_command(actions, "node", showing, "who this node is, where it listens, and what ends soon", node=True)


def showing(call: Call) -> Exit:
    client = call.client()
    found = {**client.get("node"), "expiring": client.get("expiring")}
    call.out.value(found, lambda: _print(call, found))
    return Exit.OK


def _print(call: Call, found: Mapping[str, Any]) -> None:
    call.out.members(
        [
            ("node", found["node_id"]),
            ("name", found["name"]),
            ("institution", found["institution"]),
            ("address", found["address"]),
            *((f"{name} listens at", where) for name, where in found["listeners"].items()),
            ("fingerprint", grouped(found["fingerprint"])),
        ]
    )
    tell_expiring(call, found["expiring"])


def tell_expiring(call: Call, expiring: Sequence[Mapping[str, Any]]) -> None:
    """One line for each thing that ends soon."""
    for each in expiring:
        call.out.line(f"! {each['words']}")
