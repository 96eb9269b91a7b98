"""Asks partners once in a while how they see what we have with them, and has differences repaired.

Beside the outbox, which delivers what is known to be undelivered: this finds what nobody knows of any more, because a
call was given up or a database was restored from an old backup. Calls only; the judgement is core.reconcile.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import WIRE, GatewayError, Kind, PeerError, Unavailable
from gateway.mgmt_plane.core.reconcile import Repair, Theirs
from gateway.mgmt_plane.service.outgoing import new_trace
from gateway.mgmt_plane.service.reconcile import Reconcile, query_route
from gateway.model import Audit, Contract, ContractId, Direction, NodeId, TraceId
from gateway.ports import Clock, Entropy, Journal, PeerClient, Store
from specs.states import ApprovalState

FIRST_S: Final = 5.0
"""After the start, so that the outbox has its turn first."""
AUDITS_A_ROUND: Final = 200
"""Of one contract; the next round goes on where this one ended."""
_UNPROVEN: Final = str(WIRE[Kind.UNAUTHENTICATED].code)
_UNKNOWN: Final = frozenset({str(WIRE[Kind.NOT_FOUND].code), str(WIRE[Kind.CONTRACT_UNKNOWN].code)})


class Reconciler:
    """One task. every_s: pause between rounds, less up to a tenth at random."""

    def __init__(
        self,
        *,
        store: Store,
        client: PeerClient,
        reconcile: Reconcile,
        journal: Journal,
        clock: Clock,
        entropy: Entropy,
        every_s: float,
    ) -> None:
        self._store = store
        self._client = client
        self._reconcile = reconcile
        self._journal = journal
        self._clock = clock
        self._entropy = entropy
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None
        self._from: dict[ContractId, int] = {}
        self._answers: set[tuple[NodeId, str]] = set()
        """Which partner has ever answered which query with a state: only then is its "unknown" one."""
        self._turn = asyncio.Lock()

    def start(self) -> None:
        """Begin; call on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="reconcile")

    async def stop(self) -> None:
        """Stop at once; nothing is left half done."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        pause_s = min(FIRST_S, self._every_s)
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self.round()
            except GatewayError as e:
                self._journal.note("reconcile.waits", reason=str(e)[:300])
            except Exception as e:  # noqa: BLE001  # the task must outlive one round
                self._journal.note("reconcile.error", error=type(e).__name__)
            pause_s = self._every_s * (1 - self._entropy.token(1)[0] / 2560)

    async def round(self) -> Mapping[str, int]:
        """Compare everything once: number of partners asked, approvals compared, and of each repair."""
        async with self._turn:
            counts: Counter[str] = Counter(partners=0, compared=0)
            by_peer: dict[NodeId, list[Contract]] = {}
            for contract in await self._store.run(self._reconcile.contracts):
                by_peer.setdefault(contract.peer_node_id, []).append(contract)
            await asyncio.gather(*(self._partner(contracts, counts) for contracts in by_peer.values()))
            return dict(counts)

    async def _partner(self, contracts: list[Contract], counts: Counter[str]) -> None:
        """One partner's, one after the other; one that does not answer is left for the next round."""
        counts["partners"] += 1
        for contract in contracts:
            try:
                await self._contract(contract, counts)
                await self._audits(contract, counts)
            except Unavailable:
                return
            except GatewayError as e:
                self._journal.note("reconcile.refused", peer=contract.peer_node_id, reason=str(e)[:300])

    async def _contract(self, contract: Contract, counts: Counter[str]) -> None:
        trace_id = new_trace(self._entropy)
        known, theirs = await self._ask(
            contract, "node.contract.query", {"contract_id": contract.contract_id}, trace_id
        )
        if known:
            counts["compared"] += 1
            repair = await self._store.run(lambda tx: self._reconcile.of_contract(tx, contract, theirs))
            self._tell(
                repair, counts, contract, subject=f"contract:{contract.contract_id}", theirs=theirs, trace_id=trace_id
            )

    async def _audits(self, contract: Contract, counts: Counter[str]) -> None:
        start = self._from.get(contract.contract_id, 0)
        found = await self._store.run(
            lambda tx: self._reconcile.audits(tx, contract, start=start, limit=AUDITS_A_ROUND)
        )
        for audit in found.audits:
            await self._audit(contract, audit, counts)
        self._from[contract.contract_id] = found.following

    async def _audit(self, contract: Contract, audit: Audit, counts: Counter[str]) -> None:
        trace_id = new_trace(self._entropy)
        asked = {"audit_id": audit.audit_id, "contract_id": contract.contract_id}
        known, theirs = await self._ask(contract, query_route(audit.kind), asked, trace_id)
        if known:
            counts["compared"] += 1
            repair = await self._store.run(lambda tx: self._reconcile.of_audit(tx, audit, theirs, trace_id=trace_id))
            self._tell(repair, counts, contract, subject=f"audit:{audit.key()}", theirs=theirs, trace_id=trace_id)

    async def _ask(
        self, contract: Contract, route: str, payload: Mapping[str, Any], trace_id: TraceId
    ) -> tuple[bool, Theirs]:
        """(whether the answer says something, the partner's state or None where it knows nothing of it)."""
        answers = (contract.peer_node_id, route)
        try:
            reply = await self._client.call(contract, route, payload, trace_id=trace_id)
        except PeerError as e:
            if route == "node.contract.query" and e.peer_code == _UNPROVEN and _told_our_key(contract):
                # Our key is in that confirm alone: whoever does not know it has not had our answer.
                return True, ApprovalState.APPLIED
            return e.peer_code in _UNKNOWN and answers in self._answers, None
        try:
            theirs = ApprovalState(str(reply.data.get("status")))
        except ValueError:
            return False, None
        self._answers.add(answers)
        return True, theirs

    def _tell(
        self,
        repair: Repair,
        counts: Counter[str],
        contract: Contract,
        *,
        subject: str,
        theirs: Theirs,
        trace_id: TraceId,
    ) -> None:
        if repair is Repair.NOTHING:
            return
        counts[repair.value] += 1
        self._journal.note(
            "reconcile.differs" if repair is Repair.DIFFERS else "reconcile.repaired",
            peer=contract.peer_node_id,
            subject=subject,
            repair=repair.value,
            theirs=theirs.value if theirs else "unknown",
            trace_id=trace_id,
        )


def _told_our_key(contract: Contract) -> bool:
    return contract.direction is Direction.IN and contract.status is ApprovalState.APPROVED
