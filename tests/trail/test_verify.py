"""What can be done to an exported trail, and that `verify` names the line."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.auth.keys import load_signer
from gateway.auth.schemes import Signer
from gateway.errors import ProtocolViolation
from gateway.mgmt_plane.core import trail
from gateway.mgmt_plane.core.trail import Header, Verdict, chained, csv_columns, csv_line, json_line, seal_text, verify
from gateway.model import NodeId, TrailEntry
from specs.states import AuthType
from tests.mgmt.world import NOW, pki

NODE = NodeId("A")
Lines = list[bytes]


def signer(node: str = NODE) -> Signer:
    made = pki(node)
    return load_signer(auth_type=AuthType.CERT, key_uri=made.signing_key.as_uri(), credential=made.signing.read_text())


def sealed(head: TrailEntry, by: Signer, *, at: int | None = None) -> TrailEntry:
    at = head.at if at is None else at
    text = seal_text(node_id=NODE, seq=head.seq, digest=head.hash, at=at)
    facts = {"auth_type": by.auth_type.value, "credential": by.credential, "signature": by.sign(text)}
    return chained(
        head,
        at=at,
        event=trail.SEAL,
        actor="node",
        who=NODE,
        subject=f"trail:{head.seq}",
        trace_id="",
        facts=facts,
        bound=False,
    )


def entry(head: TrailEntry | None, number: int, **facts: Any) -> TrailEntry:
    return chained(
        head,
        at=NOW + number,
        event="grant.used",
        actor="partner",
        who="=B",
        subject=f"grant:{number}",
        trace_id="tr-1",
        facts={"job_id": f"job-{number}", "columns": ["x", "ü\n"], "limit": None, "proven": True, **facts},
    )


@cache
def chain() -> tuple[TrailEntry, ...]:
    """Entries 1 to 20; 6, 11 and 20 are seals."""
    made: list[TrailEntry] = []
    for number in range(1, 21):
        head = made[-1] if made else None
        made.append(sealed(made[-1], signer()) if number in (6, 11, 20) else entry(head, number))
    return tuple(made)


def header(entries: tuple[TrailEntry, ...], by: Signer) -> Header:
    made = Header(
        node_id=NODE,
        first=entries[0].seq,
        last=entries[-1].seq,
        prev=entries[0].prev,
        head=entries[-1].hash,
        exported=NOW + 1000,
        auth_type=by.auth_type.value,
        credential=by.credential,
    )
    return replace(made, signature=by.sign(made.text()))


def export(entries: tuple[TrailEntry, ...] | None = None, *, csv: bool = False, by: Signer | None = None) -> Lines:
    entries = chain() if entries is None else entries
    line: Callable[[TrailEntry | Header], str] = csv_line if csv else json_line
    texts = [line(header(entries, by or signer())), *(line(each) for each in entries)]
    return [each.encode() for each in ([csv_columns(), *texts] if csv else texts)]


def judged(lines: Lines, *anchors: str) -> Verdict:
    return verify(lines, trusted=frozenset(anchors or (signer().fingerprint,)))


def forged(start: int, by: Signer, *, reseal: bool) -> tuple[TrailEntry, ...]:
    """Entry `start` changed and every later hash made anew; `reseal`: also every seal, with the forger's key."""
    made = list(chain()[: start - 1])
    for old in chain()[start - 1 :]:
        if old.event == trail.SEAL and reseal:
            made.append(sealed(made[-1], by))
            continue
        fields = {name: value for name, value in asdict(old).items() if name not in ("seq", "prev", "hash")}
        if old.seq == start:
            fields["facts"] = {"job_id": "another"}
        made.append(chained(made[-1] if made else None, **fields, bound=False))
    return tuple(made)


