"""Performs the calls to partners that committed transactions left due: in order per subject, until they are answered.

A call is tried again, with growing pauses, while nobody answers; a lost confirm is so repeated until it is acknowledged
(A-08). An answer that says no ends the call, unless its code says that the partner itself is in trouble just now.
Calls are performed at least once: receivers take repeats without harm.

One call at a time per partner. A call waits for older ones about the same subject, and for any older one about a
contract; a partner that does not answer at all is left alone until its pause is over, whatever else waits for it.
Where an answer came but what follows from it fails here, the call is parked for the admin after a few times.
"""

import asyncio
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from gateway.errors import WIRE, GatewayError, Kind, PeerError, ProtocolViolation, Unavailable
from gateway.mgmt_plane.service.outgoing import FORGET, forget
from gateway.model import CallState, Contract, NodeId, OutCall
from gateway.ports import Clock, Entropy, Journal, PeerClient, PeerReply, Store, Tx

OnResult = Callable[[Tx, OutCall, PeerReply | PeerError | None], None]
"""(tx, call as it is now, the partner's answer: reply if DONE, refusal or None if DEAD); called inside the transaction
that keeps the new state."""

FIRST_PAUSE_MS: Final = 500
LONGEST_PAUSE_MS: Final = 60_000
LONGEST_LIFE_MS: Final = 7 * 86_400_000
"""A call nobody has answered for so long is dead."""
TROUBLED_ATTEMPTS: Final = 8
"""How often a partner may answer that it is in trouble."""
FULL_LIFE_MS: Final = 86_400_000
"""For so long a partner may answer that its database or it itself is overburdened: somebody there has to make room."""
HERE_ATTEMPTS: Final = 4
"""How often an answered call is performed again where what follows from the answer fails here."""
KEEP_DONE_MS: Final = 7 * 86_400_000
"""Calls that are over are kept for so long, then forgotten: the audit trail tells what they were about."""
_PRUNE_MS: Final = 3_600_000
_WINDOW: Final = 64
"""Of the calls that wait for one partner, so many are looked at."""
_AT_ONCE: Final = 256
_IDLE_S: Final = 30.0
_UNPROVEN: Final = 401
_STALE: Final = 420
_REPLAYED: Final = 421
"""The network repeated a call; a new attempt has a new nonce."""
_BUSY: Final = 429
_LATER: Final = frozenset({str(WIRE[Kind.STORE].code), str(_BUSY)})


def is_trouble(peer_code: str) -> bool:
    """Whether a refusal may be over soon.

    Codes 100-399 are the partner's own system and surroundings (part 3), four of ours mean clock, nonce, rate, and a
    key that was replaced under the call. A partner that numbers otherwise merely gets a few calls more (A-02).
    """
    if not (peer_code.isascii() and peer_code.isdigit() and len(peer_code) <= 9):
        return False
    code = int(peer_code)
    return (100 <= code < 400 and code != 200) or code in (_UNPROVEN, _STALE, _REPLAYED, _BUSY)


