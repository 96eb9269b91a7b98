"""Receipts of this node's jobs: ours, and our signature under a partner's that says what we know ourselves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.auth.schemes import Signer
from gateway.errors import Kind, Refused
from gateway.mgmt_plane.core.receipt import SIGNATURES, check_receipt, differences, judge, receipt_text, statement
from gateway.mgmt_plane.service.jobs import JobBook
from gateway.mgmt_plane.service.partners import Partners
from gateway.mgmt_plane.service.trail import record
from gateway.model import JobId, Json, NodeId, Receipt, Share
from gateway.ports import Clock, Tx
from specs.states import JobState


class Receipts:
    """Works inside transactions that the callers open."""

    def __init__(self, *, book: JobBook, partners: Partners, signer: Callable[[], Signer], clock: Clock) -> None:
        self._book = book
        self._partners = partners
        self._signer = signer
        self._clock = clock

    def _statement(self, tx: Tx, job_id: JobId) -> dict[str, Any]:
        job = self._book.get(tx, job_id)
        if job.status is not JobState.FINISHED:
            raise Refused("only a finished job has a receipt", kind=Kind.ILLEGAL_TRANSITION)
        return statement(job, self._book.plan(job), tx.select(Share, job_id=job_id))

    def _signature(self, stated: Json) -> dict[str, Any]:
        node_id, at, signer = self._book.identity.node_id, self._clock.now_ms(), self._signer()
        return {
            "node_id": node_id,
            "at": at,
            "auth_type": signer.auth_type.value,
            "credential": signer.credential,
            "signature": signer.sign(receipt_text(stated, node_id=node_id, at=at)),
        }

    def issue(self, tx: Tx, job_id: JobId) -> Mapping[str, Any]:
        """{receipt, signatures}: what is kept of the job, else our statement under our signature. Raises Refused."""
        kept = tx.get(Receipt, job_id)
        if kept is not None:
            return {"receipt": kept.receipt, "signatures": list(kept.signatures)}
        stated = self._statement(tx, job_id)
        signature = self._signature(stated)
        record(tx, "receipt.signed", f"job:{job_id}", outcome=stated["outcome"], finished=stated["finished"])
        return {"receipt": stated, "signatures": [signature]}

    def countersign(self, tx: Tx, job_id: JobId, value: Any, *, told_late: bool = False) -> Mapping[str, Any]:
        """The same receipt with our signature added, once; `value` is from outside. told_late: see `differences`.

        Raises ProtocolViolation for what is no receipt, Refused(CONFLICT) where it contradicts our records, and
        Refused(UNAUTHENTICATED) where a signature does not hold under the anchor pinned for its node.
        """
        stated, signatures = check_receipt(value)
        own = self._statement(tx, job_id)
        if found := differences(own, stated, told_late=told_late):
            raise Refused(f"the receipt is not what happened here: {found[0]}", kind=Kind.CONFLICT)
        self.check(tx, stated, signatures)
        ours = self._book.identity.node_id
        if any(each["node_id"] == ours for each in signatures) or len(signatures) >= SIGNATURES:
            return {"receipt": stated, "signatures": list(signatures)}
        signers = sorted(str(each["node_id"]) for each in signatures)
        record(tx, "receipt.countersigned", f"job:{job_id}", outcome=stated["outcome"], signers=signers)
        return {"receipt": stated, "signatures": [*signatures, self._signature(stated)]}

    def check(self, tx: Tx, stated: Json, signatures: Sequence[Json]) -> None:
        """Raises Refused(UNAUTHENTICATED) unless each signature holds under the anchor pinned for its node."""
        for each in judge(stated, signatures):
            problem = each.problem
            if not problem and each.fingerprint != self._anchor(tx, each.node_id):
                problem = "signed under another anchor than the one pinned for this node"
            if problem:
                raise Refused(f"signature of {each.node_id}: {problem}", kind=Kind.UNAUTHENTICATED)

    def keep(self, tx: Tx, job_id: JobId, signed: Mapping[str, Any]) -> Receipt:
        """Remember the job's receipt. signed: from `issue` or `countersign`."""
        now = self._clock.now_ms()
        kept = Receipt(job_id, signed["receipt"], tuple(signed["signatures"]), problem="", created=now, updated=now)
        tx.insert(kept)
        return kept

    def _anchor(self, tx: Tx, node_id: str) -> str:
        if node_id == self._book.identity.node_id:
            return self._signer().fingerprint
        return self._partners.contract_with(tx, NodeId(node_id)).fingerprint
