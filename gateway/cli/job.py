"""`interconn job`: write, check, submit, approve, watch and harvest jobs."""

import argparse
import json
import re
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.cli.call import Call, Exit, UsageError, listed, partner_id
from gateway.cli.follow import follow
from gateway.cli.parser import Group, pages
from gateway.cli.show import size, when
from gateway.errors import Kind, Refused
from specs.description import CONF_KEYS
from specs.states import JobState, LogLevel

FILE_BYTES: Final = 1 << 20
WATCH_S: Final = 1.0
ENDED: Final = frozenset({JobState.FINISHED.value, JobState.REJECTED.value})
SUCCEEDED: Final = "succeeded"


def add(group: Group) -> None:
    new = group.command("new", creating, "write a job file to start from", node=False)
    new.add_argument(
        "--out", dest="out_file", type=Path, metavar="FILE", help="file to write; by default standard output"
    )
    validate = group.command("validate", validating, "check a job file and show what it expands to")
    validate.add_argument("file", type=Path, help="job file (TOML or JSON)")
    submit = group.command("submit", submitting, "start a job; it runs once every partner has approved it")
    submit.add_argument("file", type=Path, help="job file (TOML or JSON)")
    submit.add_argument("--dry-run", action="store_true", help="check and show only; nothing is sent")
    pages(group.command("list", listing, "jobs known here, newest first"))
    approve = group.command("approve", approving, "take part in a partner's job")
    _which(approve)
    approve.add_argument("--yes", action="store_true", help="do not ask")
    _which(group.command("reject", rejecting, "decline a partner's job"))
    status = group.command("status", showing, "state of a job and its tasks")
    _which(status)
    status.add_argument("--watch", action="store_true", help="follow it to its end; exit code 1 unless it succeeds")
    _which(group.command("show", telling, "why a job waits or failed, and what happened here when"))
    logs = group.command("logs", logging, "log lines of our side of a job")
    _which(logs)
    logs.add_argument("--task", metavar="NAME", help="only of this task")
    logs.add_argument("--start", type=int, metavar="N", help="first line")
    logs.add_argument("--length", type=int, metavar="N", help="number of lines")
    logs.add_argument("--level", choices=[each.value for each in LogLevel], help="only of this level and above (debug)")
    logs.add_argument("--partner", help="what this partner (node id or name) shows of its side, if its admin consented")
    logs.add_argument("--follow", action="store_true", help="show lines as they come, until the job has ended")
    outputs = group.command("outputs", harvesting, "results that this side may see")
    _which(outputs)
    outputs.add_argument("--download", type=Path, metavar="DIR", help="also fetch them into this folder")
    _which(group.command("bytes", counting, "how much was sent to each partner"))
    stop = group.command("stop", stopping, "stop a job, or one task and those behind it")
    _which(stop)
    stop.add_argument("--task", metavar="NAME", help="only from this task on")
    rerun = group.command("rerun", rerunning, "run an ended job again; what had succeeded is used again")
    _which(rerun)
    rerun.add_argument("--from", dest="task", metavar="NAME", help="run this task and those behind it in any case")
    rerun.add_argument("--file", type=Path, help="corrected job file; what it changes is run, and what is behind that")


def _which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", help="job id")


