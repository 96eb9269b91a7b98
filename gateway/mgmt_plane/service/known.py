"""Which contracts may prove a partner's call, remembered between calls until any contract is written.

Every signed call asks; the answer changes a few times a day. Nothing here outlives a revocation: the write of a
contract empties this inside its own transaction, before the commit, and what was read before a write is never kept
after it. What changes with the hour alone, the end of a contract, is judged at every call. Only what holds is kept, so
that strangers cannot fill it. Rests on one rule: a database has one control process, which writes contracts through its
store only.
"""

import threading
from collections.abc import Sequence

from gateway.mgmt_plane.service.partners import Partners, is_valid
from gateway.model import Contract, NodeId
from gateway.ports import Store, Tx


class KnownPartners:
    """`Partners.verifiers` with a memory. `forget` has to be called before each write of a contract, on any thread."""

    def __init__(self, partners: Partners, store: Store) -> None:
        self._partners = partners
        self._store = store
        self._lock = threading.Lock()
        self._kept: dict[NodeId, Sequence[Contract]] = {}
        self._writes = 0

    def forget(self) -> None:
        with self._lock:
            self._writes += 1
            self._kept.clear()

    async def verifiers(self, node_id: NodeId, now: int) -> Sequence[Contract]:
        """As Partners.verifiers. now: ms."""
        kept = self._kept.get(node_id)
        if kept is not None and all(is_valid(each, now) for each in kept):
            return kept

        def work(tx: Tx) -> tuple[int, Sequence[Contract]]:
            # The number first: transactions run one after the other, so a write after this read makes it differ.
            return self._writes, self._partners.verifiers(tx, node_id)

        writes, found = await self._store.run(work)
        with self._lock:
            if writes == self._writes and found and all(is_valid(each, now) for each in found):
                self._kept[node_id] = found
        return found
