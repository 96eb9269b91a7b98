"""What is thrown away after a while: files of ended jobs, and log files that were rotated out.

Records stay: the database still tells what was run, approved and used.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.model import Job
from gateway.ports import Store, Tx
from gateway.runtime.staging import Folders
from specs.states import JobState

_ROTATED: Final = re.compile(r".+\.log\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What is, or would be, gone."""

    jobs: tuple[str, ...]
    logs: tuple[str, ...]
    bytes: int


async def prune(store: Store, folders: Folders, log: Path, *, before_ms: int, really: bool) -> Pruned:
    """Remove the folders of jobs that ended before `before_ms` (since 1970), and log files not written since then.

    log: the folder of the logs; the file being written is never touched. The gateway may be at work: a job that has
    ended does not start again. With `really` false nothing is removed.
    """

    def ended(tx: Tx) -> Sequence[Job]:
        over = [*tx.select(Job, status=JobState.FINISHED), *tx.select(Job, status=JobState.REJECTED)]
        return [job for job in over if max(job.finished or 0, job.created) < before_ms]

    found = [(job.job_id, folders.job(job.job_id)) for job in await store.run(ended)]
    kept = [(job_id, folder) for job_id, folder in found if folder.is_dir() and not folder.is_symlink()]
    logs = [
        file
        for file in sorted(log.iterdir() if log.is_dir() else ())
        if _ROTATED.fullmatch(file.name) and file.is_file() and file.stat().st_mtime * 1000 < before_ms
    ]
    size = sum(_size(folder) for _, folder in kept) + sum(file.stat().st_size for file in logs)
    if really:
        for _, folder in kept:
            shutil.rmtree(folder)
        for file in logs:
            file.unlink(missing_ok=True)
    return Pruned(tuple(job_id for job_id, _ in kept), tuple(file.name for file in logs), size)


def _size(folder: Path) -> int:
    return sum(each.lstat().st_size for each in folder.rglob("*") if each.is_file() and not each.is_symlink())
