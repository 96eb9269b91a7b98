"""What a task may read is copied for it: the granted columns of a dataset, into the job's own store.

Layout as in part 3 section 7: `<store>/<namespace>/<name>/data_0` (CSV) and `metadata` (JSON). The component sees this
store only, never the catalogue or its credentials. Streaming, so a table may be larger than memory; atomic, so nobody
reads half of it.
"""

import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from gateway.errors import Kind, Refused, Unavailable
from gateway.mgmt_plane.core.dag import SAFE_ID
from gateway.mgmt_plane.service.datasets import NUMBERS, fits
from gateway.model import Dataset, JobId, Json, Party
from gateway.sdk.storage import rows_at_once

SOURCE: Final = "source"
"""Namespace of staged datasets; job namespaces end in `-<role>-<index>` and so never equal it."""
FIELD_CHARS: Final = 1 << 20
_ARTIFACT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a job's files lie below the gateway's work folder."""

    work: Path

    def job(self, job_id: JobId) -> Path:
        """Folder of a job. job_id is one plain folder name: `core.dag.safe_id` or our own made it."""
        if not SAFE_ID.fullmatch(job_id):
            raise Refused("job_id cannot name a folder", kind=Kind.MALFORMED)
        return self.work / "jobs" / job_id

    def party(self, job_id: JobId, party: Party) -> Path:
        return self.job(job_id) / f"{party.role}-{party.index}"

    def store(self, job_id: JobId, party: Party) -> Path:
        """Root of the storage that the party's components see."""
        return self.party(job_id, party) / "store"

    def task(self, job_id: JobId, party: Party, task_name: str) -> Path:
        """Working folder of a task; task names hold no separator (core.dag)."""
        return self.party(job_id, party) / "tasks" / f"t-{task_name}"

    def log(self, job_id: JobId, party: Party, task_name: str) -> Path:
        return self.party(job_id, party) / "logs" / f"t-{task_name}" / "task.log"

    def run(self, job_id: JobId, party: Party, task_name: str, digest: str) -> Path:
        """Records of one start of a task; digest: of its secret, hex. Nothing below it is the component's."""
        return self.party(job_id, party) / "runs" / f"t-{task_name}-{digest[:32]}"

    def artifact(self, job_id: JobId, party: Party, namespace: str, name: str) -> Path | None:
        """data_0 of an artifact of a party, None where there is none; names that are no plain ones are refused."""
        if not (_ARTIFACT.fullmatch(namespace) and _ARTIFACT.fullmatch(name)):
            raise Refused("namespace and name must be plain names", kind=Kind.MALFORMED)
        folder = self.store(job_id, party) / namespace / name
        file = folder / "data_0"
        # A component could have left a link that points out of its store.
        if not file.is_file() or not file.resolve().is_relative_to(self.store(job_id, party).resolve()):
            return None
        return file


def source_name(dataset: str) -> Mapping[str, str]:
    """Namespace and name under which a dataset is staged."""
    plain = len(dataset) <= 128 and SAFE_ID.fullmatch(dataset)
    name = dataset if plain else f"dataset-{hashlib.sha256(dataset.encode()).hexdigest()[:32]}"
    return {"namespace": SOURCE, "name": name}


