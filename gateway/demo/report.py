"""The demo's report: report.json for scripts and report.html for people, self-contained, from the facts of one run.

No fact is computed here beyond counting and ordering calls. Weights are those of the bank alone: the demo plays the
bank's side when it reports, and the other side's weights are not the bank's to show.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, Final

from gateway.demo import charts
from specs.routes import ROUTES

AUC_GAP: Final = 0.01
COMMON: Final = 800
CALL_OUT: Final = "call.out"
WEIGHTS_SHOWN: Final = 30
MESSAGES: Final = "messages of the tasks"
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Party:
    """One institution. style: its class on the page; holds: in words; columns: names of its attributes."""

    name: str
    node_id: str
    inst_id: str
    role: str
    style: str
    holds: str
    columns: Sequence[str]
    rows: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Step:
    """Something the two administrators did; times in milliseconds since the epoch.

    messages: the tasks' own messages went over the line in this step.
    """

    title: str
    story: str
    started: int
    finished: int
    messages: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the report tells.

    events: what each node's journal holds, by node id. tasks: as `GET jobs/{id}` of the bank answers. shares: by party
    name, the same call's shares with their times. metric: evaluation's metric0. weights: (feature, weight) of the bank.
    bytes_sent: payload bytes that each node sent to the other through the transport, by node id.
    """

    started: int
    finished: int
    parties: tuple[Party, ...]
    steps: tuple[Step, ...]
    events: Mapping[str, Sequence[Json]]
    job_id: str
    dag: Json
    tasks: Sequence[Json]
    shares: Mapping[str, Sequence[Json]]
    intersection_size: int
    metric: Json
    weights: Sequence[tuple[str, float]]
    plaintext: Json
    bank_only: Json
    bytes_sent: Mapping[str, int]

    @property
    def seconds(self) -> float:
        return (self.finished - self.started) / 1000

    def problems(self) -> list[str]:
        """What is not as the demo promises, in words; empty when all is well."""
        auc, plain, alone = float(self.metric["auc"]), float(self.plaintext["auc"]), float(self.bank_only["auc"])
        found = []
        if self.intersection_size != COMMON:
            found.append(f"{self.intersection_size} common customers instead of {COMMON}")
        if not abs(auc - plain) <= AUC_GAP:
            found.append(f"AUC {auc:.4f} is further than {AUC_GAP} from the plaintext model's {plain:.4f}")
        if not auc > alone:
            found.append(f"AUC {auc:.4f} is not better than the bank's alone, {alone:.4f}")
        return found

    def to_json(self) -> dict[str, Any]:
        """report.json"""
        return {
            "ok": not self.problems(),
            "problems": self.problems(),
            "intersection_size": self.intersection_size,
            "auc": self.metric["auc"],
            "ks": self.metric["ks"],
            "bank_only_auc": self.bank_only["auc"],
            "plaintext_auc": self.plaintext["auc"],
            "bank_only_ks": self.bank_only["ks"],
            "plaintext_ks": self.plaintext["ks"],
            "test_rows": self.metric["rows"],
            "seconds": round(self.seconds, 2),
            "bytes_sent": dict(self.bytes_sent),
            "job_id": self.job_id,
            "task_ids": {task["task_name"]: task["task_id"] for task in self.tasks},
            "parties": {party.name: party.node_id for party in self.parties},
            "steps": [
                {"title": step.title, "seconds": round((step.finished - step.started) / 1000, 2)} for step in self.steps
            ],
        }


def write(out: Path, facts: Facts) -> Path:
    """report.json and report.html into `out`, each replaced in one step; the path of the page."""
    out.mkdir(parents=True, exist_ok=True)
    _replace(out / "report.json", json.dumps(facts.to_json(), indent=1) + "\n")
    page = out / "report.html"
    _replace(page, render(facts))
    return page


def _replace(file: Path, content: str) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_text(content, encoding="utf-8")
    part.replace(file)


@dataclass(slots=True)
class Calls:
    """Calls of one kind within one step: who called, what, how often, how long, with which codes."""

    caller: str
    callee: str
    route: str
    first: int
    count: int = 0
    milliseconds: float = 0.0
    failed: int = 0

    @property
    def path(self) -> str:
        known = ROUTES.get(self.route)
        return f"{known.method} {known.path}" if known else self.route