def edited(line: bytes, **members: Any) -> bytes:
    value = json.loads(line)
    value.update(members)
    return (json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def edited_header(line: bytes, **members: Any) -> bytes:
    value = json.loads(line)
    value["export"].update(members)
    return (json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


# Line n + 1 of the file holds entry n: line 1 is the heading.
def manipulations() -> dict[str, tuple[Lines, int, str]]:
    good = export()
    mallory = signer("M")

    def put(number: int, *lines: bytes) -> Lines:
        """Line `number` (from 1) replaced by `lines`."""
        return [*good[: number - 1], *lines, *good[number:]]

    stranger = entry(chain()[7], 9, job_id="inserted")
    recomputed = edited(good[8], facts={"job_id": "x"})
    rehashed = replace(chain()[7], facts={"job_id": "x"})
    rehashed = replace(rehashed, hash=trail.entry_hash(rehashed))
    forged_quiet = [good[0], *(json_line(each).encode() for each in forged(3, mallory, reseal=False))]
    forged_resealed = [good[0], *(json_line(each).encode() for each in forged(3, mallory, reseal=True))]
    tail_forged = [good[0], *(json_line(each).encode() for each in forged(20, mallory, reseal=True))]
    return {
        "a fact edited": (put(9, recomputed), 9, "content of entry 8 was changed"),
        "who edited": (put(4, edited(good[3], who="C")), 4, "content of entry 3 was changed"),
        "time edited": (put(4, edited(good[3], at=NOW)), 4, "content of entry 3 was changed"),
        "trace id edited": (put(4, edited(good[3], trace_id="tr-2")), 4, "content of entry 3 was changed"),
        "hash edited": (put(4, edited(good[3], hash="0" * 64)), 4, "content of entry 3 was changed"),
        "edited with its hash": (put(9, json_line(rehashed).encode()), 10, "does not continue"),
        "a line dropped": (put(9), 9, "entry 8 is missing"),
        "three lines dropped": ([*good[:8], *good[11:]], 9, "entries 8 to 10 are missing"),
        "first entry dropped": (put(2), 2, "entry 1 is missing"),
        "heading dropped": (put(1), 1, "heading of the export is missing"),
        "two lines swapped": ([*good[:8], good[9], good[8], *good[10:]], 9, "entry 8 is missing"),
        "a line moved to the end": ([*good[:8], *good[9:], good[8]], 9, "entry 8 is missing"),
        "a line twice": (put(9, good[8], good[8]), 10, "second time"),
        "a line inserted": (put(10, json_line(stranger).encode(), good[9]), 11, "second time"),
        "replaced by a stranger's": (put(10, json_line(stranger).encode()), 11, "does not continue"),
        "last line cut": (good[:-1], 20, "ends after entry 19"),
        "cut back to a seal": (good[:12], 12, "ends after entry 11; it was exported until entry 20"),
        "nothing but the heading": (good[:1], 1, "ends after entry 0"),
        "last line torn": ([*good[:-1], good[-1][:-10]], 21, "cut off"),
        "cut back and the heading made to fit": (
            [edited_header(good[0], last=11, head=chain()[10].hash), *good[1:12]],
            1,
            "the heading does not hold",
        ),
        "heading of another node": ([edited_header(good[0], node_id="B"), *good[1:]], 1, "the heading does not hold"),
        "chain made anew, seals kept": (forged_quiet, 7, "the seal does not hold"),
        "chain and seals made anew": (forged_resealed, 7, "under another anchor"),
        "last seal signed anew": (tail_forged, 21, "under another anchor"),
        "everything signed anew": (
            export(forged(3, mallory, reseal=True), by=mallory),
            1,
            "under another anchor",
        ),
        "goes on after its end": ([*good, json_line(entry(chain()[-1], 21)).encode()], 22, "goes on after entry 20"),
        "two exports together": ([*good, *good], 22, "second heading"),
        "spaces put in": (put(9, good[8].replace(b":", b": ", 1)), 9, "not written as an export writes it"),
        "member twice": (put(9, good[8].replace(b'{"actor"', b'{"actor":"admin","actor"', 1)), 9, "not written"),
        "member added": (put(9, edited(good[8], note="x")), 9, "too many"),
        "type changed": (put(9, edited(good[8], seq="8")), 9, "seq is not of its type"),
        "not JSON": (put(9, b"\xff\n"), 9, "not UTF-8"),
        "NaN": (put(9, good[8].replace(b'"limit":null', b'"limit":NaN')), 9, "no JSON"),
        "empty file": ([], 1, "no export"),
    }


def test_a_good_file_is_good() -> None:
    for csv in (False, True):
        verdict = judged(export(csv=csv))
        assert verdict.problems == ()
        assert (verdict.entries, verdict.seals) == (20, 3)
        assert verdict.fingerprint == signer().fingerprint
        assert verdict.header is not None
        assert verdict.header.node_id == NODE


def test_part_of_a_trail_is_good_and_bound_to_its_place() -> None:
    assert judged(export(chain()[4:15])).problems == ()
    moved = export(chain()[4:15])
    moved[0] = edited_header(moved[0], prev="1" * 64)
    assert judged(moved).problems[0].line == 1


@pytest.mark.parametrize("name", list(manipulations()))
def test_each_manipulation_is_found_at_its_line(name: str) -> None:
    lines, line, text = manipulations()[name]
    problems = judged(lines).problems
    assert problems, name
    assert (problems[0].line, text in problems[0].text) == (line, True), problems


def test_a_problem_is_told_once_and_not_for_every_later_line() -> None:
    lines, _, _ = manipulations()["a line dropped"]
    assert len(judged(lines).problems) == 1
    lines, _, _ = manipulations()["a fact edited"]
    assert len(judged(lines).problems) == 1
    assert len(judged([export()[0], *([b"x\n"] * 1000)]).problems) == trail.PROBLEMS


def test_csv_is_judged_as_strictly() -> None:
    good = export(csv=True)
    assert judged(good).problems == ()
    assert b",'=B," in good[3]  # not a formula in a spreadsheet
    for number, change, text in (
        (5, lambda line: line.replace(b"grant.used", b"grant.made"), "content of entry 3 was changed"),
        (5, lambda line: line.replace(b"'=B", b"=B"), "not written"),
        (5, lambda line: line.replace(b"2026-03", b"2027-03"), "not written"),
        (5, lambda _: b"", "entry 3 is missing"),
        (5, lambda _: b"a,b\n", "no line of an export"),
        (2, lambda line: line.replace(b'""last"":20', b'""last"":19'), "the heading does not hold"),
    ):
        changed = change(good[number - 1])  # type: ignore[no-untyped-call]
        assert changed != good[number - 1]
        lines = [*good[: number - 1], *([changed] if changed else []), *good[number:]]
        problem = judged(lines).problems[0]
        assert (problem.line, text in problem.text) == (number, True), problem


def test_without_an_anchor_the_file_proves_only_that_it_hangs_together() -> None:
    mallory = signer("M")
    lines = export(forged(3, mallory, reseal=True), by=mallory)
    # Mallory's certificate names another node than the trail's.
    assert "does not hold" in verify(lines).problems[0].text
    assert verify(export()).problems == ()
    assert verify(export()).fingerprint == signer().fingerprint


def test_what_an_entry_may_hold_is_bounded() -> None:
    made = chained(
        None,
        at=NOW,
        event="x",
        actor="admin",
        who="w\nx" * 500,
        subject="s\u2028",
        trace_id="",
        facts={"long": "a" * 10_000, "scope": {"NODE": ["n" * 100] * 100}, "big": 1 << 60, "f": 1.5, "g": [1.5]},
    )
    assert len(json_line(made)) < 4096
    assert len(made.who) == 512
    assert "\n" not in made.who
    assert set(made.facts["scope"]) == {"sha256"}
    assert made.facts["big"] == str(1 << 60)
    assert made.facts["f"] == "1.5"
    assert trail.read_json_line(json_line(made)) == made
    assert trail.read_csv_line(csv_line(made)) == made
    with pytest.raises(ProtocolViolation):
        trail.read_json_line(json_line(made) + " ")


@settings(max_examples=150, deadline=None)
@given(csv=st.booleans(), place=st.floats(0, 1, exclude_max=True), change=st.integers(0, 2), byte=st.integers(0, 255))
def test_no_single_byte_can_be_changed(csv: bool, place: float, change: int, byte: int) -> None:
    good = b"".join(export(csv=csv))
    at = int(place * len(good))
    put = [bytes([byte]), b"", bytes([good[at], byte])][change]
    assume(put != good[at : at + 1])
    changed = good[:at] + put + good[at + 1 :]
    assume(changed != good)
    assert judged(io.BytesIO(changed).readlines()).problems, (at, good[at - 20 : at + 20], put)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_other_choice_or_order_of_the_lines_passes(data: st.DataObject) -> None:
    good = export()
    chosen = data.draw(st.lists(st.integers(0, len(good) - 1), max_size=len(good) + 3))
    moved = data.draw(st.permutations(range(len(good))))
    for order in (chosen, list(moved)):
        assume(order != list(range(len(good))))
        assert judged([good[number] for number in order]).problems