def stage(
    dataset: Dataset,
    columns: Sequence[str],
    store: Path,
    *,
    now_ms: int,
    strict: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Copy the granted columns (() = all) of a dataset's CSV into `store`; the number of rows. Blocking.

    A dataset that is staged already stays as it is. strict: for a partner, to whom the catalogue's columns and types
    were granted and no others. Raises Refused (GRANT_MISSING) where none of the granted columns exists,
    Refused (NOT_AS_APPROVED) where strict and the file is not as the catalogue says, Unavailable (STORAGE) where the
    file cannot be read or the store not be written, Refused (STOPPED) once `stopped` says so.
    """
    place = source_name(dataset.dataset_id)
    folder = store / place["namespace"] / place["name"]
    try:
        known = json.loads((folder / "metadata").read_text(encoding="utf-8"))
        if known.get("columns_granted") == list(columns):
            return int(known["count"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        header, count = _copy(
            Path(dataset.location),
            columns,
            part / "data_0",
            metas=dataset.column_metas if strict else None,
            dataset_id=dataset.dataset_id,
            stopped=stopped,
        )
        metadata = _metadata(dataset, header, count, columns, now_ms)
        (part / "metadata").write_text(json.dumps(metadata, ensure_ascii=False), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not a readable CSV file"
        raise Unavailable(f"dataset {dataset.dataset_id} cannot be staged: {words}", kind=Kind.STORAGE) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return count


def staged_so(dataset: Dataset, columns: Sequence[str], store: Path) -> None:
    """Raises Refused(GRANT_MISSING) unless the dataset was staged in `store` with exactly these columns. Blocking.

    What a former run made of columns that are not granted any more must not come back through a rerun.
    """
    place = source_name(dataset.dataset_id)
    try:
        known = json.loads((store / place["namespace"] / place["name"] / "metadata").read_text(encoding="utf-8"))
        same = known["columns_granted"] == list(columns)
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        words = f"the grant of {dataset.dataset_id} covers other columns than in the former run: run it again"
        raise Refused(words, kind=Kind.GRANT_MISSING)


def reuse(before: Path, now: Path) -> None:
    """Make the artifact in folder `before` that in folder `now`, too; copied only where it cannot be linked. Blocking.

    Raises Unavailable (STORAGE) where it is gone. Repeating it changes nothing.
    """
    part = now.with_name(f".{now.name}.{os.getpid()}")
    try:
        if now.exists():
            return
        now.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(before, part, copy_function=_link)
        part.replace(now)
    except (OSError, shutil.Error) as error:
        raise Unavailable(
            f"{before.name} of the former run cannot be used again: it is gone", kind=Kind.STORAGE
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _copy(
    source: Path,
    columns: Sequence[str],
    target: Path,
    *,
    metas: Sequence[Json] | None,
    dataset_id: str,
    stopped: Callable[[], bool],
) -> tuple[list[str], int]:
    """metas: what the file must hold, None for anything."""
    csv.field_size_limit(FIELD_CHARS)
    with source.open(encoding="utf-8-sig", newline="") as read, target.open("w", encoding="utf-8", newline="") as write:
        rows = csv.reader(read, strict=True)
        header = next(rows, [])
        if metas is not None and header != [each.get("name") for each in metas]:
            raise _changed(f"the file of {dataset_id} has other columns than the catalogue")
        kept = [i for i, name in enumerate(header) if not columns or name in columns]
        if not kept:
            raise Refused("the dataset has none of the granted columns", kind=Kind.GRANT_MISSING)
        typed = [(i, str(metas[i].get("data_type"))) for i in kept] if metas is not None else []
        typed = [(i, kind) for i, kind in typed if kind in NUMBERS]
        writer = csv.writer(write, lineterminator="\n")
        writer.writerow(header[i] for i in kept)
        count = 0
        while some := list(islice(rows, rows_at_once(len(header)))):
            if stopped():
                raise Refused("stopped while the data were read", kind=Kind.STOPPED)
            if set(map(len, some)) != {len(header)}:
                some = [row for row in some if row]
                for record, row in enumerate(some, start=count + 2):
                    if len(row) != len(header):
                        raise csv.Error(f"record {record} has {len(row)} fields instead of {len(header)}")
            for i, kind in typed:
                for record, row in enumerate(some, start=count + 2):
                    if not fits(kind, row[i]):
                        raise _changed(f"column {header[i]} of {dataset_id} is no longer {kind} (record {record})")
            writer.writerows(some if len(kept) == len(header) else ([row[i] for i in kept] for row in some))
            count += len(some)
        write.flush()
        os.fsync(write.fileno())
    return [header[i] for i in kept], count


def _changed(words: str) -> Refused:
    return Refused(words, kind=Kind.NOT_AS_APPROVED)


def _metadata(
    dataset: Dataset, header: Sequence[str], count: int, columns: Sequence[str], now_ms: int
) -> dict[str, Any]:
    types = {str(meta.get("name")): str(meta.get("data_type", "varchar")) for meta in dataset.column_metas}
    return {
        **source_name(dataset.dataset_id),
        "column_info": [{"name": name, "type": types.get(name, "varchar")} for name in header],
        "columns_granted": list(columns),
        "partitions": 1,
        "count": count,
        "file_type": "csv",
        "data_type": "dense",
        "description": dataset.name,
        "create_time": now_ms / 1000,
        "expire_time": None,
    }