def calls(events: Mapping[str, Sequence[Json]], *, since: int, until: int) -> list[Calls]:
    """Calls between the nodes in a span of time, those of one kind counted together, by first occurrence."""
    found: dict[tuple[str, str, str], Calls] = {}
    for caller, entries in events.items():
        for entry in entries:
            if entry.get("event") != CALL_OUT or not since <= entry["at"] < until:
                continue
            key = (caller, str(entry.get("peer", "")), str(entry.get("route", "")))
            kind = found.setdefault(key, Calls(*key, first=entry["at"]))
            kind.first = min(kind.first, entry["at"])
            kind.count += 1
            kind.milliseconds += float(entry.get("ms") or 0)
            kind.failed += entry.get("code") not in {0, None, "0"}
    return sorted(found.values(), key=lambda kind: kind.first)


def render(facts: Facts) -> str:
    """The page as one text without anything to load."""
    style = resources.files("gateway.demo").joinpath("report.css").read_text(encoding="utf-8")
    sections = (
        _summary(facts),
        _institutions(facts),
        _story(facts),
        _job(facts),
        _quality(facts),
        _weights(facts),
        _learned(facts),
        _traffic(facts),
        _again(),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>interconn demo: {escape(facts.job_id)}</title><style>{style}</style></head><body>"
        f"{charts.MARKERS}<main>" + "".join(sections) + "</main></body></html>\n"
    )


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def _p(words: str) -> str:
    """A paragraph; `words` is HTML."""
    return f"<p>{words}</p>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    """Cells are HTML."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _name(facts: Facts, node_id: str) -> str:
    return next((party.name for party in facts.parties if party.node_id == node_id), node_id)


def _bytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / 1024:.1f} KiB"


def _summary(facts: Facts) -> str:
    auc, alone, plain = facts.metric["auc"], facts.bank_only["auc"], facts.plaintext["auc"]
    tiles = (
        (f"{facts.intersection_size}", "customers in common, found without showing the others"),
        (f"{auc:.3f}", f"AUC of the joint model; the bank alone reaches {alone:.3f}"),
        (f"{abs(auc - plain):.4f}", "distance from the same model without any protection"),
        (f"{facts.seconds:.0f} s", f"from nothing to the result, {_bytes(sum(facts.bytes_sent.values()))} exchanged"),
    )
    shown = "".join(
        f'<div class="tile"><strong>{escape(big)}</strong><span>{escape(small)}</span></div>' for big, small in tiles
    )
    problems = facts.problems()
    verdict = (
        '<p class="verdict wrong">Not as promised: ' + "; ".join(map(escape, problems)) + "</p>"
        if problems
        else '<p class="verdict">All promises of the demo were kept.</p>'
    )
    first, second = (party.name for party in facts.parties)
    lead = (
        f"<b>{escape(first)}</b> lends money and knows which loans went bad. <b>{escape(second)}</b> knows the same "
        "people's accounts. Neither may hand its table to the other. This page shows how the two trained one model "
        "over both tables, each in its own gateway, and what left which house on the way."
    )
    title = "<h1>One model, two institutions, no shared table</h1>"
    return f'<header>{title}{_p(lead)}{verdict}</header><div class="tiles">{shown}</div>'


def _institutions(facts: Facts) -> str:
    cards = []
    for party in facts.parties:
        columns = "".join(f"<li>{escape(column.replace('_', ' '))}</li>" for column in party.columns)
        cards.append(
            f'<div class="card {party.style}"><h3>{escape(party.name)} <small>{escape(party.role)}</small></h3>'
            f"<p>{escape(party.holds)}: {party.rows} rows, {len(party.columns)} attributes.</p><ul>{columns}</ul>"
            f"<p class='id'>node {escape(party.node_id)}<br/>institution {escape(party.inst_id)}<br/>"
            f"CA fingerprint {escape(party.fingerprint[:16])}…</p></div>"
        )
    source = (
        "The data are the German credit table (H. Hofmann, 1994, UCI Machine Learning Repository, CC BY 4.0) cut in "
        "two; the customer numbers are synthetic. Everything else on this page really happened, between two gateways "
        "with their own processes, databases and keys."
    )
    return _section("The two institutions", f'<div class="cards">{"".join(cards)}</div>', _p(source))


