"""The command `interconn`.

Everything about a running node goes through its admin API (gateway/admin_client.py); only `serve`, `init`, `lab`,
`demo` and `store` touch files and processes of this machine. Exit codes: 0 done, 1 refused or failed, 2 wrong command
line, 3 no gateway answers, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from gateway.cli import (
    audit,
    bench,
    channel,
    component,
    dataset,
    invite,
    job,
    key,
    local,
    node,
    notice,
    outbox,
    partner,
    project,
    receipt,
    session,
    show,
    store,
    trail,
    user,
    watch,
    way,
)
from gateway.cli.call import Call, Exit, UsageError
from gateway.cli.parser import add_group
from gateway.errors import CallerError, GatewayError, Kind, Unavailable

_OVERVIEW: Final = """\
interconn: a gateway through which institutions compute on data that none of them shows.

See it work     interconn demo                       two institutions, one model, a report
Try it          interconn lab up --dir build/lab     two nodes on this machine
                interconn partner list --lab build/lab --as bank
Run a node      interconn init --dir node --node-id ID --name NAME
                interconn serve --config node/node.toml
                interconn node                       who it is, and what ends soon
Work with it    interconn invite | partner | key | dataset | audit | component | project | job
See how it is   interconn node | pending | events | job status | channel top
Look after it   interconn user add | list | token | revoke | passwd
                interconn store backup | restore | migrate | rollback | prune
                interconn outbox list | retry | compare
                interconn notice list | retry
                interconn partner way        proxies, relays, partners that cannot be reached
                interconn session declare | list | close
About           interconn version | backends | bench kernels | bench gpu

`interconn COMMAND --help` explains each. A node is chosen by --config node.toml, by INTERCONN_CONFIG, or by
--lab DIR --as NAME. --json prints one JSON value instead of tables.
Exit codes: 0 done, 1 refused or failed, 2 wrong command line, 3 no gateway answers, 130 interrupted.
"""


def parser() -> argparse.ArgumentParser:
    """The whole grammar."""
    top = argparse.ArgumentParser(
        prog="interconn",
        description="Interconnection gateway for privacy computing.",
        epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong command line, 3 no gateway answers, 130 interrupted.",
    )
    top.add_argument(
        "--version",
        dest="run",
        action="store_const",
        const=local.version,
        default=argparse.SUPPRESS,
        help="as `version`",
    )
    actions = top.add_subparsers(title="commands", metavar="COMMAND")
    local.add(actions)
    node.add(actions)
    watch.add(actions)
    invite.add(add_group(actions, "invite", "pairing with other nodes by a signed file"))
    partners = add_group(actions, "partner", "contracts with other nodes")
    partner.add(partners)
    way.add(partners)
    way.add_relay(add_group(actions, "relay", "passing bytes on between partners"))
    key.add(add_group(actions, "key", "signing keys, ours and the partners'"))
    dataset.add(add_group(actions, "dataset", "data that is offered and granted"))
    audits = add_group(actions, "audit", "approvals, given and asked for; and the audit trail")
    audit.add(audits)
    trail.add(audits)
    component.add(add_group(actions, "component", "self-descriptions of components"))
    project.add(add_group(actions, "project", "rooms for cooperation"))
    jobs = add_group(actions, "job", "jobs and their results")
    job.add(jobs)
    receipt.add(jobs)
    channel.add(add_group(actions, "channel", "what passes between our containers and the partners"))
    session.add(add_group(actions, "session", "sessions for the containers of other products"))
    user.add(add_group(actions, "user", "who may use the admin API"))
    outbox.add(add_group(actions, "outbox", "calls to partners: what waits, what was given up"))
    notice.add(add_group(actions, "notice", "word to the webhook: what waits, what was given up"))
    store.add(add_group(actions, "store", "the database: backup, restore, schema, retention"))
    bench.add(add_group(actions, "bench", "how fast this machine computes"))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    given = parser().parse_args(arguments)
    if "run" not in given:
        if "help" in given:
            given.help.print_help()
            return Exit.USAGE
        sys.stdout.write(_OVERVIEW)
        return Exit.OK
    call = Call(given, show.Output(as_json=getattr(given, "json", False)))
    try:
        code: Exit = given.run(call)
    except UsageError as error:
        show.error(str(error))
        return Exit.USAGE
    except Unavailable as error:
        show.error(str(error))
        return Exit.UNREACHABLE if error.kind is Kind.PEER_UNREACHABLE else Exit.FAILED
    except CallerError as error:
        show.error(str(error))
        return Exit.USAGE
    except GatewayError as error:
        show.error(f"{error} (code {error.wire.code})")
        return Exit.FAILED
    except BrokenPipeError:
        return Exit.FAILED
    except OSError as error:
        show.error(str(error))
        return Exit.FAILED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code