def read_job_file(file: Path) -> Mapping[str, Any]:
    """The tree of a job file, TOML or (by its ending) JSON; raises UsageError where it cannot be read."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    if len(raw) > FILE_BYTES:
        raise UsageError(f"{file} is larger than {FILE_BYTES} bytes")
    try:
        tree = json.loads(raw) if file.suffix == ".json" else tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:  # both decoders' errors are ValueErrors
        raise UsageError(f"{file}: {error}") from error
    if not isinstance(tree, dict):
        raise UsageError(f"{file}: a job file is a table")
    return tree


def creating(call: Call) -> Exit:
    from gateway.mgmt_plane.core.jobfile import template  # noqa: PLC0415  # only where it is wanted

    if call.out_file is None:
        call.out.value(template(), lambda: call.out.line(template().rstrip("\n")))
        return Exit.OK
    try:
        with call.out_file.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise Refused(f"{call.out_file} exists", kind=Kind.CONFLICT) from None
    call.out.value({"file": str(call.out_file)}, lambda: call.out.line(f"wrote {call.out_file}"))
    return Exit.OK


def validating(call: Call) -> Exit:
    checked = call.client().post_json("jobs", "validate", body=read_job_file(call.file))
    call.out.value(checked, lambda: _print_check(call, checked))
    return Exit.OK if checked["ok"] else Exit.FAILED


def _print_check(call: Call, checked: Mapping[str, Any]) -> None:
    for problem in checked["problems"]:
        call.out.line(f"{problem['where']}: {problem['message']}")
    if not checked["ok"]:
        call.out.line("The job file cannot be used.")
        return
    _print_dag(call, checked["dag"], checked["conf"])
    call.out.line("The job file is good.")


def _print_dag(call: Call, dag: Mapping[str, Any], conf: Mapping[str, Any]) -> None:
    call.out.members(list(conf["role"].items()))
    rows = [
        [
            component["name"],
            f"{component['provider']}/{component['componentName']} {component['version']}",
            [link["key"] for link in component["input"]] or _sources(conf, component["name"]),
            [link["key"] for link in component["output"]],
        ]
        for component in dag["components"]
    ]
    call.out.table(("task", "component", "takes", "makes"), rows, empty="No tasks.")
    # Who gets which result is a parameter, so nobody approves without having seen them.
    for component in dag["components"]:
        for whose, given in _parameters(conf, component["name"]):
            call.out.line(
                f"{component['name']} ({whose}): {', '.join(f'{key}={value}' for key, value in given.items())}"
            )


def _parameters(conf: Mapping[str, Any], task: str) -> list[tuple[str, dict[str, str]]]:
    """("all" or the party, parameters as JSON) of a task, without the datasets, which the table shows."""
    blocks = {"all": conf["task_params"].get("common", {})}
    for role, members in conf["task_params"].items():
        if role != "common":
            blocks |= {f"{role}.{index}": own for index, own in members.items()}
    found = {
        whose: {key: json.dumps(value) for key, value in block.get(task, {}).items() if key not in CONF_KEYS}
        for whose, block in blocks.items()
    }
    return [(whose, given) for whose, given in found.items() if given]


def _sources(conf: Mapping[str, Any], task: str) -> list[str]:
    parties = conf["task_params"]
    return [
        f"{role}: {own[task]['dataset_id']}"
        for role, members in parties.items()
        if role != "common"
        for own in members.values()
        if "dataset_id" in own.get(task, {})
    ]


def submitting(call: Call) -> Exit:
    if call.dry_run:
        return validating(call)
    job = call.client().post_json("jobs", body=read_job_file(call.file))
    call.out.value(job, lambda: call.out.line(str(job["job_id"])))
    return Exit.OK


def listing(call: Call) -> Exit:
    jobs = listed(call, "jobs", lambda each: str(each["job_id"]))
    rows = [
        [job["job_id"], job["name"], job["status"], job["outcome"], job["initiator"], when(job["created"])]
        for job in jobs
    ]
    columns = ("job", "name", "state", "outcome", "initiator", "since")
    call.out.value(jobs, lambda: call.out.table(columns, rows, empty="No jobs yet."))
    return Exit.OK


def approving(call: Call) -> Exit:
    client = call.client()
    seen = client.get("jobs", call.job)
    if not call.out.as_json:
        job = seen["job"]
        call.out.members([("name", job["name"]), ("initiator", job["initiator"]), ("project", job.get("project_id"))])
        _print_dag(call, job["dag"], job["config"])
        _print_problems(call, seen)
    if not call.agree("Take part in this job?", otherwise="--yes"):
        call.out.line("Nothing was changed.")
        return Exit.FAILED
    done = client.post("jobs", call.job, "approve")
    decision = done.get("decision") or {"final": True}
    waits = "" if decision["final"] else f"{decision['by']} agreed, another admin must"
    return _done(call, done, waits or "approved")


def _print_problems(call: Call, seen: Mapping[str, Any]) -> None:
    for problem in seen.get("problems", ()):
        call.out.line(f"It would fail here: {problem['where']}: {problem['message']}")


def rejecting(call: Call) -> Exit:
    return _done(call, call.client().post("jobs", call.job, "reject"), "rejected")


def counting(call: Call) -> Exit:
    sent = call.client().get("jobs", call.job, "bytes")
    rows = [[node, size(count)] for node, count in sent.items()]
    call.out.value(sent, lambda: call.out.table(("partner", "sent"), rows, empty="Nothing was sent."))
    return Exit.OK


def stopping(call: Call) -> Exit:
    client = call.client()
    job = client.get("jobs", call.job)["job"]
    ended = f"has ended already: {job['status']}, {job['outcome']}" if job["status"] in ENDED else ""
    return _done(call, client.post("jobs", call.job, "stop", task_name=call.task), ended or "stopping")


def _done(call: Call, answer: Any, word: str) -> Exit:
    call.out.value(answer, lambda: call.out.line(f"{call.job}: {word}"))
    return Exit.OK


def rerunning(call: Call) -> Exit:
    file = read_job_file(call.file) if call.file else None
    job = call.client().post("jobs", call.job, "rerun", task_name=call.task, file=file)
    call.out.value(job, lambda: call.out.line(str(job["job_id"])))
    return Exit.OK


def telling(call: Call) -> Exit:
    seen = call.client().get("jobs", call.job)
    call.out.value(seen, lambda: _print_story(call, seen))
    return Exit.OK


def _print_story(call: Call, seen: Mapping[str, Any]) -> None:
    """The explanation, what is waited for, and this party's timeline."""
    job = seen["job"]
    call.out.line(f"{job['name']} ({job['job_id']}): {job['status']}, {job['outcome']}")
    call.out.line(seen["explanation"])
    _print_problems(call, seen)
    waits = [
        [wait["what"], wait["node_id"], when(wait["since"]), when(wait["until"]) if wait["until"] else ""]
        for wait in seen["waiting"]
    ]
    if waits:
        call.out.table(("waits for", "node", "since", "until at most"), waits, empty="")
    moments = [(job["created"], "job", "known here"), (job["started"], "job", "started")]
    for task in seen["tasks"]:
        for share in task["shares"]:
            whose = f"{task['task_name']} {share['role']}.{share['index']}"
            moments += [(share["created"], whose, "asked for"), (share["started"], whose, "component started")]
            end = " ".join(str(share[part]) for part in ("result_code", "message") if share.get(part))
            moments.append((share["finished"], whose, f"{share['status']} {end}".rstrip()))
    moments.append((job["finished"], "job", f"{job['status']}, {job['outcome']}"))
    rows = [[when(at), whose, what] for at, whose, what in sorted((m for m in moments if m[0]), key=lambda m: m[0])]
    call.out.table(("when", "what", "happened"), rows, empty="Nothing has happened yet.")


