"""The audit trail as bytes: entry -> canonical text -> hash, seals, exports, and the judgement of an exported file.

Each entry's hash covers the entry before it, so nothing can be changed, dropped, moved or put in without changing every
later hash. A seal is an entry whose signature covers the chain so far; an export starts with a signed line that fixes
its first and last entry, so that a file cut short is found too. docs/audit-trail.md has the format for other readers.

Leaves to others: what is recorded (core.acts), the store and our key (service.trail). Against whoever holds the node's
key only a copy of an earlier export helps: it must agree with every later one.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Final

from gateway.auth.schemes import Credential, parse_credential
from gateway.errors import GatewayError, ProtocolViolation, Refused
from gateway.model import Json, NodeId, TrailEntry

START: Final = "0" * 64
"""`prev` of the first entry."""
SEAL: Final = "trail.seal"
LINE_BYTES: Final = 64 << 10
"""Longest line of an export; a seal carries a certificate chain."""
PROBLEMS: Final = 20
"""So many are reported at most."""
_ENTRY_TAG: Final = b"interconn-trail-entry-1\n"
_SEAL_TAG: Final = "interconn-trail-seal-1"
_EXPORT_TAG: Final = b"interconn-trail-export-1\n"
_TEXT_CHARS: Final = 512
_VALUE_CHARS: Final = 2048
_SAFE: Final = 1 << 53
"""Whole numbers below this mean the same to every JSON reader."""


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def canonical(value: Any) -> str:
    """RFC 8785 for what a trail holds: ASCII member names, texts, whole numbers, booleans, null."""
    return _CANONICAL.encode(value)


def _line_text(text: str) -> str:
    """Bounded, and without anything that ends a line."""
    text = text[:_TEXT_CHARS]
    return text if text.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in text)


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        if len(value) <= _TEXT_CHARS:
            return value
        return f"{value[:256]}... sha256:{hashlib.sha256(value.encode(errors='replace')).hexdigest()}"
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < _SAFE else str(value)
    if isinstance(value, float):
        return str(value)
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    if len(text) > _VALUE_CHARS or ("." in text and _has_float(value)):
        return {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    return json.loads(text)


def _has_float(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_float(each) for each in value.values())
    if isinstance(value, list | tuple):
        return any(_has_float(each) for each in value)
    return isinstance(value, float)


def entry_hash(entry: TrailEntry) -> str:
    """SHA-256 hex over `prev` and everything else but `hash`."""
    # Not asdict, which copies the facts: this runs at every write.
    content = {name: getattr(entry, name) for name in _ENTRY_NAMES if name not in ("prev", "hash")}
    return hashlib.sha256(_ENTRY_TAG + f"{entry.prev}\n{canonical(content)}".encode()).hexdigest()


def chained(
    previous: TrailEntry | None,
    *,
    at: int,
    event: str,
    actor: str,
    who: str,
    subject: str,
    trace_id: str,
    facts: Json,
    bound: bool = True,
) -> TrailEntry:
    """The entry that follows `previous`. Long facts are cut or replaced by their digest, but not with `bound` off."""
    entry = TrailEntry(
        seq=1 if previous is None else previous.seq + 1,
        at=at,
        event=event,
        actor=actor,
        who=_line_text(who),
        subject=_line_text(subject),
        trace_id=_line_text(trace_id),
        facts={name: _bounded(value) for name, value in facts.items()} if bound else facts,
        prev=START if previous is None else previous.hash,
        hash="",
    )
    return replace(entry, hash=entry_hash(entry))


def seal_text(*, node_id: NodeId, seq: int, digest: str, at: int) -> bytes:
    """What a seal signs: that at this time the chain of this node had entry `seq` with this hash as its last."""
    return f"{_SEAL_TAG}\n{node_id}\n{seq}\n{digest}\n{at}".encode()


# --- exports ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of an export. first, last: seq of its entries; last = first - 1 where it has none."""

    node_id: str
    first: int
    last: int
    prev: str
    """Hash of the entry before the first."""
    head: str
    """Hash of the last entry; `prev` where there is none."""
    exported: int
    auth_type: str
    credential: str = field(repr=False)
    signature: str = field(default="", repr=False)

    def text(self) -> bytes:
        """What the signature covers: everything else."""
        content = asdict(self)
        del content["signature"]
        return _EXPORT_TAG + canonical(content).encode()


_ENTRY_NAMES: Final = tuple(each.name for each in fields(TrailEntry))
_HEADER_NAMES: Final = tuple(each.name for each in fields(Header))
_COLUMNS: Final = ("seq", "at", "time", "event", "actor", "who", "subject", "trace_id", "facts", "prev", "hash")
_FORMULA: Final = tuple("=+-@\t\r'")
_EXPORT: Final = "export"


