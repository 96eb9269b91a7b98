"""`interconn store`: the database of a node: backup, restore, schema, and what is thrown away.

These work on the files and the database that node.toml names, not through the admin API: a node that does not start
must still be saved.
"""

import asyncio
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.cli.call import CONFIG_VARIABLE, DAY_MS, Call, Exit, UsageError
from gateway.cli.parser import Group
from gateway.errors import Kind, Refused

if TYPE_CHECKING:
    from gateway.config import Config

_AGE: Final = re.compile(r"([1-9][0-9]{0,4})([dh])")
_HOUR_MS: Final = 3_600_000


def add(group: Group) -> None:
    group.command("backup", backup, "write the database to a new file, also while the node runs").add_argument(
        "file", type=Path, metavar="FILE"
    )
    group.command("restore", restore, "fill an empty database from a backup").add_argument(
        "file", type=Path, metavar="FILE"
    )
    group.command("migrate", migrate, "bring the schema to this version (a start does it too)")
    back = group.command("rollback", rollback, "take the schema back, to start an older version")
    back.add_argument("--to", metavar="REVISION", help="by default the one before")
    back.add_argument(
        "--drop-audit-trail", action="store_true", help="also below the revision that brought the trail: it is lost"
    )
    prune = group.command("prune", pruning, "remove files of jobs that ended long ago, and old logs")
    prune.add_argument("--older-than", required=True, metavar="AGE", help="for example 30d or 12h")
    prune.add_argument("--dry-run", action="store_true", help="only tell what would go")


def _config(call: Call) -> "Config":
    from gateway import config  # noqa: PLC0415  # only where a file is read

    file = call.config
    if call.lab is not None:
        if call.node is None or file is not None:
            raise UsageError("--lab needs --as, and no --config")
        from gateway import lab  # noqa: PLC0415

        file = lab.read(call.lab).node(call.node).ca_file.parent.parent / "node.toml"
    elif file is None and os.environ.get(CONFIG_VARIABLE):
        file = Path(os.environ[CONFIG_VARIABLE])
    if file is None:
        raise UsageError(f"which node? --config node.toml, {CONFIG_VARIABLE}, or --lab DIR --as NAME")
    return config.load(file)


def _url(config: "Config") -> str:
    from gateway.app.database import store_url  # noqa: PLC0415

    return store_url(config)


def _stopped(config: "Config", what: str) -> None:
    """Refuse while the node runs: it would go on with a database that is no longer what it thinks."""
    from gateway.app.node import CONTROL_READY  # noqa: PLC0415

    try:
        pid = int(json.loads((config.path(config.paths.run) / CONTROL_READY).read_text(encoding="utf-8"))["pid"])
        os.kill(pid, 0)
    except (OSError, ValueError, KeyError, TypeError):
        return
    raise Refused(f"stop the node before you {what}: its process {pid} runs", kind=Kind.CONFLICT)


def backup(call: Call) -> Exit:
    from gateway.store import backup as files  # noqa: PLC0415

    rows = files.backup(_url(_config(call)), call.file, now_ms=int(time.time() * 1000))
    call.out.value({"file": str(call.file), "rows": rows}, lambda: call.out.line(f"Wrote {rows} rows to {call.file}."))
    return Exit.OK


def restore(call: Call) -> Exit:
    from gateway.store import backup as files  # noqa: PLC0415

    config = _config(call)
    _stopped(config, "restore")
    rows = files.restore(_url(config), call.file)
    call.out.value({"rows": rows, "revision": files.newest()}, lambda: call.out.line(f"Restored {rows} rows."))
    return Exit.OK


def migrate(call: Call) -> Exit:
    from gateway.store import backup as files  # noqa: PLC0415
    from gateway.store import sql  # noqa: PLC0415

    config = _config(call)
    _stopped(config, "migrate")
    sql.migrate(_url(config))
    reached = files.newest()
    call.out.value({"revision": reached}, lambda: call.out.line(f"The schema has revision {reached}."))
    return Exit.OK


def rollback(call: Call) -> Exit:
    from gateway.store import backup as files  # noqa: PLC0415

    config = _config(call)
    _stopped(config, "roll back")
    reached = files.rollback(_url(config), to=call.to, drop_audit_trail=bool(call.drop_audit_trail))
    call.out.value(
        {"revision": reached},
        lambda: call.out.line(f"The schema has revision {reached}; starting this version takes it forward again."),
    )
    return Exit.OK


def pruning(call: Call) -> Exit:
    from gateway.runtime.retention import Pruned, prune  # noqa: PLC0415
    from gateway.runtime.staging import Folders  # noqa: PLC0415
    from gateway.store.sql import SqlStore  # noqa: PLC0415

    found = _AGE.fullmatch(call.older_than)
    if found is None:
        raise UsageError("--older-than takes days or hours, for example 30d or 12h")
    before = int(time.time() * 1000) - int(found[1]) * (DAY_MS if found[2] == "d" else _HOUR_MS)
    config = _config(call)
    folders, log = Folders(config.path(config.paths.work)), config.path(config.paths.log).parent
    url = _url(config)

    async def work() -> Pruned:
        store = SqlStore(url)
        try:
            return await prune(store, folders, log, before_ms=before, really=not call.dry_run)
        finally:
            await store.close()

    gone = asyncio.run(work())
    value = {"jobs": list(gone.jobs), "logs": list(gone.logs), "bytes": gone.bytes, "dry_run": bool(call.dry_run)}
    verb = "Would remove" if call.dry_run else "Removed"
    call.out.value(
        value,
        lambda: call.out.line(
            f"{verb} the files of {len(gone.jobs)} jobs and {len(gone.logs)} logs: {gone.bytes} bytes."
        ),
    )
    return Exit.OK