def _story(facts: Facts) -> str:
    columns = [(party.name, party.style) for party in facts.parties]
    place = {party.node_id: number for number, party in enumerate(facts.parties)}
    parts = [
        _p(
            "Arrows are HTTPS calls between the two gateways, in the order of their first occurrence within a step; "
            "equal calls are counted. Paths are those of the standard, but for the one below "
            "/v1/interconn-ext/ with which both gateways sign a receipt. The messages of the tasks pass over a "
            "stream that the two gateways have agreed on; another product would get them by chan/invoke."
        )
    ]
    for number, step in enumerate(facts.steps, 1):
        kinds = [
            kind
            for kind in calls(facts.events, since=step.started, until=step.finished)
            if kind.caller in place and kind.callee in place and kind.caller != kind.callee
        ]
        arrows = [
            charts.Arrow(
                place[kind.caller],
                place[kind.callee],
                kind.path,
                kind.count,
                f"{kind.milliseconds / kind.count:.0f} ms" + (f", {kind.failed} refused" if kind.failed else ""),
                failed=kind.failed == kind.count,
            )
            for kind in kinds
        ]
        if step.messages:
            arrows += _messages(facts)
        seconds = (step.finished - step.started) / 1000
        drawing = charts.sequence(columns, arrows) if arrows else '<p class="quiet">No call between the two.</p>'
        parts.append(
            f'<div class="step"><h3><span class="number">{number}</span>{escape(step.title)} '
            f"<small>{seconds:.1f} s</small></h3>{_p(escape(step.story))}{drawing}</div>"
        )
    return _section("What happened, step by step", *parts)


def _messages(facts: Facts) -> list[charts.Arrow]:
    """What the tasks sent each other, as one arrow a direction; the transport counts bytes, not calls."""
    return [
        charts.Arrow(number, 1 - number, MESSAGES, 1, f"{_bytes(facts.bytes_sent[party.node_id])} in all")
        for number, party in enumerate(facts.parties)
        if facts.bytes_sent.get(party.node_id)
    ]


def _job(facts: Facts) -> str:
    began = min(
        (share["started"] for side in facts.shares.values() for share in side if share.get("started")), default=0
    )
    rows: list[tuple[str, str, float, float]] = []
    length: dict[str, float] = {}
    for task in facts.tasks:
        for party in facts.parties:
            for share in facts.shares.get(party.name, ()):
                if share["task_name"] != task["task_name"] or not (share.get("started") and share.get("finished")):
                    continue
                start, end = (share["started"] - began) / 1000, (share["finished"] - began) / 1000
                rows.append((f"{task['task_name']} at {party.name}", party.style, start, end))
                length[task["task_name"]] = max(length.get(task["task_name"], 0), end - start)
    notes = {name: f"{seconds:.1f} s" for name, seconds in length.items()}
    return _section(
        "The job",
        _p(
            f"Job <code>{escape(facts.job_id)}</code>. Each task is a process of its own at each institution that "
            "takes part, started by its own gateway with that institution's data only."
        ),
        charts.dag(facts.dag["components"], notes),
        "<h3>When each task ran</h3>",
        charts.timeline(rows, title="When each task ran") if rows else _p("The tasks' times are not known."),
    )


def _quality(facts: Facts) -> str:
    figures = (
        ("bank alone", "alone", facts.bank_only),
        ("both, protected", "joint", facts.metric),
        ("both, unprotected", "plain", facts.plaintext),
    )
    low = min(0.5, *(float(figure["auc"]) for _, _, figure in figures))
    confusion = facts.metric.get("confusion", {}).get("ks")
    parts = [
        _p(
            f"All three are judged on the same {facts.metric['rows']} customers that no training saw. The unprotected "
            "model is scikit-learn's logistic regression on the pooled table with the same encoding and penalty: what "
            "the protection costs in quality is the difference between the last two bars."
        ),
        charts.bars(
            [(name, style, float(figure["auc"])) for name, style, figure in figures],
            low=low,
            high=max(0.9, *(float(figure["auc"]) for _, _, figure in figures)),
            title="AUC of the three models",
        ),
        "<h3>ROC</h3>",
        charts.roc([(f"{name} ({figure['auc']:.3f})", style, figure["curve"]) for name, style, figure in figures]),
        "<h3>KS</h3>",
        _p(f"The largest distance is {facts.metric['ks']:.3f}: the best single cut between good and bad loans."),
        charts.ks(facts.metric["curve"], bad_share=facts.metric["positives"] / facts.metric["rows"]),
    ]
    if confusion:
        parts += [
            "<h3>At that cut</h3>",
            _table(
                ("", "flagged", "not flagged"),
                (
                    ("bad loans", str(confusion["true_positive"]), str(confusion["false_negative"])),
                    ("good loans", str(confusion["false_positive"]), str(confusion["true_negative"])),
                ),
                "small",
            ),
        ]
    return _section("How good the model is", *parts)


