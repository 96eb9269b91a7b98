"""Receipts that the gateways of a finished job sign by themselves: an extension of ours (docs/adr/0007).

The scheduler offers its signed receipt to those participants that have announced, in their answer to its job/stop, that
they take one; the answer is their signature over the same statement. Every step is kept in the transaction of the call
that caused it, so a crash or a lost answer only repeats it. Nothing waits for a receipt.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.errors import GatewayError, Kind, PeerError, ProtocolViolation, Refused
from gateway.mgmt_plane.core.receipt import check_receipt
from gateway.mgmt_plane.core.trail import canonical
from gateway.mgmt_plane.service.ending import is_kin
from gateway.mgmt_plane.service.jobs import JobBook
from gateway.mgmt_plane.service.outgoing import Outgoing
from gateway.mgmt_plane.service.receipts import Receipts
from gateway.mgmt_plane.service.trail import record
from gateway.model import CallState, Contract, Job, JobId, Json, OutCall, Receipt
from gateway.ports import Caller, PeerReply, Tx
from specs.routes import EXTENSIONS, JOB_RECEIPT
from specs.states import JobState

ROUTE: Final = "interconn.job.receipt"
RECEIPT_BYTES: Final = 512 << 10
"""Of a partner's statement and signature together."""
_WORDS: Final = 300


def announces(data: Mapping[str, Any], extension: str) -> bool:
    """Whether a partner's answer says that it knows `extension`."""
    known = data.get(EXTENSIONS)
    return isinstance(known, list) and extension in known[:64]


class ReceiptExchange:
    """Both halves; works inside transactions that the callers open."""

    def __init__(self, *, receipts: Receipts, book: JobBook, outgoing: Outgoing) -> None:
        self._receipts = receipts
        self._book = book
        self._outgoing = outgoing

    # -- as the scheduler

    def call_ended(self, tx: Tx, call: OutCall, answer: PeerReply | PeerError | None) -> None:
        """A call of the outbox is over (runtime.outbox.OnResult)."""
        if call.route == ROUTE:
            self._answered(tx, call, answer)
        elif call.route == "job.stop" and isinstance(answer, PeerReply) and announces(answer.data, JOB_RECEIPT):
            try:
                self._offer(tx, call)
            except GatewayError as error:
                # A key that cannot be reached, say: the job/stop was answered all the same.
                self._book.journal.note(
                    "receipt.failed", job_id=str(call.body.get("job_id")), reason=str(error)[:_WORDS]
                )

    def _offer(self, tx: Tx, call: OutCall) -> None:
        job, contract = tx.get(Job, str(call.body.get("job_id"))), tx.get(Contract, call.contract_id)
        if job is None or contract is None or not is_kin(self._book.identity, contract) or not self._ran(job):
            return
        nodes = self._book.plan(job).participants
        if call.peer_node_id not in nodes or self._book.own not in nodes:
            return
        kept = self._kept(tx, job.job_id)
        if any(each["node_id"] == call.peer_node_id for each in kept.signatures):
            return
        own = [each for each in kept.signatures if each["node_id"] == self._book.own]
        self._outgoing.put(
            tx,
            contract=contract,
            route=ROUTE,
            body={"receipt": kept.receipt, "signatures": own},
            subject=f"receipt:{job.job_id}",
            trace_id=job.trace_id or None,
        )

    @staticmethod
    def _ran(job: Job) -> bool:
        return job.scheduling and job.status is JobState.FINISHED and job.started is not None

    def _kept(self, tx: Tx, job_id: JobId) -> Receipt:
        """The job's receipt, made and signed at the first use."""
        kept = tx.get(Receipt, job_id)
        if kept is None:
            made = self._receipts.issue(tx, job_id)
            kept = self._receipts.keep(tx, job_id, made)
        return kept

    def _answered(self, tx: Tx, call: OutCall, answer: PeerReply | PeerError | None) -> None:
        kept = tx.get(Receipt, str(call.subject.removeprefix("receipt:")))
        if kept is None:
            return
        peer = call.peer_node_id
        if call.state is not CallState.DONE or not isinstance(answer, PeerReply):
            self._failed(tx, kept, f"{peer} did not sign: {call.error}")
            return
        signature = answer.data.get("signature")
        try:
            _, signatures = check_receipt({"receipt": kept.receipt, "signatures": [signature]})
            self._receipts.check(tx, kept.receipt, signatures)
        except (ProtocolViolation, Refused) as error:
            self._failed(tx, kept, f"{peer} did not sign: {error}")
            return
        if signatures[0]["node_id"] != peer:
            self._failed(tx, kept, f"{peer} did not sign: the signature is of another node")
            return
        others = tuple(each for each in kept.signatures if each["node_id"] != peer)
        now = self._book.clock.now_ms()
        tx.replace(kept, replace(kept, signatures=(*others, signatures[0]), problem="", updated=now))
        record(tx, "receipt.countersigned", f"job:{kept.job_id}", outcome=kept.receipt["outcome"], by=peer)

    def _failed(self, tx: Tx, kept: Receipt, problem: str) -> None:
        tx.replace(kept, replace(kept, problem=problem[:_WORDS], updated=self._book.clock.now_ms()))
        record(tx, "receipt.refused", f"job:{kept.job_id}", problem=problem[:_WORDS])

    # -- as a participant

    def receive(self, tx: Tx, caller: Caller, body: Json) -> Json:
        """{signature}: ours under the receipt of the job's scheduler; the same again where it is offered again.

        Raises ProtocolViolation for what is no receipt of one signature, Refused(FORBIDDEN) where the caller does not
        schedule the job, Refused(TOO_MANY) where it shall ask again, else as Receipts.countersign.
        """
        stated, signatures = check_receipt({"receipt": body.get("receipt"), "signatures": body.get("signatures")})
        if len(signatures) != 1 or signatures[0]["node_id"] != caller.node_id:
            raise ProtocolViolation("a receipt is offered under the sender's signature alone")
        if len(canonical({"receipt": stated, "signatures": list(signatures)})) > RECEIPT_BYTES:
            raise ProtocolViolation("the receipt is too large", kind=Kind.TOO_LARGE)
        job = self._book.get(tx, stated["job_id"])
        if job.scheduling or job.scheduler != caller.node_id:
            raise Refused("only the scheduler of the job offers its receipt")
        if not set(stated["tasks"]) <= set(self._book.plan(job).order):
            raise Refused("the receipt is not what happened here: it names other tasks", kind=Kind.CONFLICT)
        if job.unsure:
            # We ended it ourselves and are just asking how it ended there: the sender tries again.
            raise Refused("this node does not know yet how the job ended", kind=Kind.TOO_MANY)
        kept = tx.get(Receipt, job.job_id)
        if kept is None:
            value = {"receipt": stated, "signatures": list(signatures)}
            signed = self._receipts.countersign(tx, job.job_id, value, told_late=True)
            kept = self._receipts.keep(tx, job.job_id, signed)
        elif canonical(kept.receipt) != canonical(stated):
            raise Refused("another receipt of this job has been signed", kind=Kind.CONFLICT)
        return {"signature": next(each for each in kept.signatures if each["node_id"] == self._book.own)}