def pause_ms(attempts: int, random: bytes, longest_ms: int = LONGEST_PAUSE_MS) -> int:
    """Milliseconds before the next attempt: doubling from half a second to the longest, less up to half at random."""
    longest = min(longest_ms, FIRST_PAUSE_MS << min(attempts - 1, 16))
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
        longest_pause_ms: int = LONGEST_PAUSE_MS,
    ) -> None:
        self._longest_ms = longest_pause_ms
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
        self._silent: dict[NodeId, int] = {}
        """Until when a partner that did not answer is left alone, ms."""
        self._failed: dict[str, int] = {}
        """How often what follows from a call's answer has failed here."""
        self._pruned = 0

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
                await self._prune()
            except GatewayError as e:
                self._journal.note("outbox.waits", reason=str(e)[:300])
                wait_s = 1.0
            except Exception as e:  # noqa: BLE001  # without this task nothing would ever be sent again
                self._journal.note("outbox.error", error=type(e).__name__, where=_where(e))
                wait_s = 1.0
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _dispatch(self) -> float:
        """Start what is due; seconds until something else will be."""
        now = self._clock.now_ms()
        waiting = await self._store.run(_waiting)
        wait_ms = int(_IDLE_S * 1000)
        for node, calls in waiting.items():
            if node in self._busy:
                continue  # its end wakes us
            call = min(_heads(calls), key=lambda each: (max(each.due, now), each.created, each.call_id))
            due = max(call.due, self._silent.get(node, 0))
            if due > now:
                wait_ms = min(wait_ms, due - now)
                continue
            task = asyncio.get_running_loop().create_task(self._perform(call), name=f"outbox {node}")
            self._busy[node] = task
            task.add_done_callback(partial(self._freed, node))
        return max(wait_ms, 1) / 1000

    async def _prune(self) -> None:
        """Once an hour: forget calls that have long been over, a bounded number at a time."""
        now = self._clock.now_ms()
        if now - self._pruned < _PRUNE_MS:
            return
        if await self._store.run(lambda tx: forget(tx, before_ms=now - KEEP_DONE_MS)) < FORGET:
            self._pruned = now

    def _freed(self, node: NodeId, _: object) -> None:
        self._busy.pop(node, None)
        self._news.set()

    async def _perform(self, call: OutCall) -> None:
        node, now = call.peer_node_id, self._clock.now_ms()
        try:
            reply, error = await self._try(call)
            now = self._clock.now_ms()
            done = self._next(call, reply, error, now)
        except Exception as e:  # noqa: BLE001  # one call must not end the dispatching of all others
            await self._fails_here(call, e)
            return
        refusal = error if isinstance(error, PeerError) else None
        self._silent.pop(node, None)
        if isinstance(error, Unavailable) and done.state is CallState.DUE:
            self._silent[node] = done.due
        try:
            settled = await self._store.run(lambda tx: self._settle(tx, call, done, reply or refusal))
        except Exception as e:  # noqa: BLE001  # as above
            await self._fails_here(call, e)
            return
        self._failed.pop(call.call_id, None)
        if settled and done.state is CallState.DEAD:
            self._note("outbox.dead", done)

    async def _fails_here(self, call: OutCall, cause: Exception) -> None:
        """Try again later; after a few times park the call, that nothing goes round for ever and the admin sees why."""
        text = f"{type(cause).__name__} at {_where(cause)}"
        if isinstance(cause, GatewayError):
            text = str(cause)[:300]
        now = self._clock.now_ms()
        sick = isinstance(cause, Unavailable) and cause.kind is Kind.STORE
        failures = self._failed.get(call.call_id, 0) + (0 if sick else 1)
        self._failed[call.call_id] = failures
        parked = failures >= HERE_ATTEMPTS
        pause = pause_ms(max(failures, 1), self._entropy.token(1), self._longest_ms)
        self._silent[call.peer_node_id] = now + pause
        new = replace(
            call,
            state=CallState.PARKED if parked else CallState.DUE,
            attempts=call.attempts + 1,
            due=now + pause,
            error=f"what follows from the answer fails here: {text}",
        )
        self._note("outbox.parked" if parked else "outbox.error", new)
        try:
            await self._store.run(lambda tx: _put_off(tx, call, new))
        except GatewayError as e:
            self._journal.note("outbox.waits", reason=str(e)[:300])
            return
        if parked:
            self._failed.pop(call.call_id, None)

    def _note(self, event: str, call: OutCall) -> None:
        self._journal.note(
            event,
            peer=call.peer_node_id,
            route=call.route,
            call_id=call.call_id,
            subject=call.subject,
            attempts=call.attempts,
            reason=call.error,
            trace_id=call.trace_id,
        )

    async def _try(self, call: OutCall) -> tuple[PeerReply | None, GatewayError | None]:
        try:
            contract = await self._store.run(lambda tx: tx.get(Contract, call.contract_id))
            if contract is None:
                return None, ProtocolViolation("the contract is gone", kind=Kind.CONTRACT_UNKNOWN)
            return await self._client.call(contract, call.route, call.body, trace_id=call.trace_id), None
        except GatewayError as e:
            return None, e

    def _settle(self, tx: Tx, old: OutCall, new: OutCall, reply: PeerReply | PeerError | None) -> bool:
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
            patient = error.peer_code in _LATER and now - call.created < FULL_LIFE_MS
            again = patient or (is_trouble(error.peer_code) and attempts < TROUBLED_ATTEMPTS)
        elif isinstance(error, ProtocolViolation) and error.kind is Kind.PEER_MALFORMED:
            again = attempts < TROUBLED_ATTEMPTS
        if again:
            due = now + pause_ms(attempts, self._entropy.token(1), self._longest_ms)
            return replace(call, attempts=attempts, due=due, error=text)
        return replace(call, state=CallState.DEAD, attempts=attempts, error=text)


def _waiting(tx: Tx) -> dict[NodeId, list[OutCall]]:
    """The oldest due calls of each partner that has some, oldest first."""
    calls = tx.select(OutCall, state=CallState.DUE, limit=_AT_ONCE)
    found: dict[NodeId, list[OutCall]] = {}
    if len(calls) < _AT_ONCE:
        for call in calls:
            found.setdefault(call.peer_node_id, []).append(call)
        return found
    # One partner's many must not hide the others'.
    for node in {each.peer_node_id for each in tx.select(Contract)}:
        if some := tx.select(OutCall, state=CallState.DUE, peer_node_id=node, limit=_WINDOW):
            found[node] = list(some)
    return found


def _heads(calls: Sequence[OutCall]) -> list[OutCall]:
    """Of one partner's calls, oldest first, those that may go: the oldest per subject, none past a contract's."""
    heads: dict[str, OutCall] = {}
    for call in calls:
        heads.setdefault(call.subject, call)
        if call.subject.startswith("contract:"):
            break
    return list(heads.values())


def _put_off(tx: Tx, old: OutCall, new: OutCall) -> None:
    if tx.get(OutCall, old.call_id) == old:
        tx.replace(old, new)


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].name}:{frames[-1].lineno}" if frames else "?"
