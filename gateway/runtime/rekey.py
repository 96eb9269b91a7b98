"""Tells partners our current signing key until each has acknowledged it; then we sign with it towards that partner.

Not through the outbox: an update that a partner does not take yet (its admin must allow a new CA, it does not offer
node/update) must hold up nothing else. What is still to be told follows from the store alone, so a crash loses nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from gateway.auth.keys import KeyRing
from gateway.errors import WIRE, GatewayError, Kind, PeerError
from gateway.mgmt_plane.service.keys import Keys
from gateway.mgmt_plane.service.outgoing import new_trace
from gateway.model import Contract, ContractId
from gateway.ports import Entropy, Journal, PeerClient, Store

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
_UNPROVEN: Final = str(WIRE[Kind.UNAUTHENTICATED].code)


class Rekeyer:
    """One task. `wake` after every new key. settle: what may be due after the partners were told."""

    def __init__(
        self,
        *,
        store: Store,
        client: PeerClient,
        keys: Keys,
        ring: KeyRing,
        journal: Journal,
        entropy: Entropy,
        settle: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._settle = settle
        self._store = store
        self._client = client
        self._keys = keys
        self._ring = ring
        self._journal = journal
        self._entropy = entropy
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.refusals: dict[ContractId, str] = {}
        """Why a partner has not taken the key so far, in words; for our admin."""

    def start(self) -> None:
        """Begin to tell; call on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="rekey")

    async def stop(self) -> None:
        """Stop; who was not told is told after the next start."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def wake(self) -> None:
        """There is a new key; call on the event loop."""
        self._news.set()

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            self._news.clear()
            left = 1
            try:
                left = await self.tell()
            except GatewayError as e:
                self._journal.note("key.waits", reason=str(e)[:300])
            except Exception as e:  # noqa: BLE001  # the task must outlive one round
                self._journal.note("key.error", error=type(e).__name__)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S) if left else LONGEST_PAUSE_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
                pause_s = FIRST_PAUSE_S
            except TimeoutError:
                pass

    async def tell(self) -> int:
        """Tell every partner that does not know our current key; how many still do not."""
        untold = await self._store.run(self._keys.untold)
        told = await asyncio.gather(*(self._tell(each) for each in untold))
        if self._settle is not None:
            await self._settle()
        return told.count(False)

    async def _tell(self, contract: Contract) -> bool:
        key_id = self._ring.current.key_id
        trace_id = new_trace(self._entropy)
        try:
            body = await self._store.run(lambda tx: self._keys.update_body(tx, contract))
            try:
                await self._client.call(contract, "node.update", body, trace_id=trace_id)
            except PeerError as e:
                if e.peer_code != _UNPROVEN:
                    raise
                # It may have taken the key, its answer was lost and the old key is void there: then this is a repeat.
                known = replace(contract, our_key=key_id)
                await self._client.call(known, "node.update", body, trace_id=trace_id)
            await self._store.run(lambda tx: self._keys.acknowledged(tx, contract.contract_id, key_id))
        except GatewayError as e:
            self.refusals[contract.contract_id] = str(e)[:300]
            self._journal.note("key.untold", peer=contract.peer_node_id, key_id=key_id, reason=str(e)[:300])
            return False
        self.refusals.pop(contract.contract_id, None)
        self._journal.note("key.told", peer=contract.peer_node_id, key_id=key_id, trace_id=trace_id)
        return True
