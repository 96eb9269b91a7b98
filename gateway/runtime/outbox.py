"""Performs the calls to partners that committed transactions left due: in order per partner, until they are answered.

A call is tried again, with growing pauses, while nobody answers; a lost confirm is so repeated until it is acknowledged
(A-08). An answer that says no ends the call, unless its code says that the partner itself is in trouble just now.
Calls are performed at least once: receivers take repeats without harm.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from gateway.errors import GatewayError, Kind, PeerError, ProtocolViolation, Unavailable
from gateway.model import CallState, Contract, NodeId, OutCall
from gateway.ports import Clock, Entropy, Journal, PeerClient, PeerReply, Store, Tx

OnResult = Callable[[Tx, OutCall, PeerReply | None], None]
"""(tx, call as it is now, reply if DONE); called inside the transaction that keeps the new state DONE or DEAD."""

FIRST_PAUSE_MS: Final = 500
LONGEST_PAUSE_MS: Final = 60_000
LONGEST_LIFE_MS: Final = 7 * 86_400_000
"""A call nobody has answered for so long is dead."""
TROUBLED_ATTEMPTS: Final = 8
"""How often a partner may answer that it is in trouble."""
_IDLE_S: Final = 30.0
_UNPROVEN: Final = 401
_STALE: Final = 420
_BUSY: Final = 429


def is_trouble(peer_code: str) -> bool:
    """Whether a refusal may be over soon.

    Codes 100-399 are the partner's own system and surroundings (part 3), three of ours mean clock, rate, and a
    key that was replaced under the call. A partner that numbers otherwise merely gets a few calls more (A-02).
    """
    if not (peer_code.isascii() and peer_code.isdigit() and len(peer_code) <= 9):
        return False
    code = int(peer_code)
    return (100 <= code < 400 and code != 200) or code in (_UNPROVEN, _STALE, _BUSY)


def pause_ms(attempts: int, random: bytes) -> int:
    """Milliseconds before the next attempt: doubling from half a second to a minute, less up to half at random."""
    longest = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(attempts - 1, 16))
    return longest - longest * random[0] // 512


class Outbox:
    """One task that looks for due calls, and one per partner that has some. `wake` may be called from any thread."""

    def __init__(
        self,
        *,
        store: Store,
        client: PeerClient,
        journal: Journal,
        clock: Clock,
        entropy: Entropy,
        on_result: OnResult | None = None,
    ) -> None:
        self._store = store
        self._client = client
        self._journal = journal
        self._clock = clock
        self._entropy = entropy
        self._on_result = on_result
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._busy: dict[NodeId, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin to dispatch; call on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._main = self._loop.create_task(self._run(), name="outbox")

    async def stop(self) -> None:
        """Stop; a call under way is cancelled and tried again after the next start."""
        tasks = [task for task in (self._main, *self._busy.values()) if task is not None]
        self._main = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._busy.clear()

    def wake(self) -> None:
        """Something was written; pass it to Outgoing.on_put."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def _run(self) -> None:
        while True:
            self._news.clear()
            wait_s = _IDLE_S
            try:
                wait_s = await self._dispatch()
            except GatewayError as e:
                self._journal.note("outbox.waits", reason=str(e)[:300])
                wait_s = 1.0
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _dispatch(self) -> float:
        """Start what is due; seconds until something else will be."""
        now = self._clock.now_ms()
        heads = await self._store.run(_heads)
        wait_ms = int(_IDLE_S * 1000)
        for node, call in heads.items():
            if node in self._busy:
                continue  # its end wakes us
            if call.due > now:
                wait_ms = min(wait_ms, call.due - now)
                continue
            task = asyncio.get_running_loop().create_task(self._perform(call), name=f"outbox {node}")
            self._busy[node] = task
            task.add_done_callback(partial(self._freed, node))
        return max(wait_ms, 1) / 1000

    def _freed(self, node: NodeId, _: object) -> None:
        self._busy.pop(node, None)
        self._news.set()

    async def _perform(self, call: OutCall) -> None:
        try:
            reply, error = await self._try(call)
            now = self._clock.now_ms()
            done = self._next(call, reply, error, now)
            settled = await self._store.run(lambda tx: self._settle(tx, call, done, reply))
            if settled and done.state is CallState.DEAD:
                self._journal.note(
                    "outbox.dead",
                    peer=call.peer_node_id,
                    route=call.route,
                    subject=call.subject,
                    attempts=done.attempts,
                    reason=done.error,
                    trace_id=call.trace_id,
                )
        except Exception as e:  # noqa: BLE001  # one call must not end the dispatching of all others
            self._journal.note(
                "outbox.error", peer=call.peer_node_id, route=call.route, error=type(e).__name__, trace_id=call.trace_id
            )
            await asyncio.sleep(1.0)

    async def _try(self, call: OutCall) -> tuple[PeerReply | None, GatewayError | None]:
        try:
            contract = await self._store.run(lambda tx: tx.get(Contract, call.contract_id))
            if contract is None:
                return None, ProtocolViolation("the contract is gone", kind=Kind.CONTRACT_UNKNOWN)
            return await self._client.call(contract, call.route, call.body, trace_id=call.trace_id), None
        except GatewayError as e:
            return None, e

    def _settle(self, tx: Tx, old: OutCall, new: OutCall, reply: PeerReply | None) -> bool:
        if tx.get(OutCall, old.call_id) != old:
            return False  # somebody ended it meanwhile
        tx.replace(old, new)
        if new.state is not CallState.DUE and self._on_result is not None:
            self._on_result(tx, new, reply)
        return True

    def _next(self, call: OutCall, reply: PeerReply | None, error: GatewayError | None, now: int) -> OutCall:
        attempts = call.attempts + 1
        if reply is not None:
            return replace(call, state=CallState.DONE, attempts=attempts, error="")
        text = str(error)[:500]
        again = isinstance(error, Unavailable) and now - call.created < LONGEST_LIFE_MS
        if isinstance(error, PeerError):
            again = is_trouble(error.peer_code) and attempts < TROUBLED_ATTEMPTS
        elif isinstance(error, ProtocolViolation) and error.kind is Kind.PEER_MALFORMED:
            again = attempts < TROUBLED_ATTEMPTS
        if again:
            due = now + pause_ms(attempts, self._entropy.token(1))
            return replace(call, attempts=attempts, due=due, error=text)
        return replace(call, state=CallState.DEAD, attempts=attempts, error=text)


def _heads(tx: Tx) -> dict[NodeId, OutCall]:
    """The oldest due call of each partner: later ones wait for it."""
    heads: dict[NodeId, OutCall] = {}
    for call in tx.select(OutCall, state=CallState.DUE):
        heads.setdefault(call.peer_node_id, call)
    return heads
