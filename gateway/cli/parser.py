"""The grammar of the command line: groups of commands with the options that all of them share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.call import CONFIG_VARIABLE, TOKEN_VARIABLE, Call, Exit

if TYPE_CHECKING:
    Actions = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # it has no public name

Run = Callable[[Call], Exit]


def shared(*, node: bool) -> argparse.ArgumentParser:
    """Options that every command takes; with `node` also those that choose a gateway."""
    # SUPPRESS: an option that is not given must not overwrite what another parser has read.
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON value instead of tables")
    if node:
        which = parser.add_argument_group("which node")
        which.add_argument("--config", type=Path, metavar="FILE", help=f"its node.toml (or {CONFIG_VARIABLE})")
        which.add_argument("--lab", type=Path, metavar="DIR", help="a lab's folder, with --as")
        which.add_argument("--as", dest="node", metavar="NAME", help="a node of that lab: bank, payment ...")
        which.add_argument(
            "--token-file", type=Path, metavar="FILE", help=f"your own token (or {TOKEN_VARIABLE}); else the node's"
        )
    return parser


class Group:
    """`interconn <noun> <verb>`: adds the verbs of one noun."""

    def __init__(self, actions: "Actions") -> None:
        self._actions = actions

    def command(self, name: str, run: Run, summary: str, *, node: bool = True) -> argparse.ArgumentParser:
        """A verb: its parser, to which the caller adds arguments."""
        return add_command(self._actions, name, run, summary, node=node)


def pages(parser: argparse.ArgumentParser) -> None:
    """The option of a list that comes in pages (gateway.cli.call.listed)."""
    parser.add_argument("--all", action="store_true", help="every record, not the first 1,000 only")


def add_command(actions: "Actions", name: str, run: Run, summary: str, *, node: bool) -> argparse.ArgumentParser:
    """A command that runs `run`."""
    sentence = f"{summary[0].upper()}{summary[1:]}."
    parser = actions.add_parser(
        name, help=summary, description=sentence, parents=[shared(node=node)], argument_default=None
    )
    parser.set_defaults(run=run)
    return parser


def add_group(actions: "Actions", name: str, summary: str) -> Group:
    """A noun; without a verb it prints its help."""
    sentence = f"{summary[0].upper()}{summary[1:]}."
    parser = actions.add_parser(name, help=summary, description=sentence)
    parser.set_defaults(help=parser)
    return Group(parser.add_subparsers(title="commands", metavar="COMMAND", required=False))