def showing(call: Call) -> Exit:
    client = call.client()
    seen = client.get("jobs", call.job)
    if call.watch:
        shown: Sequence[object] = ()
        while seen["job"]["status"] not in ENDED:
            if not call.out.as_json and (states := _states(seen)) != shown:
                shown = states
                call.out.line(f"{seen['job']['status']}: {', '.join(states)}")
            time.sleep(WATCH_S)
            seen = client.get("jobs", call.job)
    call.out.value(seen, lambda: _print_job(call, seen))
    return Exit.FAILED if call.watch and seen["job"]["outcome"] != SUCCEEDED else Exit.OK


def _states(seen: Mapping[str, Any]) -> list[str]:
    return [f"{task['task_name']} {task['status']}" for task in seen["tasks"]]


def _print_job(call: Call, seen: Mapping[str, Any]) -> None:
    job = seen["job"]
    call.out.members(
        [
            ("job", job["job_id"]),
            ("name", job["name"]),
            ("state", job["status"]),
            ("outcome", job["outcome"]),
            ("initiator", job["initiator"]),
            ("project", job.get("project_id")),
            ("trace id", job.get("trace_id")),
            ("started", when(job.get("started"))),
            ("finished", when(job.get("finished"))),
            ("", seen.get("explanation")),
        ]
    )
    rows = [
        [
            task["task_name"],
            task["component"],
            # Of a task in which this side has no part a participant hears nothing.
            task["status"] if job["status"] not in ENDED or task["shares"] or _told(task) else "",
            [f"{party['role']} {party['status'] or ''}".rstrip() for party in task["parties"]],
            [
                " ".join(str(share[part]) for part in ("result_code", "message") if share.get(part))
                for share in task["shares"]
            ],
        ]
        for task in seen["tasks"]
    ]
    call.out.table(("task", "component", "state", "parties", "our side"), rows, empty="No tasks yet.")


