"""Calls to partners: written in the transaction of the state that makes them due, performed later by the outbox."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from gateway.model import CallState, Contract, OutCall, TraceId
from gateway.ports import Clock, Entropy, Tx


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
