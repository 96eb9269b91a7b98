"""docs/cli.md from the grammar of the command line: `python -m tests.cli_page --write`, by `make docs`."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway import cli

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD: Final = """\
# The command line

Made from the grammar by `make docs`; do not edit. `interconn COMMAND --help` says the same and more.

A node is chosen by `--config node.toml`, by the variable `INTERCONN_CONFIG`, or by `--lab DIR --as NAME`. Who asks is
said by `--token-file FILE` or the variable `INTERCONN_TOKEN_FILE`; without either it is the node's own token file,
which is an admin.

| exit code | means |
|---:|---|
| 0 | done |
| 1 | refused or failed; one line on standard error says why, with the code of the admin API |
| 2 | wrong command line; nothing was asked |
| 3 | no gateway answers |
| 130 | interrupted |

`--json` prints exactly one JSON value on standard output, and no question is asked: where a person would be, give
`--yes` or what the question asks for. The values are those of the admin API (`/v1/admin/openapi.json` at the admin
listener describes them). Within one major version members are added and never renamed, removed or given another type;
ignore those that you do not know. Tables are for people and change at any time.

Every command of the admin API needs a role: see `/v1/admin/docs`.
"""


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """(words, parser, summary) of every command, in the order of the help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            for name, inner in action.choices.items():
                below = list(commands(inner))
                if below:
                    yield from ((f"{name} {words}", each, summary) for words, each, summary in below)
                else:
                    yield name, inner, helps[name]


def _usage(parser: argparse.ArgumentParser) -> str:
    shared = {"help", "json", "config", "lab", "node", "token_file"}
    made = argparse.ArgumentParser(prog="", add_help=False)
    for action in parser._actions:
        if action.dest not in shared:
            made._add_action(action)
    words = " ".join(made.format_usage().split()).removeprefix("usage:").strip()
    return words.replace("|", "\\|")


def page() -> str:
    """The text of docs/cli.md."""
    lines, group = [HEAD], ""
    for words, parser, summary in commands(cli.parser()):
        noun = words.partition(" ")[0] if " " in words else "node and machine"
        if noun != group:
            lines.append(f"\n## {noun}\n\n| command | arguments | what it does |\n|---|---|---|")
            group = noun
        usage = _usage(parser)
        lines.append(f"| `{words}` | {f'`{usage}`' if usage else ''} | {summary} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