def _told(task: Mapping[str, Any]) -> bool:
    return any(party["status"] for party in task["parties"])


def logging(call: Call) -> Exit:
    client = call.client()
    if call.partner:
        if call.follow or call.level or call.start is not None or call.length is not None:
            raise UsageError("--partner goes with --task alone: a partner shows the tail")
        node = partner_id(client, call.partner)
        shown = client.get("jobs", call.job, "logs", node, **({"task_name": call.task} if call.task else {}))
        call.out.value(shown, lambda: _print_shown(call, shown))
        return Exit.OK

    def fetch(**which: Any) -> Any:
        return client.get("jobs", call.job, "logs", **which, **({"level": call.level} if call.level else {}))

    if call.follow:
        if call.start is not None or call.length is not None:
            raise UsageError("--follow begins with the first line and ends with the last")
        follow(
            fetch,
            task=call.task,
            ended=lambda: client.get("jobs", call.job)["job"]["status"] in ENDED,
            show=lambda whose, line: call.out.line(f"{whose}  {line}"),
        )
        # One JSON value, at the end.
        call.out.value(fetch(task_name=call.task) if call.out.as_json else None, lambda: None)
        return Exit.OK
    logs = fetch(task_name=call.task, start=call.start, length=call.length)
    call.out.value(logs, lambda: _print_logs(call, logs))
    return Exit.OK


def _print_shown(call: Call, shown: Sequence[Mapping[str, Any]]) -> None:
    if not shown:
        call.out.line("No task has run there.")
    for share in shown:
        words = " ".join(str(share[part]) for part in ("phase", "result_code", "message") if share[part])
        call.out.line(f"== {share['task_name']} {share['role']}.{share['index']} {share['status']} {words}".rstrip())
        for line in share["lines"]:
            call.out.line(f"{line['at']} {line['level']} {line['message'] or '(text not shown)'}")


def _print_logs(call: Call, logs: Sequence[Mapping[str, Any]]) -> None:
    """One table of the answer per share: its number of lines and the text asked for."""
    if not logs:
        call.out.line("No task has run here.")
    for share in logs:
        call.out.line(
            f"== {share['task_name']} {share['role']}.{share['index']} {share['status']}, {share['lines']} lines"
        )
        if share["text"]:
            call.out.line(share["text"].rstrip("\n"))


def harvesting(call: Call) -> Exit:
    client = call.client()
    outputs = [dict(output) for output in client.get("jobs", call.job, "outputs")]
    if call.download:
        call.download.mkdir(parents=True, exist_ok=True)
        for output in outputs:
            file = call.download / file_name(output)
            client.download("jobs", call.job, "outputs", output["namespace"], output["name"], to=file)
            output["file"] = str(file)
    rows = [
        [
            output["task_name"],
            output["key"],
            output["type"],
            f"{output['role']}.{output['index']}",
            output.get("rows"),
            size(output.get("bytes")),
            output.get("file", ""),
        ]
        for output in outputs
    ]
    columns = ("task", "output", "type", "party", "rows", "size", "file")
    call.out.value(outputs, lambda: call.out.table(columns, rows, empty="Nothing for this side yet."))
    return Exit.OK


_TABLES: Final = frozenset({"dataset", "training_set", "test_set"})


def file_name(output: Mapping[str, Any]) -> str:
    """Name of a downloaded output: `<task>.<output>.<role>.<index>.csv|json`, without anything a path could use."""
    words = (output["task_name"], output["key"], output["role"], output["index"])
    stem = ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", str(word)) for word in words)
    return f"{stem}.{'csv' if output['type'] in _TABLES else 'json'}"
