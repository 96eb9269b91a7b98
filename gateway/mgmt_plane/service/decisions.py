"""Who decides on a partner's application: one admin, or two where a kind is under four eyes.

The first word of two is kept and shown; one no is final. Works inside transactions that the callers open, so of two who
decide at once one comes second and is told so.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from gateway.errors import Kind, Refused
from gateway.mgmt_plane.service.users import Principal
from gateway.model import Audit, Contract, Decision, Direction, Json
from gateway.ports import Clock, Store, Tx
from specs.states import ApprovalState, AuditKind

CONTRACT: Final = "contract"
KINDS: Final = (CONTRACT, *(each.value for each in AuditKind))
"""What [approvals] four_eyes may name."""

R = TypeVar("R")
OnFirst = Callable[[Tx, Decision], None]
"""Called inside the transaction that keeps the first of two words."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is decided, how, and under which terms ({} for those that the applicant asked for)."""

    kind: str
    subject: str
    approve: bool
    terms: Json


def question(record: Contract | Audit, *, approve: bool, terms: Json) -> Question:
    kind = CONTRACT if isinstance(record, Contract) else record.kind.value
    return Question(kind, record.key(), approve=approve, terms={k: v for k, v in terms.items() if v not in (None, [])})


class _Rehearsed(Exception):
    """Ends a transaction that only tried."""


class Decisions:
    """four_eyes: kinds of which two users with the role admin must approve."""

    def __init__(
        self, *, clock: Clock, four_eyes: frozenset[str], on_first: OnFirst = lambda _tx, _decision: None
    ) -> None:
        self._clock = clock
        self._four_eyes = four_eyes
        self._on_first = on_first

    async def decide(
        self,
        store: Store,
        by: Principal,
        *,
        find: Callable[[Tx], Contract | Audit],
        approve: bool,
        terms: Json,
        do: Callable[[Tx, Json], R],
    ) -> R | None:
        """`do` with the terms that count, or None where a second admin must agree first.

        Under four eyes the first approval is tried and undone: what cannot be done must not wait for anybody.
        Raises Refused(CONFLICT) where somebody else has decided, `by` has agreed before, or the terms differ;
        Refused(FORBIDDEN) where two persons are needed and `by` is the token file.
        """

        def ask(tx: Tx) -> Question:
            return question(find(tx), approve=approve, terms=terms)

        def rehearse(tx: Tx) -> None:
            asked = ask(tx)
            if self._first_of_two(tx, asked):
                do(tx, asked.terms)
                raise _Rehearsed

        def settle(tx: Tx) -> R | None:
            record, asked = find(tx), ask(tx)
            if record.direction is Direction.IN and record.status in (ApprovalState.APPROVED, ApprovalState.REJECTED):
                known = tx.get(Decision, f"{asked.kind}:{asked.subject}")
                if known is None or not _same(known, asked, by):
                    whose = f" by {_names(known)}" if known is not None and known.final else ""
                    raise Refused(f"{asked.kind} {asked.subject} is {record.status} already{whose}", kind=Kind.CONFLICT)
            return self._settle(tx, asked, by, do)

        if approve and self._four_eyes:
            with suppress(_Rehearsed):
                await store.run(rehearse)
        return await store.run(settle)

    def _first_of_two(self, tx: Tx, asked: Question) -> bool:
        return asked.approve and asked.kind in self._four_eyes and tx.get(Decision, _key(asked)) is None

    def _settle(self, tx: Tx, asked: Question, by: Principal, do: Callable[[Tx, Json], R]) -> R | None:
        known, now = tx.get(Decision, _key(asked)), self._clock.now_ms()
        if known is not None and known.final:
            return do(tx, known.terms)  # the same again, by the same
        final = Decision(
            kind=asked.kind,
            subject=asked.subject,
            approve=asked.approve,
            by=by.name,
            second="",
            terms=asked.terms,
            final=True,
            created=now,
            updated=now,
        )
        if not asked.approve or asked.kind not in self._four_eyes:
            done = do(tx, asked.terms)
            if known is None:
                tx.insert(final)
            else:
                # Who had said yes stands in the trail.
                tx.replace(known, replace(final, created=known.created))
            return done
        if not by.named:
            raise Refused("two persons must agree, and the token file names nobody: use a user's token")
        if known is None:
            first = replace(final, final=False)
            tx.insert(first)
            self._on_first(tx, first)
            return None
        if known.by == by.name:
            raise Refused(f"{by.name} has agreed already: another admin must", kind=Kind.CONFLICT)
        if asked.terms and dict(asked.terms) != dict(known.terms):
            raise Refused(
                f"{known.by} agreed under other terms; leave yours out to take those, or reject", kind=Kind.CONFLICT
            )
        done = do(tx, known.terms)
        tx.replace(known, replace(known, second=by.name, final=True, updated=now))
        return done


def _key(asked: Question) -> str:
    return f"{asked.kind}:{asked.subject}"


def _same(known: Decision, asked: Question, by: Principal) -> bool:
    mine = by.name in (known.by, known.second)
    return known.final and mine and known.approve is asked.approve and asked.terms in ({}, known.terms)


def _names(known: Decision) -> str:
    return f"{known.by} and {known.second}" if known.second else known.by


def show_decision(decision: Decision | None) -> dict[str, object] | None:
    """Who has said what so far; None where nobody has."""
    if decision is None:
        return None
    return {
        "approve": decision.approve,
        "by": decision.by,
        "second": decision.second,
        "terms": dict(decision.terms),
        "final": decision.final,
        "at": decision.updated,
    }