def json_line(record: TrailEntry | Header) -> str:
    """One line of an export in JSON lines, with its line feed."""
    value = asdict(record)
    return canonical({_EXPORT: value} if isinstance(record, Header) else value) + "\n"


def csv_columns() -> str:
    """The line that a CSV export starts with."""
    return ",".join(_COLUMNS) + "\n"


def csv_line(record: TrailEntry | Header) -> str:
    """One line of an export in CSV. A cell that a spreadsheet would take for a formula gets an apostrophe in front."""
    if isinstance(record, Header):
        row = dict.fromkeys(_COLUMNS, "") | {"seq": _EXPORT, "facts": canonical(asdict(record))}
    else:
        time = datetime.fromtimestamp(record.at / 1000, UTC).isoformat(timespec="milliseconds")
        row = {name: str(value) for name, value in asdict(record).items()}
        row |= {"facts": canonical(record.facts), "time": time}
    out = io.StringIO()
    cells = [f"'{cell}" if (cell := row[name]).startswith(_FORMULA) else cell for name in _COLUMNS]
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _unwritten(why: str) -> ProtocolViolation:
    return ProtocolViolation(why)


def _built(kind: type[TrailEntry] | type[Header], names: tuple[str, ...], value: Any) -> Any:
    if not isinstance(value, dict) or set(value) != set(names):
        raise _unwritten("members are missing or too many")
    for name in names:
        wanted = dict if name == "facts" else int if name in ("seq", "at", "first", "last", "exported") else str
        if type(value[name]) is not wanted:
            raise _unwritten(f"{name} is not of its type")
    return kind(**value)


def read_json_line(text: str) -> TrailEntry | Header:
    """The record of one line. Raises ProtocolViolation where it is not byte for byte what an export writes."""
    try:
        value = json.loads(text)
        is_header = isinstance(value, dict) and set(value) == {_EXPORT}
        record: TrailEntry | Header = (
            _built(Header, _HEADER_NAMES, value[_EXPORT]) if is_header else _built(TrailEntry, _ENTRY_NAMES, value)
        )
        written = json_line(record)
    except (ValueError, RecursionError) as e:
        raise _unwritten("this is no JSON") from e
    if written != text:
        raise _unwritten("it is not written as an export writes it")
    return record


def read_csv_line(text: str) -> TrailEntry | Header:
    """As `read_json_line`, for CSV."""
    try:
        rows = list(csv.reader([text], strict=True))
        cells = dict(zip(_COLUMNS, (each.removeprefix("'") for each in rows[0]), strict=True))
        facts = json.loads(cells["facts"])
        if cells["seq"] == _EXPORT:
            record: TrailEntry | Header = _built(Header, _HEADER_NAMES, facts)
        else:
            del cells["time"]
            value = {**cells, "facts": facts, "seq": int(cells["seq"]), "at": int(cells["at"])}
            record = _built(TrailEntry, _ENTRY_NAMES, value)
        written = csv_line(record)
    except (ValueError, IndexError, OverflowError, RecursionError, csv.Error) as e:
        raise _unwritten("this is no line of an export") from e
    if written != text:
        raise _unwritten("it is not written as an export writes it")
    return record


# --- judging a file ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """line: of the file, from 1."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a file is worth. `problems` is empty for a file that is exactly what the node exported."""

    header: Header | None
    fingerprint: str
    """Of the trust anchor that signed the export, lower-case hex."""
    entries: int
    seals: int
    problems: tuple[Problem, ...]


def verify(lines: Iterable[bytes], *, trusted: frozenset[str] = frozenset()) -> Verdict:
    """Judge an export, JSON lines or CSV, line by line (with their line feeds).

    trusted: fingerprints of the node's trust anchors (SHA-256 hex of its CA). Without any, the anchor that the file
    itself carries is taken and must be compared by hand: `Verdict.fingerprint`.
    """
    judge = _Judge(trusted)
    number = 0
    for number, raw in enumerate(lines, 1):
        if len(judge.problems) >= PROBLEMS:
            break
        judge.line(number, raw)
    if len(judge.problems) < PROBLEMS:
        judge.end(number)
    return Verdict(judge.header, judge.fingerprint, judge.entries, judge.seals, tuple(judge.problems))