def _weights(facts: Facts) -> str:
    ordered = sorted(facts.weights, key=lambda pair: -abs(pair[1]))
    hidden = len(ordered) - WEIGHTS_SHOWN
    bank, other = facts.parties
    return _section(
        f"What {bank.name} knows of the model",
        _p(
            f"The weights of its own {len(ordered)} encoded columns; a positive weight speaks for a bad loan. The "
            f"weights of the other columns are at {escape(other.name)} and are not shown here, because "
            f"{escape(bank.name)} never had them."
            + (f" The {WEIGHTS_SHOWN} largest of {len(ordered)} are drawn." if hidden > 0 else "")
        ),
        charts.weights(ordered[:WEIGHTS_SHOWN], title=f"Weights of {bank.name}"),
    )


_LEARNED: Final = {
    "psi": (
        "which of its customers the other has too, and how many rows the other has",
        "the same",
        "the numbers of customers whom only one side knows",
    ),
    "split": ("nothing new", "nothing new", "nothing is sent: both compute the same rows from one seed"),
    "feature_encode": ("nothing new", "nothing new", "nothing is sent: each encodes its own columns"),
    "hetero_lr": (
        (
            "the weights of its own columns and the intercept; the other's number of columns and one rounded statistic "
            "of their size"
        ),
        "the weights of its own columns; the same two numbers of the other",
        "features, labels, the other's weights, every prediction and gradient during training",
    ),
    "hetero_lr_predict": (
        "the score of each held-out common customer, and with it the other side's part of that score",
        "nothing new",
        "features and weights of the other side",
    ),
    "evaluation": ("AUC, KS and curves", "nothing: it does not take part", "nothing is sent"),
}


def _learned(facts: Facts) -> str:
    first, second = facts.parties
    rows = []
    for component in facts.dag["components"]:
        told = _LEARNED.get(component["componentName"])
        if told:
            rows.append((f"<code>{escape(component['name'])}</code>", *map(escape, told)))
    return _section(
        "Who learned what",
        _table(("task", f"{first.name} learned", f"{second.name} learned", "stayed hidden"), rows),
        _p(
            "This holds against a partner that follows the protocol and tries to conclude as much as it can from "
            "what it sees. Both sides also see who asked for what and when, and the size of each message. The details "
            "and the limits stand in docs/operators."
        ),
    )


def _traffic(facts: Facts) -> str:
    rows = []
    for party in facts.parties:
        made = [kind for kind in calls(facts.events, since=0, until=1 << 62) if kind.caller == party.node_id]
        rows.append(
            (
                escape(party.name),
                _bytes(facts.bytes_sent.get(party.node_id, 0)),
                str(sum(kind.count for kind in made)),
                str(sum(kind.failed for kind in made)),
            )
        )
    return _section(
        "What went over the line",
        _table(("institution", "protocol messages sent", "management and control calls", "of these refused"), rows),
        _p("Messages are what the tasks exchanged through the transport; calls are contracts, approvals, scheduling."),
    )


def _again() -> str:
    return _section(
        "Do it by hand",
        _p("The same two gateways, left running for you to use:"),
        "<pre>interconn lab up --dir build/lab --approved\n"
        "interconn partner list --lab build/lab --as bank\n"
        "interconn job new --out job.toml\n"
        "interconn lab down --dir build/lab</pre>",
        _p("The figures of this page for scripts are in <code>report.json</code>."),
    )
