"""Calls to partners: written in the transaction of the state that makes them due, performed later by the outbox."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.errors import Kind, Refused
from gateway.model import CallState, Contract, OutCall, TraceId
from gateway.ports import Clock, Entropy, Tx

FORGET: Final = 500
"""Calls deleted in one transaction, at most, of each end."""


def new_trace(entropy: Entropy) -> TraceId:
    return TraceId(f"tr-{entropy.token(16).hex()}")


class Outgoing:
    """Writes OutCalls. Their `created` never goes back, so that a partner gets them in the order they were written.

    wake: called inside the transaction on the store's thread; a dispatcher woken by it reads the store through the
    store's own queue and so sees the committed call.
    """

    def __init__(self, *, clock: Clock, entropy: Entropy, wake: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._entropy = entropy
        self._wake = wake
        self._lock = threading.Lock()
        self._last = 0
        self._number = 0

    def on_put(self, wake: Callable[[], None]) -> None:
        """Set who is woken."""
        self._wake = wake

    def put(
        self,
        tx: Tx,
        *,
        contract: Contract,
        route: str,
        body: Mapping[str, Any],
        subject: str,
        trace_id: TraceId | None = None,
    ) -> OutCall:
        """Make a call of `route` (name in specs.routes) due at once. subject: `audit:<key>`, `contract:<id>` ..."""
        with self._lock:
            now = max(self._clock.now_ms(), self._last)
            self._last = now
            self._number += 1
            number = self._number
        call = OutCall(
            call_id=f"call-{now:015d}-{number:08d}-{self._entropy.token(4).hex()}",
            contract_id=contract.contract_id,
            peer_node_id=contract.peer_node_id,
            route=route,
            body=body,
            subject=subject,
            trace_id=trace_id or new_trace(self._entropy),
            state=CallState.DUE,
            attempts=0,
            due=now,
            error="",
            created=now,
        )
        tx.insert(call)
        self._wake()
        return call


def forget(tx: Tx, *, before_ms: int, limit: int = FORGET) -> int:
    """Delete up to `limit` calls of each end (DONE, DEAD) last tried before `before_ms`; the larger count of the two.

    Parked calls stay: they wait for the admin.
    """
    counts = []
    for state in (CallState.DONE, CallState.DEAD):
        over = [each for each in tx.select(OutCall, order="due", limit=limit, state=state) if each.due < before_ms]
        for each in over:
            tx.delete(each)
        counts.append(len(over))
    return max(counts)


def retry(tx: Tx, call_id: str, *, now: int) -> OutCall:
    """The admin's word: perform a parked or dead call again, at once. Raises Refused(NOT_FOUND, CONFLICT)."""
    old = tx.get(OutCall, call_id)
    if old is None:
        raise Refused(f"call {call_id} is not known", kind=Kind.NOT_FOUND)
    if old.state not in (CallState.PARKED, CallState.DEAD):
        raise Refused(f"call {call_id} is {old.state}, neither parked nor dead", kind=Kind.CONFLICT)
    if old.state is CallState.DEAD and old.route.endswith(".audit.apply"):
        # Nobody waits for its answer any more: the application counts as refused.
        raise Refused("that application is over: apply again", kind=Kind.CONFLICT)
    new = replace(old, state=CallState.DUE, attempts=0, due=now, error="", created=now)
    tx.replace(old, new)
    return new