class _Judge:
    """Reads a file once from the top; remembers where the chain stands."""

    def __init__(self, trusted: frozenset[str]) -> None:
        self.header: Header | None = None
        self.fingerprint = ""
        self.entries = 0
        self.seals = 0
        self.problems: list[Problem] = []
        self._trusted = trusted
        self._is_csv = False
        self._began = False
        self._next = 0
        """seq that must come now."""
        self._prev: str | None = None
        """Hash that it must continue; None where the line before could not be read."""
        self._missing: set[int] = set()
        self._sealed_line = 1

    def _problem(self, line: int, text: str) -> None:
        self.problems.append(Problem(line, text))

    def line(self, number: int, raw: bytes) -> None:
        if number == 1 and raw == csv_columns().encode():
            self._is_csv = True
            return
        if len(raw) > LINE_BYTES or not raw.endswith(b"\n"):
            self._problem(number, "the line is cut off" if len(raw) <= LINE_BYTES else "the line is too long")
            self._skip()
            return
        try:
            text = raw.decode()
            record = read_csv_line(text) if self._is_csv else read_json_line(text)
        except UnicodeDecodeError:
            self._problem(number, "the line was edited: it is not UTF-8")
            self._skip()
        except GatewayError as e:
            self._problem(number, f"the line was edited: {e}")
            self._skip()
        else:
            if not self._began:
                self._begin(number, record)
            elif isinstance(record, Header):
                self._problem(number, "a second heading: two exports were put together")
            else:
                self._entry(number, record)

    def _skip(self) -> None:
        """A line that cannot be read stands for one entry."""
        self._began = True
        self._next += 1
        self._prev = None

    def _begin(self, number: int, record: TrailEntry | Header) -> None:
        self._began = True
        if not isinstance(record, Header):
            self._problem(number, "the signed heading of the export is missing")
            self._next, self._prev = record.seq, record.prev
            self._entry(number, record)
            return
        self.header, self._next, self._prev = record, record.first, record.prev
        try:
            credential = parse_credential(record.auth_type, record.credential)
        except Refused as e:
            self._problem(number, f"the heading's credential cannot be used: {e}")
            return
        self.fingerprint = credential.fingerprint
        if not self._trusted:
            self._trusted = frozenset({credential.fingerprint})
        self._signed(number, "heading", credential, record.text(), record.signature, at=record.exported)

    def _signed(self, number: int, what: str, credential: Credential, text: bytes, signature: str, *, at: int) -> bool:
        if credential.fingerprint not in self._trusted:
            self._problem(number, f"the {what} was signed under another anchor: {credential.fingerprint}")
            return False
        try:
            credential.check(node_id="" if self.header is None else self.header.node_id, now_ms=at)
            credential.verify(text, signature)
        except (Refused, ValueError, OverflowError, OSError) as e:
            why = f"the {what} does not hold: {e}"
            if what == "seal":
                why += f"; something between line {self._sealed_line} and this line was changed"
            self._problem(number, why)
            return False
        return True

    def _entry(self, number: int, entry: TrailEntry) -> None:
        self.entries += 1
        expected, prev = self._next, self._prev
        if entry.seq == expected:
            if prev is not None and entry.prev != prev:
                self._problem(number, f"entry {entry.seq} does not continue the line before it")
        elif entry.seq > expected:
            last = entry.seq - 1
            gone = f"entry {expected} is" if last == expected else f"entries {expected} to {last} are"
            self._problem(number, f"entry {entry.seq} stands here: {gone} missing before it")
            self._missing.update(range(expected, min(entry.seq, expected + LINE_BYTES)))
        else:
            known = entry.seq not in self._missing
            self._problem(number, f"entry {entry.seq} stands {'here a second time' if known else 'in the wrong place'}")
            self._missing.discard(entry.seq)
        if entry_hash(entry) != entry.hash:
            self._problem(number, f"the content of entry {entry.seq} was changed: it does not fit its hash")
        if entry.seq >= expected:
            self._next, self._prev = entry.seq + 1, entry.hash
        if entry.event == SEAL:
            self._seal(number, entry)

    def _seal(self, number: int, entry: TrailEntry) -> None:
        self.seals += 1
        node_id = NodeId("" if self.header is None else self.header.node_id)
        try:
            credential = parse_credential(str(entry.facts.get("auth_type")), str(entry.facts.get("credential")))
        except Refused as e:
            self._problem(number, f"the seal's credential cannot be used: {e}")
            return
        text = seal_text(node_id=node_id, seq=entry.seq - 1, digest=entry.prev, at=entry.at)
        self._signed(number, "seal", credential, text, str(entry.facts.get("signature")), at=entry.at)
        self._sealed_line = number

    def end(self, lines: int) -> None:
        """After the last line."""
        if self.header is None:
            if not self.problems:
                self._problem(max(lines, 1), "there is no export in this file")
            return
        if self._next <= self.header.last:
            last = self.header.last
            self._problem(lines, f"the file ends after entry {self._next - 1}; it was exported until entry {last}")
        elif self._next > self.header.last + 1:
            self._problem(lines, f"the file goes on after entry {self.header.last}, with which the export ended")
        elif self._prev is not None and self._prev != self.header.head:
            self._problem(lines, f"entry {self.header.last} is not the one that was exported under the heading's hash")


def read_lines(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of an open file; one that is far too long is handed on in part, which `verify` reports."""
    for raw in stream:
        yield raw[: LINE_BYTES + 1]
