"""The redacted tail of a task's log for a partner, where an admin here has consented: an extension of ours (ADR 0007).

Off by default. The consent is for one job or for every job with a partner, and is looked at for each request; who asks
must take part in the job. Every showing is told to the audit trail. What is shown is `core.log_tail`'s.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core.log_tail import LINES, read_answer, redacted, told
from gateway.mgmt_plane.service.ending import is_kin
from gateway.mgmt_plane.service.jobs import JobBook, Partners
from gateway.mgmt_plane.service.trail import record
from gateway.model import Component, Contract, Job, JobId, Json, LogConsent, NodeId, Share
from gateway.ports import Caller, PeerClient, Store, Tx

ROUTE: Final = "interconn.job.log"
MOST: Final = 1024
"""Consents at a time."""


class Logs(Protocol):
    """What is needed of runtime.tasks.TaskRunner; reads a file and blocks."""

    def tail_log(self, share: Share, lines: int) -> Sequence[str]: ...


class ClosingPartners(Partners, Protocol):
    """What is needed of service.partners."""

    def on_closed(self, listener: Callable[[Tx, Contract], None]) -> None: ...


class LogTails:
    """Both sides: the consents and answers of this node, and its questions."""

    def __init__(
        self,
        *,
        store: Store,
        book: JobBook,
        partners: ClosingPartners,
        peers: PeerClient,
        logs: Logs,
        words: frozenset[str],
    ) -> None:
        """words: by which the keeper of a component says why it ended it."""
        self._store = store
        self._book = book
        self._partners = partners
        self._peers = peers
        self._logs = logs
        self._words = words
        partners.on_closed(self._on_closed)

    # -- the switch

    async def consent(self, node_id: NodeId, job_id: str, *, allow: bool) -> list[LogConsent]:
        """Set or take back the consent for a job, or with "" for all with this partner; those that stand then.

        Raises Refused(NODE_UNKNOWN) for who is no partner, NOT_FOUND for a job that is not known or not the partner's.
        """

        def work(tx: Tx) -> list[LogConsent]:
            made = LogConsent(node_id=node_id, job_id=JobId(job_id), created=self._book.clock.now_ms())
            known = tx.get(LogConsent, made.key())
            if allow and known is None:
                self._partners.contract_with(tx, node_id)
                if job_id and not self._concerns(self._book.get(tx, job_id), node_id):
                    raise Refused("that partner does not take part in the job", kind=Kind.NOT_FOUND)
                if tx.count(LogConsent) >= MOST:
                    raise Refused(f"there are {MOST} consents already: take some back", kind=Kind.TOO_MANY)
                tx.insert(made)
            elif not allow and known is not None:
                tx.delete(known)
            return list(tx.select(LogConsent, order="-created"))

        return await self._store.run(work)

    def _on_closed(self, tx: Tx, contract: Contract) -> None:
        """A partner that comes back under a new contract has to be trusted anew."""
        for each in tx.select(LogConsent):
            if each.node_id == contract.peer_node_id:
                tx.delete(each)

    async def consents(self) -> list[LogConsent]:
        return await self._store.run(lambda tx: list(tx.select(LogConsent, order="-created")))

    # -- asked

    async def answer(self, caller: Caller, body: Json) -> Json:
        """{tasks: [...]} of this node's shares; raises Refused(FORBIDDEN) without a consent, whatever the job."""
        job_id, name = body.get("job_id"), body.get("task_name")
        if not isinstance(job_id, str) or not (name is None or isinstance(name, str)):
            raise ProtocolViolation("job_id and task_name must be texts")

        def work(tx: Tx) -> list[tuple[Share, dict[str, Any]]]:
            job = tx.get(Job, job_id)
            given = [LogConsent(caller.node_id, JobId(each), created=0).key() for each in (job_id, "")]
            consent = any(tx.get(LogConsent, key) for key in given)
            # One answer for all that is not shown: nobody learns here which jobs there are.
            if job is None or not consent or not self._concerns(job, caller.node_id):
                raise Refused("no consent to show this log")
            shares = [each for each in tx.select(Share, job_id=job_id) if name in (None, each.task_name)]
            record(tx, "log.shown", f"job:{job_id}", to=caller.node_id, tasks=sorted({s.task_name for s in shares}))
            found = []
            for share in shares:
                component = tx.get(Component, share.component)
                description = self._book.describe(component) if component is not None else None
                found.append((share, {"task_name": share.task_name, **told(share, description)}))
            return found

        found = await self._store.run(work)
        for share, shown in found:
            shown["lines"] = redacted(await asyncio.to_thread(self._logs.tail_log, share, LINES), words=self._words)
        return {"tasks": [shown for _, shown in found]}

    def _concerns(self, job: Job, node_id: NodeId) -> bool:
        return node_id in {*self._book.plan(job).participants, job.initiator, job.scheduler}

    # -- asking

    async def ask(self, job_id: str, node_id: NodeId, task_name: str | None) -> list[dict[str, Any]]:
        """What a partner shows of its part.

        Raises Refused where it has not this software, PeerError where it does not show it.
        """

        def work(tx: Tx) -> tuple[Job, Contract]:
            job = self._book.get(tx, job_id)
            if not self._concerns(job, node_id):
                raise Refused(f"{node_id} does not take part in the job", kind=Kind.NOT_FOUND)
            contract = self._partners.contract_with(tx, node_id)
            if not is_kin(self._book.identity, contract):
                raise Refused(f"the gateway of {node_id} shows no logs", kind=Kind.NOT_OFFERED)
            return job, contract

        job, contract = await self._store.run(work)
        body: Mapping[str, Any] = {"job_id": job_id, **({"task_name": task_name} if task_name else {})}
        reply = await self._peers.call(contract, ROUTE, body, trace_id=job.trace_id)
        return read_answer(reply.data, self._book.limits.dag_components)
